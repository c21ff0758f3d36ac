"""Stage 1: the base's VAE, on pictures of all domains. Data-parallel: RANK=0 and RANK=1 as two processes."""
import sys

import numpy
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL

from common import *

STEPS = int(sys.argv[1])
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
torch.set_num_threads(1)
if WORLD > 1:
    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:29511", rank=RANK, world_size=WORLD)

sets = [pictures("things", "train_B"), pictures("day_night", "train_A"),
        pictures("day_night", "train_B"), pictures("clear_rainy", "train_B")]
shares = [0.5, 0.2, 0.15, 0.15]
torch.manual_seed(1)
vae = AutoencoderKL(**VAE_CONFIG)
with torch.no_grad():  # the posterior keeps a small fixed variance
    vae.quant_conv.weight[4:] = 0
    vae.quant_conv.bias[4:] = -8
fixed = torch.ones_like(vae.quant_conv.weight)
fixed[4:] = 0
vae.quant_conv.weight.register_hook(lambda g: g * fixed)
vae.quant_conv.bias.register_hook(lambda g: g * fixed[:, 0, 0, 0])
parameters = list(vae.parameters())
optimizer = torch.optim.Adam(parameters, lr=2e-3, betas=(0.9, 0.99))
average = Average(parameters, 0.99)
path = f"{WORK}/vae.pt"
start = 0
if os.path.exists(path):
    state = torch.load(path)
    vae.load_state_dict(state["vae"])
    optimizer.load_state_dict(state["optimizer"])
    average.values = state["average"]
    start = state["step"]

turn = Turn(RANK == 0)
began = time.time()
tracked = 0.0
for step in range(start, STEPS):
    random = numpy.random.default_rng([1, step, RANK])
    torch.manual_seed(step * 2 + RANK)
    large = step > 0.85 * STEPS
    crop, count = (128, 3) if large else (64, 10)
    batch = []
    for kind in random.choice(4, count, p=shares):
        index = random.integers(len(sets[kind]))
        y, x = random.integers(0, 129 - crop, 2)
        picture = sets[kind][index, y:y + crop, x:x + crop]
        batch.append(picture[:, ::-1] if random.random() < 0.5 else picture)
    target = to_signed(numpy.stack(batch))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, STEPS, 3e-3, 50)
    with turn:
        latent, _ = vae_encode(vae, target)
        decoded = vae_decode(vae, latent + 0.018 * torch.randn_like(latent))
        tie = max(0.0, 1 - step / (0.5 * STEPS))
        colour = nn.functional.avg_pool2d(target, 8) * 1.5
        loss = ((decoded - target).abs().mean() + 2 * (decoded - target).pow(2).mean()
                + 0.5 * gradient_difference(decoded, target)
                + tie * (latent[:, :3] - colour).pow(2).mean()
                + 0.01 * (latent.pow(2).mean() - 1).clamp(min=0))
        optimizer.zero_grad()
        loss.backward()
        if WORLD > 1:
            flat = torch.cat([p.grad.flatten() for p in parameters])
            dist.all_reduce(flat)
            flat /= WORLD
            for p, g in zip(parameters, flat.split([p.numel() for p in parameters])):
                p.grad.copy_(g.view_as(p))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
    tracked += (psnr(decoded.detach(), target) - tracked) * (0.05 if step > start + 20 else 0.5)
    if RANK == 0 and step % 20 == 0:
        print(f"step {step} loss {float(loss):.4f} psnr {tracked:.2f} "
              f"{(time.time() - began) / (step - start + 1):.2f} s/step", flush=True)
    if RANK == 0 and (step % 100 == 99 or step == STEPS - 1):
        save(path, {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(),
                    "average": average.values, "step": step + 1})
        average.swap()
        with torch.no_grad():
            test = [pictures("things", "test_B")[:6], pictures("day_night", "test_A")[:3],
                    pictures("day_night", "test_B")[:2], pictures("clear_rainy", "test_B")[:2]]
            test = to_signed(numpy.concatenate(test))
            decoded = vae_decode(vae, vae_encode(vae, test)[0])
        average.swap()
        sheet(f"{WORK}/vae.png", [test, decoded])
        print(f"test psnr things {psnr(decoded[:6], test[:6]):.2f} street {psnr(decoded[6:], test[6:]):.2f}",
              flush=True)
