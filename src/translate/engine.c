/* The engine: what all models of a program share. */
#include "translate/translate.h"

#include <stdatomic.h>
#include <string.h>

struct onestep_engine {
    atomic_uint references;
    thread_pool *pool;
    backend *backend;
    logger log;
    uint64_t memory_limit;
    uint64_t memory_allowed; /* asked once: it takes reading files */
};

/* A level by its name; false when there is none. */
static bool level_parse(const char *name, cpu_level *level)
{
    for (int l = CPU_LEVEL_PLAIN; l <= CPU_LEVEL_AVX512_BF16; l++) {
        if (strcmp(cpu_level_name((cpu_level)l), name) == 0) {
            *level = (cpu_level)l;
            return true;
        }
    }
    return false;
}

static onestep_status choose_level(const char *name, cpu_level *level, onestep_error *error)
{
    cpu_features features;
    cpu_features_detect(&features);
    *level = features.level;
    if (!name) {
        return ONESTEP_OK;
    }
    cpu_level wanted;
    if (!level_parse(name, &wanted)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "instruction set \"%s\" is unknown (plain, neon, avx2, avx512...)", name);
    }
    if (!cpu_level_runs(&features, wanted)) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "instruction set %s is not what this CPU has (%s)", name,
                         cpu_level_name(features.level));
    }
    *level = wanted;
    return ONESTEP_OK;
}

onestep_status engine_create(onestep_engine **result, const onestep_engine_options *options,
                             onestep_error *error)
{
    *result = NULL;
    cpu_level level;
    onestep_status status = choose_level(options->isa, &level, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    onestep_engine *engine = memory_allocate(1, sizeof *engine, error);
    if (!engine) {
        return ONESTEP_ERROR_MEMORY;
    }
    atomic_init(&engine->references, 1);
    engine->memory_limit = options->memory_limit;
    engine->memory_allowed = memory_default_bytes();
    engine->log = (logger){
        .callback = options->log, .user_data = options->log_user_data, .level = options->log_level};
    status = thread_pool_create(&engine->pool, options->threads, error);
    if (status == ONESTEP_OK) {
        status = options->backend == ONESTEP_BACKEND_REFERENCE
                     ? backend_reference_create(&engine->backend, engine->pool, error)
                     : backend_cpu_create(&engine->backend, engine->pool, level, error);
    }
    if (status != ONESTEP_OK) {
        engine_release(engine);
        return status;
    }
    log_message(&engine->log, ONESTEP_LOG_INFO, "backend %s, instruction set %s, %u threads",
                engine->backend->functions->name, cpu_level_name(engine->backend->level),
                thread_pool_size(engine->pool));
    *result = engine;
    return ONESTEP_OK;
}

onestep_engine *engine_retain(onestep_engine *engine)
{
    atomic_fetch_add_explicit(&engine->references, 1, memory_order_relaxed);
    return engine;
}

void engine_release(onestep_engine *engine)
{
    if (!engine || atomic_fetch_sub_explicit(&engine->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    backend_destroy(&engine->backend);
    thread_pool_destroy(&engine->pool);
    memory_free(engine);
}

thread_pool *engine_pool(const onestep_engine *engine)
{
    return engine->pool;
}

const logger *engine_log(const onestep_engine *engine)
{
    return &engine->log;
}

backend *engine_backend(const onestep_engine *engine)
{
    return engine->backend;
}

uint64_t engine_memory_allowed(const onestep_engine *engine)
{
    return engine->memory_allowed;
}

uint64_t engine_memory_limit(const onestep_engine *engine)
{
    return engine->memory_limit;
}
