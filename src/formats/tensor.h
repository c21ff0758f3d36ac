/* Sizes of tensors. */
#ifndef FORMATS_TENSOR_H
#define FORMATS_TENSOR_H

#include "formats/formats.h"

/* The product of the shape times the element size; false when it does not fit. A dimension of 0
 * gives 0 bytes, but the product of the others must fit too. */
bool tensor_byte_count(element_type type, unsigned rank, const size_t *shape,
                       size_t *bytes) MUST_USE;

#endif
