// SPDX-License-Identifier: Apache-2.0
//
// A processor for each node. Where several nodes share a host, its scheduler decides anew in each run who sits beside whom, and a wake-up
// on the same processor costs a fraction of one on another: times of two runs are then of two different machines. With VSMP_BENCH_PIN
// in the environment, everything of a node runs on one processor, its own while there are enough.
#ifndef VSMP_BENCH_PIN_H
#define VSMP_BENCH_PIN_H

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

static inline void pin(int node) {
    if (getenv("VSMP_BENCH_PIN") == NULL) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)node % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &set);
    (void)sched_setaffinity(0, sizeof set, &set); // better than nothing if it is not permitted
}

#endif
