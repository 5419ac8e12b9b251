// SPDX-License-Identifier: Apache-2.0
//
// heat [SIDE] [STEPS]: heat spreads over a square plate (Jacobi iteration). The plate is one array that all ranks see; each works on a
// band of rows, and reads the rows next to its band, which are its neighbours', by plain loads. There is a barrier between steps, and
// that is all the communication there is.
//
// After each step it may be checkpointed (vsmp spmd --checkpoint): all that is needed to go on is in the region, behind a struct at its beginning.
//
// Rank 0 then does the same alone, in private memory, and compares: every value must be equal to the last bit.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vsmp.h>

// Where the region begins.
struct plates {
    long steps; // done
    double *from, *to;
};

static void must(int error, const char *what) {
    if (error == 0) return;
    fprintf(stderr, "rank %d: %s: %s\n", vsmp_rank(), what, vsmp_error());
    exit(1);
}

// One step for rows first … last − 1; the rim stays as it is.
static void step(const double *from, double *to, size_t side, size_t first, size_t last) {
    for (size_t y = first; y < last; y++) {
        for (size_t x = 1; x + 1 < side; x++) {
            const size_t at = y * side + x;
            to[at] = 0.25 * (from[at - 1] + from[at + 1] + from[at - side] + from[at + side]);
        }
    }
}

static void heat_rim(double *plate, size_t side) {
    for (size_t i = 0; i < side; i++) {
        plate[i] = 100.0; // the upper rim is hot
        plate[i * side] = 50.0; // the left one warm, the others are at 0
    }
}

static void verify(const double *result, size_t side, long steps) {
    double *from = calloc(side * side, sizeof *from), *to = calloc(side * side, sizeof *to);
    if (from == NULL || to == NULL) {
        fprintf(stderr, "no memory to verify in\n");
        exit(1);
    }
    heat_rim(from, side);
    heat_rim(to, side);
    for (long i = 0; i < steps; i++) {
        step(from, to, side, 1, side - 1);
        double *swap = from;
        from = to;
        to = swap;
    }
    if (memcmp(from, result, side * side * sizeof *from) != 0) {
        fprintf(stderr, "heat: WRONG: the ranks' result differs from that of one process\n");
        exit(1);
    }
    free(from);
    free(to);
}

int main(int argc, char **argv) {
    const size_t side = argc > 1 ? strtoul(argv[1], NULL, 10) : 512;
    const long steps = argc > 2 ? strtol(argv[2], NULL, 10) : 50;
    if (side < 3 || side > 1 << 15 || steps < 0) {
        fprintf(stderr, "usage: heat [SIDE from 3] [STEPS]\n");
        return 2;
    }
    must(vsmp_start(), "vsmp_start");
    struct vsmp_region *region;
    const size_t plate_bytes = side * side * sizeof(double);
    must(vsmp_attach("heat", 2 * plate_bytes + (64 << 10), &region), "vsmp_attach");
    const size_t rank = (size_t)vsmp_rank(), ranks = (size_t)vsmp_size(), rows = side - 2;
    const size_t first = 1 + rows * rank / ranks, last = 1 + rows * (rank + 1) / ranks;
    struct plates *plates = vsmp_base(region);
    if (vsmp_restored() == 0) {
        // What is allocated first is where the region begins. Two plates, in turn; whole pages each, so that bands of one do not share pages with the
        // other.
        if (vsmp_alloc_all(region, sizeof *plates, 0) != plates) must(1, "vsmp_alloc_all");
        double *one = vsmp_alloc_all(region, plate_bytes, 4096), *other = vsmp_alloc_all(region, plate_bytes, 4096);
        if (one == NULL || other == NULL) must(1, "vsmp_alloc_all");
        if (rank == 0) {
            heat_rim(one, side);
            heat_rim(other, side);
            *plates = (struct plates){.from = one, .to = other};
        }
    } else if (rank == 0) {
        printf("heat: goes on after step %ld\n", plates->steps);
        fflush(stdout);
    }
    must(vsmp_barrier(), "vsmp_barrier");
    double *from = plates->from, *to = plates->to;
    for (long i = plates->steps; i < steps; i++) {
        step(from, to, side, first, last);
        double *swap = from;
        from = to;
        to = swap;
        must(vsmp_barrier(), "vsmp_barrier");
        if (rank == 0) *plates = (struct plates){.steps = i + 1, .from = from, .to = to};
        must(vsmp_checkpoint(NULL), "vsmp_checkpoint"); // a barrier as well
    }
    if (rank == 0) {
        verify(from, side, steps);
        double sum = 0;
        for (size_t i = 0; i < side * side; i++) sum += from[i];
        printf("heat: %zu x %zu, %ld steps, %zu ranks: mean %.6f; same as one process\n", side, side, steps, ranks,
               sum / (double)(side * side));
    }
    return vsmp_finish() == 0 ? 0 : 1;
}
