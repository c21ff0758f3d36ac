/* onestep: one program with subcommands. */
#include "cli/commands.h"
#include "cli/terminal.h"

#include <stdio.h>
#include <string.h>

const command *const all_commands[] = {
    &translate_command, &demo_command,    &models_command,     &info_command, &bench_command,
    &serve_command,     &version_command, &completion_command, &man_command,  NULL};

static void print_usage(FILE *stream)
{
    fputs("onestep: one-step image-to-image translation (pix2pix-turbo, CycleGAN-turbo)\n\n"
          "Usage: onestep COMMAND [options]\n\nCommands:\n",
          stream);
    for (const command *const *c = all_commands; *c; c++) {
        fprintf(stream, "  %-10s %s\n", (*c)->name, (*c)->summary);
    }
    fputs("\n`onestep COMMAND --help` tells the options and shows examples.\n"
          "Try `onestep demo` first: it needs no download.\n",
          stream);
}

static int unknown_command(const char *name)
{
    const char *names[32];
    size_t count = 0;
    for (const command *const *c = all_commands; *c && count < 32; c++) {
        names[count++] = (*c)->name;
    }
    const char *near = nearest_name(name, names, count);
    onestep_error error;
    error_set(&error, ONESTEP_ERROR_ARGUMENT, "unknown command \"%.60s\"%s%s%s", name,
              near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    print_error(&error);
    return EXIT_USAGE;
}

int main(int argument_count, char **arguments)
{
    if (argument_count < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    const char *name = arguments[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return EXIT_DONE;
    }
    if (strcmp(name, "--version") == 0) {
        name = "version";
    }
    for (const command *const *c = all_commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0) {
            int code = (*c)->run(argument_count - 2, arguments + 2);
            /* Results that did not reach their reader are a failure. */
            if (fflush(stdout) != 0 && code == EXIT_DONE) {
                code = EXIT_FAILED;
            }
            return code;
        }
    }
    return unknown_command(name);
}
