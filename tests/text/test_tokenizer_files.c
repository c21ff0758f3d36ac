/* Damaged and hostile tokenizer folders, and failing allocations. */
#include "support/allocation_failure.h"
#include "text/text.h"
#include "tokenizer_folder.h"

#include <stdio.h>

static int put_small(void **state)
{
    (void)state;
    folder_put_small();
    return 0;
}

static void check_refused(onestep_status expected, const char *message)
{
    tokenizer *made;
    onestep_error error = {0};
    onestep_status status = tokenizer_create(&made, folder_path(), &error);
    assert_null(made);
    if (status != expected) {
        fail_msg("status %d instead of %d: %s", status, expected, error.message);
    }
    assert_int_equal(error.code, expected);
    check_contains(error.message, message);
}

static void check_ids(const char *prompt, const int32_t *expected, size_t count)
{
    tokenizer *made;
    onestep_error error;
    if (tokenizer_create(&made, folder_path(), &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    int32_t ids[77];
    assert_int_equal(tokenizer_encode(made, prompt, strlen(prompt), ids, NULL, &error), ONESTEP_OK);
    for (size_t i = 0; i < count; ++i) {
        if (ids[i] != expected[i]) {
            fail_msg("\"%s\": id %zu is %d, not %d", prompt, i, ids[i], expected[i]);
        }
    }
    tokenizer_destroy(&made);
}

static void small_vocabulary(void **state)
{
    (void)state;
    const int32_t expected[] = {515, 513, 512, 512, 'd' + 256, 514, 'x', 0xc3, 0xa9 + 256, 516};
    check_ids("abc ABabd bc x\xc3\xa9", expected, sizeof expected / sizeof *expected);
}

/* "b c</w>" has the highest rank in the small vocabulary, so "abc" is one token; with the merges
 * turned round "bc</w>" is made first, and nothing joins it to "a". */
static void rank_decides(void **state)
{
    (void)state;
    folder_put("merges.txt", "b c</w>\r\n\r\na b\r\nab c</w>");
    const int32_t expected[] = {515, 'a', 514, 516};
    check_ids("abc", expected, 4);
    /* A pair that is listed again has its later rank. */
    folder_put("merges.txt", "#version: 0.2\nb c</w>\na b\nab c</w>\nb c</w>\n");
    const int32_t again[] = {515, 513, 516};
    check_ids("abc", again, 3);
}

static void bytes_without_a_token_are_unknown(void **state)
{
    (void)state;
    folder_put("vocab.json", "{\"a\": 1, \"a</w>\": 2, \"<|startoftext|>\": 3, "
                             "\"<|endoftext|>\": 4}");
    folder_put("merges.txt", "#version: 0.2\n");
    const int32_t expected[] = {3, 1, 4, 2, 4, 4, 4};
    check_ids("aba \xc3\xa9", expected, sizeof expected / sizeof *expected);
    folder_put("tokenizer_config.json", "{\"unk_token\": \"none\"}");
    check_refused(ONESTEP_ERROR_FORMAT, "neither a token for byte 0x00 nor the unk_token");
}

static void missing_and_damaged_files(void **state)
{
    (void)state;
    folder_put("merges.txt", NULL);
    check_refused(ONESTEP_ERROR_IO, "merges.txt: cannot be opened");
    folder_put_small();
    folder_put("vocab.json", NULL);
    check_refused(ONESTEP_ERROR_IO, "vocab.json");
    const char *const vocabularies[][2] = {
        {"", "vocab.json"},
        {"{\"a\": ", "vocab.json"},
        {"[1, 2]", "vocab.json"},
        {"{}", "vocab.json: holds no token"},
        {"{\"a\": -1}", "vocab.json"},
        {"{\"a\": 2147483647}", "vocab.json"},
        {"{\"a\": 99999999999999999999999}", "vocab.json"},
        {"{\"a\": 1.5}", "vocab.json"},
        {"{\"a\": \"1\"}", "vocab.json"},
        {"{\"a\": null}", "vocab.json"},
        {"{\"a\": [[[[1]]]]}", "vocab.json"},
        {"{\"a\": 1, \"a\": 2}", "vocab.json"},
        {"{\"\\ud800\": 1}", "vocab.json"},
    };
    for (size_t i = 0; i < sizeof vocabularies / sizeof *vocabularies; ++i) {
        folder_put("vocab.json", vocabularies[i][0]);
        check_refused(ONESTEP_ERROR_FORMAT, vocabularies[i][1]);
    }
}

static void damaged_merges(void **state)
{
    (void)state;
    const struct {
        const char *text, *message;
        onestep_status status;
    } cases[] = {
        {"#version: 0.2\nab\n", "merges.txt: line 2: expected two tokens", ONESTEP_ERROR_FORMAT},
        {"a b\n#version: 0.2\n", "merges.txt: line 2", ONESTEP_ERROR_MISMATCH},
        {"a b c\n", "merges.txt: line 1: expected two tokens", ONESTEP_ERROR_FORMAT},
        {" a b\n", "line 1: expected two tokens", ONESTEP_ERROR_FORMAT},
        {"a \n", "line 1: expected two tokens", ONESTEP_ERROR_FORMAT},
        {" \n", "line 1: expected two tokens", ONESTEP_ERROR_FORMAT},
        {"a b\nq z\n", "line 2: \"q z\": a token or their union is not in vocab.json",
         ONESTEP_ERROR_MISMATCH},
        {"a nothere\n", "line 1: \"a nothere\"", ONESTEP_ERROR_MISMATCH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        folder_put("merges.txt", cases[i].text);
        check_refused(cases[i].status, cases[i].message);
    }
    text_buffer text = {0};
    text_buffer_print(&text, "a %02000d\n", 1);
    folder_put("merges.txt", text.data);
    check_refused(ONESTEP_ERROR_FORMAT, "line 1: longer than 1024 bytes");
    text_buffer_free(&text);
    for (int i = 0; i < 1 << 20; ++i) {
        text_buffer_append(&text, "a b\n", 4);
    }
    folder_put("merges.txt", text.data);
    const int32_t expected[] = {515, 513, 516};
    check_ids("abc", expected, 1);
    text_buffer_append(&text, "a b\n", 4);
    folder_put("merges.txt", text.data);
    check_refused(ONESTEP_ERROR_FORMAT, "merges.txt: more than 1048576 merges");
    while (text.length <= (size_t)16 << 20) {
        text_buffer_append(&text, "a b\n", 4);
    }
    folder_put("merges.txt", text.data);
    check_refused(ONESTEP_ERROR_FORMAT, "merges.txt");
    text_buffer_free(&text);
}

static void configs_are_checked(void **state)
{
    (void)state;
    const struct {
        const char *text, *message;
        onestep_status status;
    } cases[] = {
        {"{", "tokenizer_config.json", ONESTEP_ERROR_FORMAT},
        {"{\"model_max_length\": 1}", "model_max_length", ONESTEP_ERROR_FORMAT},
        {"{\"model_max_length\": 100000}", "model_max_length", ONESTEP_ERROR_FORMAT},
        {"{\"model_max_length\": \"77\"}", "model_max_length", ONESTEP_ERROR_FORMAT},
        {"{\"tokenizer_class\": \"T5Tokenizer\"}",
         "tokenizer_config.json: tokenizer_class is \"T5Tokenizer\"; supported is "
         "\"CLIPTokenizer\"",
         ONESTEP_ERROR_UNSUPPORTED},
        {"{\"padding_side\": \"left\"}", "padding_side is \"left\"; supported is \"right\"",
         ONESTEP_ERROR_UNSUPPORTED},
        {"{\"truncation_side\": \"left\"}", "truncation_side is \"left\"",
         ONESTEP_ERROR_UNSUPPORTED},
        {"{\"split_special_tokens\": true}", "split_special_tokens is true",
         ONESTEP_ERROR_UNSUPPORTED},
        {"{\"bos_token\": 3}", "bos_token", ONESTEP_ERROR_FORMAT},
        {"{\"bos_token\": {\"lstrip\": false}}", "content", ONESTEP_ERROR_FORMAT},
        {"{\"bos_token\": {\"content\": \"ab\", \"lstrip\": true}}", "lstrip is true",
         ONESTEP_ERROR_UNSUPPORTED},
        {"{\"bos_token\": {\"content\": \"ab\", \"single_word\": true}}", "single_word is true",
         ONESTEP_ERROR_UNSUPPORTED},
        {"{\"bos_token\": \"none\"}", "the bos_token \"none\" is not in vocab.json",
         ONESTEP_ERROR_MISMATCH},
        {"{\"eos_token\": \"\"}", "the eos_token \"\" is not in vocab.json",
         ONESTEP_ERROR_MISMATCH},
        {"{\"pad_token\": \"<|pad|>\"}", "the pad_token \"<|pad|>\" is not in vocab.json",
         ONESTEP_ERROR_MISMATCH},
        {"{\"added_tokens_decoder\": [1]}", "added_tokens_decoder", ONESTEP_ERROR_FORMAT},
        {"{\"added_tokens_decoder\": {\"x\": {\"content\": \"ab\"}}}", "\"x\" is not an id",
         ONESTEP_ERROR_FORMAT},
        {"{\"added_tokens_decoder\": {\"-1\": {\"content\": \"ab\"}}}", "\"-1\" is not an id",
         ONESTEP_ERROR_FORMAT},
        {"{\"added_tokens_decoder\": {\"99999999999999999999\": {\"content\": \"ab\"}}}",
         "is not an id", ONESTEP_ERROR_FORMAT},
        {"{\"added_tokens_decoder\": {\"7\": null}}", "7", ONESTEP_ERROR_FORMAT},
        {"{\"added_tokens_decoder\": {\"7\": {\"content\": 7}}}", "content", ONESTEP_ERROR_FORMAT},
        {"{\"added_tokens_decoder\": {\"7\": {\"content\": \"ab\"}}}",
         "the token \"ab\" has id 7 there and 512 in vocab.json", ONESTEP_ERROR_MISMATCH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        folder_put("tokenizer_config.json", cases[i].text);
        check_refused(cases[i].status, cases[i].message);
    }
    folder_put("tokenizer_config.json", "{\"tokenizer_class\": \"CLIPTokenizerFast\"}");
    folder_put("special_tokens_map.json", "{\"pad_token\": [1]}");
    check_refused(ONESTEP_ERROR_FORMAT, "pad_token");
    folder_put("special_tokens_map.json", NULL);
    folder_put("added_tokens.json", "{\"new\": -5}");
    check_refused(ONESTEP_ERROR_FORMAT, "new");
    folder_put("added_tokens.json", "{\"ab\": 5}");
    check_refused(ONESTEP_ERROR_MISMATCH, "the token \"ab\" has id 5 there and 512");
    text_buffer text = {0};
    text_buffer_print(&text, "{\"%01100000d\": 600}", 1);
    folder_put("added_tokens.json", text.data);
    text_buffer_free(&text);
    check_refused(ONESTEP_ERROR_FORMAT, "the added tokens are longer than 1048576 bytes");
}

static void the_longest_added_token_wins(void **state)
{
    (void)state;
    folder_put("added_tokens.json", "{\"<a\": 600, \"<a><b>\": 601, \"<A><B><\\u00c9\": 602, "
                                    "\"\": 603}");
    /* Tokens of the normal form are looked for in lower case, composed. */
    const int32_t expected[] = {515, 600, '>' + 256, 601, '<' + 256, 602, 'x' + 256, 516};
    check_ids("<a>  <A><b>< <a><b><E\xcc\x81x", expected, sizeof expected / sizeof *expected);
}

static void failed_allocations_are_reported(void **state)
{
    (void)state;
    folder_put("tokenizer_config.json",
               "{\"added_tokens_decoder\": {\"33\": {\"content\": \"!\", \"special\": true}, "
               "\"700\": {\"content\": \"<new>\"}}, \"pad_token\": {\"content\": \"!\"}}");
    static const char prompt[] = "abc! <NEW> e\xcc\x81\xcc\xa3 abcabcabcabcabcabcabcabcabcabcabcabc"
                                 "abcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabcabc";
    int32_t expected[77], ids[77];
    size_t n = 1;
    bool failed;
    do {
        tokenizer *made;
        onestep_error error = {0};
        allocation_failure_start(n++);
        onestep_status status = tokenizer_create(&made, folder_path(), &error);
        failed = allocation_failure_stop();
        assert_int_equal(status, failed ? ONESTEP_ERROR_MEMORY : ONESTEP_OK);
        assert_int_equal(error.code, status);
        assert_true((made == NULL) == failed);
        tokenizer_destroy(&made);
    } while (failed);
    assert_true(n > 20);

    tokenizer *made;
    assert_int_equal(tokenizer_create(&made, folder_path(), NULL), ONESTEP_OK);
    assert_int_equal(tokenizer_encode(made, prompt, sizeof prompt - 1, expected, NULL, NULL),
                     ONESTEP_OK);
    n = 1;
    do {
        onestep_error error = {0};
        memset(ids, 0x55, sizeof ids);
        allocation_failure_start(n++);
        onestep_status status =
            tokenizer_encode(made, prompt, sizeof prompt - 1, ids, NULL, &error);
        failed = allocation_failure_stop();
        assert_int_equal(status, failed ? ONESTEP_ERROR_MEMORY : ONESTEP_OK);
        assert_int_equal(error.code, status);
        assert_int_equal(ids[0], failed ? 0x55555555 : 515);
    } while (failed);
    assert_memory_equal(ids, expected, sizeof ids);
    assert_true(n > 6);
    tokenizer_destroy(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(small_vocabulary, put_small),
        cmocka_unit_test_setup(rank_decides, put_small),
        cmocka_unit_test_setup(bytes_without_a_token_are_unknown, put_small),
        cmocka_unit_test_setup(missing_and_damaged_files, put_small),
        cmocka_unit_test_setup(damaged_merges, put_small),
        cmocka_unit_test_setup(configs_are_checked, put_small),
        cmocka_unit_test_setup(the_longest_added_token_wins, put_small),
        cmocka_unit_test_setup(failed_allocations_are_reported, put_small),
    };
    return cmocka_run_group_tests(tests, NULL, folder_remove);
}
