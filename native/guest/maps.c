// SPDX-License-Identifier: Apache-2.0
//
// What the kernel knows about a mapping that this library did not make note of. Slow, and only asked when such a mapping grows.
#define _GNU_SOURCE
#include "maps.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "system.h"

// A line of /proc/self/maps: "7f0000000000-7f0000021000 rw-p 00000000 00:00 0    [name]".
struct line {
    char text[256]; // what is longer is a file's name, and cut
    size_t length;
};

static uint64_t hexadecimal(const char **at) {
    uint64_t value = 0;
    for (;; ++*at) {
        const char c = **at;
        if (c >= '0' && c <= '9')
            value = value * 16 + (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (uint64_t)(c - 'a') + 10;
        else
            return value;
    }
}

// True where the line is about the address: then `*found` and `*protection` are the answer.
static bool examine(const char *line, uint64_t start, uint64_t end, bool *found, int *protection) {
    const char *at = line;
    const uint64_t from = hexadecimal(&at);
    if (*at++ != '-') return false;
    const uint64_t to = hexadecimal(&at);
    if (start < from || start >= to || *at++ != ' ' || strlen(at) < 5) return false;
    *protection = (at[0] == 'r' ? PROT_READ : 0) | (at[1] == 'w' ? PROT_WRITE : 0) | (at[2] == 'x' ? PROT_EXEC : 0);
    const bool is_private = at[3] == 'p';
    // Behind the permissions: offset, device, inode, and the name, if any.
    const char *device = strchr(at + 5, ' ');
    const bool anonymous = device != NULL && strncmp(device, " 00:00 0", 8) == 0 && (device[8] == ' ' || device[8] == 0);
    const bool special = strstr(line, "[heap]") != NULL || strstr(line, "[stack") != NULL || strstr(line, "[v") != NULL;
    *found = is_private && anonymous && !special && end <= to;
    return true;
}

bool maps_find(const void *address, size_t length, int *protection) {
    const long fd = SYSTEM_CALL(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return false;
    const uint64_t start = (uintptr_t)address;
    struct line line = {.length = 0};
    bool found = false;
    char buffer[4096];
    for (long got; (got = SYSTEM_CALL(SYS_read, fd, buffer, sizeof buffer)) > 0;) {
        for (long i = 0; i < got; i++) {
            if (buffer[i] != '\n') {
                if (line.length < sizeof line.text - 1) line.text[line.length++] = buffer[i];
                continue;
            }
            line.text[line.length] = 0;
            line.length = 0;
            if (examine(line.text, start, start + length, &found, protection)) {
                SYSTEM_CALL(SYS_close, fd);
                return found;
            }
        }
    }
    SYSTEM_CALL(SYS_close, fd);
    return false;
}
