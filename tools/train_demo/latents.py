"""Stage 2a: the latents of the things that the base UNet learns to draw, encoded once by the base's VAE."""
import cv2
import numpy
import torch
from diffusers import AutoencoderKL

from common import *


def edges(batch):
    """Canny of uint8 NHWC pictures -> float NCHW, three equal channels in [0, 1]."""
    maps = numpy.stack([cv2.Canny(numpy.ascontiguousarray(p), 100, 200) for p in batch])
    return torch.from_numpy(maps).float()[:, None].repeat(1, 3, 1, 1) / 255


def sketch(batch):
    """Black lines of uint8 NHWC pictures become ones."""
    return torch.from_numpy((numpy.asarray(batch) <= 127).astype(numpy.float32)).permute(0, 3, 1, 2)



def load_vae(path):
    """The averaged weights of stage 1."""
    state = torch.load(path)
    vae = AutoencoderKL(**VAE_CONFIG)
    vae.load_state_dict(state["vae"])
    with torch.no_grad():
        for parameter, value in zip(vae.parameters(), state["average"]):
            parameter.copy_(value)
    return vae.requires_grad_(False)


if __name__ == "__main__":
    torch.set_num_threads(1)
    vae, turn, made = load_vae(f"{WORK}/vae.pt"), Turn(), []
    stack = pictures("things", "train_B")[:2500]
    for begin in range(0, len(stack), 50):
        with turn, torch.no_grad():
            made.append(vae_encode(vae, to_signed(stack[begin:begin + 50]))[0])
    save(f"{WORK}/latent_picture.pt", torch.cat(made))
