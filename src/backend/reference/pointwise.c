/* What is computed number by number, and its gradients. */
#include "backend/reference/reference.h"

#include <math.h>

/* Runs a loop body over [first, end) of `count` numbers in blocks. */
#define BLOCK 8192

static void blocks_run(const reference_call *call, size_t count, thread_pool_task task)
{
    thread_pool_run(call->pool, (count + BLOCK - 1) / BLOCK, task, (void *)call);
}

/* ---- activations --------------------------------------------------------------------------- */

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

#define SQRT_HALF           0.70710678118654752440
#define SQRT_INVERSE_TWO_PI 0.39894228040143267794
#define QUICK_GELU_FACTOR   1.702

static double gelu(double x)
{
    return 0.5 * x * erfc(-x * SQRT_HALF);
}

static double gelu_slope(double x)
{
    return 0.5 * erfc(-x * SQRT_HALF) + x * SQRT_INVERSE_TWO_PI * exp(-0.5 * x * x);
}

static double silu(double x)
{
    return x * sigmoid(x);
}

static double silu_slope(double x)
{
    double s = sigmoid(x);
    return s * (1.0 + x * (1.0 - s));
}

static double quick_gelu(double x)
{
    return x * sigmoid(QUICK_GELU_FACTOR * x);
}

static double quick_gelu_slope(double x)
{
    double s = sigmoid(QUICK_GELU_FACTOR * x);
    return s * (1.0 + QUICK_GELU_FACTOR * x * (1.0 - s));
}

#define ACTIVATION(name, function)                                                                 \
    static void name##_block(void *context, size_t index, unsigned worker)                         \
    {                                                                                              \
        (void)worker;                                                                              \
        const reference_call *call = context;                                                      \
        size_t end = size_minimum(call->count, (index + 1) * BLOCK);                               \
        for (size_t i = index * BLOCK; i < end; i++) {                                             \
            call->output[i] = (float)function((double)call->inputs[0].data[i]);                    \
        }                                                                                          \
    }                                                                                              \
    void reference_##name(const reference_call *call)                                              \
    {                                                                                              \
        blocks_run(call, call->count, name##_block);                                               \
    }

ACTIVATION(silu, silu)
ACTIVATION(gelu, gelu)
ACTIVATION(quick_gelu, quick_gelu)
ACTIVATION(exp, exp)

static double slope_of(const reference_call *call, double x)
{
    switch (call->attributes->of) {
    case OPERATION_SILU:
        return silu_slope(x);
    case OPERATION_GELU:
        return gelu_slope(x);
    case OPERATION_QUICK_GELU:
        return quick_gelu_slope(x);
    case OPERATION_EXP:
        return exp(x);
    default: /* clamp: 1 on the limits, as PyTorch */
        return x >= (double)call->attributes->low && x <= (double)call->attributes->high ? 1.0
                                                                                         : 0.0;
    }
}

static void activation_gradient_block(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const reference_call *call = context;
    size_t end = size_minimum(call->count, (index + 1) * BLOCK);
    for (size_t i = index * BLOCK; i < end; i++) {
        double slope = slope_of(call, (double)call->inputs[0].data[i]);
        call->output[i] = (float)((double)call->inputs[1].data[i] * slope);
    }
}

void reference_activation_gradient(const reference_call *call)
{
    blocks_run(call, call->count, activation_gradient_block);
}

static void geglu_block(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const reference_call *call = context;
    size_t width = call->dims[3], end = size_minimum(call->count, (index + 1) * BLOCK);
    for (size_t i = index * BLOCK; i < end; i++) {
        const float *pixel = call->inputs[0].data + i / width * 2 * width;
        double value = pixel[i % width], gate = pixel[width + i % width];
        call->output[i] = (float)(value * gelu(gate));
    }
}

void reference_geglu(const reference_call *call)
{
    blocks_run(call, call->count, geglu_block);
}

/* ---- arithmetic ---------------------------------------------------------------------------- */

static void clamp_block(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const reference_call *call = context;
    float low = call->attributes->low, high = call->attributes->high;
    size_t end = size_minimum(call->count, (index + 1) * BLOCK);
    for (size_t i = index * BLOCK; i < end; i++) {
        float x = call->inputs[0].data[i];
        call->output[i] = x < low ? low : x > high ? high : x; /* NaN stays NaN */
    }
}

void reference_clamp(const reference_call *call)
{
    blocks_run(call, call->count, clamp_block);
}

static void scale_block(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const reference_call *call = context;
    double scale = coefficient_value(call->attributes->scale[0], call->scalars);
    double offset = call->attributes->offset;
    size_t end = size_minimum(call->count, (index + 1) * BLOCK);
    for (size_t i = index * BLOCK; i < end; i++) {
        call->output[i] = (float)(scale * call->inputs[0].data[i] + offset);
    }
}

void reference_scale(const reference_call *call)
{
    blocks_run(call, call->count, scale_block);
}

/* One pixel, so that a second operand of one pixel a picture, or one for all, is found easily. */
static void combine_pixel(const reference_call *call, size_t pixel)
{
    const reference_operand *a = &call->inputs[0], *b = &call->inputs[1];
    double scale_a = coefficient_value(call->attributes->scale[0], call->scalars);
    double scale_b = coefficient_value(call->attributes->scale[1], call->scalars);
    size_t channels = call->dims[3], size = call->dims[1] * call->dims[2];
    size_t other = b->count == a->count ? pixel : b->dims[0] == 1 ? 0 : pixel / size;
    const float *from = a->data + pixel * channels, *with = b->data + other * channels;
    float *to = call->output + pixel * channels;
    for (size_t c = 0; c < channels; c++) {
        to[c] = (float)(scale_a * from[c] + scale_b * with[c]);
    }
}

#define PIXELS 64

static void combine_block(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const reference_call *call = context;
    size_t pixels = call->count / call->dims[3];
    for (size_t p = index * PIXELS; p < size_minimum(pixels, (index + 1) * PIXELS); p++) {
        combine_pixel(call, p);
    }
}

void reference_combine(const reference_call *call)
{
    size_t pixels = call->count / call->dims[3];
    thread_pool_run(call->pool, (pixels + PIXELS - 1) / PIXELS, combine_block, (void *)call);
}

static void multiply_block(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const reference_call *call = context;
    size_t end = size_minimum(call->count, (index + 1) * BLOCK);
    for (size_t i = index * BLOCK; i < end; i++) {
        call->output[i] = call->inputs[0].data[i] * call->inputs[1].data[i];
    }
}

void reference_multiply(const reference_call *call)
{
    blocks_run(call, call->count, multiply_block);
}
