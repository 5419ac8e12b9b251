// SPDX-License-Identifier: Apache-2.0
//
// What an agent and its keeper say to each other: messages over a Unix SOCK_SEQPACKET socket that the agent inherits, its number
// in the environment variable VSMP_KEEPER. src/VSmp.Agent/Keeping/KeeperProtocol.cs is the other side; a test compares the two.
//
//   agent                                    keeper
//     │ LIST                                  │  after every start
//     │ ◄──────────────────────────────────── │  one reply for each hold, + its descriptors; then one with END
//     │ HOLD key, kind  + descriptors         │
//     │ ────────────────────────────────────► │  has them from the reply on, whatever happens to the agent
//     │ LEASE deadline, again and again       │
//     │ ────────────────────────────────────► │  stops the guests when the last deadline passes
//     │              GONE, FENCED, RESUMED    │
//     │ ◄──────────────────────────────────── │  notices, at any time
//
// A request is answered with its type | REPLY and its serial; with serial 0 it is not answered, and an error is a line on the
// keeper's standard error. What is no message at all (below: "malformed") costs the agent its life: what it wants cannot be known.
// As long as a reply has no room in the socket, the keeper reads no further request; notices wait, and hold nothing up.
//
// All integers are little-endian, times are CLOCK_BOOTTIME in nanoseconds. A message is this header and `data_bytes` bytes, and
// carries `fd_count` descriptors.
#ifndef VSMP_KEEPER_PROTOCOL_H
#define VSMP_KEEPER_PROTOCOL_H

#include <stdint.h>

#define VSMP_KEEPER_MAGIC 0x314b5356u // "VSK1"
#define VSMP_KEEPER_VERSION 1u
#define VSMP_KEEPER_DATA_MAX 4096u
#define VSMP_KEEPER_FDS_MAX 4u // of a hold
#define VSMP_KEEPER_HOLDS_MAX 65536u

enum vsmp_keeper_type {
    // key (not 0), kind, 1 to 4 descriptors, data: opaque. Mappings: a = key of the guest. Errors: EEXIST the key is held already,
    // ENOENT no such guest, ENOSPC too many holds, EMFILE too many descriptors, EBADF the first descriptor is not what the kind
    // asks for, ESRCH the guest is dead, EXDEV it is in another process namespace.
    VSMP_KEEPER_HOLD = 1,
    // key. Error: ENOENT.
    VSMP_KEEPER_DROP = 2,
    // Drops all holds. Reply: a = how many.
    VSMP_KEEPER_CLEAR = 3,
    // Replies: one for each hold, as it was held (+ flag GONE), with duplicates of its descriptors; then one with flag END,
    // a = how many. To be answered: the serial is not 0.
    VSMP_KEEPER_LIST = 4,
    // a = deadline; 0: no lease is needed, as in the beginning, which is refused (EPERM) once a lease was given, but for flag RELEASE.
    VSMP_KEEPER_LEASE = 5,
    // Reply: data = struct vsmp_keeper_state. To be answered: the serial is not 0.
    VSMP_KEEPER_STATE = 6,
    // key of a guest, data = why, in words. Errors: ENOENT no such guest, ESRCH it is dead, EPERM not ours to kill.
    VSMP_KEEPER_KILL = 7,

    // Notices, serial 0. key: this guest is dead. Told to the agent that runs then; to later ones by LIST.
    VSMP_KEEPER_GONE = 32,
    // a = when, b = guests that were stopped, c = guests that are still to stop, since a thread of theirs is in a system call or a
    // fault inside one. If c is not 0, another notice follows once it is.
    VSMP_KEEPER_FENCED = 33,
    // a = when, b = guests that go on.
    VSMP_KEEPER_RESUMED = 34,
};

#define VSMP_KEEPER_REPLY 0x8000u // set in `type` of a reply

enum vsmp_keeper_kind {
    VSMP_KEEPER_KIND_NONE = 0, // of messages that name none
    VSMP_KEEPER_KIND_GUEST = 1, // a process; the first descriptor is its pidfd
    VSMP_KEEPER_KIND_MAPPING = 2, // the first descriptor is a userfaultfd
    VSMP_KEEPER_KIND_OTHER = 3, // a listening socket, a lock
};

#define VSMP_KEEPER_RELEASE 0x1u // LEASE: with deadline 0
#define VSMP_KEEPER_END 0x1u // LIST replies: the last
#define VSMP_KEEPER_IS_GONE 0x2u // LIST replies: this guest is dead

struct vsmp_keeper_message {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t serial; // of the request; the reply repeats it
    int32_t status; // replies: 0 or an errno value; otherwise 0
    uint64_t key;
    uint64_t a, b, c;
    uint16_t kind;
    uint16_t fd_count;
    uint32_t flags;
    uint32_t data_bytes;
    uint32_t reserved; // zero
};

_Static_assert(sizeof(struct vsmp_keeper_message) == 64, "the header is 64 bytes");

#define VSMP_KEEPER_IS_STOPPING 0x1u // the lease has run out; not all guests are seen stopped yet
#define VSMP_KEEPER_IS_FENCED 0x2u
#define VSMP_KEEPER_IS_REALTIME 0x4u // the keeper runs ahead of programs (SCHED_FIFO)
#define VSMP_KEEPER_IS_LOCKED 0x8u // its memory is never paged out

struct vsmp_keeper_state {
    uint64_t deadline_ns; // 0: no lease is needed
    uint64_t fenced_at_ns; // 0: not fenced
    uint32_t flags; // VSMP_KEEPER_IS_…
    uint32_t restarts; // of the agent, since the keeper was started
    uint32_t guests, mappings, others; // holds
    uint32_t gone; // of the guests: dead
    uint32_t stopped; // of the guests: stopped, by whomever; counted while the lease has run out
    uint32_t running; // of the guests: still to stop
};

_Static_assert(sizeof(struct vsmp_keeper_state) == 48, "the state is 48 bytes");

#endif
