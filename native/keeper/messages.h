// SPDX-License-Identifier: Apache-2.0
//
// Which messages of an agent are messages at all.
#ifndef VSMP_KEEPER_MESSAGES_H
#define VSMP_KEEPER_MESSAGES_H

#include <stddef.h>

#include "protocol.h"

// What is wrong with a message of that many bytes, of which at least the header can be read, and descriptors; NULL: nothing. Fewer
// descriptors than it says are a matter of limits, and its handler's.
const char *message_fault(const struct vsmp_keeper_message *message, size_t bytes, unsigned fd_count);

#endif
