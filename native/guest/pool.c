// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "agent.h"
#include "child.h"
#include "heap.h"
#include "lend.h"
#include "maps.h"
#include "space.h"
#include "system.h"

#define FREE_RANGES (1u << 20)
#define OTHER_RANGES (1u << 16)

// A private mapping that counts towards the threshold.
struct private_map {
    uint64_t start, end;
};
#define PRIVATE_MAPS (PRIVATE_THRESHOLD / SMALL_MAPPING)

// Everything here belongs to whoever holds the guard, except what is atomic.
static struct guard guard;
static struct window window;
static struct space_set {
    struct space free; // pages of the window that nobody uses
    struct space foreign; // pages of the window over which the program mapped something else: the kernel's business
} set;
static struct charge charge;
static uint64_t private_bytes;
static struct private_map private_maps[PRIVATE_MAPS];
static _Atomic unsigned private_map_count;

// Readable without the guard. The length is set last and cleared first.
static _Atomic uint64_t window_base, window_length;

// Pages (by address) of windows that a parent had. Bounds for a look without the guard.
static struct space inherited;
static _Atomic uint64_t inherited_low = UINT64_MAX, inherited_high;

// One page that a fork wipes: how we notice a child that no fork handler told us about. A vfork child shares it, and everything
// else here; it is told apart by its process id.
static _Atomic uint32_t *alive;
static long owner;

static __thread bool heap_refused __attribute__((tls_model("initial-exec")));

static void become_child(void);

static void enter(signal_mask *saved) {
    if (alive != NULL && VSMP_UNLIKELY(*alive == 0)) {
        guard_reset(&guard);
        become_child();
    }
    guard_enter(&guard, saved);
}

static void leave(const signal_mask *saved) { guard_leave(&guard, saved); }

static uint64_t page_of(const void *address) { return ((uintptr_t)address - window.base) >> PAGE_SHIFT; }
static void *address_of(uint64_t page) { return (void *)(window.base + (page << PAGE_SHIFT)); }
static uint64_t pages_of(size_t length) { return length >> PAGE_SHIFT; }
static bool attached(void) { return window.length != 0; }

bool pool_attached(void) { return atomic_load_explicit(&window_length, memory_order_acquire) != 0; }

enum side pool_side(const void *address, size_t length) {
    const uint64_t size = atomic_load_explicit(&window_length, memory_order_acquire);
    if (VSMP_LIKELY(size == 0)) return OUTSIDE;
    const uint64_t base = atomic_load_explicit(&window_base, memory_order_relaxed);
    const uint64_t start = (uintptr_t)address;
    if (start >= base + size || (start < base && length <= base - start)) return OUTSIDE;
    return start >= base && length <= base + size - start ? INSIDE : ACROSS;
}

// ---- becoming a guest

static int attach(void) {
    if (owner != 0 && SYSTEM_CALL(SYS_getpid) != owner) {
        // The descriptors would be the child's, the memory that goes with them the parent's.
        say_seldom("a child that vfork made needs pooled memory before it execs a program: it gets none");
        return ENOMEM;
    }
    int error = agent_attach(&window);
    if (error == 0) {
        const uint64_t pages = pages_of(window.length);
        if (charge_open(&charge, pages, agent_calls()) && space_open(&set.free, FREE_RANGES) &&
            space_open(&set.foreign, OTHER_RANGES) && space_add(&set.free, 0, pages) &&
            (inherited.nodes != NULL || space_open(&inherited, OTHER_RANGES))) { // a child could not place it safely
            atomic_store_explicit(&window_base, window.base, memory_order_relaxed);
            atomic_store_explicit(&window_length, window.length, memory_order_release);
            return 0;
        }
        say_seldom("cannot attach this program to the pool: no address space for the tables; is `ulimit -v` set?");
        charge_close(&charge);
        space_close(&set.free);
        space_close(&set.foreign);
        SYSTEM_CALL(SYS_munmap, window.room, window.room_length);
        agent_forget();
    }
    window = (struct window){0};
    return ENOMEM;
}

// Where an allocation of this size goes. PRIVATE has been counted; REFUSED has been explained.
static enum { PRIVATE, POOLED, REFUSED } place(size_t length) {
    if (!agent_configured()) return PRIVATE;
    if (attached()) return POOLED;
    if (length <= PRIVATE_THRESHOLD && private_bytes + length <= PRIVATE_THRESHOLD) {
        private_bytes += length;
        return PRIVATE;
    }
    return attach() == 0 ? POOLED : REFUSED;
}

void pool_open(void) {
    if (!agent_configured() || alive != NULL) return;
    owner = SYSTEM_CALL(SYS_getpid);
    alive = private_pages(VSMP_PAGE_BYTES);
    if (alive == NULL) return;
    SYSTEM_CALL(SYS_madvise, alive, VSMP_PAGE_BYTES, MADV_WIPEONFORK);
    *alive = 1;
}

// ---- the window's address space

static bool take_space(uint64_t count, uint64_t alignment, uint64_t *start) {
    if (count >= PAGES_PER_EXTENT && alignment < PAGES_PER_EXTENT) alignment = PAGES_PER_EXTENT;
    if (space_find(&set.free, count, alignment, start) && space_remove(&set.free, *start, count)) return true;
    say_seldom("no room for %llu MiB in the %llu MiB of address space that the agent gave this program",
               (unsigned long long)(count >> 8), (unsigned long long)(window.length >> 20));
    return false;
}

static int protect(uint64_t start, uint64_t count, int protection) {
    long error = SYSTEM_CALL(SYS_mprotect, address_of(start), count << PAGE_SHIFT, protection);
    if (error == 0) charge_protect(&charge, start, count, protection);
    return (int)-error;
}

// A part of a range over which nothing foreign is mapped, or everything is.
struct piece {
    uint64_t start, count;
    bool foreign;
};

// The piece that begins at `from`; false at the end.
static bool next_piece(uint64_t from, uint64_t end, struct piece *piece) {
    if (from >= end) return false;
    uint64_t start, count;
    *piece = (struct piece){.start = from, .count = end - from};
    if (space_next(&set.foreign, from, end, &start, &count)) {
        piece->foreign = start == from;
        piece->count = piece->foreign ? count : start - from;
    }
    return true;
}

#define FOR_PIECES(piece, first, pages)                                                                                          \
    for (struct piece piece = {.start = (first)}; next_piece(piece.start, (first) + (pages), &piece); piece.start += piece.count)

// Puts the window's own mapping back wherever the program mapped something over it.
static int take_back(uint64_t start, uint64_t count) {
    FOR_PIECES(piece, start, count) {
        if (!piece.foreign) continue;
        int error = agent_map(&window, piece.start << PAGE_SHIFT, piece.count << PAGE_SHIFT);
        if (error != 0 || !space_remove(&set.foreign, piece.start, piece.count)) return error != 0 ? error : ENOMEM;
    }
    return 0;
}

// Hides the range, so that its contents can go.
static int hide(uint64_t start, uint64_t count) {
    int error = take_back(start, count);
    return error != 0 ? error : protect(start, count, PROT_NONE);
}

// Makes a hidden range free address space again.
static void give_up(uint64_t start, uint64_t count) {
    // What could not be dropped is not used again: it might not read zeros.
    if (charge_give_back(&charge, start, count) == 0 && !space_add(&set.free, start, count))
        say_seldom("too many mappings: %llu pages of address space are lost to this program", (unsigned long long)count);
}

// ---- the heap

static void *private_chunk(size_t length, size_t alignment) {
    const size_t extra = alignment > VSMP_PAGE_BYTES ? alignment - VSMP_PAGE_BYTES : 0;
    void *room = raw_mmap(NULL, length + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (is_error(room) || extra == 0) return room;
    const uintptr_t start = (uintptr_t)room, aligned = round_up(start, alignment), end = start + length + extra;
    if (aligned > start) SYSTEM_CALL(SYS_munmap, start, aligned - start);
    if (end > aligned + length) SYSTEM_CALL(SYS_munmap, aligned + length, end - aligned - length);
    return (void *)aligned;
}

// The whole chunk is readable and writable at once, whatever of it is committed: jemalloc touches only what it committed, and
// one mapping of many small pieces would soon meet vm.max_map_count.
static void *pooled_chunk(size_t length, size_t alignment, bool commit) {
    uint64_t start;
    const uint64_t count = pages_of(length);
    if (!take_space(count, alignment >> PAGE_SHIFT, &start)) return (void *)-ENOMEM;
    int error = commit ? charge_take(&charge, start, count) : 0;
    if (error == 0 && (error = protect(start, count, PROT_READ | PROT_WRITE)) == 0) return address_of(start);
    heap_refused = true;
    charge_give_back(&charge, start, count);
    space_add(&set.free, start, count);
    return (void *)-ENOMEM;
}

void *pool_heap_chunk(size_t length, size_t alignment, bool commit, bool *pooled) {
    signal_mask saved;
    enter(&saved);
    void *chunk = (void *)-ENOMEM;
    *pooled = false;
    switch (place(length)) {
    case PRIVATE:
        chunk = private_chunk(length, alignment);
        break;
    case POOLED:
        *pooled = true;
        chunk = pooled_chunk(length, alignment, commit);
        break;
    case REFUSED:
        heap_refused = true;
        break;
    }
    leave(&saved);
    return chunk;
}

int pool_heap_commit(void *address, size_t length) {
    if (pool_side(address, length) != INSIDE) return ENOMEM; // what a child inherited
    // window_base cannot change under us: only fork moves it, and a child has one thread.
    const uint64_t start = ((uintptr_t)address - window_base) >> PAGE_SHIFT;
    if (charge_take_quickly(&charge, start, pages_of(length))) return 0;
    signal_mask saved;
    enter(&saved);
    int error = charge_take(&charge, start, pages_of(length));
    if (error != 0) heap_refused = true;
    leave(&saved);
    return error;
}

int pool_heap_decommit(void *address, size_t length) {
    signal_mask saved;
    enter(&saved);
    int error = pool_side(address, length) != INSIDE ? EINVAL : charge_give_back(&charge, page_of(address), pages_of(length));
    leave(&saved);
    return error;
}

int pool_heap_discard(void *address, size_t length) {
    signal_mask saved;
    enter(&saved);
    int error = pool_side(address, length) != INSIDE ? EINVAL : charge_discard(&charge, page_of(address), pages_of(length));
    leave(&saved);
    return error;
}

bool pool_heap_was_refused(void) {
    bool refused = heap_refused;
    heap_refused = false;
    return refused;
}

// ---- mappings

static void *map_pooled(uint64_t count, int protection) {
    uint64_t start;
    if (!take_space(count, 1, &start)) return (void *)-ENOMEM;
    int error = 0;
    if (protection != PROT_NONE) {
        error = charge_take(&charge, start, count);
        if (error == 0 && (error = protect(start, count, protection)) != 0) charge_give_back(&charge, start, count);
    }
    if (error == 0) return address_of(start);
    space_add(&set.free, start, count);
    return (void *)-ENOMEM;
}

// Remembers what was counted, so that unmapping it can be counted, too. When the table is full (of remnants) it stays counted.
static void remember_private(uint64_t start, uint64_t length) {
    if (private_map_count < PRIVATE_MAPS) private_maps[private_map_count++] = (struct private_map){start, start + length};
}

void *pool_map(void *hint, size_t length, int protection, int flags) {
    signal_mask saved;
    void *result = NULL;
    enter(&saved);
    switch (place(length)) {
    case PRIVATE:
        if (!agent_configured()) break;
        result = raw_mmap(hint, length, protection, flags, -1, 0);
        if (is_error(result))
            private_bytes -= length;
        else
            remember_private((uintptr_t)result, length);
        break;
    case POOLED:
        result = map_pooled(pages_of(length), protection);
        break;
    case REFUSED:
        result = (void *)-ENOMEM;
        break;
    }
    leave(&saved);
    return result;
}

static void forget_private(uint64_t start, uint64_t end) {
    for (unsigned i = 0; i < private_map_count;) {
        struct private_map *map = &private_maps[i];
        const uint64_t from = map->start > start ? map->start : start, to = map->end < end ? map->end : end;
        if (from >= to) {
            i++;
            continue;
        }
        // A hole in the middle counts as all that lies behind it: the table holds ends, and such holes are rare.
        const bool tail = from > map->start;
        const uint64_t gone = tail ? map->end - from : to - map->start;
        private_bytes -= gone;
        if (tail)
            map->end = from;
        else
            map->start = to;
        if (map->start == map->end)
            *map = private_maps[--private_map_count];
        else
            i++;
    }
}

void pool_forget_private(const void *address, size_t length) {
    if (private_map_count == 0) return;
    signal_mask saved;
    enter(&saved);
    forget_private((uintptr_t)address, (uintptr_t)address + length);
    leave(&saved);
}

int pool_unmap(void *address, size_t length) {
    signal_mask saved;
    enter(&saved);
    const uint64_t start = page_of(address), count = pages_of(length);
    int error = hide(start, count);
    if (error == 0) give_up(start, count);
    leave(&saved);
    return error;
}

// Private anonymous memory that may never hold code: what the pool can stand for.
static bool poolable(int protection, int flags) {
    const int allowed = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE | MAP_LOCKED | MAP_NONBLOCK | MAP_DENYWRITE |
                        MAP_EXECUTABLE | MAP_FIXED | MAP_FIXED_NOREPLACE;
    return (flags & ~allowed) == 0 && (flags & MAP_PRIVATE) != 0 && (flags & MAP_ANONYMOUS) != 0 && (protection & PROT_EXEC) == 0;
}

static int map_pooled_at(uint64_t start, uint64_t count, int protection) {
    // Charged first, so that running out changes nothing; the contents go while nobody can see them.
    if (protection != PROT_NONE && charge_take(&charge, start, count) != 0) return ENOMEM;
    int error = hide(start, count);
    if (error != 0) return error;
    if (protection == PROT_NONE) return charge_give_back(&charge, start, count) == 0 ? 0 : ENOMEM;
    return charge_discard(&charge, start, count) == 0 ? protect(start, count, protection) : ENOMEM;
}

// Something that is not the pool's goes over a part of the window. It is mapped elsewhere first: when that fails, what was here
// is still here, as the program may expect.
static int map_foreign_at(uint64_t start, uint64_t count, int protection, int flags, int fd, uint64_t offset) {
    const uint64_t length = count << PAGE_SHIFT;
    void *mapped = raw_mmap(NULL, length, protection, flags & ~(MAP_FIXED | MAP_FIXED_NOREPLACE), fd, offset);
    if (is_error(mapped)) return error_of(mapped);
    if (!space_add(&set.foreign, start, count)) {
        SYSTEM_CALL(SYS_munmap, mapped, length);
        return ENOMEM;
    }
    charge_give_back(&charge, start, count);
    charge_protect(&charge, start, count, PROT_NONE);
    void *moved = (void *)SYSTEM_CALL(SYS_mremap, mapped, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, address_of(start));
    if (!is_error(moved)) return 0;
    // Some devices' mappings cannot be moved. If this fails, too, the range counts as foreign all the same: take_back() mends it.
    SYSTEM_CALL(SYS_munmap, mapped, length);
    moved = raw_mmap(address_of(start), length, protection, (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED, fd, offset);
    return is_error(moved) ? error_of(moved) : 0;
}

void *pool_map_at(void *address, size_t length, int protection, int flags, int fd, uint64_t offset) {
    signal_mask saved;
    enter(&saved);
    const uint64_t start = page_of(address), count = pages_of(length);
    int error = 0;
    if ((flags & MAP_FIXED_NOREPLACE) != 0 && !space_covers(&set.free, start, count))
        error = EEXIST;
    else if (poolable(protection, flags))
        error = map_pooled_at(start, count, protection);
    else
        error = map_foreign_at(start, count, protection, flags, fd, offset);
    if (error == 0 && !space_remove(&set.free, start, count)) error = ENOMEM;
    leave(&saved);
    return error != 0 ? (void *)(intptr_t)-error : address;
}

static int protect_pooled(uint64_t start, uint64_t count, int protection) {
    if ((protection & PROT_EXEC) != 0 && !charge_any(&charge, start, count))
        // Code that is still to be written (a just-in-time compiler's): not for the pool.
        return map_foreign_at(start, count, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (protection != PROT_NONE && charge_take(&charge, start, count) != 0) return ENOMEM;
    return protect(start, count, protection);
}

int pool_protect(void *address, size_t length, int protection) {
    signal_mask saved;
    enter(&saved);
    const uint64_t start = page_of(address), count = pages_of(length);
    int error = space_overlaps(&set.free, start, count) ? ENOMEM : 0;
    FOR_PIECES(piece, start, count) {
        if (error != 0) break;
        if (piece.foreign)
            error = -(int)SYSTEM_CALL(SYS_mprotect, address_of(piece.start), piece.count << PAGE_SHIFT, protection);
        else
            error = protect_pooled(piece.start, piece.count, protection);
    }
    leave(&saved);
    return error;
}

// Contents go; the charge goes, too, where the program has no access: it must ask for that again, and is charged then.
static int discard(uint64_t start, uint64_t count) {
    int result = 0;
    for (uint64_t page = start, end = start + count; page < end;) {
        const bool hidden = (charge_state(&charge, page) & PAGE_PROTECTION) == 0;
        uint64_t stop = page + 1;
        while (stop < end && ((charge_state(&charge, stop) & PAGE_PROTECTION) == 0) == hidden) stop++;
        int error = hidden ? charge_give_back(&charge, page, stop - page) : charge_discard(&charge, page, stop - page);
        result = error != 0 ? EAGAIN : result;
        page = stop;
    }
    return result;
}

// What advice means for pooled pages. The numbers are the kernel's; Debian 12's headers lack the newest.
static enum { HARMLESS, DISCARDS, REFUSES, TOUCHES } meaning(int advice) {
    switch (advice) {
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
    case 24: // MADV_DONTNEED_LOCKED
        return DISCARDS;
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_DONTFORK:
    case MADV_KEEPONFORK:
    case 20: // MADV_COLD
    case 21: // MADV_PAGEOUT
    case 25: // MADV_COLLAPSE
        return HARMLESS;
    case 22: // MADV_POPULATE_READ
    case 23: // MADV_POPULATE_WRITE
        return TOUCHES;
    default: // MADV_DOFORK and MADV_WIPEONFORK among them: a child never inherits pooled memory
        return REFUSES;
    }
}

int pool_advise(void *address, size_t length, int advice) {
    signal_mask saved;
    enter(&saved);
    const uint64_t start = page_of(address), count = pages_of(length);
    int error = space_overlaps(&set.free, start, count) ? ENOMEM : 0;
    const int kind = meaning(advice);
    FOR_PIECES(piece, start, count) {
        if (error != 0) break;
        if (piece.foreign)
            error = -(int)SYSTEM_CALL(SYS_madvise, address_of(piece.start), piece.count << PAGE_SHIFT, advice);
        else if (kind == DISCARDS)
            error = discard(piece.start, piece.count);
        else if (kind == REFUSES)
            error = EINVAL;
    }
    leave(&saved);
    // Populating faults, and waits for the agent: not under the lock.
    if (error == 0 && kind == TOUCHES) error = -(int)SYSTEM_CALL(SYS_madvise, address, length, advice);
    return error;
}

// ---- mremap

// Whether the whole range is one mapping, as mremap wants it: allocated, ours, of one protection.
static bool is_uniform(uint64_t start, uint64_t count, int *protection) {
    if (space_overlaps(&set.free, start, count) || space_overlaps(&set.foreign, start, count)) return false;
    *protection = charge_state(&charge, start) & PAGE_PROTECTION;
    for (uint64_t page = start; page < start + count; page++)
        if ((int)(charge_state(&charge, page) & PAGE_PROTECTION) != *protection) return false;
    return true;
}

// Copies what is not zero, so that pages never written stay without memory on the other side, too.
static void copy_pages(void *to, const void *from, uint64_t count) {
    static const char zeros[VSMP_PAGE_BYTES];
    for (uint64_t i = 0; i < count; i++) {
        const char *page = (const char *)from + (i << PAGE_SHIFT);
        if (memcmp(page, zeros, sizeof zeros) != 0) memcpy((char *)to + (i << PAGE_SHIFT), page, sizeof zeros);
    }
}

static int grow_in_place(uint64_t end, uint64_t more, int protection) {
    if (!space_covers(&set.free, end, more)) return ENOMEM;
    if (protection != PROT_NONE && charge_take(&charge, end, more) != 0) return ENOMEM;
    int error = protect(end, more, protection);
    if (error == 0 && !space_remove(&set.free, end, more)) error = ENOMEM;
    if (error != 0) {
        protect(end, more, PROT_NONE);
        charge_give_back(&charge, end, more);
    }
    return error;
}

void *pool_remap(void *address, size_t old_length, size_t new_length, int flags) {
    signal_mask saved;
    int protection;
    if (flags & (MREMAP_FIXED | 4 /* MREMAP_DONTUNMAP */) || old_length == 0) return (void *)-EINVAL;

    enter(&saved);
    const uint64_t start = page_of(address), old_count = pages_of(old_length), new_count = pages_of(new_length);
    int error = 0;
    void *result = address;
    if (!is_uniform(start, old_count, &protection)) {
        error = EFAULT;
    } else if (new_count < old_count) {
        error = hide(start + new_count, old_count - new_count);
        if (error == 0) give_up(start + new_count, old_count - new_count);
    } else if (new_count > old_count && grow_in_place(start + old_count, new_count - old_count, protection) != 0) {
        result = (flags & MREMAP_MAYMOVE) == 0 ? (void *)-ENOMEM : map_pooled(new_count, PROT_READ | PROT_WRITE);
        if (is_error(result))
            error = error_of(result);
        else if ((protection & PROT_READ) == 0)
            error = -(int)SYSTEM_CALL(SYS_mprotect, address, old_length, PROT_READ);
    }
    leave(&saved);
    if (error != 0) return (void *)(intptr_t)-error;
    if (result == address) return result;

    // Both ranges are this call's alone until it returns; copying faults, so it must not hold the lock.
    copy_pages(result, address, old_count);
    if (protection != (PROT_READ | PROT_WRITE)) pool_protect(result, new_length, protection);
    pool_unmap(address, old_length);
    return result;
}

void *pool_remap_private(void *address, size_t old_length, size_t new_length, int flags) {
    int protection;
    if (new_length <= old_length || new_length < SMALL_MAPPING || flags != MREMAP_MAYMOVE || !agent_configured() ||
        !maps_find(address, old_length, &protection) || (protection & PROT_EXEC) != 0)
        return NULL;

    signal_mask saved;
    enter(&saved);
    const uint64_t start = (uintptr_t)address, end = start + old_length;
    bool counted = false;
    for (unsigned i = 0; i < private_map_count; i++) counted |= private_maps[i].start == start && private_maps[i].end == end;
    const uint64_t more = counted ? new_length - old_length : new_length;
    void *result = (void *)-ENOMEM;
    bool pooled = false;
    switch (place(more)) {
    case PRIVATE: // counted: the kernel moves it, and we follow
        result = (void *)SYSTEM_CALL(SYS_mremap, address, old_length, new_length, flags);
        if (is_error(result)) {
            private_bytes -= more;
            break;
        }
        if (counted) {
            private_bytes += old_length; // taken off again with the old range
            forget_private(start, end);
        }
        remember_private((uintptr_t)result, new_length);
        break;
    case POOLED:
        pooled = true;
        result = map_pooled(pages_of(new_length), PROT_READ | PROT_WRITE);
        if (!is_error(result) && counted) forget_private(start, end);
        break;
    case REFUSED:
        break;
    }
    leave(&saved);
    if (!pooled || is_error(result)) return result;

    if ((protection & PROT_READ) == 0) SYSTEM_CALL(SYS_mprotect, address, old_length, PROT_READ);
    copy_pages(result, address, pages_of(old_length));
    if (protection != (PROT_READ | PROT_WRITE)) pool_protect(result, new_length, protection);
    SYSTEM_CALL(SYS_munmap, address, old_length);
    return result;
}

// ---- fork

static signal_mask mask_at_fork;
static int lending[2]; // the parent's end and the child's, or -1; under the guard, which a fork holds

void pool_before_fork(bool lend) {
    enter(&mask_at_fork);
    lending[0] = lending[1] = -1;
    if (lend && attached()) lend_open(lending);
}

int pool_after_fork_in_parent(void) {
    const int socket = lending[0];
    if (lending[1] >= 0) SYSTEM_CALL(SYS_close, lending[1]);
    leave(&mask_at_fork);
    return socket;
}

static bool look_up(uint64_t address, int *protection) {
    if (pool_side((const void *)address, VSMP_PAGE_BYTES) != INSIDE) return false;
    signal_mask saved;
    enter(&saved);
    const uint64_t page = page_of((const void *)address);
    const bool found = !space_overlaps(&set.free, page, 1) && !space_overlaps(&set.foreign, page, 1);
    *protection = charge_state(&charge, page) & PAGE_PROTECTION;
    leave(&saved);
    return found;
}

void pool_lend(int socket) { lend_serve(socket, look_up); }

bool pool_inherits(void) { return atomic_load_explicit(&inherited_high, memory_order_relaxed) != 0; }

bool pool_is_inherited(const void *address) {
    const uint64_t page = (uintptr_t)address >> PAGE_SHIFT;
    if (VSMP_LIKELY(page >= atomic_load_explicit(&inherited_high, memory_order_relaxed)) ||
        page < atomic_load_explicit(&inherited_low, memory_order_relaxed) || pool_side(address, 1) == INSIDE)
        return false;
    signal_mask saved;
    enter(&saved);
    bool found = space_overlaps(&inherited, page, 1);
    leave(&saved);
    return found;
}

// A child: the window was not inherited. Its place is taken at once, so that nothing else lands there and is mistaken for what
// the parent's pointers mean.
static void become_child(void) {
    owner = SYSTEM_CALL(SYS_getpid);
    if (alive != NULL) *alive = 1;
    agent_keep_lender(-1); // an earlier fork's: its parent answers one process
    if (!attached()) return;
    const uint64_t base = window.base, low = base >> PAGE_SHIFT, count = pages_of(window.length);
    atomic_store(&window_length, 0);
    agent_forget();
    FOR_PIECES(piece, 0, count) {
        if (piece.foreign) continue;
        raw_mmap(address_of(piece.start), piece.count << PAGE_SHIFT, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        space_add(&inherited, low + piece.start, piece.count);
    }
    if (low < inherited_low) atomic_store(&inherited_low, low);
    if (low + count > inherited_high) atomic_store(&inherited_high, low + count);

    charge_close(&charge);
    space_close(&set.free);
    space_close(&set.foreign);
    window = (struct window){0};
    private_bytes = 0;
    private_map_count = 0;
    heap_begin_generation();
    child_watch_inherited();
}

void pool_after_fork_in_child(void) {
    guard_reset(&guard);
    const bool inherits = attached();
    become_child();
    if (lending[0] >= 0) SYSTEM_CALL(SYS_close, lending[0]);
    if (inherits) lend_begin(lending[1]);
    signal_mask mask = mask_at_fork;
    SYSTEM_CALL(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, &mask, NULL, sizeof mask);
}
