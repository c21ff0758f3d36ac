/* base: what every other folder stands on.
 *
 * Errors, checked sizes and memory, names, files, logging, the thread pool, CPU features and the
 * official random generators. Nothing here knows of pictures or networks. */
#ifndef ONESTEP_BASE_H
#define ONESTEP_BASE_H

#include <onestep.h>

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- errors ------------------------------------------------------------------------------- */

#define PRINTF_LIKE(format_index, first_argument)                                                  \
    __attribute__((format(printf, format_index, first_argument)))
#define MUST_USE __attribute__((warn_unused_result))

/* Fills `error` (may be NULL) and returns `code`, so that a failing function can end with
 * `return error_set(error, ...)`. The message is one line: what failed, on which file, tensor or
 * option, what was expected and found, what to do. Longer messages are cut. */
onestep_status error_set(onestep_error *error, onestep_status code, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* Puts "prefix: " in front of an error that a callee has set (to add a file name, say). */
void error_prefix(onestep_error *error, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- checked sizes ------------------------------------------------------------------------ */

/* Each returns false, and leaves *result alone, when the true result does not fit. */
static inline MUST_USE bool size_multiply(size_t a, size_t b, size_t *result)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *result = product;
    return true;
}

static inline MUST_USE bool size_add(size_t a, size_t b, size_t *result)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *result = sum;
    return true;
}

static inline size_t size_minimum(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t size_maximum(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Rounds up to a multiple (any positive multiple, small enough not to overflow: callers check). */
static inline size_t size_round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Zeroed memory for `count` elements of `size` bytes; NULL with ONESTEP_ERROR_MEMORY set in
 * `error` when there is none or the size overflows. A count or size of 0 gives a valid pointer.
 * Released by memory_free. */
void *memory_allocate(size_t count, size_t size, onestep_error *error) MUST_USE;

/* Grows or shrinks a block from memory_allocate (or NULL); the old block stays valid on failure.
 * New bytes are not zeroed. */
void *memory_resize(void *block, size_t count, size_t size, onestep_error *error) MUST_USE;

void memory_free(void *block);

/* Uninitialised memory for activations and packed weights: aligned to 64 bytes and, from 4 MiB up,
 * its own mapping with huge pages asked for, which returns to the system when freed. `bytes` is
 * remembered by the caller and given back to memory_free_aligned (NULL is ignored). */
void *memory_allocate_aligned(size_t bytes, onestep_error *error) MUST_USE;
void memory_free_aligned(void *block, size_t bytes);

/* Copies: NULL with the error set when there is no memory. */
char *string_duplicate(const char *text, onestep_error *error) MUST_USE;
char *string_format(onestep_error *error, const char *format, ...) PRINTF_LIKE(2, 3) MUST_USE;

/* A growing byte string, always NUL-terminated once something was appended; zero-initialise, and
 * release with text_buffer_free. Appending to a buffer that failed before does nothing: check
 * `failed` once at the end. */
typedef struct text_buffer {
    char *data;
    size_t length, capacity;
    bool failed;
} text_buffer;

void text_buffer_append(text_buffer *buffer, const void *bytes, size_t length);
void text_buffer_print(text_buffer *buffer, const char *format, ...) PRINTF_LIKE(2, 3);
void text_buffer_free(text_buffer *buffer);

/* ---- names -> indices --------------------------------------------------------------------- */

/* A hash map from byte strings (copied; may hold NUL) to 32-bit values. Hashing is keyed per map,
 * so that hostile names cannot make it slow. */
typedef struct name_map name_map;

onestep_status name_map_create(name_map **map, onestep_error *error) MUST_USE;
void name_map_destroy(name_map **map);
/* Adds a name, or changes the value of one that is there. */
onestep_status name_map_put(name_map *map, const char *name, size_t length, uint32_t value,
                            onestep_error *error) MUST_USE;
bool name_map_get(const name_map *map, const char *name, size_t length, uint32_t *value);
size_t name_map_count(const name_map *map);

/* The candidate nearest to `word` by edit distance, or NULL when none is near enough to suggest. */
const char *nearest_name(const char *word, const char *const *candidates, size_t count);

/* ---- files -------------------------------------------------------------------------------- */

/* A whole file mapped read-only. Refuses what is not a regular file. */
typedef struct mapped_file {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;
} mapped_file;

onestep_status mapped_file_open(mapped_file *file, const char *path, onestep_error *error) MUST_USE;
void mapped_file_close(mapped_file *file);
/* Tells the system that the pages wholly inside [data, data+size) are not needed in memory now
 * (they are read again from the file when touched) or are wanted soon. Any pointer into any
 * mapping may be given. */
void mapped_memory_release(const void *data, size_t size);
void mapped_memory_prefetch(const void *data, size_t size);

/* Reads a whole file of at most `limit` bytes; `*bytes` is NUL-terminated beyond `*size` and
 * released with memory_free. "-" is not special here. */
onestep_status file_read(const char *path, size_t limit, uint8_t **bytes, size_t *size,
                         onestep_error *error) MUST_USE;

/* Writes a whole file so that `path` holds either the old or the new content, never a part: to a
 * temporary name in the same folder, flushed, then renamed. */
onestep_status file_write_atomic(const char *path, const void *bytes, size_t size,
                                 onestep_error *error) MUST_USE;
/* The same for content that lies in several pieces. */
typedef struct file_part {
    const void *bytes;
    size_t size;
} file_part;
onestep_status file_write_parts(const char *path, const file_part *parts, size_t count,
                                onestep_error *error) MUST_USE;

/* Makes a folder and its missing parents; an existing folder is success. */
onestep_status folder_create(const char *path, onestep_error *error) MUST_USE;
bool path_is_folder(const char *path);
bool path_exists(const char *path);
/* "folder/name", in memory the caller frees; `name` is taken as it is. */
char *path_join(const char *folder, const char *name, onestep_error *error) MUST_USE;

/* ---- element types ------------------------------------------------------------------------ */

typedef enum element_type {
    ELEMENT_F32,
    ELEMENT_F16,
    ELEMENT_BF16,
    ELEMENT_F64,
    ELEMENT_I64,
    ELEMENT_I32,
    ELEMENT_I16,
    ELEMENT_I8,
    ELEMENT_U8,
    ELEMENT_BOOL,
    ELEMENT_TYPE_COUNT
} element_type;

size_t element_size(element_type type);
const char *element_name(element_type type); /* "f32", "bf16", ... */

/* IEEE half and bfloat16, round to nearest even, exact on every machine (NaN stays NaN). */
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);
static inline float bfloat16_to_float(uint16_t value)
{
    union {
        uint32_t bits;
        float value;
    } pun = {.bits = (uint32_t)value << 16};
    return pun.value;
}
uint16_t float_to_bfloat16(float value);
/* Converts `count` elements of a floating type (f32, f16, bf16, f64) to float, fast. The source
 * may be unaligned. */
void convert_to_float(float *destination, const void *source, element_type type, size_t count);

/* ---- logging ------------------------------------------------------------------------------ */

/* The library never prints: it calls the engine's log callback, when there is one. */
typedef struct logger {
    onestep_log_callback callback; /* may be NULL */
    void *user_data;
    onestep_log_level level; /* more detailed messages are dropped */
} logger;

void log_message(const logger *log, onestep_log_level level, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* Seconds on a clock that never steps back. */
double monotonic_seconds(void);

/* ---- threads ------------------------------------------------------------------------------ */

/* A pool of threads that run the iterations of a loop; the caller takes part. Several callers may
 * use one pool at once: their loops run one after another. After fork() the child starts afresh.
 * Which thread runs an iteration is not defined, so results must not depend on it: cut reductions
 * by index, never by worker. */
typedef struct thread_pool thread_pool;

/* `index` runs over 0..count-1; `worker` is below thread_pool_size and is never used by two
 * iterations at the same time, so that it can pick a scratch buffer. */
typedef void (*thread_pool_task)(void *context, size_t index, unsigned worker);

/* `threads` 0: thread_default_count(). */
onestep_status thread_pool_create(thread_pool **pool, unsigned threads,
                                  onestep_error *error) MUST_USE;
void thread_pool_destroy(thread_pool **pool);
unsigned thread_pool_size(const thread_pool *pool);
/* Returns when every iteration has run. Must not be called from inside a task. */
void thread_pool_run(thread_pool *pool, size_t count, thread_pool_task task, void *context);
/* CPUs that this process may use: affinity mask and cgroup quota. */
unsigned thread_default_count(void);
/* Memory that this process may use, in bytes: the machine's, or less by cgroup limit; 0: unknown.
 */
uint64_t memory_default_bytes(void);

/* ---- CPU features ------------------------------------------------------------------------- */

typedef enum cpu_level {
    CPU_LEVEL_PLAIN,       /* portable C */
    CPU_LEVEL_NEON,        /* AArch64 */
    CPU_LEVEL_AVX2,        /* AVX2 + FMA + F16C */
    CPU_LEVEL_AVX_VNNI,    /* AVX2 + AVX-VNNI */
    CPU_LEVEL_AVX512,      /* AVX-512 F, BW, DQ, VL */
    CPU_LEVEL_AVX512_VNNI, /* + VNNI */
    CPU_LEVEL_AVX512_BF16  /* + VNNI + BF16 */
} cpu_level;

typedef struct cpu_features {
    cpu_level level;                     /* the highest level that CPU and system both support */
    bool avx_vnni;                       /* which not every CPU with AVX-512 has */
    size_t l1_bytes, l2_bytes, l3_bytes; /* data caches; 0 when unknown; l3 as seen by one core */
    char model[64];                      /* "AMD EPYC 7763", or "" */
} cpu_features;

void cpu_features_detect(cpu_features *features);
/* Whether code of a level runs on such a machine. */
bool cpu_level_runs(const cpu_features *features, cpu_level level);
const char *cpu_level_name(cpu_level level); /* "avx2", ... */

/* ---- random numbers (behaviour.md section 6) ----------------------------------------------- */

typedef enum random_generator {
    RANDOM_CUDA, /* Philox 4x32-10 as torch.randn on a CUDA device */
    RANDOM_CPU   /* MT19937 as torch.randn on the CPU */
} random_generator;

/* The state of one torch generator after manual_seed(seed). */
typedef struct random_state {
    random_generator generator;
    uint64_t seed;
    uint64_t draws;      /* Philox: number of earlier draws */
    uint32_t words[624]; /* MT19937 */
    unsigned next_word;
    bool has_spare; /* the second of a pair that a draw of an odd number below 16 left over */
    double spare;
} random_state;

void random_seed(random_state *state, random_generator generator, int64_t seed);
/* The next torch.randn of `count` float32 values, in torch's (row-major) order. The same bytes on
 * every machine: logarithm, sine and cosine are our own. */
void random_normal(random_state *state, float *values, size_t count);
/* The next 32-bit word of a RANDOM_CPU state. */
uint32_t random_mt19937_word(random_state *state);

#endif
