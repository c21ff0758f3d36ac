/* The AVX-VNNI kernels without assembly, for machines with AVX2. */
#include "conv_tables.h"

#if KERNELS_HAVE_X86
#define CONV_NO_ASSEMBLY
#define conv_kernels_avxvnni conv_kernels_avxvnni_twin
#include "../../src/backend/cpu/conv_avxvnni.c"
#endif
