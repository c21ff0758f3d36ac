/* Reading .npy: numpy's own files, and headers made wrong. */
#include "formats/fixture.h"

#include <stdlib.h>
#include <string.h>

static void test_official(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        element_type type;
    } cases[] = {{"f4.npy", ELEMENT_F32},      {"f8.npy", ELEMENT_F64},
                 {"f2.npy", ELEMENT_F16},      {"i8.npy", ELEMENT_I64},
                 {"i4.npy", ELEMENT_I32},      {"version2.npy", ELEMENT_F32},
                 {"version3.npy", ELEMENT_F32}};
    named_tensor tensor;
    onestep_error error;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(npy_read(&tensor, fixture_path(cases[i].name), &error), ONESTEP_OK);
        EXPECT_TENSOR(&tensor, cases[i].type, 0, 2, 3, 4);
        assert_int_equal((uintptr_t)tensor.data % element_size(tensor.type), 0);
        npy_free(&tensor);
        assert_null(tensor.data);
    }
    assert_int_equal(npy_read(&tensor, fixture_path("scalar.npy"), &error), ONESTEP_OK);
    expect_tensor(&tensor, ELEMENT_F32, 0, NULL, 9);
    npy_free(&tensor);
    assert_int_equal(npy_read(&tensor, fixture_path("vector.npy"), &error), ONESTEP_OK);
    EXPECT_TENSOR(&tensor, ELEMENT_F32, 0, 3);
    npy_free(&tensor);
    assert_int_equal(npy_read(&tensor, fixture_path("empty.npy"), &error), ONESTEP_OK);
    EXPECT_TENSOR(&tensor, ELEMENT_F32, 0, 0, 3);
    npy_free(&tensor);
}

static void test_refused_files(void **state)
{
    (void)state;
    static const struct {
        const char *name, *message;
        onestep_status status;
    } cases[] = {
        {"fortran.npy", "Fortran order", ONESTEP_ERROR_UNSUPPORTED},
        {"big_endian.npy", "type >f4", ONESTEP_ERROR_UNSUPPORTED},
        {"bool.npy", "type |b1", ONESTEP_ERROR_UNSUPPORTED},
        {"records.npy", "arrays of records", ONESTEP_ERROR_UNSUPPORTED},
        {"paired.pkl", "not a .npy file", ONESTEP_ERROR_FORMAT},
        {"missing.npy", "missing.npy", ONESTEP_ERROR_IO},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        named_tensor tensor;
        onestep_error error;
        assert_int_equal(npy_read(&tensor, fixture_path(cases[i].name), &error), cases[i].status);
        assert_null(tensor.data);
        expect_message(&error, cases[i].name, cases[i].message, NULL);
    }
}

static onestep_status parse(const void *bytes, size_t size, onestep_error *error)
{
    uint8_t *copy = exact_copy(bytes, size);
    named_tensor tensor;
    onestep_status status = npy_parse(&tensor, "test.npy", copy, size, error);
    assert_true((status == ONESTEP_OK) == (tensor.data != NULL));
    npy_free(&tensor);
    free(copy);
    return status;
}

/* A version 1 file with this header and so many bytes of data. */
static onestep_status parse_header(const char *header, size_t data_size, onestep_error *error)
{
    text_buffer out = {0};
    size_t length = strlen(header);
    text_buffer_append(&out, "\x93NUMPY\1\0", 8);
    text_buffer_append(&out, &length, 2);
    text_buffer_append(&out, header, length);
    for (size_t i = 0; i < data_size; i++) {
        text_buffer_append(&out, "", 1);
    }
    onestep_status status = parse(out.data, out.length, error);
    text_buffer_free(&out);
    return status;
}

static void test_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_size;
        const char *message; /* NULL: fine */
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8, NULL},
        {"{'shape':(2,),'fortran_order':False,'descr':'<f4'}", 8, NULL},
        {" { \"descr\" : \"<f4\" , \"fortran_order\" : False , \"shape\" : ( 2 , 1 , ) } \n", 8,
         NULL},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1)}", 8, NULL},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4, NULL},
        {"", 8, "the header is not"},
        {"{}", 8, "the header is not"},
        {"{'descr': '<f4', 'fortran_order': False}", 8, "the header is not"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", 8, "the header is not"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", 8, "the header is not"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8,
         "the header is not"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", 8, "the header is not"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}", 8, "the header is not"},
        {"{descr: '<f4', 'fortran_order': False, 'shape': (2,)}", 8, "the header is not"},
        {"{'descr': '<f4, 'fortran_order': False, 'shape': (2,)}", 8, "type <f4, "},
        {"{'descr': '<f4", 8, "no simple one"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}", 8, "neither True nor False"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2,)}", 8, "Fortran"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", 8, "type <c8"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", 8, "type |O"},
        {"{'descr': '\x1b[0m', 'fortran_order': False, 'shape': (1,)}", 8, "type ?[0m"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2)}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 2}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': [2]}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2.0,)}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (nan,)}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,,)}", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2", 8, "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", 8,
         "shape is not readable"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 8,
         "more than 8 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296)}", 8,
         "larger than any memory"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0,4294967296,4294967296)}", 0,
         "larger than any memory"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 7,
         "f32 [2] needs 8 bytes, the file has 7"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 9,
         "f32 [2] needs 8 bytes, the file has 9"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387903,)}", 8,
         "larger than any memory"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        onestep_error error = {0};
        onestep_status status = parse_header(cases[i].header, cases[i].data_size, &error);
        if (cases[i].message == NULL) {
            if (status != ONESTEP_OK) {
                fail_msg("header %zu: %s", i, error.message);
            }
        } else {
            assert_true(status == ONESTEP_ERROR_FORMAT || status == ONESTEP_ERROR_UNSUPPORTED);
            expect_message(&error, "test.npy: npy: ", cases[i].message, NULL);
        }
    }
}

static void test_beginnings(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *message;
    } cases[] = {
        {"\x93NUMPY\0\0\0\0", 10, "version 0.0"},
        {"\x93NUMPY\4\0\0\0", 10, "version 4.0"},
        {"\x93NUMPY\1\1\0\0", 10, "version 1.1"},
        {"\x93NUMPY\2\0\0\0", 10, "cut off in the header"},
        {"\x93NUMPY\2\0\xff\xff\xff\xff{", 13, "header of 4294967295 bytes"},
        {"\x93NUMPY\2\0\0\0\2\0{", 13, "header of 131072 bytes (the limit is 65536)"},
        {"\x93NUMPY\1\0\2\0{", 11, "header of 2 bytes"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        onestep_error error;
        assert_true(parse(cases[i].bytes, cases[i].size, &error) != ONESTEP_OK);
        expect_message(&error, cases[i].message, NULL);
    }
}

static void test_damage(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = fixture_bytes("f4.npy", &size);
    onestep_error error;
    for (size_t length = 0; length < size; length++) {
        assert_true(parse(bytes, length, &error) != ONESTEP_OK);
    }
    static const uint8_t changes[] = {0x01, 0x02, 0x10, 0x80, 0xFF};
    for (size_t i = 0; i < 128; i++) {
        for (size_t c = 0; c < sizeof(changes); c++) {
            bytes[i] ^= changes[c];
            if (parse(bytes, size, &error) != ONESTEP_OK) {
                expect_message(&error, "test.npy: ", NULL);
            }
            bytes[i] ^= changes[c];
        }
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_official), cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_headers),  cmocka_unit_test(test_beginnings),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
