// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "system.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "the guest library knows the system call convention of x86-64 only"
#endif

long vsmp_syscall(long number, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

void *private_pages(size_t bytes) {
    void *pages = raw_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return is_error(pages) ? NULL : pages;
}

void guard_enter(struct guard *guard, signal_mask *saved) {
    const signal_mask all = ~0ull;
    SYSTEM_CALL(SYS_rt_sigprocmask, SIG_BLOCK, &all, saved, sizeof all);

    int expected = 0;
    if (atomic_compare_exchange_strong_explicit(&guard->word, &expected, 1, memory_order_acquire, memory_order_relaxed)) return;
    while (atomic_exchange_explicit(&guard->word, 2, memory_order_acquire) != 0)
        SYSTEM_CALL(SYS_futex, &guard->word, FUTEX_WAIT_PRIVATE, 2, NULL);
}

void guard_leave(struct guard *guard, const signal_mask *saved) {
    if (atomic_exchange_explicit(&guard->word, 0, memory_order_release) == 2)
        SYSTEM_CALL(SYS_futex, &guard->word, FUTEX_WAKE_PRIVATE, 1);
    SYSTEM_CALL(SYS_rt_sigprocmask, SIG_SETMASK, saved, NULL, sizeof *saved);
}

void guard_reset(struct guard *guard) { atomic_store_explicit(&guard->word, 0, memory_order_relaxed); }

static void say_list(const char *format, va_list arguments) {
    char line[1400] = "vsmp: ";
    const size_t prefix = strlen(line);
    // None of the formats used here makes vsnprintf allocate: strings and integers only.
    int written = vsnprintf(line + prefix, sizeof line - prefix - 1, format, arguments);
    size_t length = prefix;
    if (written > 0) length += (size_t)written < sizeof line - prefix - 1 ? (size_t)written : sizeof line - prefix - 2;
    line[length++] = '\n';
    SYSTEM_CALL(SYS_write, STDERR_FILENO, line, length);
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say_list(format, arguments);
    va_end(arguments);
}

void say_seldom(const char *format, ...) {
    static _Atomic int64_t last = INT64_MIN / 2;
    struct timespec now;
    SYSTEM_CALL(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    int64_t then = atomic_load(&last), milliseconds = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (milliseconds - then < 1000 || !atomic_compare_exchange_strong(&last, &then, milliseconds)) return;
    va_list arguments;
    va_start(arguments, format);
    say_list(format, arguments);
    va_end(arguments);
}
