/* The CLIP text transformer (transformers CLIPTextModel). */
#include "network/layers.h"

#include <math.h>

tensor_id clip_text_build(graph *g, const clip_config *settings, weight_set *weights, tensor_id ids)
{
    layers net = {.g = g, .weights = weights};
    size_t hidden = settings->hidden;
    graph_stage(g, "text");
    tensor_id tokens = layer_weight(&net, "embeddings.token_embedding", "weight",
                                    settings->vocabulary, hidden, 1, 1);
    tensor_id positions = layer_weight(&net, "embeddings.position_embedding", "weight",
                                       settings->positions, hidden, 1, 1);
    tensor_id x = graph_embedding(g, ids, tokens, positions);
    float scale = (float)(1.0 / sqrt((double)(hidden / settings->heads)));
    for (size_t layer = 0; layer < settings->layers; layer++) {
        module_name name = module("encoder.layers.%zu", layer);
        tensor_id h =
            layer_layer_norm(&net, module("%s.layer_norm1", name.text).text, x, settings->epsilon);
        module_name attention = module("%s.self_attn", name.text);
        tensor_id q = layer_linear(&net, module("%s.q_proj", attention.text).text, h, hidden, true);
        tensor_id k = layer_linear(&net, module("%s.k_proj", attention.text).text, h, hidden, true);
        tensor_id v = layer_linear(&net, module("%s.v_proj", attention.text).text, h, hidden, true);
        h = graph_attention(g, q, k, v, (unsigned)settings->heads, scale, true);
        h = layer_linear(&net, module("%s.out_proj", attention.text).text, h, hidden, true);
        x = graph_sum_of(g, x, h);
        h = layer_layer_norm(&net, module("%s.layer_norm2", name.text).text, x, settings->epsilon);
        h = layer_linear(&net, module("%s.mlp.fc1", name.text).text, h, settings->intermediate,
                         true);
        h = graph_activation(g, settings->activation, h);
        h = layer_linear(&net, module("%s.mlp.fc2", name.text).text, h, hidden, true);
        x = graph_sum_of(g, x, h);
    }
    return layer_layer_norm(&net, "final_layer_norm", x, settings->epsilon);
}
