/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of the pin gate have in common: pageblocks whose gate can be
 * closed, user memory in them, and somebody who opens the gate while somebody
 * else waits at it.
 */
#ifndef _MM_TESTS_PIN_GATE_KUNIT_H
#define _MM_TESTS_PIN_GATE_KUNIT_H

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/page-isolation.h>
#include <linux/pin_gate.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

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

static inline long node_stat(pg_data_t *pgdat, enum node_stat_item item)
{
	long sum = atomic_long_read(&pgdat->vm_stat[item]);
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu_ptr(pgdat->per_cpu_nodestats,
				   cpu)->vm_node_stat_diff[item];
	return sum;
}

static inline long sum_pins(void)
{
	pg_data_t *pgdat;
	long sum = 0;

	for_each_online_pgdat(pgdat)
		sum += node_stat(pgdat, NR_FOLL_PIN_ACQUIRED) -
		       node_stat(pgdat, NR_FOLL_PIN_RELEASED);
	return sum;
}

/*
 * How many pins are held in the whole system? A count on its way from a CPU into
 * the global one can be missed: believe what two looks agree on.
 */
static inline long nr_pins(void)
{
	long before, sum = sum_pins();

	do {
		before = sum;
		sum = sum_pins();
	} while (sum != before);
	return sum;
}

/* What others release can take a moment: look again. */
static inline void expect_nr_pins(struct kunit *test, long expected)
{
	int i;

	for (i = 0; i < 100 && nr_pins() != expected; i++)
		msleep(20);
	KUNIT_EXPECT_EQ(test, nr_pins(), expected);
}

/*
 * Pageblocks
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
		kunit_skip(test, "no free pageblock left");
	set_pageblock_isolate(block);
	at_exit(test, free_block, block);
	return block;
}

static inline struct page *gated_block(struct kunit *test)
{
	struct page *block = isolated_block(test);

	pin_gate_close(block);
	KUNIT_ASSERT_TRUE(test, page_pin_gated(block));
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

/*
 * Something that waits while a gate is closed. If it returns > 0, it holds pins
 * and has an undo().
 */
struct gated_call {
	long (*call)(struct gated_call *gc);
	void (*undo)(struct gated_call *gc, long ret);
	struct page *block;		/* whose gate is closed */
	struct page **pages;		/* not to be pinned in the meantime */
	unsigned long nr;
	bool moves;			/* the page leaves the block: only once */
	int (*opener)(void *data);	/* opens the gate instead of open_gate() */
};

/* Opens a gate after it has seen that somebody waits, and again after a wake. */
struct opener {
	struct gated_call *gc;
	struct mm_struct *mm;
	unsigned long waits;		/* how many there were before */
	bool saw_pin;
	bool saw_lock;
	bool opened;
	bool cancel;
	struct completion done;
};

static inline bool any_pinned(struct page **pages, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		if (pages[i] && folio_maybe_dma_pinned(page_folio(pages[i])))
			return true;
	}
	return false;
}

static inline void opener_await(struct opener *o, unsigned long waits)
{
	while (nr_events(PIN_GATE_WAIT) - o->waits < waits &&
	       !READ_ONCE(o->cancel))
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

static inline void opener_open(struct opener *o)
{
	o->saw_pin = any_pinned(o->gc->pages, o->gc->nr);
	o->saw_lock = mmap_lock_is_held(o->mm);
	WRITE_ONCE(o->opened, true);
	pin_gate_open(o->gc->block);
}

static inline int opener_exit(struct opener *o)
{
	mmput(o->mm);
	complete_all(&o->done);
	return 0;
}

static inline int open_gate(void *data)
{
	struct opener *o = data;

	opener_await(o, 1);
	msleep(50);
	/* Nothing has changed: whoever looks has to wait again. */
	pin_gate_wake(o->gc->block);
	opener_await(o, 2);
	opener_open(o);
	return opener_exit(o);
}

static inline void stop_opener(void *data)
{
	struct opener *o = data;

	WRITE_ONCE(o->cancel, true);
	wait_for_completion(&o->done);
}

static inline struct opener *start_opener(struct kunit *test,
					  struct gated_call *gc)
{
	struct task_struct *task;
	struct opener *o;

	o = kunit_kzalloc(test, sizeof(*o), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, o);
	o->gc = gc;
	o->mm = current->mm;
	o->waits = nr_events(PIN_GATE_WAIT);
	init_completion(&o->done);
	mmget(o->mm);
	task = kthread_run(gc->opener ?: open_gate, o, "pin_gate_opener");
	if (IS_ERR(task))
		mmput(o->mm);
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	at_exit(test, stop_opener, o);
	return o;
}

static inline bool wait_was_conclusive(struct kunit *test, struct gated_call *gc,
				       long *ret)
{
	struct opener *o;
	unsigned long start;
	bool opened;

	pin_gate_close(gc->block);
	o = start_opener(test, gc);
	start = jiffies;
	*ret = gc->call(gc);
	opened = READ_ONCE(o->opened);
	if (!time_before(jiffies, start + PIN_GATE_MAX_WAIT)) {
		stop_opener(o);
		return false;
	}
	stop_opener(o);
	KUNIT_EXPECT_TRUE_MSG(test, opened, "did not wait");
	KUNIT_EXPECT_FALSE_MSG(test, o->saw_pin, "waited with pins held");
	KUNIT_EXPECT_FALSE_MSG(test, o->saw_lock, "waited with the mmap_lock held");
	return true;
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
		if (wait_was_conclusive(test, gc, &ret))
			return ret;
		if (ret > 0)
			gc->undo(gc, ret);
		if (gc->moves)
			kunit_skip(test, "the wait ran into its bound");
	}
	KUNIT_FAIL_AND_ABORT(test, "all waits ran into their bound");
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

/*
 * Before each test, and after it: pins taken are pins released, and no gate is
 * left closed.
 */
struct balance {
	long nr_pins;
	int nr_closed;
};

static inline int pin_gate_init_suite(struct kunit_suite *suite)
{
	/* As the first CMA area does, if there is one */
	static_branch_enable(&pin_gate_key);
	return 0;
}

static inline int pin_gate_init_case(struct kunit *test)
{
	struct balance *before;

	before = kunit_kzalloc(test, sizeof(*before), GFP_KERNEL);
	if (!before)
		return -ENOMEM;
	before->nr_pins = nr_pins();
	before->nr_closed = atomic_read(&nr_pin_gates_closed);
	test->priv = before;
	return 0;
}

static inline void pin_gate_exit_case(struct kunit *test)
{
	struct balance *before = test->priv;

	if (!before)
		return;
	expect_nr_pins(test, before->nr_pins);
	KUNIT_EXPECT_EQ(test, atomic_read(&nr_pin_gates_closed),
			before->nr_closed);
}

#endif /* _MM_TESTS_PIN_GATE_KUNIT_H */
