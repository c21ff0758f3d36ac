/* Element types of tensors, and conversions between the floating ones. */
#include "base/element_type.h"
#include "base/base.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} ELEMENTS[ELEMENT_TYPE_COUNT] = {
    [ELEMENT_F32] = {"f32", 4},   [ELEMENT_F16] = {"f16", 2}, [ELEMENT_BF16] = {"bf16", 2},
    [ELEMENT_F64] = {"f64", 8},   [ELEMENT_I64] = {"i64", 8}, [ELEMENT_I32] = {"i32", 4},
    [ELEMENT_I16] = {"i16", 2},   [ELEMENT_I8] = {"i8", 1},   [ELEMENT_U8] = {"u8", 1},
    [ELEMENT_BOOL] = {"bool", 1},
};

size_t element_size(element_type type)
{
    return (unsigned)type < ELEMENT_TYPE_COUNT ? ELEMENTS[type].size : 0;
}

const char *element_name(element_type type)
{
    return (unsigned)type < ELEMENT_TYPE_COUNT ? ELEMENTS[type].name : "unknown";
}

static float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 0x1f;
    uint32_t fraction = half & 0x3ff;
    if (exponent == 0x1f) {
        /* A NaN becomes quiet, as the CPU's own conversion makes it. */
        uint32_t quiet = fraction != 0 ? 0x400000 : 0;
        return float_from_bits(sign | 0x7f800000 | quiet | fraction << 13);
    }
    if (exponent == 0) {
        /* Zero or subnormal: fraction * 2^-24, exact in float. */
        float magnitude = (float)fraction * 0x1p-24f;
        return float_from_bits(sign | bits_from_float(magnitude));
    }
    return float_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t float_to_half(float value)
{
    uint32_t bits = bits_from_float(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    }
    if (magnitude >= 0x477ff000) {
        return sign | 0x7c00; /* 65520 and more round to infinity */
    }
    if (magnitude < 0x38800000) {
        /* Below 2^-14: a multiple of 2^-24. Adding 1/2 puts the result, rounded to nearest even by
         * the addition, into the low bits of the fraction. */
        float shifted = float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_from_float(shifted) - 0x3f000000));
    }
    uint32_t odd = magnitude >> 13 & 1;
    return (uint16_t)(sign | (magnitude - (112u << 23) + 0xfff + odd) >> 13);
}

uint16_t float_to_bfloat16(float value)
{
    uint32_t bits = bits_from_float(value);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void convert_half(float *destination, const uint8_t *source, size_t count)
{
#if defined(__x86_64__)
    /* Every CPU with AVX2 has F16C. */
    if (__builtin_cpu_supports("avx2")) {
        convert_half_avx2(destination, source, count);
        return;
    }
#endif
#if defined(__aarch64__)
    convert_half_neon(destination, source, count);
#else
    for (size_t i = 0; i < count; ++i) {
        uint16_t half;
        memcpy(&half, source + 2 * i, sizeof half);
        destination[i] = half_to_float(half);
    }
#endif
}

void convert_to_float(float *destination, const void *source, element_type type, size_t count)
{
    const uint8_t *bytes = source;
    switch (type) {
    case ELEMENT_F32:
        if (count > 0) {
            memcpy(destination, source, count * sizeof *destination);
        }
        break;
    case ELEMENT_F16:
        convert_half(destination, bytes, count);
        break;
    case ELEMENT_BF16:
        for (size_t i = 0; i < count; ++i) {
            uint16_t value;
            memcpy(&value, bytes + 2 * i, sizeof value);
            destination[i] = bfloat16_to_float(value);
        }
        break;
    case ELEMENT_F64:
        for (size_t i = 0; i < count; ++i) {
            double value;
            memcpy(&value, bytes + 8 * i, sizeof value);
            destination[i] = (float)value;
        }
        break;
    default:
        break; /* the caller checks the type */
    }
}
