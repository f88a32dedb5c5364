// SPDX-License-Identifier: GPL-2.0
/*
 * Measure CMA allocations under direct I/O, and that I/O under the allocations.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mm/gup_test.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cma_dio_measure.h"
#include "vm_util.h"

#define CSV_HEADER "kernel,budget_ms,threads,slots,io_bytes,completion_us,tried,succeeded,p50_ms,p99_ms,max_ms,iops\n"
#define SAMPLES_HEADER "kernel,load,metric,value,count\n"

/* Of /proc/kpageflags: see include/linux/kernel-page-flags.h */
#define FLAG_LRU		BIT_ULL(5)
#define FLAG_WRITEBACK		BIT_ULL(8)
#define FLAG_BUDDY		BIT_ULL(10)
#define FLAG_MMAP		BIT_ULL(11)
#define FLAG_ANON		BIT_ULL(12)
#define FLAG_PRIVATE		BIT_ULL(35)

#define TRACING		"/sys/kernel/tracing"
#define TRACE_ISOLATED	TRACING "/events/page_isolation/test_pages_isolated/enable"
#define TRACE_WAITS	TRACING "/events/page_isolation/pin_gate_wait_end/enable"

#define GUP_TEST	"/sys/kernel/debug/gup_test"
#define FLAG_WRITE_PIN	1	/* FOLL_WRITE */

/* Why did an allocation fail? What the first page is that was in its way. */
enum culprit {
	PIN,		/* a buffer of the I/O */
	WRITEBACK,
	BUFFER_HEADS,
	OFF_LRU,	/* in a batch on its way to an LRU list, or isolated */
	OTHER,
	UNKNOWN,
	NR_CULPRITS,
};

static const char * const culprit_names[] = {
	[PIN] = "fail_pin",
	[WRITEBACK] = "fail_writeback",
	[BUFFER_HEADS] = "fail_buffer_heads",
	[OFF_LRU] = "fail_off_lru",
	[OTHER] = "fail_other",
	[UNKNOWN] = "fail_unknown",
};

/*
 * A writer in the background, whose pages are dirty, under writeback, and have
 * buffer heads
 */

#define WRITER_DEV	NULLB_PREFIX "writer"
#define WRITER_BYTES	(16 * MB)
#define WRITER_LEAD_US	50000	/* so long it writes before the allocation */

static char chunk[256 * KB];

struct writer {
	pthread_t thread;
	int fd;
	bool busy;		/* while there is an allocation */
	bool stop;
};

struct bench {
	const char *csv;
	const char *samples;
	const char *kernel;
	const char *name;
	long budget;		/* ms; -1: keep */
	unsigned int tries;
	size_t alloc_bytes;	/* 0: the area */
	int heap;		/* to allocate from, or -1 */
	int dmabuf;
	unsigned int retries;
	unsigned int retry_ms;
	unsigned int watch_ms;	/* instead of one allocation */
	bool churn;
	struct writer *writer;	/* in the background, or NULL */
	bool attribute;
	bool waits;
	bool pin_cost;
	unsigned long failures[NR_CULPRITS];
	struct hist waited;	/* at gates */
	unsigned long gate_waits;
	unsigned long gate_timeouts;
	struct measure_spec spec;
};

static void print_help(void)
{
	fputs("usage: cma_gup_bench OPTION...\n"
	      "Measure allocations from the largest unused CMA area while direct I/O uses\n"
	      "buffers in it, on a null_blk device. Needs root, debugfs, null_blk, and an area\n"
	      "of at least 64 MB, such as by cma=256M.\n"
	      "  --threads N        threads that do I/O (2)\n"
	      "  --slots N          I/Os in flight, per thread (32)\n"
	      "  --io-bytes N       of each I/O (4096)\n"
	      "  --completion-us N  time that the device takes (2000)\n"
	      "  --fresh            a new buffer for each I/O; one I/O in flight per thread\n"
	      "  --touch            write to fresh buffers before the I/O\n"
	      "  --idle             have the buffers, but no I/O\n"
	      "  --leave-mb N       of memory outside of the area only so much is free\n"
	      "  --writer           also write to a file, by the page cache\n"
	      "  --apart            keep the load off the last CPU, where the allocator runs\n"
	      "  --outside          have the buffers outside of the area, where the I/O is in\n"
	      "                     nobody's way; there is as much other memory in it as before\n"
	      "  --alloc-bytes N    how much to allocate (all of the area)\n"
	      "  --heap FILE        allocate from this dma-buf heap of the area, such as\n"
	      "                     /dev/dma_heap/default_cma_region, and not through debugfs\n"
	      "  --retries N        up to N more times (0) ...\n"
	      "  --retry-ms N       ... after so many ms (100)\n"
	      "  --watch-ms N       allocate nothing, watch the I/O for so long\n"
	      "  --churn            while watching, allocate and release again and again\n"
	      "  --tries N          so many times, each with new buffers (10)\n"
	      "  --budget MS|keep   the area's drain_budget_ms, if there is one (keep)\n"
	      "  --attribute        tell by the tracepoint test_pages_isolated which pages\n"
	      "                     made allocations fail\n"
	      "  --waits            tell by the tracepoint pin_gate_wait_end how long pins waited\n"
	      "  --pin-cost         instead of all that, measure pins and unpins without any\n"
	      "                     allocation, by CONFIG_GUP_TEST: the best of some runs\n"
	      "  --kernel NAME      what to call the kernel (this)\n"
	      "  --name NAME        what to call the load (load)\n"
	      "  --csv FILE         append a row: " CSV_HEADER
	      "  --samples FILE     append rows: " SAMPLES_HEADER
	      "                     alloc_us and fail_us: time of a call that succeeded, or\n"
	      "                     failed, with its retries; io_us: time of an I/O that was\n"
	      "                     in flight during a call, three digits of it; wait_us: at\n"
	      "                     a gate; pin_ns, unpin_ns: time of a call\n"
	      "Times in the table are those of the allocation calls, failed ones included; iops\n"
	      "counts the I/Os that completed during these calls.\n"
	      "Exit status: 0 measured, 1 error, 4 not possible here.\n", stdout);
}

/* Let see() look at each line of the trace so far that has a text, and empty it. */
static void read_trace(const char *text, void (*see)(const char *at, void *arg), void *arg)
{
	char line[512], *at;
	FILE *f;

	f = fopen(TRACING "/trace", "r");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		at = strstr(line, text);
		if (at)
			see(at + strlen(text), arg);
	}
	fclose(f);
	put_str(TRACING "/trace", "\n");
}

/* The last page that test_pages_isolated() stumbled over stays. */
static void see_isolated(const char *at, void *arg)
{
	if (strstr(at, "ret=fail"))
		*(unsigned long *)arg = strtoul(at, NULL, 0);
}

static void see_wait(const char *at, void *arg)
{
	hist_add(arg, strtoll(at, NULL, 10));
}

static __u64 page_flags(unsigned long pfn)
{
	int fd = open("/proc/kpageflags", O_RDONLY);
	__u64 flags = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) != sizeof(flags))
		flags = 0;
	close(fd);
	return flags;
}

static enum culprit culprit_of(unsigned long pfn, const struct load *load,
			       const struct pool *pool)
{
	__u64 flags;

	if (!pfn)
		return UNKNOWN;
	if (load_has_pfn(load, pool, pfn))
		return PIN;
	flags = page_flags(pfn);
	if (flags & FLAG_WRITEBACK)
		return WRITEBACK;
	if (flags & FLAG_PRIVATE)
		return BUFFER_HEADS;
	if (flags & FLAG_BUDDY)
		return UNKNOWN;		/* free by now */
	if (!(flags & FLAG_LRU) && flags & (FLAG_MMAP | FLAG_ANON))
		return OFF_LRU;
	return OTHER;
}

static void note_failure(void *arg, const struct load *load, const struct pool *pool)
{
	struct bench *b = arg;
	unsigned long pfn = 0;

	if (!b->attribute)
		return;
	read_trace("fin_pfn=", see_isolated, &pfn);
	b->failures[culprit_of(pfn, load, pool)]++;
}

static unsigned long alloc_pages(const struct bench *b)
{
	return b->alloc_bytes ? b->alloc_bytes / psize() : area.count;
}

static int take_once(struct bench *b)
{
	if (b->heap < 0)
		return area_put(&area, "alloc", alloc_pages(b));
	b->dmabuf = heap_alloc(b->heap, alloc_pages(b) * psize());
	return b->dmabuf < 0 ? b->dmabuf : 0;
}

static void give_back(struct bench *b)
{
	if (b->heap < 0)
		area_put(&area, "free", alloc_pages(b));
	else if (b->dmabuf >= 0)
		close(b->dmabuf);
	b->dmabuf = -1;
}

static int watch(struct bench *b)
{
	long long end = now_us() + b->watch_ms * USEC_PER_MSEC;

	if (!b->churn)
		return usleep(b->watch_ms * 1000);
	while (now_us() < end)
		if (!take_once(b))
			give_back(b);
	return 0;
}

static int take(void *arg)
{
	struct bench *b = arg;
	unsigned int retry;
	int err;

	if (b->watch_ms)
		return watch(b);
	if (b->writer) {
		write_once(b->writer->busy, true);
		usleep(WRITER_LEAD_US);
	}
	for (retry = 0; ; retry++) {
		err = take_once(b);
		if (!err || retry == b->retries)
			return err;
		usleep(b->retry_ms * 1000);
	}
}

static void give(void *arg)
{
	struct bench *b = arg;

	if (b->writer)
		write_once(b->writer->busy, false);
	give_back(b);
	if (b->waits)
		read_trace(" us=", see_wait, &b->waited);
}

static void check_name(const char *option, const char *name)
{
	if (strpbrk(name, ",\n")) {
		fprintf(stderr, "cma_gup_bench: --%s %s: no commas, please\n", option, name);
		exit(KSFT_FAIL);
	}
}

static void parse(int argc, char **argv, struct bench *b)
{
	struct measure_spec *spec = &b->spec;
	const char *heap = NULL;
	bool write = false;
	const struct option_spec options[] = {
		{ "threads", .number = &spec->load.threads, .lowest = 1, .highest = 256 },
		{ "slots", .number = &spec->load.slots, .lowest = 1, .highest = 4096 },
		{ "io-bytes", .bytes = &spec->load.seg_bytes, .lowest = psize(),
		  .highest = 16 * MB },
		/* null_blk gives up on a request after 5 s. */
		{ "completion-us", .number = &spec->load.completion_us, .lowest = 1,
		  .highest = 4000000 },
		{ "fresh", .flag = &spec->fresh },
		{ "touch", .flag = &spec->touch },
		{ "idle", .flag = &spec->idle },
		{ "writer", .flag = &write },
		{ "leave-mb", .bytes = &spec->leave, .lowest = 8, .highest = 4096, .unit = MB },
		{ "apart", .flag = &spec->apart },
		{ "outside", .flag = &spec->outside },
		{ "alloc-bytes", .bytes = &b->alloc_bytes, .lowest = psize(),
		  .highest = LONG_MAX },
		{ "heap", .text = &heap },
		{ "retries", .number = &b->retries, .highest = 1000 },
		{ "retry-ms", .number = &b->retry_ms, .lowest = 1, .highest = 10000 },
		{ "watch-ms", .number = &b->watch_ms, .lowest = 1, .highest = 60000 },
		{ "churn", .flag = &b->churn },
		{ "tries", .number = &b->tries, .lowest = 1, .highest = 100000 },
		{ "budget", .budget = &b->budget, .highest = INT_MAX },
		{ "attribute", .flag = &b->attribute },
		{ "waits", .flag = &b->waits },
		{ "pin-cost", .flag = &b->pin_cost },
		{ "kernel", .text = &b->kernel },
		{ "name", .text = &b->name },
		{ "csv", .text = &b->csv },
		{ "samples", .text = &b->samples },
		{ },
	};
	static struct writer writer;

	parse_options(argc, argv, options);
	check_name("kernel", b->kernel);
	check_name("name", b->name);
	if (write)
		b->writer = &writer;
	if (heap)
		b->heap = open(heap, O_RDWR | O_CLOEXEC);
	if (heap && b->heap < 0) {
		fprintf(stderr, "cma_gup_bench: cannot open %s: %s\n", heap, strerror(errno));
		exit(KSFT_SKIP);
	}
	if (spec->fresh)
		spec->load.slots = 1;
}

static void *writer_run(void *arg)
{
	struct writer *w = arg;
	off_t at = 0;

	while (!read_once(w->stop)) {
		if (!read_once(w->busy)) {
			usleep(1000);
			continue;
		}
		if (pwrite(w->fd, chunk, sizeof(chunk), at % WRITER_BYTES) < 0)
			break;
		at += sizeof(chunk);
		if (at % (2 * MB) == 0)
			fdatasync(w->fd);
	}
	return NULL;
}

/* Once, so that the file system allocates nothing for it later. */
static bool writer_fill(int fd)
{
	off_t at;

	for (at = 0; at < WRITER_BYTES; at += sizeof(chunk))
		if (pwrite(fd, chunk, sizeof(chunk), at) != sizeof(chunk))
			return cannot("write to a file: %s", strerror(errno));
	if (fsync(fd))
		return cannot("write back a file: %s", strerror(errno));
	/* The pages that are written to again shall be new ones. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return true;
}

static bool writer_start(struct writer *w)
{
	const struct nullb_conf conf = {
		.bytes = 4 * WRITER_BYTES,
		.completion_us = 2000,
		.depth = 64,
		.memory_backed = true,
	};
	int fd = nullb_create(WRITER_DEV, &conf);

	if (fd < 0)
		return false;
	close(fd);
	if (!fs_create(WRITER_DEV, "ext4", "mkfs.ext4 -q", "noatime"))
		return false;
	w->fd = open(FS_MNT "/written", O_CREAT | O_RDWR, 0600);
	if (w->fd < 0)
		return cannot("create a file: %s", strerror(errno));
	return writer_fill(w->fd) &&
	       (!pthread_create(&w->thread, NULL, writer_run, w) ||
		cannot("start a thread"));
}

/* The file system's own buffers do not go away, and must not be in the area. */
static bool writer_start_outside(struct writer *w)
{
	bool ok;

	if (!area_take(&area))
		return false;
	ok = writer_start(w);
	area_free();
	return ok;
}

static void writer_stop(struct writer *w)
{
	write_once(w->stop, true);
	pthread_join(w->thread, NULL);
	close(w->fd);
}

static bool measure_tries(struct bench *b, struct pool *pool, const struct taker *taker,
			  struct result *res)
{
	unsigned long waits = vm_counter("pin_gate_wait");
	unsigned long timeouts = vm_counter("pin_gate_timeout");
	bool ok;

	if (!pool_prepare(pool, POOL_ANON, pool_bytes_for(&b->spec.load)) ||
	    (b->writer && !writer_start_outside(b->writer)))
		return false;
	ok = run_tries(&b->spec, pool, taker, b->tries, res);
	if (b->writer)
		writer_stop(b->writer);
	b->gate_waits = vm_counter("pin_gate_wait") - waits;
	b->gate_timeouts = vm_counter("pin_gate_timeout") - timeouts;
	return ok;
}

static bool measure(struct bench *b, struct result *res)
{
	const struct measure_spec *spec = &b->spec;
	size_t buffers = spec->load.threads * spec->load.slots * spec->load.seg_bytes;
	const struct taker taker = {
		.take = take,
		.give = give,
		.failed = note_failure,
		.arg = b,
		.whole = !b->alloc_bytes && !b->watch_ms,
	};
	struct pool pool;

	if (spec->load.seg_bytes % psize() || b->alloc_bytes % psize())
		return cannot("use sizes that are no multiples of %u", psize());
	if (spec->outside && spec->fresh)
		return cannot("keep fresh buffers out of the area");
	if (buffers > area_bytes() || alloc_pages(b) > area.count)
		return cannot("have %zu MB of buffers and allocate %zu MB in an area of %zu MB",
			      buffers / MB, alloc_pages(b) * psize() / MB, area_bytes() / MB);
	if (b->budget >= 0 && area.budget >= 0 && put_num(budget_file(), b->budget))
		return cannot("set the budget to %ld ms", b->budget);
	if (b->attribute && put_num(TRACE_ISOLATED, 1))
		return cannot("write to %s: needs tracefs", TRACE_ISOLATED);
	if (b->waits && put_num(TRACE_WAITS, 1))
		return cannot("write to %s: this kernel's CMA does not wait", TRACE_WAITS);
	return measure_tries(b, &pool, &taker, res);
}

static bool append(const char *path, const char *header, const char *rows)
{
	FILE *f = csv_open(path, header);

	if (!f)
		return false;
	fputs(rows, f);
	return csv_close(f, path);
}

static const char *budget_name(void)
{
	static char name[24] = "-";

	if (area.budget >= 0)
		snprintf(name, sizeof(name), "%lu", read_num(budget_file()));
	return name;
}

static double longest_ms(const struct hist *hist)
{
	unsigned int i = HIST_SIZE - 1;

	while (i && !hist->count[i])
		i--;
	return (double)hist_us(i) / USEC_PER_MSEC;
}

static void print_result(const struct bench *b, struct result *res)
{
	const struct measure_spec *spec = &b->spec;

	printf("%s, budget %s ms, %s, %u x %u reads of %zu KB, %u us: %u of %u succeeded, ",
	       b->kernel, budget_name(), b->name, spec->load.threads, spec->load.slots,
	       spec->load.seg_bytes / KB, spec->load.completion_us, res->succeeded, res->tried);
	printf("p50 %.1f p99 %.1f max %.1f ms, %.0f IOPS, %lu errors, %u %% of buffers in area, ",
	       percentile_ms(res, 50), percentile_ms(res, 99), percentile_ms(res, 100),
	       result_iops(res), res->errors, res->resident);
	printf("longest I/O %.1f ms, %lu waits at gates, %lu pins after the bound\n",
	       longest_ms(&res->io), b->gate_waits, b->gate_timeouts);
}

static bool write_row(const struct bench *b, struct result *res)
{
	const struct load_spec *spec = &b->spec.load;
	char row[1024];

	snprintf(row, sizeof(row), "%s,%s,%u,%u,%zu,%u,%u,%u,%.1f,%.1f,%.1f,%.0f\n",
		 b->kernel, budget_name(), spec->threads, spec->slots, spec->seg_bytes,
		 spec->completion_us, res->tried, res->succeeded, percentile_ms(res, 50),
		 percentile_ms(res, 99), percentile_ms(res, 100), result_iops(res));
	return append(b->csv, CSV_HEADER, row);
}

static void sample(FILE *f, const struct bench *b, const char *metric, long long value,
		   unsigned long count)
{
	if (count)
		fprintf(f, "%s,%s,%s,%lld,%lu\n", b->kernel, b->name, metric, value, count);
}

static void sample_hist(FILE *f, const struct bench *b, const char *metric,
			const struct hist *hist)
{
	unsigned int i;

	for (i = 0; i < HIST_SIZE; i++)
		sample(f, b, metric, hist_us(i), hist->count[i]);
}

static bool write_samples(const struct bench *b, const struct result *res)
{
	unsigned int i;
	size_t len;
	char *rows;
	bool ok;
	FILE *f;

	f = open_memstream(&rows, &len);
	if (!f)
		return cannot("allocate memory");
	for (i = 0; !b->watch_ms && i < res->tried; i++)
		sample(f, b, res->attempts[i].ok ? "alloc_us" : "fail_us", res->attempts[i].us, 1);
	sample_hist(f, b, "io_us", &res->io);
	sample_hist(f, b, "wait_us", &b->waited);
	sample(f, b, "iops", result_iops(res), 1);
	sample(f, b, "io_errors", res->errors, 1);
	sample(f, b, "resident_percent", res->resident, 1);
	for (i = 0; b->attribute && i < NR_CULPRITS; i++)
		sample(f, b, culprit_names[i], b->failures[i], 1);
	fclose(f);
	ok = append(b->samples, SAMPLES_HEADER, rows);
	free(rows);
	return ok;
}

/*
 * The cost of pins while no gate is closed
 */

static long long min_us(long long a, long long b)
{
	return a < b ? a : b;
}

struct pin_cost {
	const char *name;
	unsigned long cmd;
	unsigned int pages;	/* per call */
	size_t bytes;		/* of memory: microseconds are all that the kernel tells */
	bool thp;
	bool fault;		/* the pages are not there, so GUP-fast falls back */
};

static const struct pin_cost pin_costs[] = {
	{ "fast-1", PIN_FAST_BENCHMARK, 1, 16 * MB },
	{ "fast-512", PIN_FAST_BENCHMARK, 512, 256 * MB },
	{ "fast-thp-512", PIN_FAST_BENCHMARK, 512, 512 * MB, .thp = true },
	{ "slow-1", PIN_BASIC_TEST, 1, 8 * MB },
	{ "slow-fault-1", PIN_FAST_BENCHMARK, 1, 2 * MB, .fault = true },
};

#define PIN_COST_RUNS	30

/* The least that a call takes, and its unpin: without a timer interrupt, that is. */
static bool pin_cost_measure(int fd, const struct pin_cost *cost, char *addr, double *pin_ns,
			     double *unpin_ns)
{
	double calls = (double)cost->bytes / psize() / cost->pages;
	long long pin_us = LLONG_MAX, unpin_us = LLONG_MAX;
	unsigned int run;

	for (run = 0; run < PIN_COST_RUNS; run++) {
		struct gup_test gup = {
			.addr = (uintptr_t)addr,
			.size = cost->bytes,
			.nr_pages_per_call = cost->pages,
			.gup_flags = FLAG_WRITE_PIN,
		};

		if (cost->fault)
			madvise(addr, cost->bytes, MADV_DONTNEED);
		if (ioctl(fd, cost->cmd, &gup) || gup.size != cost->bytes)
			return cannot("measure by gup_test: %s", strerror(errno));
		pin_us = min_us(pin_us, gup.get_delta_usec);
		unpin_us = min_us(unpin_us, gup.put_delta_usec);
	}
	*pin_ns = pin_us * 1000 / calls;
	*unpin_ns = unpin_us * 1000 / calls;
	return true;
}

static bool pin_cost_write(const struct bench *b, const struct pin_cost *cost, double pin_ns,
			   double unpin_ns)
{
	char rows[512];

	printf("%s, %s: pin %.2f, unpin %.2f ns per call\n", b->kernel, cost->name, pin_ns,
	       unpin_ns);
	snprintf(rows, sizeof(rows), "%s,%s,pin_ns,%.2f,1\n%s,%s,unpin_ns,%.2f,1\n",
		 b->kernel, cost->name, pin_ns, b->kernel, cost->name, unpin_ns);
	return !b->samples || append(b->samples, SAMPLES_HEADER, rows);
}

/* On memory of its own, aligned for huge pages */
static bool pin_cost_run(const struct bench *b, int fd, const struct pin_cost *cost)
{
	size_t huge = 2 * MB, len = cost->bytes + huge;
	double pin_ns = 0, unpin_ns = 0;
	char *map, *addr;
	bool ok;

	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return cannot("map memory: %s", strerror(errno));
	addr = (char *)(((uintptr_t)map + huge - 1) & ~(huge - 1));
	madvise(addr, cost->bytes, cost->thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	ok = !madvise(addr, cost->bytes, MADV_POPULATE_WRITE) ||
	     cannot("populate %zu MB: %s", cost->bytes / MB, strerror(errno));
	ok = ok && pin_cost_measure(fd, cost, addr, &pin_ns, &unpin_ns) &&
	     pin_cost_write(b, cost, pin_ns, unpin_ns);
	munmap(map, len);
	return ok;
}

static bool pin_costs_run(const struct bench *b)
{
	unsigned int i;
	bool ok = true;
	int fd;

	fd = open(GUP_TEST, O_RDWR);
	if (fd < 0)
		return cannot("open " GUP_TEST ": needs root, debugfs and CONFIG_GUP_TEST");
	for (i = 0; ok && i < ARRAY_SIZE(pin_costs); i++)
		ok = pin_cost_run(b, fd, &pin_costs[i]);
	close(fd);
	return ok;
}

static void restore_all(void)
{
	put_num(TRACE_WAITS, 0);
	put_num(TRACE_ISOLATED, 0);
	env_restore();
}

int main(int argc, char **argv)
{
	static struct bench b = {
		.kernel = "this",
		.name = "load",
		.budget = -1,
		.heap = -1,
		.dmabuf = -1,
		.tries = 10,
		.retry_ms = 100,
		.spec.load = {
			.threads = 2,
			.slots = 32,
			.segs = 1,
			.seg_bytes = 4096,
			.completion_us = 2000,
		},
	};
	static struct result res;

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		print_help();
		return KSFT_PASS;
	}
	parse(argc, argv, &b);
	if (b.pin_cost)
		return pin_costs_run(&b) ? KSFT_PASS : KSFT_FAIL;
	system_prepare(restore_all);
	if (!measure(&b, &res) || (b.csv && !write_row(&b, &res)) ||
	    (b.samples && !write_samples(&b, &res)))
		return KSFT_FAIL;
	print_result(&b, &res);
	return KSFT_PASS;
}
