/* What a pickle may call: the few types and functions that torch.save names. */
#include "formats/pickle_machine.h"
#include "formats/text.h"

#include <string.h>

static const struct {
    const char *module, *name;
    pickle_global global;
    element_type type;
} allowed_globals[] = {
    {"torch._utils", "_rebuild_tensor_v2", GLOBAL_REBUILD_TENSOR, ELEMENT_F32},
    {"collections", "OrderedDict", GLOBAL_ORDERED_DICT, ELEMENT_F32},
    {"__builtin__", "set", GLOBAL_SET, ELEMENT_F32},
    {"builtins", "set", GLOBAL_SET, ELEMENT_F32},
    {"torch", "FloatStorage", GLOBAL_STORAGE_TYPE, ELEMENT_F32},
    {"torch", "HalfStorage", GLOBAL_STORAGE_TYPE, ELEMENT_F16},
    {"torch", "BFloat16Storage", GLOBAL_STORAGE_TYPE, ELEMENT_BF16},
    {"torch", "DoubleStorage", GLOBAL_STORAGE_TYPE, ELEMENT_F64},
    {"torch", "LongStorage", GLOBAL_STORAGE_TYPE, ELEMENT_I64},
    {"torch", "IntStorage", GLOBAL_STORAGE_TYPE, ELEMENT_I32},
    {"torch", "ShortStorage", GLOBAL_STORAGE_TYPE, ELEMENT_I16},
    {"torch", "CharStorage", GLOBAL_STORAGE_TYPE, ELEMENT_I8},
    {"torch", "ByteStorage", GLOBAL_STORAGE_TYPE, ELEMENT_U8},
    {"torch", "BoolStorage", GLOBAL_STORAGE_TYPE, ELEMENT_BOOL},
};

static bool equals(const char *expected, const char *text, size_t length)
{
    return strlen(expected) == length && memcmp(expected, text, length) == 0;
}

onestep_status pickle_global_opcode(pickle_machine *machine, onestep_error *error)
{
    const char *module, *name;
    size_t module_length, name_length;
    onestep_status status = pickle_take_line(machine, &module, &module_length, error);
    if (status == ONESTEP_OK) {
        status = pickle_take_line(machine, &name, &name_length, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    for (size_t i = 0; i < sizeof(allowed_globals) / sizeof(allowed_globals[0]); i++) {
        if (equals(allowed_globals[i].module, module, module_length) &&
            equals(allowed_globals[i].name, name, name_length)) {
            pickle_value *value;
            status = pickle_push_new(machine, PICKLE_GLOBAL, &value, error);
            if (status == ONESTEP_OK) {
                value->as.global.global = allowed_globals[i].global;
                value->as.global.type = allowed_globals[i].type;
            }
            return status;
        }
    }
    char shown_module[TEXT_SHOWN], shown_name[TEXT_SHOWN];
    return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                     "pickle: global %s.%s is not allowed (offset %zu)",
                     text_shown(shown_module, module, module_length),
                     text_shown(shown_name, name, name_length), machine->start);
}

static onestep_status bad_arguments(const pickle_machine *machine, const char *what,
                                    onestep_error *error)
{
    return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: %s (offset %zu)", what, machine->start);
}

/* A tuple of integers from 0 as sizes. */
static onestep_status read_sizes(const pickle_machine *machine, const pickle_value *tuple,
                                 const char *what, size_t sizes[TENSOR_RANK_LIMIT],
                                 onestep_error *error)
{
    if (tuple->kind != PICKLE_TUPLE || pickle_count(tuple) > TENSOR_RANK_LIMIT) {
        return error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                         "pickle: a tensor's %s is no tuple of at most %d integers (offset %zu)",
                         what, TENSOR_RANK_LIMIT, machine->start);
    }
    for (size_t i = 0; i < pickle_count(tuple); i++) {
        const pickle_value *item = pickle_item(tuple, i);
        if (item->kind != PICKLE_INTEGER || item->as.integer < 0) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "pickle: a tensor's %s has an element that is no integer from 0 "
                             "(offset %zu)",
                             what, machine->start);
        }
        sizes[i] = (size_t)item->as.integer;
    }
    return ONESTEP_OK;
}

static bool is_none_or_empty(const pickle_value *value)
{
    return value->kind == PICKLE_NONE || (value->kind == PICKLE_DICT && pickle_count(value) == 0);
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata]) */
static onestep_status rebuild_tensor(pickle_machine *machine, const pickle_value *arguments,
                                     pickle_value *result, onestep_error *error)
{
    size_t count = pickle_count(arguments);
    const pickle_value *const *given = arguments->as.container.items;
    if ((count != 6 && count != 7) || given[0]->kind != PICKLE_STORAGE ||
        given[1]->kind != PICKLE_INTEGER || given[1]->as.integer < 0 ||
        given[4]->kind != PICKLE_BOOLEAN || !is_none_or_empty(given[5]) ||
        (count == 7 && !is_none_or_empty(given[6]))) {
        return bad_arguments(machine,
                             "_rebuild_tensor_v2 needs (storage, offset from 0, size, stride, "
                             "bool, no hooks, no metadata)",
                             error);
    }
    size_t shape[TENSOR_RANK_LIMIT], strides[TENSOR_RANK_LIMIT];
    onestep_status status = read_sizes(machine, given[2], "size", shape, error);
    if (status == ONESTEP_OK) {
        status = read_sizes(machine, given[3], "stride", strides, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    if (pickle_count(given[2]) != pickle_count(given[3])) {
        return bad_arguments(machine, "a tensor has size and stride of different lengths", error);
    }
    status = pickle_make_tensor(machine->tree, result, &given[0]->as.storage,
                                (size_t)given[1]->as.integer, (unsigned)pickle_count(given[2]),
                                shape, strides, error);
    if (status == ONESTEP_OK) {
        result->kind = PICKLE_TENSOR;
    }
    return status;
}

/* set([items]) */
static onestep_status make_set(pickle_machine *machine, const pickle_value *arguments,
                               pickle_value *result, onestep_error *error)
{
    if (pickle_count(arguments) != 1 || pickle_item(arguments, 0)->kind != PICKLE_LIST) {
        return bad_arguments(machine, "set needs one list", error);
    }
    const pickle_value *list = pickle_item(arguments, 0);
    result->kind = PICKLE_SET;
    for (size_t i = 0; i < pickle_count(list); i++) {
        onestep_status status =
            pickle_add(machine->tree, result, NULL, pickle_item(list, i), error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    return ONESTEP_OK;
}

onestep_status pickle_reduce_opcode(pickle_machine *machine, onestep_error *error)
{
    onestep_status status = pickle_need(machine, 2, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    const pickle_value *arguments = machine->stack[machine->depth - 1];
    const pickle_value *function = machine->stack[machine->depth - 2];
    if (function->kind != PICKLE_GLOBAL || arguments->kind != PICKLE_TUPLE) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "pickle: a call of %s with %s (offset %zu)",
                         pickle_kind_name((pickle_kind)function->kind),
                         pickle_kind_name((pickle_kind)arguments->kind), machine->start);
    }
    machine->depth -= 2;
    pickle_value *result;
    status = pickle_push_new(machine, PICKLE_NONE, &result, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    switch (function->as.global.global) {
    case GLOBAL_REBUILD_TENSOR:
        return rebuild_tensor(machine, arguments, result, error);
    case GLOBAL_SET:
        return make_set(machine, arguments, result, error);
    case GLOBAL_ORDERED_DICT:
        if (pickle_count(arguments) != 0) {
            return bad_arguments(machine, "OrderedDict takes no arguments here", error);
        }
        result->kind = PICKLE_DICT;
        result->ordered = true;
        return ONESTEP_OK;
    case GLOBAL_STORAGE_TYPE:
        break;
    }
    return bad_arguments(machine, "a storage type is called", error);
}

/* BUILD sets attributes: state_dict() leaves _metadata on its OrderedDict, which nobody needs. */
onestep_status pickle_build_opcode(pickle_machine *machine, onestep_error *error)
{
    onestep_status status = pickle_need(machine, 2, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    const pickle_value *state = machine->stack[machine->depth - 1];
    const pickle_value *target = machine->stack[machine->depth - 2];
    if (!pickle_is_ordered_dict(target) || pickle_count(state) != 1 ||
        pickle_lookup(state, "_metadata") == NULL) {
        return bad_arguments(machine, "BUILD is allowed only to give an OrderedDict its _metadata",
                             error);
    }
    machine->depth--;
    return ONESTEP_OK;
}

/* ('storage', type, key, location, count) */
onestep_status pickle_storage_opcode(pickle_machine *machine, onestep_error *error)
{
    onestep_status status = pickle_need(machine, 1, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    const pickle_value *id = machine->stack[machine->depth - 1];
    const pickle_value *const *given = id->as.container.items;
    if (id->kind != PICKLE_TUPLE || pickle_count(id) != 5 || given[0]->kind != PICKLE_STRING ||
        strcmp(given[0]->as.string.text, "storage") != 0 || given[1]->kind != PICKLE_GLOBAL ||
        given[1]->as.global.global != GLOBAL_STORAGE_TYPE || given[2]->kind != PICKLE_STRING ||
        given[3]->kind != PICKLE_STRING || given[4]->kind != PICKLE_INTEGER ||
        given[4]->as.integer < 0) {
        return bad_arguments(
            machine, "a persistent id that is not ('storage', type, key, location, count)", error);
    }
    pickle_storage storage = {.type = given[1]->as.global.type,
                              .count = (size_t)given[4]->as.integer};
    status = machine->source->find(machine->source->context, given[2]->as.string.text, storage.type,
                                   storage.count, &storage.data, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    machine->depth--;
    pickle_value *value;
    status = pickle_push_new(machine, PICKLE_STORAGE, &value, error);
    if (status == ONESTEP_OK) {
        value->as.storage = storage;
    }
    return status;
}
