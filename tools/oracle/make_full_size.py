"""Makes a random base model of SD-Turbo's full size, checkpoints of the official ranks, and official results on it.

    make_full_size.py base --models FOLDER                       # FOLDER/full-f32 (5.2 GB) and FOLDER/full-f16
    make_full_size.py checkpoints --models FOLDER [--only NAME]  # FOLDER/full_{edge,sketch,day_night,rain,sketch_small}.pkl
    make_full_size.py golden --models FOLDER [--only NAME]       # FOLDER/full-golden/TASK, all six tasks at 512x512

With the official code in ONESTEP_OFFICIAL_CODE. Needs about 16 GB of memory. Every weight is a half-precision number, so
both bases are the same network. eps is close to x (the last convolution is refitted), so that errors of eps are amplified
as they are with trained weights. `golden` takes the official example pictures from tests/golden/canny.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time

from official import STAGES, code_folder, load_code, load_model, translate

import numpy as np
import torch
from PIL import Image, ImageOps

from clip_vocabulary import ALL_MERGES, write_json
from make_golden import thresholds
from make_models import make_base, make_paired, make_unpaired, save_base_weights
from versions import installed

PICTURE_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "canny")

CONFIGURATION = {
    "seed": 21, "pad": "exclamation", "half": False, "old_attention_names": False, "text_shards": 1,
    "text": {
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2,
        "hidden_act": "gelu", "hidden_size": 1024, "initializer_factor": 1.0, "initializer_range": 0.02,
        "intermediate_size": 4096, "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "model_type": "clip_text_model",
        "num_attention_heads": 16, "num_hidden_layers": 23, "pad_token_id": 1, "projection_dim": 512,
        "torch_dtype": "float16", "vocab_size": 49408,
    },
    "vae": {
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4, "force_upcast": True, "in_channels": 3, "latent_channels": 4,
        "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 768, "scaling_factor": 0.18215,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "unet": {
        "_class_name": "UNet2DConditionModel", "act_fn": "silu", "addition_embed_type": None,
        "attention_head_dim": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False,
        "class_embed_type": None, "cross_attention_dim": 1024,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "downsample_padding": 1,
        "dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2,
        "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-05, "norm_num_groups": 32,
        "num_class_embeds": None, "only_cross_attention": False, "out_channels": 4, "resnet_time_scale_shift": "default",
        "sample_size": 64, "time_cond_proj_dim": None, "time_embedding_type": "positional", "timestep_post_act": None,
        "transformer_layers_per_block": 1, "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "upcast_attention": None, "use_linear_projection": True,
    },
    "scheduler": {
        "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
        "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one": False,
        "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "trailing", "trained_betas": None,
    },
}
# name, stochastic (None: unpaired), ranks of UNet and VAE
CHECKPOINTS = [("edge", False, 8, 4), ("sketch", True, 128, 4), ("day_night", None, 128, 4), ("rain", None, 128, 4),
               ("sketch_small", True, 8, 4)]  # to see what another gamma costs at a small rank
PICTURES = {"size": 192, "count": 3}       # to calibrate with
FEW_PICTURES = {"size": 128, "count": 2}   # where LoRA of rank 128 makes each run slow


def make_bases(models):
    """The single-precision base, rounded to half precision, and the same in half precision under the fp16 names."""
    single, half = os.path.join(models, "full-f32"), os.path.join(models, "full-f16")
    networks = make_base(single, CONFIGURATION, merges=ALL_MERGES, **PICTURES)
    for network in networks:
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()
    save_base_weights(single, CONFIGURATION, *networks)
    shutil.copytree(single, half, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    save_base_weights(half, {**CONFIGURATION, "half": True}, *networks, suffix=".fp16")


def make_checkpoints(models, official, only):
    for index, (name, stochastic, rank_unet, rank_vae) in enumerate(CHECKPOINTS):
        path = os.path.join(models, f"full_{name}.pkl")
        if only and name != only:
            continue
        pictures = FEW_PICTURES if rank_unet > 16 else PICTURES
        if stochastic is None:
            make_unpaired(official, path, rank_unet, rank_vae, 200 + index, **pictures)
        else:
            make_paired(official, path, rank_unet, rank_vae, stochastic, 200 + index, **pictures)


# name: checkpoint, picture, what the official script is told
GOLDEN_CASES = {
    "edge_to_image": ("edge", "bird.png", {"prompt": "a blue bird!", "low_threshold": 100, "high_threshold": 200}),
    "sketch_to_image_stochastic": ("sketch", "sketch_input.png", {
        "prompt": "ethereal fantasy concept art of an asteroid. magnificent, celestial, ethereal, painterly, epic, "
                  "majestic, magical, fantasy art, cover art, dreamy", "gamma": 0.4}),
    "day_to_night": ("day_night", "day2night_input.png", {"image_prep": "resize_512x512"}),
    "night_to_day": ("day_night", "night2day_input.png", {"image_prep": "resize_512x512"}),
    "clear_to_rainy": ("rain", "clear2rainy_input.png", {"image_prep": "resize_512x512"}),
    "rainy_to_clear": ("rain", "rainy2clear_input.png", {"image_prep": "resize_512x512"}),
}


def peak_memory():
    """The process's largest resident memory since reset_peak_memory, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def reset_peak_memory():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def make_golden(models, official, task):
    """Every stage of one task, with the time and memory of the official code's picture (loading not counted)."""
    checkpoint, picture_name, options = GOLDEN_CASES[task]
    case = {"task": task, "checkpoint": f"full_{checkpoint}.pkl", "seed": 42, "rng": "cuda", **options}
    picture = Image.open(os.path.join(PICTURE_FOLDER, picture_name)).convert("RGB")
    if "image_prep" not in options:  # the paired script keeps the picture's size
        picture = ImageOps.fit(picture, (512, 512), Image.LANCZOS)
    model = load_model(official, task, os.path.join(models, case["checkpoint"]))
    reset_peak_memory()
    start, cpu_start = time.perf_counter(), cpu_seconds()
    stages, output = translate(official, model, case, picture)
    measured = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu_start,
                "peak_memory": peak_memory(), "threads": torch.get_num_threads(), "versions": installed()}
    folder = os.path.join(models, "full-golden", task)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for name, array in stages.items():
        np.save(os.path.join(folder, name + ".npy"), array)
    picture.save(os.path.join(folder, "input.png"))
    output.save(os.path.join(folder, "output.png"))
    write_json(os.path.join(folder, "case.json"), {
        **case, "stages": [name for name in STAGES if name in stages], "tolerance": thresholds(stages, model.sched),
        "lanczos_after": "image_prep" in options, "official": measured})
    print(f"{task}: {measured['seconds']:.1f} s ({measured['cpu_seconds']:.1f} s of CPU time), "
          f"{measured['peak_memory'] / 1e9:.2f} GB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("base", "checkpoints", "golden"))
    parser.add_argument("--models", required=True, help="a folder outside the checkout")
    parser.add_argument("--official", help="the official code (default: ONESTEP_OFFICIAL_CODE)")
    parser.add_argument("--only", help="only this checkpoint, or only this task's golden")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    if arguments.what == "base":
        make_bases(arguments.models)
        return
    if arguments.what == "golden" and not arguments.only:
        for task in GOLDEN_CASES:  # each in a process of its own, so that its memory is its own
            subprocess.run([sys.executable, *sys.argv, "--only", task], check=True)
        return
    official = load_code(code_folder(arguments.official), os.path.join(arguments.models, "full-f32"))
    if arguments.what == "checkpoints":
        make_checkpoints(arguments.models, official, arguments.only)
    else:
        make_golden(arguments.models, official, arguments.only)


if __name__ == "__main__":
    main()
