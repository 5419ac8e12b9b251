// SPDX-License-Identifier: Apache-2.0
//
// sequential SIZE_MB: writes a mapping page by page, reads it back in the same order; prints how long a touch took.
#include "touch.h"

int main(int argc, char **argv) {
    const size_t pages = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) * 256;
    volatile uint64_t *words = mmap(NULL, pages * TOUCH_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(words != MAP_FAILED, "mmap of %zu pages", pages);
    struct touches writes = touches_open(pages), reads = touches_open(pages);
    for (size_t page = 0; page < pages; page++) {
        const uint64_t start = now_nanoseconds();
        words[page * 512] = pattern(1, page);
        touches_add(&writes, now_nanoseconds() - start);
        words[page * 512 + 511] = pattern(2, page);
    }
    for (size_t page = 0; page < pages; page++) {
        const uint64_t start = now_nanoseconds(), first = words[page * 512];
        touches_add(&reads, now_nanoseconds() - start);
        check(first == pattern(1, page) && words[page * 512 + 511] == pattern(2, page), "page %zu", page);
    }
    touches_print(&writes, "sequential write");
    touches_print(&reads, "sequential read");
    return passed("sequential");
}
