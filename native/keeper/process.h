// SPDX-License-Identifier: Apache-2.0
//
// Processes, by descriptors that keep meaning the same process when its number is used again.
#ifndef VSMP_KEEPER_PROCESS_H
#define VSMP_KEEPER_PROCESS_H

#include <stdbool.h>

// Finds the process of a pidfd: its number, and its folder in /proc, which becomes the caller's to close. 0, or EBADF (that is no
// pidfd), ESRCH (it is dead), EXDEV (it cannot be seen from this process namespace), or what opening the folder said.
int process_open(int pidfd, int *pid, int *proc);

// Whether all of it has ended; what remains of it may still wait for its parent.
bool process_is_gone(int pidfd);

// 0 or an errno value.
int process_signal(int pidfd, int signal);

// Whether somebody has stopped it (SIGSTOP, SIGTSTP): its first thread that has not ended is stopped.
bool process_is_stopped(int proc);

// Whether no thread of it can execute an instruction: each is stopped, held by a debugger, or has ended. A stop takes hold of
// threads one by one, so the state of the process, which is that of its first thread, does not tell.
bool process_is_still(int proc);

// This process runs ahead of programs (SCHED_FIFO), and what it starts does not. False with errno where that is not permitted.
bool run_ahead(void);

#endif
