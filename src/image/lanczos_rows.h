/* The inner loops of the Lanczos resize. */
#ifndef ONESTEP_IMAGE_LANCZOS_ROWS_H
#define ONESTEP_IMAGE_LANCZOS_ROWS_H

#include <stddef.h>
#include <stdint.h>

#define LANCZOS_SUPPORT 3.0
#define LANCZOS_BITS    22 /* fraction bits of a weight: 32 less 8 of a byte less 2 of headroom */

/* One row of RGB: output pixel x is the sum of `count[x]` input pixels from `first[x]` on, weighted
 * with weights[x * taps ...]. */
void lanczos_row_horizontal(uint8_t *to, const uint8_t *from, const uint32_t *first,
                            const uint32_t *count, const int32_t *weights, size_t taps,
                            size_t width);

/* One row of `size` bytes: the sum of `count` rows, `stride` bytes apart, each with its weight. */
void lanczos_row_vertical(uint8_t *to, const uint8_t *from, size_t stride, const int32_t *weights,
                          size_t count, size_t size);

#endif
