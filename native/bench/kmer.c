// SPDX-License-Identifier: Apache-2.0
//
// vsmp-kmer GENOME-BASES READS ROUNDS [SLOTS]
//
// Buckets are in shared memory, where their owners read them, behind a barrier. There are two sets, in turn: nobody sorts into a bucket
// that is being read, though there is one barrier for each round only. With SLOTS, a power of two, tables have so many and are in shared
// memory as well, and each round ends with vsmp_checkpoint: a job that is restarted goes on with the round that comes next. kmer.h is the computation, and kmer-mpi.c the same for MPI.
#include "common.h"
#include "kmer.h"

enum { MAX_RANKS = 64 };

// A bucket is whole pages: how many k-mers are in it, and the k-mers.
struct buckets {
    char *base;
    size_t bytes_each;
    int ranks;
};

static uint64_t *bucket(const struct buckets *buckets, uint64_t round, int from, int to) {
    const size_t number = ((round % 2) * (size_t)buckets->ranks + (size_t)from) * (size_t)buckets->ranks + (size_t)to;
    return (uint64_t *)(buckets->base + number * buckets->bytes_each);
}

static void sort_round(const struct kmer *kmer, const uint8_t *reads, uint64_t round, const struct buckets *buckets) {
    uint64_t *kmers[MAX_RANKS], counts[MAX_RANKS];
    for (int to = 0; to < kmer->ranks; to++) kmers[to] = bucket(buckets, round, vsmp_rank(), to) + 1;
    kmer_sort(kmer, reads, round, kmers, counts);
    for (int to = 0; to < kmer->ranks; to++) kmers[to][-1] = counts[to];
}

// What a job that is restarted has to know beside what is in the buckets. Behind it are the tables.
struct saved {
    uint64_t round; // the next
    uint64_t used[MAX_RANKS];
    char *buckets;
    struct kmer_entry *tables;
};

int main(int argc, char **argv) {
    const int rank = vsmp_rank(), ranks = vsmp_size();
    const uint64_t slots = argc == 5 ? number("SLOTS", argv[4], 1, 1ul << 32) : 0;
    const struct kmer kmer = kmer_parse(slots > 0 ? argc - 1 : argc, argv, rank, ranks);
    if (ranks > MAX_RANKS) fail(EXIT_USAGE, "at most %d ranks", MAX_RANKS);
    if ((slots & (slots - 1)) != 0) fail(EXIT_USAGE, "SLOTS: %" PRIu64 " is no power of two", slots);
    struct kmer_table table = {.slots = slots};
    if (slots == 0) kmer_table_new(&table, 1 << 16);
    uint8_t *reads = malloc(kmer.reads * READ_BASES);
    if (reads == NULL) fail(EXIT_UNABLE, "no memory for %" PRIu64 " reads", kmer.reads);
    kmer_begin(&kmer, reads);
    must(vsmp_start(), "vsmp_start");
    struct buckets buckets = {.ranks = ranks};
    buckets.bytes_each = ((kmer.bucket_kmers + 1) * sizeof(uint64_t) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    const size_t all_bytes = 2ul * (size_t)ranks * (size_t)ranks * buckets.bytes_each;
    struct vsmp_region *region;
    const size_t table_bytes = (size_t)ranks * slots * sizeof *table.entries;
    must(vsmp_attach(NULL, all_bytes + table_bytes + 4 * PAGE_BYTES, &region), "vsmp_attach");
    struct saved *saved = vsmp_base(region);
    if (vsmp_restored() == 0) {
        if (vsmp_alloc_all(region, sizeof *saved, 0) != saved) fail(EXIT_UNABLE, "vsmp_alloc_all: %s", vsmp_error());
        char *base = vsmp_alloc_all(region, all_bytes, PAGE_BYTES);
        struct kmer_entry *tables = slots == 0 ? NULL : vsmp_alloc_all(region, table_bytes, PAGE_BYTES);
        if (base == NULL || (slots > 0 && tables == NULL)) fail(EXIT_UNABLE, "vsmp_alloc_all: %s", vsmp_error());
        if (rank == 0) *saved = (struct saved){.buckets = base, .tables = tables};
    }
    barrier();
    buckets.base = saved->buckets;
    if (slots > 0) {
        table.entries = saved->tables + (uint64_t)rank * slots;
        table.used = saved->used[rank];
    }
    const uint64_t first_round = saved->round;
    barrier();

    struct kmer_times times = {0};
    const uint64_t began = nanoseconds();
    uint64_t since = began;
    for (uint64_t round = first_round; round < kmer.rounds; round++) {
        sort_round(&kmer, reads, round, &buckets); // faults on fresh pages, then on those that others have read
        times.sorting += lap(&since);
        barrier();
        times.exchange += lap(&since);
        for (int i = 0; i < ranks; i++) {
            const uint64_t *from = bucket(&buckets, round, (rank + i) % ranks, rank); // faults on the others' pages
            if (slots > 0 && table.used + from[0] > slots / 2) fail(EXIT_UNABLE, "%" PRIu64 " slots are too few", slots);
            kmer_count(&table, from + 1, from[0]);
        }
        times.counting += lap(&since);
        if (slots == 0) continue;
        saved->used[rank] = table.used;
        barrier();
        if (rank == 0) saved->round = round + 1;
        must(vsmp_checkpoint(NULL), "vsmp_checkpoint");
        times.exchange += lap(&since);
    }
    barrier();
    times.exchange += lap(&since);
    times.all = (double)(nanoseconds() - began) * 1e-9;

    const uint64_t checksum = sum_over_ranks(0, kmer_checksum(&table)), distinct = sum_over_ranks(1, table.used);
    if (rank == 0) kmer_print(&times, distinct, checksum);
    must(vsmp_finish(), "vsmp_finish");
    return 0;
}
