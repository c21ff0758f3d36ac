/* Tensor names as the many versions of diffusers and peft wrote them, made canonical. */
#ifndef ONESTEP_TRANSLATE_NAMES_H
#define ONESTEP_TRANSLATE_NAMES_H

#include "base/base.h"

typedef enum name_role {
    NAME_FULL,   /* a weight or bias: "X.weight", "X.base_layer.weight" */
    NAME_LORA_A, /* "X.lora_A.weight", "X.lora_A.<adapter>.weight" */
    NAME_LORA_B
} name_role;

#define NAME_BYTES 256

/* Writes the canonical name of the weight that `name` belongs to ("X.weight", with the older
 * attention names query, key, value, proj_attn as to_q, to_k, to_v, to_out.0) and tells its role.
 * False when the name is too long or a LoRA name of unknown form. */
bool canonical_name(const char *name, char result[NAME_BYTES], name_role *role);

#endif
