// SPDX-License-Identifier: Apache-2.0
//
// spmd-hold MEGABYTES [again]: all ranks write and read a region, rank 0 says "ready" and waits for the end of its input; the others wait
// in a barrier. With "again" the last rank then reads it once more.
#include <stdint.h>
#include <unistd.h>

#include "spmd.h"

int main(int argc, char **argv) {
    const size_t bytes = (size_t)(argc > 1 ? atol(argv[1]) : 8) << 20;
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach("hold", bytes, &region) == 0);
    uint64_t *words = vsmp_base(region);
    const size_t count = bytes / 4096, rank = (size_t)vsmp_rank(), size = (size_t)vsmp_size();
    for (size_t page = rank; page < count; page += size) words[page * 512] = page + 1;
    CHECK(vsmp_barrier() == 0);
    for (size_t page = 0; page < count; page++) CHECK(words[page * 512] == page + 1);
    CHECK(vsmp_barrier() == 0);
    if (rank == 0) {
        char byte;
        printf("ready\n");
        fflush(stdout);
        while (read(STDIN_FILENO, &byte, 1) > 0) {}
    }
    CHECK(vsmp_barrier() == 0);
    if (argc > 2 && rank + 1 == size) {
        for (size_t page = 0; page < count; page++) CHECK(words[page * 512] == page + 1);
    }
    CHECK(vsmp_finish() == 0);
    return 0;
}
