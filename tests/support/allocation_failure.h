/* Lets the n-th allocation of a test program fail.
 *
 * A test_*.c file that includes this header is linked with support/allocation_failure.c, and its
 * calls of malloc, calloc, realloc, posix_memalign, aligned_alloc, mmap and pthread_create (those
 * compiled into the program, not those inside shared libraries) go through it. */
#ifndef TESTS_ALLOCATION_FAILURE_H
#define TESTS_ALLOCATION_FAILURE_H

#include <stdbool.h>
#include <stddef.h>

/* From now on allocations are counted, and the n-th fails (1: the next one; 0: none). */
void allocation_failure_start(size_t n);

/* Ends that; true when an allocation was made to fail. So a test runs
 *   for (n = 1;; ++n) { start(n); result = operation(); if (!stop()) break; result is an error } */
bool allocation_failure_stop(void);

#endif
