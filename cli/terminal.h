/* What the program says: errors and progress to stderr, results to stdout. */
#ifndef ONESTEP_CLI_TERMINAL_H
#define ONESTEP_CLI_TERMINAL_H

#include "cli/options.h"

/* Exit codes of every subcommand. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* 2 for an invalid argument, 1 for any other failure. */
int exit_code(onestep_status status);

/* "onestep: error: ..." on stderr, in red on a terminal (NO_COLOR is honoured). */
void print_error(const onestep_error *error);
void print_warning(const char *format, ...) PRINTF_LIKE(1, 2);
/* A note that --quiet silences. */
void print_note(const options_given *given, const char *format, ...) PRINTF_LIKE(2, 3);

/* A log callback for onestep_engine_options: warnings always, the rest with --verbose. */
void print_log(void *user_data, onestep_log_level level, const char *message);

/* Parses a subcommand's options; --help and mistakes end here: returns true when the command shall
 * run, else with *code set. */
bool command_begin(options_given *given, const command *cmd, int argument_count, char **arguments,
                   int *code);

/* A bar that moves on a terminal and stays silent elsewhere. */
typedef struct progress_bar {
    bool enabled;
    double start, drawn; /* seconds */
    double from;         /* the fraction that was done when the clock started */
    size_t width;        /* of what stands on the line */
} progress_bar;

void progress_start(progress_bar *bar, const options_given *given);
/* `label` stands left of the bar. */
void progress_draw(progress_bar *bar, double fraction, const char *label);
/* Clears the line. */
void progress_end(progress_bar *bar);

/* Ctrl-C, SIGTERM and SIGHUP set a flag instead of ending the process, so that work can be undone.
 */
void interrupt_catch(void);
bool interrupted(void);
/* Ends the process by the signal that came, after everything was cleaned up. */
void interrupt_finish(void);

/* "1.2 GB" */
typedef struct size_text {
    char text[24];
} size_text;
size_text bytes_text(uint64_t bytes);

/* Largest resident memory so far, in bytes. */
uint64_t peak_resident_bytes(void);

#endif
