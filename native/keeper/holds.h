// SPDX-License-Identifier: Apache-2.0
//
// What is held: a table by key, all of it allocated at start. Nothing here knows what a hold means.
#ifndef VSMP_KEEPER_HOLDS_H
#define VSMP_KEEPER_HOLDS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol.h"

enum stop {
    STOP_NONE, // it runs, for all we know
    STOP_SENT, // SIGSTOP was sent; not all threads were seen stopped yet
    STOP_SEEN, // all its threads were stopped when we last looked
};

struct hold {
    uint64_t key; // 0: free
    uint64_t guest_key; // mappings
    int fds[VSMP_KEEPER_FDS_MAX];
    int proc; // guests: its folder in /proc; −1: none
    int pid; // guests
    uint32_t next; // in its bucket, or in the free list: index + 1
    uint32_t guest_index; // guests: where among them
    uint16_t data_bytes;
    uint8_t kind; // enum vsmp_keeper_kind
    uint8_t fd_count : 3;
    uint8_t stop : 2; // enum stop
    uint8_t is_foreign : 1; // it was stopped before we stopped it: not ours to wake
    uint8_t is_gone : 1;
    uint8_t is_untold : 1; // its end is a notice still to be sent
};

// False with errno: no memory.
bool holds_start(void);

struct hold *hold_find(uint64_t key);

// A new hold of a key that is not held, without descriptors; NULL if there are too many.
struct hold *hold_add(uint64_t key, enum vsmp_keeper_kind kind);

// Closes what it holds.
void hold_remove(struct hold *hold);

// VSMP_KEEPER_DATA_MAX bytes.
void *hold_data(const struct hold *hold);

// All holds, in no order: a hold's slot stays its own until it is removed. NULL where the slot is free.
uint32_t hold_slots(void);
struct hold *hold_at(uint32_t slot);
uint32_t hold_slot(const struct hold *hold);

uint32_t holds_count(enum vsmp_keeper_kind kind);

// Guests are at indices from 0 to holds_count(guests) − 1; removing one moves the last into its place.
struct hold *guest_at(uint32_t index);

#endif
