// SPDX-License-Identifier: Apache-2.0
//
// Jacobi iteration on a square plate of doubles: what vsmp-jacobi and mpi-jacobi compute alike. Each rank has a band of rows. A *block* is a
// band with the row above and the row below it, which belong to its neighbours, or to the rim: where a block lies, and how its outer
// rows get there, is all that the two programs do not share.
#ifndef VSMP_BENCH_JACOBI_H
#define VSMP_BENCH_JACOBI_H

#include "basics.h"

// Between the two plates or blocks, in both programs: a power of two apart, their rows would share the same few sets of the caches, which costs a
// fifth of the time.
#define JACOBI_GAP_DOUBLES (17 * PAGE_BYTES / sizeof(double))

struct jacobi {
    uint64_t side, iterations;
    uint64_t first, rows; // of this rank; row 0 and the last one are the rim, which nobody computes
};

// Seconds of the measured part, as rank 0 spent them.
struct jacobi_times {
    double all, edges, interior, exchange;
};

static inline struct jacobi jacobi_parse(int argc, char **argv, int rank, int ranks) {
    if (argc != 3) fail(EXIT_USAGE, "usage: %s SIDE ITERATIONS", argv[0]);
    struct jacobi jacobi = {.side = number("SIDE", argv[1], 3, 1 << 15), .iterations = number("ITERATIONS", argv[2], 1, 1 << 20)};
    const uint64_t inner = jacobi.side - 2;
    if (inner < (uint64_t)ranks) fail(EXIT_USAGE, "SIDE: %d ranks need a row each, and two for the rim", ranks);
    jacobi.first = 1 + inner * (uint64_t)rank / (uint64_t)ranks;
    jacobi.rows = 1 + inner * (uint64_t)(rank + 1) / (uint64_t)ranks - jacobi.first;
    return jacobi;
}

// Values for the rows of the band and the rim next to it: any will do, except those that underflow.
static inline void jacobi_begin(const struct jacobi *jacobi, double *block) {
    const uint64_t side = jacobi->side;
    for (uint64_t y = 0; y < jacobi->rows + 2; y++) {
        const uint64_t row = jacobi->first - 1 + y;
        if ((y == 0 && row != 0) || (y == jacobi->rows + 1 && row != side - 1)) continue; // a neighbour's
        for (uint64_t x = 0; x < side; x++) {
            uint64_t state = row * side + x;
            block[y * side + x] = (double)(next_random(&state) >> 40);
        }
    }
}

// One step for rows of a block, the band's being 1 … rows.
static inline void jacobi_step(const double *restrict from, double *restrict to, uint64_t side, uint64_t first, uint64_t last) {
    for (uint64_t y = first; y <= last; y++) {
        const double *here = from + y * side, *above = here - side, *below = here + side;
        double *out = to + y * side;
        for (uint64_t x = 1; x + 1 < side; x++) out[x] = 0.25 * (here[x - 1] + here[x + 1] + above[x] + below[x]);
    }
}

// The rows that need, and are needed by, neighbours; then the others.
static inline void jacobi_edges(const struct jacobi *jacobi, const double *from, double *to) {
    jacobi_step(from, to, jacobi->side, 1, 1);
    if (jacobi->rows > 1) jacobi_step(from, to, jacobi->side, jacobi->rows, jacobi->rows);
}

static inline void jacobi_interior(const struct jacobi *jacobi, const double *from, double *to) {
    jacobi_step(from, to, jacobi->side, 2, jacobi->rows - 1);
}

// Of the band, to the last bit. The sum over all bands does not depend on how the rows were dealt out.
static inline uint64_t jacobi_checksum(const struct jacobi *jacobi, const double *block) {
    uint64_t sum = 0;
    for (uint64_t y = 1; y <= jacobi->rows; y++) {
        for (uint64_t x = 0; x < jacobi->side; x++) {
            uint64_t state;
            memcpy(&state, &block[y * jacobi->side + x], sizeof state);
            state ^= (jacobi->first - 1 + y) * jacobi->side + x;
            sum += next_random(&state);
        }
    }
    return sum;
}

static inline void jacobi_print(const struct jacobi_times *times, uint64_t checksum) {
    printf("seconds %.6f\nchecksum %016" PRIx64 "\n", times->all, checksum);
    printf("part edges %.6f\npart interior %.6f\npart exchange %.6f\n", times->edges, times->interior, times->exchange);
}

#endif
