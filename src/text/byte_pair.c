#include "text/byte_pair.h"

#include <string.h>

/* A symbol of the word, linked to its neighbours; NONE ends the chain. */
typedef struct byte_pair_symbol {
    int32_t id; /* -1: merged into the symbol before it */
    uint32_t previous, next;
} byte_pair_symbol;

static const uint32_t NONE = UINT32_MAX;

/* A merge that was possible when it was noted: of the symbol at `position` with the next one. */
typedef struct byte_pair_merge {
    uint32_t rank, position;
} byte_pair_merge;

/* ---- merges ------------------------------------------------------------------------------- */

typedef struct pair_key {
    char bytes[8];
} pair_key;

static pair_key key_of(int32_t left, int32_t right)
{
    pair_key key;
    memcpy(key.bytes, &left, sizeof left);
    memcpy(key.bytes + 4, &right, sizeof right);
    return key;
}

onestep_status merge_table_add(merge_table *table, int32_t left, int32_t right, int32_t product,
                               onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    if (table->ranks == NULL) {
        status = name_map_create(&table->ranks, error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    if (table->count == table->capacity) {
        size_t capacity = size_maximum(table->capacity * 2, 1024);
        int32_t *products = memory_resize(table->products, capacity, sizeof *products, error);
        if (products == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        table->products = products;
        table->capacity = capacity;
    }
    /* A pair that is listed twice has its later rank. */
    pair_key key = key_of(left, right);
    status = name_map_put(table->ranks, key.bytes, sizeof key.bytes, (uint32_t)table->count, error);
    if (status == ONESTEP_OK) {
        table->products[table->count++] = product;
    }
    return status;
}

void merge_table_free(merge_table *table)
{
    name_map_destroy(&table->ranks);
    memory_free(table->products);
    *table = (merge_table){0};
}

static bool find_rank(const merge_table *table, int32_t left, int32_t right, uint32_t *rank)
{
    pair_key key = key_of(left, right);
    return table->ranks != NULL && name_map_get(table->ranks, key.bytes, sizeof key.bytes, rank);
}

/* ---- a heap of merges: lowest rank first, then from left to right --------------------------- */

static bool comes_before(byte_pair_merge a, byte_pair_merge b)
{
    return a.rank < b.rank || (a.rank == b.rank && a.position < b.position);
}

static void heap_push(byte_pair_workspace *workspace, byte_pair_merge added)
{
    byte_pair_merge *heap = workspace->heap;
    size_t place = workspace->heap_count++;
    while (place > 0 && comes_before(added, heap[(place - 1) / 2])) {
        heap[place] = heap[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    heap[place] = added;
}

static byte_pair_merge heap_pop(byte_pair_workspace *workspace)
{
    byte_pair_merge *heap = workspace->heap;
    byte_pair_merge top = heap[0];
    size_t count = --workspace->heap_count;
    byte_pair_merge moved = heap[count];
    size_t place = 0;
    for (size_t child = 1; child < count; child = 2 * place + 1) {
        if (child + 1 < count && comes_before(heap[child + 1], heap[child])) {
            ++child;
        }
        if (!comes_before(heap[child], moved)) {
            break;
        }
        heap[place] = heap[child];
        place = child;
    }
    heap[place] = moved;
    return top;
}

/* ---- a word ------------------------------------------------------------------------------- */

void byte_pair_workspace_free(byte_pair_workspace *workspace)
{
    memory_free(workspace->symbols);
    memory_free(workspace->heap);
    *workspace = (byte_pair_workspace){0};
}

static onestep_status reserve(byte_pair_workspace *workspace, size_t count, onestep_error *error)
{
    if (count <= workspace->capacity) {
        return ONESTEP_OK;
    }
    size_t capacity = size_maximum(count, size_maximum(workspace->capacity * 2, 64));
    byte_pair_workspace_free(workspace);
    workspace->symbols = memory_allocate(capacity, sizeof *workspace->symbols, error);
    if (workspace->symbols == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    /* Each pair of neighbours is noted once at first, and each merge notes two more. */
    workspace->heap = memory_allocate(capacity, 3 * sizeof *workspace->heap, error);
    if (workspace->heap == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    workspace->capacity = capacity;
    return ONESTEP_OK;
}

/* Notes the merge of the symbol with the next one, when there is such a merge. */
static void note_merge(const merge_table *table, byte_pair_workspace *workspace, uint32_t position)
{
    const byte_pair_symbol *symbols = workspace->symbols;
    uint32_t next = symbols[position].next, rank;
    if (next != NONE && find_rank(table, symbols[position].id, symbols[next].id, &rank)) {
        heap_push(workspace, (byte_pair_merge){.rank = rank, .position = position});
    }
}

onestep_status byte_pair_merge_word(const merge_table *table, byte_pair_workspace *workspace,
                                    int32_t *ids, size_t *count, onestep_error *error)
{
    if (*count < 2) {
        return ONESTEP_OK;
    }
    onestep_status status = reserve(workspace, *count, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    byte_pair_symbol *symbols = workspace->symbols;
    uint32_t length = (uint32_t)*count;
    for (uint32_t i = 0; i < length; ++i) {
        symbols[i] = (byte_pair_symbol){
            .id = ids[i], .previous = i == 0 ? NONE : i - 1, .next = i + 1 < length ? i + 1 : NONE};
    }
    workspace->heap_count = 0;
    for (uint32_t i = 0; i + 1 < length; ++i) {
        note_merge(table, workspace, i);
    }
    while (workspace->heap_count > 0) {
        byte_pair_merge merge = heap_pop(workspace);
        byte_pair_symbol *left = &symbols[merge.position];
        uint32_t rank;
        /* Since it was noted, either symbol may have become part of another. */
        if (left->id < 0 || left->next == NONE ||
            !find_rank(table, left->id, symbols[left->next].id, &rank) ||
            table->products[rank] != table->products[merge.rank]) {
            continue;
        }
        byte_pair_symbol *right = &symbols[left->next];
        left->id = table->products[merge.rank];
        left->next = right->next;
        right->id = -1;
        if (left->next != NONE) {
            symbols[left->next].previous = merge.position;
        }
        if (left->previous != NONE) {
            note_merge(table, workspace, left->previous);
        }
        note_merge(table, workspace, merge.position);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != NONE; i = symbols[i].next) {
        ids[kept++] = symbols[i].id;
    }
    *count = kept;
    return ONESTEP_OK;
}
