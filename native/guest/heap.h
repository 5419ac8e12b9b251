// SPDX-License-Identifier: Apache-2.0
//
// malloc and its family: jemalloc, over arenas whose memory comes from the pool.
#ifndef VSMP_GUEST_HEAP_H
#define VSMP_GUEST_HEAP_H

// After a fork, in the child of a guest: from now on every thread allocates from arenas that the child makes for itself.
void heap_begin_generation(void);

#endif
