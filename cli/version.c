/* onestep version */
#include "cli/commands.h"
#include "cli/terminal.h"
#include "translate/translate.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const option version_options[] = {{0}};

static int version_run(int argument_count, char **arguments)
{
    options_given given;
    int code;
    if (!command_begin(&given, &version_command, argument_count, arguments, &code)) {
        return code;
    }
    cpu_features cpu;
    cpu_features_detect(&cpu);
#ifdef NDEBUG
    const char *build = "release";
#else
    const char *build = "debug";
#endif
    if (options_has(&given, "json")) {
        json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "version",
                                   onestep_version(), "build", build, "compiler", __VERSION__,
                                   "cpu", cpu.model, "isa", cpu_level_name(cpu.level), "threads",
                                   (int)thread_default_count(), "jansson", jansson_version_str());
        char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
        printf("%s\n", text ? text : "{}");
        free(text);
        json_decref(object);
    } else {
        printf("onestep %s (%s build, compiler %s)\n", onestep_version(), build, __VERSION__);
        printf("CPU: %s, instruction set in use: %s, %u threads\n",
               *cpu.model ? cpu.model : "unknown", cpu_level_name(cpu.level),
               thread_default_count());
        printf("Libraries: jansson %s; PNG, JPEG, WebP, Unicode and zlib as installed\n",
               jansson_version_str());
        printf("Licence: MIT\n");
    }
    options_free(&given);
    return EXIT_DONE;
}

const command version_command = {.name = "version",
                                 .summary = "version, build options, CPU features, libraries",
                                 .operands = "",
                                 .examples = "  onestep version --json\n",
                                 .options = version_options,
                                 .run = version_run};
