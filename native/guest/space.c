// SPDX-License-Identifier: Apache-2.0
//
// Treaps: Seidel and Aragon, "Randomized search trees", 1996.
#include "space.h"

#include "system.h"

#define NODE(i) (space->nodes[i])

static uint64_t end_of(const struct space *space, uint32_t node) { return NODE(node).start + NODE(node).count; }

static void refresh(struct space *space, uint32_t node) {
    uint64_t longest = NODE(node).count;
    if (NODE(NODE(node).left).longest > longest) longest = NODE(NODE(node).left).longest;
    if (NODE(NODE(node).right).longest > longest) longest = NODE(NODE(node).right).longest;
    NODE(node).longest = longest;
}

// Nodes that start before `key` to `low`, the others to `high`.
static void split(struct space *space, uint32_t tree, uint64_t key, uint32_t *low, uint32_t *high) {
    if (tree == 0) {
        *low = *high = 0;
        return;
    }
    uint32_t inner;
    if (NODE(tree).start < key) {
        split(space, NODE(tree).right, key, &inner, high);
        NODE(tree).right = inner;
        *low = tree;
    } else {
        split(space, NODE(tree).left, key, low, &inner);
        NODE(tree).left = inner;
        *high = tree;
    }
    refresh(space, tree);
}

static uint32_t join(struct space *space, uint32_t low, uint32_t high) {
    if (low == 0 || high == 0) return low | high;
    if (NODE(low).priority > NODE(high).priority) {
        NODE(low).right = join(space, NODE(low).right, high);
        refresh(space, low);
        return low;
    }
    NODE(high).left = join(space, low, NODE(high).left);
    refresh(space, high);
    return high;
}

static uint32_t detach_first(struct space *space, uint32_t *tree) {
    uint32_t node = *tree;
    if (NODE(node).left == 0) {
        *tree = NODE(node).right;
        NODE(node).right = 0;
    } else {
        uint32_t left = NODE(node).left, first = detach_first(space, &left);
        NODE(node).left = left;
        refresh(space, node);
        return first;
    }
    refresh(space, node);
    return node;
}

static uint32_t detach_last(struct space *space, uint32_t *tree) {
    uint32_t node = *tree;
    if (NODE(node).right == 0) {
        *tree = NODE(node).left;
        NODE(node).left = 0;
    } else {
        uint32_t right = NODE(node).right, last = detach_last(space, &right);
        NODE(node).right = right;
        refresh(space, node);
        return last;
    }
    refresh(space, node);
    return node;
}

static uint32_t first_of(const struct space *space, uint32_t tree) {
    while (tree != 0 && NODE(tree).left != 0) tree = NODE(tree).left;
    return tree;
}

static uint32_t last_of(const struct space *space, uint32_t tree) {
    while (tree != 0 && NODE(tree).right != 0) tree = NODE(tree).right;
    return tree;
}

static bool has_room(const struct space *space) { return space->recycled != 0 || space->used < space->capacity; }

static uint32_t new_node(struct space *space, uint64_t start, uint64_t count) {
    uint32_t node = space->recycled;
    if (node != 0)
        space->recycled = NODE(node).left;
    else
        node = space->used++;
    // xorshift: the priorities need no better randomness, and they must not depend on what the program does.
    space->random ^= space->random << 13;
    space->random ^= space->random >> 17;
    space->random ^= space->random << 5;
    NODE(node) = (struct space_node){.start = start, .count = count, .longest = count, .priority = space->random};
    return node;
}

static void recycle(struct space *space, uint32_t node) {
    NODE(node) = (struct space_node){.left = space->recycled};
    space->recycled = node;
}

bool space_open(struct space *space, uint32_t capacity) {
    *space = (struct space){.capacity = capacity + 1, .used = 1, .random = 0x9e3779b9u};
    space->nodes = private_pages(space->capacity * sizeof *space->nodes);
    return space->nodes != NULL;
}

void space_close(struct space *space) {
    if (space->nodes != NULL) SYSTEM_CALL(SYS_munmap, space->nodes, space->capacity * sizeof *space->nodes);
    *space = (struct space){0};
}

bool space_add(struct space *space, uint64_t start, uint64_t count) {
    if (count == 0) return true;
    if (!has_room(space)) return false;

    uint32_t low, high;
    uint64_t end = start + count;
    split(space, space->root, start, &low, &high);
    uint32_t before = last_of(space, low);
    if (before != 0 && end_of(space, before) >= start) {
        before = detach_last(space, &low);
        start = NODE(before).start;
        if (end_of(space, before) > end) end = end_of(space, before);
        recycle(space, before);
    }
    for (uint32_t after; (after = first_of(space, high)) != 0 && NODE(after).start <= end;) {
        after = detach_first(space, &high);
        if (end_of(space, after) > end) end = end_of(space, after);
        recycle(space, after);
    }
    space->root = join(space, join(space, low, new_node(space, start, end - start)), high);
    return true;
}

bool space_remove(struct space *space, uint64_t start, uint64_t count) {
    if (count == 0) return true;
    if (!has_room(space)) return false;

    uint32_t low, high;
    const uint64_t end = start + count;
    split(space, space->root, start, &low, &high);
    uint32_t before = last_of(space, low);
    if (before != 0 && end_of(space, before) > start) {
        before = detach_last(space, &low);
        const uint64_t tail = end_of(space, before);
        NODE(before).count = start - NODE(before).start;
        refresh(space, before);
        low = join(space, low, before);
        if (tail > end) high = join(space, new_node(space, end, tail - end), high);
    }
    for (uint32_t after; (after = first_of(space, high)) != 0 && NODE(after).start < end;) {
        after = detach_first(space, &high);
        const uint64_t tail = end_of(space, after);
        recycle(space, after);
        if (tail > end) high = join(space, new_node(space, end, tail - end), high);
    }
    space->root = join(space, low, high);
    return true;
}

// First fit in address order, below `tree`. With `slack`, only ranges so long that any alignment fits are looked at: then the
// first one found is it, and the search never turns back.
static bool find(const struct space *space, uint32_t tree, uint64_t count, uint64_t alignment, bool slack, int *budget,
                 uint64_t *start) {
    const uint64_t wanted = slack ? count + alignment - 1 : count;
    if (tree == 0 || NODE(tree).longest < wanted || *budget <= 0) return false;
    if (find(space, NODE(tree).left, count, alignment, slack, budget, start)) return true;
    if (NODE(tree).count >= wanted) {
        --*budget;
        *start = round_up(NODE(tree).start, alignment);
        if (*start + count <= end_of(space, tree)) return true;
    }
    return find(space, NODE(tree).right, count, alignment, slack, budget, start);
}

bool space_find(const struct space *space, uint64_t count, uint64_t alignment, uint64_t *start) {
    // Ranges that are long enough but lie askew could be many; look at a few, then take the first that fits for certain.
    int budget = 32;
    if (find(space, space->root, count, alignment, false, &budget, start)) return true;
    budget = 1;
    return find(space, space->root, count, alignment, true, &budget, start);
}

bool space_next(const struct space *space, uint64_t from, uint64_t to, uint64_t *start, uint64_t *count) {
    uint32_t best = 0;
    for (uint32_t node = space->root; node != 0;) {
        if (end_of(space, node) > from) {
            best = node;
            node = NODE(node).left;
        } else {
            node = NODE(node).right;
        }
    }
    if (best == 0 || NODE(best).start >= to) return false;
    *start = NODE(best).start > from ? NODE(best).start : from;
    *count = (end_of(space, best) < to ? end_of(space, best) : to) - *start;
    return true;
}
