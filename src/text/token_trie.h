/* Finds added tokens in a text; private to text. */
#ifndef TEXT_TOKEN_TRIE_H
#define TEXT_TOKEN_TRIE_H

#include "base/base.h"

/* A tree of the tokens' bytes, one node a distinct beginning. Zero-initialise. */
typedef struct token_trie {
    struct token_trie_node *nodes;
    size_t count, capacity;
    name_map *children; /* (node, byte) -> node */
    bool begins[256];   /* bytes that a token begins with */
} token_trie;

/* Adds a token (not empty); one that is there keeps its id. */
onestep_status token_trie_add(token_trie *trie, const char *token, size_t length, int32_t id,
                              onestep_error *error) MUST_USE;
void token_trie_free(token_trie *trie);

/* Finds the first token at or after *position, the longest of those that begin there: sets
 * *position to its first byte and gives length and id. False: there is none. */
bool token_trie_find(const token_trie *trie, const char *text, size_t length, size_t *position,
                     size_t *token_length, int32_t *id);

#endif
