/* The reference backend: every operation of ops.def in plain C, one step a graph node.
 *
 * It is the oracle of the other backends: float32 between the operations, double inside them, no
 * fusion, no choice of algorithm. Loops run over the channels innermost, which lie side by side in
 * memory, so that any compiler can vectorise them without changing a sum's order. */
#ifndef ONESTEP_BACKEND_REFERENCE_H
#define ONESTEP_BACKEND_REFERENCE_H

#include "backend/backend.h"

typedef struct reference_operand {
    const float *data; /* token ids: int32_t */
    size_t dims[4];
    size_t count; /* numbers in it */
} reference_operand;

/* Everything that one operation needs to run. */
typedef struct reference_call {
    const node_attributes *attributes;
    const float *scalars;
    unsigned input_count;
    reference_operand inputs[NODE_INPUTS];
    float *output;
    size_t dims[4]; /* of the output */
    size_t count;
    void *scratch; /* reference_scratch_bytes, aligned to 64 bytes */
    thread_pool *pool;
} reference_call;

/* reference_conv2d, reference_linear...: each fills call->output. */
typedef void (*reference_kernel)(const reference_call *call);
#define OPERATION(enumerator, name, least, most, gradient)                                         \
    void reference_##name(const reference_call *call);
#include "graph/ops.def"
#undef OPERATION

/* Scratch memory of the operations that need some; false when the size overflows. */
bool reference_product_scratch(const size_t weight_dims[4], size_t *bytes) MUST_USE;
bool reference_attention_scratch(const size_t query_dims[4], const size_t key_dims[4],
                                 const node_attributes *attributes, bool gradient, unsigned threads,
                                 size_t *bytes) MUST_USE;

/* sums[j] += sum over i of factors[i] * rows[i * row_stride + j], for j below `count` and i from 0
 * up to `terms` - 1: the inner loop of every product. */
void reference_accumulate(double *sums, size_t count, const float *rows, size_t row_stride,
                          const float *factors, size_t terms);

/* Output channels that a task sums up at once, on its stack. */
#define REFERENCE_STRIP 64

#endif
