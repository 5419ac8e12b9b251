// SPDX-License-Identifier: Apache-2.0
//
// The connection to the agent of this node, and the descriptors that hang on it.
#ifndef VSMP_GUEST_AGENT_H
#define VSMP_GUEST_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "charge.h"

struct window {
    uint64_t base; // address of the window; its page 0 is offset 0 of the frame file
    uint64_t length; // bytes, a multiple of the extent
    uint64_t room, room_length; // what was taken from the address space for it: an inaccessible border on either side
};

// Reads VSMP_GUEST_SOCKET and VSMP_RUN, once, before the program can change them. True where both are there.
bool agent_configured(void);

// Connects, receives the frame file, maps and registers the window, tells the agent. 0 or an errno value; says why. The caller
// holds the lock, as for everything below.
int agent_attach(struct window *window);

// RESERVE, RELEASE, DISCARD. Failures are said on stderr.
struct charge_agent agent_calls(void);

// Puts the window's own, inaccessible mapping (back) over a range and registers it.
int agent_map(const struct window *window, uint64_t offset, uint64_t length);

// Whether a descriptor is one of ours, which the program must not close. Lock-free.
bool agent_owns(int fd);
// The lowest descriptor of ours at or above `fd`, or -1. Lock-free.
int agent_next_owned(int fd);

// In a forked child: closes its copies of the descriptors and forgets the connection.
void agent_forget(void);

// In a forked child: the socket to its parent (lend.h), kept among our own. Closes the one before; -1: none.
void agent_keep_lender(int fd);
int agent_lender(void);

#endif
