/* The body of the three picture fuzzers; FUZZ_FORMAT says which. */
#include "image/image.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (image_format_of_bytes(bytes, size) != FUZZ_FORMAT) {
        return -1;
    }
    /* Small, so that time goes into the parsing and not into pixels. */
    static const image_limits limits = {.max_side = 2000, .max_pixels = 20000};
    onestep_image image;
    onestep_error error;
    if (image_decode(&image, bytes, size, &limits, &error) == ONESTEP_OK) {
        /* Every pixel is there to read. */
        unsigned sum = 0;
        for (size_t i = 0; i < image.stride * image.height; i++) {
            sum += ((const uint8_t *)image.pixels)[i];
        }
        if (sum > 255u * image.stride * image.height) {
            abort();
        }
    }
    image_destroy(&image);
    image_metadata metadata = {0};
    if (image_metadata_read(&metadata, bytes, size, &error) == ONESTEP_OK) {
        for (size_t i = 0; i < metadata.count; i++) {
            if (image_metadata_find(&metadata, metadata.entries[i].key) == NULL) {
                abort();
            }
        }
    }
    image_metadata_free(&metadata);
    return 0;
}
