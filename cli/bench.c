/* onestep bench: what this machine does, stage by stage. */
#include "cli/commands.h"
#include "cli/job.h"
#include "cli/terminal.h"
#include "translate/translate.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const option bench_options[] = {
    {.name = "task",
     .letter = 't',
     .kind = OPTION_CHOICE,
     .argument = "NAME",
     .choices = "edge_to_image|sketch_to_image_stochastic|day_to_night|night_to_day|"
                "clear_to_rainy|rainy_to_clear",
     .help = "The task (edge_to_image)."},
    {.name = "checkpoint",
     .letter = 'c',
     .kind = OPTION_PATH,
     .argument = "FILE",
     .help = "Checkpoint file."},
    {.name = "base",
     .letter = 'b',
     .kind = OPTION_PATH,
     .argument = "DIR|NAME",
     .help = "Base model (sd-turbo)."},
    {.name = "demo", .kind = OPTION_FLAG, .help = "The built-in small models."},
    {.name = "size",
     .kind = OPTION_TEXT,
     .argument = "N|WxH",
     .help = "Picture size, multiples of 8 (512)."},
    {.name = "batch",
     .kind = OPTION_INTEGER,
     .argument = "N",
     .least = 1,
     .most = 64,
     .help = "Pictures at once (1)."},
    {.name = "runs",
     .kind = OPTION_INTEGER,
     .argument = "N",
     .least = 1,
     .most = 1000,
     .help = "Warm runs; the best counts (3)."},
    OPTION_PRECISION,
    {.name = "gamma",
     .kind = OPTION_NUMBER,
     .argument = "G",
     .least = 0,
     .most = 1,
     .help = "Guidance of a stochastic model (0.4)."},
    OPTION_BACKEND,
    OPTION_THREADS,
    OPTION_ISA,
    OPTION_MEMORY_LIMIT,
    {.name = "plan",
     .kind = OPTION_FLAG,
     .help = "Also print each layer's time; with --json its algorithm, GFLOP, bytes and seconds."},
    {0}};

typedef struct measurement {
    unsigned width, height;
    size_t batch;
    double cold_seconds, load_seconds, text_seconds, second_seconds;
    double gamma_seconds; /* the best picture of a new gamma, more than `best`; or infinite */
    double gamma;         /* of the pictures to come */
    onestep_result best;  /* seconds of the best warm run, a picture */
    text_buffer plan;     /* with --plan: the layers of that run as text, */
    json_t *layers;       /* or with --json as objects */
} measurement;

/* Edges, surfaces and noise: every stage has something to do. */
static onestep_status bench_picture(onestep_image *image, unsigned width, unsigned height,
                                    onestep_error *error)
{
    onestep_status status = image_create(image, width, height, ONESTEP_PIXEL_U8, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    uint32_t state = 1;
    for (unsigned y = 0; y < height; y++) {
        uint8_t *row = (uint8_t *)image->pixels + y * image->stride;
        for (unsigned x = 0; x < width; x++) {
            for (unsigned c = 0; c < 3; c++) {
                state = state * 1664525u + 1013904223u;
                unsigned surface = ((x / 37 + y / 53 + c) & 1) ? 190 : 60;
                row[3 * x + c] = (uint8_t)(surface + (state >> 28));
            }
        }
    }
    return ONESTEP_OK;
}

static bool parse_size(const char *text, unsigned *width, unsigned *height, onestep_error *error)
{
    char rest;
    int count = sscanf(text, "%5u%c%5u%c", width, &rest, height, &rest);
    if (count == 1) {
        *height = *width;
    }
    bool good = (count == 1 || (count == 3 && strchr(text, 'x'))) && *width >= 8 && *height >= 8 &&
                *width % 8 == 0 && *height % 8 == 0 && *width <= 16384 && *height <= 16384;
    if (!good) {
        error_set(error, ONESTEP_ERROR_ARGUMENT,
                  "--size \"%.40s\": expected N or WxH, multiples of 8 from 8 to 16384", text);
    }
    return good;
}

static onestep_status run_once(job *j, const onestep_image *picture, measurement *m,
                               onestep_result *mean, onestep_error *error)
{
    onestep_request *requests = memory_allocate(m->batch, sizeof *requests, error);
    onestep_result *results = memory_allocate(m->batch, sizeof *results, error);
    onestep_status status = requests && results ? ONESTEP_OK : ONESTEP_ERROR_MEMORY;
    for (size_t i = 0; i < m->batch && status == ONESTEP_OK; i++) {
        onestep_request_init(&requests[i]);
        onestep_result_init(&results[i]);
        requests[i].image = *picture;
        requests[i].prompt = "a small bird on a branch";
        requests[i].gamma = m->gamma;
        requests[i].seed = (int64_t)i;
        requests[i].fit = ONESTEP_FIT_EXACT; /* the size that was asked for, in both families */
        if (!j->task && onestep_model_family(j->model) == ONESTEP_FAMILY_UNPAIRED) {
            requests[i].direction = ONESTEP_DIRECTION_A2B;
        }
    }
    double start = monotonic_seconds();
    if (status == ONESTEP_OK) {
        status = onestep_translate_batch(j->session, requests, m->batch, results, error);
    }
    if (status == ONESTEP_OK) {
        *mean = results[0];
        mean->image = mean->control = (onestep_image){0};
        mean->total_seconds = (monotonic_seconds() - start) / (double)m->batch;
        for (size_t i = 0; i < m->batch; i++) {
            onestep_result_free(&results[i]);
        }
    }
    memory_free(requests);
    memory_free(results);
    return status;
}

/* One object a step of the last run; of all pictures of a batch together. */
static json_t *layers_json(const plan *p)
{
    json_t *list = json_array();
    for (int i = 0; i < plan_layer_count(p); i++) {
        plan_layer layer;
        plan_layer_get(p, i, &layer);
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:[I,I,I,I], s:f, s:I, s:f, s:f, s:s}", "stage", layer.stage,
                      "algorithm", layer.algorithm, "output", (json_int_t)layer.dims[0],
                      (json_int_t)layer.dims[1], (json_int_t)layer.dims[2],
                      (json_int_t)layer.dims[3], "gflop", layer.operations / 1e9, "bytes",
                      (json_int_t)layer.bytes, "predicted_s", layer.predicted_seconds, "took_s",
                      layer.seconds, "weight", layer.weight));
    }
    return list;
}

/* A new best run: its result and, where they are asked for, its layers. */
static void keep_best(measurement *m, const onestep_result *result, const job *j,
                      const options_given *given)
{
    m->best = *result;
    if (!options_has(given, "plan")) {
        return;
    }
    if (options_has(given, "json")) {
        json_decref(m->layers);
        m->layers = layers_json(session_last_plan(j->session));
    } else {
        text_buffer_free(&m->plan);
        session_print_plan(j->session, &m->plan);
    }
}

/* GFLOP/s of a stage, by the graph's direct count. */
typedef struct stage_rate {
    const char *name;
    double seconds, operations;
} stage_rate;

static onestep_status stage_rates(job *j, const measurement *m, stage_rate rates[3],
                                  onestep_error *error)
{
    picture_shape shape = {
        .batch = 1, .height = m->height, .width = m->width, .direction = ONESTEP_DIRECTION_A2B};
    graph *g;
    onestep_status status = model_build_graph(j->model, &shape, &g, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    rates[0] = (stage_rate){"encode", m->best.encode_seconds, graph_cost(g, "encode")};
    rates[1] = (stage_rate){"unet", m->best.unet_seconds, graph_cost(g, "unet")};
    rates[2] = (stage_rate){"decode", m->best.decode_seconds, graph_cost(g, "decode")};
    graph_destroy(&g);
    return ONESTEP_OK;
}

static void print_json(const job *j, const measurement *m, const stage_rate rates[3], double peak)
{
    double operations = rates[0].operations + rates[1].operations + rates[2].operations;
    json_t *object = json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:i, s:s, s:s, s:s, s:i, s:f, s:f}",
        "total_s", m->best.total_seconds, "text_s", m->text_seconds, "encode_s", rates[0].seconds,
        "unet_s", rates[1].seconds, "decode_s", rates[2].seconds, "load_s", m->load_seconds,
        "cold_s", m->cold_seconds, "second_s", m->second_seconds, "peak_rss",
        (json_int_t)peak_resident_bytes(), "threads", (int)onestep_engine_threads(j->engine),
        "precision", onestep_model_precision(j->model), "isa", onestep_engine_isa(j->engine),
        "size", "", "batch", (int)m->batch, "gflops", operations / m->best.total_seconds / 1e9,
        "peak_gflops", peak / 1e9);
    if (m->width == m->height) {
        json_object_set_new(object, "size", json_integer((json_int_t)m->width));
    } else {
        json_object_set_new(object, "size", json_sprintf("%ux%u", m->width, m->height));
    }
    if (isfinite(m->gamma_seconds)) {
        json_object_set_new(object, "gamma_s", json_real(m->gamma_seconds));
    }
    if (m->layers) {
        json_object_set(object, "layers", m->layers);
    }
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(6));
    printf("%s\n", text ? text : "{}");
    free(text);
    json_decref(object);
}

static void print_table(const job *j, const measurement *m, const stage_rate rates[3], double peak)
{
    cpu_features cpu;
    cpu_features_detect(&cpu);
    printf("%s, %s, %u threads, precision %s, f32 peak %.0f GFLOP/s\n",
           *cpu.model ? cpu.model : "unknown CPU", onestep_engine_isa(j->engine),
           onestep_engine_threads(j->engine), onestep_model_precision(j->model), peak / 1e9);
    printf("%ux%u, batch %zu; seconds a picture, best of the warm runs\n\n", m->width, m->height,
           m->batch);
    printf("%-8s %10s %10s %10s %8s\n", "stage", "seconds", "GFLOP", "GFLOP/s", "of peak");
    double operations = 0;
    for (int i = 0; i < 3; i++) {
        double rate = rates[i].seconds > 0 ? rates[i].operations / rates[i].seconds : 0;
        printf("%-8s %10.3f %10.1f %10.1f %7.0f%%\n", rates[i].name, rates[i].seconds,
               rates[i].operations / 1e9, rate / 1e9, 100 * rate / peak);
        operations += rates[i].operations;
    }
    double rate = operations / m->best.total_seconds;
    printf("%-8s %10.3f %10.1f %10.1f %7.0f%%\n\n", "total", m->best.total_seconds,
           operations / 1e9, rate / 1e9, 100 * rate / peak);
    printf("text encoder, first time: %.3f s\n", m->text_seconds);
    printf("loading: %.3f s; process start to first picture, less a warm one: %.3f s\n",
           m->load_seconds, m->cold_seconds);
    printf("second picture, whose packed weights are kept, less a warm one: %.3f s\n",
           m->second_seconds);
    if (isfinite(m->gamma_seconds)) {
        printf("picture of another gamma, less a warm one: %.3f s\n", m->gamma_seconds);
    }
    printf("peak memory: %s\n", bytes_text(peak_resident_bytes()).text);
}

static onestep_status measure(job *j, const options_given *given, measurement *m,
                              onestep_error *error)
{
    onestep_image picture = {0};
    m->gamma = options_number(given, "gamma", 0.4);
    /* The process began a little before: its CPU time so far stands for that. */
    double start = monotonic_seconds();
    onestep_status status = job_open(j, given, error);
    m->load_seconds = monotonic_seconds() - start;
    if (status == ONESTEP_OK) {
        status = bench_picture(&picture, m->width, m->height, error);
    }
    onestep_result result;
    if (status == ONESTEP_OK) {
        status = run_once(j, &picture, m, &result, error);
        m->text_seconds = result.text_seconds * (double)m->batch;
        m->cold_seconds = monotonic_seconds() - start;
    }
    /* From the second picture on packed weights are kept: the ones after it are warm. */
    if (status == ONESTEP_OK) {
        status = run_once(j, &picture, m, &result, error);
        m->second_seconds = result.total_seconds * (double)m->batch;
    }
    /* Every weight with a LoRA depends on gamma. Pictures of a gamma that is new take turns with
     * warm ones, so that both see the same machine. */
    const int64_t runs = options_integer(given, "runs", 3);
    const double gamma = m->gamma;
    double new_gamma_seconds = INFINITY;
    for (int64_t r = 0; r < runs && status == ONESTEP_OK; r++) {
        m->gamma = gamma;
        status = run_once(j, &picture, m, &result, error);
        if (status == ONESTEP_OK && (r == 0 || result.total_seconds < m->best.total_seconds)) {
            keep_best(m, &result, j, given);
        }
        if (status == ONESTEP_OK && model_checkpoint(j->model)->stochastic) {
            m->gamma = fmod(gamma + 0.001 * (double)(r + 1), 1.0);
            status = run_once(j, &picture, m, &result, error);
            new_gamma_seconds = fmin(new_gamma_seconds, result.total_seconds);
        }
    }
    m->gamma_seconds = new_gamma_seconds - m->best.total_seconds;
    m->cold_seconds -= m->best.total_seconds * (double)m->batch;
    m->second_seconds -= m->best.total_seconds * (double)m->batch;
    image_destroy(&picture);
    return status;
}

static int bench_run(int argument_count, char **arguments)
{
    options_given given;
    onestep_error error;
    int code;
    job j = {0};
    measurement m = {0};
    if (!command_begin(&given, &bench_command, argument_count, arguments, &code)) {
        return code;
    }
    onestep_status status = ONESTEP_OK;
    if (!options_has(&given, "task") && !options_has(&given, "checkpoint") &&
        !options_add(&given, "task", "edge_to_image", &error)) {
        status = error.code;
    }
    if (status == ONESTEP_OK &&
        !parse_size(options_text(&given, "size", "512"), &m.width, &m.height, &error)) {
        status = error.code;
    }
    m.batch = (size_t)options_integer(&given, "batch", 1);
    if (status == ONESTEP_OK) {
        status = measure(&j, &given, &m, &error);
    }
    stage_rate rates[3];
    if (status == ONESTEP_OK) {
        status = stage_rates(&j, &m, rates, &error);
    }
    if (status == ONESTEP_OK) {
        double peak = backend_cpu_peak(engine_backend(j.engine));
        (options_has(&given, "json") ? print_json : print_table)(&j, &m, rates, peak);
        fputs(m.plan.data ? m.plan.data : "", stdout);
    } else {
        print_error(&error);
    }
    text_buffer_free(&m.plan);
    json_decref(m.layers);
    job_close(&j);
    options_free(&given);
    return exit_code(status);
}

const command bench_command = {
    .name = "bench",
    .summary = "measure time, rate and memory on this machine",
    .operands = "",
    .examples = "  onestep bench --demo\n"
                "  onestep bench -b sd-turbo -t edge_to_image --size 512 --runs 5 --json\n",
    .options = bench_options,
    .run = bench_run};
