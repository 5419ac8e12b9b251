// SPDX-License-Identifier: Apache-2.0
#include "load.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

#include "verbs.h"

struct rdma_functions rdma;
static bool is_loaded;

VSMP_VERBS_API uint32_t vsmp_verbs_version(void) { return VSMP_VERBS_VERSION; }

VSMP_VERBS_API int vsmp_verbs_load(char *why, uint32_t bytes) {
    if (is_loaded) return 0;
    // They stay loaded: what they hand out outlives any one user.
    void *ibv = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
    void *cm = ibv == NULL ? NULL : dlopen("librdmacm.so.1", RTLD_NOW | RTLD_LOCAL);
    if (cm == NULL) {
        snprintf(why, bytes, "%s (Debian: apt-get install %s)", dlerror(),
                 ibv == NULL ? "libibverbs1 ibverbs-providers" : "librdmacm1");
        return -ENOENT;
    }
    struct rdma_functions found = {0};
#define FIND(library, result, name, parameters)                                                                                  \
    found.name = (result(*) parameters)dlsym(library, #name);                                                                    \
    if (found.name == NULL) {                                                                                                    \
        snprintf(why, bytes, "%s is missing from " #library ": rdma-core is older than 28", #name);                              \
        return -ENOSYS;                                                                                                          \
    }
    VSMP_VERBS_FUNCTIONS(FIND)
#undef FIND
    rdma = found;
    is_loaded = true;
    return 0;
}
