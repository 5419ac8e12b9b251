// SPDX-License-Identifier: Apache-2.0
//
// The node's right to act, and what happens to its guests when that runs out: they are stopped, whether an agent is there or not.
#ifndef VSMP_KEEPER_FENCE_H
#define VSMP_KEEPER_FENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "holds.h"

// False with errno: no timers.
bool fence_start(void);

// A lease up to a time (CLOCK_BOOTTIME), or, if that is 0, none needed. 0, EINVAL (no such time) or EPERM (a lease was given
// before, and this does not say that it is to be released).
int lease_set(uint64_t deadline_ns, bool is_release);

// The timer of the deadline; a lease that was given meanwhile counts.
void fence_on_deadline(void);

// The timer of what takes time.
void fence_on_tick(void);

// A guest that was just held.
void fence_newcomer(struct hold *guest);

// A guest that is about to be held no more: whoever drops one that lives says that it has nothing of the node's, and nobody would
// let it go on later.
void fence_leaver(struct hold *guest);

void fence_describe(struct vsmp_keeper_state *state);

#endif
