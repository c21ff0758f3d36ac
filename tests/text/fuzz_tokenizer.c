/* Prompts, and each file of a tokenizer folder. The first byte tells what the others are:
 * p prompt, v vocab.json, m merges.txt, c tokenizer_config.json, s special_tokens_map.json,
 * a added_tokens.json; the other files are those of a small, sound folder. */
#include "text/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];
static tokenizer *sound;

static const char *const FILES[][2] = {{"v", "vocab.json"},
                                       {"m", "merges.txt"},
                                       {"c", "tokenizer_config.json"},
                                       {"s", "special_tokens_map.json"},
                                       {"a", "added_tokens.json"}};
enum { FILE_COUNT = sizeof FILES / sizeof *FILES };

static const char *const CONTENTS[FILE_COUNT] = {
    "{\"a\": 0, \"a</w>\": 1, \"b\": 2, \"b</w>\": 3, \"c</w>\": 4, \"ab\": 5, \"abc</w>\": 6, "
    "\"!\": 7, \"!</w>\": 8, \"<|startoftext|>\": 9, \"<|endoftext|>\": 10, \"'</w>\": 11, "
    "\"aa\": 12, \"aaaa\": 13}",
    "#version: 0.2\na b\nab c</w>\na a\naa aa\n", "{\"pad_token\": \"!\"}", "{}",
    "{\"<new>\": 14}"};

static void put(const char *name, const void *bytes, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        abort();
    }
}

static void remove_folder(void)
{
    tokenizer_destroy(&sound);
    char path[128];
    for (int i = 0; i < FILE_COUNT; ++i) {
        snprintf(path, sizeof path, "%s/%s", folder, FILES[i][1]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static void encode(const tokenizer *tokens, const char *prompt, size_t length)
{
    int32_t *ids = calloc(tokenizer_length(tokens), sizeof *ids);
    prompt_usage usage;
    onestep_error error;
    if (tokenizer_encode(tokens, prompt, length, ids, &usage, &error) == ONESTEP_OK) {
        for (size_t i = 0; i < tokenizer_length(tokens); ++i) {
            if (ids[i] < 0 || ids[i] > tokenizer_largest_id(tokens)) {
                abort();
            }
        }
        if (usage.kept > usage.needed || usage.kept + 2 > tokenizer_length(tokens)) {
            abort();
        }
    }
    free(ids);
}

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count;
    (void)arguments;
    snprintf(folder, sizeof folder, "/tmp/onestep-fuzz-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        abort();
    }
    for (int i = 0; i < FILE_COUNT; ++i) {
        put(FILES[i][1], CONTENTS[i], strlen(CONTENTS[i]));
    }
    onestep_error error;
    if (tokenizer_create(&sound, folder, &error) != ONESTEP_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    atexit(remove_folder);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    if (data[0] == 'p') {
        encode(sound, (const char *)data + 1, size - 1);
        return 0;
    }
    for (int i = 0; i < FILE_COUNT; ++i) {
        if (data[0] == (uint8_t)FILES[i][0][0]) {
            put(FILES[i][1], data + 1, size - 1);
            tokenizer *made;
            onestep_error error;
            if (tokenizer_create(&made, folder, &error) == ONESTEP_OK) {
                static const char prompt[] =
                    "abc aaaaaa! <New> x\xcc\x81\xcc\xa3 <|EndOfText|> 'll";
                encode(made, prompt, sizeof prompt - 1);
            }
            tokenizer_destroy(&made);
            put(FILES[i][1], CONTENTS[i], strlen(CONTENTS[i]));
        }
    }
    return 0;
}
