// SPDX-License-Identifier: Apache-2.0
//
// What the guest test programs share. Each verifies its own memory, prints one line when all is well, and exits with 1 on the
// first thing that is not.
#ifndef VSMP_TESTS_CHECK_H
#define VSMP_TESTS_CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((format(printf, 2, 3))) static inline void check(bool condition, const char *format, ...) {
    if (__builtin_expect(condition, 1)) return;
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(STDOUT_FILENO, "FAILED: %s\n", text);
    _exit(1);
}

static inline uint64_t next_random(uint64_t *state) // splitmix64
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// What a word of a tagged range must hold: never zero, different everywhere.
static inline uint64_t pattern(uint64_t tag, uint64_t index) { return ((tag + 1) << 40) ^ (index * 0x9e3779b97f4a7c15ull) ^ 1; }

static inline void check_zero(const void *memory, size_t bytes, const char *what) {
    const unsigned char *byte = memory;
    for (size_t i = 0; i < bytes; i++)
        if (byte[i] != 0) check(false, "%s: byte %zu of %zu is %02x, not zero", what, i, bytes, byte[i]);
}

static inline int passed(const char *name) {
    printf("%s: ok\n", name);
    return fflush(stdout) == 0 ? 0 : 1;
}

#endif
