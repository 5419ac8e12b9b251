// SPDX-License-Identifier: Apache-2.0
#ifndef VSMP_GUEST_MAPS_H
#define VSMP_GUEST_MAPS_H

#include <stdbool.h>
#include <stddef.h>

// Looks a range up in /proc/self/maps. True where it lies in one private anonymous mapping that is neither stack nor break.
bool maps_find(const void *address, size_t length, int *protection);

#endif
