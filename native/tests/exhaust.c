// SPDX-License-Identifier: Apache-2.0
//
// exhaust [CHUNK_MB [MAX_MB]]: takes memory until malloc says no, then mmap, and checks that what it got stays usable, that some
// can be given back and had again, and that small allocations go on where there is room.
#include <errno.h>
#include <sys/mman.h>

#include "check.h"

enum { MAX_CHUNKS = 65536 };
static uint64_t *chunks[MAX_CHUNKS];
static size_t words;

static bool take(size_t i) {
    chunks[i] = malloc(words * 8);
    if (chunks[i] == NULL) return false;
    for (size_t w = 0; w < words; w++) chunks[i][w] = pattern(i, w);
    return true;
}

static void verify(size_t i) {
    for (size_t w = 0; w < words; w++) check(chunks[i][w] == pattern(i, w), "word %zu of chunk %zu", w, i);
}

int main(int argc, char **argv) {
    const size_t megabytes = argc > 1 ? strtoul(argv[1], NULL, 10) : 4;
    const size_t most = argc > 2 ? strtoul(argv[2], NULL, 10) : 65536;
    words = (megabytes << 20) / 8 - 512;
    size_t count = 0;
    while (count < MAX_CHUNKS && count * megabytes < most && take(count)) count++;
    check(count * megabytes < most, "memory ends before %zu MB", most);
    check(errno == ENOMEM, "errno is ENOMEM, not %d", errno);
    // More than may be left over, in pieces, of what the agent already set aside.
    const size_t bytes = (megabytes > 16 ? megabytes : 16) << 20;
    check(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM,
          "mmap, too, fails with ENOMEM");
    void *reserved = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(reserved != MAP_FAILED, "address space is not memory");
    check(mprotect(reserved, bytes, PROT_READ | PROT_WRITE) == -1 && errno == ENOMEM, "but making it accessible fails");
    check(munmap(reserved, bytes) == 0, "munmap");
    printf("exhaust: got %zu MB\n", count * megabytes);

    for (size_t i = 0; i < count; i++) verify(i);
    if (count > 4) {
        for (size_t i = 0; i < 4; i++) free(chunks[i]);
        for (size_t i = 0; i < 2; i++) check(take(i), "what was freed can be had again");
        for (size_t i = 4; i < count; i++) verify(i);
    }
    return passed("exhaust");
}
