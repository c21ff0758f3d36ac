#include "formats/fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *fixture_path(const char *name)
{
    static char path[1024];
    (void)snprintf(path, sizeof(path), "%s/%s", TEST_DATA, name);
    return path;
}

uint8_t *exact_copy(const void *bytes, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    return copy;
}

uint8_t *fixture_bytes(const char *name, size_t *size)
{
    uint8_t *bytes;
    onestep_error error;
    assert_int_equal(file_read(fixture_path(name), 1 << 20, &bytes, size, &error), ONESTEP_OK);
    uint8_t *copy = exact_copy(bytes, *size);
    memory_free(bytes);
    return copy;
}

static double element(const named_tensor *tensor, size_t index)
{
    const uint8_t *at = (const uint8_t *)tensor->data + index * element_size(tensor->type);
    union {
        int64_t i64;
        int32_t i32;
        int16_t i16;
        int8_t i8;
        uint8_t u8;
    } value = {0};
    float number;
    switch (tensor->type) {
    case ELEMENT_F64: {
        double wide;
        memcpy(&wide, at, sizeof(wide));
        return wide;
    }
    case ELEMENT_F32:
    case ELEMENT_F16:
    case ELEMENT_BF16:
        convert_to_float(&number, at, tensor->type, 1);
        return number;
    default:
        memcpy(&value, at, element_size(tensor->type));
        return tensor->type == ELEMENT_I64   ? (double)value.i64
               : tensor->type == ELEMENT_I32 ? value.i32
               : tensor->type == ELEMENT_I16 ? value.i16
               : tensor->type == ELEMENT_I8  ? value.i8
                                             : value.u8;
    }
}

void expect_tensor(const named_tensor *tensor, element_type type, unsigned rank,
                   const size_t *shape, size_t start)
{
    assert_non_null(tensor);
    assert_non_null(tensor->name);
    assert_non_null(tensor->data);
    assert_int_equal(tensor->type, type);
    assert_int_equal(tensor->rank, rank);
    size_t count = 1;
    for (unsigned i = 0; i < rank; i++) {
        assert_int_equal(tensor->shape[i], shape[i]);
        count *= shape[i];
    }
    assert_int_equal(tensor->bytes, count * element_size(type));
    assert_int_equal(tensor_element_count(tensor), count);
    for (size_t i = 0; i < count; i++) {
        double expected = (double)(start + i);
        if (type <= ELEMENT_F64) {
            expected = expected * 0.5 - 3;
        } else if (type == ELEMENT_BOOL) {
            expected = (double)((start + i) % 2);
        }
        assert_true(element(tensor, i) == expected);
    }
}

void expect_message(const onestep_error *error, ...)
{
    va_list texts;
    va_start(texts, error);
    const char *text;
    while ((text = va_arg(texts, const char *)) != NULL) {
        if (strstr(error->message, text) == NULL) {
            fail_msg("\"%s\" is not in \"%s\"", text, error->message);
        }
    }
    va_end(texts);
    for (const char *c = error->message; *c != '\0'; c++) {
        assert_true((uint8_t)*c >= 0x20 && *c != 0x7F);
    }
}

char *temporary_folder(void)
{
    char name[] = "/tmp/onestep-formats-XXXXXX";
    assert_non_null(mkdtemp(name));
    char *folder = strdup(name);
    assert_non_null(folder);
    return folder;
}

const char *temporary_path(const char *folder, const char *name)
{
    static char path[1024];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

void temporary_remove(char *folder)
{
    DIR *directory = opendir(folder);
    assert_non_null(directory);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            assert_int_equal(unlink(temporary_path(folder, entry->d_name)), 0);
        }
    }
    closedir(directory);
    assert_int_equal(rmdir(folder), 0);
    free(folder);
}
