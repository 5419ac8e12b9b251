// SPDX-License-Identifier: Apache-2.0
//
// fork + exec. What a child does between the two (finding the program, its arguments, closing descriptors) often looks at heap
// memory of the parent's, which the child does not have. So the parent, before its fork() returns, waits as if it were vfork():
// until the child has exec'ed or ended, it hands out the pages that the child touches, over a socket pair. They are those of the
// moment of the fork, since the forking thread stands still; what other threads write meanwhile may show, as it may not after a
// fork proper. A child that has been quiet for a while has begun a life of its own: the parent goes on, nothing is lent any more
// (it would be later memory than the child expects), and touching what was not lent ends the child with a message.
#define _GNU_SOURCE
#include "lend.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "agent.h"
#include "space.h"
#include "system.h"

#define QUIET_MILLISECONDS 200
#define LONGEST_MILLISECONDS 5000

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

static int64_t milliseconds(void) {
    struct timespec now;
    SYSTEM_CALL(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool answer_one(int socket, lend_lookup *lookup) {
    uint64_t address;
    if (SYSTEM_CALL(SYS_recvfrom, socket, &address, sizeof address, 0, NULL, NULL) != sizeof address) return false;
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
    const int64_t end = milliseconds() + LONGEST_MILLISECONDS;
    for (int64_t left; (left = end - milliseconds()) > 0;) {
        struct pollfd polled = {.fd = socket, .events = POLLIN};
        const int64_t patience = left < QUIET_MILLISECONDS ? left : QUIET_MILLISECONDS;
        if (SYSTEM_CALL(SYS_poll, &polled, 1, patience) != 1 || !answer_one(socket, lookup)) break;
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
