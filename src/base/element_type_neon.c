/* Halves to floats with NEON. */
#include "base/base.h"
#include "base/element_type.h"

#include <arm_neon.h>
#include <string.h>

void convert_half_neon(float *destination, const uint8_t *source, size_t count)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const uint16x8_t halves = vreinterpretq_u16_u8(vld1q_u8(source + 2 * i));
        vst1q_f32(destination + i, vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(halves))));
        vst1q_f32(destination + i + 4, vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(halves))));
    }
    for (; i < count; ++i) {
        uint16_t half;
        memcpy(&half, source + 2 * i, sizeof half);
        destination[i] = half_to_float(half);
    }
}
