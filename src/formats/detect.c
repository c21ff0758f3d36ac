/* What a file of weights is, by its first bytes. */
#include "formats/weight_file.h"

#include <string.h>

#define CONVERT_HINT                                                                               \
    "load it with a current PyTorch and torch.save it again, or save its tensors as safetensors"

static bool starts_with(const uint8_t *bytes, size_t size, const char *magic, size_t length)
{
    return size >= length && memcmp(bytes, magic, length) == 0;
}

#define STARTS_WITH(magic) starts_with(bytes, size, magic, sizeof(magic) - 1)

/* The first byte after white space, or 0. */
static char first_character(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (strchr(" \t\r\n", bytes[i]) == NULL || bytes[i] == 0) {
            return (char)bytes[i];
        }
    }
    return 0;
}

static const char *unknown_hint(const uint8_t *bytes, size_t size)
{
    static const struct {
        const char *magic;
        size_t length;
        const char *hint;
    } kinds[] = {
        {"version https://git-lfs", 23,
         "a Git LFS pointer, not the weights: run `git lfs pull`, or download the file itself"},
        {"GGUF", 4, "a GGUF file: get the safetensors files of the model instead"},
        {"\x89HDF", 4, "an HDF5 file (Keras?): get the safetensors files of the model instead"},
        {"\x93NUMPY", 6, "a .npy array, not a checkpoint"},
        {"\x89PNG", 4, "a PNG picture, not a checkpoint"},
        {"\xFF\xD8\xFF", 3, "a JPEG picture, not a checkpoint"},
        {"\x1F\x8B", 2, "a gzip file: unpack it first"},
        {"7z\xBC\xAF", 4, "a 7z archive: unpack it first"},
        {"\xFD\x37zXZ", 5, "an xz file: unpack it first"},
        {"\x28\xB5\x2F\xFD", 4, "a zstd file: unpack it first"},
        {"<", 1, "a web page: was the download a redirect or an error page?"},
        {"PK\x05\x06", 4, "an empty zip archive"},
    };
    if (size == 0) {
        return "an empty file: was the download cut off?";
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (starts_with(bytes, size, kinds[i].magic, kinds[i].length)) {
            return kinds[i].hint;
        }
    }
    if (size > 262 && memcmp(bytes + 257, "ustar", 5) == 0) {
        return "a tar archive (very old torch.save?): " CONVERT_HINT;
    }
    return "its first bytes are of no known kind: is it damaged or cut off?";
}

weight_kind weight_bytes_kind(const uint8_t *bytes, size_t size, const char **hint)
{
    const char *ignored;
    hint = hint == NULL ? &ignored : hint;
    if (STARTS_WITH("PK\x03\x04")) {
        *hint = "a zip archive (torch.save)";
        return WEIGHT_KIND_TORCH_ZIP;
    }
    /* The eight bytes of length before the header: no header comes near 2^32 bytes. */
    if (size >= 9 && bytes[8] == '{' && memcmp(bytes + 4, "\0\0\0\0", 4) == 0) {
        *hint = "safetensors";
        return WEIGHT_KIND_SAFETENSORS;
    }
    if (size >= 2 && bytes[0] == 0x80 && bytes[1] <= 5) {
        *hint = "a pickle without an archive (torch.save before PyTorch 1.6, or another "
                "program): " CONVERT_HINT;
        return WEIGHT_KIND_TORCH_LEGACY;
    }
    if (first_character(bytes, size_minimum(size, 4096)) == '{') {
        *hint = "JSON: an index of safetensors shards";
        return WEIGHT_KIND_SAFETENSORS_INDEX;
    }
    *hint = unknown_hint(bytes, size);
    return WEIGHT_KIND_UNKNOWN;
}

onestep_status weight_file_kind(const char *path, weight_kind *kind, const char **hint,
                                onestep_error *error)
{
    mapped_file map;
    onestep_status status = mapped_file_open(&map, path, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    *kind = weight_bytes_kind(map.data, map.size, hint);
    mapped_file_close(&map);
    return ONESTEP_OK;
}
