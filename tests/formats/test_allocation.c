/* Every allocation of every operation fails in turn: an error about memory each time, nothing
 * lost (LeakSanitizer looks), and the operation works afterwards. jansson's own allocations, which
 * the linker cannot reach, are made to fail through json_set_alloc_funcs. */
#include "formats/fixture.h"
#include "support/allocation_failure.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef onestep_status (*operation)(onestep_error *error);

static char *folder;

static onestep_status open_weights(const char *name, size_t count, onestep_error *error)
{
    weight_file *file;
    onestep_status status = weight_file_open(&file, fixture_path(name), error);
    if (status == ONESTEP_OK) {
        assert_int_equal(weight_file_count(file), count);
    }
    weight_file_close(&file);
    return status;
}

static onestep_status open_safetensors(onestep_error *error)
{
    return open_weights("types.safetensors", 12, error);
}

static onestep_status open_shards(onestep_error *error)
{
    return open_weights("sharded/diffusion_pytorch_model.safetensors.index.json", 3, error);
}

static onestep_status open_paired(onestep_error *error)
{
    return open_weights("paired.pkl", 6, error);
}

static onestep_status open_views(onestep_error *error)
{
    return open_weights("views.pkl", 9, error);
}

static onestep_status open_containers(onestep_error *error)
{
    return open_weights("containers.pkl", 0, error);
}

static onestep_status write_torch(onestep_error *error)
{
    pickle_tree *tree;
    onestep_status status = pickle_tree_create(&tree, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    float data[2] = {1, 2};
    pickle_value *root = pickle_new_container(tree, PICKLE_DICT);
    for (int i = 0; i < 70; i++) {
        named_tensor tensor = {"", ELEMENT_F32, 1, {1}, &data[i % 2], 4};
        char name[] = {'t', (char)('0' + i), 0};
        pickle_put(tree, root, name, pickle_new_tensor(tree, &tensor));
    }
    pickle_value *set = pickle_new_container(tree, PICKLE_SET);
    pickle_append(tree, set, pickle_new_string(tree, "text"));
    pickle_value *ordered = pickle_new_ordered_dict(tree);
    pickle_put(tree, ordered, "set", set);
    pickle_value *tuple = pickle_new_container(tree, PICKLE_TUPLE);
    pickle_append(tree, tuple, pickle_new_float(tree, 1));
    pickle_append(tree, tuple, pickle_new_boolean(tree, true));
    pickle_append(tree, tuple, pickle_new_none(tree));
    pickle_append(tree, tuple, pickle_new_integer(tree, 1));
    pickle_put(tree, root, "ordered", ordered);
    pickle_put(tree, root, "tuple", tuple);
    status = torch_write(temporary_path(folder, "written.pkl"), tree, root, error);
    pickle_tree_destroy(&tree);
    return status;
}

static onestep_status write_safetensors(onestep_error *error)
{
    float data[2] = {1, 2};
    const named_tensor tensors[] = {{"a", ELEMENT_F32, 1, {2}, data, 8},
                                    {"b", ELEMENT_I8, 0, {0}, data, 1}};
    static const char *const metadata[][2] = {{"format", "pt"}};
    return safetensors_write(temporary_path(folder, "written.safetensors"), tensors, 2, metadata, 1,
                             error);
}

static onestep_status read_config(onestep_error *error)
{
    config *settings, *child = NULL, *element = NULL;
    static const char text[] = "{\"a\": {\"b\": 0.7071067811865476123}, \"c\": [{}],"
                               "\"a long key of more than a few bytes, which grows\": 1}";
    onestep_status status = config_parse(&settings, "c.json", text, sizeof(text) - 1, error);
    if (status == ONESTEP_OK) {
        status = config_object(settings, "a", &child, error);
    }
    if (status == ONESTEP_OK) {
        double value;
        assert_int_equal(config_number(child, "b", 0, 0, 1, &value, error), ONESTEP_OK);
        assert_true(value == 0.7071067811865476123);
        assert_true(config_has(settings, "a long key of more than a few bytes, which grows"));
        status = config_list_object(settings, "c", 0, &element, error);
    }
    config_close(&element);
    config_close(&child);
    config_close(&settings);
    return status;
}

static onestep_status open_config(onestep_error *error)
{
    config *settings;
    onestep_status status = config_open(
        &settings, fixture_path("sharded/diffusion_pytorch_model.safetensors.index.json"), error);
    config_close(&settings);
    return status;
}

static onestep_status read_npy(onestep_error *error)
{
    named_tensor tensor;
    onestep_status status = npy_read(&tensor, fixture_path("f4.npy"), error);
    npy_free(&tensor);
    return status;
}

static onestep_status write_npy(onestep_error *error)
{
    float data[2] = {1, 2};
    return npy_write(temporary_path(folder, "written.npy"), ELEMENT_F32, 1, (size_t[]){2}, data,
                     error);
}

static onestep_status find_weights(onestep_error *error)
{
    char *path;
    onestep_status status = diffusers_find_weights(&path, fixture_path("sharded"), error);
    memory_free(path);
    return status;
}

static void expect_success(operation run)
{
    onestep_error error = {0};
    if (run(&error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
}

static void fail_each(operation run, size_t least)
{
    onestep_error error;
    size_t n;
    for (n = 1;; n++) {
        error = (onestep_error){0};
        allocation_failure_start(n);
        onestep_status status = run(&error);
        if (!allocation_failure_stop()) {
            assert_int_equal(status, ONESTEP_OK);
            break;
        }
        /* A few allocations only help (flushing a folder): then the operation succeeds. */
        if (status != ONESTEP_OK) {
            assert_int_equal(status, ONESTEP_ERROR_MEMORY);
            assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
            expect_message(&error, "memory", NULL);
        }
    }
    assert_in_range(n, least, 100000);
    expect_success(run);
}

static void test_every_allocation(void **state)
{
    (void)state;
    fail_each(open_safetensors, 8);
    fail_each(open_shards, 10);
    fail_each(open_paired, 15);
    fail_each(open_views, 15);
    fail_each(open_containers, 15);
    fail_each(write_torch, 15);
    fail_each(write_safetensors, 6);
    fail_each(read_config, 6);
    fail_each(open_config, 4);
    fail_each(read_npy, 2);
    fail_each(write_npy, 3);
    fail_each(find_weights, 2);
}

/* ---- inside jansson -------------------------------------------------------------------------- */

static size_t jansson_countdown;
static bool jansson_failed;

static void *jansson_malloc(size_t size)
{
    if (jansson_countdown > 0 && --jansson_countdown == 0) {
        jansson_failed = true;
        return NULL;
    }
    return malloc(size);
}

static void fail_each_in_jansson(operation run, size_t least)
{
    size_t n, memory_errors = 0;
    json_set_alloc_funcs(jansson_malloc, free);
    for (n = 1;; n++) {
        onestep_error error = {0};
        jansson_countdown = n;
        jansson_failed = false;
        onestep_status status = run(&error);
        if (!jansson_failed) {
            assert_int_equal(status, ONESTEP_OK);
            break;
        }
        /* jansson may call what it has no memory for a syntax error, but must never go on. */
        assert_true(status == ONESTEP_ERROR_MEMORY || status == ONESTEP_ERROR_FORMAT);
        memory_errors += status == ONESTEP_ERROR_MEMORY;
    }
    jansson_countdown = 0;
    json_set_alloc_funcs(malloc, free);
    assert_in_range(n, least, 100000);
    assert_in_range(memory_errors, least / 4, n);
    expect_success(run);
}

static void test_jansson(void **state)
{
    (void)state;
    fail_each_in_jansson(open_safetensors, 50);
    fail_each_in_jansson(open_shards, 20);
    fail_each_in_jansson(read_config, 10);
}

static int set_up(void **state)
{
    (void)state;
    folder = temporary_folder();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temporary_remove(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation),
        cmocka_unit_test(test_jansson),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
