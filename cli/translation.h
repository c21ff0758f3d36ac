/* A run of `onestep translate`: three threads that hand pictures on.
 *
 *   reader  decodes the next pictures while the network is busy
 *   main    translates, in the order of the inputs
 *   writer  encodes and writes, and says everything that is said of a picture, in the same order
 *
 * The queues between them are bounded by number and bytes, so memory does not grow with the number
 * of inputs. With --memory-limit the threads take turns, and nothing is held in advance. */
#ifndef ONESTEP_CLI_TRANSLATION_H
#define ONESTEP_CLI_TRANSLATION_H

#include "cli/inputs.h"
#include "cli/job.h"
#include "cli/outputs.h"
#include "cli/queue.h"
#include "cli/terminal.h"
#include "formats/formats.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct translation {
    options_given given;
    job job;
    input_list inputs;
    output_plan outputs;
    config *captions; /* --prompts */
    named_tensor noise, posterior_noise;
    size_t variants; /* outputs an input: seeds times gammas */
    double *gammas;
    size_t gamma_count;
    int64_t seed;
    /* How long each thread was at work: they overlap, so the run is shorter than their sum. */
    double read_seconds, network_seconds, write_seconds;

    progress_bar bar;
    bool clock_runs;
    size_t pictures_done, pictures_all;
    pthread_mutex_t screen; /* the bar is main's, messages are the writer's */

    queue *loaded, *finished;
    bool skip_errors;
    atomic_bool stop; /* set by the writer: no more work */

    /* The writer's, until it has ended. */
    size_t failed, failed_input;
    text_buffer failed_names;
    onestep_error error;               /* what stopped the run */
    onestep_image *kept, kept_control; /* of one input, for the grid */
} translation;

/* An input on its way from the reader. */
typedef struct loaded_input {
    size_t input;
    bool there; /* --resume: all its outputs exist */
    onestep_error error;
    onestep_image image;
} loaded_input;

/* A picture, or the failure of an input, on its way to the writer, who owns it. */
typedef struct finished_picture {
    size_t input, variant;
    bool there;              /* --resume: done before, nothing to write */
    onestep_error error;     /* ONESTEP_OK: a picture */
    onestep_request request; /* its picture is not valid any more */
    onestep_result result;
    onestep_image source; /* with the last variant, for the grid; else empty */
} finished_picture;

/* The thread functions; `context` is the translation. */
void *translation_read(void *context);
void *translation_write(void *context);

#endif
