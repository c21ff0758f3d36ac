/* translate: the two families end to end.
 *
 * Engine, base, model and session are the objects of the public API (onestep.h); src/api checks
 * arguments and calls the functions below. Behaviour: pix2pix_turbo.py, cyclegan_turbo.py and the
 * two inference scripts of img2img-turbo. */
#ifndef ONESTEP_TRANSLATE_H
#define ONESTEP_TRANSLATE_H

#include "backend/backend.h"
#include "image/image.h"
#include "network/network.h"
#include "plan/plan.h"

/* ---- tasks ------------------------------------------------------------------------------------
 */

typedef struct task {
    const char *name;
    onestep_family family;
    bool stochastic;
    onestep_control control;
    onestep_direction direction; /* unpaired only */
    const char *caption;         /* fixed prompt; NULL: the user's */
    const char *checkpoint;      /* the official file's name */
} task;

#define TASK_COUNT 6

/* NULL beyond the last. */
const task *task_at(size_t index);
/* NULL when there is none of that name. */
const task *task_find(const char *name);

/* ---- engine ------------------------------------------------------------------------------------
 */

onestep_status engine_create(onestep_engine **engine, const onestep_engine_options *options,
                             onestep_error *error) MUST_USE;
onestep_engine *engine_retain(onestep_engine *engine);
void engine_release(onestep_engine *engine);
thread_pool *engine_pool(const onestep_engine *engine);
const logger *engine_log(const onestep_engine *engine);
backend *engine_backend(const onestep_engine *engine);
/* Memory that the process may use, in bytes, as it was when the engine was made; 0: unknown. */
uint64_t engine_memory_allowed(const onestep_engine *engine);
uint64_t engine_memory_limit(const onestep_engine *engine);

/* ---- base --------------------------------------------------------------------------------------
 */

onestep_status base_open(onestep_base **base, onestep_engine *engine, const char *folder,
                         onestep_error *error) MUST_USE;
onestep_base *base_retain(onestep_base *base);
void base_release(onestep_base *base);
onestep_engine *base_engine(const onestep_base *base);
const char *base_folder(const onestep_base *base);

typedef enum base_part { BASE_TEXT, BASE_UNET, BASE_VAE, BASE_PARTS } base_part;

const clip_config *base_clip(const onestep_base *base);
const unet_config *base_unet(const onestep_base *base);
const vae_config *base_vae(const onestep_base *base);
const scheduler_config *base_scheduler(const onestep_base *base);
const weight_file *base_weights(const onestep_base *base, base_part part);
size_t base_token_count(const onestep_base *base); /* 77 */

/* Adds the weights of a part to a set under their canonical names. */
onestep_status base_fill(const onestep_base *base, base_part part, weight_set *set,
                         onestep_error *error) MUST_USE;

/* Token ids of a caption (base_token_count of them). `cut` (may be NULL) tells whether the caption
 * was too long. */
onestep_status base_tokenize(const onestep_base *base, const char *caption, int32_t *ids, bool *cut,
                             onestep_error *error) MUST_USE;

/* The text encoder's last hidden state [tokens][hidden] of a caption; cached, so that it is
 * computed once a caption for all models of the base. `progress` may be NULL. `*operations` (may be
 * NULL) receives what was computed now. */
typedef onestep_status (*text_progress)(void *context, double operations_done,
                                        onestep_error *error);
onestep_status base_encode_text(onestep_base *base, const int32_t *ids, float *states,
                                text_progress progress, void *context,
                                onestep_error *error) MUST_USE;
/* Floating-point operations that base_encode_text would do for these ids now: 0 when cached. */
double base_text_operations(onestep_base *base, const int32_t *ids);

/* ---- checkpoints
 * --------------------------------------------------------------------------------- */

typedef struct checkpoint {
    weight_file *file;
    onestep_family family;
    bool stochastic; /* twin conv_in */
    size_t rank_unet, rank_vae;
} checkpoint;

/* Opens a .pkl or .safetensors checkpoint and tells its family by its contents. */
onestep_status checkpoint_open(checkpoint *result, const char *path, onestep_error *error) MUST_USE;
void checkpoint_close(checkpoint *c);
/* LoRA alpha of the official training for this family and rank. */
double checkpoint_official_alpha_unet(const checkpoint *c);
double checkpoint_official_alpha_vae(const checkpoint *c);
/* Adds the checkpoint's tensors to the UNet's set (which holds the base's weights). */
onestep_status checkpoint_fill_unet(const checkpoint *c, double alpha, weight_set *set,
                                    onestep_error *error) MUST_USE;
/* The same for a VAE. The paired family's set holds the base's weights; the unpaired family's
 * checkpoint brings whole VAEs, so its set is empty before. */
onestep_status checkpoint_fill_vae(const checkpoint *c, double alpha, onestep_direction direction,
                                   weight_set *set, onestep_error *error) MUST_USE;

/* ---- model
 * --------------------------------------------------------------------------------------- */

onestep_status model_open(onestep_model **model, onestep_base *base, const char *checkpoint_path,
                          const onestep_model_options *options, onestep_error *error) MUST_USE;
onestep_model *model_retain(onestep_model *model);
void model_release(onestep_model *model);
onestep_base *model_base(const onestep_model *model);
const task *model_task(const onestep_model *model); /* NULL for own checkpoints */
const checkpoint *model_checkpoint(const onestep_model *model);
bool model_is_paired(const onestep_model *model);
weight_set *model_unet(onestep_model *model);
weight_set *model_vae(onestep_model *model, onestep_direction direction);
weight_cache *model_weight_cache(onestep_model *model);
precision model_precision(const onestep_model *model);
const char *model_precision_text(const onestep_model *model);

/* The graph of one picture size: inputs "control" [n,H,W,3], "text" [n,1,t,c], "posterior_noise"
 * [n,h,w,4] and, stochastic, "noise" [n,h,w,4]; output "image" (clamped); with `watch` every stage
 * of --dump. */
typedef struct picture_shape {
    size_t batch, height, width;
    onestep_direction direction;
    bool watch;
} picture_shape;

onestep_status model_build_graph(onestep_model *model, const picture_shape *shape, graph **result,
                                 onestep_error *error) MUST_USE;

/* ---- session
 * ------------------------------------------------------------------------------------- */

onestep_status session_create(onestep_session **session, onestep_model *model,
                              onestep_error *error) MUST_USE;
void session_destroy(onestep_session **session);
/* The requests are complete structs (src/api fills older, smaller ones up). */
onestep_status session_translate(onestep_session *session, const onestep_request *requests,
                                 size_t count, onestep_result *results,
                                 onestep_error *error) MUST_USE;
/* The last run's plan, or NULL before the first one; it lives until the next run. */
const plan *session_last_plan(const onestep_session *session);
/* The same as text (--plan), and its graph in Graphviz's language; empty before the first run. */
void session_print_plan(const onestep_session *session, text_buffer *out);
void session_print_graph(const onestep_session *session, text_buffer *out);
/* Bytes of activation memory of the last run. */
size_t session_arena_bytes(const onestep_session *session);

#endif
