/* What a file is, and where a diffusers folder has its weights. */
#include "formats/fixture.h"
#include "formats/weight_file.h"

#include <stdlib.h>
#include <string.h>

static void test_fixtures(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        weight_kind kind;
        const char *hint;
    } cases[] = {
        {"types.safetensors", WEIGHT_KIND_SAFETENSORS, "safetensors"},
        {"none.safetensors", WEIGHT_KIND_SAFETENSORS, "safetensors"},
        {"sharded/diffusion_pytorch_model.safetensors.index.json", WEIGHT_KIND_SAFETENSORS_INDEX,
         "index"},
        {"paired.pkl", WEIGHT_KIND_TORCH_ZIP, "torch.save"},
        {"deflated.pkl", WEIGHT_KIND_TORCH_ZIP, "torch.save"},
        {"legacy.pkl", WEIGHT_KIND_TORCH_LEGACY, "torch.save it again"},
        {"f4.npy", WEIGHT_KIND_UNKNOWN, "npy"},
        {"versions.txt", WEIGHT_KIND_UNKNOWN, "no known kind"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        weight_kind kind;
        const char *hint;
        onestep_error error;
        assert_int_equal(weight_file_kind(fixture_path(cases[i].name), &kind, &hint, &error),
                         ONESTEP_OK);
        assert_int_equal(kind, cases[i].kind);
        assert_non_null(strstr(hint, cases[i].hint));
    }
    weight_kind kind;
    onestep_error error;
    assert_int_equal(weight_file_kind(fixture_path("missing"), &kind, NULL, &error),
                     ONESTEP_ERROR_IO);
    assert_int_equal(weight_file_kind(TEST_DATA, &kind, NULL, &error), ONESTEP_ERROR_IO);
    assert_int_equal(weight_file_kind(fixture_path("paired.pkl"), &kind, NULL, &error), ONESTEP_OK);
}

static void test_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *hint;
    } cases[] = {
        {"", 0, "empty file"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00", 56, "git lfs pull"},
        {"<!DOCTYPE html>", 15, "web page"},
        {"GGUF\3\0\0\0", 8, "GGUF"},
        {"\x1F\x8B\x08\0", 4, "gzip"},
        {"\x89PNG\r\n\x1A\n", 8, "PNG"},
        {"PK\x05\x06", 4, "empty zip"},
        {"P", 1, "no known kind"},
        {"\0\0\0\0\0\0\0\0", 8, "no known kind"},
        {" \t\r\n", 4, "no known kind"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *bytes = exact_copy(cases[i].bytes, cases[i].size);
        const char *hint;
        assert_int_equal(weight_bytes_kind(bytes, cases[i].size, &hint), WEIGHT_KIND_UNKNOWN);
        assert_non_null(strstr(hint, cases[i].hint));
        weight_file *file;
        onestep_error error;
        assert_int_equal(weight_file_parse(&file, "it", bytes, cases[i].size, &error),
                         ONESTEP_ERROR_FORMAT);
        expect_message(&error, "it: no weights", cases[i].hint, NULL);
        free(bytes);
    }
    uint8_t tar[512] = {0};
    memcpy(tar, "pickle", 6);
    memcpy(tar + 257, "ustar", 5);
    const char *hint;
    assert_int_equal(weight_bytes_kind(tar, sizeof(tar), &hint), WEIGHT_KIND_UNKNOWN);
    assert_non_null(strstr(hint, "tar archive"));
}

static void test_diffusers_order(void **state)
{
    (void)state;
    /* The worst first: each file that is added wins over those before. */
    static const char *const names[] = {
        "model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "model.fp16.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
        "model.safetensors.index.json",
        "diffusion_pytorch_model.safetensors.index.json",
        "model.safetensors",
        "diffusion_pytorch_model.safetensors",
    };
    char *folder = temporary_folder();
    char *path;
    onestep_error error;
    assert_int_equal(diffusers_find_weights(&path, folder, &error), ONESTEP_ERROR_IO);
    assert_null(path);
    expect_message(&error, folder, "no weights", NULL);
    assert_int_equal(file_write_atomic(temporary_path(folder, "pytorch_model.bin"), "x", 1, &error),
                     ONESTEP_OK);
    assert_int_equal(diffusers_find_weights(&path, folder, &error), ONESTEP_ERROR_UNSUPPORTED);
    assert_null(path);
    expect_message(&error, folder, "pytorch_model.bin", "safe_serialization=True", NULL);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(file_write_atomic(temporary_path(folder, names[i]), "x", 1, &error),
                         ONESTEP_OK);
        assert_int_equal(diffusers_find_weights(&path, folder, &error), ONESTEP_OK);
        assert_string_equal(path, temporary_path(folder, names[i]));
        memory_free(path);
    }
    temporary_remove(folder);
    assert_int_equal(diffusers_find_weights(&path, "/nonexistent/unet", &error), ONESTEP_ERROR_IO);
    expect_message(&error, "/nonexistent/unet", "no such folder", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_diffusers_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
