"""Every engine's layers in the same few groups: stage (encode, UNet, decode) x kind. No other module is needed.

A layer is a dictionary: part (encoder, denoiser, decoder), name (the engine's own), path (of the module that it came from, as
onestep and diffusers name it; "" where the engine did not keep it), operator (the engine's word), seconds, and where they
are known: output (its shape, n c h w), kernel (of a product with a weight), weighted (False: a product of two activations),
fused (names of all that it computes). Of onestep also gflop (direct count) and bytes.
"""

import re

STAGES = {"encoder": "encode", "denoiser": "UNet", "decoder": "decode"}  # in the order of the table
OWN_PARTS = {"encode": "encoder", "unet": "denoiser", "decode": "decoder"}

CONVOLUTION = "3x3 convolutions"  # "at HxW" follows, the resolution of what they make
LINEAR = "1x1 convolutions, linear layers"
ATTENTION = "attention"
OTHER = "everything else"
UNKNOWN = "products that cannot be told apart"

# What an operator is, by the beginning of its name in lower case: of onestep, OpenVINO, ONNX Runtime, PyTorch. The first that
# fits counts; whatever stands nowhere is "everything else".
OPERATORS = (
    ("attention", ("attention", "softmax", "scaleddotproductattention", "multiheadattention", "aten._scaled_dot_product",
                   "aten._softmax")),
    ("product", ("direct ", "winograd ", "conv2d", "linear",
                 "convolution", "groupconvolution", "fullyconnected",
                 "conv", "fusedconv", "nhwcfusedconv", "gemm", "fusedgemm", "matmul", "fusedmatmul",
                 "aten.convolution", "aten.addmm", "aten.mm", "aten.bmm", "aten.baddbmm")),
)
FUSED_ATTENTION = re.compile(r"(^|/)softmax|scaled_dot_product_attention", re.IGNORECASE)

# Kernels by the name of the module, where an engine does not tell them and for what LoRA adds to a module.
KERNELS = {**dict.fromkeys(("conv1", "conv2", "conv_in", "conv_out", "conv"), 3),
           **dict.fromkeys(("conv_shortcut", "quant_conv", "post_quant_conv", "proj_in", "proj_out", "proj", "net", "to_q", "to_k",
                            "to_v", "to_out", "linear_1", "linear_2", "time_emb_proj", "skip_conv_1", "skip_conv_2",
                            "skip_conv_3", "skip_conv_4"), 1)}


# What each engine's numbers mean, and what it cannot tell apart.
NOTES = {
    "onestep": "onestep: normalisation, activation, bias, residual and skip run inside the products and count there.",
    "onnxruntime": "ONNX Runtime: residual sums, and bias, run inside convolutions; attention is two products and a softmax, its "
                   "scaling and transposes are in \"everything else\".",
    "openvino": "OpenVINO: attention may be one node, which holds scaling and transposes too; bias and some activations and sums "
                "run inside products; changes of layout are nodes of their own, in \"everything else\".",
    "torch": "PyTorch: nothing is fused; the time between operators, in Python, is in no layer.",
    "official": "PyTorch, official code: what LoRA multiplies counts for the layer that it belongs to, what it adds is in "
                "\"everything else\".",
}


def module_path(name):
    """The module that an engine's name of a node tells, or "": of OpenVINO "__module.unet.conv_in/aten::_convolution/Convolution",
    of ONNX "/unet/conv_in/Conv_output_0_nchwc", of PyTorch "unet.conv_in.base_layer"."""
    if name.startswith("__module."):
        path = name[len("__module."):].partition("/")[0]
    elif name.startswith("/"):
        modules = []
        for piece in name[1:].split("/"):
            if not piece or piece[0].isupper():  # an operator
                break
            modules.append(piece)
        path = ".".join(modules)
    else:
        path = name
    path = re.sub(r"^unet\.", "", path)
    return re.sub(r"\.(base_layer|lora_[A-Za-z_]+)(\..*)?$", "", path)


def module_kernel(path):
    """By the last part of the path that is not a number: to_out.0 is to_out."""
    names = [name for name in path.split(".") if not name.isdigit()]
    return KERNELS.get(names[-1]) if names else None


def kind(layer):
    operator = layer["operator"].lower()
    what = next((what for what, names in OPERATORS if operator.startswith(names)), None)
    if what == "attention" or any(FUSED_ATTENTION.search(name) for name in layer.get("fused", ())):
        return ATTENTION
    if what != "product":
        return OTHER
    if layer.get("weighted") is False:
        return ATTENTION
    kernel = module_kernel(layer["path"]) or layer.get("kernel")
    if kernel == 3 and layer.get("output"):
        return "{} at {}x{}".format(CONVOLUTION, *layer["output"][-2:])
    return LINEAR if kernel == 1 else UNKNOWN


def order(group):
    """Of the table's rows: by stage, convolutions from the largest picture down, then the other kinds."""
    stage, name = group
    kinds = (CONVOLUTION, LINEAR, ATTENTION, OTHER, UNKNOWN)
    place = next(index for index, start in enumerate(kinds) if name.startswith(start))
    pixels = 1
    if place == 0:
        for side in re.findall(r"\d+", name[len(CONVOLUTION):]):
            pixels *= int(side)
    return list(STAGES.values()).index(stage), place, -pixels, name


def groups(layers):
    """[{"stage", "kind", "layers", "seconds", and of onestep "gflop"}], in the table's order."""
    found = {}
    for layer in layers:
        key = (STAGES[layer["part"]], kind(layer))
        group = found.setdefault(key, {"stage": key[0], "kind": key[1], "layers": 0, "seconds": 0.0})
        group["layers"] += 1
        group["seconds"] += layer["seconds"]
        if "gflop" in layer:
            group["gflop"] = group.get("gflop", 0.0) + layer["gflop"]
    return [found[key] for key in sorted(found, key=order)]


def own_layers(steps):
    """The layers of `onestep bench --plan --json`."""
    layers = []
    for step in steps:
        batch, height, width, channels = step["output"]
        layers.append({"part": OWN_PARTS[step["stage"]], "name": step["weight"],
                       "path": module_path(step["weight"].rpartition(".")[0]), "operator": step["algorithm"],
                       "seconds": step["took_s"], "output": [batch, channels, height, width], "gflop": step["gflop"],
                       "bytes": step["bytes"]})
    return layers
