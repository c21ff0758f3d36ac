/* The base model: configs, mapped weights, tokenizer, text encoder with its cache. */
#include "text/text.h"
#include "translate/names.h"
#include "translate/translate.h"

#include "plan/plan.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* Captions whose states are kept: 0.3 MB each for SD-Turbo. */
#define TEXT_CACHE_ENTRIES 32

typedef struct text_cache_entry {
    int32_t *ids; /* NULL: free */
    float *states;
    uint64_t used; /* counter of the last use */
} text_cache_entry;

struct onestep_base {
    atomic_uint references;
    onestep_engine *engine;
    char *folder;
    clip_config clip;
    unet_config unet;
    vae_config vae;
    scheduler_config scheduler;
    weight_file *weights[BASE_PARTS];
    tokenizer *tokenizer;

    /* The text encoder runs one caption at a time, whoever asks. */
    pthread_mutex_t text_mutex;
    bool text_mutex_ready;
    weight_set *text_weights;
    weight_cache *text_weight_cache;
    graph *text_graph;
    plan *text_plan;
    text_cache_entry text_cache[TEXT_CACHE_ENTRIES];
    uint64_t text_uses;
};

static const char *const part_folders[BASE_PARTS] = {"text_encoder", "unet", "vae"};

/* Reads BASE/<part>/<file> with a config reader. */
typedef onestep_status (*config_reader)(void *settings, const char *path, onestep_error *error);

static onestep_status read_config(const char *folder, const char *part, const char *file,
                                  config_reader reader, void *settings, onestep_error *error)
{
    char *path = string_format(error, "%s/%s/%s", folder, part, file);
    if (!path) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = reader(settings, path, error);
    memory_free(path);
    return status;
}

static onestep_status read_clip(void *settings, const char *path, onestep_error *error)
{
    return clip_config_read(settings, path, error);
}

static onestep_status read_unet(void *settings, const char *path, onestep_error *error)
{
    return unet_config_read(settings, path, error);
}

static onestep_status read_vae(void *settings, const char *path, onestep_error *error)
{
    return vae_config_read(settings, path, error);
}

static onestep_status read_scheduler(void *settings, const char *path, onestep_error *error)
{
    return scheduler_config_read(settings, path, error);
}

static onestep_status read_configs(onestep_base *base, onestep_error *error)
{
    const char *folder = base->folder;
    onestep_status status =
        read_config(folder, "text_encoder", "config.json", read_clip, &base->clip, error);
    if (status == ONESTEP_OK) {
        status = read_config(folder, "unet", "config.json", read_unet, &base->unet, error);
    }
    if (status == ONESTEP_OK) {
        status = read_config(folder, "vae", "config.json", read_vae, &base->vae, error);
    }
    if (status == ONESTEP_OK) {
        status = read_config(folder, "scheduler", "scheduler_config.json", read_scheduler,
                             &base->scheduler, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    if (base->unet.in_channels != base->vae.latent_channels ||
        base->unet.out_channels != base->vae.latent_channels) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: the UNet takes %zu and gives %zu channels, the VAE's latent has %zu",
                         folder, base->unet.in_channels, base->unet.out_channels,
                         base->vae.latent_channels);
    }
    if (base->unet.text_width[0] != base->clip.hidden) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: the UNet's cross_attention_dim is %zu, the text encoder's "
                         "hidden_size %zu",
                         folder, base->unet.text_width[0], base->clip.hidden);
    }
    return ONESTEP_OK;
}

static onestep_status open_weights(onestep_base *base, base_part part, onestep_error *error)
{
    char *component = path_join(base->folder, part_folders[part], error);
    char *path = NULL;
    onestep_status status =
        component ? diffusers_find_weights(&path, component, error) : ONESTEP_ERROR_MEMORY;
    if (status == ONESTEP_OK) {
        status = weight_file_open(&base->weights[part], path, error);
    }
    memory_free(path);
    memory_free(component);
    return status;
}

static onestep_status open_tokenizer(onestep_base *base, onestep_error *error)
{
    char *folder = path_join(base->folder, "tokenizer", error);
    if (!folder) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = tokenizer_create(&base->tokenizer, folder, error);
    memory_free(folder);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (tokenizer_length(base->tokenizer) > base->clip.positions) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: the tokenizer gives %zu tokens, the text encoder takes %zu",
                         base->folder, tokenizer_length(base->tokenizer), base->clip.positions);
    }
    if ((size_t)tokenizer_largest_id(base->tokenizer) >= base->clip.vocabulary) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: the tokenizer has ids up to %d, the text encoder's vocab_size is %zu",
                         base->folder, (int)tokenizer_largest_id(base->tokenizer),
                         base->clip.vocabulary);
    }
    return ONESTEP_OK;
}

/* The canonical name of a base tensor; false for one to be ignored. */
static bool base_tensor_name(base_part part, const char *name, char result[NAME_BYTES])
{
    static const char prefix[] = "text_model.";
    name_role role;
    if (!canonical_name(name, result, &role) || role != NAME_FULL) {
        snprintf(result, NAME_BYTES, "%.200s", name);
        return true; /* will be reported as unused */
    }
    if (part == BASE_TEXT) {
        if (strncmp(result, prefix, sizeof prefix - 1) == 0) {
            memmove(result, result + sizeof prefix - 1, strlen(result) - (sizeof prefix - 1) + 1);
        }
        /* A table of 0, 1, 2... that older transformers saved; the projection belongs to CLIP's
         * comparison of text and image and is not part of the last hidden state. */
        return strcmp(result, "embeddings.position_ids") != 0 &&
               strcmp(result, "text_projection.weight") != 0;
    }
    return true;
}

onestep_status base_fill(const onestep_base *base, base_part part, weight_set *set,
                         onestep_error *error)
{
    const weight_file *file = base->weights[part];
    for (size_t i = 0; i < weight_file_count(file); i++) {
        const named_tensor *t = weight_file_tensor(file, i);
        char name[NAME_BYTES];
        if (!base_tensor_name(part, t->name, name)) {
            continue;
        }
        onestep_status status =
            weight_set_has(set, name)
                ? error_set(error, ONESTEP_ERROR_MISMATCH, "tensor %s is given twice", name)
                : weight_set_add_full(set, name, t, coefficient_constant(1), false, error);
        if (status != ONESTEP_OK) {
            error_prefix(error, "%s", weight_file_path(file));
            return status;
        }
    }
    return ONESTEP_OK;
}

/* The text encoder's graph and plan; also the check that its weights are complete. */
static onestep_status build_text_encoder(onestep_base *base, onestep_error *error)
{
    onestep_status status = weight_set_create(&base->text_weights, "text_encoder", error);
    if (status == ONESTEP_OK) {
        status = base_fill(base, BASE_TEXT, base->text_weights, error);
    }
    if (status == ONESTEP_OK) {
        status = graph_create(&base->text_graph, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    graph *g = base->text_graph;
    size_t dims[4] = {1, 1, tokenizer_length(base->tokenizer), 1};
    tensor_id ids = graph_input(g, "ids", ELEMENT_I32, dims);
    tensor_id states = clip_text_build(g, &base->clip, base->text_weights, ids);
    graph_output_add(g, "text", states);
    status = graph_check(g, error);
    const char *unused = weight_set_unused(base->text_weights);
    if (status == ONESTEP_OK && unused) {
        status = error_set(error, ONESTEP_ERROR_MISMATCH, "tensor %s is not used", unused);
    }
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", weight_file_path(base->weights[BASE_TEXT]));
        return status;
    }
    /* A caption is encoded once: its weights are streamed, not kept. */
    status = weight_cache_create(&base->text_weight_cache, 0, error);
    if (status == ONESTEP_OK) {
        weight_cache_release_sources(base->text_weight_cache, true);
    }
    return status;
}

onestep_status base_open(onestep_base **result, onestep_engine *engine, const char *folder,
                         onestep_error *error)
{
    *result = NULL;
    onestep_base *base = memory_allocate(1, sizeof *base, error);
    if (!base) {
        return ONESTEP_ERROR_MEMORY;
    }
    atomic_init(&base->references, 1);
    base->engine = engine_retain(engine);
    onestep_status status = ONESTEP_ERROR_MEMORY;
    if (pthread_mutex_init(&base->text_mutex, NULL) != 0) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "no mutex for the text encoder");
        goto failed;
    }
    base->text_mutex_ready = true;
    base->folder = string_duplicate(folder, error);
    if (!base->folder) {
        goto failed;
    }
    if (!path_is_folder(folder)) {
        status = error_set(error, ONESTEP_ERROR_IO,
                           "%s: not a folder (expected a diffusers folder with text_encoder, "
                           "tokenizer, unet, vae and scheduler in it)",
                           folder);
        goto failed;
    }
    status = read_configs(base, error);
    for (base_part part = BASE_TEXT; part < BASE_PARTS && status == ONESTEP_OK; part++) {
        status = open_weights(base, part, error);
    }
    if (status == ONESTEP_OK) {
        status = open_tokenizer(base, error);
    }
    if (status == ONESTEP_OK) {
        status = build_text_encoder(base, error);
    }
    if (status != ONESTEP_OK) {
        goto failed;
    }
    *result = base;
    return ONESTEP_OK;
failed:
    base_release(base);
    return status;
}

onestep_base *base_retain(onestep_base *base)
{
    atomic_fetch_add_explicit(&base->references, 1, memory_order_relaxed);
    return base;
}

void base_release(onestep_base *base)
{
    if (!base || atomic_fetch_sub_explicit(&base->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    plan_destroy(&base->text_plan);
    graph_destroy(&base->text_graph);
    weight_cache_destroy(&base->text_weight_cache);
    weight_set_destroy(&base->text_weights);
    for (size_t i = 0; i < TEXT_CACHE_ENTRIES; i++) {
        memory_free(base->text_cache[i].ids);
        memory_free(base->text_cache[i].states);
    }
    tokenizer_destroy(&base->tokenizer);
    for (base_part part = BASE_TEXT; part < BASE_PARTS; part++) {
        weight_file_close(&base->weights[part]);
    }
    if (base->text_mutex_ready) {
        pthread_mutex_destroy(&base->text_mutex);
    }
    memory_free(base->folder);
    engine_release(base->engine);
    memory_free(base);
}

onestep_engine *base_engine(const onestep_base *base)
{
    return base->engine;
}

const char *base_folder(const onestep_base *base)
{
    return base->folder;
}

const clip_config *base_clip(const onestep_base *base)
{
    return &base->clip;
}

const unet_config *base_unet(const onestep_base *base)
{
    return &base->unet;
}

const vae_config *base_vae(const onestep_base *base)
{
    return &base->vae;
}

const scheduler_config *base_scheduler(const onestep_base *base)
{
    return &base->scheduler;
}

const weight_file *base_weights(const onestep_base *base, base_part part)
{
    return base->weights[part];
}

size_t base_token_count(const onestep_base *base)
{
    return tokenizer_length(base->tokenizer);
}

onestep_status base_tokenize(const onestep_base *base, const char *caption, int32_t *ids, bool *cut,
                             onestep_error *error)
{
    prompt_usage usage;
    onestep_status status =
        tokenizer_encode(base->tokenizer, caption, strlen(caption), ids, &usage, error);
    if (status == ONESTEP_OK && cut) {
        *cut = usage.kept < usage.needed;
    }
    return status;
}

/* ---- text states -------------------------------------------------------------------------------
 */

static size_t ids_bytes(const onestep_base *base)
{
    return base_token_count(base) * sizeof(int32_t);
}

/* The cached entry of these ids, or NULL. Called with the mutex held. */
static text_cache_entry *cache_find(onestep_base *base, const int32_t *ids)
{
    for (size_t i = 0; i < TEXT_CACHE_ENTRIES; i++) {
        text_cache_entry *entry = &base->text_cache[i];
        if (entry->ids && memcmp(entry->ids, ids, ids_bytes(base)) == 0) {
            entry->used = ++base->text_uses;
            return entry;
        }
    }
    return NULL;
}

/* Keeps a copy in the place of the least recently used entry. Without memory nothing is kept. */
static void cache_keep(onestep_base *base, const int32_t *ids, const float *states,
                       size_t state_count)
{
    text_cache_entry *oldest = &base->text_cache[0];
    for (size_t i = 1; i < TEXT_CACHE_ENTRIES; i++) {
        if (base->text_cache[i].used < oldest->used) {
            oldest = &base->text_cache[i];
        }
    }
    int32_t *kept_ids = memory_allocate(1, ids_bytes(base), NULL);
    float *kept_states = memory_allocate(state_count, sizeof *kept_states, NULL);
    if (!kept_ids || !kept_states) {
        memory_free(kept_ids);
        memory_free(kept_states);
        return;
    }
    memory_free(oldest->ids);
    memory_free(oldest->states);
    memcpy(kept_ids, ids, ids_bytes(base));
    memcpy(kept_states, states, state_count * sizeof *kept_states);
    *oldest = (text_cache_entry){.ids = kept_ids, .states = kept_states, .used = ++base->text_uses};
}

double base_text_operations(onestep_base *base, const int32_t *ids)
{
    pthread_mutex_lock(&base->text_mutex);
    bool cached = cache_find(base, ids) != NULL;
    pthread_mutex_unlock(&base->text_mutex);
    return cached ? 0 : graph_cost(base->text_graph, NULL);
}

typedef struct text_run {
    float *states;
    text_progress progress;
    void *context;
} text_run;

static onestep_status text_output(void *context, const char *name, const size_t dims[4],
                                  const float *values, onestep_error *error)
{
    (void)name;
    (void)error;
    text_run *run = context;
    memcpy(run->states, values, dims[0] * dims[1] * dims[2] * dims[3] * sizeof *values);
    return ONESTEP_OK;
}

static onestep_status text_step(void *context, double done, const char *stage, onestep_error *error)
{
    (void)stage;
    text_run *run = context;
    return run->progress ? run->progress(run->context, done, error) : ONESTEP_OK;
}

static onestep_status run_text_encoder(onestep_base *base, const int32_t *ids, text_run *run,
                                       onestep_error *error)
{
    if (!base->text_plan) {
        lower_options options = {.precision = PRECISION_F32,
                                 .weights = base->text_weight_cache,
                                 .log = engine_log(base->engine)};
        onestep_status status = plan_create(&base->text_plan, engine_backend(base->engine),
                                            base->text_graph, &options, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    float scalars[SCALAR_COUNT] = {1};
    plan_input input = {.name = "ids", .data = ids};
    plan_run_arguments arguments = {.inputs = &input,
                                    .input_count = 1,
                                    .scalars = scalars,
                                    .output = text_output,
                                    .progress = text_step,
                                    .context = run};
    onestep_status status = plan_run(base->text_plan, &arguments, error);
    plan_release_memory(base->text_plan);
    return status;
}

onestep_status base_encode_text(onestep_base *base, const int32_t *ids, float *states,
                                text_progress progress, void *context, onestep_error *error)
{
    size_t state_count = base_token_count(base) * base->clip.hidden;
    onestep_status status = ONESTEP_OK;
    pthread_mutex_lock(&base->text_mutex);
    text_cache_entry *entry = cache_find(base, ids);
    if (entry) {
        memcpy(states, entry->states, state_count * sizeof *states);
    } else {
        text_run run = {.states = states, .progress = progress, .context = context};
        status = run_text_encoder(base, ids, &run, error);
        if (status == ONESTEP_OK) {
            cache_keep(base, ids, states, state_count);
        }
    }
    pthread_mutex_unlock(&base->text_mutex);
    return status;
}
