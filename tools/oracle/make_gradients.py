"""Makes the gradient goldens: inputs, upstream gradient, outputs and gradients of single operations from PyTorch.

    make_gradients.py --output tests/golden/gradients        (format: tests/golden/README.md)
"""

import argparse
import os
import shutil

import numpy as np
import torch
from torch.nn import functional as F


def attention(query, key, value, heads, causal):
    """Multi-head attention of [B,N,C] tensors as the networks use it: scale 1/sqrt(C/heads)."""
    def split(tensor):
        return tensor.unflatten(2, (heads, -1)).transpose(1, 2)
    result = F.scaled_dot_product_attention(split(query), split(key), split(value), is_causal=causal)
    return result.transpose(1, 2).flatten(2)


def geglu(value):
    first, gate = value.chunk(2, dim=-1)
    return first * F.gelu(gate)


def convolution(stride, padding):
    """padding: left, right, top, bottom."""
    return lambda x, weight, bias=None: F.conv2d(F.pad(x, padding), weight, bias, stride)


# name -> (operation, its parameters, function, shapes of the inputs by name)
CASES = {
    "conv3x3": ("conv2d", {"stride": 1, "pad": "1,1,1,1"}, convolution(1, (1, 1, 1, 1)),
                {"x": (2, 5, 6, 7), "weight": (4, 5, 3, 3), "bias": (4,)}),
    "conv3x3_stride2": ("conv2d", {"stride": 2, "pad": "1,1,1,1"}, convolution(2, (1, 1, 1, 1)),
                        {"x": (1, 3, 7, 8), "weight": (6, 3, 3, 3), "bias": (6,)}),
    "conv3x3_stride2_right_bottom": ("conv2d", {"stride": 2, "pad": "0,1,0,1"}, convolution(2, (0, 1, 0, 1)),
                                     {"x": (1, 3, 8, 6), "weight": (5, 3, 3, 3), "bias": (5,)}),
    "conv3x3_one_pixel": ("conv2d", {"stride": 1, "pad": "1,1,1,1"}, convolution(1, (1, 1, 1, 1)),
                          {"x": (1, 3, 1, 1), "weight": (2, 3, 3, 3), "bias": (2,)}),
    "conv1x1_no_bias": ("conv2d", {"stride": 1, "pad": "0,0,0,0"}, convolution(1, (0, 0, 0, 0)),
                        {"x": (2, 4, 3, 5), "weight": (7, 4, 1, 1)}),
    "linear": ("linear", {}, F.linear, {"x": (2, 6, 5), "weight": (7, 5), "bias": (7,)}),
    "linear_no_bias": ("linear", {}, F.linear, {"x": (1, 9, 4), "weight": (3, 4)}),
    "group_norm": ("group_norm", {"groups": 3, "eps": 1e-5}, lambda x, weight, bias: F.group_norm(x, 3, weight, bias, 1e-5),
                   {"x": (2, 6, 4, 5), "weight": (6,), "bias": (6,)}),
    "group_norm_small": ("group_norm", {"groups": 4, "eps": 1e-6}, lambda x, weight, bias: F.group_norm(x, 4, weight, bias, 1e-6),
                         {"x": (1, 4, 3, 3), "weight": (4,), "bias": (4,)}),
    "layer_norm": ("layer_norm", {"eps": 1e-5}, lambda x, weight, bias: F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5),
                   {"x": (2, 5, 7), "weight": (7,), "bias": (7,)}),
    "silu": ("silu", {}, F.silu, {"x": (2, 3, 4, 5)}),
    "gelu": ("gelu", {}, F.gelu, {"x": (3, 4, 9)}),
    "quick_gelu": ("quick_gelu", {}, lambda x: x * torch.sigmoid(1.702 * x), {"x": (3, 4, 9)}),
    "geglu": ("geglu", {}, geglu, {"x": (2, 5, 12)}),
    "upsample": ("upsample_nearest", {"height": 6, "width": 10}, lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
                 {"x": (2, 3, 3, 5)}),
    "upsample_cut": ("upsample_nearest", {"height": 5, "width": 9}, lambda x: F.interpolate(x, size=(5, 9), mode="nearest"),
                     {"x": (1, 4, 3, 5)}),
    "attention_one_head": ("attention", {"heads": 1, "causal": 0}, lambda q, k, v: attention(q, k, v, 1, False),
                           {"q": (1, 6, 8), "k": (1, 6, 8), "v": (1, 6, 8)}),
    "attention_cross": ("attention", {"heads": 3, "causal": 0}, lambda q, k, v: attention(q, k, v, 3, False),
                        {"q": (2, 5, 12), "k": (2, 9, 12), "v": (2, 9, 12)}),
    "attention_causal": ("attention", {"heads": 2, "causal": 1}, lambda q, k, v: attention(q, k, v, 2, True),
                         {"q": (1, 7, 10), "k": (1, 7, 10), "v": (1, 7, 10)}),
    "softmax": ("softmax", {}, lambda x: F.softmax(x, dim=-1), {"x": (3, 4, 6)}),
}


def make_case(folder, operation, parameters, function, shapes, generator):
    """Computes in double, so that the golden is exact to float32."""
    inputs = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    if folder.endswith("_small"):  # a standard deviation at which eps counts
        inputs["x"] *= 1e-3
    leaves = {name: value.double().requires_grad_() for name, value in inputs.items()}
    output = function(*leaves.values())
    upstream = torch.randn(output.shape, generator=generator)
    output.backward(upstream.double())
    os.makedirs(folder)
    for name, value in inputs.items():
        np.save(os.path.join(folder, f"{name}.npy"), value.numpy())
        np.save(os.path.join(folder, f"grad_{name}.npy"), leaves[name].grad.float().numpy())
    np.save(os.path.join(folder, "out.npy"), output.detach().float().numpy())
    np.save(os.path.join(folder, "grad_out.npy"), upstream.numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    output = parser.parse_args().output
    shutil.rmtree(output, ignore_errors=True)
    os.makedirs(output)
    generator = torch.Generator().manual_seed(5)
    with open(os.path.join(output, "list.tsv"), "w") as file:
        for name, (operation, parameters, function, shapes) in CASES.items():
            make_case(os.path.join(output, name), operation, parameters, function, shapes, generator)
            settings = " ".join(f"{key}={value}" for key, value in parameters.items()) or "-"
            file.write(f"{name}\t{operation}\t{settings}\t{' '.join(shapes)}\n")


if __name__ == "__main__":
    main()
