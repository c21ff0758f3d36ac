/* JSON bodies. */
#include "serve/fuzz_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_request("application/json", bytes, size);
    return 0;
}
