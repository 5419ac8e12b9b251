// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "fence.h"
#include "messages.h"
#include "process.h"
#include "say.h"
#include "watch.h"

enum {
    MESSAGES_PER_TURN = 64,
    NOTICES = 16,
    FDS_PER_MESSAGE = 253, // of the kernel: a message that carries too many is to be seen as one
};

static struct {
    int fd; // −1: no agent
    bool is_deaf; // nobody is there to read
    bool is_starved;
    uint32_t events; // what is waited for
    bool has_reply; // that had no room yet
    struct vsmp_keeper_message reply;
    struct vsmp_keeper_state reply_data;
    bool is_listing;
    uint32_t list_serial, list_slot, list_count;
    struct vsmp_keeper_message notices[NOTICES];
    unsigned notice_count;
    uint32_t untold; // guests whose end is to be told
} link_ = {.fd = -1};

static unsigned descriptor_limit;

static struct {
    struct vsmp_keeper_message message;
    char data[VSMP_KEEPER_DATA_MAX + 1]; // one more than there may be
} incoming;

void link_limit(unsigned descriptors) { descriptor_limit = descriptors; }

bool link_is_starved(void) { return link_.is_starved; }

static bool is_busy(void) { return link_.has_reply || link_.is_listing; }

static void choose_events(void) {
    const bool has_more = is_busy() || link_.notice_count > 0 || link_.untold > 0;
    const uint32_t events = (is_busy() ? 0 : EPOLLIN) | (has_more && !link_.is_starved ? EPOLLOUT : 0);
    if (events != link_.events) watch_change(link_.fd, events, WATCHED_LINK);
    link_.events = events;
}

static void forget_output(void) {
    link_.has_reply = link_.is_listing = link_.is_starved = false;
    link_.notice_count = 0;
    for (uint32_t i = 0; link_.untold > 0 && i < holds_count(VSMP_KEEPER_KIND_GUEST); i++) guest_at(i)->is_untold = false;
    link_.untold = 0;
}

static void close_link(void) {
    if (link_.fd < 0) return;
    forget_output();
    watch_remove(link_.fd);
    close(link_.fd);
    link_.fd = -1;
}

bool link_open(int socket) {
    link_.fd = socket;
    link_.is_deaf = false;
    link_.events = EPOLLIN;
    const int error = watch_add(socket, link_.events, WATCHED_LINK, 0);
    if (error == 0) return true;
    link_.fd = -1;
    errno = error;
    return false;
}

// ---- sending

// False: there is no room.
static bool send_message(struct vsmp_keeper_message *message, const void *data, const int *fds) {
    message->magic = VSMP_KEEPER_MAGIC;
    message->version = VSMP_KEEPER_VERSION;
    struct iovec parts[2] = {{message, sizeof *message}, {(void *)(uintptr_t)data, message->data_bytes}};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(VSMP_KEEPER_FDS_MAX * sizeof(int))];
    } control = {0};
    struct msghdr envelope = {.msg_iov = parts, .msg_iovlen = 2};
    if (message->fd_count > 0) {
        envelope.msg_control = &control;
        envelope.msg_controllen = CMSG_SPACE(message->fd_count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(message->fd_count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, message->fd_count * sizeof(int));
    }
    link_.is_starved = false;
    if (link_.is_deaf || sendmsg(link_.fd, &envelope, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    switch (errno) {
    case EAGAIN:
    case EINTR:
        return false;
    case ENOMEM:
    case ENOBUFS:
    case ETOOMANYREFS: // descriptors that others of this user have on their way
        link_.is_starved = true;
        return false;
    default:
        link_.is_deaf = true;
        return true;
    }
}

static void flush_list(void) {
    for (; link_.list_slot < hold_slots(); link_.list_slot++) {
        const struct hold *hold = hold_at(link_.list_slot);
        if (hold == NULL) continue;
        struct vsmp_keeper_message message = {.type = VSMP_KEEPER_LIST | VSMP_KEEPER_REPLY,
                                              .serial = link_.list_serial,
                                              .key = hold->key,
                                              .a = hold->guest_key,
                                              .kind = hold->kind,
                                              .fd_count = hold->fd_count,
                                              .flags = hold->is_gone ? VSMP_KEEPER_IS_GONE : 0,
                                              .data_bytes = hold->data_bytes};
        if (!send_message(&message, hold_data(hold), hold->fds)) return;
        link_.list_count++;
    }
    struct vsmp_keeper_message end = {.type = VSMP_KEEPER_LIST | VSMP_KEEPER_REPLY,
                                      .serial = link_.list_serial,
                                      .a = link_.list_count,
                                      .flags = VSMP_KEEPER_END};
    if (send_message(&end, NULL, NULL)) link_.is_listing = false;
}

static void flush_notices(void) {
    unsigned sent = 0;
    while (sent < link_.notice_count && send_message(&link_.notices[sent], NULL, NULL)) sent++;
    link_.notice_count -= sent;
    memmove(link_.notices, link_.notices + sent, link_.notice_count * sizeof link_.notices[0]);
    if (link_.notice_count > 0) return;
    for (uint32_t i = 0; link_.untold > 0 && i < holds_count(VSMP_KEEPER_KIND_GUEST); i++) {
        struct hold *guest = guest_at(i);
        if (!guest->is_untold) continue;
        struct vsmp_keeper_message message = {.type = VSMP_KEEPER_GONE, .key = guest->key};
        if (!send_message(&message, NULL, NULL)) return;
        guest->is_untold = false;
        link_.untold--;
    }
}

void link_flush(void) {
    if (link_.fd < 0) return;
    if (link_.is_deaf) forget_output();
    if (link_.has_reply && send_message(&link_.reply, &link_.reply_data, NULL)) link_.has_reply = false;
    if (!link_.has_reply && link_.is_listing) flush_list();
    if (!is_busy()) flush_notices();
    choose_events();
}

void link_tell(enum vsmp_keeper_type type, uint64_t at_ns, uint64_t b, uint64_t c) {
    if (link_.fd < 0) return;
    // An agent that hears nothing for so long is told how things are now, not how they were.
    if (link_.notice_count == NOTICES) memmove(link_.notices, link_.notices + 1, --link_.notice_count * sizeof link_.notices[0]);
    link_.notices[link_.notice_count++] = (struct vsmp_keeper_message){.type = (uint16_t)type, .a = at_ns, .b = b, .c = c};
}

void link_on_guest(uint32_t slot) {
    struct hold *guest = hold_at(slot);
    // What the event was about may have been dropped in the same turn.
    if (guest == NULL || guest->kind != VSMP_KEEPER_KIND_GUEST || guest->is_gone || !process_is_gone(guest->fds[0])) return;
    watch_remove(guest->fds[0]);
    guest->is_gone = true;
    if (link_.fd >= 0) {
        guest->is_untold = true;
        link_.untold++;
    }
}

// ---- requests

static void drop(struct hold *hold) {
    if (hold->kind == VSMP_KEEPER_KIND_GUEST) {
        fence_leaver(hold);
        if (!hold->is_gone) watch_remove(hold->fds[0]);
    }
    link_.untold -= hold->is_untold;
    hold_remove(hold);
}

uint32_t drop_all(void) {
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < hold_slots(); slot++) {
        struct hold *hold = hold_at(slot);
        if (hold == NULL) continue;
        drop(hold);
        count++;
    }
    return count;
}

static bool is_userfaultfd(int fd) {
    static const char expected[] = "anon_inode:[userfaultfd]";
    char path[32], target[sizeof expected];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return readlink(path, target, sizeof target) == sizeof expected - 1 && memcmp(target, expected, sizeof expected - 1) == 0;
}

static int adopt(const struct vsmp_keeper_message *m, const int *fds, unsigned fd_count, int pid, int proc) {
    struct hold *hold = hold_add(m->key, (enum vsmp_keeper_kind)m->kind);
    if (hold == NULL) return ENOSPC;
    if (m->kind == VSMP_KEEPER_KIND_GUEST) {
        const int error = watch_add(fds[0], EPOLLIN, WATCHED_GUEST, hold_slot(hold));
        if (error != 0) {
            hold_remove(hold);
            return error;
        }
    }
    memcpy(hold->fds, fds, fd_count * sizeof *fds);
    hold->fd_count = (uint8_t)fd_count & 7;
    hold->guest_key = m->a;
    hold->pid = pid;
    hold->proc = proc;
    hold->data_bytes = (uint16_t)m->data_bytes;
    memcpy(hold_data(hold), incoming.data, m->data_bytes);
    if (m->kind == VSMP_KEEPER_KIND_GUEST) fence_newcomer(hold);
    return 0;
}

// If the result is 0, the descriptors are the hold's.
static int on_hold(const struct vsmp_keeper_message *m, const int *fds, unsigned fd_count) {
    if (fd_count < m->fd_count) return EMFILE;
    for (unsigned i = 0; i < fd_count; i++)
        if ((unsigned)fds[i] >= descriptor_limit) return EMFILE;
    if (hold_find(m->key) != NULL) return EEXIST;
    int pid = 0, proc = -1;
    if (m->kind == VSMP_KEEPER_KIND_GUEST) {
        const int error = process_open(fds[0], &pid, &proc);
        if (error != 0) return error;
    } else if (m->kind == VSMP_KEEPER_KIND_MAPPING) {
        const struct hold *guest = hold_find(m->a);
        if (guest == NULL || guest->kind != VSMP_KEEPER_KIND_GUEST) return ENOENT;
        if (!is_userfaultfd(fds[0])) return EBADF;
    }
    const int error = proc >= 0 && (unsigned)proc >= descriptor_limit ? EMFILE : adopt(m, fds, fd_count, pid, proc);
    if (error != 0 && proc >= 0) close(proc);
    return error;
}

static int on_drop(uint64_t key) {
    struct hold *hold = hold_find(key);
    if (hold == NULL) return ENOENT;
    drop(hold);
    return 0;
}

static int on_kill(const struct vsmp_keeper_message *m) {
    const struct hold *guest = hold_find(m->key);
    if (guest == NULL || guest->kind != VSMP_KEEPER_KIND_GUEST) return ENOENT;
    if (guest->is_gone) return ESRCH;
    const int error = process_signal(guest->fds[0], SIGKILL);
    if (error != 0) return error;
    char reason[400];
    snprintf(reason, sizeof reason, "%.*s", (int)m->data_bytes, incoming.data);
    say_plainly(reason);
    say("killed guest %#lx (process %d): %s", guest->key, guest->pid, reason);
    return 0;
}

static void describe(struct vsmp_keeper_state *state) {
    *state = (struct vsmp_keeper_state){.restarts = agent_restarts(), .flags = agent_keeper_flags()};
    state->guests = holds_count(VSMP_KEEPER_KIND_GUEST);
    state->mappings = holds_count(VSMP_KEEPER_KIND_MAPPING);
    state->others = holds_count(VSMP_KEEPER_KIND_OTHER);
    for (uint32_t i = 0; i < state->guests; i++) state->gone += guest_at(i)->is_gone;
    fence_describe(state);
}

static void on_message(int *fds, unsigned fd_count) {
    const struct vsmp_keeper_message *m = &incoming.message;
    struct vsmp_keeper_message reply = {.type = (uint16_t)(m->type | VSMP_KEEPER_REPLY), .serial = m->serial, .key = m->key};
    switch (m->type) {
    case VSMP_KEEPER_HOLD:
        reply.status = on_hold(m, fds, fd_count);
        if (reply.status == 0) fd_count = 0;
        break;
    case VSMP_KEEPER_DROP:
        reply.status = on_drop(m->key);
        break;
    case VSMP_KEEPER_CLEAR:
        reply.a = drop_all();
        break;
    case VSMP_KEEPER_LIST:
        link_.is_listing = true;
        link_.list_serial = m->serial;
        link_.list_slot = link_.list_count = 0;
        break;
    case VSMP_KEEPER_LEASE:
        reply.status = lease_set(m->a, (m->flags & VSMP_KEEPER_RELEASE) != 0);
        if (reply.status == 0) agent_on_lease();
        break;
    case VSMP_KEEPER_STATE:
        describe(&link_.reply_data);
        reply.data_bytes = sizeof(struct vsmp_keeper_state);
        break;
    case VSMP_KEEPER_KILL:
        reply.status = on_kill(m);
        break;
    default: // message_fault knows no other
        break;
    }
    for (unsigned i = 0; i < fd_count; i++) close(fds[i]);

    if (m->serial == 0) {
        if (reply.status != 0) say("request %u for %#lx: %s", m->type, m->key != 0 ? m->key : m->a, strerror(reply.status));
    } else if (!link_.is_listing) {
        link_.reply = reply;
        link_.has_reply = true;
    }
    if (is_busy()) link_flush();
}

// ---- receiving

static void on_nonsense(const char *fault) {
    say("the agent sent what is no message (%s): it is killed", fault);
    close_link();
    agent_kill();
}

static unsigned take_descriptors(struct msghdr *envelope, int *fds) {
    unsigned count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(envelope); c != NULL; c = CMSG_NXTHDR(envelope, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        const size_t bytes = c->cmsg_len - CMSG_LEN(0);
        memcpy(fds + count, CMSG_DATA(c), bytes);
        count += (unsigned)(bytes / sizeof *fds);
    }
    return count;
}

// Nothing was received: the end of the connection, or a message of no bytes.
static bool has_ended(void) {
    struct pollfd polled = {.fd = link_.fd, .events = POLLRDHUP};
    return poll(&polled, 1, 0) == 1 && (polled.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

// False: there is nothing more.
static bool read_message(void) {
    struct iovec part = {&incoming, sizeof incoming};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
    } control;
    int fds[FDS_PER_MESSAGE];
    struct msghdr envelope = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    const ssize_t received = recvmsg(link_.fd, &envelope, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received < 0) {
        if (errno != ECONNRESET) return errno == EINTR;
        link_.is_deaf = true; // who died with our messages unread; its own come after this
        return true;
    }
    const unsigned fd_count = take_descriptors(&envelope, fds);
    if (received == 0 && has_ended()) {
        close_link();
        return false;
    }
    const char *fault = (envelope.msg_flags & MSG_TRUNC) != 0 ? "it is longer than any message"
                                                              : message_fault(&incoming.message, (size_t)received, fd_count);
    if (fault == NULL && fd_count < incoming.message.fd_count && (envelope.msg_flags & MSG_CTRUNC) == 0)
        fault = "it has fewer descriptors than it says";
    if (fault != NULL) {
        for (unsigned i = 0; i < fd_count; i++) close(fds[i]);
        on_nonsense(fault);
        return false;
    }
    on_message(fds, fd_count);
    return true;
}

void link_read(void) {
    for (unsigned i = 0; i < MESSAGES_PER_TURN && link_.fd >= 0 && !is_busy(); i++)
        if (!read_message()) return;
}

void link_on_hang_up(void) {
    link_.is_deaf = true;
    forget_output();
}

void link_finish(void) {
    link_on_hang_up();
    while (link_.fd >= 0 && read_message()) {}
    close_link();
}
