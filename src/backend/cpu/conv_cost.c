#include "backend/cpu/conv_cost.h"

/* Of a product: from so many on a part of a register tile is as fast as a whole one. */
enum { FULL_RATE_ROWS = 4 };

/* Rates of one core, measured with bench/conv_bench: on AMD Zen 3 for AVX2, on Zen 4 for AVX-512
 * (whose units are as wide as AVX2's there, so that floats gain little). Only ratios matter for the
 * choice of an algorithm. */
typedef struct cost_rates {
    double product;  /* multiply-adds a second in the matrix kernel */
    double prologue; /* seconds an input that is normalised */
    double input;    /* seconds a transformed input value */
    double output;   /* seconds a sum that is transformed back */
    double epilogue; /* seconds an output */
    double weight;   /* seconds a transformed weight */
    double load;     /* seconds a byte of packed weights */
    double phase;    /* seconds a loop on the thread pool */
} cost_rates;

static cost_rates rates_of(const conv_kernels *kernels, bool integers)
{
    cost_rates rates = {
        .product = 45e9,
        .prologue = 0.35e-9,
        .input = 0.18e-9,
        .output = 0.12e-9,
        .epilogue = 0.30e-9,
        .weight = 0.20e-9,
        .load = 0.08e-9,
        .phase = 5e-6,
    };
    if (integers) {
        rates.product *= kernels->level == CPU_LEVEL_AVX_VNNI ? 1.9 : 1.55;
        rates.input *= 1.5;
        rates.weight *= 0.8;
        rates.load /= 2;
    }
    if (kernels->level >= CPU_LEVEL_AVX512) {
        const bool vnni = kernels->level >= CPU_LEVEL_AVX512_VNNI;
        rates.product = !integers ? 53e9 : vnni ? 102e9 : 87e9;
    } else if (kernels->level < CPU_LEVEL_AVX2) {
        /* Vectors half as wide as AVX2's; the compiler's have no multiply-add besides. */
        const bool neon = kernels->level == CPU_LEVEL_NEON;
        rates.product /= neon ? 2 : 4;
        rates.prologue *= neon ? 2 : 3;
        rates.input *= 2;
        rates.output *= 2;
        rates.epilogue *= 2;
        rates.weight *= 2;
    }
    return rates;
}

double conv_direct_seconds(const conv_direct_layout *l, const conv_shape *shape,
                           const conv_kernels *kernels, unsigned threads)
{
    const cost_rates rates = rates_of(kernels, l->pairs);
    const double columns = (double)(l->panels * l->panel_columns);
    const double pixels = (double)shape->batch * (double)l->height * (double)l->width;
    const double depth = (double)l->channels * (double)l->taps;
    const double tiles = (double)l->groups * (double)(l->tiles_down * l->tiles_across);
    const double patches = tiles * (double)(l->patch_height * l->patch_width * l->group) *
                           (double)l->channels * (l->shared_bytes ? 1 : (double)l->splits);
    const double seconds = pixels * columns * depth / rates.product + patches * rates.prologue +
                           pixels * columns * rates.epilogue + columns * depth * 4 * rates.load;
    return seconds / threads + rates.phase * (l->shared_bytes ? 2 : 1);
}

double winograd_seconds(const winograd_layout *l, const conv_shape *shape,
                        const conv_kernels *kernels, unsigned threads)
{
    cost_rates rates = rates_of(kernels, l->integers);
    /* Short sums, and operands from L2 and L3. */
    if (kernels->level >= CPU_LEVEL_AVX512) {
        rates.product *= !l->integers ? 0.85 : l->products > 16 ? 0.8 : 0.9;
    } else if (l->integers && l->products > 36) {
        rates.product *= 0.9;
    }
    if (!l->integers && l->products > 36) {
        rates.product *= 0.93; /* the sums of a task leave L2 */
    }
    if (!l->fused) {
        rates.weight *= 2; /* written to L3 or memory */
    } else {
        rates.load /= 2; /* fetched during the products */
    }
    const double columns = (double)(l->panels * l->panel_columns);
    const double tiles = (double)shape->batch * (double)l->tiles_down * (double)l->tiles_across;
    const double products = (double)l->products;
    const double points = (double)l->points;
    const double channels = (double)l->channels;
    const double task = (double)l->task_tiles;
    const double full = (double)size_round_up(l->task_tiles, FULL_RATE_ROWS);
    const double outputs = tiles * (double)(l->down.outputs * l->across.outputs) * columns;
    const double inputs = tiles * (double)(l->down.step * l->across.step) * channels;
    const double weights = columns * channels * (double)l->weights;
    const double seconds = tiles * full / task * products * channels * columns / rates.product +
                           inputs * rates.prologue + tiles * points * channels * rates.input +
                           tiles * products * columns * rates.output + outputs * rates.epilogue +
                           weights * rates.weight + columns * channels * 36 * rates.load;
    const size_t phases = l->alone ? 2 : 1 + l->supers * l->weight_blocks;
    return seconds / threads + rates.phase * (double)phases;
}
