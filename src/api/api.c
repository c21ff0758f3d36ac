/* The public functions: argument checks, older and smaller structs, then the folders below. */
#include "translate/translate.h"

#include <math.h>
#include <string.h>

const char *onestep_status_text(onestep_status status)
{
    switch (status) {
    case ONESTEP_OK:
        return "success";
    case ONESTEP_ERROR_ARGUMENT:
        return "invalid argument";
    case ONESTEP_ERROR_MEMORY:
        return "out of memory";
    case ONESTEP_ERROR_IO:
        return "input or output failed";
    case ONESTEP_ERROR_FORMAT:
        return "damaged or unknown file";
    case ONESTEP_ERROR_UNSUPPORTED:
        return "not supported";
    case ONESTEP_ERROR_MISMATCH:
        return "parts do not fit together";
    case ONESTEP_ERROR_CANCELLED:
        return "cancelled";
    case ONESTEP_ERROR_INTERNAL:
        return "internal error";
    }
    return "unknown status";
}

#define VERSION_TEXT_2(number) #number
#define VERSION_TEXT(number)   VERSION_TEXT_2(number)

const char *onestep_version(void)
{
    return VERSION_TEXT(ONESTEP_VERSION_MAJOR) "." VERSION_TEXT(
        ONESTEP_VERSION_MINOR) "." VERSION_TEXT(ONESTEP_VERSION_PATCH);
}

static onestep_status missing(onestep_error *error, const char *what)
{
    return error_set(error, ONESTEP_ERROR_ARGUMENT, "%s is NULL", what);
}

/* Copies a caller's struct, which may be of an older version and smaller, over the defaults in
 * `complete`. A size that is no struct of any version is refused: it was not initialised. */
static onestep_status struct_complete(void *complete, size_t complete_size, const void *given,
                                      const char *what, onestep_error *error)
{
    size_t size;
    if (!given) {
        return ONESTEP_OK;
    }
    memcpy(&size, given, sizeof size);
    if (size < 2 * sizeof size || size > complete_size) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%s has the size %zu (expected at most %zu): initialise it with its _init "
                         "function",
                         what, size, complete_size);
    }
    memcpy(complete, given, size);
    return ONESTEP_OK;
}

/* ---- engine ------------------------------------------------------------------------------------
 */

void onestep_engine_options_init(onestep_engine_options *options)
{
    *options = (onestep_engine_options){.size = sizeof *options, .log_level = ONESTEP_LOG_WARNING};
}

onestep_status onestep_engine_create(onestep_engine **engine, const onestep_engine_options *options,
                                     onestep_error *error)
{
    if (!engine) {
        return missing(error, "engine");
    }
    *engine = NULL;
    onestep_engine_options complete;
    onestep_engine_options_init(&complete);
    onestep_status status =
        struct_complete(&complete, sizeof complete, options, "onestep_engine_options", error);
    return status == ONESTEP_OK ? engine_create(engine, &complete, error) : status;
}

void onestep_engine_destroy(onestep_engine **engine)
{
    if (engine) {
        engine_release(*engine);
        *engine = NULL;
    }
}

unsigned onestep_engine_threads(const onestep_engine *engine)
{
    return thread_pool_size(engine_pool(engine));
}

const char *onestep_engine_isa(const onestep_engine *engine)
{
    return cpu_level_name(engine_backend(engine)->level);
}

/* ---- base and model
 * ------------------------------------------------------------------------------ */

onestep_status onestep_base_open(onestep_base **base, onestep_engine *engine, const char *folder,
                                 onestep_error *error)
{
    if (!base || !engine || !folder) {
        return missing(error, !base ? "base" : !engine ? "engine" : "folder");
    }
    return base_open(base, engine, folder, error);
}

void onestep_base_destroy(onestep_base **base)
{
    if (base) {
        base_release(*base);
        *base = NULL;
    }
}

void onestep_model_options_init(onestep_model_options *options)
{
    *options = (onestep_model_options){
        .size = sizeof *options, .lora_alpha_unet = NAN, .lora_alpha_vae = NAN};
}

onestep_status onestep_model_open(onestep_model **model, onestep_base *base, const char *path,
                                  const onestep_model_options *options, onestep_error *error)
{
    if (!model || !base || !path) {
        return missing(error, !model ? "model" : !base ? "base" : "checkpoint");
    }
    *model = NULL;
    onestep_model_options complete;
    onestep_model_options_init(&complete);
    onestep_status status =
        struct_complete(&complete, sizeof complete, options, "onestep_model_options", error);
    return status == ONESTEP_OK ? model_open(model, base, path, &complete, error) : status;
}

void onestep_model_destroy(onestep_model **model)
{
    if (model) {
        model_release(*model);
        *model = NULL;
    }
}

onestep_family onestep_model_family(const onestep_model *model)
{
    return model_checkpoint(model)->family;
}

int onestep_model_is_stochastic(const onestep_model *model)
{
    return model_checkpoint(model)->stochastic;
}

const char *onestep_model_precision(const onestep_model *model)
{
    return model_precision_text(model);
}

const char *onestep_task_name(size_t index)
{
    const task *t = task_at(index);
    return t ? t->name : NULL;
}

/* ---- images
 * --------------------------------------------------------------------------------------- */

onestep_status onestep_image_load(onestep_image *image, const char *path, onestep_error *error)
{
    if (!image || !path) {
        return missing(error, !image ? "image" : "path");
    }
    return image_load(image, path, NULL, error);
}

onestep_status onestep_image_decode(onestep_image *image, const void *bytes, size_t size,
                                    onestep_error *error)
{
    if (!image || (!bytes && size)) {
        return missing(error, !image ? "image" : "bytes");
    }
    return image_decode(image, bytes, size, NULL, error);
}

onestep_status onestep_image_save(const onestep_image *image, const char *path, int quality,
                                  onestep_error *error)
{
    if (!image || !path) {
        return missing(error, !image ? "image" : "path");
    }
    onestep_status status = image_check(image, "the picture", error);
    if (status != ONESTEP_OK || image->type == ONESTEP_PIXEL_U8) {
        return status != ONESTEP_OK ? status : image_save(image, path, quality, NULL, error);
    }
    onestep_image bytes;
    status = image_to_bytes(&bytes, image, error);
    if (status == ONESTEP_OK) {
        status = image_save(&bytes, path, quality, NULL, error);
        image_destroy(&bytes);
    }
    return status;
}

void onestep_image_free(onestep_image *image)
{
    image_destroy(image);
}

/* ---- sessions and requests
 * -------------------------------------------------------------------------- */

onestep_status onestep_session_create(onestep_session **session, onestep_model *model,
                                      onestep_error *error)
{
    if (!session || !model) {
        return missing(error, !session ? "session" : "model");
    }
    return session_create(session, model, error);
}

void onestep_session_destroy(onestep_session **session)
{
    if (session) {
        session_destroy(session);
    }
}

void onestep_request_init(onestep_request *request)
{
    *request = (onestep_request){.size = sizeof *request,
                                 .gamma = 0.4,
                                 .seed = 42,
                                 .low_threshold = 100,
                                 .high_threshold = 200};
}

void onestep_result_init(onestep_result *result)
{
    *result = (onestep_result){.size = sizeof *result};
}

void onestep_result_free(onestep_result *result)
{
    if (result) {
        image_destroy(&result->image);
        image_destroy(&result->control);
    }
}

onestep_status onestep_translate(onestep_session *session, const onestep_request *request,
                                 onestep_result *result, onestep_error *error)
{
    return onestep_translate_batch(session, request, 1, result, error);
}

/* The caller's arrays are of the caller's struct size, which the first element tells. */
onestep_status onestep_translate_batch(onestep_session *session, const onestep_request *requests,
                                       size_t count, onestep_result *results, onestep_error *error)
{
    if (!session || (count && (!requests || !results))) {
        return missing(error, !session ? "session" : !requests ? "requests" : "results");
    }
    onestep_request *complete = memory_allocate(count, sizeof *complete, error);
    onestep_result *finished = memory_allocate(count, sizeof *finished, error);
    onestep_status status = complete && finished ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    size_t request_size = count ? requests[0].size : 0, result_size = count ? results[0].size : 0;
    if (status == ONESTEP_OK && count &&
        (result_size < 2 * sizeof(size_t) || result_size > sizeof *finished)) {
        status = error_set(error, ONESTEP_ERROR_ARGUMENT,
                           "onestep_result is not initialised (onestep_result_init)");
    }
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        onestep_request_init(&complete[i]);
        status =
            struct_complete(&complete[i], sizeof complete[i],
                            (const char *)requests + i * request_size, "onestep_request", error);
        onestep_result_init(&finished[i]);
    }
    if (status == ONESTEP_OK) {
        status = session_translate(session, complete, count, finished, error);
    }
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        char *destination = (char *)results + i * result_size;
        finished[i].size = result_size;
        memcpy(destination, &finished[i], result_size);
    }
    memory_free(complete);
    memory_free(finished);
    return status;
}
