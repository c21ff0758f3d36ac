#include "backend/cpu/winograd.h"

#include <string.h>

enum { TAPS = 9 };

/* One loop on the pool: products of one part and block of weights, and the transforms of what
 * comes next. */
typedef struct winograd_phase {
    size_t product_tasks, weight_tasks, input_tasks;
    size_t product_super, product_block; /* what is multiplied */
    size_t weight_block, input_super;    /* what is transformed */
    const uint8_t *inputs, *weights;     /* transformed, to multiply */
    uint8_t *next_inputs, *next_weights;
} winograd_phase;

typedef struct winograd_context {
    const conv_plan *plan;
    const conv_arguments *arguments;
    const conv_kernels *kernels;
    winograd_layout layout;
    uint8_t *workers;
    winograd_phase phase;
} winograd_context;

/* A part of an image: a rectangle of tiles. */
typedef struct winograd_unit {
    size_t image, part;
    size_t top, left, rows, columns; /* in tiles */
} winograd_unit;

static winograd_unit unit_at(const winograd_layout *l, size_t index)
{
    const size_t parts = l->parts_down * l->parts_across;
    winograd_unit unit = {.image = index / parts, .part = index % parts};
    unit.top = unit.part / l->parts_across * l->part_rows;
    unit.left = unit.part % l->parts_across * l->part_columns;
    unit.rows = size_minimum(l->part_rows, l->tiles_down - unit.top);
    unit.columns = size_minimum(l->part_columns, l->tiles_across - unit.left);
    return unit;
}

static size_t units_of(const winograd_layout *l, size_t super)
{
    return size_minimum(l->group, l->units - super * l->group);
}

static size_t panels_of(const winograd_layout *l, size_t block)
{
    return size_minimum(l->weight_panels, l->panels - block * l->weight_panels);
}

/* Transformed weights in memory: of all channels, or of one step. */
typedef struct winograd_view {
    uint8_t *values;
    size_t weight_stride, panel_stride, step_stride; /* values */
    const float *scales;                             /* of integers: packed ones */
    /* Packed weights that will be transformed next, to be fetched meanwhile: `ahead_panels` runs,
     * one a panel, in pieces of what the kernel fetches during a product. NULL: none. */
    const uint8_t *ahead;
    size_t ahead_panels, ahead_piece; /* the second in bytes */
} winograd_view;

/* The shared weights of a block. */
static winograd_view shared_view(const winograd_layout *l, const uint8_t *values)
{
    return (winograd_view){
        .values = (uint8_t *)values,
        .weight_stride = l->shared_weight_stride,
        .panel_stride = l->weight_channels * l->panel_columns,
        .step_stride = l->step_channels * l->panel_columns,
    };
}

/* The weights of one step in a task's own memory. */
static winograd_view fused_view(const winograd_layout *l, float *memory)
{
    return (winograd_view){
        .values = (uint8_t *)memory,
        .weight_stride = l->fused_weight_stride,
        .panel_stride = size_round_up(l->step_channels, 2) * l->panel_columns,
    };
}

/* Where channel `channel` of a panel begins among the packed values. */
static size_t packed_begin(const winograd_layout *l, size_t panel, size_t channel)
{
    return panel * l->panel_values + channel * TAPS * l->panel_columns;
}

/* Transforms channels first..first+count-1 of a packed panel into panel `index` of the view. */
static void transform_panel(const winograd_context *context, const winograd_view *view,
                            size_t panel, size_t index, size_t first, size_t count)
{
    const winograd_layout *l = &context->layout;
    const size_t columns = l->panel_columns;
    const void *packed = context->arguments->packed;
    const size_t begin = packed_begin(l, panel, first);
    if (l->integers) {
        const winograd_weights_int16 task = {
            .variant = l->variant,
            .weights = (const int16_t *)packed + begin,
            .output_scales = winograd_output_scales(l, packed) + panel * columns,
            .channels = count,
            .columns = columns,
            .output = (int16_t *)(void *)view->values + index * view->panel_stride,
            .output_weight_stride = view->weight_stride,
            .scales = winograd_panel_scales(l, packed, panel),
        };
        context->kernels->winograd_weights_int16(&task);
        return;
    }
    const winograd_weights task = {
        .variant = l->variant,
        .weights = (const float *)packed + begin,
        .channels = count,
        .columns = columns,
        .output = (float *)(void *)view->values + index * view->panel_stride,
        .output_weight_stride = view->weight_stride,
    };
    context->kernels->winograd_weights(&task);
}

static void weight_task(const winograd_context *context, size_t index)
{
    const winograd_layout *l = &context->layout;
    const winograd_phase *phase = &context->phase;
    const winograd_view view = shared_view(l, phase->next_weights);
    transform_panel(context, &view, phase->weight_block * l->weight_panels + index, index, 0,
                    l->channels);
}

/* One row of `pixels` inputs from (y, x) of the (upsampled, when rows are duplicated) picture on,
 * zero outside; channels first..first+count-1, padded with zeros to the chunk. */
static void prepare_row(const winograd_context *context, size_t image, long y, long x,
                        size_t pixels, size_t first, size_t count, float *row)
{
    const winograd_layout *l = &context->layout;
    const conv_shape *shape = &context->plan->shape;
    const conv_arguments *arguments = context->arguments;
    const size_t shift = l->duplicate ? 1 : 0;
    const long height = (long)(l->duplicate ? shape->output_height : shape->input_height);
    const long width = (long)(l->duplicate ? shape->output_width : shape->input_width);
    const size_t chunk = l->chunk;
    if (y < 0 || y >= height) {
        memset(row, 0, pixels * chunk * sizeof(float));
        return;
    }
    const size_t begin = x >= 0 ? 0 : size_minimum(pixels, (size_t)-x);
    size_t end = width <= x ? begin : size_minimum(pixels, (size_t)(width - x));
    end = size_maximum(begin, end);
    memset(row, 0, begin * chunk * sizeof(float));
    memset(row + end * chunk, 0, (pixels - end) * chunk * sizeof(float));
    if (count < chunk) {
        memset(row + begin * chunk, 0, (end - begin) * chunk * sizeof(float));
    }
    const size_t line = (image * shape->input_height + ((size_t)y >> shift)) * shape->input_width;
    const size_t source = line * arguments->input_stride + first;
    const conv_storage storage = arguments->input_storage;
    const size_t norm = image * shape->input_channels + first;
    conv_prologue task = {
        .storage = storage,
        .source_stride = arguments->input_stride,
        .destination_stride = chunk,
        .channels = count,
        .scale = arguments->input_scale == NULL ? NULL : arguments->input_scale + norm,
        .shift = arguments->input_shift == NULL ? NULL : arguments->input_shift + norm,
        .silu = conv_input_silu_of(context->plan, arguments),
        .ahead = shape->input_width * arguments->input_stride, /* the next row */
    };
    const size_t begin_x = (size_t)(x + (long)begin);
    if (!l->duplicate) {
        task.source =
            conv_stored_at(arguments->input, storage, source + begin_x * arguments->input_stride);
        task.destination = row + begin * chunk;
        task.pixels = end - begin;
        context->kernels->prologue(&task);
        return;
    }
    task.pixels = 1;
    for (size_t pixel = begin; pixel < end; pixel++) {
        const size_t stored = (begin_x + pixel - begin) >> 1;
        task.source =
            conv_stored_at(arguments->input, storage, source + stored * arguments->input_stride);
        task.destination = row + pixel * chunk;
        context->kernels->prologue(&task);
    }
}

/* Transforms the tiles of a prepared segment and quantises them, one at a time. */
static void quantise_tiles(const winograd_context *context, winograd_input *task, size_t tiles,
                           size_t slot, size_t step, float *memory)
{
    const winograd_layout *l = &context->layout;
    const size_t first = step * l->step_channels;
    float *scales = (float *)(void *)(context->phase.next_inputs + l->input_value_bytes);
    task->tiles = 1;
    task->output = memory;
    task->output_tile_stride = 0;
    task->output_point_stride = winograd_odd_lines(l->chunk);
    conv_quantise quantise = {
        .source = memory,
        .source_stride = task->output_point_stride,
        .rows = l->points,
        .channels = task->channels,
        .padded = task->channels,
        .destination_stride = l->input_point_stride,
        .scales_stride = l->steps * l->super_tiles,
    };
    for (size_t tile = 0; tile < tiles; tile++, slot++) {
        context->kernels->winograd_input(task);
        quantise.destination =
            (int16_t *)(void *)context->phase.next_inputs + slot * l->input_tile_stride + first;
        quantise.scales = scales + step * l->super_tiles + slot;
        context->kernels->quantise(&quantise);
        for (size_t i = 0; i < l->down.inputs; i++) {
            task->rows[i] += task->tile_step;
        }
    }
}

/* Transforms a column of tiles: one segment of all tile rows of a part, one chunk of channels. Rows
 * that two tile rows share are prepared once. */
static void input_task(const winograd_context *context, size_t index, float *memory)
{
    const winograd_layout *l = &context->layout;
    const conv_shape *shape = &context->plan->shape;
    const winograd_phase *phase = &context->phase;
    const size_t chunks = winograd_divide_up(l->channels, l->chunk);
    const size_t first = index % chunks * l->chunk; /* for integers a chunk is a step */
    const size_t segment = index / chunks % l->segments;
    const size_t position = index / chunks / l->segments; /* of the part */
    const winograd_unit unit = unit_at(l, phase->input_super * l->group + position);
    const size_t left = segment * l->segment_tiles;
    if (left >= unit.columns) {
        return;
    }
    const size_t tiles = size_minimum(l->segment_tiles, unit.columns - left);
    const size_t count = size_minimum(l->chunk, l->channels - first);
    const size_t pixels = (tiles - 1) * l->across.step + l->across.inputs;
    /* On an upsampled picture a tile begins at the low-resolution pixel before it. */
    const long x = (long)((unit.left + left) * l->across.step) - (long)shape->pad_left;
    winograd_input task = {
        .variant = l->variant,
        .pixel_stride = l->chunk,
        .tile_step = l->across.step * l->chunk,
        .tiles = tiles,
        .channels = size_minimum(l->chunk, l->padded_channels - first),
        .output_tile_stride = l->input_tile_stride,
        .output_point_stride = l->input_point_stride,
    };
    for (size_t row = 0; row < unit.rows; row++) {
        const size_t start = row == 0 ? 0 : l->down.inputs - l->down.step;
        const size_t base = row * l->down.step;
        for (size_t i = 0; i < l->down.inputs; i++) {
            float *prepared = memory + (base + i) % l->down.inputs * l->row_floats;
            task.rows[i] = prepared;
            if (i >= start) {
                const long y = (long)((unit.top + row) * l->down.step + i) - (long)shape->pad_top;
                prepare_row(context, unit.image, y, x, pixels, first, count, prepared);
            }
        }
        const size_t slot = position * l->part_tiles + row * unit.columns + left;
        if (l->integers) {
            quantise_tiles(context, &task, tiles, slot, index % chunks,
                           memory + l->down.inputs * l->row_floats);
        } else {
            task.output = (float *)(void *)phase->next_inputs + slot * l->input_tile_stride + first;
            context->kernels->winograd_input(&task);
        }
    }
}

typedef struct winograd_products {
    size_t first_tile, tiles; /* slots of the transformed input */
    size_t part;              /* of each image */
    size_t channel, channels; /* output channels */
    float *sums, *pixels;     /* worker memory */
    float *weights;           /* for those it transforms itself */
    uint32_t *indices;
} winograd_products;

/* Where a product finds the rows of a step. */
static const void *products_input(const winograd_context *context, const winograd_products *work,
                                  size_t point, size_t step)
{
    const winograd_layout *l = &context->layout;
    const size_t value = point * l->input_point_stride + work->first_tile * l->input_tile_stride +
                         step * l->step_channels;
    return context->phase.inputs + value * l->value_bytes;
}

/* Weights worth fetching during a product: packed ones that the task will transform, where its
 * transformed ones are in L2 already; else those of the next product. */
static const void *weights_ahead(const winograd_layout *l, const winograd_view *view,
                                 size_t product, size_t next, size_t next_step)
{
    if (view->ahead != NULL) {
        const size_t panel = size_minimum(product / TAPS, view->ahead_panels - 1);
        return view->ahead + panel * l->panel_values * l->value_bytes +
               product % TAPS * view->ahead_piece;
    }
    return view->values +
           (l->weight_of_product[next] * view->weight_stride + next_step * view->step_stride) *
               l->value_bytes;
}

/* Steps first..end-1 of all products; the view's panel 0 is the task's first, its step 0 is
 * `first`. */
static void multiply_floats(const winograd_context *context, const winograd_products *work,
                            const winograd_view *view, size_t panels, size_t first, size_t end)
{
    const winograd_layout *l = &context->layout;
    const float *values = (const float *)(const void *)view->values;
    conv_multiply task = {
        .a_stride = l->input_tile_stride,
        .rows = work->tiles,
        .b_stride = view->panel_stride,
        .panels = panels,
        .c_stride = l->sums_tile_stride,
        .next_a = products_input(context, work, l->point_of_product[0], first),
    };
    const size_t products = l->products;
    for (size_t product = 0; product < products; product++) {
        const size_t weight = l->weight_of_product[product];
        for (size_t step = first; step < end; step++) {
            const size_t begin = step * l->step_channels;
            task.a = task.next_a;
            task.b = values + weight * view->weight_stride + (step - first) * view->step_stride;
            task.c = work->sums + product * l->sums_product_stride;
            task.depth = size_minimum(l->step_channels, l->channels - begin);
            task.accumulate = step > 0;
            const size_t next_step = step + 1 < end ? step + 1 : first;
            const size_t next = step + 1 < end ? product : size_minimum(product + 1, products - 1);
            task.next_a = products_input(context, work, l->point_of_product[next], next_step);
            task.next_b = weights_ahead(l, view, product, next, next_step - first);
            context->kernels->multiply(&task);
        }
    }
}

static void multiply_integers(const winograd_context *context, const winograd_products *work,
                              const winograd_view *view, size_t panels, size_t first, size_t end)
{
    const winograd_layout *l = &context->layout;
    const int16_t *values = (const int16_t *)(const void *)view->values;
    const float *row_scales =
        (const float *)(const void *)(context->phase.inputs + l->input_value_bytes);
    conv_multiply_pairs task = {
        .a_stride = l->input_tile_stride,
        .rows = work->tiles,
        .b_stride = view->panel_stride,
        .panels = panels,
        .column_scales_stride = l->panel_scales,
        .c_stride = l->sums_tile_stride,
        .next_a = products_input(context, work, l->point_of_product[0], first),
    };
    const size_t products = l->products;
    for (size_t product = 0; product < products; product++) {
        const size_t point = l->point_of_product[product];
        const size_t weight = l->weight_of_product[product];
        for (size_t step = first; step < end; step++) {
            const size_t begin = step * l->step_channels;
            task.a = task.next_a;
            task.b = values + weight * view->weight_stride + (step - first) * view->step_stride;
            task.c = work->sums + product * l->sums_product_stride;
            task.pairs = winograd_divide_up(size_minimum(l->step_channels, l->channels - begin), 2);
            task.accumulate = step > 0;
            task.row_scales =
                row_scales + (point * l->steps + step) * l->super_tiles + work->first_tile;
            task.column_scales = view->scales + weight * l->panel_columns;
            const size_t next_step = step + 1 < end ? step + 1 : first;
            const size_t next = step + 1 < end ? product : size_minimum(product + 1, products - 1);
            task.next_a = products_input(context, work, l->point_of_product[next], next_step);
            task.next_b = weights_ahead(l, view, product, next, next_step - first);
            context->kernels->multiply_int16(&task);
        }
    }
}

static void multiply_steps(const winograd_context *context, const winograd_products *work,
                           const winograd_view *view, size_t panels, size_t first, size_t end)
{
    if (context->layout.integers) {
        multiply_integers(context, work, view, panels, first, end);
    } else {
        multiply_floats(context, work, view, panels, first, end);
    }
}

/* Has the products of a step fetch the packed weights of the next one, or, behind the last, of the
 * task that this thread is likely to take next. */
static void look_ahead(const winograd_context *context, winograd_view *view, size_t first_panel,
                       size_t step)
{
    const winograd_layout *l = &context->layout;
    const bool last = step + 1 == l->steps;
    const size_t panel = first_panel + (last ? l->task_panels * context->plan->threads : 0);
    const size_t channel = last ? 0 : (step + 1) * l->step_channels;
    const size_t count = size_minimum(l->step_channels, l->channels - channel);
    view->ahead = NULL;
    if (panel < l->panels) {
        view->ahead = (const uint8_t *)context->arguments->packed +
                      packed_begin(l, panel, channel) * l->value_bytes;
        view->ahead_panels = size_minimum(l->task_panels, l->panels - panel);
        view->ahead_piece = count * l->panel_columns * l->value_bytes;
    }
}

static void multiply_products(const winograd_context *context, const winograd_products *work,
                              size_t first_panel, size_t panels)
{
    const winograd_layout *l = &context->layout;
    const void *packed = context->arguments->packed;
    if (!l->fused) {
        winograd_view view = shared_view(l, context->phase.weights);
        view.values += first_panel * view.panel_stride * l->value_bytes;
        view.scales = winograd_panel_scales(
            l, packed, context->phase.product_block * l->weight_panels + first_panel);
        multiply_steps(context, work, &view, panels, 0, l->steps);
        return;
    }
    winograd_view view = fused_view(l, work->weights);
    view.scales = winograd_panel_scales(l, packed, first_panel);
    for (size_t step = 0; step < l->steps; step++) {
        const size_t begin = step * l->step_channels;
        const size_t count = size_minimum(l->step_channels, l->channels - begin);
        for (size_t panel = 0; panel < panels; panel++) {
            transform_panel(context, &view, first_panel + panel, panel, begin, count);
        }
        look_ahead(context, &view, first_panel, step);
        multiply_steps(context, work, &view, panels, step, step + 1);
    }
}

static float *statistics_at(const winograd_context *context, size_t image, size_t part)
{
    const winograd_layout *l = &context->layout;
    const size_t parts = l->parts_down * l->parts_across;
    return context->arguments->statistics +
           (image * parts + part) * 2 * context->plan->shape.output_channels;
}

static void clear_statistics(const winograd_context *context, const winograd_products *work,
                             size_t image)
{
    if (context->arguments->statistics != NULL) {
        float *statistics = statistics_at(context, image, work->part) + work->channel;
        memset(statistics, 0, work->channels * sizeof(float));
        memset(statistics + context->plan->shape.output_channels, 0,
               work->channels * sizeof(float));
    }
}

/* The epilogue of one tile, whose pixels have been transformed back. */
static void finish_tile(const winograd_context *context, const winograd_products *work,
                        size_t image, size_t tile_y, size_t tile_x)
{
    const winograd_layout *l = &context->layout;
    const conv_shape *shape = &context->plan->shape;
    const conv_arguments *arguments = context->arguments;
    const size_t channel = work->channel;
    const size_t top = tile_y * l->down.outputs;
    const size_t left = tile_x * l->across.outputs;
    const size_t rows = size_minimum(l->down.outputs, shape->output_height - top);
    const size_t columns = size_minimum(l->across.outputs, shape->output_width - left);
    const size_t first_pixel = image * shape->output_height * shape->output_width;
    conv_epilogue task = {
        .sums = work->pixels,
        .sums_stride = l->sums_tile_stride,
        .ahead = l->across.outputs, /* in the next tile */
        .channels = work->channels,
        .bias = arguments->bias == NULL ? NULL : arguments->bias + channel,
        .image_bias = arguments->image_bias == NULL
                          ? NULL
                          : arguments->image_bias + image * shape->output_channels + channel,
        .activation = arguments->activation,
        .output_scale = arguments->output_scale,
        .residual = conv_stored_at(arguments->residual, arguments->residual_storage,
                                   first_pixel * arguments->residual_stride + channel),
        .residual_storage = arguments->residual_storage,
        .residual_stride = arguments->residual_stride,
        .residual_scale = arguments->residual_scale,
        .output = (void *)conv_stored_at(arguments->output, arguments->output_storage,
                                         first_pixel * arguments->output_stride + channel),
        .output_storage = arguments->output_storage,
        .output_stride = arguments->output_stride,
    };
    if (arguments->statistics != NULL) {
        task.statistics_sum = statistics_at(context, image, work->part) + channel;
        task.statistics_square = task.statistics_sum + shape->output_channels;
    }
    for (size_t y = 0; y < rows; y++) {
        for (size_t x = 0; x < columns; x++) {
            work->indices[y * columns + x] = (uint32_t)((top + y) * shape->output_width + left + x);
        }
    }
    if (columns == l->across.outputs) {
        task.rows = rows * columns;
        task.pixels = work->indices;
        context->kernels->epilogue(&task);
        return;
    }
    for (size_t y = 0; y < rows; y++) {
        task.sums = work->pixels + y * l->across.outputs * l->sums_tile_stride;
        task.rows = columns;
        task.pixels = work->indices + y * columns;
        context->kernels->epilogue(&task);
    }
}

static void product_task(const winograd_context *context, size_t index, float *memory)
{
    const winograd_layout *l = &context->layout;
    const winograd_phase *phase = &context->phase;
    const size_t units = units_of(l, phase->product_super);
    const size_t tile_tasks = winograd_tile_tasks(l, units);
    /* Neighbouring tasks share weights. */
    const size_t tile_task = index % tile_tasks;
    const size_t first_panel = index / tile_tasks * l->task_panels;
    const size_t panels =
        size_minimum(l->task_panels, panels_of(l, phase->product_block) - first_panel);
    winograd_products work = {0};
    work.channel = (phase->product_block * l->weight_panels + first_panel) * l->panel_columns;
    work.channels = size_minimum(panels * l->panel_columns, l->outputs - work.channel);
    const size_t position = tile_task * l->join;
    const winograd_unit unit = unit_at(l, phase->product_super * l->group + position);
    const size_t unit_tiles = unit.rows * unit.columns;
    const size_t joined = size_minimum(l->join, units - position);
    work.part = unit.part;
    work.first_tile = position * l->part_tiles;
    work.tiles = joined * unit_tiles;
    for (size_t i = 0; i < joined; i++) {
        clear_statistics(context, &work, unit.image + i);
    }
    work.sums = memory;
    work.pixels = work.sums + l->products * l->sums_product_stride;
    const size_t pixels = l->down.outputs * l->across.outputs;
    work.indices = (uint32_t *)(void *)(work.pixels + pixels * l->sums_tile_stride);
    work.weights = (float *)(void *)(work.indices + winograd_odd_lines(pixels));
    multiply_products(context, &work, first_panel, panels);
    winograd_output task = {
        .variant = l->variant,
        .sums_product_stride = l->sums_product_stride,
        .channels = panels * l->panel_columns,
        .output = work.pixels,
        .output_stride = l->sums_tile_stride,
    };
    for (size_t i = 0; i < work.tiles; i++) {
        const size_t tile = i % unit_tiles;
        const size_t image = unit.image + i / unit_tiles;
        task.sums = work.sums + i * l->sums_tile_stride;
        context->kernels->winograd_output(&task);
        finish_tile(context, &work, image, unit.top + tile / unit.columns,
                    unit.left + tile % unit.columns);
    }
}

static void run_task(void *opaque, size_t index, unsigned worker)
{
    const winograd_context *context = opaque;
    const winograd_phase *phase = &context->phase;
    float *memory = (float *)(void *)(context->workers + worker * context->layout.worker_bytes);
    /* Products first: the small tasks even out the end. */
    if (index < phase->product_tasks) {
        product_task(context, index, memory);
    } else if (index < phase->product_tasks + phase->weight_tasks) {
        weight_task(context, index - phase->product_tasks);
    } else {
        input_task(context, index - phase->product_tasks - phase->weight_tasks, memory);
    }
}

static void run_phase(winograd_context *context, thread_pool *pool)
{
    const winograd_phase *phase = &context->phase;
    thread_pool_run(pool, phase->product_tasks + phase->weight_tasks + phase->input_tasks, run_task,
                    context);
}

static size_t count_input_tasks(const winograd_layout *l, size_t super)
{
    return units_of(l, super) * l->segments * winograd_divide_up(l->channels, l->chunk);
}

static size_t count_product_tasks(const winograd_layout *l, size_t super, size_t block)
{
    const size_t panels = panels_of(l, block);
    return winograd_tile_tasks(l, units_of(l, super)) * winograd_divide_up(panels, l->task_panels);
}

/* A part from its inputs to its outputs. */
static void alone_task(void *opaque, size_t index, unsigned worker)
{
    winograd_context context = *(const winograd_context *)opaque;
    const winograd_layout *l = &context.layout;
    uint8_t *inputs = context.workers + worker * l->worker_bytes;
    float *memory = (float *)(void *)(inputs + l->input_bytes);
    winograd_phase *phase = &context.phase; /* this thread's own */
    phase->input_super = index;
    phase->product_super = index;
    phase->next_inputs = inputs;
    phase->inputs = inputs;
    const size_t input_tasks = count_input_tasks(l, index);
    for (size_t i = 0; i < input_tasks; i++) {
        input_task(&context, i, memory);
    }
    const size_t product_tasks = count_product_tasks(l, index, 0);
    for (size_t i = 0; i < product_tasks; i++) {
        product_task(&context, i, memory);
    }
}

static void run_alone(winograd_context *context, uint8_t *scratch, thread_pool *pool)
{
    const winograd_layout *l = &context->layout;
    context->workers = scratch + l->weight_bytes;
    context->phase = (winograd_phase){
        .weight_tasks = panels_of(l, 0),
        .weights = scratch,
        .next_weights = scratch,
    };
    run_phase(context, pool);
    thread_pool_run(pool, l->units, alone_task, context);
}

static void run_together(winograd_context *context, uint8_t *scratch, thread_pool *pool)
{
    const winograd_layout *l = &context->layout;
    uint8_t *inputs[2] = {scratch, scratch + (l->input_buffers - 1) * l->input_bytes};
    uint8_t *memory = scratch + l->input_buffers * l->input_bytes;
    uint8_t *weights[2] = {memory, memory + (l->weight_buffers - 1) * l->weight_bytes};
    context->workers = memory + l->weight_buffers * l->weight_bytes;

    context->phase = (winograd_phase){
        .weight_tasks = l->fused ? 0 : panels_of(l, 0),
        .input_tasks = count_input_tasks(l, 0),
        .next_inputs = inputs[0],
        .next_weights = weights[0],
    };
    run_phase(context, pool);
    size_t turn = 0; /* blocks of weights multiplied so far */
    for (size_t s = 0; s < l->supers; s++) {
        for (size_t block = 0; block < l->weight_blocks; block++, turn++) {
            winograd_phase phase = {
                .product_tasks = count_product_tasks(l, s, block),
                .product_super = s,
                .product_block = block,
                .inputs = inputs[s % 2],
                .weights = weights[turn % 2],
            };
            const bool last_block = block + 1 == l->weight_blocks;
            const bool last_super = s + 1 == l->supers;
            if (l->weight_blocks > 1 && !(last_block && last_super)) {
                phase.weight_block = last_block ? 0 : block + 1;
                phase.weight_tasks = panels_of(l, phase.weight_block);
                phase.next_weights = weights[(turn + 1) % 2];
            }
            if (last_block && !last_super) {
                phase.input_super = s + 1;
                phase.input_tasks = count_input_tasks(l, s + 1);
                phase.next_inputs = inputs[(s + 1) % 2];
            }
            context->phase = phase;
            run_phase(context, pool);
        }
    }
}

void winograd_run(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
                  thread_pool *pool, const conv_kernels *kernels)
{
    winograd_context context = {.plan = plan, .arguments = arguments, .kernels = kernels};
    if (!winograd_plan(&context.layout, plan, kernels)) {
        return; /* conv_plan_create has already accepted this shape */
    }
    if (context.layout.alone) {
        run_alone(&context, scratch, pool);
    } else {
        run_together(&context, scratch, pool);
    }
}
