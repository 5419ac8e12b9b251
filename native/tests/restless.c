// SPDX-License-Identifier: Apache-2.0
//
// restless MEBIBYTES [THREADS]: works on pooled memory in all ways at once, verifies whatever it reads, and looks at how long it had to wait.
//
//   walkers   each owns some words of every page, so that all of them fault on the same pages: they go to one page after another, at random,
//             verify their words, and mostly write others
//   churner   allocates, maps, discards, frees; has the kernel read and write pooled memory
//   forker    has children that have nothing of the pool, and some that take up 18 MiB of their own
//
// A word says of which page, walker and round it is, so that zeros, what was there before, and what belongs elsewhere are told apart. For each line on
// standard input it prints, for the time since the line before:
//
//     longest time for one step of anybody in nanoseconds; steps; children; longest time that somebody is at one step by now
//
// where a step that is not over counts as far as it has come. At the end of the input all stop, everything is verified once more, and a line says so.
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"

#define PAGE 4096ul
#define WORDS (PAGE / 8)

enum { WALKERS_MAX = 6, PAGES_MAX = 1 << 17, SLOTS = 64, CHILD_BYTES = 18 << 20, AGAIN_MILLISECONDS = 200 };

// In none of the memory that is pooled.
static uint32_t rounds[WALKERS_MAX][PAGES_MAX];
static struct worker {
    atomic_ullong since; // it began this step; 0: it does nothing
    atomic_ullong steps;
    uint64_t random;
} workers[WALKERS_MAX + 2];
static _Thread_local struct worker *self;
static atomic_ullong longest, children;
static atomic_bool is_over;
static uint64_t *memory;
static uint64_t page_count;
static unsigned walker_count;

static uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

// ---- steps

static void note(uint64_t time) {
    unsigned long long most = atomic_load(&longest);
    while (time > most && !atomic_compare_exchange_weak(&longest, &most, time)) continue;
}

// A step is about as long as one page takes.
static void next_page(void) {
    const uint64_t now = nanoseconds(), since = atomic_exchange(&self->since, now);
    if (since != 0) note(now - since);
    atomic_fetch_add(&self->steps, 1);
}

static void rest(void) {
    const uint64_t since = atomic_exchange(&self->since, 0);
    if (since != 0) note(nanoseconds() - since);
}

static void take_a_nap(long milliseconds) {
    const struct timespec pause = {.tv_nsec = milliseconds * 1000000};
    rest();
    nanosleep(&pause, NULL);
}

static bool goes_on(void) {
    next_page();
    if (!atomic_load(&is_over)) return true;
    rest();
    return false;
}

// ---- walkers

// a │ walker 3 │ page 24 │ round 24 │ word 9
static uint64_t word_of(unsigned walker, uint64_t page, uint32_t round, unsigned word) {
    return 0xaull << 60 | (uint64_t)walker << 57 | page << 33 | (uint64_t)(round & 0xffffff) << 9 | word;
}

static void __attribute__((noreturn, noinline)) fail_at(const uint64_t *at, uint64_t seen, uint64_t expected) {
    char what[160];
    const uint64_t page = seen >> 33 & 0xffffff, round = seen >> 9 & 0xffffff;
    if (seen == 0)
        snprintf(what, sizeof what, "zero");
    else if ((seen ^ expected) >> 33 == 0 && ((seen ^ expected) & 0x1ff) == 0)
        snprintf(what, sizeof what, "stale: round %" PRIu64 " instead of %" PRIu64, round, expected >> 9 & 0xffffff);
    else
        snprintf(what, sizeof what, "%#" PRIx64 ", a word %" PRIu64 " of page %" PRIu64 ", walker %" PRIu64 ", round %" PRIu64,
                 seen, seen & 0x1ff, page, seen >> 57 & 7, round);
    unsigned zeros = 0;
    const uint64_t *first = (const uint64_t *)((uintptr_t)at & ~(PAGE - 1));
    for (unsigned i = 0; i < WORDS; i++) zeros += first[i] == 0;
    struct timespec pause = {.tv_nsec = AGAIN_MILLISECONDS * 1000000l};
    nanosleep(&pause, NULL);
    const uint64_t again = *(const volatile uint64_t *)at;
    check(false,
          "word %" PRIu64 " of page %" PRIu64 " at %p is %s (%u words of the page are zero); %d ms later it is %s (%#" PRIx64 ")",
          (uint64_t)(at - first), (uint64_t)(first - memory) / WORDS, (const void *)at, what, zeros, AGAIN_MILLISECONDS,
          again == expected ? "right"
          : again == seen   ? "the same"
                            : "another",
          again);
    abort();
}

static void verify(unsigned walker, uint64_t page) {
    const volatile uint64_t *words = memory + page * WORDS;
    for (unsigned i = walker; i < WORDS; i += walker_count) {
        const uint64_t expected = word_of(walker, page, rounds[walker][page], i), seen = words[i];
        if (seen != expected) fail_at((const uint64_t *)&words[i], seen, expected);
    }
}

static void overwrite(unsigned walker, uint64_t page) {
    const uint32_t round = ++rounds[walker][page];
    for (unsigned i = walker; i < WORDS; i += walker_count) memory[page * WORDS + i] = word_of(walker, page, round, i);
}

static void *walk(void *argument) {
    const unsigned walker = (unsigned)(uintptr_t)argument;
    self = &workers[walker];
    while (goes_on()) {
        const uint64_t random = next_random(&self->random), page = random % page_count;
        verify(walker, page);
        if (random >> 62 != 0) overwrite(walker, page);
    }
    return NULL;
}

// ---- churner

struct block {
    uint64_t *words;
    size_t count;
    uint64_t tag;
    bool is_mapped;
};

static void fill(uint64_t *words, size_t count, uint64_t tag) {
    for (size_t i = 0; i < count; i++) {
        if (i % WORDS == 0) next_page();
        words[i] = pattern(tag, i);
    }
}

static void verify_block(const uint64_t *words, size_t count, uint64_t tag) {
    for (size_t i = 0; i < count; i++) {
        if (i % WORDS == 0) next_page();
        if (words[i] != pattern(tag, i))
            check(false, "word %zu of %zu of block %#" PRIx64 " at %p is %#" PRIx64, i, count, tag, (const void *)(words + i),
                  words[i]);
    }
}

static void verify_zeros(const uint64_t *words, size_t count, const char *what) {
    for (size_t i = 0; i < count; i += WORDS) {
        next_page();
        check_zero(words + i, PAGE, what);
    }
}

static void give_back(struct block *block) {
    if (block->words == NULL) return;
    verify_block(block->words, block->count, block->tag);
    if (block->is_mapped)
        check(munmap(block->words, block->count * 8) == 0, "munmap: %s", strerror(errno));
    else
        free(block->words);
    block->words = NULL;
}

static void take(struct block *block, uint64_t *random) {
    block->count = (next_random(random) % 96 + 1) * WORDS;
    block->tag = next_random(random) & 0xfffff;
    block->is_mapped = next_random(random) % 4 == 0;
    if (block->is_mapped) {
        block->count += 2 * (1 << 20) / 8; // small mappings are not pooled
        block->words = mmap(NULL, block->count * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(block->words != MAP_FAILED, "mmap of %zu bytes: %s", block->count * 8, strerror(errno));
        verify_zeros(block->words, block->count, "a new mapping");
    } else {
        block->words = malloc(block->count * 8);
        check(block->words != NULL, "malloc of %zu bytes", block->count * 8);
    }
    fill(block->words, block->count, block->tag);
}

// What was discarded reads zeros, and not what was there.
static void discard(struct block *block) {
    if (block->words == NULL || !block->is_mapped) return;
    check(madvise(block->words, block->count * 8, MADV_DONTNEED) == 0, "madvise: %s", strerror(errno));
    verify_zeros(block->words, block->count, "what was discarded");
    fill(block->words, block->count, ++block->tag);
}

// The kernel faults on them, too.
static void through_kernel(const struct block *from, struct block *to, int file) {
    if (from->words == NULL || to->words == NULL || from == to) return;
    const size_t count = from->count < to->count ? from->count : to->count, bytes = count * 8;
    verify_block(to->words, to->count, to->tag);
    for (size_t done = 0; done < bytes;) {
        next_page();
        const ssize_t written = pwrite(file, (const char *)from->words + done, PAGE, (off_t)done);
        check(written > 0, "write from %p: %s", (const void *)((const char *)from->words + done), strerror(errno));
        done += (size_t)written;
    }
    for (size_t done = 0; done < bytes;) {
        next_page();
        const ssize_t got = pread(file, (char *)to->words + done, PAGE, (off_t)done);
        check(got > 0, "read to %p: %s", (const void *)((char *)to->words + done), strerror(errno));
        done += (size_t)got;
    }
    verify_block(to->words, count, from->tag);
    fill(to->words, to->count, to->tag);
}

static void *churn(void *unused) {
    (void)unused;
    static struct block blocks[SLOTS];
    self = &workers[WALKERS_MAX];
    const int file = memfd_create("restless", MFD_CLOEXEC);
    check(file >= 0, "memfd_create: %s", strerror(errno));
    unsigned mapped = 0;
    while (goes_on()) {
        const uint64_t random = next_random(&self->random);
        struct block *block = &blocks[random % SLOTS], *other = &blocks[random / SLOTS % SLOTS];
        switch (random >> 61) {
        case 0:
            discard(block);
            break;
        case 1:
            through_kernel(block, other, file);
            break;
        default:
            if (block->words != NULL && block->is_mapped) mapped--;
            give_back(block);
            if (random >> 61 == 2) break;
            take(block, &self->random);
            if (block->is_mapped && ++mapped > 4) {
                mapped--;
                give_back(block);
            }
            break;
        }
        take_a_nap(2); // walkers are who is to fault most
    }
    for (unsigned i = 0; i < SLOTS; i++) give_back(&blocks[i]);
    rest();
    close(file);
    return NULL;
}

// ---- forker

static void __attribute__((noreturn)) be_child(bool is_guest) {
    const size_t bytes = is_guest ? CHILD_BYTES : 100000;
    uint64_t *words = malloc(bytes);
    if (words == NULL) _exit(4);
    fill(words, bytes / 8, 77);
    verify_block(words, bytes / 8, 77);
    free(words);
    _exit(3);
}

static void *beget(void *unused) {
    (void)unused;
    self = &workers[WALKERS_MAX + 1];
    while (goes_on()) {
        const bool is_guest = next_random(&self->random) % 8 == 0;
        rest(); // a fork waits for the child, as guest/lend.c says, and then the time is its own
        const pid_t child = fork();
        if (child == 0) be_child(is_guest);
        check(child > 0, "fork: %s", strerror(errno));
        int status;
        check(waitpid(child, &status, 0) == child, "waitpid: %s", strerror(errno));
        check(WIFEXITED(status) && WEXITSTATUS(status) == 3, "a child ended with status %#x", status);
        atomic_fetch_add(&children, 1);
        take_a_nap(50);
    }
    return NULL;
}

// ---- all

static uint64_t steps(void) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < WALKERS_MAX + 2; i++) sum += atomic_load(&workers[i].steps);
    return sum;
}

static void answer(void) {
    char line[64];
    uint64_t steps_then = 0, children_then = 0;
    while (fgets(line, sizeof line, stdin) != NULL) {
        const uint64_t now = nanoseconds(), all = steps(), born = atomic_load(&children);
        uint64_t waiting = 0;
        for (unsigned i = 0; i < WALKERS_MAX + 2; i++) {
            const uint64_t since = atomic_load(&workers[i].since);
            if (since != 0 && since < now && now - since > waiting) waiting = now - since;
        }
        note(waiting);
        printf("%llu %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", atomic_exchange(&longest, 0), all - steps_then, born - children_then,
               waiting);
        fflush(stdout);
        steps_then = all;
        children_then = born;
    }
}

int main(int argc, char **argv) {
    page_count = argc > 1 ? strtoul(argv[1], NULL, 10) << 8 : 0;
    walker_count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 3;
    check(page_count > 0 && page_count <= PAGES_MAX && walker_count > 0 && walker_count <= WALKERS_MAX,
          "usage: restless MEBIBYTES [THREADS]");
    static char output[BUFSIZ], input[BUFSIZ];
    setvbuf(stdout, output, _IOFBF, sizeof output);
    setvbuf(stdin, input, _IOFBF, sizeof input);
    memory = mmap(NULL, page_count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "mmap of %" PRIu64 " pages: %s", page_count, strerror(errno));
    for (uint64_t page = 0; page < page_count; page++)
        for (unsigned walker = 0; walker < walker_count; walker++) overwrite(walker, page);
    pthread_t threads[WALKERS_MAX + 2];
    for (unsigned i = 0; i < WALKERS_MAX + 2; i++) workers[i].random = i + 1;
    for (unsigned i = 0; i < walker_count; i++)
        check(pthread_create(&threads[i], NULL, walk, (void *)(uintptr_t)i) == 0, "pthread_create");
    check(pthread_create(&threads[walker_count], NULL, churn, NULL) == 0, "pthread_create");
    check(pthread_create(&threads[walker_count + 1], NULL, beget, NULL) == 0, "pthread_create");
    printf("ready\n");
    fflush(stdout);
    answer();
    atomic_store(&is_over, true);
    for (unsigned i = 0; i < walker_count + 2; i++) pthread_join(threads[i], NULL);
    for (uint64_t page = 0; page < page_count; page++)
        for (unsigned walker = 0; walker < walker_count; walker++) verify(walker, page);
    printf("verified %" PRIu64 " pages after %" PRIu64 " steps and %llu children\n", page_count, steps(), atomic_load(&children));
    return passed("restless");
}
