#include "cli/outputs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The format that --format, the output's suffix or the input's suffix names; else PNG. */
static image_format choose_format(const options_given *given, const char *output, const char *input)
{
    const char *format = options_text(given, "format", NULL);
    image_format chosen = format ? image_format_of_name(format) : IMAGE_FORMAT_UNKNOWN;
    if (chosen == IMAGE_FORMAT_UNKNOWN && output && strrchr(path_base(output), '.')) {
        chosen = image_format_of_name(output);
    }
    if (chosen == IMAGE_FORMAT_UNKNOWN && strrchr(path_base(input), '.')) {
        chosen = image_format_of_name(input);
    }
    return chosen == IMAGE_FORMAT_UNKNOWN ? IMAGE_FORMAT_PNG : chosen;
}

/* What is put between name and suffix of one variant: its seed and gamma where there are several.
 */
static void variant_label(char *label, size_t size, const options_given *given, size_t variant,
                          const double *gammas, size_t gamma_count)
{
    size_t gamma_variants = size_maximum(gamma_count, 1);
    int64_t seed =
        (int64_t)((uint64_t)options_integer(given, "seed", 42) + variant / gamma_variants);
    int used = 0;
    label[0] = '\0';
    if (options_integer(given, "count", 1) > 1) {
        used = snprintf(label, size, "_seed%lld", (long long)seed);
    }
    if (gamma_count) {
        snprintf(label + used, size - (size_t)used, "_gamma%.2f", gammas[variant % gamma_variants]);
    }
}

/* The first path that stands twice, or NULL. */
static onestep_status find_collision(const output_plan *plan, const input_list *inputs,
                                     onestep_error *error)
{
    name_map *seen;
    onestep_status status = name_map_create(&seen, error);
    for (size_t i = 0; i < plan->input_count * plan->variants && status == ONESTEP_OK; i++) {
        const char *path = plan->paths[i];
        uint32_t earlier;
        if (name_map_get(seen, path, strlen(path), &earlier)) {
            size_t first = earlier / plan->variants, second = i / plan->variants;
            status = first == second
                         ? error_set(error, ONESTEP_ERROR_ARGUMENT,
                                     "two outputs have the name %s: two --gammas are equal to two "
                                     "digits",
                                     path)
                         : error_set(error, ONESTEP_ERROR_ARGUMENT,
                                     "%s and %s would both be written to %s", inputs->paths[first],
                                     inputs->paths[second], path);
        } else {
            status = name_map_put(seen, path, strlen(path), (uint32_t)i, error);
        }
    }
    name_map_destroy(&seen);
    return status;
}

static onestep_status plan_input(output_plan *plan, const options_given *given, const char *output,
                                 bool is_file, const input_list *inputs, size_t input,
                                 const double *gammas, size_t gamma_count, onestep_error *error)
{
    char *name = path_stem(is_file ? output : inputs->paths[input], error);
    if (!name) {
        return ONESTEP_ERROR_MEMORY;
    }
    size_t folder_length = (size_t)(path_base(output) - output);
    plan->stems[input] = is_file ? string_format(error, "%.*s%s", (int)folder_length, output, name)
                                 : path_join(output, name, error);
    memory_free(name);
    if (!plan->stems[input]) {
        return ONESTEP_ERROR_MEMORY;
    }
    plan->formats[input] = choose_format(given, is_file ? output : NULL, inputs->paths[input]);
    for (size_t v = 0; v < plan->variants; v++) {
        char label[64];
        variant_label(label, sizeof label, given, v, gammas, gamma_count);
        char **path = &plan->paths[input * plan->variants + v];
        /* A single output keeps the very name that was given (.jpeg stays .jpeg). */
        if (plan->to_stdout || (is_file && !*label && !options_has(given, "format"))) {
            *path = string_duplicate(output, error);
        } else {
            *path = string_format(error, "%s%s.%s", plan->stems[input], label,
                                  image_format_suffix(plan->formats[input]));
        }
        if (!*path) {
            return ONESTEP_ERROR_MEMORY;
        }
    }
    return ONESTEP_OK;
}

onestep_status outputs_plan(output_plan *plan, const options_given *given, const input_list *inputs,
                            const double *gammas, size_t gamma_count, onestep_error *error)
{
    const char *output = options_text(given, "output", "output");
    *plan = (output_plan){.to_stdout = strcmp(output, "-") == 0,
                          .quality = (int)options_integer(given, "quality", 0),
                          .input_count = inputs->count};
    plan->variants = (size_t)options_integer(given, "count", 1) * size_maximum(gamma_count, 1);
    bool has_suffix =
        strrchr(path_base(output), '.') && image_format_of_name(output) != IMAGE_FORMAT_UNKNOWN;
    bool is_file = plan->to_stdout || (has_suffix && !path_is_folder(output));
    size_t outputs;
    if (!size_multiply(plan->variants, inputs->count, &outputs) || outputs > UINT32_MAX) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "too many outputs");
    }
    if (is_file && inputs->count > 1) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "%zu inputs need an output folder, %s is a file", inputs->count,
                         plan->to_stdout ? "standard output" : output);
    }
    if (plan->to_stdout && plan->variants > 1) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "standard output takes one picture, not %zu", plan->variants);
    }
    plan->stems = memory_allocate(inputs->count, sizeof *plan->stems, error);
    plan->formats = memory_allocate(inputs->count, sizeof *plan->formats, error);
    plan->paths = memory_allocate(outputs, sizeof *plan->paths, error);
    onestep_status status =
        plan->stems && plan->formats && plan->paths ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    for (size_t i = 0; i < inputs->count && status == ONESTEP_OK; i++) {
        status = plan_input(plan, given, output, is_file, inputs, i, gammas, gamma_count, error);
    }
    if (status == ONESTEP_OK) {
        status = find_collision(plan, inputs, error);
    }
    if (status == ONESTEP_OK && !is_file) {
        status = folder_create(output, error);
    } else if (status == ONESTEP_OK && path_base(output) != output) {
        char *parent = string_format(error, "%.*s", (int)(path_base(output) - output), output);
        status = parent ? folder_create(parent, error) : ONESTEP_ERROR_MEMORY;
        memory_free(parent);
    }
    if (status != ONESTEP_OK) {
        outputs_free(plan);
    }
    return status;
}

void outputs_free(output_plan *plan)
{
    for (size_t i = 0; plan->stems && i < plan->input_count; i++) {
        memory_free(plan->stems[i]);
    }
    for (size_t i = 0; plan->paths && i < plan->input_count * plan->variants; i++) {
        memory_free(plan->paths[i]);
    }
    memory_free(plan->stems);
    memory_free(plan->formats);
    memory_free(plan->paths);
    *plan = (output_plan){0};
}

const char *outputs_path(const output_plan *plan, size_t input, size_t variant)
{
    return plan->paths[input * plan->variants + variant];
}

bool outputs_exist(const output_plan *plan, size_t input, bool grid)
{
    if (grid) {
        char *path = string_format(NULL, "%s_grid.png", plan->stems[input]);
        bool there = path && path_exists(path);
        memory_free(path);
        if (!there) {
            return false;
        }
    }
    for (size_t v = 0; v < plan->variants; v++) {
        if (!path_exists(outputs_path(plan, input, v))) {
            return false;
        }
    }
    return true;
}

static onestep_status write_stdout(const uint8_t *bytes, size_t size, onestep_error *error)
{
    if (fwrite(bytes, 1, size, stdout) != size || fflush(stdout) != 0) {
        return error_set(error, ONESTEP_ERROR_IO, "cannot write to standard output: %s",
                         strerror(errno));
    }
    return ONESTEP_OK;
}

onestep_status outputs_write(const output_plan *plan, const char *path, const onestep_image *image,
                             const image_metadata *metadata, onestep_error *error)
{
    if (!plan->to_stdout) {
        return image_save(image, path, plan->quality, metadata, error);
    }
    uint8_t *bytes;
    size_t size;
    onestep_status status =
        image_encode(&bytes, &size, image, plan->formats[0], plan->quality, metadata, error);
    if (status == ONESTEP_OK) {
        status = write_stdout(bytes, size, error);
        memory_free(bytes);
    }
    return status;
}

onestep_status outputs_write_extra(const output_plan *plan, size_t input, const char *suffix,
                                   const onestep_image *image, bool invert, onestep_error *error)
{
    onestep_image inverted = {0};
    onestep_status status = invert ? image_invert(&inverted, image, error) : ONESTEP_OK;
    char *path = string_format(error, "%s_%s.png", plan->stems[input], suffix);
    if (status == ONESTEP_OK) {
        status = path ? image_save(invert ? &inverted : image, path, 0, NULL, error)
                      : ONESTEP_ERROR_MEMORY;
    }
    memory_free(path);
    image_destroy(&inverted);
    return status;
}

char *outputs_dump_folder(const output_plan *plan, size_t input, const char *folder,
                          onestep_error *error)
{
    return plan->input_count > 1 ? path_join(folder, path_base(plan->stems[input]), error)
                                 : string_duplicate(folder, error);
}
