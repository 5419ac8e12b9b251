// SPDX-License-Identifier: Apache-2.0
//
// spmd-lazy STEPS [MEGABYTES]: a program without data races, which orders its ranks in every way that the library has, and never by
// memory itself; each value that is read is checked. Under protocol lazy: writers of one page at the same time lose nothing, and what
// is ordered is seen. (Under the others it must hold as well.) Each rank walks through MEGABYTES of its own, so that pages are evicted
// with what was written to them. Prints whether a write that nobody released was seen elsewhere: by none under lazy.
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "spmd.h"

enum { WORDS = 512, PAGES = 24, LOCKS = 8, STRIPED = PAGES * WORDS };
enum { TURN = 1000, HANDED = 1001 }; // counters

struct shared {
    uint64_t striped[STRIPED]; // word i belongs to rank i % size between barriers
    uint64_t locked[LOCKS * 3]; // word i may be touched by who holds lock i % LOCKS
    uint64_t passed[64]; // written by whose turn it is, by counter
    uint64_t quiet[WORDS] __attribute__((aligned(4096)));
};

static uint64_t mix(uint64_t a, uint64_t b) { return (a + 1) * 0x9e3779b97f4a7c15ull ^ (b * 0xbf58476d1ce4e5b9ull); }

static int64_t value_of(uint64_t counter) {
    int64_t value;
    CHECK(vsmp_fetch_add(counter, 0, &value) == 0);
    return value;
}

// Between barriers everybody writes words of its own on pages that all write; behind them everybody reads everything.
static void stripes(struct shared *s, int step) {
    const int rank = vsmp_rank(), size = vsmp_size();
    for (int i = rank; i < STRIPED; i += size) {
        if (mix((uint64_t)i, (uint64_t)step) % 3 == 0) s->striped[i] = mix((uint64_t)i, (uint64_t)step);
    }
    CHECK(vsmp_barrier() == 0);
    for (int i = 0; i < STRIPED; i++) {
        uint64_t last = 0;
        for (int t = step; t >= 0 && last == 0; t--)
            last = mix((uint64_t)i, (uint64_t)t) % 3 == 0 ? mix((uint64_t)i, (uint64_t)t) : 0;
        CHECK(s->striped[i] == last);
    }
    CHECK(vsmp_barrier() == 0);
}

// Three words under each lock, several locks on one page.
static void locks(struct shared *s, uint64_t *random) {
    for (int i = 0; i < 4; i++) {
        *random = *random * 6364136223846793005ull + 1442695040888963407ull;
        const uint64_t lock = (*random >> 33) % LOCKS;
        CHECK(vsmp_lock(lock) == 0);
        CHECK(s->locked[lock] == s->locked[lock + LOCKS] && s->locked[lock] == s->locked[lock + 2 * LOCKS]);
        for (int w = 0; w < 3; w++) s->locked[lock + (uint64_t)w * LOCKS]++;
        CHECK(vsmp_unlock(lock) == 0);
    }
}

// A value goes round, ordered by a counter alone.
static void pass_on(struct shared *s, int step) {
    const int rank = vsmp_rank(), size = vsmp_size();
    while (value_of(TURN) != (int64_t)step * size + rank) usleep(200);
    if (rank > 0) CHECK(s->passed[0] == mix((uint64_t)step, (uint64_t)rank - 1));
    s->passed[0] = mix((uint64_t)step, (uint64_t)rank);
    CHECK(vsmp_fetch_add(TURN, 1, NULL) == 0);
}

// One rank frees what it wrote, others get the memory and write it: the last owner's words stay.
static void hand_memory_on(struct vsmp_region *region, int step) {
    uint64_t *block = vsmp_alloc(region, 1000, 16);
    CHECK(block != NULL);
    for (int i = 0; i < 125; i++) block[i] = mix((uint64_t)vsmp_rank(), (uint64_t)(step + i));
    for (int i = 0; i < 125; i++) CHECK(block[i] == mix((uint64_t)vsmp_rank(), (uint64_t)(step + i)));
    CHECK(vsmp_free(region, block) == 0);
    block = vsmp_alloc(region, 1000, 16); // perhaps another rank's former one
    CHECK(block != NULL);
    for (int i = 0; i < 125; i++) block[i] = mix((uint64_t)vsmp_rank() + 100, (uint64_t)(step + i));
    CHECK(vsmp_barrier() == 0);
    for (int i = 0; i < 125; i++) CHECK(block[i] == mix((uint64_t)vsmp_rank() + 100, (uint64_t)(step + i)));
    CHECK(vsmp_barrier() == 0);
    CHECK(vsmp_free(region, block) == 0);
}

static void walk(uint64_t *own, size_t bytes, uint64_t step) {
    for (size_t word = 0; word < bytes / 8; word += WORDS) {
        CHECK(own[word] == (step == 0 ? 0 : mix(word, step - 1)));
        own[word] = mix(word, step);
    }
}

// What the last rank writes and does not release; rank 0 looks without asking the library anything. Tried until it has looked for long
// enough before any other rank's next call: one on the writer's node takes along what it wrote.
static bool unreleased(volatile struct shared *s) {
    const int rank = vsmp_rank(), last = vsmp_size() - 1;
    for (uint64_t attempt = 1;; attempt++) {
        CHECK(s->quiet[0] == attempt - 1);
        CHECK(vsmp_barrier() == 0);
        if (rank == last) s->quiet[0] = attempt;
        const double begin = seconds_now();
        double written = begin, looked = begin, called = begin;
        bool seen = false;
        while (rank == 0 && !seen && (looked = seconds_now()) < begin + 0.3) seen = s->quiet[0] == attempt;
        while (rank != 0 && (called = seconds_now()) < begin + 0.5) usleep(1000);
        CHECK(vsmp_barrier() == 0);
        CHECK(s->quiet[0] == attempt); // released and acquired by the barrier
        CHECK(vsmp_broadcast(&written, sizeof written, last) == 0 && vsmp_broadcast(&looked, sizeof looked, 0) == 0);
        CHECK(vsmp_broadcast(&seen, sizeof seen, 0) == 0);
        // The clock is the host's: the ranks of this test share one.
        bool counts = seen || looked > written + 0.1;
        for (int root = 1; root <= last; root++) {
            double theirs = called;
            CHECK(vsmp_broadcast(&theirs, sizeof theirs, root) == 0);
            counts = counts && looked < theirs;
        }
        if (counts) return seen;
    }
}

int main(int argc, char **argv) {
    const int steps = argc > 1 ? atoi(argv[1]) : 10;
    const size_t walked = (argc > 2 ? (size_t)atol(argv[2]) : 0) << 20;
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    const int rank = vsmp_rank(), size = vsmp_size();
    CHECK(vsmp_attach("lazy", sizeof(struct shared) + (walked + 65536) * (size_t)size + (4 << 20), &region) == 0);
    struct shared *s = vsmp_alloc_all(region, sizeof *s, 4096);
    uint64_t *own = walked > 0 ? vsmp_alloc(region, walked, 4096) : NULL;
    CHECK(s != NULL && (walked == 0 || own != NULL));
    const bool seen = unreleased(s);
    uint64_t random = (uint64_t)rank * 77 + 1;
    for (int step = 0; step < steps; step++) {
        stripes(s, step);
        locks(s, &random);
        pass_on(s, step);
        if (own != NULL) walk(own, walked, (uint64_t)step);
        hand_memory_on(region, step);
    }
    CHECK(vsmp_barrier() == 0);
    uint64_t total = 0;
    for (int l = 0; l < LOCKS; l++) total += s->locked[l];
    CHECK(total == (uint64_t)steps * 4 * (uint64_t)size);
    // Release and acquire by name, ordered by nothing but a counter.
    if (rank == 0) {
        s->quiet[1] = 42;
        CHECK(vsmp_release(region) == 0 && vsmp_fetch_add(HANDED, 1, NULL) == 0);
    }
    while (value_of(HANDED) == 0) usleep(1000);
    CHECK(vsmp_acquire(region) == 0 && s->quiet[1] == 42);
    if (rank == 0)
        printf("exact: %d steps of %d ranks; a write that was not released was %s\n", steps, size, seen ? "seen" : "not seen");
    CHECK(vsmp_finish() == 0);
    return 0;
}
