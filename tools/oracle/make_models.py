"""Makes the two small base models and the checkpoints of the six tasks on them.

    make_models.py bases --output tests/golden/models
    make_models.py checkpoints --official CODE --models tests/golden/models
    make_models.py respell --official CODE --base BASE --source OLD.pkl --target NEW.pkl

`bases` and `checkpoints` are for the pinned versions of the libraries. `respell`, with the newest versions, saves a
checkpoint's tensors again by the official class, so under the key names that those versions use.
"""

import argparse
import contextlib
import os
import shutil

from official import code_folder, load_code

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from base_models import BASES, SMALL_MERGES
from calibration import calibrate_base, fit_paired, fit_unpaired, randomize_skips
from clip_vocabulary import read_merges, write_json, write_tokenizer_folder
from sensitive import randomize_lora

HERE = os.path.dirname(os.path.abspath(__file__))
MERGES = os.path.join(HERE, "..", "..", "tests", "golden", "tokenizer", "merges.txt.gz")
OLD_ATTENTION_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

# base, name, task, ranks (UNet, VAE). One file serves both directions of a pair.
CHECKPOINTS = [
    ("base_a", "edge", "edge_to_image", 6, 3),
    ("base_a", "sketch", "sketch_to_image_stochastic", 12, 4),
    ("base_a", "day_night", "unpaired", 5, 4),
    ("base_a", "rain", "unpaired", 4, 2),
    ("base_b", "edge", "edge_to_image", 4, 4),
    ("base_b", "sketch", "sketch_to_image_stochastic", 8, 3),
    ("base_b", "day_night", "unpaired", 4, 3),
    ("base_b", "rain", "unpaired", 5, 2),
]


def save_weights(model, folder, name, half, rename=None, shards=1):
    """Writes a model's weights as safetensors, in several files with an index if shards > 1."""
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in model.state_dict().items()
               if not key.endswith("position_ids")}
    if half:
        tensors = {key: tensor.half() for key, tensor in tensors.items()}
    if rename:
        tensors = rename(tensors)
    if shards == 1:
        save_file(tensors, os.path.join(folder, name + ".safetensors"), metadata={"format": "pt"})
        return
    names = sorted(tensors)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())}, "weight_map": {}}
    for shard in range(shards):
        file = f"{name}-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard * len(names) // shards:(shard + 1) * len(names) // shards]
        save_file({key: tensors[key] for key in part}, os.path.join(folder, file), metadata={"format": "pt"})
        index["weight_map"].update({key: file for key in part})
    write_json(os.path.join(folder, name + ".safetensors.index.json"), index)


def old_attention_names(tensors):
    """The VAE's attention as files before diffusers 0.15 name it."""
    result = {}
    for key, tensor in tensors.items():
        for new, old in OLD_ATTENTION_NAMES.items():
            key = key.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        result[key] = tensor
    return result


@contextlib.contextmanager
def without_initialisation():
    """Lets the constructors leave the weights as they are: all of them are replaced, and drawing 1.3 billion is slow."""
    names = [name for name in dir(torch.nn.init) if name.endswith("_") and not name.startswith("_")]
    originals = {name: getattr(torch.nn.init, name) for name in names}
    try:
        for name in names:
            setattr(torch.nn.init, name, lambda tensor, *arguments, **keywords: tensor)
        yield
    finally:
        for name, function in originals.items():
            setattr(torch.nn.init, name, function)


def make_base(folder, options, merges=SMALL_MERGES, **pictures):
    """Builds, calibrates and writes one base model; returns its text encoder, VAE and UNet."""
    vocabulary = write_tokenizer_folder(os.path.join(folder, "tokenizer"), read_merges(MERGES, merges), options["pad"])
    text_config = {"vocab_size": len(vocabulary), "bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1,
                   "pad_token_id": 0 if options["pad"] == "exclamation" else len(vocabulary) - 1, **options["text"]}
    parts = {name: {key: value for key, value in options[name].items() if not key.startswith("_")}
             for name in ("vae", "unet", "scheduler")}
    with without_initialisation():
        text = CLIPTextModel(CLIPTextConfig(**{key: value for key, value in text_config.items() if key != "torch_dtype"})).eval()
        vae = AutoencoderKL(**parts["vae"]).eval()
        unet = UNet2DConditionModel(**parts["unet"]).eval()
    scheduler = DDPMScheduler.from_config(parts["scheduler"])
    calibrate_base(text, vae, unet, scheduler, os.path.join(folder, "tokenizer"), options["seed"], **pictures)
    for name, config in (("text_encoder", text_config), ("vae", options["vae"]), ("unet", options["unet"]),
                         ("scheduler", options["scheduler"])):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        write_json(os.path.join(folder, name, file), config)
    write_json(os.path.join(folder, "model_index.json"), {
        "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]})
    save_base_weights(folder, options, text, vae, unet)
    return text, vae, unet


def save_base_weights(folder, options, text, vae, unet, suffix=""):
    """Writes the three networks' weights; suffix: what stands before .safetensors in the names."""
    half = options["half"]
    save_weights(text, os.path.join(folder, "text_encoder"), "model" + suffix, half, shards=options["text_shards"])
    save_weights(vae, os.path.join(folder, "vae"), "diffusion_pytorch_model" + suffix, half,
                 rename=old_attention_names if options["old_attention_names"] else None)
    save_weights(unet, os.path.join(folder, "unet"), "diffusion_pytorch_model" + suffix, half)


def paired_object(official, rank_unet, rank_vae, stochastic):
    """A Pix2Pix_Turbo as its training begins, with the sketch model's twin convolution if asked for."""
    model = official.Pix2Pix_Turbo(lora_rank_unet=rank_unet, lora_rank_vae=rank_vae)
    model.set_eval()
    model.float()
    if stochastic:
        model.unet.conv_in = official.TwinConv(model.unet.conv_in, model.unet.conv_in)
        model.unet.conv_in.r = 1.0
    return model


def make_paired(official, path, rank_unet, rank_vae, stochastic, seed, **pictures):
    """Writes a paired checkpoint with random LoRA; pictures: size and count of those to calibrate with."""
    generator = torch.Generator().manual_seed(seed)
    model = paired_object(official, rank_unet, rank_vae, stochastic)
    first = model.unet.conv_in.conv_in_curr if stochastic else model.unet.conv_in
    first.weight.data += 0.4 * first.weight.data.std() * torch.randn(first.weight.shape, generator=generator)
    first.bias.data += 0.4 * first.bias.data.std() * torch.randn(first.bias.shape, generator=generator)
    randomize_lora(model.unet, generator)
    randomize_lora(model.vae, generator)
    randomize_skips(model.vae, generator, **pictures)
    fit_paired(model, stochastic, generator, **pictures)
    if stochastic:
        model.unet.conv_in.r = None
    model.save_model(path)


def unpaired_object(official, rank_unet, rank_vae):
    """The networks of the unpaired training, with the two lists of names that it saves."""
    unet, encoder, decoder, others = official.initialize_unet(rank_unet, return_lora_module_names=True)
    vae, vae_modules = official.initialize_vae(rank_vae, return_lora_module_names=True)
    vae_b2a, _ = official.initialize_vae(rank_vae, return_lora_module_names=True)
    for part in (unet, vae, vae_b2a):
        part.eval().float().requires_grad_(False)
    names = {"l_target_modules_encoder": encoder, "l_target_modules_decoder": decoder, "l_modules_others": others,
             "rank_unet": rank_unet, "rank_vae": rank_vae, "vae_lora_target_modules": vae_modules}
    return unet, vae, vae_b2a, names


def save_unpaired(official, path, unet, vae, vae_b2a, names):
    """Saves as train_cyclegan_turbo.py does: both whole VAEs in each of the two state dictionaries."""
    contents = dict(names)
    for key, adapter in (("sd_encoder", "default_encoder"), ("sd_decoder", "default_decoder"), ("sd_other", "default_others")):
        contents[key] = get_peft_model_state_dict(unet, adapter_name=adapter)
    contents["sd_vae_enc"] = official.VAE_encode(vae, vae_b2a=vae_b2a).state_dict()
    contents["sd_vae_dec"] = official.VAE_decode(vae, vae_b2a=vae_b2a).state_dict()
    torch.save(contents, path)


def make_unpaired(official, path, rank_unet, rank_vae, seed, **pictures):
    """Writes an unpaired checkpoint with random LoRA and two VAEs; pictures: size and count of those to calibrate with."""
    generator = torch.Generator().manual_seed(seed)
    unet, vae, vae_b2a, names = unpaired_object(official, rank_unet, rank_vae)
    randomize_lora(unet, generator)
    for part in (vae, vae_b2a):
        for name, parameter in part.named_parameters():  # the checkpoint's own base weights differ from the base's
            if "lora" not in name and "skip" not in name and parameter.dim() > 1:
                parameter.data += 0.2 * parameter.data.std() * torch.randn(parameter.shape, generator=generator)
        randomize_lora(part, generator)
        randomize_skips(part, generator, **pictures)
    fit_unpaired(official, unet, vae, vae_b2a, generator, **pictures)
    save_unpaired(official, path, unet, vae, vae_b2a, names)


def plain_name(key):
    """A parameter's name without what differs between the versions: wrappers and adapter names."""
    for adapter in ("default_encoder", "default_decoder", "default_others", "default", "vae_skip"):
        key = key.replace(f".{adapter}.weight", ".weight")
    return key.replace(".base_layer.", ".")


def copy_parameters(model, tensors):
    """Copies every parameter of the model that the tensors name; returns the names used."""
    used = set()
    for key, parameter in model.state_dict().items():
        name = plain_name(key)
        if name in tensors:
            parameter.copy_(tensors[name])
            used.add(name)
    return used


def respell(official, source, target):
    """Saves the tensors of a checkpoint again under the installed versions' key names."""
    old = torch.load(source, map_location="cpu", weights_only=True)

    def plain(*dictionaries):
        return {plain_name(key): tensor for key in dictionaries for key, tensor in old[key].items()}

    if "state_dict_unet" in old:
        stochastic = any("conv_in_curr" in key for key in old["state_dict_unet"])
        model = paired_object(official, old["rank_unet"], old["rank_vae"], stochastic)
        for part, key in ((model.unet, "state_dict_unet"), (model.vae, "state_dict_vae")):
            tensors = plain(key)
            assert copy_parameters(part, tensors) == set(tensors)
        model.save_model(target)
    else:
        unet, vae, vae_b2a, names = unpaired_object(official, old["rank_unet"], old["rank_vae"])
        tensors = plain("sd_encoder", "sd_decoder", "sd_other")
        assert copy_parameters(unet, tensors) == set(tensors)
        tensors = plain("sd_vae_enc")
        assert copy_parameters(official.VAE_encode(vae, vae_b2a=vae_b2a), tensors) == set(tensors)
        save_unpaired(official, target, unet, vae, vae_b2a, names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bases", "checkpoints", "respell"))
    parser.add_argument("--official", help="the official code (default: ONESTEP_OFFICIAL_CODE)")
    parser.add_argument("--output", "--models", dest="models", help="the folder of base models and checkpoints")
    parser.add_argument("--base", help="respell: the base model's folder")
    parser.add_argument("--source", help="respell: the checkpoint to read")
    parser.add_argument("--target", help="respell: the checkpoint to write")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    if arguments.what == "bases":
        for name, options in BASES.items():
            folder = os.path.join(arguments.models, name)
            shutil.rmtree(folder, ignore_errors=True)
            make_base(folder, options)
    elif arguments.what == "checkpoints":
        for index, (base, name, task, rank_unet, rank_vae) in enumerate(CHECKPOINTS):
            official = load_code(code_folder(arguments.official), os.path.join(arguments.models, base))
            path = os.path.join(arguments.models, f"{base}_{name}.pkl")
            print(path)
            if task == "unpaired":
                make_unpaired(official, path, rank_unet, rank_vae, 100 + index)
            else:
                make_paired(official, path, rank_unet, rank_vae, task == "sketch_to_image_stochastic", 100 + index)
    else:
        respell(load_code(code_folder(arguments.official), arguments.base), arguments.source, arguments.target)


if __name__ == "__main__":
    main()
