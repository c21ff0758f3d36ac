/* Where results go: names, formats, collisions, writing. */
#ifndef ONESTEP_CLI_OUTPUTS_H
#define ONESTEP_CLI_OUTPUTS_H

#include "cli/inputs.h"
#include "image/image.h"

typedef struct output_plan {
    bool to_stdout;
    int quality;
    size_t variants; /* outputs an input */
    size_t input_count;
    char **stems;          /* by input: folder and name without suffix */
    image_format *formats; /* by input */
    char **paths;          /* by input and variant */
} output_plan;

/* Works out every output's name before any work; two inputs with one name are a wrong command line
 * (ONESTEP_ERROR_ARGUMENT). Makes the output folder. */
onestep_status outputs_plan(output_plan *plan, const options_given *given, const input_list *inputs,
                            const double *gammas, size_t gamma_count, onestep_error *error);
void outputs_free(output_plan *plan);

const char *outputs_path(const output_plan *plan, size_t input, size_t variant);
/* Whether all outputs of an input are there, and its grid when there shall be one. */
bool outputs_exist(const output_plan *plan, size_t input, bool grid);

/* Encodes in the path's format and writes the file whole or not at all; "-" is standard output. */
onestep_status outputs_write(const output_plan *plan, const char *path, const onestep_image *image,
                             const image_metadata *metadata, onestep_error *error);
/* NAME_<suffix>.png beside the outputs, inverted when asked. */
onestep_status outputs_write_extra(const output_plan *plan, size_t input, const char *suffix,
                                   const onestep_image *image, bool invert, onestep_error *error);
/* DIR, or DIR/NAME when there are several inputs. */
char *outputs_dump_folder(const output_plan *plan, size_t input, const char *folder,
                          onestep_error *error);

#endif
