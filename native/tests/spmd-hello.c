// SPDX-License-Identifier: Apache-2.0
//
// A rank: joins, attaches a region, counts on it by plain atomic instructions and by calls, and checks what comes out.
#include "spmd.h"

int main(int argc, char **argv) {
    const long rounds = argc > 1 ? atol(argv[1]) : 100;
    struct vsmp_region *region;
    CHECK(vsmp_version() == VSMP_API_VERSION);
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach(NULL, 8 << 20, &region) == 0);
    CHECK(vsmp_base(region) != NULL && vsmp_bytes(region) == 8 << 20);
    long *sum = vsmp_alloc_all(region, sizeof *sum, 64);
    CHECK(sum != NULL && *sum == 0);
    CHECK(vsmp_barrier() == 0);
    for (long i = 0; i < rounds; i++) __atomic_fetch_add(sum, vsmp_rank() + 1, __ATOMIC_SEQ_CST);
    CHECK(vsmp_barrier() == 0);
    const long n = vsmp_size();
    CHECK(*sum == rounds * n * (n + 1) / 2);

    // Under a lock, a plain variable counts as well.
    long *plain = vsmp_alloc_all(region, sizeof *plain, 4096);
    CHECK(plain != NULL);
    for (long i = 0; i < rounds; i++) {
        CHECK(vsmp_lock(7) == 0);
        *plain += 1;
        CHECK(vsmp_unlock(7) == 0);
        CHECK(vsmp_fetch_add(3, 2, NULL) == 0);
    }
    CHECK(vsmp_barrier() == 0);
    CHECK(*plain == rounds * n);
    int64_t counted;
    CHECK(vsmp_fetch_add(3, 0, &counted) == 0 && counted == 2 * rounds * n);

    // What one gave back, all get zeroed.
    CHECK(vsmp_barrier() == 0); // all have read what one now gives back
    if (vsmp_rank() == 0) CHECK(vsmp_free(region, plain) == 0);
    CHECK(vsmp_barrier() == 0);
    long *again = vsmp_alloc_all(region, sizeof *again, 4096);
    CHECK(again == plain && *again == 0);
    CHECK(vsmp_barrier() == 0);
    long *mine = vsmp_alloc(region, 100, 0);
    CHECK(mine != NULL && mine != again);
    CHECK(vsmp_free(region, (char *)mine + 16) != 0 && strstr(vsmp_error(), "not the start") != NULL);
    CHECK(vsmp_free(region, mine) == 0);

    static char text[50000];
    const int root = (int)(n - 1);
    if (vsmp_rank() == root) memset(text, 'x', sizeof text);
    CHECK(vsmp_broadcast(text, sizeof text, root) == 0);
    CHECK(text[0] == 'x' && text[sizeof text - 1] == 'x');
    CHECK(vsmp_acquire(region) == 0 && vsmp_release(region) == 0);
    CHECK(vsmp_unlock(7) != 0);
    printf("rank %d of %ld: %ld at %p, %s\n", vsmp_rank(), n, *sum, (void *)sum, vsmp_protocol(region));
    fflush(stdout);
    CHECK(vsmp_detach(region) == 0);
    CHECK(vsmp_finish() == 0);
    return 0;
}
