/* Fetching files over HTTP: several at once, each resumed, retried and checked. */
#ifndef ONESTEP_STORE_TRANSFER_H
#define ONESTEP_STORE_TRANSFER_H

#include "store/files.h"
#include "store/store.h"

/* One file. */
typedef struct transfer {
    const char *url;
    const char *path;  /* gets this name when it is whole and its hash is right */
    const char *token; /* bearer token for the origin of `url`, or NULL */
    uint64_t bytes;    /* the exact size, or 0 */
    uint64_t about_bytes;
    const char *sha256; /* or NULL */
    bool linked_hash;   /* the first answer's X-Linked-Etag and X-Linked-Size are to be believed */
    bool optional;

    /* What came of it. */
    bool missing; /* optional, and the server does not have it */
    char found_sha256[SHA256_TEXT];
    char commit[80]; /* X-Repo-Commit, or "" */
    uint64_t found_bytes, fetched;
} transfer;

/* Fetches all files. On failure the others are given up; their parts stay for the next try. */
onestep_status transfer_run(transfer *list, size_t count, const char *model, uint64_t done_before,
                            const store_pull_options *options, onestep_error *error) MUST_USE;

#endif
