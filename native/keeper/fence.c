// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "fence.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "link.h"
#include "process.h"
#include "say.h"
#include "watch.h"

// How long all guests are looked at, more and more seldom, before the fence is called one in spite of some that run: a thread can
// be stopped only when it leaves the kernel, and one whose fault there nobody resolves does not.
#define STOPPING_NANOSECONDS 1000000000ull
#define FIRST_LOOK_NANOSECONDS 200000ull
#define LAST_LOOK_NANOSECONDS 10000000ull

// While fenced: a guest that somebody wakes is stopped again. So many are looked at, so often.
#define WATCH_NANOSECONDS 20000000ull
#define WATCH_GUESTS 64u

static enum { FREE, STOPPING, FENCED } phase;
static bool was_given; // a lease, ever
static uint64_t deadline; // 0: none needed
static uint64_t begun_at, fenced_at, look_nanoseconds;
static bool owes_notice; // that those that ran on are stopped, too
static uint32_t watched; // index of the guest that is looked at next
static int deadline_timer = -1, tick_timer = -1;

bool fence_start(void) {
    deadline_timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    tick_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return deadline_timer >= 0 && tick_timer >= 0 && watch_add(deadline_timer, EPOLLIN, WATCHED_DEADLINE, 0) == 0 &&
           watch_add(tick_timer, EPOLLIN, WATCHED_TICK, 0) == 0;
}

static void set_timer(int timer, int flags, uint64_t nanoseconds) // 0: never
{
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(nanoseconds / 1000000000u), .tv_nsec = (long)(nanoseconds % 1000000000u)}};
    timerfd_settime(timer, flags, &when, NULL);
}

static void stop(struct hold *guest) {
    if (guest->is_gone) return;
    guest->is_foreign = process_is_stopped(guest->proc);
    guest->stop = STOP_SENT;
    if (!guest->is_foreign) process_signal(guest->fds[0], SIGSTOP);
}

// Whether it is stopped by now.
static bool look(struct hold *guest) {
    if (guest->is_gone) return true;
    const bool is_still = process_is_still(guest->proc);
    guest->stop = is_still ? STOP_SEEN : STOP_SENT;
    return is_still;
}

static void count(uint32_t *stopped, uint32_t *running) {
    *stopped = *running = 0;
    for (uint32_t i = 0; i < holds_count(VSMP_KEEPER_KIND_GUEST); i++) {
        const struct hold *guest = guest_at(i);
        if (guest->is_gone) continue;
        *stopped += guest->stop == STOP_SEEN;
        *running += guest->stop == STOP_SENT;
    }
}

static void tell_fenced(void) {
    uint32_t stopped, running;
    count(&stopped, &running);
    owes_notice = running > 0;
    link_tell(VSMP_KEEPER_FENCED, fenced_at, stopped, running);
    say("the lease has run out: %u guests are stopped, %u are still to stop", stopped, running);
}

static void look_at_all(void) {
    uint32_t running = 0;
    for (uint32_t i = 0; i < holds_count(VSMP_KEEPER_KIND_GUEST); i++) {
        struct hold *guest = guest_at(i);
        if (guest->stop == STOP_SENT && !look(guest)) running++;
    }
    const uint64_t now = boot_nanoseconds();
    if (running == 0 || now - begun_at >= STOPPING_NANOSECONDS) {
        phase = FENCED;
        fenced_at = now;
        tell_fenced();
        set_timer(tick_timer, 0, WATCH_NANOSECONDS);
    } else {
        set_timer(tick_timer, 0, look_nanoseconds);
        if (look_nanoseconds < LAST_LOOK_NANOSECONDS) look_nanoseconds *= 2;
    }
}

static void fence(void) {
    phase = STOPPING;
    begun_at = boot_nanoseconds();
    look_nanoseconds = FIRST_LOOK_NANOSECONDS;
    for (uint32_t i = 0; i < holds_count(VSMP_KEEPER_KIND_GUEST); i++) stop(guest_at(i));
    look_at_all();
}

static void resume(void) {
    uint32_t woken = 0;
    for (uint32_t i = 0; i < holds_count(VSMP_KEEPER_KIND_GUEST); i++) {
        struct hold *guest = guest_at(i);
        if (!guest->is_gone && guest->stop != STOP_NONE && !guest->is_foreign && process_signal(guest->fds[0], SIGCONT) == 0)
            woken++;
        guest->stop = STOP_NONE;
        guest->is_foreign = false;
    }
    phase = FREE;
    fenced_at = 0;
    owes_notice = false;
    set_timer(tick_timer, 0, 0);
    link_tell(VSMP_KEEPER_RESUMED, boot_nanoseconds(), woken, 0);
    say("the lease is there again: %u guests go on", woken);
}

int lease_set(uint64_t deadline_ns, bool is_release) {
    if (deadline_ns > INT64_MAX) return EINVAL;
    if (deadline_ns == 0 && was_given && !is_release) return EPERM;
    was_given |= deadline_ns != 0;
    deadline = deadline_ns;
    set_timer(deadline_timer, TFD_TIMER_ABSTIME, deadline_ns);
    const bool is_valid = deadline == 0 || deadline > boot_nanoseconds();
    if (is_valid && phase != FREE) resume();
    if (!is_valid && phase == FREE) fence();
    return 0;
}

void fence_on_deadline(void) {
    uint64_t expirations;
    if (read(deadline_timer, &expirations, sizeof expirations) < 0) return; // it was set anew
    if (phase == FREE && deadline != 0 && deadline <= boot_nanoseconds()) fence();
}

static void look_again(struct hold *guest) {
    const bool was_stopped = guest->stop == STOP_SEEN;
    if (look(guest)) return;
    if (was_stopped) {
        say("somebody woke guest %#lx (process %d), which has no lease: it is stopped again", guest->key, guest->pid);
        guest->is_foreign = false; // who had stopped it wants it to go on
    }
    // Again for those that were not stopped yet, since a SIGCONT takes away a SIGSTOP that is on its way.
    process_signal(guest->fds[0], SIGSTOP);
}

void fence_on_tick(void) {
    uint64_t expirations;
    if (read(tick_timer, &expirations, sizeof expirations) < 0) return;
    if (phase == STOPPING) look_at_all();
    if (phase != FENCED) return;
    const uint32_t guests = holds_count(VSMP_KEEPER_KIND_GUEST);
    for (uint32_t i = 0; i < WATCH_GUESTS && i < guests; i++) {
        watched = watched + 1 < guests ? watched + 1 : 0;
        look_again(guest_at(watched));
    }
    if (owes_notice) {
        uint32_t stopped, running;
        count(&stopped, &running);
        if (running == 0) tell_fenced();
    }
    if (guests > 0) set_timer(tick_timer, 0, WATCH_NANOSECONDS);
}

void fence_newcomer(struct hold *guest) {
    if (phase == FREE) return;
    stop(guest);
    look(guest);
    if (phase == FENCED) set_timer(tick_timer, 0, FIRST_LOOK_NANOSECONDS);
}

void fence_leaver(struct hold *guest) {
    if (guest->is_gone || guest->stop == STOP_NONE) return;
    if (!guest->is_foreign) process_signal(guest->fds[0], SIGCONT);
    guest->stop = STOP_NONE;
}

void fence_describe(struct vsmp_keeper_state *state) {
    state->deadline_ns = deadline;
    state->fenced_at_ns = fenced_at;
    state->flags |= phase == STOPPING ? VSMP_KEEPER_IS_STOPPING : phase == FENCED ? VSMP_KEEPER_IS_FENCED : 0;
    if (phase != FREE) count(&state->stopped, &state->running);
}
