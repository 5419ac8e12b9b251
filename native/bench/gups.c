// SPDX-License-Identifier: Apache-2.0
//
// vsmp-gups [--private RANKS] LOG2-WORDS UPDATES
//
// Giga-updates per second, as HPC Challenge's RandomAccess has it: words of a table, anywhere in it, are combined with random numbers by
// exclusive or. Here by atomic instructions, so that no update is lost. The table is spread over all nodes, and every rank updates all of it:
// nothing could be worse for memory that moves by pages.
//
// With --private, so many threads do the same to plain memory of this process; then it is not a rank of `vsmp spmd`.
//
// Every update is made once more afterwards, by rank 0 on a copy of its own: then each word is to be what it was at the beginning.
#include "common.h"

#include <pthread.h>

// Those of RandomAccess: the polynomial of its sequence, and after how many numbers it repeats.
#define POLYNOMIAL 7ull
#define PERIOD 1317624576693539401ll

struct gups {
    uint64_t words, updates;
    int ranks;
    uint64_t *table;
};

static uint64_t following(uint64_t value) { return value << 1 ^ ((int64_t)value < 0 ? POLYNOMIAL : 0); }

// The number of the sequence at an index, without those before it: squares and steps, by the bits of the index.
static uint64_t number_at(uint64_t index) {
    index %= (uint64_t)PERIOD;
    if (index == 0) return 1;
    uint64_t powers[64], value = 1;
    for (int i = 0; i < 64; i++) {
        powers[i] = value;
        value = following(following(value));
    }
    int bit = 62;
    while ((index >> bit & 1) == 0) bit--;
    uint64_t number = 2;
    while (bit-- > 0) {
        uint64_t square = 0;
        for (int i = 0; i < 64; i++) {
            if (number >> i & 1) square ^= powers[i];
        }
        number = index >> bit & 1 ? following(square) : square;
    }
    return number;
}

static uint64_t share(uint64_t all, int rank, int ranks) { return all / (uint64_t)ranks * (uint64_t)rank; }

static uint64_t end_of_share(uint64_t all, int rank, int ranks) { return rank + 1 == ranks ? all : share(all, rank + 1, ranks); }

static void begin(const struct gups *gups, int rank) {
    const uint64_t end = end_of_share(gups->words, rank, gups->ranks);
    for (uint64_t i = share(gups->words, rank, gups->ranks); i < end; i++) gups->table[i] = i;
}

static void update(const struct gups *gups, int rank) {
    const uint64_t first = share(gups->updates, rank, gups->ranks), end = end_of_share(gups->updates, rank, gups->ranks);
    uint64_t value = number_at(first);
    for (uint64_t i = first; i < end; i++) {
        value = following(value);
        __atomic_fetch_xor(&gups->table[value & (gups->words - 1)], value, __ATOMIC_RELAXED);
    }
}

// Prints; the table's words are not what they were at the beginning yet.
static void report(const struct gups *gups, double seconds) {
    uint64_t *copy = malloc(gups->words * sizeof *copy), checksum = 0, wrong = 0;
    if (copy == NULL) fail(EXIT_UNABLE, "no memory to verify in");
    memcpy(copy, gups->table, gups->words * sizeof *copy);
    for (uint64_t i = 0; i < gups->words; i++) {
        uint64_t state = copy[i] ^ i << 32;
        checksum += next_random(&state);
    }
    uint64_t value = 1;
    for (uint64_t i = 0; i < gups->updates; i++) {
        value = following(value);
        copy[value & (gups->words - 1)] ^= value;
    }
    for (uint64_t i = 0; i < gups->words; i++) wrong += copy[i] != i;
    if (wrong != 0) fail(EXIT_WRONG, "%" PRIu64 " of %" PRIu64 " words are wrong", wrong, gups->words);
    printf("seconds %.6f\nchecksum %016" PRIx64 "\n", seconds, checksum);
    free(copy);
}

// ---- threads and plain memory

struct thread {
    pthread_t id;
    const struct gups *gups;
    pthread_barrier_t *barrier;
    int rank;
    double seconds;
};

static void *run_thread(void *argument) {
    struct thread *thread = argument;
    begin(thread->gups, thread->rank);
    pthread_barrier_wait(thread->barrier);
    uint64_t since = nanoseconds();
    update(thread->gups, thread->rank);
    pthread_barrier_wait(thread->barrier);
    thread->seconds = lap(&since);
    return NULL;
}

static void run_private(struct gups *gups) {
    gups->table = malloc(gups->words * sizeof *gups->table);
    struct thread *threads = calloc((size_t)gups->ranks, sizeof *threads);
    if (gups->table == NULL || threads == NULL) fail(EXIT_UNABLE, "no memory");
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned)gups->ranks);
    for (int rank = 0; rank < gups->ranks; rank++) {
        threads[rank] = (struct thread){.gups = gups, .barrier = &barrier, .rank = rank};
        const int error = pthread_create(&threads[rank].id, NULL, run_thread, &threads[rank]);
        if (error != 0) fail(EXIT_UNABLE, "pthread_create: %s", strerror(error));
    }
    for (int rank = 0; rank < gups->ranks; rank++) pthread_join(threads[rank].id, NULL);
    report(gups, threads[0].seconds);
    free(threads);
    free(gups->table);
}

// ---- ranks and shared memory

static void run_rank(struct gups *gups) {
    must(vsmp_start(), "vsmp_start");
    struct vsmp_region *region;
    const size_t bytes = gups->words * sizeof *gups->table;
    must(vsmp_attach(NULL, bytes + PAGE_BYTES, &region), "vsmp_attach");
    gups->table = vsmp_alloc_all(region, bytes, PAGE_BYTES);
    if (gups->table == NULL) fail(EXIT_UNABLE, "vsmp_alloc_all: %s", vsmp_error());
    begin(gups, vsmp_rank());
    barrier();
    uint64_t since = nanoseconds();
    update(gups, vsmp_rank());
    barrier();
    const double seconds = lap(&since);
    if (vsmp_rank() == 0) report(gups, seconds);
    must(vsmp_finish(), "vsmp_finish");
}

int main(int argc, char **argv) {
    const bool is_private = argc > 2 && strcmp(argv[1], "--private") == 0;
    char **arguments = argv + (is_private ? 3 : 1);
    if (argc != (is_private ? 5 : 3)) fail(EXIT_USAGE, "usage: vsmp-gups [--private RANKS] LOG2-WORDS UPDATES");
    struct gups gups = {.words = 1ull << number("LOG2-WORDS", arguments[0], 9, 36),
                        .updates = number("UPDATES", arguments[1], 1, 1ull << 40),
                        .ranks = is_private ? (int)number("RANKS", argv[2], 1, 1024) : vsmp_size()};
    if (is_private)
        run_private(&gups);
    else
        run_rank(&gups);
    return 0;
}
