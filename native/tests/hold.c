// SPDX-License-Identifier: Apache-2.0
//
// hold SIZE_MB: fills a heap of that size, prints "ready", waits for the end of its input, verifies.
#include "check.h"

int main(int argc, char **argv) {
    const size_t words = (argc > 1 ? strtoul(argv[1], NULL, 10) : 64) << 17;
    uint64_t *memory = malloc(words * 8);
    check(memory != NULL, "malloc of %zu bytes", words * 8);
    for (size_t i = 0; i < words; i++) memory[i] = pattern(1, i);
    printf("ready\n");
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) continue;
    for (size_t i = 0; i < words; i++) check(memory[i] == pattern(1, i), "word %zu", i);
    return passed("hold");
}
