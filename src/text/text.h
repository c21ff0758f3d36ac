/* text: a prompt becomes token ids.
 *
 * CLIP's byte-level BPE as the `transformers` library's fast tokenizer computes it (4.35.2; where
 * versions differ, that one), from the model folder's own files. */
#ifndef ONESTEP_TEXT_H
#define ONESTEP_TEXT_H

#include "base/base.h"

/* Longer prompts are refused. */
#define PROMPT_BYTES_LIMIT ((size_t)1 << 20)

/* Immutable once made: any number of threads may use it. */
typedef struct tokenizer tokenizer;

/* Reads a tokenizer folder ("BASE/tokenizer"): vocab.json and merges.txt, and, when they are
 * there, tokenizer_config.json, special_tokens_map.json and added_tokens.json. */
onestep_status tokenizer_create(tokenizer **made, const char *folder,
                                onestep_error *error) MUST_USE;
void tokenizer_destroy(tokenizer **tokens);

/* The number of ids that every prompt becomes (model_max_length; CLIP's is 77), at least 2. */
size_t tokenizer_length(const tokenizer *tokens);
/* No id is above this one: the text encoder's embedding table must have more entries. */
int32_t tokenizer_largest_id(const tokenizer *tokens);

/* What became of a prompt. It was cut when `kept` is less than `needed`. */
typedef struct prompt_usage {
    size_t needed; /* ids of the whole prompt, without the first and last one that are added */
    size_t kept;   /* of these, how many are among the ids: at most tokenizer_length - 2 */
} prompt_usage;

/* Fills `ids` with tokenizer_length values: the begin-of-text id, the prompt's first ids, the
 * end-of-text id, padding. `prompt` is UTF-8 of `length` bytes and may hold NUL; what is not UTF-8
 * is an error that names the byte. `usage` may be NULL. */
onestep_status tokenizer_encode(const tokenizer *tokens, const char *prompt, size_t length,
                                int32_t *ids, prompt_usage *usage, onestep_error *error) MUST_USE;

#endif
