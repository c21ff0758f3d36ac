#include "backend/cpu/peak.h"

#include "backend/backend.h"
#include "backend/cpu/tensor_kernels.h"

enum { THREADS_MOST = 64, ATTEMPTS = 5 };

#define ROUNDS ((size_t)1 << 22)

typedef struct peak_run {
    const tensor_kernels *kernels;
    double operations[THREADS_MOST];
} peak_run;

static void peak_task(void *context, size_t index, unsigned worker)
{
    peak_run *run = context;
    float sink = (float)worker;
    run->operations[index] = run->kernels->multiply_adds(ROUNDS, &sink);
    /* A use that cannot happen keeps `sink` alive: the chains stay below 1000. */
    if (sink > 1e9f) {
        run->operations[index] = 0;
    }
}

double cpu_peak(thread_pool *pool, cpu_level level)
{
    peak_run run = {.kernels = tensor_kernels_find(level)};
    const size_t threads = size_minimum(thread_pool_size(pool), THREADS_MOST);
    double best = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        const double start = monotonic_seconds();
        thread_pool_run(pool, threads, peak_task, &run);
        const double seconds = monotonic_seconds() - start;
        double operations = 0;
        for (size_t i = 0; i < threads; i++) {
            operations += run.operations[i];
        }
        best = operations / seconds > best ? operations / seconds : best;
    }
    return best;
}

double backend_cpu_peak(const backend *b)
{
    return cpu_peak(b->pool, b->level);
}
