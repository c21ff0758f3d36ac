/* Reading safetensors: files of the official library, and files made wrong in every way. */
#include "formats/fixture.h"
#include "formats/weight_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file with this header, and `data_size` bytes of data. */
static uint8_t *make_file(const char *header, size_t data_size, size_t *size)
{
    uint64_t length = strlen(header);
    *size = 8 + length + data_size;
    uint8_t *bytes = calloc(1, *size);
    assert_non_null(bytes);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    return bytes;
}

static onestep_status parse(const uint8_t *bytes, size_t size, onestep_error *error)
{
    weight_file *file;
    onestep_status status = weight_file_parse(&file, "test.safetensors", bytes, size, error);
    assert_true((status == ONESTEP_OK) == (file != NULL));
    weight_file_close(&file);
    return status;
}

static void test_every_type(void **state)
{
    (void)state;
    weight_file *file;
    onestep_error error;
    assert_int_equal(weight_file_open(&file, fixture_path("types.safetensors"), &error),
                     ONESTEP_OK);
    assert_int_equal(weight_file_opened_kind(file), WEIGHT_KIND_SAFETENSORS);
    assert_string_equal(weight_file_path(file), fixture_path("types.safetensors"));
    assert_int_equal(weight_file_count(file), 12);
    for (int type = 0; type < ELEMENT_TYPE_COUNT; type++) {
        const named_tensor *tensor = weight_file_find(file, element_name((element_type)type));
        EXPECT_TENSOR(tensor, (element_type)type, 0, 2, 3);
        assert_string_equal(tensor->name, element_name((element_type)type));
    }
    const named_tensor *scalar = weight_file_find(file, "scalar");
    expect_tensor(scalar, ELEMENT_F32, 0, NULL, 9);
    EXPECT_TENSOR(weight_file_find(file, "empty"), ELEMENT_F32, 0, 0, 3);
    assert_null(weight_file_find(file, "missing"));
    assert_null(weight_file_find(file, ""));
    assert_null(weight_file_root(file));
    for (size_t i = 0; i < weight_file_count(file); i++) {
        const named_tensor *tensor = weight_file_tensor(file, i);
        assert_ptr_equal(weight_file_find(file, tensor->name), tensor);
    }
    assert_int_equal(weight_file_metadata_count(file), 2);
    assert_string_equal(weight_file_metadata(file, "format"), "pt");
    assert_string_equal(weight_file_metadata(file, "note"),
                        "quote \" backslash \\ line\nbreak \xC3\xA4");
    assert_null(weight_file_metadata(file, "else"));
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(weight_file_metadata(file, weight_file_metadata_key(file, i)),
                            weight_file_metadata_value(file, i));
    }
    assert_int_equal(weight_file_verify(file, &error), ONESTEP_OK);
    weight_file_close(&file);
    assert_null(file);
    weight_file_close(&file);
}

static void test_no_tensors(void **state)
{
    (void)state;
    weight_file *file;
    onestep_error error;
    assert_int_equal(weight_file_open(&file, fixture_path("none.safetensors"), &error), ONESTEP_OK);
    assert_int_equal(weight_file_count(file), 0);
    assert_int_equal(weight_file_metadata_count(file), 0);
    weight_file_close(&file);
}

static void test_cut_off_anywhere(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = fixture_bytes("types.safetensors", &size);
    for (size_t length = 0; length < size; length++) {
        uint8_t *part = exact_copy(bytes, length);
        onestep_error error;
        assert_true(parse(part, length, &error) != ONESTEP_OK);
        expect_message(&error, "test.safetensors: ", NULL);
        free(part);
    }
    free(bytes);
}

static void test_one_byte_more(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = fixture_bytes("types.safetensors", &size);
    bytes = realloc(bytes, size + 1);
    bytes[size] = 0;
    onestep_error error;
    assert_int_equal(parse(bytes, size + 1, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "the tensors end at byte", NULL);
    free(bytes);
}

/* Every byte of the header changed in several ways: an error or not, but never anything else. */
static void test_changed_bytes(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = fixture_bytes("types.safetensors", &size);
    uint64_t header;
    memcpy(&header, bytes, 8);
    static const uint8_t changes[] = {0x01, 0x02, 0x10, 0x80, 0xFF};
    for (size_t i = 0; i < 8 + header; i++) {
        for (size_t c = 0; c < sizeof(changes); c++) {
            bytes[i] ^= changes[c];
            onestep_error error = {0};
            if (parse(bytes, size, &error) != ONESTEP_OK) {
                expect_message(&error, "test.safetensors: ", NULL);
            }
            bytes[i] ^= changes[c];
        }
    }
    free(bytes);
}

#define TENSOR(name, type, shape, begin, end)                                                      \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

typedef struct wrong_header {
    const char *header;
    size_t data_size;
    onestep_status status;
    const char *message;
} wrong_header;

static void test_wrong_headers(void **state)
{
    (void)state;
    static const wrong_header cases[] = {
        {"{" TENSOR("a", "F32", "[2]", "0", "8"), 8, ONESTEP_ERROR_FORMAT, "bad JSON"},
        {"{}}", 0, ONESTEP_ERROR_FORMAT, "bad JSON"},
        {"{},{}", 0, ONESTEP_ERROR_FORMAT, "one JSON object expected"},
        {"{\"a\":1e999}", 0, ONESTEP_ERROR_FORMAT, "bad JSON"},
        {"{\"a\":NaN}", 0, ONESTEP_ERROR_FORMAT, "bad JSON"},
        {"{\"a\xFF\":1}", 0, ONESTEP_ERROR_FORMAT, "bad JSON"},
        {"{\"a\\u0000b\":1}", 0, ONESTEP_ERROR_FORMAT, "bad JSON"},
        {"{\"a\":1}", 0, ONESTEP_ERROR_FORMAT, "tensor a: an object expected"},
        {"{\"__metadata__\":1}", 0, ONESTEP_ERROR_FORMAT, "__metadata__ is no object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, ONESTEP_ERROR_FORMAT, "__metadata__: k is no text"},
        {"{" TENSOR("a", "F32", "[2]", "0", "8") "," TENSOR("a", "F32", "[2]", "8", "16") "}", 16,
         ONESTEP_ERROR_FORMAT, "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         ONESTEP_ERROR_FORMAT, "duplicate"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, ONESTEP_ERROR_FORMAT, "\"dtype\""},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, ONESTEP_ERROR_FORMAT,
         "\"shape\""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, ONESTEP_ERROR_FORMAT, "data_offsets"},
        {"{" TENSOR("a", "F8_E4M3", "[8]", "0", "8") "}", 8, ONESTEP_ERROR_UNSUPPORTED, "F8_E4M3"},
        {"{" TENSOR("a", "f32", "[2]", "0", "8") "}", 8, ONESTEP_ERROR_UNSUPPORTED, "type f32"},
        {"{" TENSOR("a", "F32", "2", "0", "8") "}", 8, ONESTEP_ERROR_FORMAT, "\"shape\""},
        {"{" TENSOR("a", "F32", "[2.0]", "0", "8") "}", 8, ONESTEP_ERROR_FORMAT, "dimension 0"},
        {"{" TENSOR("a", "F32", "[1,-2]", "0", "8") "}", 8, ONESTEP_ERROR_FORMAT, "dimension 1"},
        {"{" TENSOR("a", "F32", "[1,1,1,1,1,1,1,1,2]", "0", "8") "}", 8, ONESTEP_ERROR_UNSUPPORTED,
         "9 dimensions"},
        {"{" TENSOR("a", "F32", "[4294967296,4294967296]", "0", "8") "}", 8, ONESTEP_ERROR_FORMAT,
         "larger than any memory"},
        {"{" TENSOR("a", "F32", "[0,4294967296,4294967296]", "0", "0") "}", 0, ONESTEP_ERROR_FORMAT,
         "larger than any memory"},
        {"{" TENSOR("a", "F32", "[4611686018427387906]", "0", "8") "}", 8, ONESTEP_ERROR_FORMAT,
         "larger than any memory"},
        {"{" TENSOR("a", "F32", "[99999999999999999999]", "0", "8") "}", 8, ONESTEP_ERROR_FORMAT,
         "bad JSON"},
        {"{" TENSOR("a", "F32", "[2]", "-8", "0") "}", 8, ONESTEP_ERROR_FORMAT, "data_offsets"},
        {"{" TENSOR("a", "F32", "[2]", "8", "0") "}", 8, ONESTEP_ERROR_FORMAT, "data_offsets"},
        {"{" TENSOR("a", "F32", "[2]", "0", "8,8") "}", 8, ONESTEP_ERROR_FORMAT, "data_offsets"},
        {"{" TENSOR("a", "F32", "[2]", "0", "9223372036854775807") "}", 8, ONESTEP_ERROR_FORMAT,
         "cut off or damaged"},
        {"{" TENSOR("a", "F32", "[2]", "0", "4") "}", 8, ONESTEP_ERROR_FORMAT,
         "f32 [2] needs 8 bytes, the offsets give 4"},
        {"{" TENSOR("a", "F32", "[2]", "0", "8") "," TENSOR("b", "F32", "[2]", "4", "12") "}", 12,
         ONESTEP_ERROR_FORMAT, "tensor b begins at byte 4, inside"},
        {"{" TENSOR("a", "F32", "[2]", "0", "8") "," TENSOR("b", "F32", "[2]", "12", "20") "}", 20,
         ONESTEP_ERROR_FORMAT, "bytes 8 to 12 before tensor b"},
        {"{" TENSOR("a", "F32", "[2]", "4", "12") "}", 12, ONESTEP_ERROR_FORMAT,
         "bytes 0 to 4 before tensor a"},
        {"{" TENSOR("a", "F32", "[2]", "0", "8") "}", 9, ONESTEP_ERROR_FORMAT, "end at byte 8"},
        {"{" TENSOR("a\\u001b[31m\\n", "F32", "[2]", "0", "4") "}", 8, ONESTEP_ERROR_FORMAT,
         "tensor a?[31m?: "},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t size;
        uint8_t *bytes = make_file(cases[i].header, cases[i].data_size, &size);
        onestep_error error;
        assert_int_equal(parse(bytes, size, &error), cases[i].status);
        expect_message(&error, "test.safetensors: ", cases[i].message, NULL);
        free(bytes);
    }
}

static void test_right_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_size;
    } cases[] = {
        {"{" TENSOR("b", "F32", "[2]", "8", "16") "," TENSOR("a", "F32", "[2]", "0", "8") "}", 16},
        {"{" TENSOR("a", "F32", "[0]", "0", "0") "," TENSOR("b", "I8", "[]", "0", "1") "}   ", 1},
        {"{" TENSOR("", "U8", "[1,1,1,1,1,1,1,3]", "0", "3") "}", 3},
        {"{\"__metadata__\":{}}", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t size;
        uint8_t *bytes = make_file(cases[i].header, cases[i].data_size, &size);
        onestep_error error = {0};
        assert_int_equal(parse(bytes, size, &error), ONESTEP_OK);
        free(bytes);
    }
}

static void test_header_length(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = make_file("{}", 0, &size);
    onestep_error error;
    static const uint64_t lengths[] = {1, 3, 16 * 1024 * 1024, 16 * 1024 * 1024 + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        memcpy(bytes, &lengths[i], 8);
        assert_int_equal(parse(bytes, size, &error), ONESTEP_ERROR_FORMAT);
    }
    expect_message(&error, "header of 4294967295 bytes: the limit is 16777216", NULL);
    /* Lengths beyond 32 bits are no safetensors at all. */
    memcpy(bytes, &(uint64_t){UINT64_MAX}, 8);
    assert_int_equal(parse(bytes, size, &error), ONESTEP_ERROR_FORMAT);
    free(bytes);
}

/* Nesting and number of values are bounded before the JSON parser runs. */
static void test_json_bombs(void **state)
{
    (void)state;
    static const struct {
        const char *begin, *repeated;
        size_t times;
        const char *message;
    } cases[] = {{"{\"a\":", "[", 40, "nested deeper than 32"},
                 {"{\"a\":", "{\"a\":", 40, "nested deeper than 32"},
                 {"{\"a\":[", "0,", 1100000, "more than 1048576 values"},
                 {"{\"a\":[", "{}", 1100000, "more than 1048576 values"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        text_buffer header = {0};
        text_buffer_print(&header, "%s", cases[i].begin);
        for (size_t k = 0; k < cases[i].times; k++) {
            text_buffer_append(&header, cases[i].repeated, strlen(cases[i].repeated));
        }
        size_t size;
        uint8_t *bytes = make_file(header.data, 0, &size);
        onestep_error error;
        assert_int_equal(parse(bytes, size, &error), ONESTEP_ERROR_FORMAT);
        expect_message(&error, cases[i].message, NULL);
        free(bytes);
        text_buffer_free(&header);
    }
}

static void test_long_names(void **state)
{
    (void)state;
    text_buffer header = {0};
    text_buffer_append(&header, "{\"", 2);
    for (size_t i = 0; i < 100000; i++) {
        text_buffer_append(&header, "n", 1);
    }
    text_buffer_print(&header, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,%d]}}", 1);
    size_t size;
    uint8_t *bytes = make_file(header.data, 1, &size);
    onestep_error error;
    weight_file *file;
    assert_int_equal(weight_file_parse(&file, "test", bytes, size, &error), ONESTEP_OK);
    assert_int_equal(strlen(weight_file_tensor(file, 0)->name), 100000);
    weight_file_close(&file);
    free(bytes);
    text_buffer_free(&header);
}

static void test_many_metadata(void **state)
{
    (void)state;
    for (unsigned count = 1024; count <= 1025; count++) {
        text_buffer header = {0};
        text_buffer_print(&header, "{\"__metadata__\":{");
        for (unsigned i = 0; i < count; i++) {
            text_buffer_print(&header, "%s\"%u\":\"\"", i == 0 ? "" : ",", i);
        }
        text_buffer_print(&header, "}}");
        size_t size;
        uint8_t *bytes = make_file(header.data, 0, &size);
        onestep_error error;
        assert_int_equal(parse(bytes, size, &error),
                         count == 1024 ? ONESTEP_OK : ONESTEP_ERROR_FORMAT);
        free(bytes);
        text_buffer_free(&header);
    }
}

/* ---- shards ---------------------------------------------------------------------------------- */

static void test_shards(void **state)
{
    (void)state;
    weight_file *file;
    onestep_error error;
    const char *index = "sharded/diffusion_pytorch_model.safetensors.index.json";
    assert_int_equal(weight_file_open(&file, fixture_path(index), &error), ONESTEP_OK);
    assert_int_equal(weight_file_opened_kind(file), WEIGHT_KIND_SAFETENSORS_INDEX);
    assert_int_equal(weight_file_count(file), 3);
    EXPECT_TENSOR(weight_file_find(file, "a"), ELEMENT_F32, 0, 2, 2);
    EXPECT_TENSOR(weight_file_find(file, "b"), ELEMENT_F32, 1, 3);
    EXPECT_TENSOR(weight_file_find(file, "c"), ELEMENT_F32, 2, 1, 2);
    assert_string_equal(weight_file_metadata(file, "format"), "pt");
    weight_file_close(&file);
}

static void write_text(const char *folder, const char *name, const char *text)
{
    onestep_error error;
    assert_int_equal(file_write_atomic(temporary_path(folder, name), text, strlen(text), &error),
                     ONESTEP_OK);
}

static void test_wrong_indices(void **state)
{
    (void)state;
    char *folder = temporary_folder();
    onestep_error error;
    float one = 1;
    named_tensor a = {"a", ELEMENT_F32, 1, {1}, &one, 4};
    named_tensor b = {"b", ELEMENT_F32, 1, {1}, &one, 4};
    named_tensor ab[] = {a, b};
    assert_int_equal(
        safetensors_write(temporary_path(folder, "1.safetensors"), &a, 1, NULL, 0, &error),
        ONESTEP_OK);
    assert_int_equal(
        safetensors_write(temporary_path(folder, "2.safetensors"), &b, 1, NULL, 0, &error),
        ONESTEP_OK);
    assert_int_equal(
        safetensors_write(temporary_path(folder, "3.safetensors"), ab, 2, NULL, 0, &error),
        ONESTEP_OK);
    write_text(folder, "4.safetensors", "not safetensors");
    static const struct {
        const char *map, *message;
        onestep_status status;
    } cases[] = {
        {"{}", "weight_map", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{}}", "weight_map", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":[]}", "weight_map", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":1}}", "shard of a is no text", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "plain file name", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "plain file name", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "plain file name", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"\"}}", "plain file name", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"missing.safetensors\"}}", "missing.safetensors",
         ONESTEP_ERROR_IO},
        {"{\"weight_map\":{\"c\":\"1.safetensors\"}}", "tensor c is not in the shard",
         ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}",
         "tensor b is not in the shard that the index gives (1.safetensors)", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}",
         "tensor a is not in the shard", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"3.safetensors\"}}",
         "shard 3.safetensors: tensor a is there twice", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"4.safetensors\"}}",
         "shard 4.safetensors: not safetensors: its first", ONESTEP_ERROR_FORMAT},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"1.safetensors\"}}", "duplicate",
         ONESTEP_ERROR_FORMAT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        weight_file *file;
        write_text(folder, "index.json", cases[i].map);
        assert_int_equal(weight_file_open(&file, temporary_path(folder, "index.json"), &error),
                         cases[i].status);
        assert_null(file);
        expect_message(&error, "index.json: ", cases[i].message, NULL);
    }
    weight_file *file;
    write_text(folder, "index.json",
               " \n{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
    assert_int_equal(weight_file_open(&file, temporary_path(folder, "index.json"), &error),
                     ONESTEP_OK);
    weight_file_close(&file);
    temporary_remove(folder);
}

static void test_too_many_shards(void **state)
{
    (void)state;
    char *folder = temporary_folder();
    onestep_error error;
    text_buffer index = {0};
    text_buffer_print(&index, "{\"weight_map\":{");
    for (unsigned i = 0; i < 65; i++) {
        char name[16], file_name[32];
        (void)snprintf(name, sizeof(name), "t%u", i);
        (void)snprintf(file_name, sizeof(file_name), "%u.safetensors", i);
        named_tensor tensor = {name, ELEMENT_F32, 0, {0}, &(float){1}, 4};
        assert_int_equal(
            safetensors_write(temporary_path(folder, file_name), &tensor, 1, NULL, 0, &error),
            ONESTEP_OK);
        text_buffer_print(&index, "%s\"%s\":\"%s\"", i == 0 ? "" : ",", name, file_name);
        if (i >= 63) {
            size_t length = index.length;
            text_buffer_print(&index, "}}");
            write_text(folder, "index.json", index.data);
            index.length = length;
            weight_file *file;
            onestep_status status =
                weight_file_open(&file, temporary_path(folder, "index.json"), &error);
            assert_int_equal(status, i == 63 ? ONESTEP_OK : ONESTEP_ERROR_UNSUPPORTED);
            weight_file_close(&file);
        }
    }
    expect_message(&error, "more than 64 shards", NULL);
    text_buffer_free(&index);
    temporary_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),       cmocka_unit_test(test_no_tensors),
        cmocka_unit_test(test_cut_off_anywhere), cmocka_unit_test(test_one_byte_more),
        cmocka_unit_test(test_changed_bytes),    cmocka_unit_test(test_wrong_headers),
        cmocka_unit_test(test_right_headers),    cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_json_bombs),       cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_many_metadata),    cmocka_unit_test(test_shards),
        cmocka_unit_test(test_wrong_indices),    cmocka_unit_test(test_too_many_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
