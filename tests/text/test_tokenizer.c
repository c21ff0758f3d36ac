/* The tokenizer against the official one, with CLIP's real vocabulary. */
#include "text/text.h"
#include "tokenizer_folder.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

enum { LENGTH = 77 };

static tokenizer *make_tokenizer(void)
{
    tokenizer *made;
    onestep_error error;
    if (tokenizer_create(&made, folder_path(), &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    return made;
}

static void encode(const tokenizer *tokens, const char *prompt, int32_t *ids, prompt_usage *usage)
{
    onestep_error error;
    if (tokenizer_encode(tokens, prompt, strlen(prompt), ids, usage, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
}

static int put_clip(void **state)
{
    (void)state;
    folder_put_clip();
    return 0;
}

/* ---- goldens ------------------------------------------------------------------------------ */

static size_t read_hex(const char *hex, char *bytes)
{
    size_t length = 0;
    for (unsigned byte; sscanf(hex + 2 * length, "%2x", &byte) == 1; ++length) {
        bytes[length] = (char)byte;
    }
    return length;
}

static void awkward_strings(void **state)
{
    (void)state;
    char *text = golden_read("strings.tsv");
    const char *const variants[] = {"exclamation", "eos"};
    int rows = 0;
    for (size_t v = 0; v < 2; ++v) {
        folder_put_variant(variants[v]);
        tokenizer *tokens = make_tokenizer();
        assert_int_equal(tokenizer_length(tokens), LENGTH);
        assert_int_equal(tokenizer_largest_id(tokens), 49407);
        char *copy = string_duplicate(text, NULL), *rest = copy;
        for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0';) {
            if (strcmp(strsep(&line, "\t"), variants[v]) != 0) {
                continue;
            }
            const char *hex = strsep(&line, "\t");
            static char prompt[65536];
            size_t length = read_hex(hex, prompt);
            int32_t ids[LENGTH];
            prompt_usage usage;
            assert_int_equal(tokenizer_encode(tokens, prompt, length, ids, &usage, NULL),
                             ONESTEP_OK);
            for (int i = 0; i < LENGTH; ++i) {
                long expected = strtol(line, &line, 10);
                if (ids[i] != expected) {
                    fail_msg("%s %s: id %d is %d, not %ld", variants[v], hex, i, ids[i], expected);
                }
            }
            assert_int_equal(*line, '\0');
            assert_int_equal(usage.kept, usage.needed < 75 ? usage.needed : 75);
            ++rows;
        }
        memory_free(copy);
        tokenizer_destroy(&tokens);
    }
    memory_free(text);
    assert_true(rows >= 400);
}

/* tests/text/data/composition.tsv: see make_composition.py beside it. */
static void compositions(void **state)
{
    (void)state;
    folder_put_variant("exclamation");
    tokenizer *tokens = make_tokenizer();
    uint8_t *text;
    size_t size;
    assert_int_equal(file_read(TEST_DATA "/composition.tsv", 1 << 24, &text, &size, NULL),
                     ONESTEP_OK);
    char *rest = (char *)text;
    int rows = 0;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0'; ++rows) {
        const char *hex = strsep(&line, "\t");
        char prompt[1024];
        size_t length = read_hex(hex, prompt);
        int32_t ids[LENGTH];
        prompt_usage usage;
        assert_int_equal(tokenizer_encode(tokens, prompt, length, ids, &usage, NULL), ONESTEP_OK);
        for (size_t i = 0; i < usage.kept + 2; ++i) {
            if (ids[i] != strtol(line, &line, 10)) {
                fail_msg("%s: id %zu is %d", hex, i, ids[i]);
            }
        }
        assert_int_equal(*line, '\0');
    }
    assert_true(rows > 1000);
    memory_free(text);
    tokenizer_destroy(&tokens);
}

enum { POINTS = 0x110000, BLOCK = 256 };

typedef struct exhaustive_pass {
    const tokenizer *tokens;
    uint32_t expected[POINTS / BLOCK];
    bool has_block[POINTS / BLOCK], excluded[POINTS];
    atomic_uint checked;
    atomic_int wrong_block; /* -1: none */
} exhaustive_pass;

static size_t put_point(char *text, uint32_t point)
{
    if (point < 0x80) {
        text[0] = (char)point;
        return 1;
    }
    size_t size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    const unsigned leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = size - 1; i > 0; --i, point >>= 6) {
        text[i] = (char)(0x80 | (point & 0x3f));
    }
    text[0] = (char)(leads[size] | point);
    return size;
}

static void check_block(void *context, size_t index, unsigned worker)
{
    (void)worker;
    exhaustive_pass *pass = context;
    if (!pass->has_block[index]) {
        return;
    }
    uLong block_crc = crc32(0, NULL, 0);
    for (uint32_t point = (uint32_t)index * BLOCK; point < (index + 1) * BLOCK; ++point) {
        if (pass->excluded[point]) {
            continue;
        }
        char prompt[64];
        size_t length = 0;
        for (const char *c = "A*b7** e*."; *c != '\0'; ++c) {
            length += put_point(prompt + length, *c == '*' ? point : (uint32_t)*c);
        }
        int32_t ids[LENGTH];
        prompt_usage usage = {0};
        onestep_status status = tokenizer_encode(pass->tokens, prompt, length, ids, &usage, NULL);
        uint8_t words[2 * LENGTH];
        for (size_t i = 0; i < usage.kept + 2; ++i) {
            words[2 * i] = (uint8_t)ids[i];
            words[2 * i + 1] = (uint8_t)(ids[i] >> 8);
        }
        uLong crc = crc32(crc32(0, NULL, 0), words, (uInt)(2 * (usage.kept + 2)));
        uint8_t bytes[4] = {(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16),
                            (uint8_t)(crc >> 24)};
        block_crc = crc32(block_crc, bytes, 4);
        if (status != ONESTEP_OK || usage.needed != usage.kept) {
            atomic_store(&pass->wrong_block, (int)index);
        }
        atomic_fetch_add(&pass->checked, 1);
    }
    if (block_crc != pass->expected[index]) {
        atomic_store(&pass->wrong_block, (int)index);
    }
}

static void every_code_point(void **state)
{
    (void)state;
    folder_put_variant("exclamation");
    exhaustive_pass *pass = calloc(1, sizeof *pass);
    assert_non_null(pass);
    pass->wrong_block = -1;
    char *text = golden_read("codepoints.tsv");
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0';) {
        unsigned long first = strtoul(line, &line, 16), crc = strtoul(line, NULL, 16);
        assert_true(first < POINTS && first % BLOCK == 0);
        pass->has_block[first / BLOCK] = true;
        pass->expected[first / BLOCK] = (uint32_t)crc;
    }
    memory_free(text);
    text = golden_read("codepoints_excluded.tsv");
    rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0';) {
        unsigned long first = strtoul(line, &line, 16), last = strtoul(line, NULL, 16);
        assert_true(first <= last && last < POINTS);
        memset(pass->excluded + first, true, last - first + 1);
    }
    memory_free(text);
    tokenizer *tokens = make_tokenizer();
    pass->tokens = tokens;
    thread_pool *pool;
    assert_int_equal(thread_pool_create(&pool, 0, NULL), ONESTEP_OK);
    thread_pool_run(pool, POINTS / BLOCK, check_block, pass);
    thread_pool_destroy(&pool);
    tokenizer_destroy(&tokens);
    if (pass->wrong_block >= 0) {
        fail_msg("the block of U+%04X differs", (unsigned)pass->wrong_block * BLOCK);
    }
    assert_true(pass->checked > 250000);
    free(pass);
}

/* ---- configs ------------------------------------------------------------------------------ */

#define OBJECT(content, normalized)                                                                \
    "{\"content\": \"" content "\", \"lstrip\": false, \"normalized\": " normalized                \
    ", \"rstrip\": false, \"single_word\": false"
#define BEGIN "<|startoftext|>"
#define END   "<|endoftext|>"
#define STRINGS                                                                                    \
    "\"bos_token\": \"" BEGIN "\", \"eos_token\": \"" END "\", \"unk_token\": \"" END "\""
#define OBJECTS(normalized)                                                                        \
    "\"bos_token\": " OBJECT(BEGIN, normalized) "}, \"eos_token\": " OBJECT(                       \
        END, normalized) "}, \"unk_token\": " OBJECT(END, normalized) "}"
#define LISTED(normalized)                                                                         \
    "\"added_tokens_decoder\": {\"0\": " OBJECT(                                                   \
        "!", "false") ", \"special\": true}, "                                                     \
                      "\"49406\": " OBJECT(                                                        \
                          BEGIN, normalized) ", \"special\": true}, "                              \
                                             "\"49407\": " OBJECT(                                 \
                                                 END, normalized) ", \"special\": true}}"
#define MAP(pad)    "{" OBJECTS("true") ", \"pad_token\": " pad "}"
#define CONFIG(all) "{\"model_max_length\": 77, " all "}"

/* What transformers 4.35.2 makes of a prompt with the ways that folders describe their special
 * tokens (added_tokens.json: 5.23, since 4.35.2 fails there). */
static void configs_decide_on_added_tokens(void **state)
{
    (void)state;
    const char *prompt = "<|STARTOFTEXT|> wow! <Concept> <concept> <|endoftext|>x";
    enum { WITH_PAD, WITHOUT_PAD, RAW, CONCEPT };
    static const int32_t expected[][18] = {
        [WITH_PAD] = {49406, 49406, 2781, 0, 283, 6353, 285, 283, 6353, 285, 49407, 343, 49407, -1},
        [WITHOUT_PAD] = {49406, 49406, 2781, 256, 283, 6353, 285, 283, 6353, 285, 49407, 343, 49407,
                         -1},
        [RAW] = {49406, 27, 347, 993, 6659, 4160, 91, 285, 2781, 0, 283, 6353, 285, 283, 6353, 285,
                 49407, 343},
        [CONCEPT] = {49406, 49406, 2781, 256, 49408, 49408, 49407, 343, 49407, -1}};
    const struct {
        const char *config, *map, *added;
        int ids;
        int32_t padding;
    } cases[] = {
        {NULL, NULL, NULL, WITHOUT_PAD, 49407},
        {CONFIG(STRINGS), NULL, NULL, WITHOUT_PAD, 49407},
        {CONFIG(STRINGS ", \"pad_token\": \"!\""), NULL, NULL, WITH_PAD, 0},
        {CONFIG(STRINGS ", \"pad_token\": \"" END "\""), NULL, NULL, WITHOUT_PAD, 49407},
        {CONFIG("\"do_lower_case\": true"), MAP("\"!\""), NULL, WITH_PAD, 0},
        {CONFIG("\"do_lower_case\": true"), MAP(OBJECT("!", "true") "}"), NULL, WITH_PAD, 0},
        /* special_tokens_map.json has the last word... */
        {CONFIG(OBJECTS("true") ", \"pad_token\": \"" END "\""), MAP("\"!\""), NULL, WITH_PAD, 0},
        {CONFIG(OBJECTS("true") ", \"pad_token\": \"!\""), MAP("\"" END "\""), NULL, WITHOUT_PAD,
         49407},
        /* ... but not where the added tokens are listed, and added_tokens.json neither. */
        {CONFIG(STRINGS ", " LISTED("true") ", \"pad_token\": \"" END "\""), MAP("\"!\""), NULL,
         WITH_PAD, 49407},
        {CONFIG(STRINGS ", " LISTED("true") ", \"pad_token\": \"!\""), NULL,
         "{\"<Concept>\": 49408}", WITH_PAD, 0},
        {CONFIG(STRINGS ", " LISTED("false") ", \"pad_token\": \"!\""), NULL, NULL, RAW, 0},
        {CONFIG(OBJECTS("true")), NULL, "{\"<Concept>\": 49408}", CONCEPT, 49407},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        folder_put("tokenizer_config.json", cases[i].config);
        folder_put("special_tokens_map.json", cases[i].map);
        folder_put("added_tokens.json", cases[i].added);
        tokenizer *tokens = make_tokenizer();
        int32_t ids[LENGTH];
        encode(tokens, prompt, ids, NULL);
        for (int k = 0; k < 18 && expected[cases[i].ids][k] >= 0; ++k) {
            if (ids[k] != expected[cases[i].ids][k]) {
                fail_msg("case %zu: id %d is %d, not %d", i, k, ids[k], expected[cases[i].ids][k]);
            }
        }
        assert_int_equal(ids[LENGTH - 1], cases[i].padding);
        assert_int_equal(tokenizer_largest_id(tokens), cases[i].ids == CONCEPT ? 49408 : 49407);
        tokenizer_destroy(&tokens);
    }
    folder_put("added_tokens.json", NULL);
}

/* ---- use ---------------------------------------------------------------------------------- */

static void usage_tells_what_was_cut(void **state)
{
    (void)state;
    folder_put_variant("exclamation");
    tokenizer *tokens = make_tokenizer();
    for (size_t words = 0; words < 100; ++words) {
        char prompt[1024] = "";
        for (size_t i = 0; i < words; ++i) {
            strcat(prompt, "bird ");
        }
        int32_t ids[LENGTH];
        prompt_usage usage;
        encode(tokens, prompt, ids, &usage);
        assert_int_equal(usage.needed, words);
        assert_int_equal(usage.kept, words < 75 ? words : 75);
        assert_int_equal(ids[0], 49406);
        assert_int_equal(ids[usage.kept + 1], 49407);
        for (size_t i = 1; i <= usage.kept; ++i) {
            assert_int_equal(ids[i], 3329);
        }
        for (size_t i = usage.kept + 2; i < LENGTH; ++i) {
            assert_int_equal(ids[i], 0);
        }
    }
    tokenizer_destroy(&tokens);
    assert_null(tokens);
    tokenizer_destroy(&tokens);
}

static void other_lengths(void **state)
{
    (void)state;
    folder_put("special_tokens_map.json", NULL);
    folder_put("tokenizer_config.json", "{\"model_max_length\": 5}");
    tokenizer *tokens = make_tokenizer();
    assert_int_equal(tokenizer_length(tokens), 5);
    int32_t ids[6] = {[5] = -7};
    prompt_usage usage;
    encode(tokens, "a bird a bird", ids, &usage);
    const int32_t expected[] = {49406, 320, 3329, 320, 49407, -7};
    assert_memory_equal(ids, expected, sizeof ids);
    assert_int_equal(usage.needed, 4);
    assert_int_equal(usage.kept, 3);
    tokenizer_destroy(&tokens);
    folder_put("tokenizer_config.json", "{\"model_max_length\": 2}");
    tokens = make_tokenizer();
    ids[2] = -7;
    encode(tokens, "a", ids, &usage);
    assert_int_equal(ids[0], 49406);
    assert_int_equal(ids[1], 49407);
    assert_int_equal(ids[2], -7);
    assert_int_equal(usage.needed, 1);
    assert_int_equal(usage.kept, 0);
    tokenizer_destroy(&tokens);
}

static void what_is_not_utf8_is_named(void **state)
{
    (void)state;
    folder_put_variant("exclamation");
    tokenizer *tokens = make_tokenizer();
    const struct {
        const char *prompt;
        size_t offset;
    } cases[] = {
        {"\x80", 0},
        {"ab\xff", 2},
        {"a\xc3", 1},            /* cut short */
        {"a\xe2\x82", 1},        /* cut short */
        {"\xf0\x9f\x90 ", 0},    /* cut short */
        {"xyz\xc0\x80", 3},      /* overlong */
        {"\xc1\xbf", 0},         /* overlong */
        {"\xe0\x9f\xbf", 0},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 0}, /* overlong */
        {"\xed\xa0\x80", 0},     /* surrogate */
        {"\xed\xbf\xbf", 0},     /* surrogate */
        {"\xf4\x90\x80\x80", 0}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", 0}, /* beyond U+10FFFF */
        {"\xc3\xa9\xc3\x28", 2}, /* no continuation */
        {"\xe2\x28\xa1", 0},     /* no continuation */
        {"\xf0\x9f\x28\x8c", 0}, /* no continuation */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        int32_t ids[LENGTH] = {-7};
        prompt_usage usage = {.needed = 123};
        onestep_error error;
        char expected[128];
        snprintf(expected, sizeof expected,
                 "prompt: not UTF-8: byte 0x%02x at offset %zu begins no character",
                 (uint8_t)cases[i].prompt[cases[i].offset], cases[i].offset);
        assert_int_equal(
            tokenizer_encode(tokens, cases[i].prompt, strlen(cases[i].prompt), ids, &usage, &error),
            ONESTEP_ERROR_ARGUMENT);
        assert_string_equal(error.message, expected);
        assert_int_equal(ids[0], -7);
        assert_int_equal(usage.needed, 123);
    }
    const char *limits[] = {"\x7f",         "\xc2\x80",         "\xdf\xbf",
                            "\xe0\xa0\x80", "\xed\x9f\xbf",     "\xee\x80\x80",
                            "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; ++i) {
        int32_t ids[LENGTH];
        encode(tokens, limits[i], ids, NULL);
    }
    tokenizer_destroy(&tokens);
}

static void long_prompts_take_little_time(void **state)
{
    (void)state;
    folder_put_variant("eos");
    tokenizer *tokens = make_tokenizer();
    char *prompt = malloc(PROMPT_BYTES_LIMIT + 1);
    assert_non_null(prompt);
    int32_t ids[LENGTH];
    prompt_usage usage;
    onestep_error error;
    const char *const patterns[] = {"a",
                                    "!",
                                    "lo",
                                    "<|endoftext|",
                                    "\xcc\x81\xcc\xa3", /* marks in the wrong order */
                                    "\xea\xb0\x80",
                                    "'s"};
    double start = monotonic_seconds();
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; ++p) {
        size_t size = strlen(patterns[p]), length = 0;
        for (; length + size <= PROMPT_BYTES_LIMIT; length += size) {
            memcpy(prompt + length, patterns[p], size);
        }
        assert_int_equal(tokenizer_encode(tokens, prompt, length, ids, &usage, &error), ONESTEP_OK);
        assert_int_equal(usage.kept, 75);
        assert_true(usage.needed > 10000);
    }
    /* About five seconds on a busy machine; what is quadratic takes hours. */
    assert_true(monotonic_seconds() - start < 300);
    memset(prompt, 'a', PROMPT_BYTES_LIMIT + 1);
    assert_int_equal(tokenizer_encode(tokens, prompt, PROMPT_BYTES_LIMIT + 1, ids, &usage, &error),
                     ONESTEP_ERROR_ARGUMENT);
    assert_string_equal(error.message,
                        "prompt: 1048577 bytes, more than the 1048576 that are allowed");
    free(prompt);
    tokenizer_destroy(&tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(awkward_strings),
        cmocka_unit_test(compositions),
        cmocka_unit_test(every_code_point),
        cmocka_unit_test(configs_decide_on_added_tokens),
        cmocka_unit_test(usage_tells_what_was_cut),
        cmocka_unit_test(other_lengths),
        cmocka_unit_test(what_is_not_utf8_is_named),
        cmocka_unit_test(long_prompts_take_little_time),
    };
    return cmocka_run_group_tests(tests, put_clip, folder_remove);
}
