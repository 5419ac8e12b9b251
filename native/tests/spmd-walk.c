// SPDX-License-Identifier: Apache-2.0
//
// spmd-walk MEGABYTES: one rank after the other adds to a word of every page of a region. With less memory than that for copies, each
// must give pages back on its way.
#include <stdint.h>

#include "spmd.h"

int main(int argc, char **argv) {
    const size_t bytes = (argc > 1 ? (size_t)atol(argv[1]) : 16) << 20;
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach("walk", bytes, &region) == 0);
    char *memory = vsmp_base(region);
    for (int turn = 0; turn < vsmp_size(); turn++) {
        for (size_t at = 0; turn == vsmp_rank() && at < bytes; at += 4096) {
            uint64_t *word = (uint64_t *)(memory + at);
            CHECK(*word == (uint64_t)turn);
            *word = (uint64_t)turn + 1;
        }
        CHECK(vsmp_barrier() == 0);
    }
    CHECK(vsmp_finish() == 0);
    return 0;
}
