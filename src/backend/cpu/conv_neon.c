/* Convolution kernels for NEON. Twice 16 bits a lane multiply no faster there than 32, so `auto`
 * keeps to floats. */
#include <arm_neon.h>

#define CONV_NEON          1
#define CONV_VECTOR_FLOATS 4
#include "backend/cpu/conv_elements.h"
#include "backend/cpu/conv_pack.h"
#include "backend/cpu/conv_tile.h"
#include "backend/cpu/winograd_transform.h"

#include "backend/cpu/conv_portable_pairs.h"

static void epilogue_run(const conv_epilogue *task)
{
    epilogue_run_columns(task, COLUMNS);
}

const conv_kernels conv_kernels_neon = {
    .name = "neon",
    .level = CPU_LEVEL_NEON,
    .rows = ROWS,
    .columns = COLUMNS,
    .multiply = multiply,
    .prologue = prologue_run,
    .epilogue = epilogue_run,
    .winograd_input = winograd_input_run,
    .winograd_weights = winograd_weights_run,
    .winograd_output = winograd_output_run,
    .multiply_int16 = multiply_int16,
    .quantise = quantise_run,
    .winograd_weights_int16 = winograd_weights_int16_run,
    .pack = pack_run,
};
