// SPDX-License-Identifier: Apache-2.0
//
// vsmp-hammer SECONDS PAGES BALLAST_MB SEED [lazy]
//
// All ranks work on the same pages for a while, then every counter must be exact.
//   false sharing: each rank adds to a word of its own on each page, by plain load and store
//   true sharing:  all ranks add to two words of each page, one by fetch-and-add, one by compare-and-swap: x86 instructions
//   ballast:       each rank walks through memory of its own, checking what it wrote, so that a --local budget forces evictions
// With `lazy` (protocol lazy, which promises coherence only to programs that use locks) the shared words are added to under
// vsmp_lock, one lock per page. Rank 0 prints a line of JSON; the exit code is 1 if a counter is wrong.
#include "common.h"

enum { MAX_RANKS = 256, OWN_WORDS_AT = 16, WORDS_PER_PAGE = 512 };

// Of one page: words 0 and 8 (two cache lines) are everybody's, words 16 and on are one rank's each.
typedef volatile uint64_t page_words[WORDS_PER_PAGE];

// What a rank reports when it is done.
struct progress {
    uint64_t operations;
    uint64_t longest_nanoseconds; // for one operation
    uint64_t ballast_sweeps;
    uint64_t wrong;
};

struct hammer {
    page_words *pages;
    uint64_t page_count;
    bool is_lazy;
    // What this rank has added, page by page; the truth that memory is compared with.
    uint64_t *own, *added, *swapped;
    uint64_t *ballast;
    uint64_t ballast_words, ballast_at, ballast_round;
    uint64_t random;
    struct progress progress;
};

static void must_lock(uint64_t page) { must(vsmp_lock(page), "vsmp_lock"); }
static void must_unlock(uint64_t page) { must(vsmp_unlock(page), "vsmp_unlock"); }

static void add_own(struct hammer *hammer, uint64_t page) {
    volatile uint64_t *word = &hammer->pages[page][OWN_WORDS_AT + vsmp_rank()];
    const uint64_t before = *word;
    if (before != hammer->own[page]) {
        // Said at once, since the page's history is still warm; counted, since the others are to go on.
        fprintf(stderr, "rank %d: page %" PRIu64 ": own word is %" PRIu64 ", last written %" PRIu64 "\n", vsmp_rank(), page,
                before, hammer->own[page]);
        hammer->progress.wrong++;
        hammer->own[page] = before;
    }
    *word = before + 1;
    hammer->own[page]++;
}

static void add_shared(struct hammer *hammer, uint64_t page, uint64_t addend) {
    if (hammer->is_lazy) {
        must_lock(page);
        hammer->pages[page][0] += addend;
        must_unlock(page);
    } else {
        __atomic_fetch_add(&hammer->pages[page][0], addend, __ATOMIC_SEQ_CST);
    }
    hammer->added[page] += addend;
}

static void swap_shared(struct hammer *hammer, uint64_t page) {
    volatile uint64_t *word = &hammer->pages[page][8];
    if (hammer->is_lazy) {
        must_lock(page);
        *word += 3;
        must_unlock(page);
    } else {
        uint64_t expected = *word;
        while (!__atomic_compare_exchange_n(word, &expected, expected + 3, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) continue;
    }
    hammer->swapped[page] += 3;
}

static uint64_t ballast_value(uint64_t round, uint64_t at) {
    return round == 0 ? 0 : (round * 0x9e3779b97f4a7c15ull) ^ (at << 8) ^ (uint64_t)vsmp_rank();
}

// The next page of the ballast: what the last sweep wrote is still there.
static void walk_ballast(struct hammer *hammer) {
    if (hammer->ballast_words == 0) return;
    for (uint64_t end = hammer->ballast_at + WORDS_PER_PAGE; hammer->ballast_at < end; hammer->ballast_at += 64) {
        uint64_t *word = &hammer->ballast[hammer->ballast_at];
        if (*word != ballast_value(hammer->ballast_round, hammer->ballast_at)) {
            fprintf(stderr, "rank %d: ballast word %" PRIu64 " of sweep %" PRIu64 " is %" PRIx64 "\n", vsmp_rank(),
                    hammer->ballast_at, hammer->ballast_round, *word);
            hammer->progress.wrong++;
        }
        *word = ballast_value(hammer->ballast_round + 1, hammer->ballast_at);
    }
    if (hammer->ballast_at == hammer->ballast_words) {
        hammer->ballast_at = 0;
        hammer->ballast_round++;
        hammer->progress.ballast_sweeps++;
    }
}

static void work(struct hammer *hammer, uint64_t end_nanoseconds) {
    uint64_t now = nanoseconds(), operation = 0;
    while (now < end_nanoseconds) {
        const uint64_t page = random_below(&hammer->random, hammer->page_count);
        switch (operation++ % 4) {
        case 0:
            add_own(hammer, page);
            break;
        case 1:
            add_shared(hammer, page, 1 + random_below(&hammer->random, 5));
            break;
        case 2:
            swap_shared(hammer, page);
            break;
        default:
            walk_ballast(hammer);
        }
        const uint64_t then = now;
        now = nanoseconds();
        if (now - then > hammer->progress.longest_nanoseconds) hammer->progress.longest_nanoseconds = now - then;
    }
    hammer->progress.operations = operation;
}

// Own words are checked by another rank than the one that wrote them; sums travel as messages.
static void verify(struct hammer *hammer) {
    const int rank = vsmp_rank(), size = vsmp_size();
    const size_t bytes = hammer->page_count * sizeof(uint64_t);
    uint64_t *theirs = malloc(bytes), *added = calloc(1, bytes), *swapped = calloc(1, bytes);
    if (theirs == NULL || added == NULL || swapped == NULL) fail(EXIT_UNABLE, "no memory for %zu bytes", 3 * bytes);
    for (int root = 0; root < size; root++) {
        memcpy(theirs, hammer->own, bytes);
        must(vsmp_broadcast(theirs, bytes, root), "vsmp_broadcast");
        for (uint64_t page = 0; page < hammer->page_count && rank == (root + 1) % size; page++) {
            const uint64_t found = hammer->pages[page][OWN_WORDS_AT + root];
            if (found == theirs[page]) continue;
            fprintf(stderr, "rank %d: page %" PRIu64 ": word of rank %d is %" PRIu64 ", should be %" PRIu64 "\n", rank, page,
                    root, found, theirs[page]);
            hammer->progress.wrong++;
        }
        for (int which = 0; which < 2; which++) {
            uint64_t *sum = which == 0 ? added : swapped;
            memcpy(theirs, which == 0 ? hammer->added : hammer->swapped, bytes);
            must(vsmp_broadcast(theirs, bytes, root), "vsmp_broadcast");
            for (uint64_t page = 0; page < hammer->page_count; page++) sum[page] += theirs[page];
        }
    }
    // Every rank looks: each is to see the same memory.
    for (uint64_t page = 0; page < hammer->page_count; page++) {
        if (hammer->pages[page][0] == added[page] && hammer->pages[page][8] == swapped[page]) continue;
        fprintf(stderr,
                "rank %d: page %" PRIu64 ": fetch-and-add %" PRIu64 ", should be %" PRIu64 "; compare-and-swap %" PRIu64
                ", should be %" PRIu64 "\n",
                rank, page, hammer->pages[page][0], added[page], hammer->pages[page][8], swapped[page]);
        hammer->progress.wrong++;
    }
    free(theirs);
    free(added);
    free(swapped);
}

static uint64_t report(const struct hammer *hammer, const char *protocol, double seconds) {
    uint64_t wrong = 0, total = 0;
    struct progress all[MAX_RANKS];
    for (int root = 0; root < vsmp_size(); root++) {
        all[root] = hammer->progress;
        must(vsmp_broadcast(&all[root], sizeof all[root], root), "vsmp_broadcast");
        wrong += all[root].wrong;
        total += all[root].operations;
    }
    if (vsmp_rank() != 0) return wrong;
    printf("{\"protocol\":\"%s\",\"seconds\":%.3f,\"operations\":%" PRIu64 ",\"wrong\":%" PRIu64 ",\"ranks\":[", protocol,
           seconds, total, wrong);
    for (int rank = 0; rank < vsmp_size(); rank++) {
        printf("%s{\"operations\":%" PRIu64 ",\"longestMicroseconds\":%" PRIu64 ",\"ballastSweeps\":%" PRIu64 "}",
               rank == 0 ? "" : ",", all[rank].operations, all[rank].longest_nanoseconds / 1000, all[rank].ballast_sweeps);
    }
    printf("]}\n");
    return wrong;
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6 || (argc == 6 && strcmp(argv[5], "lazy") != 0)) {
        fprintf(stderr, "usage: vsmp-hammer SECONDS PAGES BALLAST_MB SEED [lazy]\n");
        return EXIT_USAGE;
    }
    const uint64_t seconds = number("SECONDS", argv[1], 1, 86400), ballast_bytes = number("BALLAST_MB", argv[3], 0, 65536) << 20;
    const uint64_t seed = number("SEED", argv[4], 0, UINT64_MAX);
    struct hammer hammer = {.page_count = number("PAGES", argv[2], 1, 8192), .is_lazy = argc == 6};
    if (vsmp_size() > MAX_RANKS) fail(EXIT_USAGE, "%d ranks: at most %d", vsmp_size(), MAX_RANKS);
    must(vsmp_start(), "vsmp_start");
    const int rank = vsmp_rank();
    struct vsmp_region *region;
    const size_t page_bytes = hammer.page_count * PAGE_BYTES;
    must(vsmp_attach(NULL, page_bytes + (size_t)vsmp_size() * ballast_bytes, &region), "vsmp_attach");
    hammer.pages = vsmp_base(region);
    hammer.ballast = (uint64_t *)((char *)vsmp_base(region) + page_bytes + (size_t)rank * ballast_bytes);
    hammer.ballast_words = ballast_bytes / sizeof(uint64_t);
    hammer.own = calloc(hammer.page_count, sizeof *hammer.own);
    hammer.added = calloc(hammer.page_count, sizeof *hammer.added);
    hammer.swapped = calloc(hammer.page_count, sizeof *hammer.swapped);
    if (hammer.own == NULL || hammer.added == NULL || hammer.swapped == NULL) fail(EXIT_UNABLE, "no memory for the counters");
    hammer.random = seed + 1000003ull * (uint64_t)(rank + 1);

    // However slow the machine: from the start there is more than the budget holds.
    while (hammer.ballast_words > 0 && hammer.ballast_round == 0) walk_ballast(&hammer);

    barrier();
    const uint64_t started = nanoseconds();
    work(&hammer, started + seconds * 1000000000ull);
    const double worked_seconds = (double)(nanoseconds() - started) / 1e9;
    barrier();
    verify(&hammer);
    const uint64_t wrong = report(&hammer, vsmp_protocol(region), worked_seconds);
    must(vsmp_finish(), "vsmp_finish");
    return wrong == 0 ? 0 : EXIT_WRONG;
}
