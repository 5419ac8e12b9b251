// SPDX-License-Identifier: Apache-2.0
#ifndef VSMP_GUEST_CHILD_H
#define VSMP_GUEST_CHILD_H

// Looks up the functions behind ours, at load.
void child_open(void);

// In a forked child of a guest: from now on, touching what was the parent's pooled memory ends the child with a message.
void child_watch_inherited(void);

#endif
