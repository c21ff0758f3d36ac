/* Convolutions and matrix products of the cpu backend: shapes in, packed weights and tasks out.
 *
 * A linear layer is a convolution with a 1x1 kernel; a sequence of T tokens is a picture of height
 * 1 and width T. Activations are NHWC float32, or halves where a caller says so. One convolution is
 * computed in four moves:
 *
 *   conv_plan     chooses the algorithm for a shape, a CPU level and a precision
 *   conv_pack     turns OIHW float weights into the algorithm's own layout (any range of output
 *                 channels, so that packing can be threaded and streamed)
 *   conv_run      runs it on the thread pool
 *
 * Results do not depend on the number of threads, and a batch gives the bytes of its single runs.
 */
#ifndef ONESTEP_BACKEND_CPU_CONV_H
#define ONESTEP_BACKEND_CPU_CONV_H

#include "base/base.h"

typedef enum conv_algorithm {
    CONV_DIRECT,       /* implicit matrix product, no materialised im2col */
    CONV_WINOGRAD_2,   /* F(2,3) */
    CONV_WINOGRAD_4,   /* F(4,3), with stride 2 F(4,2) of every second input */
    CONV_WINOGRAD_6,   /* F(6,3) */
    CONV_WINOGRAD_8X6, /* F(8,3) down, F(6,3) across; of no upsampled input */
    CONV_WINOGRAD_8,   /* F(8,3); the same */
    CONV_ALGORITHM_COUNT
} conv_algorithm;

typedef enum conv_precision { CONV_F32, CONV_BF16, CONV_INT16 } conv_precision;

/* How a tensor of activations lies in memory. Halves need half of the memory and of its bandwidth
 * and round by 2e-4 (conv_vector.h); sums and statistics are of what was not yet rounded. */
typedef enum conv_storage {
    CONV_STORE_F32,
    CONV_STORE_F16,    /* halves of 1/64 of the value */
    CONV_STORE_ROUNDED /* of outputs: floats, rounded as CONV_STORE_F16 would */
} conv_storage;

static inline size_t conv_storage_bytes(conv_storage storage)
{
    return storage == CONV_STORE_F16 ? sizeof(uint16_t) : sizeof(float);
}

/* Value `index` of stored activations; NULL of NULL. */
static inline const void *conv_stored_at(const void *values, conv_storage storage, size_t index)
{
    return values == NULL ? NULL : (const uint8_t *)values + index * conv_storage_bytes(storage);
}

typedef struct conv_shape {
    size_t batch, input_height, input_width, input_channels; /* as stored */
    size_t output_height, output_width, output_channels;
    unsigned kernel;            /* 1 or 3 (square) */
    unsigned stride;            /* 1 or 2 */
    unsigned pad_top, pad_left; /* zeros; below and right whatever the output size needs */
    bool upsample; /* the input is read as its nearest x2 upsampling, cut to output size (stride 1,
                      kernel 3, padding 1): output sizes are 2n or 2n-1 */
    bool geglu;    /* kernel 1: output channels are 2m in the weights, m in the output:
                      first half * gelu_erf(second half) */
} conv_shape;

typedef enum conv_activation { CONV_LINEAR, CONV_SILU, CONV_GELU, CONV_QUICK_GELU } conv_activation;

typedef struct conv_plan {
    conv_shape shape;
    cpu_level level;
    conv_algorithm algorithm;
    conv_precision precision;
    size_t packed_bytes;  /* of the packed weights */
    size_t step_channels; /* a step of the summation: scales of packed integers bound its sums */
    size_t scratch_bytes; /* shared scratch conv_run needs, for `threads` threads */
    unsigned threads;     /* of the pool that runs it: a pool of at most so many threads */
    double predicted_seconds; /* the cost model's estimate on this plan's threads */
} conv_plan;

/* Fills *plan for a shape. False when it cannot do the shape, when the level has no kernels of that
 * precision, or when a size overflows. */
bool conv_plan_create(conv_plan *plan, const conv_shape *shape, cpu_level level,
                      conv_precision precision, conv_algorithm algorithm,
                      unsigned threads) MUST_USE;

/* The largest algorithm allowed in each precision: larger tiles of Winograd multiply less and round
 * more. */
typedef struct conv_largest {
    conv_algorithm f32, int16;
} conv_largest;

/* The cheapest of the allowed algorithms in float32 and, when another precision is given, in that
 * one. The choice depends neither on threads nor on the batch. */
bool conv_plan_cheapest(conv_plan *plan, const conv_shape *shape, cpu_level level,
                        conv_precision precision, conv_largest largest, unsigned threads) MUST_USE;

/* Packs weights [output_channels][input_channels][kernel][kernel] (float32; for geglu both halves)
 * into `packed` (64-byte aligned, plan->packed_bytes). `weights` holds output channels
 * first..first+count-1 only; first is a multiple of conv_pack_granularity (and so is count, but for
 * the last block). Safe to call for different blocks at the same time. Every byte that conv_run
 * reads is written once all blocks are packed. */
size_t conv_pack_granularity(const conv_plan *plan);
void conv_pack(const conv_plan *plan, void *packed, const float *weights, size_t first,
               size_t count);

/* y = conv(prologue(x)); y += bias[c] + image_bias[n][c]; y = activation(y);
 * y = output_scale * y + residual_scale * residual. Strides are values between pixels; nothing is
 * read or written between the channels of one pixel and the next. Pointers need the alignment of a
 * value only. */
typedef struct conv_arguments {
    const void *input;
    conv_storage input_storage;
    size_t input_stride; /* >= input_channels */
    const void *packed;
    /* GroupNorm folded into the input: x -> x * scale[n][c] + shift[n][c], then SiLU when asked.
     * Zero padding stays zero (it pads the normalised tensor). NULL: none. */
    const float *input_scale, *input_shift;
    bool input_silu;
    const float *bias;       /* [output_channels] or NULL (geglu: both halves) */
    const float *image_bias; /* [batch][output_channels] or NULL: the time embedding */
    conv_activation activation;
    float output_scale;
    const void *residual; /* output shape, or NULL; may be `output` itself, stored alike */
    conv_storage residual_storage;
    size_t residual_stride;
    float residual_scale;
    void *output;
    conv_storage output_storage;
    size_t output_stride;
    /* Sums of y and y*y over blocks of pixels for the GroupNorm that follows, or NULL:
     * [batch][conv_statistics_blocks][2][output_channels]; adding the blocks in index order gives
     * the channel's sums. */
    float *statistics;
} conv_arguments;

size_t conv_statistics_blocks(const conv_plan *plan); /* an image; the same for every batch */

/* `scratch`: plan->scratch_bytes, 64-byte aligned, of any content. */
void conv_run(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
              thread_pool *pool);

#endif
