/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of the pin gate have in common: pageblocks that can have a
 * gate, user memory in them, and somebody who opens the gate while somebody
 * else waits at it.
 */
#ifndef _MM_TESTS_PIN_GATE_KUNIT_H
#define _MM_TESTS_PIN_GATE_KUNIT_H

#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/page-isolation.h>
#include <linux/pin_gate.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>
#include "../internal.h"

static inline void at_exit(struct kunit *test, kunit_action_t *action, void *arg)
{
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, action, arg), 0);
}

static inline unsigned long nr_events(enum vm_event_item item)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu(vm_event_states, cpu).event[item];
	return sum;
}

/*
 * Before each test, and after all that it leaves to at_exit(): pins taken are
 * pins released, and no gate is left closed.
 */

struct balance {
	struct kunit *test;
	long nr_pins;
	int nr_closed;
};

static inline long sum_node_stat(enum node_stat_item item)
{
	pg_data_t *pgdat;
	long sum = 0;
	int cpu;

	for_each_online_pgdat(pgdat) {
		sum += atomic_long_read(&pgdat->vm_stat[item]);
		for_each_possible_cpu(cpu)
			sum += per_cpu_ptr(pgdat->per_cpu_nodestats,
					   cpu)->vm_node_stat_diff[item];
	}
	return sum;
}

/*
 * A count on its way from a CPU into the global one can be missed: believe what
 * two looks agree on.
 */
static inline long node_stat(enum node_stat_item item)
{
	long before, sum = sum_node_stat(item);

	do {
		before = sum;
		sum = sum_node_stat(item);
	} while (sum != before);
	return sum;
}

/* How many pins are held in the whole system? */
static inline long nr_pins(void)
{
	return node_stat(NR_FOLL_PIN_ACQUIRED) - node_stat(NR_FOLL_PIN_RELEASED);
}

static inline void expect_balance(void *data)
{
	struct balance *before = data;
	int i;

	/* What others release can take a moment: look again. */
	for (i = 0; i < 100 && nr_pins() != before->nr_pins; i++)
		msleep(20);
	KUNIT_EXPECT_EQ(before->test, nr_pins(), before->nr_pins);
	KUNIT_EXPECT_EQ(before->test, atomic_read(&nr_pin_gates_closed),
			before->nr_closed);
}

static inline int pin_gate_init_case(struct kunit *test)
{
	struct balance *before;

	before = kunit_kzalloc(test, sizeof(*before), GFP_KERNEL);
	if (!before)
		return -ENOMEM;
	before->test = test;
	before->nr_pins = nr_pins();
	before->nr_closed = atomic_read(&nr_pin_gates_closed);
	return kunit_add_action(test, expect_balance, before);
}

static inline int pin_gate_init_suite(struct kunit_suite *suite)
{
	/* As the first CMA area does, if there is one */
	static_branch_enable(&pin_gate_key);
	return 0;
}

/*
 * Memory
 */

static inline void free_block(void *data)
{
	struct page *block = data;

	pin_gate_open(block);
	clear_pageblock_isolate(block);
	put_page(block);
}

/*
 * A pageblock that is one allocation, isolated. As it has no free pages, the
 * allocator does not mind that its bit is set by hand.
 */
static inline struct page *isolated_block(struct kunit *test)
{
	struct page *block;

	block = alloc_pages(GFP_KERNEL | __GFP_COMP | __GFP_NOWARN,
			    pageblock_order);
	if (!block)
		kunit_skip(test, "no free pageblock left: boot with more memory");
	set_pageblock_isolate(block);
	at_exit(test, free_block, block);
	return block;
}

static inline unsigned long map_user(struct kunit *test, unsigned long nr, int flags)
{
	unsigned long addr;

	addr = kunit_vm_mmap(test, NULL, 0, nr * PAGE_SIZE,
			     PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, 0);
	KUNIT_ASSERT_NE(test, addr, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));
	return addr;
}

/* Map these pages, as a driver would; but leave a hole for any that is NULL. */
static inline unsigned long map_pages(struct kunit *test, struct page **pages,
				      unsigned long nr)
{
	unsigned long addr = map_user(test, nr, MAP_SHARED);
	struct vm_area_struct *vma;
	unsigned long i;
	int ret = 0;

	mmap_write_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	for (i = 0; i < nr && !ret; i++) {
		if (pages[i])
			ret = vm_insert_page(vma, addr + i * PAGE_SIZE,
					     pages[i]);
	}
	mmap_write_unlock(current->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
	return addr;
}

static inline bool any_pinned(struct page **pages, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		if (pages[i] && folio_maybe_dma_pinned(page_folio(pages[i])))
			return true;
	}
	return false;
}

/*
 * Waits
 */

/*
 * Something that waits while a gate is closed. If it returns > 0, it holds pins
 * and has an undo().
 */
struct gated_call {
	long (*call)(struct gated_call *gc);
	void (*undo)(struct gated_call *gc, long ret);
	work_func_t open;		/* instead of wake_and_open() */
	struct page *block;		/* whose gate is closed */
	struct page **pages;		/* not to be pinned in the meantime */
	struct page **result;		/* nor to be here then, unless NULL */
	unsigned long nr;
	bool moves;			/* the page leaves the block: only once */

	struct work_struct opener;
	struct task_struct *task;
	unsigned long waits;		/* how many there were before */
	const char *held;		/* what should not be, at that time */
	bool cancel;
	bool waited;			/* until the gate was open */
	bool late;			/* ran into the bound */
};

static inline void await_waits(struct gated_call *gc, unsigned long waits)
{
	while (nr_events(PIN_GATE_WAIT) - gc->waits < waits &&
	       !READ_ONCE(gc->cancel))
		usleep_range(500, 1000);
}

/* Whoever else has the lock releases it soon; one who waits does not. */
static inline bool mmap_lock_is_held(struct mm_struct *mm)
{
	int i;

	for (i = 0; i < 10; i++) {
		if (!rwsem_is_locked(&mm->mmap_lock))
			return false;
		usleep_range(500, 1000);
	}
	return true;
}

static inline void open_gate(struct gated_call *gc)
{
	if (any_pinned(gc->pages, gc->nr))
		gc->held = "pins";
	else if (gc->result && memchr_inv(gc->result, 0, gc->nr * sizeof(gc->result[0])))
		gc->held = "pointers to pages";
	else if (mmap_lock_is_held(gc->task->mm))
		gc->held = "the mmap_lock";
	pin_gate_open(gc->block);
}

/* After somebody waits, and waits again after a wake */
static inline void wake_and_open(struct work_struct *work)
{
	struct gated_call *gc = container_of(work, struct gated_call, opener);

	await_waits(gc, 1);
	msleep(50);
	/* Nothing has changed: whoever looks has to wait again. */
	pin_gate_wake(gc->block);
	await_waits(gc, 2);
	open_gate(gc);
}

/* So late that the call has to return before that */
static inline void await_return(struct gated_call *gc)
{
	int i;

	for (i = 0; i < 100 && !READ_ONCE(gc->cancel); i++)
		schedule_timeout_uninterruptible(PIN_GATE_MAX_WAIT / 10);
}

static inline void open_late(struct work_struct *work)
{
	struct gated_call *gc = container_of(work, struct gated_call, opener);
	unsigned long i;

	await_return(gc);
	for (i = 0; i < gc->nr; i++) {
		if (gc->pages[i])
			pin_gate_open(gc->pages[i]);
	}
}

static inline long call_gated(struct gated_call *gc)
{
	unsigned long start;
	long ret;

	gc->task = current;
	gc->waits = nr_events(PIN_GATE_WAIT);
	gc->held = NULL;
	gc->cancel = false;
	pin_gate_close(gc->block);
	INIT_WORK(&gc->opener, gc->open ?: wake_and_open);
	queue_work(system_dfl_long_wq, &gc->opener);

	start = jiffies;
	ret = gc->call(gc);
	gc->waited = !page_pin_gated(gc->block);
	gc->late = time_after_eq(jiffies, start + PIN_GATE_MAX_WAIT);

	WRITE_ONCE(gc->cancel, true);
	flush_work(&gc->opener);
	return ret;
}

/*
 * Make the call, which must not return until the gate opens, and must hold
 * neither a pin nor the mmap_lock until then. On a slow machine, a wait can run
 * into its bound: then it tells nothing, and is tried again.
 */
static inline long call_while_gated(struct kunit *test, struct gated_call *gc)
{
	long ret;
	int i;

	for (i = 0; i < 5; i++) {
		ret = call_gated(gc);
		if (!gc->late) {
			KUNIT_EXPECT_TRUE_MSG(test, gc->waited, "did not wait");
			KUNIT_EXPECT_NULL_MSG(test, gc->held,
					      "waited with %s held", gc->held);
			return ret;
		}
		if (ret > 0)
			gc->undo(gc, ret);
		if (gc->moves)
			kunit_skip(test, "the machine is too slow: the wait ran into its bound");
	}
	KUNIT_FAIL_AND_ABORT(test, "all waits ran into their bound");
}

/* With nobody to open the gate: it must go on after that time. */
static inline long call_until_bound(struct kunit *test, struct gated_call *gc)
{
	long ret;

	gc->open = open_late;
	ret = call_gated(gc);
	KUNIT_EXPECT_TRUE_MSG(test, gc->late, "gave up too early");
	KUNIT_EXPECT_FALSE_MSG(test, gc->waited, "did not give up");
	return ret;
}

/* Do this as those on whom the closer may depend, and those who cannot sleep. */
static inline void as_exempt_tasks(struct kunit *test,
				   void (*fn)(struct kunit *test, void *arg),
				   void *arg)
{
	static const unsigned int flags[] = {
		PF_MEMALLOC, PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO,
		PF_LOCAL_THROTTLE, PF_DUMPCORE,
	};
	const unsigned int old = current->flags;
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		current->flags |= flags[i];
		fn(test, arg);
		current_restore_flags(old, flags[i]);
	}

	current->journal_info = &i;
	fn(test, arg);
	current->journal_info = NULL;

	pagefault_disable();
	fn(test, arg);
	pagefault_enable();
}

#endif /* _MM_TESTS_PIN_GATE_KUNIT_H */
