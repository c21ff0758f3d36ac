/* The fast conversions behind convert_to_float; private to base. */
#ifndef BASE_ELEMENT_TYPE_H
#define BASE_ELEMENT_TYPE_H

#include <stddef.h>
#include <stdint.h>

/* `count` halves to floats with F16C, and with NEON; the same bytes as half_to_float. */
void convert_half_avx2(float *destination, const uint8_t *source, size_t count);
void convert_half_neon(float *destination, const uint8_t *source, size_t count);

#endif
