#include "serve/server.h"

#include <string.h>

#include "page_arrays.inc"

static const page_file files[] = {
#include "page_table.inc"
};

static const struct {
    const char *suffix, *type;
} media_types[] = {{".js", "text/javascript; charset=utf-8"},
                   {".css", "text/css; charset=utf-8"},
                   {".svg", "image/svg+xml"},
                   {".png", "image/png"}};

const page_file *page_find(const char *path)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(path, files[i].path) == 0) {
            return &files[i];
        }
    }
    return NULL;
}

const char *page_media_type(const page_file *file)
{
    const char *dot = strrchr(file->path, '.');
    for (size_t i = 0; dot && i < sizeof media_types / sizeof *media_types; i++) {
        if (strcmp(dot, media_types[i].suffix) == 0) {
            return media_types[i].type;
        }
    }
    return "text/html; charset=utf-8";
}
