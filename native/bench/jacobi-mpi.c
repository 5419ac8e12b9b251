// SPDX-License-Identifier: Apache-2.0
//
// mpi-jacobi SIDE ITERATIONS
//
// Two blocks of a rank's own, in turn; before each step neighbours send each other their outer rows. jacobi.h is the computation,
// and jacobi.c the same for VSmp.
#include "mpi-common.h"
#include "jacobi.h"

static void exchange_rows(const struct jacobi *jacobi, double *block, int above, int below) {
    const int count = (int)jacobi->side;
    double *first = block + jacobi->side, *last = block + jacobi->rows * jacobi->side, *behind = last + jacobi->side;
    MPI_Sendrecv(first, count, MPI_DOUBLE, above, 0, behind, count, MPI_DOUBLE, below, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Sendrecv(last, count, MPI_DOUBLE, below, 1, block, count, MPI_DOUBLE, above, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

int main(int argc, char **argv) {
    int rank, ranks;
    mpi_start(&argc, &argv, &rank, &ranks);
    const struct jacobi jacobi = jacobi_parse(argc, argv, rank, ranks);
    const size_t block = (jacobi.rows + 2) * jacobi.side;
    double *from = own_memory((2 * block + JACOBI_GAP_DOUBLES) * sizeof(double)), *to = from + block + JACOBI_GAP_DOUBLES;
    jacobi_begin(&jacobi, from);
    jacobi_begin(&jacobi, to);
    const int above = rank > 0 ? rank - 1 : MPI_PROC_NULL, below = rank + 1 < ranks ? rank + 1 : MPI_PROC_NULL;
    MPI_Barrier(MPI_COMM_WORLD);

    struct jacobi_times times = {0};
    const uint64_t began = nanoseconds();
    uint64_t since = began;
    for (uint64_t i = 0; i < jacobi.iterations; i++) {
        exchange_rows(&jacobi, from, above, below);
        times.exchange += lap(&since);
        jacobi_edges(&jacobi, from, to);
        times.edges += lap(&since);
        jacobi_interior(&jacobi, from, to);
        times.interior += lap(&since);
        double *swap = from;
        from = to;
        to = swap;
    }
    MPI_Barrier(MPI_COMM_WORLD);
    times.exchange += lap(&since);
    times.all = (double)(nanoseconds() - began) * 1e-9;

    const uint64_t checksum = sum_over_ranks(jacobi_checksum(&jacobi, from));
    if (rank == 0) jacobi_print(&times, checksum);
    MPI_Finalize();
    return 0;
}
