// SPDX-License-Identifier: Apache-2.0
//
// spmd-die WHERE: rank 1 dies by SIGKILL inside a lock, inside a barrier, or before it joins; the others say what their calls return.
//   lock      rank 1 holds a lock that rank 0 waits for
//   barrier   rank 1 is in a barrier with rank 0; rank 2 is not, yet
//   start     rank 1 never joins
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "spmd.h"

static void *die_soon(void *unused) {
    (void)unused;
    usleep(200000);
    raise(SIGKILL);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc > 1);
    const char *where = argv[1];
    const int rank = vsmp_rank();
    if (strcmp(where, "start") == 0) {
        if (rank == 1) raise(SIGKILL);
        const int error = vsmp_start();
        printf("rank %d: start: %s: %s\n", rank, strerrorname_np(error), vsmp_error());
        return 0;
    }
    struct vsmp_region *region;
    CHECK(vsmp_start() == 0);
    CHECK(vsmp_attach("die", 2 << 20, &region) == 0);
    long *word = vsmp_base(region);
    if (strcmp(where, "lock") == 0) {
        if (rank == 1) CHECK(vsmp_lock(5) == 0);
        CHECK(vsmp_barrier() == 0);
        if (rank == 1) {
            *word = 42;
            usleep(200000); // the others wait for the lock by then, or ask for it later: both must end
            raise(SIGKILL);
        }
        int error = vsmp_lock(5);
        printf("rank %d: lock: %s: %s\n", rank, error == 0 ? "0" : strerrorname_np(error), vsmp_error());
        CHECK(error == EOWNERDEAD || error == 0);
        CHECK(*word >= 42); // what it wrote is not lost with it
        __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
        CHECK(vsmp_unlock(5) == 0);
    } else {
        pthread_t thread;
        if (rank == 1) CHECK(pthread_create(&thread, NULL, die_soon, NULL) == 0);
        if (rank == 2) usleep(500000);
    }
    const int error = vsmp_barrier();
    printf("rank %d: barrier: %s: %s\n", rank, error == 0 ? "0" : strerrorname_np(error), vsmp_error());
    return 0;
}
