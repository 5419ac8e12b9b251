// SPDX-License-Identifier: Apache-2.0
//
// Lines on standard error, and the clocks.
#ifndef VSMP_KEEPER_SAY_H
#define VSMP_KEEPER_SAY_H

#include <stdint.h>

// One line, if standard error takes it at once: a reader that does not read must not keep the keeper from fencing.
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

// Text that is not ours, made fit for a line: control characters become '?'.
void say_plainly(char *text);

// CLOCK_BOOTTIME: also counts while the host is suspended, as the rest of the cluster does.
uint64_t boot_nanoseconds(void);

#endif
