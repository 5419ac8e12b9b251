// SPDX-License-Identifier: Apache-2.0
#include "messages.h"

#include <stdbool.h>

const char *message_fault(const struct vsmp_keeper_message *m, size_t bytes, unsigned fd_count) {
    if (bytes < sizeof *m) return "it is shorter than a header";
    if (m->magic != VSMP_KEEPER_MAGIC) return "it does not begin as a message does";
    if (m->version != VSMP_KEEPER_VERSION) return "it is of another version";
    if (m->data_bytes > VSMP_KEEPER_DATA_MAX || m->data_bytes != bytes - sizeof *m) return "it has another length than it says";
    if (m->status != 0 || m->reserved != 0) return "it has something where nothing belongs";
    if (fd_count > m->fd_count) return "it has more descriptors than it says";

    const bool has_key = m->type == VSMP_KEEPER_HOLD || m->type == VSMP_KEEPER_DROP || m->type == VSMP_KEEPER_KILL;
    const bool has_data = m->type == VSMP_KEEPER_HOLD || m->type == VSMP_KEEPER_KILL;
    const bool is_mapping = m->type == VSMP_KEEPER_HOLD && m->kind == VSMP_KEEPER_KIND_MAPPING;
    switch (m->type) {
    case VSMP_KEEPER_HOLD:
        if (m->kind < VSMP_KEEPER_KIND_GUEST || m->kind > VSMP_KEEPER_KIND_OTHER) return "it holds nothing that is known";
        if (m->fd_count < 1 || m->fd_count > VSMP_KEEPER_FDS_MAX) return "a hold has 1 to 4 descriptors";
        break;
    case VSMP_KEEPER_LIST:
    case VSMP_KEEPER_STATE:
        if (m->serial == 0) return "it asks for an answer that it does not want";
        break;
    case VSMP_KEEPER_DROP:
    case VSMP_KEEPER_CLEAR:
    case VSMP_KEEPER_LEASE:
    case VSMP_KEEPER_KILL:
        break;
    default:
        return "it asks for nothing that is known";
    }
    if (m->type != VSMP_KEEPER_HOLD && (m->kind != VSMP_KEEPER_KIND_NONE || m->fd_count != 0))
        return "it has something where nothing belongs";
    if (has_key != (m->key != 0)) return has_key ? "it names no key" : "it has something where nothing belongs";
    if (!has_data && m->data_bytes != 0) return "it has something where nothing belongs";
    if ((m->a != 0 && m->type != VSMP_KEEPER_LEASE && !is_mapping) || m->b != 0 || m->c != 0)
        return "it has something where nothing belongs";
    if (is_mapping && m->a == 0) return "a mapping names its guest";
    if (m->flags != 0 && (m->type != VSMP_KEEPER_LEASE || m->flags != VSMP_KEEPER_RELEASE || m->a != 0))
        return "it has unknown flags";
    return NULL;
}
