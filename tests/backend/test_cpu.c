/* Every operation and every fusion of the cpu backend against the reference backend. */
#include "conv_reference.h"
#include "cpu_scenarios.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void output(scenario *s, tensor_id y)
{
    graph_output_add(s->g, "y", y);
}

/* A picture of random size: often small or odd. */
static tensor_id picture(scenario *s, size_t channels)
{
    const size_t height = SCENARIO_PICK(s, 1, 2, 3, 5, 8, 17, 33);
    const size_t width = SCENARIO_PICK(s, 1, 2, 3, 7, 16, 19, 40);
    return scenario_input(s, height, width, channels, 0, 1);
}

static size_t some_channels(scenario *s)
{
    return SCENARIO_PICK(s, 1, 3, 4, 7, 8, 12, 16, 20, 31, 32, 64, 72);
}

/* ---- one operation at a time
 * ---------------------------------------------------------------------- */

static void build_activation(scenario *s, operation op, float deviation)
{
    const tensor_id x = picture(s, 2 * some_channels(s));
    const tensor_id wide = graph_scale(s->g, x, coefficient_constant(deviation), 0);
    output(s, graph_activation(s->g, op, wide));
}

static void build_silu(scenario *s)
{
    build_activation(s, OPERATION_SILU, 6);
}

static void build_gelu(scenario *s)
{
    build_activation(s, OPERATION_GELU, 3);
}

/* Where half of the GELUs of a sensitive model are. */
static void build_gelu_tail(scenario *s)
{
    const tensor_id x = scenario_input(s, 5, 9, some_channels(s), -2.4f, 0.1f);
    output(s, graph_activation(s->g, OPERATION_GELU, x));
}

static void build_quick_gelu(scenario *s)
{
    build_activation(s, OPERATION_QUICK_GELU, 4);
}

static void build_exp(scenario *s)
{
    build_activation(s, OPERATION_EXP, 8);
}

static void build_geglu(scenario *s)
{
    build_activation(s, OPERATION_GEGLU, 2);
}

static void build_clamp(scenario *s)
{
    output(s, graph_clamp(s->g, picture(s, some_channels(s)), -0.3f, 0.8f));
}

static void build_scale(scenario *s)
{
    const coefficient slope = {.constant = 0.5f, .slope = 3, .scalar = SCALAR_GAMMA};
    output(s, graph_scale(s->g, picture(s, some_channels(s)), slope, -0.25f));
}

static void build_combine(scenario *s)
{
    const size_t channels = some_channels(s);
    const tensor_id a = scenario_input(s, 9, 5, channels, 0, 1);
    const tensor_id b = scenario_input(s, 9, 5, channels, 0, 1);
    const coefficient fading = {.constant = 1, .slope = -1, .scalar = SCALAR_GAMMA};
    output(s, graph_combine(s->g, a, fading, b, coefficient_constant(0.7f)));
}

static void build_broadcast(scenario *s)
{
    const size_t channels = some_channels(s);
    const tensor_id a = picture(s, channels);
    const tensor_id each = scenario_input(s, 1, 1, channels, 0, 1);
    const tensor_id all = scenario_shared_input(s, 1, 1, channels);
    const coefficient gamma = {.slope = 2, .scalar = SCALAR_GAMMA};
    const tensor_id first = graph_combine(s->g, a, coefficient_constant(0.5f), each, gamma);
    output(s, graph_sum_of(s->g, first, all));
}

static void build_multiply(scenario *s)
{
    const size_t channels = some_channels(s);
    const tensor_id a = scenario_input(s, 4, 7, channels, 0, 1);
    output(s, graph_multiply(s->g, a, scenario_input(s, 4, 7, channels, 0, 1)));
}

static void build_concat_slice(scenario *s)
{
    const size_t left = some_channels(s), right = some_channels(s);
    const tensor_id a = scenario_input(s, 6, 5, left, 0, 1);
    const tensor_id both = graph_concat(s->g, a, scenario_input(s, 6, 5, right, 0, 1));
    const size_t first = scenario_random(s, left + right);
    output(s, graph_slice(s->g, both, first, 1 + scenario_random(s, left + right - first)));
}

static void build_upsample(scenario *s)
{
    const tensor_id x = picture(s, some_channels(s));
    const size_t *dims = graph_dims(s->g, x);
    output(s, graph_upsample(s->g, x, 2 * dims[1] - scenario_random(s, 2),
                             2 * dims[2] - scenario_random(s, 2)));
}

static void build_constant(scenario *s)
{
    float values[12];
    fill_random(values, 12, s->seed, 1);
    const tensor_id constant = graph_constant(s->g, values, (size_t[4]){1, 1, 1, 12});
    const tensor_id time = scenario_linear(s, constant, 20, true);
    const tensor_id x = scenario_input(s, 3, 5, 20, 0, 1);
    const tensor_id shifted = graph_sum_of(s->g, x, time);
    output(s, graph_sum_of(s->g, scenario_conv(s, shifted, 12, 3, true), constant));
}

static void build_embedding(scenario *s)
{
    const size_t tokens = SCENARIO_PICK(s, 1, 5, 77), width = SCENARIO_PICK(s, 8, 20, 64);
    const tensor_id ids = scenario_ids(s, tokens, 100);
    const tensor_id table = scenario_weight(s, 100, width, 1, 1);
    const tensor_id positions = scenario_weight(s, 80, width, 1, 1);
    output(s, graph_embedding(s->g, ids, table, positions));
}

/* ---- normalisation
 * -------------------------------------------------------------------------------- */

static void build_group_norm(scenario *s)
{
    const size_t groups = SCENARIO_PICK(s, 1, 2, 4), channels = groups * SCENARIO_PICK(s, 1, 3, 8);
    const tensor_id x = scenario_input(s, SCENARIO_PICK(s, 1, 5, 23), SCENARIO_PICK(s, 2, 19, 30),
                                       channels, 0.5f, 1);
    output(s, scenario_group_norm(s, x, groups));
}

static void build_group_norm_small(scenario *s)
{
    const tensor_id x = scenario_input(s, 9, 7, 24, 0.002f, 1e-3f);
    output(s, graph_activation(s->g, OPERATION_SILU, scenario_group_norm(s, x, 4)));
}

static void build_layer_norm(scenario *s)
{
    const size_t channels = SCENARIO_PICK(s, 2, 7, 8, 33, 64, 320);
    const tensor_id x = scenario_input(s, 1, SCENARIO_PICK(s, 1, 5, 77), channels, 0.5f, 1);
    const tensor_id gamma = scenario_gain(s, channels), beta = scenario_bias(s, channels);
    output(s, graph_layer_norm(s->g, x, gamma, beta, 1e-5f));
}

/* ---- attention
 * ------------------------------------------------------------------------------------ */

static void build_attention(scenario *s)
{
    const size_t heads = SCENARIO_PICK(s, 1, 2, 3), width = SCENARIO_PICK(s, 4, 8, 20, 40, 64);
    const size_t queries = SCENARIO_PICK(s, 1, 7, 64, 100, 201);
    const size_t keys = SCENARIO_PICK(s, 1, 5, 16, 77, 260, 300);
    const tensor_id q = scenario_input(s, 1, queries, heads * width, 0, 1);
    const tensor_id k = scenario_input(s, 1, keys, heads * width, 0, 1);
    const tensor_id v = scenario_input(s, 1, keys, heads * width, 0, 1);
    output(s, graph_attention(s->g, q, k, v, (unsigned)heads, 2 / sqrtf((float)width), false));
}

/* More keys than a block holds, so many that integers are used when asked for: of 8 bits where the
 * CPU has them, but of 16 bits for logits before the scheduler's step in wide heads. What all keys
 * have in common must not take bits from them. */
static void attention_many(scenario *s, size_t heads, size_t width, float queries_deviation,
                           float common)
{
    const size_t queries = SCENARIO_PICK(s, 1, 7, 100, 201),
                 keys = SCENARIO_PICK(s, 256, 301, 1065);
    const tensor_id q = scenario_input(s, 1, queries, heads * width, 0, queries_deviation);
    const tensor_id k = scenario_input(s, 1, keys, heads * width, common, 1);
    const tensor_id v = scenario_input(s, 1, keys, heads * width, 0.3f, 1);
    output(s, graph_attention(s->g, q, k, v, (unsigned)heads, 2 / sqrtf((float)width), false));
}

static void attention_many_widths(scenario *s, float common)
{
    const size_t heads = SCENARIO_PICK(s, 1, 2), width = SCENARIO_PICK(s, 7, 16, 40, 64, 150, 200);
    attention_many(s, heads, width, 1, common);
}

static void build_attention_many(scenario *s)
{
    attention_many_widths(s, 16);
}

static void build_attention_16_bits(scenario *s)
{
    attention_many_widths(s, 0);
}

static void build_attention_exact(scenario *s)
{
    graph_amplification(s->g, AMPLIFICATION_FULL);
    /* Large logits, so that their errors are larger than those of the weights made of them. */
    attention_many(s, SCENARIO_PICK(s, 1, 2), SCENARIO_PICK(s, 136, 150, 200), 10, 0);
}

/* Keys of one text for all pictures. */
static void build_attention_shared(scenario *s)
{
    const tensor_id q = scenario_input(s, 5, 6, 48, 0, 1);
    const tensor_id k = scenario_shared_input(s, 1, 77, 48);
    const tensor_id v = scenario_shared_input(s, 1, 77, 48);
    output(s, graph_attention(s->g, q, k, v, 3, 0.4f, false));
}

/* Queries, keys and values are one tensor, which must not be overwritten too early. */
static void build_attention_self(scenario *s)
{
    const tensor_id x = graph_activation(s->g, OPERATION_SILU, scenario_input(s, 9, 9, 36, 0, 1));
    output(s, graph_attention(s->g, x, x, x, 2, 0.5f, false));
}

static void build_attention_causal(scenario *s)
{
    const size_t tokens = SCENARIO_PICK(s, 1, 2, 77, 150, 530), width = SCENARIO_PICK(s, 8, 16, 24);
    const tensor_id q = scenario_input(s, 1, tokens, 2 * width, 0, 1);
    const tensor_id k = scenario_input(s, 1, tokens, 2 * width, 0, 1);
    const tensor_id v = scenario_input(s, 1, tokens, 2 * width, 0, 1);
    output(s, graph_attention(s->g, q, k, v, 2, 0.5f, true));
}

/* One head as wide as the VAE's, with logits that make nearly all weights zero. */
static void build_attention_wide(scenario *s)
{
    const tensor_id q = scenario_input(s, 11, 13, 200, 0, 3);
    const tensor_id k = scenario_input(s, 11, 13, 200, 0, 3);
    const tensor_id v = scenario_input(s, 11, 13, 200, 0, 1);
    output(s, graph_attention(s->g, q, k, v, 1, 0.3f, false));
}

/* ---- products and what is fused into them
 * ----------------------------------------------------------- */

static void build_conv(scenario *s)
{
    const unsigned kernel = (unsigned)SCENARIO_PICK(s, 1, 3),
                   stride = (unsigned)SCENARIO_PICK(s, 1, 2);
    const size_t input = some_channels(s), channels = some_channels(s);
    const tensor_id x =
        scenario_input(s, SCENARIO_PICK(s, 3, 8, 21), SCENARIO_PICK(s, 3, 13, 40), input, 0, 1);
    const tensor_id weight = scenario_low_rank_weight(s, channels, input, kernel, kernel);
    const tensor_id bias = scenario_bias(s, channels);
    const bool lopsided = kernel == 3 && stride == 2;
    const padding pad = lopsided      ? (padding){.bottom = 1, .right = 1}
                        : kernel == 3 ? (padding){1, 1, 1, 1}
                                      : (padding){0};
    output(s, graph_conv2d(s->g, x, weight, bias, stride, pad));
}

static void build_linear_gelu(scenario *s)
{
    const operation ops[] = {OPERATION_SILU, OPERATION_GELU, OPERATION_QUICK_GELU};
    const tensor_id x = scenario_input(s, 1, SCENARIO_PICK(s, 1, 77, 201), some_channels(s), 0, 1);
    const tensor_id h = scenario_linear(s, x, some_channels(s), true);
    output(s, graph_activation(s->g, ops[scenario_random(s, 3)], h));
}

static void build_linear_geglu(scenario *s)
{
    const tensor_id x = scenario_input(s, 1, SCENARIO_PICK(s, 1, 64, 99), some_channels(s), 0, 1);
    const tensor_id h = scenario_linear(s, x, 2 * some_channels(s), scenario_random(s, 2));
    output(s, graph_activation(s->g, OPERATION_GEGLU, h));
}

/* One weight in two packed forms. */
static void build_two_forms(scenario *s)
{
    const tensor_id x = scenario_input(s, 1, 9, 16, 0, 1);
    const tensor_id weight = scenario_weight(s, 64, 16, 1, 1);
    const tensor_id plain = graph_linear(s->g, x, weight, TENSOR_NONE);
    const tensor_id gated = graph_linear(s->g, x, weight, TENSOR_NONE);
    output(s, graph_concat(s->g, plain, graph_activation(s->g, OPERATION_GEGLU, gated)));
}

/* conv + vector + SiLU, then the residual with a coefficient bound at run. */
static void build_conv_everything(scenario *s)
{
    const size_t channels = some_channels(s);
    const tensor_id x = scenario_input(s, 9, 14, some_channels(s), 0, 1);
    const tensor_id residual = scenario_input(s, 9, 14, channels, 0, 1);
    const tensor_id vector = scenario_random(s, 2) ? scenario_input(s, 1, 1, channels, 0, 1)
                                                   : scenario_shared_input(s, 1, 1, channels);
    const coefficient gamma = {.slope = 1, .scalar = SCALAR_GAMMA};
    const coefficient rest = {.constant = 1, .slope = -1, .scalar = SCALAR_GAMMA};
    tensor_id h = scenario_conv(s, x, channels, 3, true);
    h = graph_sum_of(s->g, h, vector);
    h = graph_activation(s->g, OPERATION_SILU, h);
    h = scenario_random(s, 2) ? graph_combine(s->g, residual, rest, h, gamma)
                              : graph_combine(s->g, h, gamma, residual, rest);
    output(s, h);
}

/* x + gamma * skip(act), as before the decoder's blocks. */
static void build_skip(scenario *s)
{
    const coefficient gamma = {.slope = 1, .scalar = SCALAR_GAMMA};
    const tensor_id x = scenario_conv(s, scenario_input(s, 7, 9, 8, 0, 1), 24, 3, true);
    const tensor_id skip = scenario_conv(s, scenario_input(s, 7, 9, 12, 0, 1), 24, 1, false);
    const tensor_id sum = graph_combine(s->g, x, coefficient_constant(1), skip, gamma);
    output(s, scenario_conv(s, sum, 6, 3, true));
}

/* The residual is the convolution's own input. */
static void build_own_residual(scenario *s)
{
    const tensor_id x = graph_activation(s->g, OPERATION_SILU, scenario_input(s, 12, 9, 20, 0, 1));
    output(s, graph_sum_of(s->g, x, scenario_conv(s, x, 20, 3, true)));
}

/* A second activation is a step of its own. */
static void build_two_activations(scenario *s)
{
    const tensor_id h = scenario_conv(s, scenario_input(s, 6, 7, 5, 0, 1), 9, 3, true);
    const tensor_id silu = graph_activation(s->g, OPERATION_SILU, h);
    output(s, graph_activation(s->g, OPERATION_GELU, silu));
}

/* Two of one: the tensor has two readers and stays. */
static void build_doubled(scenario *s)
{
    const tensor_id h = scenario_conv(s, scenario_input(s, 6, 6, 5, 0, 1), 9, 3, true);
    const tensor_id sum = graph_sum_of(s->g, h, h);
    output(s, graph_multiply(s->g, sum, graph_activation(s->g, OPERATION_SILU, sum)));
}

/* ---- normalisation before products
 * ------------------------------------------------------------------- */

/* conv, then norm and SiLU read by a second one: statistics from the first. */
static void build_norm_conv(scenario *s)
{
    const size_t channels = 4 * SCENARIO_PICK(s, 1, 3, 5, 16);
    const tensor_id x = scenario_input(s, SCENARIO_PICK(s, 2, 13, 31), SCENARIO_PICK(s, 3, 20, 41),
                                       some_channels(s), 0, 1);
    tensor_id h = scenario_conv(s, x, channels, 3, true);
    h = scenario_group_norm(s, h, 4);
    h = graph_activation(s->g, OPERATION_SILU, h);
    output(s, scenario_conv(s, h, some_channels(s), 3, true));
}

/* Without SiLU before a linear layer, from an input: statistics by a pass. */
static void build_norm_linear(scenario *s)
{
    const tensor_id x = scenario_input(s, SCENARIO_PICK(s, 2, 13), 21, 24, 1, 0.5f);
    const tensor_id h = scenario_group_norm(s, x, 8);
    output(s, scenario_linear(s, h, some_channels(s), true));
}

/* Queries, keys and values read one normalised tensor. */
static void build_norm_three(scenario *s)
{
    const tensor_id x = scenario_conv(s, scenario_input(s, 7, 11, 6, 0, 1), 32, 3, true);
    const tensor_id h = scenario_group_norm(s, x, 4);
    const tensor_id q = scenario_linear(s, h, 32, true), k = scenario_linear(s, h, 32, true),
                    v = scenario_linear(s, h, 32, true);
    const tensor_id mixed = graph_attention(s->g, q, k, v, 1, 0.2f, false);
    output(s, graph_sum_of(s->g, x, scenario_linear(s, mixed, 32, true)));
}

/* Statistics of a concatenation come from the two convolutions, groups across the seam. */
static void build_norm_concat(scenario *s)
{
    const tensor_id x = scenario_input(s, 10, 14, 6, 0, 1);
    const tensor_id a = scenario_conv(s, x, 20, 3, true), b = scenario_conv(s, x, 10, 1, true);
    tensor_id h = graph_concat(s->g, a, b);
    h = graph_activation(s->g, OPERATION_SILU, scenario_group_norm(s, h, 3));
    output(s, scenario_conv(s, h, 8, 3, true));
}

/* Behind GEGLU: a pass. */
static void build_norm_geglu(scenario *s)
{
    const tensor_id x = scenario_input(s, 4, 9, 12, 0, 1);
    const tensor_id h = graph_activation(s->g, OPERATION_GEGLU, scenario_linear(s, x, 48, true));
    output(s, scenario_linear(s, scenario_group_norm(s, h, 3), 8, true));
}

/* One part is no convolution's result: a pass. */
static void build_norm_concat_input(scenario *s)
{
    const tensor_id x = scenario_input(s, 10, 14, 6, 0, 1);
    tensor_id h = graph_concat(s->g, scenario_conv(s, x, 12, 3, true), x);
    h = graph_activation(s->g, OPERATION_SILU, scenario_group_norm(s, h, 6));
    output(s, scenario_conv(s, h, 8, 3, true));
}

/* Watched tensors exist, whatever could be fused. */
static void build_observed(scenario *s)
{
    const tensor_id x = scenario_input(s, 8, 9, 6, 0, 1);
    const tensor_id a = scenario_conv(s, x, 12, 3, true);
    const tensor_id norm = scenario_group_norm(s, a, 3);
    const tensor_id h = graph_activation(s->g, OPERATION_SILU, norm);
    const tensor_id b = scenario_conv(s, h, 12, 3, true);
    output(s, graph_sum_of(s->g, a, b));
    graph_output_add(s->g, "a", a);
    graph_output_add(s->g, "norm", norm);
    graph_output_add(s->g, "b", b);
}

/* The same graph, watching what the one above makes on the way. */
static void build_observed_norm(scenario *s)
{
    const tensor_id x = scenario_input(s, 8, 9, 6, 0, 1);
    const tensor_id norm = scenario_group_norm(s, scenario_conv(s, x, 12, 3, true), 3);
    const tensor_id h = graph_activation(s->g, OPERATION_SILU, norm);
    output(s, norm);
    graph_output_add(s->g, "next", scenario_conv(s, h, 12, 3, true));
}

/* ---- upsampling before convolutions
 * -------------------------------------------------------------------- */

static void build_upsample_conv(scenario *s)
{
    const tensor_id x = scenario_input(s, SCENARIO_PICK(s, 1, 2, 9), SCENARIO_PICK(s, 2, 3, 15),
                                       some_channels(s), 0, 1);
    const size_t *dims = graph_dims(s->g, x);
    const tensor_id up = graph_upsample(s->g, x, 2 * dims[1] - scenario_random(s, 2),
                                        2 * dims[2] - scenario_random(s, 2));
    output(s, scenario_conv(s, up, some_channels(s), 3, true));
}

/* With other padding the upsampled tensor is made. */
static void build_upsample_lopsided(scenario *s)
{
    const tensor_id up = graph_upsample(s->g, scenario_input(s, 4, 5, 8, 0, 1), 8, 10);
    const tensor_id weight = scenario_weight(s, 6, 8, 3, 3);
    const padding pads[] = {{1, 0, 1, 2}, {0, 1, 2, 1}, {1, 1, 0, 1}, {1, 1, 1, 0}};
    output(s, graph_conv2d(s->g, up, weight, TENSOR_NONE, 1, pads[scenario_random(s, 4)]));
}

/* One reader is no 3x3 convolution: the upsampled tensor is made. */
static void build_upsample_both(scenario *s)
{
    const tensor_id up = graph_upsample(s->g, scenario_input(s, 4, 5, 8, 0, 1), 8, 9);
    output(s, graph_sum_of(s->g, scenario_conv(s, up, 8, 3, true), up));
}

/* ---- whole blocks
 * -------------------------------------------------------------------------------------- */

static tensor_id resnet(scenario *s, tensor_id x, size_t channels, tensor_id time)
{
    tensor_id h = graph_activation(s->g, OPERATION_SILU, scenario_group_norm(s, x, 4));
    h = scenario_conv(s, h, channels, 3, true);
    if (time != TENSOR_NONE) {
        const tensor_id shift = graph_activation(s->g, OPERATION_SILU, time);
        h = graph_sum_of(s->g, h, scenario_linear(s, shift, channels, true));
    }
    h = graph_activation(s->g, OPERATION_SILU, scenario_group_norm(s, h, 4));
    h = scenario_conv(s, h, channels, 3, true);
    if (graph_dims(s->g, x)[3] != channels) {
        x = scenario_conv(s, x, channels, 1, true);
    }
    return graph_sum_of(s->g, x, h);
}

static void build_resnets(scenario *s)
{
    const tensor_id x = scenario_input(s, 10, 12, 4, 0, 1);
    const tensor_id time = scenario_shared_input(s, 1, 1, 24);
    const tensor_id first = scenario_conv(s, x, 16, 3, true);
    tensor_id h = resnet(s, first, 16, time);
    h = resnet(s, graph_concat(s->g, h, first), 24, time);
    h = graph_activation(s->g, OPERATION_SILU, scenario_group_norm(s, h, 4));
    output(s, scenario_conv(s, h, 3, 3, true));
}

static tensor_id attend(scenario *s, tensor_id x, tensor_id context)
{
    const size_t width = graph_dims(s->g, x)[3];
    const tensor_id q = scenario_linear(s, x, width, false);
    const tensor_id k = scenario_linear(s, context, width, false);
    const tensor_id v = scenario_linear(s, context, width, false);
    return scenario_linear(s, graph_attention(s->g, q, k, v, 2, 0.3f, false), width, true);
}

static tensor_id layer_norm(scenario *s, tensor_id x)
{
    const size_t channels = graph_dims(s->g, x)[3];
    const tensor_id gamma = scenario_gain(s, channels), beta = scenario_bias(s, channels);
    return graph_layer_norm(s->g, x, gamma, beta, 1e-5f);
}

static void build_transformer(scenario *s)
{
    const tensor_id input = scenario_input(s, 7, 9, 32, 0, 1);
    const tensor_id text = scenario_shared_input(s, 1, 11, 20);
    tensor_id x = scenario_linear(s, scenario_group_norm(s, input, 4), 32, true);
    const tensor_id norm = layer_norm(s, x);
    x = graph_sum_of(s->g, x, attend(s, norm, norm));
    x = graph_sum_of(s->g, x, attend(s, layer_norm(s, x), text));
    tensor_id h = scenario_linear(s, layer_norm(s, x), 256, true);
    h = scenario_linear(s, graph_activation(s->g, OPERATION_GEGLU, h), 32, true);
    x = scenario_linear(s, graph_sum_of(s->g, x, h), 32, true);
    output(s, graph_sum_of(s->g, x, input));
}

/* ---- tests
 * ---------------------------------------------------------------------------------------------- */

/* Relative error allowed: float32 through one operation, or a few. */
#define CLOSE 1e-5
#define EXACT 0.0

typedef struct scenario_entry {
    const char *name;
    scenario_builder build;
    unsigned seeds;
    double tolerance;
} scenario_entry;

static const scenario_entry scenarios[] = {
    {"silu", build_silu, 12, 1e-6},
    {"gelu", build_gelu, 12, 1e-6},
    {"gelu tail", build_gelu_tail, 4, 2e-6},
    {"quick_gelu", build_quick_gelu, 12, 1e-6},
    {"exp", build_exp, 12, 2e-6},
    {"geglu", build_geglu, 12, 1e-6},
    {"clamp", build_clamp, 6, EXACT},
    {"scale", build_scale, 6, 1e-6},
    {"combine", build_combine, 6, 1e-6},
    {"broadcast", build_broadcast, 12, 1e-6},
    {"multiply", build_multiply, 6, EXACT},
    {"concat, slice", build_concat_slice, 12, EXACT},
    {"upsample", build_upsample, 12, EXACT},
    {"constant", build_constant, 2, CLOSE},
    {"embedding", build_embedding, 6, 1e-6},
    {"group_norm", build_group_norm, 12, CLOSE},
    {"group_norm of small numbers", build_group_norm_small, 2, CLOSE},
    {"layer_norm", build_layer_norm, 12, CLOSE},
    {"attention", build_attention, 24, CLOSE},
    {"attention, shared keys", build_attention_shared, 2, CLOSE},
    {"attention on itself", build_attention_self, 2, CLOSE},
    {"attention, causal", build_attention_causal, 10, CLOSE},
    {"attention, wide", build_attention_wide, 2, CLOSE},
    {"conv", build_conv, 16, CLOSE},
    {"linear, activation", build_linear_gelu, 12, CLOSE},
    {"linear, geglu", build_linear_geglu, 12, CLOSE},
    {"two forms of a weight", build_two_forms, 1, CLOSE},
    {"conv with everything", build_conv_everything, 10, CLOSE},
    {"skip", build_skip, 2, CLOSE},
    {"own residual", build_own_residual, 2, CLOSE},
    {"two activations", build_two_activations, 2, CLOSE},
    {"doubled", build_doubled, 2, CLOSE},
    {"norm of geglu", build_norm_geglu, 2, CLOSE},
    {"upsample, lopsided conv", build_upsample_lopsided, 8, CLOSE},
    {"norm, conv", build_norm_conv, 12, CLOSE},
    {"norm, linear", build_norm_linear, 6, CLOSE},
    {"norm, three readers", build_norm_three, 2, CLOSE},
    {"norm of a concatenation", build_norm_concat, 2, CLOSE},
    {"norm of a concatenation with an input", build_norm_concat_input, 2, CLOSE},
    {"observed", build_observed, 2, CLOSE},
    {"observed norm", build_observed_norm, 2, CLOSE},
    {"upsample, conv", build_upsample_conv, 12, CLOSE},
    {"upsample, conv and another", build_upsample_both, 2, CLOSE},
    {"resnets", build_resnets, 2, CLOSE},
    {"transformer", build_transformer, 2, CLOSE},
};

static void test_scenarios(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        for (unsigned seed = 1; seed <= scenarios[i].seeds; seed++) {
            scenario_check(scenarios[i].build, scenarios[i].name, seed, PRECISION_F32, true,
                           scenarios[i].tolerance);
        }
    }
}

/* The fused graphs again with 16-bit products, where there are enough channels; attention with
 * enough keys to be worth it. */
static const scenario_entry integer_scenarios[] = {
    {"attention, many keys", build_attention_many, 20, 2.5e-2},
    {"attention before the scheduler's step", build_attention_exact, 10, 1.3e-2},
    {"linear, geglu", build_linear_geglu, 4, 1e-3},
    {"conv with everything", build_conv_everything, 6, 5e-3},
    {"norm, conv", build_norm_conv, 4, 5e-3},
    {"resnets", build_resnets, 2, 5e-3},
    {"transformer", build_transformer, 2, 5e-3},
};

static void test_integers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof integer_scenarios / sizeof *integer_scenarios; i++) {
        const scenario_entry *entry = &integer_scenarios[i];
        for (unsigned seed = 1; seed <= entry->seeds; seed++) {
            scenario_check(entry->build, entry->name, seed, PRECISION_INT16, true,
                           entry->tolerance);
        }
    }
    /* Without products of bytes all of attention is of 16 bits. */
    for (unsigned seed = 1; seed <= 10; seed++) {
        scenario_check(build_attention_16_bits, "attention of 16 bits", seed, PRECISION_INT16,
                       false, 8e-4);
    }
}

static void expect_close(const scenario_results *results, const scenario_results *expected,
                         unsigned output, double tolerance)
{
    const double error =
        relative_error(results->values[output], expected->values[output], expected->counts[output]);
    if (!(error <= tolerance)) {
        fail_msg("output %u: relative error %.3g, allowed %.3g", output, error, tolerance);
    }
}

static void build_tiles(scenario *s, amplification of_errors)
{
    graph_amplification(s->g, of_errors);
    output(s, scenario_conv(s, scenario_input(s, 96, 96, 128, 0.3f, 1), 48, 3, false));
}

static void build_tiles_freely(scenario *s)
{
    build_tiles(s, AMPLIFICATION_NONE);
}

static void build_tiles_gently(scenario *s)
{
    build_tiles(s, AMPLIFICATION_PARTIAL);
}

static void build_tiles_exactly(scenario *s)
{
    build_tiles(s, AMPLIFICATION_FULL);
}

/* Integers go through tiles whose errors the rest of the network allows. */
static void test_tiles(void **state)
{
    (void)state;
    static const struct {
        scenario_builder build;
        double tolerance;
    } choices[] = {
        {build_tiles_freely, 7e-3}, {build_tiles_gently, 3e-3}, {build_tiles_exactly, 8e-4}};
    scenario_results floats = scenario_run(build_tiles_freely, PRECISION_F32, false);
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        scenario_results integers = scenario_run(choices[i].build, PRECISION_INT16, false);
        expect_close(&integers, &floats, 0, choices[i].tolerance);
        scenario_results_free(&integers);
    }
    scenario_results_free(&floats);
}

static void expect_steps(scenario_builder build, const char *expected)
{
    char *steps = scenario_steps(build, 1);
    assert_string_equal(steps, expected);
    memory_free(steps);
}

/* What is fused, is. */
static void test_fusions(void **state)
{
    (void)state;
    expect_steps(build_linear_gelu, "product");
    expect_steps(build_linear_geglu, "product");
    expect_steps(build_conv_everything, "product");
    expect_steps(build_skip, "product, product, product");
    expect_steps(build_own_residual, "silu, product");
    expect_steps(build_doubled, "product, combine, silu, multiply");
    expect_steps(build_norm_conv, "product, group_norm statistics, product");
    expect_steps(build_norm_linear, "group_norm statistics, product");
    expect_steps(build_norm_three,
                 "product, group_norm statistics, group_norm apply, product, product, "
                 "product, attention f32, product");
    expect_steps(build_norm_concat, "product, product, concat, group_norm statistics, product");
    expect_steps(build_group_norm_small, "group_norm statistics, group_norm apply silu");
    expect_steps(build_observed, "product, group_norm statistics, group_norm apply, silu, "
                                 "product, combine");
    expect_steps(build_upsample_conv, "product");
    expect_steps(build_upsample_both, "upsample, product");
    expect_steps(build_transformer,
                 "group_norm statistics, product, layer_norm, product, product, "
                 "product, attention f32, product, layer_norm, product, product, "
                 "product, attention f32, product, layer_norm, product, product, "
                 "product");
}

/* ---- activations stored as halves
 * -------------------------------------------------------------------------- */

/* A tensor of 16 channels then has just more than 2^21 values, as halves must. */
#define LARGE_HEIGHT 367
#define LARGE_WIDTH  359

static tensor_id norm_silu(scenario *s, tensor_id x)
{
    return graph_activation(s->g, OPERATION_SILU, scenario_group_norm(s, x, 4));
}

/* A decoder's layers; all five tensors between them can be halves. `watched` names some of them by
 * their letters. */
static void build_large(scenario *s, const char *watched)
{
    const tensor_id x = scenario_input(s, LARGE_HEIGHT, LARGE_WIDTH, 3, 0, 1);
    const tensor_id a = scenario_conv(s, x, 16, 3, true);
    const tensor_id b = scenario_conv(s, norm_silu(s, a), 16, 3, true);
    const tensor_id c = graph_sum_of(s->g, a, scenario_conv(s, norm_silu(s, b), 16, 3, true));
    const tensor_id up = graph_upsample(s->g, c, 2 * LARGE_HEIGHT, 2 * LARGE_WIDTH);
    const tensor_id u = scenario_conv(s, up, 16, 3, true);
    const tensor_id v = scenario_conv(s, u, 16, 1, true);
    output(s, scenario_conv(s, norm_silu(s, v), 3, 3, true));
    const struct {
        const char *name;
        tensor_id tensor;
    } tensors[] = {{"a", a}, {"b", b}, {"c", c}, {"u", u}, {"v", v}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        if (strchr(watched, tensors[i].name[0])) {
            graph_output_add(s->g, tensors[i].name, tensors[i].tensor);
        }
    }
}

static void build_large_chain(scenario *s)
{
    build_large(s, "");
}

static void build_large_one_watched(scenario *s)
{
    build_large(s, "c");
}

static void build_large_all_watched(scenario *s)
{
    build_large(s, "abcuv");
}

/* Halves (b and c) beside what is read by other operations (a, d) or made by them, and an input:
 * c has a residual of floats whose place it would otherwise take, d one of halves. */
static void build_large_mixed(scenario *s)
{
    const tensor_id x = scenario_input(s, LARGE_HEIGHT, LARGE_WIDTH, 16, 0, 1);
    const tensor_id a = scenario_conv(s, x, 16, 1, true);
    const tensor_id b = scenario_conv(s, graph_concat(s->g, a, x), 16, 1, true);
    const tensor_id c = graph_sum_of(s->g, scenario_conv(s, b, 16, 3, true), a);
    const tensor_id d = graph_sum_of(s->g, scenario_conv(s, c, 16, 1, true), b);
    output(s, scenario_conv(s, graph_multiply(s->g, d, x), 3, 1, true));
}

/* A tensor of the given size between two convolutions. */
static void build_between(scenario *s, size_t height, size_t width, size_t channels)
{
    const tensor_id x = scenario_input(s, height, width, 3, 0, 1);
    output(s, scenario_conv(s, scenario_conv(s, x, channels, 3, true), 3, 3, true));
}

static void build_largest_floats(scenario *s)
{
    build_between(s, 512, 256, 16);
}

static void build_smallest_halves(scenario *s)
{
    build_between(s, 513, 256, 16);
}

static void build_few_channels(scenario *s)
{
    build_between(s, 513, 512, 15);
}

static tensor_id large(scenario *s)
{
    return scenario_conv(s, scenario_input(s, LARGE_HEIGHT, LARGE_WIDTH, 3, 0, 1), 16, 3, true);
}

static void build_large_linear(scenario *s)
{
    const tensor_id x = scenario_input(s, 1, LARGE_HEIGHT * LARGE_WIDTH, 3, 0, 1);
    const tensor_id gated = scenario_linear(s, scenario_linear(s, x, 16, true), 32, true);
    const tensor_id h = graph_activation(s->g, OPERATION_GEGLU, gated);
    output(s, scenario_linear(s, h, 3, true));
}

static void build_large_strided(scenario *s)
{
    const tensor_id weight = scenario_weight(s, 4, 16, 3, 3);
    output(s, graph_conv2d(s->g, large(s), weight, TENSOR_NONE, 2, (padding){1, 1, 1, 1}));
}

static void build_large_vector(scenario *s)
{
    const tensor_id h = graph_sum_of(s->g, large(s), scenario_shared_input(s, 1, 1, 16));
    output(s, scenario_conv(s, graph_activation(s->g, OPERATION_SILU, h), 3, 3, true));
}

static void build_large_upsample(scenario *s)
{
    output(s, graph_upsample(s->g, large(s), 2 * LARGE_HEIGHT, 2 * LARGE_WIDTH));
}

static void build_large_concat(scenario *s)
{
    const tensor_id a = large(s);
    const tensor_id both = graph_concat(s->g, a, scenario_conv(s, a, 16, 1, true));
    output(s, scenario_conv(s, norm_silu(s, both), 3, 3, true));
}

static void build_large_activation(scenario *s)
{
    const tensor_id a = large(s);
    const tensor_id h = graph_sum_of(s->g, graph_activation(s->g, OPERATION_GELU, a), a);
    output(s, scenario_conv(s, h, 3, 3, true));
}

/* The normalised tensor exists, as two read it; it is made from the whole input. */
static void build_large_norm_apply(scenario *s)
{
    const tensor_id norm = scenario_group_norm(s, large(s), 4);
    const tensor_id q = scenario_linear(s, norm, 3, true);
    output(s, graph_sum_of(s->g, q, scenario_linear(s, norm, 3, true)));
}

static void build_large_layer_norm(scenario *s)
{
    output(s, scenario_linear(s, layer_norm(s, large(s)), 3, true));
}

/* Behind GEGLU a normalisation reads what it normalises. */
static void build_large_norm_geglu(scenario *s)
{
    const tensor_id gated = scenario_linear(s, large(s), 32, true);
    const tensor_id h = graph_activation(s->g, OPERATION_GEGLU, gated);
    output(s, scenario_linear(s, scenario_group_norm(s, h, 4), 3, true));
}

static void build_large_attention(scenario *s)
{
    const tensor_id q = large(s), text = scenario_shared_input(s, 1, 77, 16);
    const tensor_id h = graph_attention(s->g, q, text, text, 2, 0.3f, false);
    output(s, scenario_linear(s, h, 3, true));
}

static const struct {
    const char *name;
    scenario_builder build;
    size_t batch;
    unsigned halves;
} large_scenarios[] = {
    {"chain", build_large_chain, 1, 5},
    {"chain, three pictures", build_large_chain, 3, 5},
    {"one watched", build_large_one_watched, 1, 4},
    {"all watched", build_large_all_watched, 1, 0},
    {"mixed", build_large_mixed, 1, 2},
    {"2^21 values", build_largest_floats, 1, 0},
    {"2^21 values each", build_largest_floats, 3, 0},
    {"more than 2^21 values", build_smallest_halves, 1, 1},
    {"15 channels", build_few_channels, 1, 0},
    {"linear", build_large_linear, 1, 2},
    {"strided", build_large_strided, 1, 1},
    {"vector", build_large_vector, 1, 1},
    {"upsample", build_large_upsample, 1, 0},
    {"concat", build_large_concat, 1, 0},
    {"activation", build_large_activation, 1, 0},
    {"norm apply", build_large_norm_apply, 1, 0},
    {"layer norm", build_large_layer_norm, 1, 0},
    {"norm of geglu", build_large_norm_geglu, 1, 1},
    {"attention", build_large_attention, 1, 0},
};

/* Which tensors are halves: large ones that only convolutions make and read, next to integers. */
static void test_halves(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof large_scenarios / sizeof *large_scenarios; i++) {
        const scenario_builder build = large_scenarios[i].build;
        const size_t batch = large_scenarios[i].batch;
        const scenario_memory integers = scenario_memory_of(build, batch, PRECISION_INT16);
        const scenario_memory floats = scenario_memory_of(build, batch, PRECISION_F32);
        if (integers.halves != large_scenarios[i].halves || floats.halves != 0 ||
            scenario_memory_of(build, batch, PRECISION_BF16).halves != 0) {
            fail_msg("%s: %u tensors are halves, %u at f32", large_scenarios[i].name,
                     integers.halves, floats.halves);
        }
    }
    const scenario_memory integers = scenario_memory_of(build_large_chain, 1, PRECISION_INT16);
    const scenario_memory floats = scenario_memory_of(build_large_chain, 1, PRECISION_F32);
    assert_true((double)integers.bytes < 0.6 * (double)floats.bytes);
}

static bool is_half(float value)
{
    const float rounded = conv_rounded(value);
    return memcmp(&rounded, &value, sizeof value) == 0;
}

static size_t count_halves(const float *values, size_t count)
{
    size_t halves = 0;
    for (size_t i = 0; i < count; i++) {
        halves += is_half(values[i]);
    }
    return halves;
}

/* Next to integers all results are near those in floats, and watching a tensor changes no other
 * byte: it is rounded as when it is not watched. In floats nothing is rounded. */
static void test_halves_results(void **state)
{
    (void)state;
    scenario_results floats = scenario_run(build_large_all_watched, PRECISION_F32, false);
    scenario_results integers = scenario_run(build_large_chain, PRECISION_INT16, true);
    scenario_results one = scenario_run(build_large_one_watched, PRECISION_INT16, false);
    scenario_results all = scenario_run(build_large_all_watched, PRECISION_INT16, false);
    assert_int_equal(all.count, 6);
    for (unsigned o = 0; o < all.count; o++) {
        const size_t count = all.counts[o];
        expect_close(&all, &floats, o, 5e-3);
        if (o > 0) {
            assert_int_equal(count_halves(all.values[o], count), count);
            assert_true(count_halves(floats.values[o], count) < count / 100);
        }
    }
    const size_t bytes = all.counts[0] * sizeof(float);
    assert_memory_equal(all.values[0], integers.values[0], bytes);
    assert_memory_equal(one.values[0], integers.values[0], bytes);
    assert_memory_equal(one.values[1], all.values[3], one.counts[1] * sizeof(float));
    scenario_results_free(&floats);
    scenario_results_free(&integers);
    scenario_results_free(&one);
    scenario_results_free(&all);
}

/* What stays as floats beside halves neither reads nor overwrites these as if they were floats. */
static void test_halves_mixed(void **state)
{
    (void)state;
    scenario_results floats = scenario_run(build_large_mixed, PRECISION_F32, false);
    scenario_results integers = scenario_run(build_large_mixed, PRECISION_INT16, true);
    expect_close(&integers, &floats, 0, 2e-3);
    scenario_results_free(&floats);
    scenario_results_free(&integers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scenarios),    cmocka_unit_test(test_integers),
        cmocka_unit_test(test_tiles),        cmocka_unit_test(test_fusions),
        cmocka_unit_test(test_halves),       cmocka_unit_test(test_halves_results),
        cmocka_unit_test(test_halves_mixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
