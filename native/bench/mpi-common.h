// SPDX-License-Identifier: Apache-2.0
//
// What the programs have in common that VSmp is compared with: ranks of MPI.
#ifndef VSMP_BENCH_MPI_COMMON_H
#define VSMP_BENCH_MPI_COMMON_H

#include <mpi.h>

#include "basics.h"

// MPI's errors end the program, with a message, by themselves.
static inline void mpi_start(int *argc, char ***argv, int *rank, int *ranks) {
    MPI_Init(argc, argv);
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    MPI_Comm_size(MPI_COMM_WORLD, ranks);
}

static inline int this_rank(void) {
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

static inline void *own_memory(size_t bytes) {
    void *memory = aligned_alloc(PAGE_BYTES, (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    if (memory == NULL) fail(EXIT_UNABLE, "no memory");
    return memory;
}

// Modulo 2^64; at rank 0.
static inline uint64_t sum_over_ranks(uint64_t value) {
    uint64_t sum = 0;
    MPI_Reduce(&value, &sum, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
    return sum;
}

#endif
