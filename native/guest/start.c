// SPDX-License-Identifier: Apache-2.0
#include "child.h"
#include "exec.h"
#include "files.h"
#include "pool.h"
#include "system.h"

// malloc works long before this runs. What is here must happen before the program can change its environment, and outside of
// the places (a forked child, a signal handler) in which symbols must not be looked up.
__attribute__((constructor)) static void start(void) {
    pool_open();
    files_open();
    child_open();
    exec_open();
}
