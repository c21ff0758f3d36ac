/* Pickle values in memory, and the interpreter that makes them (behaviour.md section 4). */
#ifndef FORMATS_PICKLE_H
#define FORMATS_PICKLE_H

#include "formats/arena.h"
#include "formats/formats.h"

#define PICKLE_OBJECT_LIMIT ((size_t)1024 * 1024)
#define PICKLE_VALUE_LIMIT  ((size_t)4 * 1024 * 1024) /* shared values counted each time */
#define PICKLE_DEPTH_LIMIT  64
#define PICKLE_MEMORY_LIMIT ((size_t)256 * 1024 * 1024)
#define PICKLE_STREAM_LIMIT ((size_t)32 * 1024 * 1024)
#define PICKLE_COPY_FREE    ((size_t)64 * 1024 * 1024) /* beyond the file's size */

/* Kinds that exist only while a pickle is interpreted. */
enum { PICKLE_GLOBAL = PICKLE_TENSOR + 1, PICKLE_STORAGE };

/* The callables and types that a pickle may name. */
typedef enum pickle_global {
    GLOBAL_REBUILD_TENSOR,
    GLOBAL_ORDERED_DICT,
    GLOBAL_SET,
    GLOBAL_STORAGE_TYPE
} pickle_global;

typedef struct pickle_storage {
    element_type type;
    const uint8_t *data;
    size_t count; /* elements */
} pickle_storage;

typedef struct pickle_container {
    const pickle_value **items;
    const pickle_value **keys; /* dicts only */
    size_t count, capacity;
    name_map *names;        /* string keys -> index, once there are many */
    pickle_value *next_map; /* the next container of the tree with `names` */
} pickle_container;

typedef enum pickle_visit { VISIT_NEW, VISIT_OPEN, VISIT_DONE } pickle_visit;

struct pickle_value {
    uint8_t kind; /* pickle_kind, PICKLE_GLOBAL or PICKLE_STORAGE */
    bool ordered; /* OrderedDict */
    uint8_t visit;
    uint8_t depth;   /* containers below and including this one */
    uint32_t values; /* in it, shared ones counted each time */
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct {
            const char *text;
            size_t length;
        } string;
        pickle_container container;
        named_tensor *tensor;
        struct {
            pickle_global global;
            element_type type; /* of a GLOBAL_STORAGE_TYPE */
        } global;
        pickle_storage storage;
    } as;
};

typedef struct pickle_copy pickle_copy; /* elements of a tensor that was not contiguous */

struct pickle_tree {
    arena memory;
    size_t object_count;
    pickle_value *maps; /* containers with a name_map */
    pickle_copy *copies;
    size_t copied_bytes, copy_limit;
    onestep_error failure; /* the first one while building; code ONESTEP_OK: none */
};

/* Where the interpreter finds the data of a storage: exactly `count` elements of `type`. */
typedef struct pickle_storage_source {
    onestep_status (*find)(void *context, const char *key, element_type type, size_t count,
                           const uint8_t **data, onestep_error *error);
    void *context;
    size_t copy_limit; /* bytes of copies of tensors that are not contiguous */
} pickle_storage_source;

/* Interprets a whole pickle. The bytes may go afterwards, the storages must stay. */
onestep_status pickle_interpret(pickle_tree **tree, const pickle_value **root, const uint8_t *bytes,
                                size_t size, const pickle_storage_source *source,
                                onestep_error *error) MUST_USE;

/* ---- pickle_value.c: used by the interpreter ------------------------------------------------ */

pickle_value *pickle_allocate(pickle_tree *tree, int kind, onestep_error *error) MUST_USE;
/* Adds an item, with its key for a dict, without looking for duplicates. */
onestep_status pickle_add(pickle_tree *tree, pickle_value *container, const pickle_value *key,
                          const pickle_value *item, onestep_error *error) MUST_USE;
/* Everything reachable from the root: no cycles, nothing but values, limits, keys unique. */
onestep_status pickle_check(pickle_tree *tree, pickle_value *root, onestep_error *error) MUST_USE;
/* The contiguous tensor over a storage; copies when the strides are not row-major. */
onestep_status pickle_make_tensor(pickle_tree *tree, pickle_value *value,
                                  const pickle_storage *storage, size_t offset, unsigned rank,
                                  const size_t *shape, const size_t *strides,
                                  onestep_error *error) MUST_USE;

#endif
