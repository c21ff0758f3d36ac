/* The state of the pickle interpreter, and its parts. */
#ifndef FORMATS_PICKLE_MACHINE_H
#define FORMATS_PICKLE_MACHINE_H

#include "formats/pickle.h"

typedef struct pickle_machine {
    const uint8_t *bytes;
    size_t size, position;
    size_t start; /* of the opcode being carried out */
    pickle_tree *tree;
    const pickle_storage_source *source;
    pickle_value **stack;
    size_t depth, stack_capacity;
    size_t *marks; /* stack depths */
    size_t mark_count, mark_capacity;
    pickle_value **memo; /* NULL: not set */
    size_t memo_capacity;
} pickle_machine;

/* ---- pickle_machine.c: the stream ----------------------------------------------------------- */

onestep_status pickle_take(pickle_machine *machine, size_t count, const uint8_t **bytes,
                           onestep_error *error) MUST_USE;
/* An unsigned little-endian integer of 1 to 4 bytes. */
onestep_status pickle_take_number(pickle_machine *machine, size_t count, uint32_t *number,
                                  onestep_error *error) MUST_USE;
/* A line that ends in a newline, which is taken but not counted. */
onestep_status pickle_take_line(pickle_machine *machine, const char **line, size_t *length,
                                onestep_error *error) MUST_USE;

/* ---- pickle_machine.c: stack and memo ------------------------------------------------------- */

onestep_status pickle_push(pickle_machine *machine, pickle_value *value,
                           onestep_error *error) MUST_USE;
/* A new value on the stack. */
onestep_status pickle_push_new(pickle_machine *machine, int kind, pickle_value **value,
                               onestep_error *error) MUST_USE;
/* Fails unless `count` values are above the innermost mark. */
onestep_status pickle_need(const pickle_machine *machine, size_t count,
                           onestep_error *error) MUST_USE;
onestep_status pickle_push_mark(pickle_machine *machine, onestep_error *error) MUST_USE;
/* Removes the innermost mark; *count values were above it and stay on the stack. */
onestep_status pickle_pop_mark(pickle_machine *machine, size_t *count,
                               onestep_error *error) MUST_USE;
/* BINPUT and BINGET with an index of so many bytes. */
onestep_status pickle_memo_put(pickle_machine *machine, size_t index_bytes,
                               onestep_error *error) MUST_USE;
onestep_status pickle_memo_get(pickle_machine *machine, size_t index_bytes,
                               onestep_error *error) MUST_USE;

/* ---- pickle_call.c: the opcodes that call something ------------------------------------------ */

onestep_status pickle_global_opcode(pickle_machine *machine, onestep_error *error) MUST_USE;
onestep_status pickle_reduce_opcode(pickle_machine *machine, onestep_error *error) MUST_USE;
onestep_status pickle_build_opcode(pickle_machine *machine, onestep_error *error) MUST_USE;
onestep_status pickle_storage_opcode(pickle_machine *machine, onestep_error *error) MUST_USE;

#endif
