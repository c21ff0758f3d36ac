/* Reading of a tokenizer folder. */
#include "formats/formats.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t MERGES_FILE_LIMIT = (size_t)16 << 20;
static const size_t MERGES_LIMIT = (size_t)1 << 20;
static const size_t ADDED_BYTES_LIMIT = (size_t)1 << 20;
static const int64_t LENGTH_LIMIT = 4096;
static const int64_t CLIP_LENGTH = 77;

/* Everything that is needed while reading. */
typedef struct reader {
    tokenizer *made;
    const char *folder;
    name_map *vocabulary; /* token -> id */
    name_map *added;      /* added token -> id */
    size_t added_bytes;
    config *settings; /* tokenizer_config.json or NULL */
    config *special;  /* special_tokens_map.json or NULL */
    config *listed;   /* its added_tokens_decoder or NULL */
} reader;

/* ---- files -------------------------------------------------------------------------------- */

/* Opens a config of the folder; NULL when it is not there and need not be. */
static onestep_status open_config(const reader *read, const char *name, bool required,
                                  config **opened, onestep_error *error)
{
    *opened = NULL;
    char *path = path_join(read->folder, name, error);
    if (path == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = ONESTEP_OK;
    if (required || path_exists(path)) {
        status = config_open(opened, path, error);
    }
    memory_free(path);
    return status;
}

static onestep_status read_vocabulary(reader *read, onestep_error *error)
{
    config *file;
    onestep_status status = open_config(read, "vocab.json", true, &file, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    status = name_map_create(&read->vocabulary, error);
    for (size_t i = 0; i < config_count(file) && status == ONESTEP_OK; ++i) {
        const char *token = config_key(file, i);
        int64_t id = 0;
        status = config_require(file, token, error);
        if (status == ONESTEP_OK) {
            status = config_integer(file, token, 0, 0, INT32_MAX - 1, &id, error);
        }
        if (status == ONESTEP_OK) {
            status = name_map_put(read->vocabulary, token, strlen(token), (uint32_t)id, error);
        }
        if (id > read->made->largest_id) {
            read->made->largest_id = (int32_t)id;
        }
    }
    if (status == ONESTEP_OK && name_map_count(read->vocabulary) == 0) {
        status = error_set(error, ONESTEP_ERROR_FORMAT, "%s: holds no token", config_path(file));
    }
    config_close(&file);
    return status;
}

static bool find_token(const reader *read, const char *token, size_t length, int32_t *id)
{
    uint32_t value;
    if (!name_map_get(read->vocabulary, token, length, &value)) {
        return false;
    }
    *id = (int32_t)value;
    return true;
}

/* ---- the byte table ----------------------------------------------------------------------- */

/* GPT-2's table of bytes as printable characters: those that are printable in Latin-1 stand for
 * themselves, the others follow each other from U+0100. */
static void read_byte_ids(reader *read)
{
    tokenizer *made = read->made;
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; ++byte) {
        bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        uint32_t point = printable ? byte : next++;
        char symbol[8];
        size_t length = 0;
        if (point < 0x80) {
            symbol[length++] = (char)point;
        } else {
            symbol[length++] = (char)(0xc0 | point >> 6);
            symbol[length++] = (char)(0x80 | (point & 0x3f));
        }
        if (!find_token(read, symbol, length, &made->byte_ids[byte])) {
            made->byte_ids[byte] = -1;
        }
        memcpy(symbol + length, "</w>", 4);
        if (!find_token(read, symbol, length + 4, &made->final_ids[byte])) {
            made->final_ids[byte] = -1;
        }
    }
}

/* Words may hold any byte of UTF-8, so each needs a token or one that stands for it. */
static onestep_status check_byte_ids(const reader *read, onestep_error *error)
{
    if (read->made->unknown >= 0) {
        return ONESTEP_OK;
    }
    for (unsigned byte = 0; byte < 256; ++byte) {
        if (read->made->byte_ids[byte] < 0 || read->made->final_ids[byte] < 0) {
            return error_set(error, ONESTEP_ERROR_FORMAT,
                             "%s/vocab.json: has neither a token for byte 0x%02x nor the unk_token",
                             read->folder, byte);
        }
    }
    return ONESTEP_OK;
}

/* ---- merges ------------------------------------------------------------------------------- */

/* One line "LEFT RIGHT" of merges.txt. */
static onestep_status read_merge(reader *read, const char *path, size_t line_number,
                                 const char *line, size_t length, onestep_error *error)
{
    const char *blank = memchr(line, ' ', length);
    size_t left_length = blank == NULL ? 0 : (size_t)(blank - line);
    size_t right_length = blank == NULL ? 0 : length - left_length - 1;
    if (left_length == 0 || right_length == 0 || memchr(blank + 1, ' ', right_length) != NULL) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "%s: line %zu: expected two tokens with a blank between", path,
                         line_number);
    }
    int32_t left, right, product;
    /* The product is written without the blank. */
    enum { LONGEST = 1024 };
    char joined[LONGEST];
    if (length > LONGEST) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "%s: line %zu: longer than %d bytes", path,
                         line_number, LONGEST);
    }
    memcpy(joined, line, left_length);
    memcpy(joined + left_length, blank + 1, right_length);
    if (!find_token(read, line, left_length, &left) ||
        !find_token(read, blank + 1, right_length, &right) ||
        !find_token(read, joined, left_length + right_length, &product)) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: line %zu: \"%.*s\": a token or their union is not in vocab.json",
                         path, line_number, (int)size_minimum(length, 100), line);
    }
    return merge_table_add(&read->made->merges, left, right, product, error);
}

static onestep_status read_merges(reader *read, onestep_error *error)
{
    uint8_t *bytes = NULL;
    size_t size;
    char *path = path_join(read->folder, "merges.txt", error);
    if (path == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = file_read(path, MERGES_FILE_LIMIT, &bytes, &size, error);
    const char *text = (const char *)bytes;
    size_t line_number = 0;
    for (size_t start = 0; status == ONESTEP_OK && start < size;) {
        const char *end = memchr(text + start, '\n', size - start);
        size_t length = end == NULL ? size - start : (size_t)(end - text) - start;
        const char *line = text + start;
        start += length + 1;
        line_number += 1;
        length -= length > 0 && line[length - 1] == '\r';
        bool heading = line_number == 1 && length >= 8 && memcmp(line, "#version", 8) == 0;
        if (length == 0 || heading) {
            continue;
        }
        if (read->made->merges.count == MERGES_LIMIT) {
            status = error_set(error, ONESTEP_ERROR_FORMAT, "%s: more than %zu merges", path,
                               MERGES_LIMIT);
        } else {
            status = read_merge(read, path, line_number, line, length, error);
        }
    }
    memory_free(bytes);
    memory_free(path);
    return status;
}

/* ---- added tokens ------------------------------------------------------------------------- */

/* A token as a config describes it. */
typedef struct token_setting {
    const char *content; /* lives as long as the config it comes from; NULL: not set */
    bool normalized;     /* looked for in the normal form instead of the raw text */
} token_setting;

static onestep_status read_token_object(const config *object, token_setting *setting,
                                        onestep_error *error)
{
    static const char *const UNSUPPORTED[] = {"lstrip", "rstrip", "single_word"};
    onestep_status status = config_require(object, "content", error);
    if (status == ONESTEP_OK) {
        status = config_string(object, "content", NULL, &setting->content, error);
    }
    for (size_t i = 0; i < 3 && status == ONESTEP_OK; ++i) {
        bool set = false;
        status = config_boolean(object, UNSUPPORTED[i], false, &set, error);
        if (status == ONESTEP_OK && set) {
            status = error_set(error, ONESTEP_ERROR_UNSUPPORTED, "%s: %s is true: not supported",
                               config_path(object), UNSUPPORTED[i]);
        }
    }
    if (status == ONESTEP_OK) {
        status =
            config_boolean(object, "normalized", setting->normalized, &setting->normalized, error);
    }
    return status;
}

/* A special token under a key of one file: a string, or an object whose strings are kept alive by
 * `*object`. What is not there leaves the setting as it is. */
static onestep_status read_special_token(const config *file, const char *key,
                                         token_setting *setting, config **object,
                                         onestep_error *error)
{
    if (file == NULL || !config_has(file, key)) {
        return ONESTEP_OK;
    }
    if (config_kind_of(file, key) == CONFIG_STRING) {
        return config_string(file, key, NULL, &setting->content, error);
    }
    config *child;
    onestep_status status = config_object(file, key, &child, error);
    if (status == ONESTEP_OK) {
        status = read_token_object(child, setting, error);
        config_close(object);
        *object = child;
    }
    return status;
}

/* Adds a token to those that are cut out of prompts; a content that was added before stays. */
static onestep_status add_token(reader *read, token_setting setting, int32_t id,
                                onestep_error *error)
{
    size_t length = strlen(setting.content);
    uint32_t known;
    if (length == 0 || name_map_get(read->added, setting.content, length, &known)) {
        return ONESTEP_OK;
    }
    read->added_bytes += length;
    if (read->added_bytes > ADDED_BYTES_LIMIT) {
        return error_set(error, ONESTEP_ERROR_FORMAT,
                         "%s: the added tokens are longer than %zu bytes", read->folder,
                         ADDED_BYTES_LIMIT);
    }
    onestep_status status = name_map_put(read->added, setting.content, length, (uint32_t)id, error);
    if (status == ONESTEP_OK && !setting.normalized) {
        status = token_trie_add(&read->made->raw_tokens, setting.content, length, id, error);
    } else if (status == ONESTEP_OK) {
        text_buffer normal = {0};
        status = unicode_normalize(&normal, setting.content, length, error);
        if (status == ONESTEP_OK) {
            status =
                token_trie_add(&read->made->normal_tokens, normal.data, normal.length, id, error);
        }
        text_buffer_free(&normal);
    }
    if (id > read->made->largest_id) {
        read->made->largest_id = id;
    }
    return status;
}

/* An added token of which the file `path` says the id: it must be the vocabulary's, or new. */
static onestep_status add_numbered_token(reader *read, const char *path, token_setting setting,
                                         int32_t id, onestep_error *error)
{
    int32_t own;
    if (find_token(read, setting.content, strlen(setting.content), &own) && own != id) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: the token \"%.100s\" has id %d there and %d in vocab.json", path,
                         setting.content, id, own);
    }
    return add_token(read, setting, id, error);
}

/* added_tokens_decoder: ids as keys, objects as values. */
static onestep_status read_listed_tokens(reader *read, onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    for (size_t i = 0; i < config_count(read->listed) && status == ONESTEP_OK; ++i) {
        const char *key = config_key(read->listed, i);
        char *end;
        long long id = strtoll(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || id > INT32_MAX - 1) {
            return error_set(error, ONESTEP_ERROR_FORMAT, "%s: \"%.100s\" is not an id",
                             config_path(read->listed), key);
        }
        config *object;
        status = config_require(read->listed, key, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        status = config_object(read->listed, key, &object, error);
        if (status != ONESTEP_OK) {
            return status;
        }
        bool special = false;
        status = config_boolean(object, "special", false, &special, error);
        token_setting setting = {.normalized = !special};
        if (status == ONESTEP_OK) {
            status = read_token_object(object, &setting, error);
        }
        if (status == ONESTEP_OK) {
            status = add_numbered_token(read, config_path(object), setting, (int32_t)id, error);
        }
        config_close(&object);
    }
    return status;
}

/* added_tokens.json of older folders: tokens as keys, ids as values. */
static onestep_status read_added_file(reader *read, onestep_error *error)
{
    config *file;
    onestep_status status = open_config(read, "added_tokens.json", false, &file, error);
    for (size_t i = 0; file != NULL && i < config_count(file) && status == ONESTEP_OK; ++i) {
        token_setting setting = {.content = config_key(file, i), .normalized = true};
        int64_t id = 0;
        status = config_require(file, setting.content, error);
        if (status == ONESTEP_OK) {
            status = config_integer(file, setting.content, 0, 0, INT32_MAX - 1, &id, error);
        }
        if (status == ONESTEP_OK) {
            status = add_numbered_token(read, config_path(file), setting, (int32_t)id, error);
        }
    }
    config_close(&file);
    return status;
}

/* bos, eos, unk and pad. Files that list their added tokens are complete in themselves; in older
 * folders special_tokens_map.json has the last word. A plain string means a token that is looked
 * for in the normal form, except for the pad token. */
static onestep_status read_special_tokens(reader *read, onestep_error *error)
{
    enum { BEGIN, END, UNKNOWN, PADDING, COUNT };
    static const char *const KEYS[COUNT] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    token_setting settings[COUNT] = {[BEGIN] = {"<|startoftext|>", true},
                                     [END] = {"<|endoftext|>", true},
                                     [UNKNOWN] = {"<|endoftext|>", true},
                                     [PADDING] = {"<|endoftext|>", false}};
    int32_t *ids[COUNT] = {&read->made->begin, &read->made->end, &read->made->unknown,
                           &read->made->padding};
    config *objects[COUNT] = {NULL};
    onestep_status status = ONESTEP_OK;
    for (int i = 0; i < COUNT && status == ONESTEP_OK; ++i) {
        status = read_special_token(read->settings, KEYS[i], &settings[i], &objects[i], error);
        if (status == ONESTEP_OK && read->listed == NULL) {
            status = read_special_token(read->special, KEYS[i], &settings[i], &objects[i], error);
        }
        uint32_t id;
        const char *content = settings[i].content;
        if (status != ONESTEP_OK) {
            break;
        }
        if (name_map_get(read->added, content, strlen(content), &id)) {
            *ids[i] = (int32_t)id;
        } else if (find_token(read, content, strlen(content), ids[i])) {
            status = add_token(read, settings[i], *ids[i], error);
        } else if (i == UNKNOWN) {
            *ids[i] = -1;
        } else {
            status = error_set(error, ONESTEP_ERROR_MISMATCH,
                               "%s: the %s \"%.100s\" is not in vocab.json", read->folder, KEYS[i],
                               content);
        }
    }
    for (int i = 0; i < COUNT; ++i) {
        config_close(&objects[i]);
    }
    return status;
}

/* ---- settings ----------------------------------------------------------------------------- */

/* Settings that would change the ids in ways that are not built in. */
static onestep_status check_settings(const config *settings, onestep_error *error)
{
    static const struct {
        const char *key, *values[3];
    } EXPECTED[] = {{"tokenizer_class", {"CLIPTokenizer", "CLIPTokenizerFast"}},
                    {"padding_side", {"right"}},
                    {"truncation_side", {"right"}}};
    onestep_status status = ONESTEP_OK;
    for (size_t i = 0; i < sizeof EXPECTED / sizeof *EXPECTED && status == ONESTEP_OK; ++i) {
        const char *const *values = EXPECTED[i].values;
        const char *value = NULL;
        status = config_string(settings, EXPECTED[i].key, values[0], &value, error);
        bool known = false;
        for (; status == ONESTEP_OK && *values != NULL && !known; ++values) {
            known = strcmp(value, *values) == 0;
        }
        if (status == ONESTEP_OK && !known) {
            status = error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                               "%s: %s is \"%.100s\"; supported is \"%s\"", config_path(settings),
                               EXPECTED[i].key, value, EXPECTED[i].values[0]);
        }
    }
    bool split = false;
    if (status == ONESTEP_OK) {
        status = config_boolean(settings, "split_special_tokens", false, &split, error);
    }
    if (status == ONESTEP_OK && split) {
        status =
            error_set(error, ONESTEP_ERROR_UNSUPPORTED,
                      "%s: split_special_tokens is true: not supported", config_path(settings));
    }
    return status;
}

static onestep_status read_settings(reader *read, onestep_error *error)
{
    read->made->length = (size_t)CLIP_LENGTH;
    onestep_status status =
        open_config(read, "tokenizer_config.json", false, &read->settings, error);
    if (status == ONESTEP_OK) {
        status = open_config(read, "special_tokens_map.json", false, &read->special, error);
    }
    if (status != ONESTEP_OK || read->settings == NULL) {
        return status;
    }
    int64_t length = CLIP_LENGTH;
    status = check_settings(read->settings, error);
    if (status == ONESTEP_OK) {
        status = config_integer(read->settings, "model_max_length", CLIP_LENGTH, 2, LENGTH_LIMIT,
                                &length, error);
    }
    if (status == ONESTEP_OK) {
        read->made->length = (size_t)length;
        status = config_object(read->settings, "added_tokens_decoder", &read->listed, error);
    }
    return status;
}

onestep_status tokenizer_read_folder(tokenizer *made, const char *folder, onestep_error *error)
{
    reader read = {.made = made, .folder = folder};
    made->unknown = -1;
    onestep_status status = name_map_create(&read.added, error);
    if (status == ONESTEP_OK) {
        status = read_vocabulary(&read, error);
    }
    if (status == ONESTEP_OK) {
        read_byte_ids(&read);
        status = read_merges(&read, error);
    }
    if (status == ONESTEP_OK) {
        status = read_settings(&read, error);
    }
    if (status == ONESTEP_OK && read.listed != NULL) {
        status = read_listed_tokens(&read, error);
    }
    if (status == ONESTEP_OK) {
        status = read_special_tokens(&read, error);
    }
    if (status == ONESTEP_OK && read.listed == NULL) {
        status = read_added_file(&read, error);
    }
    if (status == ONESTEP_OK) {
        status = check_byte_ids(&read, error);
    }
    name_map_destroy(&read.vocabulary);
    name_map_destroy(&read.added);
    config_close(&read.listed);
    config_close(&read.settings);
    config_close(&read.special);
    return status;
}
