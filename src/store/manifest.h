/* manifests/NAME.json: what an installed model consists of. */
#ifndef ONESTEP_STORE_MANIFEST_H
#define ONESTEP_STORE_MANIFEST_H

#include "store/files.h"
#include "store/store.h"

/* The manifest that is there, or a new one; NULL with the error set. */
json_t *manifest_open(const char *folder, const char *name, model_kind kind,
                      onestep_error *error) MUST_USE;
/* NULL without an error when there is none. */
json_t *manifest_read(const char *folder, const char *name, onestep_error *error) MUST_USE;
onestep_status manifest_add(json_t *manifest, const char *path, uint64_t bytes, const char *sha256,
                            const char *url, const char *commit, onestep_error *error) MUST_USE;
onestep_status manifest_write(const json_t *manifest, const char *folder, const char *name,
                              onestep_error *error) MUST_USE;
model_kind manifest_kind(const json_t *manifest);
/* FOLDER/bases/NAME/PATH or FOLDER/checkpoints/PATH. */
char *manifest_path(const json_t *manifest, const char *folder, const char *name, const char *path,
                    onestep_error *error) MUST_USE;

#endif
