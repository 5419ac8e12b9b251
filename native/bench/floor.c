// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
//
// vsmp-floor WORKLOAD PAGES [whole]
//
// What bare C pays for what an agent does, on the same machine, with the same processes: a guest whose memory is behind userfaultfd, the
// agent that answers its faults, and a peer that it asks over TCP. Nobody else's page is looked after, nothing is checked, no message
// has more than a header and a page: nothing that keeps memory coherent can be faster by more than chance.
//
//     touch      the guest writes fresh pages of a tmpfs file; no agent
//     fault      the guest reads; the agent installs a page that it has
//     fetch      the same, but the agent asks the peer for the page first, one at a time
//     pipelined  the same, with WINDOW requests on their way
//     upgrade    the guest writes a write-protected page; the agent asks the peer, whose answer has no page, and lifts the protection
//     handoff    two guests write a page by turns, each with an agent: protect, read, punch, send, install
//     stream     the peer sends all pages, the agent installs BATCH at a time, the guest reads behind
//     protect    a process write-protects all of its pages at once, ROUNDS times, and has written each of them before; no agent
//     exchange   two streams of PAGES pages at the same time, the one's peer beside the other's guest; from when both begin until both are done
//
// Guests read or write a word of a page; with `whole`, and always for exchange, those that read read all words.
//
// Prints the workload's name and the nanoseconds of each access, as the guest sees them; for pipelined, stream and exchange, of all together.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "common.h"
#include "pin.h"
#include "words.h"

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

enum {
    WINDOW = 16,
    BATCH = 16,
    ROUNDS = 9,
    MESSAGE_BYTES = 128,
    MAX_PAGES = 1 << 18,
    ASK_NOTHING = 0,
    ASK_PAGE = 1,
    ASK_ALL = 2
};

// A frame's header has as many bytes.
struct message {
    uint64_t page, what;
    char rest[MESSAGE_BYTES - 16];
};
struct data {
    struct message header;
    char page[PAGE_BYTES];
};

static uint64_t page_count;
static bool is_whole;

static void __attribute__((noreturn)) fail_errno(const char *what) { fail(EXIT_UNABLE, "%s: %s", what, strerror(errno)); }

static void send_all(int to, const void *bytes, size_t count) {
    for (const char *at = bytes; count > 0;) {
        const ssize_t sent = send(to, at, count, MSG_NOSIGNAL);
        if (sent <= 0) fail_errno("send");
        at += sent;
        count -= (size_t)sent;
    }
}

// False at the end of the stream, if nothing has come before it.
static bool receive_all(int from, void *bytes, size_t count) {
    char *at = bytes;
    for (size_t left = count; left > 0;) {
        const ssize_t received = recv(from, at, left, 0);
        if (received == 0 && left == count) return false;
        if (received <= 0) fail_errno("recv");
        at += received;
        left -= (size_t)received;
    }
    return true;
}

// Two ends of a TCP connection over loopback.
static void connect_pair(int ends[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || ends[0] < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0 ||
        connect(ends[0], (struct sockaddr *)&address, length) != 0 || (ends[1] = accept(listener, NULL, NULL)) < 0)
        fail_errno("a TCP connection over loopback");
    for (int i = 0; i < 2; i++) setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
}

static int new_memory(void) {
    const int file = memfd_create("vsmp-floor", 0);
    if (file < 0 || ftruncate(file, (off_t)(page_count * PAGE_BYTES)) != 0) fail_errno("memfd");
    return file;
}

static char *map(int file) {
    char *memory = mmap(NULL, page_count * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) fail_errno("mmap");
    return memory;
}

// A userfaultfd over memory.
static int open_faults(char *memory, int more_flags) {
    const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), flags = O_CLOEXEC | more_flags;
    const int faults = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, flags) : (int)syscall(SYS_userfaultfd, flags);
    struct uffdio_api api = {.api = UFFD_API,
                             .features =
                                 UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
    struct uffdio_register range = {.range = {(uintptr_t)memory, page_count * PAGE_BYTES},
                                    .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP};
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api) != 0 || ioctl(faults, UFFDIO_REGISTER, &range) != 0)
        fail_errno("userfaultfd");
    return faults;
}

// One over the guest's memory, given to the agent at the other end of the socket, with the address. One that is to be polled must not block.
static void give_faults(int to, char *memory, bool is_polled) {
    const int faults = open_faults(memory, is_polled ? O_NONBLOCK : 0);
    char control[CMSG_SPACE(sizeof faults)] = {0};
    struct iovec address = {&memory, sizeof memory};
    struct msghdr message = {.msg_iov = &address, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof faults)};
    memcpy(CMSG_DATA(header), &faults, sizeof faults);
    char ready;
    if (sendmsg(to, &message, 0) < 0 || recv(to, &ready, 1, 0) != 1) fail_errno("passing a userfaultfd on");
}

struct agent {
    int faults; // the guest's userfaultfd
    int file; // its memory
    uint64_t base; // where the guest has it
    int peer;
};

static void take_faults(struct agent *agent, int from) {
    char control[CMSG_SPACE(sizeof agent->faults)];
    struct iovec address = {&agent->base, sizeof agent->base};
    struct msghdr message = {.msg_iov = &address, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(from, &message, 0) <= 0 || CMSG_FIRSTHDR(&message) == NULL) fail_errno("taking a userfaultfd");
    memcpy(&agent->faults, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof agent->faults);
}

static void let_go(int guest) {
    if (send(guest, "", 1, MSG_NOSIGNAL) != 1) fail_errno("send");
}

static uint64_t next_fault(const struct agent *agent) {
    struct uffd_msg message;
    if (read(agent->faults, &message, sizeof message) != sizeof message) fail_errno("reading a fault");
    return (message.arg.pagefault.address - agent->base) / PAGE_BYTES;
}

static void install(const struct agent *agent, uint64_t page, const void *content, uint64_t count) {
    struct uffdio_copy copy = {.dst = agent->base + page * PAGE_BYTES, .src = (uintptr_t)content, .len = count * PAGE_BYTES};
    if (ioctl(agent->faults, UFFDIO_COPY, &copy) != 0) fail_errno("UFFDIO_COPY");
}

static void protect(const struct agent *agent, uint64_t page, uint64_t count, bool is_protected) {
    struct uffdio_writeprotect range = {.range = {agent->base + page * PAGE_BYTES, count * PAGE_BYTES},
                                        .mode = is_protected ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
    if (ioctl(agent->faults, UFFDIO_WRITEPROTECT, &range) != 0) fail_errno("UFFDIO_WRITEPROTECT");
}

static void ask(int peer, uint64_t page, uint64_t what) {
    const struct message request = {.page = page, .what = what};
    send_all(peer, &request, sizeof request);
}

// The peer: answers until the connection ends.
static void serve(int agent) {
    static struct data answer;
    struct message request;
    memset(answer.page, 0x5a, sizeof answer.page);
    while (receive_all(agent, &request, sizeof request)) {
        answer.header = request;
        if (request.what == ASK_ALL) {
            for (uint64_t page = 0; page < page_count; page++) send_all(agent, answer.page, sizeof answer.page);
        } else {
            send_all(agent, &answer, request.what == ASK_PAGE ? sizeof answer : sizeof answer.header);
        }
    }
}

static void agent_fault(const struct agent *agent) {
    static char content[PAGE_BYTES];
    for (uint64_t i = 0; i < page_count; i++) install(agent, next_fault(agent), content, 1);
}

static void agent_fetch(const struct agent *agent) {
    static struct data answer;
    for (uint64_t i = 0; i < page_count; i++) {
        ask(agent->peer, next_fault(agent), ASK_PAGE);
        if (!receive_all(agent->peer, &answer, sizeof answer)) fail_errno("the peer");
        install(agent, answer.header.page, answer.page, 1);
    }
}

static void agent_pipelined(const struct agent *agent) {
    static struct data answer;
    (void)next_fault(agent); // the guest reads in order: the others need not be waited for
    uint64_t asked = 0;
    for (uint64_t installed = 0; installed < page_count; installed++) {
        for (; asked < page_count && asked < installed + WINDOW; asked++) ask(agent->peer, asked, ASK_PAGE);
        if (!receive_all(agent->peer, &answer, sizeof answer)) fail_errno("the peer");
        install(agent, answer.header.page, answer.page, 1);
    }
}

static void agent_upgrade(const struct agent *agent) {
    struct message answer;
    for (uint64_t i = 0; i < page_count; i++) {
        ask(agent->peer, next_fault(agent), ASK_NOTHING);
        if (!receive_all(agent->peer, &answer, sizeof answer)) fail_errno("the peer");
        protect(agent, answer.page, 1, false);
    }
}

static void agent_stream(const struct agent *agent) {
    static char content[BATCH * PAGE_BYTES];
    ask(agent->peer, next_fault(agent), ASK_ALL);
    for (uint64_t page = 0; page < page_count; page += BATCH) {
        if (!receive_all(agent->peer, content, sizeof content)) fail_errno("the peer");
        install(agent, page, content, BATCH);
    }
}

// Both agents: a fault here asks the other, a request from there gives the page up.
static void agent_handoff(const struct agent *agent, int guest) {
    static struct data data;
    struct pollfd sources[] = {
        {.fd = agent->faults, .events = POLLIN}, {.fd = agent->peer, .events = POLLIN}, {.fd = guest, .events = POLLIN}};
    while (poll(sources, 3, -1) > 0) {
        if ((sources[0].revents & POLLIN) != 0) ask(agent->peer, next_fault(agent), ASK_PAGE);
        if ((sources[1].revents & (POLLIN | POLLHUP)) != 0) {
            if (!receive_all(agent->peer, &data.header, sizeof data.header)) return;
            const uint64_t page = data.header.page;
            const off_t at = (off_t)(page * PAGE_BYTES);
            if (data.header.what == ASK_PAGE) {
                protect(agent, page, 1, true);
                if (pread(agent->file, data.page, PAGE_BYTES, at) != PAGE_BYTES ||
                    fallocate(agent->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, PAGE_BYTES) != 0)
                    fail_errno("giving a page up");
                data.header.what = ASK_NOTHING;
                send_all(agent->peer, &data, sizeof data);
            } else {
                if (!receive_all(agent->peer, data.page, PAGE_BYTES)) fail_errno("the peer");
                install(agent, page, data.page, 1);
            }
        }
        if ((sources[2].revents & POLLHUP) != 0) return;
    }
}

static uint64_t timed_touch(volatile char *at, bool is_write) {
    const uint64_t before = nanoseconds();
    if (is_write)
        *at = 1;
    else if (is_whole)
        (void)sum_of_page((const uint64_t *)at);
    else
        (void)*at;
    return nanoseconds() - before;
}

static void print(const char *workload, const uint64_t *took, uint64_t count) {
    printf("%s", workload);
    for (uint64_t i = 0; i < count; i++) printf(" %" PRIu64, took[i]);
    printf("\n");
    fflush(stdout);
}

static uint64_t *new_times(void) {
    uint64_t *took = calloc(page_count, sizeof *took);
    if (took == NULL) fail_errno("memory");
    return took;
}

static pid_t start(void) {
    const pid_t child = fork();
    if (child < 0) fail_errno("fork");
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

static void await(int count) {
    for (int status; count > 0; count--) {
        if (wait(&status) < 0) fail_errno("wait");
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail(EXIT_UNABLE, "a process of the floor has failed");
    }
}

static void run_touch(const char *workload) {
    pin(0);
    char *memory = map(new_memory());
    uint64_t *took = new_times();
    for (uint64_t i = 0; i < page_count; i++) took[i] = timed_touch(memory + i * PAGE_BYTES, true);
    print(workload, took, page_count);
}

static void run_protect(const char *workload) {
    pin(0);
    const int file = new_memory();
    volatile char *memory = map(file);
    // Before the userfaultfd: nobody would answer.
    for (uint64_t i = 0; i < page_count; i++) memory[i * PAGE_BYTES] = 1;
    const struct agent self = {.faults = open_faults((char *)memory, 0), .base = (uintptr_t)memory};
    uint64_t took[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        for (uint64_t i = 0; i < page_count; i++) memory[i * PAGE_BYTES] = 1;
        const uint64_t before = nanoseconds();
        protect(&self, 0, page_count, true);
        took[round] = nanoseconds() - before;
        protect(&self, 0, page_count, false);
    }
    print(workload, took, ROUNDS);
}

// This process becomes a guest, beside its agent; the agent's peer is on the other side.
static char *new_guest(int side, void (*answer)(const struct agent *), bool is_upgrade) {
    int wire[2], local[2];
    connect_pair(wire);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, local) != 0) fail_errno("socketpair");
    const int file = new_memory();
    if (start() == 0) { // the peer
        pin(1 - side);
        close(wire[0]);
        serve(wire[1]);
        exit(0);
    }
    close(wire[1]);
    pin(side);
    if (start() == 0) { // the agent
        struct agent agent = {.file = file, .peer = wire[0]};
        take_faults(&agent, local[0]);
        if (is_upgrade) {
            static char content[PAGE_BYTES];
            for (uint64_t i = 0; i < page_count; i++) install(&agent, i, content, 1);
            protect(&agent, 0, page_count, true);
        }
        let_go(local[0]);
        answer(&agent);
        exit(0);
    }
    close(wire[0]);
    char *memory = map(file);
    give_faults(local[1], memory, false);
    return memory;
}

static void run_one_guest(const char *workload, void (*answer)(const struct agent *), bool is_upgrade, bool is_total) {
    char *memory = new_guest(0, answer, is_upgrade);
    uint64_t *took = new_times();
    const uint64_t before = nanoseconds();
    for (uint64_t i = 0; i < page_count; i++) {
        // Backwards, as vsmp-fault does; in order, where the agent counts on it.
        const uint64_t page = is_total ? i : page_count - 1 - i;
        took[i] = timed_touch(memory + page * PAGE_BYTES, is_upgrade);
    }
    const uint64_t all = nanoseconds() - before;
    print(workload, is_total ? &all : took, is_total ? 1 : page_count);
    await(2);
}

static void run_exchange(const char *workload) {
    pthread_barrier_t *both = mmap(NULL, sizeof *both, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t between_processes;
    if (both == MAP_FAILED || pthread_barrierattr_init(&between_processes) != 0 ||
        pthread_barrierattr_setpshared(&between_processes, PTHREAD_PROCESS_SHARED) != 0 ||
        pthread_barrier_init(both, &between_processes, 2) != 0)
        fail_errno("a barrier");
    const int side = start() == 0;
    const char *memory = new_guest(side, agent_stream, false);
    (void)pthread_barrier_wait(both);
    const uint64_t before = nanoseconds();
    for (uint64_t i = 0; i < page_count; i++) (void)sum_of_page((const uint64_t *)(memory + i * PAGE_BYTES));
    (void)pthread_barrier_wait(both);
    const uint64_t all = nanoseconds() - before;
    await(2);
    if (side == 1) exit(0);
    await(1);
    print(workload, &all, 1);
}

// One page, as many times as the others touch pages. The guests take turns over pipes.
static void run_handoff(const char *workload) {
    const uint64_t turns = page_count;
    page_count = 1;
    int wire[2], baton[2][2];
    connect_pair(wire);
    if (pipe(baton[0]) != 0 || pipe(baton[1]) != 0) fail_errno("pipe");
    for (int side = 0; side < 2; side++) {
        int local[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, local) != 0) fail_errno("socketpair");
        const int file = new_memory();
        pin(side);
        if (start() == 0) {
            close(local[1]);
            close(wire[1 - side]);
            struct agent agent = {.file = file, .peer = wire[side]};
            take_faults(&agent, local[0]);
            static char content[PAGE_BYTES];
            if (side == 0) install(&agent, 0, content, 1); // the other guest begins
            let_go(local[0]);
            agent_handoff(&agent, local[0]);
            exit(0);
        }
        close(local[0]);
        if (start() == 0) {
            close(wire[0]);
            close(wire[1]);
            char *memory = map(file), turn = 0;
            uint64_t *took = calloc(turns, sizeof *took);
            if (took == NULL) fail_errno("memory");
            give_faults(local[1], memory, true);
            if (side == 1 && write(baton[1][1], &turn, 1) != 1) fail_errno("pipe");
            for (uint64_t i = 0; i < turns; i++) {
                if (read(baton[side][0], &turn, 1) != 1) fail_errno("pipe");
                took[i] = timed_touch(memory, true);
                if (write(baton[1 - side][1], &turn, 1) != 1) fail_errno("pipe");
            }
            // The other takes the page once more, from a guest that must still be there.
            if (side == 1 && read(baton[1][0], &turn, 1) != 1) fail_errno("pipe");
            if (side == 1) print(workload, took, turns);
            exit(0);
        }
        close(local[1]);
    }
    close(wire[0]);
    close(wire[1]);
    await(4);
}

int main(int argc, char **argv) {
    is_whole = argc == 4 && strcmp(argv[3], "whole") == 0;
    if (argc != 3 && !is_whole)
        fail(EXIT_USAGE, "usage: vsmp-floor touch|fault|fetch|pipelined|upgrade|handoff|stream|protect|exchange PAGES [whole]");
    const char *workload = argv[1];
    page_count = number("PAGES", argv[2], BATCH, MAX_PAGES) / BATCH * BATCH;
    if (strcmp(workload, "touch") == 0)
        run_touch(workload);
    else if (strcmp(workload, "fault") == 0)
        run_one_guest(workload, agent_fault, false, false);
    else if (strcmp(workload, "fetch") == 0)
        run_one_guest(workload, agent_fetch, false, false);
    else if (strcmp(workload, "pipelined") == 0)
        run_one_guest(workload, agent_pipelined, false, true);
    else if (strcmp(workload, "upgrade") == 0)
        run_one_guest(workload, agent_upgrade, true, false);
    else if (strcmp(workload, "handoff") == 0)
        run_handoff(workload);
    else if (strcmp(workload, "stream") == 0)
        run_one_guest(workload, agent_stream, false, true);
    else if (strcmp(workload, "protect") == 0)
        run_protect(workload);
    else if (strcmp(workload, "exchange") == 0)
        run_exchange(workload);
    else
        fail(EXIT_USAGE, "there is no workload %s", workload);
    return 0;
}
