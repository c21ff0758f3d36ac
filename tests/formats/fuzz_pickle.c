/* Pickle programs, over storages of any type and up to 4096 elements; what could be read is
 * written again. */
#include "formats/fuzz_walk.h"
#include "formats/pickle.h"
#include "formats/pickle_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static onestep_status find_storage(void *context, const char *key, element_type type, size_t count,
                                   const uint8_t **data, onestep_error *error)
{
    static const uint8_t zeros[4096 * 8];
    (void)context;
    if (strlen(key) > 3 || count > 4096 || element_size(type) > 8) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "no storage %s", key);
    }
    /* The end of the block is the end of the storage, so that ASan sees what reaches beyond. */
    *data = zeros + sizeof(zeros) - count * element_size(type);
    return ONESTEP_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_begin();
    const pickle_storage_source source = {.find = find_storage, .copy_limit = 1 << 20};
    pickle_tree *tree;
    const pickle_value *root;
    onestep_error error;
    if (pickle_interpret(&tree, &root, bytes, size, &source, &error) == ONESTEP_OK) {
        fuzz_walk_value(root, 0);
        pickle_stream stream = {0};
        fuzz_require(pickle_write(&stream, root, &error) == ONESTEP_OK);
        pickle_tree *again;
        const pickle_value *same;
        onestep_status status = pickle_interpret(&again, &same, (const uint8_t *)stream.bytes.data,
                                                 stream.bytes.length, &source, &error);
        /* The number of its storages may have four digits, for which there is none here. */
        fuzz_require(status == ONESTEP_OK || stream.storage_count > 1000);
        pickle_tree_destroy(&again);
        pickle_stream_free(&stream);
    }
    pickle_tree_destroy(&tree);
    return 0;
}
