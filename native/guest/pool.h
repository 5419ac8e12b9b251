// SPDX-License-Identifier: Apache-2.0
//
// This process's share of the pool: the window, what of it is in use, and the rule that decides what is pooled at all.
//
// Functions that return int return 0 or an errno value; those that return an address return what is_error() knows.
#ifndef VSMP_GUEST_POOL_H
#define VSMP_GUEST_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a process keeps private before it becomes a guest; and the mappings that do not even count.
#define PRIVATE_THRESHOLD (16ull << 20)
#define SMALL_MAPPING (1ull << 20)

void pool_open(void); // at load, before the program can change its environment

// Which side of the window's border a range lies on. Lock-free.
enum side { OUTSIDE, INSIDE, ACROSS };
enum side pool_side(const void *address, size_t length);
bool pool_attached(void);

// ---- the heap's chunks

// Address space for the heap. Private memory comes committed; pooled memory is charged if `commit`, else it is to be committed.
void *pool_heap_chunk(size_t length, size_t alignment, bool commit, bool *pooled);
int pool_heap_commit(void *address, size_t length);
int pool_heap_decommit(void *address, size_t length); // it reads zeros when committed again
int pool_heap_discard(void *address, size_t length);
// Whether a commit failed since the last call, in this thread.
bool pool_heap_was_refused(void);

// ---- mappings; ranges are whole pages, and inside the window except where said otherwise

// An anonymous private mapping that the kernel would place. NULL: it is to be private, ask the kernel.
void *pool_map(void *hint, size_t length, int protection, int flags);
// Anything that is to be mapped at a given place in the window.
void *pool_map_at(void *address, size_t length, int protection, int flags, int fd, uint64_t offset);
int pool_unmap(void *address, size_t length);
int pool_protect(void *address, size_t length, int protection);
int pool_advise(void *address, size_t length, int advice);
void *pool_remap(void *address, size_t old_length, size_t new_length, int flags);
// A mapping outside the window that is to grow. NULL: it is none for the pool, or needs no decision; ask the kernel.
void *pool_remap_private(void *address, size_t old_length, size_t new_length, int flags);
// A range outside the window is being unmapped or mapped over: it no longer counts as private.
void pool_forget_private(const void *address, size_t length);

// ---- fork

// With `lend`, pages are lent to the child for a while (lend.h); the parent then calls pool_lend() with what
// pool_after_fork_in_parent() returned, when it holds no lock any more.
void pool_before_fork(bool lend);
int pool_after_fork_in_parent(void);
void pool_lend(int socket);
void pool_after_fork_in_child(void);

// Whether an address lies in what was the pool of a process that we were forked from: gone here, and only here.
bool pool_is_inherited(const void *address);
bool pool_inherits(void); // whether there is any such range

#endif
