// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "say.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void say(const char *format, ...) {
    char line[700] = "vsmp-keeper: ";
    const size_t prefix = strlen(line), room = sizeof line - prefix - 1;
    va_list arguments;
    va_start(arguments, format);
    const int written = vsnprintf(line + prefix, room, format, arguments);
    va_end(arguments);
    size_t length = prefix + (written < 0 ? 0 : (size_t)written < room ? (size_t)written : room - 1);
    line[length++] = '\n';
    // A pipe that polls as writable takes PIPE_BUF bytes without blocking.
    struct pollfd polled = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&polled, 1, 0) == 1 && (polled.revents & POLLOUT) != 0 && write(STDERR_FILENO, line, length) < 0) return;
}

void say_plainly(char *text) {
    for (; *text != 0; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f) *text = '?';
}

uint64_t boot_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
