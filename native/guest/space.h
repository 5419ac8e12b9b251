// SPDX-License-Identifier: Apache-2.0
//
// A set of page ranges, kept as disjoint, never touching ranges in a treap whose nodes know the longest range below them. The
// window's free address space is one such set. All operations are logarithmic; none allocates, save from the set's own nodes.
#ifndef VSMP_GUEST_SPACE_H
#define VSMP_GUEST_SPACE_H

#include <stdbool.h>
#include <stdint.h>

struct space_node {
    uint64_t start, count; // pages
    uint64_t longest; // count of the longest range in this subtree
    uint32_t left, right; // 0: none
    uint32_t priority;
    uint32_t unused;
};

struct space {
    struct space_node *nodes; // node 0 is the empty tree
    uint32_t capacity, used, recycled, root;
    uint32_t random;
};

// Makes an empty set with room for `capacity` ranges. False where the kernel gives no memory.
bool space_open(struct space *space, uint32_t capacity);
void space_close(struct space *space);

// Adds a range, whether or not parts of it are there. False: no node left, nothing changed.
bool space_add(struct space *space, uint64_t start, uint64_t count);

// Takes a range out, whether or not all of it was there. False: no node left, nothing changed.
bool space_remove(struct space *space, uint64_t start, uint64_t count);

// Finds room for `count` pages at a multiple of `alignment` pages (a power of two): the lowest, or nearly so. Takes nothing.
bool space_find(const struct space *space, uint64_t count, uint64_t alignment, uint64_t *start);

// The first part of the set at or after `from` and before `to`.
bool space_next(const struct space *space, uint64_t from, uint64_t to, uint64_t *start, uint64_t *count);

static inline bool space_overlaps(const struct space *space, uint64_t start, uint64_t count) {
    uint64_t at, length;
    return space_next(space, start, start + count, &at, &length);
}

static inline bool space_covers(const struct space *space, uint64_t start, uint64_t count) {
    uint64_t at, length;
    return space_next(space, start, start + count, &at, &length) && at == start && length == count;
}

#endif
