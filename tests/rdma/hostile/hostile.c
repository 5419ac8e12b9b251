// SPDX-License-Identifier: Apache-2.0
//
// libhostile.so: an RDMA peer that does what it likes, for tests. It drives its queue pair itself, so that it can ask for operations that
// were not agreed on, leave a connection half open, and post no receives. Calls block until what they do is done, or half a minute.
// They return a negative errno on failure.
#include <errno.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))

enum { SEND_DEPTH = 256, RECEIVE_DEPTH = 64, SLOT_BYTES = 65664, PATIENCE_SECONDS = 30, RETRIES = 6 };

struct peer {
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_cq *sends, *receives;
    struct ibv_qp *qp;
    struct ibv_mr *inbox;
    uint8_t *memory;
    bool is_connected;
};

// What is asked for in hostile_post. Opcodes are enum ibv_wr_opcode.
struct order {
    uint32_t opcode;
    uint32_t count; // so many, one behind the other in `messages`
    uint32_t bytes; // of each
    uint32_t immediate;
    uint64_t remote_address;
    uint32_t remote_key;
    uint32_t done; // out: so many succeeded
};

API int hostile_connect(const struct sockaddr *source, const struct sockaddr *address, const void *proof, uint32_t proof_bytes,
                        uint32_t receives, struct peer **peer);
API int hostile_establish(struct peer *p);
API int hostile_post(struct peer *p, struct order *o, uint8_t *messages);
API void hostile_close(struct peer *p);

static int failure(void) { return errno > 0 ? -errno : -EIO; }

API void hostile_close(struct peer *p) {
    if (p == NULL) return;
    if (p->is_connected) rdma_disconnect(p->id); // else it would wait for the word that it is
    if (p->qp != NULL) ibv_destroy_qp(p->qp);
    if (p->inbox != NULL) ibv_dereg_mr(p->inbox);
    if (p->sends != NULL) ibv_destroy_cq(p->sends);
    if (p->receives != NULL) ibv_destroy_cq(p->receives);
    if (p->pd != NULL) ibv_dealloc_pd(p->pd);
    if (p->id != NULL) rdma_destroy_id(p->id);
    free(p->memory);
    free(p);
}

static int change(struct peer *p, enum ibv_qp_state state) {
    struct ibv_qp_attr attributes = {.qp_state = state};
    int mask = 0;
    if (rdma_init_qp_attr(p->id, &attributes, &mask) != 0) return failure();
    if (state == IBV_QPS_RTS) attributes.max_rd_atomic = 1; // whatever the other side agreed to
    return -ibv_modify_qp(p->qp, &attributes, mask);
}

static int post_receive(struct peer *p, uint64_t slot) {
    struct ibv_sge part = {.addr = (uintptr_t)p->memory + slot * SLOT_BYTES, .length = SLOT_BYTES, .lkey = p->inbox->lkey};
    struct ibv_recv_wr receive = {.wr_id = slot, .sg_list = &part, .num_sge = 1}, *refused;
    return -ibv_post_recv(p->qp, &receive, &refused);
}

static int open_queues(struct peer *p, uint32_t receives) {
    const size_t bytes = (size_t)RECEIVE_DEPTH * SLOT_BYTES;
    errno = 0;
    if ((p->memory = calloc(1, bytes)) == NULL || (p->pd = ibv_alloc_pd(p->id->verbs)) == NULL ||
        (p->sends = ibv_create_cq(p->id->verbs, SEND_DEPTH, NULL, NULL, 0)) == NULL ||
        (p->receives = ibv_create_cq(p->id->verbs, RECEIVE_DEPTH, NULL, NULL, 0)) == NULL ||
        (p->inbox = ibv_reg_mr(p->pd, p->memory, bytes, IBV_ACCESS_LOCAL_WRITE)) == NULL)
        return failure();
    struct ibv_qp_init_attr wanted = {
        .send_cq = p->sends,
        .recv_cq = p->receives,
        .cap = {.max_send_wr = SEND_DEPTH, .max_recv_wr = RECEIVE_DEPTH, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
        .sq_sig_all = 1,
    };
    if ((p->qp = ibv_create_qp(p->pd, &wanted)) == NULL) return failure();
    int error = change(p, IBV_QPS_INIT);
    for (uint64_t slot = 0; slot < receives && slot < RECEIVE_DEPTH && error == 0; slot++) error = post_receive(p, slot);
    return error;
}

// Asks for a connection. With 0 the other side has agreed, and does not know yet that we have: hostile_establish.
API int hostile_connect(const struct sockaddr *source, const struct sockaddr *address, const void *proof, uint32_t proof_bytes,
                        uint32_t receives, struct peer **peer) {
    struct peer *p = calloc(1, sizeof *p);
    if (p == NULL) return -ENOMEM;
    int error = 0;
    // Without a channel of events its calls wait for theirs.
    if (rdma_create_id(NULL, &p->id, NULL, RDMA_PS_TCP) != 0) {
        free(p);
        return failure();
    }
    if (rdma_resolve_addr(p->id, (struct sockaddr *)source, (struct sockaddr *)address, 2000) != 0 ||
        rdma_resolve_route(p->id, 2000) != 0)
        error = failure();
    if (error == 0) error = open_queues(p, receives);
    if (error == 0) {
        struct rdma_conn_param with = {.private_data = proof,
                                       .private_data_len = (uint8_t)proof_bytes,
                                       .responder_resources = 1,
                                       .initiator_depth = 1,
                                       .retry_count = RETRIES,
                                       .rnr_retry_count = RETRIES,
                                       .qp_num = p->qp->qp_num};
        if (rdma_connect(p->id, &with) != 0) error = failure();
        p->is_connected = error == 0;
    }
    if (error != 0) {
        hostile_close(p);
        return error;
    }
    *peer = p;
    return 0;
}

API int hostile_establish(struct peer *p) {
    int error = change(p, IBV_QPS_RTR);
    if (error == 0) error = change(p, IBV_QPS_RTS);
    return error != 0 ? error : rdma_establish(p->id) != 0 ? failure() : 0;
}

static void drain_receives(struct peer *p) {
    struct ibv_wc done;
    while (ibv_poll_cq(p->receives, 1, &done) > 0) {
        if (done.status == IBV_WC_SUCCESS) post_receive(p, done.wr_id);
    }
}

static int post(struct peer *p, const struct order *o, uint8_t *message, const struct ibv_mr *mr) {
    struct ibv_sge part = {.addr = (uintptr_t)message, .length = o->bytes, .lkey = mr->lkey};
    struct ibv_send_wr send = {.sg_list = &part, .num_sge = o->bytes > 0 ? 1 : 0, .opcode = (enum ibv_wr_opcode)o->opcode},
                       *refused;
    send.imm_data = o->immediate;
    if (send.opcode == IBV_WR_ATOMIC_CMP_AND_SWP) {
        send.wr.atomic.remote_addr = o->remote_address;
        send.wr.atomic.rkey = o->remote_key;
        send.wr.atomic.swap = UINT64_MAX;
    } else {
        send.wr.rdma.remote_addr = o->remote_address;
        send.wr.rdma.rkey = o->remote_key;
    }
    return -ibv_post_send(p->qp, &send, &refused);
}

// Does it. Returns the ibv_wc_status of the first that failed, else 0.
API int hostile_post(struct peer *p, struct order *o, uint8_t *messages) {
    // Registered bytes have to be some; an operation on nothing has none.
    static uint8_t nothing[1];
    const size_t bytes = (size_t)o->count * o->bytes;
    struct ibv_mr *mr = ibv_reg_mr(p->pd, bytes > 0 ? messages : nothing, bytes > 0 ? bytes : 1, IBV_ACCESS_LOCAL_WRITE);
    if (mr == NULL) return failure();
    const time_t deadline = time(NULL) + PATIENCE_SECONDS;
    uint32_t posted = 0;
    int result = 0;
    o->done = 0;
    while (o->done < o->count && result == 0) {
        struct ibv_wc done;
        for (; posted < o->count && posted - o->done < SEND_DEPTH && result == 0; posted++)
            result = post(p, o, messages + (size_t)posted * o->bytes, mr);
        drain_receives(p);
        const int found = ibv_poll_cq(p->sends, 1, &done);
        if (found > 0 && done.status == IBV_WC_SUCCESS)
            o->done++;
        else if (found > 0)
            result = (int)done.status;
        else if (time(NULL) > deadline)
            result = -ETIMEDOUT;
    }
    ibv_dereg_mr(mr);
    return result;
}
