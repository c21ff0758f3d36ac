/* Filling of onestep_error. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

/* A message is one line whatever was formatted into it (a file name may hold a newline). */
static void error_flatten(char *message)
{
    for (char *c = message; *c != '\0'; ++c) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
}

onestep_status error_set(onestep_error *error, onestep_status code, const char *format, ...)
{
    if (error != NULL) {
        /* Formatted aside: an argument may be the old message. */
        char message[sizeof error->message];
        va_list arguments;
        va_start(arguments, format);
        int length = vsnprintf(message, sizeof message, format, arguments);
        va_end(arguments);
        if (length < 0) {
            message[0] = '\0';
        }
        error_flatten(message);
        error->code = code;
        memcpy(error->message, message, sizeof message);
    }
    return code;
}

/* Appends what fits to a NUL-terminated text. */
static void text_append(char *text, size_t capacity, const char *more)
{
    size_t used = strlen(text);
    size_t length = size_minimum(strlen(more), capacity - 1 - used);
    memcpy(text + used, more, length);
    text[used + length] = '\0';
}

void error_prefix(onestep_error *error, const char *format, ...)
{
    if (error == NULL) {
        return;
    }
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0) {
        return;
    }
    text_append(message, sizeof message, ": ");
    text_append(message, sizeof message, error->message);
    error_flatten(message);
    memcpy(error->message, message, sizeof message);
}
