// SPDX-License-Identifier: Apache-2.0
//
// libvsmp: the functions of vsmp.h. What they say to the agent is in ../guest/protocol.h.
#define _GNU_SOURCE
#include "vsmp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "link.h"

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
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct vsmp_region {
    struct vsmp_region *next;
    uint64_t id;
    void *base;
    size_t bytes, mapped_bytes;
    int fault_fd;
    char protocol[32];
};

static struct vsmp_region *regions; // changed by collective functions only, of which one runs at a time
static bool has_started, has_finished;
static uint64_t restored; // the generation that the job goes on from
static int device = -1; // /dev/userfaultfd, from the agent; −1: this process may use the system call

int vsmp_version(void) { return VSMP_API_VERSION; }

static long number_of(const char *variable, long missing) {
    const char *text = getenv(variable);
    char *end;
    if (text == NULL || *text == 0) return missing;
    long value = strtol(text, &end, 10);
    return *end == 0 ? value : missing;
}

int vsmp_rank(void) { return (int)number_of("VSMP_RANK", 0); }

int vsmp_size(void) { return (int)number_of("VSMP_SIZE", 1); }

int vsmp_start(void) {
    const char *path = getenv("VSMP_GUEST_SOCKET"), *token = getenv("VSMP_JOB");
    if (path == NULL || token == NULL || number_of("VSMP_RANK", -1) < 0)
        return fail(EINVAL, "this process was not started by vsmp spmd: run it by `vsmp spmd -n N -- program`");
    if (has_started)
        return fail(EINVAL, has_finished ? "a rank that has finished cannot start again" : "vsmp_start was called before");
    int error = link_open(path, (uint64_t)vsmp_rank(), token);
    if (error != 0) return error;
    has_started = true;
    struct exchange x = {
        .type = VSMP_GUEST_JOIN, .a = (uint64_t)vsmp_rank(), .data = token, .data_bytes = strlen(token), .fd_to_pass = -1};
    error = link_ask(&x);
    if (error == 0) restored = x.b;
    if (error == 0 && (x.c & VSMP_GUEST_HAS_DEVICE) != 0) {
        device = x.fds[0];
        x.fds[0] = -1;
    }
    link_done(&x);
    return error;
}

// ---- regions

static int open_userfaultfd(void) {
    int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK)
                         : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return -errno;
    const uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                            UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_THREAD_ID;
    // With the kernel's newer feature, then without it: a refused handshake may be repeated.
    struct uffdio_api api = {.api = UFFD_API, .features = needed | UFFD_FEATURE_POISON};
    if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
    api = (struct uffdio_api){.api = UFFD_API, .features = needed};
    if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
    int error = errno;
    close(fd);
    return -error;
}

static void unmap(struct vsmp_region *region) {
    if (region->base != MAP_FAILED) munmap(region->base, region->mapped_bytes);
    if (region->fault_fd >= 0) close(region->fault_fd);
    region->base = MAP_FAILED;
    region->fault_fd = -1;
}

// Maps the region and has the agent serve its faults. 0 or an errno value, with fail() done.
static int map(struct vsmp_region *region, void *address, int frames) {
    region->base =
        mmap(address, region->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE, frames, 0);
    if (region->base == MAP_FAILED)
        return fail(errno, "mapping %zu MiB at %p: %s%s", region->mapped_bytes >> 20, address, strerrordesc_np(errno),
                    errno == EEXIST ? " (something of this process is mapped there)" : "; is `ulimit -v` set?");
    // A child would read and write past the agent. Nor is the region to be faulted in by an earlier mlockall(MCL_FUTURE), nor held
    // in huge pages.
    int result = madvise(region->base, region->mapped_bytes, MADV_DONTFORK);
    munlock(region->base, region->mapped_bytes);
    madvise(region->base, region->mapped_bytes, MADV_NOHUGEPAGE);
    if (result != 0) return fail(errno, "madvise: %s", strerrordesc_np(errno));
    region->fault_fd = open_userfaultfd();
    if (region->fault_fd < 0)
        return fail(-region->fault_fd, "userfaultfd: %s; `vsmp doctor` says what is missing", strerrordesc_np(-region->fault_fd));
    struct uffdio_register registration = {.range = {(uintptr_t)region->base, region->mapped_bytes},
                                           .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
                                                   UFFDIO_REGISTER_MODE_WP};
    if (ioctl(region->fault_fd, UFFDIO_REGISTER, &registration) != 0)
        return fail(errno, "registering with userfaultfd: %s", strerrordesc_np(errno));
    struct exchange x = {.type = VSMP_GUEST_MAP,
                         .a = (uintptr_t)region->base,
                         .b = region->mapped_bytes,
                         .d = region->id,
                         .fd_to_pass = region->fault_fd};
    int error = link_ask(&x);
    link_done(&x);
    return error;
}

int vsmp_attach(const char *name, size_t bytes, struct vsmp_region **attached) {
    *attached = NULL;
    struct vsmp_region *region = calloc(1, sizeof *region);
    if (region == NULL) return fail(ENOMEM, "no memory for a region's handle");
    region->base = MAP_FAILED;
    region->fault_fd = -1;
    struct exchange x = {
        .type = VSMP_GUEST_ATTACH, .a = bytes, .data = name, .data_bytes = name != NULL ? strlen(name) : 0, .fd_to_pass = -1};
    int error = link_ask(&x);
    if (error == 0 && x.fds[0] < 0)
        error = fail(EPROTO, "the agent's answer lacks the frame file: is it of another version than this library?");
    if (error != 0) {
        link_done(&x);
        free(region);
        return error;
    }
    region->id = x.a;
    region->bytes = x.b;
    region->mapped_bytes = x.d;
    strncpy(region->protocol, x.text, sizeof region->protocol - 1);
    error = map(region, (void *)(uintptr_t)x.c, x.fds[0]);
    link_done(&x);

    // The others hear whether it worked here, and this rank whether it worked there.
    const char *why = vsmp_error();
    x = (struct exchange){.type = VSMP_GUEST_MAPPED,
                          .a = region->id,
                          .b = (uint64_t)error,
                          .data = why,
                          .data_bytes = error != 0 ? strnlen(why, VSMP_GUEST_TEXT_MAX) : 0,
                          .fd_to_pass = -1};
    error = link_ask(&x);
    link_done(&x);
    if (error != 0) {
        unmap(region);
        free(region);
        return error;
    }
    region->next = regions;
    regions = region;
    *attached = region;
    return 0;
}

int vsmp_detach(struct vsmp_region *region) {
    struct vsmp_region **at = &regions;
    while (*at != NULL && *at != region) at = &(*at)->next;
    if (*at == NULL) return fail(EINVAL, "there is no such region in this rank");
    *at = region->next;
    unmap(region);
    struct exchange x = {.type = VSMP_GUEST_DETACH, .a = region->id, .fd_to_pass = -1};
    free(region);
    int error = link_ask(&x);
    link_done(&x);
    return error;
}

int vsmp_finish(void) {
    while (regions != NULL) {
        struct vsmp_region *region = regions;
        regions = region->next;
        unmap(region);
        free(region);
    }
    struct exchange x = {.type = VSMP_GUEST_FINISH, .fd_to_pass = -1};
    int error = link_ask(&x);
    link_done(&x);
    link_close();
    has_finished = true;
    if (device >= 0) close(device);
    device = -1;
    return error;
}

void *vsmp_base(const struct vsmp_region *region) { return region->base; }

size_t vsmp_bytes(const struct vsmp_region *region) { return region->bytes; }

const char *vsmp_protocol(const struct vsmp_region *region) { return region->protocol; }

// ---- calls

// A call that has no data either way. The reply's a and b, where wanted.
static int call(uint16_t type, uint64_t a, uint64_t b, uint64_t c, uint64_t *reply_a, uint64_t *reply_b) {
    struct exchange x = {.type = type, .a = a, .b = b, .c = c, .fd_to_pass = -1};
    int error = link_ask(&x);
    if (reply_a != NULL) *reply_a = x.a;
    if (reply_b != NULL) *reply_b = x.b;
    link_done(&x);
    return error;
}

void *vsmp_alloc_all(struct vsmp_region *region, size_t bytes, size_t alignment) {
    uint64_t address, was_used;
    if (call(VSMP_GUEST_ALLOC_ALL, region->id, bytes, alignment, &address, &was_used) != 0) return NULL;
    if (was_used != 0) {
        if (vsmp_rank() == 0) memset((void *)(uintptr_t)address, 0, bytes);
        if (vsmp_barrier() != 0) return NULL;
    }
    return (void *)(uintptr_t)address;
}

void *vsmp_alloc(struct vsmp_region *region, size_t bytes, size_t alignment) {
    uint64_t address;
    return call(VSMP_GUEST_ALLOC, region->id, bytes, alignment, &address, NULL) == 0 ? (void *)(uintptr_t)address : NULL;
}

int vsmp_free(struct vsmp_region *region, void *block) {
    return block == NULL ? 0 : call(VSMP_GUEST_FREE, region->id, (uintptr_t)block, 0, NULL, NULL);
}

int vsmp_checkpoint(uint64_t *generation) {
    uint64_t taken = 0;
    int error = call(VSMP_GUEST_CHECKPOINT, 0, 0, 0, &taken, NULL);
    if (generation != NULL) *generation = taken;
    return error;
}

uint64_t vsmp_restored(void) { return restored; }

int vsmp_barrier(void) { return call(VSMP_GUEST_BARRIER, 0, 0, 0, NULL, NULL); }

int vsmp_lock(uint64_t number) { return call(VSMP_GUEST_LOCK, number, 0, 0, NULL, NULL); }

int vsmp_unlock(uint64_t number) { return call(VSMP_GUEST_UNLOCK, number, 0, 0, NULL, NULL); }

int vsmp_fetch_add(uint64_t counter, int64_t add, int64_t *before) {
    uint64_t value;
    int error = call(VSMP_GUEST_FETCH_ADD, counter, (uint64_t)add, 0, &value, NULL);
    if (error == 0 && before != NULL) *before = (int64_t)value;
    return error;
}

int vsmp_broadcast(void *buffer, size_t bytes, int root) {
    if (bytes > 65536) return fail(EMSGSIZE, "vsmp_broadcast copies up to 64 KiB at a time; share a region for more");
    // From a copy: the buffer may lie in a region, and the kernel is not to fault there on the library's behalf.
    static char copy[VSMP_GUEST_DATA_MAX]; // one collective function runs at a time
    size_t done = 0;
    do {
        const size_t part = bytes - done < sizeof copy ? bytes - done : sizeof copy;
        const bool is_root = vsmp_rank() == root;
        if (is_root && part > 0) memcpy(copy, (char *)buffer + done, part); // of nothing, the buffer may be null
        struct exchange x = {.type = VSMP_GUEST_BROADCAST,
                             .a = (uint64_t)(int64_t)root,
                             .b = part,
                             .c = bytes,
                             .data = copy,
                             .data_bytes = is_root ? part : 0,
                             .fd_to_pass = -1};
        int error = link_ask(&x);
        if (error == 0 && !is_root && x.text_bytes != part)
            error = fail(EPROTO, "the broadcast is %zu bytes long at its root, and %zu here", x.text_bytes, part);
        if (error == 0 && !is_root && part > 0) memcpy((char *)buffer + done, x.text, part);
        link_done(&x);
        if (error != 0) return error;
        done += part;
    } while (done < bytes);
    return 0;
}

int vsmp_acquire(struct vsmp_region *region) { return call(VSMP_GUEST_ACQUIRE, region->id, 0, 0, NULL, NULL); }

int vsmp_release(struct vsmp_region *region) { return call(VSMP_GUEST_RELEASE_REGION, region->id, 0, 0, NULL, NULL); }
