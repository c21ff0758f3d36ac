#include "base/base.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void sizes_and_names(void **state)
{
    (void)state;
    const struct {
        element_type type;
        size_t size;
        const char *name;
    } expected[] = {{ELEMENT_F32, 4, "f32"},
                    {ELEMENT_F16, 2, "f16"},
                    {ELEMENT_BF16, 2, "bf16"},
                    {ELEMENT_F64, 8, "f64"},
                    {ELEMENT_I64, 8, "i64"},
                    {ELEMENT_I32, 4, "i32"},
                    {ELEMENT_I16, 2, "i16"},
                    {ELEMENT_I8, 1, "i8"},
                    {ELEMENT_U8, 1, "u8"},
                    {ELEMENT_BOOL, 1, "bool"},
                    {ELEMENT_TYPE_COUNT, 0, "unknown"}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; ++i) {
        assert_int_equal(element_size(expected[i].type), expected[i].size);
        assert_string_equal(element_name(expected[i].type), expected[i].name);
    }
}

/* The value by the definition of the format. */
static double half_value(unsigned half)
{
    double sign = half & 0x8000 ? -1 : 1;
    int exponent = (int)(half >> 10 & 31);
    double fraction = half & 0x3ff;
    return exponent == 0 ? sign * ldexp(fraction, -24)
                         : sign * ldexp(1024 + fraction, exponent - 25);
}

static void every_half_converts(void **state)
{
    (void)state;
    for (unsigned half = 0; half < 65536; ++half) {
        float value = half_to_float((uint16_t)half);
        if ((half & 0x7c00) != 0x7c00) {
            assert_true((double)value == half_value(half));
            assert_int_equal(bits_of(value) >> 31, half >> 15);
            assert_int_equal(float_to_half(value), half);
        } else if ((half & 0x3ff) == 0) {
            assert_true(isinf(value) && (signbit(value) != 0) == (half >= 0x8000));
            assert_int_equal(float_to_half(value), half);
        } else {
            assert_true(isnan(value));
            assert_int_equal(float_to_half(value), half | 0x200);
        }
    }
}

static void floats_round_to_the_nearest_even_half(void **state)
{
    (void)state;
    for (unsigned half = 0; half < 0x7c00; ++half) {
        /* Half way to the next one; beyond the largest lies what would be 65536. */
        double next = half + 1 == 0x7c00 ? 65536 : half_value(half + 1);
        float middle = (float)((half_value(half) + next) / 2);
        unsigned even = half & 1 ? half + 1 : half;
        assert_int_equal(float_to_half(middle), even);
        assert_int_equal(float_to_half(-middle), even | 0x8000);
        assert_int_equal(float_to_half(nextafterf(middle, 0)), half);
        assert_int_equal(float_to_half(nextafterf(middle, INFINITY)), half + 1);
    }
    assert_int_equal(float_to_half(from_bits(1)), 0);
    assert_int_equal(float_to_half(3e38f), 0x7c00);
    assert_int_equal(float_to_half(from_bits(0x7f800001)) & 0x7e00, 0x7e00);
}

static void bfloat16(void **state)
{
    (void)state;
    for (unsigned value = 0; value < 65536; ++value) {
        float wide = bfloat16_to_float((uint16_t)value);
        assert_int_equal(bits_of(wide), value << 16);
        if (isnan(wide)) {
            assert_int_equal(float_to_bfloat16(wide), value | 0x40);
            continue;
        }
        assert_int_equal(float_to_bfloat16(wide), value);
        if (!isinf(wide)) {
            unsigned even = value & 1 ? value + 1 : value;
            assert_int_equal(float_to_bfloat16(from_bits(value << 16 | 0x8000)), even);
            assert_int_equal(float_to_bfloat16(from_bits(value << 16 | 0x7fff)), value);
            assert_int_equal(float_to_bfloat16(from_bits(value << 16 | 0x8001)), value + 1);
        }
    }
    /* A NaN whose payload is in the low bits alone stays one. */
    assert_true(isnan(bfloat16_to_float(float_to_bfloat16(from_bits(0x7f800001)))));
}

static void bulk_conversion_equals_single(void **state)
{
    (void)state;
    enum { COUNT = 65536 };
    /* One byte in front: the source is unaligned. */
    uint8_t *source = malloc(COUNT * 8 + 1);
    float *destination = malloc((COUNT + 1) * sizeof *destination);
    assert_non_null(source);
    assert_non_null(destination);
    for (unsigned i = 0; i < COUNT; ++i) {
        uint16_t half = (uint16_t)i;
        memcpy(source + 1 + 2 * i, &half, sizeof half);
    }
    const size_t counts[] = {0, 1, 7, 8, 9, 31, COUNT};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
        destination[counts[c]] = 123;
        convert_to_float(destination, source + 1, ELEMENT_F16, counts[c]);
        for (size_t i = 0; i < counts[c]; ++i) {
            assert_int_equal(bits_of(destination[i]), bits_of(half_to_float((uint16_t)i)));
        }
        convert_to_float(destination, source + 1, ELEMENT_BF16, counts[c]);
        for (size_t i = 0; i < counts[c]; ++i) {
            assert_int_equal(bits_of(destination[i]), i << 16);
        }
        assert_true(destination[counts[c]] == 123);
    }
    for (unsigned i = 0; i < COUNT; ++i) {
        double wide = i * 1e-3 + 1e-9;
        memcpy(source + 1 + 8 * i, &wide, sizeof wide);
    }
    convert_to_float(destination, source + 1, ELEMENT_F64, COUNT);
    for (unsigned i = 0; i < COUNT; ++i) {
        assert_true(destination[i] == (float)(i * 1e-3 + 1e-9));
    }
    for (unsigned i = 0; i < COUNT; ++i) {
        uint32_t bits = i * 65537;
        memcpy(source + 1 + 4 * i, &bits, sizeof bits);
    }
    convert_to_float(destination, source + 1, ELEMENT_F32, COUNT);
    assert_memory_equal(destination, source + 1, COUNT * 4);
    convert_to_float(NULL, NULL, ELEMENT_F32, 0);
    free(source);
    free(destination);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_names),
        cmocka_unit_test(every_half_converts),
        cmocka_unit_test(floats_round_to_the_nearest_even_half),
        cmocka_unit_test(bfloat16),
        cmocka_unit_test(bulk_conversion_equals_single),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
