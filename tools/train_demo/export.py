"""Writes what was trained in the official formats, half precision: export.py base|edge|sketch|day_night|clear_rainy"""
import copy
import json
import sys
from collections import OrderedDict

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from common import *

OUTPUT = os.environ.get("TRAIN_DEMO_MODELS", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/demo"))
FILES = {"edge": "edge_to_image_loras.pkl", "sketch": "sketch_to_image_stochastic_lora.pkl",
         "day_night": "day2night.pkl", "clear_rainy": "clear2rainy.pkl"}


def export_base():
    from base import Tokens, make_text_encoder
    from latents import load_vae
    import tokenizer as vocabulary
    state = torch.load(f"{WORK}/base.pt")
    unet, text = UNet2DConditionModel(**UNET_CONFIG), make_text_encoder(len(Tokens().tokenizer))
    parameters = list(unet.parameters()) + list(text.parameters())
    unet.load_state_dict(state["unet"])
    text.load_state_dict(state["text"])
    with torch.no_grad():
        for parameter, value in zip(parameters, state["average"]):
            parameter.copy_(value)
    vae = load_vae(f"{WORK}/decoder.pt")
    vae.register_to_config(scaling_factor=round(state["scale"], 5))
    folder = f"{OUTPUT}/base"
    for name, network in (("vae", vae), ("unet", unet), ("text_encoder", text)):
        network.half().save_pretrained(f"{folder}/{name}", safe_serialization=True)
        path = f"{folder}/{name}/config.json"
        with open(path) as file:
            config = json.load(file)
        for key in ("torch_dtype", "dtype", "_name_or_path"):
            config.pop(key, None)
        if name == "text_encoder":  # the file's tensors are half; loaders that go by the config give float32
            config["torch_dtype"] = "float32"
        write_json(path, config)
    vocabulary.write(f"{folder}/tokenizer")
    os.makedirs(f"{folder}/scheduler", exist_ok=True)
    write_json(f"{folder}/scheduler/scheduler_config.json", {"_class_name": "DDPMScheduler", **SCHEDULER_CONFIG})
    write_json(f"{folder}/model_index.json", {
        "_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None], "safety_checker": [None, None],
        "requires_safety_checker": False, "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]})


def write_json(path, content):
    with open(path, "w") as file:
        json.dump(content, file, indent=2, sort_keys=True)
        file.write("\n")


def trained_model(task):
    """The Translator with its averaged parameters."""
    from tasks import Translator
    model = Translator(task)
    state = torch.load(f"{WORK}/{task}.pt")
    with torch.no_grad():
        for parameter, value in zip([p for p in model.parameters() if p.requires_grad], state["average"]):
            parameter.copy_(value)
    return model


@torch.no_grad()
def fill(peft_model, trained):
    """Copies base weights and low-rank pairs of a parametrised network into peft's modules of the same name."""
    modules = dict(peft_model.named_modules())
    filled = 0
    for name, module in trained.named_modules():
        if name.startswith("parametrizations") or ".parametrizations" in name or not hasattr(module, "weight"):
            continue
        target = modules[name]
        pairs = getattr(module, "parametrizations", {})
        if "weight" in pairs and hasattr(pairs["weight"][0], "a"):
            layer = pairs["weight"]
            target.base_layer.weight.copy_(layer.original)
            if module.bias is not None:
                target.base_layer.bias.copy_(module.bias)
            adapter, = target.lora_A
            a, b = target.lora_A[adapter].weight, target.lora_B[adapter].weight
            a.copy_(layer[0].a.view(a.shape))
            b.copy_(layer[0].b.view(b.shape))
            filled += 1
        elif module.weight is not None and not pairs:
            target.weight.copy_(module.weight)
            if getattr(module, "bias", None) is not None:
                target.bias.copy_(module.bias)
    assert filled == sum(hasattr(m, "lora_A") for m in modules.values()), "a low-rank pair was not trained"


def half(table):
    return {key: value.half() for key, value in table.items()}


def vae_with_adapter():
    from tasks import BASE, RANK_VAE
    vae = AutoencoderKL.from_pretrained(f"{BASE}/vae", torch_dtype=torch.float32)
    add_skips(vae)
    vae.add_adapter(LoraConfig(r=RANK_VAE, init_lora_weights="gaussian", target_modules=VAE_TARGETS), adapter_name="vae_skip")
    return vae


def export_paired(task):
    from tasks import BASE, RANK_UNET, RANK_VAE
    model = trained_model(task)
    vae = vae_with_adapter()
    unet = UNet2DConditionModel.from_pretrained(f"{BASE}/unet", torch_dtype=torch.float32)
    if task == "sketch":
        twin = nn.Module()
        twin.conv_in_pretrained, twin.conv_in_curr = copy.deepcopy(unet.conv_in), copy.deepcopy(unet.conv_in)
    unet.add_adapter(LoraConfig(r=RANK_UNET, init_lora_weights="gaussian", target_modules=UNET_TARGETS))
    fill(vae, model.vae[0])
    fill(unet, model.unet)
    if task == "sketch":
        with torch.no_grad():
            for part in ("weight", "bias"):
                getattr(twin.conv_in_curr, part).copy_(model.unet.conv_in.parametrizations[part].original)
        unet.conv_in = twin
    content = {
        "unet_lora_target_modules": UNET_TARGETS, "vae_lora_target_modules": VAE_TARGETS,
        "rank_unet": RANK_UNET, "rank_vae": RANK_VAE,
        "state_dict_unet": half({k: v for k, v in unet.state_dict().items() if "lora" in k or "conv_in" in k}),
        "state_dict_vae": half({k: v for k, v in vae.state_dict().items() if "lora" in k or "skip" in k})}
    save(f"{OUTPUT}/{FILES[task]}", content)


def export_unpaired(task):
    from tasks import BASE, RANK_VAE, RANK_UNET_UNPAIRED as RANK_UNET, UNPAIRED_PATTERNS
    model = trained_model(task)
    unet = UNet2DConditionModel.from_pretrained(f"{BASE}/unet", torch_dtype=torch.float32)
    groups = {"encoder": [], "decoder": [], "others": []}
    for name, _ in unet.named_parameters():
        if "bias" in name or "norm" in name or not any(p in name for p in UNPAIRED_PATTERNS):
            continue
        part = "encoder" if "down_blocks" in name or "conv_in" in name else "decoder" if "up_blocks" in name else "others"
        groups[part].append(name.replace(".weight", ""))
    for part, modules in groups.items():
        unet.add_adapter(LoraConfig(r=RANK_UNET, init_lora_weights="gaussian", target_modules=modules,
                                    lora_alpha=RANK_UNET), adapter_name=f"default_{part}")
    fill(unet, model.unet)
    both = nn.Module()
    both.vae, both.vae_b2a = vae_with_adapter(), vae_with_adapter()
    fill(both.vae, model.vae[0])
    fill(both.vae_b2a, model.vae[1])
    state = both.state_dict()
    vaes = OrderedDict((key, value.half()) for key, value in state.items())
    vaes._metadata = state._metadata
    content = {"l_target_modules_encoder": groups["encoder"], "l_target_modules_decoder": groups["decoder"],
               "l_modules_others": groups["others"], "rank_unet": RANK_UNET,
               "sd_encoder": half(get_peft_model_state_dict(unet, adapter_name="default_encoder")),
               "sd_decoder": half(get_peft_model_state_dict(unet, adapter_name="default_decoder")),
               "sd_other": half(get_peft_model_state_dict(unet, adapter_name="default_others")),
               "rank_vae": RANK_VAE, "vae_lora_target_modules": VAE_TARGETS,
               "sd_vae_enc": vaes, "sd_vae_dec": copy.copy(vaes)}
    save(f"{OUTPUT}/{FILES[task]}", content)


if __name__ == "__main__":
    for what in sys.argv[1:]:
        if what == "base":
            export_base()
        elif what in ("edge", "sketch"):
            export_paired(what)
        else:
            export_unpaired(what)
