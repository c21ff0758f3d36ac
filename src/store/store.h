/* store: where models come from and where they lie.
 *
 * A catalogue names models with their addresses and licences. The store is a folder:
 *
 *   bases/NAME/          a diffusers folder
 *   checkpoints/FILE     a .pkl or .safetensors file
 *   manifests/NAME.json  files, sizes and SHA-256 of an installed model
 *   incoming/NAME/       what is being fetched; a file without .part is complete and verified
 *   locks/NAME.lock      held while a process pulls, imports or removes the model
 *
 * A file gets its final name only after its length and hash were checked, so that a process that
 * ends at any moment leaves whole files and parts that the next pull continues. Belongs to the
 * program: the library links neither this folder nor libcurl. */
#ifndef ONESTEP_STORE_H
#define ONESTEP_STORE_H

#include "base/base.h"

/* ---- catalogue ---------------------------------------------------------------------------- */

typedef enum model_kind { MODEL_BASE, MODEL_CHECKPOINT } model_kind;

typedef enum file_variant {
    VARIANT_ANY,  /* always needed */
    VARIANT_HALF, /* fp16 weights */
    VARIANT_FULL  /* fp32 weights */
} file_variant;

typedef struct catalogue_file {
    const char *path; /* inside the model's folder; of a checkpoint: its name */
    file_variant variant;
    uint64_t bytes;       /* the exact size, or 0 when it is not known */
    uint64_t about_bytes; /* for estimates; `bytes` where that is known */
    const char *sha256;   /* 64 lower-case hexadecimal digits, or NULL */
    bool optional;        /* a server that does not have it is no error */
} catalogue_file;

typedef struct catalogue_model {
    const char *name;
    model_kind kind;
    const char *summary;
    const char *licence, *licence_url, *licence_note; /* the last two may be NULL */
    const char *needs;                                /* a base model's name, or NULL */
    const char *url;                                  /* of the folder that holds the files */
    const char *huggingface, *revision;               /* "owner/name", instead of `url` */
    catalogue_file *files;
    size_t file_count;
} catalogue_model;

typedef struct catalogue catalogue;

/* The built-in catalogue with the entries of `user_file` (NULL or missing: none) added; an entry
 * of a name that is there already replaces it. At most 1 MiB and 1,024 models. */
onestep_status catalogue_open(catalogue **c, const char *user_file, onestep_error *error) MUST_USE;
void catalogue_close(catalogue **c);
size_t catalogue_count(const catalogue *c);
const catalogue_model *catalogue_at(const catalogue *c, size_t index);
/* NULL when there is none of that name. */
const catalogue_model *catalogue_find(const catalogue *c, const char *name);
/* Bytes to fetch for the half or full variant, about. */
uint64_t catalogue_bytes(const catalogue_model *model, bool full);
/* Whether a name can be a file name of the store: letters, digits, '.', '_', '-', no leading dot.
 */
bool store_name_valid(const char *name);

/* ---- the store ---------------------------------------------------------------------------- */

typedef enum model_state { MODEL_ABSENT, MODEL_PARTIAL, MODEL_PRESENT } model_state;

/* Looks at the files: PRESENT when all files of the variant are there (fp32 weights serve where
 * fp16 ones are asked for) or the model was imported; PARTIAL when a pull was interrupted.
 * `*bytes` (may be NULL): on disk. */
model_state store_state(const char *folder, const catalogue_model *model, bool full,
                        uint64_t *bytes);
/* FOLDER/bases/NAME or FOLDER/checkpoints/FILE, whether it is there or not. */
char *store_model_path(const char *folder, const catalogue_model *model,
                       onestep_error *error) MUST_USE;
/* The path of an installed model by its name, also of one that was imported; NULL with the error
 * set when it is not there. `c` may be NULL. */
char *store_find(const char *folder, const catalogue *c, const char *name,
                 onestep_error *error) MUST_USE;

/* Called for every model that has a manifest, in the order of their names. */
typedef void (*store_visit)(void *user_data, const char *name, model_kind kind, uint64_t bytes,
                            bool imported);
onestep_status store_each(const char *folder, store_visit visit, void *user_data,
                          onestep_error *error) MUST_USE;

typedef struct store_progress {
    const char *model, *file; /* `file`: one of those under way, or NULL */
    uint64_t done, total;     /* bytes; the total is an estimate until every server has answered */
    double bytes_per_second;  /* over the last seconds; 0 while nothing arrives */
} store_progress;

typedef struct store_pull_options {
    bool full;                     /* fp32 instead of fp16 weights */
    bool offline;                  /* only what is on this machine */
    const char *url;               /* instead of the catalogue's address, or NULL */
    const char *endpoint;          /* of Hugging Face; NULL: https://huggingface.co */
    const char *token;             /* for `endpoint`, or NULL; never sent to another host */
    const char *certificates;      /* a file of CA certificates; NULL: the system's */
    const char *huggingface_cache; /* the folder "hub" of Hugging Face's cache, or NULL */
    unsigned parallel;             /* files at once; 0: 4 */
    unsigned retries;              /* of a file that makes no headway */
    double first_delay;            /* seconds before the first retry; doubles up to 60 */
    double stall_seconds;          /* a connection that is silent so long is given up */
    /* Both may be NULL. A non-zero answer stops the pull, which then fails as cancelled; what was
     * fetched stays for the next one. */
    int (*progress)(void *user_data, const store_progress *progress);
    void (*note)(void *user_data, const char *message);
    void *user_data;
} store_pull_options;

/* retries 8, first_delay 1, stall_seconds 30, the rest zero. */
void store_pull_options_init(store_pull_options *options);
/* Fetches a model (not the base that it needs) and installs it. `*fetched` (may be NULL): bytes
 * that came over the network. A model that is there is success. */
onestep_status store_pull(const char *folder, const catalogue_model *model,
                          const store_pull_options *options, uint64_t *fetched,
                          onestep_error *error) MUST_USE;

/* Copies a diffusers folder or a checkpoint file into the store under `name`. The caller has
 * checked what it is. */
onestep_status store_import(const char *folder, const catalogue *c, const char *name,
                            model_kind kind, const char *path, onestep_error *error) MUST_USE;

/* Deletes an installed model and what was fetched of it. `*bytes` (may be NULL): what that freed.
 * A model that is not there is an error. */
onestep_status store_remove(const char *folder, const catalogue *c, const char *name,
                            uint64_t *bytes, onestep_error *error) MUST_USE;

/* `problem` is NULL for a file that is as it was installed. */
typedef void (*store_verified)(void *user_data, const char *model, const char *path, uint64_t bytes,
                               const char *problem);
/* Reads every file of a model (NULL: of all) again and compares sizes and hashes. `*bad` counts
 * the files that are damaged or missing. */
onestep_status store_verify(const char *folder, const char *name, store_verified visit,
                            void *user_data, size_t *bad, onestep_error *error) MUST_USE;

#endif
