#include "backend/cpu/peak.h"
#include "backend/backend.h"

/* Enough independent chains to hide a multiply-add's latency on two units. */
#define CHAINS 12
#define LANES  4

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

double peak_loop_plain(size_t rounds, float *sink)
{
    lanes sums[CHAINS], factor = {0.999f, 0.998f, 0.997f, 0.996f};
    for (int c = 0; c < CHAINS; c++) {
        sums[c] = factor * (float)c;
    }
    for (size_t r = 0; r < rounds; r++) {
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = sums[c] * factor + factor;
        }
    }
    for (int c = 0; c < CHAINS; c++) {
        *sink += sums[c][0];
    }
    return 2.0 * CHAINS * LANES * (double)rounds;
}

typedef struct peak_run {
    peak_loop loop;
    double operations[64];
} peak_run;

#define PEAK_ROUNDS ((size_t)1 << 22)

static void run_loop(void *context, size_t index, unsigned worker)
{
    peak_run *run = context;
    float sink = (float)worker;
    run->operations[index] = run->loop(PEAK_ROUNDS, &sink);
    /* A use that cannot happen keeps `sink` alive: the chains stay below 1000. */
    if (sink > 1e9f) {
        run->operations[index] = 0;
    }
}

static peak_loop choose_loop(cpu_level level)
{
#if defined(__x86_64__)
    if (level >= CPU_LEVEL_AVX512) {
        return peak_loop_avx512;
    }
    if (level >= CPU_LEVEL_AVX2) {
        return peak_loop_avx2;
    }
#elif defined(__aarch64__)
    if (level == CPU_LEVEL_NEON) {
        return peak_loop_neon;
    }
#else
    (void)level;
#endif
    return peak_loop_plain;
}

double backend_cpu_peak(const backend *b)
{
    unsigned threads = thread_pool_size(b->pool);
    peak_run run = {.loop = choose_loop(b->level)};
    size_t count = size_minimum(threads, sizeof run.operations / sizeof *run.operations);
    double best = 0;
    for (int attempt = 0; attempt < 5; attempt++) {
        double start = monotonic_seconds(), operations = 0;
        thread_pool_run(b->pool, count, run_loop, &run);
        double seconds = monotonic_seconds() - start;
        for (size_t i = 0; i < count; i++) {
            operations += run.operations[i];
        }
        best = operations / seconds > best ? operations / seconds : best;
    }
    return best;
}
