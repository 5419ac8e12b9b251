// SPDX-License-Identifier: Apache-2.0
#include "verbs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

enum { MAX_COMPLETIONS = 64, MAX_RETRIES = 6, MAX_ACK_TIMEOUT = 31, MAX_INLINE_TRIED = 1024 };

// Queues of one connection. The protection domain is its own, so that no key of another peer's means anything in it.
struct endpoint {
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_comp_channel *completions;
    struct ibv_cq *cq;
    struct ibv_mr *receive;
    uint8_t *receive_memory;
    uint32_t slots, slot_bytes;
    uint32_t rnr_retries, retries;
    bool has_qp;
};

static struct endpoint *endpoint_of(uint64_t handle) { return (struct endpoint *)(uintptr_t)handle; }
static struct rdma_cm_id *id_of(uint64_t handle) { return (struct rdma_cm_id *)(uintptr_t)handle; }
static struct rdma_event_channel *channel_of(uint64_t handle) { return (struct rdma_event_channel *)(uintptr_t)handle; }
static uint64_t handle_of(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }

// errno as a result; some calls of the libraries fail without setting it.
static int failure(void) { return errno > 0 ? -errno : -EIO; }

static int make_nonblocking(int fd) {
    const int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? failure() : 0;
}

// ---- devices

// The kernel lists the interfaces of a device's parent; soft devices name theirs in a file of their own.
static void find_netdev(const char *device, char netdev[16]) {
    char path[192];
    snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/1/gid_attrs/ndevs/0", device);
    FILE *file = fopen(path, "re");
    if (file == NULL) return;
    if (fscanf(file, "%15s", netdev) != 1) netdev[0] = '\0';
    fclose(file);
}

static uint32_t mtu_bytes(enum ibv_mtu mtu) { return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128u << mtu : 0; }

static int describe(struct ibv_context *context, uint32_t number, struct vsmp_verbs_port *port) {
    struct ibv_device_attr device;
    struct ibv_port_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    int error = rdma.ibv_query_device(context, &device);
    if (error == 0) error = rdma.ibv_query_port(context, (uint8_t)number, (struct _compat_ibv_port_attr *)&attributes);
    if (error != 0) return -error;
    port->is_active = attributes.state == IBV_PORT_ACTIVE;
    port->mtu = mtu_bytes(attributes.active_mtu);
    port->is_ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
    port->max_queue_depth = (uint32_t)device.max_qp_wr;
    port->max_completions = (uint32_t)device.max_cqe;
    port->max_segments = (uint32_t)device.max_sge;
    port->max_message_bytes = attributes.max_msg_sz;
    port->max_registered_bytes = device.max_mr_size;
    return 0;
}

static void name_port(struct ibv_device *device, struct vsmp_verbs_port *port) {
    memset(port, 0, sizeof *port);
    snprintf(port->device, sizeof port->device, "%s", rdma.ibv_get_device_name(device));
    find_netdev(port->device, port->netdev);
}

VSMP_VERBS_API int vsmp_verbs_ports(struct vsmp_verbs_port *ports, uint32_t capacity) {
    int device_count = 0;
    uint32_t count = 0;
    struct ibv_device **devices = rdma.ibv_get_device_list(&device_count);
    if (devices == NULL) return failure();
    for (int i = 0; i < device_count; i++) {
        struct vsmp_verbs_port found;
        name_port(devices[i], &found);
        struct ibv_context *context = rdma.ibv_open_device(devices[i]);
        struct ibv_device_attr attributes = {0};
        if (context == NULL || rdma.ibv_query_device(context, &attributes) != 0) {
            found.error = failure();
            attributes.phys_port_cnt = 1;
        }
        for (uint32_t number = 1; number <= attributes.phys_port_cnt; number++, count++) {
            struct vsmp_verbs_port port = found;
            port.port = number;
            if (found.error == 0) port.error = describe(context, number, &port);
            if (count < capacity) ports[count] = port;
        }
        if (context != NULL) rdma.ibv_close_device(context);
    }
    rdma.ibv_free_device_list(devices);
    return (int)count;
}

// ---- connections

VSMP_VERBS_API int vsmp_verbs_channel_open(uint64_t *channel, int32_t *fd) {
    struct rdma_event_channel *made = rdma.rdma_create_event_channel();
    if (made == NULL) return failure();
    const int error = make_nonblocking(made->fd);
    if (error != 0) {
        rdma.rdma_destroy_event_channel(made);
        return error;
    }
    *channel = handle_of(made);
    *fd = made->fd;
    return 0;
}

VSMP_VERBS_API void vsmp_verbs_channel_close(uint64_t channel) { rdma.rdma_destroy_event_channel(channel_of(channel)); }

static uint32_t kind_of(enum rdma_cm_event_type type) {
    switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        return VSMP_VERBS_ADDRESS_RESOLVED;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        return VSMP_VERBS_ROUTE_RESOLVED;
    case RDMA_CM_EVENT_CONNECT_REQUEST:
        return VSMP_VERBS_REQUESTED;
    case RDMA_CM_EVENT_ESTABLISHED:
        return VSMP_VERBS_ESTABLISHED;
    case RDMA_CM_EVENT_REJECTED:
        return VSMP_VERBS_REFUSED;
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
        return VSMP_VERBS_FAILED;
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
        return VSMP_VERBS_DISCONNECTED;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        return VSMP_VERBS_DEVICE_GONE;
    default:
        return 0; // nothing that anybody waits for
    }
}

// The connection manager lets every peer write to memory, as far as there is memory that it may write to. There is none; but a write
// of nothing needs none, and takes a receive. Possible once the queue pair is ready to send.
static int forbid_memory_operations(struct ibv_qp *qp) {
    struct ibv_qp_attr none = {.qp_access_flags = 0};
    return -rdma.ibv_modify_qp(qp, &none, IBV_QP_ACCESS_FLAGS);
}

VSMP_VERBS_API int vsmp_verbs_next_event(uint64_t channel, struct vsmp_verbs_event *event) {
    struct rdma_cm_event *happened;
    if (rdma.rdma_get_cm_event(channel_of(channel), &happened) != 0) return failure();
    const struct rdma_conn_param *with = &happened->param.conn;
    memset(event, 0, sizeof *event);
    event->kind = kind_of(happened->event);
    event->status = happened->status;
    event->id = handle_of(happened->id);
    event->listener = handle_of(happened->listen_id);
    if (happened->event == RDMA_CM_EVENT_ESTABLISHED && happened->id->qp != NULL) {
        event->status = forbid_memory_operations(happened->id->qp);
        if (event->status != 0) event->kind = VSMP_VERBS_FAILED;
    }
    const bool has_data =
        event->kind == VSMP_VERBS_REQUESTED || event->kind == VSMP_VERBS_ESTABLISHED || event->kind == VSMP_VERBS_REFUSED;
    if (has_data && with->private_data != NULL) {
        // Transports pad it; the receiver knows how much of it counts.
        event->private_bytes =
            with->private_data_len < sizeof event->private_data ? with->private_data_len : sizeof event->private_data;
        memcpy(event->private_data, with->private_data, event->private_bytes);
    }
    rdma.rdma_ack_cm_event(happened);
    return 0;
}

VSMP_VERBS_API int vsmp_verbs_listen(uint64_t channel, const void *address, uint32_t address_bytes, uint32_t backlog,
                                     uint64_t *id) {
    struct sockaddr_storage at = {0};
    struct rdma_cm_id *made;
    if (address_bytes > sizeof at) return -EINVAL;
    memcpy(&at, address, address_bytes);
    if (rdma.rdma_create_id(channel_of(channel), &made, NULL, RDMA_PS_TCP) != 0) return failure();
    if (rdma.rdma_bind_addr(made, (struct sockaddr *)&at) != 0 || rdma.rdma_listen(made, (int)backlog) != 0) {
        const int error = failure();
        rdma.rdma_destroy_id(made);
        return error;
    }
    *id = handle_of(made);
    return 0;
}

VSMP_VERBS_API int vsmp_verbs_resolve(uint64_t channel, const void *source, const void *address, uint32_t address_bytes,
                                      uint32_t timeout_milliseconds, uint64_t *id) {
    struct sockaddr_storage from = {0}, to = {0};
    struct rdma_cm_id *made;
    if (address_bytes > sizeof to) return -EINVAL;
    memcpy(&to, address, address_bytes);
    if (source != NULL) memcpy(&from, source, address_bytes);
    if (rdma.rdma_create_id(channel_of(channel), &made, NULL, RDMA_PS_TCP) != 0) return failure();
    if (rdma.rdma_resolve_addr(made, source == NULL ? NULL : (struct sockaddr *)&from, (struct sockaddr *)&to,
                               (int)timeout_milliseconds) != 0) {
        const int error = failure();
        rdma.rdma_destroy_id(made);
        return error;
    }
    *id = handle_of(made);
    return 0;
}

VSMP_VERBS_API int vsmp_verbs_resolve_route(uint64_t id, uint32_t timeout_milliseconds) {
    return rdma.rdma_resolve_route(id_of(id), (int)timeout_milliseconds) != 0 ? failure() : 0;
}

VSMP_VERBS_API int vsmp_verbs_port_of(uint64_t id, struct vsmp_verbs_port *port) {
    const struct rdma_cm_id *cm = id_of(id);
    if (cm->verbs == NULL) return -ENODEV;
    name_port(cm->verbs->device, port);
    port->port = cm->port_num;
    return describe(cm->verbs, cm->port_num, port);
}

VSMP_VERBS_API void vsmp_verbs_id_close(uint64_t id) { rdma.rdma_destroy_id(id_of(id)); }

// ---- endpoints

static int create_queues(struct endpoint *e, struct vsmp_verbs_limits *limits) {
    struct ibv_qp_init_attr wanted = {
        .qp_context = e,
        .send_cq = e->cq,
        .recv_cq = e->cq,
        .cap = {.max_send_wr = limits->send_depth,
                .max_recv_wr = limits->receive_slots,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = limits->inline_bytes},
        .qp_type = IBV_QPT_RC,
    };
    // How much a device takes inline is only found out by asking: less each time.
    while (rdma.rdma_create_qp(e->id, e->pd, &wanted) != 0) {
        if (wanted.cap.max_inline_data == 0) return failure();
        wanted.cap.max_inline_data /= 2;
    }
    e->has_qp = true;
    limits->inline_bytes = wanted.cap.max_inline_data;
    return 0;
}

VSMP_VERBS_API int vsmp_verbs_open(uint64_t id, struct vsmp_verbs_limits *limits, void *receive_memory, uint64_t *endpoint,
                                   int32_t *fd) {
    struct rdma_cm_id *cm = id_of(id);
    if (cm->verbs == NULL) return -ENODEV;
    if (limits->receive_slots == 0 || limits->slot_bytes == 0 || limits->send_depth == 0 || limits->rnr_retries > MAX_RETRIES ||
        limits->retries > MAX_RETRIES || limits->inline_bytes > MAX_INLINE_TRIED || limits->ack_timeout > MAX_ACK_TIMEOUT)
        return -EINVAL;
    struct endpoint *e = calloc(1, sizeof *e);
    if (e == NULL) return -ENOMEM;
    *e = (struct endpoint){.id = cm,
                           .receive_memory = receive_memory,
                           .slots = limits->receive_slots,
                           .slot_bytes = limits->slot_bytes,
                           .rnr_retries = limits->rnr_retries,
                           .retries = limits->retries};
    int error = 0;
    errno = 0;
    if ((e->pd = rdma.ibv_alloc_pd(cm->verbs)) == NULL || (e->completions = rdma.ibv_create_comp_channel(cm->verbs)) == NULL ||
        (e->cq = rdma.ibv_create_cq(cm->verbs, (int)(limits->receive_slots + limits->send_depth), e, e->completions, 0)) ==
            NULL ||
        (e->receive = rdma.ibv_reg_mr(e->pd, receive_memory, (size_t)e->slots * e->slot_bytes, IBV_ACCESS_LOCAL_WRITE)) == NULL)
        error = failure();
    if (error == 0) error = make_nonblocking(e->completions->fd);
    if (error == 0) error = create_queues(e, limits);
    if (error == 0 && limits->ack_timeout != 0) {
        uint8_t timeout = (uint8_t)limits->ack_timeout;
        // Linux before 5.2 has no such option: there a lost packet costs seconds, and nothing else.
        (void)rdma.rdma_set_option(cm, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof timeout);
    }
    for (uint32_t slot = 0; slot < e->slots && error == 0; slot++) error = vsmp_verbs_post(handle_of(e), slot);
    if (error != 0) {
        vsmp_verbs_close(handle_of(e));
        return error;
    }
    *endpoint = handle_of(e);
    *fd = e->completions->fd;
    return 0;
}

static struct rdma_conn_param connection(const struct endpoint *e, const void *private_data, uint32_t private_bytes) {
    return (struct rdma_conn_param){.private_data = private_data,
                                    .private_data_len = (uint8_t)private_bytes,
                                    .responder_resources = 0, // nobody reads or writes memory from afar
                                    .initiator_depth = 0,
                                    .retry_count = (uint8_t)e->retries,
                                    .rnr_retry_count = (uint8_t)e->rnr_retries};
}

VSMP_VERBS_API int vsmp_verbs_connect(uint64_t endpoint, const void *private_data, uint32_t private_bytes) {
    if (private_bytes > VSMP_VERBS_PRIVATE_BYTES) return -EMSGSIZE;
    struct rdma_conn_param with = connection(endpoint_of(endpoint), private_data, private_bytes);
    return rdma.rdma_connect(endpoint_of(endpoint)->id, &with) != 0 ? failure() : 0;
}

VSMP_VERBS_API int vsmp_verbs_accept(uint64_t endpoint, const void *private_data, uint32_t private_bytes) {
    if (private_bytes > VSMP_VERBS_PRIVATE_BYTES) return -EMSGSIZE;
    struct rdma_conn_param with = connection(endpoint_of(endpoint), private_data, private_bytes);
    struct rdma_cm_id *id = endpoint_of(endpoint)->id;
    // Now and not once it is established: the peer's first message may be faster.
    return rdma.rdma_accept(id, &with) != 0 ? failure() : forbid_memory_operations(id->qp);
}

VSMP_VERBS_API int vsmp_verbs_reject(uint64_t id, const void *private_data, uint32_t private_bytes) {
    if (private_bytes > VSMP_VERBS_PRIVATE_BYTES) return -EMSGSIZE;
    return rdma.rdma_reject(id_of(id), private_data, (uint8_t)private_bytes) != 0 ? failure() : 0;
}

VSMP_VERBS_API void vsmp_verbs_disconnect(uint64_t endpoint, uint32_t tells_peer) {
    struct endpoint *e = endpoint_of(endpoint);
    if (!e->has_qp) return;
    if (tells_peer) rdma.rdma_disconnect(e->id); // if it was never connected it says so, and that is all
    rdma.rdma_destroy_qp(e->id);
    e->has_qp = false;
}

VSMP_VERBS_API void vsmp_verbs_close(uint64_t endpoint) {
    struct endpoint *e = endpoint_of(endpoint);
    vsmp_verbs_disconnect(endpoint, 1);
    if (e->receive != NULL) rdma.ibv_dereg_mr(e->receive);
    if (e->cq != NULL) rdma.ibv_destroy_cq(e->cq); // its events have been acknowledged as they came
    if (e->completions != NULL) rdma.ibv_destroy_comp_channel(e->completions);
    if (e->pd != NULL) rdma.ibv_dealloc_pd(e->pd);
    free(e);
}

// ---- data

VSMP_VERBS_API int vsmp_verbs_register(uint64_t endpoint, void *memory, uint64_t bytes, uint64_t *handle, uint32_t *key) {
    struct ibv_mr *made = rdma.ibv_reg_mr(endpoint_of(endpoint)->pd, memory, bytes, 0);
    if (made == NULL) return failure();
    *handle = handle_of(made);
    *key = made->lkey;
    return 0;
}

VSMP_VERBS_API int vsmp_verbs_deregister(uint64_t handle) { return -rdma.ibv_dereg_mr((struct ibv_mr *)(uintptr_t)handle); }

VSMP_VERBS_API int vsmp_verbs_send(uint64_t endpoint, const void *message, uint32_t bytes, uint32_t key, uint32_t flags,
                                   uint32_t number) {
    struct ibv_sge part = {.addr = handle_of(message), .length = bytes, .lkey = key};
    struct ibv_send_wr send = {
        .wr_id = (uint64_t)VSMP_VERBS_SENT << 32 | number,
        .sg_list = &part,
        .num_sge = 1,
        .opcode = IBV_WR_SEND,
        .send_flags = ((flags & VSMP_VERBS_SIGNALED) != 0 ? IBV_SEND_SIGNALED : 0) |
                      ((flags & VSMP_VERBS_INLINE) != 0 ? IBV_SEND_INLINE : 0),
    };
    struct ibv_send_wr *refused;
    return -ibv_post_send(endpoint_of(endpoint)->id->qp, &send, &refused);
}

VSMP_VERBS_API int vsmp_verbs_post(uint64_t endpoint, uint32_t slot) {
    struct endpoint *e = endpoint_of(endpoint);
    if (slot >= e->slots) return -EINVAL;
    struct ibv_sge part = {
        .addr = handle_of(e->receive_memory + (size_t)slot * e->slot_bytes), .length = e->slot_bytes, .lkey = e->receive->lkey};
    struct ibv_recv_wr receive = {.wr_id = (uint64_t)VSMP_VERBS_RECEIVED << 32 | slot, .sg_list = &part, .num_sge = 1};
    struct ibv_recv_wr *refused;
    return -ibv_post_recv(e->id->qp, &receive, &refused);
}

VSMP_VERBS_API int vsmp_verbs_poll(uint64_t endpoint, struct vsmp_verbs_completion *completions, uint32_t capacity) {
    struct ibv_wc found[MAX_COMPLETIONS];
    const int count = ibv_poll_cq(endpoint_of(endpoint)->cq, capacity < MAX_COMPLETIONS ? (int)capacity : MAX_COMPLETIONS, found);
    if (count < 0) return -EIO;
    for (int i = 0; i < count; i++) {
        // Of a completion that failed only status and number are defined.
        const bool is_good = found[i].status == IBV_WC_SUCCESS;
        completions[i] = (struct vsmp_verbs_completion){.kind = (uint32_t)(found[i].wr_id >> 32),
                                                        .status = (uint32_t)found[i].status,
                                                        .slot = (uint32_t)found[i].wr_id,
                                                        .bytes = is_good ? found[i].byte_len : 0};
        const bool is_plain = found[i].opcode == IBV_WC_RECV && (found[i].wc_flags & (IBV_WC_WITH_IMM | IBV_WC_WITH_INV)) == 0;
        if (is_good && completions[i].kind == VSMP_VERBS_RECEIVED && !is_plain) completions[i].kind = VSMP_VERBS_FOREIGN;
    }
    return count;
}

VSMP_VERBS_API int vsmp_verbs_arm(uint64_t endpoint) { return -ibv_req_notify_cq(endpoint_of(endpoint)->cq, 0); }

VSMP_VERBS_API void vsmp_verbs_take_events(uint64_t endpoint) {
    struct endpoint *e = endpoint_of(endpoint);
    struct ibv_cq *cq;
    void *context;
    unsigned int events = 0;
    while (rdma.ibv_get_cq_event(e->completions, &cq, &context) == 0) events++;
    if (events > 0) rdma.ibv_ack_cq_events(e->cq, events);
}

VSMP_VERBS_API const char *vsmp_verbs_status_text(uint32_t status) { return rdma.ibv_wc_status_str((enum ibv_wc_status)status); }
