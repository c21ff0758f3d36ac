/* What weight expressions tell about themselves. */
#include "graph/graph.h"

size_t weight_element_count(const weight_expression *weight)
{
    return weight->dims[0] * weight->dims[1] * weight->dims[2] * weight->dims[3];
}

unsigned weight_scalar_mask(const weight_expression *weight)
{
    unsigned mask = 0;
    for (unsigned t = 0; t < weight->term_count; t++) {
        coefficient scale = weight->terms[t].scale;
        if (scale.scalar != SCALAR_NONE && scale.slope != 0.0f) {
            mask |= 1u << scale.scalar;
        }
    }
    return mask;
}
