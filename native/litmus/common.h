// SPDX-License-Identifier: Apache-2.0
//
// What programs that run as ranks of `vsmp spmd` have in common.
#ifndef VSMP_LITMUS_COMMON_H
#define VSMP_LITMUS_COMMON_H

#include "basics.h"
#include "vsmp.h"

static inline int this_rank(void) { return vsmp_rank(); }

// Ends the rank, with the library's own words, if a call of it failed.
static inline void must(int error, const char *call) {
    if (error != 0) fail(EXIT_UNABLE, "%s: %s (%s)", call, vsmp_error(), strerror(error));
}

static inline void barrier(void) { must(vsmp_barrier(), "vsmp_barrier"); }

// Modulo 2^64; at all ranks. With a counter of the job that is not used otherwise.
static inline uint64_t sum_over_ranks(uint64_t counter, uint64_t value) {
    int64_t sum;
    must(vsmp_fetch_add(counter, (int64_t)value, NULL), "vsmp_fetch_add");
    barrier();
    must(vsmp_fetch_add(counter, 0, &sum), "vsmp_fetch_add");
    return (uint64_t)sum;
}

#endif
