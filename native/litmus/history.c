// SPDX-License-Identifier: Apache-2.0
//
// vsmp-history FOLDER OPERATIONS WORDS SEED
//
// Every rank does OPERATIONS reads, writes and fetch-and-adds on WORDS shared words, two to a page, and writes what it did and when to
// FOLDER/history-RANK.bin, for vsmp-bench to check. A record is little-endian, 32 bytes:
//
//     u64 start    CLOCK_MONOTONIC before the instruction, nanoseconds: one clock, so all ranks must be on one host
//     u64 finish   after it
//     u64 value    what was read; what was written; what fetch-and-add (of 1) found
//     u32 word     0 … WORDS − 1
//     u32 kind     0 read, 1 write, 2 fetch-and-add
//
// Written values are unique and 65536 apart, so that every value a word ever has comes from one operation.
//
// An x86 store is visible to others only when it leaves the store buffer, which may be after the next instruction has run: the
// buffer is drained before the clock is read. Without that even a single machine's memory is not linearizable by these times.
#include "common.h"

enum { READ, WRITE, FETCH_ADD, WORDS_PER_PAGE = 2 };

struct record {
    uint64_t start, finish, value;
    uint32_t word, kind;
};

static struct record perform(volatile uint64_t *at, uint32_t word, uint32_t kind, uint64_t value) {
    struct record record = {.word = word, .kind = kind, .value = value};
    record.start = nanoseconds();
    _mm_mfence(); // the instruction does not begin before its time
    switch (kind) {
    case READ:
        record.value = *at;
        break;
    case WRITE:
        *at = value;
        break;
    default:
        record.value = __atomic_fetch_add(at, 1, __ATOMIC_SEQ_CST);
    }
    _mm_mfence(); // and has taken effect before its end
    record.finish = nanoseconds();
    return record;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: vsmp-history FOLDER OPERATIONS WORDS SEED\n");
        return EXIT_USAGE;
    }
    const uint64_t operations = number("OPERATIONS", argv[2], 1, (1ull << 31) - 1), words = number("WORDS", argv[3], 1, 4096);
    uint64_t random = number("SEED", argv[4], 0, UINT64_MAX);
    must(vsmp_start(), "vsmp_start");
    const int rank = vsmp_rank();
    random += 1000003ull * (uint64_t)(rank + 1);
    struct vsmp_region *region;
    must(vsmp_attach(NULL, (words + WORDS_PER_PAGE - 1) / WORDS_PER_PAGE * PAGE_BYTES, &region), "vsmp_attach");
    struct record *records = malloc(operations * sizeof *records);
    if (records == NULL) fail(EXIT_UNABLE, "no memory for %" PRIu64 " records", operations);
    memset(records, 0, operations * sizeof *records); // no faults while the clock is read

    barrier();
    uint64_t word = 0;
    for (uint64_t i = 0; i < operations; i++) {
        // Mostly the same page as before: a burst while it is here, then on, so that words are contended and yet a million
        // operations take seconds. Now and then a pause, in which the page is taken away.
        const uint64_t chance = random_below(&random, 64);
        if (chance < 2)
            word = random_below(&random, words);
        else
            word ^= chance % 2 != 0 && (word ^ 1) < words ? 1 : 0;
        if (chance == 2) {
            for (const uint64_t start = nanoseconds(), most = random_below(&random, 20000); nanoseconds() - start < most;)
                _mm_pause();
        }
        const uint64_t kind_chance = random_below(&random, 10);
        const uint32_t kind = kind_chance < 5 ? READ : kind_chance < 7 ? WRITE : FETCH_ADD;
        const uint64_t value = kind == WRITE ? ((uint64_t)(rank + 1) << 48) | (i + 1) << 16 : 0;
        volatile uint64_t *page = (volatile uint64_t *)((char *)vsmp_base(region) + word / WORDS_PER_PAGE * PAGE_BYTES);
        records[i] = perform(&page[word % WORDS_PER_PAGE * 256], (uint32_t)word, kind, value);
    }
    barrier();

    char path[4096];
    snprintf(path, sizeof path, "%s/history-%d.bin", argv[1], rank);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(records, sizeof *records, operations, file) != operations || fclose(file) != 0) {
        fail(EXIT_UNABLE, "%s: %s", path, strerror(errno));
    }
    must(vsmp_finish(), "vsmp_finish");
    return 0;
}
