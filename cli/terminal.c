#include "cli/terminal.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int exit_code(onestep_status status)
{
    return status == ONESTEP_OK               ? EXIT_DONE
           : status == ONESTEP_ERROR_ARGUMENT ? EXIT_USAGE
                                              : EXIT_FAILED;
}

static bool stderr_has_colour(void)
{
    const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(STDERR_FILENO) && !(no_colour && *no_colour) &&
           !(terminal && strcmp(terminal, "dumb") == 0);
}

void print_error(const onestep_error *error)
{
    bool colour = stderr_has_colour();
    fprintf(stderr, "onestep: %serror:%s %s\n", colour ? "\033[1;31m" : "", colour ? "\033[0m" : "",
            error->message);
}

void print_warning(const char *format, ...)
{
    bool colour = stderr_has_colour();
    fprintf(stderr, "onestep: %swarning:%s ", colour ? "\033[1;33m" : "", colour ? "\033[0m" : "");
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

void print_note(const options_given *given, const char *format, ...)
{
    if (options_has(given, "quiet")) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

void print_log(void *user_data, onestep_log_level level, const char *message)
{
    (void)user_data;
    if (level <= ONESTEP_LOG_WARNING) {
        print_warning("%s", message);
    } else {
        fprintf(stderr, "%s\n", message);
    }
}

bool command_begin(options_given *given, const command *cmd, int argument_count, char **arguments,
                   int *code)
{
    onestep_error error;
    if (!options_parse(given, cmd, argument_count, arguments, &error)) {
        print_error(&error);
        fprintf(stderr, "See `onestep %s --help`.\n", cmd->name);
        *code = EXIT_USAGE;
        return false;
    }
    if (options_has(given, "help")) {
        text_buffer help = {0};
        options_print_help(cmd, &help);
        fputs(help.data ? help.data : "", stdout);
        text_buffer_free(&help);
        options_free(given);
        *code = EXIT_DONE;
        return false;
    }
    return true;
}

/* ---- progress
 * ------------------------------------------------------------------------------------ */

void progress_start(progress_bar *bar, const options_given *given)
{
    *bar = (progress_bar){.enabled = isatty(STDERR_FILENO) && !options_has(given, "quiet") &&
                                     !options_has(given, "json"),
                          .start = monotonic_seconds()};
}

void progress_draw(progress_bar *bar, double fraction, const char *label)
{
    enum { CELLS = 24 };
    double now = monotonic_seconds();
    if (!bar->enabled || (now - bar->drawn < 0.1 && fraction < 1)) {
        return;
    }
    bar->drawn = now;
    char cells[CELLS + 1], left[40] = "";
    int filled = (int)(fraction * CELLS);
    for (int i = 0; i < CELLS; i++) {
        cells[i] = i < filled ? '#' : '.';
    }
    cells[CELLS] = '\0';
    double elapsed = now - bar->start;
    double gained = fraction - bar->from;
    if (elapsed > 0.5 && gained > 0.0005) {
        double seconds = elapsed * (1 - fraction) / gained;
        if (seconds < 100) {
            snprintf(left, sizeof left, "  %.0f s left", seconds);
        } else if (seconds < 6000) {
            snprintf(left, sizeof left, "  %.0f min left", seconds / 60);
        } else {
            snprintf(left, sizeof left, "  %.1f h left", seconds / 3600);
        }
    }
    char line[200];
    int length =
        snprintf(line, sizeof line, "%.60s [%s] %3.0f %%%s", label, cells, fraction * 100, left);
    size_t width = length > 0 ? size_minimum((size_t)length, sizeof line - 1) : 0;
    int blank = bar->width > width ? (int)(bar->width - width) : 0;
    fprintf(stderr, "\r%s%*s", line, blank, "");
    fflush(stderr);
    bar->width = width;
}

void progress_end(progress_bar *bar)
{
    if (bar->enabled && bar->width) {
        fprintf(stderr, "\r%*s\r", (int)bar->width, "");
        fflush(stderr);
        bar->width = 0;
    }
}

/* ---- interruption
 * -------------------------------------------------------------------------------- */

/* A signal handler has nowhere else to leave its mark. */
static volatile sig_atomic_t caught_signal;

static void note_signal(int number)
{
    caught_signal = number;
}

void interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = note_signal};
    sigemptyset(&action.sa_mask);
    /* A second Ctrl-C ends the process at once. */
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool interrupted(void)
{
    return caught_signal != 0;
}

void interrupt_finish(void)
{
    if (caught_signal) {
        signal(caught_signal, SIG_DFL);
        raise(caught_signal);
    }
}

/* ---- texts
 * --------------------------------------------------------------------------------------- */

size_text bytes_text(uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit < 4) {
        value /= 1000;
        unit++;
    }
    size_text result;
    snprintf(result.text, sizeof result.text, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value,
             units[unit]);
    return result;
}

uint64_t peak_resident_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}
