/* The command line's parser on any arguments: the fuzzer's bytes, divided at NUL, become argv. */
#include "cli/options.c"
#include "cli/translate_options.c"

#include <stdlib.h>

/* The table names it; nothing here runs it. */
int translate_run(int argument_count, char **arguments)
{
    (void)arguments;
    return argument_count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { ARGUMENTS_MOST = 64 };
    char *arguments[ARGUMENTS_MOST], *text = malloc(size + 1);
    int count = 0;
    if (!text) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    for (size_t start = 0; start < size && count < ARGUMENTS_MOST;
         start += strlen(text + start) + 1) {
        arguments[count++] = text + start;
    }
    options_given given;
    onestep_error error = {0};
    if (options_parse(&given, &translate_command, count, arguments, &error)) {
        double *numbers;
        size_t number_count;
        if (options_numbers(&given, "gammas", &numbers, &number_count, &error)) {
            for (size_t i = 0; i < number_count; i++) {
                if (!(numbers[i] >= 0 && numbers[i] <= 1)) {
                    abort();
                }
            }
            memory_free(numbers);
        }
        double gamma = options_number(&given, "gamma", 0.4);
        int64_t threads = options_integer(&given, "threads", 1);
        if (!(gamma >= 0 && gamma <= 1) || threads < 1 || threads > 1024 ||
            (options_has(&given, "memory-limit") &&
             options_bytes(&given, "memory-limit", 0) == 0)) {
            abort();
        }
        options_free(&given);
    } else if (error.code == ONESTEP_OK || !error.message[0]) {
        abort();
    }
    free(text);
    return 0;
}
