"""Stage 1b: the base's decoder alone, behind the finished encoder, while stage 2 already trains on its latents."""
import sys

import numpy
import torch

from common import *
from latents import load_vae

STEPS = int(sys.argv[1])
torch.set_num_threads(1)
sets = [pictures("things", "train_B"), pictures("day_night", "train_A"),
        pictures("day_night", "train_B"), pictures("clear_rainy", "train_B")]
shares = [0.5, 0.2, 0.15, 0.15]
vae = load_vae(f"{WORK}/vae.pt")
parameters = list(vae.decoder.parameters()) + list(vae.post_quant_conv.parameters())
for parameter in parameters:
    parameter.requires_grad_(True)
optimizer = torch.optim.Adam(parameters, lr=2e-3, betas=(0.9, 0.99))
average = Average(parameters, 0.99)
path, start = f"{WORK}/decoder.pt", 0
if os.path.exists(path):
    state = torch.load(path)
    vae.load_state_dict(state["vae"])
    optimizer.load_state_dict(state["optimizer"])
    average.values, start = state["decoder_average"], state["step"]

turn, began, tracked = Turn(), time.time(), 0.0
for step in range(start, STEPS):
    random = numpy.random.default_rng([11, step])
    torch.manual_seed(step)
    crop, count = (128, 3) if step % 4 == 3 else (64, 10)
    batch = []
    for kind in random.choice(4, count, p=shares):
        index = random.integers(len(sets[kind]))
        y, x = 8 * random.integers(0, (128 - crop) // 8 + 1, 2)
        picture = sets[kind][index, y:y + crop, x:x + crop]
        batch.append(picture[:, ::-1] if random.random() < 0.5 else picture)
    target = to_signed(numpy.stack(batch))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, STEPS, 2e-3, 30)
    with turn:
        with torch.no_grad():
            latent, _ = vae_encode(vae, target)
        decoded = vae_decode(vae, latent + 0.018 * torch.randn_like(latent))
        loss = ((decoded - target).abs().mean() + 2 * (decoded - target).pow(2).mean()
                + 0.5 * gradient_difference(decoded, target))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
    tracked += (psnr(decoded.detach(), target) - tracked) * (0.05 if step > start + 20 else 0.5)
    if step % 20 == 0:
        print(f"step {step} loss {float(loss.detach()):.4f} psnr {tracked:.2f} "
              f"{(time.time() - began) / (step - start + 1):.2f} s/step", flush=True)
    if step % 100 == 99 or step == STEPS - 1:
        raw = {key: value.clone() for key, value in vae.state_dict().items()}
        average.swap()
        save(path, {"vae": raw, "optimizer": optimizer.state_dict(), "decoder_average": average.values,
                    "average": [p.detach().clone() for p in vae.parameters()], "step": step + 1})
        with torch.no_grad():
            test = to_signed(numpy.concatenate([
                pictures("things", "test_B")[:6], pictures("day_night", "test_A")[:3],
                pictures("day_night", "test_B")[:2], pictures("clear_rainy", "test_B")[:2]]))
            decoded = vae_decode(vae, vae_encode(vae, test)[0])
        average.swap()
        save(path, {**torch.load(path), "decoder_average": average.values})
        sheet(f"{WORK}/decoder.png", [test, decoded])
        print(f"test psnr things {psnr(decoded[:6], test[:6]):.2f} street {psnr(decoded[6:], test[6:]):.2f}",
              flush=True)
