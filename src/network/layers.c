#include "network/layers.h"

#include <stdio.h>

module_name module(const char *format, ...)
{
    module_name name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

tensor_id layer_weight(layers *net, const char *module_text, const char *leaf, size_t d0, size_t d1,
                       size_t d2, size_t d3)
{
    if (net->g->error.code != ONESTEP_OK) {
        return TENSOR_NONE;
    }
    const weight_expression *weight;
    onestep_error error;
    module_name full = module("%s.%s", module_text, leaf);
    onestep_status status =
        weight_set_take(net->weights, full.text, (size_t[4]){d0, d1, d2, d3}, &weight, &error);
    if (status != ONESTEP_OK) {
        graph_fail(net->g, status, "%s", error.message);
        return TENSOR_NONE;
    }
    return graph_weight(net->g, weight);
}

tensor_id layer_conv(layers *net, const char *module_text, tensor_id x, size_t channels,
                     size_t kernel, unsigned stride, padding pad)
{
    size_t input = graph_dims(net->g, x)[3];
    tensor_id weight = layer_weight(net, module_text, "weight", channels, input, kernel, kernel);
    tensor_id bias = layer_weight(net, module_text, "bias", channels, 1, 1, 1);
    return graph_conv2d(net->g, x, weight, bias, stride, pad);
}

tensor_id layer_linear(layers *net, const char *module_text, tensor_id x, size_t width, bool bias)
{
    size_t input = graph_dims(net->g, x)[3];
    tensor_id weight = layer_weight(net, module_text, "weight", width, input, 1, 1);
    tensor_id offset = bias ? layer_weight(net, module_text, "bias", width, 1, 1, 1) : TENSOR_NONE;
    return graph_linear(net->g, x, weight, offset);
}

tensor_id layer_group_norm(layers *net, const char *module_text, tensor_id x, unsigned groups,
                           float epsilon)
{
    size_t channels = graph_dims(net->g, x)[3];
    tensor_id gamma = layer_weight(net, module_text, "weight", channels, 1, 1, 1);
    tensor_id beta = layer_weight(net, module_text, "bias", channels, 1, 1, 1);
    return graph_group_norm(net->g, x, gamma, beta, groups, epsilon);
}

tensor_id layer_layer_norm(layers *net, const char *module_text, tensor_id x, float epsilon)
{
    size_t channels = graph_dims(net->g, x)[3];
    tensor_id gamma = layer_weight(net, module_text, "weight", channels, 1, 1, 1);
    tensor_id beta = layer_weight(net, module_text, "bias", channels, 1, 1, 1);
    return graph_layer_norm(net->g, x, gamma, beta, epsilon);
}

tensor_id layer_resnet(layers *net, const char *name, tensor_id x, size_t channels, unsigned groups,
                       float epsilon, tensor_id time)
{
    graph *g = net->g;
    tensor_id h = layer_group_norm(net, module("%s.norm1", name).text, x, groups, epsilon);
    h = graph_activation(g, OPERATION_SILU, h);
    h = layer_conv(net, module("%s.conv1", name).text, h, channels, 3, 1, same_padding);
    if (time != TENSOR_NONE) {
        tensor_id shift = graph_activation(g, OPERATION_SILU, time);
        shift = layer_linear(net, module("%s.time_emb_proj", name).text, shift, channels, true);
        h = graph_sum_of(g, h, shift);
    }
    h = layer_group_norm(net, module("%s.norm2", name).text, h, groups, epsilon);
    h = graph_activation(g, OPERATION_SILU, h);
    h = layer_conv(net, module("%s.conv2", name).text, h, channels, 3, 1, same_padding);
    if (graph_dims(g, x)[3] != channels) {
        x = layer_conv(net, module("%s.conv_shortcut", name).text, x, channels, 1, 1, no_padding);
    }
    return graph_sum_of(g, x, h);
}
