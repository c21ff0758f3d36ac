#include "backend/cpu/conv_direct.h"

#include <string.h>

enum {
    LINE_FLOATS = 16,     /* a cache line */
    GATHER_CHANNELS = 32, /* up to so many channels 3x3 rows are gathered */
    STEP_F32 = 320,       /* channels a step of the summation, at most */
    STEP_INT16 = 640,     /* longer ones cost precision, shorter ones passes over the sums */
    TILE_ROWS = 192,      /* output pixels a tile: a step of A stays in L2 */
    TILE_WIDTH = 32,      /* of 3x3 tiles */
    SPLIT_COLUMNS = 1024, /* most output channels a task */
    TASKS_PER_THREAD = 6,
    SHARED_BYTES = 16 << 20, /* 16-bit inputs that all splits of a layer may share */
    PIECE_PIXELS = 16,       /* of a long row, prepared and quantised at once: they stay in L1 */
    AHEAD_PIXELS = PIECE_PIXELS, /* from one pixel to another that is fetched meanwhile */
};

static size_t divide_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static bool multiply3(size_t a, size_t b, size_t c, size_t *result)
{
    return size_multiply(a, b, result) && size_multiply(*result, c, result);
}

bool conv_direct_plan(conv_direct_layout *l, const conv_plan *plan, const conv_kernels *kernels)
{
    const conv_shape *shape = &plan->shape;
    const unsigned threads = plan->threads;
    *l = (conv_direct_layout){0};
    l->channels = shape->input_channels;
    l->outputs = shape->output_channels;
    if (shape->geglu && !size_multiply(l->outputs, 2, &l->outputs)) {
        return false;
    }
    l->panel_columns = kernels->columns;
    l->panels = divide_up(shape->output_channels, l->panel_columns) * (shape->geglu ? 2 : 1);
    l->taps = (size_t)shape->kernel * shape->kernel;
    l->gathered = l->taps > 1 && l->channels <= GATHER_CHANNELS;
    l->pairs = plan->precision != CONV_F32;
    l->bfloat16 = plan->precision == CONV_BF16;
    if ((l->pairs && l->gathered) || (l->bfloat16 && kernels->multiply_bf16 == NULL)) {
        return false;
    }
    l->value_bytes = l->pairs ? sizeof(int16_t) : sizeof(float);
    l->weight_channels = l->pairs ? size_round_up(l->channels, 2) : l->channels;
    l->block_channels =
        conv_step_channels(l->channels, plan->precision == CONV_INT16 ? STEP_INT16 : STEP_F32);
    l->blocks = divide_up(l->channels, l->block_channels);
    if (!multiply3(l->taps, l->weight_channels, l->panel_columns, &l->panel_values)) {
        return false;
    }

    l->height = shape->output_height;
    l->width = shape->output_width;
    l->input_width = shape->input_width;
    l->virtual_height = shape->upsample ? shape->output_height : shape->input_height;
    l->virtual_width = shape->upsample ? shape->output_width : shape->input_width;
    const size_t row_target = TILE_ROWS / kernels->rows * kernels->rows;
    l->flat = shape->kernel == 1 && shape->stride == 1 && shape->pad_top == 0 &&
              shape->pad_left == 0 && shape->input_width == shape->output_width;
    if (l->flat) {
        if (!size_multiply(l->height, l->width, &l->width)) {
            return false;
        }
        l->height = 1;
        l->virtual_height = 1;
        l->virtual_width = l->width;
        l->input_width = l->width;
        const size_t tiles = divide_up(l->width, row_target);
        l->tile_width =
            size_minimum(l->width, size_round_up(divide_up(l->width, tiles), kernels->rows));
    } else {
        l->tile_width = divide_up(l->width, divide_up(l->width, TILE_WIDTH));
    }
    const size_t down = divide_up(l->height, size_maximum(1, row_target / l->tile_width));
    l->tile_height = divide_up(l->height, down);
    l->tiles_across = divide_up(l->width, l->tile_width);
    l->tiles_down = divide_up(l->height, l->tile_height);
    l->group = 1;
    if (l->tiles_across * l->tiles_down == 1) {
        l->group = size_maximum(1, row_target / (l->height * l->width));
        l->group = size_minimum(l->group, shape->batch);
    }
    l->groups = divide_up(shape->batch, l->group);
    l->tile_rows = l->tile_height * l->tile_width * l->group;

    size_t tiles;
    if (!multiply3(l->groups, l->tiles_across, l->tiles_down, &tiles) || tiles > SIZE_MAX / 64) {
        return false;
    }
    /* A split of a geglu layer must not part a value panel from its gate panel. */
    const size_t unit = shape->geglu ? 2 : 1;
    const size_t units = l->panels / unit;
    size_t splits = divide_up(l->panels * l->panel_columns, SPLIT_COLUMNS);
    splits = size_maximum(splits, divide_up((size_t)threads * TASKS_PER_THREAD, tiles));
    splits = size_minimum(splits, units);
    l->split_panels = divide_up(units, splits) * unit;
    l->splits = divide_up(l->panels, l->split_panels);

    l->patch_height = (l->tile_height - 1) * shape->stride + shape->kernel;
    l->patch_width = (l->tile_width - 1) * shape->stride + shape->kernel;
    l->patch_stride = l->gathered ? l->channels : l->block_channels + LINE_FLOATS;
    size_t floats;
    if (!multiply3(l->patch_height, l->patch_width, l->patch_stride, &floats) ||
        !multiply3(floats, l->group, sizeof(float), &l->patch_bytes) ||
        l->patch_bytes / sizeof(float) > UINT32_MAX) {
        return false;
    }
    if (l->flat && l->pairs) {
        l->patch_bytes = PIECE_PIXELS * l->patch_stride * sizeof(float);
    }
    l->patch_bytes = size_round_up(l->patch_bytes, 64);
    l->gather_bytes =
        l->gathered ? size_round_up(l->tile_rows * l->taps * l->channels * sizeof(float), 64) : 0;
    l->sums_bytes = l->tile_rows * l->split_panels * l->panel_columns * sizeof(float);
    l->sums_bytes = size_round_up(l->sums_bytes, 64);
    l->index_bytes = size_round_up(l->tile_rows * 3 * sizeof(uint32_t), 64);
    if (l->pairs) {
        const size_t pixels = l->patch_height * l->patch_width * l->group;
        /* An odd number of cache lines, as for floats. */
        l->pair_stride = (divide_up(l->block_channels, 32) | 1) * 32;
        if (!multiply3(pixels, l->pair_stride, sizeof(int16_t), &l->pair_bytes)) {
            return false;
        }
        l->pair_bytes = size_round_up(l->pair_bytes, 64);
        l->scales_bytes = size_round_up(pixels * sizeof(float), 64);
    }
    l->worker_bytes = l->patch_bytes + l->gather_bytes + l->pair_bytes + l->scales_bytes +
                      l->sums_bytes + l->index_bytes;
    size_t shared;
    if (l->flat && l->pairs && l->splits > 1 &&
        multiply3(tiles, l->blocks, l->pair_bytes + l->scales_bytes, &shared) &&
        shared <= SHARED_BYTES) {
        l->shared_bytes = shared;
    }
    return true;
}

bool conv_direct_packed_bytes(const conv_direct_layout *l, size_t *bytes)
{
    if (!multiply3(l->panels, l->panel_values, l->value_bytes, bytes)) {
        return false;
    }
    return !l->pairs || l->bfloat16 ||
           size_add(*bytes, l->panels * l->panel_columns * sizeof(float), bytes);
}

/* ---- weights -------------------------------------------------------------------------------- */

/* Packed by panel as conv_pack.h says, then for integers a scale an output. Of geglu every panel of
 * values is followed by that of its gates. */
void conv_direct_pack(const conv_direct_layout *l, const conv_shape *shape,
                      const conv_kernels *kernels, void *packed, const float *weights, size_t first,
                      size_t count)
{
    const size_t columns = l->panel_columns;
    const size_t output_floats = l->channels * l->taps;
    const size_t half = shape->output_channels; /* where the gates of geglu begin */
    int16_t *integers = packed;
    float *scales = (float *)(void *)(integers + l->panels * l->panel_values);
    size_t outputs;
    for (size_t done = 0; done < count; done += outputs) {
        const bool gate = shape->geglu && first + done >= half;
        const size_t channel = gate ? first + done - half : first + done;
        const size_t panel = shape->geglu ? 2 * (channel / columns) + gate : channel / columns;
        outputs = size_minimum(columns, half - channel);
        const conv_pack_panel task = {
            .type = l->bfloat16 ? CONV_PACK_BF16_PAIRS
                    : l->pairs  ? CONV_PACK_INT16_PAIRS
                                : CONV_PACK_F32,
            .weights = weights + done * output_floats,
            .output_stride = output_floats,
            .outputs = outputs,
            .channels = l->channels,
            .taps = l->taps,
            .columns = columns,
            .block_channels = l->block_channels,
            .panel = (uint8_t *)packed + panel * l->panel_values * l->value_bytes,
            .scales = l->pairs ? scales + panel * columns : NULL,
        };
        kernels->pack(&task);
    }
}

/* ---- running -------------------------------------------------------------------------------- */

typedef struct direct_context {
    const conv_plan *plan;
    const conv_arguments *arguments;
    const conv_kernels *kernels;
    conv_direct_layout layout;
    uint8_t *scratch;
} direct_context;

typedef struct direct_tile {
    size_t index;
    size_t image, images; /* first image and how many */
    size_t top, left, height, width;
    size_t block; /* of the statistics */
} direct_tile;

/* Fills the patch of one image with the inputs of the tile, channels first..first+count-1. */
static void fill_patch(const direct_context *context, const direct_tile *tile, size_t image,
                       size_t first, size_t count, float *patch)
{
    const conv_direct_layout *l = &context->layout;
    const conv_shape *shape = &context->plan->shape;
    const conv_arguments *arguments = context->arguments;
    const size_t stride = l->patch_stride;
    const size_t patch_height = (tile->height - 1) * shape->stride + shape->kernel;
    const size_t patch_width = (tile->width - 1) * shape->stride + shape->kernel;
    const size_t norm_offset = image * shape->input_channels + first;
    const size_t image_pixels = shape->input_height * shape->input_width;
    const size_t input = image * image_pixels * arguments->input_stride + first;
    const conv_storage storage = arguments->input_storage;
    conv_prologue task = {
        .storage = storage,
        .source_stride = arguments->input_stride,
        .destination_stride = stride,
        .channels = count,
        .scale = arguments->input_scale == NULL ? NULL : arguments->input_scale + norm_offset,
        .shift = arguments->input_shift == NULL ? NULL : arguments->input_shift + norm_offset,
        .silu = conv_input_silu_of(context->plan, arguments),
        /* The next row; of a layer without rows a few pixels on. */
        .ahead = (l->flat ? AHEAD_PIXELS : l->input_width) * arguments->input_stride,
    };
    /* Columns of the patch that lie in the picture: begin..end-1. */
    const size_t x0 = tile->left * shape->stride;
    const size_t begin =
        x0 >= shape->pad_left ? 0 : size_minimum(patch_width, shape->pad_left - x0);
    size_t end = l->virtual_width + shape->pad_left;
    end = end <= x0 ? begin : size_maximum(begin, size_minimum(patch_width, end - x0));
    for (size_t row = 0; row < patch_height; row++) {
        float *out = patch + row * l->patch_width * stride;
        const size_t padded_y = tile->top * shape->stride + row;
        if (padded_y < shape->pad_top || padded_y - shape->pad_top >= l->virtual_height) {
            memset(out, 0, patch_width * stride * sizeof(float));
            continue;
        }
        const size_t y = padded_y - shape->pad_top;
        memset(out, 0, begin * stride * sizeof(float));
        memset(out + end * stride, 0, (patch_width - end) * stride * sizeof(float));
        if (begin == end) {
            continue;
        }
        const size_t x = x0 + begin - shape->pad_left;
        task.destination = out + begin * stride;
        if (!shape->upsample) {
            task.source =
                conv_stored_at(arguments->input, storage,
                               input + (y * l->input_width + x) * arguments->input_stride);
            task.pixels = end - begin;
            context->kernels->prologue(&task);
            continue;
        }
        const size_t row_pixel = y / 2 * shape->input_width;
        task.pixels = 1;
        for (size_t column = 0; column < end - begin; column++) {
            float *destination = out + (begin + column) * stride;
            if (column > 0 && (x + column) % 2 == 1) {
                memcpy(destination, destination - stride, count * sizeof(float));
                continue;
            }
            task.destination = destination;
            task.source =
                conv_stored_at(arguments->input, storage,
                               input + (row_pixel + (x + column) / 2) * arguments->input_stride);
            context->kernels->prologue(&task);
        }
    }
}

/* Rows of all taps from the patch of one image. */
static void gather_rows(const direct_context *context, const direct_tile *tile, const float *patch,
                        float *rows)
{
    const conv_direct_layout *l = &context->layout;
    const conv_shape *shape = &context->plan->shape;
    const size_t kernel = shape->kernel;
    const size_t run = kernel * l->channels;
    for (size_t y = 0; y < tile->height; y++) {
        for (size_t x = 0; x < tile->width; x++) {
            const float *source =
                patch + (y * shape->stride * l->patch_width + x * shape->stride) * l->patch_stride;
            for (size_t ky = 0; ky < kernel; ky++) {
                memcpy(rows, source + ky * l->patch_width * l->patch_stride, run * sizeof(float));
                rows += run;
            }
        }
    }
}

/* A task's memory. */
typedef struct direct_work {
    float *patch, *gathered;
    const float *in_place; /* inputs that need no patch; NULL: others do */
    int16_t *numbers;      /* the patch in 16 bits */
    float *scales;         /* of its pixels */
    float *sums;
    uint32_t *offsets, *patch_pixels, *pixels; /* of each row: in the patch; in the picture */
    size_t row_stride; /* between rows in the patch; 0: uneven, see the offsets */
} direct_work;

/* Adds the products of one block of channels to the sums of the tile. */
static void multiply_block(const direct_context *context, const direct_work *work, size_t block,
                           size_t first_panel, size_t panels, size_t rows)
{
    const conv_direct_layout *l = &context->layout;
    const size_t begin = block * l->block_channels;
    const size_t count = size_minimum(l->block_channels, l->channels - begin);
    const float *packed = (const float *)context->arguments->packed +
                          first_panel * l->panel_values + begin * l->taps * l->panel_columns;
    const float *a = work->in_place ? work->in_place + begin
                     : l->gathered  ? work->gathered
                                    : work->patch;
    conv_multiply task = {
        .a_stride = work->row_stride,
        .offsets = work->row_stride ? NULL : work->offsets,
        .rows = rows,
        .b_stride = l->panel_values,
        .panels = panels,
        .depth = l->gathered ? count * l->taps : count,
        .c = work->sums,
        .c_stride = l->split_panels * l->panel_columns,
    };
    const size_t steps = l->gathered ? 1 : l->taps;
    const size_t kernel = context->plan->shape.kernel;
    for (size_t tap = 0; tap < steps; tap++) {
        const size_t next = tap + 1 == steps ? tap : tap + 1;
        task.a = a + (tap / kernel * l->patch_width + tap % kernel) * l->patch_stride;
        task.b = packed + tap * count * l->panel_columns;
        task.accumulate = block > 0 || tap > 0;
        task.next_a = a + (next / kernel * l->patch_width + next % kernel) * l->patch_stride;
        task.next_b = packed + (tap + 1) * count * l->panel_columns;
        context->kernels->multiply(&task);
    }
}

/* The same with 16-bit numbers; integers have a scale for each pixel of the patch. */
static void multiply_block_pairs(const direct_context *context, const direct_work *work,
                                 size_t block, size_t first_panel, size_t panels, size_t rows)
{
    const conv_direct_layout *l = &context->layout;
    const size_t begin = block * l->block_channels;
    const size_t count = size_minimum(l->block_channels, l->channels - begin);
    const size_t padded = size_round_up(count, 2);
    const int16_t *integers = context->arguments->packed;
    const float *scales = (const float *)(const void *)(integers + l->panels * l->panel_values);
    const int16_t *packed =
        integers + first_panel * l->panel_values + begin * l->taps * l->panel_columns;
    conv_multiply_pairs task = {
        .a_stride = work->row_stride,
        .offsets = work->row_stride ? NULL : work->offsets,
        .rows = rows,
        .b_stride = l->panel_values,
        .panels = panels,
        .pairs = padded / 2,
        .scale_offsets = work->patch_pixels,
        .column_scales = scales + first_panel * l->panel_columns,
        .column_scales_stride = l->panel_columns,
        .c = work->sums,
        .c_stride = l->split_panels * l->panel_columns,
    };
    const size_t kernel = context->plan->shape.kernel;
    for (size_t tap = 0; tap < l->taps; tap++) {
        const size_t pixel = tap / kernel * l->patch_width + tap % kernel;
        const size_t next = tap + 1 == l->taps ? tap : tap + 1;
        task.a = work->numbers + pixel * l->pair_stride;
        task.next_a =
            work->numbers + (next / kernel * l->patch_width + next % kernel) * l->pair_stride;
        task.row_scales = work->scales + pixel;
        task.b = packed + tap * padded * l->panel_columns;
        task.next_b = packed + (tap + 1) * padded * l->panel_columns;
        task.accumulate = block > 0 || tap > 0;
        (l->bfloat16 ? context->kernels->multiply_bf16 : context->kernels->multiply_int16)(&task);
    }
}

/* `rows` pixels from `pixel` of the patch on, `count` channels at `source` -> 16-bit numbers. */
static void quantise(const direct_context *context, const direct_work *work, size_t pixel,
                     size_t rows, size_t count, const float *source, size_t stride, size_t ahead)
{
    const conv_direct_layout *l = &context->layout;
    const conv_quantise task = {
        .source = source,
        .source_stride = stride,
        .rows = rows,
        .channels = count,
        .padded = size_round_up(count, LINE_FLOATS),
        .destination = work->numbers + pixel * l->pair_stride,
        .destination_stride = l->pair_stride,
        .scales = work->scales + pixel,
        .scales_stride = 1,
        .ahead = ahead,
    };
    (l->bfloat16 ? context->kernels->round_bf16 : context->kernels->quantise)(&task);
}

/* Rows of the patch that a tile uses -> 16-bit numbers. */
static void quantise_patch(const direct_context *context, const direct_tile *tile,
                           const direct_work *work, size_t image, size_t count)
{
    const conv_direct_layout *l = &context->layout;
    const conv_shape *shape = &context->plan->shape;
    const size_t patch_height = (tile->height - 1) * shape->stride + shape->kernel;
    const size_t pixels = (tile->width - 1) * shape->stride + shape->kernel;
    for (size_t y = 0; y < patch_height; y++) {
        const size_t pixel = (image * l->patch_height + y) * l->patch_width;
        quantise(context, work, pixel, pixels, count, work->patch + pixel * l->patch_stride,
                 l->patch_stride, 0);
    }
}

/* The same for pixels of one long row, in pieces: prepared first unless they are in place. */
static void quantise_pixels(const direct_context *context, const direct_tile *tile,
                            const direct_work *work, size_t image, size_t first, size_t count)
{
    const conv_direct_layout *l = &context->layout;
    const size_t input_stride = context->arguments->input_stride;
    direct_tile piece = *tile;
    for (size_t done = 0; done < tile->width; done += piece.width) {
        const size_t pixel = image * l->patch_width + done;
        piece.left = tile->left + done;
        piece.width = size_minimum(PIECE_PIXELS, tile->width - done);
        if (work->in_place) {
            quantise(context, work, pixel, piece.width, count,
                     work->in_place + pixel * input_stride + first, input_stride,
                     AHEAD_PIXELS * input_stride);
        } else {
            fill_patch(context, &piece, tile->image + image, first, count, work->patch);
            quantise(context, work, pixel, piece.width, count, work->patch, l->patch_stride, 0);
        }
    }
}

static void finish_tile(const direct_context *context, const direct_tile *tile, size_t first_panel,
                        size_t panels, const float *sums, const uint32_t *pixels)
{
    const conv_direct_layout *l = &context->layout;
    const conv_shape *shape = &context->plan->shape;
    const conv_arguments *arguments = context->arguments;
    const size_t channel = first_panel / (shape->geglu ? 2 : 1) * l->panel_columns;
    const size_t width = panels / (shape->geglu ? 2 : 1) * l->panel_columns;
    const size_t channels = shape->output_channels;
    const size_t rows = tile->height * tile->width;
    const size_t blocks = l->tiles_down * l->tiles_across;
    for (size_t i = 0; i < tile->images; i++) {
        const size_t image = tile->image + i;
        const size_t pixel = image * l->height * l->width;
        conv_epilogue task = {
            .sums = sums + i * rows * l->split_panels * l->panel_columns,
            .sums_stride = l->split_panels * l->panel_columns,
            .rows = rows,
            .pixels = pixels,
            .ahead = AHEAD_PIXELS,
            .channels = size_minimum(width, channels - channel),
            .geglu = shape->geglu,
            .bias = arguments->bias == NULL ? NULL : arguments->bias + channel,
            .gate_bias = arguments->bias == NULL || !shape->geglu
                             ? NULL
                             : arguments->bias + channels + channel,
            .image_bias = arguments->image_bias == NULL
                              ? NULL
                              : arguments->image_bias + image * channels + channel,
            .activation = arguments->activation,
            .output_scale = arguments->output_scale,
            .residual = conv_stored_at(arguments->residual, arguments->residual_storage,
                                       pixel * arguments->residual_stride + channel),
            .residual_storage = arguments->residual_storage,
            .residual_stride = arguments->residual_stride,
            .residual_scale = arguments->residual_scale,
            .output = (void *)conv_stored_at(arguments->output, arguments->output_storage,
                                             pixel * arguments->output_stride + channel),
            .output_storage = arguments->output_storage,
            .output_stride = arguments->output_stride,
        };
        if (arguments->statistics != NULL) {
            float *statistics =
                arguments->statistics + (image * blocks + tile->block) * 2 * channels;
            task.statistics_sum = statistics + channel;
            task.statistics_square = statistics + channels + channel;
            memset(task.statistics_sum, 0, task.channels * sizeof(float));
            memset(task.statistics_square, 0, task.channels * sizeof(float));
        }
        context->kernels->epilogue(&task);
    }
}

/* What the products of channels first..first+count-1 of one image read. */
static void prepare_inputs(const direct_context *context, const direct_tile *tile,
                           const direct_work *work, size_t image, size_t first, size_t count)
{
    const conv_direct_layout *l = &context->layout;
    if (l->flat && l->pairs) {
        quantise_pixels(context, tile, work, image, first, count);
        return;
    }
    if (work->in_place) {
        return;
    }
    float *patch = work->patch + image * l->patch_height * l->patch_width * l->patch_stride;
    fill_patch(context, tile, tile->image + image, first, count, patch);
    if (l->gathered) {
        const size_t row_floats = l->taps * l->channels;
        gather_rows(context, tile, patch,
                    work->gathered + image * tile->height * tile->width * row_floats);
    } else if (l->pairs) {
        quantise_patch(context, tile, work, image, count);
    }
}

/* The inputs of a tile of a long row where they can be multiplied or quantised as they are. */
static const float *inputs_in_place(const direct_context *context, const direct_tile *tile)
{
    const conv_direct_layout *l = &context->layout;
    const conv_arguments *arguments = context->arguments;
    if (!l->flat || arguments->input_storage != CONV_STORE_F32 || arguments->input_scale != NULL ||
        arguments->input_silu || l->tile_rows * arguments->input_stride > UINT32_MAX) {
        return NULL;
    }
    return (const float *)arguments->input +
           (tile->image * l->width + tile->left) * arguments->input_stride;
}

static direct_tile tile_of(const direct_context *context, size_t index)
{
    const conv_direct_layout *l = &context->layout;
    const size_t tiles_an_image = l->tiles_down * l->tiles_across;
    direct_tile tile = {.index = index, .block = index % tiles_an_image};
    tile.image = index / tiles_an_image * l->group;
    tile.images = size_minimum(l->group, context->plan->shape.batch - tile.image);
    tile.top = tile.block / l->tiles_across * l->tile_height;
    tile.left = tile.block % l->tiles_across * l->tile_width;
    tile.height = size_minimum(l->tile_height, l->height - tile.top);
    tile.width = size_minimum(l->tile_width, l->width - tile.left);
    return tile;
}

static direct_work work_of(const direct_context *context, const direct_tile *tile, unsigned worker)
{
    const conv_direct_layout *l = &context->layout;
    uint8_t *memory = context->scratch + worker * l->worker_bytes;
    direct_work work = {.patch = (float *)(void *)memory};
    memory += l->patch_bytes;
    work.gathered = (float *)(void *)memory;
    memory += l->gather_bytes;
    work.numbers = (int16_t *)(void *)memory;
    memory += l->pair_bytes;
    work.scales = (float *)(void *)memory;
    memory += l->scales_bytes;
    work.sums = (float *)(void *)memory;
    memory += l->sums_bytes;
    work.offsets = (uint32_t *)(void *)memory;
    work.patch_pixels = work.offsets + l->tile_rows;
    work.pixels = work.patch_pixels + l->tile_rows;
    work.in_place = inputs_in_place(context, tile);
    return work;
}

/* The distance of all rows of a tile from the ones before; 0 if it is not the same. */
static size_t even_stride(const uint32_t *offsets, size_t rows)
{
    const uint32_t stride = rows > 1 ? offsets[1] - offsets[0] : 1;
    for (size_t row = 2; row < rows; row++) {
        if (offsets[row] - offsets[row - 1] != stride) {
            return 0;
        }
    }
    return stride;
}

/* Where each row of the products begins in the inputs of the tile, and its pixel in the picture. */
static void place_rows(const direct_context *context, const direct_tile *tile, direct_work *work)
{
    const conv_direct_layout *l = &context->layout;
    const size_t step = context->plan->shape.stride;
    const size_t rows = tile->height * tile->width;
    const size_t patch_pixels = l->patch_height * l->patch_width;
    const size_t stride = l->pairs         ? l->pair_stride
                          : work->in_place ? context->arguments->input_stride
                                           : l->patch_stride;
    for (size_t row = 0; row < rows * tile->images; row++) {
        const size_t y = row % rows / tile->width;
        const size_t x = row % rows % tile->width;
        const size_t pixel = row / rows * patch_pixels + (y * l->patch_width + x) * step;
        work->patch_pixels[row] = (uint32_t)pixel;
        work->offsets[row] = (uint32_t)(l->gathered ? row * l->taps * l->channels : pixel * stride);
        if (row < rows) {
            work->pixels[row] = (uint32_t)((tile->top + y) * l->width + tile->left + x);
        }
    }
    work->row_stride = even_stride(work->offsets, rows * tile->images);
}

/* What the products of a block of channels read. */
static void prepare_block(const direct_context *context, const direct_tile *tile,
                          const direct_work *work, size_t block)
{
    const conv_direct_layout *l = &context->layout;
    const size_t first = block * l->block_channels;
    const size_t count = size_minimum(l->block_channels, l->channels - first);
    for (size_t image = 0; image < tile->images; image++) {
        prepare_inputs(context, tile, work, image, first, count);
    }
}

/* Makes `work` use the shared inputs of a block of the tile. */
static void use_shared(const direct_context *context, const direct_tile *tile, direct_work *work,
                       size_t block)
{
    const conv_direct_layout *l = &context->layout;
    uint8_t *memory = context->scratch + context->plan->threads * l->worker_bytes +
                      (tile->index * l->blocks + block) * (l->pair_bytes + l->scales_bytes);
    work->numbers = (int16_t *)(void *)memory;
    work->scales = (float *)(void *)(memory + l->pair_bytes);
}

static void share_task(void *opaque, size_t index, unsigned worker)
{
    const direct_context *context = opaque;
    const size_t blocks = context->layout.blocks;
    const direct_tile tile = tile_of(context, index / blocks);
    direct_work work = work_of(context, &tile, worker);
    use_shared(context, &tile, &work, index % blocks);
    prepare_block(context, &tile, &work, index % blocks);
}

static void run_task(void *opaque, size_t index, unsigned worker)
{
    const direct_context *context = opaque;
    const conv_direct_layout *l = &context->layout;
    const size_t tiles = l->tiles_down * l->tiles_across * l->groups;
    /* Neighbouring tasks share weights. */
    const size_t first_panel = index / tiles * l->split_panels;
    const size_t panels = size_minimum(l->split_panels, l->panels - first_panel);
    const direct_tile tile = tile_of(context, index % tiles);
    const size_t rows = tile.height * tile.width * tile.images;
    direct_work work = work_of(context, &tile, worker);
    place_rows(context, &tile, &work);
    for (size_t block = 0; block < l->blocks; block++) {
        if (l->shared_bytes) {
            use_shared(context, &tile, &work, block);
        } else {
            prepare_block(context, &tile, &work, block);
        }
        (l->pairs ? multiply_block_pairs : multiply_block)(context, &work, block, first_panel,
                                                           panels, rows);
    }
    finish_tile(context, &tile, first_panel, panels, work.sums, work.pixels);
}

void conv_direct_run(const conv_plan *plan, const conv_arguments *arguments, void *scratch,
                     thread_pool *pool, const conv_kernels *kernels)
{
    direct_context context = {
        .plan = plan,
        .arguments = arguments,
        .kernels = kernels,
        .scratch = scratch,
    };
    if (!conv_direct_plan(&context.layout, plan, kernels)) {
        return; /* conv_plan_create has already accepted this shape */
    }
    const conv_direct_layout *l = &context.layout;
    const size_t tiles = l->tiles_down * l->tiles_across * l->groups;
    if (l->shared_bytes) {
        thread_pool_run(pool, tiles * l->blocks, share_task, &context);
    }
    thread_pool_run(pool, tiles * l->splits, run_task, &context);
}
