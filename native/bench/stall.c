// SPDX-License-Identifier: Apache-2.0
//
// vsmp-stall MEBIBYTES
//
// A guest that looks at its own stalls: it goes to one page after another, at random, verifies what it has written there last, and writes something
// else, without a pause. For each line on its standard input it prints, for the time since the line before:
//
//     longest time between two pages in nanoseconds; pages; nanoseconds
//
// A stall that is not over yet counts as far as it has come. The first line is answered once all pages have been written; at the end of the input it ends.
#include "basics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))

static inline int this_rank(void) { return 0; }

static atomic_ullong last_page, longest, page_total;
static atomic_bool is_over;
static pthread_barrier_t is_filled;

static void note_gap(uint64_t gap) {
    unsigned long long most = atomic_load(&longest);
    while (gap > most && !atomic_compare_exchange_weak(&longest, &most, gap)) continue;
}

// Its stack and stdio's buffers are private memory: it answers while the other thread waits for a page.
static void *answer(void *unused) {
    (void)unused;
    char line[64];
    uint64_t since = 0, pages_then = 0;
    pthread_barrier_wait(&is_filled);
    while (fgets(line, sizeof line, stdin) != NULL) {
        const uint64_t now = nanoseconds(), pages = atomic_load(&page_total), last = atomic_load(&last_page);
        if (last < now) note_gap(now - last);
        const uint64_t gap = atomic_exchange(&longest, 0);
        printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", gap, pages - pages_then, since == 0 ? 1 : now - since);
        fflush(stdout);
        since = now;
        pages_then = pages;
    }
    atomic_store(&is_over, true);
    return NULL;
}

static uint64_t word_of(uint64_t page, uint64_t turn) {
    uint64_t state = page * 0x10001 + turn;
    return next_random(&state);
}

int main(int argc, char **argv) {
    if (argc != 2) fail(EXIT_USAGE, "usage: vsmp-stall MEBIBYTES");
    const uint64_t count = number("MEBIBYTES", argv[1], 1, 1 << 20) << 8;
    uint64_t *memory = mmap(NULL, count * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t *turns = calloc(count, sizeof *turns);
    if (memory == MAP_FAILED || turns == NULL) fail(EXIT_UNABLE, "no memory for %" PRIu64 " pages", count);
    static char output[BUFSIZ], input[BUFSIZ];
    setvbuf(stdout, output, _IOFBF, sizeof output);
    setvbuf(stdin, input, _IOFBF, sizeof input);
    pthread_t thread;
    pthread_barrier_init(&is_filled, NULL, 2);
    if (pthread_create(&thread, NULL, answer, NULL) != 0) fail(EXIT_UNABLE, "no thread");
    for (uint64_t i = 0; i < count; i++) memory[i * WORDS_PER_PAGE] = memory[(i + 1) * WORDS_PER_PAGE - 1] = word_of(i, 0);
    atomic_store(&last_page, nanoseconds());
    pthread_barrier_wait(&is_filled);
    uint64_t random = 1;
    while (!atomic_load(&is_over)) {
        const uint64_t i = random_below(&random, count);
        uint64_t *first = &memory[i * WORDS_PER_PAGE], *last = first + WORDS_PER_PAGE - 1;
        const uint64_t expected = word_of(i, turns[i]);
        if (*first != expected || *last != expected) {
            fail(EXIT_WRONG, "page %" PRIu64 " has %#" PRIx64 " … %#" PRIx64 " in turn %" PRIu64 ", and should have %#" PRIx64, i,
                 *first, *last, turns[i], expected);
        }
        *first = *last = word_of(i, ++turns[i]);
        const uint64_t now = nanoseconds();
        note_gap(now - atomic_load(&last_page));
        atomic_store(&last_page, now);
        atomic_fetch_add(&page_total, 1);
    }
    pthread_join(thread, NULL);
    return 0;
}
