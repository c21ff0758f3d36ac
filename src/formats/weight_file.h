/* What the readers of weight files fill in. */
#ifndef FORMATS_WEIGHT_FILE_H
#define FORMATS_WEIGHT_FILE_H

#include "formats/arena.h"
#include "formats/formats.h"
#include "formats/tensor.h"
#include "formats/zip.h"

#define WEIGHT_TENSOR_LIMIT   ((size_t)262144)
#define WEIGHT_SHARD_LIMIT    ((size_t)64)
#define WEIGHT_METADATA_LIMIT ((size_t)1024)
/* Memory for names and headers of one file. */
#define WEIGHT_MEMORY_LIMIT ((size_t)256 * 1024 * 1024)

typedef struct weight_metadata {
    const char *key, *value;
} weight_metadata;

struct weight_file {
    char *path;
    weight_kind kind;
    mapped_file maps[WEIGHT_SHARD_LIMIT + 1]; /* the file itself first */
    size_t map_count;
    arena memory; /* names, metadata */
    named_tensor *tensors;
    size_t count, capacity;
    name_map *names; /* name -> index */
    weight_metadata *metadata;
    size_t metadata_count, metadata_capacity;
    zip_archive *archive; /* torch files */
    pickle_tree *tree;
    const pickle_value *root;
};

/* Parses bytes that outlive the file; `name` stands for the path. An index cannot be read so: its
 * shards are files. */
onestep_status weight_file_parse(weight_file **file, const char *name, const uint8_t *bytes,
                                 size_t size, onestep_error *error) MUST_USE;

/* Adds a tensor; copies its name. A name that is there already is an error. */
onestep_status weight_file_add(weight_file *file, const named_tensor *tensor, const char *name,
                               size_t name_length, onestep_error *error) MUST_USE;
/* Adds a copied pair, unless the key is there. */
onestep_status weight_file_add_metadata(weight_file *file, const char *key, const char *value,
                                        onestep_error *error) MUST_USE;

/* detect.c: what the bytes are. `*hint` as in weight_file_kind. */
weight_kind weight_bytes_kind(const uint8_t *bytes, size_t size, const char **hint);

/* safetensors.c: adds the tensors and metadata of one file, whose kind has been found to be that.
 */
onestep_status safetensors_read(weight_file *file, const uint8_t *bytes, size_t size,
                                onestep_error *error) MUST_USE;
/* safetensors_index.c: maps and adds every shard of an index. */
onestep_status safetensors_index_read(weight_file *file, const char *path, const uint8_t *bytes,
                                      size_t size, onestep_error *error) MUST_USE;
/* torch_reader.c: fills archive, tree and root, and adds the tensors. */
onestep_status torch_read(weight_file *file, const uint8_t *bytes, size_t size,
                          onestep_error *error) MUST_USE;

#endif
