#include "formats/tensor.h"

#include <stdio.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are used as they lie in the file: little-endian machines only"
#endif

bool tensor_byte_count(element_type type, unsigned rank, const size_t *shape, size_t *bytes)
{
    size_t total = element_size(type);
    bool empty = false;
    for (unsigned i = 0; i < rank; i++) {
        if (shape[i] == 0) {
            empty = true; /* the other dimensions must still be sane */
        } else if (!size_multiply(total, shape[i], &total) || total > PTRDIFF_MAX) {
            return false;
        }
    }
    *bytes = empty ? 0 : total;
    return true;
}

size_t tensor_element_count(const named_tensor *tensor)
{
    return tensor->bytes / element_size(tensor->type);
}

const char *tensor_shape_text(const named_tensor *tensor, char buffer[TENSOR_SHAPE_TEXT])
{
    size_t used = (size_t)snprintf(buffer, TENSOR_SHAPE_TEXT, "[");
    for (unsigned i = 0; i < tensor->rank && used < TENSOR_SHAPE_TEXT; i++) {
        used += (size_t)snprintf(buffer + used, TENSOR_SHAPE_TEXT - used, "%s%zu",
                                 i == 0 ? "" : ", ", tensor->shape[i]);
    }
    if (used < TENSOR_SHAPE_TEXT) {
        (void)snprintf(buffer + used, TENSOR_SHAPE_TEXT - used, "]");
    }
    return buffer;
}
