// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test of the pin gate by way of the DMA API: a coherent allocation of a driver
 * waits for the pins that are in its way, for as long as the budget allows.
 */
#include <kunit/device.h>
#include <linux/dma-map-ops.h>
#include <linux/migrate.h>
#include <linux/sizes.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>
#include "../cma.h"
#include "pin_gate_kunit.h"

#define MARK	0xc0ffeeUL

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

static const struct dma_wait {
	const char *name;
	unsigned int budget_ms;
	unsigned int pin_ms;		/* so long lasts the pin */
	bool succeeds;
	size_t spare;			/* so much of the area is not asked for */
	gfp_t gfp;
	bool get;			/* FOLL_GET: not a pin, but a reference */
} dma_waits[] = {
	{ "no budget", 0, 2000, false },
	{ "short pin", CMA_DRAIN_BUDGET_MS, 200, true },
	{ "pin outlasts the budget", 300, 2000, false },
	{ "one budget for two ranges", 300, 10000, false,
	  PAGE_SIZE << CONFIG_CMA_ALIGNMENT },
	{ "no retry", CMA_DRAIN_BUDGET_MS, 2000, false, .gfp = __GFP_NORETRY },
	{ "short reference", 10000, 500, true, .get = true },
	{ "long reference", 3000, 2000, false, .get = true },
};

KUNIT_ARRAY_PARAM_DESC(dma_wait, dma_waits, name);

/* A page of user memory that is in the area, and its pin */
struct area_page {
	unsigned long addr;
	struct page *page;
	struct delayed_work unpin;
	bool unpinned;
	bool get;
};

static void restore_budget(void *data)
{
	struct cma *cma = data;

	cma->drain_budget_ms = CMA_DRAIN_BUDGET_MS;
}

static struct cma *default_area(struct kunit *test)
{
	struct cma *cma = dev_get_cma_area(NULL);

	if (!cma || cma->nranges != 1)
		kunit_skip(test, "no CMA area for DMA, of one range: boot with cma=64M");
	/* What the page allocator can serve tells nothing. */
	if (cma_get_size(cma) <= PAGE_SIZE << MAX_PAGE_ORDER)
		kunit_skip(test, "the CMA area is too small: boot with cma=64M");
	if (cma->available_count != cma->count)
		kunit_skip(test, "the CMA area is in use");
	at_exit(test, restore_budget, cma);
	return cma;
}

/* Only once: who comes again has given the first one back to the allocator. */
static struct folio *take_target(struct folio *src, unsigned long private)
{
	struct folio **target = (struct folio **)private;
	struct folio *folio = *target;

	*target = NULL;
	return folio;
}

/* Gives up the caller's reference. */
static int migrate_to(struct page *page, unsigned long pfn)
{
	LIST_HEAD(folios);
	struct folio *target;
	int ret;

	ret = alloc_contig_range(pfn, pfn + 1, ACR_FLAGS_CMA, GFP_KERNEL);
	if (ret) {
		put_page(page);
		return ret;
	}
	target = pfn_folio(pfn);
	/* What is not on the LRU list cannot be isolated. */
	lru_add_drain_all();
	ret = isolate_folio_to_list(page_folio(page), &folios) ? 0 : -EBUSY;
	put_page(page);
	if (!ret)
		ret = migrate_pages(&folios, take_target, NULL,
				    (unsigned long)&target, MIGRATE_SYNC,
				    MR_CONTIG_RANGE, NULL);
	if (ret)
		putback_movable_pages(&folios);
	if (target)
		folio_put(target);
	return ret;
}

/* As the page allocator does when it has little else, but to order */
static void move_to(struct kunit *test, unsigned long addr, unsigned long pfn)
{
	struct page *page;
	int i, ret = -EBUSY;

	for (i = 0; i < 50 && ret; i++) {
		KUNIT_ASSERT_EQ(test, get_user_pages_fast(addr, 1, FOLL_WRITE, &page), 1);
		ret = migrate_to(page, pfn);
		if (ret)
			msleep(20);
	}
	KUNIT_ASSERT_EQ(test, ret, 0);
	lru_add_drain_all();
}

static void unpin_area_page(struct work_struct *work)
{
	struct area_page *ap = container_of(to_delayed_work(work),
					    struct area_page, unpin);

	WRITE_ONCE(ap->unpinned, true);
	if (ap->get)
		put_page(ap->page);
	else
		unpin_user_page(ap->page);
}

static void finish_unpin(void *data)
{
	struct area_page *ap = data;

	flush_delayed_work(&ap->unpin);
}

static struct area_page *pin_in_area(struct kunit *test, struct cma *cma,
				     const struct dma_wait *wait)
{
	static unsigned long nr_used;
	struct area_page *ap;
	unsigned long pfn;

	/* Not where the page of the case before can still be. */
	pfn = PHYS_PFN(cma_get_base(cma)) + cma->count / 2 + nr_used++;

	ap = kunit_kzalloc(test, sizeof(*ap), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ap);
	ap->addr = map_user(test, 1, MAP_PRIVATE);
	KUNIT_ASSERT_EQ(test, put_user(MARK, (unsigned long __user *)ap->addr), 0);
	move_to(test, ap->addr, pfn);

	ap->get = wait->get;
	if (ap->get)
		KUNIT_ASSERT_EQ(test, get_user_pages_fast(ap->addr, 1, FOLL_WRITE, &ap->page), 1);
	else
		KUNIT_ASSERT_EQ(test, pin_user_pages_fast(ap->addr, 1, FOLL_WRITE, &ap->page), 1);
	INIT_DELAYED_WORK(&ap->unpin, unpin_area_page);
	schedule_delayed_work(&ap->unpin, msecs_to_jiffies(wait->pin_ms));
	at_exit(test, finish_unpin, ap);
	KUNIT_ASSERT_EQ(test, page_to_pfn(ap->page), pfn);
	return ap;
}

static void expect_mark(struct kunit *test, struct area_page *ap)
{
	unsigned long mark;

	KUNIT_ASSERT_EQ(test, get_user(mark, (unsigned long __user *)ap->addr), 0);
	KUNIT_EXPECT_EQ(test, mark, MARK);
}

static unsigned long nr_busy(struct cma *cma)
{
#ifdef CONFIG_CMA_SYSFS
	return atomic64_read(&cma->nr_failed_busy);
#else
	return 0;
#endif
}

static void coherent_alloc(struct kunit *test)
{
	const struct dma_wait *wait = test->param_value;
	unsigned long drains = nr_events(CMA_DRAIN);
	unsigned long fails = nr_events(CMA_DRAIN_FAIL);
	bool drains_pins = wait->budget_ms && !wait->gfp && !wait->get;
	struct cma *cma = default_area(test);
	size_t size = cma_get_size(cma) - wait->spare;
	unsigned long busy = nr_busy(cma);
	struct area_page *ap;
	struct device *dev;
	dma_addr_t dma;
	bool unpinned;
	void *mem;

	dev = kunit_device_register(test, "pin_gate");
	KUNIT_ASSERT_FALSE(test, IS_ERR(dev));
	KUNIT_ASSERT_EQ(test, dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64)), 0);
	cma->drain_budget_ms = wait->budget_ms;
	ap = pin_in_area(test, cma, wait);

	/* So much of the area that there is no range without the pin */
	mem = dma_alloc_coherent(dev, size, &dma, GFP_KERNEL | __GFP_NOWARN | wait->gfp);
	unpinned = READ_ONCE(ap->unpinned);
	if (mem)
		dma_free_coherent(dev, size, mem, dma);
	finish_unpin(ap);

	KUNIT_EXPECT_EQ(test, !!mem, wait->succeeds);
	/* One that succeeds has waited for that; one that fails, not so long. */
	KUNIT_EXPECT_EQ(test, unpinned, wait->succeeds);
	KUNIT_EXPECT_EQ(test, nr_events(CMA_DRAIN) - drains, drains_pins);
	KUNIT_EXPECT_EQ(test, nr_events(CMA_DRAIN_FAIL) - fails,
			drains_pins && !wait->succeeds);
	if (IS_ENABLED(CONFIG_CMA_SYSFS))
		KUNIT_EXPECT_EQ(test, nr_busy(cma) - busy, !wait->succeeds);
	expect_mark(test, ap);
}

/* An area that is allocated already is not one that is busy. */
static void no_room(struct kunit *test)
{
#ifdef CONFIG_CMA_SYSFS
	struct cma *cma = default_area(test);
	unsigned long busy = nr_busy(cma);
	unsigned long failed = atomic64_read(&cma->nr_failed_no_room);
	struct page *all = cma_alloc(cma, cma->count, 0, false);
	struct page *more = cma_alloc(cma, 1, 0, true);

	if (more)
		cma_release(cma, more, 1);
	KUNIT_ASSERT_NOT_NULL(test, all);
	cma_release(cma, all, cma->count);
	KUNIT_EXPECT_NULL(test, more);
	KUNIT_EXPECT_EQ(test, nr_busy(cma), busy);
	KUNIT_EXPECT_EQ(test, atomic64_read(&cma->nr_failed_no_room), failed + 1);
#else
	kunit_skip(test, "needs CONFIG_CMA_SYSFS");
#endif
}

static struct kunit_case pin_gate_dma_cases[] = {
	KUNIT_CASE_PARAM_ATTR(coherent_alloc, dma_wait_gen_params,
			      {.speed = KUNIT_SPEED_SLOW}),
	KUNIT_CASE(no_room),
	{}
};

static struct kunit_suite pin_gate_dma_suite = {
	.name = "pin_gate_dma",
	.suite_init = pin_gate_init_suite,
	.init = pin_gate_init_case,
	.test_cases = pin_gate_dma_cases,
};

kunit_test_suite(pin_gate_dma_suite);

MODULE_DESCRIPTION("Test of the DMA API and the pin gate");
MODULE_LICENSE("GPL");
