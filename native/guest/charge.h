// SPDX-License-Identifier: Apache-2.0
//
// What the agent has been asked to set aside. Admission counts extents of 2 MiB; programs map, commit and give back pages. So
// every page of the window has a byte of state, and every extent a count of its charged pages: the first one asks the agent for
// the extent, the last one gives it back.
//
// The same byte holds the page's protection, since only this library knows what the program asked for.
#ifndef VSMP_GUEST_CHARGE_H
#define VSMP_GUEST_CHARGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PAGE_PROTECTION 0x07u // PROT_READ | PROT_WRITE | PROT_EXEC
#define PAGE_CHARGED 0x08u

// How to reach the agent; bytes, as in protocol.h. They return 0 or an errno value.
struct charge_agent {
    int (*reserve)(void *context, uint64_t offset, uint64_t length);
    int (*release)(void *context, uint64_t offset, uint64_t length);
    int (*discard)(void *context, uint64_t offset, uint64_t length);
    void *context;
};

struct charge {
    struct charge_agent agent;
    _Atomic uint8_t *pages; // PAGE_* of each page
    _Atomic uint16_t *extents; // charged pages in each extent
    uint8_t *accessible; // whether any page of the extent may have a protection
    uint64_t page_count; // a multiple of an extent's
};

// False where the kernel gives no memory for the tables.
bool charge_open(struct charge *charge, uint64_t page_count, struct charge_agent agent);
void charge_close(struct charge *charge);

// Charges the pages that are not charged yet: all of them, or, with the agent's errno value, none. The caller holds the lock.
int charge_take(struct charge *charge, uint64_t start, uint64_t count);

// The same without the lock, for the allocator's many small steps inside an extent that the agent already granted. False: not
// so, nothing done.
bool charge_take_quickly(struct charge *charge, uint64_t start, uint64_t count);

// Drops the contents of the charged pages and their charge. Returns an errno value where the agent could not be told: the
// contents may then still be there. The caller holds the lock.
int charge_give_back(struct charge *charge, uint64_t start, uint64_t count);

// Drops the contents of the charged pages and keeps the charge. The caller holds the lock.
int charge_discard(struct charge *charge, uint64_t start, uint64_t count);

// Whether any page of the range is charged.
bool charge_any(const struct charge *charge, uint64_t start, uint64_t count);

static inline uint8_t charge_state(const struct charge *charge, uint64_t page) {
    return atomic_load_explicit(&charge->pages[page], memory_order_relaxed);
}

// Notes the protection of a range. The caller holds the lock.
void charge_protect(struct charge *charge, uint64_t start, uint64_t count, int protection);

#endif
