/* Tokenizer folders for the tests, in a temporary place. */
#ifndef TESTS_TOKENIZER_FOLDER_H
#define TESTS_TOKENIZER_FOLDER_H

#include "base/base.h"
#include "support/check.h"

/* The temporary folder, made at first use; removed by folder_remove. */
const char *folder_path(void);
int folder_remove(void **state);

/* Writes a file of the folder; NULL removes it. */
void folder_put(const char *name, const char *text);
/* Writes CLIP's vocabulary and merges there (from tests/golden/tokenizer), without other files. */
void folder_put_clip(void);
/* Copies the configs of tests/golden/tokenizer/VARIANT there. */
void folder_put_variant(const char *variant);
/* Writes a vocabulary of the 512 byte symbols (ids 0 to 511), the tokens "ab", "abc</w>" and
 * "bc</w>" (512 to 514), begin and end of text (515, 516), and their merges. */
void folder_put_small(void);

/* A file of tests/golden/tokenizer, inflated when its name ends in .gz; NUL-terminated, released
 * by memory_free. */
char *golden_read(const char *name);

#endif
