#include "translate/names.h"

#include <stdio.h>
#include <string.h>

/* Replaces the module "<parent>.<from>" before the leaf, if it is there. */
static void rename_module(char *name, const char *from, const char *to)
{
    const char *leaf = strrchr(name, '.');
    if (!leaf) {
        return;
    }
    size_t from_length = strlen(from), module_length = (size_t)(leaf - name);
    if (module_length <= from_length || name[module_length - from_length - 1] != '.' ||
        strncmp(leaf - from_length, from, from_length) != 0) {
        return;
    }
    char renamed[NAME_BYTES];
    int length = snprintf(renamed, sizeof renamed, "%.*s%s%s", (int)(module_length - from_length),
                          name, to, leaf);
    if (length > 0 && (size_t)length < sizeof renamed) {
        memcpy(name, renamed, (size_t)length + 1);
    }
}

/* Attention modules of VAE files before diffusers 0.17. The UNet's feed-forward and CLIP's modules
 * have other names, so nothing else is met. */
static void modernise(char *name)
{
    static const char *const renames[][2] = {
        {"query", "to_q"}, {"key", "to_k"}, {"value", "to_v"}, {"proj_attn", "to_out.0"}};
    for (size_t i = 0; i < sizeof renames / sizeof *renames; i++) {
        rename_module(name, renames[i][0], renames[i][1]);
    }
}

bool canonical_name(const char *name, char result[NAME_BYTES], name_role *role)
{
    if (strlen(name) + sizeof ".weight" > NAME_BYTES) {
        return false;
    }
    *role = NAME_FULL;
    const char *lora = strstr(name, ".lora_");
    if (lora) {
        const char *after = lora + strlen(".lora_A");
        if (strncmp(lora, ".lora_A.", 8) == 0) {
            *role = NAME_LORA_A;
        } else if (strncmp(lora, ".lora_B.", 8) == 0) {
            *role = NAME_LORA_B;
        } else {
            return false;
        }
        /* ".weight", or ".<adapter>.weight" with an adapter name without dots */
        const char *leaf = strrchr(after, '.');
        if (strcmp(leaf, ".weight") != 0 || (leaf != after && strchr(after + 1, '.') != leaf)) {
            return false;
        }
        snprintf(result, NAME_BYTES, "%.*s.weight", (int)(lora - name), name);
    } else {
        static const char wrapped[] = ".base_layer.";
        const char *base = strstr(name, wrapped);
        if (base) {
            snprintf(result, NAME_BYTES, "%.*s.%s", (int)(base - name), name,
                     base + strlen(wrapped));
        } else {
            snprintf(result, NAME_BYTES, "%s", name);
        }
    }
    modernise(result);
    return true;
}
