// SPDX-License-Identifier: Apache-2.0
//
// Times of single page touches, for the programs that print percentiles of them.
#ifndef VSMP_TESTS_TOUCH_H
#define VSMP_TESTS_TOUCH_H

#include <sys/mman.h>
#include <time.h>

#include "check.h"

#define TOUCH_PAGE 4096ul

struct touches {
    uint32_t *nanoseconds;
    size_t count, capacity;
};

static inline uint64_t now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

// Room for the samples, which is to stay out of the pool: in mappings too small for it.
static inline struct touches touches_open(size_t capacity) {
    if (capacity > (1 << 20) / 4 - 1024) capacity = (1 << 20) / 4 - 1024;
    uint32_t *samples =
        mmap(NULL, capacity * sizeof *samples, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    check(samples != MAP_FAILED, "mmap");
    return (struct touches){samples, 0, capacity};
}

// Keeps the last samples when there are too many.
static inline void touches_add(struct touches *touches, uint64_t nanoseconds) {
    touches->nanoseconds[touches->count++ % touches->capacity] = nanoseconds > UINT32_MAX ? UINT32_MAX : (uint32_t)nanoseconds;
}

static int by_value(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static inline void touches_print(struct touches *touches, const char *name) {
    const size_t count = touches->count < touches->capacity ? touches->count : touches->capacity;
    if (count == 0) return;
    qsort(touches->nanoseconds, count, sizeof *touches->nanoseconds, by_value);
    printf("%s: touches=%zu p50us=%.1f p99us=%.1f maxus=%.1f\n", name, touches->count, touches->nanoseconds[count / 2] / 1000.0,
           touches->nanoseconds[count * 99 / 100] / 1000.0, touches->nanoseconds[count - 1] / 1000.0);
}

#endif
