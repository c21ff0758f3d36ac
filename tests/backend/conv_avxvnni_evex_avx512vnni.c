/* The AVX-VNNI kernels' assembly in the encoding of AVX-512 VNNI, for machines that have only that.
 */
#include "conv_tables.h"

#if KERNELS_HAVE_X86
#define CONV_ENCODING        "%{evex%} "
#define conv_kernels_avxvnni conv_kernels_avxvnni_evex
#include "../../src/backend/cpu/conv_avxvnni.c"
#endif
