// SPDX-License-Identifier: Apache-2.0
//
// spmd-share SECONDS PAGES [MEGABYTES]: all ranks hammer the same pages. False sharing: each rank counts in words of its own, on
// pages that all write. True sharing: all count in the same words, by fetch-and-add and by compare-and-swap. Beside that, each rank
// walks through MEGABYTES that it writes and reads back, so that pages have to be evicted. Every counter must be exact.
#include <stdint.h>

#include "spmd.h"

enum { WORDS = 512, ADDED = 510, SWAPPED = 511, RESULTS = 4096 };

int main(int argc, char **argv) {
    const double seconds = argc > 1 ? atof(argv[1]) : 1;
    const size_t pages = argc > 2 ? (size_t)atol(argv[2]) : 64;
    const size_t walked = (argc > 3 ? (size_t)atol(argv[3]) : 0) << 20;
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    const int rank = vsmp_rank(), size = vsmp_size();
    CHECK(vsmp_attach("share", pages * 4096 + (walked + 4096) * (size_t)size + (8 << 20), &region) == 0);
    volatile uint64_t *shared = vsmp_alloc_all(region, pages * 4096, 4096);
    uint64_t *results = vsmp_alloc_all(region, RESULTS * sizeof *results, 4096);
    uint64_t *walk = walked > 0 ? vsmp_alloc(region, walked, 4096) : NULL;
    CHECK(shared != NULL && results != NULL && (walked == 0 || walk != NULL));
    CHECK(vsmp_barrier() == 0);

    uint64_t state = (uint64_t)rank * 77 + 1, rounds = 0, step = 0;
    const size_t walk_pages = walked / 4096;
    const double end = seconds_now() + seconds;
    while (seconds_now() < end) {
        for (int burst = 0; burst < 16; burst++, rounds++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            const size_t page = (size_t)(state >> 33) % pages;
            volatile uint64_t *words = shared + page * WORDS;
            words[rank]++;
            __atomic_fetch_add(&words[ADDED], 1, __ATOMIC_SEQ_CST);
            uint64_t before = words[SWAPPED];
            while (!__atomic_compare_exchange_n(&words[SWAPPED], &before, before + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
            if (walk_pages > 0) {
                // Each page of the walk says which round wrote it last.
                uint64_t *word = walk + (step % walk_pages) * WORDS;
                const uint64_t expected = step < walk_pages ? 0 : step - walk_pages + 1;
                CHECK(word[0] == expected && word[WORDS - 1] == expected);
                word[0] = word[WORDS - 1] = ++step;
            }
        }
    }
    results[rank] = rounds;
    CHECK(vsmp_barrier() == 0);
    uint64_t all = 0, least = UINT64_MAX, own = 0, added = 0, swapped = 0, mine = 0;
    for (int r = 0; r < size; r++) {
        all += results[r];
        if (results[r] < least) least = results[r];
    }
    for (size_t page = 0; page < pages; page++) {
        for (int r = 0; r < size; r++) own += shared[page * WORDS + (size_t)r];
        mine += shared[page * WORDS + (size_t)rank];
        added += shared[page * WORDS + ADDED];
        swapped += shared[page * WORDS + SWAPPED];
    }
    if (mine != rounds || own != all || added != all || swapped != all) {
        fprintf(stderr, "check failed: rank %d: %lu rounds of %lu: own words %lu, all words %lu, added %lu, swapped %lu\n", rank,
                rounds, all, mine, own, added, swapped);
        exit(3);
    }
    CHECK(vsmp_barrier() == 0);
    if (rank == 0) printf("exact: %lu rounds, the slowest rank did %lu\n", all, least);
    CHECK(vsmp_finish() == 0);
    return 0;
}
