/* Halves to floats with F16C. */
#include "base/base.h"
#include "base/element_type.h"

#include <immintrin.h>
#include <string.h>

void convert_half_avx2(float *destination, const uint8_t *source, size_t count)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)(source + 2 * i));
        _mm256_storeu_ps(destination + i, _mm256_cvtph_ps(halves));
    }
    for (; i < count; ++i) {
        uint16_t half;
        memcpy(&half, source + 2 * i, sizeof half);
        destination[i] = _cvtsh_ss(half);
    }
}
