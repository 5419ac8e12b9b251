// SPDX-License-Identifier: Apache-2.0
//
// libvsmp-verbs.so: what the agent needs of RDMA, as functions and structures of fixed width for a caller without C headers.
// (ibv_post_send, ibv_poll_cq and their like are inline functions: somebody has to compile them.) libibverbs and librdmacm are looked
// for at run time, so that the library loads where they are not.
//
// Everything is asynchronous and for one thread at a time: nothing here blocks longer than the system calls that it makes. Functions
// that can fail return 0 or a negative errno; -EAGAIN where there is nothing to be had yet.
//
// Order of life: channel; listener or connection on it (an "id"); endpoint of a connection; and back in the opposite order.
#ifndef VSMP_VERBS_H
#define VSMP_VERBS_H

#include <stdint.h>

#define VSMP_VERBS_VERSION 4
#define VSMP_VERBS_PRIVATE_BYTES 56 // what every transport carries with a connection request

#define VSMP_VERBS_API __attribute__((visibility("default")))

// A port of an RDMA device, and what the device allows.
struct vsmp_verbs_port {
    char device[64];
    char netdev[16]; // the network interface behind it; "" if none, or not known
    uint32_t port; // from 1
    uint32_t is_active; // 1: the link is up
    uint32_t mtu; // bytes of payload per packet
    uint32_t is_ethernet;
    uint32_t max_queue_depth; // work requests in a queue
    uint32_t max_completions; // in a completion queue
    uint32_t max_segments; // of a work request
    int32_t error; // 0, or the negative errno with which it could not be looked at
    uint64_t max_message_bytes;
    uint64_t max_registered_bytes; // in one piece of memory
};

enum vsmp_verbs_event_kind {
    VSMP_VERBS_ADDRESS_RESOLVED = 1, // next: vsmp_verbs_resolve_route
    VSMP_VERBS_ROUTE_RESOLVED = 2, // next: vsmp_verbs_open, vsmp_verbs_connect
    VSMP_VERBS_REQUESTED = 3, // somebody connects: open and accept, or reject
    VSMP_VERBS_ESTABLISHED = 4,
    VSMP_VERBS_REFUSED = 5, // the other side rejected; its private data say why
    VSMP_VERBS_FAILED = 6, // could not be connected; `status` is a negative errno
    VSMP_VERBS_DISCONNECTED = 7,
    VSMP_VERBS_DEVICE_GONE = 8,
};

struct vsmp_verbs_event {
    uint32_t kind;
    int32_t status;
    uint64_t id; // whose; of a request: the new one, which is the caller's from now on
    uint64_t listener; // of a request
    uint32_t private_bytes;
    uint8_t private_data[VSMP_VERBS_PRIVATE_BYTES];
    uint8_t padding[4];
};

// What an endpoint is to have. Zeros are refused; a device that cannot give so much is an error.
struct vsmp_verbs_limits {
    uint32_t receive_slots; // receives that are posted at a time
    uint32_t slot_bytes; // longest message
    uint32_t send_depth; // sends posted at a time
    uint32_t inline_bytes; // wanted; out: granted, 0 if the device has none
    uint32_t rnr_retries; // 0 to 6: 7 means for ever, and is refused
    uint32_t retries; // 0 to 6: some devices take 7 for ever here, too
    // A send that is not acknowledged is repeated after 4.096 us << ack_timeout, at most 31. 0: as the connection manager has it,
    // which is seconds on Ethernet.
    uint32_t ack_timeout;
    uint32_t padding; // zero
};

enum {
    VSMP_VERBS_RECEIVED = 1,
    VSMP_VERBS_SENT = 2,
    VSMP_VERBS_FOREIGN = 3, // received, but not by a plain send: with an immediate value, or an invalidation
};

struct vsmp_verbs_completion {
    uint32_t kind;
    uint32_t status; // 0, or an ibv_wc_status
    uint32_t slot; // received: where; sent: the number given
    uint32_t bytes; // received: length
};

enum { VSMP_VERBS_SIGNALED = 1, VSMP_VERBS_INLINE = 2 };

VSMP_VERBS_API uint32_t vsmp_verbs_version(void);

// Finds the libraries. On failure `why` gets words (at most `bytes`, with the closing 0).
VSMP_VERBS_API int vsmp_verbs_load(char *why, uint32_t bytes);

// Fills in up to `capacity` ports; returns how many there are.
VSMP_VERBS_API int vsmp_verbs_ports(struct vsmp_verbs_port *ports, uint32_t capacity);

// A channel on which the events of its listeners and connections come. `fd` becomes readable when there is one.
VSMP_VERBS_API int vsmp_verbs_channel_open(uint64_t *channel, int32_t *fd);
VSMP_VERBS_API void vsmp_verbs_channel_close(uint64_t channel); // all its ids are closed
VSMP_VERBS_API int vsmp_verbs_next_event(uint64_t channel, struct vsmp_verbs_event *event);

// Addresses are a struct sockaddr_in or sockaddr_in6.
VSMP_VERBS_API int vsmp_verbs_listen(uint64_t channel, const void *address, uint32_t address_bytes, uint32_t backlog,
                                     uint64_t *id);
VSMP_VERBS_API int vsmp_verbs_resolve(uint64_t channel, const void *source, const void *address, uint32_t address_bytes,
                                      uint32_t timeout_milliseconds, uint64_t *id);
VSMP_VERBS_API int vsmp_verbs_resolve_route(uint64_t id, uint32_t timeout_milliseconds);
VSMP_VERBS_API int vsmp_verbs_port_of(uint64_t id, struct vsmp_verbs_port *port); // -ENODEV: bound to none
VSMP_VERBS_API void vsmp_verbs_id_close(uint64_t id); // its endpoint is closed

// Queues, protection domain and receive slots for a connection: posted, so that nothing that arrives finds no room.
// `receive_memory`: receive_slots * slot_bytes, registered here, not owned. `fd` becomes readable when there are completions and
// vsmp_verbs_arm was called before.
VSMP_VERBS_API int vsmp_verbs_open(uint64_t id, struct vsmp_verbs_limits *limits, void *receive_memory, uint64_t *endpoint,
                                   int32_t *fd);
VSMP_VERBS_API int vsmp_verbs_connect(uint64_t endpoint, const void *private_data, uint32_t private_bytes);
VSMP_VERBS_API int vsmp_verbs_accept(uint64_t endpoint, const void *private_data, uint32_t private_bytes);
VSMP_VERBS_API int vsmp_verbs_reject(uint64_t id, const void *private_data, uint32_t private_bytes);
// Tells the other side, if it is to be told now, and takes the queues down: no memory is used any more. Then what was registered is
// deregistered, then:
VSMP_VERBS_API void vsmp_verbs_disconnect(uint64_t endpoint, uint32_t tells_peer);
// takes the rest down. The id is closed after that.
VSMP_VERBS_API void vsmp_verbs_close(uint64_t endpoint);

// Memory to send from. No memory of this host can be written or read by a peer but the receive slots, by its sends.
VSMP_VERBS_API int vsmp_verbs_register(uint64_t endpoint, void *memory, uint64_t bytes, uint64_t *handle, uint32_t *key);
VSMP_VERBS_API int vsmp_verbs_deregister(uint64_t handle);

// Sends a message; `number` comes back in the completion, if it is signaled or fails.
VSMP_VERBS_API int vsmp_verbs_send(uint64_t endpoint, const void *message, uint32_t bytes, uint32_t key, uint32_t flags,
                                   uint32_t number);
// A slot may be filled again.
VSMP_VERBS_API int vsmp_verbs_post(uint64_t endpoint, uint32_t slot);
VSMP_VERBS_API int vsmp_verbs_poll(uint64_t endpoint, struct vsmp_verbs_completion *completions, uint32_t capacity);
// Has `fd` become readable, once, at the next completion. Poll once more afterwards: for those that are there it does not.
VSMP_VERBS_API int vsmp_verbs_arm(uint64_t endpoint);
// Takes back what `fd` said.
VSMP_VERBS_API void vsmp_verbs_take_events(uint64_t endpoint);
VSMP_VERBS_API const char *vsmp_verbs_status_text(uint32_t status);

#endif
