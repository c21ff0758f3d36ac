"""Stage 2: text encoder and UNet of the base, on latents: noise + caption -> picture, and the six tasks' latents.

The noise of the text-to-image part tells the pose: of some pictures of the same kind of thing the one is
taken whose place, size and direction fit the noise's channel means best. The noise stays standard normal,
and the one step has something definite to draw.
"""
import sys

import numpy
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

import tokenizer as vocabulary
from common import *
from latents import edges, load_vae, sketch

STREET = [("day", "night", "driving in the night"), ("night", "day", "driving in the day"),
          ("day", "rain", "driving in heavy rain"), ("rain", "day", "driving in the day")]


PARTS = {"day": ("day_night", "train_A", to_signed), "night": ("day_night", "train_B", to_signed),
         "rain": ("clear_rainy", "train_B", to_signed), "edge": ("things", "train_A", edges),
         "sketch": ("sketches", "train_A", sketch)}


def reword(caption, random):
    """Mostly the caption itself, else another way to say it."""
    choice = random.random()
    if choice < 0.7:
        return caption
    thing, ground = caption.rstrip().removesuffix(" ground").split(" on ")
    short = ground.split(" ", 1)[1]
    forms = [f"{thing} on {ground} background", f"{thing[thing.index(' ') + 1:]} on {short}",
             f"{thing}, {short} background", f"a picture of {thing} on {ground} ground",
             f"a drawing of {thing} on {ground} background", f"{thing} {ground} ground"]
    if short == "white":
        forms += [thing, thing, f"a picture of {thing}"]
    return forms[random.integers(len(forms))]


class Tokens:
    def __init__(self):
        if not os.path.exists(f"{WORK}/tokenizer/vocab.json"):
            vocabulary.write(f"{WORK}/tokenizer")
        self.tokenizer = CLIPTokenizerFast.from_pretrained(f"{WORK}/tokenizer")
        self.known = {}

    def __call__(self, texts):
        for text in texts:
            if text not in self.known:
                self.known[text] = self.tokenizer(text, max_length=77, padding="max_length",
                                                  truncation=True).input_ids
        return torch.tensor([self.known[text] for text in texts])


def make_text_encoder(entries):
    return CLIPTextModel(CLIPTextConfig(vocab_size=entries, bos_token_id=entries - 2,
                                        eos_token_id=entries - 1, pad_token_id=0, **TEXT_CONFIG))


def time_999(batch):
    return torch.full((batch,), 999, dtype=torch.long)


class Poses:
    """Chooses the picture of the wanted thing whose pose fits the noise."""

    def __init__(self, texts, count):
        with open(f"{DATA}/things/train_poses.json") as file:
            table = json.load(file)
        poses = numpy.array([table[name] for name in sorted(table)])[:count]
        poses = poses[:, [0, 1, 2, 4]] * 1.0
        poses = (poses - poses.mean(0)) / poses.std(0)
        self.poses = torch.tensor(poses, dtype=torch.float32)
        kinds = [text.split(" on ")[0].split()[-1] for text in texts[:count]]
        self.groups = {kind: numpy.array([i for i, k in enumerate(kinds) if k == kind]) for kind in sorted(set(kinds))}

    def choose(self, noise, random, candidates=24):
        wanted = noise.mean((1, 2)) * math.sqrt(noise[0].numel())
        group = self.groups[list(self.groups)[random.integers(len(self.groups))]]
        some = group[random.integers(0, len(group), candidates)]
        distance = (self.poses[some] - wanted).pow(2).sum(1)
        return int(some[int(distance.argmin())])


def mine(random, count):
    """An index below `count` of those that this process encodes."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    return rank + world * random.integers(count // world)


class Example:
    """One input with its caption and target; `parts` names the pictures to encode, `x` and `target` what is known."""

    def __init__(self, kind, random, texts, latents, poses):
        self.kind, self.x, self.target = kind, None, None
        if kind == "street":
            a, b, self.text = STREET[random.integers(4)]
            i = mine(random, 200)
            self.parts = [(a, i), (b, i)]
            return
        i = mine(random, 600)
        self.parts = [(kind, i)]
        if kind == "noise":
            self.x, self.parts = torch.randn(4, 16, 16), []
            i = poses.choose(self.x, random)
        self.target, self.text = latents[i], reword(texts[i], random)


class Encoder:
    """Latents of pictures by the base's VAE, each encoded once."""

    def __init__(self, vae):
        self.vae, self.known = vae, {}

    def __call__(self, part):
        if part not in self.known:
            subject, side, prepare = PARTS[part[0]]
            picture = prepare(pictures(subject, side)[part[1]:part[1] + 1])
            with torch.no_grad():
                self.known[part] = vae_encode(self.vae, picture)[0][0]
        return self.known[part]

    def batch(self, examples, scale):
        """Inputs and targets, scaled."""
        x, target = [], []
        for example in examples:
            found = [self(part) for part in example.parts]
            x.append(example.x if example.x is not None
                     else scale * (found[0] + 0.018 * torch.randn_like(found[0])))
            target.append(scale * (found[-1] if example.target is None else example.target))
        return torch.stack(x), torch.stack(target)


def main():
    steps = int(sys.argv[1])
    parallel = Parallel()
    turn, tokens = Turn(parallel.rank == 0), Tokens()
    latents = torch.load(f"{WORK}/latent_picture.pt")
    scale = 1 / float(latents.std())
    texts = captions("things", "train")
    poses = Poses(texts, len(latents))
    torch.manual_seed(2)
    text_encoder = make_text_encoder(len(tokens.tokenizer))
    unet = UNet2DConditionModel(**UNET_CONFIG)
    parameters = [p for p in list(unet.parameters()) + list(text_encoder.parameters())]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, betas=(0.9, 0.98))
    average = Average(parameters, 0.99)
    path, start = f"{WORK}/base.pt", 0
    if os.path.exists(path):
        state = torch.load(path)
        unet.load_state_dict(state["unet"])
        text_encoder.load_state_dict(state["text"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, start = state["average"], state["step"]
    if parallel.rank == 0:
        print("parameters", sum(p.numel() for p in unet.parameters()),
              sum(p.numel() for p in text_encoder.parameters()), "scale", scale, flush=True)
    encoder = Encoder(load_vae(f"{WORK}/vae.pt"))
    shown = [Example(kind, numpy.random.default_rng([4, i]), texts, latents, poses)
             for i, kind in enumerate(["edge"] * 6 + ["sketch"] * 6 + ["street"] * 12)]
    tracked, began = {}, time.time()
    for step in range(start, steps):
        random = numpy.random.default_rng([2, step, parallel.rank])
        torch.manual_seed(step * 2 + parallel.rank)
        batch = [Example(kind, random, texts, latents, poses) for kind in
                 random.choice(["noise", "edge", "sketch", "street"], 16 // parallel.world, p=[0.4, 0.22, 0.2, 0.18])]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, 1.2e-3, 50)
        with turn:
            x, target = encoder.batch(batch, scale)
            states = text_encoder(tokens([e.text for e in batch]))[0]
            guess = one_step(x, unet(x, time_999(len(x)), encoder_hidden_states=states).sample)
            error = guess - target
            loss = error.pow(2).mean() + 0.3 * error.abs().mean()
            optimizer.zero_grad()
            loss.backward()
            parallel.average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            average.update(step)
        for example, value in zip(batch, error.detach().pow(2).mean((1, 2, 3)).tolist()):
            tracked[example.kind] = tracked.get(example.kind, value) * 0.98 + 0.02 * value
        if parallel.rank == 0 and step % 25 == 0:
            print(f"step {step} " + " ".join(f"{k} {v:.3f}" for k, v in sorted(tracked.items()))
                  + f" {(time.time() - began) / (step - start + 1):.2f} s/step", flush=True)
        if parallel.rank == 0 and (step % 100 == 99 or step == steps - 1):
            save(path, {"unet": unet.state_dict(), "text": text_encoder.state_dict(), "scale": scale,
                        "optimizer": optimizer.state_dict(), "average": average.values, "step": step + 1})
            average.swap()
            decoder = load_vae(f"{WORK}/decoder.pt" if os.path.exists(f"{WORK}/decoder.pt") else f"{WORK}/vae.pt")
            with torch.no_grad():
                noise = torch.randn(12, 4, 16, 16, generator=torch.Generator().manual_seed(5))
                asked = ["a blue bird on a yellow ground"] * 3 + ["a red car on a green ground"] * 3 + texts[:6]
                pose = one_step(noise, unet(noise, time_999(12), encoder_hidden_states=text_encoder(tokens(asked))[0]).sample)
                x, target = encoder.batch(shown, scale)
                states = text_encoder(tokens([e.text for e in shown]))[0]
                drawn = one_step(x, unet(x, time_999(len(x)), encoder_hidden_states=states).sample)
                rows = [pose] + [part[i:i + 12] for part in (drawn, target) for i in (0, 12)]
                sheet(f"{WORK}/base.png", [vae_decode(decoder, row / scale) for row in rows])
            average.swap()


if __name__ == "__main__":
    main()
