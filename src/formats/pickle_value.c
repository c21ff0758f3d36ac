/* Pickle values: access, building, and the checks that make a tree safe to walk. */
#include "formats/pickle.h"

#include "formats/tensor.h"
#include "formats/text.h"

#include <string.h>

/* From this many keys on a dict is looked up through a map. */
#define MAP_THRESHOLD 16

/* ---- access --------------------------------------------------------------------------------- */

pickle_kind pickle_kind_of(const pickle_value *value)
{
    return value == NULL ? PICKLE_NONE : (pickle_kind)value->kind;
}

const char *pickle_kind_name(pickle_kind kind)
{
    static const char *const names[] = {"None",
                                        "bool",
                                        "int",
                                        "float",
                                        "str",
                                        "list",
                                        "tuple",
                                        "dict",
                                        "set",
                                        "tensor",
                                        "a type or function",
                                        "a storage"};
    return (size_t)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}

bool pickle_boolean(const pickle_value *value)
{
    return value->as.boolean;
}

int64_t pickle_integer(const pickle_value *value)
{
    return value->as.integer;
}

double pickle_float(const pickle_value *value)
{
    return value->as.number;
}

const char *pickle_string(const pickle_value *value)
{
    return value->as.string.text;
}

const named_tensor *pickle_tensor(const pickle_value *value)
{
    return value->as.tensor;
}

static bool is_container(const pickle_value *value)
{
    return value != NULL && value->kind >= PICKLE_LIST && value->kind <= PICKLE_SET;
}

size_t pickle_count(const pickle_value *value)
{
    return is_container(value) ? value->as.container.count : 0;
}

const pickle_value *pickle_item(const pickle_value *value, size_t index)
{
    return value->as.container.items[index];
}

const pickle_value *pickle_key(const pickle_value *dict, size_t index)
{
    return dict->as.container.keys[index];
}

bool pickle_is_ordered_dict(const pickle_value *value)
{
    return value != NULL && value->kind == PICKLE_DICT && value->ordered;
}

const pickle_value *pickle_lookup(const pickle_value *dict, const char *key)
{
    if (pickle_kind_of(dict) != PICKLE_DICT) {
        return NULL;
    }
    const pickle_container *container = &dict->as.container;
    size_t length = strlen(key);
    if (container->names != NULL) {
        uint32_t index;
        return name_map_get(container->names, key, length, &index) ? container->items[index] : NULL;
    }
    for (size_t i = 0; i < container->count; i++) {
        const pickle_value *candidate = container->keys[i];
        if (candidate->kind == PICKLE_STRING && candidate->as.string.length == length &&
            memcmp(candidate->as.string.text, key, length) == 0) {
            return container->items[i];
        }
    }
    return NULL;
}

/* ---- making --------------------------------------------------------------------------------- */

struct pickle_copy {
    pickle_copy *next;
    _Alignas(16) uint8_t bytes[];
};

onestep_status pickle_tree_create(pickle_tree **tree, onestep_error *error)
{
    *tree = memory_allocate(1, sizeof(**tree), error);
    if (*tree == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    (*tree)->memory.limit = PICKLE_MEMORY_LIMIT;
    return ONESTEP_OK;
}

void pickle_tree_destroy(pickle_tree **tree)
{
    if (*tree == NULL) {
        return;
    }
    for (pickle_value *value = (*tree)->maps; value != NULL; value = value->as.container.next_map) {
        name_map_destroy(&value->as.container.names);
    }
    while ((*tree)->copies != NULL) {
        pickle_copy *next = (*tree)->copies->next;
        memory_free((*tree)->copies);
        (*tree)->copies = next;
    }
    arena_free(&(*tree)->memory);
    memory_free(*tree);
    *tree = NULL;
}

pickle_value *pickle_allocate(pickle_tree *tree, int kind, onestep_error *error)
{
    if (tree->object_count == PICKLE_OBJECT_LIMIT) {
        error_set(error, ONESTEP_ERROR_FORMAT, "pickle: more than %zu objects",
                  PICKLE_OBJECT_LIMIT);
        tree->memory.status = ONESTEP_ERROR_FORMAT;
        return NULL;
    }
    pickle_value *value = arena_allocate(&tree->memory, 1, sizeof(*value), error);
    if (value != NULL) {
        value->kind = (uint8_t)kind;
        tree->object_count++;
    }
    return value;
}

onestep_status pickle_add(pickle_tree *tree, pickle_value *container, const pickle_value *key,
                          const pickle_value *item, onestep_error *error)
{
    pickle_container *target = &container->as.container;
    bool is_dict = container->kind == PICKLE_DICT;
    if (target->count == target->capacity) {
        size_t capacity = size_maximum(4, target->capacity * 2);
        const pickle_value **items = arena_allocate(&tree->memory, capacity, sizeof(*items), error);
        const pickle_value **keys = NULL;
        if (items != NULL && is_dict) {
            keys = arena_allocate(&tree->memory, capacity, sizeof(*keys), error);
        }
        if (items == NULL || (is_dict && keys == NULL)) {
            return arena_failure(&tree->memory);
        }
        if (target->count > 0) {
            memcpy(items, target->items, target->count * sizeof(*items));
            if (is_dict) {
                memcpy(keys, target->keys, target->count * sizeof(*keys));
            }
        }
        target->items = items;
        target->keys = keys;
        target->capacity = capacity;
    }
    target->items[target->count] = item;
    if (is_dict) {
        target->keys[target->count] = key;
    }
    target->count++;
    return ONESTEP_OK;
}

/* Puts the string key of entry `index` into the dict's map, which must not have it. */
static onestep_status map_key(pickle_value *dict, size_t index, onestep_error *error)
{
    const pickle_value *key = dict->as.container.keys[index];
    if (key->kind != PICKLE_STRING) {
        return ONESTEP_OK;
    }
    uint32_t known;
    if (name_map_get(dict->as.container.names, key->as.string.text, key->as.string.length,
                     &known)) {
        char shown[TEXT_SHOWN];
        return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: the key %s is in a dict twice",
                         text_shown(shown, key->as.string.text, key->as.string.length));
    }
    return name_map_put(dict->as.container.names, key->as.string.text, key->as.string.length,
                        (uint32_t)index, error);
}

static onestep_status map_keys(pickle_tree *tree, pickle_value *dict, onestep_error *error)
{
    onestep_status status = name_map_create(&dict->as.container.names, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    dict->as.container.next_map = tree->maps;
    tree->maps = dict;
    for (size_t i = 0; i < dict->as.container.count && status == ONESTEP_OK; i++) {
        status = map_key(dict, i, error);
    }
    return status;
}

/* ---- checking ------------------------------------------------------------------------------- */

static bool same_number_key(const pickle_value *a, const pickle_value *b)
{
    /* In Python True == 1 and False == 0, as keys too. */
    int64_t first = a->kind == PICKLE_BOOLEAN ? a->as.boolean : a->as.integer;
    int64_t second = b->kind == PICKLE_BOOLEAN ? b->as.boolean : b->as.integer;
    return first == second;
}

static bool same_key(const pickle_value *a, const pickle_value *b)
{
    if (a->kind == PICKLE_STRING || b->kind == PICKLE_STRING) {
        return a->kind == b->kind && a->as.string.length == b->as.string.length &&
               memcmp(a->as.string.text, b->as.string.text, a->as.string.length) == 0;
    }
    return same_number_key(a, b);
}

static onestep_status duplicate_number(int64_t key, onestep_error *error)
{
    return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: the key %lld is in a dict twice",
                     (long long)key);
}

static onestep_status check_few_keys(const pickle_container *container, onestep_error *error)
{
    for (size_t i = 1; i < container->count; i++) {
        for (size_t j = 0; j < i; j++) {
            const pickle_value *key = container->keys[i];
            if (!same_key(key, container->keys[j])) {
                continue;
            }
            if (key->kind != PICKLE_STRING) {
                return duplicate_number(
                    key->kind == PICKLE_BOOLEAN ? key->as.boolean : key->as.integer, error);
            }
            char shown[TEXT_SHOWN];
            return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: the key %s is in a dict twice",
                             text_shown(shown, key->as.string.text, key->as.string.length));
        }
    }
    return ONESTEP_OK;
}

static onestep_status check_many_numbers(const pickle_container *container, onestep_error *error)
{
    name_map *numbers = NULL;
    onestep_status status = name_map_create(&numbers, error);
    for (size_t i = 0; i < container->count && status == ONESTEP_OK; i++) {
        const pickle_value *key = container->keys[i];
        if (key->kind == PICKLE_STRING) {
            continue;
        }
        int64_t number = key->kind == PICKLE_BOOLEAN ? key->as.boolean : key->as.integer;
        uint32_t known;
        status = name_map_get(numbers, (const char *)&number, sizeof(number), &known)
                     ? duplicate_number(number, error)
                     : name_map_put(numbers, (const char *)&number, sizeof(number), 0, error);
    }
    name_map_destroy(&numbers);
    return status;
}

static onestep_status check_keys(pickle_tree *tree, pickle_value *dict, onestep_error *error)
{
    const pickle_container *container = &dict->as.container;
    for (size_t i = 0; i < container->count; i++) {
        int kind = container->keys[i]->kind;
        if (kind != PICKLE_STRING && kind != PICKLE_INTEGER && kind != PICKLE_BOOLEAN) {
            return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                             "pickle: a dict has %s as a key: strings, integers and booleans are "
                             "read",
                             pickle_kind_name((pickle_kind)kind));
        }
    }
    if (container->count < MAP_THRESHOLD) {
        return check_few_keys(container, error);
    }
    onestep_status status = map_keys(tree, dict, error);
    return status == ONESTEP_OK ? check_many_numbers(container, error) : status;
}

/* Depth first; `level` containers are open around `value`, so that recursion is bounded. */
static onestep_status check_value(pickle_tree *tree, pickle_value *value, unsigned level,
                                  onestep_error *error)
{
    if (value->kind > PICKLE_TENSOR) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED, "pickle: %s stands where a value is",
                         pickle_kind_name((pickle_kind)value->kind));
    }
    if (value->visit == VISIT_DONE) {
        return ONESTEP_OK;
    }
    if (value->visit == VISIT_OPEN) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: a %s contains itself",
                         pickle_kind_name((pickle_kind)value->kind));
    }
    value->values = 1;
    value->visit = VISIT_OPEN;
    if (is_container(value)) {
        size_t values = 1;
        unsigned depth = 0;
        if (level == PICKLE_DEPTH_LIMIT) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: nested deeper than %d",
                             PICKLE_DEPTH_LIMIT);
        }
        for (size_t i = 0; i < value->as.container.count; i++) {
            /* Values of this tree are the interpreter's own: not const at their source. */
            pickle_value *item = (pickle_value *)(uintptr_t)value->as.container.items[i];
            onestep_status status = check_value(tree, item, level + 1, error);
            if (status != ONESTEP_OK) {
                return status;
            }
            values += item->values;
            depth = item->depth > depth ? item->depth : depth;
            if (values > PICKLE_VALUE_LIMIT) {
                return error_set(error, ONESTEP_ERROR_FORMAT,
                                 "pickle: more than %zu values when shared ones are counted each "
                                 "time",
                                 PICKLE_VALUE_LIMIT);
            }
        }
        if (depth + 1 > PICKLE_DEPTH_LIMIT) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: nested deeper than %d",
                             PICKLE_DEPTH_LIMIT);
        }
        value->values = (uint32_t)values;
        value->depth = (uint8_t)(depth + 1);
        if (value->kind == PICKLE_DICT) {
            onestep_status status = check_keys(tree, value, error);
            if (status != ONESTEP_OK) {
                return status;
            }
        }
    }
    value->visit = VISIT_DONE;
    return ONESTEP_OK;
}

onestep_status pickle_check(pickle_tree *tree, pickle_value *root, onestep_error *error)
{
    return check_value(tree, root, 0, error);
}

/* ---- tensors -------------------------------------------------------------------------------- */

static bool is_contiguous(unsigned rank, const size_t *shape, const size_t *strides)
{
    size_t expected = 1;
    for (unsigned i = rank; i-- > 0;) {
        if (shape[i] != 1 && strides[i] != expected) {
            return false;
        }
        expected *= shape[i]; /* fits: the element count was checked */
    }
    return true;
}

/* Copies the elements of a strided tensor in row-major order. */
static void gather(uint8_t *destination, const uint8_t *source, const named_tensor *tensor,
                   const size_t *strides)
{
    size_t size = element_size(tensor->type);
    size_t index[TENSOR_RANK_LIMIT] = {0};
    unsigned last = tensor->rank - 1;
    for (size_t done = 0; done < tensor->bytes;) {
        size_t offset = 0;
        for (unsigned i = 0; i < last; i++) {
            offset += index[i] * strides[i];
        }
        for (size_t i = 0; i < tensor->shape[last]; i++) {
            memcpy(destination + done, source + (offset + i * strides[last]) * size, size);
            done += size;
        }
        for (unsigned i = last; i-- > 0;) {
            if (++index[i] < tensor->shape[i]) {
                break;
            }
            index[i] = 0;
        }
    }
}

onestep_status pickle_make_tensor(pickle_tree *tree, pickle_value *value,
                                  const pickle_storage *storage, size_t offset, unsigned rank,
                                  const size_t *shape, const size_t *strides, onestep_error *error)
{
    named_tensor tensor = {.name = "", .type = storage->type, .rank = rank};
    memcpy(tensor.shape, shape, rank * sizeof(*shape));
    if (!tensor_byte_count(tensor.type, rank, shape, &tensor.bytes)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: a tensor's shape is larger than any memory");
    }
    char shown[TENSOR_SHAPE_TEXT];
    /* The last element that the tensor reaches, in elements of the storage. */
    size_t end = offset;
    bool fits = true;
    for (unsigned i = 0; i < rank && tensor.bytes > 0; i++) {
        size_t reach;
        fits =
            fits && size_multiply(shape[i] - 1, strides[i], &reach) && size_add(end, reach, &end);
    }
    fits = fits && (tensor.bytes > 0 ? end < storage->count : offset <= storage->count);
    if (!fits) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: a tensor %s at offset %zu reaches beyond its storage of %zu "
                         "elements",
                         tensor_shape_text(&tensor, shown), offset, storage->count);
    }
    const uint8_t *data = storage->data + offset * element_size(tensor.type);
    if (tensor.bytes > 0 && !is_contiguous(rank, shape, strides)) {
        if (tensor.bytes > tree->copy_limit - tree->copied_bytes) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "pickle: tensors that are not contiguous (here %s over a storage of "
                             "%zu elements) need more than %zu bytes of copies",
                             tensor_shape_text(&tensor, shown), storage->count, tree->copy_limit);
        }
        pickle_copy *copy = memory_allocate(1, sizeof(*copy) + tensor.bytes, error);
        if (copy == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        copy->next = tree->copies;
        tree->copies = copy;
        tree->copied_bytes += tensor.bytes;
        gather(copy->bytes, data, &tensor, strides);
        data = copy->bytes;
    }
    tensor.data = data;
    value->as.tensor = arena_allocate(&tree->memory, 1, sizeof(tensor), error);
    if (value->as.tensor == NULL) {
        return arena_failure(&tree->memory);
    }
    *value->as.tensor = tensor;
    return ONESTEP_OK;
}

/* ---- building ------------------------------------------------------------------------------- */

/* NULL when an earlier step failed. */
static pickle_value *build(pickle_tree *tree, int kind)
{
    return tree->failure.code == ONESTEP_OK ? pickle_allocate(tree, kind, &tree->failure) : NULL;
}

pickle_value *pickle_new_none(pickle_tree *tree)
{
    return build(tree, PICKLE_NONE);
}

pickle_value *pickle_new_boolean(pickle_tree *tree, bool value)
{
    pickle_value *created = build(tree, PICKLE_BOOLEAN);
    if (created != NULL) {
        created->as.boolean = value;
    }
    return created;
}

pickle_value *pickle_new_integer(pickle_tree *tree, int64_t value)
{
    pickle_value *created = build(tree, PICKLE_INTEGER);
    if (created != NULL) {
        created->as.integer = value;
    }
    return created;
}

pickle_value *pickle_new_float(pickle_tree *tree, double value)
{
    pickle_value *created = build(tree, PICKLE_FLOAT);
    if (created != NULL) {
        created->as.number = value;
    }
    return created;
}

pickle_value *pickle_new_string(pickle_tree *tree, const char *value)
{
    pickle_value *created = build(tree, PICKLE_STRING);
    if (created == NULL) {
        return NULL;
    }
    size_t length = strlen(value);
    if (!text_is_utf8(value, length)) {
        char shown[TEXT_SHOWN];
        error_set(&tree->failure, ONESTEP_ERROR_ARGUMENT, "pickle: %s is not UTF-8",
                  text_shown(shown, value, length));
        return NULL;
    }
    created->as.string.length = length;
    created->as.string.text = arena_string(&tree->memory, value, length, &tree->failure);
    return created->as.string.text == NULL ? NULL : created;
}

pickle_value *pickle_new_tensor(pickle_tree *tree, const named_tensor *tensor)
{
    pickle_value *created = build(tree, PICKLE_TENSOR);
    if (created == NULL) {
        return NULL;
    }
    size_t bytes;
    if (tensor->rank > TENSOR_RANK_LIMIT ||
        !tensor_byte_count(tensor->type, tensor->rank, tensor->shape, &bytes) ||
        bytes != tensor->bytes) {
        error_set(&tree->failure, ONESTEP_ERROR_ARGUMENT,
                  "pickle: a tensor has %zu bytes, which its shape does not give", tensor->bytes);
        return NULL;
    }
    created->as.tensor = arena_allocate(&tree->memory, 1, sizeof(*tensor), &tree->failure);
    if (created->as.tensor == NULL) {
        return NULL;
    }
    *created->as.tensor = *tensor;
    created->as.tensor->name = "";
    return created;
}

pickle_value *pickle_new_container(pickle_tree *tree, pickle_kind kind)
{
    return build(tree, kind);
}

pickle_value *pickle_new_ordered_dict(pickle_tree *tree)
{
    pickle_value *created = build(tree, PICKLE_DICT);
    if (created != NULL) {
        created->ordered = true;
    }
    return created;
}

/* Whether the item may be put into the container; remembers why not. */
static bool can_put(pickle_tree *tree, const pickle_value *container, const pickle_value *item,
                    bool as_dict)
{
    if (tree->failure.code != ONESTEP_OK) {
        return false;
    }
    if (item == NULL || !is_container(container) || (container->kind == PICKLE_DICT) != as_dict) {
        error_set(&tree->failure, ONESTEP_ERROR_ARGUMENT, "pickle: %s cannot be put into %s%s",
                  item == NULL ? "nothing" : "a value", pickle_kind_name(pickle_kind_of(container)),
                  as_dict ? " by key" : "");
        return false;
    }
    return true;
}

void pickle_append(pickle_tree *tree, pickle_value *container, const pickle_value *item)
{
    if (can_put(tree, container, item, false)) {
        tree->failure.code = pickle_add(tree, container, NULL, item, &tree->failure);
    }
}

void pickle_put(pickle_tree *tree, pickle_value *dict, const char *key, const pickle_value *value)
{
    if (!can_put(tree, dict, value, true)) {
        return;
    }
    if (pickle_lookup(dict, key) != NULL) {
        char shown[TEXT_SHOWN];
        error_set(&tree->failure, ONESTEP_ERROR_ARGUMENT, "pickle: the key %s is in the dict",
                  text_shown(shown, key, strlen(key)));
        return;
    }
    const pickle_value *name = pickle_new_string(tree, key);
    if (name == NULL || pickle_add(tree, dict, name, value, &tree->failure) != ONESTEP_OK) {
        return;
    }
    if (dict->as.container.names != NULL) {
        tree->failure.code = map_key(dict, dict->as.container.count - 1, &tree->failure);
    } else if (dict->as.container.count == MAP_THRESHOLD) {
        tree->failure.code = map_keys(tree, dict, &tree->failure);
    }
}
