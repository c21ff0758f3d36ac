#include "golden.h"
#include "support/check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define GOLDEN PROJECT_FOLDER "/tests/golden"

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

size_t golden_list(char names[][80], size_t most)
{
    DIR *folder = opendir(GOLDEN "/cases");
    assert_non_null(folder);
    size_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] != '.' && count < most) {
            snprintf(names[count++], 80, "%.79s", entry->d_name);
        }
    }
    closedir(folder);
    qsort(names, count, 80, compare_names);
    return count;
}

static void check(onestep_status status, const onestep_error *error)
{
    if (status != ONESTEP_OK) {
        fail_msg("%s", error->message);
    }
}

static const char *text_of(const golden_case *g, const char *key)
{
    const char *value = NULL;
    onestep_error error;
    check(config_string(g->settings, key, NULL, &value, &error), &error);
    return value;
}

static double number_of(const golden_case *g, const char *key, double fallback)
{
    double value;
    onestep_error error;
    check(config_number(g->settings, key, fallback, -1e300, 1e300, &value, &error), &error);
    return value;
}

void golden_open(golden_case *g, const char *name)
{
    char path[512];
    onestep_error error;
    memset(g, 0, sizeof *g);
    snprintf(g->name, sizeof g->name, "%s", name);
    snprintf(path, sizeof path, GOLDEN "/cases/%s/case.json", name);
    check(config_open(&g->settings, path, &error), &error);
    snprintf(path, sizeof path, GOLDEN "/cases/%s/input.png", name);
    check(image_load(&g->input, path, NULL, &error), &error);
    snprintf(path, sizeof path, GOLDEN "/cases/%s/output.png", name);
    check(image_load(&g->output, path, NULL, &error), &error);
    const char *stages[GOLDEN_STAGES_MOST];
    g->stage_count = GOLDEN_STAGES_MOST;
    check(config_string_list(g->settings, "stages", stages, &g->stage_count, 0, &error), &error);
    for (size_t i = 0; i < g->stage_count; i++) {
        snprintf(g->stages[i], sizeof g->stages[i], "%s", stages[i]);
    }
}

void golden_close(golden_case *g)
{
    config_close(&g->settings);
    image_destroy(&g->input);
    image_destroy(&g->output);
}

onestep_model *golden_model(const golden_case *g, onestep_engine *engine,
                            onestep_precision precision)
{
    char path[512];
    onestep_error error;
    onestep_base *base;
    onestep_model *model;
    onestep_model_options options;
    snprintf(path, sizeof path, GOLDEN "/%s", text_of(g, "base"));
    check(onestep_base_open(&base, engine, path, &error), &error);
    onestep_model_options_init(&options);
    options.task = text_of(g, "task");
    options.precision = precision;
    snprintf(path, sizeof path, GOLDEN "/%s", text_of(g, "checkpoint"));
    check(onestep_model_open(&model, base, path, &options, &error), &error);
    onestep_base_destroy(&base);
    return model;
}

void golden_request(const golden_case *g, onestep_request *request)
{
    onestep_error error;
    onestep_request_init(request);
    request->image = g->input;
    request->prompt = text_of(g, "prompt");
    check(config_integer(g->settings, "seed", 42, INT64_MIN, INT64_MAX, &request->seed, &error),
          &error);
    request->gamma = number_of(g, "gamma", request->gamma);
    request->low_threshold = number_of(g, "low_threshold", request->low_threshold);
    request->high_threshold = number_of(g, "high_threshold", request->high_threshold);
    request->rng = strcmp(text_of(g, "rng"), "cpu") == 0 ? ONESTEP_RNG_CPU : ONESTEP_RNG_CUDA;
    request->image_prep = text_of(g, "image_prep");
    const char *direction = text_of(g, "direction");
    if (direction && !text_of(g, "task")) {
        request->direction =
            strcmp(direction, "a2b") == 0 ? ONESTEP_DIRECTION_A2B : ONESTEP_DIRECTION_B2A;
    }
}

void golden_stage(const golden_case *g, const char *stage, named_tensor *values)
{
    char path[512];
    onestep_error error;
    snprintf(path, sizeof path, GOLDEN "/cases/%s/%s.npy", g->name, stage);
    check(npy_read(values, path, &error), &error);
}
