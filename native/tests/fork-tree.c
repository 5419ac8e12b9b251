// SPDX-License-Identifier: Apache-2.0
//
// fork-tree [SIZE_MB]: a process with a large heap starts others in every way there is. Forked children work on memory of their
// own and become guests themselves; vfork, posix_spawn and fork + exec run from the large parent; a child that goes on with what
// it inherited from the pool dies of SIGBUS; freeing it does nothing; the parent's memory stays what it was.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "check.h"

extern char **environ;
static size_t bytes;

static uint64_t *filled(uint64_t tag) {
    uint64_t *words = malloc(bytes);
    check(words != NULL, "malloc of %zu bytes", bytes);
    for (size_t i = 0; i < bytes / 8; i++) words[i] = pattern(tag, i);
    return words;
}

static void verify(const uint64_t *words, uint64_t tag) {
    for (size_t i = 0; i < bytes / 8; i++) check(words[i] == pattern(tag, i), "word %zu of block %lu", i, tag);
}

static int wait_for(pid_t child) {
    int status;
    check(child > 0, "a child was started");
    check(waitpid(child, &status, 0) == child, "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static pid_t child_that_ends_with(int status) {
    pid_t child = fork();
    if (child == 0) _exit(status);
    return child;
}

// Small blocks come out of caches that the parent filled; none may lie in the parent's pool.
static void churn(uint64_t tag) {
    enum { COUNT = 20000 };
    static uint64_t *blocks[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        blocks[i] = malloc(64 + i % 500);
        check(blocks[i] != NULL, "a small block");
        *blocks[i] = pattern(tag, i);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        check(*blocks[i] == pattern(tag, i), "small block %u", i);
        free(blocks[i]);
    }
}

static pid_t guest_of_its_own(uint64_t *inherited, unsigned depth) {
    pid_t child = fork();
    if (child != 0) return child;
    uint64_t *moved = realloc(inherited, 100); // a copy of what the parent lends
    for (unsigned i = 0; i < 12; i++) check(moved[i] == inherited[i] && moved[i] != 0, "word %u of a moved block", i);
    free(inherited); // the parent's: nothing happens
    churn(depth);
    uint64_t *own = filled(100 + depth);
    if (depth > 0) check(wait_for(guest_of_its_own(own, depth - 1)) == 7, "a child's child");
    verify(own, 100 + depth);
    free(own);
    _exit(7);
}

// Between fork and exec a child looks at its parent's heap: the arguments lie there.
static pid_t exec_from_the_heap(void) {
    enum { ROOM = 2 << 20 };
    char *text = malloc(ROOM), **arguments = malloc(ROOM);
    check(text != NULL && arguments != NULL, "malloc");
    strcpy(text, "/bin/sh");
    strcpy(text + 4096, "sh");
    strcpy(text + 2 * 4096 - 1, "-c"); // over the end of a page
    strcpy(text + 4 * 4096, "test \"$1\" = heap && exit 11");
    char *const list[] = {text + 4096, text + 2 * 4096 - 1, text + 4 * 4096, text + 4096, strcpy(text + 6 * 4096, "heap"), NULL};
    memcpy(arguments, list, sizeof list);
    pid_t child = fork();
    if (child == 0) {
        text[4 * 4096 + 2] = text[4 * 4096 + 2]; // written, too
        execv(text, arguments);
        _exit(1);
    }
    free(text);
    free(arguments);
    return child;
}

static pid_t touching(uint64_t *inherited, bool with_handler) {
    pid_t child = fork();
    if (child != 0) return child;
    // Long after the fork: nothing is lent any more.
    usleep(700000);
    if (with_handler) signal(SIGSEGV, _exit);
    int null = open("/dev/null", O_WRONLY);
    if (getenv("FORK_TREE_LOUD") == NULL) dup2(null, STDERR_FILENO);
    const uint64_t seen = *(volatile uint64_t *)inherited;
    dprintf(STDOUT_FILENO, "FAILED: a child read %lx from its parent's pool\n", seen);
    _exit(1);
}

static void run_on(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    check(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

// Takes processor 0 for itself for 600 ms, as soon as a byte comes; 0 where that is not permitted.
static pid_t hog(int go[2]) {
    const struct sched_param priority = {.sched_priority = 1};
    check(pipe(go) == 0, "pipe");
    pid_t child = fork();
    if (child != 0) return child;
    char byte;
    run_on(0);
    const bool permitted = sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
    if (read(go[0], &byte, 1) != 1 || !permitted) _exit(1);
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < 600);
    _exit(0);
}

// On a busy host it may take a while until a child looks at anything: it is lent what it asks for all the same.
static void starved(const uint64_t *inherited) {
    int go[2];
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) return;
    pid_t other = hog(go);
    pid_t child = fork();
    if (child == 0) {
        if (write(go[1], "!", 1) != 1) _exit(1);
        usleep(20000); // it has begun
        run_on(0);
        _exit(*(volatile const uint64_t *)inherited == pattern(1, bytes / 16) ? 12 : 1);
    }
    check(wait_for(child) == 12, "a child that had to wait for a processor");
    (void)wait_for(other); // 1: it was not permitted to take one
    close(go[0]);
    close(go[1]);
}

static pid_t own_fault(void) {
    pid_t child = fork();
    if (child != 0) return child;
    signal(SIGSEGV, _exit); // called with the signal's number
    volatile char *nothing = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *nothing = 1;
    _exit(1);
}

int main(int argc, char **argv) {
    bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 40) << 20;
    char *const arguments[] = {"sh", "-c", "exit 9", NULL};

    // Below the threshold a child inherits everything, as always.
    uint64_t *small = malloc(4096);
    check(small != NULL, "malloc");
    *small = 77;
    pid_t child = fork();
    if (child == 0) _exit(*small == 77 ? 3 : 1);
    check(wait_for(child) == 3, "a small parent's child");

    uint64_t *large = filled(1);
    check(wait_for(child_that_ends_with(5)) == 5, "fork and exit");
    check(wait_for(guest_of_its_own(large, 2)) == 7, "a tree of guests");
    verify(large, 1);

    check(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0, "posix_spawn");
    check(wait_for(child) == 9, "posix_spawn's child");
    child = vfork();
    if (child == 0) {
        execve("/bin/sh", arguments, environ);
        _exit(1);
    }
    check(wait_for(child) == 9, "vfork and exec");
    child = fork();
    if (child == 0) {
        execve("/bin/sh", arguments, environ);
        _exit(1);
    }
    check(wait_for(child) == 9, "fork and exec");
    check(wait_for(exec_from_the_heap()) == 11, "fork and exec with arguments from the heap");
    check(WEXITSTATUS(system("exit 4")) == 4, "system");

    check(wait_for(touching(large + bytes / 16, false)) == 128 + SIGBUS, "a child that touches inherited memory");
    check(wait_for(touching(large, true)) == 128 + SIGBUS, "the same with a handler of its own");
    check(wait_for(own_fault()) == SIGSEGV, "a child's own SIGSEGV handler");

    starved(large + bytes / 16);
    verify(large, 1);
    free(large);
    churn(9);

    // A guest that becomes another program is a new guest, of the same process id.
    if (argc < 3) {
        execl("/proc/self/exe", "fork-tree", argc > 1 ? argv[1] : "40", "again", NULL);
        check(false, "exec of itself");
    }
    return passed("fork-tree");
}
