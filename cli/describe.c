#include "cli/describe.h"

#include "cli/terminal.h"
#include "image/image.h"
#include "translate/translate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- weights
 * ---------------------------------------------------------------------------------------- */

/* Tensors, numbers and bytes, and how many numbers of each type. */
static json_t *describe_tensors(const weight_file *file)
{
    uint64_t numbers[ELEMENT_TYPE_COUNT] = {0}, total = 0, bytes = 0;
    for (size_t i = 0; i < weight_file_count(file); i++) {
        const named_tensor *t = weight_file_tensor(file, i);
        numbers[t->type] += tensor_element_count(t);
        total += tensor_element_count(t);
        bytes += t->bytes;
    }
    json_t *types = json_object();
    for (int type = 0; type < ELEMENT_TYPE_COUNT; type++) {
        if (numbers[type]) {
            json_object_set_new(types, element_name((element_type)type),
                                json_integer((json_int_t)numbers[type]));
        }
    }
    return json_pack("{s:I, s:I, s:I, s:o}", "tensors", (json_int_t)weight_file_count(file),
                     "numbers", (json_int_t)total, "bytes", (json_int_t)bytes, "numbers_by_type",
                     types);
}

/* The names and shapes of the first tensors, for files that are no checkpoint of ours. */
static json_t *describe_names(const weight_file *file)
{
    enum { NAMES_MOST = 10 };
    json_t *names = json_object();
    for (size_t i = 0; i < weight_file_count(file) && i < NAMES_MOST; i++) {
        const named_tensor *t = weight_file_tensor(file, i);
        char shape[TENSOR_SHAPE_TEXT];
        json_object_set_new(names, t->name, json_string(tensor_shape_text(t, shape)));
    }
    return names;
}

static void describe_checkpoint(json_t *object, const checkpoint *c)
{
    bool paired = c->family == ONESTEP_FAMILY_PAIRED;
    json_object_set_new(
        object, "kind",
        json_string(paired ? "pix2pix-turbo checkpoint" : "CycleGAN-turbo checkpoint"));
    json_object_set_new(object, "family", json_string(paired ? "paired" : "unpaired"));
    json_object_set_new(object, "stochastic", json_boolean(c->stochastic));
    json_object_set_new(object, "lora_rank_unet", json_integer((json_int_t)c->rank_unet));
    json_object_set_new(object, "lora_rank_vae", json_integer((json_int_t)c->rank_vae));
    json_object_set_new(object, "lora_alpha_unet", json_real(checkpoint_official_alpha_unet(c)));
    json_object_set_new(object, "lora_alpha_vae", json_real(checkpoint_official_alpha_vae(c)));
    size_t low_rank = 0;
    for (size_t i = 0; i < weight_file_count(c->file); i++) {
        low_rank += strstr(weight_file_tensor(c->file, i)->name, ".lora_A.") != NULL;
    }
    json_object_set_new(object, "lora_pairs", json_integer((json_int_t)low_rank));
}

static json_t *describe_weights(const char *path, onestep_error *error)
{
    checkpoint c;
    if (checkpoint_open(&c, path, error) == ONESTEP_OK) {
        json_t *object = json_object();
        describe_checkpoint(object, &c);
        json_t *tensors = describe_tensors(c.file);
        json_object_update(object, tensors);
        json_decref(tensors);
        checkpoint_close(&c);
        return object;
    }
    weight_file *file;
    if (weight_file_open(&file, path, error) != ONESTEP_OK) {
        return NULL;
    }
    json_t *object = json_pack("{s:s}", "kind",
                               weight_file_opened_kind(file) == WEIGHT_KIND_TORCH_ZIP
                                   ? "torch file (no checkpoint of pix2pix-turbo or CycleGAN-turbo)"
                                   : "safetensors weights");
    json_t *tensors = describe_tensors(file);
    json_object_update(object, tensors);
    json_decref(tensors);
    json_object_set_new(object, "first_tensors", describe_names(file));
    weight_file_close(&file);
    return object;
}

/* ---- diffusers folders
 * --------------------------------------------------------------------------------- */

static json_t *size_list(const size_t *values, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list, json_integer((json_int_t)values[i]));
    }
    return list;
}

static json_t *describe_part(const onestep_base *base, base_part part)
{
    json_t *object = describe_tensors(base_weights(base, part));
    if (part == BASE_TEXT) {
        const clip_config *c = base_clip(base);
        json_object_set_new(object, "hidden", json_integer((json_int_t)c->hidden));
        json_object_set_new(object, "layers", json_integer((json_int_t)c->layers));
        json_object_set_new(object, "heads", json_integer((json_int_t)c->heads));
        json_object_set_new(object, "activation", json_string(operation_name(c->activation)));
    } else if (part == BASE_UNET) {
        const unet_config *c = base_unet(base);
        json_object_set_new(object, "widths", size_list(c->widths, c->levels));
        json_object_set_new(object, "heads", size_list(c->heads, c->levels));
    } else {
        const vae_config *c = base_vae(base);
        json_object_set_new(object, "widths", size_list(c->widths, c->levels));
        json_object_set_new(object, "scaling_factor", json_real((double)c->scaling_factor));
    }
    return object;
}

static json_t *describe_folder(const char *path, onestep_error *error)
{
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};
    onestep_engine *engine = NULL;
    onestep_base *base = NULL;
    json_t *object = NULL;
    onestep_engine_options options;
    onestep_engine_options_init(&options);
    options.threads = 1;
    if (onestep_engine_create(&engine, &options, error) == ONESTEP_OK &&
        onestep_base_open(&base, engine, path, error) == ONESTEP_OK) {
        const scheduler_config *s = base_scheduler(base);
        object = json_pack("{s:s, s:o, s:o, s:o, s:{s:s, s:f, s:b}}", "kind",
                           "diffusers folder (base model)", "text_encoder",
                           describe_part(base, BASE_TEXT), "unet", describe_part(base, BASE_UNET),
                           "vae", describe_part(base, BASE_VAE), "scheduler", "prediction_type",
                           predictions[s->prediction], "alpha_product", s->alpha_product,
                           "clip_sample", (int)s->clip_sample);
    }
    onestep_base_destroy(&base);
    onestep_engine_destroy(&engine);
    return object;
}

/* ---- pictures and arrays
 * --------------------------------------------------------------------------------- */

static json_t *describe_picture(const uint8_t *bytes, size_t size, onestep_error *error)
{
    onestep_image image;
    image_metadata metadata = {0};
    if (image_decode(&image, bytes, size, NULL, error) != ONESTEP_OK) {
        return NULL;
    }
    json_t *object = json_pack("{s:s, s:s, s:i, s:i}", "kind", "picture", "format",
                               image_format_name(image_format_of_bytes(bytes, size)), "width",
                               (int)image.width, "height", (int)image.height);
    image_destroy(&image);
    if (image_metadata_read(&metadata, bytes, size, error) == ONESTEP_OK) {
        json_t *texts = json_object();
        for (size_t i = 0; i < metadata.count; i++) {
            json_object_set_new(texts, metadata.entries[i].key,
                                json_string(metadata.entries[i].value));
        }
        if (metadata.count) {
            json_object_set_new(object, "texts", texts);
        } else {
            json_decref(texts);
        }
    }
    image_metadata_free(&metadata);
    return object;
}

static json_t *describe_array(const char *path, onestep_error *error)
{
    named_tensor array;
    char shape[TENSOR_SHAPE_TEXT];
    if (npy_read(&array, path, error) != ONESTEP_OK) {
        return NULL;
    }
    json_t *object = json_pack("{s:s, s:s, s:s}", "kind", "NumPy array", "type",
                               element_name(array.type), "shape", tensor_shape_text(&array, shape));
    npy_free(&array);
    return object;
}

json_t *describe_path(const char *path, onestep_error *error)
{
    enum { PICTURE_BYTES_MOST = 1 << 30, MAGIC = 16 };
    if (path_is_folder(path)) {
        return describe_folder(path, error);
    }
    mapped_file file;
    if (mapped_file_open(&file, path, error) != ONESTEP_OK) {
        return NULL;
    }
    json_t *object;
    if (image_format_of_bytes(file.data, file.size) != IMAGE_FORMAT_UNKNOWN) {
        object = describe_picture(file.data, file.size, error);
        if (!object) {
            error_prefix(error, "%s", path);
        }
    } else if (file.size > MAGIC && memcmp(file.data, "\x93NUMPY", 6) == 0) {
        object = describe_array(path, error);
    } else {
        object = describe_weights(path, error);
    }
    mapped_file_close(&file);
    return object;
}

void describe_print(const json_t *object, int indent)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        printf("%*s%s: ", indent, "", key);
        if (json_is_object(value)) {
            putchar('\n');
            describe_print(value, indent + 2);
        } else if (json_is_string(value)) {
            printf("%s\n", json_string_value(value));
        } else if (strcmp(key, "bytes") == 0) {
            printf("%s\n", bytes_text((uint64_t)json_integer_value(value)).text);
        } else {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
            printf("%s\n", text ? text : "");
            free(text);
        }
    }
}
