/* Completion and manual pages, made from the option tables. */
#include "program.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>

static program_result last;

#define RUN(code, ...)                                                                             \
    do {                                                                                           \
        program_run(&last, NULL, (const char *const[]){__VA_ARGS__, NULL});                        \
        assert_int_equal(last.exit_code, code);                                                    \
    } while (0)

static void test_completion(void **state)
{
    (void)state;
    RUN(0, "completion", "zsh");
    check_contains(last.out, "#compdef onestep");
    check_contains(last.out, "--image-prep[");
    RUN(0, "completion", "fish");
    check_contains(last.out, "-l precision -x -a 'auto f32 bf16 int16'");
    RUN(0, "completion", "bash");
    check_contains(last.out, "--posterior-noise");
    RUN(2, "completion");
    RUN(2, "completion", "tcsh");
}

/* What bash itself makes of it. */
static void test_bash(void **state)
{
    (void)state;
    static const struct {
        const char *words, *expected;
        int index;
    } cases[] = {{"onestep tra", "translate", 1},
                 {"onestep models pul", "pull", 2},
                 {"onestep translate -t day", "day_to_night", 3},
                 {"onestep translate --model_name day", "day_to_night", 3},
                 {"onestep translate --memory", "--memory-limit", 2},
                 {"onestep completion f", "fish", 2},
                 {"onestep translate -i x", "", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[1024], line[256] = "";
        snprintf(command, sizeof command,
                 "bash -c 'source <(%s completion bash) && COMP_WORDS=(%s) COMP_CWORD=%d && "
                 "_onestep && echo \"${COMPREPLY[*]}\"'",
                 PROGRAM, cases[i].words, cases[i].index);
        FILE *pipe = popen(command, "r");
        assert_non_null(pipe);
        char *read = fgets(line, sizeof line, pipe);
        int status = pclose(pipe);
        line[strcspn(line, "\n")] = '\0';
        if (status != 0 && !*cases[i].expected) {
            continue; /* no words: the function's last test says so */
        }
        assert_non_null(read);
        assert_string_equal(line, cases[i].expected);
    }
}

static void test_manual(void **state)
{
    (void)state;
    RUN(0, "man");
    check_contains(last.out, ".BR onestep\\-models (1)");
    RUN(0, "man", "translate");
    check_contains(last.out, "\\fB\\-\\-lora\\-alpha\\-unet\\fR");
    check_contains(last.out, ".SH EXAMPLES");
    RUN(2, "man", "nothing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completion),
        cmocka_unit_test(test_bash),
        cmocka_unit_test(test_manual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
