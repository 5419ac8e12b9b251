// SPDX-License-Identifier: Apache-2.0
//
// vsmp-fault PAGES HOME:STEPS…
//
// Takes pages through steps, one page after the other, and times the last step, which is rank 0's. A step is r or w and the rank that
// reads or writes: 1:w2r0 has rank 2 write pages whose home is the node of rank 1, then rank 0 read them. Each rank is on a node of its
// own, and each HOME:STEPS has pages of its own. Pages are taken backwards, so that nobody reads ahead; with a > at the end in order.
//
// Before and after what is timed, when all other ranks wait in a barrier, rank 0 prints a line and waits for one: time for who
// started it to read the agents' counters.
//     begin
//     at NANOSECONDS…      when each page was touched (CLOCK_MONOTONIC)
//     end NANOSECONDS…     how long that took
#include "common.h"
#include "pin.h"

#define PAGES_PER_EXTENT (EXTENT_BYTES / PAGE_BYTES)

enum { MAX_STEPS = 16 };

struct step {
    bool is_write;
    int rank;
};

struct transition {
    int home;
    bool is_in_order;
    int step_count;
    struct step steps[MAX_STEPS];
};

struct pages {
    char *base;
    uint64_t count, extents_each;
};

static struct transition parse(const char *text) {
    struct transition transition = {0};
    char *at;
    transition.home = (int)strtol(text, &at, 10);
    bool is_right = at > text && *at++ == ':' && transition.home >= 0 && transition.home < vsmp_size();
    while (is_right && *at != '\0') {
        if (strcmp(at, ">") == 0) {
            transition.is_in_order = true;
            break;
        }
        struct step step = {.is_write = *at == 'w'};
        char *end;
        is_right = (*at == 'r' || *at == 'w') && transition.step_count < MAX_STEPS;
        step.rank = (int)strtol(at + 1, &end, 10);
        is_right = is_right && end > at + 1 && step.rank >= 0 && step.rank < vsmp_size();
        at = end;
        if (is_right) transition.steps[transition.step_count++] = step;
    }
    if (!is_right || transition.step_count == 0 || transition.steps[transition.step_count - 1].rank != 0) {
        fail(EXIT_USAGE, "'%s' is no HOME:STEPS that ends with rank 0, for %d ranks", text, vsmp_size());
    }
    return transition;
}

// The pages of a transition. Homes of extents go round the ranks, since every node has as much memory.
static volatile uint64_t *page_at(const struct pages *pages, int number, const struct transition *transition, uint64_t index) {
    const uint64_t round = (uint64_t)number * pages->extents_each + index / PAGES_PER_EXTENT;
    const uint64_t extent = round * (uint64_t)vsmp_size() + (uint64_t)transition->home;
    const uint64_t in_order = index % PAGES_PER_EXTENT,
                   page = transition->is_in_order ? in_order : PAGES_PER_EXTENT - 1 - in_order;
    return (volatile uint64_t *)(pages->base + extent * EXTENT_BYTES + page * PAGE_BYTES);
}

static void touch(volatile uint64_t *page, bool is_write) {
    if (is_write)
        *page = (uint64_t)vsmp_rank() + 1;
    else
        (void)*page;
}

// The other side has read the counters.
static void await_go(void) {
    fflush(stdout);
    char line[16];
    if (fgets(line, sizeof line, stdin) == NULL) fail(EXIT_UNABLE, "standard input has ended");
}

static void print(const char *word, const uint64_t *numbers, uint64_t count) {
    printf("%s", word);
    for (uint64_t i = 0; i < count; i++) printf(" %" PRIu64, numbers[i]);
    printf("\n");
}

static void run(const struct pages *pages, int number, const struct transition *transition, uint64_t *at, uint64_t *took) {
    const int last = transition->step_count - 1;
    for (int s = 0; s < last; s++) {
        const struct step *step = &transition->steps[s];
        for (uint64_t i = 0; i < pages->count && step->rank == vsmp_rank(); i++) {
            touch(page_at(pages, number, transition, i), step->is_write);
        }
        barrier();
    }
    if (vsmp_rank() == 0) {
        printf("begin\n");
        await_go();
        for (uint64_t i = 0; i < pages->count; i++) {
            volatile uint64_t *page = page_at(pages, number, transition, i);
            at[i] = nanoseconds();
            touch(page, transition->steps[last].is_write);
            took[i] = nanoseconds() - at[i];
        }
        print("at", at, pages->count);
        print("end", took, pages->count);
        await_go();
    }
    barrier();
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: vsmp-fault PAGES HOME:STEPS...\n");
        return EXIT_USAGE;
    }
    const int count = argc - 2;
    struct pages pages = {.count = number("PAGES", argv[1], 1, 1 << 20)};
    pages.extents_each = (pages.count + PAGES_PER_EXTENT - 1) / PAGES_PER_EXTENT;
    struct transition *transitions = calloc((size_t)count, sizeof *transitions);
    uint64_t *at = calloc(pages.count, sizeof *at), *took = calloc(pages.count, sizeof *took);
    if (transitions == NULL || at == NULL || took == NULL) fail(EXIT_UNABLE, "no memory");
    for (int i = 0; i < count; i++) transitions[i] = parse(argv[2 + i]);
    must(vsmp_start(), "vsmp_start");
    pin(vsmp_rank());
    struct vsmp_region *region;
    must(vsmp_attach(NULL, (size_t)count * pages.extents_each * (size_t)vsmp_size() * EXTENT_BYTES, &region), "vsmp_attach");
    pages.base = vsmp_base(region);
    for (int i = 0; i < count; i++) run(&pages, i, &transitions[i], at, took);
    must(vsmp_finish(), "vsmp_finish");
    free(took);
    free(at);
    free(transitions);
    return 0;
}
