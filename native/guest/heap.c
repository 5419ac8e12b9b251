// SPDX-License-Identifier: Apache-2.0
//
// jemalloc 5.3, linked in with its public names prefixed je_ (see native/Makefile), keeps its own metadata in private memory.
// Arena 0 has the default hooks and serves jemalloc itself; the program's threads are spread over arenas with our hooks:
//
//   alloc         address space, private below the threshold, of the window above it; "committed" means charged at the agent
//   commit        charge                                  (private memory comes committed)
//   decommit      drop the contents and the charge        (refused for private memory, so that jemalloc purges it instead)
//   purge_forced  drop the contents
//   dalloc        refused: jemalloc keeps address space and decommits it
//   split, merge  allowed: a chunk lies on one side of the window's border as a whole
#define _GNU_SOURCE
#include "heap.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pool.h"
#include "system.h"

void *je_malloc(size_t size);
void *je_calloc(size_t count, size_t size);
void *je_realloc(void *pointer, size_t size);
void je_free(void *pointer);
int je_posix_memalign(void **result, size_t alignment, size_t size);
void *je_aligned_alloc(size_t alignment, size_t size);
void *je_memalign(size_t alignment, size_t size);
void *je_valloc(size_t size);
size_t je_malloc_usable_size(void *pointer);
int je_mallctl(const char *name, void *old_value, size_t *old_size, void *new_value, size_t new_size);

// Read by jemalloc last, after its environment variable, whose settings for other programs must not undo these.
// Freed memory goes back soon (jemalloc would keep it for ten seconds): frames that nobody uses make others be evicted, which costs more
// than getting them again.
extern const char *je_malloc_conf_2_conf_harder;
const char *je_malloc_conf_2_conf_harder = "narenas:1,oversize_threshold:0,dss:disabled,retain:true,percpu_arena:disabled,"
                                           "metadata_thp:disabled,thp:default,background_thread:false,abort_conf:false,"
                                           "dirty_decay_ms:100,muzzy_decay_ms:0";

typedef struct extent_hooks extent_hooks;
struct extent_hooks {
    void *(*alloc)(extent_hooks *, void *, size_t, size_t, bool *, bool *, unsigned);
    bool (*dalloc)(extent_hooks *, void *, size_t, bool, unsigned);
    void (*destroy)(extent_hooks *, void *, size_t, bool, unsigned);
    bool (*commit)(extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*decommit)(extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*purge_lazy)(extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*purge_forced)(extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*split)(extent_hooks *, void *, size_t, size_t, size_t, bool, unsigned);
    bool (*merge)(extent_hooks *, void *, size_t, void *, size_t, bool, unsigned);
};

// ---- hooks; where they return bool, true means "not done"

static void *hook_alloc(extent_hooks *hooks, void *wanted, size_t size, size_t alignment, bool *zero, bool *commit,
                        unsigned arena) {
    (void)hooks, (void)arena;
    if (wanted != NULL) return NULL;
    bool pooled;
    void *chunk = pool_heap_chunk(size, alignment, *commit, &pooled);
    if (is_error(chunk)) return NULL;
    *zero = true;
    if (!pooled) *commit = true;
    return chunk;
}

static bool hook_dalloc(extent_hooks *hooks, void *address, size_t size, bool committed, unsigned arena) {
    (void)hooks, (void)address, (void)size, (void)committed, (void)arena;
    return true;
}

static bool hook_commit(extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length, unsigned arena) {
    (void)hooks, (void)size, (void)arena;
    return pool_heap_commit((char *)address + offset, length) != 0;
}

static bool hook_decommit(extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length, unsigned arena) {
    (void)hooks, (void)size, (void)arena;
    char *start = (char *)address + offset;
    return pool_side(start, length) != INSIDE || pool_heap_decommit(start, length) != 0;
}

static bool hook_purge_forced(extent_hooks *hooks, void *address, size_t size, size_t offset, size_t length, unsigned arena) {
    (void)hooks, (void)size, (void)arena;
    char *start = (char *)address + offset;
    if (pool_side(start, length) == INSIDE) return pool_heap_discard(start, length) != 0;
    return pool_is_inherited(start) || SYSTEM_CALL(SYS_madvise, start, length, MADV_DONTNEED) != 0;
}

static bool hook_split(extent_hooks *hooks, void *address, size_t size, size_t low, size_t high, bool committed, unsigned arena) {
    (void)hooks, (void)address, (void)size, (void)low, (void)high, (void)committed, (void)arena;
    return false;
}

static bool hook_merge(extent_hooks *hooks, void *low, size_t low_size, void *high, size_t high_size, bool committed,
                       unsigned arena) {
    (void)hooks, (void)low_size, (void)high_size, (void)committed, (void)arena;
    return (pool_side(low, 1) == INSIDE) != (pool_side(high, 1) == INSIDE);
}

static extent_hooks hooks = {
    .alloc = hook_alloc,
    .dalloc = hook_dalloc,
    .commit = hook_commit,
    .decommit = hook_decommit,
    .purge_forced = hook_purge_forced,
    .split = hook_split,
    .merge = hook_merge,
};

// ---- threads and arenas

#define MAX_ARENAS 32
// Before a process is a guest, few arenas: each one's first chunk counts towards the threshold.
#define PRIVATE_ARENAS 4

static struct guard arena_guard;
static unsigned arenas[MAX_ARENAS]; // jemalloc's index + 1, of this generation; under arena_guard
static _Atomic unsigned generation = 1;
static _Atomic unsigned threads_seen;

static __thread unsigned thread_generation __attribute__((tls_model("initial-exec")));

static unsigned arena_limit(void) {
    static unsigned processors;
    if (processors == 0) {
        cpu_set_t set;
        long bytes = SYSTEM_CALL(SYS_sched_getaffinity, 0, sizeof set, &set);
        unsigned count = bytes > 0 ? (unsigned)CPU_COUNT_S((size_t)bytes, &set) : 1;
        processors = count < PRIVATE_ARENAS ? PRIVATE_ARENAS : count > MAX_ARENAS ? MAX_ARENAS : count;
    }
    return pool_attached() ? processors : PRIVATE_ARENAS;
}

static unsigned make_arena(void) {
    struct {
        extent_hooks *hooks;
        bool metadata_use_hooks;
    } config = {&hooks, false};
    unsigned index = 0;
    size_t size = sizeof index;
    return je_mallctl("experimental.arenas_create_ext", &index, &size, &config, sizeof config) == 0 ? index + 1 : 0;
}

// A thread's first allocation, or its first one after a fork. A thread that could not be given an arena must not go on with
// arena 0, which is private for ever.
__attribute__((noinline)) static void settle_thread(void) {
    const bool forked = thread_generation != 0;
    thread_generation = generation; // first: jemalloc may call malloc from here on
    if (forked) // what the thread's cache holds lies in the parent's pool
        je_mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
    unsigned slot = atomic_fetch_add(&threads_seen, 1) % arena_limit();
    signal_mask saved;
    int error = 0;

    guard_enter(&arena_guard, &saved);
    if (arenas[slot] == 0) arenas[slot] = make_arena();
    unsigned arena = arenas[slot];
    guard_leave(&arena_guard, &saved);

    if (arena != 0) {
        arena--;
        error = je_mallctl("thread.arena", NULL, NULL, &arena, sizeof arena);
    }
    if (arena == 0 || error != 0) {
        say("cannot set up the heap of a thread: no memory");
        abort();
    }
}

static inline void settle(void) {
    if (VSMP_UNLIKELY(thread_generation != atomic_load_explicit(&generation, memory_order_relaxed))) settle_thread();
}

void heap_begin_generation(void) {
    memset(arenas, 0, sizeof arenas);
    atomic_fetch_add(&generation, 1);
}

// The pool refused: what other arenas hold unused may be enough. True: worth another try.
__attribute__((noinline)) static bool purge_after_refusal(void) {
    if (!pool_heap_was_refused()) return false;
    int error = errno;
    bool purged = je_mallctl("arena.4096.purge", NULL, NULL, NULL, 0) == 0; // 4096: all arenas
    errno = error;
    return purged;
}

static inline bool try_again(const void *result) { return VSMP_UNLIKELY(result == NULL) && purge_after_refusal(); }

// ---- fork: jemalloc's handlers and the pool's, in the order of their locks

static void (*jemalloc_before)(void), (*jemalloc_parent)(void), (*jemalloc_child)(void);

static void before_fork(void) {
    if (jemalloc_before != NULL) jemalloc_before();
    pool_before_fork(true);
}

static void after_fork_in_parent(void) {
    int socket = pool_after_fork_in_parent();
    if (jemalloc_parent != NULL) jemalloc_parent();
    pool_lend(socket);
}

static void after_fork_in_child(void) {
    guard_reset(&arena_guard);
    if (jemalloc_child != NULL) jemalloc_child();
    pool_after_fork_in_child();
}

// jemalloc registers its handlers through this, during its first allocation: before any other library, so that ours run last
// before a fork and first after it, and others' handlers may allocate.
int vsmp_je_atfork(void (*before)(void), void (*parent)(void), void (*child)(void));
int vsmp_je_atfork(void (*before)(void), void (*parent)(void), void (*child)(void)) {
    jemalloc_before = before;
    jemalloc_parent = parent;
    jemalloc_child = child;
    return pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

// jemalloc's own mappings (metadata, arena 0) go past our mmap and munmap.
void *vsmp_je_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *vsmp_je_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    void *result = raw_mmap(address, length, protection, flags, fd, (uint64_t)offset);
    return is_error(result) ? MAP_FAILED : result;
}

int vsmp_je_munmap(void *address, size_t length);
int vsmp_je_munmap(void *address, size_t length) { return SYSTEM_CALL(SYS_munmap, address, length) == 0 ? 0 : -1; }

int vsmp_je_madvise(void *address, size_t length, int advice);
int vsmp_je_madvise(void *address, size_t length, int advice) {
    return SYSTEM_CALL(SYS_madvise, address, length, advice) == 0 ? 0 : -1;
}

int vsmp_je_mprotect(void *address, size_t length, int protection);
int vsmp_je_mprotect(void *address, size_t length, int protection) {
    return SYSTEM_CALL(SYS_mprotect, address, length, protection) == 0 ? 0 : -1;
}

// ---- the family

VSMP_EXPORT void *malloc(size_t size) {
    settle();
    void *result = je_malloc(size);
    return try_again(result) ? je_malloc(size) : result;
}

VSMP_EXPORT void *calloc(size_t count, size_t size) {
    settle();
    void *result = je_calloc(count, size);
    return try_again(result) ? je_calloc(count, size) : result;
}

// In a child, of a pointer into the parent's pool: a copy, and nothing to free, as in free().
__attribute__((noinline)) static void *realloc_inherited(void *pointer, size_t size) {
    const size_t usable = je_malloc_usable_size(pointer);
    void *copy = size != 0 ? malloc(size) : NULL;
    if (copy != NULL) memcpy(copy, pointer, usable < size ? usable : size);
    return copy;
}

VSMP_EXPORT void *realloc(void *pointer, size_t size) {
    settle();
    if (VSMP_UNLIKELY(pool_inherits()) && pool_is_inherited(pointer)) return realloc_inherited(pointer, size);
    void *result = je_realloc(pointer, size);
    return size != 0 && try_again(result) ? je_realloc(pointer, size) : result;
}

VSMP_EXPORT void *reallocarray(void *pointer, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(pointer, bytes);
}

VSMP_EXPORT void free(void *pointer) {
    // In a child, a pointer into the parent's pool: its memory is the parent's, nothing here to free.
    if (VSMP_UNLIKELY(pool_inherits()) && pool_is_inherited(pointer)) return;
    je_free(pointer);
}

VSMP_EXPORT int posix_memalign(void **result, size_t alignment, size_t size) {
    settle();
    int error = je_posix_memalign(result, alignment, size);
    return error == ENOMEM && purge_after_refusal() ? je_posix_memalign(result, alignment, size) : error;
}

VSMP_EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    settle();
    void *result = je_aligned_alloc(alignment, size);
    return try_again(result) ? je_aligned_alloc(alignment, size) : result;
}

VSMP_EXPORT void *memalign(size_t alignment, size_t size) {
    settle();
    void *result = je_memalign(alignment, size);
    return try_again(result) ? je_memalign(alignment, size) : result;
}

VSMP_EXPORT void *valloc(size_t size) {
    settle();
    void *result = je_valloc(size);
    return try_again(result) ? je_valloc(size) : result;
}

VSMP_EXPORT void *pvalloc(size_t size) {
    if (size > SIZE_MAX - VSMP_PAGE_BYTES) {
        errno = ENOMEM;
        return NULL;
    }
    return valloc(round_up(size, VSMP_PAGE_BYTES));
}

VSMP_EXPORT size_t malloc_usable_size(void *pointer) { return je_malloc_usable_size(pointer); }
