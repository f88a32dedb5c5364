// SPDX-License-Identifier: GPL-2.0
/*
 * A CMA allocation and those who pin pages of its area can come to wait for each
 * other within one task, process or system call: through their own pins, the
 * mmap_lock, polled I/O, long-term pins, freezing, memory offlining. These tests
 * set up such cycles and show that they end within the bound, or that there is
 * none. Others show that allocations do not wait for each other, and that to wait
 * costs little. See cma_gup_cycle.c for cycles by way of storage.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cma_held_pages.h"
#include "cma_env.h"
#include "cma_io.h"
#include "vm_util.h"

#define LOAD_DEV	NULLB_PREFIX "load"
#define CGROUP_MNT	"/tmp/cma_gup_wait_cgroup"
#define ROUNDS		3
/* More of them, if by chance none has met a pin yet. */
#define MAX_ROUNDS	30

static bool more_rounds(const struct held_pages *s, unsigned int done)
{
	return done < ROUNDS ||
	       (done < MAX_ROUNDS && vm_counter("cma_drain") == s->drains);
}

/* Shared with the parent of the tests, to restore the system. */
static struct {
	long offline;		/* memory block, -1: none */
	bool suspend;		/* its test mode is on */
} *shared;

/* Have suspend stop and turn back after freezing. */
static int suspend_test(bool on)
{
	static unsigned long delay;

	shared->suspend = on;
	if (on) {
		delay = read_num("/sys/module/suspend/parameters/pm_test_delay");
		put_num("/sys/module/suspend/parameters/pm_test_delay", 0);
	} else {
		put_num("/sys/module/suspend/parameters/pm_test_delay", delay ?: 5);
	}
	return put_str("/sys/power/pm_test", on ? "freezer" : "none");
}

/* Bring back all that tests can leave behind, also if they were killed. */
static void restore_all(void)
{
	if (!access(CGROUP_MNT, F_OK)) {
		rmdir(CGROUP_MNT "/cma_gup_wait");
		run_cmd("umount " CGROUP_MNT " 2>/dev/null");
		rmdir(CGROUP_MNT);
	}
	if (shared->offline >= 0)
		memory_set_state(shared->offline, "online_movable", 20);
	shared->offline = -1;
	if (shared->suspend)
		suspend_test(false);
	env_restore();
}

/*
 * Cycles of one task or one process
 */

FIXTURE(gate)
{
	struct held_pages s;
	char *page;		/* in the area, to be held */
};

FIXTURE_SETUP(gate)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	self->page = held_pages_of_one_page(&self->s);
	ASSERT_NE(self->page, NULL);
	/* Direct I/O does not wait for what is not mapped. */
	FORCE_READ(*self->page);
}

FIXTURE_TEARDOWN_PARENT(gate)
{
	restore_all();
}

/* Allocate while I/O of the same task pins a page. */
static void alloc_with_own_pin(struct __test_metadata *_metadata, struct held_pages *s,
			       unsigned int budget_ms, bool succeeds)
{
	long long start, us;
	int err;

	ASSERT_EQ(put_num(budget_file(), budget_ms), 0);
	start = now_us();
	err = area_alloc();
	us = now_us() - start;
	area_free();
	ksft_print_msg("the allocation took %ld ms and %s, budget %u ms\n", to_ms(us),
		       err ? "failed" : "succeeded", budget_ms);
	if (succeeds) {
		EXPECT_EQ(err, 0);
		EXPECT_LT(to_ms(us), HOLD_MS + 2 * PROMPT_MS);
	} else {
		EXPECT_NE(err, 0);
		EXPECT_GT(to_ms(us), budget_ms - 50);
		EXPECT_LT(to_ms(us), budget_ms + 2 * PROMPT_MS);
	}
	EXPECT_GT(vm_counter("cma_drain"), s->drains);
}

TEST_F_TIMEOUT(gate, own_pin, 60)
{
	ASSERT_TRUE(slow_pin(&self->s.slow, self->page));
	alloc_with_own_pin(_metadata, &self->s, AMPLE_MS, true);
	held_pages_finish(&self->s);
	EXPECT_TRUE(pins_back_to(self->s.pins));
}

TEST_F_TIMEOUT(gate, own_pin_budget, 60)
{
	ASSERT_TRUE(slow_pin(&self->s.slow, self->page));
	alloc_with_own_pin(_metadata, &self->s, 400, false);
	held_pages_finish(&self->s);
	EXPECT_TRUE(pins_back_to(self->s.pins));
}

/* Who waits must not hold the mmap_lock. fd: of the device, -1 for process_vm_readv(). */
static void take_mmap_lock(struct __test_metadata *_metadata, struct held_pages *s, int fd,
			   char *page)
{
	long long start, us;
	char path[64], maps[4096];
	struct pinner p;
	pid_t pid;
	char *map;
	int status;

	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS) && pinner_start_on(&p, fd, page) &&
		    pinner_wait_stuck(s, &p));
	start = now_us();
	/* The lock is taken for writing, for reading by a fault, and to fork. */
	map = mmap(NULL, psize(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(map, MAP_FAILED);
	write_once(*map, 1);
	EXPECT_EQ(mprotect(map, psize(), PROT_READ), 0);
	EXPECT_EQ(munmap(map, psize()), 0);
	snprintf(path, sizeof(path), "/proc/%d/maps", getpid());
	pid = fork();
	if (!pid)
		_exit(read_file(path, maps, sizeof(maps)) > 0 ? KSFT_PASS : KSFT_FAIL);
	waitpid(pid, &status, 0);
	us = now_us() - start;
	EXPECT_EQ(status, 0);
	EXPECT_TRUE(pinner_is_stuck(&p))
		TH_LOG("the waiter did not wait all the time");
	pinner_stop(&p);
	held_pages_finish(s);
	ksft_print_msg("mmap, fault, munmap, fork and reading the maps took %ld ms\n", to_ms(us));
	EXPECT_LT(to_ms(us), PROMPT_MS);
	EXPECT_LT(to_ms(p.longest_us), BOUND_MS + PROMPT_MS);
	EXPECT_EQ(p.errors, 0);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* Direct I/O waits before it pins anything ... */
TEST_F_TIMEOUT(gate, mmap_lock, 60)
{
	take_mmap_lock(_metadata, &self->s, self->s.quick, self->page);
}

/* ... and this in GUP. */
TEST_F_TIMEOUT(gate, mmap_lock_remote, 60)
{
	char from = 0, to;
	struct iovec local = { &to, 1 }, remote = { &from, 1 };

	if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != 1)
		SKIP(return, "no process_vm_readv: needs CONFIG_CROSS_MEMORY_ATTACH");
	take_mmap_lock(_metadata, &self->s, -1, self->page);
}

/* Who waits for a pageblock that a drain has isolated can be killed. */
TEST_F_TIMEOUT(gate, killed_beside_drain, 60)
{
	struct held_pages *s = &self->s;
	long long start, us;
	int status;
	pid_t pid;

	/* One page is left, for another allocation. */
	area.count--;
	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS));
	pid = fork();
	if (!pid) {
		area.count = 1;
		_exit(area_alloc() ? KSFT_FAIL : KSFT_PASS);
	}
	ASSERT_GT(pid, 0);
	usleep(LEAD_MS * 1000);
	ASSERT_EQ(waitpid(pid, &status, WNOHANG), 0)
		TH_LOG("the allocation of one page did not have to wait");
	start = now_us();
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	us = now_us() - start;
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_TRUE(gate_is_closed(s->quick, self->page))
		TH_LOG("the drain ended too early for this test");
	held_pages_finish(s);
	ksft_print_msg("the killed allocation was gone after %ld ms\n", to_ms(us));
	EXPECT_LT(to_ms(us), PROMPT_MS);
	EXPECT_EQ(s->alloc.err, 0);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * What a wait costs: one page at the start of the area is pinned, and nothing else
 * is left there, for a budget of next to nothing, and for one that is a second
 * longer.
 */

struct cost {
	long long us;
	long long cpu_us;
};

static bool cost_of_alloc(struct cost *cost, unsigned int budget_ms)
{
	long long start, cpu;
	int err;

	if (put_num(budget_file(), budget_ms))
		return cannot("set the budget");
	start = now_us();
	cpu = cpu_us();
	err = area_alloc();
	cost->cpu_us = cpu_us() - cpu;
	cost->us = now_us() - start;
	return err || cannot("make the allocation meet the pin");
}

/* How much of a CPU does it take to wait, in per mille? */
static bool cost_of_wait(struct held_pages *s, long *permille)
{
	struct cost none, wait;
	bool ok;

	/* The first one is to move all other pages away. */
	ok = slow_pin(&s->slow, s->held[0]) && cost_of_alloc(&none, 10) &&
	     cost_of_alloc(&none, 10) && cost_of_alloc(&wait, 1010);
	slow_pins_finish(&s->slow);
	if (!ok)
		return false;
	ksft_print_msg("%ld ms, of these %ld ms of CPU; without a wait %ld ms, %ld ms of CPU\n",
		       to_ms(wait.us), to_ms(wait.cpu_us), to_ms(none.us), to_ms(none.cpu_us));
	if (to_ms(wait.us - none.us) < 800)
		return cannot("make the allocation wait");
	*permille = (wait.cpu_us - none.cpu_us) * 1000 / (wait.us - none.us);
	return true;
}

/* The lowest and the highest page of a pool in the area, by pfn. */
static bool outermost_pages(const struct pool *pool, char **lowest, char **highest)
{
	unsigned long pfn, min = ULONG_MAX, max = 0;
	char *page;

	for (page = pool->addr; page < pool->addr + pool->bytes; page += psize()) {
		if (!resident_pages(pool, page, psize()))
			continue;
		pfn = pagemap_get_pfn(pool->pagemap, page);
		if (pfn < min) {
			min = pfn;
			*lowest = page;
		}
		if (pfn > max) {
			max = pfn;
			*highest = page;
		}
	}
	return max || cannot("find a page of the buffers in the area");
}

static unsigned long offset_in_area(const struct pool *pool, char *page)
{
	return (pagemap_get_pfn(pool->pagemap, page) - area.base_pfn) * psize();
}

FIXTURE(cost)
{
	struct held_pages s;
};

FIXTURE_SETUP(cost)
{
	struct held_pages *s = &self->s;
	char *highest;

	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	held_pages_begin(s);
	ASSERT_TRUE(held_pages_devices(s, 4000) && held_pages_memory(s) &&
		    held_pages_fill(s) && outermost_pages(&s->buf, &s->held[0], &highest));
}

FIXTURE_TEARDOWN_PARENT(cost)
{
	restore_all();
}

TEST_F_TIMEOUT(cost, drain_cpu, 90)
{
	long permille = 0, best = LONG_MAX;
	struct held_pages *s = &self->s;
	unsigned long offset = offset_in_area(&s->buf, s->held[0]);
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_TRUE(cost_of_wait(s, &permille));
		if (permille < best)
			best = permille;
	}
	held_pages_finish(s);
	ksft_print_msg("area of %zu MB, pin at %lu KB: to wait takes %.1f %% of a CPU\n",
		       area_bytes() / MB, offset / KB, best / 10.0);
	EXPECT_LE(best, 50);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * Allocations beside each other. The whole area is allocated, by buffers of a heap,
 * but for places around some pages that are held. For an allocation of that size
 * there is no other place.
 */

#define MAX_FILLERS	1024

struct beside {
	struct held_pages s;
	int heap;
	int refs[2];		/* a pipe with references to the held pages */
	int fillers[MAX_FILLERS];
	unsigned int nr_fillers;
	unsigned int nr_big;	/* the first ones, from the start of the area on */
};

/* An allocation from the heap in the background */
struct heap_task {
	pthread_t thread;
	int heap;
	int buffer;		/* a file descriptor, or -errno */
	long long end_us;	/* 0: not yet */
};

static void *heap_task_run(void *arg)
{
	struct heap_task *t = arg;

	t->buffer = heap_alloc(t->heap, ALIGNMENT);
	write_once(t->end_us, now_us());
	return NULL;
}

static bool heap_task_start(struct heap_task *t, const struct beside *b)
{
	*t = (struct heap_task){ .heap = b->heap };
	return !pthread_create(&t->thread, NULL, heap_task_run, t) || cannot("start a thread");
}

/* Returns whether it succeeded. */
static bool heap_task_finish(struct heap_task *t)
{
	pthread_join(t->thread, NULL);
	if (t->buffer < 0)
		return false;
	close(t->buffer);
	return true;
}

/* Pick one page, or two that are some pageblocks away from each other. */
static bool beside_pick(struct beside *b, unsigned int nr)
{
	struct held_pages *s = &b->s;
	char *low, *high;

	if (!outermost_pages(&s->buf, &low, &high))
		return false;
	if (offset_in_area(&s->buf, high) - offset_in_area(&s->buf, low) < 4 * ALIGNMENT)
		return cannot("find two pages in the area that are far from each other");
	s->held[0] = low;
	s->held[1] = high;
	s->nr_held = nr;
	return true;
}

/* Unlike the pins of I/O, these references last for as long as need be. */
static bool beside_get_refs(struct beside *b)
{
	unsigned int i;

	for (i = 0; i < b->s.nr_held; i++) {
		struct iovec iov = { .iov_base = b->s.held[i], .iov_len = psize() };

		if (vmsplice(b->refs[1], &iov, 1, 0) != psize())
			return cannot("refer to a page by vmsplice: %s", strerror(errno));
	}
	return true;
}

static bool beside_put_refs(struct beside *b)
{
	char data[psize()];
	unsigned int i;

	for (i = 0; i < b->s.nr_held; i++)
		if (read(b->refs[0], data, psize()) != psize())
			return cannot("read the pipe: %s", strerror(errno));
	return true;
}

static void beside_fill_by(struct beside *b, size_t bytes)
{
	int fd;

	while (b->nr_fillers < MAX_FILLERS) {
		fd = heap_alloc(b->heap, bytes);
		if (fd < 0)
			break;
		b->fillers[b->nr_fillers++] = fd;
	}
}

/* Big buffers first, for speed. For a moment, any page can be in use. */
static bool beside_fill(struct beside *b)
{
	size_t left = area_bytes();
	int i;

	if (put_num(budget_file(), 0))
		return cannot("set the budget");
	beside_fill_by(b, 8 * ALIGNMENT);
	b->nr_big = b->nr_fillers;
	for (i = 0; i < 50; i++) {
		beside_fill_by(b, ALIGNMENT);
		left = (area.count - area_get("used")) * psize();
		if (left == b->s.nr_held * ALIGNMENT)
			return true;
		usleep(20000);
	}
	return cannot("fill the area: %zu KB are left, for %u pages", left / KB, b->s.nr_held);
}

/* All that, then pins instead of the references, which last for hold_ms. */
static bool beside_start(struct beside *b, unsigned int nr, unsigned int hold_ms)
{
	struct held_pages *s = &b->s;
	unsigned int i;

	if (!held_pages_devices(s, hold_ms) || !held_pages_memory(s) || !held_pages_fill(s) ||
	    !beside_pick(b, nr) || !beside_get_refs(b) || !beside_fill(b))
		return false;
	s->release_us = now_us() + hold_ms * USEC_PER_MSEC;
	for (i = 0; i < nr; i++)
		if (!slow_pin(&s->slow, s->held[i]))
			return false;
	return beside_put_refs(b);
}

/* Are the gates of all held pages closed, at some moment before the pins end? */
static bool beside_wait_gates(const struct beside *b)
{
	const struct held_pages *s = &b->s;
	unsigned int i = 0;

	while (i < s->nr_held) {
		if (now_us() > s->release_us - LEAD_MS * USEC_PER_MSEC)
			return cannot("have all gates closed at a time");
		for (i = 0; i < s->nr_held && gate_is_closed(s->quick, s->held[i]); i++)
			;
		usleep(1000);
	}
	return true;
}

static void beside_finish(struct beside *b)
{
	while (b->nr_fillers)
		close(b->fillers[--b->nr_fillers]);
	close(b->refs[0]);
	close(b->refs[1]);
	held_pages_finish(&b->s);
	close(b->heap);
}

FIXTURE(beside)
{
	struct beside b;
};

FIXTURE_SETUP(beside)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	self->b.heap = heap_open();
	if (self->b.heap < 0)
		SKIP(return, NO_HEAP);
	held_pages_begin(&self->b.s);
	ASSERT_EQ(pipe(self->b.refs), 0);
}

FIXTURE_TEARDOWN_PARENT(beside)
{
	restore_all();
}

#define SMALL_BYTES	(16 * psize())
#define SMALL_TRIES	20
#define SLACK_US	5000	/* of an emulated machine */

static int cmp_us(const void *a, const void *b)
{
	const long long *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/*
 * The median time of some small allocations, -1 if one failed. If there is a task,
 * only of those before its end.
 */
static long long small_allocs(const struct beside *b, const struct heap_task *task,
			      unsigned int *nr)
{
	long long us[SMALL_TRIES], start;
	int fd;

	for (*nr = 0; *nr < SMALL_TRIES && !(task && read_once(task->end_us)); ++*nr) {
		start = now_us();
		fd = heap_alloc(b->heap, SMALL_BYTES);
		us[*nr] = now_us() - start;
		if (fd < 0)
			return -1;
		close(fd);
	}
	qsort(us, *nr, sizeof(us[0]), cmp_us);
	return *nr ? us[*nr / 2] : -1;
}

/* Room for small allocations, in the half of the area without the held page */
static void beside_make_room(struct beside *b)
{
	bool low = offset_in_area(&b->s.buf, b->s.held[0]) < area_bytes() / 2;
	int *filler = &b->fillers[low ? b->nr_big - 1 : 0];

	close(*filler);
	*filler = -1;
}

/* A drain that spends its budget delays nobody who needs another place. */
TEST_F_TIMEOUT(beside, small_allocs, 90)
{
	const unsigned int budget_ms = 1500;
	long long start, ms, median, idle;
	struct beside *b = &self->b;
	unsigned long drains, fails;
	struct heap_task t;
	unsigned int nr;
	bool succeeded;

	ASSERT_TRUE(beside_start(b, 1, 4000));
	drains = vm_counter("cma_drain");
	fails = vm_counter("cma_drain_fail");
	ASSERT_EQ(put_num(budget_file(), budget_ms), 0);
	start = now_us();
	ASSERT_TRUE(heap_task_start(&t, b) && beside_wait_gates(b));
	beside_make_room(b);
	median = small_allocs(b, &t, &nr);
	EXPECT_GE(nr, SMALL_TRIES / 2)
		TH_LOG("the drain ended too early for this test");
	succeeded = heap_task_finish(&t);
	ms = to_ms(t.end_us - start);
	slow_pins_finish(&b->s.slow);
	idle = small_allocs(b, NULL, &nr);
	ksft_print_msg("%lu KB beside a drain %.1f ms (p50), in the idle area %.1f ms\n",
		       SMALL_BYTES / KB, (double)median / USEC_PER_MSEC,
		       (double)idle / USEC_PER_MSEC);
	ksft_print_msg("the drain took %lld ms, budget %u ms\n", ms, budget_ms);
	EXPECT_FALSE(succeeded);
	EXPECT_EQ(vm_counter("cma_drain"), drains + 1);
	EXPECT_EQ(vm_counter("cma_drain_fail"), fails + 1);
	EXPECT_GT(ms, budget_ms - 50);
	EXPECT_LT(ms, budget_ms + 2 * PROMPT_MS);
	EXPECT_GT(idle, 0);
	EXPECT_GT(median, 0)
		TH_LOG("a small allocation failed");
	EXPECT_LE(median, 2 * idle + SLACK_US);
	beside_finish(b);
	EXPECT_TRUE(pins_back_to(b->s.pins));
}

/* Two drains in one area wait at the same time. */
TEST_F_TIMEOUT(beside, two_drains, 90)
{
	struct beside *b = &self->b;
	unsigned long drains, fails;
	struct heap_task t[2];
	long long start, us;

	ASSERT_TRUE(beside_start(b, ARRAY_SIZE(t), HOLD_MS));
	drains = vm_counter("cma_drain");
	fails = vm_counter("cma_drain_fail");
	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	start = now_us();
	ASSERT_TRUE(heap_task_start(&t[0], b) && heap_task_start(&t[1], b));
	EXPECT_TRUE(beside_wait_gates(b));
	EXPECT_TRUE(heap_task_finish(&t[0]));
	EXPECT_TRUE(heap_task_finish(&t[1]));
	us = now_us() - start;
	ksft_print_msg("two allocations that wait for pins took %ld ms, the pins %u ms\n",
		       to_ms(us), HOLD_MS);
	EXPECT_LT(to_ms(us), HOLD_MS * 8 / 5);
	EXPECT_EQ(vm_counter("cma_drain"), drains + 2);
	EXPECT_EQ(vm_counter("cma_drain_fail"), fails);
	beside_finish(b);
	EXPECT_TRUE(pins_back_to(b->s.pins));
}

/*
 * Long-term pins
 */

/* Register a buffer, which pins it for long, until the ring is gone. */
static int pin_by_io_uring(struct held_pages *s, char *addr, size_t len)
{
	struct iovec iov = { .iov_base = addr, .iov_len = len };
	struct io_uring_params params = { };
	struct io_uring ring = { .ring_fd = io_uring_setup(1, &params) };
	int ret;

	if (ring.ring_fd < 0)
		return -EOPNOTSUPP;
	ret = io_uring_register_buffers(&ring, &iov, 1);
	close(ring.ring_fd);
	return ret;
}

static int pin_by_udmabuf(struct held_pages *s, char *addr, size_t len)
{
	struct udmabuf_create create = {
		.memfd = s->buf.fd,
		.offset = addr - s->rw,
		.size = len,
	};
	int fd, buf;

	fd = open("/dev/udmabuf", O_RDWR);
	if (fd < 0)
		return -EOPNOTSUPP;
	buf = ioctl(fd, UDMABUF_CREATE, &create);
	close(fd);
	if (buf < 0)
		return -errno;
	close(buf);
	return 0;
}

FIXTURE(longterm)
{
	struct held_pages s;
	char *page;
};

FIXTURE_VARIANT(longterm)
{
	int (*pin)(struct held_pages *s, char *addr, size_t len);
	bool waits;		/* at gates, before it migrates the folio */
};

FIXTURE_VARIANT_ADD(longterm, io_uring) { pin_by_io_uring, .waits = true };
FIXTURE_VARIANT_ADD(longterm, udmabuf) { pin_by_udmabuf };

FIXTURE_SETUP(longterm)
{
	struct held_pages *s = &self->s;

	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	held_pages_begin(s);
	ASSERT_TRUE(held_pages_devices(s, 4000) && held_pages_memory(s));
	if (variant->pin(s, s->rw, psize()) == -EOPNOTSUPP)
		SKIP(return, "no such way to pin here");
	ASSERT_TRUE(held_pages_fill(s) && held_pages_pick(s, &s->buf, 0));
	self->page = s->rw + (s->held[0] - s->buf.addr);
}

FIXTURE_TEARDOWN_PARENT(longterm)
{
	restore_all();
}

/*
 * A long-term pin moves the folio out of the area, but cannot while somebody else
 * pins it. GUP waits for that at the gate, and does not burn the CPU. For a memfd it
 * fails at once, with gates as without.
 */
TEST_F_TIMEOUT(longterm, waits, 60)
{
	struct held_pages *s = &self->s;
	long long start, us, cpu;
	int ret;

	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS));
	sleep_until(s->release_us - LEAD_MS * USEC_PER_MSEC);
	start = now_us();
	cpu = cpu_us();
	ret = variant->pin(s, self->page, psize());
	cpu = cpu_us() - cpu;
	us = now_us() - start;
	allocation_finish(&s->alloc);
	ksft_print_msg("the pin took %ld ms, %ld ms of CPU: %s; the allocation %ld ms\n",
		       to_ms(us), to_ms(cpu), strerror(-ret), to_ms(s->alloc.us));

	if (variant->waits) {
		EXPECT_EQ(ret, 0);
		EXPECT_GT(to_ms(us), LEAD_MS - 100);
		EXPECT_LT(to_ms(us), BOUND_MS + PROMPT_MS);
		EXPECT_LT(cpu, us / 2);
	} else {
		EXPECT_EQ(ret, -ENOMEM);
		EXPECT_LT(to_ms(us), LEAD_MS);
		EXPECT_EQ(variant->pin(s, self->page, psize()), 0);
	}
	EXPECT_EQ(s->alloc.err, 0);
	held_pages_finish(s);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* One that the pin in its way outlasts. */
TEST_F_TIMEOUT(longterm, bounded, 60)
{
	struct held_pages *s = &self->s;
	long long start, us, cpu;
	int ret;

	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS));
	start = now_us();
	cpu = cpu_us();
	ret = variant->pin(s, self->page, psize());
	cpu = cpu_us() - cpu;
	us = now_us() - start;
	ksft_print_msg("the pin took %ld ms, %ld ms of CPU, bound %d ms: %s\n", to_ms(us),
		       to_ms(cpu), BOUND_MS, strerror(-ret));
	held_pages_finish(s);

	EXPECT_EQ(ret, -ENOMEM);
	EXPECT_LT(to_ms(us), (variant->waits ? BOUND_MS : 0) + PROMPT_MS);
	if (variant->waits)
		EXPECT_LT(cpu, us / 2);
	EXPECT_EQ(s->alloc.err, 0);
	EXPECT_TRUE(pins_back_to(s->pins));
}

struct longterm_race {
	struct held_pages *s;
	int (*pin)(struct held_pages *s, char *addr, size_t len);
};

/* One piece of the memory after the other */
static bool pin_for_race(const struct pinner *p)
{
	const struct longterm_race *r = p->arg;
	size_t piece = 16 * psize();

	return !r->pin(r->s, r->s->rw + p->calls * piece % r->s->buf.bytes, piece);
}

/* Both migrate the same folios. */
TEST_F_TIMEOUT(longterm, race, 90)
{
	struct longterm_race race = { &self->s, variant->pin };
	struct pinner p = { .pin = pin_for_race, .arg = &race };
	struct allocations allocs = { };
	struct held_pages *s = &self->s;

	while (allocs.tried < ROUNDS) {
		ASSERT_TRUE(held_pages_fill(s) && pinner_go(&p));
		allocations_try(&allocs);
		pinner_stop(&p);
	}
	held_pages_finish(s);
	allocations_print(&allocs);
	ksft_print_msg("the longest of %lu pins took %ld ms, %lu failed\n", p.calls,
		       to_ms(p.longest_us), p.errors);
	EXPECT_GT(allocs.succeeded, 0);
	EXPECT_LT(to_ms(allocs.longest_us), BOUND_MS + AMPLE_MS);
	EXPECT_LT(to_ms(p.longest_us), BOUND_MS + PROMPT_MS);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * One I/O that pins pages of a pageblock again and again, by more than one bio
 */

#define VECTOR_SEGS	600

static bool pin_by_vector(const struct pinner *p)
{
	return pwritev(p->fd, p->arg, VECTOR_SEGS, 0) == VECTOR_SEGS * (ssize_t)psize();
}

TEST_F_TIMEOUT(gate, one_io, 90)
{
	struct nullb_conf conf = { .bytes = 4 * MB, .completion_us = 20000, .depth = 64 };
	struct iovec iov[VECTOR_SEGS];
	struct pinner p = { .pin = pin_by_vector, .arg = iov };
	struct allocations allocs = { };
	struct held_pages *s = &self->s;
	unsigned long calls;
	unsigned int i;

	p.fd = nullb_create(LOAD_DEV, &conf);
	ASSERT_GE(p.fd, 0);
	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	while (more_rounds(s, allocs.tried)) {
		calls = p.calls;
		ASSERT_TRUE(held_pages_fill(s));
		/* Two pages by turns: no two segments can be merged. */
		for (i = 0; i < VECTOR_SEGS; i++)
			iov[i] = (struct iovec){ s->buf.addr + (i % 2) * 2 * psize(), psize() };
		ASSERT_TRUE(pinner_go(&p));
		while (read_once(p.calls) == calls)
			usleep(1000);
		allocations_try(&allocs);
		pinner_stop(&p);
	}
	close(p.fd);
	held_pages_finish(s);
	ksft_print_msg("the longest I/O took %ld ms, bound %d ms\n", to_ms(p.longest_us),
		       BOUND_MS);
	allocations_print(&allocs);
	EXPECT_EQ(p.errors, 0);
	EXPECT_EQ(allocs.succeeded, allocs.tried);
	EXPECT_GT(vm_counter("cma_drain"), s->drains);
	EXPECT_LT(to_ms(p.longest_us), BOUND_MS);
	EXPECT_EQ(vm_counter("pin_gate_timeout"), s->timeouts);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * Polled I/O: only the submitter, or the SQPOLL thread, can complete it. If that
 * one slept at a gate, it would wait for its own pins.
 */

#define RING_SLOTS	16

struct ring {
	struct engine engine;
	struct io ios[RING_SLOTS];
	struct iovec iov[RING_SLOTS];
	bool stop;
	unsigned long done;
	unsigned long errors;
	long long longest_us;
};

/* All but the engine */
static bool ring_create(struct ring *r, char *buf)
{
	struct nullb_conf conf = {
		.bytes = MB, .completion_us = 2000, .depth = 64, .poll_queues = 1,
	};
	int fd = nullb_create(LOAD_DEV, &conf);
	unsigned int i;

	for (i = 0; i < RING_SLOTS; i++) {
		/* Buffers far from each other: not one folio, nor next to each other. */
		r->iov[i] = (struct iovec){ buf + i * 4 * psize(), psize() };
		r->ios[i] = (struct io){
			.fd = fd,
			.offset = i * psize(),
			.iov = &r->iov[i],
			.nr = 1,
			.bytes = psize(),
			.write = true,
		};
	}
	return fd >= 0;
}

static void ring_destroy(struct ring *r)
{
	engine_close(&r->engine);
	close(r->ios[0].fd);
}

/* Start all, think, then look for completions: without polling there are none. */
static void *ring_run(void *arg)
{
	struct ring *r = arg;
	unsigned int i, started;
	struct io *io;

	r->engine.unpolled = true;
	while (!read_once(r->stop)) {
		for (i = 0, started = 0; i < RING_SLOTS; i++)
			started += engine_start(&r->engine, &r->ios[i]);
		usleep(2000);
		while (started--) {
			io = engine_finish(&r->engine);
			raise_to(&r->longest_us, now_us() - io->start_us);
		}
		for (i = 0; i < RING_SLOTS; i++)
			r->errors += r->ios[i].res != psize();
		count_one(r->done);
	}
	return NULL;
}

FIXTURE(ring)
{
	struct held_pages s;
	struct ring r;
};

FIXTURE_VARIANT(ring)
{
	enum method method;
};

FIXTURE_VARIANT_ADD(ring, iopoll) { URING_IOPOLL };
FIXTURE_VARIANT_ADD(ring, sqpoll) { URING_SQPOLL };
FIXTURE_VARIANT_ADD(ring, sqpoll_iopoll) { URING_SQPOLL_IOPOLL };

FIXTURE_SETUP(ring)
{
	struct held_pages *s = &self->s;

	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	held_pages_begin(s);
	ASSERT_TRUE(held_pages_devices(s, HOLD_MS) && held_pages_memory(s));
	self->r.engine.method = variant->method;
	if (!engine_open(&self->r.engine, RING_SLOTS))
		SKIP(return, NO_IO_URING);
	if (!ring_create(&self->r, s->rw + BUF_BYTES - 2 * MB))
		SKIP(return, "no null_blk with poll_queues, see above");
}

FIXTURE_TEARDOWN_PARENT(ring)
{
	restore_all();
}

TEST_F_TIMEOUT(ring, polled, 90)
{
	struct allocations allocs = { };
	struct held_pages *s = &self->s;
	struct ring *r = &self->r;
	pthread_t thread;

	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	while (more_rounds(s, allocs.tried)) {
		r->stop = false;
		r->done = 0;
		ASSERT_TRUE(held_pages_fill(s));
		ASSERT_EQ(pthread_create(&thread, NULL, ring_run, r), 0);
		while (!read_once(r->done))
			usleep(1000);
		allocations_try(&allocs);
		write_once(r->stop, true);
		pthread_join(thread, NULL);
	}
	ring_destroy(r);
	held_pages_finish(s);
	ksft_print_msg("the longest I/O took %ld ms, bound %d ms\n", to_ms(r->longest_us),
		       BOUND_MS);
	allocations_print(&allocs);
	EXPECT_EQ(r->errors, 0);
	EXPECT_EQ(allocs.succeeded, allocs.tried);
	/* A thread that does nothing but submit and poll leaves hardly any pins. */
	if (variant->method != URING_SQPOLL_IOPOLL)
		EXPECT_GT(vm_counter("cma_drain"), s->drains);
	EXPECT_LT(to_ms(r->longest_us), BOUND_MS);
	EXPECT_EQ(vm_counter("pin_gate_timeout"), s->timeouts);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* One buffer is behind a closed gate: that must not stop the I/O on the others. */
TEST_F_TIMEOUT(ring, gated, 60)
{
	long long longest_gated = 0, longest = 0;
	unsigned int i, in_flight = 0, done = 0;
	struct held_pages *s = &self->s;
	struct ring *r = &self->r;

	ASSERT_TRUE(held_pages_fill(s));
	ASSERT_EQ(held_pages_pick(s, &s->buf, BUF_BYTES - 2 * MB),
		  s->buf.addr + BUF_BYTES - 2 * MB);
	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS));
	for (i = 0; i < RING_SLOTS; i++)
		in_flight += engine_start(&r->engine, &r->ios[i]);
	ASSERT_EQ(in_flight, RING_SLOTS);
	for (; in_flight; in_flight--, done++) {
		struct io *io = engine_finish(&r->engine);

		raise_to(io == r->ios ? &longest_gated : &longest, now_us() - io->start_us);
		EXPECT_EQ(io->res, psize());
		if (now_us() >= s->release_us)
			continue;
		ASSERT_TRUE(engine_start(&r->engine, io));
		in_flight++;
	}
	ring_destroy(r);
	held_pages_finish(s);
	ksft_print_msg("the longest I/O behind the gate took %ld ms, bound %d ms; others %ld ms\n",
		       to_ms(longest_gated), BOUND_MS, to_ms(longest));
	EXPECT_GT(to_ms(longest_gated), LEAD_MS);
	EXPECT_LT(to_ms(longest_gated), BOUND_MS + PROMPT_MS);
	EXPECT_LT(to_ms(longest), LEAD_MS);
	EXPECT_GT(done, RING_SLOTS);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* Pins that only the task that allocates could release: the budget ends it. */
TEST_F_TIMEOUT(gate, own_polled_pin, 60)
{
	struct ring r = { .engine = { .method = URING_IOPOLL, .unpolled = true } };

	if (!engine_open(&r.engine, RING_SLOTS))
		SKIP(return, NO_IO_URING);
	ASSERT_TRUE(ring_create(&r, self->page));
	ASSERT_TRUE(engine_start(&r.engine, r.ios));
	alloc_with_own_pin(_metadata, &self->s, 400, false);
	EXPECT_EQ(engine_finish(&r.engine)->res, psize());
	ring_destroy(&r);
	held_pages_finish(&self->s);
	EXPECT_TRUE(pins_back_to(self->s.pins));
}

/*
 * Freezing, by suspend and by cgroup: who waits at a gate delays it by no more
 * than the bound.
 */

TEST_F_TIMEOUT(gate, suspend, 60)
{
	struct held_pages *s = &self->s;
	long long start, us;
	struct pinner p;
	int err;

	if (access("/sys/power/pm_test", W_OK))
		SKIP(return, "no /sys/power/pm_test: needs CONFIG_PM_DEBUG and CONFIG_SUSPEND");
	ASSERT_EQ(suspend_test(true), 0);
	/* The allocation is not frozen either before its budget is spent. */
	ASSERT_TRUE(held_pages_close_gates(s, BOUND_MS) &&
		    pinner_start(&p, s, self->page) && pinner_wait_stuck(s, &p));
	start = now_us();
	err = put_str("/sys/power/state", "freeze");
	us = now_us() - start;
	suspend_test(false);
	pinner_stop(&p);
	held_pages_finish(s);
	ksft_print_msg("freezing and thawing took %ld ms, the longest I/O %ld ms, bound %d ms\n",
		       to_ms(us), to_ms(p.longest_us), BOUND_MS);
	EXPECT_EQ(err, 0);
	EXPECT_LT(to_ms(us), BOUND_MS + 2 * PROMPT_MS);
	EXPECT_EQ(p.errors, 0);
	EXPECT_TRUE(pins_back_to(s->pins));
}

static bool cgroup_event(const char *event)
{
	char text[256];

	return read_file(CGROUP_MNT "/cma_gup_wait/cgroup.events", text, sizeof(text)) > 0 &&
	       strstr(text, event);
}

TEST_F_TIMEOUT(gate, cgroup_freezer, 60)
{
	struct held_pages *s = &self->s;
	long long start, us;
	int status = 0;
	pid_t pid;

	mkdir(CGROUP_MNT, 0700);
	if (!run_cmd("mount -t cgroup2 none " CGROUP_MNT " 2>/dev/null") ||
	    (mkdir(CGROUP_MNT "/cma_gup_wait", 0700) && errno != EEXIST))
		SKIP(return, "no cgroup v2: needs CONFIG_CGROUPS");
	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS));
	/* One that waits in a process of its own */
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		put_num(CGROUP_MNT "/cma_gup_wait/cgroup.procs", getpid());
		FORCE_READ(*self->page);
		_exit(pwrite(s->quick, self->page, psize(), 0) == psize() ?
		      KSFT_PASS : KSFT_FAIL);
	}
	while (vm_counter("pin_gate_wait") == s->waits && now_us() < s->release_us)
		usleep(1000);
	start = now_us();
	put_num(CGROUP_MNT "/cma_gup_wait/cgroup.freeze", 1);
	while (!cgroup_event("frozen 1") && now_us() - start < 10 * USEC_PER_SEC)
		usleep(1000);
	us = now_us() - start;
	put_num(CGROUP_MNT "/cma_gup_wait/cgroup.freeze", 0);
	waitpid(pid, &status, 0);
	held_pages_finish(s);
	ksft_print_msg("freezing took %ld ms, bound %d ms\n", to_ms(us), BOUND_MS);
	EXPECT_GT(vm_counter("pin_gate_wait"), s->waits);
	EXPECT_LT(to_ms(us), BOUND_MS + PROMPT_MS);
	EXPECT_EQ(status, 0);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * Memory offlining isolates pageblocks without a limit of time: it gates no pins.
 */

static unsigned long memory_block_of(const struct pool *pool, char *page)
{
	char size[32] = "";

	read_file(MEMORY_SYS "/block_size_bytes", size, sizeof(size));
	return pagemap_get_pfn(pool->pagemap, page) / (strtoul(size, NULL, 16) / psize());
}

static void offline_unmap(struct pool *mem)
{
	munmap(mem->addr, mem->bytes);
	close(mem->pagemap);
}

static bool block_is_movable(long block)
{
	char path[128], zone[64];

	snprintf(path, sizeof(path), MEMORY_SYS "/memory%ld/valid_zones", block);
	return !access(path, R_OK) && read_file(path, zone, sizeof(zone)) > 0 &&
	       !strncmp(zone, "Movable", 7);
}

/* Is there a memory block that can be offlined? It is online again. */
static bool offline_possible(void)
{
	long block;

	for (block = 0; block < 4096; block++)
		if (block_is_movable(block) && !memory_set_state(block, "offline", 10)) {
			memory_set_state(block, "online_movable", 20);
			return true;
		}
	return false;
}

/* Map memory outside of the area; returns a page of it in such a block. */
static char *offline_map(struct pool *mem, long *block)
{
	size_t i;

	*mem = (struct pool){ .bytes = 32 * MB };
	if (area_alloc())
		return NULL;
	mem->addr = mmap(NULL, mem->bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	area_free();
	mem->pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (mem->addr == MAP_FAILED || mem->pagemap < 0)
		return NULL;
	for (i = 0; i < mem->bytes; i += psize()) {
		*block = memory_block_of(mem, mem->addr + i);
		if (block_is_movable(*block))
			return mem->addr + i;
	}
	offline_unmap(mem);
	return NULL;
}

FIXTURE(offline)
{
	struct held_pages s;
};

FIXTURE_SETUP(offline)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	held_pages_begin(&self->s);
	ASSERT_TRUE(held_pages_devices(&self->s, HOLD_MS));
}

FIXTURE_TEARDOWN_PARENT(offline)
{
	restore_all();
}

TEST_F_TIMEOUT(offline, pinners, 120)
{
	const unsigned int offline_s = 2;
	struct held_pages *s = &self->s;
	unsigned int i, pinned = 0;
	struct pinner p;
	struct pool mem;
	long block;
	char *page;

	if (!offline_possible())
		SKIP(return, "no movable memory block can be offlined: boot with movablecore=");
	for (i = 0; i < ROUNDS; i++) {
		long long start;
		int status;

		page = offline_map(&mem, &block);
		shared->offline = page ? block : -1;
		/* Two pins, of which one waits for the slow device. */
		if (page && slow_pin(&s->slow, page)) {
			ASSERT_TRUE(pinner_start(&p, s, page));
			start = now_us();
			status = memory_set_state(block, "offline", offline_s);
			pinner_stop(&p);
			ksft_print_msg("offlining %s after %ld ms; the longest I/O took %ld ms\n",
				       status ? "stopped" : "succeeded",
				       to_ms(now_us() - start), to_ms(p.longest_us));
			EXPECT_LT(to_ms(p.longest_us), PROMPT_MS);
			EXPECT_GT(p.calls, 10);
			EXPECT_EQ(p.errors, 0);
			pinned++;
		}
		if (page) {
			offline_unmap(&mem);
			memory_set_state(block, "online_movable", 20);
		}
	}
	shared->offline = -1;
	held_pages_finish(s);
	EXPECT_GT(pinned, 0)
		TH_LOG("no page was in a movable memory block");
	EXPECT_EQ(vm_counter("pin_gate_wait"), s->waits);
	EXPECT_TRUE(pins_back_to(s->pins));
}

int main(int argc, char **argv)
{
	shared = map_shared(sizeof(*shared));
	shared->offline = -1;
	env_prepare(restore_all);
	return test_harness_run(argc, argv);
}
