// SPDX-License-Identifier: Apache-2.0
//
// The agent as a process: started, and started again when it was killed.
#ifndef VSMP_KEEPER_AGENT_H
#define VSMP_KEEPER_AGENT_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

// What an agent is to have as the keeper found it.
struct inherited {
    sigset_t signals;
    struct sigaction on_pipe;
    struct rlimit descriptors;
    int nice;
};

enum { EXIT_USAGE = 2, EXIT_FAILED = 1, EXIT_GIVEN_UP = 70 };

// Starts it. `flags`: VSMP_KEEPER_IS_REALTIME and _LOCKED, for whom it may concern.
void agent_start(char **command, unsigned restart_limit, const struct inherited *inherited, uint32_t flags);

// A child has ended.
void agent_on_child(void);

// It has a lease: it serves, and was not started in vain.
void agent_on_lease(void);

// It is time to start it again.
void agent_on_back_off(void);

// A signal that asks for the end, to be passed on. `by_terminal`: the agent got it as well.
void agent_pass(int signal, bool by_terminal);

void agent_kill(void);

uint32_t agent_restarts(void);

uint32_t agent_keeper_flags(void);

#endif
