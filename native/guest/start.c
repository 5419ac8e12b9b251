// SPDX-License-Identifier: Apache-2.0
#include "pool.h"
#include "system.h"

// malloc works long before this runs; only what must happen before the program's own code does is here.
__attribute__((constructor)) static void start(void) { pool_open(); }
