#include "formats/arena.h"

#include <string.h>

#define BLOCK_BYTES ((size_t)64 * 1024)
#define ALIGNMENT   ((size_t)16)

struct arena_block {
    arena_block *next;
    size_t size;
    _Alignas(16) uint8_t bytes[];
};

static void *limit_reached(arena *memory, onestep_error *error)
{
    memory->status = error_set(error, ONESTEP_ERROR_FORMAT,
                               "the contents need more than %zu bytes of memory", memory->limit);
    return NULL;
}

onestep_status arena_failure(const arena *memory)
{
    return memory->status;
}

void *arena_allocate(arena *memory, size_t count, size_t size, onestep_error *error)
{
    size_t bytes;
    if (!size_multiply(count, size, &bytes) || bytes > memory->limit) {
        return limit_reached(memory, error);
    }
    bytes = size_round_up(bytes, ALIGNMENT);
    if (memory->blocks == NULL || bytes > memory->blocks->size - memory->used) {
        size_t block_bytes = size_maximum(bytes, BLOCK_BYTES);
        if (block_bytes > memory->limit - size_minimum(memory->total, memory->limit)) {
            return limit_reached(memory, error);
        }
        arena_block *block = memory_allocate(1, sizeof(*block) + block_bytes, error);
        if (block == NULL) {
            memory->status = ONESTEP_ERROR_MEMORY;
            return NULL;
        }
        block->next = memory->blocks;
        block->size = block_bytes;
        memory->blocks = block;
        memory->total += block_bytes;
        memory->used = 0;
    }
    void *result = memory->blocks->bytes + memory->used;
    memory->used += bytes;
    return result;
}

char *arena_string(arena *memory, const char *text, size_t length, onestep_error *error)
{
    char *copy = arena_allocate(memory, length + 1, 1, error);
    if (copy != NULL) {
        memcpy(copy, text, length);
    }
    return copy;
}

void arena_free(arena *memory)
{
    while (memory->blocks != NULL) {
        arena_block *next = memory->blocks->next;
        memory_free(memory->blocks);
        memory->blocks = next;
    }
    memory->used = 0;
    memory->total = 0;
}
