// SPDX-License-Identifier: Apache-2.0
//
// Reading a page, all words of it: one code for VSmp's side and for bare C's, aligned alike, so that a ratio of the two is of the memory and
// not of the loop.
#ifndef VSMP_BENCH_WORDS_H
#define VSMP_BENCH_WORDS_H

#include "basics.h"

#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))

static uint64_t __attribute__((noinline, aligned(64))) sum_of_page(const uint64_t *page) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < WORDS_PER_PAGE; i++) sum += page[i];
    __asm__ volatile("" : : "r"(sum) : "memory"); // it is read, whatever becomes of the sum, and each time anew
    return sum;
}

#endif
