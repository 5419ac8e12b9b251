// SPDX-License-Identifier: Apache-2.0
//
// A forked child has its parent's addresses but not its pooled memory: that would need a copy of everything, on both sides of
// copy-on-write, in the pool. Children that exec soon are lent what they touch (lend.c); most others work on memory of their own;
// one that goes on with its parent's must not see zeros, nor die without a word.
#define _GNU_SOURCE
#include "child.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "lend.h"
#include "pool.h"
#include "system.h"

typedef int sigaction_function(int, const struct sigaction *, struct sigaction *);

static struct sigaction programs; // what the program wants for SIGSEGV, in a child that watches
static atomic_bool watching;

static sigaction_function *real_sigaction;
static sighandler_t (*real_signal)(int, sighandler_t);
static pid_t (*real_fork_only)(void);

void child_open(void) {
    if (real_fork_only != NULL) return;
    real_sigaction = (sigaction_function *)dlsym(RTLD_NEXT, "sigaction");
    real_signal = (sighandler_t(*)(int, sighandler_t))dlsym(RTLD_NEXT, "signal");
    real_fork_only = (pid_t(*)(void))dlsym(RTLD_NEXT, "_Fork");
}

// fork() without its handlers.
VSMP_EXPORT pid_t _Fork(void) {
    child_open();
    pool_before_fork(false); // it may have been called from a signal handler
    pid_t child = real_fork_only();
    if (child == 0)
        pool_after_fork_in_child();
    else
        pool_after_fork_in_parent();
    return child;
}

static void end_process(int signal) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    real_sigaction(signal, &standard, NULL);
    signal_mask mask = 1ull << (signal - 1);
    SYSTEM_CALL(SYS_tgkill, SYSTEM_CALL(SYS_getpid), SYSTEM_CALL(SYS_gettid), signal);
    SYSTEM_CALL(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, sizeof mask);
    _exit(128 + signal);
}

// What the program asked for, with the mask that it asked for.
static void pass_on(int signal, siginfo_t *info, ucontext_t *context) {
    if (!(programs.sa_flags & SA_SIGINFO) && (programs.sa_handler == SIG_DFL || programs.sa_handler == SIG_IGN)) {
        end_process(signal);
        return;
    }
    signal_mask mask = 0;
    memcpy(&mask, &context->uc_sigmask, sizeof mask);
    SYSTEM_CALL(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    memcpy(&mask, &programs.sa_mask, sizeof mask);
    if (!(programs.sa_flags & SA_NODEFER)) mask |= 1ull << (signal - 1);
    SYSTEM_CALL(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, sizeof mask);
    if (programs.sa_flags & SA_SIGINFO)
        programs.sa_sigaction(signal, info, context);
    else
        programs.sa_handler(signal);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    ucontext_t *user = context;
    const bool write = (user->uc_mcontext.gregs[REG_ERR] & 2) != 0;
    enum lent lent = LEND_NOT_READABLE;
    const int error = errno;
    if (info->si_code > 0 && pool_is_inherited(info->si_addr)) lent = lend_get((uintptr_t)info->si_addr, write);
    if (lent == LEND_REFUSED) {
        say("process %ld touched pooled memory of the process that forked it, at %p, which forked children do not inherit. Let "
            "the child exec a program soon, start it with posix_spawn or vfork, or fork before memory grows beyond %llu MiB",
            SYSTEM_CALL(SYS_getpid), info->si_addr, (unsigned long long)(PRIVATE_THRESHOLD >> 20));
        end_process(SIGBUS);
    } else if (lent == LEND_NOT_READABLE) {
        pass_on(signal, info, user);
    }
    errno = error;
}

// Our handler, on the program's alternate stack if there is one. All signals wait: their handlers, too, might touch what the
// child inherited.
static void install(void) {
    struct sigaction ours = {.sa_flags = (programs.sa_flags & SA_RESTART) | SA_SIGINFO | SA_ONSTACK};
    ours.sa_sigaction = on_fault;
    sigfillset(&ours.sa_mask);
    real_sigaction(SIGSEGV, &ours, NULL);
}

void child_watch_inherited(void) {
    if (!atomic_load(&watching)) {
        real_sigaction(SIGSEGV, NULL, &programs);
        atomic_store(&watching, true);
    }
    install();
}

VSMP_EXPORT int sigaction(int signal, const struct sigaction *action, struct sigaction *previous) {
    child_open();
    if (signal != SIGSEGV || !atomic_load(&watching)) return real_sigaction(signal, action, previous);
    struct sigaction wanted = action != NULL ? *action : programs; // they may be the same object
    if (previous != NULL) *previous = programs;
    if (action != NULL) {
        programs = wanted;
        install();
    }
    return 0;
}

VSMP_EXPORT sighandler_t signal(int number, sighandler_t handler) {
    child_open();
    if (number != SIGSEGV || !atomic_load(&watching)) return real_signal(number, handler);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, previous;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, number);
    return sigaction(number, &action, &previous) == 0 ? previous.sa_handler : SIG_ERR;
}
