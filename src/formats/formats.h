/* formats: bytes <-> named weights, configs and arrays.
 *
 * Reads and writes safetensors, torch.save files (zip + pickle), JSON configs and .npy. Nothing
 * here knows of networks. Every byte of a file is hostile until parsed: memory and time are
 * bounded, and what is wrong is a named error. The limits:
 *
 *   weights        262,144 tensors, rank 8
 *   safetensors    header 16 MiB, 1,024 metadata keys, 64 shards an index
 *   JSON           16 MiB, nesting 32, 1,048,576 values, no duplicate keys, no NUL in strings
 *   torch zip      262,144 entries, stored only, data.pkl 32 MiB
 *   pickle         1,048,576 objects, nesting 64, 4,194,304 values when shared ones are counted
 *                  each time, integers of 64 bits, rank 8; copies of non-contiguous tensors: the
 *                  file's size + 64 MiB
 *   npy            header 64 KiB, rank 8, 1 GiB
 *
 * Files are mapped: one that is made shorter while it is open ends the process (SIGBUS), as with
 * every program that maps its weights. Replace weights by renaming, not by writing over them. */
#ifndef ONESTEP_FORMATS_H
#define ONESTEP_FORMATS_H

#include "base/base.h"

#define TENSOR_RANK_LIMIT 8

/* A tensor in a file: row-major, contiguous, little-endian; `data` may be unaligned. `bytes` is
 * element_size(type) times the product of the shape (rank 0: one element). Bool elements are bytes
 * of any value: non-zero is true. */
typedef struct named_tensor {
    const char *name; /* UTF-8; never NULL ("" for a tensor of a pickle without a name) */
    element_type type;
    unsigned rank;
    size_t shape[TENSOR_RANK_LIMIT];
    const void *data; /* never NULL */
    size_t bytes;
    bool mapped; /* data lies in a file's mapping: mapped_memory_release may be given it */
} named_tensor;

/* The number of elements; 1 for rank 0. */
size_t tensor_element_count(const named_tensor *tensor);
/* "[320, 4, 3, 3]", for messages; cut when the buffer is too small. Returns `buffer`. */
#define TENSOR_SHAPE_TEXT 192
const char *tensor_shape_text(const named_tensor *tensor, char buffer[TENSOR_SHAPE_TEXT]);

/* ---- what a file is ------------------------------------------------------------------------ */

typedef enum weight_kind {
    WEIGHT_KIND_UNKNOWN,
    WEIGHT_KIND_SAFETENSORS,
    WEIGHT_KIND_SAFETENSORS_INDEX, /* JSON that maps names to shards */
    WEIGHT_KIND_TORCH_ZIP,
    WEIGHT_KIND_TORCH_LEGACY /* torch.save before 1.6, or a bare pickle: not read */
} weight_kind;

/* Looks at the first bytes, never at the suffix. Fails only when the file cannot be read. `*hint`
 * (may be NULL) is a constant text: what the file is and, when it is nothing we read, what to do
 * ("a Git LFS pointer, not the weights: run `git lfs pull`"). */
onestep_status weight_file_kind(const char *path, weight_kind *kind, const char **hint,
                                onestep_error *error) MUST_USE;

/* ---- weight files -------------------------------------------------------------------------- */

typedef struct weight_file weight_file;
typedef struct pickle_value pickle_value;

/* Opens a .safetensors file, an index *.safetensors.index.json with its shards (plain file names
 * in the same folder) or a torch.save zip, as its bytes tell. Tensors stay mapped, nothing is read
 * but headers. The object is immutable: any number of threads may read it. */
onestep_status weight_file_open(weight_file **file, const char *path,
                                onestep_error *error) MUST_USE;
void weight_file_close(weight_file **file);

const char *weight_file_path(const weight_file *file);
weight_kind weight_file_opened_kind(const weight_file *file);

/* Tensors in the file's order (shards one after another). In a torch file these are the tensors
 * reached from the top through dicts with string keys; the keys are joined by dots:
 * "state_dict_unet.conv_in.weight". A name that comes out twice is an error at opening. */
size_t weight_file_count(const weight_file *file);
const named_tensor *weight_file_tensor(const weight_file *file, size_t index);
/* NULL when there is none of that name. */
const named_tensor *weight_file_find(const weight_file *file, const char *name);

/* safetensors `__metadata__` (of the first shard that has the key); other files have none. */
size_t weight_file_metadata_count(const weight_file *file);
const char *weight_file_metadata_key(const weight_file *file, size_t index);
const char *weight_file_metadata_value(const weight_file *file, size_t index);
/* NULL when missing. */
const char *weight_file_metadata(const weight_file *file, const char *key);

/* The object that was saved, for torch files; NULL for others. Lives as long as the file. */
const pickle_value *weight_file_root(const weight_file *file);

/* Reads all of a torch file and compares every entry with its CRC-32 (opening does so for the
 * pickle only). safetensors has no checksums: success. */
onestep_status weight_file_verify(const weight_file *file, onestep_error *error) MUST_USE;

/* ---- diffusers folders --------------------------------------------------------------------- */

/* The weights of one component ("BASE/unet"), in memory the caller frees. The first that exists:
 *   diffusion_pytorch_model.safetensors, model.safetensors           (full precision wins)
 *   diffusion_pytorch_model.safetensors.index.json, model.safetensors.index.json
 *   diffusion_pytorch_model.fp16.safetensors, model.fp16.safetensors
 *   diffusion_pytorch_model.safetensors.index.fp16.json, model.safetensors.index.fp16.json
 * The tensors' own types count, not the name. A folder with only .bin or .msgpack weights is an
 * error that says how to convert. */
onestep_status diffusers_find_weights(char **path, const char *component_folder,
                                      onestep_error *error) MUST_USE;

/* ---- writing safetensors ------------------------------------------------------------------- */

/* Writes tensors (names unique, sizes checked) with `metadata_count` pairs key, value (NULL: none)
 * to a temporary name and renames it. Data is ordered by element size, then as given, so that
 * every tensor is aligned to its elements. */
onestep_status safetensors_write(const char *path, const named_tensor *tensors, size_t count,
                                 const char *const (*metadata)[2], size_t metadata_count,
                                 onestep_error *error) MUST_USE;

/* ---- pickle values ------------------------------------------------------------------------- */

typedef enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOLEAN,
    PICKLE_INTEGER,
    PICKLE_FLOAT,
    PICKLE_STRING,
    PICKLE_LIST,
    PICKLE_TUPLE,
    PICKLE_DICT, /* dict and OrderedDict */
    PICKLE_SET,
    PICKLE_TENSOR
} pickle_kind;

/* Values form a tree in which a value may be reached in more than one way (shared), never a cycle;
 * nesting and the total when walked are limited, so that plain recursion is safe.
 * Each accessor must be called on the kind that it names; NULL values have the kind NONE. */
pickle_kind pickle_kind_of(const pickle_value *value);
const char *pickle_kind_name(pickle_kind kind); /* "dict" */
bool pickle_boolean(const pickle_value *value);
int64_t pickle_integer(const pickle_value *value);
double pickle_float(const pickle_value *value);
const char *pickle_string(const pickle_value *value); /* UTF-8, NUL-terminated, no NUL inside */
const named_tensor *pickle_tensor(const pickle_value *value);
/* List, tuple, set and dict (0 for others): elements in the file's order; for a dict the values,
 * and their keys, which are strings, integers or booleans. */
size_t pickle_count(const pickle_value *value);
const pickle_value *pickle_item(const pickle_value *value, size_t index);
const pickle_value *pickle_key(const pickle_value *dict, size_t index);
/* The value under a string key; NULL when missing or when `dict` is no dict. */
const pickle_value *pickle_lookup(const pickle_value *dict, const char *key);
bool pickle_is_ordered_dict(const pickle_value *value);

/* ---- building and writing torch files ------------------------------------------------------ */

/* Owns values for torch_write. A failure (no memory, a value put where it cannot be) is
 * remembered: the calls after it do nothing and torch_write reports it, so that building needs no
 * check at each step. */
typedef struct pickle_tree pickle_tree;

onestep_status pickle_tree_create(pickle_tree **tree, onestep_error *error) MUST_USE;
void pickle_tree_destroy(pickle_tree **tree);

/* New values; NULL after a failure (which every function here accepts). Strings are copied. A
 * tensor's data is borrowed until the tree is destroyed; its name is not used. */
pickle_value *pickle_new_none(pickle_tree *tree);
pickle_value *pickle_new_boolean(pickle_tree *tree, bool value);
pickle_value *pickle_new_integer(pickle_tree *tree, int64_t value);
pickle_value *pickle_new_float(pickle_tree *tree, double value);
pickle_value *pickle_new_string(pickle_tree *tree, const char *value);
pickle_value *pickle_new_tensor(pickle_tree *tree, const named_tensor *tensor);
/* Empty LIST, TUPLE, DICT or SET. What is put into them may come from another tree or an opened
 * file that lives until the tree is written. */
pickle_value *pickle_new_container(pickle_tree *tree, pickle_kind kind);
pickle_value *pickle_new_ordered_dict(pickle_tree *tree);
void pickle_append(pickle_tree *tree, pickle_value *container, const pickle_value *item);
/* The key must be new in the dict. */
void pickle_put(pickle_tree *tree, pickle_value *dict, const char *key, const pickle_value *value);

/* Writes what torch.save(root, path) writes (zip, protocol 2, 64-byte aligned storages, CRCs);
 * torch.load(path, weights_only=True) reads it. Tensors with the same data pointer, type and size
 * share one storage. Written to a temporary name, then renamed. */
onestep_status torch_write(const char *path, pickle_tree *tree, const pickle_value *root,
                           onestep_error *error) MUST_USE;

/* ---- JSON configs -------------------------------------------------------------------------- */

/* A JSON object. Getters name file and key in their errors. A key that is missing or null gives
 * the default (config_require refuses that first); a value of another type, or outside the range,
 * is an error; an integer is welcome where a number is asked for, and 2.0 where an integer is. */
typedef struct config config;

onestep_status config_open(config **settings, const char *path, onestep_error *error) MUST_USE;
/* From memory; `name` stands for the path in errors. */
onestep_status config_parse(config **settings, const char *name, const void *text, size_t length,
                            onestep_error *error) MUST_USE;
void config_close(config **settings);
const char *config_path(const config *settings);

typedef enum config_kind {
    CONFIG_MISSING,
    CONFIG_NULL,
    CONFIG_BOOLEAN,
    CONFIG_INTEGER,
    CONFIG_NUMBER,
    CONFIG_STRING,
    CONFIG_LIST,
    CONFIG_OBJECT
} config_kind;

config_kind config_kind_of(const config *settings, const char *key);
/* Present and not null. */
bool config_has(const config *settings, const char *key);
onestep_status config_require(const config *settings, const char *key,
                              onestep_error *error) MUST_USE;

/* Keys in the file's order; strings live as long as the config. */
size_t config_count(const config *settings);
const char *config_key(const config *settings, size_t index);

onestep_status config_integer(const config *settings, const char *key, int64_t fallback,
                              int64_t minimum, int64_t maximum, int64_t *value,
                              onestep_error *error) MUST_USE;
onestep_status config_number(const config *settings, const char *key, double fallback,
                             double minimum, double maximum, double *value,
                             onestep_error *error) MUST_USE;
onestep_status config_boolean(const config *settings, const char *key, bool fallback, bool *value,
                              onestep_error *error) MUST_USE;
/* `fallback` may be NULL; the string lives as long as the config. */
onestep_status config_string(const config *settings, const char *key, const char *fallback,
                             const char **value, onestep_error *error) MUST_USE;

/* Lists. `*count` holds the capacity of `values` (longer lists are errors), then the length; a
 * missing key leaves the values as they are and sets *count to `fallback_count`: put the defaults
 * there first. */
onestep_status config_integer_list(const config *settings, const char *key, int64_t minimum,
                                   int64_t maximum, int64_t *values, size_t *count,
                                   size_t fallback_count, onestep_error *error) MUST_USE;
onestep_status config_number_list(const config *settings, const char *key, double minimum,
                                  double maximum, double *values, size_t *count,
                                  size_t fallback_count, onestep_error *error) MUST_USE;
onestep_status config_string_list(const config *settings, const char *key, const char **values,
                                  size_t *count, size_t fallback_count,
                                  onestep_error *error) MUST_USE;
/* "A list or one number": fills exactly `count` values, from a list of that length or by repeating
 * one number (`fallback` when missing). */
onestep_status config_integer_each(const config *settings, const char *key, int64_t fallback,
                                   int64_t minimum, int64_t maximum, int64_t *values, size_t count,
                                   onestep_error *error) MUST_USE;
onestep_status config_boolean_each(const config *settings, const char *key, bool fallback,
                                   bool *values, size_t count, onestep_error *error) MUST_USE;

/* An object under a key, or element `index` of the list under a key (which must be an object), as a
 * config of its own that the caller closes, in any order; NULL when the key is missing or null. */
onestep_status config_object(const config *settings, const char *key, config **child,
                             onestep_error *error) MUST_USE;
onestep_status config_list_object(const config *settings, const char *key, size_t index,
                                  config **child, onestep_error *error) MUST_USE;
/* 0 when the key is missing; the list may hold anything. */
onestep_status config_list_length(const config *settings, const char *key, size_t *length,
                                  onestep_error *error) MUST_USE;

/* ---- npy ----------------------------------------------------------------------------------- */

/* Reads an array of f32, f64, f16, i64 or i32 in C order (versions 1 to 3). `tensor->name` is "",
 * `data` is aligned and released by npy_free. */
onestep_status npy_read(named_tensor *tensor, const char *path, onestep_error *error) MUST_USE;
onestep_status npy_parse(named_tensor *tensor, const char *name, const void *bytes, size_t size,
                         onestep_error *error) MUST_USE;
/* NULLs the tensor's data. */
void npy_free(named_tensor *tensor);
/* f32 or i64, version 1; written to a temporary name, then renamed. */
onestep_status npy_write(const char *path, element_type type, unsigned rank, const size_t *shape,
                         const void *data, onestep_error *error) MUST_USE;

#endif
