/* Convolution kernels for AVX2 with FMA, compiled twice: as it is, and with AVX-VNNI's vpdpwssd and
 * vpdpbusd (CONV_AVX_VNNI). Tests compile the second without assembly (CONV_NO_ASSEMBLY), which any
 * machine with AVX2 runs. */
#ifndef ONESTEP_BACKEND_CPU_CONV_AVX2_H
#define ONESTEP_BACKEND_CPU_CONV_AVX2_H

#include <immintrin.h>

#define CONV_VECTOR_FLOATS 8
#include "backend/cpu/conv_elements.h"
#include "backend/cpu/conv_pack.h"
#include "backend/cpu/conv_tile.h"
#include "backend/cpu/winograd_transform.h"

#include "backend/cpu/conv_avx2_pairs.h"

static void epilogue_run(const conv_epilogue *task)
{
    epilogue_run_columns(task, COLUMNS);
}

/* The table of this file. */
#define CONV_AVX2_TABLE(table_name, table_level)                                                   \
    {                                                                                              \
        .name = table_name, .level = table_level, .rows = ROWS, .columns = COLUMNS,                \
        .multiply = multiply, .prologue = prologue_run, .epilogue = epilogue_run,                  \
        .winograd_input = winograd_input_run, .winograd_weights = winograd_weights_run,            \
        .winograd_output = winograd_output_run, .multiply_int16 = multiply_int16,                  \
        .quantise = quantise_run, .winograd_weights_int16 = winograd_weights_int16_run,            \
        .pack = pack_run, INT8_KERNELS                                                             \
    }

#endif
