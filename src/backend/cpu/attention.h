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

typedef struct attention_plan {
    attention_shape shape;
    /* 16-bit integers in both products, an error of about 3e-4: `query_offsets` then count integers
     * once the queries are quantised. */
    bool integers;
    size_t query_block, key_block;
    size_t padded_keys, padded_width; /* whole panels */
    size_t chunk, chunks;             /* channels with a scale of their own (integers) */
    /* Floats of one head: packed keys, their scales, values, their scales. */
    size_t key_floats, key_scales, value_floats, value_scales, head_floats;
    size_t worker_floats;
    size_t scratch_bytes;
    double predicted_seconds;
} attention_plan;

/* False when sizes overflow. `threads` workers will take part. */
bool attention_plan_create(attention_plan *plan, const attention_shape *shape, bool integers,
                           const conv_kernels *products, unsigned threads) MUST_USE;

typedef struct attention_arguments {
    const float *query, *key, *value; /* [batch][tokens][heads * width] */
    float *output;                    /* may be `query` */
    float scale;                      /* of the logits */
} attention_arguments;

void attention_run(const attention_plan *plan, const attention_arguments *arguments,
                   const conv_kernels *products, const tensor_kernels *kernels, void *scratch,
                   thread_pool *pool);

/* At most so many channels share a scale of integers. */
#define ATTENTION_CHUNK 128

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
    float *query, *scores, *sums;
    float *largest, *sum, *factor;
    uint32_t *query_offsets, *score_offsets;
    /* with integers */
    float *query_scales; /* [chunk][query] */
    int16_t *query_integers, *score_integers;
    uint32_t *row_numbers, *zeros;
} attention_worker;

/* One head of one picture, packed. */
typedef struct attention_head {
    float *keys, *key_scales, *values, *value_scales;
} attention_head;

/* Floats between rows of queries and of scores. */
size_t attention_query_stride(const attention_plan *plan);
size_t attention_score_stride(const attention_plan *plan);

/* Where keys first..first+count-1 of one head are, before packing. */
typedef struct attention_block {
    const float *key, *value; /* of the first key */
    size_t stride;            /* between tokens */
    size_t first, count;
} attention_block;

/* Packing one block of keys, and the two products, with 16-bit integers (attention_int16.c). */
void attention_pack_int16(const attention_context *context, const attention_head *head,
                          const attention_block *block);
void attention_quantise_query(const attention_context *context, const attention_worker *worker,
                              size_t rows);
void attention_scores_int16(const attention_context *context, const attention_worker *worker,
                            const attention_head *head, size_t rows, size_t first_key,
                            size_t padded);
void attention_weigh_int16(const attention_context *context, const attention_worker *worker,
                           const attention_head *head, size_t rows, size_t first_key,
                           size_t padded);

#endif
