/* Golden cases (tests/golden/cases): read, run through the public API, compared stage by stage. */
#ifndef TESTS_API_GOLDEN_H
#define TESTS_API_GOLDEN_H

#include "formats/formats.h"
#include "image/image.h"

#define GOLDEN_STAGES_MOST 20

typedef struct golden_case {
    char name[80];
    config *settings;
    onestep_image input, output;
    char stages[GOLDEN_STAGES_MOST][24];
    size_t stage_count;
} golden_case;

/* Names of all cases, sorted. Returns their number. */
size_t golden_list(char names[][80], size_t most);
void golden_open(golden_case *g, const char *name);
void golden_close(golden_case *g);

/* The model of a case on an engine. */
onestep_model *golden_model(const golden_case *g, onestep_engine *engine,
                            onestep_precision precision);
/* The request of a case (picture, prompt, seed...); points into the case. */
void golden_request(const golden_case *g, onestep_request *request);

/* One stage of the case's stored tensors. */
void golden_stage(const golden_case *g, const char *stage, named_tensor *values);

#endif
