// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "charge.h"

#include <string.h>
#include <sys/mman.h>

#include "system.h"

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void set_state(struct charge *charge, uint64_t page, uint8_t state) {
    atomic_store_explicit(&charge->pages[page], state, memory_order_relaxed);
}

bool charge_open(struct charge *charge, uint64_t page_count, struct charge_agent agent) {
    *charge = (struct charge){.agent = agent, .page_count = page_count};
    charge->pages = private_pages(page_count);
    charge->extents = private_pages(page_count / PAGES_PER_EXTENT * sizeof *charge->extents);
    charge->accessible = private_pages(page_count / PAGES_PER_EXTENT);
    if (charge->pages != NULL && charge->extents != NULL && charge->accessible != NULL) return true;
    charge_close(charge);
    return false;
}

void charge_close(struct charge *charge) {
    if (charge->pages != NULL) SYSTEM_CALL(SYS_munmap, charge->pages, charge->page_count);
    if (charge->extents != NULL)
        SYSTEM_CALL(SYS_munmap, charge->extents, charge->page_count / PAGES_PER_EXTENT * sizeof *charge->extents);
    if (charge->accessible != NULL) SYSTEM_CALL(SYS_munmap, charge->accessible, charge->page_count / PAGES_PER_EXTENT);
    *charge = (struct charge){0};
}

// Marks pages of one extent, whose reservation is certain; returns how many were not marked before.
static unsigned mark(struct charge *charge, uint64_t start, uint64_t end) {
    unsigned fresh = 0;
    for (uint64_t page = start; page < end; page++) {
        uint8_t state = charge_state(charge, page);
        if ((state & PAGE_CHARGED) == 0) {
            set_state(charge, page, state | PAGE_CHARGED);
            fresh++;
        }
    }
    return fresh;
}

static unsigned unmark(struct charge *charge, uint64_t start, uint64_t end) {
    unsigned cleared = 0;
    for (uint64_t page = start; page < end; page++) {
        uint8_t state = charge_state(charge, page);
        if ((state & PAGE_CHARGED) != 0) {
            set_state(charge, page, state & (uint8_t)~PAGE_CHARGED);
            cleared++;
        }
    }
    return cleared;
}

static int first_error(int earlier, int later) { return earlier != 0 ? earlier : later; }

static int tell(struct charge *charge, int (*call)(void *, uint64_t, uint64_t), uint64_t start, uint64_t end) {
    return end <= start ? 0 : call(charge->agent.context, start * VSMP_PAGE_BYTES, (end - start) * VSMP_PAGE_BYTES);
}

// Calls the agent once for each longest run of extents in which nothing is charged, up to the first failure; `*stop` is the
// extent at which that was.
static int for_empty_runs(struct charge *charge, uint64_t first, uint64_t last, int (*call)(void *, uint64_t, uint64_t),
                          uint64_t *stop) {
    for (uint64_t extent = first; extent < last;) {
        if (atomic_load(&charge->extents[extent]) != 0) {
            extent++;
            continue;
        }
        uint64_t end = extent + 1;
        while (end < last && atomic_load(&charge->extents[end]) == 0) end++;
        int error = tell(charge, call, extent * PAGES_PER_EXTENT, end * PAGES_PER_EXTENT);
        if (error != 0) {
            *stop = extent;
            return error;
        }
        extent = end;
    }
    return 0;
}

int charge_take(struct charge *charge, uint64_t start, uint64_t count) {
    if (count == 0) return 0;
    const uint64_t end = start + count;
    const uint64_t first = start / PAGES_PER_EXTENT, last = (end - 1) / PAGES_PER_EXTENT + 1;

    uint64_t refused, ignored;
    int error = for_empty_runs(charge, first, last, charge->agent.reserve, &refused);
    if (error != 0) {
        for_empty_runs(charge, first, refused, charge->agent.release, &ignored);
        return error;
    }
    for (uint64_t page = start; page < end;) {
        const uint64_t extent = page / PAGES_PER_EXTENT, stop = least(end, (extent + 1) * PAGES_PER_EXTENT);
        atomic_fetch_add(&charge->extents[extent], (uint16_t)mark(charge, page, stop));
        page = stop;
    }
    return 0;
}

bool charge_take_quickly(struct charge *charge, uint64_t start, uint64_t count) {
    const uint64_t extent = start / PAGES_PER_EXTENT;
    if (count == 0 || (start + count - 1) / PAGES_PER_EXTENT != extent) return false;
    // Counted before they are marked: an extent whose count is not zero cannot be given back under our feet. What was marked
    // already is taken off again; those marks are in the count themselves, so it stays above zero.
    uint16_t charged = atomic_load(&charge->extents[extent]);
    do {
        if (charged == 0) return false;
    } while (!atomic_compare_exchange_weak(&charge->extents[extent], &charged, (uint16_t)(charged + count)));
    const unsigned fresh = mark(charge, start, start + count);
    if (fresh < count) atomic_fetch_sub(&charge->extents[extent], (uint16_t)(count - fresh));
    return true;
}

int charge_give_back(struct charge *charge, uint64_t start, uint64_t count) {
    // Extents that become empty are collected into runs and released; of the others the pages are discarded. Nobody else can
    // empty an extent or ask for it anew while we hold the lock.
    int result = 0;
    uint64_t run = 0, run_end = 0;
    const uint64_t end = start + count;
    for (uint64_t page = start; page < end;) {
        const uint64_t extent = page / PAGES_PER_EXTENT, stop = least(end, (extent + 1) * PAGES_PER_EXTENT);
        const unsigned cleared = atomic_load(&charge->extents[extent]) == 0 ? 0 : unmark(charge, page, stop);
        if (cleared != 0 && atomic_fetch_sub(&charge->extents[extent], (uint16_t)cleared) != cleared) {
            result = first_error(result, tell(charge, charge->agent.discard, page, stop));
        } else if (cleared != 0) {
            if (run_end != extent) {
                result =
                    first_error(result, tell(charge, charge->agent.release, run * PAGES_PER_EXTENT, run_end * PAGES_PER_EXTENT));
                run = extent;
            }
            run_end = extent + 1;
        }
        page = stop;
    }
    return first_error(result, tell(charge, charge->agent.release, run * PAGES_PER_EXTENT, run_end * PAGES_PER_EXTENT));
}

int charge_discard(struct charge *charge, uint64_t start, uint64_t count) {
    int result = 0;
    const uint64_t end = start + count;
    for (uint64_t page = start; page < end;) {
        if ((charge_state(charge, page) & PAGE_CHARGED) == 0) {
            // Nothing in this whole extent is the common case in sparse reservations.
            const uint64_t extent = page / PAGES_PER_EXTENT;
            page = atomic_load(&charge->extents[extent]) == 0 ? (extent + 1) * PAGES_PER_EXTENT : page + 1;
            continue;
        }
        uint64_t stop = page + 1;
        while (stop < end && (charge_state(charge, stop) & PAGE_CHARGED) != 0) stop++;
        result = first_error(result, tell(charge, charge->agent.discard, page, stop));
        page = stop;
    }
    return result;
}

bool charge_any(const struct charge *charge, uint64_t start, uint64_t count) {
    for (uint64_t page = start; page < start + count;) {
        if ((charge_state(charge, page) & PAGE_CHARGED) != 0) return true;
        const uint64_t extent = page / PAGES_PER_EXTENT;
        page = atomic_load(&charge->extents[extent]) == 0 ? (extent + 1) * PAGES_PER_EXTENT : page + 1;
    }
    return false;
}

void charge_protect(struct charge *charge, uint64_t start, uint64_t count, int protection) {
    // An extent that was never given a protection is skipped when all access is taken: programs reserve, and later drop, far
    // more address space than they use, and its table should not even be read.
    const uint8_t bits = (uint8_t)((unsigned)protection & PAGE_PROTECTION);
    const uint64_t end = start + count;
    for (uint64_t page = start; page < end;) {
        const uint64_t extent = page / PAGES_PER_EXTENT, stop = least(end, (extent + 1) * PAGES_PER_EXTENT);
        const bool whole = stop - page == PAGES_PER_EXTENT;
        if (bits != 0) charge->accessible[extent] = 1;
        for (; page < stop && charge->accessible[extent] != 0; page++) {
            const uint8_t state = charge_state(charge, page);
            set_state(charge, page, (uint8_t)((state & ~PAGE_PROTECTION) | bits));
        }
        page = stop;
        if (whole && bits == 0 && charge->accessible[extent] != 0) charge->accessible[extent] = 0;
    }
}
