// SPDX-License-Identifier: Apache-2.0
//
// The memory calls as the program sees them. Each looks where the range lies: outside the window the kernel answers, inside the
// pool does, and a range that reaches over the window's border (only munmap makes sense there) is cut.
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "pool.h"
#include "system.h"

static int answer(long result) {
    if (VSMP_LIKELY(result >= 0)) return (int)result;
    errno = (int)-result;
    return -1;
}

static void *answer_address(void *result) {
    if (VSMP_LIKELY(!is_error(result))) return result;
    errno = error_of(result);
    return MAP_FAILED;
}

static bool is_page_aligned(const void *address) { return ((uintptr_t)address & (VSMP_PAGE_BYTES - 1)) == 0; }

// Rounds a length to pages; false where that does not fit.
static bool whole_pages(const void *address, size_t *length) {
    const size_t rounded = round_up(*length, VSMP_PAGE_BYTES);
    if (rounded < *length || (uintptr_t)address + rounded < (uintptr_t)address) return false;
    *length = rounded;
    return true;
}

// A mapping that belongs into the pool, if there is one: private anonymous data, large, anywhere.
static bool is_poolable(size_t length, int protection, int flags) {
    const int allowed =
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE | MAP_LOCKED | MAP_NONBLOCK | MAP_DENYWRITE | MAP_EXECUTABLE;
    return length >= SMALL_MAPPING && (flags & ~allowed) == 0 && (flags & MAP_PRIVATE) != 0 && (flags & MAP_ANONYMOUS) != 0 &&
           (protection & PROT_EXEC) == 0;
}

static void *map_fixed(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    size_t whole = length;
    if (!is_page_aligned(address) || length == 0 || !whole_pages(address, &whole))
        return raw_mmap(address, length, protection, flags, fd, (uint64_t)offset); // the kernel says what is wrong
    switch (pool_side(address, whole)) {
    case INSIDE:
        return pool_map_at(address, whole, protection, flags, fd, (uint64_t)offset);
    case ACROSS:
        return (void *)-ENOMEM;
    default:
        if ((flags & MAP_FIXED_NOREPLACE) == 0) pool_forget_private(address, whole);
        return raw_mmap(address, length, protection, flags, fd, (uint64_t)offset);
    }
}

VSMP_EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
        return answer_address(map_fixed(address, length, protection, flags, fd, offset));
    size_t whole = length;
    if (is_poolable(length, protection, flags) && whole_pages(NULL, &whole)) {
        void *result = pool_map(address, whole, protection, flags);
        if (result != NULL) return answer_address(result);
    }
    return answer_address(raw_mmap(address, length, protection, flags, fd, (uint64_t)offset));
}

VSMP_EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
    __attribute__((alias("mmap")));

VSMP_EXPORT int munmap(void *address, size_t length) {
    size_t whole = length;
    if (!is_page_aligned(address) || length == 0 || !whole_pages(address, &whole))
        return answer(SYSTEM_CALL(SYS_munmap, address, length));
    switch (pool_side(address, whole)) {
    case INSIDE:
        return answer(-pool_unmap(address, whole));
    case ACROSS:
        return answer(-EINVAL);
    default:
        pool_forget_private(address, whole);
        return answer(SYSTEM_CALL(SYS_munmap, address, length));
    }
}

VSMP_EXPORT int mprotect(void *address, size_t length, int protection) {
    size_t whole = length;
    if (!is_page_aligned(address) || length == 0 || !whole_pages(address, &whole))
        return answer(SYSTEM_CALL(SYS_mprotect, address, length, protection));
    switch (pool_side(address, whole)) {
    case INSIDE:
        return answer(-pool_protect(address, whole, protection));
    case ACROSS:
        return answer(-ENOMEM);
    default:
        // What a child inherited only as an address: any access is to be noticed, also one that was prepared.
        return pool_inherits() && pool_is_inherited(address) ? 0 : answer(SYSTEM_CALL(SYS_mprotect, address, length, protection));
    }
}

static int advise(void *address, size_t length, int advice) {
    size_t whole = length;
    if (!is_page_aligned(address) || length == 0 || !whole_pages(address, &whole))
        return (int)-SYSTEM_CALL(SYS_madvise, address, length, advice);
    switch (pool_side(address, whole)) {
    case INSIDE:
        return pool_advise(address, whole, advice);
    case ACROSS:
        return ENOMEM;
    default:
        return pool_inherits() && pool_is_inherited(address) ? 0 : (int)-SYSTEM_CALL(SYS_madvise, address, length, advice);
    }
}

VSMP_EXPORT int madvise(void *address, size_t length, int advice) { return answer(-advise(address, length, advice)); }

VSMP_EXPORT int posix_madvise(void *address, size_t length, int advice) {
    // As in libc: POSIX's DONTNEED must not lose data, Linux's does.
    return advice == POSIX_MADV_DONTNEED ? 0 : advise(address, length, advice);
}

VSMP_EXPORT void *mremap(void *address, size_t old_length, size_t new_length, int flags, ...) {
    void *target = NULL;
    if (flags & MREMAP_FIXED) {
        va_list arguments;
        va_start(arguments, flags);
        target = va_arg(arguments, void *);
        va_end(arguments);
    }
    size_t old_whole = old_length, new_whole = new_length;
    if (is_page_aligned(address) && new_length != 0 && whole_pages(address, &old_whole) && whole_pages(NULL, &new_whole)) {
        const enum side side = pool_side(address, old_whole != 0 ? old_whole : 1);
        if (side == INSIDE) return answer_address(pool_remap(address, old_whole, new_whole, flags));
        if (side == ACROSS) return answer_address((void *)-EFAULT);
        if ((flags & MREMAP_FIXED) && pool_side(target, new_whole) != OUTSIDE)
            return answer_address((void *)-EINVAL); // a private mapping moved into the window
        if (pool_inherits() && pool_is_inherited(address)) return answer_address((void *)-EFAULT);
        void *result = pool_remap_private(address, old_whole, new_whole, flags);
        if (result != NULL) return answer_address(result);
    }
    return answer_address((void *)SYSTEM_CALL(SYS_mremap, address, old_length, new_length, flags, target));
}

// ---- locking: pooled pages are where the agent puts them; nothing is faulted in to be held

VSMP_EXPORT int mlock(const void *address, size_t length) {
    return pool_side(address, length) != OUTSIDE ? 0 : answer(SYSTEM_CALL(SYS_mlock, address, length));
}

VSMP_EXPORT int mlock2(const void *address, size_t length, unsigned flags) {
    return pool_side(address, length) != OUTSIDE ? 0 : answer(SYSTEM_CALL(SYS_mlock2, address, length, flags));
}

VSMP_EXPORT int munlock(const void *address, size_t length) {
    return pool_side(address, length) != OUTSIDE ? 0 : answer(SYSTEM_CALL(SYS_munlock, address, length));
}

VSMP_EXPORT int mlockall(int flags) { return pool_attached() ? 0 : answer(SYSTEM_CALL(SYS_mlockall, flags)); }

VSMP_EXPORT int munlockall(void) { return pool_attached() ? 0 : answer(SYSTEM_CALL(SYS_munlockall)); }
