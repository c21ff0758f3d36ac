/* Reading WebP files, pixels and texts, whatever their bytes. */
#define FUZZ_FORMAT IMAGE_FORMAT_WEBP
#include "image/fuzz_file.h"
