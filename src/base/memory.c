/* Checked allocation, aligned blocks for activations and weights, and strings. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 64 };

/* From this size on an aligned block is a mapping of its own. */
static const size_t MAPPING_THRESHOLD = (size_t)4 << 20;
static const size_t HUGE_PAGE = (size_t)2 << 20;

static void set_memory_error(onestep_error *error, size_t count, size_t size)
{
    size_t bytes;
    if (size_multiply(count, size, &bytes)) {
        (void)error_set(error, ONESTEP_ERROR_MEMORY, "out of memory: %zu bytes are not to be had",
                        bytes);
    } else {
        (void)error_set(error, ONESTEP_ERROR_MEMORY,
                        "out of memory: %zu elements of %zu bytes are more than can be addressed",
                        count, size);
    }
}

void *memory_allocate(size_t count, size_t size, onestep_error *error)
{
    size_t bytes;
    void *block = NULL;
    if (size_multiply(count, size, &bytes)) {
        block = calloc(1, size_maximum(bytes, 1));
    }
    if (block == NULL) {
        set_memory_error(error, count, size);
    }
    return block;
}

void *memory_resize(void *block, size_t count, size_t size, onestep_error *error)
{
    size_t bytes;
    void *resized = NULL;
    if (size_multiply(count, size, &bytes)) {
        resized = realloc(block, size_maximum(bytes, 1));
    }
    if (resized == NULL) {
        set_memory_error(error, count, size);
    }
    return resized;
}

void memory_free(void *block)
{
    free(block);
}

static size_t page_size(void)
{
    long size = sysconf(_SC_PAGESIZE);
    return size > 0 ? (size_t)size : 4096;
}

/* A mapping that begins on a huge page, so that the system can use huge pages for all of it. */
static void *map_block(size_t bytes)
{
    size_t length = size_round_up(bytes, page_size());
    uint8_t *start = mmap(NULL, length + HUGE_PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) {
        return NULL;
    }
    size_t before = (HUGE_PAGE - (uintptr_t)start % HUGE_PAGE) % HUGE_PAGE;
    size_t after = HUGE_PAGE - before;
    if (before > 0) {
        munmap(start, before);
    }
    if (after > 0) {
        munmap(start + before + length, after);
    }
#ifdef MADV_HUGEPAGE
    /* Advice: a system without huge pages serves the block all the same. */
    (void)madvise(start + before, length, MADV_HUGEPAGE);
#endif
    return start + before;
}

void *memory_allocate_aligned(size_t bytes, onestep_error *error)
{
    void *block = NULL;
    if (bytes < MAPPING_THRESHOLD) {
        if (posix_memalign(&block, ALIGNMENT, size_round_up(size_maximum(bytes, 1), ALIGNMENT))) {
            block = NULL;
        }
    } else if (bytes <= SIZE_MAX / 2) {
        block = map_block(bytes);
    }
    if (block == NULL) {
        set_memory_error(error, bytes, 1);
    }
    return block;
}

void memory_free_aligned(void *block, size_t bytes)
{
    if (block == NULL) {
        return;
    }
    if (bytes < MAPPING_THRESHOLD) {
        free(block);
    } else {
        munmap(block, size_round_up(bytes, page_size()));
    }
}

char *string_duplicate(const char *text, onestep_error *error)
{
    size_t length = strlen(text);
    char *copy = memory_allocate(length + 1, 1, error);
    if (copy != NULL) {
        memcpy(copy, text, length + 1);
    }
    return copy;
}

char *string_format(onestep_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) {
        (void)error_set(error, ONESTEP_ERROR_INTERNAL, "the format \"%s\" cannot be printed",
                        format);
        return NULL;
    }
    char *text = memory_allocate((size_t)length + 1, 1, error);
    if (text != NULL) {
        va_start(arguments, format);
        vsnprintf(text, (size_t)length + 1, format, arguments);
        va_end(arguments);
    }
    return text;
}
