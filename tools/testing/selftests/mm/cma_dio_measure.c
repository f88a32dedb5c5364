// SPDX-License-Identifier: GPL-2.0
/* Allocations under load, measured. See cma_dio_measure.h. */

#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cma_dio_measure.h"
#include "vm_util.h"

struct measurement {
	struct load load;		/* first: see measurement_of() */
	const struct measure_spec *spec;
	struct pool outside;		/* buffers, for spec->outside */
	long long begin_us;		/* of this allocation, 0: not yet */
	long long end_us;
	unsigned long completed;
	struct hist io;
};

static struct measurement *measurement_of(struct load *load)
{
	return (struct measurement *)load;
}

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

/* If the I/O was in flight at some moment of an allocation, note how long. */
static void note_io(struct load *load, const struct slot *slot)
{
	struct measurement *m = measurement_of(load);
	long long begin = read_once(m->begin_us), end = read_once(m->end_us);
	long long now = now_us();

	count_one(m->completed);
	if (begin && now >= begin && (!end || slot->submitted_us < end))
		hist_add(&m->io, now - slot->submitted_us);
}

static void *run_fresh(void *slots)
{
	struct slot *slot = slots;
	struct load *load = slot->load;
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
		if (measurement_of(load)->spec->touch)
			madvise(buf, len, MADV_POPULATE_WRITE);
		res = pread(load->fd, buf, len, slot->id * len);
		write_once(slot->iov->iov_base, NULL);
		munmap(buf, len);
		slot_done(slot, res < 0 ? -errno : res);
	}
	return NULL;
}

/* Populate new memory outside of the area. */
static bool fill_outside(struct pool *pool)
{
	bool ok;

	if (!area_take(&area))
		return false;
	ok = pool_map(pool);
	area_free();
	return ok;
}

static bool measurement_create(struct measurement *m, const struct measure_spec *spec)
{
	*m = (struct measurement){ .spec = spec };
	if (!load_create(&m->load, &spec->load))
		return false;
	m->load.io_done = note_io;
	if (spec->fresh)
		m->load.run = run_fresh;
	if (!spec->outside || (pool_prepare(&m->outside, POOL_ANON,
					    m->load.nr_slots * m->load.io_bytes) &&
			       fill_outside(&m->outside)))
		return true;
	load_destroy(&m->load);
	return false;
}

/* One segment of a slot: the slots' first segments come first, then the second ... */
static struct iovec *nth_segment(const struct load *load, size_t i)
{
	return &load->slots[i % load->nr_slots].iov[i / load->nr_slots];
}

/*
 * Give each slot its buffer: spread over all parts of the pool that are in the
 * area, the segments of a slot far from each other. Returns how many percent of
 * the buffers are in the area.
 */
static unsigned int place(struct measurement *m, const struct pool *pool)
{
	const struct load_spec *spec = &m->spec->load;
	size_t unit = spec->seg_bytes, nr_units = pool->bytes / unit;
	size_t need = m->load.nr_slots * spec->segs;
	size_t i, nr = 0, resident = 0;
	char **units, *addr;
	unsigned int pass;

	if (m->spec->fresh)
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
		addr = pass == 1 ? units[i * nr / need] : units[i];
		nth_segment(&m->load, i)->iov_base = addr;
		resident += resident_pages(pool, addr, unit);
	}
	free(units);
	return resident * 100 / (need * (unit / psize()));
}

static size_t buffers_in_area(const struct measurement *m, const struct pool *pool)
{
	size_t i, resident = 0;

	for (i = 0; i < m->load.nr_slots * m->spec->load.segs; i++)
		resident += resident_pages(pool, nth_segment(&m->load, i)->iov_base,
					   m->spec->load.seg_bytes);
	return resident;
}

bool load_has_pfn(const struct load *load, const struct pool *pool, unsigned long pfn)
{
	size_t i, offset;
	char *buf;

	for (i = 0; i < load->nr_slots * load->spec->segs; i++) {
		buf = read_once(nth_segment(load, i)->iov_base);
		for (offset = 0; buf && offset < load->spec->seg_bytes; offset += psize())
			if (pagemap_get_pfn(pool->pagemap, buf + offset) == pfn)
				return true;
	}
	return false;
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

static bool start(struct measurement *m)
{
	unsigned int i;

	m->begin_us = 0;
	m->end_us = 0;
	if (!load_start(&m->load))
		return false;
	for (i = 0; m->spec->apart && i < m->load.nr_threads; i++)
		run_apart(m->load.threads[i], false);
	return true;
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
static bool try_once(struct measurement *m, struct pool *pool, const struct taker *taker,
		     struct result *res)
{
	bool outside = m->spec->outside;
	unsigned int resident = place(m, outside ? &m->outside : pool);
	struct attempt *attempt = &res->attempts[res->tried];
	unsigned long before;
	size_t left = 0;

	if (!m->spec->idle && !start(m))
		return false;

	before = read_once(m->completed);
	write_once(m->begin_us, now_us());
	attempt->ok = !taker->take(taker->arg);
	write_once(m->end_us, now_us());
	attempt->us = m->end_us - m->begin_us;
	res->span_us += attempt->us;
	res->completed += read_once(m->completed) - before;

	res->succeeded += attempt->ok;
	if (outside || (attempt->ok && taker->whole && !m->spec->fresh))
		left = buffers_in_area(m, pool);
	if (!attempt->ok && taker->failed)
		taker->failed(taker->arg, &m->load, pool);
	load_stop(&m->load);
	taker->give(taker->arg);
	res->resident = min_size(res->resident, resident);
	res->tried++;
	if (left)
		return cannot("have an area without buffers: %zu pages are in it", left);
	return true;
}

bool run_tries(const struct measure_spec *spec, struct pool *pool,
	       const struct taker *taker, unsigned int tries, struct result *res)
{
	bool (*fill)(struct pool *pool) = spec->fill ?: ballast_fill;
	/* Not on the stack: it is large. */
	static struct measurement measurement;
	struct measurement *m = &measurement;
	bool ok = true;

	*res = (struct result){ .resident = 100 };
	res->attempts = calloc(tries, sizeof(*res->attempts));
	if (!res->attempts)
		return cannot("allocate memory");
	if (!measurement_create(m, spec))
		return false;
	if (spec->apart)
		run_apart(pthread_self(), true);
	while (ok && res->tried < tries) {
		/* The memory that the load and the allocation find */
		ok = fill(pool) && (!spec->leave || ballast_grow(spec->leave)) &&
		     try_once(m, pool, taker, res);
		pool_unmap(pool);
	}
	res->errors = m->load.errors;
	res->first_error = m->load.first_error;
	res->io = m->io;
	pool_unmap(&m->outside);
	load_destroy(&m->load);
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

static unsigned long num_option(const struct option_spec *spec, const char *arg)
{
	unsigned long val;
	char *end;

	errno = 0;
	val = strtoul(arg, &end, 10);
	if (errno || end == arg || *end || *arg == '-' || val < spec->lowest ||
	    val > spec->highest) {
		fprintf(stderr, "%s: --%s %s: give a number from %lu to %lu\n",
			program_invocation_short_name, spec->name, arg, spec->lowest,
			spec->highest);
		exit(KSFT_FAIL);
	}
	return val;
}

static void set_option(const struct option_spec *spec, const char *arg)
{
	if (spec->flag)
		*spec->flag = true;
	else if (spec->text)
		*spec->text = arg;
	else if (spec->number)
		*spec->number = num_option(spec, arg);
	else if (spec->bytes)
		*spec->bytes = num_option(spec, arg) * (spec->unit ?: 1);
	else
		*spec->budget = strcmp(arg, "keep") ? (long)num_option(spec, arg) : -1;
}

void parse_options(int argc, char **argv, const struct option_spec *specs)
{
	struct option options[64] = { };
	int i, opt;

	for (i = 0; specs[i].name; i++)
		options[i] = (struct option){
			specs[i].name, specs[i].flag ? no_argument : required_argument
		};
	while ((opt = getopt_long(argc, argv, "", options, &i)) != -1) {
		if (opt)
			exit(KSFT_FAIL);
		set_option(&specs[i], optarg);
	}
	if (optind < argc) {
		fprintf(stderr, "%s: %s: not an option; see --help\n",
			program_invocation_short_name, argv[optind]);
		exit(KSFT_FAIL);
	}
}

FILE *csv_open(const char *path, const char *header)
{
	FILE *f = fopen(path, "a");

	if (!f) {
		cannot("open %s: %s", path, strerror(errno));
		return NULL;
	}
	/* Where a stream that appends is before it has written, is up to libc. */
	fseek(f, 0, SEEK_END);
	if (!ftell(f))
		fputs(header, f);
	return f;
}

bool csv_close(FILE *f, const char *path)
{
	bool bad = ferror(f);

	return (!fclose(f) && !bad) || cannot("write to %s", path);
}
