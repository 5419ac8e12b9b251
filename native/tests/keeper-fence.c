// SPDX-License-Identifier: Apache-2.0
//
// keeper-fence WHAT: an agent with guests that count, and a lease that runs out.
#define _GNU_SOURCE
#include "keeper.h"

enum { GUESTS_MAX = 16, FIRST_KEY = 100 };

struct guest {
    pid_t pid;
    int pidfd;
};

static struct guest guests[GUESTS_MAX];
static unsigned guest_count;
static volatile uint64_t *counters; // shared with the guests, a cache line each
static int counters_file;

static volatile uint64_t *counter(unsigned guest) { return &counters[(uint64_t)guest * 8]; }

static void map_counters(void) {
    counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, counters_file, 0);
    check(counters != MAP_FAILED, "mmap");
}

static void make_counters(void) {
    counters_file = memfd_create("counters", MFD_CLOEXEC);
    check(counters_file >= 0 && ftruncate(counters_file, 4096) == 0, "memfd_create");
    map_counters();
}

static void *count_on(void *argument) {
    for (volatile uint64_t *mine = argument;; (*mine)++) {
        // As a program would: most of the time computing, and now and then in the kernel.
        if (*mine % 4096 == 0) sched_yield();
    }
    return NULL;
}

// A guest with so many threads, all of which count on their own.
static unsigned start_counting(unsigned threads) {
    const unsigned first = guest_count;
    const pid_t pid = fork();
    check(pid >= 0, "fork");
    if (pid == 0) {
        for (unsigned i = 1; i < threads; i++) {
            pthread_t thread;
            check(pthread_create(&thread, NULL, count_on, (void *)(uintptr_t)counter(first + i)) == 0, "pthread_create");
        }
        count_on((void *)(uintptr_t)counter(first));
    }
    guests[guest_count] = (struct guest){pid, open_process(pid)};
    guest_count += threads;
    return first;
}

static void hold_one(unsigned guest) { check(hold_guest(FIRST_KEY + guest, guests[guest].pidfd) == 0, "the guest is held"); }

static void await_counting(unsigned guest) {
    const uint64_t before = *counter(guest), until = now() + PATIENCE_MILLISECONDS * MILLISECOND;
    while (*counter(guest) == before) {
        check(now() < until, "guest %u counts", guest);
        pause_for(MILLISECOND);
    }
}

// Nobody counts while the agent has the processor to itself for a while.
static void check_still(unsigned guest, const char *when) {
    const uint64_t before = *counter(guest);
    pause_for(20 * MILLISECOND);
    check(*counter(guest) == before, "guest %u does not count %s: %lu, then %lu", guest, when, before, *counter(guest));
}

static char state_of(unsigned guest) {
    char path[40], text[400];
    snprintf(path, sizeof path, "/proc/%d/stat", guests[guest].pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    check(fd >= 0, "%s", path);
    const ssize_t bytes = read(fd, text, sizeof text - 1);
    close(fd);
    check(bytes > 0, "%s is read", path);
    text[bytes] = 0;
    return strrchr(text, ')')[2];
}

static void await_state(unsigned guest, char wanted) {
    const uint64_t until = now() + PATIENCE_MILLISECONDS * MILLISECOND;
    while (state_of(guest) != wanted) {
        check(now() < until, "guest %u is %c, not %c", guest, state_of(guest), wanted);
        pause_for(MILLISECOND);
    }
}

static struct vsmp_keeper_message await_notice(unsigned type) {
    const struct vsmp_keeper_message got = notice();
    check(got.type == type, "the notice is %u, not %u", type, got.type);
    return got;
}

static void renew(uint64_t nanoseconds) { check(lease(now() + nanoseconds, 0) == 0, "a lease"); }

// Lets the lease run out.
static struct vsmp_keeper_message await_fence(uint64_t nanoseconds) {
    const uint64_t deadline = now() + nanoseconds;
    check(lease(deadline, 0) == 0, "a lease");
    const struct vsmp_keeper_message fenced = await_notice(VSMP_KEEPER_FENCED);
    check(fenced.a >= deadline && fenced.a <= now(), "fenced when the lease has run out");
    printf("fenced %.3f ms after the deadline, %lu guests\n", (double)(fenced.a - deadline) / 1e6, fenced.b);
    return fenced;
}

static void A_guest_stops_at_the_deadline_and_goes_on_with_a_new_lease(void) {
    const unsigned guest = start_counting(1);
    hold_one(guest);
    await_counting(guest);
    check(lease(0, 0) == 0, "no lease is needed yet");
    for (unsigned round = 1; round <= 5; round++) {
        const struct vsmp_keeper_message fenced = await_fence(20 * MILLISECOND);
        check(fenced.b == 1 && fenced.c == 0, "one guest is stopped");
        check_still(guest, "without a lease");
        const struct vsmp_keeper_state fenced_state = state();
        check(fenced_state.flags & VSMP_KEEPER_IS_FENCED && fenced_state.fenced_at_ns == fenced.a, "STATE says so, too");
        check(fenced_state.stopped == 1 && fenced_state.running == 0, "and how many");
        check(lease(now() - MILLISECOND, 0) == 0, "a lease that has run out already");
        check_still(guest, "with it");
        renew(60000 * MILLISECOND);
        check(await_notice(VSMP_KEEPER_RESUMED).b == 1, "one guest goes on");
        await_counting(guest);
        check((state().flags & VSMP_KEEPER_IS_FENCED) == 0, "STATE says so");
    }
    check(lease(0, 0) == EPERM, "to need no lease any more must be said");
    check(lease(0, VSMP_KEEPER_RELEASE) == 0 && state().deadline_ns == 0, "and can be");
    await_counting(guest);
    await_fence(MILLISECOND);
    check(lease(0, VSMP_KEEPER_RELEASE) == 0, "also when fenced");
    check(await_notice(VSMP_KEEPER_RESUMED).b == 1, "one guest goes on");
    await_counting(guest);
}

static void All_threads_of_all_guests_stop(void) {
    const unsigned first = start_counting(8), second = start_counting(3), third = start_counting(1);
    hold_one(first);
    hold_one(second);
    hold_one(third);
    for (unsigned i = 0; i < guest_count; i++) await_counting(i);
    const struct vsmp_keeper_message fenced = await_fence(50 * MILLISECOND);
    check(fenced.b == 3 && fenced.c == 0, "three guests are stopped");
    uint64_t before[GUESTS_MAX];
    for (unsigned i = 0; i < guest_count; i++) before[i] = *counter(i);
    pause_for(50 * MILLISECOND);
    for (unsigned i = 0; i < guest_count; i++) check(*counter(i) == before[i], "thread %u does not count", i);
    renew(60000 * MILLISECOND);
    check(await_notice(VSMP_KEEPER_RESUMED).b == 3, "three guests go on");
    for (unsigned i = 0; i < guest_count; i++) await_counting(i);
}

static void Who_was_stopped_before_stays_stopped(void) {
    const unsigned stopped = start_counting(1), other = start_counting(1);
    hold_one(stopped);
    hold_one(other);
    kill(guests[stopped].pid, SIGSTOP);
    await_state(stopped, 'T');
    check(await_fence(10 * MILLISECOND).b == 2, "both are stopped");
    renew(60000 * MILLISECOND);
    check(await_notice(VSMP_KEEPER_RESUMED).b == 1, "one goes on");
    await_counting(other);
    check(state_of(stopped) == 'T', "the other does not");
    check_still(stopped, "since a user stopped it");

    // Woken by its user while it must not run, it is stopped again, and goes on with the next lease.
    await_fence(10 * MILLISECOND);
    kill(guests[stopped].pid, SIGCONT);
    kill(guests[other].pid, SIGCONT);
    pause_for(100 * MILLISECOND);
    await_state(stopped, 'T');
    await_state(other, 'T');
    check_still(stopped, "though it was woken");
    check_still(other, "though it was woken");
    renew(60000 * MILLISECOND);
    check(await_notice(VSMP_KEEPER_RESUMED).b == 2, "both go on");
    await_counting(stopped);
    await_counting(other);
}

static void A_guest_that_comes_while_there_is_no_lease_is_stopped_at_once(void) {
    check(await_fence(MILLISECOND).b == 0, "there is none yet");
    const unsigned guest = start_counting(1);
    await_counting(guest);
    hold_one(guest);
    await_state(guest, 'T');
    check_still(guest, "without a lease");
    renew(60000 * MILLISECOND);
    check(await_notice(VSMP_KEEPER_RESUMED).b == 1, "it goes on");
    await_counting(guest);
}

static void A_guest_that_is_dropped_without_a_lease_goes_on(void) {
    const unsigned dropped = start_counting(1), kept = start_counting(1), stopped = start_counting(1);
    hold_one(dropped);
    hold_one(kept);
    hold_one(stopped);
    kill(guests[stopped].pid, SIGSTOP);
    await_state(stopped, 'T');
    check(await_fence(MILLISECOND).b == 3, "all are stopped");
    await_state(dropped, 'T');
    check(drop(FIRST_KEY + dropped) == 0 && drop(FIRST_KEY + stopped) == 0, "two are dropped");
    await_counting(dropped); // it has nothing of the node's any more, and nobody else would let it go on
    check_still(kept, "without a lease");
    check(state_of(stopped) == 'T', "whom a user stopped stays so");
    kill(guests[stopped].pid, SIGKILL); // nobody else does
    hold_one(dropped); // as one that attaches anew
    await_state(dropped, 'T');
    check_still(dropped, "without a lease");
    renew(60000 * MILLISECOND);
    check(await_notice(VSMP_KEEPER_RESUMED).b == 2, "both go on");
    await_counting(dropped);
    await_counting(kept);
}

static void A_lease_that_is_renewed_in_time_stops_nobody(void) {
    enum { RENEWALS = 200, LOAD = 4 };
    const unsigned guest = start_counting(1);
    hold_one(guest);
    for (unsigned i = 0; i < LOAD; i++) hold_one(start_counting(1));
    for (unsigned i = 0; i < RENEWALS; i++) {
        struct message m = {.head = {.type = VSMP_KEEPER_LEASE, .a = now() + 3000 * MILLISECOND}};
        send_request(&m); // fire and forget
        pause_for(4 * MILLISECOND);
    }
    check((state().flags & (VSMP_KEEPER_IS_FENCED | VSMP_KEEPER_IS_STOPPING)) == 0 && notice_count == 0, "nobody was stopped");
    await_counting(guest);
}

// Starts it again where the test goes on after the agent was killed; its descriptors come back.
static void take_back(struct message *m) {
    if (m->head.kind == VSMP_KEEPER_KIND_OTHER) {
        counters_file = m->fds[0];
        map_counters();
        return;
    }
    guests[guest_count].pidfd = m->fds[0];
    memcpy(&guests[guest_count].pid, m->data, sizeof(pid_t));
    guest_count++;
}

static void A_lease_runs_out_though_there_is_no_agent(void) {
    if (restarted() == 0) {
        const unsigned guest = start_counting(1);
        const pid_t pid = guests[guest].pid;
        check(hold(FIRST_KEY, VSMP_KEEPER_KIND_GUEST, 0, &guests[guest].pidfd, 1, &pid, sizeof pid) == 0, "the guest is held");
        check(hold(1, VSMP_KEEPER_KIND_OTHER, 0, &counters_file, 1, "", 0) == 0, "the counters are held");
        await_counting(guest);
        renew(60 * MILLISECOND);
    }
    // The first time it is started again at once, then after 100 ms.
    if (restarted() < 2) raise(SIGKILL);
    guest_count = 0;
    check(list(take_back) == 2, "guest and counters come back");
    const struct vsmp_keeper_state away = state();
    check((away.flags & VSMP_KEEPER_IS_FENCED) != 0 && away.stopped == 1 && away.restarts == 2, "fenced meanwhile");
    printf("fenced %.3f ms after the deadline\n", (double)(away.fenced_at_ns - away.deadline_ns) / 1e6);
    check_still(0, "without a lease");
    renew(60000 * MILLISECOND);
    check(await_notice(VSMP_KEEPER_RESUMED).b == 1, "it goes on");
    await_counting(0);
}

static void A_guest_that_cannot_stop_yet_is_told_and_told_again(void) {
    const unsigned guest = guest_count++;
    int *shared = (int *)(uintptr_t)counter(guest);
    const pid_t pid = fork();
    if (pid == 0) {
        const int own = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
        struct uffdio_api api = {.api = UFFD_API};
        char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct uffdio_register range = {.range = {(uintptr_t)page, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        check(ioctl(own, UFFDIO_API, &api) == 0 && ioctl(own, UFFDIO_REGISTER, &range) == 0, "the guest's userfaultfd");
        __atomic_store_n(&shared[1], own, __ATOMIC_RELEASE);
        const int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        check(read(zero, page, 4096) == 4096, "the guest reads into it"); // faults in the kernel
        for (;;) pause();
    }
    guests[guest] = (struct guest){pid, open_process(pid)};
    hold_one(guest);
    while (__atomic_load_n(&shared[1], __ATOMIC_ACQUIRE) == 0) pause_for(MILLISECOND);
    const int own = (int)syscall(SYS_pidfd_getfd, guests[guest].pidfd, shared[1], 0);
    struct pollfd polled = {.fd = own, .events = POLLIN};
    struct uffd_msg fault;
    check(own >= 0 && poll(&polled, 1, PATIENCE_MILLISECONDS) == 1 && read(own, &fault, sizeof fault) == sizeof fault,
          "its fault");
    const struct vsmp_keeper_message fenced = await_fence(MILLISECOND);
    check(fenced.b == 0 && fenced.c == 1, "one is still to stop: %lu, %lu", fenced.b, fenced.c);
    struct uffdio_zeropage fill = {.range = {fault.arg.pagefault.address & ~4095ull, 4096}};
    check(ioctl(own, UFFDIO_ZEROPAGE, &fill) == 0, "its fault is resolved");
    const struct vsmp_keeper_message later = await_notice(VSMP_KEEPER_FENCED);
    check(later.b == 1 && later.c == 0 && later.a == fenced.a, "now it has stopped");
    await_state(guest, 'T');
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {
        {"deadline", A_guest_stops_at_the_deadline_and_goes_on_with_a_new_lease},
        {"threads", All_threads_of_all_guests_stop},
        {"foreign", Who_was_stopped_before_stays_stopped},
        {"newcomer", A_guest_that_comes_while_there_is_no_lease_is_stopped_at_once},
        {"dropped", A_guest_that_is_dropped_without_a_lease_goes_on},
        {"renew", A_lease_that_is_renewed_in_time_stops_nobody},
        {"away", A_lease_runs_out_though_there_is_no_agent},
        {"kernel", A_guest_that_cannot_stop_yet_is_told_and_told_again},
    };
    connect_keeper();
    make_counters();
    for (unsigned i = 0; argc == 2 && i < sizeof all / sizeof *all; i++) {
        if (strcmp(argv[1], all[i].name) != 0) continue;
        all[i].run();
        return passed(argv[1]); // the guests that are left are the keeper's to end
    }
    check(false, "usage: keeper-fence deadline|threads|foreign|newcomer|dropped|renew|away|kernel");
}
