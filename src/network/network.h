/* network: the three networks and the scheduler as code that builds graphs.
 *
 * Everything is driven by the JSON configs of a diffusers folder; no width, depth, head count or
 * epsilon is written here. A config key that changes the network and is not supported at its value
 * is an error that names it. Sources: diffusers (UNet2DConditionModel, AutoencoderKL,
 * DDPMScheduler), transformers (CLIPTextModel), img2img-turbo (skip connections). */
#ifndef ONESTEP_NETWORK_H
#define ONESTEP_NETWORK_H

#include "graph/graph.h"

#define NETWORK_LEVELS 8 /* at most, in block_out_channels */

/* ---- weights by name ------------------------------------------------------------------------- */

/* The weights of one network as expressions, by canonical name ("conv_in.weight"). Filled from
 * files, then taken by network code; expressions live as long as the set. */
typedef struct weight_set weight_set;

/* `label` names the network in errors: "unet", "vae", "text_encoder". */
onestep_status weight_set_create(weight_set **set, const char *label,
                                 onestep_error *error) MUST_USE;
void weight_set_destroy(weight_set **set);
/* Adds scale * full, or scale * up * down, to the weight `name`. Shapes must agree with what is
 * there. `replace`: drops earlier full terms first (a checkpoint's own weight for the base's). The
 * tensors must outlive the set. */
onestep_status weight_set_add_full(weight_set *set, const char *name, const named_tensor *full,
                                   coefficient scale, bool replace, onestep_error *error) MUST_USE;
onestep_status weight_set_add_low_rank(weight_set *set, const char *name, const named_tensor *down,
                                       const named_tensor *up, coefficient scale,
                                       onestep_error *error) MUST_USE;
/* The expression of a weight that must have this shape ([o,i,kh,kw], filled up with ones), and
 * counts it as used; missing or of another shape: an error that names it. */
onestep_status weight_set_take(weight_set *set, const char *name, const size_t dims[4],
                               const weight_expression **result, onestep_error *error) MUST_USE;
bool weight_set_has(const weight_set *set, const char *name);
/* A weight that nobody took, or NULL. */
const char *weight_set_unused(const weight_set *set);
size_t weight_set_count(const weight_set *set);
const weight_expression *weight_set_item(const weight_set *set, size_t index);

/* ---- CLIP text encoder ------------------------------------------------------------------------
 */

typedef struct clip_config {
    size_t vocabulary, hidden, intermediate, layers, heads, positions;
    operation activation; /* GELU or QUICK_GELU */
    float epsilon;
} clip_config;

onestep_status clip_config_read(clip_config *settings, const char *path,
                                onestep_error *error) MUST_USE;
/* ids [n,1,t,1] -> last hidden state [n,1,t,hidden]: causal mask, no padding mask, final norm. */
tensor_id clip_text_build(graph *g, const clip_config *settings, weight_set *weights,
                          tensor_id ids);

/* ---- VAE ---------------------------------------------------------------------------------------
 */

typedef struct vae_config {
    size_t image_channels, latent_channels;
    size_t levels, widths[NETWORK_LEVELS];
    size_t layers; /* resnets a level of the encoder; one more in the decoder */
    unsigned groups;
    bool quant_conv, post_quant_conv, middle_attention;
    float scaling_factor;
} vae_config;

onestep_status vae_config_read(vae_config *settings, const char *path,
                               onestep_error *error) MUST_USE;
/* Pixels a latent: 2^(levels-1). */
size_t vae_factor(const vae_config *settings);
/* picture [n,H,W,3] -> moments [n,h,w,2*latent] (mean, log-variance); skips[i] is the activation
 * that enters down block i. */
tensor_id vae_encoder_build(graph *g, const vae_config *settings, weight_set *weights,
                            tensor_id picture, tensor_id skips[NETWORK_LEVELS]);
/* latent [n,h,w,latent] -> picture [n,H,W,3], adding gamma * skip_conv(skip) before each up block.
 */
tensor_id vae_decoder_build(graph *g, const vae_config *settings, weight_set *weights,
                            tensor_id latent, const tensor_id skips[NETWORK_LEVELS],
                            coefficient gamma);

/* ---- UNet ---------------------------------------------------------------------------------------
 */

typedef struct unet_config {
    size_t in_channels, out_channels;
    size_t levels, widths[NETWORK_LEVELS], layers[NETWORK_LEVELS];
    bool down_attention[NETWORK_LEVELS], up_attention[NETWORK_LEVELS]; /* transformers in a block */
    bool only_cross_attention[NETWORK_LEVELS], middle_only_cross_attention;
    size_t heads[NETWORK_LEVELS], transformer_layers[NETWORK_LEVELS], text_width[NETWORK_LEVELS];
    unsigned groups;
    float epsilon;
    unsigned down_padding;
    bool cosine_first; /* flip_sin_to_cos */
    float frequency_shift;
} unet_config;

onestep_status unet_config_read(unet_config *settings, const char *path,
                                onestep_error *error) MUST_USE;
/* latent [n,h,w,in], text [n,1,t,width] -> prediction [n,h,w,out] at a time step. */
tensor_id unet_build(graph *g, const unet_config *settings, weight_set *weights, tensor_id latent,
                     tensor_id text, double timestep);

/* ---- scheduler ----------------------------------------------------------------------------------
 */

typedef enum prediction_type {
    PREDICTION_EPSILON,
    PREDICTION_VELOCITY, /* v_prediction */
    PREDICTION_SAMPLE
} prediction_type;

typedef struct scheduler_config {
    prediction_type prediction;
    double alpha_product; /* of (1 - beta) up to the last time step, as torch's float32 gives it */
    bool clip_sample;
    double clip_range;
    size_t train_timesteps;
} scheduler_config;

/* The time step of the one step. */
#define ONE_STEP_TIMESTEP 999

onestep_status scheduler_config_read(scheduler_config *settings, const char *path,
                                     onestep_error *error) MUST_USE;
/* x0 from the noisy sample and the network's prediction: DDPMScheduler.step with one step. */
tensor_id scheduler_build(graph *g, const scheduler_config *settings, tensor_id sample,
                          tensor_id prediction);

#endif
