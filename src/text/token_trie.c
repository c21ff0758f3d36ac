#include "text/token_trie.h"

#include <string.h>

typedef struct token_trie_node {
    bool ends; /* a token ends here */
    int32_t id;
} token_trie_node;

/* The root is node 0. */
static onestep_status add_node(token_trie *trie, onestep_error *error)
{
    if (trie->count == trie->capacity) {
        size_t capacity = size_maximum(trie->capacity * 2, 64);
        token_trie_node *nodes = memory_resize(trie->nodes, capacity, sizeof *nodes, error);
        if (nodes == NULL) {
            return ONESTEP_ERROR_MEMORY;
        }
        trie->nodes = nodes;
        trie->capacity = capacity;
    }
    trie->nodes[trie->count++] = (token_trie_node){0};
    return ONESTEP_OK;
}

typedef struct edge {
    char bytes[5];
} edge;

static edge edge_of(uint32_t node, char byte)
{
    edge made;
    memcpy(made.bytes, &node, sizeof node);
    made.bytes[4] = byte;
    return made;
}

onestep_status token_trie_add(token_trie *trie, const char *token, size_t length, int32_t id,
                              onestep_error *error)
{
    onestep_status status = ONESTEP_OK;
    if (trie->children == NULL) {
        status = name_map_create(&trie->children, error);
    }
    if (status == ONESTEP_OK && trie->count == 0) {
        status = add_node(trie, error);
    }
    uint32_t node = 0;
    for (size_t i = 0; i < length && status == ONESTEP_OK; ++i) {
        edge step = edge_of(node, token[i]);
        uint32_t child;
        if (!name_map_get(trie->children, step.bytes, sizeof step.bytes, &child)) {
            child = (uint32_t)trie->count;
            status = add_node(trie, error);
            if (status == ONESTEP_OK) {
                status = name_map_put(trie->children, step.bytes, sizeof step.bytes, child, error);
            }
        }
        node = child;
    }
    if (status == ONESTEP_OK && !trie->nodes[node].ends) {
        trie->nodes[node] = (token_trie_node){.ends = true, .id = id};
        trie->begins[(uint8_t)token[0]] = true;
    }
    return status;
}

void token_trie_free(token_trie *trie)
{
    name_map_destroy(&trie->children);
    memory_free(trie->nodes);
    *trie = (token_trie){0};
}

bool token_trie_find(const token_trie *trie, const char *text, size_t length, size_t *position,
                     size_t *token_length, int32_t *id)
{
    for (size_t first = *position; first < length; ++first) {
        if (!trie->begins[(uint8_t)text[first]]) {
            continue;
        }
        size_t longest = 0;
        uint32_t node = 0;
        for (size_t i = first; i < length; ++i) {
            edge step = edge_of(node, text[i]);
            if (!name_map_get(trie->children, step.bytes, sizeof step.bytes, &node)) {
                break;
            }
            if (trie->nodes[node].ends) {
                longest = i + 1 - first;
                *id = trie->nodes[node].id;
            }
        }
        if (longest > 0) {
            *position = first;
            *token_length = longest;
            return true;
        }
    }
    return false;
}
