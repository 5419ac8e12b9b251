// SPDX-License-Identifier: Apache-2.0
//
// Two things about descriptors. Programs that close everything they do not know (daemons, shells' children) must not close ours:
// ours are not there, as far as they can tell. And O_DIRECT is taken out of every open: the kernel would pin pooled pages for
// the device and change them behind the agent's write protection. The program then reads and writes through the page cache,
// which differs in speed only; refusing would stop programs that have no other mode.
#define _GNU_SOURCE
#include "files.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "exec.h"
#include "system.h"

// The functions behind ours; they, not bare system calls, because open, close and fcntl are cancellation points.
static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_fcntl)(int, int, ...);
static int (*real_close)(int);

void files_open(void) {
    if (real_close != NULL) return;
    // open64 and open are one function on x86-64; so are the others'.
    real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    real_openat = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");
    real_fcntl = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl64");
    real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
}

static int without_direct(int flags) {
    if (VSMP_LIKELY((flags & O_DIRECT) == 0) || !agent_configured()) return flags;
    static atomic_bool said;
    if (!atomic_exchange(&said, true)) say("O_DIRECT is ignored: devices must not read or write pooled memory directly");
    return flags & ~O_DIRECT;
}

static bool takes_mode(int flags) { return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE; }

#define MODE_AFTER(flags)                                                                                                        \
    mode_t mode = 0;                                                                                                             \
    if (takes_mode(flags)) {                                                                                                     \
        va_list arguments;                                                                                                       \
        va_start(arguments, flags);                                                                                              \
        mode = va_arg(arguments, mode_t);                                                                                        \
        va_end(arguments);                                                                                                       \
    }

VSMP_EXPORT int open64(const char *path, int flags, ...) {
    MODE_AFTER(flags)
    files_open();
    exec_look_at(path);
    return real_open(path, without_direct(flags), mode);
}

VSMP_EXPORT int openat64(int directory, const char *path, int flags, ...) {
    MODE_AFTER(flags)
    files_open();
    exec_look_at(path);
    return real_openat(directory, path, without_direct(flags), mode);
}

VSMP_EXPORT int open(const char *path, int flags, ...) __attribute__((alias("open64")));
VSMP_EXPORT int openat(int directory, const char *path, int flags, ...) __attribute__((alias("openat64")));

// What fortified programs call: no mode, so no file is made.
VSMP_EXPORT int __open64_2(const char *path, int flags);
VSMP_EXPORT int __open64_2(const char *path, int flags) { return open64(path, flags, 0); }
VSMP_EXPORT int __openat64_2(int directory, const char *path, int flags);
VSMP_EXPORT int __openat64_2(int directory, const char *path, int flags) { return openat64(directory, path, flags, 0); }
VSMP_EXPORT int __open_2(const char *path, int flags) __attribute__((alias("__open64_2")));
VSMP_EXPORT int __openat_2(int directory, const char *path, int flags) __attribute__((alias("__openat64_2")));

VSMP_EXPORT int fcntl64(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    files_open();
    if (command == F_SETFL) argument = (void *)(intptr_t)without_direct((int)(intptr_t)argument);
    return real_fcntl(fd, command, argument);
}

VSMP_EXPORT int fcntl(int fd, int command, ...) __attribute__((alias("fcntl64")));

// ---- closing

static int fail(int error) {
    errno = error;
    return -1;
}

VSMP_EXPORT int close(int fd) {
    if (VSMP_UNLIKELY(agent_owns(fd))) return fail(EBADF);
    files_open();
    return real_close(fd);
}

VSMP_EXPORT int close_range(unsigned first, unsigned last, int flags) {
    if (first > last) return fail(EINVAL);
    // Around each of ours. (With CLOSE_RANGE_CLOEXEC they could be passed over as they are, but it makes no difference.)
    for (unsigned from = first;;) {
        const int owned = from <= INT32_MAX ? agent_next_owned((int)from) : -1;
        const unsigned to = owned >= 0 && (unsigned)owned <= last ? (unsigned)owned - 1 : last;
        if (owned < 0 || (unsigned)owned > from) {
            long error = SYSTEM_CALL(SYS_close_range, from, to, flags);
            if (error < 0) return fail((int)-error);
        }
        if (owned < 0 || (unsigned)owned >= last) return 0;
        from = (unsigned)owned + 1;
    }
}

VSMP_EXPORT void closefrom(int lowest) { close_range(lowest > 0 ? (unsigned)lowest : 0, ~0u, 0); }

VSMP_EXPORT int dup3(int old, int new, int flags) {
    if (old != new &&agent_owns(new)) return fail(EBADF);
    long result = SYSTEM_CALL(SYS_dup3, old, new, flags);
    return result < 0 ? fail((int)-result) : (int)result;
}

VSMP_EXPORT int dup2(int old, int new) {
    if (old != new &&agent_owns(new)) return fail(EBADF);
    long result = SYSTEM_CALL(SYS_dup2, old, new);
    return result < 0 ? fail((int)-result) : (int)result;
}
