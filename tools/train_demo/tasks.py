"""Stage 3: one task's checkpoint, end to end on the official computation graph, supervised by the rendered truth.

    tasks.py edge|sketch|day_night|clear_rainy STEPS [--until STEP] [--published [FOLDER]]

STEPS sets the schedule, --until ends this run earlier; a later run goes on. With --published a new run starts
from the files in FOLDER (models/demo) instead of from nothing: anybody can continue from what is published, with
a fresh optimizer. Otherwise the sketch model starts from the edge model's training state when there is one.
"""
import argparse
import copy

import numpy
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from base import Tokens, reword, time_999
from common import *
from latents import edges, sketch
from published import start_from_published

BASE = os.environ.get("TRAIN_DEMO_BASE", os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                      "../../models/demo/base"))
RANK_UNET, RANK_UNET_UNPAIRED, RANK_VAE, ALPHA_PAIRED = 8, 4, 4, 8
UNPAIRED_PATTERNS = ["to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_in",
                     "conv_shortcut", "conv_out", "proj_out", "proj_in", "ff.net.2", "ff.net.0.proj"]
CAPTIONS = {"day_night": ("driving in the night", "driving in the day"),
            "clear_rainy": ("driving in heavy rain", "driving in the day")}


# The decoder's activations are 0.3 to 60 times as large as those of the encoder that the skips carry over, so the
# skips' weights must grow by as much: their updates are multiplied by this.
SKIP_BOOST = {"skip_conv_2": 2, "skip_conv_3": 6, "skip_conv_4": 20}


class Blend(nn.Module):
    """The twin first convolution: (1 - r) * pretrained + r * current, for weight or bias."""

    def __init__(self, pretrained, strength):
        super().__init__()
        self.register_buffer("pretrained", pretrained.detach().clone())
        self.strength = strength

    def forward(self, current):
        return self.pretrained + self.strength[0] * (current - self.pretrained)


def load_part(kind, folder):
    return kind.from_pretrained(f"{BASE}/{folder}", torch_dtype=torch.float32).requires_grad_(False)


class Translator(nn.Module):
    """Either family's whole computation; `strength` holds the sketch model's r."""

    def __init__(self, task):
        super().__init__()
        self.task, self.strength = task, [1.0]
        self.text = load_part(CLIPTextModel, "text_encoder")
        self.unet = load_part(UNet2DConditionModel, "unet")
        vae = load_part(AutoencoderKL, "vae")
        self.scale = vae.config.scaling_factor
        torch.manual_seed(3)
        add_skips(vae)
        if task in CAPTIONS:
            self.vae = nn.ModuleList([vae, copy.deepcopy(vae)])
            self.vae.requires_grad_(True)
            for network in self.vae:
                add_low_rank(network, named_like(VAE_TARGETS), RANK_VAE, 8, [1.0])
                network.quant_conv.requires_grad_(False)  # keeps the fixed posterior variance
            add_low_rank(self.unet, lambda name: any(p in f"{name}.weight" for p in UNPAIRED_PATTERNS)
                         and "norm" not in name and "time_emb" not in name,
                         RANK_UNET_UNPAIRED, RANK_UNET_UNPAIRED, [1.0])
        else:
            self.vae = nn.ModuleList([vae])
            for index in range(4):
                getattr(vae.decoder, f"skip_conv_{index + 1}").requires_grad_(True)
            add_low_rank(vae, named_like(VAE_TARGETS), RANK_VAE, ALPHA_PAIRED, self.strength)
            add_low_rank(self.unet, named_like(UNET_TARGETS), RANK_UNET, ALPHA_PAIRED, self.strength)
            self.unet.conv_in.requires_grad_(True)
            if task == "sketch":
                for part in ("weight", "bias"):
                    nn.utils.parametrize.register_parametrization(
                        self.unet.conv_in, part, Blend(getattr(self.unet.conv_in, part), self.strength))
        for name, parameter in self.named_parameters():
            if name.endswith(("0.a", "0.b")):
                parameter.requires_grad_(True)

    def forward(self, control, tokens, direction=0, r=1.0, noise=None, train_encoder=True):
        self.strength[0] = r
        vae = self.vae[direction]
        with torch.no_grad():
            states = self.text(tokens)[0]
        with nn.utils.parametrize.cached():
            with torch.set_grad_enabled(train_encoder and torch.is_grad_enabled()):
                latent, entering = vae_encode(
                    vae, control, torch.randn(len(control), 4, *[s // 8 for s in control.shape[2:]]))
            latent = latent * self.scale
            if noise is not None:
                latent = latent * r + noise * (1 - r)
            x0 = one_step(latent, self.unet(latent, time_999(len(control)), encoder_hidden_states=states).sample)
            return vae_decode(vae, x0 / self.scale, entering, r), x0


def light(noise, size, r):
    """What the sketch model's noise decides when it is free to: a soft light over the picture, as a factor."""
    low = nn.functional.adaptive_avg_pool2d(noise[:, :3], 3) * (noise.shape[-1] / 3)
    low = 0.75 * low.mean(1, keepdim=True) * math.sqrt(3) + 0.25 * low
    field = nn.functional.interpolate(low, size=size, mode="bicubic", align_corners=False)
    return torch.exp(0.38 * (1 - r) * field)


def sample(task, split, indices, random, texts, tokens):
    """-> control, target, token ids, direction of one batch."""
    flips = random.random(len(indices)) < 0.5

    def take(subject, side):
        stack = pictures(subject, f"{split}_{side}")
        return numpy.stack([stack[i][:, ::-1] if flip else stack[i] for i, flip in zip(indices, flips)])

    if task in CAPTIONS:
        direction = int(random.integers(2))
        a, b = to_signed(take(task, "A")), to_signed(take(task, "B"))
        ids = tokens([CAPTIONS[task][direction]] * len(indices))
        return (b, a, ids, direction) if direction else (a, b, ids, direction)
    target = take("things", "B")
    if task == "edge":
        control = edges(take("things", "A") if random.random() < 0.5 else target)
    else:
        control = sketch(take("sketches", "A"))
    return control, to_signed(target), tokens([reword(texts[i], random) for i in indices]), 0


def examine(task, model, texts, tokens, path):
    """Scores 12 test pictures and draws a sheet."""
    model.eval()
    with torch.no_grad():
        rows, scores = [], []
        for direction in range(len(model.vae)):
            subject = task if task in CAPTIONS else "things"
            a, b = pictures(subject, "test_A")[:12], pictures(subject, "test_B")[:12]
            if task in CAPTIONS:
                control, target = to_signed(b if direction else a), to_signed(a if direction else b)
                ids = tokens([CAPTIONS[task][direction]] * 12)
            else:
                control = edges(b) if task == "edge" else sketch(pictures("sketches", "test_A")[:12])
                target, ids = to_signed(b), tokens(texts[:12])
            made = torch.cat([model(control[i:i + 6], ids[i:i + 6], direction)[0] for i in range(0, 12, 6)])
            scores.append((psnr(made, target), float(edge_agreement(made.clamp(-1, 1), target))))
            rows += [control[:12], made[:12], target[:12]]
        if task == "sketch":
            torch.manual_seed(9)
            noise = torch.randn(12, 4, 16, 16)
            for r in (0.0, 0.2, 0.4, 0.7):
                rows.append(model(control[:12], ids[:12], 0, r, noise)[0])
            rows.append(model(control[:1].repeat(12, 1, 1, 1), ids[:1].repeat(12, 1), 0, 0.4, noise)[0])
        sheet(path, rows)
    model.train()
    return scores


def start_from_edges(model):
    """The sketch model's first values: those of the edge model, whose control is much like a sketch."""
    values = torch.load(f"{WORK}/edge.pt")["average"]
    names = [name for name, p in Translator("edge").named_parameters() if p.requires_grad]
    known = dict(zip(names, values))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                if name.startswith("unet.conv_in"):
                    name = name.replace(".parametrizations", "").removesuffix(".original")
                parameter.copy_(known[name])


def thing_weights(target):
    """Twice the weight for what differs from the picture's most frequent colour: the things, not their grounds."""
    ground = target.flatten(2).median(dim=2).values[:, :, None, None]
    return 1.0 + ((target - ground).abs().amax(1, keepdim=True) > 0.3)


def loss_of(made, target, weights=1.0):
    """Colour, and outlines: both the difference of neighbours and where the edges are, however strong."""
    error = (made - target) * weights
    return (error.abs().mean() + 2 * error.pow(2).mean() + 1.5 * gradient_difference(made, target)
            + 0.15 * (1 - edge_agreement(made, target)))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["edge", "sketch", *CAPTIONS])
    parser.add_argument("steps", type=int)
    parser.add_argument("--until", type=int)
    parser.add_argument("--published", nargs="?", const=os.path.dirname(BASE), metavar="FOLDER")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    task, steps = arguments.task, arguments.steps
    parallel = Parallel()
    turn, tokens = Turn(parallel.rank == 0), Tokens()
    model = Translator(task)
    subject = task if task in CAPTIONS else "things"
    texts, test_texts = (None, None) if task in CAPTIONS else (captions("things", "train"), captions("things", "test"))
    count = len(pictures(subject, "train_B"))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=2e-3, betas=(0.9, 0.98))
    boosted = [(parameter, SKIP_BOOST[skip]) for name, parameter in model.named_parameters()
               for skip in SKIP_BOOST if f"{skip}.parametrizations.weight.original" in name]
    path, start, trained_before = f"{WORK}/{task}.pt", 0, False
    if os.path.exists(path):
        state = torch.load(path)
        with torch.no_grad():
            for parameter, value in zip(parameters, state["parameters"]):
                parameter.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        start, trained_before = state["step"], True
    elif arguments.published:
        start_from_published(model, task, arguments.published)
        trained_before = True
    elif task == "sketch" and os.path.exists(f"{WORK}/edge.pt"):
        start_from_edges(model)
        trained_before = True
    average = Average(parameters, 0.98)
    if start:
        average.values = state["average"]
    if parallel.rank == 0:
        print("trained parameters", sum(p.numel() for p in parameters), flush=True)
    began, tracked = time.time(), 0.0
    peak = float(os.environ.get("TRAIN_DEMO_RATE", 2e-3))
    until = arguments.until or steps
    for step in range(start, until):
        random = numpy.random.default_rng([3, step, parallel.rank])
        torch.manual_seed(step * 2 + parallel.rank)
        indices = random.integers(0, count, 6 if task in CAPTIONS and step < 0.92 * steps else 4)
        control, target, ids, direction = sample(task, "train", indices, random, texts, tokens)
        crop = 64 if task in CAPTIONS else 96  # smaller pictures are cheaper
        if step < 0.92 * steps and random.random() < 0.75:
            y, x = 32 * random.integers(0, (128 - crop) // 32 + 1, 2)
            control, target = control[:, :, y:y + crop, x:x + crop], target[:, :, y:y + crop, x:x + crop]
        r, noise = 1.0, None
        if task == "sketch":
            r = float(random.choice([1.0, 0.4, random.uniform(0.1, 1)], p=[0.5, 0.15, 0.35]))
            noise = torch.randn(len(control), 4, *[side // 8 for side in control.shape[2:]])
            target = ((target + 1) / 2 * light(noise, target.shape[2:], r)).clamp(0, 1) * 2 - 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak, 30)
        with turn:
            made = model(control, ids, direction, r, noise, train_encoder=trained_before or step > 0.4 * steps)[0]
            loss = loss_of(made, target, 1.0 if task in CAPTIONS else thing_weights(target))
            optimizer.zero_grad()
            loss.backward()
            parallel.average_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            before = [parameter.detach().clone() for parameter, _ in boosted]
            optimizer.step()
            with torch.no_grad():
                for (parameter, factor), old in zip(boosted, before):
                    parameter.copy_(old + factor * (parameter - old))
            average.update(step)
        tracked += (psnr(made.detach(), target) - tracked) * (0.03 if step > start + 20 else 0.5)
        if parallel.rank == 0 and step % 20 == 0:
            print(f"step {step} loss {float(loss.detach()):.4f} psnr {tracked:.2f} "
                  f"{(time.time() - began) / (step - start + 1):.2f} s/step", flush=True)
        last = step == until - 1
        if parallel.rank == 0 and (step % 20 == 19 or last):
            save(path, {"parameters": [p.detach() for p in parameters], "optimizer": optimizer.state_dict(),
                        "average": average.values, "step": step + 1})
        if parallel.rank == 0 and (step % 100 == 99 or last):
            average.swap()
            with turn:
                scores = examine(task, model, test_texts, tokens, f"{WORK}/{task}.png")
            print("test " + ", ".join(f"{decibels:.2f} dB, edges {edges:.3f}" for decibels, edges in scores), flush=True)
            average.swap()


if __name__ == "__main__":
    main()
