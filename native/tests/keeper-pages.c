// SPDX-License-Identifier: Apache-2.0
//
// keeper-pages SEED KILLS [forget|leave]: an agent with a guest that reads pages, all of which fault. The agent is killed at random
// moments, KILLS times, and started again by its keeper, from which it gets everything back. The guest prints one line: that it read
// what it should have read, or what it read instead.
//   forget   the agent takes the hold of its guest's memory back before it is killed: the guest must be seen to read zeros
//   leave    the agent ends with code 3 while its guest is blocked in a fault: the guest must not live to print anything
#define _GNU_SOURCE
#include "keeper.h"

enum { PAGES = 192, PAGE_BYTES = 4096, WORDS = PAGE_BYTES / 8, GUEST_KEY = 0x67, MAPPING_KEY = 0x6d };

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static uint64_t seed;

// What an agent must know to serve a mapping, held with it.
struct mapping {
    uint64_t address;
    int faults, frames;
};

static struct mapping mapping = {.faults = -1};

// ---- guest

static void send_descriptor(int socket, int fd, uint64_t address) {
    const int before = keeper;
    keeper = socket;
    check(send_raw(&address, sizeof address, &fd, 1), "the agent takes a userfaultfd");
    keeper = before;
}

static void *map_frames(int frames) {
    void *memory = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, frames, 0);
    check(memory != MAP_FAILED, "mmap");
    return memory;
}

static void __attribute__((noreturn)) be_guest(int socket, int frames) {
    signal(SIGPIPE, SIG_IGN);
    const int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM};
    check(faults >= 0 && ioctl(faults, UFFDIO_API, &api) == 0, "userfaultfd");
    const uint64_t *memory = map_frames(frames);
    struct uffdio_register range = {.range = {(uintptr_t)memory, PAGES * PAGE_BYTES},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR};
    check(ioctl(faults, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER");
    send_descriptor(socket, faults, (uintptr_t)memory);
    // Its own copy stays until the agent says that the keeper has one.
    char go;
    if (read(socket, &go, 1) != 1) _exit(0);
    close(faults);
    close(socket);

    uint64_t random = seed + 1;
    unsigned order[PAGES];
    for (unsigned i = 0; i < PAGES; i++) {
        const unsigned j = (unsigned)(next_random(&random) % (i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    for (unsigned i = 0; i < PAGES; i++)
        for (unsigned word = 0; word < WORDS; word++) {
            const uint64_t index = (uint64_t)order[i] * WORDS + word, got = ((const volatile uint64_t *)memory)[index];
            check(got == pattern(seed, index), "guest: word %u of page %u is %#lx (seed %lu)", word, order[i], got, seed);
        }
    printf("guest: read all of it\n");
    fflush(stdout);
    _exit(0);
}

// ---- agent

static void start_guest(const char *what) {
    int sockets[2];
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) == 0, "socketpair");
    mapping.frames = memfd_create("frames", MFD_CLOEXEC);
    check(mapping.frames >= 0 && ftruncate(mapping.frames, PAGES * PAGE_BYTES) == 0, "memfd_create");
    const pid_t pid = fork();
    if (pid == 0) {
        close(sockets[0]);
        close(keeper);
        be_guest(sockets[1], mapping.frames);
    }
    close(sockets[1]);

    struct iovec part = {&mapping.address, sizeof mapping.address};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr envelope = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    check(recvmsg(sockets[0], &envelope, MSG_CMSG_CLOEXEC) == sizeof mapping.address, "the guest passes its userfaultfd");
    memcpy(&mapping.faults, CMSG_DATA(CMSG_FIRSTHDR(&envelope)), sizeof(int));

    check(hold_guest(GUEST_KEY, open_process(pid)) == 0, "the guest is held");
    const int fds[2] = {mapping.faults, mapping.frames};
    check(hold(MAPPING_KEY, VSMP_KEEPER_KIND_MAPPING, GUEST_KEY, fds, 2, &mapping.address, sizeof mapping.address) == 0,
          "the mapping is held");
    if (strcmp(what, "forget") == 0) check(drop(MAPPING_KEY) == 0, "the mapping is dropped");
    check(write(sockets[0], "!", 1) == 1, "the guest may go");
    close(sockets[0]);
}

static bool guest_is_gone;

static void take_back(struct message *m) {
    if (m->head.key == GUEST_KEY) {
        check(m->head.kind == VSMP_KEEPER_KIND_GUEST && m->head.fd_count == 1, "the guest comes back as it was held");
        guest_is_gone = (m->head.flags & VSMP_KEEPER_IS_GONE) != 0;
        close(m->fds[0]);
        return;
    }
    check(m->head.key == MAPPING_KEY && m->head.kind == VSMP_KEEPER_KIND_MAPPING && m->head.a == GUEST_KEY,
          "so does its mapping");
    check(m->head.fd_count == 2 && m->head.data_bytes == sizeof mapping.address && mapping.faults < 0, "once, with all it had");
    memcpy(&mapping.address, m->data, sizeof mapping.address);
    mapping.faults = m->fds[0];
    mapping.frames = m->fds[1];
}

static void install(uint64_t page) {
    uint64_t words[WORDS];
    for (uint64_t i = 0; i < WORDS; i++) words[i] = pattern(seed, page * WORDS + i);
    check(pwrite(mapping.frames, words, PAGE_BYTES, (off_t)(page * PAGE_BYTES)) == PAGE_BYTES, "pwrite");
    struct uffdio_continue install = {.range = {mapping.address + page * PAGE_BYTES, PAGE_BYTES}};
    while (ioctl(mapping.faults, UFFDIO_CONTINUE, &install) != 0) {
        if (errno == EEXIST) ioctl(mapping.faults, UFFDIO_WAKE, &install.range);
        if (errno != EAGAIN) return; // the page is there, or the guest is gone
    }
}

static bool take_fault(uint64_t *page) {
    struct uffd_msg fault;
    if (read(mapping.faults, &fault, sizeof fault) != sizeof fault || fault.event != UFFD_EVENT_PAGEFAULT) return false;
    *page = (fault.arg.pagefault.address - mapping.address) / PAGE_BYTES;
    return true;
}

static void serve(unsigned kills, uint64_t *random) {
    if (restarted() < kills) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
        struct itimerspec when = {.it_value.tv_nsec = 1 + (long)(next_random(random) % 8000000)};
        timer_t timer;
        check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &when, NULL) == 0, "timer");
    }
    while (!guest_is_gone) {
        struct pollfd polled[2] = {{.fd = keeper, .events = POLLIN}, {.fd = mapping.faults, .events = POLLIN}};
        check(poll(polled, 2, PATIENCE_MILLISECONDS) > 0, "the guest goes on (seed %lu)", seed);
        if (polled[0].revents != 0) {
            const struct vsmp_keeper_message gone = notice();
            check(gone.type == VSMP_KEEPER_GONE && gone.key == GUEST_KEY, "the guest's end is told");
            guest_is_gone = true;
        }
        uint64_t page;
        if ((polled[1].revents & POLLIN) != 0 && take_fault(&page)) install(page);
    }
}

// The guest has touched something.
static void await_fault(void) {
    struct pollfd polled = {.fd = mapping.faults, .events = POLLIN};
    uint64_t page;
    check(poll(&polled, 1, PATIENCE_MILLISECONDS) == 1 && take_fault(&page), "the guest faults");
}

int main(int argc, char **argv) {
    check(argc >= 3, "usage: keeper-pages SEED KILLS [forget|leave]");
    seed = strtoull(argv[1], NULL, 0);
    const unsigned kills = (unsigned)atoi(argv[2]);
    const char *what = argc > 3 ? argv[3] : "";
    uint64_t random = seed + 1000 * restarted();
    connect_keeper();
    const unsigned found = list(take_back);
    if (strcmp(what, "forget") == 0 && found > 0) {
        while (!guest_is_gone) guest_is_gone = notice().type == VSMP_KEEPER_GONE;
        return 0;
    }
    if (mapping.faults >= 0) {
        // A fault that the last agent had read is not told again, unless who waits is woken.
        struct uffdio_range all = {mapping.address, PAGES * PAGE_BYTES};
        check(ioctl(mapping.faults, UFFDIO_WAKE, &all) == 0, "UFFDIO_WAKE");
    } else {
        // Killed before the keeper had it all, so the guest was never told to go.
        if (found > 0) check(drop(GUEST_KEY) == 0, "what is left of a beginning is dropped");
        guest_is_gone = false;
        start_guest(what);
    }
    if (*what != 0) {
        await_fault();
        if (strcmp(what, "leave") == 0) return 3;
        raise(SIGKILL);
    }
    serve(kills, &random);
    return 0;
}
