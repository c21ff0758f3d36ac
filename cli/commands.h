/* The subcommands. */
#ifndef ONESTEP_CLI_COMMANDS_H
#define ONESTEP_CLI_COMMANDS_H

#include "cli/options.h"

extern const command translate_command, demo_command, bench_command, info_command, models_command,
    serve_command, version_command, completion_command, man_command;

/* All of them, ending with NULL. */
extern const command *const all_commands[];

#endif
