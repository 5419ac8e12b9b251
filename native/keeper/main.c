// SPDX-License-Identifier: Apache-2.0
//
// vsmp-keeper [--restart-limit N] -- PROGRAM [ARGS…]: runs an agent, outlives it, and holds what must not be lost with it
// (docs/keeper.md). One thread, one loop; all memory is taken at start.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent.h"
#include "fence.h"
#include "holds.h"
#include "link.h"
#include "process.h"
#include "say.h"
#include "watch.h"

enum {
    EVENTS_PER_TURN = 64,
    STARVED_MILLISECONDS = 10,
    DEFAULT_RESTART_LIMIT = 10,
    MOST_RESTARTS = 1000,
    // Descriptors that a guest takes up at most, all holds being guests; and those that are ours.
    DESCRIPTORS_PER_HOLD = VSMP_KEEPER_FDS_MAX + 1,
    OWN_DESCRIPTORS = 320,
};

static int epoll = -1;

int watch_add(int fd, uint32_t events, enum watched what, uint32_t slot) {
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)what << 32 | slot};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

void watch_change(int fd, uint32_t events, enum watched what) {
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)what << 32};
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

void watch_remove(int fd) { epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL); }

static void __attribute__((noreturn)) fail(const char *what) {
    say("%s: %s", what, strerror(errno));
    exit(EXIT_FAILED);
}

static void __attribute__((noreturn)) usage(void) {
    fprintf(stderr, "usage: vsmp-keeper [--restart-limit N] -- PROGRAM [ARGS…]\n");
    exit(EXIT_USAGE);
}

static void on_signals(int signals) {
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            agent_on_child();
        else
            agent_pass((int)info.ssi_signo, info.ssi_code == SI_KERNEL);
    }
}

static void serve(int signals) {
    struct epoll_event events[EVENTS_PER_TURN];
    for (;;) {
        const int ready = epoll_wait(epoll, events, EVENTS_PER_TURN, link_is_starved() ? STARVED_MILLISECONDS : -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        uint32_t has_come = 0;
        for (int i = 0; i < ready; i++) {
            const enum watched what = (enum watched)(events[i].data.u64 >> 32);
            has_come |= 1u << what;
            if (what == WATCHED_GUEST) link_on_guest((uint32_t)events[i].data.u64);
            // Whom nobody reads for any more blocks nothing: what it said is handled, then its end is seen.
            if (what == WATCHED_LINK && (events[i].events & (EPOLLHUP | EPOLLERR)) != 0) link_on_hang_up();
        }
        // A lease that lies in the socket when the last one has run out is there in time.
        if ((has_come & (1u << WATCHED_LINK | 1u << WATCHED_DEADLINE)) != 0) link_read();
        if ((has_come & 1u << WATCHED_DEADLINE) != 0) fence_on_deadline();
        if ((has_come & 1u << WATCHED_TICK) != 0) fence_on_tick();
        if ((has_come & 1u << WATCHED_BACK_OFF) != 0) agent_on_back_off();
        if ((has_come & 1u << WATCHED_SIGNALS) != 0) on_signals(signals);
        link_flush();
    }
}

// All signals but those that a defect of ours raises: none is to end or stop the keeper by itself. Those that ask for the end, and
// SIGCHLD, are read from the descriptor.
static int take_signals(struct inherited *inherited) {
    sigset_t blocked, read;
    sigfillset(&blocked);
    const int defects[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof defects / sizeof *defects; i++) sigdelset(&blocked, defects[i]);
    sigprocmask(SIG_SETMASK, &blocked, &inherited->signals);
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, &inherited->on_pipe);
    sigemptyset(&read);
    sigaddset(&read, SIGCHLD);
    sigaddset(&read, SIGTERM);
    sigaddset(&read, SIGINT);
    sigaddset(&read, SIGHUP);
    return signalfd(-1, &read, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void raise_descriptor_limit(struct inherited *inherited) {
    const rlim_t wanted = (rlim_t)VSMP_KEEPER_HOLDS_MAX * DESCRIPTORS_PER_HOLD + OWN_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &inherited->descriptors) != 0) fail("getrlimit");
    struct rlimit limit = {wanted, wanted};
    if (inherited->descriptors.rlim_max > wanted) limit.rlim_max = inherited->descriptors.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        limit.rlim_cur = limit.rlim_max = inherited->descriptors.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit = inherited->descriptors;
    }
    if (limit.rlim_cur <= OWN_DESCRIPTORS) {
        errno = EMFILE;
        fail("the limit of open files (ulimit -n) is too low");
    }
    link_limit((unsigned)(limit.rlim_cur < wanted ? limit.rlim_cur : wanted) - OWN_DESCRIPTORS / 2);
}

// On a host with much to do, a fence is not to wait for its turn, nor for a page of ours to come back.
static uint32_t run_first(struct inherited *inherited) {
    errno = 0;
    inherited->nice = getpriority(PRIO_PROCESS, 0);
    uint32_t flags = 0;
    if (run_ahead()) flags |= VSMP_KEEPER_IS_REALTIME;
    if (mlockall(MCL_CURRENT) == 0) flags |= VSMP_KEEPER_IS_LOCKED;
    return flags;
}

int main(int argc, char **argv) {
    unsigned long restart_limit = DEFAULT_RESTART_LIMIT;
    int at = 1;
    for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
        char *end;
        if (strcmp(argv[at], "--restart-limit") != 0 || at + 1 == argc) usage();
        restart_limit = strtoul(argv[++at], &end, 10);
        if (argv[at][0] < '0' || argv[at][0] > '9' || *end != 0 || restart_limit > MOST_RESTARTS) usage();
    }
    if (at + 1 >= argc) usage();

    struct inherited inherited;
    const int signals = take_signals(&inherited);
    if (signals < 0) fail("signalfd");
    if (access("/proc/self/fdinfo", X_OK) != 0) fail("/proc is needed");
    raise_descriptor_limit(&inherited);
    const uint32_t flags = run_first(&inherited);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || !holds_start() || !fence_start() || watch_add(signals, EPOLLIN, WATCHED_SIGNALS, 0) != 0)
        fail("cannot start");
    agent_start(argv + at + 1, (unsigned)restart_limit, &inherited, flags);
    serve(signals);
}
