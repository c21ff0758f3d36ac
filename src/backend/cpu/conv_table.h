/* What the kernel files have in common beside their products: the rest of the table, compiled for
 * each one's vectors. Included once ROWS and COLUMNS are set. */
#ifndef ONESTEP_BACKEND_CPU_CONV_TABLE_H
#define ONESTEP_BACKEND_CPU_CONV_TABLE_H

#include "backend/cpu/conv_elements.h"
#include "backend/cpu/conv_pack.h"
#include "backend/cpu/winograd_transform.h"

static void epilogue_run(const conv_epilogue *task)
{
    epilogue_run_columns(task, COLUMNS);
}

/* The table of a file; `more`: members that not every file has, or nothing. */
#define CONV_TABLE(table_name, table_level, more)                                                  \
    {                                                                                              \
        .name = table_name, .level = table_level, .rows = ROWS, .columns = COLUMNS,                \
        .multiply = multiply, .prologue = prologue_run, .epilogue = epilogue_run,                  \
        .winograd_input = winograd_input_run, .winograd_weights = winograd_weights_run,            \
        .winograd_output = winograd_output_run, .multiply_int16 = multiply_int16,                  \
        .quantise = quantise_run, .winograd_scales_int16 = winograd_scales_int16_run,              \
        .winograd_weights_int16 = winograd_weights_int16_run, .pack = pack_run, more               \
    }

#endif
