/* onestep completion and onestep man: shell completion and manual pages from the option tables. */
#include "cli/commands.h"
#include "cli/terminal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const option no_options[] = {{0}};

/* ---- what the tables hold ------------------------------------------------------------------- */

/* Calls `each` for every option of a command, the common ones last. */
typedef void (*option_visit)(text_buffer *out, const command *cmd, const option *o);

static void each_option(text_buffer *out, const command *cmd, option_visit visit)
{
    for (int common = 0; common < 2; common++) {
        for (const option *o = common ? common_options : cmd->options; o && o->name; o++) {
            visit(out, cmd, o);
        }
    }
}

/* The words that a command's operand may begin with ("list | info NAME | ..."), with blanks
 * between; empty when operands are files. */
static void operand_words(text_buffer *out, const command *cmd)
{
    const char *separator = strstr(cmd->operands, " | ") ? " | " : "|";
    if (!strstr(cmd->operands, separator)) {
        return;
    }
    for (const char *part = cmd->operands; part;) {
        text_buffer_print(out, "%s%.*s", out->length ? " " : "", (int)strcspn(part, " |"), part);
        part = strstr(part, separator);
        part = part ? part + strlen(separator) : NULL;
    }
}

static void choice_words(text_buffer *out, const option *o)
{
    for (const char *c = o->choices; c && *c; c++) {
        text_buffer_append(out, *c == '|' ? " " : c, 1);
    }
}

/* The first sentence of the help, without what a shell would take amiss. */
static void first_line(text_buffer *out, const char *help)
{
    static const char unwelcome[] = "'\"[]:`$\\";
    for (const char *c = help; c && *c && *c != '\n'; c++) {
        text_buffer_append(out, strchr(unwelcome, *c) ? " " : c, 1);
    }
}

/* ---- bash ----------------------------------------------------------------------------------- */

static void bash_name(text_buffer *out, const command *cmd, const option *o)
{
    (void)cmd;
    text_buffer_print(out, " --%s", o->name);
}

static void bash_choices(text_buffer *out, const command *cmd, const option *o)
{
    if (o->kind != OPTION_CHOICE) {
        return;
    }
    text_buffer_print(out, "        %s:--%s", cmd->name, o->name);
    if (o->letter) {
        text_buffer_print(out, "|%s:-%c", cmd->name, o->letter);
    }
    if (o->official) {
        text_buffer_print(out, "|%s:--%s", cmd->name, o->official);
    }
    text_buffer_print(out, ") words=\"");
    choice_words(out, o);
    text_buffer_print(out, "\" ;;\n");
}

static void bash_free(text_buffer *out, const command *cmd, const option *o)
{
    if (o->kind == OPTION_FLAG || o->kind == OPTION_CHOICE) {
        return;
    }
    text_buffer_print(out, "        %s:--%s", cmd->name, o->name);
    if (o->letter) {
        text_buffer_print(out, "|%s:-%c", cmd->name, o->letter);
    }
    text_buffer_print(out, ") return ;;\n");
}

static void print_bash(text_buffer *out)
{
    text_buffer_print(out, "# bash completion of onestep; from `onestep completion bash`\n"
                           "_onestep() {\n"
                           "    local word=${COMP_WORDS[COMP_CWORD]} words=\n"
                           "    local before=${COMP_WORDS[COMP_CWORD-1]} name=${COMP_WORDS[1]}\n"
                           "    COMPREPLY=()\n"
                           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    for (const command *const *c = all_commands; *c; c++) {
        text_buffer_print(out, "%s ", (*c)->name);
    }
    text_buffer_print(out, "--help --version\"\n    else\n        case $name:$before in\n");
    for (const command *const *c = all_commands; *c; c++) {
        each_option(out, *c, bash_choices);
        each_option(out, *c, bash_free); /* a path or a number: what the shell offers itself */
    }
    text_buffer_print(out, "        *) case $name:$word in\n");
    for (const command *const *c = all_commands; *c; c++) {
        text_buffer_print(out, "            %s:-*) words=\"", (*c)->name);
        each_option(out, *c, bash_name);
        text_buffer_print(out, "\" ;;\n");
        text_buffer operands = {0};
        operand_words(&operands, *c);
        if (operands.length) {
            text_buffer_print(out,
                              "            %s:*) if [ \"$COMP_CWORD\" -eq 2 ]; then words=\"%s\"",
                              (*c)->name, operands.data);
            if ((*c)->operand_names) {
                text_buffer_print(out, "; else words=$(%s)", (*c)->operand_names);
            }
            text_buffer_print(out, "; fi ;;\n");
        }
        text_buffer_free(&operands);
    }
    text_buffer_print(out,
                      "            esac ;;\n        esac\n    fi\n"
                      "    [ -n \"$words\" ] && COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
                      "}\ncomplete -o default -F _onestep onestep\n");
}

/* ---- zsh ------------------------------------------------------------------------------------ */

static void zsh_option(text_buffer *out, const command *cmd, const option *o)
{
    (void)cmd;
    const char *repeats = o->flags & OPTION_REPEATS ? "*" : "";
    for (int letter = 0; letter < 2; letter++) {
        if (letter && !o->letter) {
            continue;
        }
        text_buffer_print(out, letter ? "            '%s-%c" : "            '%s--", repeats,
                          o->letter);
        text_buffer_print(out, "%s[", letter ? "" : o->name);
        first_line(out, o->help);
        text_buffer_print(out, "]");
        if (o->kind == OPTION_CHOICE) {
            text_buffer_print(out, ":%s:(", o->name);
            choice_words(out, o);
            text_buffer_print(out, ")");
        } else if (o->kind == OPTION_PATH) {
            text_buffer_print(out, ":%s:_files", o->name);
        } else if (o->kind != OPTION_FLAG) {
            text_buffer_print(out, ":%s: ", o->name);
        }
        text_buffer_print(out, "' \\\n");
    }
}

static void print_zsh(text_buffer *out)
{
    text_buffer_print(out, "#compdef onestep\n# from `onestep completion zsh`\n_onestep() {\n"
                           "    local -a commands\n    commands=(\n");
    for (const command *const *c = all_commands; *c; c++) {
        text_buffer_print(out, "        '%s:", (*c)->name);
        first_line(out, (*c)->summary);
        text_buffer_print(out, "'\n");
    }
    text_buffer_print(out, "    )\n    if (( CURRENT == 2 )); then\n"
                           "        _describe command commands\n        return\n    fi\n"
                           "    local name=$words[2]\n    shift words\n    (( CURRENT-- ))\n"
                           "    case $name in\n");
    for (const command *const *c = all_commands; *c; c++) {
        text_buffer operands = {0};
        operand_words(&operands, *c);
        text_buffer_print(out, "        %s) _arguments \\\n", (*c)->name);
        each_option(out, *c, zsh_option);
        if (operands.length) {
            text_buffer_print(out, "            '1:what:(%s)' ", operands.data);
        }
        if ((*c)->operand_names) {
            text_buffer_print(
                out, "'*:name:{ local -a names; names=($(%s)); compadd -a names; _files }' ;;\n",
                (*c)->operand_names);
        } else {
            text_buffer_print(out, "'*:file:_files' ;;\n");
        }
        text_buffer_free(&operands);
    }
    text_buffer_print(out, "    esac\n}\n_onestep \"$@\"\n");
}

/* ---- fish ----------------------------------------------------------------------------------- */

static void fish_option(text_buffer *out, const command *cmd, const option *o)
{
    text_buffer_print(out, "complete -c onestep -n '__fish_seen_subcommand_from %s' -l %s",
                      cmd->name, o->name);
    if (o->letter) {
        text_buffer_print(out, " -s %c", o->letter);
    }
    if (o->kind == OPTION_CHOICE) {
        text_buffer_print(out, " -x -a '");
        choice_words(out, o);
        text_buffer_print(out, "'");
    } else if (o->kind != OPTION_FLAG) {
        text_buffer_print(out, o->kind == OPTION_PATH ? " -r" : " -x");
    }
    text_buffer_print(out, " -d '");
    first_line(out, o->help);
    text_buffer_print(out, "'\n");
}

static void print_fish(text_buffer *out)
{
    text_buffer_print(out, "# fish completion of onestep; from `onestep completion fish`\n");
    for (const command *const *c = all_commands; *c; c++) {
        text_buffer operands = {0};
        text_buffer_print(out, "complete -c onestep -f -n __fish_use_subcommand -a %s -d '",
                          (*c)->name);
        first_line(out, (*c)->summary);
        text_buffer_print(out, "'\n");
        operand_words(&operands, *c);
        if (operands.length) {
            text_buffer_print(out,
                              "complete -c onestep -n '__fish_seen_subcommand_from %s; and not "
                              "__fish_seen_subcommand_from %s' -a '%s'\n",
                              (*c)->name, operands.data, operands.data);
        }
        if ((*c)->operand_names) {
            text_buffer_print(out,
                              "complete -c onestep -n '__fish_seen_subcommand_from %s; and "
                              "__fish_seen_subcommand_from %s' -a '(%s)'\n",
                              (*c)->name, operands.data, (*c)->operand_names);
        }
        text_buffer_free(&operands);
        each_option(out, *c, fish_option);
    }
}

/* ---- manual pages --------------------------------------------------------------------------- */

/* Text with what roff would take for its own made harmless. */
static void roff_text(text_buffer *out, const char *text)
{
    bool line_begins = true;
    for (const char *c = text; *c; c++) {
        if (line_begins && (*c == '.' || *c == '\'')) {
            text_buffer_print(out, "\\&");
        }
        line_begins = *c == '\n';
        if (*c == '\\') {
            text_buffer_print(out, "\\e");
        } else if (*c == '-') {
            text_buffer_print(out, "\\-");
        } else {
            text_buffer_append(out, c, 1);
        }
    }
}

static void man_option(text_buffer *out, const command *cmd, const option *o)
{
    (void)cmd;
    text_buffer_print(out, ".TP\n");
    if (o->letter) {
        text_buffer_print(out, "\\fB\\-%c\\fR, ", o->letter);
    }
    text_buffer_print(out, "\\fB\\-\\-");
    roff_text(out, o->name);
    text_buffer_print(out, "\\fR");
    if (o->kind != OPTION_FLAG) {
        text_buffer_print(out, " \\fI");
        roff_text(out, o->argument ? o->argument : o->choices);
        text_buffer_print(out, "\\fR");
    }
    if (o->official) {
        text_buffer_print(out, " (official: \\-\\-%s)", o->official);
    }
    text_buffer_print(out, "\n");
    roff_text(out, o->help);
    text_buffer_print(out, "\n");
}

static void man_head(text_buffer *out, const char *name, const char *summary)
{
    char upper[64];
    size_t length = 0;
    for (; name[length] && length + 1 < sizeof upper; length++) {
        upper[length] = (char)toupper((unsigned char)name[length]);
    }
    upper[length] = '\0';
    text_buffer_print(out, ".TH \"");
    roff_text(out, upper);
    text_buffer_print(out, "\" 1 \"\" \"onestep %s\" \"onestep\"\n.SH NAME\n", onestep_version());
    roff_text(out, name);
    text_buffer_print(out, " \\- ");
    roff_text(out, summary);
    text_buffer_print(out, "\n");
}

static void print_command_page(text_buffer *out, const command *cmd)
{
    char name[64];
    snprintf(name, sizeof name, "onestep-%s", cmd->name);
    man_head(out, name, cmd->summary);
    text_buffer_print(out, ".SH SYNOPSIS\n.B onestep %s\n[options] ", cmd->name);
    roff_text(out, cmd->operands);
    text_buffer_print(out, "\n.SH OPTIONS\n");
    each_option(out, cmd, man_option);
    if (cmd->examples && *cmd->examples) {
        text_buffer_print(out, ".SH EXAMPLES\n.nf\n");
        roff_text(out, cmd->examples);
        text_buffer_print(out, ".fi\n");
    }
    text_buffer_print(out, ".SH EXIT STATUS\n0 on success, 1 when the work failed, 2 on a wrong "
                           "command line.\n.SH SEE ALSO\n.BR onestep (1)\n");
}

static void print_main_page(text_buffer *out)
{
    man_head(out, "onestep", "one-step image-to-image translation");
    text_buffer_print(out, ".SH SYNOPSIS\n.B onestep\n.I command\n[options]\n.SH DESCRIPTION\n"
                           "Runs pix2pix\\-turbo and CycleGAN\\-turbo (arXiv 2403.12036) on the "
                           "CPU, without Python.\n\\fBonestep demo\\fR needs no download.\n"
                           ".SH COMMANDS\n");
    for (const command *const *c = all_commands; *c; c++) {
        text_buffer_print(out, ".TP\n.BR onestep\\-%s (1)\n", (*c)->name);
        roff_text(out, (*c)->summary);
        text_buffer_print(out, "\n");
    }
    static const struct {
        const char *name, *meaning;
    } variables[] = {
        {"ONESTEP_HOME",
         "The model store; else $XDG_DATA_HOME/onestep, else ~/.local/share/onestep."},
        {"XDG_CONFIG_HOME", "Where onestep/catalogue.json with own models is (~/.config)."},
        {"HF_ENDPOINT", "A mirror of Hugging Face."},
        {"HF_TOKEN", "Sent to that endpoint only."},
        {"HF_HOME, HF_HUB_CACHE", "Hugging Face's cache: models that are there are not fetched."},
        {"HF_HUB_OFFLINE", "As --offline."},
        {"https_proxy, http_proxy, all_proxy, no_proxy", "As for curl."},
        {"CURL_CA_BUNDLE, SSL_CERT_FILE", "A file of certificate authorities to trust."},
        {"NO_COLOR", "No colour."},
        {"ONESTEP_SHOW",
         "kitty or iterm2: the protocol of --show for a terminal that is not known."},
    };
    text_buffer_print(out, ".SH ENVIRONMENT\n");
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        text_buffer_print(out, ".TP\n.B %s\n", variables[i].name);
        roff_text(out, variables[i].meaning);
        text_buffer_print(out, "\n");
    }
}

/* ---- the commands --------------------------------------------------------------------------- */

static int finish(options_given *given, text_buffer *out, bool good, onestep_error *error)
{
    if (good && out->failed) {
        good = false;
        error_set(error, ONESTEP_ERROR_MEMORY, "no memory for the text");
    }
    if (good) {
        fputs(out->data ? out->data : "", stdout);
    } else {
        print_error(error);
    }
    text_buffer_free(out);
    options_free(given);
    return good ? EXIT_DONE : exit_code(error->code);
}

static int completion_run(int argument_count, char **arguments)
{
    options_given given;
    text_buffer out = {0};
    onestep_error error;
    int code;
    if (!command_begin(&given, &completion_command, argument_count, arguments, &code)) {
        return code;
    }
    const char *shell = given.operand_count == 1 ? given.operands[0] : "";
    bool good = true;
    if (strcmp(shell, "bash") == 0) {
        print_bash(&out);
    } else if (strcmp(shell, "zsh") == 0) {
        print_zsh(&out);
    } else if (strcmp(shell, "fish") == 0) {
        print_fish(&out);
    } else {
        good = false;
        error_set(&error, ONESTEP_ERROR_ARGUMENT, "which shell? onestep completion bash|zsh|fish");
    }
    return finish(&given, &out, good, &error);
}

const command completion_command = {
    .name = "completion",
    .summary = "print completion for bash, zsh or fish",
    .operands = "bash|zsh|fish",
    .examples = "  source <(onestep completion bash)\n"
                "  onestep completion zsh > ~/.zfunc/_onestep\n"
                "  onestep completion fish > ~/.config/fish/completions/onestep.fish\n",
    .options = no_options,
    .run = completion_run};

static int man_run(int argument_count, char **arguments)
{
    options_given given;
    text_buffer out = {0};
    onestep_error error;
    int code;
    if (!command_begin(&given, &man_command, argument_count, arguments, &code)) {
        return code;
    }
    bool good = given.operand_count <= 1;
    const char *name = given.operand_count ? given.operands[0] : "onestep";
    if (good && strcmp(name, "onestep") == 0) {
        print_main_page(&out);
        return finish(&given, &out, good, &error);
    }
    good = false;
    for (const command *const *c = all_commands; *c; c++) {
        if (strcmp((*c)->name, name) == 0) {
            print_command_page(&out, *c);
            good = true;
        }
    }
    if (!good) {
        error_set(&error, ONESTEP_ERROR_ARGUMENT, "no command \"%.60s\"", name);
    }
    return finish(&given, &out, good, &error);
}

const command man_command = {.name = "man",
                             .summary = "print a manual page in roff",
                             .operands = "[COMMAND]",
                             .examples = "  onestep man translate | man -l -\n",
                             .options = no_options,
                             .run = man_run};
