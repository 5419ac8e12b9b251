// SPDX-License-Identifier: Apache-2.0
//
// vsmp-jacobi SIDE ITERATIONS
//
// Two plates in shared memory, in turn. A rank reads its neighbours' rows where they are; a barrier between steps is all that is said
// about it. jacobi.h is the computation, and jacobi-mpi.c the same for MPI.
#include "common.h"
#include "jacobi.h"

int main(int argc, char **argv) {
    const struct jacobi jacobi = jacobi_parse(argc, argv, vsmp_rank(), vsmp_size());
    must(vsmp_start(), "vsmp_start");
    struct vsmp_region *region;
    const size_t plate = jacobi.side * jacobi.side, bytes = (2 * plate + JACOBI_GAP_DOUBLES) * sizeof(double);
    must(vsmp_attach(NULL, bytes + PAGE_BYTES, &region), "vsmp_attach");
    double *plates = vsmp_alloc_all(region, bytes, PAGE_BYTES);
    if (plates == NULL) fail(EXIT_UNABLE, "vsmp_alloc_all: %s", vsmp_error());
    double *from = plates + (jacobi.first - 1) * jacobi.side, *to = from + plate + JACOBI_GAP_DOUBLES;
    jacobi_begin(&jacobi, from);
    jacobi_begin(&jacobi, to);
    barrier();

    struct jacobi_times times = {0};
    const uint64_t began = nanoseconds();
    for (uint64_t i = 0; i < jacobi.iterations; i++) {
        uint64_t since = nanoseconds();
        jacobi_edges(&jacobi, from, to); // faults on the neighbours' rows, and on its own that they have read
        times.edges += lap(&since);
        jacobi_interior(&jacobi, from, to);
        times.interior += lap(&since);
        barrier();
        times.exchange += lap(&since);
        double *swap = from;
        from = to;
        to = swap;
    }
    times.all = (double)(nanoseconds() - began) * 1e-9;

    const uint64_t checksum = sum_over_ranks(0, jacobi_checksum(&jacobi, from));
    if (vsmp_rank() == 0) jacobi_print(&times, checksum);
    must(vsmp_finish(), "vsmp_finish");
    return 0;
}
