"""Random weights on which mistakes show: activations are brought to the sizes where they matter.

A random network hides most mistakes: its normalisations see inputs so large that no epsilon counts, its attention is
nearly uniform, its activations nearly linear. The functions here rescale the weights while data runs through, layer
after layer: small residual streams, attention logits of std about 1.5, GELU inputs around -2.4 (where its variants
differ most), and a last convolution whose output nearly equals its input (where trained one-step models are).
"""

import math

import torch
from torch import nn

STREAM = 4e-3        # std of what each block adds to a residual stream
NORM_INPUT = 3e-3    # std of the inputs of the second normalisation of a residual block
QUERY_KEY = 1.25     # std of queries and keys: logits of std about 1.5
GATE = 0.8           # std of a GELU's input, around a bias


def target_of(name):
    """The std that the output of the layer `name` gets; None: leave it alone."""
    last = name.rsplit(".", 1)[-1]
    if name.endswith(("to_q", "to_k", "q_proj", "k_proj")):
        return QUERY_KEY
    if name.endswith(("to_v", "v_proj")):
        return 1.0
    if name.endswith(("ff.net.0.proj", "fc1")):
        return GATE
    if name.endswith(("time_embedding.linear_1", "time_embedding.linear_2")):
        return 1.0
    if last == "time_emb_proj" or last == "conv1":
        return NORM_INPUT
    if name.endswith(("encoder.conv_out",)):
        return 2.0
    if name == "quant_conv":
        return 2.0
    if name == "post_quant_conv":
        return 1.0
    if name.endswith("decoder.conv_out"):
        return 0.45
    return STREAM


def spread(generator, *shape, low=0.6, high=1.6):
    """Log-uniform factors."""
    return torch.exp(torch.empty(shape).uniform_(math.log(low), math.log(high), generator=generator))


def randomize(model, generator):
    """Random weights, biases and gains for every layer; their scale is set later by calibrate()."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) / math.sqrt(fan_in)
            module.weight.data *= spread(generator, len(module.weight), *[1] * (module.weight.dim() - 1))
            if module.bias is not None:
                module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.2
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            module.weight.data = spread(generator, *module.weight.shape)
            module.bias.data = torch.randn(module.bias.shape, generator=generator) * 0.15
        elif isinstance(module, nn.Embedding):
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * STREAM


def calibrate(model, run):
    """Runs run() once and rescales each linear and convolution layer by its own output on the way: its products to the
    target's std, its bias in proportion to the target."""
    hooks, seen = [], set()

    def hook(name):
        def rescale(module, inputs, output):
            if name in seen:
                return output
            seen.add(name)
            target = target_of(name)
            if module.bias is None:
                module.weight.data *= target / float(output.std())
            else:
                bias = module.bias.data if output.dim() < 4 else module.bias.data[:, None, None]
                module.weight.data *= target / float((output - bias).std())
                module.bias.data *= target
                center_gate(name, module)
            return module._conv_forward(inputs[0], module.weight, module.bias) if isinstance(module, nn.Conv2d) \
                else nn.functional.linear(inputs[0], module.weight, module.bias)
        return rescale

    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            hooks.append(module.register_forward_hook(hook(name)))
    with torch.no_grad():
        run()
    for handle in hooks:
        handle.remove()


def center_gate(name, module):
    """Puts seven of eight GELU inputs near -2.4. In a GEGLU only the second half of the outputs is the gate."""
    if name.endswith("ff.net.0.proj"):
        gate = module.bias.data[len(module.bias) // 2:]
    elif name.endswith("fc1"):
        gate = module.bias.data
    else:
        return
    gate -= 2.4
    gate[::8] += 2.4


def refit_output(features, targets, convolution, ridge=1e-4, bias=True):
    """Weight and bias (0 if there is to be none) of a 3x3 convolution from features to targets, both lists of
    [1,C,H,W], by ridge regression."""
    columns, rows = [], []
    for feature, target in zip(features, targets):
        patches = nn.functional.unfold(feature, 3, padding=1)[0]  # [C*9, H*W]
        ones = torch.ones(1, patches.shape[1])
        columns.append(torch.cat([patches, ones] if bias else [patches]).double())
        rows.append(target[0].flatten(1).double())
    columns, rows = torch.cat(columns, 1), torch.cat(rows, 1)
    square = columns @ columns.T
    square += ridge * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
    solution = torch.linalg.solve(square, columns @ rows.T).T.float()
    inputs = convolution.weight[0].numel()
    return solution[:, :inputs].reshape(convolution.weight.shape), solution[:, inputs] if bias else 0


def randomize_lora(model, generator, share=0.35):
    """Random A and B of every LoRA layer, so that scale * B A has `share` of the base weight's norm."""
    for module in model.modules():
        if not hasattr(module, "lora_A"):
            continue
        base = module.base_layer if hasattr(module, "base_layer") else module
        for adapter in module.lora_A:
            first, second = module.lora_A[adapter], module.lora_B[adapter]
            first.weight.data = torch.randn(first.weight.shape, generator=generator) / math.sqrt(first.weight[0].numel())
            second.weight.data = torch.randn(second.weight.shape, generator=generator)
            rows, columns = first.weight.data.flatten(1), second.weight.data.flatten(1)
            norm = module.scaling[adapter] * ((columns.T @ columns) * (rows @ rows.T)).sum().sqrt()  # of scale * B A
            second.weight.data *= share * base.weight.data.norm() / norm
