// SPDX-License-Identifier: Apache-2.0
//
// spmd-restless MEGABYTES: ranks that use all that a job has at once, until the end of rank 0's input, and verify it. In rounds every page is
// written by another rank than in the last, and read back by all, and every other round attaches and detaches a region; meanwhile a second
// thread of each rank takes locks, counts, allocates and frees. At the end each of those must have been done exactly as often as it was asked for.
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "spmd.h"

enum { WORDS = 512, BLOCKS = 8, LOCK = 5, DONE = 6, ASKED = 7 };

static struct vsmp_region *region, *heap;
static uint64_t *under_lock; // a word that is changed by whoever holds the lock
static atomic_bool is_over;

static bool input_has_ended(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, &byte, 1) == 0;
}

// A block is filled with what nobody else writes, and must have it when it is freed: nobody was given it twice.
static void churn(uint64_t **block, uint64_t step) {
    const uint64_t mark = (uint64_t)vsmp_rank() << 48 | step;
    if (*block != NULL) {
        for (size_t i = 1; i < (*block)[0]; i++) CHECK((*block)[i] == (*block)[1]);
        CHECK(vsmp_free(heap, *block) == 0);
    }
    const size_t words = 2 + step % 100;
    CHECK((*block = vsmp_alloc(heap, words * sizeof(uint64_t), 0)) != NULL);
    (*block)[0] = words;
    for (size_t i = 1; i < words; i++) (*block)[i] = mark;
}

static void *work_alone(void *steps) {
    uint64_t *blocks[BLOCKS] = {0}, step = 0;
    for (; !atomic_load(&is_over); step++) {
        CHECK(vsmp_lock(LOCK) == 0);
        const uint64_t before = *(volatile uint64_t *)under_lock;
        int64_t counted;
        CHECK(vsmp_fetch_add(DONE, 1, &counted) == 0);
        CHECK((uint64_t)counted == before); // both only ever change here
        *(volatile uint64_t *)under_lock = before + 1;
        CHECK(vsmp_unlock(LOCK) == 0);
        churn(&blocks[step % BLOCKS], step);
    }
    for (int i = 0; i < BLOCKS; i++) CHECK(vsmp_free(heap, blocks[i]) == 0);
    *(uint64_t *)steps = step;
    return NULL;
}

// A region that is there for a moment.
static void come_and_go(uint64_t round) {
    struct vsmp_region *passing;
    CHECK(vsmp_attach("passing", 8 << 20, &passing) == 0);
    uint64_t *words = vsmp_base(passing);
    const int rank = vsmp_rank(), size = vsmp_size();
    for (int page = rank; page < 2048; page += size) CHECK(words[page * WORDS] == 0);
    CHECK(vsmp_barrier() == 0);
    for (int page = rank; page < 2048; page += 64) words[page * WORDS] = round;
    CHECK(vsmp_barrier() == 0);
    for (int page = (rank + 1) % size; page < 2048; page += 64) CHECK(words[page * WORDS] == round);
    CHECK(vsmp_detach(passing) == 0);
}

int main(int argc, char **argv) {
    const size_t bytes = (size_t)(argc > 1 ? atol(argv[1]) : 8) << 20;
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach("pages", bytes, &region) == 0);
    CHECK(vsmp_attach("heap", 2 << 20, &heap) == 0);
    CHECK((under_lock = vsmp_alloc_all(heap, sizeof *under_lock, 4096)) != NULL);
    pthread_t alone;
    uint64_t steps = 0, round = 0;
    CHECK(pthread_create(&alone, NULL, work_alone, &steps) == 0);

    uint64_t *words = vsmp_base(region);
    const size_t count = bytes / 4096, rank = (size_t)vsmp_rank(), size = (size_t)vsmp_size();
    for (int last = 0; !last; round++) {
        for (size_t page = 0; page < count; page++) {
            if ((page + round) % size != rank) continue;
            uint64_t *at = words + page * WORDS;
            CHECK(at[0] == (round == 0 ? 0 : page * 1000003 + round) && at[WORDS - 1] == at[0]);
            at[0] = at[WORDS - 1] = page * 1000003 + round + 1;
        }
        CHECK(vsmp_barrier() == 0);
        for (size_t page = 0; page < count; page++) {
            const uint64_t *at = words + page * WORDS, expected = page * 1000003 + round + 1;
            CHECK(at[0] == expected && at[WORDS - 1] == expected);
        }
        if (round % 2 == 1) come_and_go(round);
        if (rank == 0) {
            printf("round %lu\n", round);
            fflush(stdout);
            last = input_has_ended();
        }
        CHECK(vsmp_broadcast(&last, sizeof last, 0) == 0);
    }
    atomic_store(&is_over, true);
    CHECK(pthread_join(alone, NULL) == 0);
    CHECK(vsmp_fetch_add(ASKED, (int64_t)steps, NULL) == 0);
    CHECK(vsmp_barrier() == 0);
    int64_t done, asked;
    CHECK(vsmp_fetch_add(DONE, 0, &done) == 0 && vsmp_fetch_add(ASKED, 0, &asked) == 0);
    CHECK(done == asked && (uint64_t)done == *under_lock);
    if (rank == 0) printf("exact: %lu rounds, %ld steps\n", round, done);
    CHECK(vsmp_finish() == 0);
    return 0;
}
