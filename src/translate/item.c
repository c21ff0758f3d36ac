#include "translate/item.h"

#include <math.h>
#include <string.h>

/* ---- checking
 * -------------------------------------------------------------------------------------- */

static onestep_status resolve_caption(item *it, const onestep_model *model, onestep_error *error)
{
    const task *t = model_task(model);
    it->caption = it->request->prompt ? it->request->prompt : t ? t->caption : NULL;
    if (!it->caption) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "a prompt is needed: %s has no fixed caption",
                         t ? t->name : "an own checkpoint");
    }
    return ONESTEP_OK;
}

static onestep_status resolve_direction(item *it, const onestep_model *model, onestep_error *error)
{
    const task *t = model_task(model);
    onestep_direction given = it->request->direction;
    if (model_is_paired(model)) {
        return given == ONESTEP_DIRECTION_DEFAULT
                   ? ONESTEP_OK
                   : error_set(error, ONESTEP_ERROR_ARGUMENT,
                               "direction is for unpaired checkpoints; this one is paired");
    }
    if (t && given != ONESTEP_DIRECTION_DEFAULT) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "direction cannot be given with the task %s, which has its own", t->name);
    }
    if (!t && given == ONESTEP_DIRECTION_DEFAULT) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "an own unpaired checkpoint needs a direction (a2b or b2a)");
    }
    it->direction = t ? t->direction : given;
    return ONESTEP_OK;
}

static onestep_status resolve_control(item *it, const onestep_model *model, onestep_error *error)
{
    const task *t = model_task(model);
    onestep_control given = it->request->control;
    if (!model_is_paired(model)) {
        it->control_kind = ONESTEP_CONTROL_IMAGE;
        return given == ONESTEP_CONTROL_DEFAULT || given == ONESTEP_CONTROL_IMAGE
                   ? ONESTEP_OK
                   : error_set(error, ONESTEP_ERROR_ARGUMENT,
                               "control is for paired checkpoints; this one is unpaired");
    }
    if (given != ONESTEP_CONTROL_DEFAULT) {
        it->control_kind = given;
    } else if (t) {
        it->control_kind = t->control;
    } else {
        it->control_kind =
            model_checkpoint(model)->stochastic ? ONESTEP_CONTROL_SKETCH : ONESTEP_CONTROL_IMAGE;
    }
    return ONESTEP_OK;
}

static onestep_status resolve_gamma(item *it, const onestep_model *model, onestep_error *error)
{
    if (!model_checkpoint(model)->stochastic) {
        it->gamma = 1;
        return ONESTEP_OK;
    }
    double gamma = it->request->gamma;
    if (!(gamma >= 0 && gamma <= 1)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "gamma %g is outside [0, 1]", gamma);
    }
    it->gamma = (float)gamma;
    return ONESTEP_OK;
}

/* ---- preparation
 * ----------------------------------------------------------------------------------- */

/* Replaces a picture by the result of a step, which owns its pixels. */
static void image_replace(onestep_image *image, onestep_image *result)
{
    image_destroy(image);
    *image = *result;
    *result = (onestep_image){0};
}

/* The picture at a size that the network takes. */
static onestep_status prepare_size(item *it, const onestep_model *model, onestep_image *picture,
                                   onestep_error *error)
{
    const onestep_request *request = it->request;
    thread_pool *pool = engine_pool(base_engine(model_base(model)));
    if (request->fit == ONESTEP_FIT_EXACT) {
        return image_pad_reflect(picture, &it->source, error);
    }
    if (model_is_paired(model)) {
        bool fits = it->source.width % 8 == 0 && it->source.height % 8 == 0;
        return fits ? image_copy(picture, &it->source, error)
                    : image_prepare_paired(picture, &it->source, pool, error);
    }
    image_prep prep = IMAGE_PREP_RESIZE_512X512;
    if (request->image_prep && !image_prep_parse(request->image_prep, &prep)) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "image_prep \"%.100s\" is unknown",
                         request->image_prep);
    }
    random_state random;
    random_seed(&random, RANDOM_CPU, request->seed);
    onestep_status status = image_prepare(picture, &it->source, prep, &random, pool, error);
    if (status == ONESTEP_OK && (picture->width % 8 != 0 || picture->height % 8 != 0)) {
        status = error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                           "image_prep no_resize needs sides that are multiples of 8, the picture "
                           "is %ux%u (use fit exact instead)",
                           picture->width, picture->height);
    }
    return status;
}

static onestep_status prepare_control(item *it, const onestep_model *model, onestep_error *error)
{
    const onestep_request *request = it->request;
    thread_pool *pool = engine_pool(base_engine(model_base(model)));
    onestep_image picture = {0};
    onestep_status status = prepare_size(it, model, &picture, error);
    if (status == ONESTEP_OK) {
        switch (it->control_kind) {
        case ONESTEP_CONTROL_CANNY:
            status = image_canny(&it->control, &picture, request->low_threshold,
                                 request->high_threshold, pool, error);
            break;
        case ONESTEP_CONTROL_SKETCH:
            status = image_sketch(&it->control, &picture, error);
            break;
        case ONESTEP_CONTROL_DEFAULT:
        case ONESTEP_CONTROL_IMAGE:
            image_replace(&it->control, &picture);
            break;
        }
    }
    image_destroy(&picture);
    return status;
}

static onestep_status prepare_source(item *it, const onestep_model *model, onestep_error *error)
{
    const onestep_request *request = it->request;
    onestep_status status = image_check(&request->image, "the input picture", error);
    if (status != ONESTEP_OK) {
        return status;
    }
    onestep_image bytes = {0};
    status = request->image.type == ONESTEP_PIXEL_F32
                 ? image_to_bytes(&bytes, &request->image, error)
                 : image_copy(&bytes, &request->image, error);
    if (status == ONESTEP_OK) {
        status = image_limit_side(&it->source, &bytes, request->max_side,
                                  engine_pool(base_engine(model_base(model))), error);
    }
    image_destroy(&bytes);
    return status;
}

onestep_status item_prepare(item *it, onestep_model *model, const onestep_request *request,
                            onestep_error *error)
{
    *it = (item){.request = request};
    onestep_status status = resolve_caption(it, model, error);
    if (status == ONESTEP_OK) {
        status = resolve_direction(it, model, error);
    }
    if (status == ONESTEP_OK) {
        status = resolve_control(it, model, error);
    }
    if (status == ONESTEP_OK) {
        status = resolve_gamma(it, model, error);
    }
    if (status == ONESTEP_OK) {
        status = prepare_source(it, model, error);
    }
    if (status == ONESTEP_OK) {
        status = prepare_control(it, model, error);
    }
    if (status == ONESTEP_OK) {
        const onestep_base *base = model_base(model);
        it->ids = memory_allocate(base_token_count(base), sizeof *it->ids, error);
        bool cut = false;
        status =
            it->ids ? base_tokenize(base, it->caption, it->ids, &cut, error) : ONESTEP_ERROR_MEMORY;
        if (status == ONESTEP_OK && cut) {
            log_message(engine_log(base_engine(base)), ONESTEP_LOG_WARNING,
                        "the prompt is longer than %zu tokens: its end is ignored",
                        base_token_count(base) - 2);
        }
    }
    return status;
}

void item_free(item *it)
{
    image_destroy(&it->source);
    image_destroy(&it->control);
    memory_free(it->ids);
    it->ids = NULL;
}

void item_control_values(const item *it, const onestep_model *model, float *values)
{
    bool paired = model_is_paired(model);
    image_to_floats(values, &it->control, paired ? IMAGE_RANGE_UNIT : IMAGE_RANGE_SIGNED);
}

/* ---- noise
 * ------------------------------------------------------------------------------------------ */

void channels_first(float *result, const float *values, size_t pixels, size_t channels)
{
    for (size_t c = 0; c < channels; c++) {
        for (size_t p = 0; p < pixels; p++) {
            result[c * pixels + p] = values[p * channels + c];
        }
    }
}

void channels_last(float *result, const float *values, size_t pixels, size_t channels)
{
    for (size_t c = 0; c < channels; c++) {
        for (size_t p = 0; p < pixels; p++) {
            result[p * channels + c] = values[c * pixels + p];
        }
    }
}

static onestep_status check_given(const float *given, size_t count, size_t expected,
                                  const char *name, onestep_error *error)
{
    if (given && count != expected) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "%s has %zu values, this picture needs %zu",
                         name, count, expected);
    }
    return ONESTEP_OK;
}

onestep_status item_noise(const item *it, size_t height, size_t width, size_t channels,
                          float *noise, float *posterior_noise, onestep_error *error)
{
    const onestep_request *request = it->request;
    size_t pixels = height * width, count = pixels * channels;
    onestep_status status = check_given(request->posterior_noise, request->posterior_noise_count,
                                        count, "posterior_noise", error);
    if (status == ONESTEP_OK && noise) {
        status = check_given(request->noise, request->noise_count, count, "noise", error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    float *draw = memory_allocate(count, sizeof *draw, error);
    if (!draw) {
        return ONESTEP_ERROR_MEMORY;
    }
    /* A given draw takes the place of its own only: the other keeps its place in the order. */
    random_state random;
    random_seed(&random, request->rng == ONESTEP_RNG_CPU ? RANDOM_CPU : RANDOM_CUDA, request->seed);
    if (noise) {
        random_normal(&random, draw, count);
        channels_last(noise, request->noise ? request->noise : draw, pixels, channels);
    }
    random_normal(&random, draw, count);
    if (request->posterior == ONESTEP_POSTERIOR_MEAN) {
        memset(posterior_noise, 0, count * sizeof *posterior_noise);
    } else {
        channels_last(posterior_noise, request->posterior_noise ? request->posterior_noise : draw,
                      pixels, channels);
    }
    memory_free(draw);
    return ONESTEP_OK;
}

/* ---- the way back
 * ----------------------------------------------------------------------------------- */

onestep_status item_finish(const item *it, const onestep_model *model, const float *values,
                           onestep_result *result, onestep_error *error)
{
    uint32_t width = it->source.width, height = it->source.height;
    onestep_image picture = {0}, sized = {0}, control = {0};
    onestep_status status =
        image_from_floats(&picture, values, it->control.width, it->control.height, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    bool same = picture.width == width && picture.height == height;
    bool exact = it->request->fit == ONESTEP_FIT_EXACT;
    if (!same && exact) {
        status = image_crop(&sized, &picture, 0, 0, width, height, error);
    } else if (!same && !model_is_paired(model)) {
        status = image_resize(&sized, &picture, width, height,
                              engine_pool(base_engine(model_base(model))), error);
    }
    if (status == ONESTEP_OK) {
        status = !same && exact ? image_crop(&control, &it->control, 0, 0, width, height, error)
                                : image_copy(&control, &it->control, error);
    }
    if (status != ONESTEP_OK) {
        image_destroy(&picture);
        image_destroy(&sized);
        return status;
    }
    if (sized.pixels) {
        image_destroy(&picture);
    }
    result->image = sized.pixels ? sized : picture;
    result->control = control;
    return ONESTEP_OK;
}
