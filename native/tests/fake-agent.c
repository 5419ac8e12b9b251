// SPDX-License-Identifier: Apache-2.0
//
// A peer for the guest library's tests: runs a program with the library preloaded and serves it and its children from one
// process, without a cluster behind. It is strict where an agent may be generous: a fault on memory that was not reserved, a
// release of what was not reserved, a request it does not know end the run as failed, whatever the program says.
//
//   fake-agent [--limit MIB] [--window MIB] [--device] [--refuse] [--die-after N] [--restart-every N] [--report FILE]
//              -- PROGRAM [ARGS…]
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../guest/protocol.h"

#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((uint64_t)1 << 1)
#endif

#define TOKEN "token-of-the-run"
#define MAX_GUESTS 64
#define RUN_PAGES 16
#define AWAY_MILLISECONDS 15
#define PAGE ((uint64_t)VSMP_PAGE_BYTES)

struct guest {
    int socket, file, faults; // -1: none
    pid_t pid;
    uint64_t base, region; // region 0: it has said nothing yet
    bool must_repeat; // it has got no answer from an agent that was "killed"
    uint8_t *reserved; // per extent
    uint8_t *present; // per page
};

static struct guest guests[MAX_GUESTS];
static unsigned guest_count;
static uint64_t window_bytes = 64ull << 30, limit_extents = UINT64_MAX;
static uint64_t reserved_extents, peak_extents, faults_served, pages_filled, guests_seen, requests, die_after;
static uint64_t restart_every, restarts;
static int listener = -1;
static bool with_device, refuse;
static unsigned violations;
static char directory[64], socket_path[96];

__attribute__((format(printf, 1, 2))) static void violation(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "fake-agent: VIOLATION: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    violations++;
}

static void fail(const char *what) {
    fprintf(stderr, "fake-agent: %s: %s\n", what, strerror(errno));
    exit(125);
}

static void end_guest(struct guest *guest) {
    for (uint64_t i = 0; guest->reserved != NULL && i < window_bytes / VSMP_EXTENT_BYTES; i++)
        reserved_extents -= guest->reserved[i];
    if (guest->reserved != NULL) {
        munmap(guest->reserved, window_bytes / VSMP_EXTENT_BYTES);
        munmap(guest->present, window_bytes / PAGE);
    }
    close(guest->socket);
    if (guest->file >= 0) close(guest->file);
    if (guest->faults >= 0) close(guest->faults);
    *guest = guests[--guest_count];
}

static void reply(struct guest *guest, const struct vsmp_guest_message *request, int status, uint64_t a, uint64_t b, uint64_t c,
                  const char *text, const int *fds, unsigned fd_count) {
    struct vsmp_guest_message answer = {.magic = VSMP_GUEST_MAGIC,
                                        .version = VSMP_GUEST_VERSION,
                                        .type = (uint16_t)(request->type | VSMP_GUEST_REPLY),
                                        .serial = request->serial,
                                        .status = status,
                                        .a = a,
                                        .b = b,
                                        .c = c,
                                        .text_bytes = (uint32_t)strlen(text)};
    struct iovec parts[2] = {{&answer, sizeof answer}, {(void *)(uintptr_t)text, strlen(text)}};
    char control[CMSG_SPACE(2 * sizeof(int))] = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (fd_count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    sendmsg(guest->socket, &message, MSG_NOSIGNAL);
}

static void *table(uint64_t bytes) {
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) fail("mmap");
    return pages;
}

static struct guest *find(pid_t pid, const struct guest *but) {
    for (unsigned i = 0; i < guest_count; i++)
        if (guests[i].pid == pid && &guests[i] != but) return &guests[i];
    return NULL;
}

// Every so often this agent is killed, as its guest sees it: the request is carried out or not, and there is no answer; for a
// moment there is no socket, or one at which nobody listens.
static bool is_killed_now(void) { return restart_every != 0 && ++requests % restart_every == 0; }

static void be_killed(struct guest *guest) {
    close(listener);
    listener = -1;
    if (restarts++ % 2 == 0) unlink(socket_path);
    close(guest->socket);
    guest->socket = -1;
    guest->must_repeat = true;
}

static void on_resume(struct guest *guest, const struct vsmp_guest_message *request, const char *text) {
    struct guest *former = find(guest->pid, guest);
    if (former == NULL || former->socket >= 0 || former->region != request->a || strcmp(text, TOKEN) != 0) {
        violation("RESUME of region %lu by process %d", request->a, guest->pid);
        reply(guest, request, EACCES, 0, 0, 0, "not known here", NULL, 0);
        return;
    }
    const int socket = guest->socket;
    *guest = *former;
    guest->socket = socket;
    *former = guests[--guest_count];
    if (guest == &guests[guest_count]) guest = former; // it was the last one
    reply(guest, request, 0, 0, 0, 0, "", NULL, 0);
}

static void on_hello(struct guest *guest, const struct vsmp_guest_message *request, const char *text) {
    if (strcmp(text, TOKEN) != 0) {
        violation("HELLO with token '%s'", text);
        reply(guest, request, EACCES, 0, 0, 0, "wrong token", NULL, 0);
        return;
    }
    if (refuse) {
        reply(guest, request, EPERM, 0, 0, 0, "this agent takes no guests", NULL, 0);
        return;
    }
    guest->region = ++guests_seen;
    guest->file = memfd_create("frames", MFD_CLOEXEC);
    if (guest->file < 0 || ftruncate(guest->file, (off_t)window_bytes) != 0) fail("frame file");
    guest->reserved = table(window_bytes / VSMP_EXTENT_BYTES);
    guest->present = table(window_bytes / PAGE);
    int fds[2] = {guest->file, -1};
    if (with_device && (fds[1] = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC)) < 0) fail("/dev/userfaultfd");
    const uint64_t flags = (with_device ? VSMP_GUEST_HAS_DEVICE : 0) | (restart_every != 0 ? VSMP_GUEST_IS_KEPT : 0);
    reply(guest, request, 0, guest->region, window_bytes, flags, "", fds, with_device ? 2 : 1);
    if (with_device) close(fds[1]);
}

static void on_range(struct guest *guest, const struct vsmp_guest_message *request) {
    const uint64_t offset = request->a, length = request->b;
    const uint64_t unit = request->type == VSMP_GUEST_DISCARD ? PAGE : VSMP_EXTENT_BYTES;
    char text[200] = "";
    if (guest->faults < 0 || offset % unit != 0 || length % unit != 0 || length == 0 || offset + length > window_bytes) {
        violation("request %u for offset %lx, length %lx", request->type, offset, length);
        reply(guest, request, EINVAL, 0, 0, 0, "no such range", NULL, 0);
        return;
    }
    const uint64_t first = offset / VSMP_EXTENT_BYTES, last = (offset + length - 1) / VSMP_EXTENT_BYTES + 1;
    if (request->type == VSMP_GUEST_RESERVE && last - first > limit_extents - reserved_extents) {
        snprintf(text, sizeof text, "the pool is exhausted: %lu MiB wanted, %lu of %lu MiB held by %u guests", (last - first) * 2,
                 reserved_extents * 2, limit_extents * 2, guest_count);
        reply(guest, request, ENOMEM, 0, 0, 0, text, NULL, 0);
        return;
    }
    for (uint64_t i = first; i < last; i++) {
        const bool wanted = request->type != VSMP_GUEST_RESERVE;
        if (guest->reserved[i] != wanted && guest->must_repeat) continue; // it was carried out
        if (guest->reserved[i] != wanted)
            violation("request %u: extent %lu is%s reserved", request->type, i, wanted ? " not" : "");
        if (request->type != VSMP_GUEST_DISCARD) {
            reserved_extents += request->type == VSMP_GUEST_RESERVE ? 1 : (uint64_t)-1;
            guest->reserved[i] = request->type == VSMP_GUEST_RESERVE;
        }
    }
    if (reserved_extents > peak_extents) peak_extents = reserved_extents;
    if (request->type != VSMP_GUEST_RESERVE) {
        if (fallocate(guest->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) != 0)
            fail("fallocate");
        memset(guest->present + offset / PAGE, 0, length / PAGE);
    }
    if (guest->socket >= 0) guest->must_repeat = false;
    reply(guest, request, 0, 0, 0, 0, "", NULL, 0);
}

// False: the guest is gone.
static bool on_request(struct guest *guest) {
    struct {
        struct vsmp_guest_message message;
        char text[VSMP_GUEST_TEXT_MAX + 1];
    } request;
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&request, sizeof request - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t received = recvmsg(guest->socket, &message, MSG_CMSG_CLOEXEC);
    if (received <= 0 || (die_after != 0 && ++requests > die_after)) return false;
    int fd = -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(header), sizeof fd);
    if ((size_t)received < sizeof request.message || request.message.magic != VSMP_GUEST_MAGIC ||
        (size_t)received != sizeof request.message + request.message.text_bytes) {
        violation("a message that is none (%zd bytes)", received);
        return false;
    }
    request.text[request.message.text_bytes] = 0;
    const bool is_killed = is_killed_now();
    if (is_killed) be_killed(guest); // the answer goes nowhere
    if (is_killed && restarts % 4 < 2) {
        if (fd >= 0) close(fd);
        return guest->region != 0; // it was not carried out either
    }
    switch (request.message.type) {
    case VSMP_GUEST_HELLO: {
        struct guest *former = find(guest->pid, guest);
        if (former != NULL && former->must_repeat && former->socket < 0) { // it did not hear that it is attached
            if (former < guest) {
                struct guest swapped = *former;
                *former = *guest;
                *guest = swapped;
                struct guest *other = former;
                former = guest;
                guest = other;
            }
            end_guest(former);
        }
        on_hello(guest, &request.message, request.text);
        break;
    }
    case VSMP_GUEST_RESUME:
        on_resume(guest, &request.message, request.text);
        break;
    case VSMP_GUEST_MAP:
        if (fd < 0 || request.message.b != window_bytes || request.message.c != 0)
            violation("MAP without a descriptor, or of something else than the window");
        guest->base = request.message.a;
        guest->faults = fd;
        reply(guest, &request.message, 0, 0, 0, 0, "", NULL, 0);
        break;
    case VSMP_GUEST_RESERVE:
    case VSMP_GUEST_RELEASE:
    case VSMP_GUEST_DISCARD:
        on_range(guest, &request.message);
        break;
    default:
        violation("message type %u", request.message.type);
    }
    return true;
}

// Read faults are answered write-protected, as an agent does for a shared page: a later write faults again.
static void on_fault(struct guest *guest, const struct uffd_msg *fault) {
    static const char zeros[RUN_PAGES * VSMP_PAGE_BYTES];
    const uint64_t address = fault->arg.pagefault.address & ~(PAGE - 1), flags = fault->arg.pagefault.flags;
    const uint64_t page = (address - guest->base) / PAGE, extent = page * PAGE / VSMP_EXTENT_BYTES;
    faults_served++;
    if (guest->reserved[extent] == 0) violation("a fault at offset %lx, which is not reserved", page * PAGE);
    if (flags & UFFD_PAGEFAULT_FLAG_WP) {
        struct uffdio_writeprotect lift = {.range = {address, PAGE}};
        ioctl(guest->faults, UFFDIO_WRITEPROTECT, &lift);
        return;
    }
    uint64_t count = 1;
    if (!guest->present[page]) {
        while (count < RUN_PAGES && (page + count) * PAGE % VSMP_EXTENT_BYTES != 0 && !guest->present[page + count]) count++;
        if (pwrite(guest->file, zeros, count * PAGE, (off_t)(page * PAGE)) != (ssize_t)(count * PAGE)) fail("pwrite");
        memset(guest->present + page, 1, count);
        pages_filled += count;
    }
    for (;;) {
        struct uffdio_continue install = {.range = {address, count * PAGE},
                                          .mode = flags & UFFD_PAGEFAULT_FLAG_WRITE ? 0 : UFFDIO_CONTINUE_MODE_WP};
        if (ioctl(guest->faults, UFFDIO_CONTINUE, &install) == 0) return;
        if (errno == EAGAIN) continue;
        if (count == 1) break;
        count = 1; // part of the run is not mapped this way: only what was asked for
    }
    struct uffdio_range wake = {address, PAGE};
    ioctl(guest->faults, UFFDIO_WAKE, &wake);
}

static void on_faults(struct guest *guest) {
    struct uffd_msg messages[16];
    ssize_t bytes = read(guest->faults, messages, sizeof messages);
    for (ssize_t i = 0; i < bytes / (ssize_t)sizeof messages[0]; i++)
        if (messages[i].event == UFFD_EVENT_PAGEFAULT) on_fault(guest, &messages[i]);
}

static void choose_path(void) {
    snprintf(directory, sizeof directory, "/tmp/vsmp-fake-XXXXXX");
    if (mkdtemp(directory) == NULL) fail("mkdtemp");
    snprintf(socket_path, sizeof socket_path, "%s/agent", directory);
}

static int listen_at_path(void) {
    unlink(socket_path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, socket_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 64) != 0) fail("socket");
    return fd;
}

static pid_t start_program(char **argv) {
    char library[4096];
    ssize_t length = readlink("/proc/self/exe", library, sizeof library - 64);
    if (length < 0) fail("/proc/self/exe");
    library[length] = 0;
    *strrchr(library, '/') = 0;
    *strrchr(library, '/') = 0;
    strcat(library, "/libvsmp-guest.so");
    pid_t pid = fork();
    if (pid != 0) return pid;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setenv("VSMP_GUEST_SOCKET", socket_path, 1);
    setenv("VSMP_RUN", TOKEN, 1);
    setenv("LD_PRELOAD", library, 1);
    execvp(argv[0], argv);
    fprintf(stderr, "fake-agent: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

// Serves until the program ends; returns its exit code as a shell would.
static int serve(pid_t program) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    int children = signalfd(-1, &set, SFD_CLOEXEC);
    for (;;) {
        struct pollfd polled[2 + 2 * MAX_GUESTS] = {{.fd = listener, .events = POLLIN}, {.fd = children, .events = POLLIN}};
        const unsigned served = guest_count;
        for (unsigned i = 0; i < served; i++) {
            polled[2 + 2 * i] = (struct pollfd){.fd = guests[i].faults, .events = POLLIN};
            polled[3 + 2 * i] = (struct pollfd){.fd = guests[i].socket, .events = POLLIN};
        }
        const bool is_back = poll(polled, 2 + 2 * served, listener < 0 ? AWAY_MILLISECONDS : -1) == 0;
        if (is_back) listener = listen_at_path();
        for (unsigned i = served; i-- > 0;) {
            if (polled[2 + 2 * i].revents & POLLIN) on_faults(&guests[i]);
            if (polled[3 + 2 * i].revents != 0 && !on_request(&guests[i])) end_guest(&guests[i]);
        }
        if (polled[0].revents != 0 && listener >= 0 && guest_count < MAX_GUESTS) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            struct ucred peer = {0};
            if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof peer}) == 0)
                guests[guest_count++] = (struct guest){.socket = fd, .file = -1, .faults = -1, .pid = peer.pid};
        }
        int status;
        if (polled[1].revents != 0 && waitpid(program, &status, WNOHANG) == program)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

int main(int argc, char **argv) {
    const char *report = NULL;
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--device") == 0)
            with_device = true;
        else if (strcmp(argv[i], "--refuse") == 0)
            refuse = true;
        else if (i + 1 < argc && strcmp(argv[i], "--limit") == 0)
            limit_extents = strtoull(argv[++i], NULL, 10) / 2;
        else if (i + 1 < argc && strcmp(argv[i], "--window") == 0)
            window_bytes = strtoull(argv[++i], NULL, 10) << 20;
        else if (i + 1 < argc && strcmp(argv[i], "--die-after") == 0)
            die_after = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--restart-every") == 0)
            restart_every = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--report") == 0)
            report = argv[++i];
        else
            break;
    }
    if (i + 1 >= argc || strcmp(argv[i], "--") != 0) {
        fprintf(stderr,
                "usage: fake-agent [--limit MIB] [--window MIB] [--device] [--refuse] [--die-after N] [--restart-every N] "
                "[--report FILE] -- PROGRAM [ARGS…]\n");
        return 125;
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    choose_path();
    listener = listen_at_path();
    int status = serve(start_program(argv + i + 1));
    unlink(socket_path);
    rmdir(directory);
    FILE *out = report != NULL ? fopen(report, "w") : NULL;
    if (out != NULL) {
        fprintf(out, "guests=%lu faults=%lu pages=%lu peakMiB=%lu restarts=%lu violations=%u\n", guests_seen, faults_served,
                pages_filled, peak_extents * 2, restarts, violations);
        fclose(out);
    }
    return violations > 0 ? 124 : status;
}
