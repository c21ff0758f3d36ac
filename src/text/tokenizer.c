/* Encoding of prompts. The steps and their order are those of the `tokenizers` library: added
 * tokens of the raw text, normal form, added tokens of the normal form, words, byte-pair encoding,
 * truncation, begin and end, padding. */
#include "text/tokenizer.h"
#include "text/unicode.h"

#include <string.h>

onestep_status tokenizer_create(tokenizer **made, const char *folder, onestep_error *error)
{
    *made = memory_allocate(1, sizeof **made, error);
    if (*made == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = tokenizer_read_folder(*made, folder, error);
    if (status != ONESTEP_OK) {
        tokenizer_destroy(made);
    }
    return status;
}

void tokenizer_destroy(tokenizer **tokens)
{
    if (*tokens != NULL) {
        merge_table_free(&(*tokens)->merges);
        token_trie_free(&(*tokens)->raw_tokens);
        token_trie_free(&(*tokens)->normal_tokens);
        memory_free(*tokens);
        *tokens = NULL;
    }
}

size_t tokenizer_length(const tokenizer *tokens)
{
    return tokens->length;
}

int32_t tokenizer_largest_id(const tokenizer *tokens)
{
    return tokens->largest_id;
}

/* One prompt on its way. */
typedef struct encoding {
    const tokenizer *tokens;
    int32_t *kept; /* the first `room` ids */
    size_t room, needed;
    text_buffer normal;
    int32_t *word; /* ids of the current word's bytes */
    size_t word_capacity;
    byte_pair_workspace workspace;
} encoding;

static void push_id(encoding *run, int32_t id)
{
    if (run->needed < run->room) {
        run->kept[run->needed] = id;
    }
    run->needed += 1;
}

static onestep_status encode_word(encoding *run, const char *word, size_t length,
                                  onestep_error *error)
{
    if (length > run->word_capacity) {
        size_t capacity = size_maximum(length, size_maximum(run->word_capacity * 2, 64));
        int32_t *ids = memory_resize(run->word, capacity, sizeof *ids, error);
        if (ids == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        run->word = ids;
        run->word_capacity = capacity;
    }
    size_t count = 0;
    for (size_t i = 0; i < length; ++i) {
        const int32_t *table = i + 1 < length ? run->tokens->byte_ids : run->tokens->final_ids;
        int32_t id = table[(uint8_t)word[i]];
        run->word[count++] = id >= 0 ? id : run->tokens->unknown;
    }
    onestep_status status =
        byte_pair_merge_word(&run->tokens->merges, &run->workspace, run->word, &count, error);
    for (size_t i = 0; i < count && status == ONESTEP_OK; ++i) {
        push_id(run, run->word[i]);
    }
    return status;
}

/* The length of 's 't 'm 'd 're 've 'll at the beginning of the text, or 0. */
static size_t contraction_length(const char *text, size_t length)
{
    static const char *const ENDINGS[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (text[0] != '\'') {
        return 0;
    }
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; ++i) {
        size_t size = strlen(ENDINGS[i]);
        if (size < length && memcmp(text + 1, ENDINGS[i], size) == 0) {
            return 1 + size;
        }
    }
    return 0;
}

/* The end of the word that begins at `start`: a contraction, one number, or a run of one class. */
static size_t find_word_end(const char *text, size_t length, size_t start, point_class class)
{
    size_t contraction = contraction_length(text + start, length - start);
    if (contraction > 0) {
        return start + contraction;
    }
    uint32_t point;
    size_t end = start, next = start;
    while (next < length && utf8_read(text, length, &next, &point) &&
           unicode_class(point) == class) {
        end = next;
        if (class == POINT_NUMBER) {
            break;
        }
    }
    return end;
}

/* Encodes normal text without added tokens. */
static onestep_status encode_words(encoding *run, const char *text, size_t length,
                                   onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    for (size_t start = 0; start < length && status == ONESTEP_OK;) {
        uint32_t point = 0;
        size_t next = start;
        if (!utf8_read(text, length, &next, &point)) {
            return error_set(error, ONESTEP_ERROR_INTERNAL, "prompt: normal form is no UTF-8");
        }
        point_class class = unicode_class(point);
        if (class != POINT_SPACE) {
            next = find_word_end(text, length, start, class);
            status = encode_word(run, text + start, next - start, error);
        }
        start = next;
    }
    return status;
}

/* Encodes raw text without raw tokens. */
static onestep_status encode_piece(encoding *run, const char *text, size_t length,
                                   onestep_error *error)
{
    run->normal.length = 0;
    onestep_status status = unicode_normalize(&run->normal, text, length, error);
    size_t start = 0;
    while (status == ONESTEP_OK && start < run->normal.length) {
        const char *normal = run->normal.data;
        size_t found = start, token_length = 0;
        int32_t id;
        if (!token_trie_find(&run->tokens->normal_tokens, normal, run->normal.length, &found,
                             &token_length, &id)) {
            return encode_words(run, normal + start, run->normal.length - start, error);
        }
        status = encode_words(run, normal + start, found - start, error);
        push_id(run, id);
        start = found + token_length;
    }
    return status;
}

static onestep_status encode_text(encoding *run, const char *text, size_t length,
                                  onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    size_t start = 0;
    while (status == ONESTEP_OK && start < length) {
        size_t found = start, token_length = 0;
        int32_t id;
        if (!token_trie_find(&run->tokens->raw_tokens, text, length, &found, &token_length, &id)) {
            return encode_piece(run, text + start, length - start, error);
        }
        if (found > start) {
            status = encode_piece(run, text + start, found - start, error);
        }
        push_id(run, id);
        start = found + token_length;
    }
    return status;
}

static onestep_status check_prompt(const char *prompt, size_t length, onestep_error *error)
{
    if (length > PROMPT_BYTES_LIMIT) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "prompt: %zu bytes, more than the %zu that are allowed", length,
                         PROMPT_BYTES_LIMIT);
    }
    for (size_t position = 0; position < length;) {
        uint32_t point;
        if (!utf8_read(prompt, length, &position, &point)) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT,
                             "prompt: not UTF-8: byte 0x%02x at offset %zu begins no character",
                             (uint8_t)prompt[position], position);
        }
    }
    return ONESTEP_OK;
}

onestep_status tokenizer_encode(const tokenizer *tokens, const char *prompt, size_t length,
                                int32_t *ids, prompt_usage *usage, onestep_error *error)
{
    onestep_status status = check_prompt(prompt, length, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    encoding run = {.tokens = tokens, .room = tokens->length - 2};
    run.kept = memory_allocate(run.room, sizeof *run.kept, error);
    if (run.kept == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    status = encode_text(&run, prompt, length, error);
    if (status == ONESTEP_OK) {
        size_t kept = size_minimum(run.needed, run.room);
        ids[0] = tokens->begin;
        for (size_t i = 0; i < kept; ++i) {
            ids[1 + i] = run.kept[i];
        }
        ids[1 + kept] = tokens->end;
        for (size_t i = kept + 2; i < tokens->length; ++i) {
            ids[i] = tokens->padding;
        }
        if (usage != NULL) {
            *usage = (prompt_usage){.needed = run.needed, .kept = kept};
        }
    }
    memory_free(run.kept);
    memory_free(run.word);
    text_buffer_free(&run.normal);
    byte_pair_workspace_free(&run.workspace);
    return status;
}
