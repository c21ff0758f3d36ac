/* The pickle interpreter on programs written by hand: what is allowed, and every way to be wrong.
 */
#include "formats/fixture.h"
#include "formats/pickle.h"

#include <stdlib.h>
#include <string.h>

/* Storage "0" has 24 floats, storage "1" none; there are no others. */
static const float storage_data[24] = {-3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5,
                                       3,  3.5,  4,  4.5,  5,  5.5,  6, 6.5, 7, 7.5, 8, 8.5};

static onestep_status find_storage(void *context, const char *key, element_type type, size_t count,
                                   const uint8_t **data, onestep_error *error)
{
    (void)context;
    if (strcmp(key, "0") == 0 && type == ELEMENT_F32 && count == 24) {
        *data = (const uint8_t *)storage_data;
        return ONESTEP_OK;
    }
    if (strcmp(key, "1") == 0 && count == 0) {
        *data = (const uint8_t *)storage_data;
        return ONESTEP_OK;
    }
    return error_set(error, ONESTEP_ERROR_FORMAT, "no such storage: %s", key);
}

static const pickle_storage_source source = {.find = find_storage, .copy_limit = 1000};

static onestep_status interpret(pickle_tree **tree, const pickle_value **root, const void *program,
                                size_t size, onestep_error *error)
{
    uint8_t *bytes = exact_copy(program, size);
    onestep_status status = pickle_interpret(tree, root, bytes, size, &source, error);
    free(bytes);
    assert_true((status == ONESTEP_OK) == (*tree != NULL));
    assert_true((status == ONESTEP_OK) == (*root != NULL));
    return status;
}

static onestep_status run(const void *program, size_t size, onestep_error *error)
{
    pickle_tree *tree;
    const pickle_value *root;
    onestep_status status = interpret(&tree, &root, program, size, error);
    pickle_tree_destroy(&tree);
    return status;
}

typedef struct program {
    const char *bytes;
    size_t size;
    const char *message; /* NULL: fine */
} program;

#define RIGHT(bytes)                                                                               \
    {                                                                                              \
        "\x80\x02" bytes, sizeof("\x80\x02" bytes) - 1, NULL                                       \
    }
#define WRONG(bytes, message)                                                                      \
    {                                                                                              \
        "\x80\x02" bytes, sizeof("\x80\x02" bytes) - 1, message                                    \
    }

static void run_all(const program *programs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        onestep_error error = {0};
        onestep_status status = run(programs[i].bytes, programs[i].size, &error);
        if (programs[i].message == NULL) {
            if (status != ONESTEP_OK) {
                fail_msg("program %zu: %s", i, error.message);
            }
        } else {
            assert_true(status == ONESTEP_ERROR_FORMAT || status == ONESTEP_ERROR_UNSUPPORTED);
            expect_message(&error, programs[i].message, NULL);
        }
    }
}

#define RUN_ALL(programs) run_all(programs, sizeof(programs) / sizeof((programs)[0]))

static void test_opcodes(void **state)
{
    (void)state;
    static const program programs[] = {
        RIGHT("N."),
        RIGHT("\x88."),
        RIGHT("\x8a\x00."),
        RIGHT("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f."),
        RIGHT("]q\x00h\x00\x86."),
        RIGHT("]r\xff\xff\x0f\x00j\xff\xff\x0f\x00\x86."),
        RIGHT("](e."),
        RIGHT("}(u."),
        RIGHT("}K\x01K\x02s."),
        RIGHT("}(K\x01NX\x01\0\0\0aN\x89Nu."),
        RIGHT("(t."),
        RIGHT("c__builtin__\nset\n]K\x01"
              "a\x85R."),
        RIGHT("cbuiltins\nset\n]\x85R."),
        RIGHT("ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadataNsb."),
        WRONG("", "cut off: it ends without STOP"),
        WRONG("N", "cut off: it ends without STOP"),
        WRONG(".", "STOP at offset 2 with 0 values"),
        WRONG("NN.", "with 2 values"),
        WRONG("N(.", "1 marks"),
        WRONG("N.N", "1 bytes to go"),
        WRONG("\x80\x02N.", "opcode 0x80 (PROTO (a second time)) is not allowed (offset 2)"),
        WRONG("N0.", "opcode 0x30 (POP) is not allowed (offset 3)"),
        WRONG("N2.", "(DUP)"),
        WRONG("I1\n.", "(INT)"),
        WRONG("\x93.", "(STACK_GLOBAL)"),
        WRONG("\x81.", "(NEWOBJ)"),
        WRONG("(ios\nsystem\n.", "(INST)"),
        WRONG("o.", "(OBJ)"),
        WRONG("\x8f.", "(EMPTY_SET)"),
        WRONG("B\x01\0\0\0a.", "(BINBYTES)"),
        WRONG("\x95\0\0\0\0\0\0\0\0.", "(FRAME)"),
        WRONG("\xff.", "opcode 0xff (unknown) is not allowed"),
        WRONG("K", "cut off: opcode 0x4b needs 1 bytes more, 0 are left"),
        WRONG("M\x01", "cut off"),
        WRONG("J\x01\x01\x01", "cut off"),
        WRONG("G\0\0\0\0\0\0\0", "cut off"),
        WRONG("\x8a\x02\x01", "cut off"),
        WRONG("\x8a\x09\0\0\0\0\0\0\0\0\x01.", "integer of 9 bytes"),
        WRONG("X\x05\0\0\0abcd", "needs 5 bytes more, 4 are left"),
        WRONG("X\xff\xff\xff\xff"
              "abcd.",
              "needs 4294967295 bytes more"),
        WRONG("X\x01\0\0\0\xff.", "not UTF-8"),
        WRONG("X\x02\0\0\0\xc0\x80.", "not UTF-8"),
        WRONG("X\x03\0\0\0\xed\xa0\x80.", "not UTF-8"),
        WRONG("X\x03\0\0\0a\0b.", "NUL"),
        WRONG("q\x00.", "opcode 0x71 needs 1 values, the stack has 0 (offset 2)"),
        WRONG("(q\x00.", "needs 1 values"),
        WRONG("Nr\x00\x00\x10\x00.", "memo number 1048576 is beyond the limit"),
        WRONG("Nr\xff\xff\xff\xff.", "memo number 4294967295 is beyond the limit"),
        WRONG("h\x00.", "memo number 0 was never stored"),
        WRONG("]q\x00h\x01.", "memo number 1 was never stored"),
        WRONG("j\xff\xff\xff\xff.", "was never stored"),
        WRONG("t.", "without a mark"),
        WRONG("]e.", "without a mark"),
        WRONG("}u.", "without a mark"),
        WRONG("\x85.", "needs 1 values"),
        WRONG("N\x86.", "needs 2 values"),
        WRONG("N(N\x86.", "needs 2 values, the stack has 1"),
        WRONG("NN\x87.", "needs 3 values"),
        WRONG("Na.", "needs 2 values"),
        WRONG("NNa.", "puts 1 values into None"),
        WRONG(")Na.", "into tuple"),
        WRONG("}Na.", "into dict"),
        WRONG("(Ne.", "needs 2 values"),
        WRONG("]NNs.", "into list"),
        WRONG("}(Nu.", "puts 1 values into dict"),
        WRONG("(NNu.", "needs 3 values"),
        WRONG("cos\nsystem\n.", "global os.system is not allowed (offset 2)"),
        WRONG("cposix\nsystem\nX\x02\0\0\0ls\x85R.", "global posix.system is not allowed"),
        WRONG("c__builtin__\neval\n.", "global __builtin__.eval"),
        WRONG("cbuiltins\nexec\n.", "global builtins.exec"),
        WRONG("ctorch\nFloatStorage2\n.", "global torch.FloatStorage2"),
        WRONG("ctorch._utils\n_rebuild_tensor\n.", "global torch._utils._rebuild_tensor "),
        WRONG("ctorch\nload\n.", "global torch.load"),
        WRONG("cos\x1b[2J\nsys\ttem\n.", "global os?[2J.sys?tem is not allowed"),
        WRONG("c\n\n.", "global . is not allowed"),
        WRONG("cos", "cut off in the name of a global"),
        WRONG("cos\nsystem", "cut off in the name of a global"),
    };
    RUN_ALL(programs);
}

static void test_calls(void **state)
{
    (void)state;
    static const program programs[] = {
        WRONG("R.", "needs 2 values"),
        WRONG("NR.", "needs 2 values"),
        WRONG("N)R.", "a call of None with tuple"),
        WRONG("ccollections\nOrderedDict\nNR.", "a call of a type or function with None"),
        WRONG("ccollections\nOrderedDict\n]\x85R.", "OrderedDict takes no arguments"),
        WRONG("ctorch\nFloatStorage\n)R.", "a storage type is called"),
        WRONG("cbuiltins\nset\n)R.", "set needs one list"),
        WRONG("cbuiltins\nset\n}\x85R.", "set needs one list"),
        WRONG("cbuiltins\nset\n]]\x86R.", "set needs one list"),
        WRONG("ctorch._utils\n_rebuild_tensor_v2\n)R.", "_rebuild_tensor_v2 needs"),
        WRONG("ccollections\nOrderedDict\n.", "a type or function stands where a value is"),
        WRONG("ccollections\nOrderedDict\n\x85.", "a type or function stands where a value is"),
        WRONG("b.", "needs 2 values"),
        WRONG("}}b.", "BUILD is allowed only"),
        WRONG("ccollections\nOrderedDict\n)R}b.", "BUILD is allowed only"),
        WRONG("ccollections\nOrderedDict\n)RNb.", "BUILD is allowed only"),
        WRONG("ccollections\nOrderedDict\n)R}X\x05\0\0\0_dataNsb.", "BUILD is allowed only"),
        WRONG("ccollections\nOrderedDict\n)R}(X\x09\0\0\0_metadataNX\x01\0\0\0aNub.",
              "BUILD is allowed only"),
        WRONG("ccollections\nOrderedDict\nccollections\nOrderedDict\n)Rb.",
              "BUILD is allowed only"),
    };
    RUN_ALL(programs);
}

/* ---- tensors --------------------------------------------------------------------------------- */

#define STORAGE                                                                                    \
    "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"                                         \
    "0X\x03\0\0\0cpuK\x18tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n("
#define HOOKS                                                                                      \
    "\x89"                                                                                         \
    "ccollections\nOrderedDict\n)R"

static void test_tensors(void **state)
{
    (void)state;
    static const program programs[] = {
        RIGHT(REBUILD STORAGE "K\0K\x04K\x06\x86K\x06K\x01\x86" HOOKS "tR."),
        RIGHT(REBUILD STORAGE "K\x18K\0\x85K\x01\x85\x89NtR."),
        RIGHT(REBUILD STORAGE "K\0K\x04\x85K\x06\x85" HOOKS "}tR."),
        RIGHT(REBUILD STORAGE "K\x17))" HOOKS "NtR."),
        RIGHT(REBUILD STORAGE "K\0M\xfa\x00\x85K\0\x85" HOOKS "tR."),
        WRONG(REBUILD STORAGE "K\0M\xfb\x00\x85K\0\x85" HOOKS "tR.", "more than 1000 bytes"),
        WRONG(REBUILD STORAGE "K\0K\x02J\0\0\0\x40\x86K\0K\0\x86" HOOKS "tR.",
              "more than 1000 bytes of copies"),
        WRONG("(" REBUILD STORAGE "K\0K\x78\x85K\0\x85" HOOKS "tR" REBUILD STORAGE
              "K\0K\x78\x85K\0\x85" HOOKS "tR" REBUILD STORAGE "K\0K\x78\x85K\0\x85" HOOKS "tRt.",
              "more than 1000 bytes"),
        WRONG(REBUILD STORAGE "K\0K\x04K\x07\x86K\x07K\x01\x86" HOOKS "tR.",
              "a tensor [4, 7] at offset 0 reaches beyond its storage of 24 elements"),
        WRONG(REBUILD STORAGE "K\x01K\x04K\x06\x86K\x06K\x01\x86" HOOKS "tR.", "reaches beyond"),
        WRONG(REBUILD STORAGE "K\x18))" HOOKS "tR.", "reaches beyond"),
        WRONG(REBUILD STORAGE "K\x19K\0\x85K\x01\x85" HOOKS "tR.", "reaches beyond"),
        WRONG(REBUILD STORAGE "K\0K\x02\x85K\x18\x85" HOOKS "tR.", "reaches beyond"),
        WRONG(REBUILD STORAGE "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x02\x85K\x01\x85" HOOKS
                              "tR.",
              "reaches beyond"),
        WRONG(REBUILD STORAGE "K\0K\x03\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85" HOOKS
                              "tR.",
              "reaches beyond"),
        WRONG(REBUILD STORAGE "K\0\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85K\x01\x85" HOOKS
                              "tR.",
              "larger than any memory"),
        WRONG(REBUILD STORAGE "K\0(J\0\0\0\x40J\0\0\0\x40J\0\0\0\x40t(K\0K\0K\0t" HOOKS "tR.",
              "larger than any memory"),
        WRONG(REBUILD STORAGE "K\0(K\0J\0\0\0\x40J\0\0\0\x40J\0\0\0\x40t(K\0K\0K\0K\0t" HOOKS "tR.",
              "larger than any memory"),
        WRONG(REBUILD STORAGE "J\xff\xff\xff\xffK\x01\x85K\x01\x85" HOOKS "tR.",
              "_rebuild_tensor_v2 needs"),
        WRONG(REBUILD STORAGE "K\0J\xff\xff\xff\xff\x85K\x01\x85" HOOKS "tR.", "size has"),
        WRONG(REBUILD STORAGE "K\0K\x02\x85J\xff\xff\xff\xff\x85" HOOKS "tR.", "stride has"),
        WRONG(REBUILD STORAGE "K\0G\x7f\xf8\0\0\0\0\0\0\x85K\x01\x85" HOOKS "tR.", "size has"),
        WRONG(REBUILD STORAGE "K\0\x88\x85K\x01\x85" HOOKS "tR.", "size has"),
        WRONG(REBUILD STORAGE "K\0K\x01K\x01\x86K\x01\x85" HOOKS "tR.", "different lengths"),
        WRONG(REBUILD STORAGE "K\0]K\x01"
                              "aK\x01\x85" HOOKS "tR.",
              "size is no tuple"),
        WRONG(REBUILD STORAGE "K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1K\1K\1K\1K\1t" HOOKS
                              "tR.",
              "tuple of at most 8"),
        WRONG(REBUILD "NK\0)K\x01)" HOOKS "tR.", "_rebuild_tensor_v2 needs"),
        WRONG(REBUILD STORAGE "K\0))K\x01NtR.", "_rebuild_tensor_v2 needs"),
        WRONG(REBUILD STORAGE "K\0))\x89}K\x01Ns"
                              "tR.",
              "_rebuild_tensor_v2 needs"),
        WRONG(REBUILD STORAGE "K\0))" HOOKS "}K\x01Ns"
                              "tR.",
              "_rebuild_tensor_v2 needs"),
        WRONG(REBUILD STORAGE "K\0))" HOOKS "NNtR.", "_rebuild_tensor_v2 needs"),
        WRONG(STORAGE ".", "a storage stands where a value is"),
        WRONG("]" STORAGE "a.", "a storage stands where a value is"),
    };
    RUN_ALL(programs);
}

static void test_storages(void **state)
{
    (void)state;
#define TYPE "ctorch\nFloatStorage\n"
#define TEXT "X\x07\0\0\0storage"
#define KEY                                                                                        \
    "X\x01\0\0\0"                                                                                  \
    "0"
#define CPU "X\x03\0\0\0cpu"
#define ID  "a persistent id that is not"
    static const program programs[] = {
        WRONG("Q.", "needs 1 values"),
        WRONG("NQ.", ID),
        WRONG("]Q.", ID),
        WRONG("K\0Q.", ID),
        WRONG("(" TEXT TYPE KEY CPU "tQ.", ID),
        WRONG("(" TEXT TYPE KEY CPU "K\x18NtQ.", ID),
        WRONG("(" KEY TYPE KEY CPU "K\x18tQ.", ID),
        WRONG("(" TEXT KEY KEY CPU "K\x18tQ.", ID),
        WRONG("(" TEXT "cbuiltins\nset\n" KEY CPU "K\x18tQ.", ID),
        WRONG("(" TEXT TYPE "K\0" CPU "K\x18tQ.", ID),
        WRONG("(" TEXT TYPE KEY "NK\x18tQ.", ID),
        WRONG("(" TEXT TYPE KEY CPU "J\xff\xff\xff\xfftQ.", ID),
        WRONG("(" TEXT TYPE KEY CPU "NtQ.", ID),
        WRONG("(" TEXT TYPE KEY CPU "K\x17tQ.", "no such storage: 0"),
        WRONG("(" TEXT "ctorch\nHalfStorage\n" KEY CPU "K\x18tQ.", "no such storage: 0"),
        WRONG("(" TEXT TYPE "X\x01\0\0\0"
              "7" CPU "K\x18tQ.",
              "no such storage: 7"),
    };
    RUN_ALL(programs);
    /* A location that is a GPU does not matter; a storage may be empty. */
    static const program fine[] = {
        RIGHT(REBUILD "(" TEXT TYPE KEY "X\x06\0\0\0cuda:0K\x18tQ"
                      "K\0))" HOOKS "tR."),
        RIGHT(REBUILD "(" TEXT TYPE "X\x01\0\0\0"
                      "1" CPU "K\0tQ"
                      "K\0K\0\x85K\x01\x85" HOOKS "tR."),
    };
    RUN_ALL(fine);
}

static void test_strided_copy(void **state)
{
    (void)state;
    /* [2, 3] with strides 1, 2 from offset 1: 1 3 5 / 2 4 6 */
    static const char program[] = "\x80\x02" REBUILD STORAGE "K\1K\2K\3\x86K\1K\2\x86" HOOKS "tR.";
    pickle_tree *tree;
    const pickle_value *root;
    onestep_error error;
    assert_int_equal(interpret(&tree, &root, program, sizeof(program) - 1, &error), ONESTEP_OK);
    const named_tensor *tensor = pickle_tensor(root);
    assert_int_equal(tensor->rank, 2);
    assert_string_equal(tensor->name, "");
    static const int expected[] = {1, 3, 5, 2, 4, 6};
    for (size_t i = 0; i < 6; i++) {
        assert_true(((const float *)tensor->data)[i] == storage_data[expected[i]]);
    }
    pickle_tree_destroy(&tree);
}

/* The stride of a dimension of 1 does not matter: such tensors are not copied. */
static void test_no_copy(void **state)
{
    (void)state;
    static const char program[] =
        "\x80\x02" REBUILD STORAGE "K\2K\1K\4\x86K\x63K\1\x86" HOOKS "tR.";
    pickle_tree *tree;
    const pickle_value *root;
    onestep_error error;
    assert_int_equal(interpret(&tree, &root, program, sizeof(program) - 1, &error), ONESTEP_OK);
    assert_ptr_equal(pickle_tensor(root)->data, storage_data + 2);
    pickle_tree_destroy(&tree);
}

/* ---- shape of the tree ----------------------------------------------------------------------- */

static void test_cycles(void **state)
{
    (void)state;
    static const program programs[] = {
        WRONG("]q\0h\0a.", "a list contains itself"),
        WRONG("]q\0]h\0aa.", "contains itself"),
        WRONG("}q\0X\x01\0\0\0ah\0s.", "a dict contains itself"),
        WRONG("]q\0h\0\x85"
              "a.",
              "contains itself"),
        WRONG("}q\0K\x01]h\0"
              "as.",
              "contains itself"),
        /* A cycle that the result does not reach hurts nobody. */
        RIGHT("ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadata]q\0h\0asb."),
        /* Shared is not cyclic. */
        RIGHT("]q\0h\0h\0\x87."),
    };
    RUN_ALL(programs);
}

static void test_keys(void **state)
{
    (void)state;
    static const program programs[] = {
        WRONG("}(X\1\0\0\0aNX\1\0\0\0aNu.", "the key a is in a dict twice"),
        WRONG("}(K\1NM\1\0Nu.", "the key 1 is in a dict twice"),
        WRONG("}(K\1N\x88Nu.", "the key 1 is in a dict twice"),
        WRONG("}(\x89NK\0Nu.", "the key 0 is in a dict twice"),
        WRONG("}NNs.", "a dict has None as a key"),
        WRONG("}G\0\0\0\0\0\0\0\0Ns.", "a dict has float as a key"),
        WRONG("})Ns.", "a dict has tuple as a key"),
        WRONG("}]Ns.", "a dict has list as a key"),
        WRONG("}cbuiltins\nset\nNs.", "a dict has a type or function as a key"),
        RIGHT("}(X\1\0\0\0"
              "1NK\1Nu."),
    };
    RUN_ALL(programs);
}

/* With many keys, which go through a map. */
static void test_many_keys(void **state)
{
    (void)state;
    for (int twice = 0; twice < 3; twice++) {
        text_buffer out = {0};
        text_buffer_append(&out, "\x80\x02}(", 4);
        for (int i = 0; i < 40; i++) {
            text_buffer_append(&out, (char[]){'K', (char)i, 'N', 'X', 1, 0, 0, 0, (char)(64 + i)},
                               9);
            text_buffer_append(&out, "N", 1);
        }
        if (twice == 1) {
            text_buffer_append(&out, "K\7N", 3);
        } else if (twice == 2) {
            text_buffer_append(&out, "X\1\0\0\0BN", 7);
        }
        text_buffer_append(&out, "u.", 2);
        onestep_error error = {0};
        assert_int_equal(run(out.data, out.length, &error),
                         twice == 0 ? ONESTEP_OK : ONESTEP_ERROR_FORMAT);
        if (twice > 0) {
            expect_message(&error, twice == 1 ? "the key 7 is" : "the key B is", NULL);
        }
        text_buffer_free(&out);
    }
}

/* `times` copies of one text between two others. */
static onestep_status run_repeated(const char *begin, size_t begin_size, const char *repeated,
                                   size_t repeated_size, size_t times, const char *end,
                                   size_t end_size, onestep_error *error)
{
    text_buffer out = {0};
    text_buffer_append(&out, begin, begin_size);
    for (size_t i = 0; i < times; i++) {
        text_buffer_append(&out, repeated, repeated_size);
    }
    text_buffer_append(&out, end, end_size);
    assert_false(out.failed);
    onestep_status status = run(out.data, out.length, error);
    text_buffer_free(&out);
    return status;
}

#define RUN_REPEATED(begin, repeated, times, end, error)                                           \
    run_repeated(begin, sizeof(begin) - 1, repeated, sizeof(repeated) - 1, times, end,             \
                 sizeof(end) - 1, error)

static void test_depth(void **state)
{
    (void)state;
    onestep_error error = {0};
    /* `times` tuples around an empty list */
    assert_int_equal(RUN_REPEATED("\x80\2]", "\x85", 63, ".", &error), ONESTEP_OK);
    assert_int_equal(RUN_REPEATED("\x80\2]", "\x85", 64, ".", &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "nested deeper than 64", NULL);
    assert_int_equal(RUN_REPEATED("\x80\2]", "\x85", 500000, ".", &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "nested deeper than 64", NULL);
    /* A shared part that is met first at a small depth counts at the large one too. */
    text_buffer out = {0};
    text_buffer_append(&out, "\x80\2]", 3);
    for (int i = 0; i < 40; i++) {
        text_buffer_append(&out, "\x85", 1);
    }
    text_buffer_append(&out, "q\0h\0", 4);
    for (int i = 0; i < 40; i++) {
        text_buffer_append(&out, "\x85", 1);
    }
    text_buffer_append(&out, "\x86.", 2);
    assert_int_equal(run(out.data, out.length, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "nested deeper than 64", NULL);
    text_buffer_free(&out);
}

/* A list of ten times the list before: ten to the power of the depth when walked. */
static void test_billion_laughs(void **state)
{
    (void)state;
    onestep_error error = {0};
    for (size_t times = 6; times <= 60; times += 54) {
        onestep_status status =
            RUN_REPEATED("\x80\2(]q\0", "(h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0tq\0", times, "t.", &error);
        assert_int_equal(status, times == 6 ? ONESTEP_OK : ONESTEP_ERROR_FORMAT);
    }
    expect_message(&error, "more than 4194304 values when shared", NULL);
}

static void test_many_objects(void **state)
{
    (void)state;
    onestep_error error = {0};
    assert_int_equal(RUN_REPEATED("\x80\2](", "N", 1100000, "e.", &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "more than 1048576 objects", NULL);
    assert_int_equal(RUN_REPEATED("\x80\2]q\0(", "h\0", 1100000, "t.", &error),
                     ONESTEP_ERROR_FORMAT);
    expect_message(&error, "more than 1048576 values on the stack", NULL);
    assert_int_equal(RUN_REPEATED("\x80\2", "(", 1100000, "t.", &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "more than 1048576 marks", NULL);
    /* Containers filled over and over with what is shared: memory is bounded. */
    assert_int_equal(RUN_REPEATED("\x80\2Nq\0]",
                                  "(h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0e", 900000, ".",
                                  &error),
                     ONESTEP_ERROR_FORMAT);
    expect_message(&error, "of memory", NULL);
}

static void test_long_stream(void **state)
{
    (void)state;
    size_t size = ((size_t)32 << 20) + 1;
    uint8_t *bytes = calloc(1, size);
    assert_non_null(bytes);
    pickle_tree *tree;
    const pickle_value *root;
    onestep_error error;
    assert_int_equal(pickle_interpret(&tree, &root, bytes, size, &source, &error),
                     ONESTEP_ERROR_FORMAT);
    expect_message(&error, "33554433 bytes: the limit is 33554432", NULL);
    free(bytes);
}

static void test_protocols(void **state)
{
    (void)state;
    onestep_error error;
    for (int protocol = 0; protocol < 7; protocol++) {
        char program[] = {(char)0x80, (char)protocol, 'N', '.'};
        assert_int_equal(run(program, 4, &error),
                         protocol == 2 ? ONESTEP_OK : ONESTEP_ERROR_UNSUPPORTED);
        if (protocol != 2) {
            expect_message(&error, "protocol ", NULL);
        }
    }
    assert_int_equal(run("N.", 2, &error), ONESTEP_ERROR_FORMAT);
    assert_int_equal(run("\x80", 1, &error), ONESTEP_ERROR_FORMAT);
    assert_int_equal(run("", 0, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "does not begin with a protocol number", NULL);
}

/* A whole real program cut off anywhere. */
static void test_cut_off_anywhere(void **state)
{
    (void)state;
    static const char program[] =
        "\x80\x02}q\0(X\1\0\0\0aq\1" REBUILD STORAGE "K\0K\x04K\x06\x86K\x06K\x01\x86" HOOKS
        "tRX\1\0\0\0bcbuiltins\nset\n](K\1M\1\1J\1\1\1\1\x8a\1\1G\0\0\0\0\0\0\0\0\x88"
        "e\x85Ru.";
    onestep_error error = {0};
    assert_int_equal(run(program, sizeof(program) - 1, &error), ONESTEP_OK);
    for (size_t length = 0; length < sizeof(program) - 1; length++) {
        assert_true(run(program, length, &error) != ONESTEP_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opcodes),          cmocka_unit_test(test_calls),
        cmocka_unit_test(test_tensors),          cmocka_unit_test(test_storages),
        cmocka_unit_test(test_strided_copy),     cmocka_unit_test(test_no_copy),
        cmocka_unit_test(test_cycles),           cmocka_unit_test(test_keys),
        cmocka_unit_test(test_many_keys),        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_billion_laughs),   cmocka_unit_test(test_many_objects),
        cmocka_unit_test(test_long_stream),      cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_cut_off_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
