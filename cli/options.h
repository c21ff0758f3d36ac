/* Command-line options: one table a subcommand drives the parser, --help, man pages, completion
 * and, for translate, the fields of HTTP requests and the parameters stored in pictures. */
#ifndef ONESTEP_CLI_OPTIONS_H
#define ONESTEP_CLI_OPTIONS_H

#include "base/base.h"

typedef enum option_kind {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_PATH,
    OPTION_CHOICE,  /* one of `choices` */
    OPTION_INTEGER, /* from `least` to `most` */
    OPTION_NUMBER,  /* finite, from `least` to `most` */
    OPTION_NUMBERS, /* a list of such, divided by commas */
    OPTION_BYTES    /* 500M, 1.5G: K, M, G, T are powers of 1024 */
} option_kind;

enum {
    OPTION_REPEATS = 1, /* may be given several times */
    OPTION_STORED = 2,  /* a parameter that a PNG keeps and --like takes */
    OPTION_HTTP = 4,    /* a field of POST /v1/translate */
    OPTION_OFFICIAL = 8 /* listed under the official name's spelling only */
};

typedef struct option {
    const char *name;     /* long name with hyphens */
    char letter;          /* or 0 */
    const char *official; /* the official scripts' name with underscores, or NULL */
    option_kind kind;
    unsigned flags;
    const char *argument; /* "FILE", for help */
    const char *choices;  /* "a|b|c" */
    double least, most;
    const char *help; /* one sentence; may hold newlines */
} option;

/* A subcommand. */
typedef struct command {
    const char *name;
    const char *summary;  /* one line */
    const char *operands; /* "", "FILE...", for usage */
    /* A shell command that prints the names that later operands may have, for completion; or NULL
     */
    const char *operand_names;
    const char *examples;  /* lines */
    const option *options; /* ends with a NULL name */
    int (*run)(int argument_count, char **arguments);
} command;

/* Options that every subcommand has: --help, --quiet, --verbose, --json. */
extern const option common_options[];

/* Values by option, in the order given, and operands. Texts point into argv or are owned. */
typedef struct option_value {
    const option *option;
    const char *text;   /* NULL for a flag */
    bool official_name; /* was given by its official name */
    char *owned;
} option_value;

typedef struct options_given {
    const command *command;
    option_value *values;
    size_t count, capacity;
    const char **operands;
    size_t operand_count;
} options_given;

/* Parses and checks every value. False with the error set (exit 2) on the first mistake: an unknown
 * option (the nearest spelling is suggested; abbreviations are refused), a missing or superfluous
 * value, a value out of range, an option given twice that does not repeat. */
bool options_parse(options_given *given, const command *command, int argument_count,
                   char **arguments, onestep_error *error);
void options_free(options_given *given);

/* Adds a value as if it had been given; checked in the same way. For --like and HTTP fields. */
bool options_add(options_given *given, const char *name, const char *text, onestep_error *error);

bool options_has(const options_given *given, const char *name);
/* The value, or `fallback` when the option was not given. */
const char *options_text(const options_given *given, const char *name, const char *fallback);
int64_t options_integer(const options_given *given, const char *name, int64_t fallback);
double options_number(const options_given *given, const char *name, double fallback);
uint64_t options_bytes(const options_given *given, const char *name, uint64_t fallback);
/* The numbers of a list; `*values` is released with memory_free. */
bool options_numbers(const options_given *given, const char *name, double **values, size_t *count,
                     onestep_error *error);
/* The index-th value of a repeating option, or NULL. */
const char *options_item(const options_given *given, const char *name, size_t index);

/* An option of a command (or a common one) by any of its long spellings; NULL when there is none.
 */
const option *option_find(const command *command, const char *name);

/* The text of `onestep COMMAND --help`. */
void options_print_help(const command *command, text_buffer *out);

/* ---- options that several commands have: entries of their tables ---- */

#define OPTION_THREADS                                                                             \
    {                                                                                              \
        .name = "threads", .kind = OPTION_INTEGER, .argument = "N", .least = 1, .most = 1024,      \
        .help = "Default: the CPUs allowed by affinity and cgroup quota."                          \
    }
#define OPTION_MEMORY_LIMIT                                                                        \
    {                                                                                              \
        .name = "memory-limit", .kind = OPTION_BYTES, .argument = "SIZE",                          \
        .help = "Stay under this resident memory (plus 100 MB): 1G, 1500M."                        \
    }
#define OPTION_PRECISION                                                                           \
    {                                                                                              \
        .name = "precision", .kind = OPTION_CHOICE, .argument = "auto|f32|bf16|int16",             \
        .choices = "auto|f32|bf16|int16",                                                          \
        .help = "auto: the fastest that keeps its fidelity on this CPU."                           \
    }
#define OPTION_BACKEND                                                                             \
    {                                                                                              \
        .name = "backend", .kind = OPTION_CHOICE, .argument = "cpu|reference",                     \
        .choices = "cpu|reference", .help = "reference: plain C, slow, the oracle."                \
    }
#define OPTION_ISA                                                                                 \
    {                                                                                              \
        .name = "isa", .kind = OPTION_CHOICE, .argument = "NAME",                                  \
        .choices = "plain|neon|avx2|avxvnni|avx512|avx512vnni|avx512bf16",                         \
        .help = "A lower instruction set than the CPU has: plain, neon, avx2, avxvnni, avx512,"    \
                "\navx512vnni, avx512bf16."                                                        \
    }

#endif
