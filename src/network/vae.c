/* AutoencoderKL with the skip connections of img2img-turbo (src/model.py: my_vae_encoder_fwd,
 * my_vae_decoder_fwd). */
#include "network/layers.h"

#include <math.h>

/* diffusers fixes it: it is not in the config. */
static const float vae_epsilon = 1e-6f;

size_t vae_factor(const vae_config *settings)
{
    return (size_t)1 << (settings->levels - 1);
}

/* Single-head attention over all pixels, with its residual. */
static tensor_id vae_attention(layers *net, const vae_config *settings, const char *name,
                               tensor_id x)
{
    graph *g = net->g;
    size_t channels = graph_dims(g, x)[3];
    tensor_id h =
        layer_group_norm(net, module("%s.group_norm", name).text, x, settings->groups, vae_epsilon);
    tensor_id q = layer_linear(net, module("%s.to_q", name).text, h, channels, true);
    tensor_id k = layer_linear(net, module("%s.to_k", name).text, h, channels, true);
    tensor_id v = layer_linear(net, module("%s.to_v", name).text, h, channels, true);
    h = graph_attention(g, q, k, v, 1, (float)(1.0 / sqrt((double)channels)), false);
    h = layer_linear(net, module("%s.to_out.0", name).text, h, channels, true);
    return graph_sum_of(g, x, h);
}

static tensor_id vae_middle(layers *net, const vae_config *settings, const char *name, tensor_id x)
{
    size_t channels = settings->widths[settings->levels - 1];
    x = layer_resnet(net, module("%s.resnets.0", name).text, x, channels, settings->groups,
                     vae_epsilon, TENSOR_NONE);
    if (settings->middle_attention) {
        x = vae_attention(net, settings, module("%s.attentions.0", name).text, x);
    }
    return layer_resnet(net, module("%s.resnets.1", name).text, x, channels, settings->groups,
                        vae_epsilon, TENSOR_NONE);
}

tensor_id vae_encoder_build(graph *g, const vae_config *settings, weight_set *weights,
                            tensor_id picture, tensor_id skips[NETWORK_LEVELS])
{
    layers net = {.g = g, .weights = weights};
    tensor_id x =
        layer_conv(&net, "encoder.conv_in", picture, settings->widths[0], 3, 1, same_padding);
    for (size_t level = 0; level < settings->levels; level++) {
        skips[level] = x;
        for (size_t i = 0; i < settings->layers; i++) {
            x = layer_resnet(&net, module("encoder.down_blocks.%zu.resnets.%zu", level, i).text, x,
                             settings->widths[level], settings->groups, vae_epsilon, TENSOR_NONE);
        }
        if (level + 1 < settings->levels) {
            x = layer_conv(&net, module("encoder.down_blocks.%zu.downsamplers.0.conv", level).text,
                           x, settings->widths[level], 3, 2, (padding){.bottom = 1, .right = 1});
        }
    }
    x = vae_middle(&net, settings, "encoder.mid_block", x);
    x = layer_group_norm(&net, "encoder.conv_norm_out", x, settings->groups, vae_epsilon);
    x = graph_activation(g, OPERATION_SILU, x);
    x = layer_conv(&net, "encoder.conv_out", x, 2 * settings->latent_channels, 3, 1, same_padding);
    if (settings->quant_conv) {
        x = layer_conv(&net, "quant_conv", x, 2 * settings->latent_channels, 1, 1, no_padding);
    }
    return x;
}

tensor_id vae_decoder_build(graph *g, const vae_config *settings, weight_set *weights,
                            tensor_id latent, const tensor_id skips[NETWORK_LEVELS],
                            coefficient gamma)
{
    layers net = {.g = g, .weights = weights};
    tensor_id x = latent;
    if (settings->post_quant_conv) {
        x = layer_conv(&net, "post_quant_conv", x, settings->latent_channels, 1, 1, no_padding);
    }
    x = layer_conv(&net, "decoder.conv_in", x, settings->widths[settings->levels - 1], 3, 1,
                   same_padding);
    x = vae_middle(&net, settings, "decoder.mid_block", x);
    for (size_t block = 0; block < settings->levels; block++) {
        size_t level = settings->levels - 1 - block;
        size_t entering = graph_dims(g, x)[3], skip_width = graph_dims(g, skips[level])[3];
        tensor_id weight = layer_weight(&net, module("decoder.skip_conv_%zu", block + 1).text,
                                        "weight", entering, skip_width, 1, 1);
        tensor_id skip = graph_conv2d(g, skips[level], weight, TENSOR_NONE, 1, no_padding);
        x = graph_combine(g, x, coefficient_constant(1), skip, gamma);
        for (size_t i = 0; i < settings->layers + 1; i++) {
            x = layer_resnet(&net, module("decoder.up_blocks.%zu.resnets.%zu", block, i).text, x,
                             settings->widths[level], settings->groups, vae_epsilon, TENSOR_NONE);
        }
        if (level > 0) {
            const size_t *dims = graph_dims(g, x);
            x = graph_upsample(g, x, 2 * dims[1], 2 * dims[2]);
            x = layer_conv(&net, module("decoder.up_blocks.%zu.upsamplers.0.conv", block).text, x,
                           settings->widths[level], 3, 1, same_padding);
        }
    }
    x = layer_group_norm(&net, "decoder.conv_norm_out", x, settings->groups, vae_epsilon);
    x = graph_activation(g, OPERATION_SILU, x);
    return layer_conv(&net, "decoder.conv_out", x, settings->image_channels, 3, 1, same_padding);
}
