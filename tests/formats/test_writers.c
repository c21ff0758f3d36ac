/* What is written is what was meant, and reads back; PyTorch's own files come out the same.
 *
 * With ONESTEP_FORMATS_OUTPUT=FOLDER the files stay there, for tools/fixtures/check_written.py,
 * which opens them with PyTorch, safetensors and numpy. */
#include "formats/fixture.h"
#include "formats/weight_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *output_folder;
static char *temporary;

static const char *output_path(const char *name)
{
    return temporary_path(output_folder, name);
}

static int set_up(void **state)
{
    (void)state;
    output_folder = getenv("ONESTEP_FORMATS_OUTPUT");
    if (output_folder == NULL) {
        temporary = temporary_folder();
        output_folder = temporary;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (temporary != NULL) {
        temporary_remove(temporary);
    }
    return 0;
}

static weight_file *open_file(const char *path)
{
    weight_file *file;
    onestep_error error = {0};
    if (weight_file_open(&file, path, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    return file;
}

static void succeed(onestep_status status, const onestep_error *error)
{
    if (status != ONESTEP_OK) {
        fail_msg("%s", error->message);
    }
}

static void expect_same_tensors(const weight_file *a, const weight_file *b)
{
    assert_int_equal(weight_file_count(a), weight_file_count(b));
    for (size_t i = 0; i < weight_file_count(a); i++) {
        const named_tensor *first = weight_file_tensor(a, i);
        const named_tensor *second = weight_file_find(b, first->name);
        assert_non_null(second);
        assert_int_equal(first->type, second->type);
        assert_int_equal(first->rank, second->rank);
        assert_memory_equal(first->shape, second->shape, sizeof(first->shape));
        assert_int_equal(first->bytes, second->bytes);
        assert_memory_equal(first->data, second->data, first->bytes);
    }
}

/* ---- safetensors ----------------------------------------------------------------------------- */

static void test_safetensors(void **state)
{
    (void)state;
    weight_file *original = open_file(fixture_path("types.safetensors"));
    static const char *const metadata[][2] = {{"format", "pt"},
                                              {"quote \"", "back\\slash\nline \x01 \xC3\xA4"}};
    onestep_error error;
    succeed(safetensors_write(output_path("written.safetensors"), weight_file_tensor(original, 0),
                              weight_file_count(original), metadata, 2, &error),
            &error);
    weight_file *written = open_file(output_path("written.safetensors"));
    expect_same_tensors(original, written);
    assert_int_equal(weight_file_metadata_count(written), 2);
    assert_string_equal(weight_file_metadata(written, "format"), "pt");
    assert_string_equal(weight_file_metadata(written, "quote \""),
                        "back\\slash\nline \x01 \xC3\xA4");
    for (size_t i = 0; i < weight_file_count(written); i++) {
        const named_tensor *tensor = weight_file_tensor(written, i);
        assert_int_equal((uintptr_t)tensor->data % element_size(tensor->type), 0);
    }
    weight_file_close(&written);
    weight_file_close(&original);
    succeed(safetensors_write(output_path("nothing.safetensors"), NULL, 0, NULL, 0, &error),
            &error);
    written = open_file(output_path("nothing.safetensors"));
    assert_int_equal(weight_file_count(written), 0);
    weight_file_close(&written);
}

static void test_safetensors_refuses(void **state)
{
    (void)state;
    float data[2] = {1, 2};
    const named_tensor good = {"a", ELEMENT_F32, 1, {2}, data, 8};
    const struct {
        named_tensor tensors[2];
        const char *message;
    } cases[] = {
        {{good, good}, "tensor a is there twice"},
        {{good, {"__metadata__", ELEMENT_F32, 1, {2}, data, 8}}, "__metadata__ cannot be"},
        {{good, {"b\xFF", ELEMENT_F32, 1, {2}, data, 8}}, "b? cannot be the name"},
        {{good, {"b", ELEMENT_F32, 1, {2}, data, 4}}, "tensor b has 4 bytes"},
        {{good, {"b", ELEMENT_F32, 9, {1}, data, 4}}, "tensor b has 4 bytes"},
        {{good, {"b", ELEMENT_F32, 2, {SIZE_MAX, SIZE_MAX}, data, 4}}, "tensor b has 4 bytes"},
    };
    const char *path = output_path("refused.safetensors");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        onestep_error error;
        assert_int_equal(safetensors_write(path, cases[i].tensors, 2, NULL, 0, &error),
                         ONESTEP_ERROR_ARGUMENT);
        expect_message(&error, "refused.safetensors: ", cases[i].message, NULL);
        assert_false(path_exists(path));
    }
    static const char *const twice[][2] = {{"k", "1"}, {"k", "2"}};
    static const char *const no_text[][2] = {{"k", "\xFF"}};
    onestep_error error;
    assert_int_equal(safetensors_write(path, &good, 1, twice, 2, &error), ONESTEP_ERROR_ARGUMENT);
    expect_message(&error, "metadata k is there twice", NULL);
    assert_int_equal(safetensors_write(path, &good, 1, no_text, 1, &error), ONESTEP_ERROR_ARGUMENT);
    assert_int_equal(safetensors_write("/nonexistent/x", &good, 1, NULL, 0, &error),
                     ONESTEP_ERROR_IO);
    expect_message(&error, "/nonexistent/x", NULL);
}

/* ---- torch ----------------------------------------------------------------------------------- */

/* The bytes of NAME/data.pkl. */
static void read_pickle(const char *path, mapped_file *map, const zip_entry **pickle,
                        zip_archive **archive)
{
    onestep_error error;
    succeed(mapped_file_open(map, path, &error), &error);
    succeed(zip_archive_parse(archive, map->data, map->size, &error), &error);
    *pickle = &(*archive)->entries[0];
    assert_memory_equal((*pickle)->name + (*pickle)->name_length - 9, "/data.pkl", 9);
}

static void rewrite(const char *name)
{
    weight_file *original = open_file(fixture_path(name));
    onestep_error error = {0};
    pickle_tree *tree;
    succeed(pickle_tree_create(&tree, &error), &error);
    succeed(torch_write(output_path(name), tree, weight_file_root(original), &error), &error);
    pickle_tree_destroy(&tree);
    weight_file *written = open_file(output_path(name));
    expect_same_tensors(original, written);
    succeed(weight_file_verify(written, &error), &error);
    weight_file_close(&written);
    weight_file_close(&original);
}

/* Files whose pickles hold nothing that reading drops come out with the same pickle, and with the
 * whole archive the same but for its serialization id and its name. */
static void test_same_pickles(void **state)
{
    (void)state;
    static const char *const names[] = {"paired.pkl", "types.pkl", "containers.pkl"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        rewrite(names[i]);
        mapped_file maps[2];
        const zip_entry *pickles[2];
        zip_archive *archives[2];
        read_pickle(fixture_path(names[i]), &maps[0], &pickles[0], &archives[0]);
        read_pickle(output_path(names[i]), &maps[1], &pickles[1], &archives[1]);
        assert_int_equal(pickles[0]->size, pickles[1]->size);
        assert_memory_equal(pickles[0]->data, pickles[1]->data, pickles[0]->size);
        assert_int_equal(maps[0].size, maps[1].size);
        assert_int_equal(archives[0]->count, archives[1]->count);
        size_t different = 0;
        for (size_t k = 0; k < maps[0].size; k++) {
            different += maps[0].data[k] != maps[1].data[k];
        }
        assert_in_range(different, 1, 40 + 8); /* 40 digits and twice their checksum */
        for (int k = 0; k < 2; k++) {
            zip_archive_destroy(&archives[k]);
            mapped_file_close(&maps[k]);
        }
    }
}

static void test_other_files(void **state)
{
    (void)state;
    rewrite("views.pkl");
    rewrite("unpaired.pkl");
    weight_file *file = open_file(output_path("unpaired.pkl"));
    const named_tensor *first = weight_file_find(file, "sd_vae_enc.vae.conv.weight");
    const named_tensor *second = weight_file_find(file, "sd_vae_dec.vae.conv.weight");
    assert_ptr_equal(first->data, second->data);
    assert_true(pickle_is_ordered_dict(pickle_lookup(weight_file_root(file), "sd_vae_dec")));
    weight_file_close(&file);
}

static void test_same_twice(void **state)
{
    (void)state;
    rewrite("paired.pkl");
    uint8_t *bytes[2];
    size_t sizes[2];
    onestep_error error;
    for (int i = 0; i < 2; i++) {
        succeed(file_read(output_path("paired.pkl"), 1 << 20, &bytes[i], &sizes[i], &error),
                &error);
        rewrite("paired.pkl");
    }
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(bytes[0], bytes[1], sizes[0]);
    memory_free(bytes[0]);
    memory_free(bytes[1]);
}

/* What tools/fixtures/check_written.py knows as "built.pkl". */
static void test_built(void **state)
{
    (void)state;
    onestep_error error = {0};
    pickle_tree *tree;
    succeed(pickle_tree_create(&tree, &error), &error);
    float weights[6] = {-3, -2.5, -2, -1.5, -1, -0.5};
    const named_tensor matrix = {"ignored", ELEMENT_F32, 2, {2, 3}, weights, 24};
    const named_tensor flat = {"ignored", ELEMENT_F32, 1, {6}, weights, 24};
    const named_tensor empty = {"ignored", ELEMENT_F16, 2, {0, 3}, weights, 0};
    pickle_value *root = pickle_new_container(tree, PICKLE_DICT);
    pickle_put(tree, root, "rank_unet", pickle_new_integer(tree, 8));
    pickle_put(tree, root, "scale", pickle_new_float(tree, 0.25));
    pickle_put(tree, root, "yes", pickle_new_boolean(tree, true));
    pickle_put(tree, root, "none", pickle_new_none(tree));
    pickle_value *names = pickle_new_container(tree, PICKLE_LIST);
    pickle_append(tree, names, pickle_new_string(tree, "to_q"));
    pickle_append(tree, names, pickle_new_string(tree, "\xC3\xA4"));
    pickle_put(tree, root, "names", names);
    pickle_value *tensors = pickle_new_ordered_dict(tree);
    pickle_put(tree, tensors, "matrix", pickle_new_tensor(tree, &matrix));
    pickle_put(tree, tensors, "flat", pickle_new_tensor(tree, &flat));
    pickle_put(tree, tensors, "empty", pickle_new_tensor(tree, &empty));
    pickle_put(tree, root, "tensors", tensors);
    pickle_value *set = pickle_new_container(tree, PICKLE_SET);
    pickle_append(tree, set, pickle_new_integer(tree, -70000));
    pickle_put(tree, root, "set", set);
    pickle_value *tuple = pickle_new_container(tree, PICKLE_TUPLE);
    static const int64_t integers[] = {0, 1 << 15, 1LL << 31, 1LL << 47, INT64_MIN};
    for (size_t i = 0; i < 5; i++) {
        pickle_append(tree, tuple, pickle_new_integer(tree, integers[i]));
    }
    pickle_put(tree, root, "tuple", tuple);
    for (int i = 0; i < 300; i++) { /* so that the memo needs long numbers */
        char name[16];
        (void)snprintf(name, sizeof(name), "filler%d", i);
        pickle_put(tree, root, name, names);
    }
    pickle_value *late = pickle_new_container(tree, PICKLE_LIST);
    pickle_put(tree, root, "late", late);
    pickle_put(tree, root, "late again", late);
    succeed(torch_write(output_path("built.pkl"), tree, root, &error), &error);
    pickle_tree_destroy(&tree);
    weight_file *file = open_file(output_path("built.pkl"));
    const pickle_value *read = weight_file_root(file);
    assert_int_equal(pickle_count(read), 310);
    assert_ptr_equal(pickle_lookup(read, "late"), pickle_lookup(read, "late again"));
    assert_true(pickle_float(pickle_lookup(read, "scale")) == 0.25);
    assert_ptr_equal(pickle_lookup(read, "filler299"), pickle_lookup(read, "names"));
    assert_string_equal(pickle_string(pickle_item(pickle_lookup(read, "names"), 1)), "\xC3\xA4");
    EXPECT_TENSOR(weight_file_find(file, "tensors.matrix"), ELEMENT_F32, 0, 2, 3);
    EXPECT_TENSOR(weight_file_find(file, "tensors.flat"), ELEMENT_F32, 0, 6);
    assert_ptr_equal(weight_file_find(file, "tensors.matrix")->data,
                     weight_file_find(file, "tensors.flat")->data);
    EXPECT_TENSOR(weight_file_find(file, "tensors.empty"), ELEMENT_F16, 0, 0, 3);
    assert_int_equal(pickle_integer(pickle_item(pickle_lookup(read, "set"), 0)), -70000);
    for (size_t i = 0; i < 5; i++) {
        assert_true(pickle_integer(pickle_item(pickle_lookup(read, "tuple"), i)) == integers[i]);
    }
    weight_file_close(&file);
}

/* The first thing that goes wrong is what torch_write tells. */
static void expect_build_failure(pickle_tree **tree, const pickle_value *root, const char *message)
{
    onestep_error error;
    const char *path = output_path("refused.pkl");
    assert_int_equal(torch_write(path, *tree, root, &error), ONESTEP_ERROR_ARGUMENT);
    expect_message(&error, "refused.pkl: ", message, NULL);
    assert_false(path_exists(path));
    pickle_tree_destroy(tree);
    assert_int_equal(pickle_tree_create(tree, &error), ONESTEP_OK);
}

static void test_build_failures(void **state)
{
    (void)state;
    onestep_error error;
    pickle_tree *tree;
    succeed(pickle_tree_create(&tree, &error), &error);
    pickle_value *dict = pickle_new_container(tree, PICKLE_DICT);
    pickle_put(tree, dict, "a", pickle_new_none(tree));
    pickle_put(tree, dict, "a", pickle_new_none(tree));
    assert_null(pickle_new_none(tree));
    pickle_put(tree, dict, "b\xFF", pickle_new_none(tree));
    expect_build_failure(&tree, NULL, "the key a is in the dict");

    dict = pickle_new_container(tree, PICKLE_DICT);
    for (int i = 0; i < 20; i++) {
        pickle_put(tree, dict, (char[]){(char)('a' + i), 0}, pickle_new_none(tree));
    }
    pickle_put(tree, dict, "t", pickle_new_none(tree));
    expect_build_failure(&tree, NULL, "the key t is in the dict");

    assert_null(pickle_new_string(tree, "\xFF"));
    expect_build_failure(&tree, NULL, "? is not UTF-8");

    pickle_append(tree, pickle_new_integer(tree, 1), pickle_new_none(tree));
    expect_build_failure(&tree, NULL, "a value cannot be put into int");

    pickle_append(tree, pickle_new_container(tree, PICKLE_DICT), pickle_new_none(tree));
    expect_build_failure(&tree, NULL, "a value cannot be put into dict");

    pickle_put(tree, pickle_new_container(tree, PICKLE_LIST), "k", pickle_new_none(tree));
    expect_build_failure(&tree, NULL, "a value cannot be put into list by key");

    pickle_append(tree, pickle_new_container(tree, PICKLE_LIST), NULL);
    expect_build_failure(&tree, NULL, "nothing cannot be put into list");

    float data = 1;
    const named_tensor wrong = {"", ELEMENT_F32, 1, {2}, &data, 4};
    assert_null(pickle_new_tensor(tree, &wrong));
    expect_build_failure(&tree, NULL, "a tensor has 4 bytes");

    pickle_value *list = pickle_new_container(tree, PICKLE_LIST);
    pickle_append(tree, list, list);
    expect_build_failure(&tree, list, "a list contains itself");

    pickle_value *inner = pickle_new_container(tree, PICKLE_TUPLE);
    for (int i = 0; i < 64; i++) {
        pickle_value *outer = pickle_new_container(tree, PICKLE_TUPLE);
        pickle_append(tree, outer, inner);
        inner = outer;
    }
    expect_build_failure(&tree, inner, "nested deeper than 64");
    pickle_tree_destroy(&tree);
}

/* The folder in the archive is the stem of the file's name. */
static void test_archive_names(void **state)
{
    (void)state;
    static const struct {
        const char *file, *folder;
    } cases[] = {{"model_1.pkl", "model_1"}, {"a.b.c", "a.b"},       {"none", "none"},
                 {".hidden", ".hidden"},     {"s p.pkl", "archive"}, {"\xC3\xA4.pkl", "archive"}};
    onestep_error error;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pickle_tree *tree;
        succeed(pickle_tree_create(&tree, &error), &error);
        const char *path = output_path(cases[i].file);
        succeed(torch_write(path, tree, pickle_new_integer(tree, 1), &error), &error);
        pickle_tree_destroy(&tree);
        mapped_file map;
        const zip_entry *pickle;
        zip_archive *archive;
        read_pickle(path, &map, &pickle, &archive);
        assert_int_equal(pickle->name_length, strlen(cases[i].folder) + 9);
        assert_memory_equal(pickle->name, cases[i].folder, strlen(cases[i].folder));
        zip_archive_destroy(&archive);
        mapped_file_close(&map);
        if (temporary == NULL) {
            assert_int_equal(unlink(path), 0);
        }
    }
}

/* ---- npy ------------------------------------------------------------------------------------- */

static void test_npy(void **state)
{
    (void)state;
    onestep_error error;
    float floats[24];
    int64_t integers[24];
    for (size_t i = 0; i < 24; i++) {
        floats[i] = (float)i * 0.5f - 3;
        integers[i] = (int64_t)i;
    }
    const size_t shapes[4][3] = {{2, 3, 4}, {24}, {1}, {4, 6}};
    const unsigned ranks[4] = {3, 1, 0, 2};
    static const char *const names[4] = {"rank3.npy", "rank1.npy", "rank0.npy", "rank2.npy"};
    for (int i = 0; i < 4; i++) {
        bool whole = i == 3;
        succeed(npy_write(output_path(names[i]), whole ? ELEMENT_I64 : ELEMENT_F32, ranks[i],
                          shapes[i], whole ? (void *)integers : floats, &error),
                &error);
        named_tensor tensor;
        succeed(npy_read(&tensor, output_path(names[i]), &error), &error);
        expect_tensor(&tensor, whole ? ELEMENT_I64 : ELEMENT_F32, ranks[i], shapes[i], 0);
        npy_free(&tensor);
    }
    /* The same bytes as numpy's. */
    uint8_t *written;
    size_t written_size, size;
    succeed(file_read(output_path("rank3.npy"), 1 << 20, &written, &written_size, &error), &error);
    uint8_t *official = fixture_bytes("f4.npy", &size);
    assert_int_equal(size, written_size);
    assert_memory_equal(official, written, size);
    free(official);
    memory_free(written);
    assert_int_equal(npy_write("x", ELEMENT_F16, 1, shapes[0], floats, &error),
                     ONESTEP_ERROR_ARGUMENT);
    assert_int_equal(npy_write("x", ELEMENT_F32, 9, shapes[0], floats, &error),
                     ONESTEP_ERROR_ARGUMENT);
    assert_int_equal(npy_write("/nonexistent/x", ELEMENT_F32, 1, shapes[0], floats, &error),
                     ONESTEP_ERROR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_safetensors_refuses),
        cmocka_unit_test(test_same_pickles),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_same_twice),
        cmocka_unit_test(test_built),
        cmocka_unit_test(test_build_failures),
        cmocka_unit_test(test_archive_names),
        cmocka_unit_test(test_npy),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
