/* Convolutions, linear layers and embeddings, and the gradients of the products. */
#include "backend/reference/reference.h"

#include <string.h>

void reference_accumulate(double *restrict sums, size_t count, const float *restrict rows,
                          size_t row_stride, const float *factors, size_t terms)
{
    size_t i = 0;
    /* Four rows at a time: the sums are read and written once for four products. */
    for (; i + 4 <= terms; i += 4) {
        const float *restrict a = rows + i * row_stride, *restrict b = a + row_stride,
                              *restrict c = b + row_stride, *restrict d = c + row_stride;
        double p = factors[i], q = factors[i + 1], r = factors[i + 2], s = factors[i + 3];
        for (size_t j = 0; j < count; j++) {
            sums[j] += (p * a[j] + q * b[j]) + (r * c[j] + s * d[j]);
        }
    }
    for (; i < terms; i++) {
        const float *restrict a = rows + i * row_stride;
        double p = factors[i];
        for (size_t j = 0; j < count; j++) {
            sums[j] += p * a[j];
        }
    }
}

/* ---- weights in the order of the loops ---------------------------------------------------------
 */

bool reference_product_scratch(const size_t dims[4], size_t *bytes)
{
    size_t count = sizeof(float);
    return size_multiply(count, dims[0], &count) && size_multiply(count, dims[1], &count) &&
           size_multiply(count, dims[2], &count) && size_multiply(count, dims[3], bytes);
}

typedef struct reordering {
    const float *weight; /* [outputs][inputs][taps] */
    float *result;       /* [taps][inputs][outputs], or [taps][outputs][inputs] */
    size_t outputs, inputs, taps;
    bool outputs_last;
} reordering;

static void reorder_input(void *context, size_t i, unsigned worker)
{
    (void)worker;
    const reordering *r = context;
    for (size_t tap = 0; tap < r->taps; tap++) {
        const float *from = r->weight + i * r->taps + tap;
        if (r->outputs_last) {
            float *to = r->result + (tap * r->inputs + i) * r->outputs;
            for (size_t o = 0; o < r->outputs; o++) {
                to[o] = from[o * r->inputs * r->taps];
            }
        } else {
            float *to = r->result + tap * r->outputs * r->inputs + i;
            for (size_t o = 0; o < r->outputs; o++) {
                to[o * r->inputs] = from[o * r->inputs * r->taps];
            }
        }
    }
}

/* A weight with the channels that are summed up side by side innermost, in the call's scratch. */
static const float *reorder_weight(const reference_call *call, const reference_operand *weight,
                                   bool outputs_last)
{
    reordering r = {.weight = weight->data,
                    .result = call->scratch,
                    .outputs = weight->dims[0],
                    .inputs = weight->dims[1],
                    .taps = weight->dims[2] * weight->dims[3],
                    .outputs_last = outputs_last};
    thread_pool_run(call->pool, r.inputs, reorder_input, &r);
    return call->scratch;
}

/* ---- the tasks: a run of pixels times a strip of channels ---------------------------------- */

#define PIXELS 16
/* Source channels at a time: with a strip of output channels, a piece of the weight that stays in
 * the first-level cache for all pixels of a task. */
#define DEPTH 64

typedef struct product {
    const reference_call *call;
    const float *source; /* x, or the upstream gradient */
    size_t source_dims[4];
    const float *weight; /* reordered */
    const float *bias;   /* or NULL */
    size_t kernel_height, kernel_width;
    size_t stride, pad_top, pad_left;
    size_t pixels, strips;
    /* The source pixel that a tap multiplies for an output pixel; false when it is outside. */
    bool (*source_pixel)(const struct product *p, size_t pixel, size_t ky, size_t kx, size_t *from);
} product;

/* Output pixel (n, y, x) sums source pixel (n, y * stride + ky - pad_top, ...) over the taps. */
static bool source_forward(const product *p, size_t pixel, size_t ky, size_t kx, size_t *from)
{
    const size_t *dims = p->call->dims, *source = p->source_dims;
    size_t x = pixel % dims[2], y = pixel / dims[2] % dims[1], n = pixel / dims[2] / dims[1];
    /* A row above the picture wraps around to a huge number. */
    size_t row = y * p->stride + ky - p->pad_top, column = x * p->stride + kx - p->pad_left;
    *from = (n * source[1] + row) * source[2] + column;
    return row < source[1] && column < source[2];
}

/* Pixel (n, y, x) of the gradient sums the upstream pixels that its value flowed into. */
static bool source_back(const product *p, size_t pixel, size_t ky, size_t kx, size_t *from)
{
    const size_t *dims = p->call->dims, *source = p->source_dims;
    size_t x = pixel % dims[2], y = pixel / dims[2] % dims[1], n = pixel / dims[2] / dims[1];
    size_t above = y + p->pad_top - ky, left = x + p->pad_left - kx; /* wrap around as well */
    size_t row = above / p->stride, column = left / p->stride;
    *from = (n * source[1] + row) * source[2] + column;
    return above % p->stride == 0 && left % p->stride == 0 && row < source[1] && column < source[2];
}

static void convolve(void *context, size_t index, unsigned worker)
{
    (void)worker;
    const product *p = context;
    size_t depth = p->source_dims[3], width = p->call->dims[3];
    size_t channel = index % p->strips * REFERENCE_STRIP, first = index / p->strips * PIXELS;
    size_t channels = size_minimum(REFERENCE_STRIP, width - channel);
    size_t pixels = size_minimum(PIXELS, p->pixels - first);
    double sums[PIXELS][REFERENCE_STRIP];
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < channels; c++) {
            sums[i][c] = p->bias ? p->bias[channel + c] : 0.0;
        }
    }
    for (size_t tap = 0; tap < p->kernel_height * p->kernel_width; tap++) {
        for (size_t d = 0; d < depth; d += DEPTH) {
            const float *rows = p->weight + (tap * depth + d) * width + channel;
            for (size_t i = 0; i < pixels; i++) {
                size_t from;
                if (p->source_pixel(p, first + i, tap / p->kernel_width, tap % p->kernel_width,
                                    &from)) {
                    reference_accumulate(sums[i], channels, rows, width,
                                         p->source + from * depth + d,
                                         size_minimum(DEPTH, depth - d));
                }
            }
        }
    }
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < channels; c++) {
            p->call->output[(first + i) * width + channel + c] = (float)sums[i][c];
        }
    }
}

static void product_run(product *p)
{
    const size_t *dims = p->call->dims;
    p->pixels = dims[0] * dims[1] * dims[2];
    p->strips = (dims[3] + REFERENCE_STRIP - 1) / REFERENCE_STRIP;
    thread_pool_run(p->call->pool, (p->pixels + PIXELS - 1) / PIXELS * p->strips, convolve, p);
}

void reference_conv2d(const reference_call *call)
{
    const reference_operand *x = &call->inputs[0], *weight = &call->inputs[1];
    product p = {.call = call,
                 .source = x->data,
                 .weight = reorder_weight(call, weight, true),
                 .bias = call->input_count > 2 ? call->inputs[2].data : NULL,
                 .kernel_height = weight->dims[2],
                 .kernel_width = weight->dims[3],
                 .stride = call->attributes->stride,
                 .pad_top = call->attributes->pad_top,
                 .pad_left = call->attributes->pad_left};
    memcpy(p.source_dims, x->dims, sizeof p.source_dims);
    p.source_pixel = source_forward;
    product_run(&p);
}

void reference_linear(const reference_call *call)
{
    node_attributes attributes = {.stride = 1};
    reference_call convolution = *call;
    convolution.attributes = &attributes;
    reference_conv2d(&convolution);
}

void reference_conv2d_input_gradient(const reference_call *call)
{
    const reference_operand *upstream = &call->inputs[0], *weight = &call->inputs[1];
    product p = {.call = call,
                 .source = upstream->data,
                 .weight = reorder_weight(call, weight, false),
                 .kernel_height = weight->dims[2],
                 .kernel_width = weight->dims[3],
                 .stride = call->attributes->stride,
                 .pad_top = call->attributes->pad_top,
                 .pad_left = call->attributes->pad_left};
    memcpy(p.source_dims, upstream->dims, sizeof p.source_dims);
    p.source_pixel = source_back;
    product_run(&p);
}

/* One output channel of a weight's gradient: sums over all pixels that upstream has. */
static void weight_gradient_channel(void *context, size_t o, unsigned worker)
{
    (void)worker;
    const reference_call *call = context;
    const reference_operand *x = &call->inputs[0], *upstream = &call->inputs[1];
    const node_attributes *a = call->attributes;
    size_t inputs = call->dims[1], height = call->dims[2], width = call->dims[3];
    for (size_t tap = 0; tap < height * width; tap++) {
        size_t ky = tap / width, kx = tap % width;
        for (size_t channel = 0; channel < inputs; channel += REFERENCE_STRIP) {
            size_t channels = size_minimum(REFERENCE_STRIP, inputs - channel);
            double sums[REFERENCE_STRIP] = {0};
            for (size_t row = 0; row < upstream->dims[0] * upstream->dims[1]; row++) {
                size_t n = row / upstream->dims[1];
                size_t y = row % upstream->dims[1] * a->stride + ky - a->pad_top;
                for (size_t column = 0; column < upstream->dims[2] && y < x->dims[1]; column++) {
                    size_t source = column * a->stride + kx - a->pad_left;
                    if (source < x->dims[2]) {
                        reference_accumulate(
                            sums, channels,
                            x->data + ((n * x->dims[1] + y) * x->dims[2] + source) * inputs +
                                channel,
                            0,
                            upstream->data + (row * upstream->dims[2] + column) * call->dims[0] + o,
                            1);
                    }
                }
            }
            for (size_t c = 0; c < channels; c++) {
                call->output[(o * inputs + channel + c) * height * width + tap] = (float)sums[c];
            }
        }
    }
}

void reference_conv2d_weight_gradient(const reference_call *call)
{
    thread_pool_run(call->pool, call->dims[0], weight_gradient_channel, (void *)call);
}

/* ---- embedding ----------------------------------------------------------------------------- */

void reference_embedding(const reference_call *call)
{
    const reference_operand *tokens = &call->inputs[1], *positions = &call->inputs[2];
    const int32_t *ids = (const int32_t *)call->inputs[0].data;
    size_t length = call->dims[2], width = call->dims[3];
    for (size_t t = 0; t < call->dims[0] * length; t++) {
        const float *token = tokens->data + (size_t)ids[t] * width;
        const float *position = positions->data + t % length * width;
        for (size_t c = 0; c < width; c++) {
            call->output[t * width + c] = token[c] + position[c];
        }
    }
}
