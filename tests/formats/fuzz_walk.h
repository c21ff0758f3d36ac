/* What fuzz targets do with a file that could be read: touch everything in it. */
#ifndef TESTS_FORMATS_FUZZ_WALK_H
#define TESTS_FORMATS_FUZZ_WALK_H

#include "formats/formats.h"

#include <stdlib.h>
#include <string.h>

static inline void fuzz_require(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* Bytes that one input may still have read: what is shared is met again and again. */
static size_t fuzz_budget;

static inline void fuzz_begin(void)
{
    fuzz_budget = (size_t)8 << 20;
}

static volatile unsigned fuzz_sum; /* keeps the compiler from dropping the reading */

static inline void fuzz_read(const void *data, size_t size)
{
    unsigned sum = 0;
    if (size > fuzz_budget) {
        return;
    }
    fuzz_budget -= size;
    for (size_t i = 0; i < size; i++) {
        sum += ((const uint8_t *)data)[i];
    }
    fuzz_sum = sum;
}

static inline void fuzz_walk_tensor(const named_tensor *tensor)
{
    size_t count = element_size(tensor->type);
    fuzz_require(tensor->rank <= TENSOR_RANK_LIMIT && tensor->data != NULL);
    for (unsigned i = 0; i < tensor->rank; i++) {
        fuzz_require(size_multiply(count, tensor->shape[i], &count));
    }
    fuzz_require(count == tensor->bytes);
    fuzz_read(tensor->name, strlen(tensor->name));
    fuzz_read(tensor->data, tensor->bytes);
}

static inline void fuzz_walk_value(const pickle_value *value, unsigned depth)
{
    fuzz_require(depth <= 64);
    switch (pickle_kind_of(value)) {
    case PICKLE_STRING:
        fuzz_read(pickle_string(value), strlen(pickle_string(value)));
        break;
    case PICKLE_TENSOR:
        fuzz_walk_tensor(pickle_tensor(value));
        break;
    case PICKLE_LIST:
    case PICKLE_TUPLE:
    case PICKLE_DICT:
    case PICKLE_SET:
        for (size_t i = 0; i < pickle_count(value); i++) {
            fuzz_walk_value(pickle_item(value, i), depth + 1);
            if (pickle_kind_of(value) == PICKLE_DICT) {
                fuzz_walk_value(pickle_key(value, i), depth + 1);
            }
        }
        break;
    default:
        break;
    }
}

static inline void fuzz_walk_file(const weight_file *file)
{
    for (size_t i = 0; i < weight_file_count(file); i++) {
        const named_tensor *tensor = weight_file_tensor(file, i);
        fuzz_walk_tensor(tensor);
        fuzz_require(weight_file_find(file, tensor->name) == tensor);
    }
    for (size_t i = 0; i < weight_file_metadata_count(file); i++) {
        const char *key = weight_file_metadata_key(file, i);
        fuzz_require(strcmp(weight_file_metadata(file, key), weight_file_metadata_value(file, i)) ==
                     0);
    }
    fuzz_walk_value(weight_file_root(file), 0);
    onestep_error error;
    (void)!weight_file_verify(file, &error);
}

#endif
