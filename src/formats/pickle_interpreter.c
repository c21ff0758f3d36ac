/* A pickle is a program for a stack machine. This one knows the opcodes and the few callables that
 * torch.save writes and refuses everything else by name (behaviour.md section 4). */
#include "formats/pickle_machine.h"

#include "formats/text.h"

#include <string.h>

typedef enum opcode {
    OP_PROTO = 0x80,
    OP_STOP = '.',
    OP_MARK = '(',
    OP_NONE = 'N',
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_LONG1 = 0x8A,
    OP_BINFLOAT = 'G',
    OP_BINUNICODE = 'X',
    OP_EMPTY_LIST = ']',
    OP_EMPTY_TUPLE = ')',
    OP_EMPTY_DICT = '}',
    OP_TUPLE = 't',
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_APPEND = 'a',
    OP_APPENDS = 'e',
    OP_SETITEM = 's',
    OP_SETITEMS = 'u',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_GLOBAL = 'c',
    OP_REDUCE = 'R',
    OP_BUILD = 'b',
    OP_BINPERSID = 'Q'
} opcode;

/* Those that pickles of other programs have, for the message. */
static const struct {
    uint8_t code;
    const char *name;
} refused_opcodes[] = {
    {'0', "POP"},
    {'1', "POP_MARK"},
    {'2', "DUP"},
    {'F', "FLOAT"},
    {'I', "INT"},
    {'L', "LONG"},
    {'P', "PERSID"},
    {'S', "STRING"},
    {'T', "BINSTRING"},
    {'U', "SHORT_BINSTRING"},
    {'V', "UNICODE"},
    {'B', "BINBYTES"},
    {'C', "SHORT_BINBYTES"},
    {'d', "DICT"},
    {'l', "LIST"},
    {'g', "GET"},
    {'p', "PUT"},
    {'i', "INST"},
    {'o', "OBJ"},
    {0x80, "PROTO (a second time)"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x8B, "LONG4"},
    {0x8C, "SHORT_BINUNICODE"},
    {0x8D, "BINUNICODE8"},
    {0x8E, "BINBYTES8"},
    {0x8F, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x93, "STACK_GLOBAL"},
    {0x94, "MEMOIZE"},
    {0x95, "FRAME"},
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
};

/* ---- plain values ---------------------------------------------------------------------------- */

static onestep_status push_integer(pickle_machine *machine, int64_t integer, onestep_error *error)
{
    pickle_value *value;
    onestep_status status = pickle_push_new(machine, PICKLE_INTEGER, &value, error);
    if (status == ONESTEP_OK) {
        value->as.integer = integer;
    }
    return status;
}

static onestep_status push_long(pickle_machine *machine, onestep_error *error)
{
    uint32_t length;
    const uint8_t *bytes = NULL;
    onestep_status status = pickle_take_number(machine, 1, &length, error);
    if (status == ONESTEP_OK) {
        status = pickle_take(machine, length, &bytes, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    if (length > 8) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "pickle: an integer of %u bytes: at most 8 are read (offset %zu)", length,
                         machine->start);
    }
    uint64_t integer = length > 0 && (bytes[length - 1] & 0x80) != 0 ? UINT64_MAX : 0;
    memcpy(&integer, bytes, length);
    return push_integer(machine, (int64_t)integer, error);
}

static onestep_status push_float(pickle_machine *machine, onestep_error *error)
{
    const uint8_t *bytes = NULL;
    onestep_status status = pickle_take(machine, 8, &bytes, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    uint64_t bits; /* big-endian, unlike everything else here */
    memcpy(&bits, bytes, 8);
    bits = __builtin_bswap64(bits);
    pickle_value *value;
    status = pickle_push_new(machine, PICKLE_FLOAT, &value, error);
    if (status == ONESTEP_OK) {
        memcpy(&value->as.number, &bits, 8);
    }
    return status;
}

static onestep_status push_string(pickle_machine *machine, onestep_error *error)
{
    uint32_t length;
    const uint8_t *bytes = NULL;
    onestep_status status = pickle_take_number(machine, 4, &length, error);
    if (status == ONESTEP_OK) {
        status = pickle_take(machine, length, &bytes, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    if (!text_is_utf8((const char *)bytes, length)) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: a string is not UTF-8 or has a NUL (offset %zu)", machine->start);
    }
    pickle_value *value;
    status = pickle_push_new(machine, PICKLE_STRING, &value, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    value->as.string.length = length;
    value->as.string.text =
        arena_string(&machine->tree->memory, (const char *)bytes, length, error);
    return value->as.string.text == NULL ? arena_failure(&machine->tree->memory) : ONESTEP_OK;
}

static onestep_status push_boolean(pickle_machine *machine, bool boolean, onestep_error *error)
{
    pickle_value *value;
    onestep_status status = pickle_push_new(machine, PICKLE_BOOLEAN, &value, error);
    if (status == ONESTEP_OK) {
        value->as.boolean = boolean;
    }
    return status;
}

/* ---- containers ------------------------------------------------------------------------------ */

/* Replaces the top `count` values by a tuple of them. */
static onestep_status make_tuple(pickle_machine *machine, size_t count, onestep_error *error)
{
    pickle_value *tuple = pickle_allocate(machine->tree, PICKLE_TUPLE, error);
    if (tuple == NULL) {
        return arena_failure(&machine->tree->memory);
    }
    for (size_t i = 0; i < count; i++) {
        onestep_status status = pickle_add(machine->tree, tuple, NULL,
                                           machine->stack[machine->depth - count + i], error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    machine->depth -= count;
    return pickle_push(machine, tuple, error);
}

/* Moves the top `count` values into the container below them. */
static onestep_status fill(pickle_machine *machine, size_t count, int kind, onestep_error *error)
{
    onestep_status status = pickle_need(machine, count + 1, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    size_t step = kind == PICKLE_DICT ? 2 : 1;
    pickle_value **values = machine->stack + machine->depth - count;
    pickle_value *target = values[-1];
    if (target->kind != kind || count % step != 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: opcode 0x%02x puts %zu values into %s (offset %zu)",
                         machine->bytes[machine->start], count,
                         pickle_kind_name((pickle_kind)target->kind), machine->start);
    }
    for (size_t i = 0; i < count; i += step) {
        status = pickle_add(machine->tree, target, values[i], values[i + step - 1], error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    machine->depth -= count;
    return ONESTEP_OK;
}

static onestep_status fill_to_mark(pickle_machine *machine, int kind, onestep_error *error)
{
    size_t count = 0;
    onestep_status status = pickle_pop_mark(machine, &count, error);
    return status == ONESTEP_OK ? fill(machine, count, kind, error) : status;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static onestep_status refuse_opcode(const pickle_machine *machine, onestep_error *error)
{
    uint8_t code = machine->bytes[machine->start];
    const char *name = "unknown";
    for (size_t i = 0; i < sizeof(refused_opcodes) / sizeof(refused_opcodes[0]); i++) {
        if (refused_opcodes[i].code == code) {
            name = refused_opcodes[i].name;
        }
    }
    return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                     "pickle: opcode 0x%02x (%s) is not allowed (offset %zu)", code, name,
                     machine->start);
}

static onestep_status step_value(pickle_machine *machine, opcode code, onestep_error *error)
{
    uint32_t number = 0;
    pickle_value *value;
    onestep_status status;
    switch (code) {
    case OP_NONE:
        return pickle_push_new(machine, PICKLE_NONE, &value, error);
    case OP_NEWTRUE:
        return push_boolean(machine, true, error);
    case OP_NEWFALSE:
        return push_boolean(machine, false, error);
    case OP_BININT:
        status = pickle_take_number(machine, 4, &number, error);
        return status == ONESTEP_OK ? push_integer(machine, (int32_t)number, error) : status;
    case OP_BININT1:
        status = pickle_take_number(machine, 1, &number, error);
        return status == ONESTEP_OK ? push_integer(machine, number, error) : status;
    case OP_BININT2:
        status = pickle_take_number(machine, 2, &number, error);
        return status == ONESTEP_OK ? push_integer(machine, number, error) : status;
    case OP_LONG1:
        return push_long(machine, error);
    case OP_BINFLOAT:
        return push_float(machine, error);
    case OP_BINUNICODE:
        return push_string(machine, error);
    case OP_EMPTY_LIST:
        return pickle_push_new(machine, PICKLE_LIST, &value, error);
    case OP_EMPTY_TUPLE:
        return pickle_push_new(machine, PICKLE_TUPLE, &value, error);
    case OP_EMPTY_DICT:
        return pickle_push_new(machine, PICKLE_DICT, &value, error);
    default:
        return refuse_opcode(machine, error);
    }
}

static onestep_status step(pickle_machine *machine, opcode code, onestep_error *error)
{
    size_t count = 0;
    onestep_status status;
    switch (code) {
    case OP_MARK:
        return pickle_push_mark(machine, error);
    case OP_TUPLE:
        status = pickle_pop_mark(machine, &count, error);
        return status == ONESTEP_OK ? make_tuple(machine, count, error) : status;
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        count = (size_t)(code - OP_TUPLE1) + 1;
        status = pickle_need(machine, count, error);
        return status == ONESTEP_OK ? make_tuple(machine, count, error) : status;
    case OP_APPEND:
        return fill(machine, 1, PICKLE_LIST, error);
    case OP_APPENDS:
        return fill_to_mark(machine, PICKLE_LIST, error);
    case OP_SETITEM:
        return fill(machine, 2, PICKLE_DICT, error);
    case OP_SETITEMS:
        return fill_to_mark(machine, PICKLE_DICT, error);
    case OP_BINPUT:
        return pickle_memo_put(machine, 1, error);
    case OP_LONG_BINPUT:
        return pickle_memo_put(machine, 4, error);
    case OP_BINGET:
        return pickle_memo_get(machine, 1, error);
    case OP_LONG_BINGET:
        return pickle_memo_get(machine, 4, error);
    case OP_GLOBAL:
        return pickle_global_opcode(machine, error);
    case OP_REDUCE:
        return pickle_reduce_opcode(machine, error);
    case OP_BUILD:
        return pickle_build_opcode(machine, error);
    case OP_BINPERSID:
        return pickle_storage_opcode(machine, error);
    default:
        return step_value(machine, code, error);
    }
}

/* The two bytes that begin a pickle. */
static onestep_status check_protocol(pickle_machine *machine, onestep_error *error)
{
    if (machine->size < 2 || machine->bytes[0] != OP_PROTO) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: it does not begin with a protocol number");
    }
    if (machine->bytes[1] != 2) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "pickle: protocol %u: torch.save writes protocol 2, and only that is "
                         "read; load the file with PyTorch and save it again",
                         machine->bytes[1]);
    }
    machine->position = 2;
    return ONESTEP_OK;
}

static onestep_status run(pickle_machine *machine, const pickle_value **root, onestep_error *error)
{
    onestep_status status = check_protocol(machine, error);
    while (status == ONESTEP_OK) {
        if (machine->position == machine->size) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "pickle: cut off: it ends without STOP (offset %zu)", machine->size);
        }
        machine->start = machine->position;
        opcode code = (opcode)machine->bytes[machine->position++];
        if (code == OP_STOP) {
            break;
        }
        status = step(machine, code, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    if (machine->depth != 1 || machine->mark_count != 0 || machine->position != machine->size) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "pickle: STOP at offset %zu with %zu values and %zu marks on the stack "
                         "and %zu bytes to go",
                         machine->start, machine->depth, machine->mark_count,
                         machine->size - machine->position);
    }
    status = pickle_check(machine->tree, machine->stack[0], error);
    if (status == ONESTEP_OK) {
        *root = machine->stack[0];
    }
    return status;
}

onestep_status pickle_interpret(pickle_tree **tree, const pickle_value **root, const uint8_t *bytes,
                                size_t size, const pickle_storage_source *source,
                                onestep_error *error)
{
    *tree = NULL;
    *root = NULL;
    if (size > PICKLE_STREAM_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: %zu bytes: the limit is %zu", size,
                         PICKLE_STREAM_LIMIT);
    }
    pickle_machine machine = {.bytes = bytes, .size = size, .source = source};
    onestep_status status = pickle_tree_create(&machine.tree, error);
    if (status == ONESTEP_OK) {
        machine.tree->copy_limit = source->copy_limit;
        status = run(&machine, root, error);
    }
    memory_free(machine.stack);
    memory_free(machine.marks);
    memory_free(machine.memo);
    if (status != ONESTEP_OK) {
        pickle_tree_destroy(&machine.tree);
        return status;
    }
    *tree = machine.tree;
    return ONESTEP_OK;
}
