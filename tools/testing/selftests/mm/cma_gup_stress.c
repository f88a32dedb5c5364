// SPDX-License-Identifier: GPL-2.0
/*
 * CMA allocations back to back, on all areas at once, while direct I/O of
 * several kinds pins pages of these areas: until every pinner had to wait many
 * times, with pinners that are killed while they wait, and amid whatever else
 * maps and moves pages.
 *
 * All pinners use the same few pages, the hot ones. Some hold their pins for
 * so long that an allocation may have to give up; then the next one closes the
 * gates of the same pageblocks again. An allocation that succeeds has moved the
 * hot pages out of its area, and is followed by new ones.
 *
 * The pinners are processes of their own with a group of threads each.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cma_mm_churn.h"
#include "cma_ballast.h"
#include "cma_io.h"
#include "vm_util.h"

#define MAX_AREAS	8
#define MIN_AREA	(16 * MB)
#define ALLOCATORS	2		/* per area */
#define HOT_BYTES	(2 * MB)	/* per area */
#define HOT_PAGES	4		/* of these, far from each other */
#define GROUP		16		/* pinners, that is threads, per process */
#define MAX_GROUPS	16
#define MAX_SEGS	4

#define REAP_MS		10000		/* a process without pins to wait for ends */
#define MEM_SLACK	(16 * MB)	/* of free memory, which others use as well */
#define ALLOC_MS	26000		/* the longest without a success, and 4 times the slack */
#define IDLE_MS		120000		/* the longest without anybody who waits */

/* How long an allocation waits for pins; some pins last longer than some of these. */
static const unsigned int budgets_ms[] = { 100, 300, 1000, 3000 };

/* More than that means that the test is hung; its parts have limits of their own. */
#define TIMEOUT_S	(24 * 3600)

/*
 * What can be set from outside
 */

/* For how long the tests of starvation and of churn run, each. */
static unsigned int nr_seconds(void)
{
	return from_env("CMA_GUP_STRESS_SECONDS", 20);
}

/* How many pinners are killed while they wait. */
static unsigned int nr_waiters(void)
{
	return from_env("CMA_GUP_STRESS_WAITERS", 300);
}

/* With fault injection, some I/Os fail; and some files cannot be opened. */
static bool errors_expected(void)
{
	return from_env("CMA_GUP_STRESS_ERRORS", 0);
}

/*
 * Only in threads that can bear it: pinners and allocators. What fails there, and
 * how often, is set in debugfs by whoever runs this, with task-filter.
 */
#define MAKE_IT_FAIL	"/proc/thread-self/make-it-fail"

static void errors_begin(void)
{
	if (errors_expected())
		put_num(MAKE_IT_FAIL, 1);
}

/* By how much a busy, slow machine is late. */
static unsigned int slack_ms(void)
{
	return from_env(SLACK_MS, 1000);
}

/*
 * The areas
 */

static struct cma_area areas[MAX_AREAS];
static unsigned int nr_areas;
static pid_t *test_group;	/* in shared memory: processes of the test */

static size_t areas_bytes(void)
{
	size_t bytes = 0;
	unsigned int i;

	for (i = 0; i < nr_areas; i++)
		bytes += areas[i].count * psize();
	return bytes;
}

static void areas_find(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(DEBUGFS_CMA);
	while (dir && nr_areas < MAX_AREAS && (entry = readdir(dir))) {
		struct cma_area *a = &areas[nr_areas];

		if (entry->d_name[0] != '.' && area_read(a, entry->d_name) &&
		    a->count * psize() >= MIN_AREA)
			nr_areas++;
	}
	if (dir)
		closedir(dir);
}

static void areas_free(void)
{
	unsigned int i;

	for (i = 0; i < nr_areas; i++)
		area_put(&areas[i], "free", areas[i].count);
}

/*
 * The same as ballast_leave_at_most(), but with all areas allocated meanwhile: the
 * ballast would use their free pages, too.
 */
static bool ballast_leave_regular(size_t leave)
{
	bool ok = true;
	unsigned int i;

	for (i = 0; i < nr_areas; i++)
		if (strcmp(areas[i].name, area.name))
			ok = ok && area_take(&areas[i]);
	ok = ok && ballast_leave_at_most(leave);
	areas_free();
	return ok;
}

/* So much that the hot pages get into the areas. */
static size_t storm_may_leave(void)
{
	return pool_may_leave(nr_areas * HOT_BYTES);
}

static void area_set_budget(const struct cma_area *a, unsigned long ms)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSFS_CMA "/%s/drain_budget_ms", a->name);
	put_num(path, ms);
}

static void areas_set_budget(unsigned int ms)
{
	unsigned int i;

	for (i = 0; i < nr_areas; i++)
		area_set_budget(&areas[i], ms);
}

/* All that a test can leave behind. */
static void areas_restore(void)
{
	unsigned int i;

	areas_free();
	for (i = 0; i < nr_areas; i++)
		area_set_budget(&areas[i], areas[i].budget);
	env_restore();
}

/* After a signal to the main process, a test is still running. */
static void stress_exit(void)
{
	int i;

	for (i = 0; i < 200 && *test_group && !kill(-*test_group, SIGKILL); i++)
		usleep(10000);
	churn_restore();
	areas_restore();
}

/*
 * The pinners
 */

enum { DEV_QUICK, DEV_HOLD, DEV_HOLD_LONG, NR_DEVS };

static const struct {
	const char *name;
	unsigned int completion_us;
} devs[NR_DEVS] = {
	[DEV_QUICK] = { NULLB_PREFIX "quick", 100 },
	[DEV_HOLD] = { NULLB_PREFIX "hold", 300 * 1000 },
	[DEV_HOLD_LONG] = { NULLB_PREFIX "hold_long", 2500 * 1000 },
};

enum { READ, READV, READ_AIO, READ_URING, HOLD, HOLD_LONG, NR_KINDS };

#define NR_QUICK	HOLD	/* the kinds before that */

static const struct kind {
	const char *name;
	enum method method;
	unsigned int dev;
	unsigned int segs;
	unsigned int nr;	/* of them at a time, but for those to be killed */
} kinds[NR_KINDS] = {
	[READ] = { "read", SYNC, DEV_QUICK, 1, 4 },
	[READV] = { "readv of 4 pages", SYNC, DEV_QUICK, 4, 4 },
	[READ_AIO] = { "AIO", AIO, DEV_QUICK, 1, 4 },
	/* Is tried without waiting first, and then waits in a thread of the kernel. */
	[READ_URING] = { "io_uring", URING, DEV_QUICK, 1, 4 },
	[HOLD] = { "slow read", SYNC, DEV_HOLD, 1, 3 },
	[HOLD_LONG] = { "slower read", SYNC, DEV_HOLD_LONG, 1, 2 },
};

/* Whatever this starts goes away with the process. False if the test is skipped. */
static bool kinds_available(struct __test_metadata *_metadata)
{
	unsigned int kind;

	for (kind = 0; kind < NR_KINDS; kind++) {
		struct engine engine = { .method = kinds[kind].method };

		if (!engine_open(&engine, 1))
			SKIP(return false, "no %s, see above", kinds[kind].name);
	}
	return true;
}

/* How long one I/O of this kind may take: it waits at gates once, for all its pages. */
static long long kind_limit_us(const struct kind *kind)
{
	return (BOUND_MS + slack_ms()) * USEC_PER_MSEC + devs[kind->dev].completion_us;
}

/* In memory that is shared with the processes. */
struct pinner {
	struct storm *storm;
	const struct kind *kind;
	unsigned int seed;
	unsigned long completed;
	unsigned long failed;	/* as expected */
	long long longest_us;
	long long progress;	/* when the last I/O completed, or it started */
	long error;		/* result of the first I/O that failed otherwise */
};

struct group {
	struct pinner pinners[GROUP];
	unsigned int nr;
	pid_t pid;
};

struct shared {
	bool stop;
	struct group holders;
	struct group groups[MAX_GROUPS];
};

struct allocator {
	struct storm *storm;
	unsigned int area;
	pthread_t thread;
	bool running;
	unsigned int seed;
	unsigned long tried;
	unsigned long succeeded;
	long long longest_us;	/* without a success */
	int error;		/* the first that was not -ENOMEM */
};

struct storm {
	struct shared *shared;
	struct pool pools[MAX_AREAS];		/* the hot pages */
	pthread_mutex_t refill[MAX_AREAS];
	struct allocator allocators[MAX_AREAS * ALLOCATORS];
	int fds[NR_DEVS];
	unsigned int think_us;			/* between two I/Os, at most */

	/* before it began */
	long pins;
	size_t free;
	unsigned long waits;
	unsigned long timeouts;
	unsigned long drains;
};

static char *hot_page(void *arg, unsigned int *seed)
{
	struct storm *s = arg;
	unsigned int nr = rand_r(seed) % (nr_areas * HOT_PAGES);

	return s->pools[nr / HOT_PAGES].addr + nr % HOT_PAGES * (HOT_BYTES / HOT_PAGES);
}

static void pinner_failed(struct pinner *p, long err)
{
	if (errors_expected() && (err == -ENOMEM || err == -EIO || err == -EAGAIN))
		p->failed++;
	else
		p->error = err;
}

static void pinner_io(struct pinner *p, struct engine *engine)
{
	unsigned int segs = p->kind->segs, i;
	struct iovec iov[MAX_SEGS];
	struct io io = {
		.fd = p->storm->fds[p->kind->dev],
		.iov = iov,
		.nr = segs,
		.bytes = segs * psize(),
	};

	for (i = 0; i < segs; i++) {
		iov[i].iov_base = hot_page(p->storm, &p->seed);
		iov[i].iov_len = psize();
	}
	engine_run(engine, &io, 1);
	if (io.res != (long)io.bytes) {
		pinner_failed(p, io.res < 0 ? io.res : -EIO);
		return;
	}
	write_once(p->progress, now_us());
	raise_to(&p->longest_us, p->progress - io.start_us);
	p->completed++;
}

static void *pinner_run(void *arg)
{
	struct pinner *p = arg;
	struct engine engine = { .method = p->kind->method };

	if (!engine_open(&engine, 1))
		p->error = -EIO;
	errors_begin();
	while (!p->error && !read_once(p->storm->shared->stop)) {
		pinner_io(p, &engine);
		usleep(rand_r(&p->seed) % p->storm->think_us);
	}
	return NULL;
}

static void group_process(struct group *g)
{
	pthread_t threads[GROUP];
	pthread_attr_t attr;
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * KB);
	for (i = 0; i < g->nr; i++)
		if (pthread_create(&threads[i], &attr, pinner_run, &g->pinners[i]))
			_exit(KSFT_FAIL);
	for (i = 0; i < g->nr; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

static bool group_start(struct group *g)
{
	unsigned int i;
	pid_t pid;

	for (i = 0; i < g->nr; i++)
		g->pinners[i].progress = now_us();
	pid = fork();
	if (!pid)
		group_process(g);
	if (pid < 0)
		return cannot("fork: %s", strerror(errno));
	g->pid = pid;
	return true;
}

/* Wait until the process has gone. */
static bool group_reap(struct group *g, unsigned int limit_ms)
{
	long long deadline = now_us() + limit_ms * USEC_PER_MSEC;

	while (g->pid) {
		if (waitpid(g->pid, NULL, WNOHANG)) {
			g->pid = 0;
		} else {
			if (now_us() > deadline)
				return cannot("end process %d within %u ms", g->pid, limit_ms);
			usleep(500);
		}
	}
	return true;
}

static void group_add(struct storm *s, struct group *g, unsigned int kind)
{
	struct pinner *p = &g->pinners[g->nr++];

	*p = (struct pinner){ .storm = s, .kind = &kinds[kind], .seed = rand() };
	/* The more of them the more patient, as there are few CPUs. */
	s->think_us += 1000;
}

/*
 * The allocators
 */

/* New hot pages, in the area if nobody allocates it meanwhile. */
static void allocator_refill(const struct pool *pool)
{
	madvise(pool->addr, pool->bytes, MADV_REMOVE);
	madvise(pool->addr, pool->bytes, MADV_POPULATE_WRITE);
}

static int allocator_try(struct allocator *al)
{
	pthread_mutex_t *refill = &al->storm->refill[al->area];
	struct cma_area *a = &areas[al->area];
	int err;

	area_set_budget(a, budgets_ms[rand_r(&al->seed) % ARRAY_SIZE(budgets_ms)]);
	pthread_mutex_lock(refill);
	pthread_mutex_unlock(refill);
	err = area_put(a, "alloc", a->count);
	if (err)
		return err;
	usleep(rand_r(&al->seed) % 5000);
	pthread_mutex_lock(refill);
	while (area_put(a, "free", a->count) && errors_expected())
		;
	allocator_refill(&al->storm->pools[al->area]);
	pthread_mutex_unlock(refill);
	return 0;
}

static void *allocator_run(void *arg)
{
	long long now, success = now_us();
	struct allocator *al = arg;
	int err;

	errors_begin();
	while (!read_once(al->storm->shared->stop)) {
		err = allocator_try(al);
		now = now_us();
		raise_to(&al->longest_us, now - success);
		al->tried++;
		if (!err) {
			al->succeeded++;
			success = now;
		} else if (err != -ENOMEM && !al->error) {
			al->error = err;
		}
		/* Another one may have the area: let it. */
		if (err)
			usleep(rand_r(&al->seed) % 20000);
	}
	return NULL;
}

/*
 * All together
 */

static size_t mem_free(void)
{
	put_num("/proc/sys/vm/drop_caches", 3);
	return mem_bytes("MemFree");
}

static bool storm_open_devices(struct storm *s)
{
	struct nullb_conf conf = { .bytes = MB, .depth = 512 };
	char path[PATH_MAX];
	unsigned int i;

	for (i = 0; i < NR_DEVS; i++) {
		conf.completion_us = devs[i].completion_us;
		s->fds[i] = nullb_create(devs[i].name, &conf);
		if (s->fds[i] < 0)
			return false;
		/* For fail_make_request; if it is not there, the other errors are. */
		snprintf(path, sizeof(path), "/sys/block/%s/make-it-fail", devs[i].name);
		put_num(path, errors_expected());
	}
	return true;
}

static bool storm_fill(struct storm *s)
{
	unsigned int i;

	for (i = 0; i < nr_areas; i++) {
		pthread_mutex_init(&s->refill[i], NULL);
		if (!pool_prepare(&s->pools[i], POOL_SHMEM, HOT_BYTES) ||
		    !ballast_fill(&s->pools[i]))
			return false;
	}
	return true;
}

static bool storm_create(struct storm *s)
{
	s->free = mem_free();
	s->pins = pins_held();
	s->waits = vm_counter("pin_gate_wait");
	s->timeouts = vm_counter("pin_gate_timeout");
	s->drains = vm_counter("cma_drain");
	s->shared = map_shared(sizeof(*s->shared));
	return storm_open_devices(s) && storm_fill(s);
}

static bool storm_start(struct storm *s)
{
	struct group *holders = &s->shared->holders;
	unsigned int kind, i;
	int err;

	for (kind = NR_QUICK; kind < NR_KINDS; kind++)
		for (i = 0; i < kinds[kind].nr; i++)
			group_add(s, holders, kind);
	if (!group_start(holders))
		return false;
	for (i = 0; i < nr_areas * ALLOCATORS; i++) {
		struct allocator *al = &s->allocators[i];

		al->storm = s;
		al->area = i / ALLOCATORS;
		al->seed = rand();
		err = pthread_create(&al->thread, NULL, allocator_run, al);
		if (err)
			return cannot("start a thread: %s", strerror(err));
		al->running = true;
	}
	return true;
}

/* Everybody ends on his own. */
static bool storm_stop(struct storm *s)
{
	unsigned int i;
	bool ok;

	write_once(s->shared->stop, true);
	ok = group_reap(&s->shared->holders, 2 * REAP_MS);
	for (i = 0; i < MAX_GROUPS; i++)
		ok &= group_reap(&s->shared->groups[i], 2 * REAP_MS);
	for (i = 0; i < nr_areas * ALLOCATORS; i++)
		if (s->allocators[i].running)
			pthread_join(s->allocators[i].thread, NULL);
	return ok;
}

static void storm_destroy(struct storm *s)
{
	unsigned int i;

	for (i = 0; i < nr_areas; i++)
		pool_unmap(&s->pools[i]);
	for (i = 0; i < NR_DEVS; i++) {
		close(s->fds[i]);
		nullb_destroy(devs[i].name);
	}
	munmap(s->shared, sizeof(*s->shared));
}

/*
 * The account
 */

/* The areas in pieces of 2 MB: the number of the one with this page, or -1. */
static long chunk_of(unsigned long pfn)
{
	unsigned long chunk = 2 * MB / psize();
	unsigned int i;
	long first = 0;

	for (i = 0; i < nr_areas; i++) {
		if (pfn >= areas[i].base_pfn && pfn < areas[i].base_pfn + areas[i].count)
			return first + (pfn - areas[i].base_pfn) / chunk;
		first += areas[i].count / chunk + 1;
	}
	return -1;
}

/* Read into one page of each chunk in which the pool has any. */
static unsigned int read_chunks(const struct pool *pool, int fd, long long *longest_us)
{
	static bool seen[64 * 1024];
	unsigned int nr = 0;
	long long start;
	char *page;
	long chunk;

	for (page = pool->addr; page < pool->addr + pool->bytes; page += psize()) {
		chunk = chunk_of(pagemap_get_pfn(pool->pagemap, page));
		if (chunk < 0 || chunk >= (long)ARRAY_SIZE(seen) || seen[chunk])
			continue;
		seen[chunk] = true;
		nr++;
		start = now_us();
		if (pread(fd, page, psize(), 0) != psize())
			return 0;
		raise_to(longest_us, now_us() - start);
	}
	return nr;
}

/*
 * A gate that was left closed makes the first pin of its pageblock wait. So use
 * most of the areas, and pin a page everywhere. No allocation may wait for pins
 * from here on, as that would open the gates.
 */
static void expect_open_gates(struct __test_metadata *_metadata)
{
	struct nullb_conf conf = { .bytes = MB, .completion_us = 100, .depth = 64 };
	unsigned long waits = vm_counter("pin_gate_wait");
	size_t chunks = areas_bytes() / (2 * MB);
	long long longest_us = 0;
	struct pool pool;
	unsigned int nr;
	int fd;

	fd = nullb_create(devs[DEV_QUICK].name, &conf);
	ASSERT_TRUE(fd >= 0 && pool_prepare(&pool, POOL_ANON, areas_bytes() / 4 * 3) &&
		    ballast_leave_regular(pool_may_leave(pool.bytes)) && ballast_fill(&pool));
	nr = read_chunks(&pool, fd, &longest_us);
	pool_unmap(&pool);
	close(fd);
	/* Give up all that this process has used up for that. */
	ballast_leave_at_least(SIZE_MAX / 2);
	ksft_print_msg("afterwards, pins in %u of %zu pieces of 2 MB, the slowest in %.1f ms\n",
		       nr, chunks, (double)longest_us / USEC_PER_MSEC);
	EXPECT_GE(nr, chunks / 2);
	EXPECT_EQ(vm_counter("pin_gate_wait"), waits)
		TH_LOG("a gate was left closed");
}

/* Nothing that belongs to the storm is left, nor anything missing. */
static void expect_all_back(struct __test_metadata *_metadata, struct storm *s)
{
	unsigned int i;
	size_t free;

	areas_set_budget(0);
	EXPECT_TRUE(pins_back_to(s->pins))
		TH_LOG("%ld pins more than before", pins_held() - s->pins);
	expect_open_gates(_metadata);
	for (i = 0; i < nr_areas; i++) {
		EXPECT_TRUE(area_take(&areas[i]));
		area_put(&areas[i], "free", areas[i].count);
	}
	free = mem_free();
	ksft_print_msg("%zu MB free before, %zu MB afterwards\n", s->free / MB, free / MB);
	EXPECT_GT(free + MEM_SLACK, s->free);
}

static unsigned long storm_waits(const struct storm *s)
{
	return vm_counter("pin_gate_wait") - s->waits;
}

static unsigned long storm_drains(const struct storm *s)
{
	return vm_counter("cma_drain") - s->drains;
}

static void expect_gates_were_closed(struct __test_metadata *_metadata, const struct storm *s)
{
	unsigned long waits = storm_waits(s), drains = storm_drains(s);

	ksft_print_msg("%lu drains, %lu waits, %lu of them ended by the bound\n",
		       drains, waits, vm_counter("pin_gate_timeout") - s->timeouts);
	EXPECT_GT(drains, 0);
	EXPECT_GT(waits, 0);
}

/* On a slow machine, it can take longer until an allocation meets pins at all. */
static bool storm_goes_on(const struct storm *s, long long start)
{
	long long seconds = (now_us() - start) / USEC_PER_SEC;

	if (seconds < nr_seconds())
		return true;
	return seconds < 5 * nr_seconds() && (!storm_waits(s) || !storm_drains(s));
}

/*
 * The tests
 */

FIXTURE(storm)
{
	struct storm s;
};

FIXTURE_SETUP(storm)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	if (!kinds_available(_metadata))
		return;
	if (errors_expected() && access(MAKE_IT_FAIL, W_OK))
		SKIP(return, "no " MAKE_IT_FAIL ": needs CONFIG_FAULT_INJECTION");
	*test_group = getpgrp();
	srand(getpid());
	ASSERT_TRUE(storm_create(&self->s));
}

FIXTURE_TEARDOWN_PARENT(storm)
{
	*test_group = 0;
	churn_restore();
	areas_restore();
}

/* How many tasks of a process sleep at a gate? */
static unsigned int tasks_at_gate(pid_t pid)
{
	char path[PATH_MAX], symbol[64];
	struct dirent *task;
	unsigned int nr = 0;
	DIR *dir;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (task = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/wchan", pid, task->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		/* pin_gate_wait(), or what the compiler has put it into */
		if (fgets(symbol, sizeof(symbol), f) && !strncmp(symbol, "pin_gate_", 9))
			nr++;
		fclose(f);
	}
	if (dir)
		closedir(dir);
	return nr;
}

struct kills {
	unsigned int waiters;
	unsigned int processes;
	long long us;		/* until they were gone, all in all */
	long long longest_us;
};

/* Kill a process, with all those that wait in it, and start another. */
static bool kill_one(struct group *g, struct kills *k)
{
	unsigned int waiters = tasks_at_gate(g->pid);
	long long start, us;

	/* Mostly those that wait, but others as well. */
	if (!waiters && rand() % 8)
		return true;
	k->waiters += waiters;
	start = now_us();
	kill(g->pid, SIGKILL);
	if (!group_reap(g, REAP_MS))
		return false;
	us = now_us() - start;
	k->processes++;
	k->us += us;
	raise_to(&k->longest_us, us);
	return group_start(g);
}

static bool kill_many(struct storm *s, unsigned int waiters, struct kills *k)
{
	long long progress = now_us();
	unsigned int before;

	while (k->waiters < waiters) {
		before = k->waiters;
		usleep(rand() % 20000);
		if (!kill_one(&s->shared->groups[rand() % MAX_GROUPS], k))
			return false;
		if (k->waiters > before)
			progress = now_us();
		if (now_us() - progress > IDLE_MS * USEC_PER_MSEC)
			return cannot("see anybody wait for %d ms", IDLE_MS);
	}
	return true;
}

TEST_F_TIMEOUT(storm, kill, TIMEOUT_S)
{
	struct storm *s = &self->s;
	struct kills k = { };
	unsigned int i, j;
	bool ok = true;

	if (access("/proc/self/wchan", R_OK))
		SKIP(return, "no /proc/self/wchan: needs CONFIG_KALLSYMS");
	for (i = 0; i < MAX_GROUPS; i++) {
		struct group *g = &s->shared->groups[i];

		for (j = 0; j < GROUP; j++)
			group_add(s, g, j % NR_QUICK);
		ok = ok && group_start(g);
	}
	EXPECT_TRUE(ok && storm_start(s) && kill_many(s, nr_waiters(), &k));
	EXPECT_TRUE(storm_stop(s));
	ksft_print_msg("%u processes killed with %u waiters; gone after %.1f ms, at most %.1f\n",
		       k.processes, k.waiters,
		       (double)k.us / USEC_PER_MSEC / max_size(k.processes, 1),
		       (double)k.longest_us / USEC_PER_MSEC);
	expect_gates_were_closed(_metadata, s);
	storm_destroy(s);
	expect_all_back(_metadata, s);
}

/* Did an error come through that was injected? Then the others were tested, too. */
static void expect_errors(struct __test_metadata *_metadata, const struct storm *s)
{
	unsigned long failed = 0;
	unsigned int i, j;

	for (i = 0; i < MAX_GROUPS; i++)
		for (j = 0; j < s->shared->groups[i].nr; j++)
			failed += s->shared->groups[i].pinners[j].failed;
	ksft_print_msg("%lu I/Os failed as intended\n", failed);
	EXPECT_GT(failed, 0);
}

/* The pinners of a kind: did each of them get on, all the time? */
static void expect_progress(struct __test_metadata *_metadata, struct storm *s,
			    const struct kind *kind, long long stopped)
{
	unsigned long completed = 0, least = ULONG_MAX;
	long long longest_us = 0;
	unsigned int i, j;

	for (i = 0; i <= MAX_GROUPS; i++) {
		struct group *g = i ? &s->shared->groups[i - 1] : &s->shared->holders;

		for (j = 0; j < g->nr; j++) {
			struct pinner *p = &g->pinners[j];

			if (p->kind != kind)
				continue;
			EXPECT_EQ(p->error, 0)
				TH_LOG("%s: failed", kind->name);
			completed += p->completed;
			least = min_size(least, p->completed);
			raise_to(&longest_us, p->longest_us);
			/* One that does not come to an end does not count itself. */
			raise_to(&longest_us, stopped - read_once(p->progress));
		}
	}
	ksft_print_msg("%s: %lu I/Os, at least %lu each, the slowest in %.1f ms of %.1f\n",
		       kind->name, completed, least, (double)longest_us / USEC_PER_MSEC,
		       (double)kind_limit_us(kind) / USEC_PER_MSEC);
	EXPECT_GT(least, 0);
	EXPECT_LT(longest_us, kind_limit_us(kind));
}

static void expect_allocations(struct __test_metadata *_metadata, const struct allocator *al)
{
	ksft_print_msg("area %s: %lu of %lu allocations, at most %.1f s without one\n",
		       areas[al->area].name, al->succeeded, al->tried,
		       (double)al->longest_us / USEC_PER_SEC);
	EXPECT_GT(al->succeeded, 0);
	EXPECT_LT(al->longest_us, (ALLOC_MS + 4 * slack_ms()) * USEC_PER_MSEC);
	EXPECT_EQ(al->error, 0);
}

/* Some pinners of each kind, and the allocators. */
static bool storm_start_mixed(struct storm *s)
{
	unsigned int kind, i;
	bool ok = true;

	for (kind = 0; kind < NR_QUICK; kind++) {
		for (i = 0; i < kinds[kind].nr; i++)
			group_add(s, &s->shared->groups[kind], kind);
		ok = ok && group_start(&s->shared->groups[kind]);
	}
	return ok && storm_start(s);
}

/* Everybody got on, and all is as it was. */
static void expect_fair(struct __test_metadata *_metadata, struct storm *s, long long stopped)
{
	unsigned int kind, i;

	for (kind = 0; kind < NR_KINDS; kind++)
		expect_progress(_metadata, s, &kinds[kind], stopped);
	for (i = 0; i < nr_areas * ALLOCATORS; i++)
		expect_allocations(_metadata, &s->allocators[i]);
	if (errors_expected())
		expect_errors(_metadata, s);
	expect_gates_were_closed(_metadata, s);
	storm_destroy(s);
	expect_all_back(_metadata, s);
}

TEST_F_TIMEOUT(storm, starvation, TIMEOUT_S)
{
	struct storm *s = &self->s;
	long long start = now_us(), stopped;

	EXPECT_TRUE(storm_start_mixed(s));
	while (storm_goes_on(s, start))
		sleep(1);
	stopped = now_us();
	EXPECT_TRUE(storm_stop(s));
	expect_fair(_metadata, s, stopped);
}

TEST_F_TIMEOUT(storm, churn, TIMEOUT_S)
{
	struct storm *s = &self->s;
	struct churn_env env = { .fd = s->fds[DEV_QUICK], .hot_page = hot_page, .arg = s };
	long long start = now_us(), stopped;

	EXPECT_TRUE(churn_start(&env) && storm_start_mixed(s));
	while (storm_goes_on(s, start)) {
		sleep(1);
		churn_tend();
		EXPECT_TRUE(ballast_renew(storm_may_leave()));
	}
	stopped = now_us();
	EXPECT_TRUE(storm_stop(s));
	EXPECT_TRUE(churn_stop(REAP_MS));
	EXPECT_TRUE(churn_report());
	expect_fair(_metadata, s, stopped);
}

static void print_help(void)
{
	fputs("usage: cma_gup_stress [HARNESS OPTION]...\n"
	      "       run the tests; -h lists the harness's options. In the environment:\n"
	      "       CMA_GUP_STRESS_WAITERS  how many pinners are killed while they wait (300)\n"
	      "       CMA_GUP_STRESS_SECONDS  how long each of the other tests takes (20);\n"
	      "                               up to five times that until an allocation met pins\n"
	      "       CMA_GUP_STRESS_SLACK_MS by how much a busy, slow machine is late (1000)\n"
	      "       CMA_GUP_STRESS_ERRORS   1: fault injection makes some of the I/O fail (0)\n"
	      "       More than one area makes it a better test, e.g. cma=96M numa_cma=0:64M.\n",
	      stdout);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--help")) {
		print_help();
		return KSFT_PASS;
	}
	test_group = map_shared(sizeof(*test_group));
	system_prepare(stress_exit);
	areas_find();
	if (!ballast_leave_regular(storm_may_leave()))
		ksft_exit_skip(NO_BALLAST "\n");
	return test_harness_run(argc, argv);
}
