// SPDX-License-Identifier: GPL-2.0
/*
 * CMA allocation while direct I/O keeps pinning pages of the area. See
 * cma_dio_load.h for the load.
 *
 * With --expect-failure, see what a kernel without pin gates does: allocations
 * fail, and the I/O goes on. On a kernel with them, this is what a budget of 0 does.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <signal.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include "cma_dio_load.h"
#include "vm_util.h"
#include "hugepage_settings.h"

#define QUICK_DEV	NULLB_PREFIX "quick"
#define TRIES		5

static bool expect_failure;

static void expect_no_pins(struct __test_metadata *_metadata, long before)
{
	EXPECT_TRUE(pins_back_to(before))
		TH_LOG("%ld pins more than before", pins_held() - before);
}

/* Allocate the whole area under load. */

FIXTURE(load)
{
	struct load load;
	struct pool pool;
	long pins;
};

FIXTURE_VARIANT(load)
{
	enum pool_kind kind;
	bool write;
	bool verify;
	bool zero;		/* the budget */
	unsigned int slots;
	unsigned int segs;
	unsigned int seg_kb;	/* 0: one page */
};

#define READ(kb, nr)	.slots = nr, .segs = 1, .seg_kb = kb
#define WRITE(kb, nr)	.slots = nr, .segs = 1, .seg_kb = kb, .write = true
#define VERIFY(kb, nr)	.slots = 8, .segs = nr, .seg_kb = kb, .verify = true

FIXTURE_VARIANT_ADD(load, anon_read) { POOL_ANON, READ(0, 32) };
FIXTURE_VARIANT_ADD(load, anon_write) { POOL_ANON, WRITE(0, 32) };
FIXTURE_VARIANT_ADD(load, anon_read_256k) { POOL_ANON, READ(256, 16) };
FIXTURE_VARIANT_ADD(load, anon_write_256k) { POOL_ANON, WRITE(256, 16) };
FIXTURE_VARIANT_ADD(load, anon_read_1m) { POOL_ANON, READ(1024, 8) };
FIXTURE_VARIANT_ADD(load, anon_write_1m) { POOL_ANON, WRITE(1024, 8) };
FIXTURE_VARIANT_ADD(load, anon_readv) { POOL_ANON, .slots = 16, .segs = 8 };
FIXTURE_VARIANT_ADD(load, anon_writev) { POOL_ANON, .slots = 16, .segs = 8, .write = true };
FIXTURE_VARIANT_ADD(load, thp_read) { POOL_THP, READ(0, 32) };
FIXTURE_VARIANT_ADD(load, thp_write_1m) { POOL_THP, WRITE(1024, 8) };
FIXTURE_VARIANT_ADD(load, shmem_read) { POOL_SHMEM, READ(0, 32) };
FIXTURE_VARIANT_ADD(load, shmem_write_256k) { POOL_SHMEM, WRITE(256, 16) };
/* Only as the source of writes: the page cache of a block device. */
FIXTURE_VARIANT_ADD(load, page_cache_write) { POOL_FILE, WRITE(0, 32) };
/* Write, read back and compare: data that gets lost when pages move */
FIXTURE_VARIANT_ADD(load, anon_verify) { POOL_ANON, VERIFY(0, 1) };
FIXTURE_VARIANT_ADD(load, anon_vectors_verify) { POOL_ANON, VERIFY(0, 8) };
FIXTURE_VARIANT_ADD(load, thp_verify) { POOL_THP, VERIFY(256, 1) };
FIXTURE_VARIANT_ADD(load, shmem_verify) { POOL_SHMEM, VERIFY(64, 1) };
/* As without pin gates: nobody waits. */
FIXTURE_VARIANT_ADD(load, zero_never_waits) { POOL_ANON, READ(0, 32), .zero = true };

FIXTURE_SETUP(load)
{
	if (variant->kind == POOL_THP && (!thp_is_enabled() || read_pmd_pagesize() != 2 * MB))
		SKIP(return, "no transparent huge pages of 2 MB");
	if (area.budget >= 0)
		ASSERT_EQ(put_num(budget_file(),
				  expect_failure || variant->zero ? 0 : AMPLE_MS), 0);
	self->pins = pins_held();
}

FIXTURE_TEARDOWN_PARENT(load)
{
	system_restore();
}

/* Spread the buffers over the pool, the segments of a slot far from each other. */
static void place_buffers(struct load *load, const struct pool *pool)
{
	size_t i, nr = load->nr_slots * load->spec->segs, unit = load->spec->seg_bytes;

	for (i = 0; i < nr; i++)
		load->slots[i % load->nr_slots].iov[i / load->nr_slots].iov_base =
			pool->addr + i * (pool->bytes / unit) / nr * unit;
}

TEST_F_TIMEOUT(load, whole_area, 300)
{
	const struct load_spec spec = {
		.threads = 2,
		.slots = variant->slots,
		.segs = variant->segs,
		.seg_bytes = MAX(variant->seg_kb * KB, psize()),
		.completion_us = 2000,
		.write = variant->write,
		.verify = variant->verify,
	};
	unsigned long waits = vm_counter("pin_gate_wait"), drains = vm_counter("cma_drain");
	struct load *load = &self->load;
	struct pool *pool = &self->pool;
	unsigned int i, succeeded = 0;

	ASSERT_TRUE(pool_prepare(pool, variant->kind, pool_bytes_for(&spec)) &&
		    load_create(load, &spec));
	for (i = 0; i < TRIES; i++) {
		ASSERT_TRUE(pool_fill(pool));
		place_buffers(load, pool);
		ASSERT_TRUE(load_start(load));
		if (!area_alloc()) {
			succeeded++;
			EXPECT_EQ(resident_pages(pool, pool->addr, pool->bytes), 0);
		}
		load_stop(load);
		area_free();
		pool_unmap(pool);
	}
	ksft_print_msg("%u of %u allocations succeeded\n", succeeded, TRIES);
	if (!expect_failure && !variant->zero) {
		EXPECT_EQ(succeeded, TRIES);
	} else {
		/* To compare takes time, in which nothing is pinned. */
		if (!variant->verify)
			EXPECT_LT(succeeded, TRIES);
		EXPECT_EQ(vm_counter("pin_gate_wait"), waits);
		EXPECT_EQ(vm_counter("cma_drain"), drains);
	}
	EXPECT_EQ(load->errors, 0)
		TH_LOG("short or failed I/O, first result %ld", load->first_error);
	EXPECT_EQ(load->corrupt, 0);
	load_destroy(load);
	expect_no_pins(_metadata, self->pins);
}

TEST(good_budgets)
{
	static const char * const good[] = { "0", "250", "0\n", "1000\n", "2147483647" };
	unsigned int i;

	if (expect_failure)
		SKIP(return, "not with --expect-failure");
	for (i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(put_str(budget_file(), good[i]), 0)
			TH_LOG("wrote '%s'", good[i]);
		EXPECT_EQ(read_num(budget_file()), strtoul(good[i], NULL, 10));
	}
}

TEST(bad_budgets)
{
	static const char * const bad[] = {
		"-1", "abc", "\n", "1 2", "1.5", "10ms", "0x10", "-", "2147483648",
		"4294967296", "99999999999", "18446744073709551616",
		"99999999999999999999",
	};
	unsigned int i;

	if (expect_failure)
		SKIP(return, "not with --expect-failure");
	ASSERT_EQ(put_num(budget_file(), 123), 0);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(put_str(budget_file(), bad[i]), -EINVAL)
			TH_LOG("wrote '%s'", bad[i]);
		EXPECT_EQ(read_num(budget_file()), 123);
	}
}

/*
 * One page in the area is pinned by a slow I/O, so the gate of its pageblock
 * stays closed for long, and another process runs into it with quick I/Os on
 * the same page.
 */

#define STUCK_MS	100	/* an I/O that takes longer waits at the gate */

enum action { ACT_NONE, ACT_KILL, ACT_EXIT, ACT_FORK, ACT_MUNMAP };

/* The harness shares it between the test and the process that waits. */
struct gate_test {
	unsigned long waits;	/* counters before the test */
	unsigned long timeouts;
	long pins;
	struct pool pool;	/* whose first page is the one */
	struct slow_pins slow;
	pthread_t allocator;
	int alloc_err;
	long long alloc_us;
	bool alloc_done;
	pid_t pid;
	int fd;			/* of the quick device */
	enum action action;
	bool act;
	bool acted;
	bool stop;
	long long io_since;	/* start of the I/O in flight, 0: none */
	long long longest_us;
	long last;		/* result of the last I/O */
};

FIXTURE(gate)
{
	struct gate_test t;
};

FIXTURE_SETUP(gate)
{
	if (expect_failure)
		SKIP(return, "not with --expect-failure");
	self->t.pins = pins_held();
	self->t.waits = vm_counter("pin_gate_wait");
	self->t.timeouts = vm_counter("pin_gate_timeout");
}

FIXTURE_TEARDOWN_PARENT(gate)
{
	system_restore();
}

static void *waiter_io(void *arg)
{
	struct gate_test *t = arg;
	long long start;

	do {
		start = now_us();
		write_once(t->io_since, start);
		t->last = pread(t->fd, t->pool.addr, psize(), 0);
		write_once(t->io_since, 0);
		t->longest_us = MAX(t->longest_us, now_us() - start);
	} while (t->last == psize() && !read_once(t->stop));
	return NULL;
}

/* One thread does I/O until it has to wait, then the other one acts. */
static void waiter_process(struct gate_test *t)
{
	pthread_t thread;
	pid_t pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pthread_create(&thread, NULL, waiter_io, t))
		_exit(KSFT_FAIL);
	while (!read_once(t->act) && !read_once(t->stop))
		usleep(1000);
	if (t->action == ACT_EXIT && t->act)
		_exit(0);
	if (t->action == ACT_FORK && t->act) {
		pid = fork();
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
	if (t->action == ACT_MUNMAP && t->act)
		munmap(t->pool.addr, psize());
	write_once(t->acted, true);
	pthread_join(thread, NULL);
	_exit(0);
}

static bool waiter_gets_stuck(const struct gate_test *t)
{
	long long now, since, deadline = now_us() + HOLD_MS * USEC_PER_MSEC;

	while ((now = now_us()) < deadline) {
		since = read_once(t->io_since);
		if (since && now - since > STUCK_MS * USEC_PER_MSEC &&
		    vm_counter("pin_gate_wait") > t->waits)
			return true;
		usleep(1000);
	}
	return false;
}

static void *allocator_run(void *arg)
{
	struct gate_test *t = arg;
	long long start = now_us();

	t->alloc_err = area_alloc();
	t->alloc_us = now_us() - start;
	write_once(t->alloc_done, true);
	return NULL;
}

/* Bring up all the parts. The allocation starts last, and closes the gate. */
static void gate_start(struct __test_metadata *_metadata, struct gate_test *t,
		       enum action action, unsigned int budget_ms)
{
	struct nullb_conf quick = { .bytes = MB, .completion_us = 100, .depth = 64 };
	pid_t pid;

	t->action = action;
	t->fd = nullb_create(QUICK_DEV, &quick);
	ASSERT_GE(t->fd, 0);
	ASSERT_EQ(put_num(budget_file(), budget_ms), 0);
	ASSERT_TRUE(slow_pins_create(&t->slow, HOLD_MS, 1) &&
		    pool_prepare(&t->pool, POOL_SHMEM, POOL_PIECE) && pool_fill(&t->pool));
	/* Not t->pid, which the child shares. */
	pid = fork();
	if (!pid)
		waiter_process(t);
	ASSERT_GT(pid, 0);
	t->pid = pid;
	ASSERT_TRUE(slow_pin(&t->slow, t->pool.addr));
	ASSERT_EQ(pthread_create(&t->allocator, NULL, allocator_run, t), 0);
}

/* Wait for the end of the allocation, the process and the slow I/O. */
static void gate_finish(struct __test_metadata *_metadata, struct gate_test *t)
{
	pthread_join(t->allocator, NULL);
	write_once(t->stop, true);
	waitpid(t->pid, NULL, 0);
	slow_pins_finish(&t->slow);
	pool_unmap(&t->pool);
	ksft_print_msg("the allocation took %lld ms, the longest I/O %lld ms\n",
		       t->alloc_us / USEC_PER_MSEC, t->longest_us / USEC_PER_MSEC);
	EXPECT_GT(vm_counter("pin_gate_wait"), t->waits);
	expect_no_pins(_metadata, t->pins);
}

/* Act while a thread of the process waits; the budget outlasts the slow I/O. */
static void act_while_waiting(struct __test_metadata *_metadata, struct gate_test *t,
			      enum action action)
{
	long long start;

	gate_start(_metadata, t, action, 2 * HOLD_MS);
	ASSERT_TRUE(waiter_gets_stuck(t))
		TH_LOG("no I/O on a page of a gated pageblock had to wait");
	start = now_us();
	if (action == ACT_KILL)
		kill(t->pid, SIGKILL);
	write_once(t->act, true);
	if (action == ACT_KILL || action == ACT_EXIT)
		waitpid(t->pid, NULL, 0);
	else
		while (!read_once(t->acted) && !read_once(t->alloc_done))
			usleep(1000);
	EXPECT_LT(now_us() - start, PROMPT_MS * USEC_PER_MSEC);
	EXPECT_FALSE(read_once(t->alloc_done))
		TH_LOG("the allocation ended too early for this test");
	gate_finish(_metadata, t);
	EXPECT_EQ(t->alloc_err, 0);
}

TEST_F(gate, sigkill)
{
	act_while_waiting(_metadata, &self->t, ACT_KILL);
}

TEST_F(gate, exit)
{
	act_while_waiting(_metadata, &self->t, ACT_EXIT);
}

TEST_F(gate, fork)
{
	act_while_waiting(_metadata, &self->t, ACT_FORK);
	EXPECT_EQ(self->t.last, psize());
}

TEST_F(gate, munmap)
{
	act_while_waiting(_metadata, &self->t, ACT_MUNMAP);
	/* The waiting I/O has lost its buffer: it fails, as always then. */
	EXPECT_EQ(self->t.last, -1);
}

/* A pin that outlasts the bound: those who wait for it go on before. */
TEST_F(gate, bounded)
{
	gate_start(_metadata, &self->t, ACT_NONE, 2 * HOLD_MS);
	gate_finish(_metadata, &self->t);
	EXPECT_EQ(self->t.last, psize());
	EXPECT_EQ(self->t.alloc_err, 0);
	EXPECT_GT(vm_counter("pin_gate_timeout"), self->t.timeouts);
	EXPECT_LT(self->t.longest_us, (BOUND_MS + PROMPT_MS) * USEC_PER_MSEC);
}

/* A pin that outlasts the budget: the allocation fails, and all go on. */
TEST_F(gate, budget_spent)
{
	const unsigned int budget_ms = 300;

	gate_start(_metadata, &self->t, ACT_NONE, budget_ms);
	gate_finish(_metadata, &self->t);
	EXPECT_NE(self->t.alloc_err, 0);
	EXPECT_LT(self->t.alloc_us, (budget_ms + 2 * PROMPT_MS) * USEC_PER_MSEC);
	EXPECT_EQ(self->t.last, psize());
	EXPECT_EQ(vm_counter("pin_gate_timeout"), self->t.timeouts);
	EXPECT_LT(self->t.longest_us, (budget_ms + PROMPT_MS) * USEC_PER_MSEC);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--expect-failure")) {
		expect_failure = true;
		argv[1] = argv[0];
		argv++;
		argc--;
	}
	system_prepare(system_restore);
	if (area.budget < 0 && !expect_failure)
		ksft_exit_skip(NO_BUDGET "; try --expect-failure\n");
	if (!can_move())
		ksft_exit_skip("no GUP_TEST_MOVE: needs CONFIG_GUP_TEST of a newer kernel\n");
	return test_harness_run(argc, argv);
}
