// SPDX-License-Identifier: Apache-2.0
//
// What a guest process and the agent of its node say to each other: messages over a Unix SOCK_SEQPACKET socket, one reply to
// each request. src/VSmp.Agent/Guests/GuestProtocol.cs is the other side; a test compares the two.
//
// A program that knows nothing of the pool (native/guest speaks for it) has one request out at a time:
//
//   guest                                   agent
//     │ HELLO   token of the run              │
//     │ ────────────────────────────────────► │  makes a region and its frame file
//     │ HELLO reply  + frame file             │
//     │ ◄──────────────────────────────────── │  (+ /dev/userfaultfd, where the guest needs it)
//     │ maps the window (shared, PROT_NONE),
//     │ creates the userfaultfd, registers the window
//     │ MAP  + userfaultfd                    │
//     │ ────────────────────────────────────► │  serves faults from here on
//     │ RESERVE, RELEASE, DISCARD …           │
//     ┊                                       ┊  is killed; its keeper starts another one
//     │ (connects again) RESUME               │
//     │ ────────────────────────────────────► │  has taken the guest over
//     │ the request that was not answered     │  (each may be repeated)
//
// A rank of a job (native/spmd) may have several out, one for each of its threads, told apart by their serial numbers:
//
//   rank                                    agent
//     │ JOIN    token of the job, rank        │  asks the job's leader; answers when all ranks have joined
//     │ ◄──────────────────────────────────── │  (+ /dev/userfaultfd, where the rank needs it)
//     │ ATTACH  name, bytes                   │  all ranks ask; the leader places the homes
//     │ ◄──────────────────────────────────── │  + frame file; region, address
//     │ maps it there, makes a userfaultfd
//     │ MAP, MAPPED                           │  MAPPED is answered when all ranks have mapped it, or one could not
//     │ BARRIER, LOCK, ALLOC …                │  go to the leader, which answers
//     │ DETACH, FINISH                        │
//     ┊                                       ┊  is killed; its keeper starts another one
//     │ (connects again) REJOIN               │
//     │ ────────────────────────────────────► │  has taken the rank over
//     │ each request that was not answered    │
//
// A request of a rank may be repeated at any time: it is known by slot and serial number, done once, and answered again. Each request
// that is out has a slot of its own, the lowest that is free; the next one in it says that the answer was taken. The agent asks for
// repetition by REPEAT, where answers may have been lost with another agent.
//
// "Collective" requests are answered when all ranks have sent the same one, with an error as soon as a rank of the job has ended
// (EPIPE), and with EPROTO if what they sent differs.
//
// All integers are little-endian. A message is this header and `text_bytes` bytes of UTF-8 text, without a terminating zero
// (or of data, where it says so).
#ifndef VSMP_GUEST_PROTOCOL_H
#define VSMP_GUEST_PROTOCOL_H

#include <stdint.h>

#define VSMP_GUEST_MAGIC 0x31475356u // "VSG1"
#define VSMP_GUEST_VERSION 5u
#define VSMP_GUEST_TEXT_MAX 960u
#define VSMP_GUEST_DATA_MAX (32u << 10) // of a broadcast, in place of text
#define VSMP_GUEST_SLOTS 1024u // requests that a rank may have out
#define VSMP_PAGE_BYTES 4096ull
#define VSMP_EXTENT_BYTES (2ull << 20)

enum vsmp_guest_type {
    // Guest: text = the run's token (environment VSMP_RUN). Reply: a = region, b = bytes of the window (the frame file's
    // length), c = flags, descriptors: frame file and, if flags has VSMP_GUEST_HAS_DEVICE, /dev/userfaultfd. A guest that has
    // attached, has nothing reserved, and whose connection is gone may attach anew.
    VSMP_GUEST_HELLO = 1,
    // Guest: a = address, b = length, c = offset in the frame file; descriptor: the userfaultfd, registered for MISSING, MINOR
    // and WP over the whole of it.
    VSMP_GUEST_MAP = 2,
    // Guest: a = offset, b = length, both multiples of the extent. Admission: the pool sets this much aside, or the reply's
    // status is ENOMEM and its text says who holds what.
    VSMP_GUEST_RESERVE = 3,
    // Guest: a = offset, b = length, both multiples of the extent. The contents are dropped and the reservation given back.
    VSMP_GUEST_RELEASE = 4,
    // Guest: a = offset, b = length, both multiples of the page. The contents are dropped: the range reads zeros once the reply
    // is there. The reservation stays.
    VSMP_GUEST_DISCARD = 5,
    // Guest, as the first request on a connection that takes the place of one that was lost: a = region, text = the run's token.
    // The reply's status is EACCES where the agent does not know it.
    VSMP_GUEST_RESUME = 6,

    // Of ranks only. MAP, from a rank: also d = region.

    // a = rank, text = the job's token (VSMP_JOB). Collective. Reply: a = ranks, b = the generation of a checkpoint that the job goes
    // on from (0: none), text = default name of a region; descriptor: as for HELLO, without the frame file.
    VSMP_GUEST_JOIN = 16,
    // a = bytes, text = name (empty: the default). Collective. Reply: a = region, b = bytes, c = address, d = length of the
    // frame file, text = protocol; descriptor: frame file.
    VSMP_GUEST_ATTACH = 17,
    // a = region, b = 0 or the errno value of why it could not be mapped, text = the same in words. Collective.
    VSMP_GUEST_MAPPED = 18,
    // a = region, which the rank has unmapped. Collective.
    VSMP_GUEST_DETACH = 19,
    // a = region, b = bytes, c = alignment. Collective. Reply: a = address, b = 1 if the memory was used before.
    VSMP_GUEST_ALLOC_ALL = 20,
    // The same for one rank.
    VSMP_GUEST_ALLOC = 21,
    // a = region, b = address.
    VSMP_GUEST_FREE = 22,
    // Collective.
    VSMP_GUEST_BARRIER = 23,
    // a = lock. Answered when the rank holds it; EOWNERDEAD: held, but who held it before has ended.
    VSMP_GUEST_LOCK = 24,
    // a = lock.
    VSMP_GUEST_UNLOCK = 25,
    // a = counter, b = what to add. Reply: a = its value before.
    VSMP_GUEST_FETCH_ADD = 26,
    // a = root, b = bytes, data from the root. Collective. Reply: the root's data, to all others.
    VSMP_GUEST_BROADCAST = 27,
    // a = region.
    VSMP_GUEST_ACQUIRE = 28,
    // a = region.
    VSMP_GUEST_RELEASE_REGION = 29,
    // Collective; the rank leaves the job.
    VSMP_GUEST_FINISH = 30,
    // As the first request on a connection that takes the place of one that was lost: a = rank, text = the job's token. The reply's
    // status is EACCES where the agent knows neither the rank nor its job.
    VSMP_GUEST_REJOIN = 31,
    // From the agent, without an answer: each request that has no answer yet is to be sent again.
    VSMP_GUEST_REPEAT = 32,
    // Collective; held locks are EBUSY. Reply: a = the generation that was cut, 0: none was due, or it was given up.
    VSMP_GUEST_CHECKPOINT = 33,
};

#define VSMP_GUEST_REPLY 0x8000u // set in `type` of a reply
#define VSMP_GUEST_HAS_DEVICE 0x1ull // HELLO and JOIN replies, in `c`: /dev/userfaultfd comes along
#define VSMP_GUEST_IS_KEPT 0x2ull // HELLO and JOIN replies, in `c`: if this agent is killed, another one takes its place

struct vsmp_guest_message {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t serial; // of the request; the reply repeats it
    int32_t status; // replies: 0 or an errno value
    uint64_t a, b, c, d;
    uint32_t text_bytes;
    uint32_t slot; // requests of ranks: which of those that are out
    uint32_t reserved[2]; // zero
};

_Static_assert(sizeof(struct vsmp_guest_message) == 64, "the wire format is 64 bytes");

#endif
