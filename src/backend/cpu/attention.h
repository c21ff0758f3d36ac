/* Attention without the matrix of all scores: an online softmax over blocks of keys.
 *
 * Tensors are sequences of tokens with `heads` heads of `width` channels side by side. The blocks
 * are cut by the shape alone, so that results do not depend on threads or the batch. */
#ifndef ONESTEP_BACKEND_CPU_ATTENTION_H
#define ONESTEP_BACKEND_CPU_ATTENTION_H

#include "backend/cpu/conv_kernels.h"
#include "backend/cpu/tensor_kernels.h"

typedef struct attention_shape {
    size_t batch, queries, keys, heads, width;
    bool shared_keys; /* keys and values have a batch of 1 that serves every picture */
    bool causal;      /* query i sees keys 0..i */
} attention_shape;

typedef enum attention_precision {
    ATTENTION_F32,
    ATTENTION_INT16, /* 16-bit integers in both products: an error of about 3e-4 */
    /* For kernels with multiply_int8: */
    ATTENTION_INT8_VALUES, /* 8-bit integers in the product of weights and values: 1e-2 to 3e-2 of a
                            * result whose values have no mean */
    ATTENTION_INT8         /* in both: about 1e-2 of the logits' deviation more; for heads of at
                            * most ATTENTION_INT8_WIDTH channels */
} attention_precision;

typedef struct attention_plan {
    attention_shape shape;
    attention_precision precision;
    size_t query_block, key_block;
    size_t padded_keys, padded_width; /* whole panels */
    size_t chunk, chunks;             /* channels with a scale of their own (integers) */
    /* Floats of one head: packed keys, their scales; when they are bytes a scale for each block,
     * and what a key's sums begin with and are multiplied by, and the mean key; values, their
     * scales. */
    size_t key_floats, key_scales, key_begins, key_factors, center, value_floats, value_scales,
        head_floats;
    size_t worker_floats;
    size_t scratch_bytes;
    double predicted_seconds;
} attention_plan;

/* False when sizes overflow. `threads` workers will take part. */
bool attention_plan_create(attention_plan *plan, const attention_shape *shape,
                           attention_precision precision, const conv_kernels *products,
                           unsigned threads) MUST_USE;

typedef struct attention_arguments {
    const float *query, *key, *value; /* [batch][tokens][heads * width] */
    float *output;                    /* may be `query` */
    float scale;                      /* of the logits */
} attention_arguments;

void attention_run(const attention_plan *plan, const attention_arguments *arguments,
                   const conv_kernels *products, const tensor_kernels *kernels, void *scratch,
                   thread_pool *pool);

/* At most so many channels share a scale of integers. */
#define ATTENTION_CHUNK 512

/* At most so many keys are a block. */
#define ATTENTION_KEY_BLOCK 256

/* The largest of the bytes that queries and keys become; sums of products of so many of them stay
 * in 32 bits. */
#define ATTENTION_BYTE       127
#define ATTENTION_INT8_WIDTH 65536

/* ---- private to the attention files -----------------------------------------------------------
 */

typedef struct attention_context {
    const attention_plan *plan;
    const attention_arguments *arguments;
    const conv_kernels *products;
    const tensor_kernels *kernels;
    float *packed; /* per picture and head */
    float *workers;
    size_t key_blocks, query_blocks;
} attention_context;

/* What a worker needs for one block of queries. */
typedef struct attention_worker {
    float *query, *sums;
    float *scores; /* with bytes: 16-bit integers */
    float *largest, *sum, *factor;
    /* with integers */
    float *query_scales;     /* [chunk][query] */
    int16_t *query_integers; /* or bytes */
    int16_t *score_integers; /* the same */
    float *score_scales;
    int32_t *zeros; /* what sums of values begin with */
    /* with bytes */
    float *query_norm;   /* one: the largest of the bytes of a query */
    float *word_factors; /* [query]: what 1 of a 16-bit score stands for */
} attention_worker;

/* One head of one picture, packed. */
typedef struct attention_head {
    float *keys, *key_scales;
    int32_t *key_begins;
    int16_t *key_factors;
    float *center, *values, *value_scales;
} attention_head;

/* Floats between rows of queries and of scores. */
size_t attention_query_stride(const attention_plan *plan);
size_t attention_score_stride(const attention_plan *plan);
/* Integers of a row of queries or of a key, with room for whole chunks. */
size_t attention_integer_stride(const attention_plan *plan);

/* Where keys first..first+count-1 of one head are, before packing. */
typedef struct attention_block {
    const float *key, *value; /* of the first key */
    size_t stride;            /* between tokens */
    size_t first, count;
} attention_block;

/* 1.5 * 2^23 brings the integer nearest to |value * factor| < 2^22 to the low bits; loops of this
 * become vectors, which those of lrintf would not. */
static inline int16_t attention_integer(float value, float factor)
{
    union {
        float value;
        uint32_t bits;
    } pun = {.value = value * factor + 12582912.0f};
    return (int16_t)(uint16_t)pun.bits;
}

/* With 16-bit integers (attention_int16.c): packing one block of keys, quantising a block of
 * queries, their product. */
void attention_pack_keys_int16(const attention_context *context, const attention_head *head,
                               const attention_block *block);
void attention_quantise_query_int16(const attention_context *context,
                                    const attention_worker *worker, size_t rows);
void attention_scores_int16(const attention_context *context, const attention_worker *worker,
                            const attention_head *head, size_t rows, size_t first_key,
                            size_t padded);

/* The same with 8-bit integers (attention_int8.c). First the mean of all keys of a head is needed:
 * `keys` is all of them. Scores are 16-bit integers then, of word_factors floats. */
void attention_center(const attention_context *context, const attention_head *head,
                      const attention_block *keys);
void attention_pack_keys_int8(const attention_context *context, const attention_head *head,
                              const attention_block *block, const attention_worker *worker);
void attention_quantise_query_int8(const attention_context *context, const attention_worker *worker,
                                   size_t rows);
void attention_scores_int8(const attention_context *context, const attention_worker *worker,
                           const attention_head *head, size_t rows, size_t first_key,
                           size_t padded);

/* The product of the softmax's weights and values, and packing those: the same two ways. */
void attention_pack_values_int16(const attention_context *context, const attention_head *head,
                                 const attention_block *block);
void attention_weigh_int16(const attention_context *context, const attention_worker *worker,
                           const attention_head *head, size_t rows, size_t first_key,
                           size_t padded);
void attention_pack_values_int8(const attention_context *context, const attention_head *head,
                                const attention_block *block);
void attention_weigh_int8(const attention_context *context, const attention_worker *worker,
                          const attention_head *head, size_t rows, size_t first_key, size_t padded);

#endif
