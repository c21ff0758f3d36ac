#include "tokenizer_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

static char folder[64];

const char *folder_path(void)
{
    if (folder[0] == '\0') {
        snprintf(folder, sizeof folder, "/tmp/onestep-tokenizer-XXXXXX");
        assert_non_null(mkdtemp(folder));
    }
    return folder;
}

int folder_remove(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder_path());
    folder[0] = '\0';
    return system(command);
}

void folder_put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder_path(), name);
    if (text == NULL) {
        (void)unlink(path);
    } else {
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
        assert_int_equal(fclose(file), 0);
    }
}

char *golden_read(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/tokenizer/%s", PROJECT_FOLDER, name);
    gzFile file = gzopen(path, "rb"); /* reads plain files as they are */
    if (file == NULL) {
        fail_msg("%s cannot be opened", path);
    }
    text_buffer text = {0};
    static char part[65536];
    int got;
    while ((got = gzread(file, part, sizeof part)) > 0) {
        text_buffer_append(&text, part, (size_t)got);
    }
    assert_int_equal(got, 0);
    gzclose(file);
    text_buffer_append(&text, "", 0);
    assert_false(text.failed);
    return text.data;
}

static void remove_configs(void)
{
    folder_put("tokenizer_config.json", NULL);
    folder_put("special_tokens_map.json", NULL);
    folder_put("added_tokens.json", NULL);
}

void folder_put_clip(void)
{
    static const char *const names[][2] = {{"vocab.json.gz", "vocab.json"},
                                           {"merges.txt.gz", "merges.txt"}};
    for (size_t i = 0; i < 2; ++i) {
        char *text = golden_read(names[i][0]);
        folder_put(names[i][1], text);
        memory_free(text);
    }
    remove_configs();
}

void folder_put_variant(const char *variant)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json"};
    for (size_t i = 0; i < 2; ++i) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", variant, names[i]);
        char *text = golden_read(path);
        folder_put(names[i], text);
        memory_free(text);
    }
}

void folder_put_small(void)
{
    text_buffer vocabulary = {0};
    text_buffer_print(&vocabulary, "{");
    for (int final = 0; final < 2; ++final) {
        unsigned next = 256;
        for (unsigned byte = 0; byte < 256; ++byte) {
            bool printable =
                (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
            text_buffer_print(&vocabulary, "\"\\u%04x%s\": %u, ", printable ? byte : next++,
                              final ? "</w>" : "", (final ? 256 : 0) + byte);
        }
    }
    text_buffer_print(&vocabulary, "\"ab\": 512, \"abc</w>\": 513, \"bc</w>\": 514, "
                                   "\"<|startoftext|>\": 515, \"<|endoftext|>\": 516}");
    assert_false(vocabulary.failed);
    folder_put("vocab.json", vocabulary.data);
    text_buffer_free(&vocabulary);
    folder_put("merges.txt", "#version: 0.2\na b\nab c</w>\nb c</w>\n");
    remove_configs();
}
