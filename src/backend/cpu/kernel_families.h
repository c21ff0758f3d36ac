/* Families of machines that the lists of kernel tables name: KERNELS_FAMILY(text) is the text where
 * the family's files are compiled, else nothing. */
#ifndef ONESTEP_BACKEND_CPU_KERNEL_FAMILIES_H
#define ONESTEP_BACKEND_CPU_KERNEL_FAMILIES_H

#define KERNELS_ANY(...) __VA_ARGS__

#if defined(__x86_64__) || defined(__i386__)
#define KERNELS_HAVE_X86 1
#define KERNELS_X86(...) __VA_ARGS__
#else
#define KERNELS_HAVE_X86 0
#define KERNELS_X86(...)
#endif

#if defined(__aarch64__)
#define KERNELS_ARM(...) __VA_ARGS__
#else
#define KERNELS_ARM(...)
#endif

#endif
