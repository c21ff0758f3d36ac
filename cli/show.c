#include "cli/show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum protocol { PROTOCOL_NONE, PROTOCOL_KITTY, PROTOCOL_ITERM2 } protocol;

static bool environment_is(const char *name, const char *value)
{
    const char *found = getenv(name);
    return found && strcmp(found, value) == 0;
}

static protocol find_protocol(void)
{
    if (environment_is("ONESTEP_SHOW", "kitty")) {
        return PROTOCOL_KITTY;
    }
    if (environment_is("ONESTEP_SHOW", "iterm2")) {
        return PROTOCOL_ITERM2;
    }
    if (!isatty(STDERR_FILENO)) {
        return PROTOCOL_NONE;
    }
    if (getenv("KITTY_WINDOW_ID") || environment_is("TERM", "xterm-kitty") ||
        environment_is("TERM", "xterm-ghostty") || environment_is("TERM_PROGRAM", "ghostty")) {
        return PROTOCOL_KITTY;
    }
    if (environment_is("TERM_PROGRAM", "iTerm.app") || environment_is("LC_TERMINAL", "iTerm2") ||
        environment_is("TERM_PROGRAM", "WezTerm")) {
        return PROTOCOL_ITERM2;
    }
    return PROTOCOL_NONE;
}

bool show_possible(void)
{
    return find_protocol() != PROTOCOL_NONE;
}

static void base64(text_buffer *out, const uint8_t *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size_minimum(size - i, 3);
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? bytes[i + 2] : 0);
        char four[4];
        for (size_t d = 0; d < 4; d++) {
            four[d] = d <= left ? digits[group >> (18 - 6 * d) & 63] : '=';
        }
        text_buffer_append(out, four, sizeof four);
    }
}

onestep_status show_picture(const onestep_image *image, onestep_error *error)
{
    enum { KITTY_CHUNK = 4096 }; /* the most that kitty's protocol takes at once */
    protocol kind = find_protocol();
    uint8_t *bytes;
    size_t size;
    if (kind == PROTOCOL_NONE) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--show: this terminal knows neither kitty's nor iTerm2's pictures");
    }
    onestep_status status = image_encode(&bytes, &size, image, IMAGE_FORMAT_PNG, 0, NULL, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    text_buffer text = {0};
    base64(&text, bytes, size);
    memory_free(bytes);
    if (text.failed) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "--show: no memory for the picture");
    } else if (kind == PROTOCOL_ITERM2) {
        fprintf(stderr, "\033]1337;File=inline=1;size=%zu:%s\a\n", size, text.data);
    } else {
        for (size_t at = 0; at < text.length; at += KITTY_CHUNK) {
            size_t length = size_minimum(text.length - at, KITTY_CHUNK);
            fprintf(stderr, "\033_G%sm=%d;%.*s\033\\", at ? "" : "a=T,f=100,",
                    at + length < text.length, (int)length, text.data + at);
        }
        fputc('\n', stderr);
    }
    text_buffer_free(&text);
    return status;
}
