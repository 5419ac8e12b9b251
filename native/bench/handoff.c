// SPDX-License-Identifier: Apache-2.0
//
// vsmp-handoff TURNS FOLDER
//
// Two ranks, each on a node of its own, write one page by turns. Whose turn it is they tell each other through pipes in FOLDER, as the floor's
// guests do: a barrier would keep the agents busy that are to hand the page over. Rank 0 prints the nanoseconds of each of its
// writes: every one of them takes the page from the other node, which wrote it last.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"
#include "pin.h"

// A pipe that both ranks find by its name; whoever opens it first need not wait for the other.
static int open_baton(const char *folder, int rank) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/baton-%d", folder, rank) >= (int)sizeof path) fail(EXIT_USAGE, "%s: too long", folder);
    if (mkfifo(path, 0600) != 0 && errno != EEXIST) fail(EXIT_UNABLE, "%s: %s", path, strerror(errno));
    const int baton = open(path, O_RDWR | O_CLOEXEC);
    if (baton < 0) fail(EXIT_UNABLE, "%s: %s", path, strerror(errno));
    return baton;
}

static void take(int baton) {
    char turn;
    if (read(baton, &turn, 1) != 1) fail(EXIT_UNABLE, "a baton: %s", strerror(errno));
}

static void give(int baton) {
    if (write(baton, "", 1) != 1) fail(EXIT_UNABLE, "a baton: %s", strerror(errno));
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: vsmp-handoff TURNS FOLDER\n");
        return EXIT_USAGE;
    }
    const uint64_t turns = number("TURNS", argv[1], 1, 1 << 20);
    uint64_t *took = calloc(turns, sizeof *took);
    if (took == NULL) fail(EXIT_UNABLE, "no memory");
    must(vsmp_start(), "vsmp_start");
    const int me = vsmp_rank(), mine = open_baton(argv[2], me), others = open_baton(argv[2], 1 - me);
    pin(me);
    struct vsmp_region *region;
    must(vsmp_attach(NULL, 2 * EXTENT_BYTES, &region), "vsmp_attach");
    barrier();
    // Half of the turns on a page whose home is here, half on one whose home is there.
    const uint64_t half = (turns + 1) / 2;
    volatile uint64_t *pages[] = {vsmp_base(region), (volatile uint64_t *)((char *)vsmp_base(region) + EXTENT_BYTES)};
    if (me == 0) give(mine);
    for (uint64_t i = 0; i < turns; i++) {
        volatile uint64_t *page = pages[i / half];
        const uint64_t writes_before = 2 * (i % half) + (uint64_t)me;
        take(mine);
        const uint64_t before = nanoseconds();
        page[0] = i + 1;
        took[i] = nanoseconds() - before;
        if (page[1]++ != writes_before) fail(EXIT_WRONG, "turn %" PRIu64 ": a write of the other node is missing", i);
        give(others);
    }
    barrier();
    if (me == 0) {
        printf("handoff");
        for (uint64_t i = 0; i < turns; i++) printf(" %" PRIu64, took[i]);
        printf("\n");
    }
    must(vsmp_finish(), "vsmp_finish");
    free(took);
    return 0;
}
