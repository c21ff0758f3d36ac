/* Files of the store: hashing, copying, locks, JSON. */
#ifndef ONESTEP_STORE_FILES_H
#define ONESTEP_STORE_FILES_H

#include "base/base.h"

#include <jansson.h>

#define SHA256_TEXT 65

/* The SHA-256 of a whole file in lower-case hexadecimal digits. `stop` (may be NULL) is asked
 * between blocks; a non-zero answer cancels. */
onestep_status sha256_file(const char *path, char text[SHA256_TEXT], int (*stop)(void *),
                           void *user_data, onestep_error *error) MUST_USE;
bool sha256_valid(const char *text);

/* Copies a file and flushes it; shares the blocks where the file system can. */
onestep_status file_copy(const char *from, const char *to, onestep_error *error) MUST_USE;
onestep_status file_flush(const char *path, onestep_error *error) MUST_USE;
/* 0 for a file that is not there. */
uint64_t file_bytes(const char *path);
/* Bytes that the file system of an existing folder has left for this user. */
uint64_t disk_free(const char *folder);
/* Makes the folder that holds `path`. */
onestep_status parent_create(const char *path, onestep_error *error) MUST_USE;
onestep_status tree_remove(const char *path, uint64_t *bytes, onestep_error *error) MUST_USE;
onestep_status path_rename(const char *from, const char *to, onestep_error *error) MUST_USE;

/* An object from a file of at most 4 MiB; NULL with the error set. */
json_t *json_read(const char *path, onestep_error *error) MUST_USE;
onestep_status json_write(const char *path, const json_t *object, onestep_error *error) MUST_USE;
/* A string member, or NULL. */
const char *json_text(const json_t *object, const char *key);

/* Holds FOLDER/locks/NAME.lock until store_unlock; the system frees it when the process ends.
 * `waiting` (may be NULL) is called once when another process has it. */
onestep_status store_lock(int *lock, const char *folder, const char *name,
                          void (*waiting)(void *user_data, const char *message), void *user_data,
                          onestep_error *error) MUST_USE;
void store_unlock(int lock);

#endif
