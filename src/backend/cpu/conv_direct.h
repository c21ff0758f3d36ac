/* Convolution as an implicit matrix product: private to the convolution files. */
#ifndef ONESTEP_BACKEND_CPU_CONV_DIRECT_H
#define ONESTEP_BACKEND_CPU_CONV_DIRECT_H

#include "backend/cpu/conv_kernels.h"

/* Everything that follows from a plan. Output pixels are cut into tiles (rectangles of one image,
 * or several whole images when they are small), output channels into splits; a task computes one
 * split of one tile. The order in which a value is summed depends on the block of channels only. */
typedef struct conv_direct_layout {
    size_t channels, outputs; /* of the weights: for geglu, twice the channels of the output */
    size_t panel_columns, panels;
    size_t taps;
    size_t block_channels, blocks; /* input channels a step of the summation */
    bool gathered;                 /* few channels: a row holds all taps, in one step */
    bool pairs;                    /* 16-bit products: of bfloat16, or of integers with scales */
    bool bfloat16;
    bool flat;              /* a 1x1 convolution of stride 1: the picture is seen as one long row */
    size_t weight_channels; /* to whole pairs */
    size_t value_bytes;     /* of a packed weight */
    size_t panel_values;    /* of one packed panel, all blocks */
    /* Output pictures as computed. */
    size_t height, width, input_width;
    size_t virtual_height, virtual_width; /* of the input, upsampled when asked */
    size_t tile_height, tile_width, tiles_down, tiles_across;
    size_t group; /* images a tile */
    size_t groups;
    size_t split_panels, splits;
    size_t patch_height, patch_width, patch_stride; /* inputs of a tile; floats between pixels */
    size_t tile_rows;                               /* output pixels of a full tile */
    size_t pair_stride; /* of a patch of 16-bit numbers, values between pixels */
    /* Bytes of a worker's scratch. */
    size_t patch_bytes, gather_bytes, pair_bytes, scales_bytes, sums_bytes, index_bytes,
        worker_bytes;
    /* Where several splits of a flat layer read 16-bit inputs that are not too many, these are made
     * once: bytes behind the workers' scratch, one after another for each tile and block. Else 0.
     */
    size_t shared_bytes;
} conv_direct_layout;

/* False when it cannot do the shape in the plan's precision or sizes overflow. */
bool conv_direct_plan(conv_direct_layout *layout, const conv_plan *plan,
                      const conv_kernels *kernels) MUST_USE;
bool conv_direct_packed_bytes(const conv_direct_layout *layout, size_t *bytes) MUST_USE;
void conv_direct_pack(const conv_direct_layout *layout, const conv_shape *shape,
                      const conv_kernels *kernels, void *packed, const float *weights, size_t first,
                      size_t count);
void conv_direct_run(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
                     thread_pool *pool, const conv_kernels *kernels);

#endif
