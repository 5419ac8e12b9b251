// SPDX-License-Identifier: Apache-2.0
//
// random SIZE_MB SECONDS [SEED]: reads and writes pages of a filled mapping at random; prints how long a touch took.
#include "touch.h"

int main(int argc, char **argv) {
    const size_t pages = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) * 256;
    const double seconds = argc > 2 ? strtod(argv[2], NULL) : 1;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : now_nanoseconds();
    printf("random: seed %lu\n", seed);
    volatile uint64_t *words = mmap(NULL, pages * TOUCH_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(words != MAP_FAILED, "mmap of %zu pages", pages);
    for (size_t page = 0; page < pages; page++) words[page * 512 + page % 512] = pattern(page, 0);

    // The word names its page and how often it was written: word page % 512 holds pattern(page, writes), the next one writes.
    struct touches touches = touches_open(1 << 20);
    const uint64_t end = now_nanoseconds() + (uint64_t)(seconds * 1e9);
    while (now_nanoseconds() < end) {
        const size_t page = next_random(&seed) % pages, at = page * 512 + page % 512, counter = page * 512 + (page + 1) % 512;
        const uint64_t start = now_nanoseconds(), value = words[at];
        touches_add(&touches, now_nanoseconds() - start);
        check(value == pattern(page, words[counter]), "page %zu", page);
        if (next_random(&seed) % 2 == 0) {
            words[counter]++;
            words[at] = pattern(page, words[counter]);
        }
    }
    touches_print(&touches, "random");
    return passed("random");
}
