// SPDX-License-Identifier: Apache-2.0
//
// heap-check SIZE_MB [SEED]: fills a heap of that size with small, medium and large blocks, verifies them in random order,
// frees, allocates anew, and checks that whatever Linux says reads zeros does.
#define _GNU_SOURCE
#include <malloc.h>
#include <sys/mman.h>
#include <time.h>

#include "check.h"

struct block {
    uint64_t *words;
    size_t count;
    uint64_t tag;
};

static size_t random_size(uint64_t *seed) {
    switch (next_random(seed) % 10) {
    case 0:
        return (next_random(seed) % (3u << 20)) + 8;
    case 1:
    case 2:
        return (next_random(seed) % (100u << 10)) + 8;
    default:
        return (next_random(seed) % 2000) + 8;
    }
}

static void fill(struct block *block, size_t bytes, uint64_t tag, bool zeroed) {
    block->words = zeroed ? calloc(1, bytes) : malloc(bytes);
    check(block->words != NULL, "malloc of %zu bytes", bytes);
    check(malloc_usable_size(block->words) >= bytes, "usable size of %zu bytes", bytes);
    block->count = bytes / 8;
    block->tag = tag;
    if (zeroed) check_zero(block->words, bytes, "calloc");
    for (size_t i = 0; i < block->count; i++) block->words[i] = pattern(tag, i);
}

static void verify(const struct block *block) {
    for (size_t i = 0; i < block->count; i++)
        check(block->words[i] == pattern(block->tag, i), "word %zu of block %lu", i, block->tag);
}

static void check_zeroing(size_t bytes) {
    char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(map != MAP_FAILED, "mmap of %zu bytes", bytes);
    check_zero(map, bytes, "a new mapping");
    memset(map, 0xa5, bytes);
    check(madvise(map, bytes / 2, MADV_DONTNEED) == 0, "MADV_DONTNEED");
    check_zero(map, bytes / 2, "after MADV_DONTNEED");
    check(map[bytes / 2] == (char)0xa5 && map[bytes - 1] == (char)0xa5, "what was not given up is there");
    memset(map, 0x5a, bytes / 2);
    check(mmap(map, bytes / 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == map, "MAP_FIXED");
    check_zero(map, bytes / 4, "after MAP_FIXED");
    check(map[bytes / 4] == 0x5a, "behind MAP_FIXED");
    check(munmap(map, bytes) == 0, "munmap");
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(map != MAP_FAILED, "mmap again");
    check_zero(map, bytes, "a mapping where another one was");
    check(munmap(map, bytes) == 0, "munmap again");
}

int main(int argc, char **argv) {
    const size_t megabytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 64;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
    printf("heap-check: %zu MB, seed %lu\n", megabytes, seed);
    fflush(stdout);

    size_t total = 0, count = 0, capacity = megabytes * 64 + 1024;
    struct block *blocks = calloc(capacity, sizeof *blocks);
    check(blocks != NULL, "calloc of the table");
    for (; total < megabytes << 20 && count < capacity; count++) {
        size_t bytes = random_size(&seed);
        fill(&blocks[count], bytes, count, next_random(&seed) % 4 == 0);
        total += bytes;
    }
    for (size_t i = 0; i < count; i++) {
        struct block *block = &blocks[next_random(&seed) % count];
        verify(block);
        if (next_random(&seed) % 2 == 0) {
            size_t bytes = random_size(&seed);
            if (next_random(&seed) % 4 == 0) {
                // Grown or shrunk: the common part stays.
                size_t kept = bytes / 8 < block->count ? bytes / 8 : block->count;
                block->words = realloc(block->words, bytes);
                check(block->words != NULL, "realloc");
                block->count = kept;
                verify(block);
            } else {
                free(block->words);
                fill(block, bytes, block->tag + count, next_random(&seed) % 4 == 0);
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        verify(&blocks[i]);
        free(blocks[i].words);
    }
    free(blocks);
    check_zeroing((megabytes << 20) / 4 / 4096 * 4096 + (4 << 20));
    return passed("heap-check");
}
