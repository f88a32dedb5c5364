// SPDX-License-Identifier: GPL-2.0
/*
 * CMA allocation while direct I/O keeps pinning pages of the area. See
 * cma_dio_load.h for the load.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cma_dio_load.h"
#include "cma_util.h"
#include "vm_util.h"

#define QUICK_DEV	NULLB_PREFIX "quick"

/*
 * The tests
 */

static unsigned int nr_tries(void)
{
	const char *env = getenv("CMA_GUP_PIN_TRIES");
	int tries = env ? atoi(env) : 0;

	return tries > 0 ? tries : 5;
}

FIXTURE(load)
{
	long pins;
};

FIXTURE_VARIANT(load)
{
	enum pool_kind kind;
	bool write;
	unsigned int slots;
	unsigned int segs;
	unsigned int seg_kb;	/* 0: one page */
};

FIXTURE_VARIANT_ADD(load, anon_read)
{
	.kind = POOL_ANON, .slots = 32, .segs = 1,
};

FIXTURE_VARIANT_ADD(load, anon_write)
{
	.kind = POOL_ANON, .write = true, .slots = 32, .segs = 1,
};

FIXTURE_VARIANT_ADD(load, anon_read_256k)
{
	.kind = POOL_ANON, .slots = 16, .segs = 1, .seg_kb = 256,
};

FIXTURE_VARIANT_ADD(load, anon_write_256k)
{
	.kind = POOL_ANON, .write = true, .slots = 16, .segs = 1, .seg_kb = 256,
};

FIXTURE_VARIANT_ADD(load, anon_read_1m)
{
	.kind = POOL_ANON, .slots = 8, .segs = 1, .seg_kb = 1024,
};

FIXTURE_VARIANT_ADD(load, anon_write_1m)
{
	.kind = POOL_ANON, .write = true, .slots = 8, .segs = 1, .seg_kb = 1024,
};

FIXTURE_VARIANT_ADD(load, anon_readv)
{
	.kind = POOL_ANON, .slots = 16, .segs = 8,
};

FIXTURE_VARIANT_ADD(load, anon_writev)
{
	.kind = POOL_ANON, .write = true, .slots = 16, .segs = 8,
};

FIXTURE_VARIANT_ADD(load, thp_read)
{
	.kind = POOL_THP, .slots = 32, .segs = 1,
};

FIXTURE_VARIANT_ADD(load, thp_write_1m)
{
	.kind = POOL_THP, .write = true, .slots = 8, .segs = 1, .seg_kb = 1024,
};

FIXTURE_VARIANT_ADD(load, hugetlb_read)
{
	.kind = POOL_HUGETLB, .slots = 16, .segs = 1,
};

FIXTURE_VARIANT_ADD(load, hugetlb_write_1m)
{
	.kind = POOL_HUGETLB, .write = true, .slots = 8, .segs = 1, .seg_kb = 1024,
};

FIXTURE_VARIANT_ADD(load, shmem_read)
{
	.kind = POOL_SHMEM, .slots = 32, .segs = 1,
};

FIXTURE_VARIANT_ADD(load, shmem_write_256k)
{
	.kind = POOL_SHMEM, .write = true, .slots = 16, .segs = 1, .seg_kb = 256,
};

/* Only as the source of writes: the page cache of a read-only file. */
FIXTURE_VARIANT_ADD(load, page_cache_write)
{
	.kind = POOL_FILE, .write = true, .slots = 32, .segs = 1,
};

FIXTURE_SETUP(load)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	self->pins = pins_held();
}

FIXTURE_TEARDOWN_PARENT(load)
{
	system_restore();
}

static void expect_clean_io(struct __test_metadata *_metadata,
			    const struct result *res, long pins_before)
{
	EXPECT_EQ(res->errors, 0)
		TH_LOG("short or failed I/O, first result %ld", res->first_error);
	EXPECT_EQ(res->corrupt, 0);
	EXPECT_TRUE(pins_back_to(pins_before))
		TH_LOG("%ld pins more than before", pins_held() - pins_before);
}

TEST_F_TIMEOUT(load, whole_area, 300)
{
	const struct load_spec spec = {
		.threads = 2,
		.slots = variant->slots,
		.segs = variant->segs,
		.seg_bytes = max_size(variant->seg_kb * KB, psize()),
		.completion_us = 2000,
		.write = variant->write,
	};
	struct result res;
	struct pool pool;

	if (!pool_prepare(&pool, variant->kind, pool_bytes_for(&spec)))
		SKIP(return, "%s", reason);
	ASSERT_TRUE(run_tries(&spec, &pool, &take_area, nr_tries(), &res))
		TH_LOG("%s", reason);
	result_print(&res);
	if (res.resident < MIN_RESIDENT)
		SKIP(return, "only %u %% of the buffers were in the area", res.resident);
	EXPECT_EQ(res.succeeded, res.tried);
	expect_clean_io(_metadata, &res, self->pins);
}

FIXTURE(integrity)
{
	long pins;
};

FIXTURE_VARIANT(integrity)
{
	enum pool_kind kind;
	unsigned int segs;
	unsigned int seg_kb;	/* 0: one page */
};

FIXTURE_VARIANT_ADD(integrity, anon)
{
	.kind = POOL_ANON, .segs = 1,
};

FIXTURE_VARIANT_ADD(integrity, anon_vectors)
{
	.kind = POOL_ANON, .segs = 8,
};

FIXTURE_VARIANT_ADD(integrity, thp)
{
	.kind = POOL_THP, .segs = 1, .seg_kb = 256,
};

FIXTURE_VARIANT_ADD(integrity, shmem)
{
	.kind = POOL_SHMEM, .segs = 1, .seg_kb = 64,
};

FIXTURE_SETUP(integrity)
{
	if (area.budget >= 0)
		ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	self->pins = pins_held();
}

FIXTURE_TEARDOWN_PARENT(integrity)
{
	system_restore();
}

/* Makes sense on every kernel; only one that waits has to succeed, too. */
TEST_F_TIMEOUT(integrity, read_back, 300)
{
	const struct load_spec spec = {
		.threads = 2,
		.slots = 8,
		.segs = variant->segs,
		.seg_bytes = max_size(variant->seg_kb * KB, psize()),
		.completion_us = 2000,
		.verify = true,
	};
	struct result res;
	struct pool pool;

	if (!pool_prepare(&pool, variant->kind, pool_bytes_for(&spec)))
		SKIP(return, "%s", reason);
	ASSERT_TRUE(run_tries(&spec, &pool, &take_area, nr_tries(), &res))
		TH_LOG("%s", reason);
	result_print(&res);
	if (area.budget >= 0)
		EXPECT_EQ(res.succeeded, res.tried);
	expect_clean_io(_metadata, &res, self->pins);
}

FIXTURE(budget)
{
	long pins;
};

FIXTURE_SETUP(budget)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	self->pins = pins_held();
}

FIXTURE_TEARDOWN_PARENT(budget)
{
	system_restore();
}

TEST_F_TIMEOUT(budget, zero_never_waits, 300)
{
	const struct load_spec spec = {
		.threads = 2,
		.slots = 32,
		.segs = 1,
		.seg_bytes = psize(),
		.completion_us = 2000,
	};
	unsigned long waits = vm_counter("pin_gate_wait"), drains = vm_counter("cma_drain");
	struct result res;
	struct pool pool;

	ASSERT_EQ(put_num(budget_file(), 0), 0);
	ASSERT_TRUE(pool_prepare(&pool, POOL_ANON, pool_bytes_for(&spec)) &&
		    run_tries(&spec, &pool, &take_area, nr_tries(), &res))
		TH_LOG("%s", reason);
	result_print(&res);
	EXPECT_LT(res.succeeded, res.tried);
	EXPECT_EQ(vm_counter("pin_gate_wait"), waits);
	EXPECT_EQ(vm_counter("cma_drain"), drains);
	expect_clean_io(_metadata, &res, self->pins);
}

TEST_F(budget, good_values)
{
	static const struct {
		const char *text;
		unsigned long value;
	} good[] = {
		{ "0", 0 }, { "250", 250 }, { "0\n", 0 }, { "1000\n", 1000 },
		{ "2147483647", INT_MAX },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(put_str(budget_file(), good[i].text), 0)
			TH_LOG("wrote '%s'", good[i].text);
		EXPECT_EQ(read_num(budget_file()), good[i].value);
	}
}

TEST_F(budget, bad_values)
{
	static const char * const bad[] = {
		"-1", "abc", "\n", "1 2", "1.5", "10ms", "0x10", "-", "2147483648",
		"4294967296", "99999999999", "18446744073709551616",
		"99999999999999999999",
	};
	unsigned int i;

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

enum action {
	ACT_NONE,
	ACT_KILL,
	ACT_EXIT,
	ACT_FORK,
	ACT_MUNMAP,
};

/* Shared between the test and the process that waits. */
struct gate_test {
	unsigned long waits;	/* counters before the test */
	unsigned long timeouts;
	long pins;

	struct pool pool;
	char *page;

	struct slow_pins slow;

	pthread_t allocator;
	int alloc_err;
	long long alloc_us;
	bool alloc_done;

	pid_t pid;
	int fd;			/* of the quick device */
	enum action action;
	bool act;
	bool stop;
	long long io_since;	/* start of the I/O in flight, 0: none */
	long long longest_us;
	long last;		/* result of the last I/O */
	bool acted;
};

static void *waiter_io(void *arg)
{
	struct gate_test *t = arg;
	long long start, us;

	do {
		start = now_us();
		write_once(t->io_since, start);
		t->last = pread(t->fd, t->page, psize(), 0);
		write_once(t->io_since, 0);
		us = now_us() - start;
		if (us > t->longest_us)
			t->longest_us = us;
	} while (t->last == psize() && !read_once(t->stop));
	return NULL;
}

static void waiter_act(struct gate_test *t)
{
	pid_t pid;

	switch (t->action) {
	case ACT_EXIT:
		_exit(0);
	case ACT_FORK:
		pid = fork();
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
		break;
	case ACT_MUNMAP:
		munmap(t->page, psize());
		break;
	default:
		break;
	}
	write_once(t->acted, true);
}

/* One thread does I/O until it has to wait, then the other one acts. */
static void waiter_process(struct gate_test *t)
{
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pthread_create(&thread, NULL, waiter_io, t))
		_exit(KSFT_FAIL);
	while (!read_once(t->act) && !read_once(t->stop))
		usleep(1000);
	if (t->act)
		waiter_act(t);
	pthread_join(thread, NULL);
	_exit(0);
}

static bool waiter_is_stuck(const struct gate_test *t)
{
	long long since = read_once(t->io_since);

	return since && now_us() - since > STUCK_MS * USEC_PER_MSEC &&
	       vm_counter("pin_gate_wait") > t->waits;
}

static bool waiter_wait_stuck(const struct gate_test *t)
{
	long long deadline = now_us() + HOLD_MS * USEC_PER_MSEC;

	while (now_us() < deadline) {
		if (waiter_is_stuck(t))
			return true;
		usleep(1000);
	}
	return because("no I/O on a page of a gated pageblock had to wait");
}

/* Let the waiting process act and return how long that took. */
static long long waiter_trigger(struct gate_test *t)
{
	long long start = now_us(), deadline = start + HOLD_MS * USEC_PER_MSEC;

	if (t->action == ACT_KILL)
		kill(t->pid, SIGKILL);
	else
		write_once(t->act, true);
	if (t->action == ACT_KILL || t->action == ACT_EXIT) {
		waitpid(t->pid, NULL, 0);
		t->pid = 0;
	} else {
		while (!read_once(t->acted) && now_us() < deadline)
			usleep(1000);
	}
	return now_us() - start;
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

/* Find a page in the area. */
static bool gate_page(struct gate_test *t)
{
	if (!pool_prepare(&t->pool, POOL_SHMEM, 4 * MB) || !pool_fill(&t->pool))
		return false;
	t->page = resident_page(&t->pool, 0);
	return t->page;
}

static bool gate_devices(struct gate_test *t)
{
	struct nullb_conf quick = { .bytes = MB, .completion_us = 100, .depth = 64 };

	t->fd = nullb_create(QUICK_DEV, &quick);
	return t->fd >= 0 && slow_pins_create(&t->slow, HOLD_MS, 1);
}

/* Bring up all the parts. The allocation starts last, and closes the gate. */
static bool gate_start(struct gate_test *t, enum action action, unsigned int budget_ms)
{
	pid_t pid;

	t->action = action;
	if (put_num(budget_file(), budget_ms))
		return because("cannot set the budget");
	if (!gate_devices(t) || !gate_page(t))
		return false;
	pid = fork();
	if (!pid)
		waiter_process(t);
	if (pid < 0)
		return because("fork: %s", strerror(errno));
	t->pid = pid;
	if (!slow_pin(&t->slow, t->page))
		return false;
	if (pthread_create(&t->allocator, NULL, allocator_run, t))
		return because("cannot start a thread");
	return true;
}

/* Wait for the end of the allocation, the process and the slow I/O. */
static void gate_finish(struct gate_test *t)
{
	pthread_join(t->allocator, NULL);
	write_once(t->stop, true);
	if (t->pid)
		waitpid(t->pid, NULL, 0);
	slow_pins_finish(&t->slow);
	pool_unmap(&t->pool);
}

FIXTURE(gate)
{
	struct gate_test t;
};

FIXTURE_SETUP(gate)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	self->t.pins = pins_held();
	self->t.waits = vm_counter("pin_gate_wait");
	self->t.timeouts = vm_counter("pin_gate_timeout");
}

FIXTURE_TEARDOWN_PARENT(gate)
{
	system_restore();
}

static void expect_waited(struct __test_metadata *_metadata, const struct gate_test *t)
{
	EXPECT_GT(vm_counter("pin_gate_wait"), t->waits);
	EXPECT_TRUE(pins_back_to(t->pins))
		TH_LOG("%ld pins more than before", pins_held() - t->pins);
}

/* Act while a thread of the process waits; the budget outlasts the slow I/O. */
static void act_while_waiting(struct __test_metadata *_metadata, struct gate_test *t,
			      enum action action)
{
	long long us;
	bool done;

	ASSERT_TRUE(gate_start(t, action, 2 * HOLD_MS) && waiter_wait_stuck(t))
		TH_LOG("%s", reason);
	us = waiter_trigger(t);
	done = read_once(t->alloc_done);
	gate_finish(t);
	ksft_print_msg("took %lld ms with the gate closed\n", us / USEC_PER_MSEC);

	EXPECT_LT(us, PROMPT_MS * USEC_PER_MSEC);
	EXPECT_FALSE(done)
		TH_LOG("the allocation ended too early for this test");
	EXPECT_EQ(t->alloc_err, 0);
	expect_waited(_metadata, t);
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
	struct gate_test *t = &self->t;

	ASSERT_TRUE(gate_start(t, ACT_NONE, 2 * HOLD_MS))
		TH_LOG("%s", reason);
	gate_finish(t);
	ksft_print_msg("the longest I/O took %lld ms\n", t->longest_us / USEC_PER_MSEC);

	EXPECT_EQ(t->last, psize());
	EXPECT_EQ(t->alloc_err, 0);
	EXPECT_GT(vm_counter("pin_gate_timeout"), t->timeouts);
	EXPECT_LT(t->longest_us, (BOUND_MS + PROMPT_MS) * USEC_PER_MSEC);
	expect_waited(_metadata, t);
}

/* A pin that outlasts the budget: the allocation fails, and all go on. */
TEST_F(gate, budget_spent)
{
	const unsigned int budget_ms = 300;
	struct gate_test *t = &self->t;

	ASSERT_TRUE(gate_start(t, ACT_NONE, budget_ms))
		TH_LOG("%s", reason);
	gate_finish(t);
	ksft_print_msg("the allocation took %lld ms, the longest I/O %lld ms\n",
		       t->alloc_us / USEC_PER_MSEC, t->longest_us / USEC_PER_MSEC);

	EXPECT_NE(t->alloc_err, 0);
	EXPECT_LT(t->alloc_us, (budget_ms + 2 * PROMPT_MS) * USEC_PER_MSEC);
	EXPECT_EQ(t->last, psize());
	EXPECT_EQ(vm_counter("pin_gate_timeout"), t->timeouts);
	EXPECT_LT(t->longest_us, (budget_ms + PROMPT_MS) * USEC_PER_MSEC);
	expect_waited(_metadata, t);
}

int main(int argc, char **argv)
{
	if (!system_prepare(system_restore) ||
	    !ballast_leave_at_most(pool_may_leave(area_bytes() / 8))) {
		ksft_print_header();
		ksft_exit_skip("%s\n", reason);
	}
	return test_harness_run(argc, argv);
}
