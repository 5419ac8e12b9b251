// SPDX-License-Identifier: Apache-2.0
//
// vsmp-handoff TURNS
//
// Two ranks, each on a node of its own, write one page by turns; between turns all wait in a barrier. Rank 0 prints the nanoseconds of each
// of its writes: every one of them takes the page from the other node, which wrote it last.
#include "common.h"
#include "pin.h"

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: vsmp-handoff TURNS\n");
        return EXIT_USAGE;
    }
    const uint64_t turns = number("TURNS", argv[1], 1, 1 << 20);
    uint64_t *took = calloc(turns, sizeof *took);
    if (took == NULL) fail(EXIT_UNABLE, "no memory");
    must(vsmp_start(), "vsmp_start");
    pin(vsmp_rank());
    struct vsmp_region *region;
    must(vsmp_attach(NULL, 2 * EXTENT_BYTES, &region), "vsmp_attach");
    // Half of the turns on a page whose home is here, half on one whose home is there.
    volatile uint64_t *pages[] = {vsmp_base(region), (volatile uint64_t *)((char *)vsmp_base(region) + EXTENT_BYTES)};
    for (uint64_t i = 0; i < turns; i++) {
        volatile uint64_t *page = pages[i < turns / 2];
        if (vsmp_rank() == 1) *page = i;
        barrier();
        if (vsmp_rank() == 0) {
            const uint64_t before = nanoseconds();
            *page = i + 1;
            took[i] = nanoseconds() - before;
        }
        barrier();
    }
    if (vsmp_rank() == 0) {
        printf("handoff");
        for (uint64_t i = 0; i < turns; i++) printf(" %" PRIu64, took[i]);
        printf("\n");
    }
    must(vsmp_finish(), "vsmp_finish");
    free(took);
    return 0;
}
