/* The inner loops of the Lanczos resize, in plain C that compilers vectorise.
 *
 * Sums are kept as unsigned, where wrapping is defined; they cannot wrap in fact: the weights of a
 * pixel add up to 1, the negative ones to no less than -0.3. */
#include "image/lanczos_rows.h"

#include <string.h>

#define HALF (1u << (LANCZOS_BITS - 1))

static inline uint8_t to_byte(uint32_t sum)
{
    int32_t value = (int32_t)sum >> LANCZOS_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

void lanczos_row_horizontal(uint8_t *restrict to, const uint8_t *restrict from,
                            const uint32_t *restrict first, const uint32_t *restrict count,
                            const int32_t *restrict weights, size_t taps, size_t width)
{
    for (size_t x = 0; x < width; x++) {
        const uint8_t *pixel = from + 3 * (size_t)first[x];
        const int32_t *weight = weights + x * taps;
        size_t number = count[x];
        uint32_t red = HALF, green = HALF, blue = HALF;
        for (size_t i = 0; i < number; i++) {
            uint32_t factor = (uint32_t)weight[i];
            red += pixel[3 * i] * factor;
            green += pixel[3 * i + 1] * factor;
            blue += pixel[3 * i + 2] * factor;
        }
        to[3 * x] = to_byte(red);
        to[3 * x + 1] = to_byte(green);
        to[3 * x + 2] = to_byte(blue);
    }
}

void lanczos_row_vertical(uint8_t *restrict to, const uint8_t *restrict from, size_t stride,
                          const int32_t *restrict weights, size_t count, size_t size)
{
    enum { STRIP = 1024 };
    uint32_t sums[STRIP];
    for (size_t start = 0; start < size; start += STRIP) {
        size_t length = size - start < STRIP ? size - start : STRIP;
        for (size_t x = 0; x < length; x++) {
            sums[x] = HALF;
        }
        for (size_t row = 0; row < count; row++) {
            const uint8_t *restrict line = from + row * stride + start;
            uint32_t factor = (uint32_t)weights[row];
            for (size_t x = 0; x < length; x++) {
                sums[x] += line[x] * factor;
            }
        }
        for (size_t x = 0; x < length; x++) {
            to[start + x] = to_byte(sums[x]);
        }
    }
}
