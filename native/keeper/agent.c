// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "link.h"
#include "process.h"
#include "say.h"
#include "watch.h"

#define NANOSECONDS_PER_MILLISECOND 1000000ull
#define PERIOD_NANOSECONDS (60000 * NANOSECONDS_PER_MILLISECOND)
#define FIRST_PAUSE_NANOSECONDS (100 * NANOSECONDS_PER_MILLISECOND)
#ifndef LONGEST_PAUSE_MILLISECONDS // tests have less time
#define LONGEST_PAUSE_MILLISECONDS 5000
#endif
#define LONGEST_PAUSE_NANOSECONDS (LONGEST_PAUSE_MILLISECONDS * NANOSECONDS_PER_MILLISECOND)
#define GUESTS_END_MILLISECONDS 5000

enum {
    RESTARTS_MAX = 1000,
    FRUITLESS_MAX = 10, // starts in a row after which no agent got so far as to have a lease
};

static char **command;
static unsigned restart_limit;
static struct inherited inherited;
static uint32_t keeper_flags;

static pid_t pid; // 0: it is away
static uint64_t started_at, pause_nanoseconds;
static uint32_t restarts;
static uint64_t restarted_at[RESTARTS_MAX]; // the last ones, in a ring
static uint32_t fruitless;
static int back_off_timer = -1;
static bool is_ending; // it was asked to end: it will not be started again
static bool has_hung_up; // SIGHUP was passed on: if that ends it, the same

uint32_t agent_restarts(void) { return restarts; }

uint32_t agent_keeper_flags(void) { return keeper_flags; }

// Ends the guests that are left. A thread that waits for a page must not live to see its userfaultfd closed: it would read zeros.
static void kill_guests(void) {
    uint32_t killed = 0;
    for (uint32_t i = 0; i < holds_count(VSMP_KEEPER_KIND_GUEST); i++)
        if (!guest_at(i)->is_gone && process_signal(guest_at(i)->fds[0], SIGKILL) == 0) killed++;
    if (killed == 0) return;
    const uint64_t give_up_at = boot_nanoseconds() + GUESTS_END_MILLISECONDS * NANOSECONDS_PER_MILLISECOND;
    uint32_t left = 0;
    for (uint32_t i = 0; i < holds_count(VSMP_KEEPER_KIND_GUEST); i++) {
        if (guest_at(i)->is_gone) continue;
        const uint64_t now = boot_nanoseconds();
        struct pollfd polled = {.fd = guest_at(i)->fds[0], .events = POLLIN};
        if (poll(&polled, 1, now < give_up_at ? (int)((give_up_at - now) / NANOSECONDS_PER_MILLISECOND) : 0) != 1) left++;
    }
    say("%u guests were left without an agent, and are killed", killed);
    if (left > 0) say("%u guests have not ended yet", left);
}

static void __attribute__((noreturn)) finish(int code) {
    kill_guests();
    drop_all();
    exit(code);
}

static void __attribute__((noreturn)) become_agent(int socket) {
    char number[16];
    snprintf(number, sizeof number, "%d", socket);
    setenv("VSMP_KEEPER", number, 1);
    snprintf(number, sizeof number, "%u", restarts);
    if (restarts > 0)
        setenv("VSMP_RESTARTED", number, 1);
    else
        unsetenv("VSMP_RESTARTED");
    fcntl(socket, F_SETFD, 0);
    setpriority(PRIO_PROCESS, 0, inherited.nice); // a priority that is reset on fork leaves none
    setrlimit(RLIMIT_NOFILE, &inherited.descriptors);
    sigaction(SIGPIPE, &inherited.on_pipe, NULL);
    sigprocmask(SIG_SETMASK, &inherited.signals, NULL);
    execvp(command[0], command);
    const int error = errno;
    say("cannot run %s: %s", command[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
}

// False with errno.
static bool start(void) {
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) return false;
    if (!link_open(sockets[0])) {
        close(sockets[0]);
        close(sockets[1]);
        return false;
    }
    started_at = boot_nanoseconds();
    pid = fork();
    if (pid == 0) become_agent(sockets[1]);
    const int error = errno;
    close(sockets[1]);
    if (pid > 0) return true;
    pid = 0;
    link_finish();
    errno = error;
    return false;
}

static void give_up(const char *why) {
    say("%s: giving up", why);
    finish(EXIT_GIVEN_UP);
}

static void start_again(void);

static void restart_later(void) {
    const uint64_t now = boot_nanoseconds();
    if (now - started_at >= PERIOD_NANOSECONDS) pause_nanoseconds = fruitless = 0;
    // Of the last `restart_limit` ones, the first.
    const bool is_full = restarts >= restart_limit;
    if (restart_limit == 0) give_up("the agent was killed, and is not to be started again");
    if (is_full && now - restarted_at[(restarts - restart_limit) % RESTARTS_MAX] < PERIOD_NANOSECONDS) {
        char why[80];
        snprintf(why, sizeof why, "the agent was started again %u times within a minute", restart_limit);
        give_up(why);
    }
    if (fruitless++ == FRUITLESS_MAX) give_up("the agent was started again and again, and did not get so far as to serve");
    const uint64_t pause = pause_nanoseconds;
    pause_nanoseconds = pause == 0 ? FIRST_PAUSE_NANOSECONDS : pause * 2;
    if (pause_nanoseconds > LONGEST_PAUSE_NANOSECONDS) pause_nanoseconds = LONGEST_PAUSE_NANOSECONDS;
    if (pause == 0) {
        start_again();
        return;
    }
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(pause / 1000000000u), .tv_nsec = (long)(pause % 1000000000u)}};
    timerfd_settime(back_off_timer, 0, &when, NULL);
}

static void start_again(void) {
    restarted_at[restarts++ % RESTARTS_MAX] = boot_nanoseconds();
    if (start()) return;
    say("cannot start the agent: %s", strerror(errno));
    restart_later();
}

void agent_start(char **the_command, unsigned the_limit, const struct inherited *what, uint32_t flags) {
    command = the_command;
    restart_limit = the_limit;
    inherited = *what;
    keeper_flags = flags;
    back_off_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (back_off_timer >= 0 && watch_add(back_off_timer, EPOLLIN, WATCHED_BACK_OFF, 0) == 0 && start()) return;
    say("cannot start the agent: %s", strerror(errno));
    exit(EXIT_FAILED);
}

void agent_on_lease(void) { pause_nanoseconds = fruitless = 0; }

void agent_on_back_off(void) {
    uint64_t expirations;
    if (read(back_off_timer, &expirations, sizeof expirations) > 0 && pid == 0) start_again();
}

static void on_end(int status) {
    pid = 0;
    link_finish();
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
              code = WIFSIGNALED(status) ? 128 + signal : WEXITSTATUS(status);
    if (code < 128 || is_ending || (has_hung_up && code == 128 + SIGHUP)) finish(code);
    if (signal != 0)
        say("the agent was killed by signal %d (%s); %u guests are held", signal, strsignal(signal),
            holds_count(VSMP_KEEPER_KIND_GUEST));
    else
        say("the agent ended with code %d; %u guests are held", code, holds_count(VSMP_KEEPER_KIND_GUEST));
    restart_later();
}

// Takes note of a child's end at an ordinary priority. The kernel then gives up what /proc has of the child, and tries again and
// again while anybody looks at that: whom it runs ahead of, for ever, it would wait for until it is throttled, 0.95 s later.
static pid_t reap(int *status) {
    const bool is_ahead = (keeper_flags & VSMP_KEEPER_IS_REALTIME) != 0;
    if (is_ahead) sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &(struct sched_param){0});
    const pid_t child = waitpid(-1, status, WNOHANG);
    if (is_ahead && !run_ahead()) {
        say("cannot run ahead of programs again: %s", strerror(errno));
        keeper_flags &= ~(uint32_t)VSMP_KEEPER_IS_REALTIME;
    }
    return child;
}

void agent_on_child(void) {
    int status;
    for (pid_t child; (child = reap(&status)) > 0;)
        if (child == pid) on_end(status);
}

void agent_pass(int signal, bool by_terminal) {
    if (signal == SIGHUP)
        has_hung_up = true;
    else
        is_ending = true;
    if (pid != 0 && !(signal == SIGINT && by_terminal)) kill(pid, signal);
    if (pid == 0) finish(128 + signal);
}

void agent_kill(void) {
    if (pid != 0) kill(pid, SIGKILL);
}
