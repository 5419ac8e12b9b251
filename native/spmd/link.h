// SPDX-License-Identifier: Apache-2.0
//
// The connection of a rank to the agent of its node: requests from any thread, answered in any order. If the agent is killed, and
// another one takes its place, requests that have no answer yet are asked of that.
#ifndef VSMP_SPMD_LINK_H
#define VSMP_SPMD_LINK_H

#include <stddef.h>
#include <stdint.h>

#include "../guest/protocol.h"

// What a request says, and what its reply said. Descriptors in a reply are the caller's; −1: none.
struct exchange {
    uint16_t type;
    uint64_t a, b, c, d;
    const void *data;
    size_t data_bytes;
    int fd_to_pass; // −1: none

    int32_t status;
    char *text; // of the reply, or its data; with a zero behind; freed by link_done
    size_t text_bytes;
    int fds[2];
};

// Connects, as a rank of the job of that token. 0 or an errno value, with fail() done.
int link_open(const char *socket_path, uint64_t rank, const char *token);
// Sends a request and waits for its reply. 0, or the reply's status, or ECONNRESET/EPROTO/ENOMEM; with fail() done.
int link_ask(struct exchange *exchange);
void link_done(struct exchange *exchange);
void link_close(void);

// Keeps why a function of this thread failed, and returns the errno value.
int fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
