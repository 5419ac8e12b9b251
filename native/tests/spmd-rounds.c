// SPDX-License-Identifier: Apache-2.0
//
// spmd-rounds MEGABYTES: in each round every page is written by another rank than in the last, and read back by all. It goes on until the
// end of rank 0's input; each page must always be what its writer of the round made of it.
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

#include "spmd.h"

enum { WORDS = 512 };

static int input_has_ended(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, &byte, 1) == 0;
}

int main(int argc, char **argv) {
    const size_t bytes = (size_t)(argc > 1 ? atol(argv[1]) : 8) << 20;
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach("rounds", bytes, &region) == 0);
    uint64_t *words = vsmp_base(region);
    const size_t count = bytes / 4096, rank = (size_t)vsmp_rank(), size = (size_t)vsmp_size();
    uint64_t round = 0;
    for (int last = 0; !last; round++) {
        for (size_t page = 0; page < count; page++) {
            if ((page + round) % size != rank) continue;
            uint64_t *at = words + page * WORDS;
            CHECK(at[0] == (round == 0 ? 0 : page * 1000003 + round) && at[WORDS - 1] == at[0]);
            at[0] = at[WORDS - 1] = page * 1000003 + round + 1;
        }
        CHECK(vsmp_barrier() == 0);
        for (size_t page = 0; page < count; page++) {
            const uint64_t *at = words + page * WORDS, expected = page * 1000003 + round + 1;
            CHECK(at[0] == expected && at[WORDS - 1] == expected);
        }
        if (rank == 0 && round == 0) {
            printf("ready\n");
            fflush(stdout);
        }
        if (rank == 0) last = input_has_ended();
        CHECK(vsmp_broadcast(&last, sizeof last, 0) == 0);
    }
    if (rank == 0) printf("exact: %lu rounds\n", round);
    CHECK(vsmp_finish() == 0);
    return 0;
}
