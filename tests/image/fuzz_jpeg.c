/* Reading JPEG files, pixels and texts, whatever their bytes. */
#define FUZZ_FORMAT IMAGE_FORMAT_JPEG
#include "image/fuzz_file.h"
