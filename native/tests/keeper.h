// SPDX-License-Identifier: Apache-2.0
//
// An agent's side of the keeper's socket, for the agents of its tests: they do one thing each, check what comes of it, and exit
// with 1 on the first thing that is not as it should be. The keeper passes that on.
#ifndef VSMP_TESTS_KEEPER_H
#define VSMP_TESTS_KEEPER_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "../keeper/protocol.h"
#include "check.h"

enum { PATIENCE_MILLISECONDS = 30000, NOTICES_MAX = 64 };

#define MILLISECOND 1000000ull

struct message {
    struct vsmp_keeper_message head;
    char data[VSMP_KEEPER_DATA_MAX + 1];
    int fds[VSMP_KEEPER_FDS_MAX];
};

static int keeper = -1;
static uint32_t last_serial;
static struct vsmp_keeper_message notices[NOTICES_MAX]; // that came while something else was waited for
static unsigned notice_count;

__attribute__((unused)) static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

// How often the agent has been started again.
__attribute__((unused)) static unsigned restarted(void) {
    const char *count = getenv("VSMP_RESTARTED");
    return count != NULL ? (unsigned)atoi(count) : 0;
}

static void connect_keeper(void) {
    const char *number = getenv("VSMP_KEEPER");
    check(number != NULL, "VSMP_KEEPER is set");
    keeper = atoi(number);
    check(fcntl(keeper, F_SETFD, FD_CLOEXEC) == 0, "VSMP_KEEPER is a descriptor");
}

static bool send_raw(const void *bytes, size_t count, const int *fds, unsigned fd_count) {
    struct iovec part = {(void *)(uintptr_t)bytes, count};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct msghdr envelope = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > 0) {
        envelope.msg_control = &control;
        envelope.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
    }
    return sendmsg(keeper, &envelope, MSG_NOSIGNAL) == (ssize_t)count;
}

static void send_request(struct message *m) {
    m->head.magic = VSMP_KEEPER_MAGIC;
    m->head.version = VSMP_KEEPER_VERSION;
    check(send_raw(m, sizeof m->head + m->head.data_bytes, m->fds, m->head.fd_count), "the keeper takes a request (%s)",
          strerror(errno));
}

static void receive(struct message *m) {
    struct pollfd polled = {.fd = keeper, .events = POLLIN};
    check(poll(&polled, 1, PATIENCE_MILLISECONDS) == 1, "the keeper says something");
    struct iovec part = {m, sizeof m->head + sizeof m->data};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(VSMP_KEEPER_FDS_MAX * sizeof(int))];
    } control;
    struct msghdr envelope = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    const ssize_t received = recvmsg(keeper, &envelope, MSG_CMSG_CLOEXEC);
    check(received == (ssize_t)(sizeof m->head + m->head.data_bytes) && m->head.magic == VSMP_KEEPER_MAGIC &&
              m->head.version == VSMP_KEEPER_VERSION && (envelope.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0,
          "what the keeper says is a message (%zd bytes)", received);
    unsigned count = 0;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&envelope);
    if (header != NULL) {
        count = (unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(m->fds, CMSG_DATA(header), count * sizeof(int));
    }
    check(count == m->head.fd_count, "it has the descriptors that it says: %u, not %u", count, m->head.fd_count);
}

static void keep_notice(const struct message *m) {
    check(m->head.serial == 0 && m->head.type >= VSMP_KEEPER_GONE && m->head.type <= VSMP_KEEPER_RESUMED, "it is a notice: %u",
          m->head.type);
    check(notice_count < NOTICES_MAX, "few notices");
    notices[notice_count++] = m->head;
}

static void receive_reply(struct message *m, uint16_t type, uint32_t serial) {
    for (receive(m); (m->head.type & VSMP_KEEPER_REPLY) == 0; receive(m)) keep_notice(m);
    check(m->head.type == (type | VSMP_KEEPER_REPLY) && m->head.serial == serial, "it is the reply to %u: %#x", type,
          m->head.type);
}

// The reply's status; the reply itself is in `m`.
static int call(struct message *m) {
    const uint16_t type = m->head.type;
    const uint32_t serial = m->head.serial = ++last_serial;
    send_request(m);
    receive_reply(m, type, serial);
    return m->head.status;
}

__attribute__((unused)) static int hold(uint64_t key, unsigned kind, uint64_t guest, const int *fds, unsigned fd_count,
                                        const void *data, size_t bytes) {
    struct message m = {.head = {.type = VSMP_KEEPER_HOLD, .key = key, .a = guest, .kind = (uint16_t)kind}};
    m.head.fd_count = (uint16_t)fd_count;
    m.head.data_bytes = (uint32_t)bytes;
    memcpy(m.fds, fds, fd_count * sizeof(int));
    memcpy(m.data, data, bytes);
    return call(&m);
}

__attribute__((unused)) static int hold_guest(uint64_t key, int pidfd) {
    return hold(key, VSMP_KEEPER_KIND_GUEST, 0, &pidfd, 1, "", 0);
}

__attribute__((unused)) static int drop(uint64_t key) {
    struct message m = {.head = {.type = VSMP_KEEPER_DROP, .key = key}};
    return call(&m);
}

__attribute__((unused)) static int lease(uint64_t deadline, unsigned flags) {
    struct message m = {.head = {.type = VSMP_KEEPER_LEASE, .a = deadline, .flags = flags}};
    return call(&m);
}

__attribute__((unused)) static struct vsmp_keeper_state state(void) {
    struct message m = {.head = {.type = VSMP_KEEPER_STATE}};
    struct vsmp_keeper_state answer;
    check(call(&m) == 0 && m.head.data_bytes == sizeof answer, "STATE");
    memcpy(&answer, m.data, sizeof answer);
    return answer;
}

// Calls for each hold, whose descriptors are then the callee's; how many there were.
__attribute__((unused)) static unsigned list(void (*each)(struct message *m)) {
    static struct message m;
    m = (struct message){.head = {.type = VSMP_KEEPER_LIST}};
    check(call(&m) == 0, "LIST");
    unsigned count = 0;
    for (; m.head.flags != VSMP_KEEPER_END; receive_reply(&m, VSMP_KEEPER_LIST, last_serial)) {
        each(&m);
        count++;
    }
    check(m.head.a == count, "the end says how many there were: %lu, not %u", m.head.a, count);
    return count;
}

__attribute__((unused)) static void ignore_hold(struct message *m) {
    for (unsigned i = 0; i < m->head.fd_count; i++) close(m->fds[i]);
}

// The next notice.
__attribute__((unused)) static struct vsmp_keeper_message notice(void) {
    if (notice_count == 0) {
        struct message m;
        receive(&m);
        keep_notice(&m);
    }
    const struct vsmp_keeper_message first = notices[0];
    memmove(notices, notices + 1, --notice_count * sizeof first);
    return first;
}

__attribute__((unused)) static int open_process(pid_t pid) {
    const int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    check(fd >= 0, "pidfd_open");
    return fd;
}

// Descriptors of the keeper.
__attribute__((unused)) static unsigned keeper_descriptors(void) {
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/fd", getppid());
    DIR *folder = opendir(path);
    check(folder != NULL, "%s", path);
    unsigned count = 0;
    while (readdir(folder) != NULL) count++;
    closedir(folder);
    return count - 2;
}

__attribute__((unused)) static void pause_for(uint64_t nanoseconds) {
    const struct timespec time = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    nanosleep(&time, NULL);
}

#endif
