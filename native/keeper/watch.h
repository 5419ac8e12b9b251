// SPDX-License-Identifier: Apache-2.0
//
// The descriptors that the one loop waits for (main.c).
#ifndef VSMP_KEEPER_WATCH_H
#define VSMP_KEEPER_WATCH_H

#include <stdint.h>

enum watched {
    WATCHED_LINK,
    WATCHED_DEADLINE,
    WATCHED_TICK,
    WATCHED_GUEST,
    WATCHED_BACK_OFF,
    WATCHED_SIGNALS,
};

// 0 or an errno value. `slot`: which guest.
int watch_add(int fd, uint32_t events, enum watched what, uint32_t slot);

void watch_change(int fd, uint32_t events, enum watched what);

// Before a descriptor is closed: others may have copies, and the kernel would go on watching those.
void watch_remove(int fd);

#endif
