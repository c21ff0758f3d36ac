"""What all engines share: the input tensors, the float32 picture to compare with, and the exported networks.

    prepare.py inputs|onnx|openvino --base FOLDER --checkpoint FILE --size N --cache FOLDER

Everything goes to the cache folder, once. The networks are exported for one fixed size, the fastest way for both engines.
"""

import argparse
import json
import os
import shutil

from network import PROMPT, TASK, load_official, merged_parts, translate

import numpy as np
import torch
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
PICTURE = os.path.join(HERE, "..", "..", "tests", "golden", "canny", "bird.png")
INPUTS = {"encoder": ["control"], "denoiser": ["latent", "text"], "decoder": ["x0", "skip0", "skip1", "skip2", "skip3"]}
OUTPUTS = {"encoder": ["moments", "skip0", "skip1", "skip2", "skip3"], "denoiser": ["eps"], "decoder": ["decoded"]}


def prepare_inputs(options, folder):
    """control, text states, posterior noise, and the official code's picture in float32."""
    official, model = load_official(options.base, options.checkpoint, options.official)
    picture = ImageOps.fit(Image.open(PICTURE).convert("RGB"), (options.size, options.size), Image.LANCZOS)
    picture.save(os.path.join(folder, "input.png"))
    case = {"task": TASK, "prompt": PROMPT, "seed": 42, "rng": "cuda"}
    stages, _ = translate(official, model, case, picture)
    for name in ("control", "text", "posterior_noise", "decoded"):
        np.save(os.path.join(folder, name + ".npy"), stages[name])


def example_inputs(part, size, text, channels):
    """Zeros in the shapes of a part's inputs, and the text states; channels: of the VAE's blocks."""
    shapes = {"control": (1, 3, size, size), "latent": (1, 4, size // 8, size // 8), "x0": (1, 4, size // 8, size // 8),
              "skip0": (1, channels[0], size, size), "skip1": (1, channels[0], size // 2, size // 2),
              "skip2": (1, channels[1], size // 4, size // 4), "skip3": (1, channels[2], size // 8, size // 8)}
    return tuple(text if name == "text" else torch.zeros(shapes[name]) for name in INPUTS[part])


def export_onnx(module, part, inputs, folder):
    folder = os.path.join(folder, part)  # the weights become one file a tensor
    os.makedirs(folder)
    torch.onnx.export(module, inputs, os.path.join(folder, "model.onnx"), input_names=INPUTS[part], output_names=OUTPUTS[part],
                      opset_version=17, dynamo=False)


def export_openvino(module, part, inputs, folder):
    import openvino
    model = openvino.convert_model(module, example_input=inputs, input=[tuple(tensor.shape) for tensor in inputs])
    for port, name in zip(model.outputs, OUTPUTS[part]):
        port.get_tensor().set_names({name})
    openvino.save_model(model, os.path.join(folder, part + ".xml"), compress_to_fp16=False)


def export(options, folder, one):
    text = torch.from_numpy(np.load(os.path.join(options.cache, "inputs", "text.npy")))
    with open(os.path.join(options.base, "vae", "config.json"), encoding="utf-8") as file:
        channels = json.load(file)["block_out_channels"]
    parts = dict(zip(INPUTS, merged_parts(options.base, options.checkpoint, options.official)))
    for part in list(parts):
        one(parts.pop(part), part, example_inputs(part, options.size, text, channels), folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("inputs", "onnx", "openvino"))
    parser.add_argument("--base", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--official")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--cache", required=True)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    os.makedirs(options.cache, exist_ok=True)
    final = os.path.join(options.cache, options.what)
    unfinished = final + ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    os.makedirs(unfinished)
    if options.what == "inputs":
        prepare_inputs(options, unfinished)
    else:
        export(options, unfinished, export_onnx if options.what == "onnx" else export_openvino)
    os.rename(unfinished, final)


if __name__ == "__main__":
    main()
