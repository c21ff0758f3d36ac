/* .npy arrays. */
#include "formats/fuzz_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_begin();
    named_tensor tensor;
    onestep_error error;
    if (npy_parse(&tensor, "fuzz.npy", bytes, size, &error) == ONESTEP_OK) {
        fuzz_walk_tensor(&tensor);
    }
    npy_free(&tensor);
    return 0;
}
