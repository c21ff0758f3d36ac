/* A session: plans by picture size, and requests run through them, equal sizes together. */
#include "plan/plan.h"
#include "translate/item.h"

#include <string.h>

/* Plans of the sizes used last; only the newest holds activation memory. */
#define SESSION_PLANS 4

/* Pictures run together as long as they have no more pixels than this: beyond it a batch is no
 * faster and takes more memory. */
#define BATCH_PIXELS ((size_t)4 * 256 * 256)
#define BATCH_MOST   8

typedef struct planned {
    picture_shape shape;
    graph *graph;
    plan *plan;
    uint64_t used;
} planned;

struct onestep_session {
    onestep_model *model;
    planned plans[SESSION_PLANS];
    uint64_t uses;
};

onestep_status session_create(onestep_session **result, onestep_model *model, onestep_error *error)
{
    *result = NULL;
    onestep_session *session = memory_allocate(1, sizeof *session, error);
    if (!session) {
        return ONESTEP_ERROR_MEMORY;
    }
    session->model = model_retain(model);
    *result = session;
    return ONESTEP_OK;
}

static void planned_free(planned *p)
{
    plan_destroy(&p->plan);
    graph_destroy(&p->graph);
    memset(p, 0, sizeof *p);
}

void session_destroy(onestep_session **result)
{
    onestep_session *session = *result;
    if (!session) {
        return;
    }
    for (size_t i = 0; i < SESSION_PLANS; i++) {
        planned_free(&session->plans[i]);
    }
    model_release(session->model);
    memory_free(session);
    *result = NULL;
}

static bool same_shape(const picture_shape *a, const picture_shape *b)
{
    return a->batch == b->batch && a->height == b->height && a->width == b->width &&
           a->direction == b->direction && a->watch == b->watch;
}

/* The plan of a shape, made when it is not there; the others give their memory back. */
static onestep_status session_plan(onestep_session *session, const picture_shape *shape,
                                   planned **result, onestep_error *error)
{
    planned *found = NULL, *oldest = &session->plans[0];
    for (size_t i = 0; i < SESSION_PLANS; i++) {
        planned *p = &session->plans[i];
        if (p->plan && same_shape(&p->shape, shape)) {
            found = p;
        } else if (p->plan) {
            plan_release_memory(p->plan);
        }
        if (p->used < oldest->used) {
            oldest = p;
        }
    }
    if (!found) {
        onestep_engine *engine = base_engine(model_base(session->model));
        planned_free(oldest);
        onestep_status status = model_build_graph(session->model, shape, &oldest->graph, error);
        if (status == ONESTEP_OK) {
            lower_options options = {.precision = model_precision(session->model),
                                     .weights = model_weight_cache(session->model),
                                     .log = engine_log(engine)};
            status =
                plan_create(&oldest->plan, engine_backend(engine), oldest->graph, &options, error);
        }
        if (status != ONESTEP_OK) {
            planned_free(oldest);
            return status;
        }
        oldest->shape = *shape;
        found = oldest;
        log_message(engine_log(engine), ONESTEP_LOG_INFO,
                    "plan for %zux%zu, batch %zu: %.1f GFLOP, %.1f MB of activations", shape->width,
                    shape->height, shape->batch, plan_operations(found->plan) / 1e9,
                    (double)plan_arena_bytes(found->plan) / 1e6);
    }
    found->used = ++session->uses;
    *result = found;
    return ONESTEP_OK;
}

/* Beside activations and packed weights: the program and its tables, pages of the files that are
 * just being packed, blocks that the weight cache keeps to use again. Measured at full size. */
#define OTHER_BYTES ((uint64_t)160 << 20)

/* What a session takes when no limit is given, unless its pictures need more. In float32 all
 * weights of SD-Turbo stay packed, as packing them again would be half of a small picture's time.
 */
#define DEFAULT_BYTES_INT16 UINT64_C(2000000000)
#define DEFAULT_BYTES_FLOAT UINT64_C(5000000000)

/* Packed weights that stay beside large pictures all the same. */
#define LEAST_WEIGHT_BYTES UINT64_C(1000000000)

static uint64_t default_weight_bytes(const onestep_session *session, size_t arena)
{
    const bool integers = model_precision(session->model) == PRECISION_INT16;
    const uint64_t wanted = integers ? DEFAULT_BYTES_INT16 : DEFAULT_BYTES_FLOAT;
    const uint64_t taken = (uint64_t)arena + OTHER_BYTES;
    uint64_t weights = wanted > taken ? wanted - taken : 0;
    weights = weights > LEAST_WEIGHT_BYTES ? weights : LEAST_WEIGHT_BYTES;
    const uint64_t quarter = engine_memory_allowed(base_engine(model_base(session->model))) / 4;
    return quarter > 0 && quarter < weights ? quarter : weights;
}

/* What the memory limit leaves for packed weights beside the activations. */
static onestep_status divide_memory(onestep_session *session, const plan *p, onestep_error *error)
{
    const uint64_t limit = engine_memory_limit(base_engine(model_base(session->model)));
    const size_t arena = plan_arena_bytes(p);
    uint64_t weights;
    if (limit == 0) {
        weights = default_weight_bytes(session, arena);
    } else if (arena > limit) {
        return error_set(error, ONESTEP_ERROR_MEMORY,
                         "this picture needs %.0f MB for activations, the memory limit is %.0f MB",
                         (double)arena / 1e6, (double)limit / 1e6);
    } else {
        weights = limit - arena > OTHER_BYTES ? limit - arena - OTHER_BYTES : 0;
    }
    weight_cache_set_limit(model_weight_cache(session->model), (size_t)weights);
    return ONESTEP_OK;
}

/* ---- running a group
 * ------------------------------------------------------------------------------- */

/* The work of one call: shared by the groups that it is divided into. */
typedef struct call {
    const onestep_request *requests;
    double operations_total, operations_done; /* before the step that is reported now */
    double reported;
} call;

typedef struct group_run {
    onestep_session *session;
    call *call;
    item **items;
    size_t count;
    onestep_result **results;
} group_run;

static onestep_status report(call *c, double operations, const char *stage, onestep_error *error)
{
    const onestep_request *first = &c->requests[0];
    if (!first->progress) {
        return ONESTEP_OK;
    }
    double fraction =
        c->operations_total > 0 ? (c->operations_done + operations) / c->operations_total : 1;
    fraction = fraction > 1 ? 1 : fraction;
    c->reported = fraction > c->reported ? fraction : c->reported;
    if (first->progress(first->progress_user_data, c->reported, stage) != 0) {
        return error_set(error, ONESTEP_ERROR_CANCELLED, "cancelled");
    }
    return ONESTEP_OK;
}

static onestep_status text_report(void *context, double done, onestep_error *error)
{
    group_run *run = context;
    return report(run->call, done, "text", error);
}

static onestep_status step_report(void *context, double done, const char *stage,
                                  onestep_error *error)
{
    group_run *run = context;
    return report(run->call, done, stage, error);
}

static onestep_status dump(const onestep_request *request, const onestep_tensor *dumped,
                           onestep_error *error)
{
    if (request->dump(request->dump_user_data, dumped) != 0) {
        return error_set(error, ONESTEP_ERROR_CANCELLED, "cancelled while dumping %s",
                         dumped->stage);
    }
    return ONESTEP_OK;
}

/* Hands [1,h,w,c] values to the dump callback as NCHW. */
static onestep_status dump_picture(const onestep_request *request, const char *stage, size_t height,
                                   size_t width, size_t channels, const float *values,
                                   onestep_error *error)
{
    if (!request->dump) {
        return ONESTEP_OK;
    }
    float *planes = memory_allocate(height * width * channels, sizeof *planes, error);
    if (!planes) {
        return ONESTEP_ERROR_MEMORY;
    }
    channels_first(planes, values, height * width, channels);
    onestep_tensor dumped = {.stage = stage,
                             .rank = 4,
                             .shape = {1, (int64_t)channels, (int64_t)height, (int64_t)width},
                             .data = planes};
    onestep_status status = dump(request, &dumped, error);
    memory_free(planes);
    return status;
}

static onestep_status dump_text(const item *it, const onestep_base *base, const float *states,
                                onestep_error *error)
{
    if (!it->request->dump) {
        return ONESTEP_OK;
    }
    size_t tokens = base_token_count(base);
    int64_t *ids = memory_allocate(tokens, sizeof *ids, error);
    if (!ids) {
        return ONESTEP_ERROR_MEMORY;
    }
    for (size_t i = 0; i < tokens; i++) {
        ids[i] = it->ids[i];
    }
    onestep_tensor dumped = {
        .stage = "tokens", .is_int64 = 1, .rank = 2, .shape = {1, (int64_t)tokens}, .data = ids};
    onestep_status status = dump(it->request, &dumped, error);
    memory_free(ids);
    if (status == ONESTEP_OK) {
        dumped = (onestep_tensor){.stage = "text",
                                  .rank = 3,
                                  .shape = {1, (int64_t)tokens, (int64_t)base_clip(base)->hidden},
                                  .data = states};
        status = dump(it->request, &dumped, error);
    }
    return status;
}

/* Receives the outputs of the plan: the pictures, and with a dump every watched stage. */
static onestep_status take_output(void *context, const char *name, const size_t dims[4],
                                  const float *values, onestep_error *error)
{
    group_run *run = context;
    if (strcmp(name, "image") != 0) {
        return dump_picture(run->items[0]->request, name, dims[1], dims[2], dims[3], values, error);
    }
    size_t picture = dims[1] * dims[2] * dims[3];
    for (size_t i = 0; i < run->count; i++) {
        onestep_status status = item_finish(run->items[i], run->session->model,
                                            values + i * picture, run->results[i], error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    return ONESTEP_OK;
}

/* The inputs of the picture graph for a whole group, NHWC. */
typedef struct group_inputs {
    float *control, *text, *noise, *posterior_noise;
} group_inputs;

static void group_inputs_free(group_inputs *in)
{
    memory_free(in->control);
    memory_free(in->text);
    memory_free(in->noise);
    memory_free(in->posterior_noise);
}

static onestep_status fill_inputs(group_run *run, group_inputs *in, size_t height, size_t width,
                                  double *text_seconds, onestep_error *error)
{
    onestep_model *model = run->session->model;
    onestep_base *base = model_base(model);
    const vae_config *vae = base_vae(base);
    size_t factor = vae_factor(vae), channels = vae->latent_channels;
    size_t latent_height = height / factor, latent_width = width / factor;
    size_t picture = height * width * vae->image_channels;
    size_t latent = latent_height * latent_width * channels;
    size_t text = base_token_count(base) * base_clip(base)->hidden;
    bool stochastic = model_checkpoint(model)->stochastic;
    in->control = memory_allocate(run->count * picture, sizeof(float), error);
    in->text = memory_allocate(run->count * text, sizeof(float), error);
    in->posterior_noise = memory_allocate(run->count * latent, sizeof(float), error);
    in->noise = stochastic ? memory_allocate(run->count * latent, sizeof(float), error) : NULL;
    if (!in->control || !in->text || !in->posterior_noise || (stochastic && !in->noise)) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_status status = ONESTEP_OK;
    for (size_t i = 0; i < run->count && status == ONESTEP_OK; i++) {
        const item *it = run->items[i];
        float *noise = stochastic ? in->noise + i * latent : NULL;
        float *posterior = in->posterior_noise + i * latent;
        item_control_values(it, model, in->control + i * picture);
        status = item_noise(it, latent_height, latent_width, channels, noise, posterior, error);
        if (status == ONESTEP_OK) {
            double operations = base_text_operations(base, it->ids), start = monotonic_seconds();
            status = base_encode_text(base, it->ids, in->text + i * text, text_report, run, error);
            *text_seconds += monotonic_seconds() - start;
            run->call->operations_done += operations;
        }
        if (status == ONESTEP_OK) {
            status = dump_text(it, base, in->text + i * text, error);
        }
        if (status == ONESTEP_OK) {
            status = dump_picture(it->request, "control", height, width, vae->image_channels,
                                  in->control + i * picture, error);
        }
        if (status == ONESTEP_OK) {
            status = dump_picture(it->request, "posterior_noise", latent_height, latent_width,
                                  channels, posterior, error);
        }
        if (status == ONESTEP_OK && noise) {
            status = dump_picture(it->request, "noise", latent_height, latent_width, channels,
                                  noise, error);
        }
    }
    return status;
}

static onestep_status run_group(group_run *run, onestep_error *error)
{
    onestep_session *session = run->session;
    const item *first = run->items[0];
    double start = monotonic_seconds(), text_seconds = 0;
    picture_shape shape = {.batch = run->count,
                           .height = first->control.height,
                           .width = first->control.width,
                           .direction = first->direction,
                           .watch = first->request->dump != NULL};
    group_inputs in = {0};
    planned *p;
    onestep_status status = session_plan(session, &shape, &p, error);
    if (status == ONESTEP_OK) {
        status = divide_memory(session, p->plan, error);
    }
    if (status == ONESTEP_OK) {
        status = fill_inputs(run, &in, shape.height, shape.width, &text_seconds, error);
    }
    if (status == ONESTEP_OK) {
        float scalars[SCALAR_COUNT] = {[SCALAR_GAMMA] = first->gamma};
        plan_input inputs[] = {{"control", in.control},
                               {"text", in.text},
                               {"posterior_noise", in.posterior_noise},
                               {"noise", in.noise}};
        plan_run_arguments arguments = {.inputs = inputs,
                                        .input_count = in.noise ? 4 : 3,
                                        .scalars = scalars,
                                        .output = take_output,
                                        .progress = step_report,
                                        .context = run};
        status = plan_run(p->plan, &arguments, error);
    }
    group_inputs_free(&in);
    if (status != ONESTEP_OK) {
        return status;
    }
    run->call->operations_done += plan_operations(p->plan);
    double count = (double)run->count;
    for (size_t i = 0; i < run->count; i++) {
        onestep_result *result = run->results[i];
        result->text_seconds = text_seconds / count;
        result->encode_seconds = plan_stage_seconds(p->plan, "encode") / count;
        result->unet_seconds = plan_stage_seconds(p->plan, "unet") / count;
        result->decode_seconds = plan_stage_seconds(p->plan, "decode") / count;
        result->total_seconds = (monotonic_seconds() - start) / count;
        result->operations = (uint64_t)(plan_operations(p->plan) / count);
    }
    return ONESTEP_OK;
}

/* Whether two requests may share a run. A dump is of one picture. */
static bool runs_together(const item *a, const item *b)
{
    return a->control.width == b->control.width && a->control.height == b->control.height &&
           a->gamma == b->gamma && a->direction == b->direction && !a->request->dump &&
           !b->request->dump;
}

static size_t batch_most(const item *it)
{
    size_t fit = BATCH_PIXELS / ((size_t)it->control.width * it->control.height);
    return size_maximum(1, size_minimum(fit, BATCH_MOST));
}

onestep_status session_translate(onestep_session *session, const onestep_request *requests,
                                 size_t count, onestep_result *results, onestep_error *error)
{
    if (count == 0) {
        return ONESTEP_OK;
    }
    call c = {.requests = requests};
    item *items = memory_allocate(count, sizeof *items, error);
    if (!items) {
        return ONESTEP_ERROR_MEMORY;
    }
    onestep_base *base = model_base(session->model);
    onestep_status status = ONESTEP_OK;
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        status = item_prepare(&items[i], session->model, &requests[i], error);
    }
    /* The work of every picture is known before the first one runs. */
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        picture_shape shape = {.batch = 1,
                               .height = items[i].control.height,
                               .width = items[i].control.width,
                               .direction = items[i].direction};
        graph *g;
        if (!requests[0].progress) {
            break;
        }
        status = model_build_graph(session->model, &shape, &g, error);
        if (status == ONESTEP_OK) {
            c.operations_total += graph_cost(g, NULL) + base_text_operations(base, items[i].ids);
            graph_destroy(&g);
        }
    }
    for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
        if (items[i].done) {
            continue;
        }
        item *members[BATCH_MOST];
        onestep_result *member_results[BATCH_MOST];
        group_run run = {
            .session = session, .call = &c, .items = members, .results = member_results};
        size_t most = batch_most(&items[i]);
        for (size_t k = i; k < count && run.count < most; k++) {
            if (k == i || (!items[k].done && runs_together(&items[i], &items[k]))) {
                members[run.count] = &items[k];
                member_results[run.count++] = &results[k];
                items[k].done = true;
            }
        }
        status = run_group(&run, error);
    }
    for (size_t i = 0; i < count; i++) {
        item_free(&items[i]);
        if (status != ONESTEP_OK) {
            image_destroy(&results[i].image);
            image_destroy(&results[i].control);
        }
    }
    memory_free(items);
    return status;
}

static const planned *newest(const onestep_session *session)
{
    const planned *best = NULL;
    for (size_t i = 0; i < SESSION_PLANS; i++) {
        const planned *p = &session->plans[i];
        if (p->plan && (!best || p->used > best->used)) {
            best = p;
        }
    }
    return best;
}

const plan *session_last_plan(const onestep_session *session)
{
    const planned *p = newest(session);
    return p ? p->plan : NULL;
}

void session_print_plan(const onestep_session *session, text_buffer *out)
{
    const plan *p = session_last_plan(session);
    if (p) {
        plan_print(p, out);
    }
}

void session_print_graph(const onestep_session *session, text_buffer *out)
{
    const planned *p = newest(session);
    if (p) {
        graph_print_dot(p->graph, out);
    }
}

size_t session_arena_bytes(const onestep_session *session)
{
    const planned *p = newest(session);
    return p ? plan_arena_bytes(p->plan) : 0;
}
