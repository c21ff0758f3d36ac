/* GroupNorm and LayerNorm and their gradients.
 *
 * Both normalise runs of numbers: a group of channels over a picture, or a pixel's channels. With
 * x^ = (x - mean) / sqrt(variance + epsilon) and g = gamma * upstream, over one run
 *   dx = (g - mean(g) - x^ * mean(g * x^)) / sqrt(variance + epsilon). */
#include "backend/reference/reference.h"

#include <math.h>

/* The run of channels first..first+channels-1 of `pixels` pixels. */
typedef struct run {
    size_t offset, pixels, stride, first, channels;
} run;

typedef struct moments {
    double mean, scale; /* scale = 1 / sqrt(variance + epsilon) */
} moments;

static size_t run_count(const reference_call *call, bool grouped)
{
    const size_t *dims = call->inputs[0].dims;
    return grouped ? dims[0] * call->attributes->groups : dims[0] * dims[1] * dims[2];
}

static run run_at(const reference_call *call, bool grouped, size_t index)
{
    const size_t *dims = call->inputs[0].dims;
    if (!grouped) {
        return (run){.offset = index * dims[3], .pixels = 1, .channels = dims[3]};
    }
    size_t groups = call->attributes->groups, pixels = dims[1] * dims[2];
    size_t channels = dims[3] / groups, first = index % groups * channels;
    return (run){.offset = index / groups * pixels * dims[3] + first,
                 .pixels = pixels,
                 .stride = dims[3],
                 .first = first,
                 .channels = channels};
}

static moments run_moments(const reference_call *call, run r)
{
    const float *x = call->inputs[0].data + r.offset;
    double count = (double)r.pixels * (double)r.channels, sum = 0, squares = 0;
    for (size_t p = 0; p < r.pixels; p++) {
        for (size_t c = 0; c < r.channels; c++) {
            sum += x[p * r.stride + c];
        }
    }
    double mean = sum / count;
    for (size_t p = 0; p < r.pixels; p++) {
        for (size_t c = 0; c < r.channels; c++) {
            double difference = x[p * r.stride + c] - mean;
            squares += difference * difference;
        }
    }
    double variance = squares / count;
    return (moments){mean, 1.0 / sqrt(variance + (double)call->attributes->epsilon)};
}

static void normalise(const reference_call *call, bool grouped, size_t index)
{
    run r = run_at(call, grouped, index);
    moments m = run_moments(call, r);
    const float *x = call->inputs[0].data + r.offset;
    const float *gamma = call->inputs[1].data + r.first, *beta = call->inputs[2].data + r.first;
    float *y = call->output + r.offset;
    for (size_t p = 0; p < r.pixels; p++) {
        for (size_t c = 0; c < r.channels; c++) {
            size_t i = p * r.stride + c;
            y[i] = (float)((x[i] - m.mean) * m.scale * gamma[c] + beta[c]);
        }
    }
}

static void group_norm_run(void *context, size_t index, unsigned worker)
{
    (void)worker;
    normalise(context, true, index);
}

static void layer_norm_run(void *context, size_t index, unsigned worker)
{
    (void)worker;
    normalise(context, false, index);
}

void reference_group_norm(const reference_call *call)
{
    thread_pool_run(call->pool, run_count(call, true), group_norm_run, (void *)call);
}

void reference_layer_norm(const reference_call *call)
{
    thread_pool_run(call->pool, run_count(call, false), layer_norm_run, (void *)call);
}

/* ---- gradients ----------------------------------------------------------------------------- */

/* Inputs of the gradients: x, gamma, upstream. */
static void input_gradient(const reference_call *call, bool grouped, size_t index)
{
    run r = run_at(call, grouped, index);
    moments m = run_moments(call, r);
    const float *x = call->inputs[0].data + r.offset, *gamma = call->inputs[1].data + r.first,
                *upstream = call->inputs[2].data + r.offset;
    double count = (double)r.pixels * (double)r.channels, sum = 0, products = 0;
    for (size_t p = 0; p < r.pixels; p++) {
        for (size_t c = 0; c < r.channels; c++) {
            size_t i = p * r.stride + c;
            double g = (double)gamma[c] * upstream[i];
            sum += g;
            products += g * (x[i] - m.mean) * m.scale;
        }
    }
    for (size_t p = 0; p < r.pixels; p++) {
        for (size_t c = 0; c < r.channels; c++) {
            size_t i = p * r.stride + c;
            double g = (double)gamma[c] * upstream[i];
            double normalised = (x[i] - m.mean) * m.scale;
            call->output[r.offset + i] =
                (float)((g - sum / count - normalised * (products / count)) * m.scale);
        }
    }
}

static void group_norm_input_gradient(void *context, size_t index, unsigned worker)
{
    (void)worker;
    input_gradient(context, true, index);
}

static void layer_norm_input_gradient(void *context, size_t index, unsigned worker)
{
    (void)worker;
    input_gradient(context, false, index);
}

/* Gradient of gamma (sums of upstream * x^) or beta (sums of upstream) over a group's channels, or
 * over all channels of a layer, in strips that fit on the stack. */
static void parameter_gradient(const reference_call *call, bool grouped, size_t group)
{
    const size_t *dims = call->inputs[0].dims;
    bool of_gamma = call->attributes->wrt == 1;
    size_t runs = run_count(call, grouped), step = grouped ? call->attributes->groups : 1;
    size_t channels = grouped ? dims[3] / call->attributes->groups : dims[3];
    for (size_t channel = 0; channel < channels; channel += REFERENCE_STRIP) {
        size_t strip = size_minimum(REFERENCE_STRIP, channels - channel);
        double sums[REFERENCE_STRIP] = {0};
        for (size_t index = group; index < runs; index += step) {
            run r = run_at(call, grouped, index);
            moments m = of_gamma ? run_moments(call, r) : (moments){0, 0};
            const float *x = call->inputs[0].data + r.offset + channel,
                        *upstream = call->inputs[2].data + r.offset + channel;
            for (size_t p = 0; p < r.pixels; p++) {
                for (size_t c = 0; c < strip; c++) {
                    size_t i = p * r.stride + c;
                    sums[c] += of_gamma ? upstream[i] * ((x[i] - m.mean) * m.scale) : upstream[i];
                }
            }
        }
        for (size_t c = 0; c < strip; c++) {
            call->output[group * channels + channel + c] = (float)sums[c];
        }
    }
}

static void group_norm_parameter_gradient(void *context, size_t group, unsigned worker)
{
    (void)worker;
    parameter_gradient(context, true, group);
}

void reference_group_norm_gradient(const reference_call *call)
{
    if (call->attributes->wrt == 0) {
        thread_pool_run(call->pool, run_count(call, true), group_norm_input_gradient, (void *)call);
    } else {
        thread_pool_run(call->pool, call->attributes->groups, group_norm_parameter_gradient,
                        (void *)call);
    }
}

void reference_layer_norm_gradient(const reference_call *call)
{
    if (call->attributes->wrt == 0) {
        thread_pool_run(call->pool, run_count(call, false), layer_norm_input_gradient,
                        (void *)call);
    } else {
        parameter_gradient(call, false, 0);
    }
}
