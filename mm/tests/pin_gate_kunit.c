// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the pin gate, which makes new FOLL_PIN pins in a pageblock wait.
 * See Documentation/mm/pin_gate.rst.
 *
 * What needs a signal cannot be tested here: kernel threads take none.
 */
#include <linux/file.h>
#include <linux/hash.h>
#include <linux/highmem.h>
#include <linux/memfd.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>
#include "pin_gate_kunit.h"

/* So long that only a lost wake-up explains a wait of that length */
#define LONG_WAIT	(60 * HZ)
/* A wait that is meant to run into its deadline */
#define SHORT_WAIT	(HZ / 5)
/* How long to watch that something does not happen */
#define WATCH_MS	100

/* How many pages a GUP call pins that is to cross pageblocks */
#define NR_PAGES	512
#define NR_BLOCKS	4
/* In how many user pages to look for one whose pageblock can be isolated */
#define NR_CANDIDATES	2048

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

/*
 * Pageblocks
 */

struct isolated_range {
	unsigned long start, end;
};

static void undo_isolation(void *data)
{
	struct isolated_range *range = data;
	unsigned long pfn;

	for (pfn = range->start; pfn < range->end; pfn += pageblock_nr_pages)
		pin_gate_open(pfn_to_page(pfn));
	undo_isolate_page_range(range->start, range->end);
}

static int isolate(unsigned long start, unsigned long end)
{
	return start_isolate_page_range(start, end, PB_ISOLATE_MODE_CMA_ALLOC);
}

/* Isolate pageblocks the way CMA does, until the end of the test. */
static bool isolate_until_exit(struct kunit *test, unsigned long pfn,
			       unsigned int nr_blocks)
{
	struct isolated_range *range;

	range = kunit_kzalloc(test, sizeof(*range), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, range);
	range->start = pageblock_start_pfn(pfn);
	range->end = range->start + nr_blocks * pageblock_nr_pages;
	if (isolate(range->start, range->end)) {
		kunit_kfree(test, range);
		return false;
	}
	at_exit(test, undo_isolation, range);
	return true;
}

static bool in_zone(struct zone *zone, unsigned long pfn)
{
	struct page *page = pfn_to_online_page(pfn);

	return page && page_zone(page) == zone;
}

/* Isolate two neighbouring pageblocks, whichever let themselves. */
static unsigned long isolate_two_blocks(struct kunit *test)
{
	const unsigned long nr = pageblock_nr_pages;
	struct zone *zone;
	unsigned long pfn;

	for_each_populated_zone(zone) {
		pfn = pageblock_align(zone->zone_start_pfn);
		for (; pfn + 2 * nr <= zone_end_pfn(zone); pfn += nr) {
			if (in_zone(zone, pfn) && in_zone(zone, pfn + nr) &&
			    isolate_until_exit(test, pfn, 2))
				return pfn;
		}
	}
	kunit_skip(test, "no two neighbouring pageblocks can be isolated");
}

/*
 * The bit among its neighbours
 */

/* Two words of the pageblock bitmap: there is a boundary between two blocks. */
#define NR_BITMAP_BLOCKS	(2 * BITS_PER_LONG / NR_PAGEBLOCK_BITS)

static const enum pageblock_bits standalone_bits[] = {
	PB_compact_skip, PB_migrate_isolate, PB_pin_gate,
};

struct bitmap_blocks {
	struct page *page;
	enum migratetype types[NR_BITMAP_BLOCKS];
	unsigned long bits[NR_BITMAP_BLOCKS];	/* as they should be */
};

static struct page *bitmap_block(struct bitmap_blocks *blocks, int i)
{
	return blocks->page + i * pageblock_nr_pages;
}

static void write_bit(struct bitmap_blocks *blocks, int i,
		      enum pageblock_bits bit, bool value)
{
	struct page *page = bitmap_block(blocks, i);

	if (value) {
		blocks->bits[i] |= BIT(bit);
		set_pfnblock_bit(page, page_to_pfn(page), bit);
	} else {
		blocks->bits[i] &= ~BIT(bit);
		clear_pfnblock_bit(page, page_to_pfn(page), bit);
	}
}

static void write_all_bits(struct bitmap_blocks *blocks, bool value)
{
	int i, b;

	for (i = 0; i < NR_BITMAP_BLOCKS; i++)
		for (b = 0; b < ARRAY_SIZE(standalone_bits); b++)
			write_bit(blocks, i, standalone_bits[b], value);
}

static bool block_is_as_written(struct bitmap_blocks *blocks, int i)
{
	struct page *page = bitmap_block(blocks, i);
	enum migratetype type = blocks->types[i];
	int b;

	for (b = 0; b < ARRAY_SIZE(standalone_bits); b++) {
		enum pageblock_bits bit = standalone_bits[b];

		if (get_pfnblock_bit(page, page_to_pfn(page), bit) !=
		    !!(blocks->bits[i] & BIT(bit)))
			return false;
	}
	if (blocks->bits[i] & BIT(PB_migrate_isolate))
		type = MIGRATE_ISOLATE;
	return get_pageblock_migratetype(page) == type;
}

/* Write one bit, and look at all bits of all blocks. */
static void try_bit(struct kunit *test, struct bitmap_blocks *blocks, int i,
		    enum pageblock_bits bit, bool value)
{
	int other;

	write_bit(blocks, i, bit, value);
	for (other = 0; other < NR_BITMAP_BLOCKS; other++)
		KUNIT_EXPECT_TRUE_MSG(test, block_is_as_written(blocks, other),
				      "bit %d of block %d set to %d, seen in block %d",
				      bit, i, value, other);
}

static void free_bitmap_blocks(void *data)
{
	struct bitmap_blocks *blocks = data;

	write_all_bits(blocks, false);
	free_contig_range(page_to_pfn(blocks->page),
			  NR_BITMAP_BLOCKS * pageblock_nr_pages);
}

static struct bitmap_blocks *alloc_bitmap_blocks(struct kunit *test)
{
	struct bitmap_blocks *blocks;
	int i;

	blocks = kunit_kzalloc(test, sizeof(*blocks), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, blocks);
	blocks->page = alloc_contig_pages(NR_BITMAP_BLOCKS * pageblock_nr_pages,
					  GFP_KERNEL | __GFP_NOWARN,
					  numa_mem_id(), NULL);
	if (!blocks->page)
		kunit_skip(test, "no %lu contiguous pageblocks to be had",
			   (unsigned long)NR_BITMAP_BLOCKS);
	for (i = 0; i < NR_BITMAP_BLOCKS; i++)
		blocks->types[i] =
			get_pageblock_migratetype(bitmap_block(blocks, i));
	at_exit(test, free_bitmap_blocks, blocks);
	return blocks;
}

/* Each bit by itself, among bits that are all @others. */
static void try_all_bits(struct kunit *test, struct bitmap_blocks *blocks,
			 bool others)
{
	int i, b;

	write_all_bits(blocks, others);
	for (i = 0; i < NR_BITMAP_BLOCKS; i++) {
		for (b = 0; b < ARRAY_SIZE(standalone_bits); b++) {
			try_bit(test, blocks, i, standalone_bits[b], !others);
			try_bit(test, blocks, i, standalone_bits[b], others);
		}
	}
}

static void pageblock_bits(struct kunit *test)
{
	struct bitmap_blocks *blocks = alloc_bitmap_blocks(test);

	try_all_bits(test, blocks, false);
	try_all_bits(test, blocks, true);
}

/* Every page of a pageblock sees its gate, no page of the next one does. */
static void gate_covers_block(struct kunit *test)
{
	struct bitmap_blocks *blocks = alloc_bitmap_blocks(test);
	struct page *page;
	int i;

	for (i = 0; i < NR_BITMAP_BLOCKS; i++) {
		page = bitmap_block(blocks, i);
		write_bit(blocks, i, PB_migrate_isolate, true);
		/* Any page of the block will do. */
		pin_gate_close(page + pageblock_nr_pages / 2);
		KUNIT_EXPECT_TRUE(test, page_pin_gated(page));
		KUNIT_EXPECT_TRUE(test, page_pin_gated(page +
						       pageblock_nr_pages - 1));
		if (i > 0)
			KUNIT_EXPECT_FALSE(test, page_pin_gated(page - 1));
		if (i < NR_BITMAP_BLOCKS - 1)
			KUNIT_EXPECT_FALSE(test, page_pin_gated(page +
							pageblock_nr_pages));
		pin_gate_open(page + pageblock_nr_pages - 1);
		KUNIT_EXPECT_FALSE(test, page_pin_gated(page));
		KUNIT_EXPECT_TRUE(test, get_pageblock_isolate(page));
		write_bit(blocks, i, PB_migrate_isolate, false);
	}
}

/*
 * Threads that wait at a gate
 */

struct waiter {
	struct page *page;
	unsigned long other_key;	/* wait for this block instead, unless 0 */
	unsigned long deadline;
	bool queued;
	unsigned long end;
	struct completion prepared;
	struct completion done;
};

static int waiter_fn(void *data)
{
	struct pin_gate_waiter wait;
	struct waiter *w = data;

	w->queued = pin_gate_prepare_to_wait(&wait, w->page);
	if (w->other_key)
		wait.block = w->other_key;
	complete(&w->prepared);
	if (w->queued)
		pin_gate_wait(&wait, w->deadline);
	w->end = jiffies;
	complete_all(&w->done);
	return 0;
}

static void stop_waiter(void *data)
{
	struct waiter *w = data;

	pin_gate_open(w->page);
	wait_for_completion(&w->done);
}

static struct waiter *start_waiter_for(struct kunit *test, struct page *page,
				       unsigned long timeout,
				       unsigned long other_key)
{
	struct task_struct *task;
	struct waiter *w;

	w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, w);
	w->page = page;
	w->other_key = other_key;
	w->deadline = jiffies + timeout;
	init_completion(&w->prepared);
	init_completion(&w->done);
	task = kthread_run(waiter_fn, w, "pin_gate_waiter");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	at_exit(test, stop_waiter, w);
	wait_for_completion(&w->prepared);
	KUNIT_ASSERT_TRUE(test, w->queued);
	return w;
}

/* Returns once the thread has queued up. */
static struct waiter *start_waiter(struct kunit *test, struct page *page,
				   unsigned long timeout)
{
	return start_waiter_for(test, page, timeout, 0);
}

static void expect_stays_asleep(struct kunit *test, struct waiter *w)
{
	msleep(WATCH_MS);
	KUNIT_EXPECT_FALSE(test, completion_done(&w->done));
}

static void expect_woken(struct kunit *test, struct waiter *w)
{
	wait_for_completion(&w->done);
	KUNIT_EXPECT_TRUE(test, time_before(w->end, w->deadline));
}

static void expect_timed_out(struct kunit *test, struct waiter *w)
{
	wait_for_completion(&w->done);
	KUNIT_EXPECT_FALSE(test, time_before(w->end, w->deadline));
}

static void open_wakes(struct kunit *test)
{
	struct page *block = gated_block(test);
	struct waiter *w = start_waiter(test, block, LONG_WAIT);

	expect_stays_asleep(test, w);
	pin_gate_open(block);
	expect_woken(test, w);
	KUNIT_EXPECT_FALSE(test, page_pin_gated(block));
}

static void wake_wakes(struct kunit *test)
{
	struct page *block = gated_block(test);
	struct waiter *w = start_waiter(test, block, LONG_WAIT);

	expect_stays_asleep(test, w);
	pin_gate_wake(block);
	expect_woken(test, w);
	KUNIT_EXPECT_TRUE(test, page_pin_gated(block));
	pin_gate_open(block);
}

/* By any page of the block, not just the one that is waited for */
static void other_page_wakes(struct kunit *test)
{
	struct page *block = gated_block(test);
	struct waiter *w = start_waiter(test, block + 1, LONG_WAIT);

	pin_gate_open(block + pageblock_nr_pages - 1);
	expect_woken(test, w);
}

static void deadline_wakes(struct kunit *test)
{
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct page *block = gated_block(test);

	expect_timed_out(test, start_waiter(test, block, SHORT_WAIT));
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits + 1);
	/* Nothing was pinned after it. */
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts);
	KUNIT_EXPECT_TRUE(test, page_pin_gated(block));
	pin_gate_open(block);
}

static void past_deadline_does_not_sleep(struct kunit *test)
{
	struct page *block = gated_block(test);
	struct pin_gate_waiter wait;
	unsigned long start = jiffies;

	KUNIT_ASSERT_TRUE(test, pin_gate_prepare_to_wait(&wait, block));
	pin_gate_wait(&wait, start - HZ);
	KUNIT_EXPECT_TRUE(test, time_before(jiffies, start + LONG_WAIT));
	pin_gate_open(block);
}

/* What happens between pin_gate_prepare_to_wait() and pin_gate_wait() counts. */
static void expect_not_lost(struct kunit *test, struct page *block,
			    void (*wake)(struct page *page))
{
	unsigned long deadline = jiffies + LONG_WAIT;
	struct pin_gate_waiter wait;

	KUNIT_ASSERT_TRUE(test, pin_gate_prepare_to_wait(&wait, block));
	wake(block);
	pin_gate_wait(&wait, deadline);
	KUNIT_EXPECT_TRUE(test, time_before(jiffies, deadline));
}

static void early_wake_is_not_lost(struct kunit *test)
{
	struct page *block = gated_block(test);

	expect_not_lost(test, block, pin_gate_wake);
	expect_not_lost(test, block, pin_gate_open);
}

static void open_gate_does_not_queue(struct kunit *test)
{
	struct page *block = isolated_block(test);
	struct pin_gate_waiter wait;

	KUNIT_EXPECT_FALSE(test, pin_gate_prepare_to_wait(&wait, block));
	pin_gate_close(block);
	pin_gate_open(block);
	KUNIT_EXPECT_FALSE(test, pin_gate_prepare_to_wait(&wait, block));
	/* Were one of them still queued, this would find out. */
	memset(&wait, 0, sizeof(wait));
	pin_gate_wake(block);
}

/*
 * Another block number that shares the wait queue, however many queues there
 * are up to 2^16: the hash is the upper bits of a product.
 */
static unsigned long colliding_key(unsigned long block)
{
	unsigned long key = block + 1;

	while (hash_long(key, 16) != hash_long(block, 16))
		key++;
	return key;
}

static void colliding_keys(struct kunit *test)
{
	struct page *block = gated_block(test);
	unsigned long nr = page_to_pfn(block) >> pageblock_order;
	struct waiter *other, *w;

	other = start_waiter_for(test, block, 5 * SHORT_WAIT, colliding_key(nr));
	w = start_waiter(test, block, LONG_WAIT);
	pin_gate_wake(block);
	expect_woken(test, w);

	w = start_waiter(test, block, LONG_WAIT);
	pin_gate_open(block);
	expect_woken(test, w);

	expect_timed_out(test, other);
}

#define RACE_ROUNDS	2000

struct racer {
	struct page *block;
	bool stop;
	bool late;
	struct completion go;
	struct completion done;
	struct completion exited;
};

static int racer_fn(void *data)
{
	struct pin_gate_waiter wait;
	struct racer *r = data;

	for (;;) {
		unsigned long deadline;

		wait_for_completion(&r->go);
		if (r->stop)
			break;
		deadline = jiffies + LONG_WAIT;
		if (pin_gate_prepare_to_wait(&wait, r->block))
			pin_gate_wait(&wait, deadline);
		if (time_after_eq(jiffies, deadline))
			r->late = true;
		complete(&r->done);
	}
	complete(&r->exited);
	return 0;
}

static void stop_racer(void *data)
{
	struct racer *r = data;

	r->stop = true;
	complete(&r->go);
	wait_for_completion(&r->exited);
}

/* The gate opens while somebody queues up, each time at another moment. */
static void open_races_with_wait(struct kunit *test)
{
	struct task_struct *task;
	struct racer *r;
	int i;

	r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r);
	r->block = isolated_block(test);
	init_completion(&r->go);
	init_completion(&r->done);
	init_completion(&r->exited);
	task = kthread_run(racer_fn, r, "pin_gate_racer");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	at_exit(test, stop_racer, r);

	for (i = 0; i < RACE_ROUNDS; i++) {
		pin_gate_close(r->block);
		complete(&r->go);
		udelay(i % 100);
		pin_gate_open(r->block);
		wait_for_completion(&r->done);
		KUNIT_ASSERT_FALSE_MSG(test, r->late,
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
	struct page *other = isolated_block(test);

	pin_gate_open(block);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed);

	pin_gate_close(block);
	pin_gate_close(block + 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 1);
	KUNIT_EXPECT_TRUE(test, pin_gates_closed());
	pin_gate_close(other);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 2);

	pin_gate_open(block);
	pin_gate_open(block);
	KUNIT_EXPECT_FALSE(test, page_pin_gated(block));
	KUNIT_EXPECT_TRUE(test, page_pin_gated(other));
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 1);
	KUNIT_EXPECT_TRUE(test, pin_gates_closed());

	pin_gate_open(other);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed);
}

/* Who fails to isolate a range leaves the gate of its owner alone. */
static void overlapping_isolators(struct kunit *test)
{
	int closed = atomic_read(&nr_pin_gates_closed);
	unsigned long first = isolate_two_blocks(test);
	unsigned long second = first + pageblock_nr_pages;
	unsigned long end = second + pageblock_nr_pages;
	struct page *page = pfn_to_page(second);

	undo_isolate_page_range(first, second);
	pin_gate_close(page);

	KUNIT_EXPECT_EQ(test, isolate(second, end), -EBUSY);
	KUNIT_EXPECT_EQ(test, isolate(first, end), -EBUSY);
	KUNIT_EXPECT_EQ(test, alloc_contig_range(first, end, ACR_FLAGS_NONE,
						 GFP_KERNEL), -EBUSY);
	KUNIT_EXPECT_FALSE(test, get_pageblock_isolate(pfn_to_page(first)));
	KUNIT_EXPECT_TRUE(test, get_pageblock_isolate(page));
	KUNIT_EXPECT_TRUE(test, page_pin_gated(page));
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed), closed + 1);

	pin_gate_open(page);
	undo_isolate_page_range(second, end);
	KUNIT_ASSERT_EQ(test, isolate(first, end), 0);
	KUNIT_EXPECT_FALSE(test, page_pin_gated(pfn_to_page(first)));
	KUNIT_EXPECT_FALSE(test, page_pin_gated(page));
}

/*
 * GUP. The user pages are parts of pageblocks that the test allocated, where it
 * matters which; else anonymous ones, in a pageblock that can be isolated.
 */

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

typedef long pin_fn(unsigned long addr, unsigned long nr, unsigned int flags,
		    struct page **pages);

static const struct pin_call {
	const char *name;
	pin_fn *pin;
} pin_calls[] = {
	{ "pin_user_pages_fast", pin_fast },
	{ "pin_user_pages_unlocked", pin_unlocked },
	{ "pin_user_pages_remote", pin_remote },
};

KUNIT_ARRAY_PARAM_DESC(pin_call, pin_calls, name);

static unsigned long map_page(struct kunit *test, struct page *page)
{
	return map_pages(test, &page, 1);
}

struct gup_call {
	struct gated_call gc;
	const struct pin_call *pin_call;
	unsigned long addr;
	unsigned int flags;
	struct page **pinned;
};

static long call_gup(struct gated_call *gc)
{
	struct gup_call *gup = container_of(gc, struct gup_call, gc);

	return gup->pin_call->pin(gup->addr, gc->nr, gup->flags, gup->pinned);
}

static void undo_gup(struct gated_call *gc, long ret)
{
	struct gup_call *gup = container_of(gc, struct gup_call, gc);

	unpin_user_pages(gup->pinned, ret);
}

static void expect_pin_waits(struct kunit *test, const struct pin_call *pin_call,
			     struct page *page, unsigned long addr,
			     unsigned int flags, int (*opener)(void *data))
{
	struct page *pinned = NULL;
	struct gup_call gup = {
		.gc = {
			.call = call_gup, .undo = undo_gup, .opener = opener,
			.block = page, .pages = &page, .nr = 1,
		},
		.pin_call = pin_call,
		.addr = addr, .flags = flags, .pinned = &pinned,
	};

	KUNIT_ASSERT_EQ(test, call_while_gated(test, &gup.gc), 1);
	KUNIT_EXPECT_PTR_EQ(test, pinned, page);
	KUNIT_EXPECT_TRUE(test, folio_maybe_dma_pinned(page_folio(page)));
	unpin_user_page(pinned);
}

static void pin_waits(struct kunit *test)
{
	struct page *page = isolated_block(test) + pageblock_nr_pages / 3;

	expect_pin_waits(test, test->param_value, page, map_page(test, page),
			 FOLL_WRITE, NULL);
}

/* The slow path refuses to read such memory, but GUP-fast can pin it. */
static unsigned long map_page_unreadable(struct kunit *test, struct page *page)
{
	unsigned long addr = map_page(test, page);

	if (!IS_ENABLED(CONFIG_HAVE_GUP_FAST))
		kunit_skip(test, "needs CONFIG_HAVE_GUP_FAST");
	mmap_write_lock(current->mm);
	vm_flags_clear(vma_lookup(current->mm, addr), VM_READ);
	mmap_write_unlock(current->mm);
	return addr;
}

static void pin_fast_waits_itself(struct kunit *test)
{
	struct page *page = isolated_block(test);

	expect_pin_waits(test, &pin_calls[0], page,
			 map_page_unreadable(test, page), 0, NULL);
}

/* When the gate opens, the page is gone; it comes back as if it had moved. */
static int unmap_and_open_gate(void *data)
{
	struct opener *o = data;
	struct gup_call *gup = container_of(o->gc, struct gup_call, gc);
	struct vm_area_struct *vma;

	opener_await(o, 1);
	mmap_write_lock(o->mm);
	vma = vma_lookup(o->mm, gup->addr);
	zap_vma_range(vma, gup->addr, PAGE_SIZE);
	mmap_write_unlock(o->mm);
	opener_open(o);

	msleep(50);
	mmap_write_lock(o->mm);
	WARN_ON(vm_insert_page(vma, gup->addr, o->gc->pages[0]));
	mmap_write_unlock(o->mm);
	return opener_exit(o);
}

static void pin_fast_retries_fault(struct kunit *test)
{
	struct page *page = isolated_block(test);

	expect_pin_waits(test, &pin_calls[0], page,
			 map_page_unreadable(test, page), 0,
			 unmap_and_open_gate);
}

/* With nobody to open the gate */
static void pin_deadline(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);
	struct page *block = gated_block(test);
	unsigned long addr = map_page(test, block);
	unsigned long start = jiffies;
	struct page *pinned = NULL;

	KUNIT_ASSERT_EQ(test, pin_call->pin(addr, 1, FOLL_WRITE, &pinned), 1);
	KUNIT_EXPECT_FALSE(test,
			   time_before(jiffies, start + PIN_GATE_MAX_WAIT));
	KUNIT_EXPECT_PTR_EQ(test, pinned, block);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts + 1);
	KUNIT_EXPECT_TRUE(test, page_pin_gated(block));
	unpin_user_page(pinned);
	pin_gate_open(block);
}

static void expect_pins_at_once(struct kunit *test, pin_fn *pin,
				unsigned int flags, unsigned long addr,
				struct page *page)
{
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct page *pinned = NULL;

	KUNIT_ASSERT_EQ(test, pin(addr, 1, flags | FOLL_WRITE, &pinned), 1);
	KUNIT_EXPECT_PTR_EQ(test, pinned, page);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	unpin_user_page(pinned);
}

/* Those who hold something, or cannot sleep */
static void pin_flags(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	struct page *block = gated_block(test);
	unsigned long addr = map_page(test, block);

	expect_pins_at_once(test, pin_call->pin, FOLL_PIN_NOGATE, addr, block);
	expect_pins_at_once(test, pin_call->pin, FOLL_NOFAULT, addr, block);
	if (pin_call->pin != pin_fast)
		expect_pins_at_once(test, pin_call->pin, FOLL_NOWAIT, addr, block);
	pin_gate_open(block);
}

static void pin_in_other_block(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	struct page *gated = gated_block(test);
	struct page *block = isolated_block(test);

	expect_pins_at_once(test, pin_call->pin, 0, map_page(test, block), block);
	pin_gate_open(gated);
}

static void expect_exempt(struct kunit *test, void *data)
{
	struct gup_call *gup = data;

	expect_pins_at_once(test, gup->pin_call->pin, 0, gup->addr, gup->gc.block);
}

static void pin_exempt(struct kunit *test)
{
	struct gup_call gup = {
		.gc.block = gated_block(test),
		.pin_call = test->param_value,
	};

	gup.addr = map_page(test, gup.gc.block);
	as_exempt_tasks(test, expect_exempt, &gup);
	pin_gate_open(gup.gc.block);
}

static long pin_locked(unsigned long addr, unsigned long nr,
		       unsigned int flags, struct page **pages)
{
	long ret;

	mmap_read_lock(current->mm);
	ret = pin_user_pages(addr, nr, flags, pages);
	mmap_read_unlock(current->mm);
	return ret;
}

/* The caller holds the mmap_lock, and GUP cannot release it. */
static void pin_under_mmap_lock(struct kunit *test)
{
	struct page *block = gated_block(test);

	expect_pins_at_once(test, pin_locked, 0, map_page(test, block), block);
	pin_gate_open(block);
}

/* FOLL_GET is not gated. */
static void get_does_not_wait(struct kunit *test)
{
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct page *block = gated_block(test);
	unsigned long addr = map_page(test, block);
	struct page *page = NULL;

	KUNIT_ASSERT_EQ(test, get_user_pages_fast(addr, 1, FOLL_WRITE, &page),
			1);
	KUNIT_EXPECT_PTR_EQ(test, page, block);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	put_page(page);
	pin_gate_open(block);
}

struct many_pages {
	struct page *blocks[NR_BLOCKS];
	struct page *pages[NR_PAGES];
	struct page *pinned[NR_PAGES];
};

/* User pages in several pageblocks, one after the other */
static struct many_pages *many_pages(struct kunit *test)
{
	const unsigned long per_block = NR_PAGES / NR_BLOCKS;
	struct many_pages *many;
	unsigned long i;

	if (per_block > pageblock_nr_pages)
		kunit_skip(test, "pageblocks are too small");
	many = kunit_kzalloc(test, sizeof(*many), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, many);
	for (i = 0; i < NR_BLOCKS; i++)
		many->blocks[i] = isolated_block(test);
	for (i = 0; i < NR_PAGES; i++)
		many->pages[i] = many->blocks[i / per_block] + i % per_block;
	return many;
}

/*
 * With a @hole, GUP-fast pins what is before it, and leaves the rest to the
 * slow path, which alone meets the gate.
 */
static void pin_many_pages(struct kunit *test, const struct pin_call *pin_call,
			   int gated, int hole)
{
	struct many_pages *many = many_pages(test);
	struct gup_call gup = {
		.gc = {
			.call = call_gup, .undo = undo_gup,
			.block = many->blocks[gated],
			.pages = many->pages, .nr = NR_PAGES,
		},
		.pin_call = pin_call,
		.flags = FOLL_WRITE, .pinned = many->pinned,
	};
	int i;

	if (hole >= 0)
		many->pages[hole] = NULL;
	gup.addr = map_pages(test, many->pages, NR_PAGES);
	KUNIT_ASSERT_EQ(test, call_while_gated(test, &gup.gc), NR_PAGES);
	for (i = 0; i < NR_PAGES; i++) {
		if (i != hole)
			KUNIT_EXPECT_PTR_EQ(test, many->pinned[i],
					    many->pages[i]);
	}
	KUNIT_EXPECT_TRUE(test, any_pinned(many->pages, NR_PAGES));
	unpin_user_pages(many->pinned, NR_PAGES);
	KUNIT_EXPECT_FALSE(test, any_pinned(many->pages, NR_PAGES));
}

static void pin_many_last_gated(struct kunit *test)
{
	pin_many_pages(test, test->param_value, NR_BLOCKS - 1, -1);
}

static void pin_many_first_gated(struct kunit *test)
{
	pin_many_pages(test, test->param_value, 0, -1);
}

static void pin_many_with_hole(struct kunit *test)
{
	pin_many_pages(test, test->param_value, NR_BLOCKS - 1, NR_PAGES / 2);
}

/* Neither GUP-fast nor the slow path waits. */
static void pin_many_nogate(struct kunit *test)
{
	const struct pin_call *pin_call = test->param_value;
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct many_pages *many = many_pages(test);
	unsigned long addr;

	many->pages[NR_PAGES / 2] = NULL;
	addr = map_pages(test, many->pages, NR_PAGES);
	pin_gate_close(many->blocks[NR_BLOCKS - 1]);
	KUNIT_ASSERT_EQ(test, pin_call->pin(addr, NR_PAGES,
					    FOLL_WRITE | FOLL_PIN_NOGATE,
					    many->pinned), NR_PAGES);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	unpin_user_pages(many->pinned, NR_PAGES);
	pin_gate_open(many->blocks[NR_BLOCKS - 1]);
}

/*
 * The bound is for the call, not for each gate it meets. With a @hole, GUP-fast
 * and the slow path meet some.
 */
static void expect_one_bound(struct kunit *test, int hole)
{
	const struct pin_call *pin_call = test->param_value;
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);
	struct many_pages *many = many_pages(test);
	unsigned long addr;
	int i;

	if (hole >= 0)
		many->pages[hole] = NULL;
	addr = map_pages(test, many->pages, NR_PAGES);
	for (i = 0; i < NR_BLOCKS; i++)
		pin_gate_close(many->blocks[i]);
	KUNIT_ASSERT_EQ(test, pin_call->pin(addr, NR_PAGES, FOLL_WRITE,
					    many->pinned), NR_PAGES);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts + 1);
	unpin_user_pages(many->pinned, NR_PAGES);
	for (i = 0; i < NR_BLOCKS; i++)
		pin_gate_open(many->blocks[i]);
}

static void pin_many_deadline(struct kunit *test)
{
	expect_one_bound(test, -1);
}

static void pin_many_deadline_with_hole(struct kunit *test)
{
	expect_one_bound(test, NR_PAGES / 2);
}

/*
 * Anonymous memory and page cache, isolated as CMA does it
 */

#define MARK	0x70696e67617465UL

static unsigned long page_mark(struct page *page)
{
	unsigned long mark;

	memcpy_from_page((char *)&mark, page, 0, sizeof(mark));
	return mark;
}

/* Anonymous user memory; the address of a page whose block is now isolated. */
static unsigned long isolated_anon_page(struct kunit *test, struct page **page)
{
	unsigned long addr = map_user(test, NR_CANDIDATES, MAP_PRIVATE);
	unsigned long i, end = addr + NR_CANDIDATES * PAGE_SIZE;

	for (i = addr; i < end; i += PAGE_SIZE)
		KUNIT_ASSERT_EQ(test, put_user(MARK + i,
					       (unsigned long __user *)i), 0);
	/* What is not on the LRU list looks unmovable. */
	lru_add_drain_all();

	for (i = addr; i < end; i += PAGE_SIZE) {
		KUNIT_ASSERT_EQ(test, pin_user_pages_fast(i, 1, FOLL_WRITE,
							  page), 1);
		unpin_user_page(*page);
		if (isolate_until_exit(test, page_to_pfn(*page), 1))
			return i;
	}
	kunit_skip(test, "no pageblock of a user page can be isolated");
}

static void pin_anon(struct kunit *test)
{
	struct page *page;
	unsigned long addr = isolated_anon_page(test, &page);

	expect_pin_waits(test, test->param_value, page, addr, FOLL_WRITE, NULL);
	KUNIT_EXPECT_EQ(test, page_mark(page), MARK + addr);
}

/* After the wait, the page is migrated, as the block is still isolated. */
static void pin_longterm(struct kunit *test)
{
	struct page *page, *pinned = NULL;
	struct gup_call gup = {
		.gc = {
			.call = call_gup, .undo = undo_gup,
			.pages = &page, .nr = 1, .moves = true,
		},
		.pin_call = test->param_value,
		.flags = FOLL_WRITE | FOLL_LONGTERM, .pinned = &pinned,
	};

	gup.addr = isolated_anon_page(test, &page);
	gup.gc.block = page;
	KUNIT_ASSERT_EQ(test, call_while_gated(test, &gup.gc), 1);
	KUNIT_EXPECT_FALSE(test, get_pageblock_isolate(pinned));
	KUNIT_EXPECT_EQ(test, page_mark(pinned), MARK + gup.addr);
	unpin_user_page(pinned);
}

static void put_file(void *file)
{
	fput(file);
}

/* A page of shared memory whose block is now isolated */
static struct page *isolated_shmem_page(struct kunit *test, struct file **file)
{
	struct folio *folio;
	unsigned long i;

	*file = shmem_file_setup("pin_gate", NR_CANDIDATES * PAGE_SIZE,
				 EMPTY_VMA_FLAGS);
	KUNIT_ASSERT_FALSE(test, IS_ERR(*file));
	at_exit(test, put_file, *file);

	for (i = 0; i < NR_CANDIDATES; i++) {
		folio = shmem_read_folio((*file)->f_mapping, i);
		KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
		folio_put(folio);
	}
	lru_add_drain_all();

	for (i = 0; i < NR_CANDIDATES; i++) {
		folio = shmem_read_folio((*file)->f_mapping, i);
		KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
		folio_put(folio);
		if (isolate_until_exit(test, folio_pfn(folio), 1))
			return &folio->page;
	}
	kunit_skip(test, "no pageblock of a shmem page can be isolated");
}

/* As with FOLL_LONGTERM */
static void pin_memfd(struct kunit *test)
{
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct folio *folio = NULL;
	struct page *page;
	struct file *file;
	pgoff_t index, offset;

	if (!IS_ENABLED(CONFIG_MEMFD_CREATE) || !IS_ENABLED(CONFIG_SHMEM))
		kunit_skip(test, "needs CONFIG_MEMFD_CREATE and CONFIG_SHMEM");
	page = isolated_shmem_page(test, &file);
	index = page_folio(page)->index;
	pin_gate_close(page);
	KUNIT_ASSERT_EQ(test, memfd_pin_folios(file, (loff_t)index << PAGE_SHIFT,
					       (loff_t)index << PAGE_SHIFT,
					       &folio, 1, &offset), 1);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	KUNIT_EXPECT_PTR_EQ(test, folio->mapping, file->f_mapping);
	KUNIT_EXPECT_EQ(test, folio->index, index);
	KUNIT_EXPECT_FALSE(test, get_pageblock_isolate(&folio->page));
	unpin_folios(&folio, 1);
	pin_gate_open(page);
}

static struct kunit_case pin_gate_cases[] = {
	KUNIT_CASE(pageblock_bits),
	KUNIT_CASE(gate_covers_block),
	KUNIT_CASE(open_wakes),
	KUNIT_CASE(wake_wakes),
	KUNIT_CASE(other_page_wakes),
	KUNIT_CASE(deadline_wakes),
	KUNIT_CASE(past_deadline_does_not_sleep),
	KUNIT_CASE(early_wake_is_not_lost),
	KUNIT_CASE(open_gate_does_not_queue),
	KUNIT_CASE(colliding_keys),
	KUNIT_CASE_SLOW(open_races_with_wait),
	KUNIT_CASE(close_and_open_twice),
	KUNIT_CASE(overlapping_isolators),
	KUNIT_CASE_PARAM(pin_waits, pin_call_gen_params),
	KUNIT_CASE(pin_fast_waits_itself),
	KUNIT_CASE(pin_fast_retries_fault),
	KUNIT_CASE_PARAM(pin_deadline, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_flags, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_in_other_block, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_exempt, pin_call_gen_params),
	KUNIT_CASE(pin_under_mmap_lock),
	KUNIT_CASE(get_does_not_wait),
	KUNIT_CASE_PARAM(pin_many_last_gated, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_many_first_gated, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_many_with_hole, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_many_nogate, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_many_deadline, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_many_deadline_with_hole, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_anon, pin_call_gen_params),
	KUNIT_CASE_PARAM(pin_longterm, pin_call_gen_params),
	KUNIT_CASE(pin_memfd),
	{}
};

static struct kunit_suite pin_gate_suite = {
	.name = "pin_gate",
	.suite_init = pin_gate_init_suite,
	.init = pin_gate_init_case,
	.exit = pin_gate_exit_case,
	.test_cases = pin_gate_cases,
};

kunit_test_suite(pin_gate_suite);

MODULE_DESCRIPTION("Tests of the pin gate");
MODULE_LICENSE("GPL");
