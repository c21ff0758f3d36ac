/* UNet2DConditionModel (diffusers) at one time step. */
#include "network/layers.h"

#include <math.h>

/* The transformer's input norm has its own epsilon, LayerNorm PyTorch's default: both are fixed in
 * diffusers, not in the config. */
static const float transformer_norm_epsilon = 1e-6f;
static const float layer_norm_epsilon = 1e-5f;

/* More down activations than this cannot come from NETWORK_LEVELS levels of a checked config. */
#define UNET_LAYERS_MOST 16
#define UNET_SKIPS       (1 + NETWORK_LEVELS * (UNET_LAYERS_MOST + 1))

typedef struct unet {
    layers net;
    const unet_config *settings;
    tensor_id text, time;
    tensor_id skips[UNET_SKIPS];
    size_t skip_count;
} unet;

/* Sinusoidal embedding of the time step (diffusers get_timestep_embedding): computed in float32
 * in that order, because the angle of 999 radians keeps float32's rounding. */
static tensor_id timestep_embedding(graph *g, const unet_config *settings, double timestep)
{
    enum { WIDTH_MOST = 8192 };
    float values[WIDTH_MOST];
    size_t width = settings->widths[0], half = width / 2;
    if (width > WIDTH_MOST || width % 2 != 0) {
        graph_fail(g, ONESTEP_ERROR_UNSUPPORTED,
                   "unet config: block_out_channels[0] = %zu (expected an even number up to %d)",
                   width, WIDTH_MOST);
        return TENSOR_NONE;
    }
    float log_period = (float)-log(10000.0);
    for (size_t i = 0; i < half; i++) {
        float exponent = log_period * (float)i / ((float)half - settings->frequency_shift);
        float angle = (float)timestep * (float)exp((double)exponent);
        values[settings->cosine_first ? half + i : i] = (float)sin((double)angle);
        values[settings->cosine_first ? i : half + i] = (float)cos((double)angle);
    }
    return graph_constant(g, values, (size_t[4]){1, 1, 1, width});
}

static tensor_id unet_resnet(unet *u, const char *name, tensor_id x, size_t channels)
{
    return layer_resnet(&u->net, name, x, channels, u->settings->groups, u->settings->epsilon,
                        u->time);
}

/* Multi-head attention of x over `context` (x itself, or the text); queries, keys and values have
 * no bias, the output projection has one. */
static tensor_id unet_attention(unet *u, const char *name, tensor_id x, tensor_id context,
                                size_t heads)
{
    layers *net = &u->net;
    size_t width = graph_dims(net->g, x)[3];
    float scale = (float)(1.0 / sqrt((double)(width / heads)));
    tensor_id q = layer_linear(net, module("%s.to_q", name).text, x, width, false);
    tensor_id k = layer_linear(net, module("%s.to_k", name).text, context, width, false);
    tensor_id v = layer_linear(net, module("%s.to_v", name).text, context, width, false);
    tensor_id h = graph_attention(net->g, q, k, v, (unsigned)heads, scale, false);
    return layer_linear(net, module("%s.to_out.0", name).text, h, width, true);
}

/* Self-attention, cross-attention to the text and a gated feed-forward network, each with its norm
 * before and its residual (diffusers BasicTransformerBlock). */
static tensor_id transformer_block(unet *u, const char *name, tensor_id x, size_t heads,
                                   bool only_cross)
{
    layers *net = &u->net;
    graph *g = net->g;
    size_t width = graph_dims(g, x)[3];
    tensor_id h = layer_layer_norm(net, module("%s.norm1", name).text, x, layer_norm_epsilon);
    h = unet_attention(u, module("%s.attn1", name).text, h, only_cross ? u->text : h, heads);
    x = graph_sum_of(g, x, h);
    h = layer_layer_norm(net, module("%s.norm2", name).text, x, layer_norm_epsilon);
    h = unet_attention(u, module("%s.attn2", name).text, h, u->text, heads);
    x = graph_sum_of(g, x, h);
    h = layer_layer_norm(net, module("%s.norm3", name).text, x, layer_norm_epsilon);
    h = layer_linear(net, module("%s.ff.net.0.proj", name).text, h, 8 * width, true);
    h = graph_activation(g, OPERATION_GEGLU, h);
    h = layer_linear(net, module("%s.ff.net.2", name).text, h, width, true);
    return graph_sum_of(g, x, h);
}

/* Norm, projection in, blocks, projection out, residual (diffusers Transformer2DModel). Linear and
 * 1x1-convolution projections are the same thing on NHWC. */
static tensor_id transformer(unet *u, const char *name, tensor_id x, size_t level, bool only_cross)
{
    layers *net = &u->net;
    size_t width = graph_dims(net->g, x)[3];
    tensor_id h = layer_group_norm(net, module("%s.norm", name).text, x, u->settings->groups,
                                   transformer_norm_epsilon);
    h = layer_linear(net, module("%s.proj_in", name).text, h, width, true);
    for (size_t i = 0; i < u->settings->transformer_layers[level]; i++) {
        h = transformer_block(u, module("%s.transformer_blocks.%zu", name, i).text, h,
                              u->settings->heads[level], only_cross);
    }
    h = layer_linear(net, module("%s.proj_out", name).text, h, width, true);
    return graph_sum_of(net->g, x, h);
}

static void skip_push(unet *u, tensor_id x)
{
    if (u->skip_count < UNET_SKIPS) {
        u->skips[u->skip_count++] = x;
    } else {
        graph_fail(u->net.g, ONESTEP_ERROR_UNSUPPORTED, "unet config: too many layers");
    }
}

static tensor_id skip_pop(unet *u)
{
    return u->skip_count > 0 ? u->skips[--u->skip_count] : TENSOR_NONE;
}

static tensor_id down_block(unet *u, size_t level, tensor_id x)
{
    const unet_config *settings = u->settings;
    for (size_t i = 0; i < settings->layers[level]; i++) {
        x = unet_resnet(u, module("down_blocks.%zu.resnets.%zu", level, i).text, x,
                        settings->widths[level]);
        if (settings->down_attention[level]) {
            x = transformer(u, module("down_blocks.%zu.attentions.%zu", level, i).text, x, level,
                            settings->only_cross_attention[level]);
        }
        skip_push(u, x);
    }
    if (level + 1 < settings->levels) {
        unsigned p = settings->down_padding;
        /* With padding 0 diffusers pads one zero to the right and below. */
        padding pad = {p, p, p ? p : 1, p ? p : 1};
        x = layer_conv(&u->net, module("down_blocks.%zu.downsamplers.0.conv", level).text, x,
                       settings->widths[level], 3, 2, pad);
        skip_push(u, x);
    }
    return x;
}

static tensor_id middle_block(unet *u, tensor_id x)
{
    size_t last = u->settings->levels - 1, width = u->settings->widths[last];
    x = unet_resnet(u, "mid_block.resnets.0", x, width);
    x = transformer(u, "mid_block.attentions.0", x, last, u->settings->middle_only_cross_attention);
    return unet_resnet(u, "mid_block.resnets.1", x, width);
}

static tensor_id up_block(unet *u, size_t block, tensor_id x)
{
    const unet_config *settings = u->settings;
    size_t level = settings->levels - 1 - block;
    for (size_t i = 0; i < settings->layers[level] + 1; i++) {
        x = graph_concat(u->net.g, x, skip_pop(u));
        x = unet_resnet(u, module("up_blocks.%zu.resnets.%zu", block, i).text, x,
                        settings->widths[level]);
        if (settings->up_attention[block]) {
            x = transformer(u, module("up_blocks.%zu.attentions.%zu", block, i).text, x, level,
                            settings->only_cross_attention[level]);
        }
    }
    if (level > 0) {
        /* To the size of the skip that it meets: odd sizes lose the last row or column. */
        const size_t *met = graph_dims(u->net.g, u->skip_count ? u->skips[u->skip_count - 1] : x);
        x = graph_upsample(u->net.g, x, met[1], met[2]);
        x = layer_conv(&u->net, module("up_blocks.%zu.upsamplers.0.conv", block).text, x,
                       settings->widths[level], 3, 1, same_padding);
    }
    return x;
}

tensor_id unet_build(graph *g, const unet_config *settings, weight_set *weights, tensor_id latent,
                     tensor_id text, double timestep)
{
    unet u = {.net = {.g = g, .weights = weights}, .settings = settings, .text = text};
    size_t time_width = 4 * settings->widths[0];
    tensor_id time = timestep_embedding(g, settings, timestep);
    time = layer_linear(&u.net, "time_embedding.linear_1", time, time_width, true);
    time = graph_activation(g, OPERATION_SILU, time);
    u.time = layer_linear(&u.net, "time_embedding.linear_2", time, time_width, true);

    tensor_id x = layer_conv(&u.net, "conv_in", latent, settings->widths[0], 3, 1, same_padding);
    skip_push(&u, x);
    for (size_t level = 0; level < settings->levels; level++) {
        x = down_block(&u, level, x);
    }
    x = middle_block(&u, x);
    for (size_t block = 0; block < settings->levels; block++) {
        x = up_block(&u, block, x);
    }
    x = layer_group_norm(&u.net, "conv_norm_out", x, settings->groups, settings->epsilon);
    x = graph_activation(g, OPERATION_SILU, x);
    return layer_conv(&u.net, "conv_out", x, settings->out_channels, 3, 1, same_padding);
}
