/* Reading PNG files, pixels and texts, whatever their bytes. */
#define FUZZ_FORMAT IMAGE_FORMAT_PNG
#include "image/fuzz_file.h"
