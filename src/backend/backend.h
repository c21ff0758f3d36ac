/* backend: the seam between what is computed and how.
 *
 * A backend lowers a graph to a program: a list of steps on values. The plan gives every value a
 * place in one arena and runs the steps in order. Outside this folder nobody dereferences an
 * activation or a packed weight: there are only handles. */
#ifndef ONESTEP_BACKEND_H
#define ONESTEP_BACKEND_H

#include "graph/graph.h"

typedef struct backend backend;
typedef struct weight_cache weight_cache;

/* ---- memory --------------------------------------------------------------------------------- */

/* Memory of the backend's device; the reference and cpu backends use aligned host memory. */
typedef struct device_buffer device_buffer;

/* ---- programs ------------------------------------------------------------------------------- */

typedef enum value_kind {
    VALUE_INTERNAL, /* lives from the step that makes it to its last use */
    VALUE_INPUT,    /* uploaded before the run, lives to its last use */
    VALUE_OUTPUT    /* lives from the step that makes it to the end of the run */
} value_kind;

typedef struct program_value {
    value_kind kind;
    size_t bytes;
    tensor_id tensor; /* of the graph, or TENSOR_NONE for a backend's own (statistics...) */
} program_value;

#define STEP_INPUTS  8
#define STEP_OUTPUTS 3

typedef struct program_step {
    const char *algorithm; /* static: "winograd 6x6 f32", "group_norm", ... */
    const char *stage;     /* of the node it came from */
    int node;              /* the (last) graph node it computes */
    unsigned input_count, output_count;
    int inputs[STEP_INPUTS], outputs[STEP_OUTPUTS]; /* value indices */
    int in_place; /* index into inputs whose memory outputs[0] may take over, or -1 */
    size_t scratch_bytes;
    size_t weight_number_bytes; /* of a number of its weight, as it is computed in */
    double operations;          /* direct count, for progress and rates */
    double predicted_seconds;   /* 0: no model */
} program_step;

typedef struct program {
    program_value *values;
    int value_count, value_capacity;
    program_step *steps;
    int step_count, step_capacity;
    int *tensor_values; /* by tensor: value index, or -1 when fused away or not computed */
    void *lowered;      /* the backend's own: kernels, weights by step */
} program;

/* Of products; sums, normalisations, softmax and whatever a backend has no such kernels for stay in
 * float32. */
typedef enum precision { PRECISION_F32, PRECISION_BF16, PRECISION_INT16 } precision;

typedef struct lower_options {
    precision precision;
    weight_cache *weights; /* holds packed weights; outlives the program */
    const logger *log;
} lower_options;

/* Where the arguments of a run are. */
typedef struct step_bindings {
    device_buffer *arena;
    const size_t *offsets; /* by value: bytes into the arena */
    size_t scratch_offset;
    const float *scalars; /* SCALAR_COUNT */
} step_bindings;

/* ---- the table of functions ------------------------------------------------------------------ */

typedef struct backend_functions {
    const char *name;
    void (*destroy)(backend *self);
    onestep_status (*allocate)(backend *self, size_t bytes, device_buffer **buffer,
                               onestep_error *error);
    void (*release)(backend *self, device_buffer *buffer);
    void (*upload)(backend *self, device_buffer *buffer, size_t offset, const void *host,
                   size_t bytes);
    void (*download)(backend *self, const device_buffer *buffer, size_t offset, void *host,
                     size_t bytes);
    /* Turns a checked graph into a program (freed by program_destroy). */
    onestep_status (*lower)(backend *self, const graph *g, const lower_options *options,
                            program *result, onestep_error *error);
    void (*lowered_destroy)(backend *self, void *lowered);
    /* Runs one step. Fails only for want of memory (packing weights) or damaged weights (NaN). */
    onestep_status (*run)(backend *self, const program *p, int step, const step_bindings *bindings,
                          onestep_error *error);
    /* Waits until everything that was started has finished. */
    void (*sync)(backend *self);
} backend_functions;

struct backend {
    const backend_functions *functions;
    thread_pool *pool; /* borrowed from the engine */
    cpu_level level;
};

/* `level` is lowered to what the machine has. The pool must outlive the backend. */
onestep_status backend_reference_create(backend **result, thread_pool *pool,
                                        onestep_error *error) MUST_USE;
onestep_status backend_cpu_create(backend **result, thread_pool *pool, cpu_level level,
                                  onestep_error *error) MUST_USE;
void backend_destroy(backend **b);
/* Floating-point operations a second that this machine reaches at best in float32 with the
 * backend's threads and instruction set: measured now, in about 0.1 s. */
double backend_cpu_peak(const backend *b);

/* Helpers for backends that build programs. */
int program_value_add(program *p, value_kind kind, size_t bytes, tensor_id tensor,
                      onestep_error *error); /* index, or -1 */
/* Zeroed, but in_place is -1 and weights are computed in float32; or NULL. */
program_step *program_step_add(program *p, onestep_error *error);
void program_destroy(backend *b, program *p);

/* ---- weights -------------------------------------------------------------------------------- */

/* Evaluates rows (first dimension) first..first+count-1 of a weight for given scalars into float
 * [count][rest]. The bytes do not depend on how rows are split into calls. Terms whose coefficient
 * is exactly 0 are skipped. Safe from several threads; best with 16 rows a call or more, since the
 * low-rank `down` is converted once a call and 48 rows. Uses 52 KB of stack. */
void weight_evaluate(const weight_expression *weight, const float *scalars, size_t first,
                     size_t count, float *result);

/* Packed weights of one model, shared by its sessions and thread-safe. Keyed by expression, packing
 * format and the values of the scalars that the expression depends on. What does not
 * fit within the limit is dropped after its use, so that a part of the weights stays from
 * picture to picture; what has not been used for long gives way to it. Limit 0 keeps nothing longer
 * than its use (streaming), SIZE_MAX everything. Up to 64 MB of memory that became free are kept
 * beside the limit, to be used again, and up to 128 MB as far as the limit leaves room. */
onestep_status weight_cache_create(weight_cache **cache, size_t limit,
                                   onestep_error *error) MUST_USE;
void weight_cache_destroy(weight_cache **cache);
void weight_cache_set_limit(weight_cache *cache, size_t limit);
size_t weight_cache_bytes(weight_cache *cache); /* in use and kept */
/* Whether the pages of terms that lie in a file's mapping go back to the system after packing: they
 * count as resident memory, and are read again from the file when they are touched. */
void weight_cache_release_sources(weight_cache *cache, bool release);
/* Whether what is asked for the first time is dropped after its use: a single picture then needs no
 * memory for weights that nobody asks for again. At first everything is kept. */
void weight_cache_keep_repeated(weight_cache *cache, bool repeated);

/* Fills `bytes` of 64-byte aligned memory with a weight's packed form. */
typedef onestep_status (*weight_packer)(void *context, const weight_expression *weight,
                                        const float *scalars, void *packed, onestep_error *error);

/* Gives the packed form, packing it when it is not there; must be released. `format` tells packed
 * forms of one weight apart (algorithm, precision, ISA level). */
onestep_status weight_cache_acquire(weight_cache *cache, const weight_expression *weight,
                                    uint64_t format, size_t bytes, const float *scalars,
                                    weight_packer packer, void *context, const void **packed,
                                    onestep_error *error) MUST_USE;
void weight_cache_release(weight_cache *cache, const void *packed);

#endif
