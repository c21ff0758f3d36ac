/* The four networks' JSON configs. Missing keys take the defaults of diffusers and transformers;
 * keys that change the network at a value that is not supported are errors that name them. */
#include "network/network.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Reading many keys in a row: after the first failure the others are skipped. */
typedef struct reader {
    config *settings;
    onestep_status status;
    onestep_error *error;
} reader;

static size_t read_size(reader *r, const char *key, int64_t fallback, int64_t least, int64_t most)
{
    int64_t value = fallback;
    if (r->status == ONESTEP_OK) {
        r->status = config_integer(r->settings, key, fallback, least, most, &value, r->error);
    }
    return (size_t)value;
}

static double read_number(reader *r, const char *key, double fallback, double least, double most)
{
    double value = fallback;
    if (r->status == ONESTEP_OK) {
        r->status = config_number(r->settings, key, fallback, least, most, &value, r->error);
    }
    return value;
}

static bool read_boolean(reader *r, const char *key, bool fallback)
{
    bool value = fallback;
    if (r->status == ONESTEP_OK) {
        r->status = config_boolean(r->settings, key, fallback, &value, r->error);
    }
    return value;
}

static const char *read_string(reader *r, const char *key, const char *fallback)
{
    const char *value = fallback;
    if (r->status == ONESTEP_OK) {
        r->status = config_string(r->settings, key, fallback, &value, r->error);
    }
    return value;
}

static void unsupported(reader *r, const char *key, const char *expected)
{
    if (r->status == ONESTEP_OK) {
        r->status = error_set(r->error, ONESTEP_ERROR_UNSUPPORTED,
                              "%s: %s has a value that is not supported (expected %s)",
                              config_path(r->settings), key, expected);
    }
}

static void require_string(reader *r, const char *key, const char *fallback, const char *supported)
{
    const char *value = read_string(r, key, fallback);
    if (r->status == ONESTEP_OK && strcmp(value, supported) != 0) {
        r->status = error_set(r->error, ONESTEP_ERROR_UNSUPPORTED,
                              "%s: %s \"%s\" is not supported (expected \"%s\")",
                              config_path(r->settings), key, value, supported);
    }
}

static void require_boolean(reader *r, const char *key, bool supported)
{
    if (read_boolean(r, key, supported) != supported) {
        unsupported(r, key, supported ? "true" : "false");
    }
}

static void require_number(reader *r, const char *key, double supported)
{
    if (read_number(r, key, supported, -1e30, 1e30) != supported) {
        char text[32];
        snprintf(text, sizeof text, "%g", supported);
        unsupported(r, key, text);
    }
}

static void require_null(reader *r, const char *key)
{
    if (r->status == ONESTEP_OK && config_has(r->settings, key)) {
        unsupported(r, key, "null");
    }
}

/* "silu" and "swish" are the same activation. */
static void require_silu(reader *r)
{
    const char *name = read_string(r, "act_fn", "silu");
    if (r->status == ONESTEP_OK && strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0) {
        unsupported(r, "act_fn", "\"silu\"");
    }
}

static size_t read_widths(reader *r, const int64_t *fallback, size_t fallback_count,
                          size_t widths[NETWORK_LEVELS])
{
    int64_t values[NETWORK_LEVELS] = {0};
    size_t count = NETWORK_LEVELS;
    memcpy(values, fallback, fallback_count * sizeof *values);
    if (r->status == ONESTEP_OK) {
        r->status = config_integer_list(r->settings, "block_out_channels", 1, 65536, values, &count,
                                        fallback_count, r->error);
    }
    if (r->status == ONESTEP_OK && count == 0) {
        unsupported(r, "block_out_channels", "a list of widths");
    }
    for (size_t i = 0; r->status == ONESTEP_OK && i < count; i++) {
        widths[i] = (size_t)values[i];
    }
    return r->status == ONESTEP_OK ? count : 0;
}

static void check_groups(reader *r, unsigned groups, const size_t *widths, size_t count)
{
    for (size_t i = 0; i < count && r->status == ONESTEP_OK; i++) {
        if (widths[i] % groups != 0) {
            r->status = error_set(r->error, ONESTEP_ERROR_UNSUPPORTED,
                                  "%s: block_out_channels[%zu] = %zu cannot be divided into "
                                  "norm_num_groups = %u",
                                  config_path(r->settings), i, widths[i], groups);
        }
    }
}

static onestep_status reader_open(reader *r, const char *path, onestep_error *error)
{
    *r = (reader){.error = error};
    r->status = config_open(&r->settings, path, error);
    return r->status;
}

static onestep_status reader_close(reader *r)
{
    config_close(&r->settings);
    return r->status;
}

/* ---- CLIP -------------------------------------------------------------------------------------
 */

onestep_status clip_config_read(clip_config *result, const char *path, onestep_error *error)
{
    reader r;
    if (reader_open(&r, path, error) != ONESTEP_OK) {
        return r.status;
    }
    clip_config c = {0};
    c.vocabulary = read_size(&r, "vocab_size", 49408, 1, 10000000);
    c.hidden = read_size(&r, "hidden_size", 512, 1, 65536);
    c.intermediate = read_size(&r, "intermediate_size", 2048, 1, 1 << 20);
    c.layers = read_size(&r, "num_hidden_layers", 12, 1, 1000);
    c.heads = read_size(&r, "num_attention_heads", 8, 1, 65536);
    c.positions = read_size(&r, "max_position_embeddings", 77, 2, 65536);
    c.epsilon = (float)read_number(&r, "layer_norm_eps", 1e-5, 0, 1);
    const char *activation = read_string(&r, "hidden_act", "quick_gelu");
    if (r.status == ONESTEP_OK) {
        if (strcmp(activation, "gelu") == 0) {
            c.activation = OPERATION_GELU;
        } else if (strcmp(activation, "quick_gelu") == 0) {
            c.activation = OPERATION_QUICK_GELU;
        } else {
            unsupported(&r, "hidden_act", "\"gelu\" or \"quick_gelu\"");
        }
    }
    if (r.status == ONESTEP_OK && c.hidden % c.heads != 0) {
        unsupported(&r, "num_attention_heads", "a divisor of hidden_size");
    }
    if (r.status == ONESTEP_OK) {
        *result = c;
    }
    return reader_close(&r);
}

/* ---- VAE --------------------------------------------------------------------------------------
 */

static void require_block_types(reader *r, const char *key, const char *supported, size_t levels,
                                size_t fallback_count)
{
    const char *types[NETWORK_LEVELS] = {supported};
    size_t count = NETWORK_LEVELS;
    if (r->status == ONESTEP_OK) {
        r->status = config_string_list(r->settings, key, types, &count, fallback_count, r->error);
    }
    if (r->status == ONESTEP_OK && count != levels) {
        unsupported(r, key, "one entry a level of block_out_channels");
    }
    for (size_t i = 0; r->status == ONESTEP_OK && i < count; i++) {
        if (strcmp(types[i], supported) != 0) {
            r->status = error_set(r->error, ONESTEP_ERROR_UNSUPPORTED,
                                  "%s: %s \"%s\" is not supported (expected \"%s\")",
                                  config_path(r->settings), key, types[i], supported);
        }
    }
}

onestep_status vae_config_read(vae_config *result, const char *path, onestep_error *error)
{
    reader r;
    if (reader_open(&r, path, error) != ONESTEP_OK) {
        return r.status;
    }
    vae_config c = {0};
    c.levels = read_widths(&r, (int64_t[]){64}, 1, c.widths);
    require_block_types(&r, "down_block_types", "DownEncoderBlock2D", c.levels, 1);
    require_block_types(&r, "up_block_types", "UpDecoderBlock2D", c.levels, 1);
    /* The official decoder has exactly four skip convolutions. */
    if (r.status == ONESTEP_OK && c.levels != 4) {
        unsupported(&r, "block_out_channels", "four levels, as the skip connections need");
    }
    c.image_channels = read_size(&r, "out_channels", 3, 3, 3);
    (void)read_size(&r, "in_channels", 3, 3, 3);
    c.latent_channels = read_size(&r, "latent_channels", 4, 1, 256);
    c.layers = read_size(&r, "layers_per_block", 1, 1, 16);
    c.groups = (unsigned)read_size(&r, "norm_num_groups", 32, 1, 65536);
    c.scaling_factor = (float)read_number(&r, "scaling_factor", 0.18215, 1e-6, 1e6);
    c.quant_conv = read_boolean(&r, "use_quant_conv", true);
    c.post_quant_conv = read_boolean(&r, "use_post_quant_conv", true);
    c.middle_attention = read_boolean(&r, "mid_block_add_attention", true);
    require_silu(&r);
    require_null(&r, "shift_factor");
    require_null(&r, "latents_mean");
    require_null(&r, "latents_std");
    check_groups(&r, c.groups, c.widths, c.levels);
    if (r.status == ONESTEP_OK) {
        *result = c;
    }
    return reader_close(&r);
}

/* ---- UNet -------------------------------------------------------------------------------------
 */

/* Which blocks have transformers. `plain` and `attention` are the two supported kinds. */
static void read_block_types(reader *r, const char *key, const char *plain, const char *attention,
                             bool flags[NETWORK_LEVELS], size_t levels, bool plain_first)
{
    const char *types[NETWORK_LEVELS];
    size_t count = NETWORK_LEVELS;
    for (size_t i = 0; i < 4; i++) {
        bool is_plain = plain_first ? i == 0 : i == 3;
        types[i] = is_plain ? plain : attention;
    }
    if (r->status == ONESTEP_OK) {
        r->status = config_string_list(r->settings, key, types, &count, 4, r->error);
    }
    if (r->status == ONESTEP_OK && count != levels) {
        unsupported(r, key, "one entry a level of block_out_channels");
    }
    for (size_t i = 0; r->status == ONESTEP_OK && i < count; i++) {
        flags[i] = strcmp(types[i], attention) == 0;
        if (!flags[i] && strcmp(types[i], plain) != 0) {
            r->status = error_set(r->error, ONESTEP_ERROR_UNSUPPORTED,
                                  "%s: %s \"%s\" is not supported (expected \"%s\" or \"%s\")",
                                  config_path(r->settings), key, types[i], plain, attention);
        }
    }
}

static void read_each(reader *r, const char *key, int64_t fallback, int64_t most, size_t *values,
                      size_t count)
{
    int64_t numbers[NETWORK_LEVELS];
    if (r->status == ONESTEP_OK) {
        r->status =
            config_integer_each(r->settings, key, fallback, 1, most, numbers, count, r->error);
    }
    for (size_t i = 0; r->status == ONESTEP_OK && i < count; i++) {
        values[i] = (size_t)numbers[i];
    }
}

/* Everything that UNet2DConditionModel can be told and that would make another network. */
static void refuse_unsupported_unet(reader *r)
{
    require_boolean(r, "center_input_sample", false);
    require_string(r, "mid_block_type", "UNetMidBlock2DCrossAttn", "UNetMidBlock2DCrossAttn");
    require_silu(r);
    require_number(r, "mid_block_scale_factor", 1);
    require_number(r, "resnet_out_scale_factor", 1);
    require_string(r, "resnet_time_scale_shift", "default", "default");
    require_boolean(r, "resnet_skip_time_act", false);
    require_boolean(r, "dual_cross_attention", false);
    require_boolean(r, "class_embeddings_concat", false);
    require_string(r, "time_embedding_type", "positional", "positional");
    require_string(r, "attention_type", "default", "default");
    require_number(r, "conv_in_kernel", 3);
    require_number(r, "conv_out_kernel", 3);
    static const char *const null_keys[] = {"class_embed_type",
                                            "addition_embed_type",
                                            "encoder_hid_dim",
                                            "encoder_hid_dim_type",
                                            "time_cond_proj_dim",
                                            "time_embedding_dim",
                                            "time_embedding_act_fn",
                                            "timestep_post_act",
                                            "num_class_embeds",
                                            "cross_attention_norm",
                                            "reverse_transformer_layers_per_block",
                                            "num_attention_heads"};
    for (size_t i = 0; i < sizeof null_keys / sizeof *null_keys; i++) {
        require_null(r, null_keys[i]);
    }
}

onestep_status unet_config_read(unet_config *result, const char *path, onestep_error *error)
{
    reader r;
    if (reader_open(&r, path, error) != ONESTEP_OK) {
        return r.status;
    }
    unet_config c = {0};
    refuse_unsupported_unet(&r);
    c.levels = read_widths(&r, (int64_t[]){320, 640, 1280, 1280}, 4, c.widths);
    read_block_types(&r, "down_block_types", "DownBlock2D", "CrossAttnDownBlock2D",
                     c.down_attention, c.levels, false);
    read_block_types(&r, "up_block_types", "UpBlock2D", "CrossAttnUpBlock2D", c.up_attention,
                     c.levels, true);
    c.in_channels = read_size(&r, "in_channels", 4, 1, 256);
    c.out_channels = read_size(&r, "out_channels", 4, 1, 256);
    c.groups = (unsigned)read_size(&r, "norm_num_groups", 32, 1, 65536);
    c.epsilon = (float)read_number(&r, "norm_eps", 1e-5, 0, 1);
    c.down_padding = (unsigned)read_size(&r, "downsample_padding", 1, 0, 1);
    c.cosine_first = read_boolean(&r, "flip_sin_to_cos", true);
    c.frequency_shift = (float)read_number(&r, "freq_shift", 0, 0, 1);
    (void)read_boolean(&r, "use_linear_projection", false); /* the same thing on NHWC */
    read_each(&r, "layers_per_block", 2, 16, c.layers, c.levels);
    read_each(&r, "attention_head_dim", 8, 65536, c.heads, c.levels);
    read_each(&r, "transformer_layers_per_block", 1, 64, c.transformer_layers, c.levels);
    read_each(&r, "cross_attention_dim", 1280, 65536, c.text_width, c.levels);
    if (r.status == ONESTEP_OK) {
        r.status = config_boolean_each(r.settings, "only_cross_attention", false,
                                       c.only_cross_attention, c.levels, r.error);
    }
    /* diffusers: a single flag holds for the middle too, a list does not. */
    config_kind kind = config_kind_of(r.settings, "only_cross_attention");
    c.middle_only_cross_attention = read_boolean(
        &r, "mid_block_only_cross_attention", kind == CONFIG_BOOLEAN && c.only_cross_attention[0]);
    check_groups(&r, c.groups, c.widths, c.levels);
    for (size_t i = 0; r.status == ONESTEP_OK && i < c.levels; i++) {
        if (c.widths[i] % c.heads[i] != 0) {
            unsupported(&r, "attention_head_dim", "head counts that divide block_out_channels");
        }
        if (c.text_width[i] != c.text_width[0]) {
            unsupported(&r, "cross_attention_dim", "one width for all levels");
        }
    }
    if (r.status == ONESTEP_OK) {
        *result = c;
    }
    return reader_close(&r);
}

/* ---- scheduler
 * ----------------------------------------------------------------------------------- */

enum { TRAIN_TIMESTEPS_MOST = 100000 };

/* beta at a step of the schedule, with torch's float32 rounding (torch.linspace counts from the
 * nearer end). */
static float linspace(float start, float end, size_t steps, size_t index)
{
    float step = (end - start) / (float)(steps - 1);
    return index < steps / 2 ? start + step * (float)index
                             : end - step * (float)(steps - 1 - index);
}

/* The squared-cosine schedule of diffusers' betas_for_alpha_bar. */
static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);
    return c * c;
}

static double alpha_product(reader *r, size_t train_timesteps)
{
    const char *schedule = read_string(r, "beta_schedule", "linear");
    float start = (float)read_number(r, "beta_start", 0.0001, 0, 1);
    float end = (float)read_number(r, "beta_end", 0.02, 0, 1);
    require_null(r, "trained_betas");
    if (r->status != ONESTEP_OK) {
        return 0;
    }
    double product = 1;
    for (size_t t = 0; t <= ONE_STEP_TIMESTEP; t++) {
        float beta;
        if (strcmp(schedule, "scaled_linear") == 0) {
            float root =
                linspace((float)sqrt((double)start), (float)sqrt((double)end), train_timesteps, t);
            beta = root * root;
        } else if (strcmp(schedule, "linear") == 0) {
            beta = linspace(start, end, train_timesteps, t);
        } else if (strcmp(schedule, "squaredcos_cap_v2") == 0) {
            double n = (double)train_timesteps;
            double ratio = cosine_alpha_bar((double)(t + 1) / n) / cosine_alpha_bar((double)t / n);
            beta = (float)fmin(1 - ratio, 0.999);
        } else {
            unsupported(r, "beta_schedule",
                        "\"scaled_linear\", \"linear\" or \"squaredcos_cap_v2\"");
            return 0;
        }
        product *= (double)(1.0f - beta);
    }
    return product;
}

onestep_status scheduler_config_read(scheduler_config *result, const char *path,
                                     onestep_error *error)
{
    reader r;
    if (reader_open(&r, path, error) != ONESTEP_OK) {
        return r.status;
    }
    scheduler_config c = {0};
    c.train_timesteps =
        read_size(&r, "num_train_timesteps", 1000, ONE_STEP_TIMESTEP + 1, TRAIN_TIMESTEPS_MOST);
    c.alpha_product = alpha_product(&r, c.train_timesteps);
    c.clip_sample = read_boolean(&r, "clip_sample", true);
    c.clip_range = read_number(&r, "clip_sample_range", 1, 0, 1e6);
    require_boolean(&r, "thresholding", false);
    require_boolean(&r, "rescale_betas_zero_snr", false);
    const char *prediction = read_string(&r, "prediction_type", "epsilon");
    if (r.status == ONESTEP_OK) {
        if (strcmp(prediction, "epsilon") == 0) {
            c.prediction = PREDICTION_EPSILON;
        } else if (strcmp(prediction, "v_prediction") == 0) {
            c.prediction = PREDICTION_VELOCITY;
        } else if (strcmp(prediction, "sample") == 0) {
            c.prediction = PREDICTION_SAMPLE;
        } else {
            unsupported(&r, "prediction_type", "\"epsilon\", \"v_prediction\" or \"sample\"");
        }
    }
    if (r.status == ONESTEP_OK && !(c.alpha_product > 1e-9)) {
        unsupported(&r, "beta_end", "a schedule that leaves some signal at the last step");
    }
    if (r.status == ONESTEP_OK) {
        *result = c;
    }
    return reader_close(&r);
}

/* With one step the previous time step is before the first, so its alpha product is 1: the DDPM
 * mean is x0 itself. */
tensor_id scheduler_build(graph *g, const scheduler_config *c, tensor_id sample,
                          tensor_id prediction)
{
    double signal = sqrt(c->alpha_product), noise = sqrt(1 - c->alpha_product);
    tensor_id x0 = prediction;
    if (c->prediction == PREDICTION_EPSILON) {
        x0 = graph_combine(g, sample, coefficient_constant((float)(1 / signal)), prediction,
                           coefficient_constant((float)(-noise / signal)));
    } else if (c->prediction == PREDICTION_VELOCITY) {
        x0 = graph_combine(g, sample, coefficient_constant((float)signal), prediction,
                           coefficient_constant((float)-noise));
    }
    if (c->clip_sample) {
        x0 = graph_clamp(g, x0, (float)-c->clip_range, (float)c->clip_range);
    }
    return x0;
}
