// SPDX-License-Identifier: GPL-2.0
/*
 * Those who allocate from CMA, while direct I/O keeps pinning pages of the
 * area: users of a dma-buf heap, and the administrator who wants gigantic
 * pages. See cma_dio_load.h for the load.
 *
 * The area is the largest unused one, so a test of the one sort is skipped where
 * it is for the other: boot with cma=256M, or with hugetlb_cma=1G and no cma=.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cma_dio_measure.h"
#include "hugepage_settings.h"
#include "vm_util.h"

#define GIGANTIC_BYTES	(1024 * MB)
#define GIGANTIC_FILE	"hugepages/hugepages-1048576kB/nr_hugepages"
#define ALL_NODES	"/sys/kernel/mm"
#define NODES		"/sys/devices/system/node"
/* Memory in a large area, enough for the buffers */
#define SMALL_POOL	(16 * MB)

#define PIN_MS		3500	/* a pin that outlasts the budget */
#define BUDGET_MS	300
#define MOVE_MS		2000	/* to move pages and to look at a whole area */

#define NR_TRIES	3

static const struct measure_spec hot = {
	.load = {
		.threads = 2,
		.slots = 32,
		.segs = 1,
		.seg_bytes = 4096,
		.completion_us = 2000,
	},
};

static void expect_clean(struct __test_metadata *_metadata, const struct result *res,
			 long pins_before)
{
	EXPECT_EQ(res->errors, 0)
		TH_LOG("short or failed I/O, first result %ld", res->first_error);
	EXPECT_TRUE(pins_back_to(pins_before))
		TH_LOG("%ld pins more than before", pins_held() - pins_before);
	EXPECT_TRUE(area_take(&area));
	area_free();
}

/*
 * A dma-buf heap: allocate buffers of some size while the area has room for one
 * more, write to all of them, read back, and release them.
 */

struct buffer {
	int fd;
	__u64 *addr;
};

struct heap_user {
	int heap;
	size_t bytes;
	unsigned int nr;	/* that could fit into the area */
	struct buffer *buffers;
	unsigned int got;
	unsigned int least;	/* of all tries */
	unsigned int corrupt;
};

/*
 * CMA takes the first range that it can empty. So in the end there can be room
 * that is not in one piece, or not aligned.
 */
static bool area_has_room(size_t bytes)
{
	size_t chunk = area_get("maxchunk") * psize();

	return chunk == area_bytes() || chunk >= bytes + ALIGNMENT;
}

static __u64 word_of(unsigned int buffer, size_t i)
{
	return ((__u64)buffer << 32 | i) * 0x9e3779b97f4a7c15ULL;
}

static int heap_get_one(struct heap_user *user)
{
	unsigned int nr = user->got;
	struct buffer *b = &user->buffers[nr];
	size_t i;

	b->fd = heap_alloc(user->heap, user->bytes);
	if (b->fd < 0)
		return b->fd;
	b->addr = mmap(NULL, user->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
	if (b->addr == MAP_FAILED) {
		close(b->fd);
		return -errno;
	}
	for (i = 0; i < user->bytes / sizeof(*b->addr); i++)
		b->addr[i] = word_of(nr, i);
	user->got++;
	return 0;
}

/* With the load still running: whatever goes to a wrong page shows up later. */
static int heap_take(void *arg)
{
	struct heap_user *user = arg;
	int err = 0;

	while (!err && area_has_room(user->bytes))
		err = heap_get_one(user);
	user->least = min_size(user->least, user->got);
	return err;
}

static void heap_give(void *arg)
{
	struct heap_user *user = arg;
	unsigned int nr;
	size_t i;

	for (nr = 0; nr < user->got; nr++) {
		struct buffer *b = &user->buffers[nr];

		for (i = 0; i < user->bytes / sizeof(*b->addr); i++)
			if (b->addr[i] != word_of(nr, i)) {
				user->corrupt++;
				break;
			}
		munmap(b->addr, user->bytes);
		close(b->fd);
	}
	user->got = 0;
}

struct heap_test {
	struct heap_user user;
	struct taker taker;
	struct pool pool;
	long pins;
};

FIXTURE(heap)
{
	struct heap_test t;
};

FIXTURE_VARIANT(heap)
{
	size_t mb;	/* of a buffer; 0: the whole area */
};

/* 1080p, NV12 */
FIXTURE_VARIANT_ADD(heap, frames_3m) { .mb = 3 };
FIXTURE_VARIANT_ADD(heap, buffers_16m) { .mb = 16 };
FIXTURE_VARIANT_ADD(heap, whole_area) { };

FIXTURE_SETUP(heap)
{
	struct heap_test *t = &self->t;
	struct heap_user *user = &t->user;

	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	user->heap = heap_open();
	if (user->heap < 0)
		SKIP(return, NO_HEAP);
	user->bytes = variant->mb ? variant->mb * MB : area_bytes();
	user->nr = area_bytes() / user->bytes;
	user->buffers = calloc(user->nr, sizeof(*user->buffers));
	ASSERT_NE(user->buffers, NULL);
	t->taker = (struct taker){
		.take = heap_take,
		.give = heap_give,
		.arg = user,
		.whole = !variant->mb,
	};
	ASSERT_TRUE(pool_prepare(&t->pool, POOL_ANON, pool_bytes_for(&hot.load)));
	t->pins = pins_held();
}

FIXTURE_TEARDOWN_PARENT(heap)
{
	env_restore();
}

static void use_heap(struct __test_metadata *_metadata, struct heap_test *t,
		     unsigned int budget_ms, struct result *res)
{
	struct heap_user *user = &t->user;

	ASSERT_EQ(put_num(budget_file(), budget_ms), 0);
	user->least = user->nr;
	ASSERT_TRUE(run_tries(&hot, &t->pool, &t->taker, NR_TRIES, res));
	ksft_print_msg("budget %u ms: at least %u buffers of %zu MB in each try\n", budget_ms,
		       user->least, user->bytes / MB);
	result_print(res);
	EXPECT_EQ(user->corrupt, 0);
	expect_clean(_metadata, res, t->pins);
}

TEST_F_TIMEOUT(heap, use_all_room, 300)
{
	struct result res;

	use_heap(_metadata, &self->t, 0, &res);
	/* Small buffers can have the luck that no page in the rest is pinned. */
	if (self->t.taker.whole)
		EXPECT_LT(res.succeeded, res.tried);

	use_heap(_metadata, &self->t, AMPLE_MS, &res);
	if (res.resident < MIN_RESIDENT)
		SKIP(return, "only %u %% of the hot pages were in the area", res.resident);
	EXPECT_EQ(res.succeeded, res.tried);
}

/*
 * Gigantic pages: as many as the area holds, by nr_hugepages.
 */

struct gigantic {
	char file[PATH_MAX];
	unsigned long before;
	unsigned long wanted;
};

static int gigantic_take(void *arg)
{
	struct gigantic *g = arg;
	int err = put_num(g->file, g->wanted);

	if (err)
		return err;
	return read_num(g->file) == g->wanted ? 0 : -ENOMEM;
}

static void gigantic_give(void *arg)
{
	struct gigantic *g = arg;

	put_num(g->file, g->before);
}

FIXTURE(gigantic)
{
	struct gigantic gigantic;
	struct taker taker;
	struct pool pool;
	long pins;
};

FIXTURE_VARIANT(gigantic)
{
	bool of_node;	/* its file, not that of all nodes */
};

FIXTURE_VARIANT_ADD(gigantic, all_nodes) { };
FIXTURE_VARIANT_ADD(gigantic, one_node) { .of_node = true };

/* False if the test is skipped. */
static bool gigantic_find(struct __test_metadata *_metadata, struct gigantic *g, bool of_node)
{
	unsigned int node;

	if (sscanf(area.name, "hugetlb%u", &node) != 1)
		SKIP(return false, "%s is no area for gigantic pages: boot with hugetlb_cma=1G",
		     area.name);
	if (of_node)
		snprintf(g->file, sizeof(g->file), NODES "/node%u/" GIGANTIC_FILE, node);
	else
		snprintf(g->file, sizeof(g->file), ALL_NODES "/" GIGANTIC_FILE);
	if (access(g->file, W_OK))
		SKIP(return false, "no %s", g->file);
	g->before = read_num(g->file);
	g->wanted = g->before + area_bytes() / GIGANTIC_BYTES;
	return true;
}

FIXTURE_SETUP(gigantic)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	if (!gigantic_find(_metadata, &self->gigantic, variant->of_node))
		return;
	self->taker = (struct taker){
		.take = gigantic_take,
		.give = gigantic_give,
		.arg = &self->gigantic,
		.whole = true,
	};
	ASSERT_TRUE(pool_prepare(&self->pool, POOL_ANON, SMALL_POOL));
	self->pins = pins_held();
}

/* The test may have been killed: give back its pages, too. */
FIXTURE_TEARDOWN_PARENT(gigantic)
{
	gigantic_give(&self->gigantic);
	env_restore();
}

TEST_F_TIMEOUT(gigantic, under_load, 120)
{
	struct result res;

	ASSERT_EQ(put_num(budget_file(), 0), 0);
	ASSERT_TRUE(run_tries(&hot, &self->pool, &self->taker, NR_TRIES, &res));
	result_print(&res);
	EXPECT_LT(res.succeeded, res.tried);

	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	ASSERT_TRUE(run_tries(&hot, &self->pool, &self->taker, NR_TRIES, &res));
	result_print(&res);
	if (res.resident < MIN_RESIDENT)
		SKIP(return, "only %u %% of the hot pages were in the area", res.resident);
	EXPECT_EQ(res.succeeded, res.tried);
	EXPECT_LT(percentile_ms(&res, 100), AMPLE_MS + MOVE_MS);
	expect_clean(_metadata, &res, self->pins);
}

TEST_F_TIMEOUT(gigantic, pin_outlasts_budget, 60)
{
	struct slow_pins slow = { };
	long long start, ms;
	char *page;
	int err;

	ASSERT_EQ(put_num(budget_file(), BUDGET_MS), 0);
	ASSERT_TRUE(ballast_fill(&self->pool) && slow_pins_create(&slow, PIN_MS, 1));
	page = resident_page(&self->pool, 0);
	ASSERT_TRUE(page && slow_pin(&slow, page));

	start = now_us();
	err = gigantic_take(&self->gigantic);
	ms = (now_us() - start) / USEC_PER_MSEC;
	ksft_print_msg("with a pin that lasts %d ms: error %d after %lld ms\n", PIN_MS, err, ms);
	EXPECT_EQ(err, -ENOMEM);
	EXPECT_GE(ms, BUDGET_MS);
	EXPECT_LT(ms, BUDGET_MS + MOVE_MS);

	slow_pins_finish(&slow);
	EXPECT_EQ(gigantic_take(&self->gigantic), 0);
	gigantic_give(&self->gigantic);
	pool_unmap(&self->pool);
	EXPECT_TRUE(pins_back_to(self->pins));
}

/*
 * Direct I/O with buffers in hugetlb pages, which only the page allocator puts into the
 * area.
 */

static unsigned long huge_before;

static bool huge_fill(struct pool *pool)
{
	/* Give back those of the last try, which are elsewhere now. */
	if (ftruncate(pool->fd, 0))
		return cannot("empty the hugetlb file: %s", strerror(errno));
	hugetlb_set_nr_default_pages(huge_before);
	if (!ballast_leave_at_most(pool_may_leave(pool->bytes)))
		return false;
	hugetlb_set_nr_default_pages(huge_before + pool->bytes / (2 * MB));
	if (ftruncate(pool->fd, pool->bytes) || !pool_map(pool))
		return cannot("map hugetlb pages");
	ballast_leave_at_least(pool->bytes + 32 * MB);
	return !mprotect(pool->addr, pool->bytes, PROT_READ | PROT_WRITE) ||
	       cannot("write to hugetlb pages: %s", strerror(errno));
}

FIXTURE(huge_buffers)
{
	struct pool pool;
	long pins;
};

FIXTURE_VARIANT(huge_buffers)
{
	struct measure_spec spec;
};

FIXTURE_VARIANT_ADD(huge_buffers, read)
{
	.spec = {
		.load = {
			.threads = 2, .slots = 16, .segs = 1, .seg_bytes = 4 * KB,
			.completion_us = 2000,
		},
		.fill = huge_fill,
	},
};

FIXTURE_VARIANT_ADD(huge_buffers, write_1m)
{
	.spec = {
		.load = {
			.threads = 2, .slots = 8, .segs = 1, .seg_bytes = MB,
			.completion_us = 2000, .write = true,
		},
		.fill = huge_fill,
	},
};

FIXTURE_SETUP(huge_buffers)
{
	size_t bytes = pool_bytes_for(&variant->spec.load) + 2 * MB - 1;

	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	if (default_huge_page_size() != 2 * MB)
		SKIP(return, "no hugetlb pages of 2 MB");
	huge_before = hugetlb_nr_default_pages();
	self->pool = (struct pool){
		.kind = POOL_FILE,
		.bytes = bytes & ~(2 * MB - 1),
		.fd = memfd_create("cma_gup_users", MFD_CLOEXEC | MFD_HUGETLB),
	};
	ASSERT_GE(self->pool.fd, 0);
	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	self->pins = pins_held();
}

FIXTURE_TEARDOWN(huge_buffers)
{
	close(self->pool.fd);
	hugetlb_set_nr_default_pages(huge_before);
}

TEST_F_TIMEOUT(huge_buffers, whole_area, 300)
{
	struct result res;

	ASSERT_TRUE(run_tries(&variant->spec, &self->pool, &take_area, 5, &res));
	result_print(&res);
	if (res.resident < MIN_RESIDENT)
		SKIP(return, "only %u %% of the buffers were in the area", res.resident);
	EXPECT_EQ(res.succeeded, res.tried);
	expect_clean(_metadata, &res, self->pins);
}

int main(int argc, char **argv)
{
	system_prepare(env_restore);
	if (!ballast_leave_at_most(pool_may_leave(SMALL_POOL)))
		ksft_exit_skip(NO_BALLAST "\n");
	return test_harness_run(argc, argv);
}
