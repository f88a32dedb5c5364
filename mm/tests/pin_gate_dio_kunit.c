// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of how iov_iter and bio deal with the pin gate: who extracts a vector
 * piece by piece must not wait with pins in hand, but release them, rewind the
 * iterator, wait, and start over. See Documentation/mm/pin_gate.rst.
 */
#include <kunit/test.h>
#include <linux/bio.h>
#include <linux/bvec.h>
#include <linux/sizes.h>
#include <linux/uio.h>
#include "pin_gate_kunit.h"

/* The pageblocks that user memory is in: by default, one of them is gated. */
enum { FREE, GATED, NR_BLOCKS };

#define MAX_SEGS	5
#define MAX_PAGES	64
/* So few that one extraction does not get all of a long vector */
#define NR_VECS		8
/* How the memory of direct I/O has to be aligned */
#define MEM_ALIGN_MASK	3

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");

/* One vector, by the physical memory behind it */
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
		.name = "same page twice",
		.segs = {
			{ FREE, 1, 0, 512 },
			{ FREE, 1, 512, 512 },
			{ GATED, 1, 0, 512 },
			{ GATED, 1, 0, 512 },
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
		.name = "one range, in several rounds",
		.ubuf = true,
		.skip = 512,
		.segs = {
			{ FREE, 6, 1024, 10 * PAGE_SIZE - 1024 },
			{ GATED, 0, 0, 4 * PAGE_SIZE - 256 },
		},
	},
};

KUNIT_ARRAY_PARAM_DESC(layout, layouts, name);

/* A direct I/O that gets as far as to its first bio */
struct dio {
	struct gated_call gc;
	const struct layout *layout;
	bool bounce;
	unsigned int len_align;
	struct page *blocks[NR_BLOCKS];
	struct iovec iov[MAX_SEGS];
	int nr_segs;
	struct iov_iter iter;
	struct iov_iter start;		/* what @iter was before */
	struct bio bio;
	struct bio_vec vecs[NR_VECS];
};

static size_t total_len(const struct dio *dio)
{
	size_t len = 0;
	int i;

	for (i = 0; i < dio->nr_segs; i++)
		len += dio->layout->segs[i].len;
	return len;
}

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
	for (; dio->nr_segs < MAX_SEGS && seg->len; seg++, dio->nr_segs++) {
		for (i = 0; i < nr_pages_of(seg->offset, seg->len); i++)
			pages[nr++] = dio->blocks[seg->block] + seg->page + i;
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
			      total_len(dio));
	else
		iov_iter_init(&dio->iter, ITER_DEST, dio->iov, dio->nr_segs,
			      total_len(dio));
	iov_iter_advance(&dio->iter, dio->layout->skip);
	if (dio->layout->count)
		iov_iter_truncate(&dio->iter, dio->layout->count);
	dio->start = dio->iter;
	bio_init(&dio->bio, NULL, dio->vecs, NR_VECS, REQ_OP_READ);
}

static int fill_bio(struct dio *dio, iov_iter_extraction_t flags)
{
	if (dio->bounce)
		return bio_iov_iter_bounce(&dio->bio, &dio->iter, SZ_1M,
					   dio->len_align, flags);
	return bio_iov_iter_get_pages(&dio->bio, &dio->iter, MEM_ALIGN_MASK,
				      dio->len_align - 1, flags);
}

static void release_bio(struct dio *dio)
{
	if (dio->bounce)
		bio_iov_iter_unbounce(&dio->bio, true, false);
	else
		bio_release_pages(&dio->bio, false);
	bio_uninit(&dio->bio);
}

static long call_fill_bio(struct gated_call *gc)
{
	struct dio *dio = container_of(gc, struct dio, gc);

	start_dio(dio);
	return fill_bio(dio, 0) ?: (int)dio->bio.bi_iter.bi_size;
}

static void undo_fill_bio(struct gated_call *gc, long ret)
{
	release_bio(container_of(gc, struct dio, gc));
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
	dio->len_align = 1;
	for (i = 0; i < NR_BLOCKS; i++)
		dio->blocks[i] = isolated_block(test);
	dio->gc = (struct gated_call) {
		.call = call_fill_bio, .undo = undo_fill_bio,
		.block = dio->blocks[GATED],
		.before = dio->blocks, .nr = NR_BLOCKS,
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
static void expect_unfilled(struct kunit *test, struct dio *dio)
{
	KUNIT_EXPECT_EQ(test, dio->bio.bi_vcnt, 0);
	KUNIT_EXPECT_EQ(test, dio->bio.bi_iter.bi_size, 0);
	expect_iter(test, &dio->iter, &dio->start);
	expect_no_pins(test, dio);
}

/* The segment with the byte that is @pos bytes after the first one */
static const struct segment *find_segment(struct dio *dio, size_t *pos)
{
	const struct segment *seg = dio->layout->segs;

	while (*pos >= seg->len)
		*pos -= seg++->len;
	return seg;
}

/* The user memory that the bio holds is what the iterator has gone over. */
static void expect_vecs(struct kunit *test, struct dio *dio, size_t size)
{
	const struct bio_vec *bv = dio->vecs + dio->bounce;
	size_t pos = dio->layout->skip, end = pos + size;
	int i;

	for (i = 0; i < dio->bio.bi_vcnt; i++, bv++) {
		size_t done = 0;

		while (done < bv->bv_len && pos < end) {
			size_t in_seg = pos, len;
			const struct segment *seg = find_segment(dio, &in_seg);
			struct page *page = dio->blocks[seg->block] + seg->page;

			KUNIT_ASSERT_EQ_MSG(test, bvec_phys(bv) + done,
					    page_to_phys(page) + seg->offset +
					    in_seg, "at byte %zu", pos);
			len = min(bv->bv_len - done, seg->len - in_seg);
			done += len;
			pos += len;
		}
		KUNIT_EXPECT_EQ(test, done, bv->bv_len);
	}
	KUNIT_EXPECT_EQ(test, pos, end);
}

/* Each segment has pinned each of its pages once. */
static void expect_pins(struct kunit *test, struct dio *dio, size_t size)
{
	size_t pos = dio->layout->skip, end = pos + size;
	int nr[NR_BLOCKS] = {};

	while (pos < end) {
		size_t in_seg = pos, len;
		const struct segment *seg = find_segment(dio, &in_seg);

		len = min(end - pos, seg->len - in_seg);
		nr[seg->block] += nr_pages_of(seg->offset + in_seg, len);
		pos += len;
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
	expect_vecs(test, dio, size);
	expect_pins(test, dio, size);

	release_bio(dio);
	expect_no_pins(test, dio);
}

static void expect_filled(struct kunit *test, struct dio *dio)
{
	expect_filled_to(test, dio, iov_iter_count(&dio->start));
}

/*
 * What direct I/O does, for reads without and with a bounce buffer
 */

static void fill_waits(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, test->param_value, bounce);

	KUNIT_ASSERT_GT(test, call_while_gated(test, &dio->gc), 0);
	expect_filled(test, dio);
}

static void get_pages_waits(struct kunit *test)
{
	fill_waits(test, false);
}

static void bounce_waits(struct kunit *test)
{
	fill_waits(test, true);
}

static void fill_nowait(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, test->param_value, bounce);
	unsigned long waits = nr_events(PIN_GATE_WAIT);

	close_gate(dio);
	KUNIT_ASSERT_EQ(test, fill_bio(dio, ITER_PIN_NOWAIT), -EAGAIN);
	expect_unfilled(test, dio);
	open_gate_again(test, dio);

	KUNIT_ASSERT_EQ(test, fill_bio(dio, ITER_PIN_NOWAIT), 0);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	expect_filled(test, dio);
}

static void get_pages_nowait(struct kunit *test)
{
	fill_nowait(test, false);
}

static void bounce_nowait(struct kunit *test)
{
	fill_nowait(test, true);
}

static void fill_nogate(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, test->param_value, bounce);
	unsigned long waits = nr_events(PIN_GATE_WAIT);

	close_gate(dio);
	KUNIT_ASSERT_EQ(test, fill_bio(dio, ITER_PIN_NOGATE), 0);
	open_gate_again(test, dio);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	expect_filled(test, dio);
}

static void get_pages_nogate(struct kunit *test)
{
	fill_nogate(test, false);
}

static void bounce_nogate(struct kunit *test)
{
	fill_nogate(test, true);
}

/*
 * While somebody waits, the gate of the other block closes. In this way, each
 * start meets another closed gate than the one before.
 */
#define NR_CHANGES	4

static int change_gates(void *data)
{
	struct opener *o = data;
	int i;

	for (i = 0; i < NR_CHANGES; i++) {
		opener_await(o, i + 1);
		o->saw_pin |= any_pinned(o->pages, o->nr_pages);
		pin_gate_close(o->pages[i % 2 ? GATED : FREE]);
		pin_gate_open(o->pages[i % 2 ? FREE : GATED]);
	}
	opener_await(o, NR_CHANGES + 1);
	o->saw_pin |= any_pinned(o->pages, o->nr_pages);
	WRITE_ONCE(o->opened, true);
	pin_gate_open(o->pages[FREE]);
	pin_gate_open(o->pages[GATED]);
	complete_all(&o->done);
	return 0;
}

static void fill_while_gates_change(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, &layouts[0], bounce);

	dio->gc.opener = change_gates;
	KUNIT_ASSERT_GT(test, call_while_gated(test, &dio->gc), 0);
	expect_filled(test, dio);
}

static void get_pages_while_gates_change(struct kunit *test)
{
	fill_while_gates_change(test, false);
}

static void bounce_while_gates_change(struct kunit *test)
{
	fill_while_gates_change(test, true);
}

/*
 * With nobody to open the gate: nothing is missing in the end, and it does not
 * take longer the more segments there are.
 */
static void fill_deadline(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, test->param_value, bounce);
	unsigned long timeouts = nr_events(PIN_GATE_TIMEOUT);
	unsigned long start = jiffies;

	close_gate(dio);
	KUNIT_ASSERT_EQ(test, fill_bio(dio, 0), 0);
	KUNIT_EXPECT_FALSE(test,
			   time_before(jiffies, start + PIN_GATE_MAX_WAIT));
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_TIMEOUT), timeouts + 1);
	open_gate_again(test, dio);
	expect_filled(test, dio);
}

static void get_pages_deadline(struct kunit *test)
{
	fill_deadline(test, false);
}

static void bounce_deadline(struct kunit *test)
{
	fill_deadline(test, true);
}

/* The bio has got pages of the same vector already. They start over, too. */
static long call_continue(struct gated_call *gc)
{
	struct dio *dio = container_of(gc, struct dio, gc);
	size_t count;
	int ret;

	start_dio(dio);
	count = iov_iter_count(&dio->iter);
	iov_iter_truncate(&dio->iter, dio->layout->segs[0].len);
	ret = fill_bio(dio, 0);
	if (ret)
		return ret;
	iov_iter_reexpand(&dio->iter, count - dio->bio.bi_iter.bi_size);
	return fill_bio(dio, 0) ?: (int)dio->bio.bi_iter.bi_size;
}

static void get_pages_continues(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[0], false);

	dio->gc.call = call_continue;
	KUNIT_ASSERT_GT(test, call_while_gated(test, &dio->gc), 0);
	expect_filled(test, dio);
}

static void get_pages_continues_nowait(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &layouts[0], false);
	size_t count = iov_iter_count(&dio->iter);

	close_gate(dio);
	iov_iter_truncate(&dio->iter, dio->layout->segs[0].len);
	KUNIT_ASSERT_EQ(test, fill_bio(dio, ITER_PIN_NOWAIT), 0);
	KUNIT_EXPECT_EQ(test, nr_block_pins(dio, FREE), 2);
	iov_iter_reexpand(&dio->iter, count - dio->bio.bi_iter.bi_size);

	KUNIT_EXPECT_EQ(test, fill_bio(dio, ITER_PIN_NOWAIT), -EAGAIN);
	expect_unfilled(test, dio);
	open_gate_again(test, dio);
}

static const struct layout last_is_wrong = {
	.segs = {
		{ FREE, 0, 0, PAGE_SIZE },
		{ GATED, 0, 0, PAGE_SIZE },
		{ FREE, 8, 0, PAGE_SIZE },
	},
};

/* An error after a wait ends where it ends without one: the bio is short. */
static void get_pages_fault(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &last_is_wrong, false);

	dio->iov[2].iov_base = NULL;
	KUNIT_ASSERT_GT(test, call_while_gated(test, &dio->gc), 0);
	expect_filled_to(test, dio, 2 * PAGE_SIZE);
}

static void get_pages_misaligned(struct kunit *test)
{
	struct dio *dio = alloc_dio(test, &last_is_wrong, false);

	dio->iov[2].iov_base += 1;
	KUNIT_EXPECT_EQ(test, call_while_gated(test, &dio->gc), -EINVAL);
	KUNIT_EXPECT_EQ(test, dio->bio.bi_vcnt, 0);
	expect_no_pins(test, dio);
}

/*
 * A bio is cut to a multiple of the block size: what is cut off is unpinned,
 * page by page, and not once for each bio_vec. No gate is closed here.
 */
struct cut {
	struct layout layout;
	unsigned int block_size;
	size_t size;			/* what is left of it */
};

static const struct cut cuts[] = {
	{
		.layout = {
			.name = "last page of a bio_vec",
			.segs = {
				{ FREE, 0, 0, 512 },
				{ FREE, 2, 512, PAGE_SIZE },
			},
		},
		.block_size = PAGE_SIZE,
		.size = PAGE_SIZE,
	}, {
		.layout = {
			.name = "part of a page",
			.segs = {
				{ FREE, 0, 0, 1024 },
				{ GATED, 0, 0, 1536 },
			},
		},
		.block_size = 1024,
		.size = 2048,
	}, {
		.layout = {
			.name = "one bio_vec",
			.segs = {
				{ FREE, 0, 0, 4 * PAGE_SIZE },
				{ GATED, 0, 0, 3 * PAGE_SIZE },
			},
		},
		.block_size = 4 * PAGE_SIZE,
		.size = 4 * PAGE_SIZE,
	}, {
		.layout = {
			.name = "one bio_vec and pages of another",
			.segs = {
				{ FREE, 0, 0, 5 * PAGE_SIZE },
				{ GATED, 0, 512, 2 * PAGE_SIZE },
			},
		},
		.block_size = 4 * PAGE_SIZE,
		.size = 4 * PAGE_SIZE,
	},
};

static void get_cut_desc(const struct cut *cut, char *desc)
{
	strscpy(desc, cut->layout.name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(cut, cuts, get_cut_desc);

static void fill_and_cut(struct kunit *test, bool bounce)
{
	const struct cut *cut = test->param_value;
	struct dio *dio = alloc_dio(test, &cut->layout, bounce);

	dio->len_align = cut->block_size;
	KUNIT_ASSERT_EQ(test, fill_bio(dio, 0), 0);
	expect_filled_to(test, dio, cut->size);
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
	.segs = {
		{ FREE, 0, 0, 2 * PAGE_SIZE },
		{ GATED, 0, 512, PAGE_SIZE },
	},
};

/* Nothing remains. */
static void fill_and_cut_all(struct kunit *test, bool bounce)
{
	struct dio *dio = alloc_dio(test, &less_than_a_block, bounce);

	dio->len_align = 4 * PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, fill_bio(dio, 0), -EFAULT);
	expect_unfilled(test, dio);
}

static void get_pages_cut_all(struct kunit *test)
{
	fill_and_cut_all(test, false);
}

static void bounce_cut_all(struct kunit *test)
{
	fill_and_cut_all(test, true);
}

/*
 * iov_iter by itself
 */

#define NR_EXTRACTED	4

struct extraction {
	struct gated_call gc;
	bool bvecs;			/* iov_iter_extract_bvecs() */
	iov_iter_extraction_t flags;
	struct page *block;
	struct iovec iov;
	struct iov_iter iter;
	struct page *pages[NR_EXTRACTED];
	struct bio_vec vecs[NR_EXTRACTED];
};

static long extract(struct extraction *ex)
{
	struct page **pages = ex->pages;
	unsigned short nr_vecs = 0;
	size_t offset;

	if (ex->bvecs)
		return iov_iter_extract_bvecs(&ex->iter, ex->vecs, LONG_MAX,
					      &nr_vecs, NR_EXTRACTED, 0,
					      ex->flags);
	return iov_iter_extract_pages(&ex->iter, &pages, LONG_MAX, NR_EXTRACTED,
				      ex->flags, &offset);
}

/* An iovec over the middle of the first four pages of a block */
static void start_extraction(struct extraction *ex)
{
	iov_iter_init(&ex->iter, ITER_DEST, &ex->iov, 1, ex->iov.iov_len);
}

static long call_extract(struct gated_call *gc)
{
	struct extraction *ex = container_of(gc, struct extraction, gc);

	start_extraction(ex);
	return extract(ex);
}

static void release_extracted(struct extraction *ex)
{
	unpin_user_folio(page_folio(ex->block), NR_EXTRACTED);
}

static void undo_extract(struct gated_call *gc, long ret)
{
	release_extracted(container_of(gc, struct extraction, gc));
}

static struct extraction *alloc_extraction(struct kunit *test, bool bvecs)
{
	struct page *pages[NR_EXTRACTED];
	struct extraction *ex;
	int i;

	ex = kunit_kzalloc(test, sizeof(*ex), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ex);
	ex->bvecs = bvecs;
	ex->block = isolated_block(test);
	for (i = 0; i < NR_EXTRACTED; i++)
		pages[i] = ex->block + i;
	ex->iov.iov_base = (void __user *)map_pages(test, pages, NR_EXTRACTED) +
			   512;
	ex->iov.iov_len = NR_EXTRACTED * PAGE_SIZE - 1024;
	ex->gc = (struct gated_call) {
		.call = call_extract, .undo = undo_extract,
		.block = ex->block, .before = &ex->block, .nr = 1,
	};
	start_extraction(ex);
	return ex;
}

static int nr_extracted(struct extraction *ex)
{
	return atomic_read(&page_folio(ex->block)->_pincount);
}

static void expect_extracted(struct kunit *test, struct extraction *ex,
			     long ret)
{
	int i;

	KUNIT_ASSERT_EQ(test, ret, ex->iov.iov_len);
	KUNIT_EXPECT_EQ(test, iov_iter_count(&ex->iter), 0);
	KUNIT_EXPECT_EQ(test, nr_extracted(ex), NR_EXTRACTED);
	if (ex->bvecs) {
		KUNIT_EXPECT_PTR_EQ(test, ex->vecs[0].bv_page, ex->block);
		KUNIT_EXPECT_EQ(test, ex->vecs[0].bv_offset, 512);
		KUNIT_EXPECT_EQ(test, ex->vecs[0].bv_len, ex->iov.iov_len);
	} else {
		for (i = 0; i < NR_EXTRACTED; i++)
			KUNIT_EXPECT_PTR_EQ(test, ex->pages[i], ex->block + i);
	}
	release_extracted(ex);
	KUNIT_EXPECT_EQ(test, nr_extracted(ex), 0);
}

static const struct extraction_call {
	const char *name;
	bool bvecs;
} extraction_calls[] = {
	{ "iov_iter_extract_pages", false },
	{ "iov_iter_extract_bvecs", true },
};

KUNIT_ARRAY_PARAM_DESC(extraction_call, extraction_calls, name);

static struct extraction *param_extraction(struct kunit *test)
{
	const struct extraction_call *call = test->param_value;

	return alloc_extraction(test, call->bvecs);
}

static void extract_waits(struct kunit *test)
{
	struct extraction *ex = param_extraction(test);

	expect_extracted(test, ex, call_while_gated(test, &ex->gc));
}

static void extract_nowait(struct kunit *test)
{
	struct extraction *ex = param_extraction(test);
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct iov_iter before = ex->iter;

	ex->flags = ITER_PIN_NOWAIT;
	pin_gate_close(ex->block);
	KUNIT_EXPECT_EQ(test, extract(ex), -EAGAIN);
	expect_iter(test, &ex->iter, &before);
	KUNIT_EXPECT_EQ(test, nr_extracted(ex), 0);
	pin_gate_open(ex->block);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
}

static void extract_nogate(struct kunit *test)
{
	struct extraction *ex = param_extraction(test);
	unsigned long waits = nr_events(PIN_GATE_WAIT);

	ex->flags = ITER_PIN_NOGATE;
	pin_gate_close(ex->block);
	expect_extracted(test, ex, extract(ex));
	pin_gate_open(ex->block);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
}

/* The gate of another block is closed: no flag makes a difference. */
static void extract_free(struct kunit *test)
{
	static const iov_iter_extraction_t flags[] = {
		0, ITER_PIN_NOWAIT, ITER_PIN_NOGATE,
	};
	struct extraction *ex = param_extraction(test);
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct page *gated = gated_block(test);
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		ex->flags = flags[i];
		expect_extracted(test, ex, call_extract(&ex->gc));
	}
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
	pin_gate_open(gated);
}

/* Iterators over memory of the kernel do not pin, and so do not wait. */
static void extract_kernel_memory(struct kunit *test)
{
	struct extraction *ex = param_extraction(test);
	unsigned long waits = nr_events(PIN_GATE_WAIT);
	struct bio_vec bv;
	struct kvec kvec;

	kvec.iov_base = page_address(ex->block);
	kvec.iov_len = PAGE_SIZE;
	bvec_set_page(&bv, ex->block, PAGE_SIZE, 0);

	pin_gate_close(ex->block);
	iov_iter_kvec(&ex->iter, ITER_DEST, &kvec, 1, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, extract(ex), PAGE_SIZE);
	iov_iter_bvec(&ex->iter, ITER_DEST, &bv, 1, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, extract(ex), PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, nr_extracted(ex), 0);
	pin_gate_open(ex->block);
	KUNIT_EXPECT_EQ(test, nr_events(PIN_GATE_WAIT), waits);
}

static struct kunit_case pin_gate_dio_cases[] = {
	KUNIT_CASE_PARAM(extract_waits, extraction_call_gen_params),
	KUNIT_CASE_PARAM(extract_nowait, extraction_call_gen_params),
	KUNIT_CASE_PARAM(extract_nogate, extraction_call_gen_params),
	KUNIT_CASE_PARAM(extract_free, extraction_call_gen_params),
	KUNIT_CASE_PARAM(extract_kernel_memory, extraction_call_gen_params),
	KUNIT_CASE_PARAM(get_pages_waits, layout_gen_params),
	KUNIT_CASE_PARAM(bounce_waits, layout_gen_params),
	KUNIT_CASE_PARAM(get_pages_nowait, layout_gen_params),
	KUNIT_CASE_PARAM(bounce_nowait, layout_gen_params),
	KUNIT_CASE_PARAM(get_pages_nogate, layout_gen_params),
	KUNIT_CASE_PARAM(bounce_nogate, layout_gen_params),
	KUNIT_CASE(get_pages_while_gates_change),
	KUNIT_CASE(bounce_while_gates_change),
	KUNIT_CASE_PARAM_ATTR(get_pages_deadline, layout_gen_params,
			      {.speed = KUNIT_SPEED_SLOW}),
	KUNIT_CASE_PARAM_ATTR(bounce_deadline, layout_gen_params,
			      {.speed = KUNIT_SPEED_SLOW}),
	KUNIT_CASE(get_pages_continues),
	KUNIT_CASE(get_pages_continues_nowait),
	KUNIT_CASE(get_pages_fault),
	KUNIT_CASE(get_pages_misaligned),
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
	.exit = pin_gate_exit_case,
	.test_cases = pin_gate_dio_cases,
};

kunit_test_suite(pin_gate_dio_suite);

MODULE_DESCRIPTION("Tests of direct I/O and the pin gate");
MODULE_LICENSE("GPL");
