// SPDX-License-Identifier: Apache-2.0
//
// remap-check [SIZE_MB]: mmap, munmap, mprotect, mremap, madvise and mlock on large private mappings, whole and in part, with
// files mapped into them, as programs and language runtimes do.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "check.h"

#define PAGE 4096ul
static size_t bytes;

static char *map(size_t length, int protection, int flags) {
    char *result = mmap(NULL, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    check(result != MAP_FAILED, "mmap of %zu bytes", length);
    return result;
}

static char *map_readable(size_t length) { return map(length, PROT_READ | PROT_WRITE, 0); }

static void fill(char *at, size_t length, uint64_t tag) {
    for (size_t i = 0; i < length / 8; i++) ((uint64_t *)(void *)at)[i] = pattern(tag, i);
}

static void verify(const char *at, size_t length, uint64_t tag, const char *what) {
    for (size_t i = 0; i < length / 8; i++)
        check(((const uint64_t *)(const void *)at)[i] == pattern(tag, i), "%s: word %zu", what, i);
}

static bool is_mapped(char *page) {
    unsigned char in_core;
    return mincore(page, PAGE, &in_core) == 0;
}

static void check_unmapping(void) {
    char *at = map_readable(bytes);
    fill(at, bytes, 1);
    check(munmap(at + bytes / 4, bytes / 2) == 0, "munmap of the middle");
    verify(at, bytes / 4, 1, "before the hole");
    for (size_t i = bytes * 3 / 4 / 8; i < bytes / 8; i++)
        check(((uint64_t *)(void *)at)[i] == pattern(1, i), "behind the hole: word %zu", i);
    check(munmap(at + bytes / 4, bytes / 2) == 0, "munmap of the hole");
    check(mprotect(at + bytes / 4, PAGE, PROT_READ) == -1 && errno == ENOMEM, "mprotect of the hole");
    check(munmap(at, bytes) == 0, "munmap of all");
    at = map_readable(bytes);
    check_zero(at, bytes, "a new mapping");
    check(munmap(at, bytes) == 0, "munmap");
}

static void check_protection(void) {
    char *at = map(4 * bytes, PROT_NONE, MAP_NORESERVE);
    check(mprotect(at + bytes, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect of a reserved range");
    check_zero(at + bytes, bytes, "a reserved range made accessible");
    fill(at + bytes, bytes, 2);
    check(mprotect(at + bytes, bytes, PROT_NONE) == 0, "mprotect to nothing");
    check(mprotect(at + bytes, bytes, PROT_READ) == 0, "mprotect to read");
    verify(at + bytes, bytes, 2, "after mprotect to nothing and back");
    check(mprotect(at + bytes, bytes, PROT_NONE) == 0, "mprotect to nothing");
    check(madvise(at + bytes, bytes, MADV_DONTNEED) == 0, "DONTNEED without access");
    check(mprotect(at, 4 * bytes, PROT_READ | PROT_WRITE) == 0, "mprotect of all");
    check_zero(at, 4 * bytes, "after DONTNEED without access");
    fill(at, bytes, 3);
    check(mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == at, "decommit");
    check(mprotect(at, bytes, PROT_READ) == 0, "mprotect after decommit");
    check_zero(at, bytes, "after decommit");
    check(munmap(at, 4 * bytes) == 0, "munmap");
}

static void check_code(void) {
    char *at = map(bytes, PROT_NONE, MAP_NORESERVE);
    check(mprotect(at + bytes / 2, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0, "mprotect to execute");
    memcpy(at + bytes / 2, "\xb8\x2a\x00\x00\x00\xc3", 6); // mov eax, 42; ret
    int (*function)(void);
    *(void **)(void *)&function = at + bytes / 2;
    check(function() == 42, "code in a reserved range");
    check(munmap(at, bytes) == 0, "munmap");
    at = map_readable(bytes);
    check_zero(at, bytes, "where code was");
    check(munmap(at, bytes) == 0, "munmap");
}

static void check_files(void) {
    char name[] = "/tmp/remap-check-XXXXXX";
    int fd = mkstemp(name);
    check(fd >= 0 && unlink(name) == 0, "a temporary file");
    char *text = malloc(16 * PAGE);
    memset(text, 'f', 16 * PAGE);
    check(write(fd, text, 16 * PAGE) == (ssize_t)(16 * PAGE), "write");

    char *at = map_readable(bytes);
    fill(at, bytes, 4);
    char *middle = at + bytes / 2;
    check(mmap(middle, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == middle, "a file mapped into it");
    check(memcmp(middle, text, 16 * PAGE) == 0, "the file's contents");
    middle[5] = 'g';
    check(pread(fd, text, 16, 0) == 16 && text[5] == 'g', "the file is shared");
    check(mprotect(middle, 16 * PAGE, PROT_READ) == 0 && madvise(middle, 16 * PAGE, MADV_DONTNEED) == 0, "calls on the file");
    check(middle[5] == 'g', "a file loses nothing to DONTNEED");
    verify(at, bytes / 2, 4, "before the file");
    check(munmap(middle + 8 * PAGE, 8 * PAGE) == 0, "munmap of half the file");
    check(!is_mapped(middle + 8 * PAGE) || mprotect(middle + 8 * PAGE, PAGE, PROT_READ) == -1, "it is gone");
    check(mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at, "memory over all of it");
    check_zero(at, bytes, "memory over a file");
    fill(at, bytes, 5);
    verify(at, bytes, 5, "where a file was");
    check(mmap(middle, 16 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, -1, 0) == MAP_FAILED && errno == EBADF, "no file");
    verify(at, bytes, 5, "where a file could not be mapped");
    check(pread(fd, text, 16, 0) == 16 && text[5] == 'g', "the file is what it was");
    check(munmap(at, bytes) == 0, "munmap");
    check(mmap(at, 16 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0) == at, "a file where nothing is");
    check(mmap(at, 16 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0) == MAP_FAILED && errno == EEXIST, "twice");
    check(at[5] == 'g', "the file's contents");
    check(munmap(at, 16 * PAGE) == 0, "munmap");
    free(text);
    close(fd);
}

static void check_growing(void) {
    char *at = map_readable(bytes), *wall = NULL;
    fill(at, bytes, 6);
    for (int moved = 0; moved < 2; moved++) {
        at = mremap(at, bytes, 3 * bytes, MREMAP_MAYMOVE);
        check(at != MAP_FAILED, "mremap to three times the size");
        verify(at, bytes, 6, "after growing");
        check_zero(at + bytes, 2 * bytes, "what was added");
        memset(at + bytes, 1, 2 * bytes);
        check(mremap(at, 3 * bytes, bytes, 0) == at, "shrinking");
        verify(at, bytes, 6, "after shrinking");
        // Something behind it: the next time it has to move.
        wall = mmap(at + bytes, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        check(wall != MAP_FAILED || errno == EEXIST, "a page behind it");
        check(mremap(at, bytes, 3 * bytes, 0) == MAP_FAILED && errno == ENOMEM, "no room to grow in place");
    }
    check(munmap(at, bytes) == 0, "munmap");

    // From small beginnings, as some programs grow an array: the contents come along, wherever they go.
    at = map_readable(1 << 16);
    fill(at, 1 << 16, 7);
    for (size_t size = 1 << 16; size < 2 * bytes; size *= 2) {
        at = mremap(at, size, 2 * size, MREMAP_MAYMOVE);
        check(at != MAP_FAILED, "mremap to %zu bytes", 2 * size);
        verify(at, 1 << 16, 7, "after growing again");
        check_zero(at + size, size, "what was added");
    }
}

static void check_advice(void) {
    char *at = map_readable(bytes);
    const int harmless[] = {MADV_NORMAL,   MADV_RANDOM,   MADV_SEQUENTIAL,
                            MADV_WILLNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
                            MADV_DONTDUMP, MADV_DODUMP,   20 /* COLD */};
    fill(at, bytes, 8);
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        check(madvise(at, bytes, harmless[i]) == 0, "advice %d: %s", harmless[i], strerror(errno));
    check(mlock(at, bytes) == 0 && munlock(at, bytes) == 0, "mlock");
    check(posix_madvise(at, bytes, POSIX_MADV_DONTNEED) == 0, "posix_madvise");
    verify(at, bytes, 8, "harmless advice");
    check(madvise(at, bytes / 2, MADV_DONTNEED) == 0, "MADV_DONTNEED");
    check_zero(at, bytes / 2, "after MADV_DONTNEED");
    check(madvise(at, PAGE, 23 /* POPULATE_WRITE */) == 0, "MADV_POPULATE_WRITE");
    check(madvise(at + 1, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL, "an address within a page");
    check(munmap(at, bytes) == 0, "munmap");
}

static void check_descriptors(void) {
    closefrom(3);
    check(close_range(3, ~0u, 0) == 0, "close_range");
    for (int fd = 3; fd < 1024; fd++) close(fd);
    int copy = dup2(STDERR_FILENO, 20);
    check(copy == 20 && close(20) == 0, "dup2");
    for (int fd = 800; fd < 1000; fd++)
        if (dup2(STDERR_FILENO, fd) == fd) close(fd);
    char *at = map_readable(bytes);
    fill(at, bytes, 9);
    verify(at, bytes, 9, "with every descriptor closed");
    check(munmap(at, bytes) == 0, "munmap");
}

int main(int argc, char **argv) {
    bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 24) << 20;
    check_unmapping();
    check_protection();
    check_code();
    check_files();
    check_growing();
    check_advice();
    check_descriptors();
    check(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL, "mmap of nothing");
    check(mmap(NULL, ~0ul - 100, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM,
          "mmap of everything");
    return passed("remap-check");
}
