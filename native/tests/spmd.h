// SPDX-License-Identifier: Apache-2.0
//
// What the programs that tests run as ranks share.
#ifndef VSMP_TESTS_SPMD_H
#define VSMP_TESTS_SPMD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vsmp.h"

#define CHECK(condition)                                                                                                         \
    do {                                                                                                                         \
        if (!(condition)) {                                                                                                      \
            fprintf(stderr, "check failed: rank %d: line %d: %s: %s\n", vsmp_rank(), __LINE__, #condition, vsmp_error());        \
            exit(3);                                                                                                             \
        }                                                                                                                        \
    } while (0)

static inline double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

#endif
