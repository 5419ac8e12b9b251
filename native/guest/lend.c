// SPDX-License-Identifier: Apache-2.0
//
// fork + exec. What a child does between the two (finding the program, its arguments, closing descriptors) often looks at heap
// memory of the parent's, which the child does not have. So the parent, before its fork() returns, waits as if it were vfork():
// until the child has exec'ed or ended, it hands out the pages that the child touches, over a socket pair. They are those of the
// moment of the fork, since the forking thread stands still; what other threads write meanwhile may show, as it may not after a
// fork proper. A child that has been quiet for a while has begun a life of its own: the parent goes on, nothing is lent any more
// (it would be later memory than the child expects), and touching what was not lent ends the child with a message. One that is
// only waiting for a processor is not quiet: on a busy host it may not have begun to look.
#define _GNU_SOURCE
#include "lend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "agent.h"
#include "space.h"
#include "system.h"

#define QUIET_MILLISECONDS 200
#define LONGEST_MILLISECONDS 5000

// What a child sends first is its process id with this; all else are addresses.
#define LEND_HELLO (1ull << 63)

struct answer {
    int32_t found;
    int32_t protection;
};

static struct guard guard;
// Pages (by address) that a parent lent; those that may be written.
static struct space lent, lent_writable;

void lend_open(int ends[2]) {
    if (SYSTEM_CALL(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) ends[0] = ends[1] = -1;
}

// ---- the parent

// The child that is served: 0 until it has said who it is.
struct borrower {
    uint32_t process;
    int64_t used; // processor time when it was heard of last
};

static int64_t milliseconds(clockid_t clock) {
    struct timespec now = {0};
    SYSTEM_CALL(SYS_clock_gettime, clock, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// The processor time of a process, of which the kernel makes a clock (clock_getcpuclockid(3)).
static int64_t processor_milliseconds(uint32_t process) { return milliseconds((clockid_t)(~process << 3 | 2)); }

// Whether a process is running, or waits for nothing but a processor.
static bool is_runnable(uint32_t process) {
    char path[] = "/proc/4294967295/stat", *digit = path + sizeof "/proc/4294967295" - 1;
    memcpy(digit, "/stat", sizeof "/stat");
    do *--digit = (char)('0' + process % 10);
    while ((process /= 10) > 0);
    memcpy(digit -= sizeof "/proc/" - 1, "/proc/", sizeof "/proc/" - 1);
    const long fd = SYSTEM_CALL(SYS_openat, AT_FDCWD, digit, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return false;
    char text[256];
    const long got = SYSTEM_CALL(SYS_read, fd, text, sizeof text - 1);
    SYSTEM_CALL(SYS_close, fd);
    // pid (name) state …: the name may have parentheses of its own.
    text[got > 0 ? got : 0] = 0;
    const char *behind = strrchr(text, ')');
    return behind != NULL && behind[1] == ' ' && behind[2] == 'R';
}

// Nothing came for a while. Whether the child may still be about to ask.
static bool may_ask_yet(const struct borrower *child) {
    if (child->process == 0) return true; // it has not run at all
    return processor_milliseconds(child->process) - child->used < QUIET_MILLISECONDS && is_runnable(child->process);
}

static bool answer_one(int socket, lend_lookup *lookup, struct borrower *child) {
    uint64_t address;
    if (SYSTEM_CALL(SYS_recvfrom, socket, &address, sizeof address, 0, NULL, NULL) != sizeof address) return false;
    if ((address & LEND_HELLO) != 0) child->process = (uint32_t)address;
    if (child->process != 0) child->used = processor_milliseconds(child->process);
    if ((address & LEND_HELLO) != 0) return true;
    struct answer answer = {0, 0};
    int protection = 0;
    if (lookup(address, &protection)) answer = (struct answer){1, protection};
    // The kernel reads the page: a fault that the agent resolves, like any other.
    struct iovec parts[2] = {{&answer, sizeof answer}, {(void *)address, VSMP_PAGE_BYTES}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = answer.found && (protection & PROT_READ) ? 2 : 1};
    return SYSTEM_CALL(SYS_sendmsg, socket, &message, MSG_NOSIGNAL) > 0;
}

void lend_serve(int socket, lend_lookup *lookup) {
    if (socket < 0) return;
    const signal_mask all = ~0ull;
    signal_mask saved;
    SYSTEM_CALL(SYS_rt_sigprocmask, SIG_BLOCK, &all, &saved, sizeof all);
    struct borrower child = {0};
    const int64_t end = milliseconds(CLOCK_MONOTONIC) + LONGEST_MILLISECONDS;
    for (int64_t left; (left = end - milliseconds(CLOCK_MONOTONIC)) > 0;) {
        struct pollfd polled = {.fd = socket, .events = POLLIN};
        const int64_t patience = left < QUIET_MILLISECONDS ? left : QUIET_MILLISECONDS;
        const long ready = SYSTEM_CALL(SYS_poll, &polled, 1, patience);
        if (ready == 1 ? !answer_one(socket, lookup, &child) : ready != 0 || !may_ask_yet(&child)) break;
    }
    // Not only closed: another thread's child may have a copy, and ours must learn that nobody answers.
    SYSTEM_CALL(SYS_shutdown, socket, SHUT_RDWR);
    SYSTEM_CALL(SYS_close, socket);
    SYSTEM_CALL(SYS_rt_sigprocmask, SIG_SETMASK, &saved, NULL, sizeof saved);
}

// ---- the child

void lend_begin(int socket) {
    enum { LENT_RANGES = 1 << 16 };
    guard_reset(&guard);
    agent_keep_lender(socket);
    if (lent.nodes == NULL && !space_open(&lent, LENT_RANGES)) agent_keep_lender(-1);
    if (lent_writable.nodes == NULL && !space_open(&lent_writable, LENT_RANGES)) agent_keep_lender(-1);
    const uint64_t hello = LEND_HELLO | (uint32_t)SYSTEM_CALL(SYS_getpid);
    if (agent_lender() >= 0) SYSTEM_CALL(SYS_sendto, agent_lender(), &hello, sizeof hello, MSG_NOSIGNAL, NULL, 0);
}

static enum lent get(uint64_t address, bool write) {
    const uint64_t page = address >> PAGE_SHIFT;
    if (space_overlaps(write ? &lent_writable : &lent, page, 1)) return LENT; // another thread was faster
    if (space_overlaps(&lent, page, 1)) return LEND_NOT_READABLE;

    const int socket = agent_lender();
    if (socket < 0) return LEND_REFUSED;
    void *copy = raw_mmap(NULL, VSMP_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (is_error(copy)) return LEND_REFUSED;
    struct answer answer = {0, 0};
    struct iovec parts[2] = {{&answer, sizeof answer}, {copy, VSMP_PAGE_BYTES}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    long received = SYSTEM_CALL(SYS_sendto, socket, &address, sizeof address, MSG_NOSIGNAL, NULL, 0);
    if (received > 0) received = SYSTEM_CALL(SYS_recvmsg, socket, &message, 0);

    enum lent result = LEND_REFUSED;
    if (received == sizeof answer && answer.found) result = LEND_NOT_READABLE;
    if (received == (long)(sizeof answer + VSMP_PAGE_BYTES) && space_add(&lent, page, 1) &&
        (!(answer.protection & PROT_WRITE) || space_add(&lent_writable, page, 1))) {
        SYSTEM_CALL(SYS_mprotect, copy, VSMP_PAGE_BYTES, answer.protection);
        // At once, so that no thread sees a page that is not yet filled.
        void *placed =
            (void *)SYSTEM_CALL(SYS_mremap, copy, VSMP_PAGE_BYTES, VSMP_PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, address);
        if (!is_error(placed)) return write && !(answer.protection & PROT_WRITE) ? LEND_NOT_READABLE : LENT;
    }
    SYSTEM_CALL(SYS_munmap, copy, VSMP_PAGE_BYTES);
    return result;
}

enum lent lend_get(uint64_t address, bool write) {
    signal_mask saved;
    guard_enter(&guard, &saved);
    enum lent result = get(round_down(address, VSMP_PAGE_BYTES), write);
    guard_leave(&guard, &saved);
    return result;
}
