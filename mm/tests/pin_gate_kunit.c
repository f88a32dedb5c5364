// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the pin gate, which makes new FOLL_PIN pins in a pageblock wait.
 * See Documentation/mm/pin_gate.rst.
 *
 * What needs a signal cannot be tested here: kernel threads take none.
 */
#include <linux/completion.h>
#include <linux/hash.h>
#include <linux/highmem.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include "pin_gate_kunit.h"

/* So long that only a lost wake-up explains a wait of that length */
#define LONG_WAIT	(60 * HZ)
/* A wait that is meant to run into its deadline */
#define SHORT_WAIT	HZ
/* How long to watch that something does not happen */
#define WATCH_MS	100

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

static struct page *gated_block(struct kunit *test)
{
	struct page *block = isolated_block(test);

	pin_gate_close(block);
	KUNIT_ASSERT_TRUE(test, page_pin_gated(block));
	return block;
}

/*
 * The bit among its neighbours
 */

/* Two words of the pageblock bitmap: there is a boundary between two blocks. */
#define NR_BITMAP_BLOCKS	(2 * BITS_PER_LONG / NR_PAGEBLOCK_BITS)

static const enum pageblock_bits standalone_bits[] = {
	PB_compact_skip, PB_migrate_isolate, PB_pin_gate,
};

#define NR_BITS		(NR_BITMAP_BLOCKS * ARRAY_SIZE(standalone_bits))

/* A number for each bit of each block; any page of the block will do. */
static bool read_bit(struct page *pages, int nr, unsigned long offset)
{
	struct page *page = pages + nr % NR_BITMAP_BLOCKS * pageblock_nr_pages;

	return get_pfnblock_bit(page + offset, page_to_pfn(page + offset),
				standalone_bits[nr / NR_BITMAP_BLOCKS]);
}

static void write_bit(struct page *pages, int nr, bool value)
{
	struct page *page = pages + nr % NR_BITMAP_BLOCKS * pageblock_nr_pages +
			    pageblock_nr_pages / 2;
	enum pageblock_bits bit = standalone_bits[nr / NR_BITMAP_BLOCKS];

	if (value)
		set_pfnblock_bit(page, page_to_pfn(page), bit);
	else
		clear_pfnblock_bit(page, page_to_pfn(page), bit);
}

/* All bits but one are @others, and the migratetypes are what they were. */
static void expect_bits(struct kunit *test, struct page *pages,
			const enum migratetype *types, int one, bool others)
{
	struct page *page = pages;
	int nr;

	for (nr = 0; nr < NR_BITS; nr++) {
		bool value = nr == one ? !others : others;

		if (read_bit(pages, nr, 0) != value ||
		    read_bit(pages, nr, pageblock_nr_pages - 1) != value) {
			KUNIT_FAIL(test, "bit %d, with bit %d set to %d",
				   nr, one, !others);
			return;
		}
	}
	for (nr = 0; nr < NR_BITMAP_BLOCKS; nr++, page += pageblock_nr_pages) {
		if (!get_pageblock_isolate(page))
			KUNIT_EXPECT_EQ(test, get_pageblock_migratetype(page),
					types[nr]);
	}
}

static void pageblock_bits(struct kunit *test)
{
	const unsigned long nr_pages = NR_BITMAP_BLOCKS * pageblock_nr_pages;
	enum migratetype types[NR_BITMAP_BLOCKS];
	int others, nr, i;
	struct page *pages;

	pages = alloc_contig_pages(nr_pages, GFP_KERNEL | __GFP_NOWARN,
				   numa_mem_id(), NULL);
	if (!pages)
		kunit_skip(test, "no %lu contiguous pageblocks to be had: boot with more memory",
			   (unsigned long)NR_BITMAP_BLOCKS);
	for (i = 0; i < NR_BITMAP_BLOCKS; i++)
		types[i] = get_pageblock_migratetype(pages + i * pageblock_nr_pages);

	for (others = 1; others >= 0; others--) {
		for (nr = 0; nr < NR_BITS; nr++)
			write_bit(pages, nr, others);
		for (nr = 0; nr < NR_BITS; nr++) {
			write_bit(pages, nr, !others);
			expect_bits(test, pages, types, nr, others);
			write_bit(pages, nr, others);
		}
	}
	free_contig_range(page_to_pfn(pages), nr_pages);
}

/*
 * Waits at a gate
 */

struct waiter {
	struct page *page;
	unsigned long other_key;	/* wait for this block instead, unless 0 */
	unsigned long deadline;
	bool queued;
	bool done;
	bool in_time;
	struct work_struct work;
	struct completion prepared;
};

static void waiter_fn(struct work_struct *work)
{
	struct waiter *w = container_of(work, struct waiter, work);
	struct wait_bit_queue_entry wait;

	w->queued = pin_gate_prepare_to_wait(&wait, w->page);
	if (w->other_key)
		wait.key.flags = (void *)w->other_key;
	complete(&w->prepared);
	if (w->queued)
		pin_gate_wait(&wait, w->deadline);
	w->in_time = time_before(jiffies, w->deadline);
	WRITE_ONCE(w->done, true);
}

static void stop_waiter(void *data)
{
	struct waiter *w = data;

	pin_gate_open(w->page);
	flush_work(&w->work);
}

static struct waiter *alloc_waiter(struct kunit *test, struct page *page)
{
	struct waiter *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, w);
	w->page = page;
	INIT_WORK(&w->work, waiter_fn);
	init_completion(&w->prepared);
	at_exit(test, stop_waiter, w);
	return w;
}

/* Returns once somebody has queued up. */
static struct waiter *start_waiter(struct kunit *test, struct page *page,
				   long timeout, unsigned long other_key)
{
	struct waiter *w = alloc_waiter(test, page);

	w->other_key = other_key;
	w->deadline = jiffies + timeout;
	queue_work(system_dfl_long_wq, &w->work);
	wait_for_completion(&w->prepared);
	KUNIT_ASSERT_TRUE(test, w->queued);
	return w;
}

static void expect_end(struct kunit *test, struct waiter *w, bool in_time)
{
	flush_work(&w->work);
	KUNIT_EXPECT_EQ(test, w->in_time, in_time);
}

static const struct waker {
	const char *name;
	void (*wake)(struct page *page);
	bool opens;
} wakers[] = {
	{ "pin_gate_wake", pin_gate_wake, false },
	{ "pin_gate_open", pin_gate_open, true },
};

KUNIT_ARRAY_PARAM_DESC(waker, wakers, name);

/*
 * Another block number that shares the wait queue, however many queues there
 * are up to 2^16: the hash is the upper bits of a product.
 */
static unsigned long colliding_key(struct page *page)
{
	unsigned long block = page_to_pfn(page) >> pageblock_order;
	unsigned long key = block + 1;

	while (hash_long(key, 16) != hash_long(block, 16))
		key++;
	return key;
}

/* By any page of the block; but not those who wait for another one */
static void wakes(struct kunit *test)
{
	const struct waker *waker = test->param_value;
	struct page *block = gated_block(test);
	struct waiter *other, *w;

	other = start_waiter(test, block, SHORT_WAIT, colliding_key(block));
	w = start_waiter(test, block + 1, LONG_WAIT, 0);
	msleep(WATCH_MS);
	KUNIT_EXPECT_FALSE(test, READ_ONCE(w->done));

	waker->wake(block + pageblock_nr_pages - 1);
	expect_end(test, w, true);
	expect_end(test, other, false);
	KUNIT_EXPECT_EQ(test, page_pin_gated(block), !waker->opens);
}

/* What happens between pin_gate_prepare_to_wait() and pin_gate_wait() counts. */
static void early_wake_is_not_lost(struct kunit *test)
{
	const struct waker *waker = test->param_value;
	unsigned long deadline = jiffies + LONG_WAIT;
	struct page *block = gated_block(test);
	struct wait_bit_queue_entry wait;

	KUNIT_ASSERT_TRUE(test, pin_gate_prepare_to_wait(&wait, block));
	waker->wake(block);
	pin_gate_wait(&wait, deadline);
	KUNIT_EXPECT_TRUE(test, time_before(jiffies, deadline));
}

static void deadline_wakes(struct kunit *test)
{
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct page *block = gated_block(test);

	expect_end(test, start_waiter(test, block, SHORT_WAIT, 0), false);
	/* One that has passed already */
	expect_end(test, start_waiter(test, block, -HZ, 0), false);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits + 2);
	/* Nothing was pinned after it. */
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts);
	KUNIT_EXPECT_TRUE(test, page_pin_gated(block));
}

static void open_gate_does_not_queue(struct kunit *test)
{
	struct page *block = isolated_block(test);
	struct wait_bit_queue_entry wait[2];

	KUNIT_EXPECT_FALSE(test, pin_gate_prepare_to_wait(&wait[0], block));
	pin_gate_close(block);
	pin_gate_open(block);
	KUNIT_EXPECT_FALSE(test, pin_gate_prepare_to_wait(&wait[1], block));
	KUNIT_EXPECT_TRUE(test, list_empty(&wait[0].wq_entry.entry));
	KUNIT_EXPECT_TRUE(test, list_empty(&wait[1].wq_entry.entry));
}

/* The gate opens while somebody queues up, each time at another moment. */
static void open_races_with_wait(struct kunit *test)
{
	struct waiter *w = alloc_waiter(test, isolated_block(test));
	int i;

	for (i = 0; i < 2000; i++) {
		pin_gate_close(w->page);
		w->deadline = jiffies + LONG_WAIT;
		queue_work(system_dfl_long_wq, &w->work);
		udelay(i % 100);
		pin_gate_open(w->page);
		flush_work(&w->work);
		KUNIT_ASSERT_TRUE_MSG(test, w->in_time,
				      "wake-up lost in round %d", i);
	}
}

/*
 * Several closers, several isolators
 */

static void close_and_open_twice(struct kunit *test)
{
	int closed = atomic_read(&nr_pin_gates_closed);
	struct page *block = isolated_block(test);
	struct page *last = block + pageblock_nr_pages - 1;
	struct page *other = isolated_block(test);

	pin_gate_open(block);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed);

	pin_gate_close(block + 1);
	pin_gate_close(last);
	KUNIT_EXPECT_TRUE(test, page_pin_gated(block));
	KUNIT_EXPECT_TRUE(test, page_pin_gated(last));
	KUNIT_EXPECT_FALSE(test, page_pin_gated(other));
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 1);
	KUNIT_EXPECT_TRUE(test, pin_gates_closed());
	pin_gate_close(other);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 2);

	pin_gate_open(last);
	pin_gate_open(block);
	KUNIT_EXPECT_FALSE(test, page_pin_gated(block));
	KUNIT_EXPECT_TRUE(test, get_pageblock_isolate(block));
	KUNIT_EXPECT_TRUE(test, page_pin_gated(other));
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 1);
	KUNIT_EXPECT_TRUE(test, pin_gates_closed());

	pin_gate_open(other);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed);
}

static int isolate(unsigned long start, unsigned long end)
{
	return start_isolate_page_range(start, end, PB_ISOLATE_MODE_CMA_ALLOC);
}

/* Who fails to isolate a range leaves the gate of its owner alone. */
static void overlapping_isolators(struct kunit *test)
{
	int closed = atomic_read(&nr_pin_gates_closed);
	unsigned long first, second, end;
	struct page *pages;

	pages = alloc_contig_pages(2 * pageblock_nr_pages, GFP_KERNEL | __GFP_NOWARN,
				   numa_mem_id(), NULL);
	if (!pages)
		kunit_skip(test, "no two free pageblocks in a row: boot with more memory");
	first = page_to_pfn(pages);
	second = first + pageblock_nr_pages;
	end = second + pageblock_nr_pages;
	free_contig_range(first, end - first);
	if (isolate(second, end))
		kunit_skip(test, "somebody else has taken the pages: try again");
	pages += pageblock_nr_pages;
	pin_gate_close(pages);

	KUNIT_EXPECT_EQ(test, isolate(second, end), -EBUSY);
	KUNIT_EXPECT_EQ(test, isolate(first, end), -EBUSY);
	KUNIT_EXPECT_EQ(test, alloc_contig_range(first, end, ACR_FLAGS_NONE,
						 GFP_KERNEL), -EBUSY);
	KUNIT_EXPECT_FALSE(test, get_pageblock_isolate(pfn_to_page(first)));
	KUNIT_EXPECT_TRUE(test, get_pageblock_isolate(pages));
	KUNIT_EXPECT_TRUE(test, page_pin_gated(pages));
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 1);

	pin_gate_open(pages);
	undo_isolate_page_range(second, end);
	KUNIT_ASSERT_EQ(test, isolate(first, end), 0);
	KUNIT_EXPECT_FALSE(test, page_pin_gated(pfn_to_page(first)));
	KUNIT_EXPECT_FALSE(test, page_pin_gated(pages));
	undo_isolate_page_range(first, end);
}

/*
 * GUP
 */

#define NR_BLOCKS	4
#define NR_PAGES	64

typedef long pin_fn(unsigned long addr, unsigned long nr, unsigned int flags,
		    struct page **pages);

static long pin_fast(unsigned long addr, unsigned long nr, unsigned int flags,
		     struct page **pages)
{
	return pin_user_pages_fast(addr, nr, flags, pages);
}

static long pin_unlocked(unsigned long addr, unsigned long nr,
			 unsigned int flags, struct page **pages)
{
	return pin_user_pages_unlocked(addr, nr, pages, flags);
}

static long pin_remote(unsigned long addr, unsigned long nr,
		       unsigned int flags, struct page **pages)
{
	int locked = 1;
	long ret;

	mmap_read_lock(current->mm);
	ret = pin_user_pages_remote(current->mm, addr, nr, flags, pages,
				    &locked);
	if (locked)
		mmap_read_unlock(current->mm);
	return ret;
}

static const struct pin_call {
	const char *name;
	pin_fn *pin;
} pin_calls[] = {
	{ "pin_user_pages_fast", pin_fast },
	{ "pin_user_pages_unlocked", pin_unlocked },
	{ "pin_user_pages_remote", pin_remote },
};

KUNIT_ARRAY_PARAM_DESC(pin_call, pin_calls, name);

struct gup {
	struct gated_call gc;
	pin_fn *pin;
	unsigned long addr;
	unsigned int flags;
	struct page *blocks[NR_BLOCKS];
	struct page *pages[NR_PAGES];
	struct page *pinned[NR_PAGES];
};

static long call_gup(struct gated_call *gc)
{
	struct gup *gup = container_of(gc, struct gup, gc);

	memset(gup->pinned, 0, sizeof(gup->pinned));
	return gup->pin(gup->addr, gc->nr, gup->flags, gup->pinned);
}

static void undo_gup(struct gated_call *gc, long ret)
{
	unpin_user_pages(gc->result, ret);
}

static struct gup *alloc_gup(struct kunit *test, pin_fn *pin, unsigned long nr)
{
	struct gup *gup = kunit_kzalloc(test, sizeof(*gup), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, gup);
	gup->gc.call = call_gup;
	gup->gc.undo = undo_gup;
	gup->gc.pages = gup->pages;
	gup->gc.result = gup->pinned;
	gup->gc.nr = nr;
	gup->pin = pin;
	gup->flags = FOLL_WRITE;
	return gup;
}

/*
 * User pages in several pageblocks, one after the other. With a hole, GUP-fast
 * pins what is before it, and leaves the rest to the slow path, which alone
 * meets the gate.
 */
static struct gup *map_blocks(struct kunit *test, pin_fn *pin, bool hole)
{
	const unsigned long per_block = NR_PAGES / NR_BLOCKS;
	struct gup *gup = alloc_gup(test, pin, NR_PAGES);
	unsigned long i;

	for (i = 0; i < NR_BLOCKS; i++)
		gup->blocks[i] = isolated_block(test);
	for (i = 0; i < NR_PAGES; i++)
		gup->pages[i] = gup->blocks[i / per_block] + i % per_block;
	if (hole)
		gup->pages[NR_PAGES / 2] = NULL;
	gup->addr = map_pages(test, gup->pages, NR_PAGES);
	gup->gc.block = gup->blocks[hole ? NR_BLOCKS - 1 : 1];
	return gup;
}

/* The first @nr pages, and no others, are pinned. */
static void check_pins(struct kunit *test, struct gup *gup, long ret, long nr)
{
	int i;

	KUNIT_ASSERT_EQ(test, ret, nr);
	for (i = 0; i < NR_PAGES; i++) {
		if (i >= nr)
			KUNIT_EXPECT_NULL(test, gup->pinned[i]);
		else if (gup->pages[i])
			KUNIT_EXPECT_PTR_EQ(test, gup->pinned[i], gup->pages[i]);
	}
	KUNIT_EXPECT_TRUE(test, any_pinned(gup->pages, gup->gc.nr));
	unpin_user_pages(gup->pinned, nr);
	KUNIT_EXPECT_FALSE(test, any_pinned(gup->pages, gup->gc.nr));
}

static void expect_pin_waits(struct kunit *test, struct gup *gup, long nr)
{
	check_pins(test, gup, call_while_gated(test, &gup->gc), nr);
}

static void pin_waits(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;

	expect_pin_waits(test, map_blocks(test, pin_call->pin, false), NR_PAGES);
}

static void pin_waits_with_hole(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;

	expect_pin_waits(test, map_blocks(test, pin_call->pin, true), NR_PAGES);
}

/* The bound is for the call, not for each gate it meets. */
static void pin_deadline(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	struct gup *gup = map_blocks(test, pin_call->pin, true);
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);
	int round, i;

	/* The first round fills the hole. */
	for (round = 1; round <= 2; round++) {
		for (i = 0; i < NR_BLOCKS; i++)
			pin_gate_close(gup->blocks[i]);
		check_pins(test, gup, call_until_bound(test, &gup->gc), NR_PAGES);
		KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts + round);
	}
}

static void expect_pins_at_once(struct kunit *test, void *data)
{
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct gup *gup = data;

	check_pins(test, gup, call_gup(&gup->gc), gup->gc.nr);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts);
}

/* Those who hold something, or cannot sleep */
static void pin_flags(struct kunit *test)
{
	static const unsigned int flags[] = {
		FOLL_PIN_NOGATE, FOLL_NOFAULT, FOLL_NOWAIT,
	};
	const struct pin_call *pin_call = test->param_value;
	struct gup *gup = map_blocks(test, pin_call->pin, true);
	int i;

	pin_gate_close(gup->gc.block);
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		if (flags[i] == FOLL_NOWAIT && gup->pin == pin_fast)
			continue;
		/* The first one fills the hole. */
		gup->flags = FOLL_WRITE | flags[i];
		expect_pins_at_once(test, gup);
	}
}

/* What GUP-fast has pinned is not thrown away. */
static void expect_pins_once(struct kunit *test, void *data)
{
	long acquired = node_stat(NR_FOLL_PIN_ACQUIRED);
	struct gup *gup = data;

	expect_pins_at_once(test, gup);
	KUNIT_EXPECT_EQ(test, node_stat(NR_FOLL_PIN_ACQUIRED) - acquired,
			gup->gc.nr);
}

static void pin_exempt(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	struct gup *gup = map_blocks(test, pin_call->pin, false);

	pin_gate_close(gup->gc.block);
	as_exempt_tasks(test, expect_pins_once, gup);
}

static void pin_in_other_block(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;

	gated_block(test);
	expect_pins_at_once(test, map_blocks(test, pin_call->pin, false));
}

/* FOLL_GET is not gated. */
static void get_does_not_wait(struct kunit *test)
{
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct page *block = gated_block(test);
	struct page *page = NULL;

	KUNIT_ASSERT_EQ(test, get_user_pages_fast(map_pages(test, &block, 1), 1,
						  FOLL_WRITE, &page), 1);
	KUNIT_EXPECT_PTR_EQ(test, page, block);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	put_page(page);
}

/* The slow path refuses to read such memory. GUP-fast can, and does not wait. */
static void pin_fast_unreadable(struct kunit *test)
{
	struct gup *gup = map_blocks(test, pin_fast, false);

	if (!IS_ENABLED(CONFIG_HAVE_GUP_FAST))
		kunit_skip(test, "needs CONFIG_HAVE_GUP_FAST");
	mmap_write_lock(current->mm);
	vm_flags_clear(vma_lookup(current->mm, gup->addr), VM_READ);
	mmap_write_unlock(current->mm);
	gup->flags = 0;
	pin_gate_close(gup->gc.block);
	expect_pins_at_once(test, gup);
}

static void kill_waiter(struct work_struct *work)
{
	struct gated_call *gc = container_of(work, struct gated_call, opener);

	await_waits(gc, 1);
	send_sig(SIGKILL, gc->task, 1);
	open_late(work);
}

/* GUP-fast does not mind that a task has been killed, gate or not. */
static void pin_fast_killed(struct kunit *test)
{
	struct gup *gup = map_blocks(test, pin_fast, false);
	long ret;

	if (!IS_ENABLED(CONFIG_HAVE_GUP_FAST))
		kunit_skip(test, "needs CONFIG_HAVE_GUP_FAST");
	gup->gc.open = kill_waiter;
	allow_kernel_signal(SIGKILL);
	ret = call_gated(&gup->gc);
	KUNIT_EXPECT_TRUE(test, fatal_signal_pending(current));
	flush_signals(current);
	disallow_signal(SIGKILL);
	check_pins(test, gup, ret, NR_PAGES);
	KUNIT_EXPECT_FALSE(test, gup->gc.waited);
	KUNIT_EXPECT_FALSE(test, gup->gc.late);
}

/* A hole is not waited for. */
static void pin_fast_fault_behind(struct kunit *test)
{
	struct gup *gup = map_blocks(test, pin_fast, false);
	const unsigned long len = NR_PAGES / 2 * PAGE_SIZE;

	KUNIT_ASSERT_EQ(test, vm_munmap(gup->addr + len, len), 0);
	expect_pin_waits(test, gup, NR_PAGES / 2);
}

/*
 * Anonymous and shared memory, isolated as CMA does it
 */

/* In how many user pages to look for one whose pageblock can be isolated */
#define NR_CANDIDATES	2048
#define MARK		0x70696e67617465UL

static void expect_mark(struct kunit *test, struct page *page, unsigned long addr)
{
	unsigned long mark;

	memcpy_from_page((char *)&mark, page, 0, sizeof(mark));
	KUNIT_EXPECT_EQ(test, mark, MARK + addr);
}

static void undo_isolation(void *data)
{
	struct page *page = data;
	unsigned long pfn = pageblock_start_pfn(page_to_pfn(page));

	pin_gate_open(page);
	undo_isolate_page_range(pfn, pfn + pageblock_nr_pages);
}

/* User memory; the address of a page whose block is now isolated. */
static unsigned long isolated_user_page(struct kunit *test, int flags,
					struct page **page)
{
	unsigned long start = map_user(test, NR_CANDIDATES, flags);
	unsigned long addr, pfn, end = start + NR_CANDIDATES * PAGE_SIZE;

	for (addr = start; addr < end; addr += PAGE_SIZE)
		KUNIT_ASSERT_EQ(test, put_user(MARK + addr,
					       (unsigned long __user *)addr), 0);
	/* What is not on the LRU list looks unmovable. */
	lru_add_drain_all();

	for (addr = start; addr < end; addr += PAGE_SIZE) {
		KUNIT_ASSERT_EQ(test, pin_user_pages_fast(addr, 1, FOLL_WRITE,
							  page), 1);
		unpin_user_page(*page);
		pfn = pageblock_start_pfn(page_to_pfn(*page));
		if (!isolate(pfn, pfn + pageblock_nr_pages)) {
			at_exit(test, undo_isolation, *page);
			return addr;
		}
	}
	kunit_skip(test, "no pageblock of a user page can be isolated: boot with more memory");
}

static struct gup *isolated_anon_page(struct kunit *test, pin_fn *pin)
{
	struct gup *gup = alloc_gup(test, pin, 1);

	gup->addr = isolated_user_page(test, MAP_PRIVATE, &gup->pages[0]);
	gup->gc.block = gup->pages[0];
	return gup;
}

static void pin_anon(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	struct gup *gup = isolated_anon_page(test, pin_call->pin);

	expect_pin_waits(test, gup, 1);
	expect_mark(test, gup->pages[0], gup->addr);
}

/* The page has been migrated, as its block is still isolated. */
static void check_longterm(struct kunit *test, struct gup *gup, long ret)
{
	KUNIT_ASSERT_EQ(test, ret, 1);
	KUNIT_EXPECT_FALSE(test, get_pageblock_isolate(gup->pinned[0]));
	expect_mark(test, gup->pinned[0], gup->addr);
	unpin_user_page(gup->pinned[0]);
}

static void pin_longterm(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	struct gup *gup = isolated_anon_page(test, pin_call->pin);

	gup->flags |= FOLL_LONGTERM;
	gup->gc.moves = true;
	check_longterm(test, gup, call_while_gated(test, &gup->gc));
}

/* GUP cannot release the caller's mmap_lock. */
static long pin_locked(unsigned long addr, unsigned long nr,
		       unsigned int flags, struct page **pages)
{
	long ret;

	mmap_read_lock(current->mm);
	ret = pin_user_pages(addr, nr, flags, pages);
	mmap_read_unlock(current->mm);
	return ret;
}

static void pin_under_mmap_lock(struct kunit *test)
{
	struct gup *gup = isolated_anon_page(test, pin_locked);
	unsigned long waits = nr_events(PIN_GATE_WAIT);

	pin_gate_close(gup->gc.block);
	expect_pins_at_once(test, gup);
	gup->flags |= FOLL_LONGTERM;
	check_longterm(test, gup, call_gup(&gup->gc));
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
}

/* This migrates, too, but at once. */
static void pin_memfd(struct kunit *test)
{
	unsigned long addr, waits = nr_events(PIN_GATE_WAIT);
	struct folio *folio = NULL;
	struct page *page;
	struct file *file;
	pgoff_t offset;
	loff_t pos;

	if (!IS_ENABLED(CONFIG_MEMFD_CREATE) || !IS_ENABLED(CONFIG_SHMEM))
		kunit_skip(test, "needs CONFIG_MEMFD_CREATE and CONFIG_SHMEM");
	addr = isolated_user_page(test, MAP_SHARED, &page);
	mmap_read_lock(current->mm);
	file = vma_lookup(current->mm, addr)->vm_file;
	mmap_read_unlock(current->mm);
	pos = folio_pos(page_folio(page));

	pin_gate_close(page);
	KUNIT_ASSERT_EQ(test, memfd_pin_folios(file, pos, pos, &folio, 1, &offset), 1);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	KUNIT_EXPECT_PTR_EQ(test, folio->mapping, file->f_mapping);
	KUNIT_EXPECT_EQ(test, folio_pos(folio), pos);
	KUNIT_EXPECT_FALSE(test, get_pageblock_isolate(&folio->page));
	unpin_folios(&folio, 1);
}

static struct kunit_case pin_gate_cases[] = {
	KUNIT_CASE(pageblock_bits),
	KUNIT_CASE_PARAM(wakes, waker_gen_params),
	KUNIT_CASE_PARAM(early_wake_is_not_lost, waker_gen_params),
	KUNIT_CASE(deadline_wakes),
	KUNIT_CASE(open_gate_does_not_queue),
	KUNIT_CASE_SLOW(open_races_with_wait),
	KUNIT_CASE(close_and_open_twice),
	KUNIT_CASE(overlapping_isolators),
	KUNIT_CASE_PARAM(pin_waits, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_waits_with_hole, pin_call_gen_params),
	KUNIT_CASE_PARAM_ATTR(pin_deadline, pin_call_gen_params,
			      {.speed = KUNIT_SPEED_SLOW}),
	KUNIT_CASE_PARAM(pin_flags, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_exempt, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_in_other_block, pin_call_gen_params),
	KUNIT_CASE(get_does_not_wait),
	KUNIT_CASE(pin_fast_unreadable),
	KUNIT_CASE(pin_fast_killed),
	KUNIT_CASE(pin_fast_fault_behind),
	KUNIT_CASE_PARAM(pin_anon, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_longterm, pin_call_gen_params),
	KUNIT_CASE(pin_under_mmap_lock),
	KUNIT_CASE(pin_memfd),
	{}
};

static struct kunit_suite pin_gate_suite = {
	.name = "pin_gate",
	.suite_init = pin_gate_init_suite,
	.init = pin_gate_init_case,
	.test_cases = pin_gate_cases,
};

kunit_test_suite(pin_gate_suite);

MODULE_DESCRIPTION("Tests of the pin gate");
MODULE_LICENSE("GPL");
