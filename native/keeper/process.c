// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

// Reads a small file of /proc whole; negative: minus an errno value.
static int read_small(int folder, const char *path, char *text, size_t room) {
    const int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    const ssize_t bytes = read(fd, text, room - 1);
    const int error = errno;
    close(fd);
    if (bytes < 0) return -error;
    text[bytes] = 0;
    return (int)bytes;
}

int process_open(int pidfd, int *pid, int *proc) {
    char path[48], text[512];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    const int bytes = read_small(AT_FDCWD, path, text, sizeof text);
    if (bytes < 0) return -bytes;
    const char *line = strstr(text, "\nPid:\t");
    if (line == NULL) return EBADF;
    *pid = atoi(line + 6);
    if (*pid < 0) return ESRCH;
    if (*pid == 0) return EXDEV;
    snprintf(path, sizeof path, "/proc/%d", *pid);
    *proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const int error = errno;
    // As long as the process lives its number is its own: if it does now, the folder is of no other one.
    if (process_is_gone(pidfd)) {
        if (*proc >= 0) close(*proc);
        return ESRCH;
    }
    return *proc >= 0 ? 0 : error == ENOENT ? EXDEV : error; // where /proc hides processes
}

bool process_is_gone(int pidfd) {
    struct pollfd polled = {.fd = pidfd, .events = POLLIN};
    return poll(&polled, 1, 0) == 1 && polled.revents != 0;
}

int process_signal(int pidfd, int signal) { return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0 ? 0 : errno; }

// The letter of a process or thread in proc(5), 'X' if there is none any more, 0 if that cannot be told.
static char state_of(int proc, const char *path) {
    char text[512];
    const int bytes = read_small(proc, path, text, sizeof text);
    if (bytes == -ENOENT || bytes == -ESRCH) return 'X';
    if (bytes < 0) return 0;
    // The name, in parentheses, may have some itself, and anything else.
    const char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' ? end[2] : 0;
}

static bool has_ended(char state) { return state == 'Z' || state == 'X' || state == 'x'; }

static bool is_still(char state) { return state == 'T' || state == 't' || has_ended(state); }

// Whether it holds for the state of any thread; `if_unknown` where the threads cannot be listed.
static bool any_thread(int proc, bool (*is_it)(char state), bool if_unknown) {
    const int tasks = openat(proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tasks < 0) return errno == ENOENT || errno == ESRCH ? false : if_unknown;
    bool found = false;
    _Alignas(struct dirent64) char entries[4096];
    long bytes = 0;
    while (!found && (bytes = syscall(SYS_getdents64, tasks, entries, sizeof entries)) > 0) {
        for (long at = 0; at < bytes && !found;) {
            const struct dirent64 *entry = (const struct dirent64 *)(entries + at);
            at += entry->d_reclen;
            if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
            char path[64];
            snprintf(path, sizeof path, "task/%.20s/stat", entry->d_name);
            found = is_it(state_of(proc, path));
        }
    }
    if (bytes < 0 && errno != ENOENT && errno != ESRCH) found = if_unknown;
    close(tasks);
    return found;
}

static bool is_stopped(char state) { return state == 'T'; }

static bool is_not_still(char state) { return !is_still(state); }

bool process_is_stopped(int proc) {
    const char first = state_of(proc, "stat");
    return has_ended(first) ? any_thread(proc, is_stopped, false) : is_stopped(first);
}

bool process_is_still(int proc) { return is_still(state_of(proc, "stat")) && !any_thread(proc, is_not_still, true); }

bool run_ahead(void) {
    const struct sched_param lowest = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) == 0;
}
