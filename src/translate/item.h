/* One request on its way: checked, prepared, with its noise; and its way back to a picture. */
#ifndef ONESTEP_TRANSLATE_ITEM_H
#define ONESTEP_TRANSLATE_ITEM_H

#include "translate/translate.h"

typedef struct item {
    const onestep_request *request;
    const char *caption;
    onestep_direction direction;
    onestep_control control_kind;
    float gamma;
    onestep_image source;  /* the input after --max-side: what the output's size follows */
    onestep_image control; /* what the network sees; sides are multiples of the VAE's factor */
    int32_t *ids;
    bool done;
} item;

/* Checks a request against the model and fills in its defaults; prepares the picture and tokenizes
 * the caption. The item is released by item_free, also after a failure. */
onestep_status item_prepare(item *it, onestep_model *model, const onestep_request *request,
                            onestep_error *error) MUST_USE;
void item_free(item *it);

/* The control picture as the network's input, [H,W,3] floats. */
void item_control_values(const item *it, const onestep_model *model, float *values);

/* The draws of one picture, NHWC [h,w,c]: the given ones, or the official generator's. `noise` is
 * NULL for deterministic models. */
onestep_status item_noise(const item *it, size_t height, size_t width, size_t channels,
                          float *noise, float *posterior_noise, onestep_error *error) MUST_USE;

/* The network's output [H,W,3] as the result's picture, in the official size. */
onestep_status item_finish(const item *it, const onestep_model *model, const float *values,
                           onestep_result *result, onestep_error *error) MUST_USE;

/* NHWC [h,w,c] to NCHW and back, one picture. */
void channels_first(float *result, const float *values, size_t pixels, size_t channels);
void channels_last(float *result, const float *values, size_t pixels, size_t channels);

#endif
