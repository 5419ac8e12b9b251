// SPDX-License-Identifier: Apache-2.0
//
// What the whole library stands on: system calls without errno or cancellation, one lock, one way to talk to the user. Nothing
// in this library calls malloc: it is malloc.
#ifndef VSMP_GUEST_SYSTEM_H
#define VSMP_GUEST_SYSTEM_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "protocol.h"

#define VSMP_EXPORT __attribute__((visibility("default")))
#define VSMP_LIKELY(x) __builtin_expect(!!(x), 1)
#define VSMP_UNLIKELY(x) __builtin_expect(!!(x), 0)

#define PAGE_SHIFT 12
#define PAGES_PER_EXTENT (VSMP_EXTENT_BYTES / VSMP_PAGE_BYTES)

static inline uint64_t round_up(uint64_t value, uint64_t multiple) { return (value + multiple - 1) & ~(multiple - 1); }
static inline uint64_t round_down(uint64_t value, uint64_t multiple) { return value & ~(multiple - 1); }

// A system call as the kernel answers it: the result or -errno. Not libc's syscall(): that one writes errno, and these calls
// happen inside functions (free, for one) that must leave it alone.
long vsmp_syscall(long number, long a, long b, long c, long d, long e, long f);

#define SYSTEM_CALL_PICK(_1, _2, _3, _4, _5, _6, _7, NAME, ...) NAME
#define SYSTEM_CALL_1(n) vsmp_syscall(n, 0, 0, 0, 0, 0, 0)
#define SYSTEM_CALL_2(n, a) vsmp_syscall(n, (long)(a), 0, 0, 0, 0, 0)
#define SYSTEM_CALL_3(n, a, b) vsmp_syscall(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define SYSTEM_CALL_4(n, a, b, c) vsmp_syscall(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define SYSTEM_CALL_5(n, a, b, c, d) vsmp_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define SYSTEM_CALL_6(n, a, b, c, d, e) vsmp_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define SYSTEM_CALL_7(n, a, b, c, d, e, f) vsmp_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define SYSTEM_CALL(...)                                                                                                         \
    SYSTEM_CALL_PICK(__VA_ARGS__, SYSTEM_CALL_7, SYSTEM_CALL_6, SYSTEM_CALL_5, SYSTEM_CALL_4, SYSTEM_CALL_3, SYSTEM_CALL_2,      \
                     SYSTEM_CALL_1)                                                                                              \
    (__VA_ARGS__)

// mmap as the kernel answers it, in the caller's terms: an address, or a value for which is_error() holds.
static inline void *raw_mmap(void *address, size_t length, int protection, int flags, int fd, uint64_t offset) {
    return (void *)SYSTEM_CALL(SYS_mmap, address, length, protection, flags, fd, offset);
}

static inline bool is_error(const void *address) { return (uintptr_t)address > (uintptr_t)-4096l; }
static inline int error_of(const void *address) { return -(int)(intptr_t)address; }

// Private memory for the library's own tables: zeros, used sparsely. NULL where the kernel refuses.
void *private_pages(size_t bytes);

// A lock that a signal handler cannot run into: all signals are blocked while it is held. Not recursive.
struct guard {
    atomic_int word; // 0 free, 1 held, 2 held and waited for
};

typedef uint64_t signal_mask;

void guard_enter(struct guard *guard, signal_mask *saved);
void guard_leave(struct guard *guard, const signal_mask *saved);
// In a forked child only: nobody else is left to hold it.
void guard_reset(struct guard *guard);

// One line on stderr, "vsmp: " before it.
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
// The same for what a program can provoke over and over: at most one line a second, whatever it says.
__attribute__((format(printf, 1, 2))) void say_seldom(const char *format, ...);

#endif
