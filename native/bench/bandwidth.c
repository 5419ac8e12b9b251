// SPDX-License-Identifier: Apache-2.0
//
// vsmp-bandwidth PAGES
//
// How fast pages move that another node has: two ranks, each on a node of its own, one thread each. Rank 1 writes PAGES pages whose home is its
// node; then rank 0 reads or overwrites them, all words of each, while rank 1 waits in a barrier. Each pattern has pages of its own:
//
//     read, write                  in order
//     random-read, random-write    each page once, shuffled, the same way each time
//     hit                          some of what read has brought, once more, as often as makes it measurable
//     plain                        the same for a file of tmpfs that nobody else has; between passes of hit
//     exchange                     twice as many pages: each rank has written every second one, and reads the other's, both at the same time
//     write-exchange               the same, with the writing
//
// Rank 0 prints a pattern's name, the number of its pages, and how many nanoseconds they took all together; of hit and plain, in each pass; of
// exchange, from barrier to barrier. What was read is verified behind the clock.
#include "common.h"
#include "pin.h"
#include "words.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGES_PER_EXTENT (EXTENT_BYTES / PAGE_BYTES)

struct pattern {
    const char *name;
    bool is_random, is_write;
};

static const struct pattern patterns[] = {
    {"read", false, false}, {"random-read", true, false}, {"write", false, true}, {"random-write", true, true}};

// What is hit fits into a processor's own cache, several times: which frames get into each other's way there is not the question.
enum { PATTERNS = sizeof patterns / sizeof *patterns, RANKS = 2, HIT_PAGES = 64, HIT_PASSES = 512 };

static char *base;
static uint64_t page_count, extents_each;
static uint64_t **pages, *sums; // of what is being measured

// What a rank writes into a page: no two pages are alike, and nobody else's.
static uint64_t first_word(const uint64_t *page, int writer) {
    return (uint64_t)((const char *)page - base) / PAGE_BYTES * 0x9e3779b97f4a7c15ull + (uint64_t)writer + 1;
}

static uint64_t expected_sum(const uint64_t *page, int writer) {
    return WORDS_PER_PAGE * first_word(page, writer) + WORDS_PER_PAGE * (WORDS_PER_PAGE - 1) / 2;
}

static void __attribute__((noinline)) write_page(uint64_t *page) {
    const uint64_t first = first_word(page, vsmp_rank());
    for (uint64_t i = 0; i < WORDS_PER_PAGE; i++) page[i] = first + i;
}

static uint64_t write_pages(void) {
    const uint64_t before = nanoseconds();
    for (uint64_t i = 0; i < page_count; i++) write_page(pages[i]);
    return nanoseconds() - before;
}

// For memory of both kinds: aligned alike, too.
static uint64_t __attribute__((noinline)) read_pages(uint64_t *const *from, uint64_t count) {
    const uint64_t before = nanoseconds();
    for (uint64_t i = 0; i < count; i++) sums[i] = sum_of_page(from[i]);
    return nanoseconds() - before;
}

static void verify(const char *name, uint64_t count, int writer) {
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t expected = expected_sum(pages[i], writer);
        if (sums[i] == expected) continue;
        fail(EXIT_WRONG, "%s: the words of page %" PRIu64 " of %" PRIu64 " sum up to %#" PRIx64 ", and should to %#" PRIx64, name,
             i, count, sums[i], expected);
    }
}

// The pages of a pattern, in the order in which they are touched. Homes of extents go round the ranks, since every node has as much memory.
static void take_pages(int number) {
    for (uint64_t i = 0; i < page_count; i++) {
        const uint64_t extent = ((uint64_t)number * extents_each + i / PAGES_PER_EXTENT) * RANKS + 1;
        pages[i] = (uint64_t *)(base + extent * EXTENT_BYTES + i % PAGES_PER_EXTENT * PAGE_BYTES);
    }
    uint64_t seed = 1;
    for (uint64_t left = page_count; patterns[number].is_random && left > 1; left--) {
        uint64_t *last = pages[left - 1], **other = &pages[random_below(&seed, left)];
        pages[left - 1] = *other;
        *other = last;
    }
}

static void take_plain_pages(uint64_t **plain, uint64_t count) {
    const int file = memfd_create("vsmp-bandwidth", 0);
    if (file < 0 || ftruncate(file, (off_t)(count * PAGE_BYTES)) != 0) fail(EXIT_UNABLE, "memfd: %s", strerror(errno));
    char *memory = mmap(NULL, count * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) fail(EXIT_UNABLE, "mmap: %s", strerror(errno));
    memset(memory, 1, count * PAGE_BYTES);
    for (uint64_t i = 0; i < count; i++) plain[i] = (uint64_t *)(memory + i * PAGE_BYTES);
    close(file);
}

static void print(const char *name, uint64_t count, int times, const uint64_t *took) {
    printf("%s %" PRIu64, name, count);
    for (int i = 0; i < times; i++) printf(" %" PRIu64, took[i]);
    printf("\n");
}

// By turns, since a processor's speed changes from one millisecond to the next; each after a pass that brings the pages into the caches.
static void hit(void) {
    static uint64_t ours[HIT_PASSES], bare[HIT_PASSES];
    const uint64_t count = page_count < HIT_PAGES ? page_count : HIT_PAGES;
    uint64_t *plain[HIT_PAGES];
    take_plain_pages(plain, count);
    for (int i = 0; i < HIT_PASSES; i++) {
        (void)read_pages(plain, count);
        bare[i] = read_pages(plain, count);
        (void)read_pages(pages, count);
        ours[i] = read_pages(pages, count);
        verify("hit", count, 1);
    }
    print("plain", count, HIT_PASSES, bare);
    print("hit", count, HIT_PASSES, ours);
}

static void run(int number) {
    const struct pattern *pattern = &patterns[number];
    take_pages(number);
    if (vsmp_rank() == 1) (void)write_pages();
    barrier();
    if (vsmp_rank() == 0) {
        const uint64_t took = pattern->is_write ? write_pages() : read_pages(pages, page_count);
        if (!pattern->is_write) verify(pattern->name, page_count, 1);
        print(pattern->name, page_count, 1, &took);
        if (number == 0) hit();
    }
    barrier();
    if (vsmp_rank() == 1 && pattern->is_write) {
        (void)read_pages(pages, page_count);
        verify(pattern->name, page_count, 0);
    }
    barrier();
}

// The pages behind those of the patterns, whose homes are half here and half there. The ranks' pages alternate.
static void take_alternate_pages(int writer) {
    char *first = base + PATTERNS * extents_each * RANKS * EXTENT_BYTES;
    for (uint64_t i = 0; i < page_count; i++) pages[i] = (uint64_t *)(first + (RANKS * i + (uint64_t)writer) * PAGE_BYTES);
}

static void exchange(void) {
    const int here = vsmp_rank(), there = 1 - here;
    take_alternate_pages(here);
    barrier();
    const uint64_t begun = nanoseconds();
    (void)write_pages();
    barrier();
    const uint64_t written = nanoseconds();
    take_alternate_pages(there);
    (void)read_pages(pages, page_count);
    barrier();
    const uint64_t done = nanoseconds(), reading = done - written, both = done - begun;
    verify("exchange", page_count, there);
    if (here == 0) {
        print("exchange", RANKS * page_count, 1, &reading);
        print("write-exchange", RANKS * page_count, 1, &both);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: vsmp-bandwidth PAGES\n");
        return EXIT_USAGE;
    }
    page_count = number("PAGES", argv[1], 1, 1 << 20);
    if (vsmp_size() != RANKS) fail(EXIT_USAGE, "there are to be %d ranks, not %d", RANKS, vsmp_size());
    extents_each = (page_count + PAGES_PER_EXTENT - 1) / PAGES_PER_EXTENT;
    pages = calloc(page_count, sizeof *pages);
    sums = calloc(page_count, sizeof *sums);
    if (pages == NULL || sums == NULL) fail(EXIT_UNABLE, "no memory");
    must(vsmp_start(), "vsmp_start");
    pin(vsmp_rank());
    struct vsmp_region *region;
    must(vsmp_attach(NULL, (PATTERNS + 1) * extents_each * RANKS * EXTENT_BYTES, &region), "vsmp_attach");
    base = vsmp_base(region);
    for (int i = 0; i < PATTERNS; i++) run(i);
    exchange();
    must(vsmp_finish(), "vsmp_finish");
    free(sums);
    free(pages);
    return 0;
}
