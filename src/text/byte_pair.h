/* Byte-pair encoding of one word; private to text. */
#ifndef TEXT_BYTE_PAIR_H
#define TEXT_BYTE_PAIR_H

#include "base/base.h"

/* The merges: a pair of neighbouring tokens becomes one token, pairs of lower rank first. */
typedef struct merge_table {
    name_map *ranks;   /* (left, right) -> rank */
    int32_t *products; /* by rank */
    size_t count, capacity;
} merge_table;

onestep_status merge_table_add(merge_table *table, int32_t left, int32_t right, int32_t product,
                               onestep_error *error) MUST_USE;
void merge_table_free(merge_table *table);

/* Scratch memory, reused from word to word. Zero-initialise. */
typedef struct byte_pair_workspace {
    struct byte_pair_symbol *symbols;
    struct byte_pair_merge *heap;
    size_t capacity; /* in symbols */
    size_t heap_count;
} byte_pair_workspace;

void byte_pair_workspace_free(byte_pair_workspace *workspace);

/* Merges the `*count` ids of a word in place; *count becomes the number that is left. Time is
 * O(n log n). */
onestep_status byte_pair_merge_word(const merge_table *table, byte_pair_workspace *workspace,
                                    int32_t *ids, size_t *count, onestep_error *error) MUST_USE;

#endif
