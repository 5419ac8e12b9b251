// SPDX-License-Identifier: Apache-2.0
//
// libibverbs and librdmacm, found at run time.
#ifndef VSMP_VERBS_LOAD_H
#define VSMP_VERBS_LOAD_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stddef.h>

// The headers have macros of these names.
#undef ibv_reg_mr
#undef ibv_query_port

// X(library, result, name, parameters)
#define VSMP_VERBS_FUNCTIONS(X)                                                                                                  \
    X(ibv, struct ibv_device **, ibv_get_device_list, (int *))                                                                   \
    X(ibv, void, ibv_free_device_list, (struct ibv_device **))                                                                   \
    X(ibv, const char *, ibv_get_device_name, (struct ibv_device *))                                                             \
    X(ibv, struct ibv_context *, ibv_open_device, (struct ibv_device *))                                                         \
    X(ibv, int, ibv_close_device, (struct ibv_context *))                                                                        \
    X(ibv, int, ibv_query_port, (struct ibv_context *, uint8_t, struct _compat_ibv_port_attr *))                                 \
    X(ibv, int, ibv_query_device, (struct ibv_context *, struct ibv_device_attr *))                                              \
    X(ibv, struct ibv_pd *, ibv_alloc_pd, (struct ibv_context *))                                                                \
    X(ibv, int, ibv_dealloc_pd, (struct ibv_pd *))                                                                               \
    X(ibv, struct ibv_mr *, ibv_reg_mr, (struct ibv_pd *, void *, size_t, int))                                                  \
    X(ibv, int, ibv_dereg_mr, (struct ibv_mr *))                                                                                 \
    X(ibv, struct ibv_comp_channel *, ibv_create_comp_channel, (struct ibv_context *))                                           \
    X(ibv, int, ibv_destroy_comp_channel, (struct ibv_comp_channel *))                                                           \
    X(ibv, struct ibv_cq *, ibv_create_cq, (struct ibv_context *, int, void *, struct ibv_comp_channel *, int))                  \
    X(ibv, int, ibv_destroy_cq, (struct ibv_cq *))                                                                               \
    X(ibv, int, ibv_modify_qp, (struct ibv_qp *, struct ibv_qp_attr *, int))                                                     \
    X(ibv, int, ibv_get_cq_event, (struct ibv_comp_channel *, struct ibv_cq **, void **))                                        \
    X(ibv, void, ibv_ack_cq_events, (struct ibv_cq *, unsigned int))                                                             \
    X(ibv, const char *, ibv_wc_status_str, (enum ibv_wc_status))                                                                \
    X(cm, struct rdma_event_channel *, rdma_create_event_channel, (void))                                                        \
    X(cm, void, rdma_destroy_event_channel, (struct rdma_event_channel *))                                                       \
    X(cm, int, rdma_create_id, (struct rdma_event_channel *, struct rdma_cm_id **, void *, enum rdma_port_space))                \
    X(cm, int, rdma_destroy_id, (struct rdma_cm_id *))                                                                           \
    X(cm, int, rdma_bind_addr, (struct rdma_cm_id *, struct sockaddr *))                                                         \
    X(cm, int, rdma_listen, (struct rdma_cm_id *, int))                                                                          \
    X(cm, int, rdma_resolve_addr, (struct rdma_cm_id *, struct sockaddr *, struct sockaddr *, int))                              \
    X(cm, int, rdma_resolve_route, (struct rdma_cm_id *, int))                                                                   \
    X(cm, int, rdma_set_option, (struct rdma_cm_id *, int, int, void *, size_t))                                                 \
    X(cm, int, rdma_create_qp, (struct rdma_cm_id *, struct ibv_pd *, struct ibv_qp_init_attr *))                                \
    X(cm, void, rdma_destroy_qp, (struct rdma_cm_id *))                                                                          \
    X(cm, int, rdma_connect, (struct rdma_cm_id *, struct rdma_conn_param *))                                                    \
    X(cm, int, rdma_accept, (struct rdma_cm_id *, struct rdma_conn_param *))                                                     \
    X(cm, int, rdma_reject, (struct rdma_cm_id *, const void *, uint8_t))                                                        \
    X(cm, int, rdma_disconnect, (struct rdma_cm_id *))                                                                           \
    X(cm, int, rdma_get_cm_event, (struct rdma_event_channel *, struct rdma_cm_event **))                                        \
    X(cm, int, rdma_ack_cm_event, (struct rdma_cm_event *))

#define DECLARE(library, result, name, parameters) result(*name) parameters;
extern struct rdma_functions { VSMP_VERBS_FUNCTIONS(DECLARE) } rdma;
#undef DECLARE

#endif
