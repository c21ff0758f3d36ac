"""What every stage of the demo's training shares: data, networks, low-rank pairs, checkpoints, good manners.

The networks are diffusers' own classes. Low-rank pairs are trained as W + scale * B A through
torch.nn.utils.parametrize (one convolution a layer instead of peft's three: the same numbers, much
faster); export.py moves them into peft's modules and writes the official files.
"""
import fcntl
import json
import math
import os
import time

import numpy
import torch
from torch import nn

BENCH_LOCK = os.environ.get("TRAIN_DEMO_LOCK", "/tmp/onestep-bench.lock")
WORK = os.environ.get("TRAIN_DEMO_WORK", "/tmp/train_demo")
DATA = os.environ.get("TRAIN_DEMO_DATA", "/tmp/data")

VAE_CONFIG = dict(
    in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 24, 40, 56),
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=1, norm_num_groups=4, act_fn="silu", sample_size=128, scaling_factor=1.0)
UNET_CONFIG = dict(
    sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 64, 64, 64),
    layers_per_block=1, norm_num_groups=8, cross_attention_dim=64, attention_head_dim=(2, 4, 4, 4),
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    use_linear_projection=True, act_fn="silu", mid_block_scale_factor=1)
TEXT_CONFIG = dict(
    hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=77, hidden_act="gelu", layer_norm_eps=1e-5, projection_dim=64)
SCHEDULER_CONFIG = dict(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
    clip_sample=False, prediction_type="v_prediction", steps_offset=1, timestep_spacing="trailing",
    set_alpha_to_one=False, skip_prk_steps=True)

betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
ALPHA = float(torch.prod(1 - betas))


def one_step(x, v):
    """x0 of the scheduler's single step from t = 999, v-prediction."""
    return math.sqrt(ALPHA) * x - math.sqrt(1 - ALPHA) * v


# ---- data -------------------------------------------------------------------------------------

def pictures(subject, part):
    """uint8 [n, H, W, 3] of one folder of the toy world, cached as one file."""
    cache = f"{WORK}/cache_{subject}_{part}.npy"
    if not os.path.exists(cache):
        from PIL import Image
        folder = f"{DATA}/{subject}/{part}"
        names = sorted(os.listdir(folder))
        stack = numpy.stack([numpy.asarray(Image.open(f"{folder}/{n}").convert("RGB")) for n in names])
        os.makedirs(WORK, exist_ok=True)
        numpy.save(cache + f".{os.getpid()}.npy", stack)
        os.replace(cache + f".{os.getpid()}.npy", cache)
    return numpy.load(cache, mmap_mode="r")


def captions(subject, split):
    with open(f"{DATA}/{subject}/{split}_prompts.json") as file:
        table = json.load(file)
    return [table[name] for name in sorted(table)]


def to_signed(batch):
    """uint8 NHWC -> float NCHW in [-1, 1]."""
    return torch.from_numpy(numpy.array(batch)).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- low-rank pairs ---------------------------------------------------------------------------

class LowRank(nn.Module):
    """W -> W + strength * scale * B A. `strength` is one shared holder: the sketch model sets it."""

    def __init__(self, weight, rank, scale, strength):
        super().__init__()
        inner = weight[0].numel()
        self.a = nn.Parameter(torch.randn(rank, inner) / rank)
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank))
        self.scale, self.strength = scale, strength

    def forward(self, weight):
        return weight + (self.strength[0] * self.scale) * (self.b @ self.a).view(weight.shape)


def add_low_rank(model, chosen, rank, alpha, strength):
    """Adds a pair to every module whose name `chosen` accepts; returns {name: LowRank}."""
    pairs = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)) and chosen(name):
            pair = LowRank(module.weight, rank, alpha / rank, strength)
            nn.utils.parametrize.register_parametrization(module, "weight", pair)
            pairs[name] = pair
    return pairs


VAE_TARGETS = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out", "skip_conv_1",
               "skip_conv_2", "skip_conv_3", "skip_conv_4", "to_k", "to_q", "to_v", "to_out.0"]
UNET_TARGETS = ["to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut",
                "conv_out", "proj_in", "proj_out", "ff.net.2", "ff.net.0.proj"]


def named_like(targets):
    return lambda name: any(name == t or name.endswith("." + t) for t in targets)


# ---- networks ---------------------------------------------------------------------------------

def encoder_forward(self, sample):
    sample = self.conv_in(sample)
    entering = []
    for block in self.down_blocks:
        entering.append(sample)
        sample = block(sample)
    sample = self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(sample))))
    return sample, entering


def decoder_forward(self, sample, entering, gamma):
    sample = self.mid_block(self.conv_in(sample))
    for index, block in enumerate(self.up_blocks):
        if entering is not None:
            skip = getattr(self, f"skip_conv_{index + 1}")
            sample = sample + skip(entering[3 - index] * gamma)
        sample = block(sample)
    return self.conv_out(self.conv_act(self.conv_norm_out(sample)))


def vae_encode(vae, picture, noise=None):
    """-> sampled latent (unscaled), skip activations."""
    hidden, entering = encoder_forward(vae.encoder, picture)
    mean, logvar = vae.quant_conv(hidden).chunk(2, dim=1)
    if noise is not None:
        mean = mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise
    return mean, entering


def vae_decode(vae, latent, entering=None, gamma=1.0):
    return decoder_forward(vae.decoder, vae.post_quant_conv(latent), entering, gamma)


def add_skips(vae, seed=0):
    c0, c1, c2, c3 = vae.config.block_out_channels
    for index, (inputs, outputs) in enumerate([(c2, c3), (c1, c3), (c0, c2), (c0, c1)]):
        conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        nn.init.constant_(conv.weight, 1e-5)
        setattr(vae.decoder, f"skip_conv_{index + 1}", conv)


# ---- training ---------------------------------------------------------------------------------

class Turn:
    """Holds the machine's shared lock in slices of half a minute of the clock (so those of several processes
    end together); a timing run that waits for the lock exclusively finds a quiet machine in between, but a
    queue of them does not stop the training."""

    SLICE = 30  # seconds

    def __init__(self, leader=True):
        self.file = open(BENCH_LOCK, "a") if leader else None
        self.slot = None
        if self.file:
            self.inode = os.fstat(self.file.fileno()).st_ino

    def _someone_waits(self):
        with open("/proc/locks") as table:
            return any("->" in line and "WRITE" in line and f":{self.inode} " in line for line in table)

    def __enter__(self):
        if self.file and self.slot is None:
            fcntl.flock(self.file, fcntl.LOCK_SH)
            self.slot = time.time() // self.SLICE

    def __exit__(self, *_):
        if self.file and time.time() // self.SLICE != self.slot:
            fcntl.flock(self.file, fcntl.LOCK_UN)
            self.slot = None
            until = time.time() + 4
            while time.time() < until and self._someone_waits():
                time.sleep(0.2)


def learning_rate(step, steps, peak, warm=20):
    """Linear warm-up, then half a cosine down to a fiftieth."""
    if step < warm:
        return peak * (step + 1) / warm
    share = min(1, (step - warm) / max(1, steps - warm))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


class Average:
    """Moving average of parameters: what is exported."""

    def __init__(self, parameters, decay=0.995):
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self, step):
        decay = min(self.decay, (step + 1) / (step + 10))
        for value, parameter in zip(self.values, self.parameters):
            value.lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self):
        for value, parameter in zip(self.values, self.parameters):
            keep = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(keep)


def gradient_difference(a, b):
    return ((a.diff(dim=-1) - b.diff(dim=-1)).abs().mean()
            + (a.diff(dim=-2) - b.diff(dim=-2)).abs().mean())


def edge_agreement(a, b):
    """Mean correlation of the pictures' edge strengths, as tools/score_demo measures it."""
    def strength(pictures):
        grey = pictures.mean(1)
        flat = (grey.diff(dim=-1)[:, :-1].abs() + grey.diff(dim=-2)[:, :, :-1].abs()).flatten(1)
        return flat - flat.mean(1, keepdim=True)
    return nn.functional.cosine_similarity(strength(a), strength(b), eps=1e-4).mean()


def psnr(a, b):
    """Of pictures in [-1, 1], mean over the batch."""
    error = ((a.clamp(-1, 1) - b) / 2).pow(2).flatten(1).mean(1)
    return float((-10 * torch.log10(error)).mean())


def save(path, content):
    torch.save(content, path + ".part")
    os.replace(path + ".part", path)


def sheet(path, rows):
    """Rows of pictures in [-1, 1] as one PNG."""
    from PIL import Image
    rows = [torch.cat(list(row.clamp(-1, 1)), dim=2) for row in rows]
    picture = torch.cat(rows, dim=1).permute(1, 2, 0)
    Image.fromarray(((picture + 1) * 127.5).byte().numpy()).save(path)


class Parallel:
    """Averages gradients between processes (RANK, WORLD_SIZE, PORT in the environment); alone it does nothing."""

    def __init__(self):
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        torch.set_num_threads(1)
        if self.world > 1:
            import torch.distributed as dist
            port = os.environ.get("PORT", "29511")
            dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=self.rank,
                                    world_size=self.world)
            self.dist = dist

    def average_gradients(self, parameters):
        if self.world == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in parameters])
        self.dist.all_reduce(flat)
        flat /= self.world
        for p, g in zip(parameters, flat.split([p.numel() for p in parameters])):
            p.grad.copy_(g.view_as(p))
