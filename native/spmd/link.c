// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vsmp.h"

static _Thread_local char last_error[1200];

const char *vsmp_error(void) { return last_error; }

int fail(int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return error;
}

// A request that waits for its reply.
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
static int connection = -1;
static pthread_t reader;

static struct {
    struct vsmp_guest_message message;
    char data[VSMP_GUEST_DATA_MAX];
} incoming; // the reader's

static void lose(void) {
    pthread_mutex_lock(&lock);
    is_lost = true;
    shutdown(connection, SHUT_RDWR); // where it was the agent's words that made no sense, it hears that nobody listens any more
    for (struct waiter *w = waiters; w != NULL; w = w->next) {
        if (w->error < 0) w->error = ECONNRESET;
        pthread_cond_signal(&w->replied);
    }
    pthread_mutex_unlock(&lock);
}

static void close_all(const int *fds, unsigned count) {
    for (unsigned i = 0; i < count; i++) close(fds[i]);
}

// Hands a reply to who waits for it.
static void deliver(size_t data_bytes, const int *fds, unsigned fd_count) {
    pthread_mutex_lock(&lock);
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
    pthread_mutex_unlock(&lock);
}

static void *read_replies(void *unused) {
    (void)unused;
    while (true) {
        struct iovec part = {&incoming, sizeof incoming};
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(2 * sizeof(int))];
        } control = {0};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t received = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
        if (received < 0 && errno == EINTR) continue;
        if (received <= 0) break;
        int fds[2];
        unsigned fd_count = 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
            fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(c), fd_count * sizeof(int));
        }
        const size_t bytes = (size_t)received;
        if (bytes < sizeof incoming.message || incoming.message.magic != VSMP_GUEST_MAGIC ||
            incoming.message.version != VSMP_GUEST_VERSION || (message.msg_flags & MSG_TRUNC) != 0 ||
            incoming.message.text_bytes != bytes - sizeof incoming.message) {
            close_all(fds, fd_count);
            break;
        }
        deliver(bytes - sizeof incoming.message, fds, fd_count);
    }
    lose();
    return NULL;
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
    // The program's signals are for the program's threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(&reader, NULL, read_replies, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        close(fd);
        connection = -1;
        return fail(error, "cannot start a thread: %s", strerrordesc_np(error));
    }
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
    while (self.error < 0) pthread_cond_wait(&self.replied, &lock);
    struct waiter **at = &waiters;
    while (*at != &self) at = &(*at)->next;
    *at = self.next;
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
    shutdown(connection, SHUT_RDWR);
    pthread_join(reader, NULL);
    pthread_mutex_lock(&lock);
    close(connection);
    connection = -1;
    pthread_mutex_unlock(&lock);
}
