/* The tokenizer's contents; private to text. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "text/byte_pair.h"
#include "text/text.h"
#include "text/token_trie.h"

struct tokenizer {
    size_t length;
    int32_t largest_id;
    int32_t begin, end, padding;
    int32_t unknown;        /* stands for bytes without a token; -1: there is none */
    int32_t byte_ids[256];  /* of a byte inside a word; -1: none */
    int32_t final_ids[256]; /* of a word's last byte */
    merge_table merges;
    token_trie raw_tokens;    /* cut out of the prompt as it is */
    token_trie normal_tokens; /* cut out of its normal form */
};

/* Fills a zeroed tokenizer; on failure what was filled is the caller's to release. */
onestep_status tokenizer_read_folder(tokenizer *made, const char *folder,
                                     onestep_error *error) MUST_USE;

#endif
