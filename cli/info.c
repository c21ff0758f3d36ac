/* onestep info: what a file or folder holds. */
#include "cli/commands.h"
#include "cli/describe.h"
#include "cli/terminal.h"

#include <stdio.h>
#include <stdlib.h>

static const option info_options[] = {{0}};

static int info_run(int argument_count, char **arguments)
{
    options_given given;
    int code;
    if (!command_begin(&given, &info_command, argument_count, arguments, &code)) {
        return code;
    }
    code = EXIT_DONE;
    if (given.operand_count == 0) {
        onestep_error error;
        error_set(&error, ONESTEP_ERROR_ARGUMENT, "which file? onestep info FILE...");
        print_error(&error);
        code = EXIT_USAGE;
    }
    for (size_t i = 0; i < given.operand_count; i++) {
        onestep_error error;
        json_t *object = describe_path(given.operands[i], &error);
        if (!object) {
            print_error(&error);
            code = EXIT_FAILED;
            continue;
        }
        if (options_has(&given, "json")) {
            json_object_set_new(object, "path", json_string(given.operands[i]));
            char *text = json_dumps(object, JSON_COMPACT);
            printf("%s\n", text ? text : "{}");
            free(text);
        } else {
            printf("%s\n", given.operands[i]);
            describe_print(object, 2);
        }
        json_decref(object);
    }
    options_free(&given);
    return code;
}

const command info_command = {
    .name = "info",
    .summary = "describe a picture, checkpoint, weights file, .npy or diffusers folder",
    .operands = "FILE...",
    .examples = "  onestep info out.png             the parameters that made a picture\n"
                "  onestep info edge_to_image_loras.pkl\n"
                "  onestep info --json path/to/sd-turbo\n",
    .options = info_options,
    .run = info_run};
