#include "backend/cpu/peak.h"

#include <immintrin.h>

double peak_loop_avx2(size_t rounds, float *sink)
{
    enum { CHAINS = 12 };
    __m256 sums[CHAINS], factor = _mm256_set1_ps(0.999f);
    for (int c = 0; c < CHAINS; c++) {
        sums[c] = _mm256_set1_ps((float)c);
    }
    for (size_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = _mm256_fmadd_ps(sums[c], factor, factor);
        }
    }
    for (int c = 0; c < CHAINS; c++) {
        *sink += _mm256_cvtss_f32(sums[c]);
    }
    return 2.0 * CHAINS * 8 * (double)rounds;
}
