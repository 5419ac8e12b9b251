// SPDX-License-Identifier: Apache-2.0
//
// mpi-kmer GENOME-BASES READS ROUNDS
//
// Buckets are a rank's own memory, and all ranks send each other theirs at once. kmer.h is the computation, and kmer.c the same for VSmp.
#include "mpi-common.h"
#include "kmer.h"

#include <limits.h>

// A rank's buckets for all ranks, or those that it has from all; each has room for all k-mers of a round.
struct buckets {
    uint64_t *kmers, **each, *counts;
    int *int_counts, *starts;
};

static struct buckets new_buckets(const struct kmer *kmer) {
    const size_t ranks = (size_t)kmer->ranks;
    if (ranks * kmer->bucket_kmers > INT_MAX) fail(EXIT_USAGE, "more k-mers in a round than MPI can count: use more rounds");
    struct buckets buckets = {.kmers = own_memory(ranks * kmer->bucket_kmers * sizeof(uint64_t)),
                              .each = own_memory(ranks * sizeof(uint64_t *)),
                              .counts = own_memory(ranks * sizeof(uint64_t)),
                              .int_counts = own_memory(ranks * sizeof(int)),
                              .starts = own_memory(ranks * sizeof(int))};
    for (size_t i = 0; i < ranks; i++) {
        buckets.each[i] = buckets.kmers + i * kmer->bucket_kmers;
        buckets.starts[i] = (int)(i * kmer->bucket_kmers);
    }
    return buckets;
}

static void exchange(const struct kmer *kmer, struct buckets *sent, struct buckets *received) {
    for (int i = 0; i < kmer->ranks; i++) sent->int_counts[i] = (int)sent->counts[i];
    MPI_Alltoall(sent->int_counts, 1, MPI_INT, received->int_counts, 1, MPI_INT, MPI_COMM_WORLD);
    MPI_Alltoallv(sent->kmers, sent->int_counts, sent->starts, MPI_UINT64_T, received->kmers, received->int_counts,
                  received->starts, MPI_UINT64_T, MPI_COMM_WORLD);
}

int main(int argc, char **argv) {
    int rank, ranks;
    mpi_start(&argc, &argv, &rank, &ranks);
    const struct kmer kmer = kmer_parse(argc, argv, rank, ranks);
    struct kmer_table table;
    kmer_table_new(&table, 1 << 16);
    uint8_t *reads = own_memory(kmer.reads * READ_BASES);
    kmer_begin(&kmer, reads);
    struct buckets sent = new_buckets(&kmer), received = new_buckets(&kmer);
    MPI_Barrier(MPI_COMM_WORLD);

    struct kmer_times times = {0};
    const uint64_t began = nanoseconds();
    uint64_t since = began;
    for (uint64_t round = 0; round < kmer.rounds; round++) {
        kmer_sort(&kmer, reads, round, sent.each, sent.counts);
        times.sorting += lap(&since);
        exchange(&kmer, &sent, &received);
        times.exchange += lap(&since);
        for (int i = 0; i < ranks; i++) {
            const int from = (rank + i) % ranks;
            kmer_count(&table, received.each[from], (uint64_t)received.int_counts[from]);
        }
        times.counting += lap(&since);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    times.exchange += lap(&since);
    times.all = (double)(nanoseconds() - began) * 1e-9;

    const uint64_t checksum = sum_over_ranks(kmer_checksum(&table)), distinct = sum_over_ranks(table.used);
    if (rank == 0) kmer_print(&times, distinct, checksum);
    MPI_Finalize();
    return 0;
}
