// SPDX-License-Identifier: GPL-2.0
/*
 * CMA allocation while direct I/O keeps pinning pages of the area.
 *
 * The load is "hot buffers": some threads keep a number of O_DIRECT I/Os in
 * flight, each I/O has a buffer of its own in pages of the area, and is
 * submitted again as soon as it completes. So there is always a pin on nearly
 * every buffer, and an allocation of the whole area can only succeed if new
 * pins wait for it.
 *
 * Buffers leave the area with the allocation, so the load is stopped after
 * each try and starts over with new buffers.
 *
 * The device is null_blk, which completes after a chosen time.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <asm/posix_types.h>	/* for aio_abi.h; not in the types.h of tools */
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "cma_util.h"
#include "vm_util.h"

#define LOAD_DEV	NULLB_PREFIX "load"
#define SLOW_DEV	NULLB_PREFIX "slow"

/*
 * The load
 */

struct load_spec {
	unsigned int threads;
	unsigned int slots;		/* I/Os in flight, per thread */
	unsigned int segs;		/* parts of a buffer, far from each other */
	size_t seg_bytes;
	unsigned int completion_us;
	bool write;
	bool verify;			/* write, read back, compare */
};

struct slot {
	struct iocb iocb;
	struct iovec *iov;
	unsigned int id;
	unsigned int generation;	/* of the data, for spec->verify */
	bool reading;
	unsigned long completed;
};

struct worker {
	struct load *load;
	struct slot *slots;
	struct iocb **batch;		/* room for all slots */
	struct io_event *events;	/* the same */
	aio_context_t ctx;
	pthread_t thread;
	bool running;
};

struct load {
	const struct load_spec *spec;
	unsigned int nr_slots;
	size_t io_bytes;
	int fd;
	struct slot *slots;
	struct iovec *iov;
	struct iocb **batch;
	struct io_event *events;
	struct worker *workers;
	bool stop;
	unsigned long completed;
	unsigned long errors;		/* failed or short */
	unsigned long corrupt;
	long first_error;
};

static __u64 pattern(const struct slot *slot, unsigned int seg, size_t word)
{
	return ((__u64)slot->id << 48 | (__u64)slot->generation << 24 | seg << 16) ^
	       (word * 0x9e3779b97f4a7c15ULL);
}

static void slot_fill(const struct slot *slot, unsigned int segs)
{
	unsigned int seg;
	size_t i;

	for (seg = 0; seg < segs; seg++) {
		__u64 *p = slot->iov[seg].iov_base;

		for (i = 0; i < slot->iov[seg].iov_len / sizeof(*p); i++)
			p[i] = pattern(slot, seg, i);
	}
}

static bool slot_matches(const struct slot *slot, unsigned int segs)
{
	unsigned int seg;
	size_t i;

	for (seg = 0; seg < segs; seg++) {
		const __u64 *p = slot->iov[seg].iov_base;

		for (i = 0; i < slot->iov[seg].iov_len / sizeof(*p); i++)
			if (p[i] != pattern(slot, seg, i))
				return false;
	}
	return true;
}

static void slot_scrub(const struct slot *slot, unsigned int segs)
{
	unsigned int seg;

	for (seg = 0; seg < segs; seg++)
		memset(slot->iov[seg].iov_base, 0xa5, slot->iov[seg].iov_len);
}

static void load_error(struct load *load, long res)
{
	if (count_one(load->errors) == 1)
		load->first_error = res;
}

/* Make the next I/O of a slot: with verify, writes and reads take turns. */
static void slot_prepare(struct load *load, struct slot *slot)
{
	const struct load_spec *spec = load->spec;
	bool write = spec->write;

	if (spec->verify) {
		write = !slot->reading;
		if (write)
			slot_fill(slot, spec->segs);
		else
			slot_scrub(slot, spec->segs);
	}
	slot->iocb = (struct iocb){
		.aio_data = (uintptr_t)slot,
		.aio_lio_opcode = write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV,
		.aio_fildes = load->fd,
		.aio_buf = (uintptr_t)slot->iov,
		.aio_nbytes = spec->segs,
		.aio_offset = slot->id * load->io_bytes,
	};
}

static void slot_done(struct load *load, struct slot *slot, long res)
{
	const struct load_spec *spec = load->spec;

	if (res != (long)load->io_bytes)
		load_error(load, res);
	if (spec->verify && slot->reading) {
		if (!slot_matches(slot, spec->segs))
			count_one(load->corrupt);
		slot->generation++;
	}
	slot->reading = !slot->reading;
	count_one(slot->completed);
	count_one(load->completed);
}

/* Returns how many I/Os were submitted; one that fails is dropped. */
static unsigned int worker_submit(struct worker *w, unsigned int nr)
{
	unsigned int done = 0, submitted = 0;
	long ret;

	while (done < nr) {
		ret = syscall(__NR_io_submit, w->ctx, nr - done, w->batch + done);
		if (ret > 0) {
			submitted += ret;
			done += ret;
		} else {
			load_error(w->load, ret ? -errno : 0);
			done++;
		}
	}
	return submitted;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct load *load = w->load;
	unsigned int nr = load->spec->slots;
	unsigned int queued, in_flight = 0;
	long done, i;

	for (queued = 0; queued < nr; queued++) {
		slot_prepare(load, &w->slots[queued]);
		w->batch[queued] = &w->slots[queued].iocb;
	}
	for (;;) {
		in_flight += worker_submit(w, queued);
		if (!in_flight)
			break;
		done = syscall(__NR_io_getevents, w->ctx, 1, nr, w->events, NULL);
		if (done < 0)
			continue;
		in_flight -= done;
		queued = 0;
		for (i = 0; i < done; i++) {
			struct slot *slot = (struct slot *)(uintptr_t)w->events[i].data;

			slot_done(load, slot, w->events[i].res);
			if (read_once(load->stop))
				continue;
			slot_prepare(load, slot);
			w->batch[queued++] = &slot->iocb;
		}
	}
	return NULL;
}

static void load_destroy(struct load *load)
{
	unsigned int i;

	for (i = 0; load->workers && i < load->spec->threads; i++)
		if (load->workers[i].ctx)
			syscall(__NR_io_destroy, load->workers[i].ctx);
	if (load->fd >= 0)
		close(load->fd);
	nullb_destroy(LOAD_DEV);
	free(load->workers);
	free(load->events);
	free(load->batch);
	free(load->iov);
	free(load->slots);
}

static bool load_open_device(struct load *load)
{
	const struct load_spec *spec = load->spec;
	struct nullb_conf conf = {
		.bytes = load->nr_slots * load->io_bytes,
		.completion_us = spec->completion_us,
		/* An I/O of scattered pages is split into several requests. */
		.depth = min_size(load->nr_slots * (2 + load->io_bytes / (256 * KB)), 8192),
	};

	/*
	 * null_blk copies data when it starts a request, not at the end of the
	 * completion time. To have the copy late after the pin, only half of
	 * the I/Os are with the device: the others wait in the scheduler.
	 */
	if (spec->verify) {
		conf.memory_backed = true;
		conf.scheduler = true;
		conf.depth = load->nr_slots / 2;
	}
	load->fd = nullb_create(LOAD_DEV, &conf);
	return load->fd >= 0;
}

static bool load_create(struct load *load, const struct load_spec *spec)
{
	unsigned int i;

	*load = (struct load){
		.spec = spec,
		.nr_slots = spec->threads * spec->slots,
		.io_bytes = spec->segs * spec->seg_bytes,
		.fd = -1,
	};
	load->slots = calloc(load->nr_slots, sizeof(*load->slots));
	load->iov = calloc(load->nr_slots * spec->segs, sizeof(*load->iov));
	load->batch = calloc(load->nr_slots, sizeof(*load->batch));
	load->events = calloc(load->nr_slots, sizeof(*load->events));
	load->workers = calloc(spec->threads, sizeof(*load->workers));
	if (!load->slots || !load->iov || !load->batch || !load->events || !load->workers) {
		because("out of memory");
		goto fail;
	}
	for (i = 0; i < load->nr_slots; i++) {
		load->slots[i].id = i;
		load->slots[i].iov = &load->iov[i * spec->segs];
	}
	for (i = 0; i < spec->threads; i++) {
		struct worker *w = &load->workers[i];

		w->load = load;
		w->slots = &load->slots[i * spec->slots];
		w->batch = &load->batch[i * spec->slots];
		w->events = &load->events[i * spec->slots];
		if (syscall(__NR_io_setup, spec->slots, &w->ctx)) {
			because("io_setup: %s", strerror(errno));
			goto fail;
		}
	}
	if (load_open_device(load))
		return true;
fail:
	load_destroy(load);
	return false;
}

/*
 * Give each slot its buffer: spread over all parts of the pool that are in the
 * area, the segments of a slot far from each other. Returns how many percent of
 * the buffers are in the area.
 */
static unsigned int load_place(struct load *load, const struct pool *pool)
{
	size_t unit = load->spec->seg_bytes, nr_units = pool->bytes / unit;
	size_t need = load->nr_slots * load->spec->segs;
	size_t i, nr = 0, resident = 0;
	char **units, *addr;
	unsigned int pass;

	units = calloc(nr_units, sizeof(*units));
	if (!units)
		return 0;
	/* Those wholly in the area; the others are used if they do not suffice. */
	for (pass = 0; pass < 2 && nr < need; pass++)
		for (i = 0; i < nr_units; i++) {
			addr = pool->addr + i * unit;
			if ((resident_pages(pool, addr, unit) < unit / psize()) == pass)
				units[nr++] = addr;
		}
	for (i = 0; i < need; i++) {
		/* The slots' first segments come first, then the second ... */
		struct slot *slot = &load->slots[i % load->nr_slots];
		struct iovec *iov = &slot->iov[i / load->nr_slots];

		iov->iov_base = pass == 1 ? units[i * nr / need] : units[i];
		iov->iov_len = unit;
		resident += resident_pages(pool, iov->iov_base, unit);
	}
	free(units);
	return resident * 100 / (need * (unit / psize()));
}

static size_t load_resident_pages(const struct load *load, const struct pool *pool)
{
	size_t i, resident = 0;

	for (i = 0; i < load->nr_slots * load->spec->segs; i++)
		resident += resident_pages(pool, load->iov[i].iov_base, load->iov[i].iov_len);
	return resident;
}

/* Stop submitting and wait for what is in flight. */
static void load_stop(struct load *load)
{
	unsigned int i;

	write_once(load->stop, true);
	for (i = 0; i < load->spec->threads; i++) {
		if (load->workers[i].running)
			pthread_join(load->workers[i].thread, NULL);
		load->workers[i].running = false;
	}
}

static bool load_is_warm(const struct load *load)
{
	unsigned int i;

	for (i = 0; i < load->nr_slots; i++)
		if (!read_once(load->slots[i].completed))
			return false;
	return true;
}

/* Start, and wait until each slot was submitted a second time. */
static bool load_start(struct load *load)
{
	long long deadline = now_us() + 10 * USEC_PER_SEC;
	unsigned int i;
	int err;

	load->stop = false;
	for (i = 0; i < load->nr_slots; i++) {
		load->slots[i].completed = 0;
		load->slots[i].reading = false;
	}
	for (i = 0; i < load->spec->threads; i++) {
		struct worker *w = &load->workers[i];

		err = pthread_create(&w->thread, NULL, worker_run, w);
		if (err) {
			load_stop(load);
			return because("cannot start a thread: %s", strerror(err));
		}
		w->running = true;
	}
	while (!load_is_warm(load)) {
		if (now_us() > deadline) {
			load_stop(load);
			return because("the load does not get going, %lu errors, first: %ld",
				       load->errors, load->first_error);
		}
		usleep(1000);
	}
	return true;
}

/*
 * Tries: whole-area allocations under load
 */

struct result {
	unsigned int tried;
	unsigned int succeeded;
	unsigned int resident;		/* %, of the worst try */
	long long *us;			/* of each allocation call */
	long long span_us;		/* of all of them */
	unsigned long completed;	/* I/Os within that span */
	unsigned long errors;
	unsigned long corrupt;
	long first_error;
};

static size_t pool_bytes_for(const struct load_spec *spec)
{
	size_t buffers = spec->threads * spec->slots * spec->segs * spec->seg_bytes;

	/* Not only hot pages: moving the others is part of the job. */
	return max_size(buffers + min_size(buffers / 8, area_bytes() - buffers),
			area_bytes() / 8);
}

/* One allocation under load. */
static bool try_once(struct load *load, struct pool *pool, struct result *res)
{
	unsigned long before;
	unsigned int resident;
	long long start;
	size_t left = 0;
	int err;

	resident = load_place(load, pool);
	if (!load_start(load))
		return false;

	before = read_once(load->completed);
	start = now_us();
	err = area_alloc();
	res->us[res->tried] = now_us() - start;
	res->span_us += res->us[res->tried];
	res->completed += read_once(load->completed) - before;

	if (!err) {
		left = load_resident_pages(load, pool);
		res->succeeded++;
	}
	load_stop(load);
	area_free();
	res->resident = min_size(res->resident, resident);
	res->tried++;
	if (left)
		return because("%zu pages of buffers are in the area after its allocation", left);
	return true;
}

static bool run_tries(const struct load_spec *spec, struct pool *pool,
		      unsigned int tries, struct result *res)
{
	struct load load;
	bool ok = true;

	*res = (struct result){ .resident = 100 };
	res->us = calloc(tries, sizeof(*res->us));
	if (!res->us)
		return because("out of memory");
	if (!load_create(&load, spec)) {
		free(res->us);
		return false;
	}
	while (ok && res->tried < tries) {
		ok = pool_fill(pool) && try_once(&load, pool, res);
		pool_unmap(pool);
	}
	res->errors = load.errors;
	res->corrupt = load.corrupt;
	res->first_error = load.first_error;
	load_destroy(&load);
	return ok;
}

static int cmp_us(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return x < y ? -1 : x > y;
}

/* The nearest-rank percentile, in ms. */
static double percentile_ms(struct result *res, unsigned int percent)
{
	unsigned int rank = (res->tried * percent + 99) / 100;

	qsort(res->us, res->tried, sizeof(*res->us), cmp_us);
	return (double)res->us[rank - 1] / USEC_PER_MSEC;
}

static double result_iops(const struct result *res)
{
	return (double)res->completed * USEC_PER_SEC / res->span_us;
}

static void result_print(struct result *res)
{
	ksft_print_msg("%u of %u allocations, p50 %.1f max %.1f ms, %.0f IOPS, %u %% in area\n",
		       res->succeeded, res->tried, percentile_ms(res, 50),
		       percentile_ms(res, 100), result_iops(res), res->resident);
}

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
	ASSERT_TRUE(run_tries(&spec, &pool, nr_tries(), &res))
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
	ASSERT_TRUE(run_tries(&spec, &pool, nr_tries(), &res))
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
		    run_tries(&spec, &pool, nr_tries(), &res))
		TH_LOG("%s", reason);
	result_print(&res);
	EXPECT_LT(res.succeeded, res.tried);
	EXPECT_EQ(vm_counter("pin_gate_wait"), waits);
	EXPECT_EQ(vm_counter("cma_drain"), drains);
	expect_clean_io(_metadata, &res, self->pins);
}

TEST_F(budget, bad_values)
{
	static const char * const bad[] = { "-1", "x", "1.5", "99999999999999999999", };
	unsigned int i;

	ASSERT_EQ(put_num(budget_file(), 250), 0);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(put_str(budget_file(), bad[i]), -EINVAL)
			TH_LOG("wrote '%s'", bad[i]);
		EXPECT_EQ(read_num(budget_file()), 250);
	}
}

/*
 * One page in the area is pinned by a slow I/O, so the gate of its pageblock
 * stays closed for long, and another process runs into it with quick I/Os on
 * the same page.
 */

#define HOLD_MS		2000	/* how long the slow I/O takes */
#define STUCK_MS	100	/* an I/O that takes longer waits at the gate */
#define PROMPT_MS	600	/* what has to be prompt may take this long */
#define BOUND_MS	1000	/* the longest that a pin may wait */

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

	aio_context_t slow_ctx;
	int slow_fd;

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
	struct pool *pool = &t->pool;
	size_t i;

	if (!pool_prepare(pool, POOL_SHMEM, 4 * MB) || !pool_fill(pool))
		return false;
	for (i = 0; i < pool->bytes; i += psize())
		if (resident_pages(pool, pool->addr + i, psize())) {
			t->page = pool->addr + i;
			return true;
		}
	return because("no page of the buffers is in the area");
}

static bool gate_devices(struct gate_test *t)
{
	struct nullb_conf quick = { .bytes = MB, .completion_us = 100, .depth = 64 };
	struct nullb_conf slow = { .bytes = MB, .completion_us = HOLD_MS * 1000, .depth = 64 };

	t->fd = nullb_create(LOAD_DEV, &quick);
	if (t->fd < 0)
		return false;
	t->slow_fd = nullb_create(SLOW_DEV, &slow);
	if (t->slow_fd < 0)
		return false;
	if (syscall(__NR_io_setup, 1, &t->slow_ctx))
		return because("io_setup: %s", strerror(errno));
	return true;
}

/* The slow I/O: its pin lasts for HOLD_MS from now on. */
static bool gate_hold_page(struct gate_test *t)
{
	struct iocb iocb = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = t->slow_fd,
		.aio_buf = (uintptr_t)t->page,
		.aio_nbytes = psize(),
	};
	struct iocb *batch = &iocb;

	if (syscall(__NR_io_submit, t->slow_ctx, 1, &batch) != 1)
		return because("io_submit: %s", strerror(errno));
	return true;
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
	if (!gate_hold_page(t))
		return false;
	if (pthread_create(&t->allocator, NULL, allocator_run, t))
		return because("cannot start a thread");
	return true;
}

/* Wait for the end of the allocation, the process and the slow I/O. */
static void gate_finish(struct gate_test *t)
{
	struct io_event event;

	pthread_join(t->allocator, NULL);
	write_once(t->stop, true);
	if (t->pid)
		waitpid(t->pid, NULL, 0);
	syscall(__NR_io_getevents, t->slow_ctx, 1, 1, &event, NULL);
	syscall(__NR_io_destroy, t->slow_ctx);
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

/*
 * Table mode: measure one combination and append it to a CSV file
 */

#define CSV_HEADER "kernel,budget_ms,threads,slots,io_bytes,completion_us,tried,succeeded,p50_ms,p99_ms,max_ms,iops\n"

struct table {
	const char *csv;
	const char *kernel;
	long budget;		/* -1: keep */
	unsigned int tries;
	struct load_spec spec;
};

static void print_help(void)
{
	fputs("usage: cma_gup_pin [HARNESS OPTION]...\n"
	      "       run the tests; -h lists the harness's options. CMA_GUP_PIN_TRIES in the\n"
	      "       environment is the number of allocations per case (5).\n"
	      "usage: cma_gup_pin --run-table --csv FILE --kernel NAME --budget MS|keep\n"
	      "           --threads N --slots M --io-bytes B --completion-us U --tries K\n"
	      "       measure K allocations of the whole area while N threads keep M direct\n"
	      "       reads of B bytes in flight each, on a device that takes U us, and append\n"
	      "       a row to FILE. Times are those of the allocation calls, failed ones\n"
	      "       included; iops counts the I/Os that completed during these calls.\n"
	      "       Exit status: 0 measured, 1 error, 4 not possible here.\n", stdout);
}

static unsigned long parse_num(const char *name, const char *arg,
			       unsigned long lowest, unsigned long highest)
{
	unsigned long val;
	char *end;

	errno = 0;
	val = strtoul(arg, &end, 10);
	if (errno || end == arg || *end || *arg == '-' || val < lowest || val > highest) {
		fprintf(stderr, "cma_gup_pin: --%s %s: give a number from %lu to %lu\n",
			name, arg, lowest, highest);
		exit(KSFT_FAIL);
	}
	return val;
}

static void table_parse(int argc, char **argv, struct table *table)
{
	enum { TABLE, CSV, KERNEL, BUDGET, THREADS, SLOTS, IO_BYTES, COMPLETION_US, TRIES, NR };
	static const struct option options[] = {
		[TABLE] = { "run-table", no_argument },
		[CSV] = { "csv", required_argument },
		[KERNEL] = { "kernel", required_argument },
		[BUDGET] = { "budget", required_argument },
		[THREADS] = { "threads", required_argument },
		[SLOTS] = { "slots", required_argument },
		[IO_BYTES] = { "io-bytes", required_argument },
		[COMPLETION_US] = { "completion-us", required_argument },
		[TRIES] = { "tries", required_argument },
		[NR] = { },
	};
	unsigned int seen = 0;
	int i, opt;

	table->spec.segs = 1;
	while ((opt = getopt_long(argc, argv, "", options, &i)) != -1) {
		if (opt)
			exit(KSFT_FAIL);
		seen |= 1U << i;
		switch (i) {
		case CSV:
			table->csv = optarg;
			break;
		case KERNEL:
			table->kernel = optarg;
			break;
		case BUDGET:
			table->budget = -1;
			if (strcmp(optarg, "keep"))
				table->budget = parse_num("budget", optarg, 0, INT_MAX);
			break;
		case THREADS:
			table->spec.threads = parse_num("threads", optarg, 1, 256);
			break;
		case SLOTS:
			table->spec.slots = parse_num("slots", optarg, 1, 4096);
			break;
		case IO_BYTES:
			table->spec.seg_bytes = parse_num("io-bytes", optarg, psize(), 16 * MB);
			break;
		case COMPLETION_US:
			/* null_blk gives up on a request after 5 s. */
			table->spec.completion_us = parse_num("completion-us", optarg, 1, 4000000);
			break;
		case TRIES:
			table->tries = parse_num("tries", optarg, 1, 100000);
			break;
		}
	}
	for (i = 0; i < NR; i++)
		if (!(seen & 1U << i)) {
			fprintf(stderr, "cma_gup_pin: --%s is missing; see --help\n",
				options[i].name);
			exit(KSFT_FAIL);
		}
	if (optind < argc || strpbrk(table->kernel, ",\n")) {
		fprintf(stderr, "cma_gup_pin: %s is not possible here; see --help\n",
			optind < argc ? argv[optind] : table->kernel);
		exit(KSFT_FAIL);
	}
}

static bool table_measure(const struct table *table, struct result *res)
{
	const struct load_spec *spec = &table->spec;
	size_t buffers = spec->threads * spec->slots * spec->seg_bytes;
	struct pool pool;

	if (spec->seg_bytes % psize())
		return because("--io-bytes has to be a multiple of %u", psize());
	if (buffers > area_bytes())
		return because("buffers of %zu MB do not fit into an area of %zu MB",
			       buffers / MB, area_bytes() / MB);
	if (table->budget >= 0 && area.budget >= 0 && put_num(budget_file(), table->budget))
		return because("cannot set the budget to %ld ms", table->budget);
	if (!pool_prepare(&pool, POOL_ANON, pool_bytes_for(spec)) ||
	    !run_tries(spec, &pool, table->tries, res))
		return false;
	if (res->errors)
		return because("%lu I/Os failed or were short, the first with %ld",
			       res->errors, res->first_error);
	return true;
}

/* One row, written at once; the header before it if the file is new. */
static bool table_write(const struct table *table, int fd, struct result *res)
{
	const struct load_spec *spec = &table->spec;
	char budget[24] = "-", row[1024];
	struct stat st;
	int len;

	if (area.budget >= 0)
		snprintf(budget, sizeof(budget), "%lu", read_num(budget_file()));
	printf("%s, budget %s ms, %u x %u reads of %zu KB, %u us: %u of %u succeeded, ",
	       table->kernel, budget, spec->threads, spec->slots, spec->seg_bytes / KB,
	       spec->completion_us, res->succeeded, res->tried);
	printf("p50 %.1f p99 %.1f max %.1f ms, %.0f IOPS, %u %% of the buffers in the area\n",
	       percentile_ms(res, 50), percentile_ms(res, 99), percentile_ms(res, 100),
	       result_iops(res), res->resident);
	len = snprintf(row, sizeof(row), "%s%s,%s,%u,%u,%zu,%u,%u,%u,%.1f,%.1f,%.1f,%.0f\n",
		       fstat(fd, &st) || st.st_size ? "" : CSV_HEADER,
		       table->kernel, budget, spec->threads, spec->slots, spec->seg_bytes,
		       spec->completion_us, res->tried, res->succeeded,
		       percentile_ms(res, 50), percentile_ms(res, 99),
		       percentile_ms(res, 100), result_iops(res));
	if (write(fd, row, len) != len)
		return because("cannot write to %s: %s", table->csv, strerror(errno));
	return true;
}

static int run_table(int argc, char **argv)
{
	struct table table = { };
	struct result res;
	int fd;

	table_parse(argc, argv, &table);
	fd = open(table.csv, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0) {
		fprintf(stderr, "cma_gup_pin: cannot open %s: %s\n", table.csv, strerror(errno));
		return KSFT_FAIL;
	}
	if (!table_measure(&table, &res) || !table_write(&table, fd, &res)) {
		fprintf(stderr, "cma_gup_pin: %s\n", reason);
		return KSFT_FAIL;
	}
	return KSFT_PASS;
}

int main(int argc, char **argv)
{
	bool table = argc > 1 && !strcmp(argv[1], "--run-table");

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		print_help();
		return KSFT_PASS;
	}
	if (!system_prepare(system_restore)) {
		if (!table)
			ksft_print_header();
		ksft_exit_skip("%s\n", reason);
	}
	if (table)
		return run_table(argc, argv);
	if (!ballast_leave_at_most(pool_may_leave(area_bytes() / 8)))
		ksft_exit_skip("%s\n", reason);
	return test_harness_run(argc, argv);
}
