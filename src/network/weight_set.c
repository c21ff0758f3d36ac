#include "network/network.h"

#include <stdatomic.h>
#include <string.h>

typedef struct weight_entry {
    weight_expression expression;
    char *name;
    atomic_bool used; /* sessions of one model take their weights at the same time */
} weight_entry;

struct weight_set {
    char *label;
    name_map *names;
    weight_entry **entries; /* separately allocated: an expression's address is its identity */
    size_t count, capacity;
};

onestep_status weight_set_create(weight_set **result, const char *label, onestep_error *error)
{
    *result = NULL;
    weight_set *set = memory_allocate(1, sizeof *set, error);
    if (!set) {
        return ONESTEP_ERROR_MEMORY;
    }
    set->label = string_duplicate(label, error);
    if (!set->label || name_map_create(&set->names, error) != ONESTEP_OK) {
        weight_set_destroy(&set);
        return ONESTEP_ERROR_MEMORY;
    }
    *result = set;
    return ONESTEP_OK;
}

void weight_set_destroy(weight_set **result)
{
    weight_set *set = *result;
    if (!set) {
        return;
    }
    for (size_t i = 0; i < set->count; i++) {
        memory_free(set->entries[i]->name);
        memory_free(set->entries[i]);
    }
    memory_free(set->entries);
    name_map_destroy(&set->names);
    memory_free(set->label);
    memory_free(set);
    *result = NULL;
}

static weight_entry *entry_find(const weight_set *set, const char *name)
{
    uint32_t index;
    return name_map_get(set->names, name, strlen(name), &index) ? set->entries[index] : NULL;
}

/* The entry of a name, new and without terms when there was none. */
static weight_entry *entry_make(weight_set *set, const char *name, onestep_error *error)
{
    weight_entry *entry = entry_find(set, name);
    if (entry) {
        return entry;
    }
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? 2 * set->capacity : 256;
        weight_entry **grown = memory_resize(set->entries, capacity, sizeof *grown, error);
        if (!grown) {
            return NULL;
        }
        set->entries = grown;
        set->capacity = capacity;
    }
    entry = memory_allocate(1, sizeof *entry, error);
    if (!entry) {
        return NULL;
    }
    entry->name = string_duplicate(name, error);
    if (!entry->name ||
        name_map_put(set->names, name, strlen(name), (uint32_t)set->count, error) != ONESTEP_OK) {
        memory_free(entry->name);
        memory_free(entry);
        return NULL;
    }
    entry->expression.name = entry->name;
    set->entries[set->count++] = entry;
    return entry;
}

/* A file's shape filled up with ones; false for more than four dimensions. */
static bool four_dims(const named_tensor *t, size_t dims[4])
{
    if (t->rank > 4) {
        return false;
    }
    for (unsigned d = 0; d < 4; d++) {
        dims[d] = d < t->rank ? t->shape[d] : 1;
    }
    return true;
}

static bool is_floating(element_type type)
{
    return type == ELEMENT_F32 || type == ELEMENT_F16 || type == ELEMENT_BF16 ||
           type == ELEMENT_F64;
}

static onestep_status check_type(const weight_set *set, const char *name, const named_tensor *t,
                                 onestep_error *error)
{
    return is_floating(t->type) ? ONESTEP_OK
                                : error_set(error, ONESTEP_ERROR_MISMATCH,
                                            "%s: tensor %s holds %s, expected a floating type",
                                            set->label, name, element_name(t->type));
}

static onestep_status shape_mismatch(const weight_set *set, const char *name, const size_t found[4],
                                     const size_t expected[4], onestep_error *error)
{
    return error_set(error, ONESTEP_ERROR_MISMATCH,
                     "%s: tensor %s has the shape [%zu,%zu,%zu,%zu], expected [%zu,%zu,%zu,%zu]; "
                     "is it made for another base model?",
                     set->label, name, found[0], found[1], found[2], found[3], expected[0],
                     expected[1], expected[2], expected[3]);
}

static onestep_status term_add(weight_set *set, weight_entry *entry, weight_term term,
                               const size_t dims[4], onestep_error *error)
{
    weight_expression *e = &entry->expression;
    if (e->term_count > 0 && memcmp(e->dims, dims, sizeof e->dims) != 0) {
        return shape_mismatch(set, entry->name, dims, e->dims, error);
    }
    if (e->term_count == WEIGHT_TERMS) {
        return error_set(error, ONESTEP_ERROR_MISMATCH, "%s: tensor %s is given more than once",
                         set->label, entry->name);
    }
    memcpy(e->dims, dims, sizeof e->dims);
    e->terms[e->term_count++] = term;
    return ONESTEP_OK;
}

onestep_status weight_set_add_full(weight_set *set, const char *name, const named_tensor *full,
                                   coefficient scale, bool replace, onestep_error *error)
{
    size_t dims[4];
    if (!four_dims(full, dims)) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: tensor %s has %u dimensions, expected at most 4", set->label, name,
                         full->rank);
    }
    onestep_status status = check_type(set, name, full, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    weight_entry *entry = entry_make(set, name, error);
    if (!entry) {
        return ONESTEP_ERROR_MEMORY;
    }
    if (replace) {
        /* The base's shape stays the rule: a checkpoint for another base is told by it. */
        if (entry->expression.term_count > 0 &&
            memcmp(entry->expression.dims, dims, sizeof dims) != 0) {
            return shape_mismatch(set, name, dims, entry->expression.dims, error);
        }
        unsigned kept = 0;
        for (unsigned i = 0; i < entry->expression.term_count; i++) {
            if (!entry->expression.terms[i].full) {
                entry->expression.terms[kept++] = entry->expression.terms[i];
            }
        }
        entry->expression.term_count = kept;
    }
    return term_add(set, entry, (weight_term){.scale = scale, .full = full}, dims, error);
}

onestep_status weight_set_add_low_rank(weight_set *set, const char *name, const named_tensor *down,
                                       const named_tensor *up, coefficient scale,
                                       onestep_error *error)
{
    size_t a[4], b[4];
    char down_text[TENSOR_SHAPE_TEXT], up_text[TENSOR_SHAPE_TEXT];
    if (!four_dims(down, a) || !four_dims(up, b) || a[0] != b[1] || b[2] != 1 || b[3] != 1) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: LoRA of %s: A %s and B %s do not fit together", set->label, name,
                         tensor_shape_text(down, down_text), tensor_shape_text(up, up_text));
    }
    onestep_status status = check_type(set, name, down, error);
    if (status == ONESTEP_OK) {
        status = check_type(set, name, up, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    weight_entry *entry = entry_find(set, name);
    if (!entry) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: the checkpoint has a LoRA for %s, which the base model does not have",
                         set->label, name);
    }
    return term_add(set, entry, (weight_term){.scale = scale, .down = down, .up = up},
                    (size_t[4]){b[0], a[1], a[2], a[3]}, error);
}

onestep_status weight_set_take(weight_set *set, const char *name, const size_t dims[4],
                               const weight_expression **result, onestep_error *error)
{
    weight_entry *entry = entry_find(set, name);
    if (!entry) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: tensor %s is missing (expected shape [%zu,%zu,%zu,%zu])", set->label,
                         name, dims[0], dims[1], dims[2], dims[3]);
    }
    if (memcmp(entry->expression.dims, dims, sizeof entry->expression.dims) != 0) {
        return shape_mismatch(set, name, entry->expression.dims, dims, error);
    }
    atomic_store_explicit(&entry->used, true, memory_order_relaxed);
    *result = &entry->expression;
    return ONESTEP_OK;
}

bool weight_set_has(const weight_set *set, const char *name)
{
    return entry_find(set, name) != NULL;
}

const char *weight_set_unused(const weight_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        if (!set->entries[i]->used) {
            return set->entries[i]->name;
        }
    }
    return NULL;
}

size_t weight_set_count(const weight_set *set)
{
    return set->count;
}

const weight_expression *weight_set_item(const weight_set *set, size_t index)
{
    return &set->entries[index]->expression;
}
