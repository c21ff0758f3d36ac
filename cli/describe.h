/* What a file or folder holds, for `onestep info` and `onestep models info`. */
#ifndef ONESTEP_CLI_DESCRIBE_H
#define ONESTEP_CLI_DESCRIBE_H

#include "base/base.h"

#include <jansson.h>

/* A JSON object that describes a checkpoint (.pkl, .safetensors), a diffusers folder, a .npy array
 * or a picture: kind, family, ranks, tensors and numbers by type, what is missing. NULL with the
 * error set when it cannot be read. Released with json_decref. */
json_t *describe_path(const char *path, onestep_error *error);

/* Prints such an object for people: "key: value", nested objects indented. */
void describe_print(const json_t *object, int indent);

#endif
