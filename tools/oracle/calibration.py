"""Brings whole models, with and without a checkpoint, to the sizes that sensitive.py explains."""

import math

import cv2
import numpy as np
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from generated_image import generated_image
from sensitive import STREAM, calibrate, randomize, randomize_lora, refit_output, spread

PROMPTS = ["a blue bird on a yellow ground", "driving in the night", "driving in heavy rain", "an old house! 4k"]


def calibration_pictures(kind, size=64, count=4):
    """A few inputs [1,3,size,size]: "edges" and "sketch" in {0,1}, "picture" in [-1,1]."""
    result = []
    for index, pattern in enumerate((4, 3, 2, 4)[:count]):
        picture = generated_image(pattern, 77 + index, size, size)
        if kind == "edges":
            picture = np.repeat(cv2.Canny(picture, 100, 200)[:, :, None], 3, axis=2)
        tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        result.append((tensor < 0.5).float() if kind == "sketch" else tensor * 2 - 1 if kind == "picture" else tensor)
    return result


def sampled_latents(vae, pictures, generator):
    """Latents as the official code samples them, times scaling_factor."""
    latents = []
    for picture in pictures:
        posterior = vae.encode(picture).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        latents.append((posterior.mean + posterior.std * noise) * vae.config.scaling_factor)
    return latents


def unet_features(unet, latents, text):
    """What enters the UNet's last convolution, for each latent."""
    features = []
    hook = unet.conv_out.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    for index, latent in enumerate(latents):
        unet(latent, torch.tensor([999]), encoder_hidden_states=text[index % len(text)][None])
    hook.remove()
    return features


def clean_latent(scheduler, latent, prediction):
    scheduler.set_timesteps(1)
    return scheduler.step(prediction, torch.tensor([999]), latent).prev_sample


def calibrate_base(text, vae, unet, scheduler, tokenizer_folder, seed, size=64, count=4):
    """Randomizes and calibrates the three networks in the order in which they run.

    Here and below size and count are those of the pictures of each kind to run."""
    generator = torch.Generator().manual_seed(seed)
    for network in (text, vae, unet):
        randomize(network, generator)
    tokens = CLIPTokenizer.from_pretrained(tokenizer_folder)(
        PROMPTS, max_length=77, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        calibrate(text, lambda: text(tokens))
        states = text(tokens)[0]
        pictures = calibration_pictures("edges", size, count) + calibration_pictures("picture", size, count)
        calibrate(vae, lambda: vae.encode(torch.cat(pictures)))
        vae.quant_conv.weight.data[4:] *= 0.35  # log-variances of std 0.7 around -1
        vae.quant_conv.bias.data[4:] = -1
        latents = sampled_latents(vae, pictures, generator)
        calibrate(unet, lambda: unet(torch.cat(latents[:count]), torch.tensor([999]), encoder_hidden_states=states[:count]))
        features = unet_features(unet, latents, states)
        if scheduler.config.prediction_type == "epsilon":
            unet.conv_out.weight.data, unet.conv_out.bias.data = refit_output(features, latents, unet.conv_out)
        else:
            unet.conv_out.weight.data *= 0.7 / STREAM
            unet.conv_out.bias.data *= 0.7 / STREAM
        clean = [clean_latent(scheduler, latent, unet.conv_out(feature)) for latent, feature in zip(latents, features)]
        describe("base", latents, [unet.conv_out(feature) for feature in features], clean)
        means = torch.cat([vae.encode(picture).latent_dist.mean for picture in pictures])
        print(f"  of the latent means' variance, {float(means.var(dim=(0, 2, 3)).mean() / means.var()):.0%} depends on the picture")
        calibrate(vae, lambda: vae.decode(torch.cat(clean) / vae.config.scaling_factor))


def describe(name, latents, predictions, clean):
    latent, prediction, clean = (torch.cat([tensor.flatten() for tensor in group]) for group in (latents, predictions, clean))
    distance = (latent - prediction).norm() / latent.norm()
    print(f"{name}: latent std {latent.std():.3f}, |eps - x| / |x| {distance:.3f}, x0 std {clean.std():.3f}")


def randomize_skips(vae, generator, share=0.5, size=64, count=4):
    """Skip convolutions whose contribution has `share` of the std of what it is added to."""
    layers = [getattr(vae.decoder, f"skip_conv_{number}") for number in range(1, 5)]
    for layer in layers:
        base = getattr(layer, "base_layer", layer)
        weight = torch.randn(base.weight.shape, generator=generator) / math.sqrt(base.weight.shape[1])
        base.weight.data = weight * spread(generator, len(weight), 1, 1, 1)
        randomize_lora(layer, generator)
    pictures = torch.cat(calibration_pictures("edges", size, count) + calibration_pictures("picture", size, count))
    latent = vae.encode(pictures).latent_dist.mean
    vae.decoder.incoming_skip_acts = vae.encoder.current_down_blocks
    contributions = []
    hooks = [layer.register_forward_hook(lambda module, inputs, output: contributions.append(output)) for layer in layers]
    for index, block in enumerate(vae.decoder.up_blocks):
        def rescale(module, inputs, index=index):
            added = contributions[index]
            factor = share * (inputs[0] - added).std() / added.std()
            base = getattr(layers[index], "base_layer", layers[index])
            base.weight.data *= factor
            for adapter in layers[index].lora_B:
                layers[index].lora_B[adapter].weight.data *= factor
            return (inputs[0] - added + added * factor, *inputs[1:])
        hooks.append(block.register_forward_pre_hook(rescale))
    vae.decode(latent)
    for hook in hooks:
        hook.remove()


def lora_pair_of(delta, scaling, rank, generator):
    """A [rank,in,3,3] and B [4,rank,1,1] whose product times scaling is delta [4,in,3,3] (needs rank >= 4)."""
    outputs = len(delta)
    assert rank >= outputs
    mixing = torch.linalg.qr(torch.randn(rank, rank, generator=generator))[0][:outputs]
    first = (mixing.T @ delta.flatten(1)).reshape(rank, *delta.shape[1:])
    balance = first.norm() / mixing.norm()
    return first / balance.sqrt(), (mixing * balance.sqrt() / scaling)[:, :, None, None]


def fit_output_lora(unet, latents, states, generator):
    """Refits the LoRA of the UNet's last convolution so that eps is close to x with the whole LoRA applied."""
    layer = unet.conv_out
    base = getattr(layer, "base_layer", layer)
    adapter = next(iter(layer.lora_A))
    features = unet_features(unet, latents, states)
    targets = [latent - base.bias.data[:, None, None] for latent in latents]
    weight, _ = refit_output(features, targets, base, bias=False)
    rank = len(layer.lora_A[adapter].weight)
    first, second = lora_pair_of(weight - base.weight.data, layer.scaling[adapter], rank, generator)
    layer.lora_A[adapter].weight.data, layer.lora_B[adapter].weight.data = first, second
    return [layer(feature) for feature in features]


def fit(name, unet, vae, scheduler, latents, states, generator):
    if scheduler.config.prediction_type != "epsilon":
        predictions = [unet.conv_out(feature) for feature in unet_features(unet, latents, states)]
    else:
        predictions = fit_output_lora(unet, latents, states, generator)
    clean = [clean_latent(scheduler, latent, prediction) for latent, prediction in zip(latents, predictions)]
    describe(name, latents, predictions, clean)


def fit_paired(model, stochastic, generator, size=64, count=4):
    states = text_states(model.tokenizer, model.text_encoder)
    pictures = calibration_pictures("sketch" if stochastic else "edges", size, count)
    latents = sampled_latents(model.vae, pictures, generator)
    fit("sketch" if stochastic else "edge", model.unet, model.vae, model.sched, latents, states, generator)


def fit_unpaired(official, unet, vae, vae_b2a, generator, size=64, count=4):
    tokenizer = CLIPTokenizer.from_pretrained(official.base, subfolder="tokenizer")
    text = CLIPTextModel.from_pretrained(official.base, subfolder="text_encoder").float().eval()
    scheduler = official.make_1step_sched()
    pictures = calibration_pictures("picture", size, count)
    latents = sampled_latents(vae, pictures, generator) + sampled_latents(vae_b2a, pictures, generator)
    fit("unpaired", unet, vae, scheduler, latents, text_states(tokenizer, text), generator)


def text_states(tokenizer, text_encoder):
    return text_encoder(tokenizer(PROMPTS, max_length=77, padding="max_length", truncation=True,
                                  return_tensors="pt").input_ids)[0]
