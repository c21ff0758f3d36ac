/* The cpu backend's table of functions, and running a step. */
#include "backend/cpu/cpu.h"
#include "backend/host.h"

/* While one step runs, the system reads the mapped weights of the next one. */
static void prefetch_next(const lowered_program *lowered, int index)
{
    for (int s = index + 1; s < lowered->step_count; s++) {
        const lowered_step *step = &lowered->steps[s];
        if (step->run != step_conv) {
            continue;
        }
        const weight_expression *weight = step->conv.weight;
        for (unsigned t = 0; t < weight->term_count; t++) {
            const weight_term *term = &weight->terms[t];
            const named_tensor *parts[] = {term->full, term->down, term->up};
            for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
                if (parts[i]) {
                    mapped_memory_prefetch(parts[i]->data, parts[i]->bytes);
                }
            }
        }
        return;
    }
}

static onestep_status cpu_run(backend *self, const program *p, int index,
                              const step_bindings *bindings, onestep_error *error)
{
    const lowered_program *lowered = p->lowered;
    const lowered_step *step = &lowered->steps[index];
    step_context context = {
        .backend = (const cpu_backend *)self,
        .lowered = lowered,
        .step = &p->steps[index],
        .index = index,
        .arena = bindings->arena->data,
        .offsets = bindings->offsets,
        .scratch = bindings->arena->data + bindings->scratch_offset,
        .scalars = bindings->scalars,
    };
    const onestep_status status = step->run(&context, step, error);
    context_release(&context);
    return status;
}

void context_prefetch(const step_context *context)
{
    if (context->packed) {
        prefetch_next(context->lowered, context->index);
    }
}

onestep_status context_operand(step_context *context, const operand *o, const float **data,
                               onestep_error *error)
{
    if (o->weight) {
        return context_acquire_plain(context, o->weight, data, error);
    }
    *data = o->value >= 0
                ? (const float *)(const void *)(context->arena + context->offsets[o->value])
                : o->constant;
    return ONESTEP_OK;
}

float *context_output(const step_context *context, unsigned index)
{
    return (float *)(void *)(context->arena + context->offsets[context->step->outputs[index]]);
}

typedef struct range_context {
    size_t count, grain;
    range_function run;
    void *context;
} range_context;

static void run_range(void *opaque, size_t index, unsigned worker)
{
    const range_context *r = opaque;
    const size_t first = index * r->grain;
    (void)worker;
    r->run(r->context, first, size_minimum(r->grain, r->count - first));
}

void parallel_range(thread_pool *pool, size_t count, size_t grain, range_function run,
                    void *context)
{
    range_context r = {
        .count = count, .grain = size_maximum(grain, 1), .run = run, .context = context};
    thread_pool_run(pool, (count + r.grain - 1) / r.grain, run_range, &r);
}

static void cpu_destroy(backend *self)
{
    memory_free(self);
}

static const backend_functions cpu_functions = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .allocate = host_allocate,
    .release = host_release,
    .upload = host_upload,
    .download = host_download,
    .lower = cpu_lower,
    .lowered_destroy = cpu_lowered_destroy,
    .run = cpu_run,
    .sync = host_sync,
};

onestep_status backend_cpu_create(backend **result, thread_pool *pool, cpu_level level,
                                  onestep_error *error)
{
    *result = NULL;
    cpu_backend *self = memory_allocate(1, sizeof *self, error);
    if (!self) {
        return ONESTEP_ERROR_MEMORY;
    }
    cpu_features features;
    cpu_features_detect(&features);
    self->base.functions = &cpu_functions;
    self->base.pool = pool;
    self->base.level = level < features.level ? level : features.level;
    self->products = conv_kernels_find(self->base.level);
    self->kernels = tensor_kernels_find(self->base.level);
    *result = &self->base;
    return ONESTEP_OK;
}
