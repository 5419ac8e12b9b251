// SPDX-License-Identifier: Apache-2.0
//
// vsmp.h: the interface of programs whose ranks share memory across nodes.
//
// `vsmp spmd -n 4 -- program` starts four ranks of a program, on one node or on several. Each attaches regions by name: a
// region lies at the same address in every rank, and plain loads, stores and atomic instructions on it are coherent (protocols
// msi, mesi, moesi), or become so at acquire, release and barrier (protocol lazy). Link with -lvsmp (pkg-config vsmp).
//
//     int main(void) {
//         struct vsmp_region *region;
//         if (vsmp_start() != 0) return 1;
//         if (vsmp_attach("grid", 64 << 20, &region) != 0) { fprintf(stderr, "%s\n", vsmp_error()); return 1; }
//         long *sum = vsmp_alloc_all(region, sizeof *sum, 0);
//         __atomic_fetch_add(sum, vsmp_rank(), __ATOMIC_SEQ_CST);
//         vsmp_barrier();
//         if (vsmp_rank() == 0) printf("%ld\n", *sum);
//         return vsmp_finish();
//     }
//
// Every function that can fail returns 0 or an errno value; vsmp_error() says in words what failed, where, and what to do.
// EPIPE: a rank of the job has ended; what it held is released. ECONNRESET: the agent is lost. EPROTO: ranks disagree. A collective
// function is called by all ranks, in the same order. Functions may be called from any thread; collective ones, and those that
// wait, from one thread of a rank at a time. No function may be called in a forked child.
#ifndef VSMP_H
#define VSMP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VSMP_API_VERSION 1
#if defined(__GNUC__)
#define VSMP_API __attribute__((visibility("default")))
#else
#define VSMP_API
#endif

struct vsmp_region;

// The version that the library implements: VSMP_API_VERSION of its header.
VSMP_API int vsmp_version(void);

// Joins the job that `vsmp spmd` started this process for. Collective: returns when all ranks have joined. EINVAL: not started by
// `vsmp spmd`; EPIPE: a rank ended before it joined.
VSMP_API int vsmp_start(void);
// Leaves the job. Collective. Regions are unmapped; a region goes when no rank has it.
VSMP_API int vsmp_finish(void);

// This rank, 0 … vsmp_size() − 1, and how many there are. Valid before vsmp_start, too.
VSMP_API int vsmp_rank(void);
VSMP_API int vsmp_size(void);

// Why the last function of this thread failed; never null.
VSMP_API const char *vsmp_error(void);

// Creates or attaches a region. Collective: name, size and protocol must be the same everywhere, else EPROTO for all of them.
// ENOMEM: the pool has not that much left. Pages read zeros first. `name`: letters, digits, - _ and ., at most 63; null: what
// `vsmp spmd --name` gave.
VSMP_API int vsmp_attach(const char *name, size_t bytes, struct vsmp_region **region);
// Unmaps a region. Collective.
VSMP_API int vsmp_detach(struct vsmp_region *region);

// The region's address, the same in every rank, its length in bytes, and the name of its protocol.
VSMP_API void *vsmp_base(const struct vsmp_region *region);
VSMP_API size_t vsmp_bytes(const struct vsmp_region *region);
VSMP_API const char *vsmp_protocol(const struct vsmp_region *region);

// Memory of a region, zeroed on first use, aligned to `alignment` bytes (a power of two up to 2 MiB; 0: 16). Collective: every rank gets the
// same address. Null: see vsmp_error.
VSMP_API void *vsmp_alloc_all(struct vsmp_region *region, size_t bytes, size_t alignment);
// The same for one rank, which may hand the address to others. Not zeroed if the memory was used before.
VSMP_API void *vsmp_alloc(struct vsmp_region *region, size_t bytes, size_t alignment);
// Gives memory of either kind back, once, by any rank. Null is ignored. EINVAL: not the start of a block.
VSMP_API int vsmp_free(struct vsmp_region *region, void *block);

// Waits for all ranks. Collective.
VSMP_API int vsmp_barrier(void);

// Mutual exclusion: one lock per number, fair.
// vsmp_lock returns EOWNERDEAD, with the lock held, if the rank that held it last has ended without unlocking.
VSMP_API int vsmp_lock(uint64_t lock);
VSMP_API int vsmp_unlock(uint64_t lock); // EPERM: this rank does not hold it

// Adds to a counter of the job, each starts at 0. `before`: its value before; may be null.
VSMP_API int vsmp_fetch_add(uint64_t counter, int64_t add, int64_t *before);

// Copies up to 64 KiB from the root's buffer into all others'. Collective: bytes and root must be the same everywhere.
VSMP_API int vsmp_broadcast(void *buffer, size_t bytes, int root);

// Takes a checkpoint of all regions of the job, if it has checkpoints (vsmp spmd --checkpoint, --checkpoint-every, --restart) and one is due. Collective:
// what the regions contain when all ranks have called is what a restarted job finds in them; ranks go on as soon as that is certain, and the pages
// are copied behind their backs. `generation`: the one that was begun, 0 if none was due or it could not be taken (`vsmp spmd` says why); may be null.
// EBUSY: a rank holds a lock. What ranks have in memory of their own is not saved.
VSMP_API int vsmp_checkpoint(uint64_t *generation);
// The generation that the job goes on from (vsmp spmd --restart), 0 if it begins. Then vsmp_attach, with the same name and length, gives a region with what it
// contained, at the address where it was; what was allocated in it still is, vsmp_base() is where it begins, and counters have their values.
// Valid after vsmp_start.
VSMP_API uint64_t vsmp_restored(void);

// Protocol lazy: sees what others released before (acquire); lets others see what this rank wrote (release). Under the other
// protocols they do nothing and return 0. Programs seldom need them: vsmp_unlock and vsmp_free release, vsmp_lock and vsmp_alloc
// acquire, vsmp_barrier, vsmp_broadcast, vsmp_alloc_all and vsmp_fetch_add do both, for all regions.
VSMP_API int vsmp_acquire(struct vsmp_region *region);
VSMP_API int vsmp_release(struct vsmp_region *region);

#ifdef __cplusplus
}
#endif

#endif
