// SPDX-License-Identifier: Apache-2.0
//
// Counting k-mers of a synthetic genome's reads: what vsmp-kmer and mpi-kmer compute alike. Each rank has a share of the reads. In each of
// several rounds it sorts the k-mers of some of them into *buckets* by owner, gets the others' buckets for itself, and counts what is in
// them. How buckets get from rank to rank is all that the two programs do not share.
//
// A k-mer is two bits for each base, and the same as its reverse complement: the smaller of the two stands for both.
#ifndef VSMP_BENCH_KMER_H
#define VSMP_BENCH_KMER_H

#include "basics.h"

enum { K = 21, READ_BASES = 100, KMERS_PER_READ = READ_BASES - K + 1, BASES_PER_ERROR = 200 };

struct kmer {
    uint64_t seed, genome_bases, rounds;
    uint64_t first_read, reads, reads_each_round; // of this rank
    int ranks;
    uint64_t bucket_kmers; // what a bucket has room for: all k-mers of a round
};

// Seconds of the measured part, as rank 0 spent them.
struct kmer_times {
    double all, sorting, exchange, counting;
};

// Open addressing; grows by doubling when it is half full. An entry with count 0 is free.
struct kmer_entry {
    uint64_t kmer, count;
};
struct kmer_table {
    struct kmer_entry *entries;
    uint64_t slots, used;
};

static inline uint64_t kmer_hash(uint64_t kmer) { return next_random(&kmer); }

static inline struct kmer kmer_parse(int argc, char **argv, int rank, int ranks) {
    if (argc != 4) fail(EXIT_USAGE, "usage: %s GENOME-BASES READS ROUNDS", argv[0]);
    struct kmer kmer = {.seed = 1, .genome_bases = number("GENOME-BASES", argv[1], READ_BASES, 1ul << 32), .ranks = ranks};
    const uint64_t reads = number("READS", argv[2], 1, 1 << 26), size = (uint64_t)ranks;
    kmer.rounds = number("ROUNDS", argv[3], 1, 1 << 20);
    kmer.first_read = reads * (uint64_t)rank / size;
    kmer.reads = reads * (uint64_t)(rank + 1) / size - kmer.first_read;
    // The same for all ranks: their buckets are as large, and they meet as often.
    kmer.reads_each_round = ((reads + size - 1) / size + kmer.rounds - 1) / kmer.rounds;
    kmer.bucket_kmers = kmer.reads_each_round * KMERS_PER_READ;
    return kmer;
}

// The rank's reads, one behind the other, a base in a byte: from anywhere in the genome, with some bases misread.
static inline void kmer_begin(const struct kmer *kmer, uint8_t *reads) {
    for (uint64_t r = 0; r < kmer->reads; r++) {
        uint64_t state = kmer->seed ^ kmer_hash(kmer->first_read + r);
        const uint64_t begin = random_below(&state, kmer->genome_bases - READ_BASES + 1);
        for (uint64_t i = 0; i < READ_BASES; i++) {
            const uint64_t at = begin + i, word = kmer_hash(~kmer->seed ^ (at / 32));
            const bool is_misread = random_below(&state, BASES_PER_ERROR) == 0;
            reads[r * READ_BASES + i] = (uint8_t)(((word >> (at % 32 * 2)) + (is_misread ? 1 + random_below(&state, 3) : 0)) & 3);
        }
    }
}

// Sorts the k-mers of a round's reads into buckets. counts: how many there are in each.
static inline void kmer_sort(const struct kmer *kmer, const uint8_t *reads, uint64_t round, uint64_t **buckets,
                             uint64_t *counts) {
    const uint64_t mask = (1ull << (2 * K)) - 1, ranks = (uint64_t)kmer->ranks;
    const uint64_t first = round * kmer->reads_each_round, behind = first + kmer->reads_each_round;
    for (uint64_t owner = 0; owner < ranks; owner++) counts[owner] = 0;
    for (uint64_t r = first; r < behind && r < kmer->reads; r++) {
        const uint8_t *read = reads + r * READ_BASES;
        uint64_t forward = 0, backward = 0;
        for (uint64_t i = 0; i < READ_BASES; i++) {
            forward = (forward << 2 | read[i]) & mask;
            backward = backward >> 2 | (uint64_t)(3 - read[i]) << (2 * (K - 1));
            if (i + 1 < K) continue;
            const uint64_t least = forward < backward ? forward : backward, owner = kmer_hash(least) % ranks;
            buckets[owner][counts[owner]++] = least;
        }
    }
}

static inline void kmer_table_new(struct kmer_table *table, uint64_t slots) {
    *table = (struct kmer_table){.entries = calloc(slots, sizeof *table->entries), .slots = slots};
    if (table->entries == NULL) fail(EXIT_UNABLE, "no memory for a table of %" PRIu64 " k-mers", slots);
}

// The entry of a k-mer, or the free one that is to be its. What owners are told apart by is not what slots are.
static inline struct kmer_entry *kmer_find(const struct kmer_table *table, uint64_t kmer) {
    uint64_t slot = (kmer_hash(kmer) >> 16) & (table->slots - 1);
    while (table->entries[slot].count != 0 && table->entries[slot].kmer != kmer) slot = (slot + 1) & (table->slots - 1);
    return &table->entries[slot];
}

static inline void kmer_table_grow(struct kmer_table *table) {
    struct kmer_table larger;
    kmer_table_new(&larger, 2 * table->slots);
    larger.used = table->used;
    for (uint64_t slot = 0; slot < table->slots; slot++) {
        if (table->entries[slot].count != 0) *kmer_find(&larger, table->entries[slot].kmer) = table->entries[slot];
    }
    free(table->entries);
    *table = larger;
}

static inline void kmer_count(struct kmer_table *table, const uint64_t *kmers, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        struct kmer_entry *entry = kmer_find(table, kmers[i]);
        entry->kmer = kmers[i];
        if (entry->count++ == 0 && ++table->used > table->slots / 2) kmer_table_grow(table);
    }
}

// Of a rank's k-mers and their counts. The sum over all ranks does not depend on who owned what.
static inline uint64_t kmer_checksum(const struct kmer_table *table) {
    uint64_t sum = 0;
    for (uint64_t slot = 0; slot < table->slots; slot++) {
        const struct kmer_entry *entry = &table->entries[slot];
        if (entry->count != 0) sum += kmer_hash(entry->kmer ^ kmer_hash(entry->count));
    }
    return sum;
}

static inline void kmer_print(const struct kmer_times *times, uint64_t distinct, uint64_t checksum) {
    printf("seconds %.6f\nchecksum %016" PRIx64 "\ndistinct %" PRIu64 "\n", times->all, checksum, distinct);
    printf("part sorting %.6f\npart exchange %.6f\npart counting %.6f\n", times->sorting, times->exchange, times->counting);
}

#endif
