// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <fcntl.h>
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

// How long an agent is waited for that takes the place of one that was killed; where it is not known whether one does, less.
#define PATIENCE_NANOSECONDS 60000000000
#define JOIN_PATIENCE_NANOSECONDS 10000000000
#define PAUSE_NANOSECONDS 10000000
#define WORTH_TELLING_NANOSECONDS 2000000000

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
    struct vsmp_guest_message request;
    struct exchange *exchange;
    int error; // −1: none yet; 0: replied; else why there will be no reply
    pthread_cond_t replied;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // over all below
static struct waiter *waiters;
static uint32_t last_serial;
static bool is_lost, is_closing;
static bool has_joined, is_kept; // another agent takes the place of ours if that is killed
static struct sockaddr_un agent_address;
static char job_token[256];
static uint64_t own_rank;
static bool has_processors; // more than one: looking keeps nobody from answering
static bool is_read; // by a thread that waits
static int connection = -1;
enum { SLOT_WORDS = VSMP_GUEST_SLOTS / 64 };
static uint64_t slots[SLOT_WORDS]; // of the requests that are out
static pthread_cond_t slot_free = PTHREAD_COND_INITIALIZER;
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

// Takes the lowest slot that is free, or VSMP_GUEST_SLOTS.
static uint32_t take_slot(void) {
    uint32_t i = 0;
    while (i < SLOT_WORDS && slots[i] == UINT64_MAX) i++;
    if (i == SLOT_WORDS) return VSMP_GUEST_SLOTS;
    const uint32_t bit = (uint32_t)__builtin_ctzll(~slots[i]);
    slots[i] |= 1ull << bit;
    return i * 64 + bit;
}

static void free_slot(uint32_t slot) {
    slots[slot / 64] &= ~(1ull << slot % 64);
    pthread_cond_signal(&slot_free);
}

static void send_request(const struct waiter *w) {
    const struct exchange *x = w->exchange;
    struct iovec parts[2] = {{(void *)(uintptr_t)&w->request, sizeof w->request}, {(void *)(uintptr_t)x->data, x->data_bytes}};
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
}

// Sends everything again that has no reply yet. An agent that is gone again is noticed when it is read from.
static void repeat_all(void) {
    for (const struct waiter *w = waiters; w != NULL; w = w->next)
        if (w->error < 0) send_request(w);
}

// The reply that says whether there is another agent after this one.
static void note_joined(void) {
    if (incoming.message.type != (VSMP_GUEST_JOIN | VSMP_GUEST_REPLY) || incoming.message.status != 0) return;
    has_joined = true;
    is_kept = (incoming.message.c & VSMP_GUEST_IS_KEPT) != 0;
}

enum received { MESSAGE, NOTHING, NONSENSE };

// Hands a reply to who waits for it.
static void deliver(size_t data_bytes, const int *fds, unsigned fd_count) {
    if (incoming.message.type == VSMP_GUEST_REPEAT) {
        close_all(fds, fd_count);
        repeat_all();
        return;
    }
    note_joined();
    struct waiter *w = waiters;
    while (w != NULL && w->request.serial != incoming.message.serial) w = w->next;
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

// Takes a message, without the lock; nothing, if the agent is gone.
static enum received receive(size_t *data_bytes, int fds[2], unsigned *fd_count) {
    struct iovec part = {&incoming, sizeof incoming};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    const ssize_t received = receive_soon(&message);
    if (received <= 0) return NOTHING;
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
        return NONSENSE;
    }
    *data_bytes = bytes - sizeof incoming.message;
    return MESSAGE;
}

static int connect_to_agent(void) {
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int result;
    do result = connect(fd, (const struct sockaddr *)&agent_address, sizeof agent_address);
    while (result < 0 && errno == EINTR);
    if (result == 0) return fd;
    const int error = errno;
    close(fd);
    return -error;
}

// Says to the agent at `fd` who this is. 0, an errno value, or ECONNRESET: it is gone.
static int rejoin(int fd) {
    struct vsmp_guest_message request = {.magic = VSMP_GUEST_MAGIC,
                                         .version = VSMP_GUEST_VERSION,
                                         .type = VSMP_GUEST_REJOIN,
                                         .a = own_rank,
                                         .text_bytes = (uint32_t)strlen(job_token)};
    struct iovec parts[2] = {{&request, sizeof request}, {job_token, request.text_bytes}};
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t done;
    do done = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    if (done > 0) {
        do done = recv(fd, &incoming, sizeof incoming, 0);
        while (done < 0 && errno == EINTR);
    }
    if (done < (ssize_t)sizeof incoming.message) return ECONNRESET;
    const bool is_sound = incoming.message.magic == VSMP_GUEST_MAGIC && incoming.message.version == VSMP_GUEST_VERSION &&
                          incoming.message.type == (VSMP_GUEST_REJOIN | VSMP_GUEST_REPLY);
    return is_sound ? incoming.message.status : EPROTO;
}

// Whether an agent may be there in a moment: it has not made its socket, or does not listen yet.
static bool may_come(int error) { return error == ENOENT || error == ECONNREFUSED || error == ECONNRESET; }

// The connection has broken: connects with the agent that takes the place of the one that was killed, and sends what was asked of
// that again. Without the lock, by the thread that reads; false if there is none.
static bool reconnect(void) {
    const int64_t since = now_nanoseconds();
    for (bool is_told = false;;) {
        pthread_mutex_lock(&lock);
        const bool is_over = is_closing || (has_joined && !is_kept);
        const int64_t patience = has_joined ? PATIENCE_NANOSECONDS : JOIN_PATIENCE_NANOSECONDS;
        pthread_mutex_unlock(&lock);
        if (is_over) return false;
        const int fd = connect_to_agent();
        int error = -fd;
        if (fd >= 0) {
            error = rejoin(fd);
            if (error == 0) {
                pthread_mutex_lock(&lock);
                const bool is_taken = !is_closing && dup3(fd, connection, O_CLOEXEC) >= 0;
                close(fd);
                if (is_taken) repeat_all();
                pthread_mutex_unlock(&lock);
                return is_taken;
            }
            close(fd);
        }
        const int64_t waited = now_nanoseconds() - since;
        if (!may_come(error) || waited >= patience) return false;
        if (waited >= WORTH_TELLING_NANOSECONDS && !is_told)
            fprintf(stderr, "vsmp: the agent was killed; this rank waits for the next one\n");
        is_told = waited >= WORTH_TELLING_NANOSECONDS;
        const struct timespec pause = {.tv_nsec = PAUSE_NANOSECONDS};
        nanosleep(&pause, NULL);
    }
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
        const enum received received = receive(&data_bytes, fds, &fd_count);
        const bool is_back = received == NOTHING && reconnect();
        pthread_mutex_lock(&lock);
        is_read = false;
        if (received == MESSAGE) {
            deliver(data_bytes, fds, fd_count);
        } else if (!is_back) {
            lose();
        }
    }
    struct waiter **at = &waiters;
    while (*at != self) at = &(*at)->next;
    *at = self->next;
    free_slot(self->request.slot);
    struct waiter *next = waiters;
    while (next != NULL && next->error >= 0) next = next->next;
    if (next != NULL && !is_read) pthread_cond_signal(&next->replied);
    if (waiters == NULL) pthread_cond_broadcast(&idle);
}

// Connects for the first time. An agent that was killed has left its socket behind: the next one may be there in a moment.
static int connect_when_there(void) {
    const int64_t since = now_nanoseconds();
    for (bool was_there = false;;) {
        const int fd = connect_to_agent();
        was_there |= fd == -ECONNREFUSED;
        if (fd >= 0 || !was_there || !may_come(-fd) || now_nanoseconds() - since >= JOIN_PATIENCE_NANOSECONDS) return fd;
        const struct timespec pause = {.tv_nsec = PAUSE_NANOSECONDS};
        nanosleep(&pause, NULL);
    }
}

int link_open(const char *socket_path, uint64_t rank, const char *token) {
    agent_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof agent_address.sun_path) return fail(EINVAL, "VSMP_GUEST_SOCKET is too long a path");
    if (strlen(token) >= sizeof job_token) return fail(EINVAL, "VSMP_JOB is too long");
    strcpy(agent_address.sun_path, socket_path);
    strcpy(job_token, token);
    own_rank = rank;
    const int fd = connect_when_there();
    if (fd < 0) return fail(-fd, "no agent answers at %s (%s): see `vsmp status`", socket_path, strerrordesc_np(-fd));
    connection = fd;
    is_lost = is_closing = has_joined = is_kept = false;
    has_processors = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    return 0;
}

int link_ask(struct exchange *x) {
    struct waiter self = {
        .request = {.magic = VSMP_GUEST_MAGIC,
                    .version = VSMP_GUEST_VERSION,
                    .type = x->type,
                    .a = x->a,
                    .b = x->b,
                    .c = x->c,
                    .d = x->d,
                    .text_bytes = (uint32_t)x->data_bytes},
        .exchange = x,
        .error = -1,
    };
    x->text = NULL;
    x->text_bytes = 0;
    x->fds[0] = x->fds[1] = -1;
    pthread_cond_init(&self.replied, NULL);
    pthread_mutex_lock(&lock);
    if (connection < 0) {
        pthread_mutex_unlock(&lock);
        return fail(ENOTCONN, "this process has no part in a job now: vsmp_start comes first, and nothing after vsmp_finish");
    }
    while ((self.request.slot = take_slot()) == VSMP_GUEST_SLOTS) pthread_cond_wait(&slot_free, &lock);
    self.request.serial = ++last_serial;
    self.next = waiters;
    waiters = &self;
    if (is_lost) self.error = ECONNRESET;
    pthread_mutex_unlock(&lock);

    // Outside the lock: it may have to wait for room, and replies must be taken meanwhile. Messages keep their borders. If the
    // connection is broken, whoever reads notices, and sends it again.
    send_request(&self);

    pthread_mutex_lock(&lock);
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
    is_closing = true;
    shutdown(connection, SHUT_RDWR); // who waits still, in another thread, hears it
    while (waiters != NULL) pthread_cond_wait(&idle, &lock);
    close(connection);
    connection = -1;
    pthread_mutex_unlock(&lock);
}
