// SPDX-License-Identifier: Apache-2.0
#ifndef VSMP_GUEST_FILES_H
#define VSMP_GUEST_FILES_H

// Looks up the functions behind ours. At load; again by whatever is called before.
void files_open(void);

#endif
