"""The inverse of export.py: a task's first values from a checkpoint file in the official format."""
import torch

from common import *
from export import FILES


def tensors(content):
    """(UNet, list of VAEs): {name without the adapter's: tensor}."""
    def plain(table):
        return {key.replace(".default.", ".").replace(".vae_skip.", "."): value.float() for key, value in table.items()}

    if "state_dict_unet" in content:
        unet = plain(content["state_dict_unet"])
        for part in ("weight", "bias"):
            if f"conv_in.conv_in_curr.{part}" in unet:
                unet[f"conv_in.{part}"] = unet[f"conv_in.conv_in_curr.{part}"]
        return unet, [plain(content["state_dict_vae"])]
    unet = plain({**content["sd_encoder"], **content["sd_decoder"], **content["sd_other"]})
    vaes = plain(content["sd_vae_enc"])
    return unet, [{key.removeprefix(prefix): value for key, value in vaes.items() if key.startswith(prefix)}
                  for prefix in ("vae.", "vae_b2a.")]


def official_name(name):
    """Name of a trained parameter in the official files."""
    for ours, theirs in ((".parametrizations.weight.0.a", ".lora_A.weight"),
                         (".parametrizations.weight.0.b", ".lora_B.weight"),
                         (".parametrizations.weight.original", ".weight"),
                         (".parametrizations.bias.original", ".bias")):
        name = name.replace(ours, theirs)
    return name


@torch.no_grad()
def start_from_published(model, task, folder):
    """Fills the trained parameters of tasks.Translator from the task's file in `folder`."""
    unet, vaes = tensors(torch.load(f"{folder}/{FILES[task]}", weights_only=True))
    for network, table in [(model.unet, unet)] + list(zip(model.vae, vaes)):
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                continue
            name = official_name(name)
            layer, part = name.rsplit(".", 1)
            value = table[name] if name in table else table[f"{layer}.base_layer.{part}"]
            parameter.copy_(value.view(parameter.shape))
