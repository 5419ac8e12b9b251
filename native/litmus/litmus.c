// SPDX-License-Identifier: Apache-2.0
//
// vsmp-litmus SEED [control] < PLAN
//
// Runs litmus tests on pooled memory, one rank per thread of a test, and counts their outcomes. Which outcomes a memory model
// allows is not known here: vsmp-bench computes that, and writes the plan, which rank 0 reads. A line of the plan is one test:
//
//     NAME LAYOUT KIND RUNS THREADS        SB two mfence 20000 Wx1;Ry|Wy1;Rx
//
// LAYOUT: `one` (all variables on one page), `two` (each on a page of its own), `crossing` (each spans the boundary of two pages).
// KIND: `plain`; `mfence` (one between a thread's accesses); `xchg` (stores are locked exchanges); `rmw` (loads are locked, too).
// THREADS: of at most two accesses; W variable value, R variable. Rank 0 prints a line of JSON per test:
//
//     {"name":"SB","layout":"two","kind":"mfence","runs":20000,"microseconds":1,"outcomes":{"00 11;11 11":57,…}}
//
// or "unsupported" with the reason instead of the outcomes. An outcome is what the loads read, in order of the threads, then the variables' last values (x, y, z); of each the digits of the
// upper and the lower four bytes. Programs store a value into both halves, so other than in `crossing plain` they must agree.
//
// As in litmus7, instances of a test lie side by side and are gone through in a batch, and all ranks wait for each other only
// between batches. Two things bring their accesses together: ranks pace themselves by the time stamp counter (each instance has
// its moment; this needs ranks on one host, elsewhere they just do not meet as often), and threads dawdle at random between their
// two accesses, so that a page can leave in between.
//
// With `control` every rank reads from a private copy of the region, which it refreshes page by page now and then: memory that
// is not coherent, for showing that a violation would be seen.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "common.h"

enum { MAX_THREADS = 4, MAX_VARIABLES = 3, MAX_ACCESSES = 2, MAX_LOADS = 4 };
enum { NEAR_INSTANCES = 256, CROSSING_INSTANCES = 24, SLOTS_PER_PAGE = 16 };

enum layout { ONE, TWO, CROSSING, LAYOUTS };
enum kind { PLAIN, MFENCE, XCHG, RMW, KINDS };
static const char *const layout_names[LAYOUTS] = {"one", "two", "crossing"};
static const char *const kind_names[KINDS] = {"plain", "mfence", "xchg", "rmw"};

struct access {
    bool is_store;
    int variable;
    uint64_t value; // of a store, in both halves
};

struct thread {
    int accesses;
    struct access access[MAX_ACCESSES];
};

struct test {
    char name[32];
    enum layout layout;
    enum kind kind;
    uint64_t runs;
    int threads, variables, loads;
    struct thread thread[MAX_THREADS];
};

// Two loads' results, or those of a thread that stores: 0.
struct result {
    uint8_t load[MAX_ACCESSES];
};

typedef volatile uint64_t word;

static struct {
    char *region;
    char *base; // of the half in use
    char *copy; // in control: what this rank reads; otherwise the half
    bool is_control;
    uint64_t random; // of this rank
    uint64_t plan_random; // the same in all ranks
    double cycles_per_us;
} state;

// ---- the accesses themselves

static inline __attribute__((always_inline)) void store(word *at, uint64_t value, enum kind kind) {
    if (kind == XCHG || kind == RMW) {
        __asm__ volatile("xchgq %0, %1" : "+r"(value), "+m"(*at) : : "memory");
    } else {
        __asm__ volatile("movq %1, %0" : "=m"(*at) : "r"(value) : "memory");
    }
}

static inline __attribute__((always_inline)) uint64_t load(word *at, enum kind kind) {
    uint64_t value = 0;
    if (kind == RMW) {
        __asm__ volatile("lock xaddq %0, %1" : "+r"(value), "+m"(*at) : : "memory");
    } else {
        __asm__ volatile("movq %1, %0" : "=r"(value) : "m"(*at) : "memory");
    }
    return value;
}

static inline uint8_t digits(uint64_t value) {
    const uint32_t low = (uint32_t)value, high = (uint32_t)(value >> 32);
    return (uint8_t)((high > 14 ? 15 : high) << 4 | (low > 14 ? 15 : low));
}

// Lets others run meanwhile: with fewer processors than threads, the one that this thread is to meet may be waiting for this one.
static inline void dawdle(uint64_t cycles) {
    const uint64_t start = __rdtsc();
    while (__rdtsc() - start < cycles) sched_yield();
}

// One thread's part of one instance. Compiled per kind and form, so that nothing but the gap stands between the accesses.
static inline __attribute__((always_inline)) struct result pair(word *first, bool first_stores, uint64_t first_value,
                                                                word *second, bool second_stores, uint64_t second_value,
                                                                uint64_t gap_cycles, enum kind kind) {
    uint64_t a = 0, b = 0;
    if (first_stores)
        store(first, first_value, kind);
    else
        a = load(first, kind);
    if (gap_cycles != 0) dawdle(gap_cycles);
    if (kind == MFENCE) __asm__ volatile("mfence" : : : "memory");
    if (second_stores)
        store(second, second_value, kind);
    else
        b = load(second, kind);
    return (struct result){{digits(a), digits(b)}};
}

typedef struct result (*pair_function)(word *, uint64_t, word *, uint64_t, uint64_t);

#define PAIR(name, first_stores, second_stores, kind)                                                                            \
    static __attribute__((noinline)) struct result name(word *first, uint64_t first_value, word *second, uint64_t second_value,  \
                                                        uint64_t gap_cycles) {                                                   \
        return gap_cycles == 0 ? pair(first, first_stores, first_value, second, second_stores, second_value, 0, kind)            \
                               : pair(first, first_stores, first_value, second, second_stores, second_value, gap_cycles, kind);  \
    }
#define PAIRS(kind)                                                                                                              \
    PAIR(load_load_##kind, false, false, kind)                                                                                   \
    PAIR(load_store_##kind, false, true, kind)                                                                                   \
    PAIR(store_load_##kind, true, false, kind)                                                                                   \
    PAIR(store_store_##kind, true, true, kind)
PAIRS(PLAIN)
PAIRS(MFENCE)
PAIRS(XCHG)
PAIRS(RMW)

#define FORMS(kind)                                                                                                              \
    {                                                                                                                            \
        {load_load_##kind, load_store_##kind}, { store_load_##kind, store_store_##kind }                                         \
    }
static const pair_function pairs[KINDS][2][2] = {FORMS(PLAIN), FORMS(MFENCE), FORMS(XCHG), FORMS(RMW)};

static struct result single(word *at, const struct access *access, enum kind kind) {
    struct result result = {{0, 0}};
    if (access->is_store) {
        if (kind == XCHG || kind == RMW)
            store(at, access->value, XCHG);
        else
            store(at, access->value, PLAIN);
    } else {
        result.load[0] = digits(kind == RMW ? load(at, RMW) : load(at, PLAIN));
    }
    return result;
}

// ---- where variables lie

static uint64_t instances_of(enum layout layout) { return layout == CROSSING ? CROSSING_INSTANCES : NEAR_INSTANCES; }

// Bytes from the start of a half.
static size_t offset_of(enum layout layout, uint64_t instance, int variable) {
    const size_t slot_bytes = PAGE_BYTES / SLOTS_PER_PAGE;
    const size_t slot = instance % SLOTS_PER_PAGE * slot_bytes, page = instance / SLOTS_PER_PAGE;
    switch (layout) {
    case ONE:
        return page * PAGE_BYTES + slot + (size_t)variable * CACHE_LINE_BYTES;
    case TWO:
        return (page * MAX_VARIABLES + (size_t)variable) * PAGE_BYTES + slot;
    default: // four bytes on either side of a boundary, every boundary between two pages of its own
        return (instance * MAX_VARIABLES + (size_t)variable) * 2 * PAGE_BYTES + PAGE_BYTES - 4;
    }
}

// The region has two halves, for batches in turn: one can be made ready while the other's last values are read.
static size_t half_bytes(void) { return CROSSING_INSTANCES * MAX_VARIABLES * 2 * PAGE_BYTES; }

static word *variable_of(char *memory, enum layout layout, uint64_t instance, int variable) {
    return (word *)(memory + offset_of(layout, instance, variable));
}

// ---- the plan

static void parse_access(const char *line, const char *text, struct test *test, struct thread *thread) {
    if (thread->accesses == MAX_ACCESSES) fail(EXIT_USAGE, "plan: more than %d accesses in a thread: %s", MAX_ACCESSES, line);
    struct access *access = &thread->access[thread->accesses++];
    access->is_store = text[0] == 'W';
    const bool is_load = text[0] == 'R', has_variable = text[0] != '\0' && text[1] >= 'x' && text[1] <= 'z';
    const bool has_value = has_variable && text[2] >= '1' && text[2] <= '9';
    if (!has_variable || !(access->is_store ? has_value && text[3] == '\0' : is_load && text[2] == '\0')) {
        fail(EXIT_USAGE, "plan: '%s' is no access (Wx1, Rx): %s", text, line);
    }
    access->variable = text[1] - 'x';
    if (access->is_store)
        access->value = (uint64_t)(text[2] - '0') * 0x100000001ull;
    else
        test->loads++;
    if (access->variable >= test->variables) test->variables = access->variable + 1;
}

static int name_in(const char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) return i;
    }
    return -1;
}

static struct test parse_test(const char *line) {
    struct test test = {0};
    char layout[16], kind[16], threads[128];
    if (sscanf(line, "%31s %15s %15s %" SCNu64 " %127s", test.name, layout, kind, &test.runs, threads) != 5) {
        fail(EXIT_USAGE, "plan: not 'NAME LAYOUT KIND RUNS THREADS': %s", line);
    }
    const int layout_index = name_in(layout_names, LAYOUTS, layout), kind_index = name_in(kind_names, KINDS, kind);
    if (layout_index < 0 || kind_index < 0) fail(EXIT_USAGE, "plan: unknown layout or kind: %s", line);
    test.layout = (enum layout)layout_index;
    test.kind = (enum kind)kind_index;
    char *rest_of_threads, *rest_of_accesses;
    for (char *thread = strtok_r(threads, "|", &rest_of_threads); thread != NULL;
         thread = strtok_r(NULL, "|", &rest_of_threads)) {
        if (test.threads == MAX_THREADS) fail(EXIT_USAGE, "plan: more than %d threads: %s", MAX_THREADS, line);
        struct thread *parsed = &test.thread[test.threads++];
        for (char *access = strtok_r(thread, ";", &rest_of_accesses); access != NULL;
             access = strtok_r(NULL, ";", &rest_of_accesses)) {
            parse_access(line, access, &test, parsed);
        }
    }
    if (test.threads > vsmp_size())
        fail(EXIT_USAGE, "%d ranks are too few for the %d threads of: %s", vsmp_size(), test.threads, line);
    if (test.loads > MAX_LOADS) fail(EXIT_USAGE, "plan: more than %d loads: %s", MAX_LOADS, line);
    return test;
}

// ---- a batch

// What all ranks decide alike for a batch.
struct batch {
    int rank_of_thread[MAX_THREADS];
    int resetter;
    bool is_paced;
    uint64_t pace_cycles; // from one instance to the next
    uint64_t gap_cycles; // at most, between a thread's two accesses
    bool starts_shared; // everybody reads everything first
};

static struct batch choose_batch(const struct test *test) {
    uint64_t *random = &state.plan_random;
    struct batch batch = {0};
    int ranks[256];
    const int size = vsmp_size() < 256 ? vsmp_size() : 256;
    for (int i = 0; i < size; i++) ranks[i] = i;
    for (int i = 0; i < test->threads; i++) {
        const int pick = i + (int)random_below(random, (uint64_t)(size - i));
        batch.rank_of_thread[i] = ranks[pick];
        ranks[pick] = ranks[i];
    }
    batch.resetter = (int)random_below(random, (uint64_t)size);
    batch.is_paced = random_below(random, 8) != 0;
    const uint64_t most_us = test->layout == CROSSING ? 400 : 10;
    batch.pace_cycles = (uint64_t)((double)random_below(random, most_us) * state.cycles_per_us);
    batch.gap_cycles = (uint64_t)((double)(1 + random_below(random, 60)) * state.cycles_per_us);
    batch.starts_shared = random_below(random, 3) == 0;
    return batch;
}

// Sleeps when there is time: agents need the processors, too.
static void wait_until(uint64_t moment) {
    const double close_us = 15;
    for (uint64_t now = __rdtsc(); (int64_t)(moment - now) > 0; now = __rdtsc()) {
        const double left_us = (double)(moment - now) / state.cycles_per_us;
        if (left_us > close_us) {
            const struct timespec time = {0, (long)((left_us - close_us) * 1000)};
            clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
        } else {
            _mm_pause();
        }
    }
}

// In control: a page of the private copy becomes current.
static void refresh(size_t offset) {
    const size_t page = offset / PAGE_BYTES * PAGE_BYTES;
    memcpy(state.copy + page, state.base + page, PAGE_BYTES);
}

static struct result run_instance(const struct test *test, const struct thread *thread, uint64_t instance, uint64_t gap_cycles) {
    word *at[MAX_ACCESSES];
    for (int i = 0; i < thread->accesses; i++) {
        const struct access *access = &thread->access[i];
        if (state.is_control && !access->is_store && next_random(&state.random) % 4 == 0) {
            refresh(offset_of(test->layout, instance, access->variable));
        }
        at[i] = variable_of(access->is_store ? state.base : state.copy, test->layout, instance, access->variable);
    }
    if (thread->accesses == 1) return single(at[0], &thread->access[0], test->kind);
    const struct access *first = &thread->access[0], *second = &thread->access[1];
    return pairs[test->kind][first->is_store][second->is_store](at[0], first->value, at[1], second->value, gap_cycles);
}

static void run_batch(const struct test *test, const struct thread *thread, const struct batch *batch, uint64_t count,
                      struct result *results) {
    uint64_t *random = &state.random;
    // Ranks leave the barrier at different moments; the time stamp counter's next round number is the same for all.
    const uint64_t round_bits = 20;
    const uint64_t start = ((__rdtsc() >> round_bits) + 2) << round_bits;
    for (uint64_t i = 0; i < count; i++) {
        if (batch->is_paced) {
            const uint64_t skew = next_random(random) % 2 == 0 ? 0 : random_below(random, batch->pace_cycles + 1);
            wait_until(start + i * batch->pace_cycles + skew);
        }
        const uint64_t gap = next_random(random) % 4 != 0 ? 0 : random_below(random, batch->gap_cycles);
        results[i] = run_instance(test, thread, i, gap);
    }
}

static void reset(const struct test *test, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        for (int v = 0; v < test->variables; v++) *variable_of(state.base, test->layout, i, v) = 0;
    }
}

// ---- counting

struct outcome {
    uint8_t value[MAX_LOADS + MAX_VARIABLES];
    uint64_t count;
};

static int compare_values(const void *a, const void *b) {
    return memcmp(((const struct outcome *)a)->value, ((const struct outcome *)b)->value, MAX_LOADS + MAX_VARIABLES);
}

static void print_outcomes(const struct test *test, struct outcome *all, uint64_t microseconds) {
    qsort(all, test->runs, sizeof *all, compare_values);
    printf("{\"name\":\"%s\",\"layout\":\"%s\",\"kind\":\"%s\",\"runs\":%" PRIu64 ",\"microseconds\":%" PRIu64 ",\"outcomes\":{",
           test->name, layout_names[test->layout], kind_names[test->kind], test->runs, microseconds);
    for (uint64_t i = 0, next; i < test->runs; i = next) {
        for (next = i + 1; next < test->runs && compare_values(&all[i], &all[next]) == 0;) next++;
        printf("%s\"", i == 0 ? "" : ",");
        for (int r = 0; r < test->loads; r++) printf("%s%02x", r == 0 ? "" : " ", all[i].value[r]);
        for (int v = 0; v < test->variables; v++) printf("%c%02x", v == 0 ? ';' : ' ', all[i].value[MAX_LOADS + v]);
        printf("\":%" PRIu64, next - i);
    }
    printf("}}\n");
    fflush(stdout);
}

// Every rank's results go to rank 0 in messages, not through pooled memory: what is under test shall not carry the verdict.
static void gather(void *bytes, size_t count, int root) {
    const size_t most = 64 << 10;
    for (size_t done = 0; done < count; done += most) {
        must(vsmp_broadcast((char *)bytes + done, count - done < most ? count - done : most, root), "vsmp_broadcast");
    }
}

static void run_test(const struct test *test) {
    const uint64_t started = nanoseconds();
    struct result *mine = calloc(test->runs, sizeof *mine), *theirs = calloc(test->runs, sizeof *theirs);
    struct outcome *all = calloc(test->runs, sizeof *all);
    if (mine == NULL || theirs == NULL || all == NULL) fail(EXIT_UNABLE, "no memory for %s", test->name);
    const uint64_t per_batch = instances_of(test->layout), random_of_plan = state.plan_random;
    const int rank = vsmp_rank();

    uint64_t batches = 0;
    for (uint64_t done = 0, count; done < test->runs; done += count, batches++) {
        count = test->runs - done < per_batch ? test->runs - done : per_batch;
        const struct batch batch = choose_batch(test);
        state.base = state.region + batches % 2 * half_bytes();
        if (!state.is_control) state.copy = state.base;
        if (rank == batch.resetter) reset(test, count);
        barrier();
        int thread = -1;
        for (int t = 0; t < test->threads; t++) {
            if (batch.rank_of_thread[t] == rank) thread = t;
        }
        if (state.is_control) memset(state.copy, 0, half_bytes());
        if (batch.starts_shared && thread >= 0) {
            for (uint64_t i = 0; i < count; i++) {
                for (int v = 0; v < test->variables; v++) (void)load(variable_of(state.base, test->layout, i, v), PLAIN);
            }
        }
        if (batch.starts_shared) barrier();
        if (thread >= 0) run_batch(test, &test->thread[thread], &batch, count, &mine[done]);
        barrier();
        if (rank == 0) {
            for (uint64_t i = 0; i < count; i++) {
                for (int v = 0; v < test->variables; v++) {
                    all[done + i].value[MAX_LOADS + v] = digits(*variable_of(state.base, test->layout, i, v));
                }
            }
        }
    }

    for (int root = 0; root < vsmp_size(); root++) {
        memcpy(theirs, mine, test->runs * sizeof *mine);
        gather(theirs, test->runs * sizeof *theirs, root);
        if (rank != 0) continue;
        state.plan_random = random_of_plan; // which thread that rank was, in every batch
        for (uint64_t done = 0; done < test->runs; done += per_batch) {
            const struct batch batch = choose_batch(test);
            int first_load = 0;
            for (int t = 0; t < test->threads; t++) {
                for (uint64_t i = done; i < test->runs && i < done + per_batch; i++) {
                    int load_number = first_load;
                    for (int a = 0; a < test->thread[t].accesses; a++) {
                        if (test->thread[t].access[a].is_store) continue;
                        if (batch.rank_of_thread[t] == root) all[i].value[load_number] = theirs[i].load[a];
                        load_number++;
                    }
                }
                for (int a = 0; a < test->thread[t].accesses; a++) first_load += !test->thread[t].access[a].is_store;
            }
        }
    }
    if (rank == 0) print_outcomes(test, all, (nanoseconds() - started) / 1000);
    free(mine);
    free(theirs);
    free(all);
}

// ---- what this machine can do

static sigjmp_buf locked_failed;

static void on_bus_error(int signal) {
    (void)signal;
    siglongjmp(locked_failed, 1);
}

// A locked instruction that spans two cache lines: some kernels end programs for it (split_lock_detect=fatal).
static bool can_lock_across_lines(void) {
    static _Alignas(CACHE_LINE_BYTES) char lines[2 * CACHE_LINE_BYTES];
    struct sigaction action = {.sa_handler = on_bus_error}, before;
    sigaction(SIGBUS, &action, &before);
    volatile bool can = false;
    if (sigsetjmp(locked_failed, 1) == 0) {
        (void)load((word *)(lines + CACHE_LINE_BYTES - 4), RMW);
        can = true;
    }
    sigaction(SIGBUS, &before, NULL);
    return can;
}

static void print_unsupported(const struct test *test, const char *why) {
    printf("{\"name\":\"%s\",\"layout\":\"%s\",\"kind\":\"%s\",\"unsupported\":\"%s\"}\n", test->name, layout_names[test->layout],
           kind_names[test->kind], why);
    fflush(stdout);
}

static double measure_cycles_per_us(void) {
    const uint64_t start = nanoseconds(), cycles = __rdtsc();
    while (nanoseconds() - start < 2000000) continue;
    return (double)(__rdtsc() - cycles) * 1000.0 / (double)(nanoseconds() - start);
}

// Rank 0's next line, in all ranks; false at the end.
static bool next_line(char *line, size_t bytes) {
    if (vsmp_rank() == 0 && fgets(line, (int)bytes, stdin) == NULL) line[0] = '\0';
    must(vsmp_broadcast(line, bytes, 0), "vsmp_broadcast");
    return line[0] != '\0';
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "control") != 0)) {
        fprintf(stderr, "usage: vsmp-litmus SEED [control] < PLAN\n");
        return EXIT_USAGE;
    }
    const uint64_t seed = number("SEED", argv[1], 0, UINT64_MAX);
    must(vsmp_start(), "vsmp_start");
    struct vsmp_region *region;
    must(vsmp_attach(NULL, 2 * half_bytes(), &region), "vsmp_attach");
    state.region = vsmp_base(region);
    state.is_control = argc == 3;
    if (state.is_control) {
        state.copy = mmap(NULL, half_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (state.copy == MAP_FAILED) fail(EXIT_UNABLE, "mmap: %s", strerror(errno));
    }
    prctl(PR_SET_TIMERSLACK, 1000); // nanoseconds: short sleeps are to be short
    state.plan_random = seed;
    state.random = seed + 1000003ull * (uint64_t)(vsmp_rank() + 1);
    state.cycles_per_us = measure_cycles_per_us();
    double cycles = state.cycles_per_us; // one rank's measurement for all, since they pace themselves by it
    must(vsmp_broadcast(&cycles, sizeof cycles, 0), "vsmp_broadcast");
    state.cycles_per_us = cycles;

    // All ranks go by the first one's answer, so that all skip the same tests.
    bool can_lock = can_lock_across_lines();
    must(vsmp_broadcast(&can_lock, sizeof can_lock, 0), "vsmp_broadcast");
    char line[512];
    while (next_line(line, sizeof line)) {
        if (line[0] == '\n' || line[0] == '#') continue;
        const struct test test = parse_test(line);
        if (test.layout == CROSSING && test.kind >= XCHG && !can_lock) {
            if (vsmp_rank() == 0) print_unsupported(&test, "the kernel does not let locked instructions span cache lines");
            continue;
        }
        run_test(&test);
    }
    must(vsmp_finish(), "vsmp_finish");
    return 0;
}
