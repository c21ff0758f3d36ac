/* Winograd's convolution: private to the convolution files.
 *
 * The picture is cut into tiles of outputs, and the tiles into parts (rectangles of tiles of
 * one image). A group of parts is transformed into shared scratch [point][tile][channel], weights
 * are transformed into shared scratch too [weight][panel][channel][column], and tasks multiply a
 * block of tiles with a few panels for all products and transform the sums back. Weights are packed
 * untransformed: all of them are transformed once where many groups use them, in blocks of output
 * channels where there is one group, and by the tasks themselves, a few channels at a time, where
 * the picture is so small that a task takes all of its tiles. While a group or block is multiplied,
 * the next one is transformed.
 *
 * Where parts are many and the transformed weights stay in L3, no thread waits for others: each
 * takes a part "alone", transforms it into memory of its own and multiplies it there. */
#ifndef ONESTEP_BACKEND_CPU_WINOGRAD_H
#define ONESTEP_BACKEND_CPU_WINOGRAD_H

#include "backend/cpu/conv_kernels.h"

enum { WINOGRAD_PRODUCTS = WINOGRAD_SIDE_PRODUCTS * WINOGRAD_SIDE_PRODUCTS }; /* most */

typedef struct winograd_layout {
    winograd_variant variant;
    bool integers;                    /* 16-bit products */
    size_t value_bytes;               /* of a transformed input or weight */
    winograd_sizes down, across;      /* of the two sides of a tile */
    size_t points, weights, products; /* of both sides */
    uint8_t point_of_product[WINOGRAD_PRODUCTS], weight_of_product[WINOGRAD_PRODUCTS];
    size_t channels, outputs, panel_columns, panels;
    size_t panel_values;         /* of one packed panel */
    size_t panel_scales;         /* of integers: of its transformed weights */
    size_t padded_channels;      /* to whole vectors */
    size_t weight_channels;      /* to whole pairs of integers */
    size_t step_channels, steps; /* of the summation */
    bool duplicate;              /* inputs are upsampled before the transform (odd sizes) */
    size_t tiles_down, tiles_across;
    size_t part_rows, part_columns, part_tiles, parts_down, parts_across; /* in tiles */
    size_t join;                    /* images a task, when they are small */
    size_t task_tiles;              /* tiles a task: of one part, or of images it joins */
    size_t units;                   /* parts of all images */
    size_t group, supers;           /* parts transformed at once; how many such groups */
    size_t super_tiles;             /* tiles of a group, at most */
    size_t chunk;                   /* channels an input task transforms at once */
    size_t segment_tiles, segments; /* tiles across of an input task */
    bool alone;         /* a thread takes a part from its inputs to its outputs by itself */
    bool fused;         /* tasks transform the weights they need themselves, a step at a time */
    size_t task_panels; /* panels a task */
    size_t weight_panels, weight_blocks; /* panels transformed at once; how many such blocks */
    size_t input_tile_stride, input_point_stride; /* of the transformed input, values */
    size_t fused_weight_stride;  /* of the weights a task transforms itself, values */
    size_t shared_weight_stride; /* of the transformed weights, values */
    size_t sums_tile_stride, sums_product_stride; /* of a task's sums, floats */
    size_t row_floats;                            /* of a prepared row of inputs */
    size_t input_value_bytes;                     /* scales of transformed integers follow */
    size_t input_bytes, weight_bytes, worker_bytes;
    size_t input_buffers, weight_buffers; /* 2 where the next is made while this is used */
} winograd_layout;

enum { WINOGRAD_LINE_BYTES = 64 }; /* a cache line */

static inline size_t winograd_divide_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* An odd number of cache lines, so that neighbours do not share cache sets. */
static inline size_t winograd_odd_lines(size_t floats)
{
    const size_t lines = winograd_divide_up(floats, (WINOGRAD_LINE_BYTES / sizeof(float)));
    return (lines + (lines % 2 == 0)) * (WINOGRAD_LINE_BYTES / sizeof(float));
}

/* The same for values of some size. */
static inline size_t winograd_odd_line_values(size_t values, size_t value_bytes)
{
    const size_t lines = winograd_divide_up(values * value_bytes, WINOGRAD_LINE_BYTES);
    return (lines + (lines % 2 == 0)) * WINOGRAD_LINE_BYTES / value_bytes;
}

/* Packed integers are followed by a scale an output, and these by the scales of the transformed
 * weights [panel][weight][column]. winograd_pack writes both, all others read. */
static inline float *winograd_output_scales(const winograd_layout *l, const void *packed)
{
    return (float *)(void *)((int16_t *)packed + l->panels * l->panel_values);
}

/* NULL for floats. */
static inline float *winograd_panel_scales(const winograd_layout *l, const void *packed,
                                           size_t panel)
{
    return !l->integers ? NULL
                        : winograd_output_scales(l, packed) + l->panels * l->panel_columns +
                              panel * l->panel_scales;
}

/* Tasks that the tiles of some parts make. */
static inline size_t winograd_tile_tasks(const winograd_layout *l, size_t units)
{
    return winograd_divide_up(units, l->join);
}

/* False when the algorithm cannot do the shape or sizes overflow. */
bool winograd_plan(winograd_layout *layout, const conv_plan *plan,
                   const conv_kernels *kernels) MUST_USE;
bool winograd_packed_bytes(const winograd_layout *layout, size_t *bytes) MUST_USE;
size_t winograd_scratch_bytes(const winograd_layout *layout, unsigned threads);
void winograd_pack(const winograd_layout *layout, const conv_kernels *kernels, void *packed,
                   const float *weights, size_t first, size_t count);
void winograd_run(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
                  thread_pool *pool, const conv_kernels *kernels);

#endif
