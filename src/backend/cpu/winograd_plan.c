/* What follows from a plan: tiles, parts, blocks, sizes; and the packing of weights. */
#include "backend/cpu/winograd.h"

enum {
    LINE_BYTES = WINOGRAD_LINE_BYTES,
    LINE_FLOATS = WINOGRAD_LINE_BYTES / 4,
    PART_TILES = 48,               /* tiles of a part, at most: rows of the matrix product */
    PART_COLUMNS = 8,              /* tiles of a part across */
    TASK_COLUMNS = 64,             /* output channels a task */
    FUSED_COLUMNS = 32,            /* the same where they transform their weights */
    STEP_F32 = 320,                /* channels a step of the summation, at most */
    STEP_INT16 = 160,              /* the same: inputs of a step are quantised out of L2 */
    CHUNK = 128,                   /* channels of an input task: its rows stay in L2 */
    CHUNK_LEAST = 32,              /* the same where the picture is small */
    SEGMENT_PIXELS = 48,           /* width of an input task */
    WHOLE_BYTES = 20 << 20,        /* transformed inputs up to so many bytes are made all at once */
    SMALL_WEIGHT_BYTES = 6 << 20,  /* transformed weights that may stay in L3 while inputs pass */
    SMALL_INPUT_BYTES = 2 << 20,   /* then so many bytes of inputs at once a thread */
    LARGE_INPUT_BYTES = 6 << 20,   /* else so many, as all weights pass each time */
    ALONE_WEIGHT_BYTES = 28 << 20, /* transformed weights up to so many bytes pass for each part */
    ALONE_PARTS = 4,               /* then so many parts a thread, at least: they end together */
    FUSED_TILES = 128,       /* pictures of at most so many tiles fuse the weights' transform */
    FUSED_BYTES = 384 << 10, /* then so many bytes of them at once: in L2 */
    FUSED_SUMS_BYTES = 640 << 10,   /* if a task's sums are more, it takes half of the columns */
    FUSED_BYTES_HALVED = 512 << 10, /* and so many bytes of weights at once */
    WEIGHT_BYTES = 4 << 20,         /* transformed weights of a block, where there are several */
};

static const winograd_side variant_sides[][2] = {
#define WINOGRAD_SIDES(name, down, across, function, task) [name] = {down, across},
    WINOGRAD_VARIANTS(WINOGRAD_SIDES, , )
#undef WINOGRAD_SIDES
};

static bool multiply3(size_t a, size_t b, size_t c, size_t *result)
{
    return size_multiply(a, b, result) && size_multiply(*result, c, result);
}

/* ---- layout ---------------------------------------------------------------------------------- */

/* What both sides of the variant's tile make together. */
static void plan_sides(winograd_layout *l)
{
    const winograd_sizes *down = &winograd_sides[variant_sides[l->variant][0]];
    const winograd_sizes *across = &winograd_sides[variant_sides[l->variant][1]];
    l->down = *down;
    l->across = *across;
    l->points = down->points * across->points;
    l->weights = down->weights * across->weights;
    l->products = down->products * across->products;
    for (size_t i = 0; i < down->products; i++) {
        for (size_t j = 0; j < across->products; j++) {
            const size_t product = i * across->products + j;
            l->point_of_product[product] =
                (uint8_t)(down->point_of_product[i] * across->points + across->point_of_product[j]);
            l->weight_of_product[product] = (uint8_t)(down->weight_of_product[i] * across->weights +
                                                      across->weight_of_product[j]);
        }
    }
}

static bool plan_tiles(winograd_layout *l, const conv_shape *shape, unsigned threads)
{
    l->tiles_down = winograd_divide_up(shape->output_height, l->down.outputs);
    l->tiles_across = winograd_divide_up(shape->output_width, l->across.outputs);
    l->input_tile_stride = winograd_odd_line_values(l->padded_channels, l->value_bytes);
    size_t tile_bytes;
    if (!multiply3(l->points, l->input_tile_stride, l->value_bytes, &tile_bytes)) {
        return false;
    }
    size_t tiles;
    if (!size_multiply(l->tiles_down, l->tiles_across, &tiles)) {
        return false;
    }
    l->fused = tiles <= FUSED_TILES;
    const size_t most_columns = l->fused ? FUSED_TILES : PART_COLUMNS;
    const size_t most_tiles = l->fused ? FUSED_TILES : PART_TILES;
    l->parts_across = winograd_divide_up(l->tiles_across, most_columns);
    l->part_columns = winograd_divide_up(l->tiles_across, l->parts_across);
    l->parts_across = winograd_divide_up(l->tiles_across, l->part_columns);
    l->parts_down =
        winograd_divide_up(l->tiles_down, size_maximum(1, most_tiles / l->part_columns));
    l->part_rows = winograd_divide_up(l->tiles_down, l->parts_down);
    l->parts_down = winograd_divide_up(l->tiles_down, l->part_rows);
    l->part_tiles = l->part_rows * l->part_columns;
    l->join = 1;
    if (l->fused) { /* so that an image is one part */
        l->join = size_minimum(shape->batch, size_maximum(1, PART_TILES / l->part_tiles));
    }
    l->task_tiles = l->part_tiles * l->join;

    /* How many parts are transformed at once. Results do not depend on it. */
    if (!size_multiply(shape->batch, l->parts_across * l->parts_down, &l->units)) {
        return false;
    }
    const size_t part_bytes = l->part_tiles * tile_bytes;
    const double weights =
        (double)l->weights * (double)l->channels * (double)l->outputs * (double)l->value_bytes;
    const size_t most = weights <= SMALL_WEIGHT_BYTES ? SMALL_INPUT_BYTES : LARGE_INPUT_BYTES;
    l->alone =
        !l->fused && l->units >= ALONE_PARTS * (size_t)threads && weights <= ALONE_WEIGHT_BYTES;
    l->group = size_minimum(l->units, WHOLE_BYTES / part_bytes);
    if (l->alone) {
        l->group = 1;
    } else if (l->group < l->units) {
        l->group = size_maximum(1, most * threads / part_bytes);
    }
    l->group = size_minimum(l->units, size_round_up(l->group, l->join));
    l->supers = winograd_divide_up(l->units, l->group);
    l->super_tiles = l->part_tiles * l->group;
    return true;
}

/* Output channels a task that transforms its weights. They do not depend on the batch, as the order
 * of summation follows from them. */
static size_t fused_columns(const winograd_layout *l)
{
    const size_t sums = l->products * l->part_tiles * FUSED_COLUMNS * sizeof(float);
    const size_t columns = sums > FUSED_SUMS_BYTES ? FUSED_COLUMNS / 2 : FUSED_COLUMNS;
    return size_maximum(columns, l->panel_columns);
}

static bool plan_weights(winograd_layout *l, const conv_kernels *kernels, unsigned threads)
{
    l->panel_columns = kernels->columns;
    l->panels = winograd_divide_up(l->outputs, l->panel_columns);
    size_t panel_bytes;
    if (!multiply3(l->channels, 9, l->panel_columns, &l->panel_values) ||
        !multiply3(l->weights * l->value_bytes, l->weight_channels, l->panel_columns,
                   &panel_bytes)) {
        return false;
    }
    if (l->fused) {
        l->weight_blocks = 1;
        l->weight_panels = l->panels;
        l->task_panels = size_minimum(fused_columns(l) / l->panel_columns, l->panels);
        return true;
    }
    /* All weights where several groups of parts need them, so that they are transformed once. */
    const size_t panels = l->supers > 1 ? l->panels : size_maximum(1, WEIGHT_BYTES / panel_bytes);
    l->weight_blocks = winograd_divide_up(l->panels, panels);
    l->weight_panels = winograd_divide_up(l->panels, l->weight_blocks);
    l->weight_blocks = winograd_divide_up(l->panels, l->weight_panels);
    /* Enough tasks for every thread where the picture is small. */
    const size_t tile_tasks = winograd_tile_tasks(l, l->group);
    l->task_panels = size_maximum(1, TASK_COLUMNS / l->panel_columns);
    while (l->task_panels > 1 && tile_tasks * winograd_divide_up(l->weight_panels, l->task_panels) <
                                     4 * (size_t)threads) {
        l->task_panels--;
    }
    l->task_panels = size_minimum(l->task_panels, l->weight_panels);
    return true;
}

/* Channels a step of the summation, and a chunk of the input transform. */
static void plan_steps(winograd_layout *l, conv_precision precision, unsigned threads)
{
    l->step_channels =
        conv_step_channels(l->channels, precision == CONV_INT16 ? STEP_INT16 : STEP_F32);
    if (l->fused) {
        const size_t columns = fused_columns(l);
        const size_t bytes = columns < FUSED_COLUMNS ? FUSED_BYTES_HALVED : FUSED_BYTES;
        const size_t most =
            bytes / (l->weights * columns * l->value_bytes) / LINE_FLOATS * LINE_FLOATS;
        const size_t steps = winograd_divide_up(l->channels, most);
        const size_t fused = size_round_up(winograd_divide_up(l->channels, steps), LINE_FLOATS);
        l->step_channels = size_minimum(l->step_channels, fused);
    }
    l->steps = winograd_divide_up(l->channels, l->step_channels);
    l->segments = winograd_divide_up(l->part_columns, SEGMENT_PIXELS / l->across.outputs);
    l->segment_tiles = winograd_divide_up(l->part_columns, l->segments);
    l->segments = winograd_divide_up(l->part_columns, l->segment_tiles);
    if (l->integers) { /* which have a scale a step */
        l->chunk = size_round_up(l->step_channels, LINE_FLOATS);
    } else {
        l->chunk = size_minimum(CHUNK, l->padded_channels);
        const size_t segments = l->segments * l->group;
        while (l->chunk > CHUNK_LEAST &&
               segments * winograd_divide_up(l->channels, l->chunk) < 8 * (size_t)threads) {
            l->chunk = size_round_up(l->chunk / 2, LINE_FLOATS);
        }
    }
    l->row_floats = ((l->segment_tiles - 1) * l->across.step + l->across.inputs) * l->chunk;
}

/* The variant of an algorithm for a shape; false when there is none. */
static bool choose_variant(winograd_variant *variant, const conv_plan *plan, bool up)
{
    const bool strided = plan->shape.stride == 2;
    switch (plan->algorithm) {
    case CONV_WINOGRAD_2:
        *variant = up ? WINOGRAD_2_UP : WINOGRAD_2;
        return !strided;
    case CONV_WINOGRAD_4:
        *variant = strided ? WINOGRAD_4_STRIDED : up ? WINOGRAD_4_UP : WINOGRAD_4;
        return true;
    case CONV_WINOGRAD_6:
        *variant = up ? WINOGRAD_6_UP : WINOGRAD_6;
        return !strided;
    case CONV_WINOGRAD_8X6:
        *variant = WINOGRAD_8X6;
        return !strided && !up;
    case CONV_WINOGRAD_8:
        *variant = WINOGRAD_8;
        return !strided && !up;
    default:
        return false;
    }
}

bool winograd_plan(winograd_layout *l, const conv_plan *plan, const conv_kernels *kernels)
{
    const conv_shape *shape = &plan->shape;
    if (plan->precision == CONV_BF16 || shape->kernel != 3 ||
        shape->input_channels > SIZE_MAX / 4096) {
        return false;
    }
    *l = (winograd_layout){0};
    const bool even = shape->output_height % 2 == 0 && shape->output_width % 2 == 0;
    const bool up = shape->upsample && even;
    l->duplicate = shape->upsample && !even;
    if (!choose_variant(&l->variant, plan, up)) {
        return false;
    }
    plan_sides(l);
    l->integers = plan->precision == CONV_INT16;
    l->value_bytes = l->integers ? sizeof(int16_t) : sizeof(float);
    l->channels = shape->input_channels;
    l->outputs = shape->output_channels;
    l->padded_channels = size_round_up(l->channels, LINE_FLOATS);
    l->weight_channels = l->integers ? size_round_up(l->channels, 2) : l->channels;
    if (!plan_tiles(l, shape, plan->threads) || !plan_weights(l, kernels, plan->threads)) {
        return false;
    }
    plan_steps(l, plan->precision, plan->threads);

    l->sums_tile_stride = l->task_panels * l->panel_columns;
    const size_t pixels = l->down.outputs * l->across.outputs;
    l->sums_product_stride = winograd_odd_lines(l->task_tiles * l->sums_tile_stride);
    l->input_point_stride =
        winograd_odd_line_values(l->super_tiles * l->input_tile_stride, l->value_bytes);
    l->shared_weight_stride = winograd_odd_line_values(
        l->weight_panels * l->weight_channels * l->panel_columns, l->value_bytes);
    if (!multiply3(l->points, l->input_point_stride, l->value_bytes, &l->input_value_bytes) ||
        !multiply3(l->weights, l->shared_weight_stride, l->value_bytes, &l->weight_bytes) ||
        l->input_value_bytes > SIZE_MAX / 16 || l->weight_bytes > SIZE_MAX / 16) {
        return false;
    }
    l->input_bytes = l->input_value_bytes;
    size_t prepared = l->down.inputs * l->row_floats;
    if (l->integers) {
        l->panel_scales = l->weights * l->panel_columns;
        l->input_bytes +=
            size_round_up(l->points * l->steps * l->super_tiles * sizeof(float), LINE_BYTES);
        prepared += l->points * winograd_odd_lines(l->chunk); /* a tile before it is quantised */
    }
    size_t sums = l->products * l->sums_product_stride + pixels * l->sums_tile_stride +
                  winograd_odd_lines(pixels);
    if (l->fused) {
        l->weight_bytes = 0;
        const size_t step = size_round_up(l->step_channels, 2);
        l->fused_weight_stride =
            winograd_odd_line_values(l->task_panels * step * l->panel_columns, l->value_bytes);
        sums += l->weights * l->fused_weight_stride * l->value_bytes / sizeof(float);
    }
    l->worker_bytes = winograd_odd_lines(size_maximum(prepared, sums)) * sizeof(float);
    if (l->alone) {
        l->worker_bytes += l->input_bytes;
    }
    l->input_buffers = l->alone ? 0 : l->supers > 1 ? 2 : 1;
    l->weight_buffers = l->weight_blocks > 1 ? 2 : 1;
    return true;
}

bool winograd_packed_bytes(const winograd_layout *l, size_t *bytes)
{
    if (!multiply3(l->panels, l->panel_values, l->value_bytes, bytes)) {
        return false;
    }
    const size_t scales = l->panels * (l->panel_columns + l->panel_scales);
    return !l->integers || size_add(*bytes, scales * sizeof(float), bytes);
}

size_t winograd_scratch_bytes(const winograd_layout *l, unsigned threads)
{
    return l->input_bytes * l->input_buffers + l->weight_bytes * l->weight_buffers +
           l->worker_bytes * threads;
}

/* ---- weights -------------------------------------------------------------------------------- */

/* Packed: [panel][channel][tap][column]; columns beyond the last output are zero. Scales of
 * integers as winograd.h says: they take as long as the transform, which every picture repeats. */
void winograd_pack(const winograd_layout *l, const conv_kernels *kernels, void *packed,
                   const float *weights, size_t first, size_t count)
{
    const size_t columns = l->panel_columns;
    float *scales = winograd_output_scales(l, packed);
    for (size_t done = 0; done < count; done += columns) {
        const size_t panel = (first + done) / columns;
        const conv_pack_panel task = {
            .type = l->integers ? CONV_PACK_INT16 : CONV_PACK_F32,
            .weights = weights + done * l->channels * 9,
            .output_stride = l->channels * 9,
            .outputs = size_minimum(columns, count - done),
            .channels = l->channels,
            .taps = 9,
            .columns = columns,
            .block_channels = 1,
            .panel = (uint8_t *)packed + panel * l->panel_values * l->value_bytes,
            .scales = l->integers ? scales + panel * columns : NULL,
        };
        kernels->pack(&task);
        if (l->integers) {
            const winograd_weights_int16 transformed = {
                .variant = l->variant,
                .weights = task.panel,
                .output_scales = task.scales,
                .channels = l->channels,
                .step = l->step_channels,
                .columns = columns,
                .scales = winograd_panel_scales(l, packed, panel),
            };
            kernels->winograd_scales_int16(&transformed);
        }
    }
}
