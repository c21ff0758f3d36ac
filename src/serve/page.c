#include "serve/server.h"

#include <string.h>

static const uint8_t index_html[] = {
#include "index_html.inc"
};
static const uint8_t style_css[] = {
#include "style_css.inc"
};
static const uint8_t main_js[] = {
#include "main_js.inc"
};
static const uint8_t client_js[] = {
#include "client_js.inc"
};
static const uint8_t sketch_js[] = {
#include "sketch_js.inc"
};
static const uint8_t photo_js[] = {
#include "photo_js.inc"
};
static const uint8_t canny_js[] = {
#include "canny_js.inc"
};
static const uint8_t icon_svg[] = {
#include "icon_svg.inc"
};

#define SCRIPT "text/javascript; charset=utf-8"
static const page_file files[] = {
    {"/", "text/html; charset=utf-8", index_html, sizeof index_html},
    {"/style.css", "text/css; charset=utf-8", style_css, sizeof style_css},
    {"/main.js", SCRIPT, main_js, sizeof main_js},
    {"/client.js", SCRIPT, client_js, sizeof client_js},
    {"/sketch.js", SCRIPT, sketch_js, sizeof sketch_js},
    {"/photo.js", SCRIPT, photo_js, sizeof photo_js},
    {"/canny.js", SCRIPT, canny_js, sizeof canny_js},
    {"/icon.svg", "image/svg+xml", icon_svg, sizeof icon_svg},
};

const page_file *page_find(const char *path)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(path, files[i].path) == 0) {
            return &files[i];
        }
    }
    return NULL;
}
