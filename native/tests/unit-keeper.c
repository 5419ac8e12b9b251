// SPDX-License-Identifier: Apache-2.0
//
// unit-keeper [SEED]: which messages are messages, the table of holds against a plain model, and what the kernel says of processes, under
// the sanitizers.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "../keeper/holds.h"
#include "../keeper/messages.h"
#include "../keeper/process.h"
#include "check.h"

static unsigned passed_count;
static uint64_t seed;

static void done(const char *name) {
    printf("  ok   %s\n", name);
    passed_count++;
}

static struct vsmp_keeper_message sound(unsigned type) {
    struct vsmp_keeper_message m = {
        .magic = VSMP_KEEPER_MAGIC, .version = VSMP_KEEPER_VERSION, .type = (uint16_t)type, .serial = 1};
    if (type == VSMP_KEEPER_HOLD || type == VSMP_KEEPER_DROP || type == VSMP_KEEPER_KILL) m.key = 5;
    if (type == VSMP_KEEPER_HOLD) {
        m.kind = VSMP_KEEPER_KIND_MAPPING;
        m.fd_count = 4;
        m.a = 9;
    }
    return m;
}

static void Sound_messages_are_taken_and_any_single_change_that_has_no_meaning_is_not(void) {
    for (unsigned type = VSMP_KEEPER_HOLD; type <= VSMP_KEEPER_KILL; type++) {
        const struct vsmp_keeper_message m = sound(type);
        check(message_fault(&m, sizeof m, m.fd_count) == NULL, "type %u: %s", type, message_fault(&m, sizeof m, m.fd_count));
        for (unsigned field = 0; field < 10; field++) {
            struct vsmp_keeper_message bad = m;
            size_t bytes = sizeof m;
            switch (field) {
            case 0:
                bad.magic++;
                break;
            case 1:
                bad.version++;
                break;
            case 2:
                bad.type |= VSMP_KEEPER_REPLY;
                break;
            case 3:
                bad.status = 1;
                break;
            case 4:
                bad.reserved = 1;
                break;
            case 5:
                bad.b = 1;
                break;
            case 6:
                bad.c = 1;
                break;
            case 7:
                bad.kind = 77;
                break;
            case 8:
                bytes--;
                break;
            default:
                bad.data_bytes = UINT32_MAX;
            }
            check(message_fault(&bad, bytes, bad.fd_count) != NULL, "type %u, field %u", type, field);
        }
    }
    done(__func__);
}

// What passes is within the bounds that the handlers rely on.
static void Whatever_passes_is_within_bounds(void) {
    uint64_t random = seed;
    unsigned taken = 0;
    for (unsigned round = 0; round < 2000000; round++) {
        struct vsmp_keeper_message m = sound(1 + (unsigned)(next_random(&random) % 7));
        size_t bytes = sizeof m;
        for (unsigned changes = (unsigned)(next_random(&random) % 3); changes > 0; changes--) {
            const uint64_t where = next_random(&random) % sizeof m;
            ((uint8_t *)&m)[where] = (uint8_t)(next_random(&random) % 8);
        }
        if (next_random(&random) % 4 == 0) bytes += m.data_bytes = (uint32_t)(next_random(&random) % 5000);
        const unsigned fds = (unsigned)(next_random(&random) % 6);
        if (message_fault(&m, bytes, fds) != NULL) continue;
        taken++;
        check(m.data_bytes <= VSMP_KEEPER_DATA_MAX && bytes == sizeof m + m.data_bytes, "length (seed %lu)", seed);
        check(m.type >= VSMP_KEEPER_HOLD && m.type <= VSMP_KEEPER_KILL, "type (seed %lu)", seed);
        check(m.fd_count <= VSMP_KEEPER_FDS_MAX && fds <= m.fd_count, "descriptors (seed %lu)", seed);
        check(m.type == VSMP_KEEPER_HOLD ? m.key != 0 && m.kind >= 1 && m.kind <= 3 && m.fd_count > 0
                                         : m.kind == 0 && m.fd_count == 0,
              "hold (seed %lu)", seed);
    }
    check(taken > 10000, "many pass: %u", taken);
    done(__func__);
}

static void The_table_agrees_with_a_model(void) {
    enum { KEYS = 300 };
    static uint8_t model[KEYS]; // kind
    uint64_t random = seed;
    unsigned counts[4] = {0};
    for (unsigned round = 0; round < 200000; round++) {
        const unsigned index = (unsigned)(next_random(&random) % KEYS);
        const uint64_t key = ((uint64_t)index << 40) | 1;
        struct hold *hold = hold_find(key);
        check((hold != NULL) == (model[index] != 0), "key %lu (seed %lu)", key, seed);
        if (hold == NULL) {
            model[index] = (uint8_t)(1 + next_random(&random) % 3);
            hold = hold_add(key, (enum vsmp_keeper_kind)model[index]);
            check(hold != NULL, "room (seed %lu)", seed);
            hold->data_bytes = sizeof key;
            memcpy(hold_data(hold), &key, sizeof key);
            counts[model[index]]++;
        } else {
            check(hold->kind == model[index] && memcmp(hold_data(hold), &key, sizeof key) == 0, "what it was (seed %lu)", seed);
            check(hold_at(hold_slot(hold)) == hold, "its slot (seed %lu)", seed);
            counts[model[index]]--;
            model[index] = 0;
            hold_remove(hold);
        }
        for (unsigned kind = 1; kind <= 3; kind++)
            check(holds_count((enum vsmp_keeper_kind)kind) == counts[kind], "count of kind %u (seed %lu)", kind, seed);
        if (round % 500 != 0) continue;
        for (uint32_t i = 0; i < counts[VSMP_KEEPER_KIND_GUEST]; i++)
            check(guest_at(i)->kind == VSMP_KEEPER_KIND_GUEST && guest_at(i)->guest_index == i && guest_at(i)->key != 0,
                  "guest %u (seed %lu)", i, seed);
        unsigned all = 0;
        for (uint32_t slot = 0; slot < hold_slots(); slot++) all += hold_at(slot) != NULL;
        check(all == counts[1] + counts[2] + counts[3], "all slots (seed %lu)", seed);
    }
    for (uint32_t slot = 0; slot < hold_slots(); slot++)
        if (hold_at(slot) != NULL) hold_remove(hold_at(slot));
    done(__func__);
}

static void A_full_table_refuses_one_more(void) {
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t key = 1; key <= VSMP_KEEPER_HOLDS_MAX; key++)
            check(hold_add(key, VSMP_KEEPER_KIND_GUEST) != NULL, "hold %lu", key);
        check(hold_add(VSMP_KEEPER_HOLDS_MAX + 1, VSMP_KEEPER_KIND_OTHER) == NULL, "one more");
        for (uint64_t key = 1; key <= VSMP_KEEPER_HOLDS_MAX; key++) hold_remove(hold_find(key));
        check(holds_count(VSMP_KEEPER_KIND_GUEST) == 0, "all are removed");
    }
    done(__func__);
}

static void *spin(void *argument) {
    for (;;) sched_yield();
    return argument;
}

static void wait_until(bool (*is_it)(int), int argument, const char *what) {
    const time_t until = time(NULL) + 30;
    while (!is_it(argument)) {
        check(time(NULL) < until, "%s", what);
        usleep(1000);
    }
}

static void A_process_is_known_by_its_descriptor(void) {
    int pid, proc;
    const int event = eventfd(0, EFD_CLOEXEC);
    check(process_open(event, &pid, &proc) == EBADF && process_open(999, &pid, &proc) == ENOENT, "no pidfd");
    const pid_t child = fork();
    if (child == 0) {
        // Named so that a careless reader of /proc takes it for stopped; its first thread ends before the others.
        const int comm = open("/proc/self/comm", O_WRONLY);
        check(write(comm, "a) T 1 (", 8) == 8, "comm");
        pthread_t thread;
        check(pthread_create(&thread, NULL, spin, NULL) == 0, "pthread_create");
        pthread_exit(NULL);
    }
    const int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    check(process_open(pidfd, &pid, &proc) == 0 && pid == child, "a process");
    usleep(20000); // it has its other name by then, or soon: what follows holds in any case
    check(!process_is_gone(pidfd) && !process_is_stopped(proc) && !process_is_still(proc), "it runs");
    check(process_signal(pidfd, SIGSTOP) == 0, "SIGSTOP");
    wait_until(process_is_still, proc, "it stops");
    check(process_is_stopped(proc), "it is stopped");
    check(process_signal(pidfd, SIGCONT) == 0 && !process_is_still(proc), "it runs again");
    check(process_signal(pidfd, SIGKILL) == 0, "SIGKILL");
    wait_until(process_is_gone, pidfd, "it ends");
    wait_until(process_is_still, proc, "it is still then");
    check(waitpid(child, NULL, 0) == child && process_is_still(proc), "also when nothing is left of it");
    check(process_open(pidfd, &pid, &proc) == ESRCH && process_signal(pidfd, SIGSTOP) == ESRCH, "it is dead");
    close(proc);
    close(pidfd);
    close(event);
    done(__func__);
}

int main(int argc, char **argv) {
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
    printf("unit-keeper: seed %lu\n", seed);
    check(holds_start(), "memory");
    Sound_messages_are_taken_and_any_single_change_that_has_no_meaning_is_not();
    Whatever_passes_is_within_bounds();
    The_table_agrees_with_a_model();
    A_full_table_refuses_one_more();
    A_process_is_known_by_its_descriptor();
    printf("%u passed\n", passed_count);
    return 0;
}
