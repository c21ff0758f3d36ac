/* Official checkpoints: what they hold and how it joins the base's weights.
 *
 * A .pkl's nested dicts come as flat names ("state_dict_unet.conv_in.weight"); a .safetensors
 * checkpoint holds the same flat names, with the ranks in its metadata. */
#include "translate/names.h"
#include "translate/translate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool has_group(const weight_file *file, const char *prefix)
{
    for (size_t i = 0; i < weight_file_count(file); i++) {
        if (has_prefix(weight_file_tensor(file, i)->name, prefix)) {
            return true;
        }
    }
    return false;
}

/* The rank stored under `key`; else that of the first LoRA A under `prefix`; 0 when there is none.
 */
static onestep_status find_rank(const weight_file *file, const char *key, const char *prefix,
                                size_t *rank, onestep_error *error)
{
    *rank = 0;
    const pickle_value *value = pickle_lookup(weight_file_root(file), key);
    const char *text = weight_file_metadata(file, key);
    if (value) {
        if (pickle_kind_of(value) != PICKLE_INTEGER || pickle_integer(value) < 1 ||
            pickle_integer(value) > 65536) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "%s: %s is not a rank",
                             weight_file_path(file), key);
        }
        *rank = (size_t)pickle_integer(value);
        return ONESTEP_OK;
    }
    if (text) {
        char *end;
        unsigned long parsed = strtoul(text, &end, 10);
        if (*text < '0' || *text > '9' || *end != '\0' || parsed < 1 || parsed > 65536) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "%s: %s \"%.40s\" is not a rank",
                             weight_file_path(file), key, text);
        }
        *rank = parsed;
        return ONESTEP_OK;
    }
    for (size_t i = 0; i < weight_file_count(file) && *rank == 0; i++) {
        const named_tensor *t = weight_file_tensor(file, i);
        char name[NAME_BYTES];
        name_role role;
        if (has_prefix(t->name, prefix) && canonical_name(t->name, name, &role) &&
            role == NAME_LORA_A && t->rank > 0) {
            *rank = t->shape[0];
        }
    }
    return ONESTEP_OK;
}

onestep_status checkpoint_open(checkpoint *c, const char *path, onestep_error *error)
{
    memset(c, 0, sizeof *c);
    onestep_status status = weight_file_open(&c->file, path, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    bool paired = has_group(c->file, "state_dict_unet.") && has_group(c->file, "state_dict_vae.");
    bool unpaired = has_group(c->file, "sd_vae_enc.") && has_group(c->file, "sd_vae_dec.") &&
                    has_group(c->file, "sd_encoder.");
    if (paired == unpaired) {
        status = error_set(error, ONESTEP_ERROR_MISMATCH,
                           "%s: not a checkpoint of pix2pix-turbo (state_dict_unet, "
                           "state_dict_vae) or CycleGAN-turbo (sd_encoder, sd_vae_enc, sd_vae_dec)",
                           path);
    }
    if (status == ONESTEP_OK) {
        c->family = paired ? ONESTEP_FAMILY_PAIRED : ONESTEP_FAMILY_UNPAIRED;
        c->stochastic = has_group(c->file, "state_dict_unet.conv_in.conv_in_curr.");
        status = find_rank(c->file, "rank_unet", paired ? "state_dict_unet." : "sd_encoder.",
                           &c->rank_unet, error);
    }
    if (status == ONESTEP_OK) {
        status = find_rank(c->file, "rank_vae", paired ? "state_dict_vae." : "sd_vae_dec.",
                           &c->rank_vae, error);
    }
    if (status != ONESTEP_OK) {
        checkpoint_close(c);
    }
    return status;
}

void checkpoint_close(checkpoint *c)
{
    weight_file_close(&c->file);
}

double checkpoint_official_alpha_unet(const checkpoint *c)
{
    return c->family == ONESTEP_FAMILY_PAIRED ? 8 : (double)c->rank_unet;
}

double checkpoint_official_alpha_vae(const checkpoint *c)
{
    (void)c;
    return 8; /* peft's default in both families */
}

/* ---- joining
 * --------------------------------------------------------------------------------------- */

/* What is being joined: tensors of the file whose names begin with `prefix`. */
typedef struct joining {
    const checkpoint *checkpoint;
    const char *prefix;
    weight_set *set;
    size_t rank;
    coefficient lora_scale;
    bool whole; /* the file brings the weights themselves: nothing of the base is replaced */
} joining;

/* The name after the prefix, or NULL for a tensor that is not of this group. */
static const char *name_in_group(const joining *j, const named_tensor *t)
{
    return has_prefix(t->name, j->prefix) ? t->name + strlen(j->prefix) : NULL;
}

static onestep_status in_file(const joining *j, onestep_status status, onestep_error *error)
{
    if (status != ONESTEP_OK) {
        error_prefix(error, "%s", weight_file_path(j->checkpoint->file));
    }
    return status;
}

/* The twin convolution of the stochastic family: pretrained * (1 - r) + current * r. */
static onestep_status join_twin(const joining *j, const named_tensor *t, const char *name,
                                bool *joined, onestep_error *error)
{
    static const struct {
        const char *prefix;
        coefficient scale;
        bool replace;
    } twins[] = {
        {"conv_in.conv_in_pretrained.", {.constant = 1, .slope = -1, .scalar = SCALAR_GAMMA}, true},
        {"conv_in.conv_in_curr.", {.constant = 0, .slope = 1, .scalar = SCALAR_GAMMA}, false}};
    *joined = false;
    for (size_t i = 0; i < 2; i++) {
        if (has_prefix(name, twins[i].prefix)) {
            char canonical[NAME_BYTES];
            snprintf(canonical, sizeof canonical, "conv_in.%s", name + strlen(twins[i].prefix));
            *joined = true;
            return weight_set_add_full(j->set, canonical, t, twins[i].scale, twins[i].replace,
                                       error);
        }
    }
    return ONESTEP_OK;
}

static onestep_status join_full(const joining *j, const named_tensor *t, const char *canonical,
                                onestep_error *error)
{
    /* What a checkpoint brings beside LoRA: the UNet's conv_in, the skip convolutions, and in the
     * unpaired family whole VAEs. Anything else has no place in the base. */
    if (!j->whole && !weight_set_has(j->set, canonical) &&
        strncmp(canonical, "decoder.skip_conv_", 18) != 0) {
        return error_set(error, ONESTEP_ERROR_MISMATCH, "tensor %s is not in the base model",
                         t->name);
    }
    return weight_set_add_full(j->set, canonical, t, coefficient_constant(1), !j->whole, error);
}

/* Full weights first: a LoRA is checked against the shape of its weight. */
static onestep_status join_all_full(const joining *j, onestep_error *error)
{
    const weight_file *file = j->checkpoint->file;
    onestep_status status = ONESTEP_OK;
    /* The pretrained twin replaces the base's weight, so it must come before the current one. */
    for (int pass = 0; pass < 2 && status == ONESTEP_OK; pass++) {
        for (size_t i = 0; i < weight_file_count(file) && status == ONESTEP_OK; i++) {
            const named_tensor *t = weight_file_tensor(file, i);
            const char *name = name_in_group(j, t);
            char canonical[NAME_BYTES];
            name_role role;
            if (!name) {
                continue;
            }
            if (!canonical_name(name, canonical, &role)) {
                return error_set(error, ONESTEP_ERROR_MISMATCH,
                                 "tensor %.200s has a name of unknown form", t->name);
            }
            bool later = has_prefix(name, "conv_in.conv_in_curr.");
            if (role != NAME_FULL || later != (pass == 1)) {
                continue;
            }
            bool joined;
            status = join_twin(j, t, canonical, &joined, error);
            if (status == ONESTEP_OK && !joined) {
                status = join_full(j, t, canonical, error);
            }
        }
    }
    return status;
}

/* The other half of a LoRA pair: A's name with lora_B in place of lora_A, or NULL. */
static const named_tensor *lora_partner(const weight_file *file, const char *name, char from,
                                        char to)
{
    char partner[2 * NAME_BYTES];
    char part[] = {'.', 'l', 'o', 'r', 'a', '_', from, '.', '\0'};
    const char *lora = strstr(name, part);
    size_t length = strlen(name);
    if (!lora || length >= sizeof partner) {
        return NULL;
    }
    memcpy(partner, name, length + 1);
    partner[lora - name + 6] = to;
    return weight_file_find(file, partner);
}

static onestep_status join_all_low_rank(const joining *j, onestep_error *error)
{
    const weight_file *file = j->checkpoint->file;
    for (size_t i = 0; i < weight_file_count(file); i++) {
        const named_tensor *t = weight_file_tensor(file, i);
        const char *name = name_in_group(j, t);
        char canonical[NAME_BYTES];
        name_role role;
        if (!name || !canonical_name(name, canonical, &role) || role == NAME_FULL) {
            continue;
        }
        bool is_down = role == NAME_LORA_A;
        const named_tensor *partner =
            lora_partner(file, t->name, is_down ? 'A' : 'B', is_down ? 'B' : 'A');
        if (!partner) {
            return error_set(error, ONESTEP_ERROR_MISMATCH, "tensor %s has no lora_%c beside it",
                             t->name, is_down ? 'B' : 'A');
        }
        if (!is_down) {
            continue;
        }
        if (t->rank == 0 || t->shape[0] != j->rank) {
            return error_set(error, ONESTEP_ERROR_MISMATCH,
                             "tensor %s has rank %zu, the checkpoint says %zu", t->name,
                             t->rank ? t->shape[0] : 0, j->rank);
        }
        onestep_status status =
            weight_set_add_low_rank(j->set, canonical, t, partner, j->lora_scale, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    return ONESTEP_OK;
}

/* Whether peft would put a LoRA on the module of this weight: `target` is the module's name or an
 * ending of it after a dot. */
static bool target_matches(const char *weight_name, const char *target)
{
    size_t length = strlen(weight_name), target_length = strlen(target);
    static const char leaf[] = ".weight";
    if (length < sizeof leaf || strcmp(weight_name + length - strlen(leaf), leaf) != 0) {
        return false;
    }
    length -= strlen(leaf);
    return target_length <= length &&
           memcmp(weight_name + length - target_length, target, target_length) == 0 &&
           (target_length == length || weight_name[length - target_length - 1] == '.');
}

static bool has_low_rank(const weight_expression *weight)
{
    for (unsigned i = 0; i < weight->term_count; i++) {
        if (weight->terms[i].down) {
            return true;
        }
    }
    return false;
}

/* Every module that the checkpoint's own list names must have its LoRA: a lost tensor is an error,
 * never silence. Files without lists (safetensors) are not checked. */
static onestep_status check_targets(const joining *j, const char *list_key, onestep_error *error)
{
    const pickle_value *list = pickle_lookup(weight_file_root(j->checkpoint->file), list_key);
    pickle_kind kind = pickle_kind_of(list);
    if (kind != PICKLE_LIST && kind != PICKLE_TUPLE && kind != PICKLE_SET) {
        return ONESTEP_OK;
    }
    for (size_t i = 0; i < pickle_count(list); i++) {
        const pickle_value *item = pickle_item(list, i);
        if (pickle_kind_of(item) != PICKLE_STRING) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "%s holds a %s, expected module names",
                             list_key, pickle_kind_name(pickle_kind_of(item)));
        }
        for (size_t w = 0; w < weight_set_count(j->set); w++) {
            const weight_expression *weight = weight_set_item(j->set, w);
            bool is_module = weight->dims[1] > 1 || weight->dims[2] > 1 || weight->dims[3] > 1;
            if (is_module && target_matches(weight->name, pickle_string(item)) &&
                !has_low_rank(weight)) {
                return error_set(error, ONESTEP_ERROR_MISMATCH,
                                 "the LoRA of %s is missing (%s names \"%s\")", weight->name,
                                 list_key, pickle_string(item));
            }
        }
    }
    return ONESTEP_OK;
}

static onestep_status join_group(const joining *j, onestep_error *error)
{
    onestep_status status = join_all_full(j, error);
    if (status == ONESTEP_OK) {
        status = join_all_low_rank(j, error);
    }
    return in_file(j, status, error);
}

/* alpha / rank, times r in the stochastic family. */
static coefficient lora_scale(const checkpoint *c, double alpha, size_t rank)
{
    float scale = rank ? (float)(alpha / (double)rank) : 0;
    return c->stochastic ? (coefficient){.constant = 0, .slope = scale, .scalar = SCALAR_GAMMA}
                         : coefficient_constant(scale);
}

onestep_status checkpoint_fill_unet(const checkpoint *c, double alpha, weight_set *set,
                                    onestep_error *error)
{
    static const struct {
        const char *prefix, *targets;
    } paired[] = {{"state_dict_unet.", "unet_lora_target_modules"}},
      unpaired[] = {{"sd_encoder.", "l_target_modules_encoder"},
                    {"sd_decoder.", "l_target_modules_decoder"},
                    {"sd_other.", "l_modules_others"}};
    bool is_paired = c->family == ONESTEP_FAMILY_PAIRED;
    joining j = {.checkpoint = c,
                 .set = set,
                 .rank = c->rank_unet,
                 .lora_scale = lora_scale(c, alpha, c->rank_unet)};
    onestep_status status = ONESTEP_OK;
    for (size_t i = 0; i < (is_paired ? 1 : 3) && status == ONESTEP_OK; i++) {
        j.prefix = is_paired ? paired[i].prefix : unpaired[i].prefix;
        status = join_group(&j, error);
        if (status == ONESTEP_OK) {
            status = in_file(
                &j, check_targets(&j, is_paired ? paired[i].targets : unpaired[i].targets, error),
                error);
        }
    }
    return status;
}

/* Each unpaired file holds both VAEs twice, in sd_vae_enc and sd_vae_dec; the official code loads
 * the second over the first. The first is only checked to have the same names. */
static onestep_status check_encoder_copy(const checkpoint *c, onestep_error *error)
{
    for (size_t i = 0; i < weight_file_count(c->file); i++) {
        const named_tensor *t = weight_file_tensor(c->file, i);
        if (has_prefix(t->name, "sd_vae_enc.")) {
            char other[2 * NAME_BYTES];
            int length = snprintf(other, sizeof other, "sd_vae_dec.%s", t->name + 11);
            if (length < 0 || (size_t)length >= sizeof other || !weight_file_find(c->file, other)) {
                return error_set(error, ONESTEP_ERROR_MISMATCH,
                                 "%s: %s has no counterpart in sd_vae_dec",
                                 weight_file_path(c->file), t->name);
            }
        }
    }
    return ONESTEP_OK;
}

onestep_status checkpoint_fill_vae(const checkpoint *c, double alpha, onestep_direction direction,
                                   weight_set *set, onestep_error *error)
{
    bool unpaired = c->family == ONESTEP_FAMILY_UNPAIRED;
    joining j = {.checkpoint = c,
                 .set = set,
                 .rank = c->rank_vae,
                 .lora_scale = lora_scale(c, alpha, c->rank_vae),
                 .whole = unpaired,
                 .prefix = !unpaired                            ? "state_dict_vae."
                           : direction == ONESTEP_DIRECTION_B2A ? "sd_vae_dec.vae_b2a."
                                                                : "sd_vae_dec.vae."};
    onestep_status status = unpaired ? check_encoder_copy(c, error) : ONESTEP_OK;
    if (status == ONESTEP_OK) {
        status = join_group(&j, error);
    }
    if (status == ONESTEP_OK) {
        status = in_file(&j, check_targets(&j, "vae_lora_target_modules", error), error);
    }
    return status;
}
