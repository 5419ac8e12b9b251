// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vsmp.h"

// How long a reply is looked for at most, and at least if at all.
#define LOOK_NANOSECONDS 200000
#define LEAST_LOOK_NANOSECONDS 5000

static _Thread_local char last_error[1200];

const char *vsmp_error(void) { return last_error; }

int fail(int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

// A request that waits for its reply. One of the threads that wait reads, for all of them: a thread of its own that reads would have to be
// woken up, and would have to wake up who waits then.
struct waiter {
    struct waiter *next;
    uint32_t serial;
    struct exchange *exchange;
    int error; // −1: none yet; 0: replied; else why there will be no reply
    pthread_cond_t replied;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // over all below
static struct waiter *waiters;
static uint32_t last_serial;
static bool is_lost;
static bool has_processors; // more than one: looking keeps nobody from answering
static bool is_read; // by a thread that waits
static int connection = -1;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER; // nobody waits any more

static struct {
    struct vsmp_guest_message message;
    char data[VSMP_GUEST_DATA_MAX];
} incoming; // of the thread that reads

static void lose(void) {
    is_lost = true;
    shutdown(connection, SHUT_RDWR); // where it was the agent's words that made no sense, it hears that nobody listens any more
    for (struct waiter *w = waiters; w != NULL; w = w->next) {
        if (w->error < 0) w->error = ECONNRESET;
        pthread_cond_signal(&w->replied);
    }
}

static int64_t now_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void close_all(const int *fds, unsigned count) {
    for (unsigned i = 0; i < count; i++) close(fds[i]);
}

// Hands a reply to who waits for it.
static void deliver(size_t data_bytes, const int *fds, unsigned fd_count) {
    struct waiter *w = waiters;
    while (w != NULL && w->serial != incoming.message.serial) w = w->next;
    if (w == NULL || w->error >= 0 || incoming.message.type != (w->exchange->type | VSMP_GUEST_REPLY)) {
        close_all(fds, fd_count);
    } else {
        struct exchange *x = w->exchange;
        x->a = incoming.message.a;
        x->b = incoming.message.b;
        x->c = incoming.message.c;
        x->d = incoming.message.d;
        x->status = incoming.message.status;
        x->text = malloc(data_bytes + 1);
        w->error = 0;
        if (x->text == NULL) {
            w->error = ENOMEM;
        } else {
            memcpy(x->text, incoming.data, data_bytes);
            x->text[data_bytes] = 0;
            x->text_bytes = data_bytes;
        }
        for (unsigned i = 0; i < 2; i++) x->fds[i] = i < fd_count ? fds[i] : -1;
        pthread_cond_signal(&w->replied);
    }
}

// Waits for a message: for a moment with open eyes, letting others run after each look, since being woken up takes as long as a barrier
// itself; then asleep. As the agents do (docs/adr/0010-look-before-sleeping.md), it looks longer while answers come soon, and less
// while they do not. As recvmsg.
static ssize_t receive_soon(struct msghdr *message) {
    static int64_t budget = LOOK_NANOSECONDS; // who reads has it
    const int64_t start = now_nanoseconds();
    ssize_t received = -1;
    errno = EAGAIN;
    while (received < 0 && errno == EAGAIN && has_processors && now_nanoseconds() - start < budget) {
        received = recvmsg(connection, message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (received < 0 && errno == EAGAIN) sched_yield(); // which leaves errno as it is
    }
    while (received < 0 && (errno == EAGAIN || errno == EINTR)) received = recvmsg(connection, message, MSG_CMSG_CLOEXEC);
    if (now_nanoseconds() - start > LOOK_NANOSECONDS) {
        budget = budget / 2 < LEAST_LOOK_NANOSECONDS ? 0 : budget / 2;
    } else if (budget < LOOK_NANOSECONDS) {
        budget = budget * 2 < LEAST_LOOK_NANOSECONDS ? LEAST_LOOK_NANOSECONDS : budget * 2;
    }
    return received;
}

// Takes a message, without the lock; false if there will be none, or none that makes sense.
static bool receive(size_t *data_bytes, int fds[2], unsigned *fd_count) {
    struct iovec part = {&incoming, sizeof incoming};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    const ssize_t received = receive_soon(&message);
    if (received <= 0) return false;
    *fd_count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        *fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), *fd_count * sizeof(int));
    }
    const size_t bytes = (size_t)received;
    if (bytes < sizeof incoming.message || incoming.message.magic != VSMP_GUEST_MAGIC ||
        incoming.message.version != VSMP_GUEST_VERSION || (message.msg_flags & MSG_TRUNC) != 0 ||
        incoming.message.text_bytes != bytes - sizeof incoming.message) {
        close_all(fds, *fd_count);
        return false;
    }
    *data_bytes = bytes - sizeof incoming.message;
    return true;
}

// Reads until the reply is there; lets others who wait do so afterwards.
static void wait_for(struct waiter *self) {
    while (self->error < 0) {
        if (is_read) {
            pthread_cond_wait(&self->replied, &lock);
            continue;
        }
        is_read = true;
        pthread_mutex_unlock(&lock);
        size_t data_bytes;
        int fds[2];
        unsigned fd_count;
        const bool is_sound = receive(&data_bytes, fds, &fd_count);
        pthread_mutex_lock(&lock);
        is_read = false;
        if (is_sound)
            deliver(data_bytes, fds, fd_count);
        else
            lose();
    }
    struct waiter **at = &waiters;
    while (*at != self) at = &(*at)->next;
    *at = self->next;
    struct waiter *next = waiters;
    while (next != NULL && next->error >= 0) next = next->next;
    if (next != NULL && !is_read) pthread_cond_signal(&next->replied);
    if (waiters == NULL) pthread_cond_broadcast(&idle);
}

int link_open(const char *socket_path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path) return fail(EINVAL, "VSMP_GUEST_SOCKET is too long a path");
    strcpy(address.sun_path, socket_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return fail(errno, "cannot make a socket: %s", strerrordesc_np(errno));
    int result;
    do result = connect(fd, (struct sockaddr *)&address, sizeof address);
    while (result < 0 && errno == EINTR);
    if (result < 0) {
        int error = errno;
        close(fd);
        return fail(error, "no agent answers at %s (%s): see `vsmp status`", socket_path, strerrordesc_np(error));
    }
    connection = fd;
    is_lost = false;
    has_processors = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    return 0;
}

static int send_request(const struct exchange *x, uint32_t serial) {
    struct vsmp_guest_message request = {.magic = VSMP_GUEST_MAGIC,
                                         .version = VSMP_GUEST_VERSION,
                                         .type = x->type,
                                         .serial = serial,
                                         .a = x->a,
                                         .b = x->b,
                                         .c = x->c,
                                         .d = x->d,
                                         .text_bytes = (uint32_t)x->data_bytes};
    struct iovec parts[2] = {{&request, sizeof request}, {(void *)(uintptr_t)x->data, x->data_bytes}};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = x->data_bytes > 0 ? 2 : 1};
    if (x->fd_to_pass >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &x->fd_to_pass, sizeof(int));
    }
    ssize_t sent;
    do sent = sendmsg(connection, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? errno : 0;
}

int link_ask(struct exchange *x) {
    struct waiter self = {.exchange = x, .error = -1};
    x->text = NULL;
    x->text_bytes = 0;
    x->fds[0] = x->fds[1] = -1;
    pthread_cond_init(&self.replied, NULL);
    pthread_mutex_lock(&lock);
    if (connection < 0) {
        pthread_mutex_unlock(&lock);
        return fail(ENOTCONN, "this process has no part in a job now: vsmp_start comes first, and nothing after vsmp_finish");
    }
    self.serial = ++last_serial;
    self.next = waiters;
    waiters = &self;
    if (is_lost) self.error = ECONNRESET;
    pthread_mutex_unlock(&lock);

    // Outside the lock: it may have to wait for room, and replies must be taken meanwhile. Messages keep their borders.
    const int send_error = send_request(x, self.serial);

    pthread_mutex_lock(&lock);
    if (send_error != 0 && self.error < 0) self.error = ECONNRESET;
    wait_for(&self);
    pthread_mutex_unlock(&lock);
    pthread_cond_destroy(&self.replied);

    if (self.error == ECONNRESET)
        return fail(ECONNRESET,
                    "the agent of this node is lost: what was in the job's memory is lost with it; see `vsmp status`");
    if (self.error != 0) return fail(self.error, "%s", strerrordesc_np(self.error));
    if (x->status != 0) return fail(x->status, "%s", x->text_bytes > 0 ? x->text : "the agent refused, and gave no reason");
    return 0;
}

void link_done(struct exchange *x) {
    free(x->text);
    x->text = NULL;
    for (unsigned i = 0; i < 2; i++) {
        if (x->fds[i] >= 0) close(x->fds[i]);
        x->fds[i] = -1;
    }
}

void link_close(void) {
    if (connection < 0) return;
    pthread_mutex_lock(&lock);
    shutdown(connection, SHUT_RDWR); // who waits still, in another thread, hears it
    while (waiters != NULL) pthread_cond_wait(&idle, &lock);
    close(connection);
    connection = -1;
    pthread_mutex_unlock(&lock);
}
