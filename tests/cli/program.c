#include "program.h"
#include "support/check.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t read_whole(FILE *file, char *text, size_t size)
{
    rewind(file);
    size_t length = fread(text, 1, size - 1, file);
    text[length] = '\0';
    return length;
}

void program_run(program_result *result, const char *input_path, const char *const *arguments)
{
    FILE *out = tmpfile(), *error = tmpfile();
    assert_non_null(out);
    assert_non_null(error);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const char *argv[64] = {"onestep"};
        int count = 1;
        while (arguments[count - 1] && count < 63) {
            argv[count] = arguments[count - 1];
            count++;
        }
        int input = open(input_path ? input_path : "/dev/null", O_RDONLY);
        dup2(input, STDIN_FILENO);
        dup2(fileno(out), STDOUT_FILENO);
        dup2(fileno(error), STDERR_FILENO);
        execv(PROGRAM, (char *const *)argv);
        _exit(127);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    result->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    result->out_size = read_whole(out, result->out, sizeof result->out);
    read_whole(error, result->error, sizeof result->error);
    fclose(out);
    fclose(error);
}

void program_folder_make(char folder[64])
{
    snprintf(folder, 64, "/tmp/onestep-cli-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

void program_folder_remove(const char *folder)
{
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
