// SPDX-License-Identifier: Apache-2.0
//
// spmd-cross ROUNDS: all ranks add to one 64-bit word that lies across two pages, by a locked instruction, which needs both pages at
// once; and copy from one page to another by one instruction, both ways round. It must end, and the count must be exact.
#include <stdint.h>

#include "spmd.h"

int main(int argc, char **argv) {
    const uint64_t rounds = argc > 1 ? (uint64_t)atol(argv[1]) : 1000;
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach("cross", 4 << 20, &region) == 0);
    char *pages = vsmp_alloc_all(region, 4 * 4096, 4096);
    CHECK(pages != NULL);
    char *crossing = pages + 4096 - 4;
    CHECK(vsmp_barrier() == 0);
    const double begun = seconds_now();
    for (uint64_t i = 0; i < rounds; i++) {
        __asm__ volatile("lock addq $1, %0" : "+m"(*(uint64_t *)crossing) : : "cc", "memory");
        // Even ranks from the first page to the second, odd ranks the other way round.
        char *from = pages + 100 + (vsmp_rank() % 2 == 0 ? 0 : 4096), *to = pages + 200 + (vsmp_rank() % 2 == 0 ? 4096 : 0);
        __asm__ volatile("movsb" : "+S"(from), "+D"(to) : : "memory");
    }
    const double took = seconds_now() - begun;
    CHECK(vsmp_barrier() == 0);
    uint64_t sum;
    memcpy(&sum, crossing, sizeof sum);
    if (sum != rounds * (uint64_t)vsmp_size()) {
        fprintf(stderr, "check failed: rank %d: %lu adds are left of %lu\n", vsmp_rank(), sum, rounds * (uint64_t)vsmp_size());
        exit(3);
    }
    printf("rank %d: %lu rounds in %.1f s\n", vsmp_rank(), rounds, took);
    CHECK(vsmp_finish() == 0);
    return 0;
}
