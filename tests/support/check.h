/* What every cmocka program includes. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

/* `haystack` holds `needle`; both are shown when not. */
#define check_contains(haystack, needle)                                                           \
    do {                                                                                           \
        if (strstr((haystack), (needle)) == NULL) {                                                \
            fail_msg("\"%s\" does not hold \"%s\"", (haystack), (needle));                         \
        }                                                                                          \
    } while (0)

#endif
