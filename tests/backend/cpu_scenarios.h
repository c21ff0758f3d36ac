/* Small graphs with made-up weights and inputs, run on the cpu and the reference backend. */
#ifndef TESTS_BACKEND_CPU_SCENARIOS_H
#define TESTS_BACKEND_CPU_SCENARIOS_H

#include "support.h"

#define SCENARIO_INPUTS   8
#define SCENARIO_WEIGHTS  40
#define SCENARIO_OUTPUTS  8
#define SCENARIO_PICTURES 3

/* One graph being built: for all pictures of a batch, or for one of them alone. Weights and inputs
 * are made by the first build and the same for every later one. */
typedef struct scenario {
    graph *g;
    uint64_t seed;
    uint64_t random;
    size_t batch;   /* of the graph being built */
    size_t picture; /* the first picture of the inputs that it sees */
    test_weight *weights[SCENARIO_WEIGHTS];
    size_t weight_count, weights_used;
    void *data[SCENARIO_INPUTS];
    size_t picture_bytes[SCENARIO_INPUTS]; /* 0: the same for every picture */
    test_input inputs[SCENARIO_INPUTS];
    char names[SCENARIO_INPUTS][8];
    size_t input_count, inputs_used;
} scenario;

/* Builds the graph with an output "y" whose first dimension is the batch. */
typedef void (*scenario_builder)(scenario *s);

/* A number below `limit`; the same in every build of one scenario. */
size_t scenario_random(scenario *s, size_t limit);
size_t scenario_pick(scenario *s, const size_t *choices, size_t count);
#define SCENARIO_PICK(s, ...)                                                                      \
    scenario_pick(s, (const size_t[]){__VA_ARGS__},                                                \
                  sizeof((const size_t[]){__VA_ARGS__}) / sizeof(size_t))

/* [batch,h,w,c] and [1,h,w,c] of normal numbers about `mean`. */
tensor_id scenario_input(scenario *s, size_t height, size_t width, size_t channels, float mean,
                         float deviation);
tensor_id scenario_shared_input(scenario *s, size_t height, size_t width, size_t channels);
/* [batch,1,tokens,1] ids below `limit` */
tensor_id scenario_ids(scenario *s, size_t tokens, size_t limit);
tensor_id scenario_weight(scenario *s, size_t d0, size_t d1, size_t d2, size_t d3);
/* With LoRA scaled by gamma. */
tensor_id scenario_low_rank_weight(scenario *s, size_t d0, size_t d1, size_t d2, size_t d3);
/* [c] about one, and about zero */
tensor_id scenario_gain(scenario *s, size_t channels);
tensor_id scenario_bias(scenario *s, size_t channels);
tensor_id scenario_conv(scenario *s, tensor_id x, size_t channels, unsigned kernel, bool bias);
tensor_id scenario_linear(scenario *s, tensor_id x, size_t channels, bool bias);
tensor_id scenario_group_norm(scenario *s, tensor_id x, size_t groups);

/* Runs the graph on both backends with 1, 2, 3 and 7 threads, on every level of this machine
 * (without `bytes` not on those that multiply bytes), and each picture alone; fails when the cpu
 * backend differs from the reference by more than `tolerance` or from itself by a bit. */
void scenario_check(scenario_builder build, const char *name, uint64_t seed, precision wanted,
                    bool bytes, double tolerance);

/* The steps that the cpu backend makes of it, as "algorithm, algorithm, ..."; "product" stands for
 * every algorithm of convolutions and linear layers. */
char *scenario_steps(scenario_builder build, uint64_t seed);

/* How the cpu backend keeps what it computes of `batch` pictures. */
typedef struct scenario_memory {
    unsigned halves; /* tensors stored as halves */
    size_t bytes;    /* of all values */
} scenario_memory;

scenario_memory scenario_memory_of(scenario_builder build, size_t batch, precision wanted);

/* All outputs of the graph for one picture, by the cpu backend's best kernels. */
typedef struct scenario_results {
    unsigned count;
    float *values[SCENARIO_OUTPUTS];
    size_t counts[SCENARIO_OUTPUTS];
} scenario_results;

/* Outputs take over the places of inputs where they may. With `apart` there is a run where they do
 * not, too, whose "y" must have the same bytes. */
scenario_results scenario_run(scenario_builder build, precision wanted, bool apart);
void scenario_results_free(scenario_results *results);

#endif
