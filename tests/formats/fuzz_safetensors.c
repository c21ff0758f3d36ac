/* safetensors files (and what they are taken for). */
#include "formats/fuzz_walk.h"
#include "formats/weight_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_begin();
    weight_file *file;
    onestep_error error;
    /* Shards of an index would be looked for in a folder that is not there. */
    if (weight_file_parse(&file, "/nonexistent/fuzz", bytes, size, &error) == ONESTEP_OK) {
        fuzz_walk_file(file);
    }
    weight_file_close(&file);
    return 0;
}
