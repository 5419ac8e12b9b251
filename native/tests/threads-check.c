// SPDX-License-Identifier: Apache-2.0
//
// threads-check [THREADS [SIZE_MB]]: threads allocate, hand blocks to each other, verify and free; some map and unmap; one forks
// now and then, while the others hold whatever locks they hold.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "check.h"

enum { SLOTS = 4096, ROUNDS = 30000 };

struct block {
    size_t count;
    uint64_t tag;
    uint64_t words[];
};

static _Atomic(struct block *) slots[SLOTS];
static size_t average;
static atomic_bool stopping;

static struct block *make(uint64_t *seed) {
    const size_t size = sizeof(struct block) + next_random(seed) % (2 * average) + 8;
    struct block *block = malloc(size);
    check(block != NULL, "malloc of %zu bytes", size);
    block->count = (size - sizeof *block) / 8;
    block->tag = next_random(seed);
    for (size_t i = 0; i < block->count; i++) block->words[i] = pattern(block->tag, i);
    return block;
}

static void end(struct block *block) {
    if (block == NULL) return;
    for (size_t i = 0; i < block->count; i++)
        check(block->words[i] == pattern(block->tag, i), "word %zu of a block of %zu", i, block->count);
    free(block);
}

static void map_and_unmap(uint64_t *seed) {
    const size_t bytes = ((next_random(seed) % 1024) + 256) * 4096;
    unsigned char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(map != MAP_FAILED, "mmap of %zu bytes", bytes);
    for (size_t i = 0; i < bytes; i += 16384) {
        check(map[i] == 0, "byte %zu of a new mapping", i);
        map[i] = 0xee;
    }
    check(munmap(map, bytes) == 0, "munmap");
}

static void *work(void *argument) {
    uint64_t seed = (uintptr_t)argument;
    for (unsigned round = 0; round < ROUNDS; round++) {
        end(atomic_exchange(&slots[next_random(&seed) % SLOTS], make(&seed)));
        if (round % 512 == 0) map_and_unmap(&seed);
    }
    return NULL;
}

static void *fork_now_and_then(void *unused) {
    (void)unused;
    while (!stopping) {
        pid_t child = fork();
        if (child == 0) {
            void *block = malloc(10000);
            memset(block, 1, 10000);
            free(block);
            _exit(3);
        }
        int status;
        check(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3,
              "a child forked beside busy threads");
        usleep(2000);
    }
    return NULL;
}

int main(int argc, char **argv) {
    const unsigned threads = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 6;
    average = ((argc > 2 ? strtoul(argv[2], NULL, 10) : 48) << 20) / SLOTS;
    pthread_t workers[64], forker;
    check(threads <= 64, "at most 64 threads");
    check(pthread_create(&forker, NULL, fork_now_and_then, NULL) == 0, "pthread_create");
    for (unsigned i = 0; i < threads; i++)
        check(pthread_create(&workers[i], NULL, work, (void *)(uintptr_t)(i + 1)) == 0, "pthread_create");
    for (unsigned i = 0; i < threads; i++) pthread_join(workers[i], NULL);
    stopping = true;
    pthread_join(forker, NULL);
    for (unsigned i = 0; i < SLOTS; i++) end(slots[i]);
    return passed("threads-check");
}
