// SPDX-License-Identifier: Apache-2.0
#ifndef VSMP_GUEST_EXEC_H
#define VSMP_GUEST_EXEC_H

// Looks up the functions behind ours, at load.
void exec_open(void);

// In a forked child of a guest: makes sure that the kernel will find a string.
void exec_look_at(const char *text);

#endif
