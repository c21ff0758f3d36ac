"""Runs the official img2img-turbo code on a CPU, on any base model, and records every stage.

The code itself (github.com/GaParmar/img2img-turbo, MIT) is not part of this project: pass the folder of a checkout, or
set ONESTEP_OFFICIAL_CODE to it. Its text is changed only where it names CUDA, the hub's base model, or the widths of
SD-Turbo's skip convolutions.
"""

import ast
import contextlib
import json
import os
import re
import sys
import tempfile
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from noise import philox_normal, torch_seed

PAIRED_FILES = {"edge_to_image": "edge_to_image_loras.pkl",
                "sketch_to_image_stochastic": "sketch_to_image_stochastic_lora.pkl"}
UNPAIRED_FILES = {"day_to_night": "day2night.pkl", "night_to_day": "night2day.pkl",
                  "clear_to_rainy": "clear2rainy.pkl", "rainy_to_clear": "rainy2clear.pkl"}
STAGES = ("tokens", "text", "control", "moments", "posterior_noise", "latent", "noise", "unet_in",
          "skip0", "skip1", "skip2", "skip3", "eps", "x0", "decoded")


def code_folder(option=None):
    """The official code's src/ folder, from an option or the environment."""
    folder = option or os.environ.get("ONESTEP_OFFICIAL_CODE")
    if not folder:
        raise SystemExit("say where the official code is: --official FOLDER or ONESTEP_OFFICIAL_CODE "
                         "(a checkout of github.com/GaParmar/img2img-turbo)")
    for candidate in (os.path.join(folder, "src"), folder):
        if os.path.exists(os.path.join(candidate, "pix2pix_turbo.py")):
            return candidate
    raise SystemExit(f"{folder}: no src/pix2pix_turbo.py in it")


def substituted(text, base):
    """The official code's text, for the CPU and for the base model in the folder `base`."""
    with open(os.path.join(base, "vae", "config.json")) as file:
        width = json.load(file)["block_out_channels"]
    text = text.replace(".cuda()", "").replace('"cuda"', '"cpu"').replace('"stabilityai/sd-turbo"', repr(base))
    for number, (inputs, outputs) in enumerate(((2, 3), (1, 3), (0, 2), (0, 1)), 1):
        text = re.sub(rf"(skip_conv_{number} = torch\.nn\.Conv2d\()\d+, \d+",
                      rf"\g<1>{width[inputs]}, {width[outputs]}", text)
    return text


def load_code(code, base):
    """A namespace with the official classes and functions, bound to one base model folder."""
    modules = {}
    for name in ("model", "pix2pix_turbo", "cyclegan_turbo", "image_prep"):
        with open(os.path.join(code, name + ".py")) as file:
            module = modules[name] = types.ModuleType(name)
            sys.modules[name] = module  # the official modules import "model" by that name
            exec(compile(substituted(file.read(), base), name + ".py", "exec"), module.__dict__)
    with open(os.path.join(code, "my_utils", "training_utils.py")) as file:
        tree = ast.parse(file.read())  # the module itself imports what only training needs
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build_transform"]
    preparation = {"transforms": transforms, "Image": Image}
    exec(compile(tree, "training_utils.py", "exec"), preparation)
    return types.SimpleNamespace(**modules["pix2pix_turbo"].__dict__ | modules["cyclegan_turbo"].__dict__,
                                 canny_from_pil=modules["image_prep"].canny_from_pil,
                                 build_transform=preparation["build_transform"], base=base)


def load_model(official, task, checkpoint):
    """The official object of a task, or of an own checkpoint (task "paired" or "unpaired"), in float32."""
    checkpoint = os.path.abspath(checkpoint)
    files = PAIRED_FILES | UNPAIRED_FILES
    kind = official.Pix2Pix_Turbo if task in PAIRED_FILES or task == "paired" else official.CycleGAN_Turbo
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        if task in files:  # the official code looks for the file's official name in a folder
            os.symlink(checkpoint, os.path.join(folder, files[task]))
            model = kind(pretrained_name=task, ckpt_folder=folder)
        elif task == "paired":
            model = kind(pretrained_name="", pretrained_path=checkpoint)
        else:
            model = kind(pretrained_path=checkpoint)
            model.timesteps = torch.tensor([999]).long()
    # Newer transformers keep a half-precision file's type; the official pins load everything as float32.
    return model.float().eval()


class Recorder:
    """Hooks on an official object: fills `stages` (name -> float32 or int64 array) and can supply the random draws.

    draws: None for the generator of torch, else a function from (number of earlier draws, shape) to an array."""

    def __init__(self, model, draws=None):
        self.model, self.draws, self.draw_count = model, draws, 0
        self.stages, self.undo = {}, []

    def keep(self, name, tensor):
        array = tensor.detach().cpu().numpy()
        self.stages[name] = array.copy() if array.dtype == np.int64 else array.astype(np.float32)

    def next_draw(self, shape):
        """The next random tensor of the picture."""
        self.draw_count += 1
        if self.draws is None:
            return torch.randn(tuple(shape))
        return torch.from_numpy(np.ascontiguousarray(self.draws(self.draw_count - 1, tuple(shape))))

    def replace(self, owner, name, value):
        old = getattr(owner, name)
        self.undo.append(lambda: setattr(owner, name, old))
        setattr(owner, name, value)

    def __enter__(self):
        model = self.model
        hooks = [
            model.text_encoder.register_forward_hook(self.after_text, with_kwargs=True),
            model.unet.register_forward_pre_hook(lambda module, inputs: self.keep("unet_in", inputs[0])),
            model.unet.register_forward_hook(lambda module, inputs, output: self.keep("eps", output.sample)),
        ]
        for vae in {id(vae): vae for vae in (model.vae, getattr(model, "vae_b2a", model.vae))}.values():
            hooks += [
                vae.encoder.register_forward_pre_hook(lambda module, inputs: self.keep("control", inputs[0])),
                vae.encoder.register_forward_hook(self.after_encoder),
                vae.quant_conv.register_forward_hook(lambda module, inputs, output: self.keep("moments", output)),
                vae.decoder.register_forward_hook(lambda module, inputs, output: self.keep("decoded", output)),
            ]
        self.undo += [hook.remove for hook in hooks]
        posterior = sys.modules[type(model.vae).__module__].DiagonalGaussianDistribution
        self.replace(sys.modules[posterior.__module__], "randn_tensor", self.posterior_noise)
        self.replace(posterior, "sample", self.recording_sample(posterior.sample))
        self.replace(model.sched, "step", self.recording_step(model.sched.step))
        return self

    def __exit__(self, *_):
        for undo in reversed(self.undo):
            undo()

    def after_text(self, module, inputs, keywords, output):
        self.keep("tokens", inputs[0] if inputs else keywords["input_ids"])
        self.keep("text", output[0])

    def after_encoder(self, encoder, inputs, output):
        for index, activation in enumerate(encoder.current_down_blocks):
            self.keep(f"skip{index}", activation)

    def posterior_noise(self, shape, **_):
        noise = self.next_draw(shape)
        self.keep("posterior_noise", noise)
        return noise

    def recording_sample(self, sample):
        def record(distribution, *arguments, **keywords):
            value = sample(distribution, *arguments, **keywords)
            self.keep("latent", value * self.model.vae.config.scaling_factor)
            return value
        return record

    def recording_step(self, step):
        def record(*arguments, **keywords):
            result = step(*arguments, **keywords)
            sample = result.prev_sample
            self.keep("x0", sample if sample.dim() == 4 else sample[None])
            return result
        return record


def cuda_draws(seed):
    return lambda draw, shape: philox_normal(seed, draw, shape)


def paired_input(official, task, picture, low, high):
    """The control tensor [1,3,H,W] in [0,1], as inference_paired.py makes it."""
    size = (picture.width - picture.width % 8, picture.height - picture.height % 8)
    picture = picture.resize(size, Image.LANCZOS)
    if task == "edge_to_image":
        picture = official.canny_from_pil(picture, low, high)
    tensor = transforms.functional.to_tensor(picture)
    if task == "sketch_to_image_stochastic":
        tensor = (tensor < 0.5).float()
    return tensor[None]


def unpaired_input(official, picture, image_prep):
    """The control tensor [1,3,H,W] in [-1,1], as inference_unpaired.py makes it."""
    tensor = transforms.ToTensor()(official.build_transform(image_prep)(picture))
    return transforms.Normalize([0.5], [0.5])(tensor)[None]


def translate(official, model, case, picture):
    """Runs one case (a dictionary as in case.json) as the official scripts do: (stages, output picture)."""
    task, seed = case["task"], torch_seed(case["seed"])
    recorder = Recorder(model, cuda_draws(case["seed"]) if case["rng"] == "cuda" else None)
    with torch.no_grad(), recorder:
        if isinstance(model, official.Pix2Pix_Turbo):
            control = paired_input(official, task, picture, case.get("low_threshold", 100), case.get("high_threshold", 200))
            torch.manual_seed(seed)
            if task == "sketch_to_image_stochastic":
                noise = recorder.next_draw((1, 4, control.shape[2] // 8, control.shape[3] // 8))
                recorder.keep("noise", noise)
                output = model(control, case["prompt"], deterministic=False, r=case["gamma"], noise_map=noise)
            else:
                output = model(control, case["prompt"])
        else:
            control = unpaired_input(official, picture, case["image_prep"])
            torch.manual_seed(seed)
            own = task == "unpaired"
            output = model(control, direction=case["direction"] if own else None, caption=case["prompt"] if own else None)
    result = transforms.ToPILImage()(output[0].cpu() * 0.5 + 0.5)
    if not isinstance(model, official.Pix2Pix_Turbo):
        result = result.resize((picture.width, picture.height), Image.LANCZOS)
    return recorder.stages, result
