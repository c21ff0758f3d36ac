/* Runs the built program and looks at what it leaves. */
#ifndef TESTS_CLI_PROGRAM_H
#define TESTS_CLI_PROGRAM_H

#include "base/base.h"

typedef struct program_result {
    int exit_code; /* -signal when a signal ended it */
    char out[262144], error[16384];
    size_t out_size;
} program_result;

/* Runs `onestep` with arguments that end with NULL. `input` (or NULL) becomes standard input. */
void program_run(program_result *result, const char *input_path, const char *const *arguments);

/* A fresh folder for a test's files, removed by program_folder_remove. */
void program_folder_make(char folder[64]);
void program_folder_remove(const char *folder);

#endif
