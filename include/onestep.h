/* onestep: one-step image-to-image translation (pix2pix-turbo and CycleGAN-turbo, arXiv
 * 2403.12036) as a C library.
 *
 * Objects, each made from the one before:
 *
 *   onestep_engine   thread pool, CPU level, memory limit, log
 *   onestep_base     a base model (SD-Turbo): a diffusers folder
 *   onestep_model    a base with a checkpoint; immutable and shareable between threads
 *   onestep_session  runs requests on a model, one at a time; owns plans and activation memory
 *
 * Rules that hold everywhere:
 *  - A function that can fail returns onestep_status and fills the caller's onestep_error (which
 *    may be NULL). On failure no output is changed, except that created objects are set to NULL.
 *  - Engines, bases and models are reference-counted: a later object keeps the earlier ones alive,
 *    so they may be released in any order. `X_destroy(&x)` accepts NULL and sets x to NULL.
 *  - Structs with a `size` field are initialised by their `_init` function, then changed: so they
 *    can grow in later versions without breaking programs.
 *  - The library never prints, never exits, has no mutable globals, does not touch the locale,
 *    signal handlers or floating-point state, and works in a forked child.
 *  - Strings are UTF-8 and NUL-terminated. Paths are as the system has them. */
#ifndef ONESTEP_H
#define ONESTEP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ONESTEP_VERSION_MAJOR 0
#define ONESTEP_VERSION_MINOR 1
#define ONESTEP_VERSION_PATCH 0

#if defined(__GNUC__)
#define ONESTEP_API      __attribute__((visibility("default")))
#define ONESTEP_MUST_USE __attribute__((warn_unused_result))
#else
#define ONESTEP_API
#define ONESTEP_MUST_USE
#endif

/* ---- status and errors -------------------------------------------------------------------- */

typedef enum onestep_status {
    ONESTEP_OK = 0,
    ONESTEP_ERROR_ARGUMENT,    /* the caller asked for something that makes no sense */
    ONESTEP_ERROR_MEMORY,      /* no memory, or the memory limit is too small */
    ONESTEP_ERROR_IO,          /* a file cannot be opened, read or written */
    ONESTEP_ERROR_FORMAT,      /* a file is damaged, truncated or not what it should be */
    ONESTEP_ERROR_UNSUPPORTED, /* well-formed, but not something this version or CPU can do */
    ONESTEP_ERROR_MISMATCH,    /* checkpoint and base, or request and model, do not fit together */
    ONESTEP_ERROR_CANCELLED,   /* the progress callback asked to stop */
    ONESTEP_ERROR_INTERNAL     /* a bug in onestep: please report it */
} onestep_status;

/* Filled by a failing call; owned by the caller, no initialisation needed. `message` is one line
 * that names the file, tensor or option, and what was expected and found. */
typedef struct onestep_error {
    onestep_status code;
    char message[1020];
} onestep_error;

/* "invalid argument", ...: a short description of a status; never NULL. */
ONESTEP_API const char *onestep_status_text(onestep_status status);

/* "0.1.0" */
ONESTEP_API const char *onestep_version(void);

/* ---- callbacks ---------------------------------------------------------------------------- */

typedef enum onestep_log_level {
    ONESTEP_LOG_ERROR,
    ONESTEP_LOG_WARNING,
    ONESTEP_LOG_INFO, /* choices, sizes, times, memory */
    ONESTEP_LOG_DEBUG
} onestep_log_level;

/* `message` is one line without a newline, valid during the call. May be called from any thread
 * that calls the library, one call at a time an engine. */
typedef void (*onestep_log_callback)(void *user_data, onestep_log_level level, const char *message);

/* `fraction` of the work (floating-point operations) of the current request, 0 to 1, never
 * falling; `stage` is "text", "encode", "unet" or "decode". Called on the thread that translates.
 * Return 0 to go on; anything else cancels the request, which then fails with
 * ONESTEP_ERROR_CANCELLED and leaves the session ready for the next one. */
typedef int (*onestep_progress_callback)(void *user_data, double fraction, const char *stage);

/* ---- engine ------------------------------------------------------------------------------- */

typedef enum onestep_backend {
    ONESTEP_BACKEND_CPU,      /* fast kernels for this machine's instruction set */
    ONESTEP_BACKEND_REFERENCE /* plain C, slow: the oracle */
} onestep_backend;

typedef enum onestep_precision {
    ONESTEP_PRECISION_AUTO, /* the fastest that keeps its fidelity on this CPU */
    ONESTEP_PRECISION_F32,
    ONESTEP_PRECISION_BF16, /* needs AVX512_BF16 */
    ONESTEP_PRECISION_INT16
} onestep_precision;

typedef struct onestep_engine onestep_engine;

typedef struct onestep_engine_options {
    size_t size; /* sizeof(onestep_engine_options), set by onestep_engine_options_init */
    onestep_backend backend;
    unsigned threads;      /* 0: the CPUs allowed by affinity and cgroup quota */
    uint64_t memory_limit; /* bytes of resident memory to stay under (plus 100 MB); 0: a model keeps
                              packed weights until about 2 GB are taken (5 GB in float32), at most a
                              quarter of the process's memory, and pictures take what they need */
    onestep_log_callback log;
    void *log_user_data;
    onestep_log_level log_level;
    /* NULL: the highest level of the CPU whose kernels have run on real silicon (up to avx2); or a
     * level that the CPU has: "plain", "avx2", "avx512", "avx512vnni"... */
    const char *isa;
} onestep_engine_options;

ONESTEP_API void onestep_engine_options_init(onestep_engine_options *options);
/* `options` NULL: the defaults. */
ONESTEP_API onestep_status onestep_engine_create(onestep_engine **engine,
                                                 const onestep_engine_options *options,
                                                 onestep_error *error) ONESTEP_MUST_USE;
ONESTEP_API void onestep_engine_destroy(onestep_engine **engine);
/* Threads in the pool; the instruction set in use ("avx2", ...). */
ONESTEP_API unsigned onestep_engine_threads(const onestep_engine *engine);
ONESTEP_API const char *onestep_engine_isa(const onestep_engine *engine);

/* ---- base and model ----------------------------------------------------------------------- */

typedef struct onestep_base onestep_base;
typedef struct onestep_model onestep_model;

/* Opens a diffusers folder (text_encoder, tokenizer, unet, vae, scheduler). Weights are mapped,
 * not read. */
ONESTEP_API onestep_status onestep_base_open(onestep_base **base, onestep_engine *engine,
                                             const char *folder,
                                             onestep_error *error) ONESTEP_MUST_USE;
ONESTEP_API void onestep_base_destroy(onestep_base **base);

typedef enum onestep_family { ONESTEP_FAMILY_PAIRED, ONESTEP_FAMILY_UNPAIRED } onestep_family;

typedef enum onestep_direction {
    ONESTEP_DIRECTION_DEFAULT, /* the task's own */
    ONESTEP_DIRECTION_A2B,
    ONESTEP_DIRECTION_B2A
} onestep_direction;

typedef enum onestep_control {
    ONESTEP_CONTROL_DEFAULT, /* the task's own; for own checkpoints image, or sketch with a twin */
    ONESTEP_CONTROL_IMAGE,
    ONESTEP_CONTROL_CANNY,
    ONESTEP_CONTROL_SKETCH
} onestep_control;

typedef struct onestep_model_options {
    size_t size;
    const char *task; /* one of onestep_task_name(), or NULL: the checkpoint's contents tell */
    onestep_precision precision;
    double lora_alpha_unet, lora_alpha_vae; /* override of the official alpha; NaN: official */
} onestep_model_options;

ONESTEP_API void onestep_model_options_init(onestep_model_options *options);
/* Opens an official .pkl (or .safetensors) checkpoint over a base. Checks every tensor's name and
 * shape. `options` NULL: no task, automatic precision. */
ONESTEP_API onestep_status onestep_model_open(onestep_model **model, onestep_base *base,
                                              const char *checkpoint,
                                              const onestep_model_options *options,
                                              onestep_error *error) ONESTEP_MUST_USE;
ONESTEP_API void onestep_model_destroy(onestep_model **model);
ONESTEP_API onestep_family onestep_model_family(const onestep_model *model);
/* 1 when the model takes gamma and noise (twin conv_in), else 0. */
ONESTEP_API int onestep_model_is_stochastic(const onestep_model *model);
/* What `auto` came to, e.g. "f32" or "int16 (UNet f32)"; lives as long as the model. */
ONESTEP_API const char *onestep_model_precision(const onestep_model *model);

/* The six official tasks: names for index 0..5, NULL beyond. */
ONESTEP_API const char *onestep_task_name(size_t index);

/* ---- images ------------------------------------------------------------------------------- */

typedef enum onestep_pixel_type {
    ONESTEP_PIXEL_U8, /* RGB bytes, 0..255 */
    ONESTEP_PIXEL_F32 /* RGB floats, 0..1 */
} onestep_pixel_type;

/* Three interleaved channels (RGB). `stride` is the distance between rows in bytes. Borrowed in
 * requests; in results `pixels` belongs to the image and onestep_image_free releases it. */
typedef struct onestep_image {
    uint32_t width, height;
    size_t stride;
    onestep_pixel_type type;
    void *pixels;
} onestep_image;

/* PNG, JPEG or WebP to 8-bit RGB as the official code loads it, EXIF orientation applied. */
ONESTEP_API onestep_status onestep_image_load(onestep_image *image, const char *path,
                                              onestep_error *error) ONESTEP_MUST_USE;
ONESTEP_API onestep_status onestep_image_decode(onestep_image *image, const void *bytes,
                                                size_t size, onestep_error *error) ONESTEP_MUST_USE;
/* The suffix of `path` tells the format; `quality` 1..100 for JPEG and WebP (0: 95). The file is
 * written whole or not at all. */
ONESTEP_API onestep_status onestep_image_save(const onestep_image *image, const char *path,
                                              int quality, onestep_error *error) ONESTEP_MUST_USE;
ONESTEP_API void onestep_image_free(onestep_image *image);

/* ---- sessions and requests ---------------------------------------------------------------- */

typedef struct onestep_session onestep_session;

/* A session is used by one thread at a time; sessions of one model share its weights. */
ONESTEP_API onestep_status onestep_session_create(onestep_session **session, onestep_model *model,
                                                  onestep_error *error) ONESTEP_MUST_USE;
ONESTEP_API void onestep_session_destroy(onestep_session **session);

typedef enum onestep_fit {
    ONESTEP_FIT_OFFICIAL, /* the official sizes */
    ONESTEP_FIT_EXACT     /* no resize: reflection padding to multiples of 8, cropped back */
} onestep_fit;

typedef enum onestep_rng { ONESTEP_RNG_CUDA, ONESTEP_RNG_CPU } onestep_rng;
typedef enum onestep_posterior {
    ONESTEP_POSTERIOR_SAMPLE,
    ONESTEP_POSTERIOR_MEAN
} onestep_posterior;

/* A tensor handed to the dump callback: row-major NCHW float32, or int64 for "tokens". */
typedef struct onestep_tensor {
    const char *stage; /* tokens text control moments posterior_noise latent noise unet_in
                          skip0..skip3 eps x0 decoded */
    int is_int64;
    unsigned rank;
    int64_t shape[4];
    const void *data; /* valid during the call */
} onestep_tensor;

/* Return 0 to go on, anything else to cancel. */
typedef int (*onestep_dump_callback)(void *user_data, const onestep_tensor *tensor);

typedef struct onestep_request {
    size_t size;
    onestep_image image; /* the input picture */
    const char *prompt;  /* NULL: the task's fixed caption (unpaired tasks only) */
    double gamma;        /* guidance of the stochastic family, 0..1 */
    int64_t seed;
    onestep_rng rng;
    onestep_posterior posterior;
    onestep_direction direction;
    onestep_control control;
    const char *image_prep; /* unpaired: an official name; NULL: resize_512x512 */
    onestep_fit fit;
    uint32_t max_side;                    /* larger inputs are first scaled down; 0: no limit */
    double low_threshold, high_threshold; /* Canny; finite and not negative */
    const float *noise, *posterior_noise; /* given draws, NCHW, or NULL */
    size_t noise_count, posterior_noise_count; /* their numbers of values; must fit exactly */
    onestep_progress_callback progress;
    void *progress_user_data;
    onestep_dump_callback dump;
    void *dump_user_data;
} onestep_request;

ONESTEP_API void onestep_request_init(onestep_request *request);

typedef struct onestep_result {
    size_t size;
    onestep_image image; /* 8-bit RGB; release with onestep_result_free */
    onestep_image
        control; /* what the network saw, 8-bit RGB (edges white on black); may be empty */
    double text_seconds, encode_seconds, unet_seconds, decode_seconds, total_seconds;
    uint64_t operations; /* floating-point operations counted as direct convolutions */
} onestep_result;

ONESTEP_API void onestep_result_init(onestep_result *result);
ONESTEP_API void onestep_result_free(onestep_result *result);

/* Translates one picture. The result does not depend on threads, on other requests or on what the
 * session did before. */
ONESTEP_API onestep_status onestep_translate(onestep_session *session,
                                             const onestep_request *request, onestep_result *result,
                                             onestep_error *error) ONESTEP_MUST_USE;

/* Translates `count` pictures of any sizes; equal sizes run together. Every item equals its single
 * run, bit for bit. `results` has `count` initialised elements. */
ONESTEP_API onestep_status onestep_translate_batch(onestep_session *session,
                                                   const onestep_request *requests, size_t count,
                                                   onestep_result *results,
                                                   onestep_error *error) ONESTEP_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif
