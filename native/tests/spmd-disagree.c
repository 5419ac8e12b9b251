// SPDX-License-Identifier: Apache-2.0
//
// spmd-disagree WHAT: the last rank asks for something else than the others; all of them must be told.
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "spmd.h"

int main(int argc, char **argv) {
    CHECK(argc > 1); // name, size, call, room, address
    const char *what = argv[1];
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    const int rank = vsmp_rank(), is_other = rank == vsmp_size() - 1;
    int error;
    if (strcmp(what, "name") == 0) {
        error = vsmp_attach(is_other ? "b" : "a", 4 << 20, &region);
    } else if (strcmp(what, "size") == 0) {
        error = vsmp_attach("a", is_other ? 4 << 20 : 8 << 20, &region);
    } else if (strcmp(what, "call") == 0) {
        error = is_other ? vsmp_barrier() : vsmp_attach("a", 4 << 20, &region);
    } else if (strcmp(what, "room") == 0) {
        error = vsmp_attach("a", (size_t)1 << 44, &region);
    } else {
        // In one rank something lies where the next region is to be: behind the first, and a guard.
        CHECK(vsmp_attach("first", 4 << 20, &region) == 0);
        char *next = (char *)vsmp_base(region) + (6 << 20);
        if (is_other) CHECK(mmap(next, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == next);
        error = vsmp_attach("a", 4 << 20, &region);
    }
    printf("rank %d: %s: %s\n", rank, strerrorname_np(error), vsmp_error());
    // A job whose ranks were told goes on.
    CHECK(vsmp_attach("again", 4 << 20, &region) == 0);
    *((volatile long *)vsmp_base(region) + rank) = rank;
    CHECK(vsmp_finish() == 0);
    return 0;
}
