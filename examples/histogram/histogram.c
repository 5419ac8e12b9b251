// SPDX-License-Identifier: Apache-2.0
//
// histogram [NUMBERS]: ranks count how often values occur in numbers that they take in portions from a common counter, whoever is free
// the next one. Three ways to count together: x86's atomic addition on shared memory, a lock around plain additions, and
// private counts that are added up at the end under the lock. All three must agree, and must hold every number once.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <vsmp.h>

enum { BUCKETS = 256, PORTION = 4096, LOCK = 1, NEXT_PORTION = 1 };

struct histograms {
    uint64_t atomic[BUCKETS];
    uint64_t locked[BUCKETS];
    uint64_t merged[BUCKETS];
};

static void must(int error, const char *what) {
    if (error == 0) return;
    fprintf(stderr, "rank %d: %s: %s\n", vsmp_rank(), what, vsmp_error());
    exit(1);
}

// The numbers: any rank can make any of them.
static unsigned bucket_of(uint64_t i) {
    i *= 0x9e3779b97f4a7c15ull;
    i ^= i >> 29;
    return (unsigned)((i * i) >> 56);
}

int main(int argc, char **argv) {
    const uint64_t numbers = argc > 1 ? strtoull(argv[1], NULL, 10) : 400000;
    must(vsmp_start(), "vsmp_start");
    struct vsmp_region *region;
    must(vsmp_attach("histogram", 1 << 20, &region), "vsmp_attach");
    struct histograms *shared = vsmp_alloc_all(region, sizeof *shared, 4096);
    if (shared == NULL) must(1, "vsmp_alloc_all");

    uint64_t mine[BUCKETS] = {0};
    unsigned portions = 0;
    for (;; portions++) {
        int64_t portion;
        must(vsmp_fetch_add(NEXT_PORTION, 1, &portion), "vsmp_fetch_add");
        const uint64_t first = (uint64_t)portion * PORTION, end = first + PORTION < numbers ? first + PORTION : numbers;
        if (first >= numbers) break;
        uint64_t counts[BUCKETS] = {0};
        for (uint64_t i = first; i < end; i++) counts[bucket_of(i)]++;
        for (int b = 0; b < BUCKETS; b++) {
            if (counts[b] != 0) __atomic_fetch_add(&shared->atomic[b], counts[b], __ATOMIC_RELAXED);
            mine[b] += counts[b];
        }
        must(vsmp_lock(LOCK), "vsmp_lock");
        for (int b = 0; b < BUCKETS; b++) shared->locked[b] += counts[b];
        must(vsmp_unlock(LOCK), "vsmp_unlock");
    }
    must(vsmp_lock(LOCK), "vsmp_lock");
    for (int b = 0; b < BUCKETS; b++) shared->merged[b] += mine[b];
    must(vsmp_unlock(LOCK), "vsmp_unlock");
    must(vsmp_barrier(), "vsmp_barrier");

    uint64_t sum = 0;
    for (int b = 0; b < BUCKETS; b++) {
        if (shared->atomic[b] != shared->locked[b] || shared->locked[b] != shared->merged[b]) {
            fprintf(stderr, "rank %d: histogram: WRONG: bucket %d is %llu, %llu and %llu\n", vsmp_rank(), b,
                    (unsigned long long)shared->atomic[b], (unsigned long long)shared->locked[b],
                    (unsigned long long)shared->merged[b]);
            return 1;
        }
        sum += shared->merged[b];
    }
    if (sum != numbers) {
        fprintf(stderr, "rank %d: histogram: WRONG: %llu numbers counted\n", vsmp_rank(), (unsigned long long)sum);
        return 1;
    }
    printf("rank %d counted %u portions\n", vsmp_rank(), portions);
    must(vsmp_barrier(), "vsmp_barrier");
    if (vsmp_rank() == 0) printf("histogram: %llu numbers, each counted once, in three ways\n", (unsigned long long)numbers);
    return vsmp_finish() == 0 ? 0 : 1;
}
