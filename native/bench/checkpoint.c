// SPDX-License-Identifier: Apache-2.0
//
// vsmp-checkpoint dirty MEBIBYTES PERCENT GENERATIONS REST-MILLISECONDS
// vsmp-checkpoint work MEBIBYTES PERCENT STEPS UNITS
// vsmp-checkpoint read MEBIBYTES
// vsmp-checkpoint leave MEBIBYTES
//
// Shared memory of which ranks write PERCENT of the pages, evenly spread, a word of each; every rank has a share of them.
//
// `dirty`: until there are that many generations, all write their pages, then call vsmp_checkpoint, then write the same pages again, twice: while they are
// being copied, and right afterwards; then rest. Each rank prints `generation G CALL FIRST AGAIN`, in nanoseconds.
//
// `work`: STEPS times all write their pages, compute UNITS times a thousand random numbers, and call vsmp_checkpoint; after a restart they go on with the
// step that comes next. Rank 0 prints `begin STEP NANOSECONDS` when it computes, by the clock that all processes have, `generation G CALL`, and at the end
// `end NANOSECONDS` and `checksum C`: of all steps, so that it differs if one is lost or done twice.
//
// `read`: a job that `dirty` has begun goes on, and ends. Rank 0 prints `restored ATTACH READ`: what attaching the region took, and reading a word of each page then.
//
// `leave`: as `dirty`, all pages, two generations; then all ranks end as if they had failed.
#include "common.h"

#include <unistd.h>

enum { WORDS = PAGE_BYTES / sizeof(uint64_t), COUNTER = 1, RETRY_MICROSECONDS = 20000, MAX_RETRIES = 30000 };

struct state {
    uint64_t *pages;
    uint64_t step; // the next
};

static uint64_t page_count, percent;
static struct state *state;
static struct vsmp_region *region;

// Writes those of this rank.
static void write_pages(uint64_t what) {
    const uint64_t rank = (uint64_t)vsmp_rank(), ranks = (uint64_t)vsmp_size();
    const uint64_t first = page_count * rank / ranks, behind = page_count * (rank + 1) / ranks;
    for (uint64_t page = first; page < behind; page++) {
        if (page * percent / 100 != (page + 1) * percent / 100) state->pages[page * WORDS] = what;
    }
}

// Returns how long the region took to attach.
static uint64_t begin(uint64_t mebibytes) {
    must(vsmp_start(), "vsmp_start");
    const uint64_t since = nanoseconds();
    must(vsmp_attach("checkpoint", (mebibytes << 20) + EXTENT_BYTES, &region), "vsmp_attach");
    const uint64_t took = nanoseconds() - since;
    page_count = (mebibytes << 20) / PAGE_BYTES;
    state = vsmp_base(region);
    if (vsmp_restored() > 0) return took;
    if (vsmp_alloc_all(region, sizeof *state, 0) != state) fail(EXIT_UNABLE, "vsmp_alloc_all: %s", vsmp_error());
    uint64_t *pages = vsmp_alloc_all(region, mebibytes << 20, PAGE_BYTES);
    if (pages == NULL) fail(EXIT_UNABLE, "vsmp_alloc_all: %s", vsmp_error());
    if (vsmp_rank() == 0) state->pages = pages;
    barrier();
    return took;
}

static void run_read(uint64_t attached) {
    const uint64_t since = nanoseconds();
    uint64_t wrong = 0;
    for (uint64_t page = (uint64_t)vsmp_rank(); page < page_count; page += (uint64_t)vsmp_size())
        wrong += state->pages[page * WORDS] == 0;
    if (wrong > 0) fail(EXIT_WRONG, "%" PRIu64 " pages are not restored", wrong);
    barrier();
    if (vsmp_rank() == 0) printf("restored %" PRIu64 " %" PRIu64 "\n", attached, nanoseconds() - since);
}

static void run_dirty(uint64_t generations, useconds_t rest) {
    const uint64_t share = percent;
    percent = 100; // the first generation has all pages
    for (uint64_t taken = 0; taken < generations; taken++) {
        write_pages(taken + 1);
        uint64_t generation = 0, since = 0, call = 0;
        for (int tries = 0; generation == 0; tries++) {
            if (tries > 0) usleep(RETRY_MICROSECONDS); // the one before is being stored
            if (tries > MAX_RETRIES) fail(EXIT_UNABLE, "no checkpoint is taken");
            barrier();
            since = nanoseconds();
            must(vsmp_checkpoint(&generation), "vsmp_checkpoint");
            call = nanoseconds() - since;
        }
        percent = share;
        since = nanoseconds();
        write_pages(taken + 1);
        const uint64_t first = nanoseconds() - since;
        since = nanoseconds();
        write_pages(taken + 1);
        const uint64_t again = nanoseconds() - since;
        printf("generation %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", generation, call, first, again);
        fflush(stdout);
        usleep(rest);
    }
}

static void run_work(uint64_t steps, uint64_t units) {
    const bool is_first = vsmp_rank() == 0;
    barrier();
    if (is_first) {
        printf("begin %" PRIu64 " %" PRIu64 "\n", state->step, nanoseconds());
        fflush(stdout);
    }
    for (uint64_t step = state->step; step < steps; step++) {
        write_pages(step + 1);
        uint64_t random = step * (uint64_t)vsmp_size() + (uint64_t)vsmp_rank(), sum = 0;
        for (uint64_t i = 0; i < units * 1000; i++) sum ^= next_random(&random);
        must(vsmp_fetch_add(COUNTER, (int64_t)sum, NULL), "vsmp_fetch_add");
        barrier();
        if (is_first) state->step = step + 1;
        uint64_t generation, since = nanoseconds();
        must(vsmp_checkpoint(&generation), "vsmp_checkpoint");
        if (is_first && generation > 0) {
            printf("generation %" PRIu64 " %" PRIu64 "\n", generation, nanoseconds() - since);
            fflush(stdout);
        }
    }
    const uint64_t checksum = sum_over_ranks(COUNTER, 0);
    if (is_first) printf("end %" PRIu64 "\nchecksum %016" PRIx64 "\n", nanoseconds(), checksum);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    const bool is_read = argc == 3 && strcmp(mode, "read") == 0, is_work = argc == 6 && strcmp(mode, "work") == 0;
    const bool is_leave = argc == 3 && strcmp(mode, "leave") == 0;
    if (!is_read && !is_leave && !is_work && !(argc == 6 && strcmp(mode, "dirty") == 0)) {
        fail(EXIT_USAGE,
             "usage: %s dirty MEBIBYTES PERCENT GENERATIONS REST-MILLISECONDS, or work MEBIBYTES PERCENT STEPS UNITS, or read "
             "MEBIBYTES, or leave MEBIBYTES",
             argv[0]);
    }
    const uint64_t mebibytes = number("MEBIBYTES", argv[2], 1, 1 << 20);
    percent = is_read || is_leave ? 100 : number("PERCENT", argv[3], 1, 100);
    const uint64_t attached = begin(mebibytes);
    if (is_read)
        run_read(attached);
    else if (is_leave) {
        run_dirty(3, 0); // when the third is cut the second is safe
        return EXIT_FAILURE;
    } else if (is_work)
        run_work(number("STEPS", argv[4], 1, 1 << 30), number("UNITS", argv[5], 1, 1 << 30));
    else
        run_dirty(number("GENERATIONS", argv[4], 1, 1 << 20),
                  (useconds_t)number("REST-MILLISECONDS", argv[5], 0, 3600000) * 1000);
    must(vsmp_finish(), "vsmp_finish");
    return 0;
}
