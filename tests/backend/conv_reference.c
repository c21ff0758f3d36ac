#include "conv_reference.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* `bytes` of memory between protected pages, at one of them. */
static void *guarded_map(void **mapping, size_t *mapping_bytes, size_t bytes, bool at_end)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t whole = size_round_up(bytes, page);
    *mapping_bytes = whole + 2 * page;
    *mapping =
        mmap(NULL, *mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(*mapping != MAP_FAILED);
    uint8_t *first = (uint8_t *)*mapping + page;
    assert_int_equal(mprotect(*mapping, page, PROT_NONE), 0);
    assert_int_equal(mprotect(first + whole, page, PROT_NONE), 0);
    return at_end ? first + whole - bytes : first;
}

void guarded_create(guarded_floats *buffer, size_t floats, bool at_end)
{
    buffer->values =
        guarded_map(&buffer->mapping, &buffer->mapping_bytes, floats * sizeof(float), at_end);
    buffer->count = floats;
}

void guarded_halves_create(guarded_halves *buffer, size_t halves, bool at_end)
{
    buffer->values =
        guarded_map(&buffer->mapping, &buffer->mapping_bytes, halves * sizeof(uint16_t), at_end);
    buffer->count = halves;
}

void guarded_destroy(guarded_floats *buffer)
{
    if (buffer->mapping != NULL) {
        munmap(buffer->mapping, buffer->mapping_bytes);
    }
    *buffer = (guarded_floats){0};
}

void guarded_halves_destroy(guarded_halves *buffer)
{
    if (buffer->mapping != NULL) {
        munmap(buffer->mapping, buffer->mapping_bytes);
    }
    *buffer = (guarded_halves){0};
}

uint16_t conv_half_of(float value)
{
    return float_to_half(value / 64.0f);
}

float conv_value_of(uint16_t half)
{
    return half_to_float(half) * 64.0f;
}

float conv_rounded(float value)
{
    return conv_value_of(conv_half_of(value));
}

static uint32_t random_word(test_random *random)
{
    random->state = random->state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t mixed = (random->state ^ (random->state >> 29)) * 0xbf58476d1ce4e5b9u;
    return (uint32_t)(mixed >> 32);
}

uint32_t test_random_below(test_random *random, uint32_t limit)
{
    return (uint32_t)(((uint64_t)random_word(random) * limit) >> 32);
}

float test_random_normal(test_random *random)
{
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) {
        sum += (float)random_word(random) * 0x1p-32f;
    }
    return sum;
}

static void fill(guarded_floats *buffer, test_random *random, float mean, float deviation)
{
    for (size_t i = 0; i < buffer->count; i++) {
        buffer->values[i] = mean + deviation * test_random_normal(random);
    }
}

/* Sums of positive weights and inputs are as large as their norms allow. */
static void set_gentle(guarded_floats *weights, const conv_case *test, size_t taps)
{
    const size_t inputs = test->shape.input_channels;
    for (size_t i = 0; i < weights->count; i++) {
        const size_t channel = i / taps % inputs;
        const bool gentle = channel >= test->gentle_begin && channel < test->gentle_end;
        weights->values[i] = fabsf(weights->values[i]) * (gentle ? 1e-3f : 1.0f);
    }
}

/* Sets all bits of what lies between pixels. */
static void fill_gaps(guarded_floats *buffer, size_t channels, size_t gap)
{
    for (size_t first = channels; first < buffer->count; first += channels + gap) {
        memset(buffer->values + first, 0xff, gap * sizeof(float));
    }
}

/* Stores values as halves, and has them be what these stand for. */
static void halve(guarded_floats *buffer, guarded_halves *halves, bool at_end)
{
    guarded_halves_create(halves, buffer->count, at_end);
    for (size_t i = 0; i < buffer->count; i++) {
        halves->values[i] = conv_half_of(buffer->values[i]);
        buffer->values[i] = conv_value_of(halves->values[i]);
    }
}

static double activate(double x, conv_activation activation)
{
    switch (activation) {
    case CONV_SILU:
        return x / (1.0 + exp(-x));
    case CONV_GELU:
        return 0.5 * x * erfc(-x * sqrt(0.5));
    case CONV_QUICK_GELU:
        return x / (1.0 + exp(-1.702 * x));
    default:
        return x;
    }
}

/* The normalised input at a virtual position, zero outside. */
static double input_at(const conv_buffers *buffers, const conv_case *test, size_t image, long y,
                       long x, size_t channel)
{
    const conv_shape *shape = &test->shape;
    const size_t height = shape->upsample ? shape->output_height : shape->input_height;
    const size_t width = shape->upsample ? shape->output_width : shape->input_width;
    if (y < 0 || x < 0 || (size_t)y >= height || (size_t)x >= width) {
        return 0.0;
    }
    if (shape->upsample) {
        y /= 2;
        x /= 2;
    }
    const size_t stride = shape->input_channels + test->extra_stride;
    const size_t pixel = (image * shape->input_height + (size_t)y) * shape->input_width + (size_t)x;
    double value = buffers->input.values[pixel * stride + channel];
    if (test->normalise) {
        const size_t index = image * shape->input_channels + channel;
        value = value * buffers->scale.values[index] + buffers->shift.values[index];
    }
    return test->silu ? activate(value, CONV_SILU) : value;
}

static double sum_at(const conv_buffers *buffers, const conv_case *test, size_t image, size_t y,
                     size_t x, size_t output)
{
    const conv_shape *shape = &test->shape;
    const size_t taps = (size_t)shape->kernel * shape->kernel;
    const float *weights = buffers->weights.values + output * shape->input_channels * taps;
    double sum = test->bias ? buffers->bias.values[output] : 0.0;
    for (size_t c = 0; c < shape->input_channels; c++) {
        for (size_t tap = 0; tap < taps; tap++) {
            const long iy = (long)(y * shape->stride + tap / shape->kernel) - (long)shape->pad_top;
            const long ix = (long)(x * shape->stride + tap % shape->kernel) - (long)shape->pad_left;
            sum += input_at(buffers, test, image, iy, ix, c) * weights[c * taps + tap];
        }
    }
    return sum;
}

static void compute_expected(conv_buffers *buffers, const conv_case *test)
{
    const conv_shape *shape = &test->shape;
    const size_t channels = shape->output_channels;
    size_t index = 0;
    for (size_t n = 0; n < shape->batch; n++) {
        for (size_t y = 0; y < shape->output_height; y++) {
            for (size_t x = 0; x < shape->output_width; x++) {
                for (size_t o = 0; o < channels; o++) {
                    double value = sum_at(buffers, test, n, y, x, o);
                    if (test->image_bias) {
                        value += buffers->image_bias.values[n * channels + o];
                    }
                    if (shape->geglu) {
                        value *= activate(sum_at(buffers, test, n, y, x, o + channels), CONV_GELU);
                    }
                    value = activate(value, test->activation) * test->output_scale;
                    if (test->residual) {
                        const size_t pixel = index / channels;
                        value +=
                            (double)test->residual_scale *
                            buffers->residual.values[pixel * (channels + test->extra_stride) + o];
                    }
                    buffers->expected[index++] = value;
                }
            }
        }
    }
}

void conv_buffers_create(conv_buffers *buffers, const conv_case *test, uint64_t seed)
{
    const conv_shape *shape = &test->shape;
    test_random random = {seed};
    *buffers = (conv_buffers){0};
    const size_t inputs = shape->input_channels;
    const size_t outputs = shape->output_channels;
    const size_t weight_outputs = shape->geglu ? 2 * outputs : outputs;
    const size_t taps = (size_t)shape->kernel * shape->kernel;
    const size_t input_pixels = shape->batch * shape->input_height * shape->input_width;
    const size_t output_pixels = shape->batch * shape->output_height * shape->output_width;
    /* The last pixel ends with its channels: what lies in the stride beyond is not there. */
    const size_t input_floats = input_pixels * (inputs + test->extra_stride) - test->extra_stride;
    const size_t output_floats =
        output_pixels * (outputs + test->extra_stride) - test->extra_stride;
    const bool at_end = test->at_end;
    guarded_create(&buffers->input, input_floats, at_end);
    guarded_create(&buffers->weights, weight_outputs * inputs * taps, at_end);
    guarded_create(&buffers->scale, shape->batch * inputs, at_end);
    guarded_create(&buffers->shift, shape->batch * inputs, at_end);
    guarded_create(&buffers->bias, weight_outputs, at_end);
    guarded_create(&buffers->image_bias, shape->batch * outputs, at_end);
    guarded_create(&buffers->residual, output_floats, at_end);
    guarded_create(&buffers->output, output_floats, at_end);
    guarded_halves_create(&buffers->output_halves, output_floats, at_end);
    fill(&buffers->input, &random, test->offset, 1.0f);
    fill(&buffers->weights, &random, 0.0f, 1.0f / sqrtf((float)(inputs * taps)));
    if (test->gentle_end > 0) {
        set_gentle(&buffers->weights, test, taps);
    }
    fill(&buffers->scale, &random, 1.0f, 0.5f);
    fill(&buffers->shift, &random, -test->offset, 0.5f);
    fill(&buffers->bias, &random, 0.0f, 1.0f);
    fill(&buffers->image_bias, &random, 0.0f, 1.0f);
    fill(&buffers->residual, &random, 0.0f, 1.0f);
    fill_gaps(&buffers->input, inputs, test->extra_stride);
    fill_gaps(&buffers->residual, outputs, test->extra_stride);
    if (test->input_storage == CONV_STORE_F16) {
        halve(&buffers->input, &buffers->input_halves, at_end);
    }
    if (test->residual_storage == CONV_STORE_F16) {
        halve(&buffers->residual, &buffers->residual_halves, at_end);
    }
    conv_buffers_clear(buffers);
    buffers->outputs = output_pixels * outputs;
    buffers->expected = malloc(buffers->outputs * sizeof(double));
    assert_non_null(buffers->expected);
    compute_expected(buffers, test);
}

void conv_buffers_destroy(conv_buffers *buffers)
{
    guarded_destroy(&buffers->input);
    guarded_destroy(&buffers->weights);
    guarded_destroy(&buffers->scale);
    guarded_destroy(&buffers->shift);
    guarded_destroy(&buffers->bias);
    guarded_destroy(&buffers->image_bias);
    guarded_destroy(&buffers->residual);
    guarded_destroy(&buffers->output);
    guarded_destroy(&buffers->statistics);
    guarded_halves_destroy(&buffers->input_halves);
    guarded_halves_destroy(&buffers->residual_halves);
    guarded_halves_destroy(&buffers->output_halves);
    free(buffers->expected);
    buffers->expected = NULL;
}

static void *stored(const guarded_floats *floats, const guarded_halves *halves,
                    conv_storage storage)
{
    return storage == CONV_STORE_F16 ? (void *)halves->values : (void *)floats->values;
}

conv_arguments conv_buffers_arguments(const conv_buffers *buffers, const conv_case *test)
{
    return (conv_arguments){
        .input = stored(&buffers->input, &buffers->input_halves, test->input_storage),
        .input_storage = test->input_storage,
        .input_stride = test->shape.input_channels + test->extra_stride,
        .input_scale = test->normalise ? buffers->scale.values : NULL,
        .input_shift = test->normalise ? buffers->shift.values : NULL,
        .input_silu = test->silu,
        .bias = test->bias ? buffers->bias.values : NULL,
        .image_bias = test->image_bias ? buffers->image_bias.values : NULL,
        .activation = test->activation,
        .output_scale = test->output_scale,
        .residual = test->residual ? stored(&buffers->residual, &buffers->residual_halves,
                                            test->residual_storage)
                                   : NULL,
        .residual_storage = test->residual_storage,
        .residual_stride = test->shape.output_channels + test->extra_stride,
        .residual_scale = test->residual_scale,
        .output = stored(&buffers->output, &buffers->output_halves, test->output_storage),
        .output_storage = test->output_storage,
        .output_stride = test->shape.output_channels + test->extra_stride,
        .statistics = test->statistics ? buffers->statistics.values : NULL,
    };
}

void conv_buffers_clear(conv_buffers *buffers)
{
    memset(buffers->output.values, 0xff, buffers->output.count * sizeof(float));
    memset(buffers->output_halves.values, 0xff, buffers->output_halves.count * sizeof(uint16_t));
}

bool conv_buffers_gaps_kept(const conv_buffers *buffers, const conv_case *test)
{
    const size_t channels = test->shape.output_channels;
    const size_t stride = channels + test->extra_stride;
    for (size_t i = 0; i < buffers->output.count; i++) {
        const bool gap = i % stride >= channels;
        uint32_t bits;
        memcpy(&bits, &buffers->output.values[i], sizeof bits);
        if (gap && (bits != UINT32_MAX || buffers->output_halves.values[i] != UINT16_MAX)) {
            return false;
        }
    }
    return true;
}

void conv_buffers_set_residual(conv_buffers *buffers, const conv_case *test, size_t index,
                               float value)
{
    const size_t channels = test->shape.output_channels;
    const size_t place = index / channels * (channels + test->extra_stride) + index % channels;
    buffers->residual.values[place] = value;
    if (test->residual_storage == CONV_STORE_F16) {
        buffers->residual_halves.values[place] = conv_half_of(value);
    }
}

double conv_buffers_error(const conv_buffers *buffers, const conv_case *test)
{
    const size_t channels = test->shape.output_channels;
    const size_t stride = channels + test->extra_stride;
    double difference = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < buffers->outputs; i++) {
        const double value = buffers->output.values[i / channels * stride + i % channels];
        const double expected = buffers->expected[i];
        difference += (value - expected) * (value - expected);
        norm += expected * expected;
    }
    return sqrt(difference / norm);
}

float *conv_buffers_output(const conv_buffers *buffers, const conv_case *test)
{
    const size_t channels = test->shape.output_channels;
    const size_t stride = channels + test->extra_stride;
    float *plain = malloc(buffers->outputs * sizeof(float));
    assert_non_null(plain);
    for (size_t i = 0; i < buffers->outputs; i++) {
        const size_t place = i / channels * stride + i % channels;
        plain[i] = test->output_storage == CONV_STORE_F16
                       ? conv_value_of(buffers->output_halves.values[place])
                       : buffers->output.values[place];
    }
    return plain;
}
