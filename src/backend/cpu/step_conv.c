/* Running convolutions, linear layers and attention. */
#include "backend/cpu/cpu.h"

#include <string.h>

/* One vector for every picture becomes a vector a picture. */
static const float *repeat_vector(const conv_step *conv, const float *vector, uint8_t *scratch)
{
    float *repeated = (float *)(void *)(scratch + size_round_up(conv->plan.scratch_bytes, 64));
    const size_t channels = conv->plan.shape.output_channels;
    for (size_t n = 0; n < conv->plan.shape.batch; n++) {
        memcpy(repeated + n * channels, vector, channels * sizeof *vector);
    }
    return repeated;
}

onestep_status step_conv(step_context *context, const lowered_step *step, onestep_error *error)
{
    const conv_step *conv = &step->conv;
    const conv_shape *shape = &conv->plan.shape;
    const float *input = NULL, *residual = NULL, *norm = NULL;
    conv_arguments arguments = {
        .input_storage = conv->input_storage,
        .input_stride = shape->input_channels,
        .input_silu = conv->input_silu,
        .activation = conv->activation,
        .output_scale = coefficient_value(conv->output_scale, context->scalars),
        .residual_storage = conv->residual_storage,
        .residual_stride = shape->output_channels,
        .residual_scale = coefficient_value(conv->residual_scale, context->scalars),
        .output = context_output(context, 0),
        .output_storage = conv->output_storage,
        .output_stride = shape->output_channels,
        .statistics = conv->statistics >= 0 ? context_output(context, 1) : NULL,
    };
    onestep_status status = context_acquire_conv(context, conv, &arguments.packed, error);
    if (status == ONESTEP_OK) {
        status = context_operand(context, &conv->bias, &arguments.bias, error);
    }
    if (status == ONESTEP_OK) {
        status = context_operand(context, &conv->input, &input, error);
    }
    if (status == ONESTEP_OK) {
        status = context_operand(context, &conv->image_bias, &arguments.image_bias, error);
    }
    if (status == ONESTEP_OK) {
        status = context_operand(context, &conv->residual, &residual, error);
    }
    if (status == ONESTEP_OK) {
        status = context_operand(context, &conv->norm, &norm, error);
    }
    if (status != ONESTEP_OK) {
        return status;
    }
    context_prefetch(context);
    arguments.input = input;
    arguments.residual = residual;
    if (norm) {
        arguments.input_scale = norm;
        arguments.input_shift = norm + shape->batch * shape->input_channels;
    }
    if (conv->shared_image_bias) {
        arguments.image_bias = repeat_vector(conv, arguments.image_bias, context->scratch);
    }
    conv_run(&conv->plan, &arguments, context->scratch, context->backend->base.pool);
    return ONESTEP_OK;
}

onestep_status step_attention(step_context *context, const lowered_step *step, onestep_error *error)
{
    attention_arguments arguments = {.output = context_output(context, 0),
                                     .scale = step->attributes.attention_scale};
    const float **const data[] = {&arguments.query, &arguments.key, &arguments.value};
    for (unsigned i = 0; i < 3; i++) {
        const onestep_status status = context_operand(context, &step->inputs[i], data[i], error);
        if (status != ONESTEP_OK) {
            return status;
        }
    }
    attention_run(&step->attention, &arguments, context->backend->products,
                  context->backend->kernels, context->scratch, context->backend->base.pool);
    return ONESTEP_OK;
}
