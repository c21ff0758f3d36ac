#include "backend/cpu/conv.h"

#include "backend/cpu/conv_cost.h"
#include "backend/cpu/conv_direct.h"
#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/winograd.h"

const conv_kernels *conv_kernels_find(cpu_level level)
{
    static const conv_kernels *const tables[] = {
#define CONV_KERNELS(name, level, family) KERNELS_##family(&conv_kernels_##name, )
#include "backend/cpu/conv_kernels.def"
#undef CONV_KERNELS
    };
    const conv_kernels *best = tables[0];
    for (size_t i = 1; i < sizeof tables / sizeof tables[0]; i++) {
        if (tables[i]->level <= level && tables[i]->level > best->level) {
            best = tables[i];
        }
    }
    return best;
}

size_t conv_step_channels(size_t channels, size_t most)
{
    enum { LINE_FLOATS = 16 };
    const size_t steps = (channels + most - 1) / most;
    return steps == 1 ? channels : size_round_up((channels + steps - 1) / steps, LINE_FLOATS);
}

static bool shape_is_sound(const conv_shape *shape)
{
    if (shape->batch == 0 || shape->input_height == 0 || shape->input_width == 0 ||
        shape->input_channels == 0 || shape->output_height == 0 || shape->output_width == 0 ||
        shape->output_channels == 0) {
        return false;
    }
    if ((shape->kernel != 1 && shape->kernel != 3) || (shape->stride != 1 && shape->stride != 2) ||
        shape->pad_top >= shape->kernel || shape->pad_left >= shape->kernel) {
        return false;
    }
    if (shape->geglu && shape->kernel != 1) {
        return false;
    }
    if (shape->upsample) {
        const size_t height = shape->input_height;
        const size_t width = shape->input_width;
        return shape->kernel == 3 && shape->stride == 1 && shape->pad_top == 1 &&
               shape->pad_left == 1 && height <= SIZE_MAX / 2 && width <= SIZE_MAX / 2 &&
               shape->output_height >= 2 * height - 1 && shape->output_height <= 2 * height &&
               shape->output_width >= 2 * width - 1 && shape->output_width <= 2 * width;
    }
    return true;
}

/* Pixel indices are 32 bits. */
static bool shape_is_indexable(const conv_shape *shape)
{
    size_t pixels;
    return size_multiply(shape->output_height, shape->output_width, &pixels) &&
           pixels < UINT32_MAX && size_multiply(shape->input_height, shape->input_width, &pixels) &&
           pixels < UINT32_MAX && size_multiply(shape->batch, pixels, &pixels);
}

static bool plan_direct(conv_plan *plan, const conv_kernels *kernels)
{
    conv_direct_layout layout;
    if (!conv_direct_plan(&layout, plan, kernels) ||
        !conv_direct_packed_bytes(&layout, &plan->packed_bytes) ||
        !size_multiply(layout.worker_bytes, plan->threads, &plan->scratch_bytes) ||
        !size_add(plan->scratch_bytes, layout.shared_bytes, &plan->scratch_bytes)) {
        return false;
    }
    plan->step_channels = layout.block_channels;
    plan->predicted_seconds = conv_direct_seconds(&layout, &plan->shape, kernels, plan->threads);
    return true;
}

static bool plan_winograd(conv_plan *plan, const conv_kernels *kernels)
{
    winograd_layout layout;
    if (!winograd_plan(&layout, plan, kernels) ||
        !winograd_packed_bytes(&layout, &plan->packed_bytes)) {
        return false;
    }
    plan->step_channels = layout.step_channels;
    plan->scratch_bytes = winograd_scratch_bytes(&layout, plan->threads);
    plan->predicted_seconds = winograd_seconds(&layout, &plan->shape, kernels, plan->threads);
    return true;
}

bool conv_plan_create(conv_plan *plan, const conv_shape *shape, cpu_level level,
                      conv_precision precision, conv_algorithm algorithm, unsigned threads)
{
    if (!shape_is_sound(shape) || !shape_is_indexable(shape) || threads == 0) {
        return false;
    }
    *plan = (conv_plan){
        .shape = *shape,
        .level = level,
        .algorithm = algorithm,
        .precision = precision,
        .threads = threads,
    };
    const conv_kernels *kernels = conv_kernels_find(level);
    return algorithm == CONV_DIRECT ? plan_direct(plan, kernels) : plan_winograd(plan, kernels);
}

/* Errors of integers grow threefold from F(2,3) to F(4,3): that must be worth it. F(4,2) has half
 * of F(4,3)'s. */
#define LARGE_TILE_PRICE 1.15

/* What a plan costs where errors count too. */
static double weighed_seconds(const conv_plan *plan)
{
    const bool large = plan->precision == CONV_INT16 && plan->shape.stride == 1 &&
                       plan->algorithm >= CONV_WINOGRAD_4;
    return plan->predicted_seconds * (large ? LARGE_TILE_PRICE : 1.0);
}

bool conv_plan_cheapest(conv_plan *plan, const conv_shape *shape, cpu_level level,
                        conv_precision precision, conv_largest largest, unsigned threads)
{
    /* Algorithms round differently, so all are compared for one picture on one thread. */
    conv_shape single = *shape;
    single.batch = 1;
    const conv_precision precisions[] = {CONV_F32, precision};
    conv_plan best = {0};
    bool found = false;
    for (size_t p = 0; p < (precision == CONV_F32 ? 1 : 2); p++) {
        const conv_algorithm last = precisions[p] == CONV_F32 ? largest.f32 : largest.int16;
        for (conv_algorithm each = CONV_DIRECT; each <= last; each++) {
            conv_plan candidate;
            if (conv_plan_create(&candidate, &single, level, precisions[p], each, 1) &&
                (!found || weighed_seconds(&candidate) < weighed_seconds(&best))) {
                best = candidate;
                found = true;
            }
        }
    }
    return found && conv_plan_create(plan, shape, level, best.precision, best.algorithm, threads);
}

size_t conv_pack_granularity(const conv_plan *plan)
{
    const size_t columns = conv_kernels_find(plan->level)->columns;
    /* Gates that begin within a panel would be cut by its borders: such a layer comes as a whole.
     */
    const bool cut = plan->shape.geglu && plan->shape.output_channels % columns != 0;
    return cut ? 2 * plan->shape.output_channels : columns;
}

void conv_pack(const conv_plan *plan, void *packed, const float *weights, size_t first,
               size_t count)
{
    conv_pack_kernels(plan, packed, weights, first, count, conv_kernels_find(plan->level));
}

void conv_pack_kernels(const conv_plan *plan, void *packed, const float *weights, size_t first,
                       size_t count, const conv_kernels *kernels)
{
    if (plan->algorithm == CONV_DIRECT) {
        conv_direct_layout layout;
        if (conv_direct_plan(&layout, plan, kernels)) {
            conv_direct_pack(&layout, &plan->shape, kernels, packed, weights, first, count);
        }
    } else {
        winograd_layout layout;
        if (winograd_plan(&layout, plan, kernels)) {
            winograd_pack(&layout, kernels, packed, weights, first, count);
        }
    }
}

size_t conv_statistics_blocks(const conv_plan *plan)
{
    const conv_kernels *kernels = conv_kernels_find(plan->level);
    if (plan->algorithm == CONV_DIRECT) {
        conv_direct_layout layout;
        return conv_direct_plan(&layout, plan, kernels) ? layout.tiles_down * layout.tiles_across
                                                        : 0;
    }
    winograd_layout layout;
    return winograd_plan(&layout, plan, kernels) ? layout.parts_down * layout.parts_across : 0;
}

void conv_run(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
              thread_pool *pool)
{
    conv_run_kernels(plan, arguments, scratch, pool, conv_kernels_find(plan->level));
}

void conv_run_kernels(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
                      thread_pool *pool, const conv_kernels *kernels)
{
    if (plan->algorithm == CONV_DIRECT) {
        conv_direct_run(plan, arguments, scratch, pool, kernels);
    } else {
        winograd_run(plan, arguments, scratch, pool, kernels);
    }
}
