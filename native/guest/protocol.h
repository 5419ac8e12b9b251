// SPDX-License-Identifier: Apache-2.0
//
// What a guest process and the agent of its node say to each other: messages over a Unix SOCK_SEQPACKET socket, one request at
// a time, one reply to each. src/VSmp.Agent/Guests/GuestProtocol.cs is the other side; a test compares the two.
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
//
// All integers are little-endian. A message is this header and `text_bytes` bytes of UTF-8 text, without a terminating zero.
#ifndef VSMP_GUEST_PROTOCOL_H
#define VSMP_GUEST_PROTOCOL_H

#include <stdint.h>

#define VSMP_GUEST_MAGIC 0x31475356u // "VSG1"
#define VSMP_GUEST_VERSION 1u
#define VSMP_GUEST_TEXT_MAX 960u
#define VSMP_PAGE_BYTES 4096ull
#define VSMP_EXTENT_BYTES (2ull << 20)

enum vsmp_guest_type {
    // Guest: text = the run's token (environment VSMP_RUN). Reply: a = region, b = bytes of the window (the frame file's
    // length), descriptors: frame file and, if flags has VSMP_GUEST_HAS_DEVICE, /dev/userfaultfd.
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
};

#define VSMP_GUEST_REPLY 0x8000u // set in `type` of a reply
#define VSMP_GUEST_HAS_DEVICE 0x1ull // HELLO reply, in `c`: /dev/userfaultfd comes along

struct vsmp_guest_message {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t serial; // of the request; the reply repeats it
    int32_t status; // replies: 0 or an errno value
    uint64_t a, b, c, d;
    uint32_t text_bytes;
    uint32_t reserved[3]; // zero
};

_Static_assert(sizeof(struct vsmp_guest_message) == 64, "the wire format is 64 bytes");

#endif
