// SPDX-License-Identifier: Apache-2.0
//
// What programs that measure or test have in common, whoever runs them as ranks: failing with a message, random numbers, clocks.
#ifndef VSMP_LITMUS_BASICS_H
#define VSMP_LITMUS_BASICS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#define PAGE_BYTES 4096ul
#define EXTENT_BYTES (2ul << 20)
#define CACHE_LINE_BYTES 64ul

// What the exit codes mean to vsmp-bench: 1 is a wrong result, everything else is a run that could not be made.
enum { EXIT_WRONG = 1, EXIT_USAGE = 2, EXIT_UNABLE = 3 };

// For messages; who includes this says how it is known.
static inline int this_rank(void);

static inline void __attribute__((noreturn, format(printf, 2, 3))) fail(int exit_code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "rank %d: ", this_rank());
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(exit_code);
}

static inline uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

// Seconds since then; from now on it is now.
static inline double lap(uint64_t *since) {
    const uint64_t now = nanoseconds(), took = now - *since;
    *since = now;
    return (double)took * 1e-9;
}

// splitmix64: any seed will do, 0 as well.
static inline uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static inline uint64_t random_below(uint64_t *state, uint64_t bound) {
    return (uint64_t)(((unsigned __int128)next_random(state) * bound) >> 64);
}

// A whole number of an argument, within bounds.
static inline uint64_t number(const char *name, const char *text, uint64_t least, uint64_t most) {
    char *end;
    errno = 0;
    const uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || *text == '-' || value < least || value > most) {
        fail(EXIT_USAGE, "%s: '%s' is no number from %" PRIu64 " to %" PRIu64, name, text, least, most);
    }
    return value;
}

#endif
