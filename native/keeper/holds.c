// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "holds.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HOLDS = VSMP_KEEPER_HOLDS_MAX, BUCKETS = 2 * HOLDS };

static struct hold holds[HOLDS];
static uint32_t buckets[BUCKETS]; // index + 1 of the first
static uint32_t guests[HOLDS]; // slots, without gaps
static uint32_t free_slots; // index + 1 of the first that was used before
static uint32_t slots; // from here on none was ever used
static uint32_t counts[VSMP_KEEPER_KIND_OTHER + 1];
static char *data; // a page for each slot, in use where it has data

bool holds_start(void) {
    data = mmap(NULL, (size_t)HOLDS * VSMP_KEEPER_DATA_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    return data != MAP_FAILED;
}

static uint32_t *bucket_of(uint64_t key) {
    key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9ull;
    key = (key ^ (key >> 27)) * 0x94d049bb133111ebull;
    return &buckets[(key ^ (key >> 31)) % BUCKETS];
}

struct hold *hold_find(uint64_t key) {
    for (uint32_t at = *bucket_of(key); at != 0; at = holds[at - 1].next)
        if (holds[at - 1].key == key) return &holds[at - 1];
    return NULL;
}

struct hold *hold_add(uint64_t key, enum vsmp_keeper_kind kind) {
    uint32_t at = free_slots;
    if (at != 0) {
        free_slots = holds[at - 1].next;
    } else {
        if (slots == HOLDS) return NULL;
        at = ++slots;
    }
    uint32_t *bucket = bucket_of(key);
    struct hold *hold = &holds[at - 1];
    *hold = (struct hold){.key = key, .kind = (uint8_t)kind, .proc = -1, .next = *bucket};
    *bucket = at;
    if (kind == VSMP_KEEPER_KIND_GUEST) {
        hold->guest_index = counts[kind];
        guests[hold->guest_index] = at - 1;
    }
    counts[kind]++;
    return hold;
}

void hold_remove(struct hold *hold) {
    const uint32_t at = hold_slot(hold) + 1;
    uint32_t *link = bucket_of(hold->key);
    while (*link != at) link = &holds[*link - 1].next;
    *link = hold->next;

    for (unsigned i = 0; i < hold->fd_count; i++) close(hold->fds[i]);
    if (hold->proc >= 0) close(hold->proc);
    if (hold->data_bytes > 0) madvise(hold_data(hold), VSMP_KEEPER_DATA_MAX, MADV_DONTNEED);

    counts[hold->kind]--;
    if (hold->kind == VSMP_KEEPER_KIND_GUEST) {
        const uint32_t last = guests[counts[VSMP_KEEPER_KIND_GUEST]];
        guests[hold->guest_index] = last;
        holds[last].guest_index = hold->guest_index;
    }
    hold->key = 0;
    hold->next = free_slots;
    free_slots = at;
}

void *hold_data(const struct hold *hold) { return data + (size_t)hold_slot(hold) * VSMP_KEEPER_DATA_MAX; }

uint32_t hold_slots(void) { return slots; }

struct hold *hold_at(uint32_t slot) {
    return slot < slots && holds[slot].key != 0 ? &holds[slot] : NULL;
}

uint32_t hold_slot(const struct hold *hold) { return (uint32_t)(hold - holds); }

uint32_t holds_count(enum vsmp_keeper_kind kind) { return counts[kind]; }

struct hold *guest_at(uint32_t index) {
    return &holds[guests[index]];
}
