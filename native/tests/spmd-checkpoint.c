// SPDX-License-Identifier: Apache-2.0
//
// spmd-checkpoint MEGABYTES STEPS [PERCENT [MICROSECONDS]]: in each step every rank writes some of the pages (PERCENT of all, drawn by step and page), then calls for a
// checkpoint, then checks all that it sees; between steps it waits. What a page must be follows from the steps so far, so that one which is older or newer than the
// checkpoint that the job went on from is found out. Pages that no step has written must be zeros. Prints a line for each generation, and at the end the sum of all.
#include <stdint.h>
#include <unistd.h>

#include "spmd.h"

enum { WORDS = 512 };

struct state {
    uint64_t step; // the next
    uint64_t pages;
    uint64_t *words;
};

static uint64_t hash(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

static int is_written(uint64_t page, uint64_t step, uint64_t percent) {
    return page % 7 != 3 && hash(page * 1000003 + step) % 100 < percent;
}

// What a page holds after a step: 0 if it was never written.
static uint64_t expected(uint64_t page, uint64_t step, uint64_t percent) {
    for (uint64_t s = step + 1; s-- > 0;)
        if (is_written(page, s, percent)) return hash(page ^ s << 32) | 1;
    return 0;
}

static uint64_t check(const struct state *state, uint64_t step, uint64_t percent) {
    uint64_t sum = 0;
    for (uint64_t page = 0; page < state->pages; page++) {
        const uint64_t *at = state->words + page * WORDS, should = expected(page, step, percent);
        if (at[0] != should || at[WORDS - 1] != should || at[page % WORDS] != should) {
            fprintf(stderr, "rank %d: page %lu holds %lx … %lx after step %lu, and should hold %lx\n", vsmp_rank(), page, at[0],
                    at[WORDS - 1], step, should);
            exit(4);
        }
        sum += should;
    }
    return sum;
}

int main(int argc, char **argv) {
    const size_t bytes = ((size_t)(argc > 1 ? atol(argv[1]) : 8) << 20) - 100000; // no multiple of anything
    const uint64_t steps = argc > 2 ? (uint64_t)atol(argv[2]) : 10, percent = argc > 3 ? (uint64_t)atol(argv[3]) : 30;
    const useconds_t wait = argc > 4 ? (useconds_t)atol(argv[4]) : 0;
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach("state", bytes, &region) == 0);
    const uint64_t rank = (uint64_t)vsmp_rank(), size = (uint64_t)vsmp_size();
    struct state *state = vsmp_base(region);
    uint64_t sum = 0;
    if (vsmp_restored() == 0) {
        CHECK(vsmp_alloc_all(region, sizeof *state, 0) == state);
        const uint64_t pages = (bytes - (1 << 20)) / 4096;
        uint64_t *words = vsmp_alloc_all(region, pages * 4096, 4096);
        CHECK(words != NULL);
        if (rank == 0) *state = (struct state){.step = 0, .pages = pages, .words = words};
        CHECK(vsmp_barrier() == 0);
    } else {
        if (rank == 0) {
            printf("restored %lu at step %lu\n", vsmp_restored(), state->step);
            fflush(stdout);
        }
        if (state->step > 0) sum = check(state, state->step - 1, percent);
        CHECK(vsmp_barrier() == 0);
    }
    for (uint64_t step = state->step; step < steps; step++) {
        for (uint64_t page = 0; page < state->pages; page++) {
            if (!is_written(page, step, percent) || (page + step) % size != rank) continue;
            uint64_t *at = state->words + page * WORDS;
            at[0] = at[WORDS - 1] = at[page % WORDS] = hash(page ^ step << 32) | 1;
        }
        int64_t before;
        CHECK(vsmp_fetch_add(7, 1, &before) == 0);
        CHECK(vsmp_barrier() == 0);
        if (rank == 0) state->step = step + 1;
        uint64_t generation;
        const double began = seconds_now();
        CHECK(vsmp_checkpoint(&generation) == 0);
        if (rank == 0 && generation > 0) {
            printf("generation %lu after step %lu: %.1f ms\n", generation, step, (seconds_now() - began) * 1e3);
            fflush(stdout);
        }
        sum = check(state, step, percent);
        CHECK(vsmp_barrier() == 0);
        if (wait > 0) usleep(wait);
    }
    int64_t count;
    CHECK(vsmp_fetch_add(7, 0, &count) == 0);
    if (rank == 0) printf("exact: %lx, %ld\n", sum, count);
    CHECK(vsmp_finish() == 0);
    return 0;
}
