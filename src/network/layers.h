/* Layers with weights, looked up by module name: what the networks are written in. */
#ifndef ONESTEP_NETWORK_LAYERS_H
#define ONESTEP_NETWORK_LAYERS_H

#include "network/network.h"

/* A network being built: its graph and weights. */
typedef struct layers {
    graph *g;
    weight_set *weights;
} layers;

/* A module's full name; longer ones are cut and then not found. */
typedef struct module_name {
    char text[160];
} module_name;

module_name module(const char *format, ...) PRINTF_LIKE(1, 2);

/* The weight `module.leaf` of a given shape; records an error in the graph when it is missing. */
tensor_id layer_weight(layers *net, const char *module, const char *leaf, size_t d0, size_t d1,
                       size_t d2, size_t d3);

static const padding no_padding = {0, 0, 0, 0};
static const padding same_padding = {1, 1, 1, 1};

/* Convolution to `channels` with a kernel x kernel window, with bias. */
tensor_id layer_conv(layers *net, const char *module, tensor_id x, size_t channels, size_t kernel,
                     unsigned stride, padding pad);
tensor_id layer_linear(layers *net, const char *module, tensor_id x, size_t width, bool bias);
tensor_id layer_group_norm(layers *net, const char *module, tensor_id x, unsigned groups,
                           float epsilon);
tensor_id layer_layer_norm(layers *net, const char *module, tensor_id x, float epsilon);

/* GroupNorm, SiLU, conv, (+ projection of the time embedding), GroupNorm, SiLU, conv, + shortcut.
 * `time` TENSOR_NONE: none (VAE). Source: diffusers ResnetBlock2D. */
tensor_id layer_resnet(layers *net, const char *module, tensor_id x, size_t channels,
                       unsigned groups, float epsilon, tensor_id time);

#endif
