// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of direct I/O and the pin gate: it waits before it takes its first lock
 * or pin, and pins at once from then on. See Documentation/mm/pin_gate.rst.
 */
#include <kunit/test.h>
#include <linux/bio.h>
#include <linux/bvec.h>
#include <linux/kthread.h>
#include <linux/sizes.h>
#include <linux/uio.h>
#include "pin_gate_kunit.h"

/* The pageblocks that user memory is in, after what ends a list of segments */
enum { END, FREE, GATED, NR_BLOCKS };

#define MAX_SEGS	5
#define MAX_PAGES	64
/* So few that one extraction does not get all of a long segment */
#define NR_VECS		8
/* How the memory of direct I/O has to be aligned */
#define MEM_ALIGN_MASK	3

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

/* A part of the iterator, by the physical memory behind it */
struct segment {
	int block;
	unsigned int page;	/* in the block */
	unsigned int offset;	/* in the page */
	size_t len;
};

struct layout {
	const char *name;
	bool ubuf;		/* one range of addresses, not one per segment */
	size_t skip;		/* how far the iterator has advanced already */
	size_t count;		/* what it is truncated to, unless 0 */
	unsigned int block_size;	/* to a multiple of which a bio is cut */
	size_t cut_to;		/* what is left of the bio then */
	struct segment segs[MAX_SEGS];
};

static const struct layout layouts[] = {
	{
		.name = "second segment gated",
		.segs = {
			{ FREE, 3, 0, 2 * PAGE_SIZE },
			{ GATED, 5, 0, 2 * PAGE_SIZE },
		},
	}, {
		.name = "first segment gated",
		.segs = {
			{ GATED, 0, 0, 2 * PAGE_SIZE },
			{ FREE, 0, 0, 2 * PAGE_SIZE },
		},
	}, {
		.name = "alternating, parts of pages",
		.segs = {
			{ FREE, 1, 100, 1000 },
			{ GATED, 3, 512, PAGE_SIZE },
			{ FREE, 7, 0, 3 * PAGE_SIZE },
			{ GATED, 9, PAGE_SIZE - 512, 1024 },
			{ FREE, 20, 4, 8 },
		},
	}, {
		.name = "empty segment in front",
		.segs = {
			{ FREE, 0, 0, 0 },
			{ GATED, 2, 0, 2 * PAGE_SIZE },
			{ FREE, 0, 0, 0 },
			{ FREE, 5, 0, PAGE_SIZE },
		},
	}, {
		.name = "from within a segment to within another",
		.skip = PAGE_SIZE + 512,
		.count = 4 * PAGE_SIZE,
		.segs = {
			{ FREE, 2, 0, 3 * PAGE_SIZE },
			{ GATED, 4, 1024, 4 * PAGE_SIZE },
			{ GATED, 30, 0, PAGE_SIZE },
		},
	}, {
		.name = "from within the gated segment",
		.skip = 3 * PAGE_SIZE + 512,
		.segs = {
			{ FREE, 0, 0, 2 * PAGE_SIZE },
			{ GATED, 1, 0, 3 * PAGE_SIZE },
			{ FREE, 9, 0, PAGE_SIZE },
		},
	}, {
		/* With more pages in front than are looked at in one go */
		.name = "one range, in several rounds",
		.ubuf = true,
		.skip = 512,
		.segs = {
			{ FREE, 6, 1024, 20 * PAGE_SIZE - 1024 },
			{ GATED, 0, 0, 4 * PAGE_SIZE - 256 },
		},
	},
};

KUNIT_ARRAY_PARAM_DESC(layout, layouts, name);

/* A direct I/O that waits, or gets as far as to its first bio */
struct dio {
	struct gated_call gc;
	const struct layout *layout;
	unsigned int block_size;
	bool bounce;
	struct page *blocks[NR_BLOCKS];
	struct iovec iov[MAX_SEGS];
	int nr_segs;
	size_t len;			/* of all segments */
	struct iov_iter iter;
	struct iov_iter start;		/* what @iter was before */
	struct file file;
	struct kiocb kiocb;
	bool implicit;			/* direct I/O, but not by O_DIRECT */
	struct bio bio;
	struct bio_vec vecs[NR_VECS];
};

static int nr_pages_of(size_t offset, size_t len)
{
	return len ? DIV_ROUND_UP(offset % PAGE_SIZE + len, PAGE_SIZE) : 0;
}

/* Map the pages of all segments, one after the other. */
static void map_layout(struct kunit *test, struct dio *dio)
{
	const struct segment *seg = dio->layout->segs;
	struct page **pages;
	unsigned long addr;
	int i, nr = 0;

	pages = kunit_kcalloc(test, MAX_PAGES, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	for (; dio->nr_segs < MAX_SEGS && seg->block; seg++, dio->nr_segs++) {
		for (i = 0; i < nr_pages_of(seg->offset, seg->len); i++)
			pages[nr++] = dio->blocks[seg->block] + seg->page + i;
		dio->len += seg->len;
	}
	KUNIT_ASSERT_LE(test, nr, MAX_PAGES);

	addr = map_pages(test, pages, nr);
	for (i = 0; i < dio->nr_segs; i++) {
		seg = &dio->layout->segs[i];
		dio->iov[i].iov_base = (void __user *)addr + seg->offset;
		dio->iov[i].iov_len = seg->len;
		addr += nr_pages_of(seg->offset, seg->len) * PAGE_SIZE;
	}
}

static void start_dio(struct dio *dio)
{
	if (dio->layout->ubuf)
		iov_iter_ubuf(&dio->iter, ITER_DEST, dio->iov[0].iov_base,
			      dio->len);
	else
		iov_iter_init(&dio->iter, ITER_DEST, dio->iov, dio->nr_segs,
			      dio->len);
	/* Even by 0, it would go over an empty segment. */
	if (dio->layout->skip)
		iov_iter_advance(&dio->iter, dio->layout->skip);
	if (dio->layout->count)
		iov_iter_truncate(&dio->iter, dio->layout->count);
	dio->start = dio->iter;
	bio_init(&dio->bio, NULL, dio->vecs, NR_VECS, REQ_OP_READ);
}

static int fill_bio(struct dio *dio)
{
	if (dio->bounce)
		return bio_iov_iter_bounce(&dio->bio, &dio->iter, SZ_1M,
					   dio->block_size);
	return bio_iov_iter_get_pages(&dio->bio, &dio->iter, MEM_ALIGN_MASK,
				      dio->block_size - 1);
}

static void release_bio(struct dio *dio)
{
	if (dio->bounce)
		bio_iov_iter_unbounce(&dio->bio, true, false);
	else
		bio_release_pages(&dio->bio, false);
	bio_uninit(&dio->bio);
}

static long call_wait(struct gated_call *gc)
{
	struct dio *dio = container_of(gc, struct dio, gc);

	return iov_iter_wait_pin_gates(&dio->iter, false);
}

static struct dio *alloc_dio(struct kunit *test, const struct layout *layout,
			     bool bounce)
{
	struct dio *dio;
	int i;

	dio = kunit_kzalloc(test, sizeof(*dio), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, dio);
	dio->layout = layout;
	dio->bounce = bounce;
	dio->block_size = layout->block_size ?: 1;
	for (i = FREE; i < NR_BLOCKS; i++)
		dio->blocks[i] = isolated_block(test);
	dio->gc = (struct gated_call) {
		.call = call_wait,
		.block = dio->blocks[GATED],
		.pages = dio->blocks, .nr = NR_BLOCKS,
	};
	map_layout(test, dio);
	start_dio(dio);
	return dio;
}

static void close_gate(struct dio *dio)
{
	pin_gate_close(dio->blocks[GATED]);
}

static void open_gate_again(struct kunit *test, struct dio *dio)
{
	KUNIT_EXPECT_TRUE(test, page_pin_gated(dio->blocks[GATED]));
	pin_gate_open(dio->blocks[GATED]);
}

/* A block is one folio that is large enough to count its pins. */
static int nr_block_pins(struct dio *dio, int block)
{
	return atomic_read(&page_folio(dio->blocks[block])->_pincount);
}

static void expect_no_pins(struct kunit *test, struct dio *dio)
{
	KUNIT_EXPECT_EQ(test, nr_block_pins(dio, FREE), 0);
	KUNIT_EXPECT_EQ(test, nr_block_pins(dio, GATED), 0);
}

static void expect_iter(struct kunit *test, const struct iov_iter *iter,
			const struct iov_iter *expected)
{
	KUNIT_EXPECT_EQ(test, iov_iter_count(iter), iov_iter_count(expected));
	KUNIT_EXPECT_EQ(test, iter->iov_offset, expected->iov_offset);
	KUNIT_EXPECT_EQ(test, iter->nr_segs, expected->nr_segs);
	KUNIT_EXPECT_PTR_EQ(test, iter->__iov, expected->__iov);
}

/* As it was before the call: nothing held, nothing consumed */
static void expect_untouched(struct kunit *test, struct dio *dio)
{
	KUNIT_EXPECT_EQ(test, dio->bio.bi_vcnt, 0);
	KUNIT_EXPECT_EQ(test, dio->bio.bi_iter.bi_size, 0);
	expect_iter(test, &dio->iter, &dio->start);
	expect_no_pins(test, dio);
}

/* Each segment has pinned each of its pages once. */
static void expect_pins(struct kunit *test, struct dio *dio, size_t size)
{
	const struct segment *seg = dio->layout->segs;
	size_t skip = dio->layout->skip;
	int nr[NR_BLOCKS] = {};

	for (; size; seg++) {
		size_t begin = min(skip, seg->len);
		size_t len = min(size, seg->len - begin);

		nr[seg->block] += nr_pages_of(seg->offset + begin, len);
		skip -= begin;
		size -= len;
	}
	KUNIT_EXPECT_EQ(test, nr_block_pins(dio, FREE), nr[FREE]);
	KUNIT_EXPECT_EQ(test, nr_block_pins(dio, GATED), nr[GATED]);
}

static void expect_filled_to(struct kunit *test, struct dio *dio, size_t size)
{
	struct iov_iter after = dio->start;

	KUNIT_ASSERT_EQ(test, dio->bio.bi_iter.bi_size, size);
	iov_iter_advance(&after, size);
	expect_iter(test, &dio->iter, &after);
	expect_pins(test, dio, size);

	release_bio(dio);
	expect_no_pins(test, dio);
}

/*
 * The wait
 */

static void wait_waits(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, test->param_value, false);

	KUNIT_EXPECT_EQ(test, call_while_gated(test, &dio->gc), 0);
	expect_untouched(test, dio);
}

static void expect_no_wait(struct kunit *test, struct dio *dio, bool nowait,
			   int expected)
{
	unsigned long waits = nr_events(PIN_GATE_WAIT);

	KUNIT_EXPECT_EQ(test, iov_iter_wait_pin_gates(&dio->iter, nowait),
			expected);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	expect_untouched(test, dio);
}

/* Neither sleeps nor fails */
static void expect_passes(struct kunit *test, void *data)
{
	expect_no_wait(test, data, false, 0);
	expect_no_wait(test, data, true, 0);
}

static void wait_nowait(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, test->param_value, false);

	close_gate(dio);
	expect_no_wait(test, dio, true, -EAGAIN);
	open_gate_again(test, dio);
	expect_passes(test, dio);
}

/* With nobody to open the gates: one bound, and not one for each of them */
static void wait_deadline(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, test->param_value, false);
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);

	pin_gate_close(dio->blocks[FREE]);
	KUNIT_EXPECT_EQ(test, call_until_bound(test, &dio->gc), 0);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts + 1);
	expect_untouched(test, dio);
}

static void wait_exempt(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[0], false);

	close_gate(dio);
	as_exempt_tasks(test, expect_passes, dio);
	open_gate_again(test, dio);
}

/* The iterator ends before the gated segment. */
static void wait_not_reached(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[0], false);

	close_gate(dio);
	iov_iter_truncate(&dio->iter, dio->layout->segs[0].len);
	dio->start = dio->iter;
	expect_passes(test, dio);
	open_gate_again(test, dio);
}

/* Memory of the kernel is not pinned. */
static void wait_kernel_memory(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[0], false);
	struct bio_vec bv;
	struct kvec kvec = {
		.iov_base = page_address(dio->blocks[GATED]),
		.iov_len = PAGE_SIZE,
	};

	close_gate(dio);
	iov_iter_kvec(&dio->iter, ITER_DEST, &kvec, 1, PAGE_SIZE);
	dio->start = dio->iter;
	expect_passes(test, dio);

	bvec_set_page(&bv, dio->blocks[GATED], PAGE_SIZE, 0);
	iov_iter_bvec(&dio->iter, ITER_DEST, &bv, 1, PAGE_SIZE);
	dio->start = dio->iter;
	expect_passes(test, dio);
	open_gate_again(test, dio);
}

/* What is not mapped is passed over, and not faulted in. */
static void expect_waits_with_hole(struct kunit *test, const struct layout *layout,
				   int hole)
{
	struct dio *dio = alloc_dio(test, layout, false);

	dio->iov[hole].iov_base = NULL;
	KUNIT_EXPECT_EQ(test, call_while_gated(test, &dio->gc), 0);
	expect_untouched(test, dio);
}

static void wait_fault_behind(struct kunit *test)
{
	expect_waits_with_hole(test, &layouts[1], 1);
}

static void wait_fault_in_front(struct kunit *test)
{
	expect_waits_with_hole(test, &layouts[0], 0);
}

static void wait_does_not_fault(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[0], false);
	/* Not private memory, which does not count its page of zeroes. */
	unsigned long addr = map_user(test, 4, MAP_SHARED);
	unsigned long rss = get_mm_rss_sum(current->mm);

	close_gate(dio);
	iov_iter_ubuf(&dio->iter, ITER_DEST, (void __user *)addr, 4 * PAGE_SIZE);
	dio->start = dio->iter;
	expect_passes(test, dio);
	KUNIT_EXPECT_EQ(test, get_mm_rss_sum(current->mm), rss);
	open_gate_again(test, dio);
}

/* More absent memory than can be looked at before the wait ends */
static struct dio *alloc_absent_dio(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[0], false);

	if (!IS_ENABLED(CONFIG_64BIT))
		kunit_skip(test, "needs the address space of CONFIG_64BIT");
	iov_iter_ubuf(&dio->iter, ITER_DEST, NULL, TASK_SIZE);
	dio->start = dio->iter;
	return dio;
}

static void open_soon(struct work_struct *work)
{
	msleep(100);
	pin_gate_open(container_of(work, struct gated_call, opener)->block);
}

static void wait_absent_until_open(struct kunit *test)
{
	struct dio *dio = alloc_absent_dio(test);

	dio->gc.open = open_soon;
	KUNIT_EXPECT_EQ(test, call_while_gated(test, &dio->gc), 0);
	expect_untouched(test, dio);
}

static void wait_absent_until_bound(struct kunit *test)
{
	struct dio *dio = alloc_absent_dio(test);

	KUNIT_EXPECT_EQ(test, call_until_bound(test, &dio->gc), 0);
	expect_untouched(test, dio);
}

/* Unmap what is waited for, but leave the gate closed. */
static void unmap_and_wake(struct work_struct *work)
{
	struct gated_call *gc = container_of(work, struct gated_call, opener);
	struct dio *dio = container_of(gc, struct dio, gc);
	struct iovec *iov = &dio->iov[1];

	await_waits(gc, 1);
	kthread_use_mm(gc->task->mm);
	vm_munmap((unsigned long)iov->iov_base, iov->iov_len);
	kthread_unuse_mm(gc->task->mm);
	pin_gate_wake(gc->block);
	open_late(work);
}

/* There is nothing to wait for then. A slow machine gets several tries. */
static void wait_vanished(struct kunit *test)
{
	struct dio *dio;
	int i;

	for (i = 0; i < 3; i++) {
		dio = alloc_dio(test, &layouts[0], false);
		dio->gc.open = unmap_and_wake;
		KUNIT_EXPECT_EQ(test, call_gated(&dio->gc), 0);
		expect_untouched(test, dio);
		if (!dio->gc.late)
			return;
	}
	KUNIT_FAIL(test, "waited for memory that is not there any more");
}

static const struct kiocb_case {
	const char *name;
	int ki_flags;
	fmode_t f_mode;
	bool waits;
	int ret;
	bool implicit;
} kiocb_cases[] = {
	{ "direct", IOCB_DIRECT, FMODE_CAN_ODIRECT, true, 0 },
	{ "direct, nowait", IOCB_DIRECT | IOCB_NOWAIT, FMODE_CAN_ODIRECT,
	  false, -EAGAIN },
	{ "buffered", 0, FMODE_CAN_ODIRECT, false, 0 },
	{ "buffered, nowait", IOCB_NOWAIT, FMODE_CAN_ODIRECT, false, 0 },
	{ "file that cannot", IOCB_DIRECT, 0, false, 0 },
	{ "file that cannot, nowait", IOCB_DIRECT | IOCB_NOWAIT, 0, false, 0 },
	{ "implicit", 0, 0, true, 0, true },
	{ "implicit, nowait", IOCB_NOWAIT, 0, false, -EAGAIN, true },
	{ "implicit, has waited", IOCB_DIRECT, 0, false, 0, true },
};

KUNIT_ARRAY_PARAM_DESC(kiocb_case, kiocb_cases, name);

static long call_kiocb_wait(struct gated_call *gc)
{
	struct dio *dio = container_of(gc, struct dio, gc);

	return dio->implicit ?
	       kiocb_wait_pin_gates_implicit(&dio->kiocb, &dio->iter) :
	       kiocb_wait_pin_gates(&dio->kiocb, &dio->iter);
}

/* Nothing but the mode of the file is looked at. */
static void kiocb_waits(struct kunit *test)
{
	const struct kiocb_case *kc = test->param_value;
	struct dio *dio = alloc_dio(test, &layouts[0], false);
	unsigned long waits = nr_events(PIN_GATE_WAIT);

	dio->file.f_mode = kc->f_mode;
	dio->kiocb.ki_filp = &dio->file;
	dio->kiocb.ki_flags = kc->ki_flags;
	dio->implicit = kc->implicit;
	dio->gc.call = call_kiocb_wait;
	if (kc->waits) {
		KUNIT_EXPECT_EQ(test, call_while_gated(test, &dio->gc), kc->ret);
	} else {
		close_gate(dio);
		KUNIT_EXPECT_EQ(test, call_kiocb_wait(&dio->gc), kc->ret);
		KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
		open_gate_again(test, dio);
	}
	expect_untouched(test, dio);
}

/*
 * What comes after the wait
 */

/* Reads without and with a bounce buffer */
static void fill_at_once(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, test->param_value, bounce);
	unsigned long waits = nr_events(PIN_GATE_WAIT);

	close_gate(dio);
	KUNIT_ASSERT_EQ(test, fill_bio(dio), 0);
	open_gate_again(test, dio);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	expect_filled_to(test, dio, iov_iter_count(&dio->start));
}

static void get_pages_at_once(struct kunit *test)
{
	fill_at_once(test, false);
}

static void bounce_at_once(struct kunit *test)
{
	fill_at_once(test, true);
}

static void extract_at_once(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[1], false);
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct page *batch[2], **pages = batch;
	size_t offset;

	close_gate(dio);
	KUNIT_ASSERT_EQ(test, iov_iter_extract_pages(&dio->iter, &pages, SIZE_MAX,
						     2, 0, &offset),
			2 * PAGE_SIZE);
	KUNIT_EXPECT_PTR_EQ(test, batch[0], dio->blocks[GATED]);
	KUNIT_EXPECT_PTR_EQ(test, batch[1], dio->blocks[GATED] + 1);
	KUNIT_EXPECT_EQ(test, nr_block_pins(dio, GATED), 2);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	unpin_user_pages(batch, 2);
	open_gate_again(test, dio);
}

/*
 * A bio is cut to a multiple of the block size: what is cut off is unpinned,
 * page by page, and not once for each bio_vec. No gate is closed here.
 */
static const struct layout cuts[] = {
	{
		.name = "last page of a bio_vec",
		.block_size = PAGE_SIZE,
		.cut_to = PAGE_SIZE,
		.segs = {
			{ FREE, 0, 0, 512 },
			{ FREE, 2, 512, PAGE_SIZE },
		},
	}, {
		.name = "part of a page",
		.block_size = 1024,
		.cut_to = 2048,
		.segs = {
			{ FREE, 0, 0, 1024 },
			{ GATED, 0, 0, 1536 },
		},
	}, {
		.name = "one bio_vec",
		.block_size = 4 * PAGE_SIZE,
		.cut_to = 4 * PAGE_SIZE,
		.segs = {
			{ FREE, 0, 0, 4 * PAGE_SIZE },
			{ GATED, 0, 0, 3 * PAGE_SIZE },
		},
	}, {
		.name = "one bio_vec and pages of another",
		.block_size = 4 * PAGE_SIZE,
		.cut_to = 4 * PAGE_SIZE,
		.segs = {
			{ FREE, 0, 0, 5 * PAGE_SIZE },
			{ GATED, 0, 512, 2 * PAGE_SIZE },
		},
	},
};

KUNIT_ARRAY_PARAM_DESC(cut, cuts, name);

static void fill_and_cut(struct kunit *test, bool bounce)
{
	const struct layout *cut = test->param_value;
	struct dio *dio = alloc_dio(test, cut, bounce);

	KUNIT_ASSERT_EQ(test, fill_bio(dio), 0);
	expect_filled_to(test, dio, cut->cut_to);
}

static void get_pages_cut(struct kunit *test)
{
	fill_and_cut(test, false);
}

static void bounce_cut(struct kunit *test)
{
	fill_and_cut(test, true);
}

static const struct layout less_than_a_block = {
	.block_size = 4 * PAGE_SIZE,
	.segs = {
		{ FREE, 0, 0, 2 * PAGE_SIZE },
		{ GATED, 0, 512, PAGE_SIZE },
	},
};

/* Nothing remains. */
static void fill_and_cut_all(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, &less_than_a_block, bounce);

	KUNIT_EXPECT_EQ(test, fill_bio(dio), -EFAULT);
	expect_untouched(test, dio);
}

static void get_pages_cut_all(struct kunit *test)
{
	fill_and_cut_all(test, false);
}

static void bounce_cut_all(struct kunit *test)
{
	fill_and_cut_all(test, true);
}

static struct kunit_case pin_gate_dio_cases[] = {
	KUNIT_CASE_PARAM(wait_waits, layout_gen_params),
	KUNIT_CASE_PARAM(wait_nowait, layout_gen_params),
	KUNIT_CASE_PARAM_ATTR(wait_deadline, layout_gen_params,
			      {.speed = KUNIT_SPEED_SLOW}),
	KUNIT_CASE(wait_exempt),
	KUNIT_CASE(wait_not_reached),
	KUNIT_CASE(wait_kernel_memory),
	KUNIT_CASE(wait_fault_behind),
	KUNIT_CASE(wait_fault_in_front),
	KUNIT_CASE(wait_does_not_fault),
	KUNIT_CASE(wait_absent_until_open),
	KUNIT_CASE_SLOW(wait_absent_until_bound),
	KUNIT_CASE(wait_vanished),
	KUNIT_CASE_PARAM(kiocb_waits, kiocb_case_gen_params),
	KUNIT_CASE_PARAM(get_pages_at_once, layout_gen_params),
	KUNIT_CASE_PARAM(bounce_at_once, layout_gen_params),
	KUNIT_CASE(extract_at_once),
	KUNIT_CASE_PARAM(get_pages_cut, cut_gen_params),
	KUNIT_CASE_PARAM(bounce_cut, cut_gen_params),
	KUNIT_CASE(get_pages_cut_all),
	KUNIT_CASE(bounce_cut_all),
	{}
};

static struct kunit_suite pin_gate_dio_suite = {
	.name = "pin_gate_dio",
	.suite_init = pin_gate_init_suite,
	.init = pin_gate_init_case,
	.test_cases = pin_gate_dio_cases,
};

kunit_test_suite(pin_gate_dio_suite);

MODULE_DESCRIPTION("Tests of direct I/O and the pin gate");
MODULE_LICENSE("GPL");
