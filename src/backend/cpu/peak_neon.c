#include "backend/cpu/peak.h"

#include <arm_neon.h>

double peak_loop_neon(size_t rounds, float *sink)
{
    enum { CHAINS = 24 };
    float32x4_t sums[CHAINS], factor = vdupq_n_f32(0.999f);
    for (int c = 0; c < CHAINS; c++) {
        sums[c] = vdupq_n_f32((float)c);
    }
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = vfmaq_f32(factor, sums[c], factor);
        }
    }
    for (int c = 0; c < CHAINS; c++) {
        *sink += vgetq_lane_f32(sums[c], 0);
    }
    return 2.0 * CHAINS * 4 * (double)rounds;
}
