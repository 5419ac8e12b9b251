// SPDX-License-Identifier: Apache-2.0
//
// The socket that the agent has the other end of.
#ifndef VSMP_KEEPER_LINK_H
#define VSMP_KEEPER_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "holds.h"

// Descriptors from this number on are not for holds: something must be left to look after guests with.
void link_limit(unsigned descriptors);

// The socket of an agent that was just started; becomes the link's. False with errno.
bool link_open(int socket);

// Handles what there is, up to a bound. If it is no message, the agent is killed.
void link_read(void);

// Nobody is there to read any more: what is still to be sent keeps nothing from being read.
void link_on_hang_up(void);

// The agent is dead: what it had sent before is handled, then the socket is closed.
void link_finish(void);

// Sends what is to be sent, as far as there is room; at the end of every turn.
void link_flush(void);

// Whether something could not be sent for reasons other than room in the socket, and is to be tried again soon.
bool link_is_starved(void);

// A notice about the lease.
void link_tell(enum vsmp_keeper_type type, uint64_t at_ns, uint64_t b, uint64_t c);

// A guest's pidfd says that it is dead.
void link_on_guest(uint32_t slot);

// Drops all holds; how many.
uint32_t drop_all(void);

#endif
