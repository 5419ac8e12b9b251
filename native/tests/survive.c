// SPDX-License-Identifier: Apache-2.0
//
// survive SIZE_MB [stay | roam]: fills a mapping twice, prints "ready", and works on its last pages (roam: on any) until the end of its
// input; for each line of it, it prints how many it has had, after some more work. Then it touches all, unless it is to stay: each page
// holds all that was written last, or is lost, which is SIGBUS, for whoever reads or writes it, each time. Prints how many were lost.
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "check.h"

enum { WORDS = 512, AT_A_TIME = 16, MOST = 1 << 16 };

static volatile uint64_t *memory;
static size_t pages;
static uint32_t written[MOST]; // how often, by page; with the program's own data, which are not pooled
static bool lost[MOST];
static char output[4096]; // nor is what is printed to be on a page that may be lost
static sigjmp_buf touched_lost;

static void on_bus_error(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    const uintptr_t first = (uintptr_t)memory, at = (uintptr_t)info->si_addr;
    check(at >= first && at < first + pages * WORDS * 8, "SIGBUS at %p, which is not ours", info->si_addr);
    siglongjmp(touched_lost, 1);
}

static void fill(size_t page) {
    const uint32_t times = written[page] + 1;
    for (size_t i = page * WORDS; i < (page + 1) * WORDS; i++) memory[i] = pattern(times, i);
    written[page] = times;
}

static void verify(size_t page) {
    for (size_t i = page * WORDS; i < (page + 1) * WORDS; i++) {
        const uint64_t value = memory[i];
        check(value == pattern(written[page], i), "page %zu, written %u times, word %zu: %016lx", page, written[page], i % WORDS,
              (unsigned long)value);
    }
}

// Whether it is there. It is read first; or else one word of it is written first, with what is there if anything is.
static bool renew(size_t page, bool reads) {
    if (sigsetjmp(touched_lost, 1) != 0) return false;
    if (!reads) memory[page * WORDS] = pattern(written[page], page * WORDS);
    verify(page);
    fill(page);
    return true;
}

static void work(bool roams) {
    uint64_t random = 1;
    for (int lines = 0;;) {
        for (size_t i = 1; i <= AT_A_TIME; i++) {
            const size_t page = roams ? next_random(&random) % pages : pages - i;
            verify(page);
            fill(page);
        }
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        if (poll(&input, 1, 1) == 0) continue;
        char byte;
        if (read(STDIN_FILENO, &byte, 1) <= 0) return;
        printf("line %d\n", ++lines);
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    const char *how = argc > 2 ? argv[2] : "";
    setvbuf(stdout, output, _IOFBF, sizeof output);
    pages = (argc > 1 ? strtoul(argv[1], NULL, 10) : 32) << 8;
    check(pages >= AT_A_TIME && pages <= MOST, "1 to %d MB", MOST >> 8);
    memory = mmap(NULL, pages * WORDS * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "mmap of %zu pages", pages);
    for (int times = 0; times < 2; times++)
        for (size_t page = 0; page < pages; page++) fill(page);
    printf("ready\n");
    fflush(stdout);
    work(strcmp(how, "roam") == 0);
    if (strcmp(how, "stay") == 0) return passed("survive");

    const struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    check(sigaction(SIGBUS, &action, NULL) == 0, "sigaction");
    size_t count = 0;
    for (size_t page = 0; page < pages; page++) {
        lost[page] = !renew(page, page % 2 == 0);
        if (lost[page]) count++;
    }
    for (size_t page = 0; page < pages; page++)
        check(renew(page, page % 2 != 0) == !lost[page], "page %zu, which was %s before", page, lost[page] ? "lost" : "there");
    printf("%zu pages are lost\n", count);
    return passed("survive");
}
