/* Reading torch.save archives: real ones, and archives made wrong in every way. */
#include "formats/fixture.h"
#include "formats/weight_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static weight_file *open_fixture(const char *name)
{
    weight_file *file;
    onestep_error error = {0};
    if (weight_file_open(&file, fixture_path(name), &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(weight_file_opened_kind(file), WEIGHT_KIND_TORCH_ZIP);
    return file;
}

static onestep_status parse(const uint8_t *bytes, size_t size, onestep_error *error)
{
    weight_file *file;
    onestep_status status = weight_file_parse(&file, "test.pkl", bytes, size, error);
    assert_true((status == ONESTEP_OK) == (file != NULL));
    weight_file_close(&file);
    return status;
}

/* ---- what PyTorch writes --------------------------------------------------------------------- */

static void expect_strings(const pickle_value *list, size_t count, const char *const *strings)
{
    assert_int_equal(pickle_kind_of(list), PICKLE_LIST);
    assert_int_equal(pickle_count(list), count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(pickle_string(pickle_item(list, i)), strings[i]);
    }
}

static void test_paired(void **state)
{
    (void)state;
    weight_file *file = open_fixture("paired.pkl");
    const pickle_value *root = weight_file_root(file);
    assert_int_equal(pickle_kind_of(root), PICKLE_DICT);
    assert_int_equal(pickle_count(root), 6);
    assert_string_equal(pickle_string(pickle_key(root, 0)), "unet_lora_target_modules");
    expect_strings(pickle_lookup(root, "unet_lora_target_modules"), 6,
                   (const char *[]){"to_k", "to_q", "to_v", "to_out.0", "conv", "proj_in"});
    expect_strings(pickle_lookup(root, "vae_lora_target_modules"), 4,
                   (const char *[]){"conv1", "conv2", "to_k", "skip_conv_1"});
    assert_int_equal(pickle_kind_of(pickle_lookup(root, "rank_unet")), PICKLE_INTEGER);
    assert_int_equal(pickle_integer(pickle_lookup(root, "rank_unet")), 8);
    assert_int_equal(pickle_integer(pickle_lookup(root, "rank_vae")), 4);
    assert_null(pickle_lookup(root, "rank"));
    assert_null(pickle_lookup(pickle_lookup(root, "rank_vae"), "x"));
    const pickle_value *unet = pickle_lookup(root, "state_dict_unet");
    const pickle_value *conv = pickle_lookup(unet, "conv_in.weight");
    assert_int_equal(pickle_kind_of(conv), PICKLE_TENSOR);
    EXPECT_TENSOR(pickle_tensor(conv), ELEMENT_F32, 0, 4, 2, 3, 3);
    assert_int_equal(weight_file_count(file), 6);
    EXPECT_TENSOR(weight_file_find(file, "state_dict_unet.conv_in.bias"), ELEMENT_F32, 7, 4);
    EXPECT_TENSOR(weight_file_find(file, "state_dict_unet.mid.to_k.lora_A.default.weight"),
                  ELEMENT_F32, 1, 2, 4);
    EXPECT_TENSOR(weight_file_find(file, "state_dict_vae.encoder.conv.lora_A.vae_skip.weight"),
                  ELEMENT_F16, 3, 2, 4, 3, 3);
    EXPECT_TENSOR(weight_file_find(file, "state_dict_vae.decoder.skip_conv_1.weight"), ELEMENT_BF16,
                  4, 2, 4, 1, 1);
    assert_null(weight_file_find(file, "conv_in.weight"));
    assert_int_equal(weight_file_metadata_count(file), 0);
    onestep_error error;
    assert_int_equal(weight_file_verify(file, &error), ONESTEP_OK);
    weight_file_close(&file);
}

static void test_unpaired_shares_storages(void **state)
{
    (void)state;
    weight_file *file = open_fixture("unpaired.pkl");
    const pickle_value *root = weight_file_root(file);
    assert_true(pickle_is_ordered_dict(pickle_lookup(root, "sd_vae_enc")));
    assert_false(pickle_is_ordered_dict(pickle_lookup(root, "sd_encoder")));
    assert_int_equal(weight_file_count(file), 3 + 2 * 4);
    const named_tensor *first = weight_file_find(file, "sd_vae_enc.vae_b2a.conv.weight");
    const named_tensor *second = weight_file_find(file, "sd_vae_dec.vae_b2a.conv.weight");
    EXPECT_TENSOR(first, ELEMENT_F32, 20, 2, 1, 3, 3);
    EXPECT_TENSOR(second, ELEMENT_F32, 20, 2, 1, 3, 3);
    assert_ptr_equal(first->data, second->data);
    EXPECT_TENSOR(weight_file_find(file, "sd_vae_dec.vae.conv.bias"), ELEMENT_F32, 10, 2);
    weight_file_close(&file);
}

static void test_types(void **state)
{
    (void)state;
    weight_file *file = open_fixture("types.pkl");
    for (int type = 0; type < ELEMENT_TYPE_COUNT; type++) {
        EXPECT_TENSOR(weight_file_find(file, element_name((element_type)type)), (element_type)type,
                      0, 2, 3);
    }
    weight_file_close(&file);
}

/* The value that element i, j, k of the [2, 3, 4] tensor has. */
static float base_value(size_t i, size_t j, size_t k)
{
    return (float)(i * 12 + j * 4 + k) * 0.5f - 3;
}

static void test_views(void **state)
{
    (void)state;
    weight_file *file = open_fixture("views.pkl");
    EXPECT_TENSOR(weight_file_find(file, "whole"), ELEMENT_F32, 0, 2, 3, 4);
    EXPECT_TENSOR(weight_file_find(file, "row"), ELEMENT_F32, 20, 4);
    expect_tensor(weight_file_find(file, "scalar"), ELEMENT_F32, 0, NULL, 9);
    EXPECT_TENSOR(weight_file_find(file, "empty"), ELEMENT_F32, 0, 0, 3);
    EXPECT_TENSOR(weight_file_find(file, "ones"), ELEMENT_F32, 0, 1, 5, 1);
    EXPECT_TENSOR(weight_file_find(file, "channels_last"), ELEMENT_F32, 0, 2, 3, 2, 2);
    const named_tensor *tensor = weight_file_find(file, "transposed");
    const float *data = tensor->data; /* copies are aligned */
    assert_int_equal(tensor->shape[0], 4);
    assert_int_equal(tensor->shape[2], 2);
    for (size_t i = 0; i < 24; i++) {
        assert_true(data[i] == base_value(i % 2, i / 2 % 3, i / 6));
    }
    tensor = weight_file_find(file, "slice");
    data = tensor->data;
    assert_int_equal(tensor->bytes, 8 * 4);
    for (size_t i = 0; i < 8; i++) {
        assert_true(data[i] == base_value(i / 4, 1 + i / 2 % 2, i % 2 * 2));
    }
    tensor = weight_file_find(file, "expanded");
    data = tensor->data;
    assert_int_equal(tensor->bytes, 12 * 4);
    for (size_t i = 0; i < 12; i++) {
        assert_true(data[i] == (float)(i % 3) * 0.5f - 3);
    }
    weight_file_close(&file);
}

static void expect_integers(const pickle_value *list, size_t count, const int64_t *integers)
{
    assert_int_equal(pickle_count(list), count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(pickle_kind_of(pickle_item(list, i)), PICKLE_INTEGER);
        assert_true(pickle_integer(pickle_item(list, i)) == integers[i]);
    }
}

static void test_containers(void **state)
{
    (void)state;
    weight_file *file = open_fixture("containers.pkl");
    const pickle_value *root = weight_file_root(file);
    assert_int_equal(weight_file_count(file), 0);
    assert_int_equal(pickle_kind_of(pickle_lookup(root, "none")), PICKLE_NONE);
    assert_non_null(pickle_lookup(root, "none"));
    assert_int_equal(pickle_kind_of(NULL), PICKLE_NONE);
    assert_true(pickle_boolean(pickle_lookup(root, "true")));
    assert_false(pickle_boolean(pickle_lookup(root, "false")));
    static const int64_t integers[] = {
        0,    255,       256,        65535,       65536,         INT32_MAX, -1,
        -129, INT32_MIN, 2147483648, -2147483649, 1099511627776, INT64_MAX, INT64_MIN};
    expect_integers(pickle_lookup(root, "integers"), 14, integers);
    const pickle_value *floats = pickle_lookup(root, "floats");
    assert_int_equal(pickle_kind_of(pickle_item(floats, 0)), PICKLE_FLOAT);
    assert_true(pickle_float(pickle_item(floats, 1)) == -1.5);
    assert_true(pickle_float(pickle_item(floats, 2)) == 1e300);
    assert_true(isinf(pickle_float(pickle_item(floats, 3))));
    assert_true(isnan(pickle_float(pickle_item(floats, 4))));
    expect_strings(pickle_lookup(root, "strings"), 3,
                   (const char *[]){"", "text", "\xC3\xA4\xE6\xBC\xA2\xF0\x9F\x98\x80"});
    const pickle_value *tuples = pickle_lookup(root, "tuples");
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(pickle_kind_of(pickle_item(tuples, i)), PICKLE_TUPLE);
        expect_integers(pickle_item(tuples, i), i, (const int64_t[]){1, 2, 3, 4});
    }
    assert_int_equal(pickle_kind_of(pickle_lookup(root, "set")), PICKLE_SET);
    assert_string_equal(pickle_string(pickle_item(pickle_lookup(root, "set"), 0)), "only");
    assert_int_equal(pickle_kind_of(pickle_lookup(root, "empty_set")), PICKLE_SET);
    assert_int_equal(pickle_count(pickle_lookup(root, "empty_set")), 0);
    assert_int_equal(pickle_count(pickle_lookup(root, "empty_list")), 0);
    assert_int_equal(pickle_kind_of(pickle_lookup(root, "empty_dict")), PICKLE_DICT);
    const pickle_value *ordered = pickle_lookup(root, "ordered");
    assert_true(pickle_is_ordered_dict(ordered));
    assert_string_equal(pickle_string(pickle_key(ordered, 0)), "b");
    assert_int_equal(pickle_integer(pickle_item(ordered, 1)), 2);
    const pickle_value *numbers = pickle_lookup(root, "numbers");
    assert_int_equal(pickle_integer(pickle_key(numbers, 1)), 2);
    assert_string_equal(pickle_string(pickle_item(numbers, 1)), "two");
    assert_null(pickle_lookup(numbers, "1"));
    const pickle_value *shared = pickle_lookup(root, "shared");
    assert_ptr_equal(pickle_item(shared, 0), pickle_item(shared, 1));
    const pickle_value *many = pickle_lookup(root, "many");
    assert_int_equal(pickle_count(many), 1100);
    assert_int_equal(pickle_integer(pickle_lookup(many, "key1099")), 1099);
    assert_null(pickle_lookup(many, "key1100"));
    weight_file_close(&file);
}

static void test_other_archives(void **state)
{
    (void)state;
    static const char *const names[] = {"tensor.pkl", "repacked.pkl"};
    for (size_t i = 0; i < 2; i++) {
        weight_file *file = open_fixture(names[i]);
        EXPECT_TENSOR(pickle_tensor(weight_file_root(file)), ELEMENT_F32, 0, 2, 2);
        assert_int_equal(weight_file_count(file), 0);
        weight_file_close(&file);
    }
    weight_file *file = open_fixture("no_checksums.pkl");
    onestep_error error;
    EXPECT_TENSOR(weight_file_find(file, "w"), ELEMENT_F32, 0, 2, 2);
    assert_int_equal(weight_file_verify(file, &error), ONESTEP_OK);
    weight_file_close(&file);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *message;
        onestep_status status;
    } cases[] = {
        {"legacy.pkl", "before PyTorch 1.6", ONESTEP_ERROR_UNSUPPORTED},
        {"protocol3.pkl", "protocol 3", ONESTEP_ERROR_UNSUPPORTED},
        {"parameter.pkl", "global torch._utils._rebuild_parameter is not allowed (offset 13)",
         ONESTEP_ERROR_UNSUPPORTED},
        {"module.pkl", "global torch.nn.modules.linear.Linear is not allowed",
         ONESTEP_ERROR_UNSUPPORTED},
        {"complex.pkl", "global torch.ComplexFloatStorage is not allowed",
         ONESTEP_ERROR_UNSUPPORTED},
        {"size.pkl", "global torch.Size is not allowed", ONESTEP_ERROR_UNSUPPORTED},
        {"sparse.pkl", "global torch._utils._rebuild_sparse_tensor is not allowed",
         ONESTEP_ERROR_UNSUPPORTED},
        {"bytes.pkl", "global _codecs.encode is not allowed", ONESTEP_ERROR_UNSUPPORTED},
        {"evil.pkl", "global posix.system is not allowed (offset 24)", ONESTEP_ERROR_UNSUPPORTED},
        {"huge_integer.pkl", "integer of 9 bytes", ONESTEP_ERROR_UNSUPPORTED},
        {"deflated.pkl", "entry tensor/data.pkl is compressed (deflated, method 8)",
         ONESTEP_ERROR_UNSUPPORTED},
        {"big_endian.pkl", "byte order of the archive is \"big\"", ONESTEP_ERROR_UNSUPPORTED},
        {"no_storage.pkl", "storage 0 is not in the archive", ONESTEP_ERROR_FORMAT},
        {"short_storage.pkl", "storage 0 has 3 bytes, not 4 elements of f32", ONESTEP_ERROR_FORMAT},
        {"two_pickles.pkl", "more than one data.pkl", ONESTEP_ERROR_FORMAT},
        {"no_pickle.pkl", "no NAME/data.pkl", ONESTEP_ERROR_FORMAT},
        {"script.pkl", "TorchScript", ONESTEP_ERROR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        weight_file *file;
        onestep_error error;
        assert_int_equal(weight_file_open(&file, fixture_path(cases[i].name), &error),
                         cases[i].status);
        assert_null(file);
        expect_message(&error, cases[i].name, cases[i].message, NULL);
    }
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void test_cut_off_anywhere(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = fixture_bytes("paired.pkl", &size);
    for (size_t length = 0; length < size; length++) {
        uint8_t *part = exact_copy(bytes, length);
        onestep_error error;
        assert_true(parse(part, length, &error) != ONESTEP_OK);
        expect_message(&error, "test.pkl: ", NULL);
        free(part);
    }
    /* Cut off in front, the offsets are wrong. */
    for (size_t begin = 1; begin < size; begin++) {
        uint8_t *part = exact_copy(bytes + begin, size - begin);
        onestep_error error;
        assert_true(parse(part, size - begin, &error) != ONESTEP_OK);
        free(part);
    }
    free(bytes);
}

/* Every byte changed in several ways, in a file without checksums so that it is looked at. */
static void test_changed_bytes(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = fixture_bytes("no_checksums.pkl", &size);
    static const uint8_t changes[] = {0x01, 0x02, 0x04, 0x10, 0x80, 0xFF};
    for (size_t i = 0; i < size; i++) {
        for (size_t c = 0; c < sizeof(changes); c++) {
            bytes[i] ^= changes[c];
            onestep_error error = {0};
            if (parse(bytes, size, &error) != ONESTEP_OK) {
                expect_message(&error, "test.pkl: ", NULL);
            }
            bytes[i] ^= changes[c];
        }
    }
    free(bytes);
}

static uint8_t *find_bytes(uint8_t *bytes, size_t size, const char *text, size_t length)
{
    uint8_t *found = memmem(bytes, size, text, length);
    assert_non_null(found);
    return found;
}

static void test_checksums(void **state)
{
    (void)state;
    size_t size;
    onestep_error error;
    uint8_t *bytes = fixture_bytes("paired.pkl", &size);
    uint8_t *rank = find_bytes(bytes, size, "rank_unet", 9);
    rank[0] = 'R';
    assert_int_equal(parse(bytes, size, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "data.pkl does not have its checksum", NULL);
    rank[0] = 'r';
    /* The storages are compared by weight_file_verify. */
    weight_file *file;
    assert_int_equal(weight_file_parse(&file, "test.pkl", bytes, size, &error), ONESTEP_OK);
    const named_tensor *tensor = weight_file_find(file, "state_dict_unet.conv_in.weight");
    size_t offset = (size_t)((const uint8_t *)tensor->data - bytes);
    assert_int_equal(offset % 64, 0);
    bytes[offset] ^= 1;
    assert_int_equal(weight_file_verify(file, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "test.pkl: ", "paired/data/0", "checksum", NULL);
    weight_file_close(&file);
    free(bytes);
}

/* ---- made-up zip archives -------------------------------------------------------------------- */

typedef struct entry {
    const char *name, *data;
    size_t size;
    /* Lies in the directory or the local header; SIZE_MAX and NULL: the truth. */
    const char *local_name;
    size_t claimed_size, claimed_packed_size, claimed_offset;
    unsigned method, flags;
    size_t claimed_disk;
    const char *extra; /* extra field of the directory entry */
    size_t extra_size;
} entry;

#define TRUTH .claimed_size = SIZE_MAX, .claimed_packed_size = SIZE_MAX, .claimed_offset = SIZE_MAX

static void put(text_buffer *out, uint64_t number, size_t count)
{
    text_buffer_append(out, &number, count);
}

static size_t claim(size_t claimed, size_t truth)
{
    return claimed == SIZE_MAX ? truth : claimed;
}

/* A whole archive; `count_claimed` SIZE_MAX: the truth. */
static void make_zip(text_buffer *out, const entry *entries, size_t count, size_t count_claimed)
{
    size_t offsets[8];
    for (size_t i = 0; i < count; i++) {
        const char *name = entries[i].local_name != NULL ? entries[i].local_name : entries[i].name;
        offsets[i] = out->length;
        put(out, 0x04034b50, 4);
        put(out, 0, 8);
        put(out, 0, 8);
        put(out, 0, 6); /* everything else follows from the directory */
        put(out, strlen(name), 2);
        put(out, 0, 2);
        text_buffer_append(out, name, strlen(name));
        text_buffer_append(out, entries[i].data, entries[i].size);
    }
    size_t begin = out->length;
    for (size_t i = 0; i < count; i++) {
        put(out, 0x02014b50, 4);
        put(out, 0, 4);
        put(out, entries[i].flags, 2);
        put(out, entries[i].method, 2);
        put(out, 0, 4);
        put(out, 0, 4); /* no checksum */
        put(out, claim(entries[i].claimed_packed_size, entries[i].size), 4);
        put(out, claim(entries[i].claimed_size, entries[i].size), 4);
        put(out, strlen(entries[i].name), 2);
        put(out, entries[i].extra_size, 2);
        put(out, 0, 2);
        put(out, entries[i].claimed_disk, 2);
        put(out, 0, 2);
        put(out, 0, 4);
        put(out, claim(entries[i].claimed_offset, offsets[i]), 4);
        text_buffer_append(out, entries[i].name, strlen(entries[i].name));
        text_buffer_append(out, entries[i].extra, entries[i].extra_size);
    }
    size_t end = out->length;
    put(out, 0x06054b50, 4);
    put(out, 0, 4);
    put(out, claim(count_claimed, count), 2);
    put(out, claim(count_claimed, count), 2);
    put(out, end - begin, 4);
    put(out, begin, 4);
    put(out, 0, 2);
    assert_false(out->failed);
}

static onestep_status parse_zip(const entry *entries, size_t count, size_t count_claimed,
                                onestep_error *error)
{
    text_buffer out = {0};
    make_zip(&out, entries, count, count_claimed);
    uint8_t *bytes = exact_copy(out.data, out.length);
    size_t size = out.length;
    text_buffer_free(&out);
    onestep_status status = parse(bytes, size, error);
    free(bytes);
    return status;
}

/* torch.save(8) */
#define PICKLE "\x80\x02K\x08."
#define GOOD                                                                                       \
    {                                                                                              \
        .name = "x/data.pkl", .data = PICKLE, .size = 5, TRUTH                                     \
    }

static void test_zip_entries(void **state)
{
    (void)state;
    onestep_error error = {0};
    entry good[] = {GOOD, {.name = "x/", .data = "", .size = 0, TRUTH}};
    assert_int_equal(parse_zip(good, 2, SIZE_MAX, &error), ONESTEP_OK);
    static const struct {
        entry second;
        const char *message;
    } cases[] = {
        {{.name = "x/data.pkl", .data = "", .size = 0, TRUTH}, "x/data.pkl is there twice"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .method = 8}, "deflated"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .method = 93}, "method 93"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .flags = 1}, "x/b is encrypted"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .flags = 0x2000}, "encrypted"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .claimed_disk = 1}, "x/b is stored, but"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .local_name = "x/c"}, "another name"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .local_name = "x/bb"}, "another name"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = 2,
          .claimed_packed_size = 2,
          .claimed_offset = SIZE_MAX},
         "entry x/b (2 bytes at"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = 0xFFFFFFFE,
          .claimed_packed_size = 0xFFFFFFFE,
          .claimed_offset = SIZE_MAX},
         "reaches beyond"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = 2,
          .claimed_packed_size = SIZE_MAX,
          .claimed_offset = SIZE_MAX},
         "stored, but of 2 bytes as 1"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = SIZE_MAX,
          .claimed_packed_size = SIZE_MAX,
          .claimed_offset = 1},
         "no local header at byte 1"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = SIZE_MAX,
          .claimed_packed_size = SIZE_MAX,
          .claimed_offset = 0xFFFFFFF0},
         "no local header"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = 0xFFFFFFFF,
          .claimed_packed_size = SIZE_MAX,
          .claimed_offset = SIZE_MAX},
         "stored, but of 4294967295 bytes"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = 0xFFFFFFFF,
          .claimed_packed_size = 0xFFFFFFFF,
          .claimed_offset = SIZE_MAX,
          .extra = "\x01\x00\x08\x00\1\0\0\0\0\0\0\0",
          .extra_size = 12},
         "extra field"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          .claimed_size = 0xFFFFFFFF,
          .claimed_packed_size = 0xFFFFFFFF,
          .claimed_offset = SIZE_MAX,
          .extra = "\x01\x00\x10\x00\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"
                   "\xFF",
          .extra_size = 20},
         "reaches beyond"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          TRUTH,
          .claimed_disk = 0xFFFF,
          .extra = "\x01\x00\x03\x00\0\0\0",
          .extra_size = 7},
         "extra field"},
        {{.name = "x/b",
          .data = "b",
          .size = 1,
          TRUTH,
          .claimed_disk = 0xFFFF,
          .extra = "\x01\x00\x04\x00\1\0\0\0",
          .extra_size = 8},
         "x/b is stored, but"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .extra = "\2\0\5\0abc", .extra_size = 7},
         "extra field"},
        {{.name = "x/b", .data = "b", .size = 1, TRUTH, .extra = "\2\0", .extra_size = 2},
         "extra field"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        entry entries[] = {GOOD, cases[i].second};
        assert_true(parse_zip(entries, 2, SIZE_MAX, &error) != ONESTEP_OK);
        expect_message(&error, "test.pkl: zip: ", cases[i].message, NULL);
    }
}

static void test_zip64_extra(void **state)
{
    (void)state;
    onestep_error error = {0};
    entry entries[] = {GOOD,
                       {.name = "x/b",
                        .data = "b",
                        .size = 1,
                        .claimed_size = 0xFFFFFFFF,
                        .claimed_packed_size = 0xFFFFFFFF,
                        .claimed_offset = SIZE_MAX,
                        /* another field first */
                        .extra = "\2\0\1\0x\x01\x00\x10\x00\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0",
                        .extra_size = 25}};
    if (parse_zip(entries, 2, SIZE_MAX, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
}

static void test_zip_overlaps(void **state)
{
    (void)state;
    onestep_error error;
    /* x/b lies wholly in the data of x/a. */
    static const char inner[] = "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\3\0\0\0x/bB";
    entry entries[] = {GOOD,
                       {.name = "x/a", .data = inner, .size = sizeof(inner) - 1, TRUTH},
                       {.name = "x/b",
                        .data = "b",
                        .size = 1,
                        .claimed_size = SIZE_MAX,
                        .claimed_packed_size = SIZE_MAX,
                        .claimed_offset = 30 + 10 + 5 + 30 + 3}};
    assert_int_equal(parse_zip(entries, 3, SIZE_MAX, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "entry x/b begins inside the entry before it", NULL);
    /* Two names for the same data, as zip bombs do. */
    entry twice[] = {GOOD,
                     {.name = "x/a", .data = "a", .size = 1, TRUTH},
                     {.name = "x/a",
                      .data = "a",
                      .size = 1,
                      .claimed_size = SIZE_MAX,
                      .claimed_packed_size = SIZE_MAX,
                      .claimed_offset = 30 + 10 + 5}};
    assert_int_equal(parse_zip(twice, 3, SIZE_MAX, &error), ONESTEP_ERROR_FORMAT);
}

static void test_zip_directory(void **state)
{
    (void)state;
    onestep_error error;
    entry entries[] = {GOOD, {.name = "x/b", .data = "b", .size = 1, TRUTH}};
    assert_int_equal(parse_zip(entries, 2, 1, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "after the last directory entry", NULL);
    assert_int_equal(parse_zip(entries, 2, 3, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "3 entries in a directory", NULL);
    assert_int_equal(parse_zip(entries, 2, 65535, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "65535 entries in a directory of", NULL);
    entry nothing[] = {{.name = "x/data.pk", .data = PICKLE, .size = 5, TRUTH},
                       {.name = "data.pkl", .data = PICKLE, .size = 5, TRUTH},
                       {.name = "x/y/data.pkl", .data = PICKLE, .size = 5, TRUTH},
                       {.name = "x/mydata.pkl", .data = PICKLE, .size = 5, TRUTH}};
    assert_int_equal(parse_zip(nothing, 4, SIZE_MAX, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "no NAME/data.pkl", NULL);
    /* A comment behind the end record is fine, bytes that are none are not. */
    text_buffer out = {0};
    make_zip(&out, entries, 1, SIZE_MAX);
    out.data[out.length - 2] = 3;
    text_buffer_append(&out, "abc", 3);
    assert_int_equal(parse((uint8_t *)out.data, out.length, &error), ONESTEP_OK);
    text_buffer_append(&out, "d", 1);
    assert_int_equal(parse((uint8_t *)out.data, out.length, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "no end record", NULL);
    text_buffer_free(&out);
}

/* Archives that say they are one part of several. */
static void test_zip_parts(void **state)
{
    (void)state;
    onestep_error error;
    entry entries[] = {GOOD};
    text_buffer out = {0};
    make_zip(&out, entries, 1, SIZE_MAX);
    static const size_t places[] = {4, 6, 8};
    for (size_t i = 0; i < 3; i++) {
        out.data[out.length - 22 + places[i]] ^= 2;
        assert_int_equal(parse((uint8_t *)out.data, out.length, &error), ONESTEP_ERROR_UNSUPPORTED);
        expect_message(&error, "several parts", NULL);
        out.data[out.length - 22 + places[i]] ^= 2;
    }
    text_buffer_free(&out);
    /* The same in the zip64 records that PyTorch writes. */
    size_t size;
    uint8_t *bytes = fixture_bytes("paired.pkl", &size);
    static const size_t places64[] = {22 + 20 - 4, 22 + 20 + 56 - 16, 22 + 20 + 56 - 20,
                                      22 + 20 + 56 - 24};
    for (size_t i = 0; i < 4; i++) {
        bytes[size - places64[i]] ^= 2;
        assert_int_equal(parse(bytes, size, &error), ONESTEP_ERROR_UNSUPPORTED);
        expect_message(&error, "several parts", NULL);
        bytes[size - places64[i]] ^= 2;
    }
    bytes[size - 22 - 20 - 56] ^= 1;
    assert_int_equal(parse(bytes, size, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "zip64 end record is damaged", NULL);
    free(bytes);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Puts the program into an archive with an empty storage "0". */
static onestep_status parse_program(const text_buffer *program, onestep_error *error)
{
    assert_false(program->failed);
    entry entries[] = {
        {.name = "x/data.pkl", .data = program->data, .size = program->length, TRUTH},
        {.name = "x/data/0", .data = "", .size = 0, TRUTH}};
    return parse_zip(entries, 2, SIZE_MAX, error);
}

static void put_text(text_buffer *out, const char *text, size_t length)
{
    text_buffer_append(out, "X", 1);
    text_buffer_append(out, &(uint32_t){(uint32_t)length}, 4);
    text_buffer_append(out, text, length);
}

static void put_tensor(text_buffer *out, const char *storage)
{
    text_buffer_print(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(out, "storage", 7);
    text_buffer_print(out, "ctorch\nFloatStorage\n");
    put_text(out, storage, strlen(storage));
    put_text(out, "cpu", 3);
    static const char rest[] = "K\0tQK\0K\0\x85K\1\x85\x89NtR";
    text_buffer_append(out, rest, sizeof(rest) - 1);
}

static void test_long_storage(void **state)
{
    (void)state;
    onestep_error error;
    text_buffer out = {0};
    text_buffer_append(&out, "\x80\2", 2);
    put_tensor(&out, "0");
    text_buffer_append(&out, ".", 1);
    entry entries[] = {{.name = "x/data.pkl", .data = out.data, .size = out.length, TRUTH},
                       {.name = "x/data/0", .data = "1234", .size = 4, TRUTH}};
    assert_int_equal(parse_zip(entries, 2, SIZE_MAX, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "storage 0 has 4 bytes, not 0 elements of f32", NULL);
    text_buffer_free(&out);
}

static void test_same_name_twice(void **state)
{
    (void)state;
    onestep_error error;
    text_buffer out = {0};
    /* {"a": {"b": tensor}, "a.b": tensor} */
    text_buffer_append(&out, "\x80\2}(", 4);
    put_text(&out, "a", 1);
    text_buffer_append(&out, "}", 1);
    put_text(&out, "b", 1);
    put_tensor(&out, "0");
    text_buffer_append(&out, "s", 1);
    put_text(&out, "a.b", 3);
    put_tensor(&out, "0");
    text_buffer_append(&out, "u.", 2);
    assert_int_equal(parse_program(&out, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "tensor a.b is there twice", NULL);
    text_buffer_free(&out);
}

static void test_long_names(void **state)
{
    (void)state;
    static char name[2000];
    memset(name, 'n', sizeof(name));
    onestep_error error = {0};
    for (int keys = 2; keys <= 3; keys++) {
        text_buffer out = {0};
        text_buffer_append(&out, "\x80\2", 2);
        for (int i = 0; i < keys; i++) {
            text_buffer_append(&out, "}", 1);
            put_text(&out, name, sizeof(name));
        }
        put_tensor(&out, "0");
        text_buffer_append(&out, "sss", (size_t)keys);
        text_buffer_append(&out, ".", 1);
        assert_int_equal(parse_program(&out, &error),
                         keys == 2 ? ONESTEP_OK : ONESTEP_ERROR_FORMAT);
        text_buffer_free(&out);
    }
    expect_message(&error, "more than 4096 bytes", NULL);
    text_buffer out = {0};
    text_buffer_append(&out, "\x80\2", 2);
    name[201] = '\0';
    put_tensor(&out, name);
    text_buffer_append(&out, ".", 1);
    assert_int_equal(parse_program(&out, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "the key is too long", NULL);
    text_buffer_free(&out);
}

/* 600 names for a shared dict of 600 tensors. */
static void test_too_many_names(void **state)
{
    (void)state;
    onestep_error error;
    text_buffer out = {0};
    text_buffer_append(&out, "\x80\2}(", 4);
    for (int level = 0; level < 2; level++) {
        put_text(&out, level == 0 ? "inner" : "outer", 5);
        text_buffer_append(&out, "}(", 2);
        for (int i = 0; i < 600; i++) {
            char name[] = {(char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10)};
            put_text(&out, name, 3);
            if (level == 0 && i == 0) {
                put_tensor(&out, "0");
                text_buffer_append(&out, "q\0", 2); /* memo 0: the tensor */
            } else {
                text_buffer_append(&out, level == 0 ? "h\0" : "h\1", 2);
            }
        }
        text_buffer_append(&out, "uq\1", level == 0 ? 3 : 1); /* memo 1: the inner dict */
    }
    text_buffer_append(&out, "u.", 2);
    assert_int_equal(parse_program(&out, &error), ONESTEP_ERROR_FORMAT);
    expect_message(&error, "more than 262144 tensors", NULL);
    text_buffer_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paired),          cmocka_unit_test(test_unpaired_shares_storages),
        cmocka_unit_test(test_types),           cmocka_unit_test(test_views),
        cmocka_unit_test(test_containers),      cmocka_unit_test(test_other_archives),
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_cut_off_anywhere),
        cmocka_unit_test(test_changed_bytes),   cmocka_unit_test(test_checksums),
        cmocka_unit_test(test_zip_entries),     cmocka_unit_test(test_zip64_extra),
        cmocka_unit_test(test_zip_overlaps),    cmocka_unit_test(test_zip_directory),
        cmocka_unit_test(test_zip_parts),       cmocka_unit_test(test_long_storage),
        cmocka_unit_test(test_same_name_twice), cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_too_many_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
