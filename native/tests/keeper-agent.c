// SPDX-License-Identifier: Apache-2.0
//
// keeper-agent WHAT [ARGS…]: agents that end, die, talk nonsense, and ask for too much.
#define _GNU_SOURCE
#include "keeper.h"

static int any_descriptor(void) {
    const int fd = eventfd(0, EFD_CLOEXEC);
    check(fd >= 0, "eventfd");
    return fd;
}

static pid_t start_sleeper(void) {
    const pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    return pid;
}

// ---- errors

static int kill_guest(uint64_t key, const char *reason) {
    struct message m = {.head = {.type = VSMP_KEEPER_KILL, .key = key, .data_bytes = (uint32_t)strlen(reason)}};
    memcpy(m.data, reason, strlen(reason));
    return call(&m);
}

static void check_gone(struct message *m) {
    check(m->head.key != 1 || m->head.flags == VSMP_KEEPER_IS_GONE, "LIST says that the guest is dead");
    ignore_hold(m);
}

static void What_cannot_be_is_answered_with_an_error(void) {
    const unsigned before = keeper_descriptors();
    for (unsigned round = 0; round < 300; round++) {
        const int event = any_descriptor();
        const pid_t pid = start_sleeper();
        const int pidfd = open_process(pid);
        const int pair[2] = {pidfd, event};
        check(hold(1, VSMP_KEEPER_KIND_GUEST, 0, pair, 2, "", 0) == 0, "a guest");
        check(hold(1, VSMP_KEEPER_KIND_OTHER, 0, &event, 1, "", 0) == EEXIST, "a key twice");
        check(hold_guest(2, event) == EBADF, "a guest without a pidfd");
        check(hold(3, VSMP_KEEPER_KIND_MAPPING, 2, &event, 1, "", 0) == ENOENT, "a mapping of no guest");
        check(hold(3, VSMP_KEEPER_KIND_MAPPING, 1, &event, 1, "", 0) == EBADF, "a mapping without a userfaultfd");
        check(drop(4) == ENOENT, "nothing to drop");
        check(kill_guest(4, "") == ENOENT, "nobody to kill");
        check(lease(UINT64_MAX, 0) == EINVAL, "no such time");
        check(state().guests == 1 && state().gone == 0, "one lives");
        check(kill_guest(1, round == 0 ? "it\tmust\ngo" : "") == 0, "a guest is killed");
        const struct vsmp_keeper_message gone = notice();
        check(gone.type == VSMP_KEEPER_GONE && gone.key == 1 && state().gone == 1, "its end is told");
        check(kill_guest(1, "") == ESRCH, "it is dead");
        check(list(check_gone) == 1, "it is held all the same");
        check(waitpid(pid, NULL, 0) == pid && hold_guest(5, pidfd) == ESRCH, "a guest that is dead cannot be held any more");
        check(drop(1) == 0, "drop");
        close(pidfd);
        close(event);
    }
    check(keeper_descriptors() == before, "no descriptor is left: %u, not %u", keeper_descriptors(), before);
}

// ---- limits

static uint8_t seen[VSMP_KEEPER_HOLDS_MAX + 1];

static void see(struct message *m) {
    check(m->head.key >= 1 && m->head.key <= VSMP_KEEPER_HOLDS_MAX && !seen[m->head.key], "each once: %lu", m->head.key);
    seen[m->head.key] = 1;
    uint64_t data;
    memcpy(&data, m->data, sizeof data);
    check(m->head.data_bytes == sizeof data && data == ~m->head.key, "with its data");
    ignore_hold(m);
}

static int hold_numbered(uint64_t key, int fd) {
    const uint64_t data = ~key;
    return hold(key, VSMP_KEEPER_KIND_OTHER, 0, &fd, 1, &data, sizeof data);
}

// All there may be, or, where that is fewer, as many as there may be descriptors.
static void There_are_as_many_holds_as_there_may_be(void) {
    const unsigned before = keeper_descriptors();
    const int fd = any_descriptor();
    struct rlimit limit;
    check(prlimit(getppid(), RLIMIT_NOFILE, NULL, &limit) == 0, "prlimit");
    const uint64_t fewest = limit.rlim_cur > VSMP_KEEPER_HOLDS_MAX + 1000 ? VSMP_KEEPER_HOLDS_MAX : limit.rlim_cur - 400;
    uint64_t most = 0;
    int error;
    while ((error = hold_numbered(most + 1, fd)) == 0) most++;
    check(error == (most == VSMP_KEEPER_HOLDS_MAX ? ENOSPC : EMFILE) && most >= fewest, "%lu holds, then %s", most,
          strerror(error));
    check(list(see) == most, "all come back");
    for (uint64_t key = 1; key <= most; key += 2) check(drop(key) == 0, "drop %lu", key);
    for (uint64_t key = 1; key <= most; key += 2) check(hold_numbered(key, fd) == 0, "hold %lu again", key);
    memset(seen, 0, sizeof seen);
    check(list(see) == most, "all come back again");
    struct message clear = {.head = {.type = VSMP_KEEPER_CLEAR}};
    check(call(&clear) == 0 && clear.head.a == most, "all are dropped");
    check(keeper_descriptors() == before, "no descriptor is left");
    check(hold_numbered(1, fd) == 0, "there is room again");
}

// To be run with few descriptors, and without the right to have more.
static void Too_many_descriptors_are_refused(void) {
    const unsigned before = keeper_descriptors();
    const int fd = any_descriptor(), fds[4] = {fd, fd, fd, fd};
    for (unsigned round = 0; round < 20; round++) {
        uint64_t key = 1;
        while (hold(key, VSMP_KEEPER_KIND_OTHER, 0, fds, 4, "", 0) == 0) check(key++ < 1000, "there is a limit");
        check(hold(key, VSMP_KEEPER_KIND_OTHER, 0, fds, 4, "", 0) == EMFILE && state().others == key - 1, "EMFILE");
        const pid_t pid = start_sleeper();
        const int pidfd = open_process(pid);
        while (drop(--key) == 0 && key > 1) {}
        check(hold_guest(1, pidfd) == 0 && drop(1) == 0, "there is room again");
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(pidfd);
    }
    check(keeper_descriptors() == before, "no descriptor is left");
}

// ---- nonsense

// A message that is none: a sound one with one thing wrong.
static void send_nonsense(uint64_t *random) {
    struct message m = {.head = {.magic = VSMP_KEEPER_MAGIC, .version = VSMP_KEEPER_VERSION, .serial = 7}};
    const int fd = any_descriptor(), fds[8] = {fd, fd, fd, fd, fd, fd, fd, fd};
    size_t bytes = sizeof m.head;
    unsigned fd_count = 0;
    m.head.type = VSMP_KEEPER_STATE;
    const uint64_t nonzero = next_random(random) | 1;
    switch (next_random(random) % 16) {
    case 0:
        m.head.magic ^= (uint32_t)nonzero;
        break;
    case 1:
        m.head.version ^= (uint16_t)nonzero;
        break;
    case 2:
        m.head.type = (uint16_t)(8 + nonzero % 60000);
        break;
    case 3:
        m.head.serial = 0;
        break;
    case 4:
        m.head.status = (int32_t)nonzero;
        break;
    case 5:
        m.head.reserved = (uint32_t)nonzero;
        break;
    case 6:
        bytes = next_random(random) % sizeof m.head; // 0 as well
        break;
    case 7:
        bytes += 1 + next_random(random) % 4000;
        break;
    case 8:
        m.head.data_bytes = (uint32_t)nonzero;
        break;
    case 9:
        m.head.type = VSMP_KEEPER_HOLD;
        m.head.key = 9;
        m.head.kind = (uint16_t)(4 + nonzero % 60000);
        m.head.fd_count = 1;
        fd_count = 1;
        break;
    case 10:
        m.head.type = VSMP_KEEPER_HOLD;
        m.head.key = 9;
        m.head.kind = VSMP_KEEPER_KIND_OTHER;
        m.head.fd_count = (uint16_t)(next_random(random) % 9);
        fd_count = m.head.fd_count < 4 ? m.head.fd_count + 1u : m.head.fd_count == 4 ? 3u : 8u;
        break;
    case 11:
        fd_count = 1 + (unsigned)(next_random(random) % 8);
        break;
    case 12:
        m.head.flags = (uint32_t)nonzero;
        break;
    case 13:
        m.head.key = nonzero;
        break;
    case 14:
        m.head.b = nonzero;
        break;
    default: // noise
        for (size_t i = 0; i < sizeof m / 8; i++) ((uint64_t *)&m)[i] = next_random(random);
        bytes = next_random(random) % (sizeof m.head + sizeof m.data);
        fd_count = (unsigned)(next_random(random) % 9);
    }
    check(send_raw(&m, bytes, fds, fd_count), "it is sent");
}

static void see_one(struct message *m) {
    check(m->head.key == 42 && m->head.data_bytes == 5 && memcmp(m->data, "whole", 5) == 0, "it is whole");
    ignore_hold(m);
}

static void Nonsense_costs_the_agent_its_life_and_nothing_else(uint64_t seed) {
    uint64_t random = seed;
    if (restarted() == 0) {
        printf("seed %lu\n", seed);
        fflush(stdout);
        const int fd = any_descriptor();
        check(hold(42, VSMP_KEEPER_KIND_OTHER, 0, &fd, 1, "whole", 5) == 0, "something is held");
        send_nonsense(&random);
        struct pollfd polled = {.fd = keeper, .events = POLLRDHUP};
        poll(&polled, 1, PATIENCE_MILLISECONDS);
        for (;;) pause(); // as good as dead
    }
    check(list(see_one) == 1 && state().restarts == 1, "what is held is still held (seed %lu)", seed);
}

// ---- ends

static volatile sig_atomic_t terms, hups, ints;

static void on_signal(int signal) {
    terms += signal == SIGTERM;
    hups += signal == SIGHUP;
    ints += signal == SIGINT;
}

static void Wait_for_signals(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigset_t set, none;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, &none);
    check(!sigismember(&none, SIGTERM) && !sigismember(&none, SIGUSR1), "no signal is blocked at start");
    sigdelset(&none, SIGTERM);
    printf("waiting\n");
    fflush(stdout);
    for (int told = 0; terms < 2;) {
        sigsuspend(&none);
        if (terms + hups + ints == told) continue;
        told = terms + hups + ints;
        printf("TERM %d HUP %d INT %d\n", (int)terms, (int)hups, (int)ints);
        fflush(stdout);
    }
    _exit(42);
}

// What an agent inherits but for its socket is what the keeper inherited: nothing that only the keeper can have opened.
static void Nothing_else_is_inherited(void) {
    DIR *folder = opendir("/proc/self/fd");
    check(folder != NULL, "/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const int fd = atoi(entry->d_name);
        char target[64] = "";
        if (entry->d_name[0] == '.' || readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) < 0) continue;
        check(fd == keeper || (strncmp(target, "anon_inode:", 11) != 0 && strncmp(target, "socket:", 7) != 0),
              "descriptor %d: %s", fd, target);
    }
    closedir(folder);
    check(sched_getscheduler(0) == SCHED_OTHER, "the priority is not inherited");
    struct sigaction action;
    sigaction(SIGPIPE, NULL, &action);
    check(action.sa_handler == SIG_DFL, "SIGPIPE ends who writes to nobody");
}

// Passes its socket to who listens at a path, and lives until that closes the connection.
static void Lend(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    check(strlen(path) < sizeof address.sun_path, "the path is short");
    strcpy(address.sun_path, path);
    const int borrower = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    check(borrower >= 0 && connect(borrower, (struct sockaddr *)&address, sizeof address) == 0, "connect %s", path);
    const int lent = keeper;
    keeper = borrower;
    const uint32_t count = restarted();
    check(send_raw(&count, sizeof count, &lent, 1), "the socket is lent");
    close(lent);
    char code;
    if (read(borrower, &code, 1) == 1) _exit(code);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "", *argument = argc > 2 ? argv[2] : "";
    connect_keeper();
    if (strcmp(what, "errors") == 0)
        What_cannot_be_is_answered_with_an_error();
    else if (strcmp(what, "most") == 0)
        There_are_as_many_holds_as_there_may_be();
    else if (strcmp(what, "few") == 0)
        Too_many_descriptors_are_refused();
    else if (strcmp(what, "nonsense") == 0)
        Nonsense_costs_the_agent_its_life_and_nothing_else(strtoull(argument, NULL, 0));
    else if (strcmp(what, "clean") == 0)
        Nothing_else_is_inherited();
    else if (strcmp(what, "wait") == 0)
        Wait_for_signals();
    else if (strcmp(what, "lend") == 0)
        Lend(argument);
    else if (strcmp(what, "exit") == 0)
        return atoi(argument);
    else if (strcmp(what, "serve") == 0) {
        check(lease(now() + 10000 * MILLISECOND, 0) == 0, "a lease");
        raise(atoi(argument));
    } else if (strcmp(what, "die") == 0)
        raise(atoi(argument));
    else
        check(false, "usage: keeper-agent errors|most|few|nonsense SEED|clean|wait|lend PATH|exit CODE|die SIGNAL|serve SIGNAL");
    return passed(what);
}
