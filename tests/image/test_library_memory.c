/* Allocations inside libjpeg, libwebp and zlib fail, too: each by an error, with nothing leaked.
 *
 * The program brings its own malloc, which the shared libraries then use; the real one is glibc's.
 * Sanitizers bring their own as well, so under them there is nothing to test here. */
#include "image/picture_helpers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define OWN_MALLOC 0
#else
#define OWN_MALLOC 1
#endif
#else
#define OWN_MALLOC 1
#endif

#if OWN_MALLOC

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void __libc_free(void *block);

static atomic_long countdown; /* the allocation that fails: 1 is the next one, 0 none */
static atomic_long blocks;    /* that are not yet released, while counting */
static atomic_bool counting, failed;

static bool fails_now(void)
{
    if (atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1) {
        atomic_store(&failed, true);
        errno = ENOMEM;
        return true;
    }
    return false;
}

static void *counted(void *block)
{
    if (block != NULL && atomic_load(&counting)) {
        atomic_fetch_add(&blocks, 1);
    }
    return block;
}

void *malloc(size_t size)
{
    return fails_now() ? NULL : counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return fails_now() ? NULL : counted(__libc_calloc(count, size));
}

void *realloc(void *block, size_t size)
{
    if (block == NULL) {
        return malloc(size);
    }
    return fails_now() ? NULL : __libc_realloc(block, size);
}

void free(void *block)
{
    if (block != NULL && atomic_load(&counting)) {
        atomic_fetch_sub(&blocks, 1);
    }
    __libc_free(block);
}

typedef onestep_status (*operation)(const void *input, onestep_error *error);

static void fail_each(operation run, const void *input)
{
    size_t failures = 0;
    for (long n = 1;; n++) {
        onestep_error error = {0};
        atomic_store(&failed, false);
        atomic_store(&blocks, 0);
        atomic_store(&counting, true);
        atomic_store(&countdown, n);
        onestep_status status = run(input, &error);
        atomic_store(&countdown, 0);
        atomic_store(&counting, false);
        assert_int_equal(atomic_load(&blocks), 0);
        if (!atomic_load(&failed)) {
            assert_int_equal(status, ONESTEP_OK);
            break;
        }
        /* libjpeg asks again for less, and may get it. */
        bool accepted = status == ONESTEP_ERROR_MEMORY || status == ONESTEP_OK;
        if (!accepted) {
            fail_msg("allocation %ld: status %d, \"%s\"", n, status, error.message);
        }
        failures += status != ONESTEP_OK;
    }
    assert_true(failures > 3);
}

typedef struct input_file {
    uint8_t *bytes;
    size_t size;
} input_file;

static onestep_status run_decode(const void *input, onestep_error *error)
{
    const input_file *file = input;
    onestep_image image;
    onestep_status status = image_decode(&image, file->bytes, file->size, NULL, error);
    image_destroy(&image);
    return status;
}

static void reading(void **state)
{
    (void)state;
    static const char *const names[] = {
        GOLDEN_FOLDER "images/png_palette_8.png",        GOLDEN_FOLDER "images/jpeg_420.jpg",
        GOLDEN_FOLDER "images/jpeg_420_progressive.jpg", GOLDEN_FOLDER "images/jpeg_cmyk.jpg",
        GOLDEN_FOLDER "images/webp_lossy.webp",
        /* No lossless WebP: libwebp 1.2.4 frees a pointer that it never set when such a picture's
         * Huffman tables get no memory. */
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        input_file file;
        file_read_all(names[i], &file.bytes, &file.size);
        fail_each(run_decode, &file);
        memory_free(file.bytes);
    }
}

static onestep_status run_metadata(const void *input, onestep_error *error)
{
    const input_file *file = input;
    image_metadata metadata = {0};
    onestep_status status = image_metadata_read(&metadata, file->bytes, file->size, error);
    image_metadata_free(&metadata);
    return status;
}

static void reading_texts(void **state)
{
    (void)state;
    input_file file;
    file_read_all(TEST_DATA "/png_texts.png", &file.bytes, &file.size);
    fail_each(run_metadata, &file);
    memory_free(file.bytes);
}

typedef struct encode_input {
    onestep_image image;
    image_format format;
} encode_input;

static onestep_status run_encode(const void *input, onestep_error *error)
{
    const encode_input *what = input;
    uint8_t *bytes;
    size_t size;
    onestep_status status =
        image_encode(&bytes, &size, &what->image, what->format, 90, NULL, error);
    memory_free(bytes);
    return status;
}

static void writing(void **state)
{
    (void)state;
    encode_input input;
    picture_generate(&input.image, 0, 1, 60, 50);
    for (input.format = IMAGE_FORMAT_PNG; input.format <= IMAGE_FORMAT_WEBP; input.format++) {
        fail_each(run_encode, &input);
    }
    image_destroy(&input.image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading),
        cmocka_unit_test(reading_texts),
        cmocka_unit_test(writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void left_to_other_builds(void **state)
{
    (void)state;
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(left_to_other_builds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
