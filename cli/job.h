/* A translation job: options turned into engine, model and requests. Shared by translate, demo,
 * bench and serve. */
#ifndef ONESTEP_CLI_JOB_H
#define ONESTEP_CLI_JOB_H

#include "cli/options.h"
#include "image/image.h"

extern const option translate_options[];
extern const command translate_command;
int translate_run(int argument_count, char **arguments);

/* Where base and checkpoint files are. */
typedef struct model_files {
    char *base;       /* a folder */
    char *checkpoint; /* a file */
} model_files;

/* Finds them from --task, --checkpoint, --base and --demo; says what to do when they are missing.
 */
onestep_status model_files_find(model_files *files, const options_given *given,
                                onestep_error *error) MUST_USE;
void model_files_free(model_files *files);
/* The folder of the built-in demo models, from the installed place or the source tree. Owned by the
 * caller; NULL with the error set when it is not there. */
char *demo_folder(onestep_error *error) MUST_USE;
/* The model store: $ONESTEP_HOME, else $XDG_DATA_HOME/onestep, else ~/.local/share/onestep. */
char *store_folder(onestep_error *error) MUST_USE;

typedef struct job {
    onestep_engine *engine;
    onestep_base *base;
    onestep_model *model;
    onestep_session *session;
    const char *task; /* or NULL */
} job;

/* Opens everything that the options name. */
onestep_status job_open(job *j, const options_given *given, onestep_error *error) MUST_USE;
void job_close(job *j);

/* Checks what can be said about the options before any file is opened. */
onestep_status job_check_options(const options_given *given, onestep_error *error) MUST_USE;

/* Fills a request from the options (without picture, noise and callbacks). The prompt points into
 * `given`. */
void request_from_options(onestep_request *request, const options_given *given);

/* --like: adds the parameters that an earlier output keeps, for options not given. */
onestep_status options_like(options_given *given, const char *path, onestep_error *error) MUST_USE;
/* The parameters of one output, for its metadata: program version, every stored option that was
 * given, and what this output's seed and gamma are. */
onestep_status metadata_from_options(image_metadata *metadata, const options_given *given,
                                     const onestep_request *request, const onestep_model *model,
                                     const onestep_engine *engine, onestep_error *error) MUST_USE;

#endif
