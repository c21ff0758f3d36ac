/* Where a diffusers folder keeps the weights of a component. */
#include "formats/formats.h"

static const char *const names[] = {
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "model.safetensors.index.fp16.json",
};

/* What other programs left there. */
static const char *const other_names[] = {
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
    "pytorch_model.fp16.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_flax_model.msgpack",
    "flax_model.msgpack",
    "model.onnx",
    "openvino_model.xml",
};

/* The first of `list` that is in the folder: *path, or NULL when there is none. */
static onestep_status find_first(const char *folder, const char *const *list, size_t count,
                                 char **path, size_t *index, onestep_error *error)
{
    *path = NULL;
    for (size_t i = 0; i < count; i++) {
        char *candidate = path_join(folder, list[i], error);
        if (candidate == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        if (path_exists(candidate)) {
            *path = candidate;
            *index = i;
            return ONESTEP_OK;
        }
        memory_free(candidate);
    }
    return ONESTEP_OK;
}

onestep_status diffusers_find_weights(char **path, const char *component_folder,
                                      onestep_error *error)
{
    *path = NULL;
    if (!path_is_folder(component_folder)) {
        return error_set(error, ONESTEP_ERROR_IO,
                         "%s: no such folder: a diffusers model with text_encoder, tokenizer, "
                         "unet, vae and scheduler is expected",
                         component_folder);
    }
    size_t index = 0;
    onestep_status status =
        find_first(component_folder, names, sizeof(names) / sizeof(names[0]), path, &index, error);
    if (status != ONESTEP_OK || *path != NULL) {
        return status;
    }
    char *other;
    status = find_first(component_folder, other_names, sizeof(other_names) / sizeof(other_names[0]),
                        &other, &index, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (other != NULL) {
        memory_free(other);
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "%s: only %s is there, which is not read: safetensors is; convert with "
                         "diffusers: from_pretrained(...), then save_pretrained(FOLDER, "
                         "safe_serialization=True)",
                         component_folder, other_names[index]);
    }
    return error_set(error, ONESTEP_ERROR_IO, "%s: no weights: neither %s nor %s is there",
                     component_folder, names[0], names[1]);
}
