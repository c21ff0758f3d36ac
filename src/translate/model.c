/* A model: a base with a checkpoint, as named weight expressions, and the graph of a picture. */
#include "translate/translate.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct onestep_model {
    atomic_uint references;
    onestep_base *base;
    checkpoint checkpoint;
    const task *task;
    weight_set *unet;
    weight_set *vae[2]; /* unpaired: a2b, b2a; paired: the first only */
    weight_cache *weight_cache;
    precision precision;
};

/* ---- the graph of a picture
 * ----------------------------------------------------------------------- */

/* latent = (mean + exp(clamp(log-variance) / 2) * noise) * scaling_factor (diffusers'
 * DiagonalGaussianDistribution). */
static tensor_id sample_posterior(graph *g, const vae_config *vae, tensor_id moments,
                                  tensor_id noise)
{
    size_t channels = vae->latent_channels;
    tensor_id mean = graph_slice(g, moments, 0, channels);
    tensor_id log_variance = graph_slice(g, moments, channels, channels);
    log_variance = graph_clamp(g, log_variance, -30, 20);
    tensor_id deviation = graph_activation(
        g, OPERATION_EXP, graph_scale(g, log_variance, coefficient_constant(0.5f), 0));
    tensor_id offset = graph_multiply(g, deviation, noise);
    tensor_id sample = graph_sum_of(g, mean, offset);
    return graph_scale(g, sample, coefficient_constant(vae->scaling_factor), 0);
}

static void watch(graph *g, bool wanted, const char *name, tensor_id watched)
{
    if (wanted) {
        graph_output_add(g, name, watched);
    }
}

/* The size of a picture in the latent. */
static size_t latent_side(const vae_config *vae, size_t pixels)
{
    return pixels / vae_factor(vae);
}

onestep_status model_build_graph(onestep_model *model, const picture_shape *shape, graph **result,
                                 onestep_error *error)
{
    const vae_config *vae = base_vae(model->base);
    const clip_config *clip = base_clip(model->base);
    onestep_status status = graph_create(result, error);
    if (status != ONESTEP_OK) {
        return status;
    }
    graph *g = *result;
    weight_set *vae_weights = model_vae(model, shape->direction);
    bool stochastic = model->checkpoint.stochastic;
    coefficient r = {.constant = 0, .slope = 1, .scalar = SCALAR_GAMMA};
    coefficient one_minus_r = {.constant = 1, .slope = -1, .scalar = SCALAR_GAMMA};
    size_t n = shape->batch, height = latent_side(vae, shape->height),
           width = latent_side(vae, shape->width);
    size_t picture_dims[4] = {n, shape->height, shape->width, vae->image_channels};
    size_t text_dims[4] = {n, 1, base_token_count(model->base), clip->hidden};
    size_t latent_dims[4] = {n, height, width, vae->latent_channels};

    /* The scheduler's step multiplies errors of the latent and of the prediction by 1/sqrt(a): 14.6
     * for SD-Turbo. The prediction is close to what the UNet was given, and so follows its errors,
     * which the step subtracts again from those of the latent; its own errors stay. */
    graph_amplification(g, AMPLIFICATION_PARTIAL);
    graph_stage(g, "encode");
    tensor_id control = graph_input(g, "control", ELEMENT_F32, picture_dims);
    tensor_id text = graph_input(g, "text", ELEMENT_F32, text_dims);
    graph_steady(g, text); /* many pictures, one caption */
    tensor_id posterior_noise = graph_input(g, "posterior_noise", ELEMENT_F32, latent_dims);
    tensor_id skips[NETWORK_LEVELS];
    tensor_id moments = vae_encoder_build(g, vae, vae_weights, control, skips);
    tensor_id latent = sample_posterior(g, vae, moments, posterior_noise);

    graph_amplification(g, AMPLIFICATION_FULL);
    graph_stage(g, "unet");
    graph_stored_f32(g, true); /* and its tensors are small */
    tensor_id unet_in = latent;
    if (stochastic) {
        tensor_id noise = graph_input(g, "noise", ELEMENT_F32, latent_dims);
        unet_in = graph_combine(g, latent, r, noise, one_minus_r);
    }
    tensor_id prediction =
        unet_build(g, base_unet(model->base), model->unet, unet_in, text, ONE_STEP_TIMESTEP);
    tensor_id x0 = scheduler_build(g, base_scheduler(model->base), unet_in, prediction);

    graph_amplification(g, AMPLIFICATION_NONE);
    graph_stored_f32(g, false);
    graph_stage(g, "decode");
    tensor_id scaled =
        graph_scale(g, x0, coefficient_constant((float)(1.0 / (double)vae->scaling_factor)), 0);
    tensor_id decoded = vae_decoder_build(g, vae, vae_weights, scaled, skips,
                                          stochastic ? r : coefficient_constant(1));
    tensor_id image = graph_clamp(g, decoded, -1, 1);

    watch(g, shape->watch, "moments", moments);
    watch(g, shape->watch, "latent", latent);
    watch(g, shape->watch, "unet_in", unet_in);
    for (size_t level = 0; level < vae->levels; level++) {
        char name[] = "skip0";
        name[4] = (char)('0' + level);
        watch(g, shape->watch, name, skips[level]);
    }
    watch(g, shape->watch, "eps", prediction);
    watch(g, shape->watch, "x0", x0);
    watch(g, shape->watch, "decoded", decoded);
    graph_output_add(g, "image", image);
    status = graph_check(g, error);
    if (status != ONESTEP_OK) {
        graph_destroy(result);
    }
    return status;
}

/* ---- opening
 * --------------------------------------------------------------------------------------- */

static onestep_status choose_task(onestep_model *model, const char *path, const char *name,
                                  onestep_error *error)
{
    const checkpoint *c = &model->checkpoint;
    if (!name) {
        return ONESTEP_OK;
    }
    model->task = task_find(name);
    if (!model->task) {
        const char *names[TASK_COUNT];
        for (size_t i = 0; i < TASK_COUNT; i++) {
            names[i] = task_at(i)->name;
        }
        const char *near = nearest_name(name, names, TASK_COUNT);
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "task \"%.100s\" is unknown%s%s%s", name,
                         near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    if (model->task->family != c->family) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: a checkpoint of the %s family, but the task %s belongs to the %s "
                         "family",
                         path, c->family == ONESTEP_FAMILY_PAIRED ? "paired" : "unpaired", name,
                         c->family == ONESTEP_FAMILY_PAIRED ? "unpaired" : "paired");
    }
    if (model->task->stochastic != c->stochastic) {
        return error_set(error, ONESTEP_ERROR_MISMATCH,
                         "%s: a checkpoint %s twin conv_in, but the task %s is %s", path,
                         c->stochastic ? "with a" : "without", name,
                         c->stochastic ? "deterministic" : "stochastic");
    }
    return ONESTEP_OK;
}

static onestep_status fill_weights(onestep_model *model, double alpha_unet, double alpha_vae,
                                   onestep_error *error)
{
    const checkpoint *c = &model->checkpoint;
    onestep_status status = weight_set_create(&model->unet, "unet", error);
    if (status == ONESTEP_OK) {
        status = base_fill(model->base, BASE_UNET, model->unet, error);
    }
    if (status == ONESTEP_OK) {
        status = checkpoint_fill_unet(c, alpha_unet, model->unet, error);
    }
    bool paired = c->family == ONESTEP_FAMILY_PAIRED;
    for (int v = 0; v < (paired ? 1 : 2) && status == ONESTEP_OK; v++) {
        static const char *const labels[] = {"vae", "vae_b2a"};
        status = weight_set_create(&model->vae[v], labels[v], error);
        if (status == ONESTEP_OK && paired) {
            status = base_fill(model->base, BASE_VAE, model->vae[v], error);
        }
        if (status == ONESTEP_OK) {
            status = checkpoint_fill_vae(c, alpha_vae,
                                         v == 0 ? ONESTEP_DIRECTION_A2B : ONESTEP_DIRECTION_B2A,
                                         model->vae[v], error);
        }
    }
    return status;
}

/* Builds the smallest picture's graph, which looks up every weight by name and shape; then no
 * weight may be left over. */
static onestep_status check_weights(onestep_model *model, onestep_error *error)
{
    size_t side = vae_factor(base_vae(model->base));
    onestep_status status = ONESTEP_OK;
    for (int v = 0; v < 2 && model->vae[v] && status == ONESTEP_OK; v++) {
        picture_shape shape = {.batch = 1,
                               .height = side,
                               .width = side,
                               .direction = v == 0 ? ONESTEP_DIRECTION_A2B : ONESTEP_DIRECTION_B2A};
        graph *g;
        status = model_build_graph(model, &shape, &g, error);
        if (status == ONESTEP_OK) {
            graph_destroy(&g);
        }
    }
    weight_set *sets[] = {model->unet, model->vae[0], model->vae[1]};
    static const char *const labels[] = {"unet", "vae", "vae_b2a"};
    for (int s = 0; s < 3 && status == ONESTEP_OK; s++) {
        const char *unused = sets[s] ? weight_set_unused(sets[s]) : NULL;
        if (unused) {
            status = error_set(error, ONESTEP_ERROR_MISMATCH,
                               "%s: tensor %s is not used by the network of this config", labels[s],
                               unused);
        }
    }
    return status;
}

static onestep_status choose_precision(onestep_model *model, onestep_precision wanted,
                                       onestep_error *error)
{
    cpu_level level = engine_backend(base_engine(model->base))->level;
    const bool integers = level != CPU_LEVEL_PLAIN && level != CPU_LEVEL_NEON;
    switch (wanted) {
    case ONESTEP_PRECISION_AUTO:
        /* The fastest wherever its kernels exist, and 53 dB or more from float32 (docs/SPEED.md).
         */
        model->precision = integers ? PRECISION_INT16 : PRECISION_F32;
        return ONESTEP_OK;
    case ONESTEP_PRECISION_F32:
        model->precision = PRECISION_F32;
        return ONESTEP_OK;
    case ONESTEP_PRECISION_BF16:
        if (level != CPU_LEVEL_AVX512_BF16) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT,
                             "precision bf16 needs the CPU feature AVX512_BF16, which is not in "
                             "use (%s)",
                             cpu_level_name(level));
        }
        model->precision = PRECISION_BF16;
        return ONESTEP_OK;
    case ONESTEP_PRECISION_INT16:
        if (!integers) {
            return error_set(error, ONESTEP_ERROR_ARGUMENT,
                             "precision int16 needs the CPU feature AVX2, which is not in use (%s)",
                             cpu_level_name(level));
        }
        model->precision = PRECISION_INT16;
        return ONESTEP_OK;
    }
    return error_set(error, ONESTEP_ERROR_ARGUMENT, "precision %d is unknown", (int)wanted);
}

/* The session says how much may stay packed, when it knows the size of the pictures. */
static onestep_status create_weight_cache(onestep_model *model, onestep_error *error)
{
    onestep_status status = weight_cache_create(&model->weight_cache, 0, error);
    if (status == ONESTEP_OK) {
        weight_cache_release_sources(model->weight_cache, true);
        weight_cache_keep_repeated(model->weight_cache, true);
    }
    return status;
}

/* An alpha given by the caller, or the official one. */
static onestep_status choose_alpha(double given, double official, const char *name, double *alpha,
                                   onestep_error *error)
{
    if (isinf(given) || fabs(given) > 1e6) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "%s %g is out of range", name, given);
    }
    *alpha = isnan(given) ? official : given;
    return ONESTEP_OK;
}

onestep_status model_open(onestep_model **result, onestep_base *base, const char *path,
                          const onestep_model_options *options, onestep_error *error)
{
    *result = NULL;
    onestep_model *model = memory_allocate(1, sizeof *model, error);
    if (!model) {
        return ONESTEP_ERROR_MEMORY;
    }
    atomic_init(&model->references, 1);
    model->base = base_retain(base);
    double alpha_unet = 0, alpha_vae = 0;
    const checkpoint *c = &model->checkpoint;
    onestep_status status = choose_precision(model, options->precision, error);
    if (status == ONESTEP_OK) {
        status = checkpoint_open(&model->checkpoint, path, error);
    }
    if (status == ONESTEP_OK) {
        status = choose_task(model, path, options->task, error);
    }
    if (status == ONESTEP_OK) {
        status = choose_alpha(options->lora_alpha_unet, checkpoint_official_alpha_unet(c),
                              "lora_alpha_unet", &alpha_unet, error);
    }
    if (status == ONESTEP_OK) {
        status = choose_alpha(options->lora_alpha_vae, checkpoint_official_alpha_vae(c),
                              "lora_alpha_vae", &alpha_vae, error);
    }
    if (status == ONESTEP_OK) {
        status = fill_weights(model, alpha_unet, alpha_vae, error);
    }
    if (status == ONESTEP_OK) {
        status = check_weights(model, error);
        if (status != ONESTEP_OK) {
            error_prefix(error, "%s over %s", path, base_folder(base));
        }
    }
    if (status == ONESTEP_OK) {
        status = create_weight_cache(model, error);
    }
    if (status != ONESTEP_OK) {
        model_release(model);
        return status;
    }
    log_message(engine_log(base_engine(base)), ONESTEP_LOG_INFO,
                "checkpoint %s: %s family%s, LoRA rank %zu (UNet, scale %g), %zu (VAE, scale %g)",
                path, c->family == ONESTEP_FAMILY_PAIRED ? "paired" : "unpaired",
                c->stochastic ? ", stochastic" : "", c->rank_unet,
                c->rank_unet ? alpha_unet / (double)c->rank_unet : 0.0, c->rank_vae,
                c->rank_vae ? alpha_vae / (double)c->rank_vae : 0.0);
    *result = model;
    return ONESTEP_OK;
}

onestep_model *model_retain(onestep_model *model)
{
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    return model;
}

void model_release(onestep_model *model)
{
    if (!model || atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    weight_cache_destroy(&model->weight_cache);
    weight_set_destroy(&model->unet);
    weight_set_destroy(&model->vae[0]);
    weight_set_destroy(&model->vae[1]);
    checkpoint_close(&model->checkpoint);
    base_release(model->base);
    memory_free(model);
}

onestep_base *model_base(const onestep_model *model)
{
    return model->base;
}

const task *model_task(const onestep_model *model)
{
    return model->task;
}

const checkpoint *model_checkpoint(const onestep_model *model)
{
    return &model->checkpoint;
}

bool model_is_paired(const onestep_model *model)
{
    return model->checkpoint.family == ONESTEP_FAMILY_PAIRED;
}

weight_set *model_unet(onestep_model *model)
{
    return model->unet;
}

weight_set *model_vae(onestep_model *model, onestep_direction direction)
{
    bool second = direction == ONESTEP_DIRECTION_B2A && model->vae[1];
    return model->vae[second ? 1 : 0];
}

weight_cache *model_weight_cache(onestep_model *model)
{
    return model->weight_cache;
}

precision model_precision(const onestep_model *model)
{
    return model->precision;
}

const char *model_precision_text(const onestep_model *model)
{
    switch (model->precision) {
    case PRECISION_INT16:
        return "int16";
    case PRECISION_BF16:
        return "bf16";
    case PRECISION_F32:
        break;
    }
    return "f32";
}
