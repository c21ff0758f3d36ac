#include "cli/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const option common_options[] = {
    {.name = "help", .letter = 'h', .kind = OPTION_FLAG, .help = "Show this help and exit."},
    {.name = "quiet", .letter = 'q', .kind = OPTION_FLAG, .help = "No progress, no notes."},
    {.name = "verbose",
     .letter = 'v',
     .kind = OPTION_FLAG,
     .help = "Explain choices, sizes, times and memory."},
    {.name = "json",
     .kind = OPTION_FLAG,
     .help = "Machine-readable results: one JSON object a line."},
    {0}};

/* Hyphens and underscores are the same in long options. */
static bool same_spelling(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        if (*a != *b && !((*a == '-' || *a == '_') && (*b == '-' || *b == '_'))) {
            return false;
        }
    }
    return *a == *b;
}

static const option *find_in(const option *options, const char *name)
{
    for (const option *o = options; o && o->name; o++) {
        if (same_spelling(o->name, name) || (o->official && same_spelling(o->official, name))) {
            return o;
        }
    }
    return NULL;
}

const option *option_find(const command *cmd, const char *name)
{
    const option *found = find_in(cmd->options, name);
    return found ? found : find_in(common_options, name);
}

static const option *find_letter(const command *cmd, char letter)
{
    for (int common = 0; common < 2; common++) {
        for (const option *o = common ? common_options : cmd->options; o && o->name; o++) {
            if (o->letter == letter) {
                return o;
            }
        }
    }
    return NULL;
}

static bool mistake(onestep_error *error, const char *format, ...) PRINTF_LIKE(2, 3);

static bool mistake(onestep_error *error, const char *format, ...)
{
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    error_set(error, ONESTEP_ERROR_ARGUMENT, "%s", message);
    return false;
}

static bool unknown_option(const command *cmd, const char *name, onestep_error *error)
{
    const char *names[256];
    size_t count = 0;
    for (int common = 0; common < 2; common++) {
        for (const option *o = common ? common_options : cmd->options; o && o->name; o++) {
            if (count + 2 <= sizeof names / sizeof *names) {
                names[count++] = o->name;
                if (o->official) {
                    names[count++] = o->official;
                }
            }
        }
    }
    /* An abbreviation is the commonest mistake: name what it begins. */
    const char *near = NULL;
    for (size_t i = 0; i < count && !near; i++) {
        near = strncmp(names[i], name, strlen(name)) == 0 ? names[i] : NULL;
    }
    near = near ? near : nearest_name(name, names, count);
    return mistake(error, "unknown option --%.60s%s%s%s", name, near ? "; did you mean --" : "",
                   near ? near : "", near ? "?" : "");
}

/* ---- values ------------------------------------------------------------------------------------
 */

static bool parse_integer(const char *text, int64_t *value)
{
    const char *digits = text + (*text == '-' || *text == '+');
    char *end;
    if (*digits < '0' || *digits > '9') {
        return false;
    }
    errno = 0;
    *value = strtoimax(text, &end, 10);
    if (errno == ERANGE && *text != '-') {
        errno = 0;
        *value = (int64_t)strtoumax(text, &end, 10); /* a seed from 2^63 up to 2^64 - 1 */
    }
    return *end == '\0' && errno == 0;
}

/* `*rest` receives where the number ended. Hexadecimal, infinities and NaN are not numbers here. */
static bool parse_number(const char *text, double *value, const char **rest)
{
    char *end;
    size_t digits = strspn(text, "+-0123456789.eE");
    *value = strtod(text, &end);
    *rest = end;
    return end != text && (size_t)(end - text) <= digits && isfinite(*value);
}

static bool parse_bytes(const char *text, uint64_t *value)
{
    const char *rest;
    double number;
    if (!parse_number(text, &number, &rest) || number < 0) {
        return false;
    }
    static const char units[] = "KMGT";
    const char *unit = *rest ? strchr(units, *rest & ~0x20) : NULL;
    if (*rest) {
        if (!unit) {
            return *rest == 'B' && rest[1] == '\0' && number < 1e18 &&
                   (*value = (uint64_t)number, true);
        }
        rest++;
        rest += *rest == 'i';
        rest += *rest == 'B' || *rest == 'b';
        if (*rest) {
            return false;
        }
        number *= pow(1024, (double)(unit - units + 1));
    }
    if (number >= 1e18) {
        return false;
    }
    *value = (uint64_t)number;
    return true;
}

static bool in_choices(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *c = choices; c; c = strchr(c, '|')) {
        c += *c == '|';
        if (strncmp(c, text, length) == 0 && (c[length] == '|' || c[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* The choice nearest to a misspelled one, into `near`. */
static void nearest_choice(const char *choices, const char *text, char *near, size_t size)
{
    char copy[512];
    const char *names[32];
    size_t count = 0;
    near[0] = '\0';
    if (snprintf(copy, sizeof copy, "%s", choices) >= (int)sizeof copy) {
        return;
    }
    char *position = NULL;
    for (char *name = strtok_r(copy, "|", &position); name && count < 32;
         name = strtok_r(NULL, "|", &position)) {
        names[count++] = name;
    }
    const char *found = nearest_name(text, names, count);
    if (found) {
        snprintf(near, size, "; did you mean %s?", found);
    }
}

static bool check_number(const option *o, double value, const char *text, onestep_error *error)
{
    if (!(value >= o->least && value <= o->most)) {
        return mistake(error, "--%s %.40s: expected %g to %g", o->name, text, o->least, o->most);
    }
    return true;
}

static bool check_value(const option *o, const char *text, onestep_error *error)
{
    int64_t integer;
    uint64_t bytes;
    double number;
    const char *rest;
    switch (o->kind) {
    case OPTION_FLAG:
    case OPTION_TEXT:
        return true;
    case OPTION_PATH:
        return *text ? true : mistake(error, "--%s: an empty path", o->name);
    case OPTION_CHOICE:
        if (!in_choices(o->choices, text) || !*text) {
            char near[80];
            nearest_choice(o->choices, text, near, sizeof near);
            return mistake(error, "--%s \"%.80s\": expected one of %s%s", o->name, text, o->choices,
                           near);
        }
        return true;
    case OPTION_INTEGER:
        if (!parse_integer(text, &integer)) {
            return mistake(error, "--%s \"%.40s\": expected a whole number", o->name, text);
        }
        /* Without bounds any 64-bit value is welcome, which a double cannot compare exactly. */
        return o->least == o->most || check_number(o, (double)integer, text, error);
    case OPTION_NUMBER:
        if (!parse_number(text, &number, &rest) || *rest) {
            return mistake(error, "--%s \"%.40s\": expected a number", o->name, text);
        }
        return check_number(o, number, text, error);
    case OPTION_NUMBERS:
        do {
            if (!parse_number(text, &number, &rest) || (*rest && *rest != ',')) {
                return mistake(error, "--%s \"%.40s\": expected numbers divided by commas", o->name,
                               text);
            }
            if (!check_number(o, number, text, error)) {
                return false;
            }
            text = rest + 1;
        } while (*rest);
        return true;
    case OPTION_BYTES:
        if (!parse_bytes(text, &bytes) || bytes == 0) {
            return mistake(error, "--%s \"%.40s\": expected a size such as 500M or 1.5G", o->name,
                           text);
        }
        return true;
    }
    return true;
}

/* ---- parsing ------------------------------------------------------------------------------------
 */

static option_value *find_value(const options_given *given, const option *o)
{
    for (size_t i = 0; i < given->count; i++) {
        if (given->values[i].option == o) {
            return &given->values[i];
        }
    }
    return NULL;
}

static bool append(options_given *given, const option *o, const char *text, const char *spelling,
                   onestep_error *error)
{
    if (!check_value(o, text ? text : "", error)) {
        return false;
    }
    if (!(o->flags & OPTION_REPEATS) && o->kind != OPTION_FLAG && find_value(given, o)) {
        return mistake(error, "--%s is given more than once", o->name);
    }
    if (given->count == given->capacity) {
        size_t capacity = given->capacity ? 2 * given->capacity : 32;
        option_value *grown = memory_resize(given->values, capacity, sizeof *grown, error);
        if (!grown) {
            return false;
        }
        given->values = grown;
        given->capacity = capacity;
    }
    given->values[given->count++] = (option_value){
        .option = o,
        .text = text,
        .official_name = spelling && o->official && same_spelling(spelling, o->official) &&
                         !same_spelling(spelling, o->name)};
    return true;
}

static bool parse_long(options_given *given, const char *argument, char **arguments, int count,
                       int *index, onestep_error *error)
{
    const char *equals = strchr(argument, '=');
    char name[128];
    size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
    snprintf(name, sizeof name, "%.*s", (int)size_minimum(length, 127), argument);
    const option *o = option_find(given->command, name);
    if (!o || length >= sizeof name) {
        return unknown_option(given->command, name, error);
    }
    if (o->kind == OPTION_FLAG) {
        return equals ? mistake(error, "--%s takes no value", name)
                      : append(given, o, NULL, name, error);
    }
    if (!equals && *index + 1 >= count) {
        return mistake(error, "--%s needs a value", name);
    }
    const char *text = equals ? equals + 1 : arguments[++*index];
    /* The official scripts' empty default means "not given". */
    bool official_empty =
        !*text && o->official && same_spelling(name, o->official) && !same_spelling(name, o->name);
    return official_empty || append(given, o, text, name, error);
}

static bool parse_letters(options_given *given, const char *letters, char **arguments, int count,
                          int *index, onestep_error *error)
{
    for (; *letters; letters++) {
        const option *o = find_letter(given->command, *letters);
        if (!o) {
            return mistake(error, "unknown option -%c", *letters);
        }
        if (o->kind == OPTION_FLAG) {
            if (!append(given, o, NULL, NULL, error)) {
                return false;
            }
            continue;
        }
        if (!letters[1] && *index + 1 >= count) {
            return mistake(error, "-%c needs a value", *letters);
        }
        const char *text = letters[1] ? letters + 1 : arguments[++*index];
        return append(given, o, text, NULL, error);
    }
    return true;
}

bool options_parse(options_given *given, const command *cmd, int count, char **arguments,
                   onestep_error *error)
{
    memset(given, 0, sizeof *given);
    given->command = cmd;
    given->operands = memory_allocate((size_t)count + 1, sizeof *given->operands, error);
    if (!given->operands) {
        return false;
    }
    bool only_operands = false, good = true;
    for (int i = 0; i < count && good; i++) {
        const char *a = arguments[i];
        if (only_operands || a[0] != '-' || a[1] == '\0') {
            given->operands[given->operand_count++] = a;
        } else if (strcmp(a, "--") == 0) {
            only_operands = true;
        } else if (a[1] == '-') {
            good = parse_long(given, a + 2, arguments, count, &i, error);
        } else {
            good = parse_letters(given, a + 1, arguments, count, &i, error);
        }
    }
    if (good && given->operand_count && !*cmd->operands) {
        good = mistake(error, "unexpected argument \"%.80s\"", given->operands[0]);
    }
    if (!good) {
        options_free(given);
    }
    return good;
}

void options_free(options_given *given)
{
    for (size_t i = 0; i < given->count; i++) {
        memory_free(given->values[i].owned);
    }
    memory_free(given->values);
    memory_free(given->operands);
    memset(given, 0, sizeof *given);
}

bool options_add(options_given *given, const char *name, const char *text, onestep_error *error)
{
    const option *o = option_find(given->command, name);
    if (!o) {
        return unknown_option(given->command, name, error);
    }
    char *copy = NULL;
    if (o->kind != OPTION_FLAG) {
        copy = string_duplicate(text, error);
        if (!copy) {
            return false;
        }
    }
    if (!append(given, o, copy, name, error)) {
        memory_free(copy);
        return false;
    }
    given->values[given->count - 1].owned = copy;
    return true;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

static const option_value *value_of(const options_given *given, const char *name)
{
    const option *o = option_find(given->command, name);
    return o ? find_value(given, o) : NULL;
}

bool options_has(const options_given *given, const char *name)
{
    return value_of(given, name) != NULL;
}

const char *options_text(const options_given *given, const char *name, const char *fallback)
{
    const option_value *value = value_of(given, name);
    return value ? value->text : fallback;
}

int64_t options_integer(const options_given *given, const char *name, int64_t fallback)
{
    const option_value *value = value_of(given, name);
    int64_t integer = fallback;
    return value && parse_integer(value->text, &integer) ? integer : fallback;
}

double options_number(const options_given *given, const char *name, double fallback)
{
    const option_value *value = value_of(given, name);
    const char *rest;
    double number;
    return value && parse_number(value->text, &number, &rest) ? number : fallback;
}

uint64_t options_bytes(const options_given *given, const char *name, uint64_t fallback)
{
    const option_value *value = value_of(given, name);
    uint64_t bytes;
    return value && parse_bytes(value->text, &bytes) ? bytes : fallback;
}

bool options_numbers(const options_given *given, const char *name, double **values, size_t *count,
                     onestep_error *error)
{
    const option_value *value = value_of(given, name);
    *values = NULL;
    *count = 0;
    if (!value) {
        return true;
    }
    *values = memory_allocate(strlen(value->text) + 1, sizeof **values, error);
    if (!*values) {
        return false;
    }
    const char *text = value->text, *rest;
    do {
        parse_number(text, &(*values)[(*count)++], &rest);
        text = rest + 1;
    } while (*rest);
    return true;
}

const char *options_item(const options_given *given, const char *name, size_t index)
{
    const option *o = option_find(given->command, name);
    for (size_t i = 0; i < given->count; i++) {
        if (given->values[i].option == o && index-- == 0) {
            return given->values[i].text;
        }
    }
    return NULL;
}

/* ---- help ---------------------------------------------------------------------------------------
 */

/* "  -t, --task NAME (--model_name)" and the sentence, indented. */
static void print_option(const option *o, text_buffer *out)
{
    text_buffer_print(out, "  ");
    if (o->letter) {
        text_buffer_print(out, "-%c, ", o->letter);
    }
    text_buffer_print(out, "--%s", o->name);
    if (o->kind != OPTION_FLAG) {
        text_buffer_print(out, " %s", o->argument ? o->argument : o->choices);
    }
    if (o->official && !same_spelling(o->official, o->name)) {
        text_buffer_print(out, "  (official: --%s)", o->official);
    }
    text_buffer_print(out, "\n");
    for (const char *line = o->help; line && *line;) {
        size_t length = strcspn(line, "\n");
        text_buffer_print(out, "        %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
}

void options_print_help(const command *cmd, text_buffer *out)
{
    text_buffer_print(out, "onestep %s - %s\n\nUsage: onestep %s [options]%s%s\n\nOptions:\n",
                      cmd->name, cmd->summary, cmd->name, *cmd->operands ? " " : "", cmd->operands);
    for (const option *o = cmd->options; o && o->name; o++) {
        print_option(o, out);
    }
    for (const option *o = common_options; o->name; o++) {
        print_option(o, out);
    }
    if (cmd->examples && *cmd->examples) {
        text_buffer_print(out, "\nExamples:\n%s", cmd->examples);
    }
}
