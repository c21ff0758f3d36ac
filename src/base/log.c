/* Messages to the engine's callback, and the clock. */
#include "base/base.h"

#include <stdio.h>
#include <time.h>

void log_message(const logger *log, onestep_log_level level, const char *format, ...)
{
    if (log == NULL || log->callback == NULL || level > log->level) {
        return;
    }
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0) {
        return;
    }
    for (char *c = message; *c != '\0'; ++c) {
        if (*c == '\n' || *c == '\r') {
            *c = ' ';
        }
    }
    log->callback(log->user_data, level, message);
}

double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
