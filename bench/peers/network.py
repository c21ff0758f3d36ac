"""The network of one checkpoint as PyTorch modules: as the official code makes it, or in three parts with LoRA merged."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "oracle"))

from official import code_folder, load_code, load_model, translate  # noqa: F401 (for the other files here)

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

TASK = "edge_to_image"
PROMPT = "a blue bird!"
TIMESTEP = 999


def load_official(base, checkpoint, official_code=None):
    """(the official classes, the official object of the task), float32."""
    official = load_code(code_folder(official_code), base)
    return official, load_model(official, TASK, checkpoint)


def merge_lora(network):
    """Adds every LoRA product to its weight and puts the plain layers back."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(adapter_names=list(layer.lora_A))
            parent, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(parent), attribute, layer.get_base_layer())
    return network


class Encoder(torch.nn.Module):
    """control -> moments, skip0..3"""

    def __init__(self, vae):
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv

    def forward(self, control):
        moments = self.quant_conv(self.encoder(control))
        return (moments, *self.encoder.current_down_blocks)


class Denoiser(torch.nn.Module):
    """latent, text states -> eps"""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, latent, text):
        return self.unet(latent, TIMESTEP, encoder_hidden_states=text, return_dict=False)[0]


class Decoder(torch.nn.Module):
    """x0 divided by the scaling factor, skip0..3 -> decoded"""

    def __init__(self, vae):
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, x0, skip0, skip1, skip2, skip3):
        self.decoder.incoming_skip_acts = [skip0, skip1, skip2, skip3]
        return self.decoder(self.post_quant_conv(x0))


def merged_parts(base, checkpoint, official_code=None):
    """Encoder, denoiser and decoder with LoRA merged; everything else of the official object is given up."""
    _, model = load_official(base, checkpoint, official_code)
    vae, unet = merge_lora(model.vae), merge_lora(model.unet)
    for network in (vae, unet):
        network.requires_grad_(False)
    return Encoder(vae).eval(), Denoiser(unet).eval(), Decoder(vae).eval()
