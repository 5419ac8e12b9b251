// SPDX-License-Identifier: Apache-2.0
//
// libvsmp under the sanitizers: each test is a rank in a process of its own, with an agent in a thread beside it, which answers well or
// badly. That no memory is left behind the leak sanitizer tells as the process ends; that no descriptor is, the tests.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "../guest/protocol.h"
#include "check.h"
#include "vsmp.h"

enum { RANK = 1, RANKS = 3, REGION = 7, THREADS = 8, CALLS = 300 };
static void *const address = (void *)0x200000000000;
static const size_t region_bytes = 3 << 20, mapped_bytes = 4 << 20;

// What the agent does when the rank comes to a barrier, and to an attach.
enum trick {
    NO_TRICK,
    SHORT,
    WRONG_MAGIC,
    WRONG_VERSION,
    WRONG_LENGTH,
    OVERSIZED,
    WRONG_SERIAL,
    WRONG_TYPE,
    TWICE,
    GONE,
    NO_FILE,
    REFUSED,
    KILLED
};
static const char *const trick_names[] = {"",          "short",        "wrong magic", "wrong version", "wrong length",
                                          "oversized", "wrong serial", "wrong type",  "twice",         "gone",
                                          "no file",   "refused",      "killed"};

static struct {
    enum trick trick;
    char directory[32];
    struct sockaddr_un at;
    int listener, connection;
    pthread_t thread;
    unsigned held_count; // fetch-and-adds that are answered all at once, the last first
    struct vsmp_guest_message held[THREADS];
    unsigned hold_until;
    unsigned kills; // how often it was, and another one took its place
    struct {
        uint32_t serial;
        int64_t value;
    } done[VSMP_GUEST_SLOTS]; // what it leaves to the next one: the last that was done in each slot
} agent;

// ---- the agent

struct packet {
    struct vsmp_guest_message message;
    char data[VSMP_GUEST_DATA_MAX];
};

// With descriptors that nobody has asked for, where the answer is a bad one.
static void send_packet(const struct packet *packet, size_t bytes, int file, bool is_bad) {
    const int fds[2] = {file, file};
    const unsigned count = is_bad ? 2 : 1;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control = {0};
    struct iovec part = {(void *)(uintptr_t)packet, bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (file >= 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header =
            (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))};
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
    }
    const ssize_t sent = sendmsg(agent.connection, &message, MSG_NOSIGNAL);
    check(sent == (ssize_t)bytes || (sent < 0 && errno == EPIPE), "the agent sends %zu bytes: %m", bytes); // or the rank has left
}

static void answer(struct packet *packet, int file) {
    packet->message.type |= VSMP_GUEST_REPLY;
    send_packet(packet, sizeof packet->message + packet->message.text_bytes, file, false);
}

static void answer_barrier(struct packet *packet) {
    static struct {
        struct packet packet;
        char more[64];
    } large;
    const int file = memfd_create("unwanted", MFD_CLOEXEC);
    struct packet bad = {.message = packet->message};
    bad.message.type |= VSMP_GUEST_REPLY;
    size_t bytes = sizeof bad.message;
    switch (agent.trick) {
    case SHORT:
        bytes = sizeof bad.message - 1;
        break;
    case WRONG_MAGIC:
        bad.message.magic++;
        break;
    case WRONG_VERSION:
        bad.message.version++;
        break;
    case WRONG_LENGTH:
        bad.message.text_bytes = 1;
        break;
    case OVERSIZED:
        large.packet.message = bad.message;
        large.packet.message.text_bytes = sizeof large - sizeof bad.message;
        send_packet(&large.packet, sizeof large, file, true);
        close(file);
        return;
    case WRONG_SERIAL:
        bad.message.serial++;
        break;
    case WRONG_TYPE:
        bad.message.type++;
        break;
    default:
        break;
    }
    if (agent.trick == GONE) {
        shutdown(agent.connection, SHUT_RDWR);
    } else if (agent.trick != NO_TRICK) {
        send_packet(&bad, bytes, file, true);
    }
    // After those that say nothing to the rank, or have said it already, the right one.
    if (agent.trick == NO_TRICK || agent.trick == WRONG_SERIAL || agent.trick == WRONG_TYPE || agent.trick == TWICE)
        answer(packet, -1);
    close(file);
}

static void answer_attach(struct packet *packet) {
    const int file = memfd_create("frames", MFD_CLOEXEC);
    check(ftruncate(file, (off_t)mapped_bytes) == 0, "ftruncate");
    packet->message.b = packet->message.a;
    packet->message.a = REGION;
    packet->message.c = (uintptr_t)address;
    packet->message.d = mapped_bytes;
    packet->message.text_bytes = VSMP_GUEST_TEXT_MAX; // longer than any protocol's name
    memset(packet->data, 'p', VSMP_GUEST_TEXT_MAX);
    if (agent.trick == REFUSED) packet->message.status = ENOMEM;
    answer(packet, agent.trick == NO_FILE ? -1 : file);
    close(file);
}

static void hold_or_answer(const struct packet *packet) {
    static int64_t total;
    agent.held[agent.held_count++] = packet->message;
    if (agent.held_count < agent.hold_until) return;
    while (agent.held_count > 0) {
        struct packet held = {.message = agent.held[--agent.held_count]};
        const int64_t before = total;
        total += (int64_t)held.message.b;
        held.message.a = (uint64_t)before;
        answer(&held, -1);
    }
}

// A fetch-and-add, where agents are killed all the time: before it is done, when it is done but not answered, or not at all.
static void count_or_die(struct packet *packet) {
    static int64_t total;
    static uint64_t random = 42;
    struct vsmp_guest_message *m = &packet->message;
    check(m->slot < THREADS + 1, "slot %u of a rank with %u threads", m->slot, THREADS);
    const uint64_t fate = next_random(&random) >> 58;
    if (fate != 0) {
        if (agent.done[m->slot].serial != m->serial) {
            check((int32_t)(m->serial - agent.done[m->slot].serial) > 0, "call %u comes after %u", m->serial,
                  agent.done[m->slot].serial);
            agent.done[m->slot].serial = m->serial;
            agent.done[m->slot].value = total;
            total += (int64_t)m->b;
        }
        m->a = (uint64_t)agent.done[m->slot].value;
        if (fate != 1) answer(packet, -1);
    }
    if (fate <= 2) shutdown(agent.connection, SHUT_RDWR);
}

static void serve(struct packet *packet, int file) {
    struct vsmp_guest_message *m = &packet->message;
    const size_t data_bytes = m->text_bytes;
    m->text_bytes = 0;
    switch (m->type) {
    case VSMP_GUEST_JOIN:
        if (agent.trick == KILLED) m->c = VSMP_GUEST_IS_KEPT;
        break;
    case VSMP_GUEST_REJOIN:
        check(m->a == RANK && data_bytes == strlen("token") && memcmp(packet->data, "token", data_bytes) == 0, "who it is");
        break;
    case VSMP_GUEST_ATTACH:
        answer_attach(packet);
        return;
    case VSMP_GUEST_MAP: {
        // Nobody serves faults here: the kernel may.
        struct uffdio_range range = {m->a, m->b};
        check(m->d == REGION && m->b == mapped_bytes && ioctl(file, UFFDIO_UNREGISTER, &range) == 0, "a region's userfaultfd");
        break;
    }
    case VSMP_GUEST_MAPPED:
        if (m->b != 0) check(data_bytes > 0, "a rank that cannot map says why");
        m->status = (int32_t)m->b;
        m->text_bytes = (uint32_t)data_bytes; // the rank's own words
        break;
    case VSMP_GUEST_BARRIER:
        answer_barrier(packet);
        return;
    case VSMP_GUEST_ALLOC_ALL:
        m->a = (uintptr_t)address + VSMP_PAGE_BYTES;
        m->b = 1; // used before
        break;
    case VSMP_GUEST_ALLOC:
        m->status = ENOMEM;
        m->text_bytes = VSMP_GUEST_TEXT_MAX;
        memset(packet->data, 'w', VSMP_GUEST_TEXT_MAX);
        break;
    case VSMP_GUEST_LOCK:
        m->status = EOWNERDEAD;
        break;
    case VSMP_GUEST_FETCH_ADD:
        if (agent.trick == KILLED)
            count_or_die(packet);
        else
            hold_or_answer(packet);
        return;
    case VSMP_GUEST_BROADCAST:
        check(m->b <= VSMP_GUEST_DATA_MAX && data_bytes == (m->a == RANK ? m->b : 0), "a broadcast's data come from its root");
        if (m->a == RANK) break;
        m->text_bytes = (uint32_t)m->b;
        memset(packet->data, 'b', m->b);
        break;
    }
    answer(packet, -1);
}

static void *run_agent(void *unused) {
    (void)unused;
    static struct packet packet;
    bool has_left = false;
    agent.connection = accept4(agent.listener, NULL, NULL, SOCK_CLOEXEC);
    while (true) {
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec part = {&packet, sizeof packet};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        const ssize_t received = recvmsg(agent.connection, &message, MSG_CMSG_CLOEXEC);
        if (received <= 0) {
            close(agent.connection);
            if (agent.trick != KILLED || has_left) return NULL;
            agent.connection = accept4(agent.listener, NULL, NULL, SOCK_CLOEXEC);
            agent.kills++;
            continue;
        }
        check(packet.message.magic == VSMP_GUEST_MAGIC && (size_t)received == sizeof packet.message + packet.message.text_bytes,
              "a request is whole");
        int file = -1;
        if (message.msg_controllen > 0) memcpy(&file, CMSG_DATA(&control.header), sizeof file);
        has_left = packet.message.type == VSMP_GUEST_FINISH;
        serve(&packet, file);
        if (file >= 0) close(file);
    }
}

static void start_agent(enum trick trick) {
    agent.trick = trick;
    agent.hold_until = 1;
    strcpy(agent.directory, "/tmp/vsmp-unit-XXXXXX");
    check(mkdtemp(agent.directory) != NULL, "mkdtemp");
    agent.at.sun_family = AF_UNIX;
    snprintf(agent.at.sun_path, sizeof agent.at.sun_path, "%s/agent", agent.directory);
    agent.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    check(bind(agent.listener, (struct sockaddr *)&agent.at, sizeof agent.at) == 0 && listen(agent.listener, 1) == 0, "listen");
    check(pthread_create(&agent.thread, NULL, run_agent, NULL) == 0, "pthread_create");
    setenv("VSMP_GUEST_SOCKET", agent.at.sun_path, 1);
}

static void end_agent(void) {
    pthread_join(agent.thread, NULL);
    close(agent.listener);
    unlink(agent.at.sun_path);
    rmdir(agent.directory);
}

static unsigned open_descriptors(void) {
    unsigned count = 0;
    DIR *all = opendir("/proc/self/fd");
    while (readdir(all) != NULL) count++;
    closedir(all);
    return count;
}

static void expect(int error, int expected, const char *words) {
    check(error == expected && strstr(vsmp_error(), words) != NULL, "%d (%s), expected %d with '%s'", error, vsmp_error(),
          expected, words);
}

// ---- the tests

static void A_rank_calls_everything_and_leaves_nothing_behind(enum trick trick) {
    const unsigned before = open_descriptors();
    start_agent(trick);
    check(vsmp_start() == 0, "start: %s", vsmp_error());
    expect(vsmp_start(), EINVAL, "called before");
    struct vsmp_region *region;
    for (int round = 0; round < 2; round++) {
        check(vsmp_attach(round == 0 ? "name" : NULL, region_bytes, &region) == 0, "attach: %s", vsmp_error());
        check(vsmp_base(region) == address && vsmp_bytes(region) == region_bytes, "where the agent wants it");
        check(strlen(vsmp_protocol(region)) == 31, "a protocol's name is cut where it ends");
        char *block = vsmp_alloc_all(region, 100, 0);
        check(block == (char *)address + VSMP_PAGE_BYTES && *block == 0, "alloc_all: %s", vsmp_error());
        *block = 1;
        if (round == 0) check(vsmp_detach(region) == 0, "detach: %s", vsmp_error());
    }
    check(vsmp_alloc(region, 1, 0) == NULL && strspn(vsmp_error(), "w") == VSMP_GUEST_TEXT_MAX,
          "the agent's words are passed on");
    check(vsmp_free(region, NULL) == 0 && vsmp_free(region, address) == 0, "free: %s", vsmp_error());
    check(vsmp_lock(1) == EOWNERDEAD && vsmp_unlock(1) == 0, "lock and unlock");
    int64_t value = -1;
    check(vsmp_fetch_add(0, 5, NULL) == 0 && vsmp_fetch_add(0, -2, &value) == 0 && value == 5, "fetch_add: %ld", (long)value);
    static char buffer[65536];
    check(vsmp_broadcast(buffer, sizeof buffer, RANK) == 0 && buffer[sizeof buffer - 1] == 0, "a broadcast from here");
    check(vsmp_broadcast(buffer, sizeof buffer - 1, 0) == 0 && buffer[0] == 'b' && buffer[sizeof buffer - 2] == 'b' &&
              buffer[sizeof buffer - 1] == 0,
          "a broadcast from there");
    check(vsmp_broadcast(NULL, 0, 0) == 0 && vsmp_broadcast(NULL, 0, RANK) == 0, "broadcasts of nothing");
    expect(vsmp_broadcast(buffer, sizeof buffer + 1, 0), EMSGSIZE, "64 KiB");
    check(vsmp_acquire(region) == 0 && vsmp_release(region) == 0 && vsmp_barrier() == 0, "acquire, release, barrier");
    expect(vsmp_detach((struct vsmp_region *)buffer), EINVAL, "no such region");
    check(vsmp_finish() == 0, "finish: %s", vsmp_error());
    expect(vsmp_barrier(), ENOTCONN, "no part in a job");
    expect(vsmp_start(), EINVAL, "cannot start again");
    end_agent();
    check(open_descriptors() == before, "%u descriptors, %u before", open_descriptors(), before);
}

static void *add_ones(void *unused) {
    (void)unused;
    int64_t last = -1, value;
    for (int i = 0; i < CALLS; i++) {
        check(vsmp_fetch_add(0, 1, &value) == 0 && value > last, "the sum was %ld, then %ld", (long)last, (long)value);
        last = value;
    }
    return NULL;
}

static void Answers_in_any_order_reach_the_threads_that_asked(enum trick trick) {
    start_agent(trick);
    check(vsmp_start() == 0, "start: %s", vsmp_error());
    agent.hold_until = THREADS;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) check(pthread_create(&threads[i], NULL, add_ones, NULL) == 0, "pthread_create");
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    agent.hold_until = 1;
    int64_t sum = 0;
    check(vsmp_fetch_add(0, 0, &sum) == 0 && sum == THREADS * CALLS, "the sum is %ld", (long)sum);
    check(vsmp_finish() == 0, "finish: %s", vsmp_error());
    end_agent();
}

static void What_agents_that_are_killed_left_unanswered_is_asked_of_the_next(enum trick trick) {
    const unsigned before = open_descriptors();
    start_agent(trick);
    check(vsmp_start() == 0, "start: %s", vsmp_error());
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) check(pthread_create(&threads[i], NULL, add_ones, NULL) == 0, "pthread_create");
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    int64_t sum = 0;
    check(vsmp_fetch_add(0, 0, &sum) == 0 && sum == THREADS * CALLS, "each was done once: the sum is %ld", (long)sum);
    check(agent.kills > 10, "agents were killed: %u", agent.kills);
    check(vsmp_finish() == 0, "finish: %s", vsmp_error());
    end_agent();
    check(open_descriptors() == before, "%u descriptors, %u before", open_descriptors(), before);
}

static void An_answer_that_makes_no_sense_ends_the_connection(enum trick trick) {
    const unsigned before = open_descriptors();
    start_agent(trick);
    check(vsmp_start() == 0, "start: %s", vsmp_error());
    expect(vsmp_barrier(), ECONNRESET, "lost");
    expect(vsmp_lock(1), ECONNRESET, "lost");
    expect(vsmp_finish(), ECONNRESET, "lost");
    end_agent();
    check(open_descriptors() == before, "%u descriptors, %u before", open_descriptors(), before);
}

static void An_answer_that_nobody_asked_for_is_dropped(enum trick trick) {
    const unsigned before = open_descriptors();
    start_agent(trick);
    check(vsmp_start() == 0, "start: %s", vsmp_error());
    for (int i = 0; i < 3; i++) check(vsmp_barrier() == 0, "barrier: %s", vsmp_error());
    check(vsmp_finish() == 0, "finish: %s", vsmp_error());
    end_agent();
    check(open_descriptors() == before, "%u descriptors, %u before", open_descriptors(), before);
}

static void An_attach_that_fails_leaves_nothing_behind(enum trick trick) {
    const unsigned before = open_descriptors();
    start_agent(trick);
    check(vsmp_start() == 0, "start: %s", vsmp_error());
    struct vsmp_region *region = (struct vsmp_region *)1;
    if (trick == NO_TRICK) {
        // Something of the process is mapped there already.
        check(mmap(address, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == address, "mmap");
        expect(vsmp_attach("name", region_bytes, &region), EEXIST, "something of this process is mapped there");
    } else if (trick == NO_FILE) {
        expect(vsmp_attach("name", region_bytes, &region), EPROTO, "lacks the frame file");
    } else {
        expect(vsmp_attach("name", region_bytes, &region), ENOMEM, "pppp");
    }
    check(region == NULL, "no handle of a region that is not there");
    check(vsmp_finish() == 0, "finish: %s", vsmp_error());
    end_agent();
    check(open_descriptors() == before, "%u descriptors, %u before", open_descriptors(), before);
}

static void Without_an_agent_a_start_says_so(enum trick trick) {
    (void)trick;
    unsetenv("VSMP_GUEST_SOCKET");
    expect(vsmp_start(), EINVAL, "not started by vsmp spmd");
    setenv("VSMP_GUEST_SOCKET", "/nonexistent/socket", 1);
    expect(vsmp_start(), ENOENT, "no agent answers");
    char path[300] = {0};
    memset(path, '/', sizeof path - 1);
    setenv("VSMP_GUEST_SOCKET", path, 1);
    expect(vsmp_start(), EINVAL, "too long");
    expect(vsmp_barrier(), ENOTCONN, "vsmp_start comes first");
}

static unsigned passed_count, failed_count;

static void run(const char *name, void (*test)(enum trick), enum trick trick) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        test(trick);
        exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("  %s %s", status == 0 ? "ok  " : "FAIL", name);
    printf(trick == NO_TRICK ? "\n" : " (%s)\n", trick_names[trick]);
    if (status == 0)
        passed_count++;
    else
        failed_count++;
}

#define RUN(test, trick) run(#test, test, trick)

int main(void) {
    setenv("VSMP_JOB", "token", 1);
    setenv("VSMP_RANK", "1", 1);
    setenv("VSMP_SIZE", "3", 1);
    RUN(A_rank_calls_everything_and_leaves_nothing_behind, NO_TRICK);
    RUN(Answers_in_any_order_reach_the_threads_that_asked, NO_TRICK);
    for (enum trick trick = SHORT; trick <= OVERSIZED; trick++) RUN(An_answer_that_makes_no_sense_ends_the_connection, trick);
    RUN(An_answer_that_makes_no_sense_ends_the_connection, GONE);
    for (enum trick trick = WRONG_SERIAL; trick <= TWICE; trick++) RUN(An_answer_that_nobody_asked_for_is_dropped, trick);
    RUN(An_attach_that_fails_leaves_nothing_behind, NO_TRICK);
    RUN(An_attach_that_fails_leaves_nothing_behind, NO_FILE);
    RUN(An_attach_that_fails_leaves_nothing_behind, REFUSED);
    RUN(What_agents_that_are_killed_left_unanswered_is_asked_of_the_next, KILLED);
    RUN(Without_an_agent_a_start_says_so, NO_TRICK);
    printf("%u passed\n", passed_count);
    return failed_count == 0 ? 0 : 1;
}
