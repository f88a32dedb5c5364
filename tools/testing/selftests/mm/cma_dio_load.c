// SPDX-License-Identifier: GPL-2.0
/*
 * The load, and CMA allocations under it. See cma_dio_load.h.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cma_dio_load.h"
#include "vm_util.h"

#define LOAD_DEV	NULLB_PREFIX "load"

void hist_add(struct hist *hist, long long us)
{
	unsigned int base = 0;

	for (; us >= 1000 && base < HIST_SIZE - 1000; us /= 10)
		base += HIST_SCALE;
	count_one(hist->count[base + min_size(us, 999)]);
}

long long hist_us(unsigned int index)
{
	long long unit = 1;

	for (; index >= 1000; index -= HIST_SCALE)
		unit *= 10;
	return index * unit;
}

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
	slot->submitted_us = now_us();
}

/* If the I/O was in flight at some moment of an allocation, note how long. */
static void load_note_latency(struct load *load, long long submitted_us)
{
	long long begin = read_once(load->alloc_begin_us);
	long long end = read_once(load->alloc_end_us);
	long long now = now_us();

	if (begin && now >= begin && (!end || submitted_us < end))
		hist_add(&load->io, now - submitted_us);
}

static void slot_done(struct load *load, struct slot *slot, long res)
{
	const struct load_spec *spec = load->spec;

	load_note_latency(load, slot->submitted_us);
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

static void *worker_run_fresh(void *arg)
{
	struct worker *w = arg;
	struct load *load = w->load;
	struct slot *slot = w->slots;
	size_t len = load->io_bytes;
	ssize_t res;
	char *buf;

	while (!read_once(load->stop)) {
		slot->submitted_us = now_us();
		buf = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (buf == MAP_FAILED) {
			load_error(load, -errno);
			continue;
		}
		write_once(slot->iov->iov_base, buf);
		if (load->spec->touch)
			madvise(buf, len, MADV_POPULATE_WRITE);
		res = pread(load->fd, buf, len, slot->id * len);
		write_once(slot->iov->iov_base, NULL);
		munmap(buf, len);
		slot_done(load, slot, res < 0 ? -errno : res);
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
	pool_unmap(&load->outside);
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

static bool load_map_outside(struct load *load)
{
	return pool_prepare(&load->outside, POOL_ANON, load->nr_slots * load->io_bytes) &&
	       pool_fill_outside(&load->outside);
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
	for (i = 0; i < load->nr_slots * spec->segs; i++)
		load->iov[i].iov_len = spec->seg_bytes;
	if (load_open_device(load) && (!spec->outside || load_map_outside(load)))
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

	if (load->spec->fresh)
		return 100;
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

bool load_has_pfn(const struct load *load, const struct pool *pool, unsigned long pfn)
{
	size_t i, offset;
	char *buf;

	for (i = 0; i < load->nr_slots * load->spec->segs; i++) {
		buf = read_once(load->iov[i].iov_base);
		for (offset = 0; buf && offset < load->spec->seg_bytes; offset += psize())
			if (pagemap_get_pfn(pool->pagemap, buf + offset) == pfn)
				return true;
	}
	return false;
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

/* Leave the last CPU to the allocator, if there are several. */
static void run_apart(pthread_t thread, bool allocator)
{
	long cpu, nr = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t set;

	CPU_ZERO(&set);
	for (cpu = 0; cpu < nr; cpu++)
		if (allocator == (cpu == nr - 1))
			CPU_SET(cpu, &set);
	if (nr > 1)
		pthread_setaffinity_np(thread, sizeof(set), &set);
}

/* Start, and wait until each slot was submitted a second time. */
static bool load_start(struct load *load)
{
	long long deadline = now_us() + 10 * USEC_PER_SEC;
	unsigned int i;
	int err;

	load->stop = false;
	load->alloc_begin_us = 0;
	load->alloc_end_us = 0;
	for (i = 0; i < load->nr_slots; i++) {
		load->slots[i].completed = 0;
		load->slots[i].reading = false;
	}
	for (i = 0; i < load->spec->threads; i++) {
		struct worker *w = &load->workers[i];

		err = pthread_create(&w->thread, NULL,
				     load->spec->fresh ? worker_run_fresh : worker_run, w);
		if (err) {
			load_stop(load);
			return because("cannot start a thread: %s", strerror(err));
		}
		w->running = true;
		if (load->spec->apart)
			run_apart(w->thread, false);
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

size_t pool_bytes_for(const struct load_spec *spec)
{
	size_t buffers = spec->threads * spec->slots * spec->segs * spec->seg_bytes;

	/* Not only hot pages: moving the others is part of the job. */
	return max_size(buffers + min_size(buffers / 8, area_bytes() - buffers),
			area_bytes() / 8);
}

static int take_whole_area(void *arg)
{
	return area_alloc();
}

static void give_whole_area(void *arg)
{
	area_free();
}

const struct taker take_area = {
	.take = take_whole_area,
	.give = give_whole_area,
	.whole = true,
};

/* One allocation under load. */
static bool try_once(struct load *load, struct pool *pool, const struct taker *taker,
		     struct result *res)
{
	bool outside = load->spec->outside;
	unsigned int resident = load_place(load, outside ? &load->outside : pool);
	struct attempt *attempt = &res->attempts[res->tried];
	unsigned long before;
	size_t left = 0;

	if (!load->spec->idle && !load_start(load))
		return false;

	before = read_once(load->completed);
	write_once(load->alloc_begin_us, now_us());
	attempt->ok = !taker->take(taker->arg);
	write_once(load->alloc_end_us, now_us());
	attempt->us = load->alloc_end_us - load->alloc_begin_us;
	res->span_us += attempt->us;
	res->completed += read_once(load->completed) - before;

	res->succeeded += attempt->ok;
	if (outside || (attempt->ok && taker->whole && !load->spec->fresh))
		left = load_resident_pages(load, pool);
	if (!attempt->ok && taker->failed)
		taker->failed(taker->arg, load, pool);
	load_stop(load);
	taker->give(taker->arg);
	res->resident = min_size(res->resident, resident);
	res->tried++;
	if (left)
		return because("%zu pages of buffers are in the area, where none should be", left);
	return true;
}

/* The memory that the load and the allocation find */
static bool set_stage(const struct load_spec *spec, struct pool *pool)
{
	if (!pool_fill(pool))
		return false;
	return !spec->leave || ballast_grow(spec->leave);
}

bool run_tries(const struct load_spec *spec, struct pool *pool,
	       const struct taker *taker, unsigned int tries, struct result *res)
{
	struct load load;
	bool ok = true;

	*res = (struct result){ .resident = 100 };
	res->attempts = calloc(tries, sizeof(*res->attempts));
	if (!res->attempts)
		return because("out of memory");
	if (!load_create(&load, spec)) {
		free(res->attempts);
		return false;
	}
	if (spec->apart)
		run_apart(pthread_self(), true);
	while (ok && res->tried < tries) {
		ok = set_stage(spec, pool) && try_once(&load, pool, taker, res);
		pool_unmap(pool);
	}
	res->errors = load.errors;
	res->corrupt = load.corrupt;
	res->first_error = load.first_error;
	res->io = load.io;
	load_destroy(&load);
	return ok;
}

static int cmp_us(const void *a, const void *b)
{
	const struct attempt *x = a, *y = b;

	return x->us < y->us ? -1 : x->us > y->us;
}

double percentile_ms(struct result *res, unsigned int percent)
{
	unsigned int rank = (res->tried * percent + 99) / 100;

	qsort(res->attempts, res->tried, sizeof(*res->attempts), cmp_us);
	return (double)res->attempts[rank - 1].us / USEC_PER_MSEC;
}

double result_iops(const struct result *res)
{
	return (double)res->completed * USEC_PER_SEC / res->span_us;
}

void result_print(struct result *res)
{
	ksft_print_msg("%u of %u allocations, p50 %.1f max %.1f ms, %.0f IOPS, %u %% in area\n",
		       res->succeeded, res->tried, percentile_ms(res, 50),
		       percentile_ms(res, 100), result_iops(res), res->resident);
}
