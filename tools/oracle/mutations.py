"""Named mistakes that an implementation of the official code can make, planted into the official code itself.

Each mutation is a function of a Run (below); it changes the loaded official object or the functions that it calls.
`@mutation(text, cases)` names it: the function's name, what the mistake is, and the golden cases that should show it.
For the pinned versions of the libraries.
"""

import math

import numpy as np
import torch
from diffusers.models import unet_2d_blocks, upsampling
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformer_2d import Transformer2DModel
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers.models.clip import modeling_clip

import official as official_module

A_EDGE, A_ODD, A_SKETCH, A_DAY, A_NIGHT = "a_edge_64x64", "a_edge_47x39_floor", "a_sketch_gamma0.4", "a_day_to_night", "a_night_to_day"
B_EDGE, B_LONG, B_SKETCH, B_NIGHT = "b_edge_64x48", "b_edge_24x56_cpu", "b_sketch_gamma0.4", "b_night_to_day"
MUTATIONS = []


class Activation(nn.Module):
    """A function as a module, to take a module's place."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


class Run:
    """One run of a golden case that a mutation may spoil."""

    def __init__(self, official, model, case, picture, stack):
        self.official, self.model, self.case, self.picture, self.stack = official, model, dict(case), picture, stack
        self.finish = lambda stages, output: output  # turns the stages and the official picture into the picture

    @property
    def vae(self):
        return self.model.vae_b2a if self.case["task"] == "night_to_day" else self.model.vae

    def patch(self, owner, name, value):
        old = getattr(owner, name)
        self.stack.callback(setattr, owner, name, old)
        setattr(owner, name, value)

    def patch_method(self, kind, name, make):
        """Replaces a method of a class by make(the old one)."""
        self.patch(kind, name, make(getattr(kind, name)))


def mutation(text, *cases):
    def register(function):
        MUTATIONS.append((function.__name__, text, cases, function))
        return function
    return register


def modules(network, kind, part=""):
    return [module for name, module in network.named_modules() if isinstance(module, kind) and part in name]


def lora_layers(network, part=""):
    return [module for name, module in network.named_modules() if hasattr(module, "lora_A") and part in name]


def scale_lora(network, factor, part=""):
    for layer in lora_layers(network, part):
        for adapter in layer.scaling:
            layer.scaling[adapter] *= factor


def change_ids(run, change):
    """change: a function from a list of 77 ids to one."""
    tokenizer = run.model.tokenizer

    def changed(*arguments, **keywords):
        result = tokenizer(*arguments, **keywords)
        result["input_ids"] = torch.tensor([change(row, tokenizer) for row in result.input_ids.tolist()])
        return result
    changed.model_max_length = 77
    run.model.tokenizer = changed


def end_of(ids, tokenizer):
    return ids.index(tokenizer.eos_token_id)


# ---- text -------------------------------------------------------------------------------------------------------

@mutation("`!` is dropped from the prompt", A_EDGE)
def exclamation_stripped(run):
    def change(ids, tokenizer):
        end = end_of(ids, tokenizer)
        kept = [value for value in ids[:end] if value != 0] + [ids[end]]
        return kept + [0] * (77 - len(kept))
    change_ids(run, change)


@mutation("`!` goes through BPE instead of becoming the pad token", A_EDGE)
def exclamation_by_bpe(run):
    change_ids(run, lambda ids, tokenizer: [256 if value == 0 and index < end_of(ids, tokenizer) else value
                                            for index, value in enumerate(ids)])


@mutation("padding with EOS instead of the pad token", A_EDGE, A_DAY)
def padded_with_eos(run):
    change_ids(run, lambda ids, tokenizer: ids[:end_of(ids, tokenizer)] + [tokenizer.eos_token_id] * (77 - end_of(ids, tokenizer)))


@mutation("padding on the left", A_EDGE, B_EDGE)
def padded_left(run):
    change_ids(run, lambda ids, tokenizer: ids[end_of(ids, tokenizer) + 1:] + ids[:end_of(ids, tokenizer) + 1])


@mutation("a long prompt loses its EOS", B_LONG)
def long_prompt_without_eos(run):
    change_ids(run, lambda ids, tokenizer: ids[:-1] + [ids[1]])


@mutation("no BOS", A_EDGE)
def without_bos(run):
    change_ids(run, lambda ids, tokenizer: ids[1:] + ids[-1:])


@mutation("the other GELU in the text encoder (erf and quick swapped)", A_EDGE, B_EDGE)
def text_gelu_swapped(run):
    for layer in run.model.text_encoder.text_model.encoder.layers:
        quick = "quick" in type(layer.mlp.activation_fn).__name__.lower()
        layer.mlp.activation_fn = Activation(F.gelu if quick else lambda x: x * torch.sigmoid(1.702 * x))


@mutation("tanh-GELU in the text encoder", A_EDGE)
def text_gelu_tanh(run):
    for layer in run.model.text_encoder.text_model.encoder.layers:
        layer.mlp.activation_fn = Activation(lambda x: F.gelu(x, approximate="tanh"))


@mutation("no causal mask in the text encoder", A_EDGE, B_EDGE)
def text_without_causal_mask(run):
    run.patch(modeling_clip, "_create_4d_causal_attention_mask", lambda *_, **__: None)


@mutation("the text encoder's last layer is skipped", A_EDGE)
def text_penultimate_layer(run):
    encoder = run.model.text_encoder.text_model.encoder
    encoder.layers = encoder.layers[:-1]


@mutation("the text encoder's final LayerNorm is skipped", A_EDGE)
def text_without_final_norm(run):
    run.model.text_encoder.text_model.final_layer_norm = nn.Identity()


@mutation("the text encoder's LayerNorm eps 1e-6", A_EDGE, B_EDGE)
def text_norm_eps(run):
    for norm in modules(run.model.text_encoder, nn.LayerNorm):
        norm.eps = 1e-6


@mutation("the text encoder's head count and head width swapped", A_EDGE)
def text_heads(run):
    for layer in run.model.text_encoder.text_model.encoder.layers:
        attention = layer.self_attn
        attention.num_heads, attention.head_dim = attention.head_dim, attention.num_heads
        attention.scale = attention.head_dim ** -0.5


@mutation("padding positions are masked out of the cross-attention", A_EDGE, B_EDGE)
def pads_masked(run):
    old = run.model.unet.forward
    counts = []
    run.model.text_encoder.register_forward_pre_hook(
        lambda module, inputs: counts.append(inputs[0][0].tolist().index(run.model.tokenizer.eos_token_id) + 1))
    run.model.unet.forward = lambda *arguments, encoder_hidden_states: old(
        *arguments, encoder_hidden_states=encoder_hidden_states[:, :counts[-1]])


# ---- VAE --------------------------------------------------------------------------------------------------------

@mutation("the VAE's GroupNorm eps 1e-5", A_EDGE, B_EDGE)
def vae_norm_eps(run):
    for norm in modules(run.vae, nn.GroupNorm):
        norm.eps = 1e-5


@mutation("one group in the VAE's GroupNorm", A_EDGE, B_EDGE)
def vae_one_group(run):
    for norm in modules(run.vae, nn.GroupNorm):
        norm.num_groups = 1


@mutation("the encoder's down-sampling pads all sides", A_EDGE, B_EDGE)
def vae_symmetric_padding(run):
    for layer in modules(run.vae, Downsample2D):
        layer.forward = lambda x, scale=1.0, layer=layer: layer.conv(F.pad(x, (1, 1, 1, 1)))


@mutation("the encoder's down-sampling pads left and top", A_EDGE)
def vae_padding_side(run):
    for layer in modules(run.vae, Downsample2D):
        layer.forward = lambda x, scale=1.0, layer=layer: layer.conv(F.pad(x, (1, 0, 1, 0)))


@mutation("no attention in the VAE's middle", A_EDGE, B_EDGE)
def vae_without_attention(run):
    for block in (run.vae.encoder.mid_block, run.vae.decoder.mid_block):
        block.attentions = nn.ModuleList([None])


@mutation("two heads in the VAE's attention", A_EDGE, B_EDGE)
def vae_two_heads(run):
    for attention in modules(run.vae, Attention):
        attention.heads = 2


@mutation("the VAE's attention is not divided by the root of the width", A_EDGE)
def vae_attention_scale(run):
    for attention in modules(run.vae, Attention):
        attention.to_q.register_forward_hook(lambda module, inputs, output: output * math.sqrt(output.shape[-1]))


@mutation("the posterior's mean instead of a sample", A_EDGE, B_SKETCH)
def posterior_mean(run):
    run.patch_method(DiagonalGaussianDistribution, "sample", lambda old: lambda self: old(self) * 0 + self.mean)


@mutation("exp(log-variance) as the standard deviation", A_EDGE, B_EDGE)
def variance_as_deviation(run):
    run.patch_method(DiagonalGaussianDistribution, "sample", lambda old: lambda self: self.mean + (old(self) - self.mean) * self.std)


@mutation("mean and log-variance swapped", A_EDGE)
def moments_swapped(run):
    run.vae.quant_conv.register_forward_hook(lambda module, inputs, output: output.roll(4, dims=1))


@mutation("SD-Turbo's scaling_factor whatever the config says", B_EDGE)
def scaling_factor_fixed(run):
    run.vae.register_to_config(scaling_factor=0.18215)


@mutation("no division by scaling_factor before the decoder", A_EDGE)
def latent_not_unscaled(run):
    factor = run.vae.config.scaling_factor
    run.vae.post_quant_conv.register_forward_pre_hook(lambda module, inputs: (inputs[0] * factor,))


@mutation("the post-quant convolution is skipped", A_EDGE)
def without_post_quant(run):
    run.vae.post_quant_conv = nn.Identity()


@mutation("the quant convolution is skipped", A_EDGE)
def without_quant(run):
    run.vae.quant_conv.register_forward_hook(lambda module, inputs, output: inputs[0])


@mutation("the skips that have the same width are swapped", A_EDGE)
def skips_swapped(run):
    # The first two encoder activations have C0 channels; the larger one is taken for both.
    def swap(module, inputs):
        first, second, *rest = module.incoming_skip_acts
        module.incoming_skip_acts = [F.interpolate(second, scale_factor=2.0), F.interpolate(first, scale_factor=0.5), *rest]
    run.vae.decoder.register_forward_pre_hook(swap)


@mutation("no skips", A_EDGE, B_EDGE)
def without_skips(run):
    run.vae.decoder.ignore_skip = True


@mutation("no LoRA on the skip convolutions", A_EDGE, B_EDGE)
def skips_without_lora(run):
    scale_lora(run.vae, 0, "skip_conv")


@mutation("bilinear instead of nearest up-sampling", A_EDGE, B_EDGE)
def bilinear_upsampling(run):
    run.patch(upsampling, "F", changed_module(F, interpolate=lambda x, size=None, scale_factor=None, mode=None: F.interpolate(
        x, size=size, scale_factor=scale_factor, mode="bilinear")))


def changed_module(module, **changes):
    """Stands for a module, with some of its functions replaced."""
    class Changed:
        def __getattr__(self, name):
            return changes[name] if name in changes else getattr(module, name)
    return Changed()


# ---- UNet -------------------------------------------------------------------------------------------------------

@mutation("up-sampling to an odd size cuts the first row and column", A_ODD)
def cut_first(run):
    def interpolate(x, size=None, scale_factor=None, mode=None):
        if size is None:
            return F.interpolate(x, scale_factor=scale_factor, mode=mode)
        large = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return large[:, :, large.shape[2] - size[0]:, large.shape[3] - size[1]:]
    run.patch(upsampling, "F", changed_module(F, interpolate=interpolate))


@mutation("time step 1000", A_EDGE, B_EDGE)
def time_1000(run):
    change_time(run, 1000)


@mutation("time step 998", A_EDGE, B_EDGE)
def time_998(run):
    change_time(run, 998)


@mutation("time step 0", A_EDGE)
def time_0(run):
    change_time(run, 0)


def change_time(run, value):
    run.model.unet.time_proj.register_forward_hook(
        lambda module, inputs, output: module.forward(torch.full_like(inputs[0], value)))


@mutation("sines before cosines in the time embedding", A_EDGE, B_EDGE)
def time_sines_first(run):
    run.model.unet.time_proj.flip_sin_to_cos = False


@mutation("frequencies with shift 1 in the time embedding", A_EDGE)
def time_frequency_shift(run):
    run.model.unet.time_proj.downscale_freq_shift = 1


@mutation("no SiLU before each block's time projection", A_EDGE, B_EDGE)
def time_without_silu(run):
    for block in modules(run.model.unet, ResnetBlock2D):
        activation = block.nonlinearity
        block.nonlinearity = Activation(lambda x, activation=activation: x if x.dim() == 2 else activation(x))


@mutation("attention_head_dim taken as the width of a head", A_EDGE, B_EDGE)
def heads_as_width(run):
    for attention in modules(run.model.unet, Attention):
        attention.heads = attention.to_q.weight.shape[0] // attention.heads


@mutation("one head in the UNet's attention", A_EDGE)
def one_head(run):
    for attention in modules(run.model.unet, Attention):
        attention.heads = 1


@mutation("logits divided by the width instead of its root", A_EDGE, B_EDGE)
def attention_scale(run):
    for attention in modules(run.model.unet, Attention):
        attention.to_q.register_forward_hook(
            lambda module, inputs, output, heads=attention.heads: output / math.sqrt(output.shape[-1] // heads))


@mutation("the UNet's GroupNorm eps 1e-6", A_EDGE, B_EDGE)
def unet_norm_eps(run):
    for norm in modules(run.model.unet, nn.GroupNorm):
        norm.eps = 1e-6


@mutation("the transformers' GroupNorm eps as the other norms'", A_EDGE, B_EDGE)
def transformer_norm_eps(run):
    for block in modules(run.model.unet, Transformer2DModel):
        block.norm.eps = run.model.unet.config.norm_eps


@mutation("the transformers' LayerNorm eps 1e-6", A_EDGE, B_EDGE)
def unet_layer_norm_eps(run):
    for norm in modules(run.model.unet, nn.LayerNorm):
        norm.eps = 1e-6


@mutation("GEGLU with its halves swapped", A_EDGE, B_EDGE)
def geglu_swapped(run):
    def forward(self, x, scale=1.0):
        first, second = self.proj(x).chunk(2, dim=-1)
        return F.gelu(first) * second
    run.patch(GEGLU, "forward", forward)


@mutation("GEGLU with tanh-GELU", A_EDGE, B_EDGE)
def geglu_tanh(run):
    run.patch(GEGLU, "gelu", lambda self, gate: F.gelu(gate, approximate="tanh"))


@mutation("GEGLU with quick GELU", A_EDGE)
def geglu_quick(run):
    run.patch(GEGLU, "gelu", lambda self, gate: gate * torch.sigmoid(1.702 * gate))


@mutation("the UNet's down-sampling pads right and bottom only", A_EDGE, B_EDGE)
def unet_padding(run):
    for layer in modules(run.model.unet, Downsample2D):
        layer.padding = 0  # Downsample2D then pads right and bottom itself
        for convolution in modules(layer, nn.Conv2d):
            if convolution.kernel_size == (3, 3):
                convolution.padding = (0, 0)


@mutation("the up path concatenates skip and stream in the other order", A_EDGE, B_EDGE)
def concatenation_swapped(run):
    run.patch(unet_2d_blocks, "torch", changed_module(torch, cat=lambda tensors, dim=0: torch.cat(tensors[::-1], dim)))


@mutation("the UNet's skips are taken first in, first out", A_EDGE)
def unet_skip_order(run):
    for block in run.model.unet.up_blocks:
        old = block.forward

        def forward(*arguments, res_hidden_states_tuple, old=old, **keywords):
            states = list(res_hidden_states_tuple)
            for first in range(len(states)):  # swaps those of equal shape
                for second in range(first + 1, len(states)):
                    if states[first].shape == states[second].shape:
                        states[first], states[second] = states[second], states[first]
            return old(*arguments, res_hidden_states_tuple=tuple(states), **keywords)
        block.forward = forward


@mutation("the text is ignored", A_EDGE, B_EDGE)
def text_ignored(run):
    old = run.model.unet.forward
    run.model.unet.forward = lambda *arguments, encoder_hidden_states: old(
        *arguments, encoder_hidden_states=encoder_hidden_states * 0)


@mutation("only one transformer layer a block", B_EDGE)
def one_transformer_layer(run):
    for block in modules(run.model.unet, Transformer2DModel):
        block.transformer_blocks = block.transformer_blocks[:1]


# ---- scheduler --------------------------------------------------------------------------------------------------

@mutation("epsilon and v prediction swapped", A_EDGE, B_EDGE)
def prediction_swapped(run):
    kind = run.model.sched.config.prediction_type
    run.model.sched.register_to_config(prediction_type="v_prediction" if kind == "epsilon" else "epsilon")


@mutation("the alphas of time step 998", A_EDGE, B_EDGE)
def alpha_998(run):
    run.model.sched.alphas_cumprod = run.model.sched.alphas_cumprod.roll(1)


@mutation("linear betas", A_EDGE, B_EDGE)
def betas_linear(run):
    config = run.model.sched.config
    betas = torch.linspace(config.beta_start, config.beta_end, 1000)
    run.model.sched.alphas_cumprod = torch.cumprod(1 - betas, 0)


@mutation("SD-Turbo's betas whatever the config says", B_EDGE)
def betas_fixed(run):
    betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2
    run.model.sched.alphas_cumprod = torch.cumprod(1 - betas, 0)


@mutation("x0 clamped to +-1", A_EDGE, B_EDGE)
def clean_clamped(run):
    run.model.sched.register_to_config(clip_sample=True, clip_sample_range=1.0)


@mutation("the scheduler steps from the encoded picture, not from its mixture with noise", A_SKETCH, B_SKETCH)
def step_from_encoded(run):
    old = run.model.sched.step
    latents = []
    run.patch_method(DiagonalGaussianDistribution, "sample", lambda sample: lambda self: latents.append(sample(self)) or latents[-1])
    run.model.sched.step = lambda prediction, time, sample, **keywords: old(
        prediction, time, latents[-1] * run.vae.config.scaling_factor, **keywords)


# ---- LoRA, checkpoints ------------------------------------------------------------------------------------------

@mutation("alpha = rank in the VAE", A_EDGE, B_EDGE, A_DAY)
def vae_alpha_rank(run):
    for layer in lora_layers(run.vae):
        for adapter in layer.scaling:
            layer.scaling[adapter] = 1.0


@mutation("alpha = rank in the paired UNet", A_EDGE)
def unet_alpha_rank(run):
    for layer in lora_layers(run.model.unet):
        for adapter in layer.scaling:
            layer.scaling[adapter] = 1.0


@mutation("alpha 8 in the unpaired UNet", A_DAY)
def unpaired_alpha_8(run):
    for layer in lora_layers(run.model.unet):
        for adapter in layer.scaling:
            layer.scaling[adapter] = 8.0 / layer.r[adapter]


@mutation("LoRA applied twice", A_EDGE)
def lora_twice(run):
    scale_lora(run.model.unet, 2)


@mutation("no LoRA in the VAE's decoder", A_EDGE, B_EDGE)
def decoder_without_lora(run):
    scale_lora(run.vae.decoder, 0)


@mutation("no LoRA on the UNet's last convolution", A_EDGE, B_EDGE)
def output_without_lora(run):
    scale_lora(run.model.unet, 0, "conv_out")


@mutation("no LoRA on the unpaired UNet's first convolution", A_DAY, B_NIGHT)
def input_without_lora(run):
    scale_lora(run.model.unet, 0, "conv_in")


@mutation("no LoRA on the 1x1 shortcuts", A_EDGE, B_EDGE)
def shortcuts_without_lora(run):
    scale_lora(run.model.unet, 0, "conv_shortcut")


@mutation("no LoRA on the feed-forward layers", A_EDGE, B_EDGE)
def feed_forward_without_lora(run):
    scale_lora(run.model.unet, 0, ".ff.")


@mutation("the base model's first convolution instead of the checkpoint's", A_EDGE, B_EDGE)
def input_of_base(run):
    base = run.official.UNet2DConditionModel.from_pretrained(run.official.base, subfolder="unet")
    run.model.unet.conv_in.weight.data, run.model.unet.conv_in.bias.data = base.conv_in.weight.data, base.conv_in.bias.data


@mutation("the base model's VAE weights instead of the unpaired checkpoint's", A_DAY, B_NIGHT)
def vae_of_base(run):
    base = dict(run.official.AutoencoderKL.from_pretrained(run.official.base, subfolder="vae").named_parameters())
    for name, parameter in run.vae.named_parameters():
        if name.replace(".base_layer", "") in base:
            parameter.data = base[name.replace(".base_layer", "")].data


@mutation("the other direction's VAE", A_DAY, A_NIGHT)
def direction_swapped(run):
    for part in (run.model.vae_enc, run.model.vae_dec):
        part.vae, part.vae_b2a = part.vae_b2a, part.vae


@mutation("the first VAE encodes for both directions", A_NIGHT, B_NIGHT)
def encoder_of_first(run):
    run.model.vae_enc.vae_b2a = run.model.vae_enc.vae
    run.model.vae_dec.vae_b2a.encoder = run.model.vae_enc.vae.encoder  # so that the skips are found


@mutation("the caption of the other direction", A_DAY, B_NIGHT)
def caption_swapped(run):
    run.model.caption = "driving in the day" if "night" in run.model.caption else "driving in the night"


# ---- gamma ------------------------------------------------------------------------------------------------------

def ignore_vae_gamma(run):
    """The VAE's LoRA keeps its scale: the official code sets it by a function that it imported."""
    names = type(run.model).forward.__globals__
    run.stack.callback(names.__setitem__, "set_weights_and_activate_adapters", names["set_weights_and_activate_adapters"])
    names["set_weights_and_activate_adapters"] = lambda *_: None


@mutation("gamma does not scale the LoRA", A_SKETCH, B_SKETCH)
def lora_without_gamma(run):
    run.model.unet.set_adapters = lambda *_, **__: None
    ignore_vae_gamma(run)


@mutation("gamma accumulates on the LoRA", A_SKETCH, B_SKETCH)
def gamma_accumulates(run):
    def accumulate(module, inputs):
        scale_lora(module, run.case["gamma"])
    run.model.unet.register_forward_pre_hook(accumulate)


@mutation("gamma scales the UNet's LoRA only", A_SKETCH, B_SKETCH)
def vae_lora_without_gamma(run):
    ignore_vae_gamma(run)


@mutation("gamma does not scale the skips", A_SKETCH, B_SKETCH)
def skips_without_gamma(run):
    run.vae.decoder.register_forward_pre_hook(lambda module, inputs: setattr(module, "gamma", 1))


@mutation("the twin convolutions swapped", A_SKETCH, B_SKETCH)
def twins_swapped(run):
    twin = run.model.unet.conv_in
    twin.conv_in_pretrained, twin.conv_in_curr = twin.conv_in_curr, twin.conv_in_pretrained


@mutation("only the trained twin", A_SKETCH, B_SKETCH)
def one_twin(run):
    run.model.unet.conv_in.conv_in_pretrained = run.model.unet.conv_in.conv_in_curr


@mutation("the twins' biases are not mixed", A_SKETCH, B_SKETCH)
def twin_bias(run):
    twin = run.model.unet.conv_in
    twin.conv_in_pretrained.bias.data = twin.conv_in_curr.bias.data


@mutation("noise map and posterior draw swapped", A_SKETCH, B_SKETCH)
def draws_swapped(run):
    run.patch_method(official_module.Recorder, "next_draw", lambda old: lambda self, shape: swapped_draw(self, shape))


def swapped_draw(recorder, shape):
    recorder.draw_count += 1
    return torch.from_numpy(recorder.draws((1, 0, 2)[recorder.draw_count - 1], tuple(shape)).copy())


@mutation("noise added at full strength", A_SKETCH)
def noise_not_scaled(run):
    old = run.model.forward
    gamma = run.case["gamma"]
    run.model.forward = lambda *arguments, noise_map, **keywords: old(*arguments, noise_map=noise_map / (1 - gamma), **keywords)


@mutation("the generator's first word is taken for element 1", A_EDGE)
def noise_shifted(run):
    run.patch_method(official_module.Recorder, "next_draw",
                     lambda old: lambda self, shape: old(self, shape).flatten().roll(1).reshape(shape))


@mutation("the noise in another layout (channels last)", A_EDGE)
def noise_layout(run):
    run.patch_method(official_module.Recorder, "next_draw",
                     lambda old: lambda self, shape: old(self, shape).reshape(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2))


# ---- pictures ---------------------------------------------------------------------------------------------------

def change_control(run, change):
    run.vae.encoder.register_forward_pre_hook(lambda module, inputs: (change(inputs[0]),))


@mutation("the paired input in [-1,1]", A_EDGE, A_SKETCH)
def paired_range(run):
    change_control(run, lambda x: x * 2 - 1)


@mutation("the unpaired input in [0,1]", A_DAY)
def unpaired_range(run):
    change_control(run, lambda x: x * 0.5 + 0.5)


@mutation("the edges inverted", A_EDGE)
def edges_inverted(run):
    change_control(run, lambda x: 1 - x)


@mutation("the sketch inverted", A_SKETCH, B_SKETCH)
def sketch_inverted(run):
    change_control(run, lambda x: 1 - x)


@mutation("red and blue swapped", A_DAY, B_NIGHT)
def channels_swapped(run):
    change_control(run, lambda x: x.flip(1))


@mutation("Canny on the grey picture", A_EDGE)
def canny_grey(run):
    run.patch(run.official, "canny_from_pil", edges_of(run, lambda picture: picture.convert("L").convert("RGB")))


def edges_of(run, change):
    old = run.official.canny_from_pil
    return lambda picture, low, high: old(change(picture), low, high)


@mutation("bicubic instead of Lanczos", A_ODD)
def bicubic(run):
    run.patch(official_module, "Image", changed_module(Image, LANCZOS=Image.BICUBIC))


@mutation("cropped to a multiple of 8 instead of resized", A_ODD)
def cropped(run):
    width, height = run.picture.size
    run.picture = run.picture.crop((0, 0, width - width % 8, height - height % 8))


@mutation("the output rounded instead of truncated", A_EDGE, B_EDGE)
def rounded(run):
    def finish(stages, output):
        values = np.clip(stages["decoded"][0], -1, 1).transpose(1, 2, 0) * 0.5 + 0.5
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    run.finish = finish


@mutation("the output wraps around instead of being clamped", A_EDGE, A_DAY)
def not_clamped(run):
    def finish(stages, output):
        values = stages["decoded"][0].transpose(1, 2, 0) * 0.5 + 0.5
        return Image.fromarray((np.floor(values * 255).astype(np.int64) & 255).astype(np.uint8))
    run.finish = finish


# ---- not mistakes: rounding, which must hardly show ---------------------------------------------------------------

def rounding_noise(run, size=1e-5):
    """Gaussian noise of `size` times the output's std after every convolution."""
    generator = torch.Generator().manual_seed(1)
    for module in run.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda module, inputs, output: output + size * output.std() * torch.randn(output.shape, generator=generator))


__all__ = ["MUTATIONS", "Run", "rounding_noise"]
