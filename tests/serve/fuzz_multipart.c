/* multipart/form-data bodies; the first line is the content type. */
#include "serve/fuzz_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char type[300];
    const uint8_t *line = memchr(bytes, '\n', size);
    size_t length = line ? (size_t)(line - bytes) : 0;
    if (!line || length >= sizeof type) {
        return 0;
    }
    memcpy(type, bytes, length);
    type[length] = '\0';
    /* A copy of its own size, so that reading beyond it shows. */
    size_t left = size - length - 1;
    uint8_t *body = memory_allocate(left, 1, NULL);
    if (body) {
        memcpy(body, line + 1, left);
        fuzz_request(type, body, left);
    }
    memory_free(body);
    return 0;
}
