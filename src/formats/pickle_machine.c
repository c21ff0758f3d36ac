/* The stream, the stack and the memo of the pickle interpreter. */
#include "formats/pickle_machine.h"

#include <string.h>

/* ---- the stream ------------------------------------------------------------------------------ */

onestep_status pickle_take(pickle_machine *machine, size_t count, const uint8_t **bytes,
                           onestep_error *error)
{
    if (count > machine->size - machine->position) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: cut off: opcode 0x%02x needs %zu bytes more, %zu are left "
                         "(offset %zu)",
                         machine->bytes[machine->start], count, machine->size - machine->position,
                         machine->start);
    }
    *bytes = machine->bytes + machine->position;
    machine->position += count;
    return ONESTEP_OK;
}

/* An unsigned little-endian integer of 1 to 4 bytes. */
onestep_status pickle_take_number(pickle_machine *machine, size_t count, uint32_t *number,
                                  onestep_error *error)
{
    const uint8_t *bytes = NULL;
    onestep_status status = pickle_take(machine, count, &bytes, error);
    if (status == ONESTEP_OK) {
        *number = 0;
        memcpy(number, bytes, count);
    }
    return status;
}

/* A line that ends in a newline, which is taken but not counted. */
onestep_status pickle_take_line(pickle_machine *machine, const char **line, size_t *length,
                                onestep_error *error)
{
    const uint8_t *begin = machine->bytes + machine->position;
    const uint8_t *end = memchr(begin, '\n', machine->size - machine->position);
    if (end == NULL) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: cut off in the name of a global (offset %zu)", machine->start);
    }
    *line = (const char *)begin;
    *length = (size_t)(end - begin);
    machine->position += *length + 1;
    return ONESTEP_OK;
}

/* ---- stack and memo -------------------------------------------------------------------------- */

/* Grows an array of `size`-byte elements to hold index `count`. */
static onestep_status grow(void **array, size_t *capacity, size_t count, size_t size,
                           onestep_error *error)
{
    if (count < *capacity) {
        return ONESTEP_OK;
    }
    size_t larger = size_maximum(256, *capacity * 2);
    larger = size_maximum(larger, count + 1);
    void *grown = memory_resize(*array, larger, size, error);
    if (grown == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    memset((char *)grown + *capacity * size, 0, (larger - *capacity) * size);
    *array = grown;
    *capacity = larger;
    return ONESTEP_OK;
}

onestep_status pickle_push(pickle_machine *machine, pickle_value *value, onestep_error *error)
{
    if (machine->depth == PICKLE_OBJECT_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: more than %zu values on the stack",
                         PICKLE_OBJECT_LIMIT);
    }
    onestep_status status = grow((void **)&machine->stack, &machine->stack_capacity, machine->depth,
                                 sizeof(*machine->stack), error);
    if (status == ONESTEP_OK) {
        machine->stack[machine->depth++] = value;
    }
    return status;
}

/* A new value on the stack. */
onestep_status pickle_push_new(pickle_machine *machine, int kind, pickle_value **value,
                               onestep_error *error)
{
    *value = pickle_allocate(machine->tree, kind, error);
    return *value == NULL ? arena_failure(&machine->tree->memory)
                          : pickle_push(machine, *value, error);
}

/* Values above the innermost mark. */
static size_t available(const pickle_machine *machine)
{
    return machine->depth - (machine->mark_count > 0 ? machine->marks[machine->mark_count - 1] : 0);
}

onestep_status pickle_need(const pickle_machine *machine, size_t count, onestep_error *error)
{
    if (available(machine) < count) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: opcode 0x%02x needs %zu values, the stack has %zu (offset %zu)",
                         machine->bytes[machine->start], count, available(machine), machine->start);
    }
    return ONESTEP_OK;
}

onestep_status pickle_push_mark(pickle_machine *machine, onestep_error *error)
{
    if (machine->mark_count == PICKLE_OBJECT_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: more than %zu marks on the stack",
                         PICKLE_OBJECT_LIMIT);
    }
    onestep_status status = grow((void **)&machine->marks, &machine->mark_capacity,
                                 machine->mark_count, sizeof(*machine->marks), error);
    if (status == ONESTEP_OK) {
        machine->marks[machine->mark_count++] = machine->depth;
    }
    return status;
}

/* Removes the innermost mark; *count values were above it and stay on the stack. */
onestep_status pickle_pop_mark(pickle_machine *machine, size_t *count, onestep_error *error)
{
    if (machine->mark_count == 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: opcode 0x%02x without a mark on the stack (offset %zu)",
                         machine->bytes[machine->start], machine->start);
    }
    *count = available(machine);
    machine->mark_count--;
    return ONESTEP_OK;
}

onestep_status pickle_memo_put(pickle_machine *machine, size_t index_bytes, onestep_error *error)
{
    uint32_t index = 0;
    onestep_status status = pickle_take_number(machine, index_bytes, &index, error);
    if (status == ONESTEP_OK) {
        status = pickle_need(machine, 1, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    if (index >= PICKLE_OBJECT_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: memo number %u is beyond the limit of %zu (offset %zu)", index,
                         PICKLE_OBJECT_LIMIT, machine->start);
    }
    status = grow((void **)&machine->memo, &machine->memo_capacity, index, sizeof(*machine->memo),
                  error);
    if (status == ONESTEP_OK) {
        machine->memo[index] = machine->stack[machine->depth - 1];
    }
    return status;
}

onestep_status pickle_memo_get(pickle_machine *machine, size_t index_bytes, onestep_error *error)
{
    uint32_t index = 0;
    onestep_status status = pickle_take_number(machine, index_bytes, &index, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    if (index >= machine->memo_capacity || machine->memo[index] == NULL) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: memo number %u was never stored (offset %zu)", index,
                         machine->start);
    }
    return pickle_push(machine, machine->memo[index], error);
}
