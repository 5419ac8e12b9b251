// SPDX-License-Identifier: Apache-2.0
//
// What a forked child may still see of its parent's pooled memory: see lend.c.
#ifndef VSMP_GUEST_LEND_H
#define VSMP_GUEST_LEND_H

#include <stdbool.h>
#include <stdint.h>

// Finds a page of this process's pool that a child asks for. False: there is none, or its protection is none.
typedef bool lend_lookup(uint64_t address, int *protection);

// Makes a pair of sockets, the parent's end first. -1 each where there are no more descriptors: then nothing is lent.
void lend_open(int ends[2]);

// The parent, after the fork: answers the child until it execs, ends, or has been quiet for a while. Closes the socket.
void lend_serve(int socket, lend_lookup *lookup);

// The child: keeps its end; forgets what an earlier fork lent.
void lend_begin(int socket);

enum lent { LENT, LEND_REFUSED, LEND_NOT_READABLE };

// The child, in its fault handler: gets the page and puts it where it belongs, as private memory. LENT also if it is there.
enum lent lend_get(uint64_t address, bool write);

#endif
