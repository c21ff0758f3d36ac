/* What moves values or adds them up: memory traffic, not worth threads. */
#include "backend/reference/reference.h"

#include <string.h>

void reference_concat(const reference_call *call)
{
    const reference_operand *a = &call->inputs[0], *b = &call->inputs[1];
    size_t left = a->dims[3], right = b->dims[3];
    for (size_t p = 0; p < call->count / call->dims[3]; p++) {
        float *to = call->output + p * (left + right);
        memcpy(to, a->data + p * left, left * sizeof *to);
        memcpy(to + left, b->data + p * right, right * sizeof *to);
    }
}

void reference_slice(const reference_call *call)
{
    const reference_operand *x = &call->inputs[0];
    size_t width = call->dims[3];
    for (size_t p = 0; p < call->count / width; p++) {
        memcpy(call->output + p * width, x->data + p * x->dims[3] + call->attributes->first,
               width * sizeof *call->output);
    }
}

void reference_slice_gradient(const reference_call *call)
{
    const reference_operand *upstream = &call->inputs[0];
    size_t width = upstream->dims[3];
    memset(call->output, 0, call->count * sizeof *call->output);
    for (size_t p = 0; p < upstream->count / width; p++) {
        memcpy(call->output + p * call->dims[3] + call->attributes->first,
               upstream->data + p * width, width * sizeof *call->output);
    }
}

void reference_upsample(const reference_call *call)
{
    const reference_operand *x = &call->inputs[0];
    size_t height = call->dims[1], width = call->dims[2], channels = call->dims[3];
    for (size_t p = 0; p < call->count / channels; p++) {
        size_t column = p % width, row = p / width % height, n = p / width / height;
        size_t from = (n * x->dims[1] + row / 2) * x->dims[2] + column / 2;
        memcpy(call->output + p * channels, x->data + from * channels,
               channels * sizeof *call->output);
    }
}

void reference_upsample_gradient(const reference_call *call)
{
    const reference_operand *upstream = &call->inputs[0];
    size_t height = call->dims[1], width = call->dims[2], channels = call->dims[3];
    for (size_t p = 0; p < call->count / channels; p++) {
        size_t column = p % width, row = p / width % height, n = p / width / height;
        float *to = call->output + p * channels;
        memset(to, 0, channels * sizeof *to);
        for (size_t y = 2 * row; y < size_minimum(2 * row + 2, upstream->dims[1]); y++) {
            for (size_t x = 2 * column; x < size_minimum(2 * column + 2, upstream->dims[2]); x++) {
                const float *from =
                    upstream->data +
                    ((n * upstream->dims[1] + y) * upstream->dims[2] + x) * channels;
                for (size_t c = 0; c < channels; c++) {
                    to[c] += from[c];
                }
            }
        }
    }
}

void reference_sum(const reference_call *call)
{
    const reference_operand *x = &call->inputs[0];
    size_t channels = call->dims[3], pixels = x->count / channels / call->dims[0];
    for (size_t n = 0; n < call->dims[0]; n++) {
        for (size_t first = 0; first < channels; first += REFERENCE_STRIP) {
            size_t strip = size_minimum(REFERENCE_STRIP, channels - first);
            double sums[REFERENCE_STRIP] = {0};
            for (size_t p = n * pixels; p < (n + 1) * pixels; p++) {
                for (size_t c = 0; c < strip; c++) {
                    sums[c] += x->data[p * channels + first + c];
                }
            }
            for (size_t c = 0; c < strip; c++) {
                call->output[n * channels + first + c] = (float)sums[c];
            }
        }
    }
}
