// SPDX-License-Identifier: Apache-2.0
//
// unit [SEED]: the window's address space and the charge counters against plain models, under the sanitizers.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "../guest/charge.h"
#include "../guest/space.h"
#include "../guest/system.h"
#include "check.h"

static unsigned passed_count;
static uint64_t seed;

static void done(const char *name) {
    printf("  ok   %s\n", name);
    passed_count++;
}

// ---- space

enum { MODEL_PAGES = 3000 };

static void compare(const struct space *space, const bool *model) {
    uint64_t start, count, at = 0, previous_end = 0;
    while (space_next(space, at, MODEL_PAGES, &start, &count)) {
        check(at == 0 || start > previous_end, "ranges do not touch (seed %lu)", seed);
        for (uint64_t page = at; page < start; page++) check(!model[page], "page %lu is not in the set (seed %lu)", page, seed);
        for (uint64_t page = start; page < start + count; page++)
            check(model[page], "page %lu is in the set (seed %lu)", page, seed);
        at = previous_end = start + count;
    }
    for (uint64_t page = at; page < MODEL_PAGES; page++) check(!model[page], "page %lu is not in the set (seed %lu)", page, seed);
}

static bool fits(const bool *model, uint64_t start, uint64_t count) {
    for (uint64_t page = start; page < start + count; page++)
        if (page >= MODEL_PAGES || !model[page]) return false;
    return true;
}

static void A_set_of_ranges_agrees_with_a_map_of_pages(void) {
    static bool model[MODEL_PAGES];
    uint64_t random = seed;
    struct space space;
    check(space_open(&space, MODEL_PAGES), "space_open");
    for (unsigned round = 0; round < 20000; round++) {
        const uint64_t start = next_random(&random) % MODEL_PAGES;
        const uint64_t longest = round % 50 == 0 ? MODEL_PAGES : 40;
        uint64_t count = next_random(&random) % longest;
        if (start + count > MODEL_PAGES) count = MODEL_PAGES - start;
        const bool add = next_random(&random) % 2 == 0;
        check(add ? space_add(&space, start, count) : space_remove(&space, start, count), "room for nodes (seed %lu)", seed);
        for (uint64_t page = start; page < start + count; page++) model[page] = add;
        if (round % 20 == 0) compare(&space, model);

        const uint64_t wanted = next_random(&random) % 60 + 1, alignment = 1ull << (next_random(&random) % 6);
        uint64_t found;
        if (space_find(&space, wanted, alignment, &found)) {
            check(found % alignment == 0 && fits(model, found, wanted), "what is found fits (seed %lu)", seed);
            check(space_covers(&space, found, wanted), "and is covered (seed %lu)", seed);
        } else {
            // It may overlook a range that is just long enough and lies askew; one with slack it must find.
            for (uint64_t page = 0; page + wanted + alignment <= MODEL_PAGES; page++)
                check(!fits(model, page, wanted + alignment), "room for %lu at %lu is found (seed %lu)", wanted, page, seed);
        }
        const uint64_t probe = next_random(&random) % (MODEL_PAGES - 8);
        bool any = false;
        for (uint64_t page = probe; page < probe + 8; page++) any |= model[page];
        check(space_overlaps(&space, probe, 8) == any, "overlap at %lu (seed %lu)", probe, seed);
    }
    space_close(&space);
    done(__func__);
}

static void A_set_without_room_for_nodes_refuses_and_stays_whole(void) {
    struct space space;
    check(space_open(&space, 4), "space_open");
    for (uint64_t i = 0; i < 4; i++) check(space_add(&space, i * 10, 5), "four ranges");
    check(!space_add(&space, 100, 1) && !space_remove(&space, 1, 1), "a fifth is refused");
    for (uint64_t i = 0; i < 4; i++)
        check(space_covers(&space, i * 10, 5) && !space_overlaps(&space, i * 10 + 5, 5), "range %lu is untouched", i);
    space_close(&space);
    done(__func__);
}

// ---- charge

enum { EXTENTS = 16, CHARGE_PAGES = EXTENTS * PAGES_PER_EXTENT };

struct agent_model {
    bool reserved[EXTENTS];
    bool dirty[CHARGE_PAGES]; // contents since the last discard
    unsigned limit, held, calls;
};

static int model_reserve(void *context, uint64_t offset, uint64_t length) {
    struct agent_model *model = context;
    const uint64_t first = offset / VSMP_EXTENT_BYTES, count = length / VSMP_EXTENT_BYTES;
    model->calls++;
    check(offset % VSMP_EXTENT_BYTES == 0 && length % VSMP_EXTENT_BYTES == 0 && count > 0, "whole extents");
    if (model->held + count > model->limit) return ENOMEM;
    for (uint64_t i = first; i < first + count; i++) {
        check(!model->reserved[i], "extent %lu reserved once (seed %lu)", i, seed);
        model->reserved[i] = true;
        model->held++;
    }
    return 0;
}

static int model_release(void *context, uint64_t offset, uint64_t length) {
    struct agent_model *model = context;
    for (uint64_t i = offset / VSMP_EXTENT_BYTES; i < (offset + length) / VSMP_EXTENT_BYTES; i++) {
        check(model->reserved[i], "extent %lu released once (seed %lu)", i, seed);
        model->reserved[i] = false;
        model->held--;
        memset(model->dirty + i * PAGES_PER_EXTENT, 0, PAGES_PER_EXTENT);
    }
    return 0;
}

static int model_discard(void *context, uint64_t offset, uint64_t length) {
    struct agent_model *model = context;
    for (uint64_t page = offset / VSMP_PAGE_BYTES; page < (offset + length) / VSMP_PAGE_BYTES; page++) {
        check(model->reserved[page / PAGES_PER_EXTENT], "page %lu discarded while reserved (seed %lu)", page, seed);
        model->dirty[page] = false;
    }
    return 0;
}

static void Charges_agree_with_what_was_reserved(void) {
    static struct agent_model model;
    static bool charged[CHARGE_PAGES];
    uint64_t random = seed;
    model.limit = EXTENTS * 3 / 4;
    struct charge charge;
    const struct charge_agent agent = {model_reserve, model_release, model_discard, &model};
    check(charge_open(&charge, CHARGE_PAGES, agent), "charge_open");
    unsigned refusals = 0;
    for (unsigned round = 0; round < 8000; round++) {
        const uint64_t start = next_random(&random) % CHARGE_PAGES;
        uint64_t count = next_random(&random) % (round % 4 == 0 ? 3000 : 300) + 1;
        if (start + count > CHARGE_PAGES) count = CHARGE_PAGES - start;
        switch (next_random(&random) % 4) {
        case 0:
        case 1: {
            bool taken = round % 2 == 0 && charge_take_quickly(&charge, start, count);
            if (!taken && charge_take(&charge, start, count) != 0) {
                refusals++;
                break;
            }
            for (uint64_t page = start; page < start + count; page++) charged[page] = model.dirty[page] = true;
            break;
        }
        case 2:
            check(charge_give_back(&charge, start, count) == 0, "give back");
            for (uint64_t page = start; page < start + count; page++) {
                charged[page] = false;
                check(!model.dirty[page], "page %lu was dropped (seed %lu)", page, seed);
            }
            break;
        default:
            check(charge_discard(&charge, start, count) == 0, "discard");
            for (uint64_t page = start; page < start + count; page++)
                check(!model.dirty[page], "page %lu was discarded (seed %lu)", page, seed);
        }
        for (uint64_t extent = 0; extent < EXTENTS; extent++) {
            unsigned expected = 0;
            for (uint64_t page = extent * PAGES_PER_EXTENT; page < (extent + 1) * PAGES_PER_EXTENT; page++) {
                expected += charged[page];
                check(((charge_state(&charge, page) & PAGE_CHARGED) != 0) == charged[page], "page %lu (seed %lu)", page, seed);
                check(charged[page] || !model.dirty[page], "page %lu holds nothing uncharged (seed %lu)", page, seed);
            }
            check(charge.extents[extent] == expected, "extent %lu counts %u, not %u (seed %lu)", extent, expected,
                  charge.extents[extent], seed);
            check(model.reserved[extent] == (expected > 0), "extent %lu is reserved while used (seed %lu)", extent, seed);
        }
    }
    check(refusals > 0, "the limit was met (seed %lu)", seed);
    charge_close(&charge);
    done(__func__);
}

static void A_refused_charge_leaves_nothing_behind(void) {
    static struct agent_model model;
    model.limit = 3;
    struct charge charge;
    check(charge_open(&charge, CHARGE_PAGES, (struct charge_agent){model_reserve, model_release, model_discard, &model}),
          "charge_open");
    check(charge_take(&charge, 2 * PAGES_PER_EXTENT + 7, 1) == 0, "a page in the middle");
    // Two runs are needed, around the extent that is there; the second does not fit.
    check(charge_take(&charge, PAGES_PER_EXTENT, 4 * PAGES_PER_EXTENT) == ENOMEM, "refused");
    check(model.held == 1 && model.reserved[2], "only what was there is reserved");
    check(!charge_any(&charge, 0, 2 * PAGES_PER_EXTENT + 7), "nothing is marked before");
    check(!charge_any(&charge, 2 * PAGES_PER_EXTENT + 8, CHARGE_PAGES - 2 * PAGES_PER_EXTENT - 8), "nor behind");
    model.calls = 0;
    model.limit = EXTENTS;
    check(charge_take(&charge, 3 * PAGES_PER_EXTENT, 5 * PAGES_PER_EXTENT) == 0 && model.calls == 1, "one run, one request");
    charge_close(&charge);
    done(__func__);
}

static void Protection_is_noted_page_by_page_and_forgotten_by_ranges(void) {
    static struct agent_model model;
    struct charge charge;
    check(charge_open(&charge, CHARGE_PAGES, (struct charge_agent){model_reserve, model_release, model_discard, &model}),
          "charge_open");
    charge_protect(&charge, 100, 1000, 3);
    charge_protect(&charge, 200, 10, 1);
    charge_protect(&charge, 0, 150, 0);
    for (uint64_t page = 0; page < CHARGE_PAGES; page++)
        check((charge_state(&charge, page) & PAGE_PROTECTION) == (page < 150 || page >= 1100  ? 0u
                                                                  : page >= 200 && page < 210 ? 1u
                                                                                              : 3u),
              "page %lu", page);
    charge_protect(&charge, 0, CHARGE_PAGES, 0);
    for (uint64_t page = 0; page < CHARGE_PAGES; page++)
        check(charge_state(&charge, page) == 0, "page %lu after all was taken away", page);
    charge_close(&charge);
    done(__func__);
}

// ---- quick charges beside releases: threads own pages of shared extents

static struct charge shared;
static struct agent_model shared_model;
static struct guard shared_guard;

static void *charge_and_return(void *argument) {
    const uint64_t lane = (uintptr_t)argument;
    uint64_t random = seed + lane;
    for (unsigned round = 0; round < 30000; round++) {
        const uint64_t extent = next_random(&random) % 2, page = extent * PAGES_PER_EXTENT + lane * 8;
        const uint64_t count = next_random(&random) % 8 + 1;
        signal_mask saved;
        if (!charge_take_quickly(&shared, page, count)) {
            guard_enter(&shared_guard, &saved);
            check(charge_take(&shared, page, count) == 0, "charge");
            guard_leave(&shared_guard, &saved);
        }
        check(shared_model.reserved[extent], "a charged page's extent is reserved (seed %lu)", seed);
        guard_enter(&shared_guard, &saved);
        check(charge_give_back(&shared, page, count) == 0, "give back");
        guard_leave(&shared_guard, &saved);
    }
    return NULL;
}

static void Threads_that_charge_one_extent_lose_neither_pages_nor_the_extent(void) {
    shared_model.limit = EXTENTS;
    check(charge_open(&shared, CHARGE_PAGES, (struct charge_agent){model_reserve, model_release, model_discard, &shared_model}),
          "charge_open");
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        check(pthread_create(&threads[i], NULL, charge_and_return, (void *)i) == 0, "pthread_create");
    for (unsigned i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    check(shared_model.held == 0 && shared.extents[0] == 0 && shared.extents[1] == 0, "all is given back");
    charge_close(&shared);
    done(__func__);
}

int main(int argc, char **argv) {
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)time(NULL);
    printf("unit: seed %lu\n", seed);
    A_set_of_ranges_agrees_with_a_map_of_pages();
    A_set_without_room_for_nodes_refuses_and_stays_whole();
    Charges_agree_with_what_was_reserved();
    A_refused_charge_leaves_nothing_behind();
    Protection_is_noted_page_by_page_and_forgotten_by_ranges();
    Threads_that_charge_one_extent_lose_neither_pages_nor_the_extent();
    printf("%u passed\n", passed_count);
    return 0;
}
