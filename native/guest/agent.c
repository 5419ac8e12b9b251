// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "system.h"

// Newer than Debian 12's headers.
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif

// A descriptor of ours: its number, and what it was when we got it, so that a number that the program reused is noticed.
struct own_fd {
    _Atomic int number; // -1: none
    uint64_t device, inode;
};

static struct own_fd connection = {.number = -1}, frame_file = {.number = -1}, fault_fd = {.number = -1};
static struct own_fd lender = {.number = -1}; // in a forked child: where its parent answers
static struct own_fd *const own_fds[] = {&connection, &frame_file, &fault_fd, &lender};
#define OWN_FDS (sizeof own_fds / sizeof own_fds[0])

static char socket_path[sizeof((struct sockaddr_un *)NULL)->sun_path];
static char run_token[256];
static enum { UNREAD, ABSENT, PRESENT } configuration = UNREAD;
static uint32_t last_serial;
static uint64_t region; // what this program has attached to
static bool is_kept; // another agent takes the place of ours if that is killed

// How long an agent is waited for that takes the place of one that was killed; where it is not known whether one does, less.
#define PATIENCE_SECONDS 60
#define ATTACH_PATIENCE_SECONDS 10
#define PAUSE_NANOSECONDS 10000000
#define WORTH_TELLING_SECONDS 2

bool agent_configured(void) {
    // Before libc is initialised, the dynamic linker may call malloc already: too early to tell.
    if (configuration == UNREAD && environ != NULL) {
        const char *path = getenv("VSMP_GUEST_SOCKET"), *token = getenv("VSMP_RUN");
        configuration = ABSENT;
        if (path != NULL && token != NULL && *path != 0 && *token != 0) {
            if (strlen(path) >= sizeof socket_path || strlen(token) >= sizeof run_token) {
                say("VSMP_GUEST_SOCKET or VSMP_RUN is too long; this program runs on private memory only");
            } else {
                strcpy(socket_path, path);
                strcpy(run_token, token);
                configuration = PRESENT;
            }
        }
    }
    return configuration == PRESENT;
}

// ---- descriptors

static bool identify(int fd, uint64_t *device, uint64_t *inode) {
    struct stat status;
    if (SYSTEM_CALL(SYS_fstat, fd, &status) != 0) return false;
    *device = status.st_dev;
    *inode = status.st_ino;
    return true;
}

// A descriptor that was closed past us, and whose number the program reused, is the program's.
static bool still_ours(const struct own_fd *slot) {
    uint64_t device, inode;
    const int number = atomic_load_explicit(&slot->number, memory_order_relaxed);
    return number >= 0 && identify(number, &device, &inode) && device == slot->device && inode == slot->inode;
}

bool agent_owns(int fd) {
    for (size_t i = 0; i < OWN_FDS; i++)
        if (fd >= 0 && atomic_load_explicit(&own_fds[i]->number, memory_order_relaxed) == fd) return still_ours(own_fds[i]);
    return false;
}

int agent_next_owned(int fd) {
    int next = -1;
    for (size_t i = 0; i < OWN_FDS; i++) {
        int number = atomic_load_explicit(&own_fds[i]->number, memory_order_relaxed);
        if (number >= fd && (next < 0 || number < next) && still_ours(own_fds[i])) next = number;
    }
    return next;
}

// Programs expect low numbers for themselves, and shells use fixed ones: move ours out of the way, below the limit that select()
// and most loops over descriptors know. Takes `fd` over; -1 where it was no descriptor.
static int move_up(int fd) {
    if (fd < 0) return -1;
    struct rlimit limit;
    int lowest = 900;
    if (SYSTEM_CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) == 0 && limit.rlim_cur < 1000)
        lowest = limit.rlim_cur > 40 ? (int)limit.rlim_cur - 20 : 3;
    long moved = SYSTEM_CALL(SYS_fcntl, fd, F_DUPFD_CLOEXEC, lowest);
    if (moved < 0) return fd; // still works, where it is
    SYSTEM_CALL(SYS_close, fd);
    return (int)moved;
}

static void own(struct own_fd *slot, int fd) {
    identify(fd, &slot->device, &slot->inode);
    atomic_store(&slot->number, fd);
}

static void close_own(struct own_fd *slot) {
    if (still_ours(slot)) SYSTEM_CALL(SYS_close, slot->number);
    atomic_store(&slot->number, -1);
}

void agent_forget(void) {
    for (size_t i = 0; i < OWN_FDS; i++) close_own(own_fds[i]);
}

void agent_keep_lender(int fd) {
    close_own(&lender);
    if (fd >= 0) own(&lender, move_up(fd));
}

int agent_lender(void) { return still_ours(&lender) ? lender.number : -1; }

// ---- messages

struct reply {
    struct vsmp_guest_message message;
    char text[VSMP_GUEST_TEXT_MAX + 1];
    int fds[2];
    unsigned fd_count;
};

static void send_message(int fd, struct vsmp_guest_message *request, const char *text, int fd_to_pass, long *result) {
    struct iovec parts[2] = {{request, sizeof *request}, {(void *)(uintptr_t)text, request->text_bytes}};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = request->text_bytes > 0 ? 2 : 1};
    if (fd_to_pass >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd_to_pass, sizeof(int));
    }
    do *result = SYSTEM_CALL(SYS_sendmsg, fd, &message, MSG_NOSIGNAL);
    while (*result == -EINTR);
}

static long receive_message(int fd, struct reply *reply) {
    struct iovec parts[2] = {{&reply->message, sizeof reply->message}, {reply->text, VSMP_GUEST_TEXT_MAX}};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    long received;
    do received = SYSTEM_CALL(SYS_recvmsg, fd, &message, MSG_CMSG_CLOEXEC);
    while (received == -EINTR);

    reply->fd_count = 0;
    for (struct cmsghdr *c = received > 0 ? CMSG_FIRSTHDR(&message) : NULL; c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            reply->fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(reply->fds, CMSG_DATA(c), reply->fd_count * sizeof(int));
        }
    }
    return received;
}

// One request, one reply. 0, the reply's status, or EPROTO; `what` is for the message, which is said here. ECONNRESET, and nothing
// said: there is no agent any more.
static int ask(int fd, uint16_t type, uint64_t a, uint64_t b, uint64_t c, const char *text, int fd_to_pass, struct reply *reply,
               const char *what) {
    struct vsmp_guest_message request = {.magic = VSMP_GUEST_MAGIC,
                                         .version = VSMP_GUEST_VERSION,
                                         .type = type,
                                         .serial = ++last_serial,
                                         .a = a,
                                         .b = b,
                                         .c = c,
                                         .text_bytes = text != NULL ? (uint32_t)strlen(text) : 0};
    long result;
    send_message(fd, &request, text, fd_to_pass, &result);
    if (result > 0) result = receive_message(fd, reply);
    if (result <= 0) {
        reply->fd_count = 0;
        return ECONNRESET;
    }
    const struct vsmp_guest_message *message = &reply->message;
    if ((size_t)result < sizeof *message || message->magic != VSMP_GUEST_MAGIC || message->serial != last_serial ||
        message->type != (type | VSMP_GUEST_REPLY) || message->text_bytes != (size_t)result - sizeof *message) {
        say_seldom("the agent's answer to a request to %s makes no sense: is it of another version than this library?", what);
        return EPROTO;
    }
    if (message->version != VSMP_GUEST_VERSION) {
        say_seldom("the agent speaks version %u of the guest protocol, this library version %u: install both from one release",
                   message->version, VSMP_GUEST_VERSION);
        return EPROTO;
    }
    reply->text[message->text_bytes] = 0;
    if (message->status != 0)
        say_seldom("cannot %s: %s", what, message->text_bytes > 0 ? reply->text : "the agent refused and gave no reason");
    return message->status;
}

static void say_gone(const char *what) {
    say_seldom("the agent went away while this program asked it to %s: no more pooled memory; see `vsmp status`", what);
}

static time_t seconds_now(void) {
    struct timespec now;
    SYSTEM_CALL(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void pause_shortly(void) {
    const struct timespec pause = {.tv_nsec = PAUSE_NANOSECONDS};
    SYSTEM_CALL(SYS_nanosleep, &pause, NULL);
}

static int connect_to_agent(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, sizeof address.sun_path);
    long fd = SYSTEM_CALL(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), error;
    if (fd < 0) return (int)fd;
    do error = SYSTEM_CALL(SYS_connect, fd, &address, sizeof address);
    while (error == -EINTR);
    if (error == 0) return move_up((int)fd);
    SYSTEM_CALL(SYS_close, fd);
    return (int)error;
}

// Whether an agent may be there in a moment: it has not made its socket, or does not listen yet.
static bool may_come(int error) { return error == ENOENT || error == ECONNREFUSED || error == ECONNRESET; }

// Connects with the agent that takes the place of the one that was killed, and has taken this program over. 0 or an errno value,
// which is ECONNRESET if there is none in time.
static int resume(time_t since) {
    for (bool is_told = false;; pause_shortly()) {
        const int fd = connect_to_agent();
        int error = -fd;
        if (fd >= 0) {
            struct reply reply;
            error = ask(fd, VSMP_GUEST_RESUME, region, 0, 0, run_token, -1, &reply, "go on with this program");
            if (error == 0) {
                close_own(&connection);
                own(&connection, fd);
                return 0;
            }
            SYSTEM_CALL(SYS_close, fd);
        }
        const time_t waited = seconds_now() - since;
        if (!may_come(error)) return error;
        if (waited >= PATIENCE_SECONDS) return ECONNRESET;
        if (waited >= WORTH_TELLING_SECONDS && !is_told) say("the agent was killed; this program waits for the next one");
        is_told = waited >= WORTH_TELLING_SECONDS;
    }
}

// Each of these requests may be repeated: it asks for what is to be, not for what is to be changed.
static int ask_range(uint16_t type, uint64_t offset, uint64_t length, const char *what) {
    if (!still_ours(&connection)) {
        say_seldom("cannot %s: the connection to the agent was closed by this program", what);
        return ENOMEM;
    }
    struct reply reply;
    int error = ask(connection.number, type, offset, length, 0, NULL, -1, &reply, what);
    const time_t since = error == ECONNRESET ? seconds_now() : 0;
    while (error == ECONNRESET && is_kept && (error = resume(since)) == 0)
        error = ask(connection.number, type, offset, length, 0, NULL, -1, &reply, what);
    if (error == ECONNRESET) say_gone(what);
    return error;
}

static int reserve(void *context, uint64_t offset, uint64_t length) {
    (void)context;
    return ask_range(VSMP_GUEST_RESERVE, offset, length, "get pooled memory");
}

static int release(void *context, uint64_t offset, uint64_t length) {
    (void)context;
    return ask_range(VSMP_GUEST_RELEASE, offset, length, "return pooled memory");
}

static int discard(void *context, uint64_t offset, uint64_t length) {
    (void)context;
    return ask_range(VSMP_GUEST_DISCARD, offset, length, "discard pooled memory");
}

struct charge_agent agent_calls(void) {
    return (struct charge_agent){.reserve = reserve, .release = release, .discard = discard};
}

// ---- the window

int agent_map(const struct window *window, uint64_t offset, uint64_t length) {
    void *address = (void *)(window->base + offset);
    if (!still_ours(&frame_file) || !still_ours(&fault_fd)) return ENOMEM;
    void *mapped = raw_mmap(address, length, PROT_NONE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, frame_file.number, offset);
    if (is_error(mapped)) return error_of(mapped);
    // A child must not inherit it: it would read and write the pool past the agent. Nor is the pool to be faulted in by an
    // earlier mlockall(MCL_FUTURE), nor held in huge pages.
    long error = SYSTEM_CALL(SYS_madvise, address, length, MADV_DONTFORK);
    SYSTEM_CALL(SYS_munlock, address, length);
    SYSTEM_CALL(SYS_madvise, address, length, MADV_NOHUGEPAGE);
    if (error == 0) {
        struct uffdio_register registration = {.range = {(uintptr_t)address, length},
                                               .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
                                                       UFFDIO_REGISTER_MODE_WP};
        error = SYSTEM_CALL(SYS_ioctl, fault_fd.number, UFFDIO_REGISTER, &registration);
    }
    return (int)-error;
}

static int open_userfaultfd(int device) {
    long fd = device >= 0 ? SYSTEM_CALL(SYS_ioctl, device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK)
                          : SYSTEM_CALL(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return (int)fd;
    const uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                            UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_THREAD_ID;
    // With the kernel's newer feature, then without it: a refused handshake may be repeated.
    struct uffdio_api api = {.api = UFFD_API, .features = needed | UFFD_FEATURE_POISON};
    long error = SYSTEM_CALL(SYS_ioctl, fd, UFFDIO_API, &api);
    if (error != 0) {
        api = (struct uffdio_api){.api = UFFD_API, .features = needed};
        error = SYSTEM_CALL(SYS_ioctl, fd, UFFDIO_API, &api);
    }
    if (error == 0) return (int)fd;
    SYSTEM_CALL(SYS_close, fd);
    return (int)error;
}

// Finds room for the window at an extent's boundary, with inaccessible pages around it: no mapping of the program's can then
// touch the window, and a range that the program hands us lies inside or outside.
static int place(struct window *window) {
    const uint64_t length = window->length + 2 * VSMP_EXTENT_BYTES;
    void *room = raw_mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (is_error(room)) return error_of(room);
    window->room = (uintptr_t)room;
    window->room_length = length;
    window->base = round_up((uintptr_t)room + 1, VSMP_EXTENT_BYTES);
    return 0;
}

static int attach_over(int fd, struct window *window, struct reply *hello) {
    int error = ask(fd, VSMP_GUEST_HELLO, 0, 0, 0, run_token, -1, hello, "attach this program to the pool");
    if (error != 0) return error;
    window->length = hello->message.b;
    region = hello->message.a;
    is_kept = (hello->message.c & VSMP_GUEST_IS_KEPT) != 0;
    const bool with_device = (hello->message.c & VSMP_GUEST_HAS_DEVICE) != 0;
    if (hello->fd_count != (with_device ? 2u : 1u) || window->length == 0 || window->length % VSMP_EXTENT_BYTES != 0) {
        say_seldom("cannot attach this program to the pool: the agent's answer lacks the frame file");
        return EPROTO;
    }
    own(&frame_file, move_up(hello->fds[0]));
    hello->fds[0] = -1;

    int userfaultfd = open_userfaultfd(with_device ? hello->fds[1] : -1);
    if (userfaultfd < 0) {
        say_seldom("cannot attach this program to the pool: userfaultfd: %s; `vsmp doctor` says what is missing",
                   strerrordesc_np(-userfaultfd));
        return -userfaultfd;
    }
    own(&fault_fd, move_up(userfaultfd));

    if ((error = place(window)) != 0 || (error = agent_map(window, 0, window->length)) != 0) {
        say_seldom("cannot attach this program to the pool: mapping %llu MiB of address space: %s; is `ulimit -v` set?",
                   (unsigned long long)(window->length >> 20), strerrordesc_np(error));
        return error;
    }
    struct reply reply;
    return ask(fd, VSMP_GUEST_MAP, window->base, window->length, 0, NULL, fault_fd.number, &reply,
               "attach this program to the pool");
}

// 0, or an errno value, with nothing left of the attempt; ECONNRESET, and nothing said: the agent was lost over it.
static int try_attach(struct window *window, int fd) {
    own(&connection, fd);
    struct reply hello = {.fds = {-1, -1}};
    *window = (struct window){0};
    int error = attach_over(fd, window, &hello);
    for (unsigned i = 0; i < hello.fd_count; i++)
        if (hello.fds[i] >= 0) SYSTEM_CALL(SYS_close, hello.fds[i]);
    if (error != 0) {
        if (window->room != 0) SYSTEM_CALL(SYS_munmap, window->room, window->room_length);
        agent_forget();
    }
    return error;
}

int agent_attach(struct window *window) {
    const time_t since = seconds_now();
    for (bool was_there = false;; pause_shortly()) {
        const int fd = connect_to_agent();
        const int error = fd < 0 ? -fd : try_attach(window, fd);
        was_there |= fd >= 0 || error == ECONNREFUSED; // one that was killed has left its socket behind
        const time_t patience = was_there ? ATTACH_PATIENCE_SECONDS : 1;
        if ((error == ECONNRESET || (fd < 0 && may_come(error))) && seconds_now() - since < patience) continue;
        if (fd < 0)
            say_seldom("cannot attach this program to the pool: no agent answers at %s (%s); see `vsmp status`, `vsmp up`",
                       socket_path, strerrordesc_np(error));
        else if (error == ECONNRESET)
            say_gone("attach this program to the pool");
        return error;
    }
}
