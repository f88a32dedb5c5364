// SPDX-License-Identifier: GPL-2.0
/*
 * Direct I/O through file systems while CMA allocates what it pins.
 *
 * Who builds a bio pins its pages one vector after the other. If a page has to
 * wait because its pageblock isolates pins, the wait must not happen with pins
 * in hand that nobody else can release: the allocation may be waiting for
 * these. If it does happen, only the bound of the wait ends it, which
 * pin_gate_timeout in /proc/vmstat counts, so no test here may see one.
 *
 * There are two kinds of tests: threads that write, read back and compare large
 * vectors while the whole area is allocated; and single I/Os that are brought
 * into the state in question on purpose, with userfaultfd to stop them half way
 * and a slow device to keep a gate closed.
 *
 * The device is null_blk, which completes after a chosen time.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <asm/posix_types.h>	/* for aio_abi.h; not in the types.h of tools */
#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "local_config.h_gen"
#ifdef LOCAL_CONFIG_HAVE_LIBURING
#include <liburing.h>
#endif
#include "cma_util.h"
#include "vm_util.h"

#define LOAD_DEV	NULLB_PREFIX "load"
#define PROBE_DEV	NULLB_PREFIX "probe"

/* RWF_ATOMIC, which older C libraries do not have */
#define WRITE_ATOMIC	0x40

#define NR_WORKERS	2
#define NR_SLOTS	2	/* I/Os in flight, per worker */
#define MAX_SEGS	1024	/* the most that one call takes */
#define TAIL		1000	/* bytes that a file lacks to whole blocks */

#define HOLD_MS		1500	/* how long a slow I/O takes */
#define SHORT_HOLD_MS	600	/* less than the bound of a wait */
#define PROMPT_MS	600	/* what has to be prompt may take this long */
#define GATE_MS		5000	/* a gate has to be closed after that */

/*
 * Files to do I/O on
 */

enum fs_kind {
	FS_NONE,		/* the block device itself */
	FS_SCSI,		/* a disk of scsi_debug, for what null_blk has not */
	FS_EXT4,
	FS_XFS,
	FS_BTRFS,
	FS_VFAT,		/* by fs/direct-io.c */
};

static const struct {
	const char *type;
	const char *mkfs;
	const char *options;
	size_t bytes;
} file_systems[] = {
	[FS_NONE] = { .bytes = 64 * MB },
	[FS_SCSI] = { },
	[FS_EXT4] = { "ext4", "mkfs.ext4 -q", "noatime", 64 * MB },
	/* Without lazytime, a non-blocking write cannot update the times. */
	[FS_XFS] = { "xfs", "mkfs.xfs -q -f", "noatime,lazytime", 320 * MB },
	/* To checksum what it writes, btrfs would copy it first. */
	[FS_BTRFS] = { "btrfs", "mkfs.btrfs -q -f", "noatime,nodatasum", 128 * MB },
	/* With clusters of several pages, so that some are mapped already. */
	[FS_VFAT] = { "vfat", "mkfs.vfat -s 64", "noatime", 64 * MB },
};

struct target {
	enum fs_kind fs;
	int flags;		/* more flags for open() */
	struct nullb_conf conf;
	int dev_fd;
	int fd[NR_WORKERS];	/* one file for each, or all the device */
};

/* Only what has all its blocks is written without allocating some. */
static bool file_fill(int fd, size_t bytes)
{
	size_t done, step = MB;
	ssize_t ret = 0;
	char *buf;

	buf = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		return because("out of memory");
	for (done = 0; done < bytes; done += step) {
		ret = pwrite(fd, buf, step, done);
		if (ret != (ssize_t)step)
			break;
	}
	munmap(buf, step);
	if (done < bytes || fsync(fd))
		return because("cannot write a file: %s", strerror(errno));
	return true;
}

static void target_close(struct target *t)
{
	unsigned int i;

	for (i = 0; i < NR_WORKERS; i++)
		if (t->fd[i] >= 0 && t->fd[i] != t->dev_fd)
			close(t->fd[i]);
	if (t->dev_fd >= 0)
		close(t->dev_fd);
	/* The rest is for system_restore(). */
}

static int scsi_open(void)
{
	glob_t found;
	char path[64];
	int fd = -1;

	if (glob("/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/sd*",
		 0, NULL, &found)) {
		because("no disk of scsi_debug");
		return -1;
	}
	snprintf(path, sizeof(path), "/dev/%s", strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0)
		because("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static bool target_open(struct target *t, size_t file_bytes)
{
	char path[64];
	unsigned int i;

	for (i = 0; i < NR_WORKERS; i++)
		t->fd[i] = -1;
	t->conf.bytes = file_systems[t->fs].bytes;
	t->conf.memory_backed = true;
	t->dev_fd = t->fs == FS_SCSI ? scsi_open() : nullb_create(LOAD_DEV, &t->conf);
	if (t->dev_fd < 0)
		return false;
	if (t->fs == FS_NONE || t->fs == FS_SCSI) {
		for (i = 0; i < NR_WORKERS; i++)
			t->fd[i] = t->dev_fd;
		/* null_blk allocates memory for a new block also where polling must not. */
		return !t->conf.poll_queues || file_fill(t->dev_fd, NR_WORKERS * file_bytes);
	}

	close(t->dev_fd);
	t->dev_fd = -1;
	if (!fs_create(LOAD_DEV, file_systems[t->fs].type, file_systems[t->fs].mkfs,
		       file_systems[t->fs].options))
		return false;
	for (i = 0; i < NR_WORKERS; i++) {
		snprintf(path, sizeof(path), FS_MNT "/data%u", i);
		t->fd[i] = open(path, O_CREAT | O_RDWR | O_DIRECT | t->flags, 0600);
		if (t->fd[i] < 0)
			return because("cannot open %s for direct I/O: %s", path, strerror(errno));
		if (!file_fill(t->fd[i], file_bytes))
			return false;
	}
	return true;
}

/* Files have offsets of their own, a device is divided. */
static off_t target_offset(const struct target *t, unsigned int worker, size_t per_worker)
{
	return t->fd[0] == t->dev_fd ? worker * per_worker : 0;
}

/*
 * I/Os and their data
 */

struct io {
	int fd;
	off_t offset;
	struct iovec *iov;
	unsigned int nr;
	size_t bytes;
	bool write;
	int rw_flags;
	long res;		/* bytes or -errno */
	struct iocb iocb;
};

static __u64 pattern(__u64 seed, unsigned int seg)
{
	return (seed << 32 | seg) * 0x9e3779b97f4a7c15ULL;
}

static void seg_fill(const struct iovec *iov, __u64 val)
{
	__u64 *p = iov->iov_base;
	size_t i;

	for (i = 0; i < iov->iov_len / sizeof(*p); i++)
		p[i] = val + i;
}

static void io_fill(const struct io *io, __u64 seed)
{
	unsigned int seg;

	for (seg = 0; seg < io->nr; seg++)
		seg_fill(&io->iov[seg], pattern(seed, seg));
}

static void io_scrub(const struct io *io)
{
	unsigned int seg;

	for (seg = 0; seg < io->nr; seg++)
		memset(io->iov[seg].iov_base, 0xa5, io->iov[seg].iov_len);
}

/* Compare as much as was read. */
static bool io_matches(const struct io *io, __u64 seed)
{
	long left = io->res;
	unsigned int seg;
	size_t i;

	for (seg = 0; seg < io->nr && left > 0; seg++) {
		const __u64 *p = io->iov[seg].iov_base;
		__u64 val = pattern(seed, seg);

		for (i = 0; i < min_size(io->iov[seg].iov_len, left) / sizeof(*p); i++)
			if (p[i] != val + i)
				return false;
		left -= io->iov[seg].iov_len;
	}
	return true;
}

/*
 * Methods
 */

enum method {
	SYNC,
	AIO,
	URING,
	URING_SQPOLL,
	URING_IOPOLL,
};

struct engine {
	enum method method;
	bool from_worker;	/* io_uring: let a worker start it */
	aio_context_t ctx;
#ifdef LOCAL_CONFIG_HAVE_LIBURING
	struct io_uring ring;
#endif
};

static void sync_run(struct io *io)
{
	ssize_t ret;

	if (io->write)
		ret = pwritev2(io->fd, io->iov, io->nr, io->offset, io->rw_flags);
	else
		ret = preadv2(io->fd, io->iov, io->nr, io->offset, io->rw_flags);
	io->res = ret < 0 ? -errno : ret;
}

static void aio_start(struct engine *e, struct io *io)
{
	struct iocb *batch = &io->iocb;

	io->iocb = (struct iocb){
		.aio_data = (uintptr_t)io,
		.aio_lio_opcode = io->write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV,
		.aio_fildes = io->fd,
		.aio_buf = (uintptr_t)io->iov,
		.aio_nbytes = io->nr,
		.aio_offset = io->offset,
		.aio_rw_flags = io->rw_flags,
	};
	io->res = -EINPROGRESS;
	if (syscall(__NR_io_submit, e->ctx, 1, &batch) != 1)
		io->res = -errno;
}

static void aio_finish(struct engine *e)
{
	struct io_event event;

	while (syscall(__NR_io_getevents, e->ctx, 1, 1, &event, NULL) != 1)
		;
	((struct io *)(uintptr_t)event.data)->res = event.res;
}

#ifdef LOCAL_CONFIG_HAVE_LIBURING

static bool uring_open(struct engine *e)
{
	unsigned int flags = 0;
	int ret;

	if (e->method == URING_SQPOLL)
		flags = IORING_SETUP_SQPOLL;
	else if (e->method == URING_IOPOLL)
		flags = IORING_SETUP_IOPOLL;
	ret = io_uring_queue_init(8, &e->ring, flags);
	if (ret)
		return because("io_uring_queue_init: %s", strerror(-ret));
	return true;
}

static void uring_close(struct engine *e)
{
	io_uring_queue_exit(&e->ring);
}

static void uring_start(struct engine *e, struct io *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring);
	int ret;

	if (io->write)
		io_uring_prep_writev2(sqe, io->fd, io->iov, io->nr, io->offset, io->rw_flags);
	else
		io_uring_prep_readv2(sqe, io->fd, io->iov, io->nr, io->offset, io->rw_flags);
	io_uring_sqe_set_data(sqe, io);
	if (e->from_worker)
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	io->res = -EINPROGRESS;
	ret = io_uring_submit(&e->ring);
	/* With a submitting thread in the kernel, ret can count earlier ones, too. */
	if (ret < 1)
		io->res = ret;
}

static void uring_finish(struct engine *e)
{
	struct io_uring_cqe *cqe;

	while (io_uring_wait_cqe(&e->ring, &cqe))
		;
	((struct io *)io_uring_cqe_get_data(cqe))->res = cqe->res;
	io_uring_cqe_seen(&e->ring, cqe);
}

static bool uring_has_result(struct engine *e)
{
	struct io_uring_cqe *cqe;

	return !io_uring_peek_cqe(&e->ring, &cqe);
}

#else

static bool uring_open(struct engine *e)
{
	return because("built without liburing");
}

static void uring_close(struct engine *e) { }
static void uring_start(struct engine *e, struct io *io) { }
static void uring_finish(struct engine *e) { }
static bool uring_has_result(struct engine *e) { return false; }

#endif /* LOCAL_CONFIG_HAVE_LIBURING */

static bool engine_open(struct engine *e)
{
	if (e->method == SYNC)
		return true;
	if (e->method != AIO)
		return uring_open(e);
	if (syscall(__NR_io_setup, NR_SLOTS, &e->ctx))
		return because("io_setup: %s", strerror(errno));
	return true;
}

static void engine_close(struct engine *e)
{
	if (e->method == AIO)
		syscall(__NR_io_destroy, e->ctx);
	else if (e->method != SYNC)
		uring_close(e);
}

/* Start all, then wait for all. */
static void engine_run(struct engine *e, struct io *ios, unsigned int nr)
{
	unsigned int i, started = 0;

	for (i = 0; i < nr; i++) {
		if (e->method == SYNC)
			sync_run(&ios[i]);
		else if (e->method == AIO)
			aio_start(e, &ios[i]);
		else
			uring_start(e, &ios[i]);
		started += ios[i].res == -EINPROGRESS;
	}
	while (started--) {
		if (e->method == AIO)
			aio_finish(e);
		else
			uring_finish(e);
	}
}

/*
 * Prepare files and memory that are not in the area: it must not have pages of a
 * journal, say, which cannot be moved for reasons that are of no interest here.
 */
static bool outside_prepare(struct target *t, size_t file_bytes, char **mem, size_t bytes)
{
	bool ok;

	if (!area_take(&area))
		return false;
	ok = target_open(t, file_bytes);
	if (ok) {
		*mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (*mem == MAP_FAILED || madvise(*mem, bytes, MADV_NOHUGEPAGE) ||
		    madvise(*mem, bytes, MADV_POPULATE_WRITE))
			ok = because("cannot populate %zu MB outside of the area", bytes / MB);
	}
	area_free();
	return ok;
}

/*
 * The load: each worker writes, scrubs, reads and compares, again and again
 */

struct worker {
	struct load *load;
	unsigned int id;
	struct engine engine;
	struct io ios[NR_SLOTS];
	pthread_t thread;
	bool running;
	unsigned long rounds;
};

struct load {
	struct target target;
	unsigned int segs;	/* of each I/O */
	bool odd;		/* parts of pages that add up to a block by threes */
	bool tail;		/* the file ends within a block */
	size_t io_bytes;
	char *outside;
	struct iovec iov[NR_WORKERS * NR_SLOTS][MAX_SEGS];
	struct worker workers[NR_WORKERS];
	bool stop;
	unsigned long errors;
	unsigned long corrupt;
	long first_error;
};

/* How many pages are in the area, and how many outside. */
static size_t half_of_pages(const struct load *load)
{
	return NR_WORKERS * NR_SLOTS * (load->segs + 1) / 2;
}

/* Where and how long a segment is in its page. */
static void seg_place(const struct load *load, struct iovec *iov, unsigned int seg, char *page)
{
	static const unsigned int lens[] = { 512, 1536, 2048 };

	iov->iov_base = page;
	iov->iov_len = psize();
	if (load->odd) {
		iov->iov_base = page + 512;
		iov->iov_len = lens[seg % 3];
	}
}

/* Segments are pages in and outside of the area by turns. */
static unsigned int load_place(struct load *load, const struct pool *pool)
{
	size_t nr = half_of_pages(load), pages = pool->bytes / psize();
	const unsigned int slots = NR_WORKERS * NR_SLOTS;
	unsigned int slot, seg;
	size_t i, resident = 0;
	char *page;

	for (seg = 0; seg < load->segs; seg++)
		for (slot = 0; slot < slots; slot++) {
			/* Neighbours in a vector are far from each other. */
			i = seg / 2 * slots + slot;
			if (seg % 2) {
				page = load->outside + i * psize();
			} else {
				page = pool->addr + i * pages / nr * psize();
				resident += resident_pages(pool, page, psize());
			}
			seg_place(load, &load->iov[slot][seg], seg, page);
		}
	return resident * 100 / nr;
}

static size_t io_expected(const struct load *load, const struct io *io, unsigned int slot)
{
	bool cut = load->tail && !io->write && slot == NR_SLOTS - 1;

	return io->bytes - (cut ? TAIL : 0);
}

static void worker_io(struct worker *w, bool write)
{
	struct load *load = w->load;
	unsigned int i;

	for (i = 0; i < NR_SLOTS; i++)
		w->ios[i].write = write;
	engine_run(&w->engine, w->ios, NR_SLOTS);
	for (i = 0; i < NR_SLOTS; i++)
		if (w->ios[i].res != (long)io_expected(load, &w->ios[i], i) &&
		    count_one(load->errors) == 1)
			load->first_error = w->ios[i].res;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct load *load = w->load;
	__u64 seed = w->id << 24;
	unsigned int i;

	do {
		seed += NR_SLOTS;
		for (i = 0; i < NR_SLOTS; i++)
			io_fill(&w->ios[i], seed + i);
		worker_io(w, true);
		if (load->tail && ftruncate(w->ios[0].fd, NR_SLOTS * load->io_bytes - TAIL))
			count_one(load->errors);
		for (i = 0; i < NR_SLOTS; i++)
			io_scrub(&w->ios[i]);
		worker_io(w, false);
		for (i = 0; i < NR_SLOTS; i++)
			if (!io_matches(&w->ios[i], seed + i))
				count_one(load->corrupt);
		count_one(w->rounds);
	} while (!read_once(load->stop));
	return NULL;
}

static void load_stop(struct load *load)
{
	unsigned int i;

	write_once(load->stop, true);
	for (i = 0; i < NR_WORKERS; i++) {
		if (load->workers[i].running)
			pthread_join(load->workers[i].thread, NULL);
		load->workers[i].running = false;
	}
}

/* Start, and wait until each worker has been once around. */
static bool load_start(struct load *load)
{
	long long deadline = now_us() + 20 * USEC_PER_SEC;
	unsigned int i;

	load->stop = false;
	for (i = 0; i < NR_WORKERS; i++) {
		struct worker *w = &load->workers[i];

		w->rounds = 0;
		if (pthread_create(&w->thread, NULL, worker_run, w)) {
			load_stop(load);
			return because("cannot start a thread");
		}
		w->running = true;
	}
	for (i = 0; i < NR_WORKERS; i++)
		while (!read_once(load->workers[i].rounds)) {
			if (now_us() > deadline) {
				load_stop(load);
				return because("the load does not get going");
			}
			usleep(1000);
		}
	return true;
}

static bool load_create(struct load *load, enum method method)
{
	size_t per_worker;
	unsigned int i, j;

	load->io_bytes = load->odd ? load->segs / 3 * 4 * KB : load->segs * psize();
	per_worker = NR_SLOTS * load->io_bytes;
	/*
	 * null_blk copies data when it starts a request. With a scheduler and
	 * a shallow queue, that is long after the pages were pinned.
	 */
	load->target.conf.completion_us = 1000;
	load->target.conf.scheduler = true;
	load->target.conf.depth = 4;
	if (!outside_prepare(&load->target, per_worker, &load->outside,
			     half_of_pages(load) * psize()))
		return false;
	for (i = 0; i < NR_WORKERS; i++) {
		struct worker *w = &load->workers[i];

		w->load = load;
		w->id = i;
		w->engine.method = method;
		if (!engine_open(&w->engine))
			return false;
		for (j = 0; j < NR_SLOTS; j++)
			w->ios[j] = (struct io){
				.fd = load->target.fd[i],
				.offset = target_offset(&load->target, i, per_worker) +
					  j * load->io_bytes,
				.iov = load->iov[i * NR_SLOTS + j],
				.nr = load->segs,
				.bytes = load->io_bytes,
			};
	}
	return true;
}

static void load_destroy(struct load *load)
{
	unsigned int i;

	for (i = 0; i < NR_WORKERS; i++)
		engine_close(&load->workers[i].engine);
	target_close(&load->target);
}

struct result {
	unsigned int tried;
	unsigned int succeeded;
	unsigned int resident;		/* %, of the worst try */
	unsigned long rounds;
	long long longest_us;
};

static bool try_once(struct load *load, struct pool *pool, struct result *res)
{
	unsigned int resident = load_place(load, pool);
	long long start, us;
	unsigned int i;

	if (!load_start(load))
		return false;
	start = now_us();
	res->succeeded += !area_alloc();
	us = now_us() - start;
	load_stop(load);
	area_free();

	res->tried++;
	res->resident = min_size(res->resident, resident);
	res->longest_us = max_size(res->longest_us, us);
	for (i = 0; i < NR_WORKERS; i++)
		res->rounds += load->workers[i].rounds;
	return true;
}

static unsigned int nr_tries(void)
{
	const char *env = getenv("CMA_GUP_DIO_TRIES");
	int tries = env ? atoi(env) : 0;

	return tries > 0 ? tries : 2;
}

static bool run_tries(struct load *load, struct result *res)
{
	struct pool pool;
	bool ok = true;

	*res = (struct result){ .resident = 100 };
	if (!pool_prepare(&pool, POOL_ANON,
			  max_size(half_of_pages(load) * psize(), area_bytes() / 8)))
		return false;
	while (ok && res->tried < nr_tries()) {
		ok = pool_fill(&pool);
		/* What btrfs keeps of its metadata in the area does not move. */
		if (!ok && res->tried && load->target.fs == FS_BTRFS)
			return true;
		ok = ok && try_once(load, &pool, res);
		pool_unmap(&pool);
	}
	return ok;
}

/* What every test looks at before and after. */
struct counters {
	long pins;
	unsigned long waits;
	unsigned long timeouts;
};

static void counters_read(struct counters *c)
{
	c->pins = pins_held();
	c->waits = vm_counter("pin_gate_wait");
	c->timeouts = vm_counter("pin_gate_timeout");
}

static bool test_prepare(void)
{
	int err;

	if (area.budget < 0)
		return because(NO_BUDGET);
	/* A test that gets skipped while it is set up is not torn down. */
	system_restore();
	err = put_num(budget_file(), AMPLE_MS);
	if (err)
		return because("cannot set the budget: %s", strerror(-err));
	return true;
}

static void expect_no_self_wait(struct __test_metadata *_metadata, const struct counters *before)
{
	EXPECT_EQ(vm_counter("pin_gate_timeout"), before->timeouts)
		TH_LOG("somebody waited for the full bound");
	EXPECT_TRUE(pins_back_to(before->pins))
		TH_LOG("%ld pins more than before", pins_held() - before->pins);
}

FIXTURE(load)
{
	struct counters before;
	struct load *load;
};

FIXTURE_VARIANT(load)
{
	enum fs_kind fs;
	enum method method;
	unsigned int segs;	/* 0: MAX_SEGS */
	int flags;
	bool odd;
	bool tail;
};

FIXTURE_VARIANT_ADD(load, bdev_sync) { .method = SYNC };
FIXTURE_VARIANT_ADD(load, bdev_aio) { .method = AIO };
FIXTURE_VARIANT_ADD(load, bdev_aio_one_bio) { .method = AIO, .segs = 256 };
FIXTURE_VARIANT_ADD(load, bdev_aio_odd_vectors) { .method = AIO, .segs = 1023, .odd = true };
FIXTURE_VARIANT_ADD(load, bdev_uring) { .method = URING };
FIXTURE_VARIANT_ADD(load, bdev_uring_sqpoll) { .method = URING_SQPOLL };
FIXTURE_VARIANT_ADD(load, bdev_uring_iopoll) { .method = URING_IOPOLL, .segs = 128 };
FIXTURE_VARIANT_ADD(load, ext4_sync) { .fs = FS_EXT4, .method = SYNC };
FIXTURE_VARIANT_ADD(load, ext4_sync_dsync) { .fs = FS_EXT4, .method = SYNC, .flags = O_DSYNC };
FIXTURE_VARIANT_ADD(load, ext4_sync_tail) { .fs = FS_EXT4, .method = SYNC, .tail = true };
FIXTURE_VARIANT_ADD(load, ext4_aio) { .fs = FS_EXT4, .method = AIO };
FIXTURE_VARIANT_ADD(load, ext4_uring_sqpoll) { .fs = FS_EXT4, .method = URING_SQPOLL };
FIXTURE_VARIANT_ADD(load, xfs_sync_tail) { .fs = FS_XFS, .method = SYNC, .tail = true };
FIXTURE_VARIANT_ADD(load, xfs_aio) { .fs = FS_XFS, .method = AIO };
FIXTURE_VARIANT_ADD(load, xfs_uring) { .fs = FS_XFS, .method = URING };
FIXTURE_VARIANT_ADD(load, xfs_uring_iopoll) { .fs = FS_XFS, .method = URING_IOPOLL, .segs = 128 };
FIXTURE_VARIANT_ADD(load, vfat_sync) { .fs = FS_VFAT, .method = SYNC };
FIXTURE_VARIANT_ADD(load, vfat_aio) { .fs = FS_VFAT, .method = AIO };
FIXTURE_VARIANT_ADD(load, btrfs_sync) { .fs = FS_BTRFS, .method = SYNC };
FIXTURE_VARIANT_ADD(load, btrfs_aio) { .fs = FS_BTRFS, .method = AIO };

FIXTURE_SETUP(load)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->load = calloc(1, sizeof(*self->load));
	ASSERT_NE(self->load, NULL);
	self->load->segs = variant->segs ?: MAX_SEGS;
	self->load->odd = variant->odd;
	self->load->tail = variant->tail;
	self->load->target.fs = variant->fs;
	self->load->target.flags = variant->flags;
	self->load->target.conf.poll_queues = variant->method == URING_IOPOLL;
	self->load->target.conf.blocksize = variant->odd ? 4096 : 0;
	if (!load_create(self->load, variant->method))
		SKIP(return, "%s", reason);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(load)
{
	system_restore();
}

TEST_F_TIMEOUT(load, whole_area, 120)
{
	struct load *load = self->load;
	struct result res;

	ASSERT_TRUE(run_tries(load, &res))
		TH_LOG("%s", reason);
	ksft_print_msg("%u of %u allocations, max %lld ms, %lu rounds, %lu waits, %u %% in area\n",
		       res.succeeded, res.tried, res.longest_us / USEC_PER_MSEC, res.rounds,
		       vm_counter("pin_gate_wait") - self->before.waits, res.resident);
	EXPECT_EQ(load->errors, 0)
		TH_LOG("short or failed I/O, first result %ld", load->first_error);
	EXPECT_EQ(load->corrupt, 0);
	expect_no_self_wait(_metadata, &self->before);
	load_destroy(load);
	/* Pins of btrfs do not wait. */
	if (variant->fs != FS_BTRFS && res.resident >= MIN_RESIDENT)
		EXPECT_EQ(res.succeeded, res.tried);
}

/*
 * A page in the area, and an allocation that cannot have it for some time
 */

struct hold {
	struct pool pool;
	char *page;
	int probe_fd;
	struct slow_pins slow;
	pthread_t allocator;
	bool allocating;
	bool alloc_done;
	int alloc_err;
};

static bool hold_page(struct hold *h)
{
	struct pool *pool = &h->pool;
	unsigned int tries;

	/* Free pages on the lists of the CPUs are used first. */
	for (tries = 0; tries < 3; tries++) {
		if (!pool_fill(pool))
			return false;
		h->page = resident_page(pool, 0);
		if (h->page)
			return true;
		pool_unmap(pool);
	}
	return false;
}

static bool hold_create(struct hold *h, unsigned int hold_ms)
{
	struct nullb_conf probe = { .bytes = MB, .completion_us = 10, .depth = 4 };

	h->probe_fd = nullb_create(PROBE_DEV, &probe);
	if (h->probe_fd < 0)
		return false;
	return slow_pins_create(&h->slow, hold_ms, 1) &&
	       pool_prepare(&h->pool, POOL_ANON, 16 * MB) && hold_page(h);
}

static void *allocator_run(void *arg)
{
	struct hold *h = arg;

	h->alloc_err = area_alloc();
	write_once(h->alloc_done, true);
	return NULL;
}

/* Allocate the area by another thread, and wait until the page is gated. */
static bool hold_allocate(struct hold *h)
{
	long long deadline = now_us() + GATE_MS * USEC_PER_MSEC;

	h->alloc_done = false;
	if (pthread_create(&h->allocator, NULL, allocator_run, h))
		return because("cannot start a thread");
	h->allocating = true;
	while (now_us() < deadline && !read_once(h->alloc_done)) {
		if (gate_is_closed(h->probe_fd, h->page))
			return true;
		usleep(5000);
	}
	return because("no gate was closed; the allocation has %sended",
		       read_once(h->alloc_done) ? "" : "not ");
}

/* Returns the result of the allocation. */
static int hold_finish(struct hold *h)
{
	if (h->allocating)
		pthread_join(h->allocator, NULL);
	h->allocating = false;
	slow_pins_finish(&h->slow);
	area_free();
	pool_unmap(&h->pool);
	return h->alloc_err;
}

/*
 * Self-wait: an I/O that is stopped half way, with a pin in the area, by a page
 * that userfaultfd does not provide; then it goes on to another part of the
 * page that it has pinned already, but which is gated now.
 */

struct stopped {
	struct hold hold;
	struct target target;
	struct engine engine;
	struct io io;
	struct iovec iov[MAX_SEGS];
	char *outside;		/* a page for each segment */
	char *missing;		/* the page that is not there */
	int uffd;
	pthread_t thread;
	long long done_us;
};

static bool missing_create(struct stopped *s)
{
	struct uffdio_api api = { .api = UFFD_API };

	s->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (s->uffd < 0 || ioctl(s->uffd, UFFDIO_API, &api))
		return because("userfaultfd: %s", strerror(errno));
	s->missing = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->missing == MAP_FAILED)
		return because("out of memory");
	return true;
}

/* From now on the page is not there. */
static bool missing_start(struct stopped *s)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)s->missing, .len = psize() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	madvise(s->missing, psize(), MADV_DONTNEED);
	if (ioctl(s->uffd, UFFDIO_REGISTER, &reg))
		return because("UFFDIO_REGISTER: %s", strerror(errno));
	return true;
}

static bool missing_wait(struct stopped *s)
{
	struct pollfd pollfd = { .fd = s->uffd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&pollfd, 1, GATE_MS) != 1 || read(s->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return because("the I/O does not get to the missing page");
	return true;
}

static void missing_provide(struct stopped *s, const char *from)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)s->missing,
		.src = (uintptr_t)from,
		.len = psize(),
	};

	struct uffdio_range range = { .start = copy.dst, .len = copy.len };

	ioctl(s->uffd, UFFDIO_COPY, &copy);
	ioctl(s->uffd, UFFDIO_UNREGISTER, &range);
}

static void *stopped_run(void *arg)
{
	struct stopped *s = arg;

	engine_run(&s->engine, &s->io, 1);
	s->done_us = now_us();
	return NULL;
}

/* Half a page in the area, the missing page, the other half; else outside. */
static void stopped_vector(struct stopped *s, unsigned int at)
{
	size_t half = psize() / 2;
	unsigned int i;

	for (i = 0; i < s->io.nr; i++)
		s->iov[i] = (struct iovec){ s->outside + i * psize(), psize() };
	s->iov[at] = (struct iovec){ s->hold.page, half };
	s->iov[at + 1] = (struct iovec){ s->missing, psize() };
	s->iov[at + 2] = (struct iovec){ s->hold.page + half, half };
}

static bool stopped_create(struct stopped *s, unsigned int segs)
{
	s->target.conf.completion_us = 100;
	s->target.conf.depth = 64;
	s->io.iov = s->iov;
	s->io.nr = segs;
	s->io.bytes = (segs - 1) * psize();
	if (!outside_prepare(&s->target, s->io.bytes, &s->outside, (segs + 1) * psize()) ||
	    !engine_open(&s->engine))
		return false;
	s->io.fd = s->target.fd[0];
	return missing_create(s) && hold_create(&s->hold, 1);
}

struct stop_result {
	int alloc_err;
	long long stopped_us;	/* from the start until it goes on */
	long long us;		/* and from there to the end */
};

/* One I/O, stopped at the missing page until the gate is closed. */
static bool stopped_io(struct stopped *s, unsigned int at, bool write, struct stop_result *res)
{
	struct iovec source = { s->outside + s->io.nr * psize(), psize() };
	long long began, start;
	bool ok;

	s->io.write = write;
	stopped_vector(s, at);
	if (write)
		io_fill(&s->io, 1);
	else
		io_scrub(&s->io);
	seg_fill(&source, pattern(1, at + 1));
	if (!missing_start(s))
		return false;

	began = now_us();
	if (pthread_create(&s->thread, NULL, stopped_run, s))
		return because("cannot start a thread");
	ok = missing_wait(s) && hold_allocate(&s->hold);
	start = now_us();
	res->stopped_us = start - began;
	missing_provide(s, source.iov_base);
	pthread_join(s->thread, NULL);
	res->us = s->done_us - start;
	if (!write && !io_matches(&s->io, 1))
		s->io.res = -EILSEQ;
	res->alloc_err = hold_finish(&s->hold);
	return ok;
}

FIXTURE(self_wait)
{
	struct counters before;
	struct stopped *s;
};

FIXTURE_VARIANT(self_wait)
{
	enum fs_kind fs;
	enum method method;
	unsigned int segs;
	unsigned int at;	/* which segment is in the area */
};

FIXTURE_VARIANT_ADD(self_wait, bdev_sync) { .method = SYNC, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_sync_large) { .method = SYNC, .segs = 600, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_sync_second_bio) { .method = SYNC, .segs = 600, .at = 300 };
FIXTURE_VARIANT_ADD(self_wait, bdev_aio) { .method = AIO, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_uring) { .method = URING, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_uring_sqpoll) { .method = URING_SQPOLL, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_uring_iopoll) { .method = URING_IOPOLL, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, ext4_sync)
{
	.fs = FS_EXT4, .method = SYNC, .segs = 8, .at = 1,
};

FIXTURE_VARIANT_ADD(self_wait, ext4_aio_second_bio)
{
	.fs = FS_EXT4, .method = AIO, .segs = 600, .at = 300,
};

FIXTURE_VARIANT_ADD(self_wait, xfs_aio)
{
	.fs = FS_XFS, .method = AIO, .segs = 8, .at = 1,
};

FIXTURE_VARIANT_ADD(self_wait, xfs_uring)
{
	.fs = FS_XFS, .method = URING, .segs = 8, .at = 1,
};

FIXTURE_VARIANT_ADD(self_wait, vfat_sync)
{
	.fs = FS_VFAT, .method = SYNC, .segs = 8, .at = 1,
};

FIXTURE_VARIANT_ADD(self_wait, vfat_aio_large)
{
	.fs = FS_VFAT, .method = AIO, .segs = 600, .at = 300,
};

/* With integrity metadata, if scsi_debug has dif=1 dix=1 */
FIXTURE_VARIANT_ADD(self_wait, scsi_sync)
{
	.fs = FS_SCSI, .method = SYNC, .segs = 8, .at = 1,
};

FIXTURE_SETUP(self_wait)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->s = calloc(1, sizeof(*self->s));
	ASSERT_NE(self->s, NULL);
	self->s->target.fs = variant->fs;
	self->s->target.conf.poll_queues = variant->method == URING_IOPOLL;
	self->s->engine.method = variant->method;
	/* A worker may wait; the first attempt never does. */
	self->s->engine.from_worker = true;
	if (!stopped_create(self->s, variant->segs))
		SKIP(return, "%s", reason);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(self_wait)
{
	system_restore();
}

TEST_F(self_wait, write_and_read)
{
	struct stopped *s = self->s;
	struct stop_result res = { };
	int write;

	for (write = 1; write >= 0; write--) {
		unsigned long waits = vm_counter("pin_gate_wait");

		ASSERT_TRUE(s->hold.pool.addr || hold_page(&s->hold))
			TH_LOG("%s", reason);
		ASSERT_TRUE(stopped_io(s, variant->at, write, &res))
			TH_LOG("%s", reason);
		ksft_print_msg("%s: stopped for %lld ms, then %lld ms with the gate closed\n",
			       write ? "write" : "read", res.stopped_us / USEC_PER_MSEC,
			       res.us / USEC_PER_MSEC);
		EXPECT_EQ(s->io.res, (long)s->io.bytes);
		EXPECT_EQ(res.alloc_err, 0);
		/* A slow kernel can need all the time that there is to close the gate. */
		if (res.stopped_us < (BOUND_MS - 200) * USEC_PER_MSEC)
			EXPECT_GT(vm_counter("pin_gate_wait"), waits);
	}
	expect_no_self_wait(_metadata, &self->before);
	engine_close(&s->engine);
	target_close(&s->target);
}

/*
 * I/O that must not sleep, while a slow I/O keeps the gate closed
 */

struct gated {
	struct hold hold;
	struct target target;
	struct io io;
	struct iovec iov[MAX_SEGS];
	char *outside;
};

/* The page in the area is the last one. */
static bool gated_create(struct gated *g, unsigned int segs, unsigned int hold_ms)
{
	unsigned int i;

	g->target.conf.completion_us = 100;
	g->target.conf.depth = 64;
	g->io.iov = g->iov;
	g->io.nr = segs;
	g->io.bytes = segs * psize();
	if (!outside_prepare(&g->target, g->io.bytes, &g->outside, segs * psize()) ||
	    !hold_create(&g->hold, hold_ms))
		return false;
	g->io.fd = g->target.fd[0];
	for (i = 0; i < segs; i++)
		g->iov[i] = (struct iovec){ g->outside + i * psize(), psize() };
	return true;
}

static bool gated_start(struct gated *g)
{
	g->iov[g->io.nr - 1].iov_base = g->hold.page;
	return slow_pin(&g->hold.slow, g->hold.page) && hold_allocate(&g->hold);
}

static void gated_io(struct gated *g, bool write, int rw_flags)
{
	g->io.write = write;
	g->io.rw_flags = rw_flags;
	sync_run(&g->io);
}

/* Read the file without the page in the area: is it as it was written? */
static bool gated_file_matches(struct gated *g, __u64 seed)
{
	struct io io = g->io;

	io.write = false;
	io.rw_flags = 0;
	io.nr--;
	sync_run(&io);
	return io.res == (long)(io.bytes - psize()) && io_matches(&io, seed);
}

FIXTURE(nowait)
{
	struct counters before;
	struct gated *g;
};

FIXTURE_VARIANT(nowait)
{
	enum fs_kind fs;
	unsigned int segs;
	bool read, write;	/* always possible with the gate open */
};

FIXTURE_VARIANT_ADD(nowait, bdev) { .segs = 8, .read = true, .write = true };
FIXTURE_VARIANT_ADD(nowait, bdev_large) { .segs = 600 };
FIXTURE_VARIANT_ADD(nowait, ext4) { .fs = FS_EXT4, .segs = 8, .read = true };
FIXTURE_VARIANT_ADD(nowait, ext4_large) { .fs = FS_EXT4, .segs = 600, .read = true };
FIXTURE_VARIANT_ADD(nowait, xfs) { .fs = FS_XFS, .segs = 8, .read = true, .write = true };
FIXTURE_VARIANT_ADD(nowait, xfs_large)
{
	.fs = FS_XFS, .segs = 600, .read = true, .write = true,
};

FIXTURE_SETUP(nowait)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->g = calloc(1, sizeof(*self->g));
	ASSERT_NE(self->g, NULL);
	self->g->target.fs = variant->fs;
	if (!gated_create(self->g, variant->segs, HOLD_MS))
		SKIP(return, "%s", reason);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(nowait)
{
	system_restore();
}

/*
 * The page in the area is the last one. If it is in the first bio, nothing has
 * been submitted when it turns out to be gated: so nothing is done. Later, it is
 * too late for that, and all has to be done.
 */
static bool all_or_nothing(const struct io *io, long res)
{
	bool later = io->nr > 256;	/* BIO_MAX_VECS */

	return res == -EAGAIN || (later && res == (long)io->bytes);
}

/* By system calls. */
TEST_F(nowait, syscall)
{
	struct gated *g = self->g;
	long long start, us;
	bool early;
	long res[2];

	/* What is in the file, and what must not get there. */
	io_fill(&g->io, 1);
	gated_io(g, true, 0);
	ASSERT_EQ(g->io.res, (long)g->io.bytes);
	gated_io(g, false, RWF_NOWAIT);
	if (variant->read)
		EXPECT_EQ(g->io.res, (long)g->io.bytes);
	gated_io(g, true, RWF_NOWAIT);
	if (variant->write)
		EXPECT_EQ(g->io.res, (long)g->io.bytes);
	ASSERT_TRUE(gated_start(g))
		TH_LOG("%s", reason);

	start = now_us();
	gated_io(g, false, RWF_NOWAIT);
	res[0] = g->io.res;
	io_fill(&g->io, 2);
	gated_io(g, true, RWF_NOWAIT);
	res[1] = g->io.res;
	us = now_us() - start;
	early = read_once(g->hold.alloc_done);

	EXPECT_TRUE(gated_file_matches(g, res[1] == -EAGAIN ? 1 : 2))
		TH_LOG("a part was written");
	EXPECT_EQ(vm_counter("pin_gate_wait"), self->before.waits);
	EXPECT_EQ(hold_finish(&g->hold), 0);
	expect_no_self_wait(_metadata, &self->before);
	target_close(&g->target);
	if (early)
		SKIP(return, "the allocation has ended before the I/O");
	EXPECT_TRUE(all_or_nothing(&g->io, res[0]))
		TH_LOG("read: %ld", res[0]);
	EXPECT_TRUE(all_or_nothing(&g->io, res[1]))
		TH_LOG("write: %ld", res[1]);
	EXPECT_LT(us, PROMPT_MS * USEC_PER_MSEC);
}

/*
 * By io_uring: RWF_NOWAIT is final; without it, submission does not sleep, and
 * the I/O completes.
 */
TEST_F(nowait, uring)
{
	struct engine e = { .method = URING };
	struct gated *g = self->g;
	long long start, us;
	bool early, at_once;
	long res;

	if (!engine_open(&e))
		SKIP(return, "%s", reason);
	io_fill(&g->io, 1);
	ASSERT_TRUE(gated_start(g))
		TH_LOG("%s", reason);

	g->io.write = true;
	g->io.rw_flags = RWF_NOWAIT;
	start = now_us();
	engine_run(&e, &g->io, 1);
	res = g->io.res;
	g->io.rw_flags = 0;
	io_fill(&g->io, 3);
	uring_start(&e, &g->io);
	us = now_us() - start;
	early = read_once(g->hold.alloc_done);
	at_once = uring_has_result(&e);

	uring_finish(&e);
	EXPECT_EQ(hold_finish(&g->hold), 0);
	EXPECT_EQ(g->io.res, (long)g->io.bytes);
	EXPECT_TRUE(gated_file_matches(g, 3));
	EXPECT_TRUE(pins_back_to(self->before.pins));
	engine_close(&e);
	target_close(&g->target);
	if (early)
		SKIP(return, "the allocation has ended before the I/O");
	EXPECT_TRUE(all_or_nothing(&g->io, res))
		TH_LOG("RWF_NOWAIT: %ld", res);
	EXPECT_LT(us, PROMPT_MS * USEC_PER_MSEC);
	if (res == -EAGAIN) {
		EXPECT_FALSE(at_once);
		EXPECT_GT(vm_counter("pin_gate_wait"), self->before.waits);
	}
}

/*
 * A write that must not be split, in a page behind the gate
 */

FIXTURE(atomic)
{
	struct counters before;
	struct gated *g;
};

FIXTURE_SETUP(atomic)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->g = calloc(1, sizeof(*self->g));
	ASSERT_NE(self->g, NULL);
	self->g->target.fs = FS_SCSI;
	if (!gated_create(self->g, 1, SHORT_HOLD_MS))
		SKIP(return, "%s", reason);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(atomic)
{
	system_restore();
}

TEST_F(atomic, write)
{
	struct gated *g = self->g;
	long long start, us;

	io_fill(&g->io, 1);
	gated_io(g, true, WRITE_ATOMIC);
	if (g->io.res == -EOPNOTSUPP)
		SKIP(return, "no atomic writes; scsi_debug has them with atomic_wr=1");
	ASSERT_EQ(g->io.res, (long)g->io.bytes);
	ASSERT_TRUE(gated_start(g))
		TH_LOG("%s", reason);

	start = now_us();
	io_fill(&g->io, 2);
	gated_io(g, true, WRITE_ATOMIC);
	us = now_us() - start;
	EXPECT_EQ(g->io.res, (long)g->io.bytes);
	EXPECT_EQ(hold_finish(&g->hold), 0);
	ksft_print_msg("write: %lld ms\n", us / USEC_PER_MSEC);
	EXPECT_GT(vm_counter("pin_gate_wait"), self->before.waits);
	g->iov[0].iov_base = g->outside;
	gated_io(g, false, 0);
	EXPECT_EQ(g->io.res, (long)g->io.bytes);
	EXPECT_TRUE(io_matches(&g->io, 2));
	expect_no_self_wait(_metadata, &self->before);
	target_close(&g->target);
}

/*
 * A process that is killed at the gate, when most of its write is under way:
 * what it has not overwritten stays as it was.
 */

#define KILLED_SEGS	100
#define OLD_DATA	1
#define NEW_DATA	2

FIXTURE(killed)
{
	struct counters before;
	size_t bytes;
	char *data;
};

FIXTURE_VARIANT(killed)
{
	enum fs_kind fs;
	const char *path;
};

FIXTURE_VARIANT_ADD(killed, bdev) { .fs = FS_NONE, .path = "/dev/" LOAD_DEV };
FIXTURE_VARIANT_ADD(killed, ext4) { .fs = FS_EXT4, .path = FS_MNT "/data0" };
FIXTURE_VARIANT_ADD(killed, xfs) { .fs = FS_XFS, .path = FS_MNT "/data0" };
FIXTURE_VARIANT_ADD(killed, vfat) { .fs = FS_VFAT, .path = FS_MNT "/data0" };

FIXTURE_SETUP(killed)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->bytes = KILLED_SEGS * psize();
	self->data = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->data, MAP_FAILED);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(killed)
{
	system_restore();
}

/* Returns only if it does not come to wait: an exit status. */
static int killed_writer(enum fs_kind fs)
{
	struct gated *g = calloc(1, sizeof(*g));

	if (!g)
		return KSFT_FAIL;
	g->target.fs = fs;
	if (!gated_create(g, KILLED_SEGS, HOLD_MS)) {
		ksft_print_msg("%s\n", reason);
		return KSFT_SKIP;
	}
	io_fill(&g->io, OLD_DATA);
	gated_io(g, true, 0);
	if (!gated_start(g)) {
		ksft_print_msg("%s\n", reason);
		return KSFT_FAIL;
	}
	io_fill(&g->io, NEW_DATA);
	gated_io(g, true, 0);
	return KSFT_FAIL;
}

static bool page_has(const __u64 *p, __u64 seed, unsigned int seg)
{
	__u64 val = pattern(seed, seg);
	size_t i;

	for (i = 0; i < psize() / sizeof(*p); i++)
		if (p[i] != val + i)
			return false;
	return true;
}

TEST_F(killed, overwrite)
{
	int status, fd, nr_old = 0;
	unsigned int seg;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(killed_writer(variant->fs));
	ASSERT_GT(pid, 0);
	while (vm_counter("pin_gate_wait") == self->before.waits &&
	       !waitpid(pid, &status, WNOHANG))
		usleep(1000);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == KSFT_SKIP)
		SKIP(return, "the writer cannot be set up, see above");
	ASSERT_GT(vm_counter("pin_gate_wait"), self->before.waits);

	fd = open(variant->path, O_RDONLY | O_DIRECT);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(pread(fd, self->data, self->bytes, 0), (ssize_t)self->bytes);
	close(fd);
	for (seg = 0; seg < KILLED_SEGS; seg++) {
		const __u64 *page = (__u64 *)(self->data + seg * psize());
		bool old = page_has(page, OLD_DATA, seg);

		nr_old += old;
		EXPECT_TRUE(old || page_has(page, NEW_DATA, seg))
			TH_LOG("page %u begins with %llx", seg, page[0]);
	}
	ksft_print_msg("%d of %d pages have their old data\n", nr_old, KILLED_SEGS);
	EXPECT_TRUE(pins_back_to(self->before.pins));
}

/*
 * A page that is pinned by polled I/O, which only its submitter can complete:
 * the submitter must not sleep.
 */

FIXTURE(polled)
{
	struct counters before;
	struct target target;
	struct hold hold;
	struct engine engine;
};

FIXTURE_VARIANT(polled)
{
	enum fs_kind fs;
};

FIXTURE_VARIANT_ADD(polled, bdev) { .fs = FS_NONE };
FIXTURE_VARIANT_ADD(polled, xfs) { .fs = FS_XFS };

FIXTURE_SETUP(polled)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->target.fs = variant->fs;
	self->target.conf.completion_us = 100;
	self->target.conf.depth = 64;
	self->target.conf.poll_queues = 1;
	self->engine.method = URING_IOPOLL;
	if (!target_open(&self->target, MB) || !hold_create(&self->hold, 1) ||
	    !engine_open(&self->engine))
		SKIP(return, "%s", reason);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(polled)
{
	system_restore();
}

TEST_F(polled, submitter)
{
	struct iovec iov = { .iov_len = psize() };
	struct io ios[2], back;
	long long start, us;
	unsigned int i;

	iov.iov_base = self->hold.page;
	for (i = 0; i < 2; i++)
		ios[i] = (struct io){
			.fd = self->target.fd[0],
			.offset = i * psize(),
			.iov = &iov,
			.nr = 1,
			.bytes = psize(),
			.write = true,
		};
	io_fill(&ios[0], 1);

	/* Whoever submits also polls, but a worker is not that fast. */
	self->engine.from_worker = true;
	uring_start(&self->engine, &ios[0]);
	usleep(100000);
	ASSERT_TRUE(hold_allocate(&self->hold))
		TH_LOG("%s", reason);
	self->engine.from_worker = false;
	start = now_us();
	uring_start(&self->engine, &ios[1]);
	us = now_us() - start;
	uring_finish(&self->engine);
	uring_finish(&self->engine);
	ksft_print_msg("submission took %lld ms\n", us / USEC_PER_MSEC);

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(ios[i].res, psize());
		back = ios[i];
		back.write = false;
		io_scrub(&back);
		sync_run(&back);
		EXPECT_TRUE(back.res == psize() && io_matches(&back, 1));
	}
	EXPECT_LT(us, PROMPT_MS * USEC_PER_MSEC);
	EXPECT_EQ(hold_finish(&self->hold), 0);
	EXPECT_GT(vm_counter("pin_gate_wait"), self->before.waits);
	expect_no_self_wait(_metadata, &self->before);
	engine_close(&self->engine);
	target_close(&self->target);
}

static long long thread_cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * USEC_PER_SEC + ts.tv_nsec / 1000;
}

#ifdef LOCAL_CONFIG_HAVE_LIBURING

/*
 * Registered buffers are FOLL_LONGTERM pins, which first move the pages out of
 * the area. While a gate is closed, that has to wait, and not to spin.
 */
FIXTURE(registered)
{
	struct counters before;
	struct target target;
	struct hold hold;
	struct engine engine;
};

FIXTURE_SETUP(registered)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->target.conf.completion_us = 100;
	self->target.conf.depth = 64;
	self->engine.method = URING;
	if (!target_open(&self->target, MB) || !engine_open(&self->engine) ||
	    !hold_create(&self->hold, SHORT_HOLD_MS))
		SKIP(return, "%s", reason);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(registered)
{
	system_restore();
}

static long fixed_io(struct engine *e, int fd, const struct iovec *iov, bool write)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&e->ring);
	struct io io;

	if (write)
		io_uring_prep_write_fixed(sqe, fd, iov->iov_base, iov->iov_len, 0, 0);
	else
		io_uring_prep_read_fixed(sqe, fd, iov->iov_base, iov->iov_len, 0, 0);
	io_uring_sqe_set_data(sqe, &io);
	if (io_uring_submit(&e->ring) != 1)
		return -EIO;
	uring_finish(e);
	return io.res;
}

TEST_F(registered, register)
{
	struct hold *h = &self->hold;
	struct iovec iov = { .iov_len = 256 * KB };
	struct io io = { .iov = &iov, .nr = 1 };
	long long start, cpu;
	int ret;

	/* A part of the pool with the page that is held in it. */
	iov.iov_base = h->pool.addr + (h->page - h->pool.addr) / iov.iov_len * iov.iov_len;
	ASSERT_TRUE(slow_pin(&h->slow, h->page) && hold_allocate(h))
		TH_LOG("%s", reason);
	start = now_us();
	cpu = thread_cpu_us();
	ret = io_uring_register_buffers(&self->engine.ring, &iov, 1);
	start = now_us() - start;
	cpu = thread_cpu_us() - cpu;
	ksft_print_msg("registration took %lld ms, %lld ms of CPU time\n",
		       start / USEC_PER_MSEC, cpu / USEC_PER_MSEC);

	EXPECT_EQ(ret, 0);
	EXPECT_EQ(resident_pages(&h->pool, iov.iov_base, iov.iov_len), 0);
	/* It has waited most of the time. */
	EXPECT_LT(2 * cpu, SHORT_HOLD_MS * USEC_PER_MSEC);
	EXPECT_GT(vm_counter("pin_gate_wait"), self->before.waits);
	io_fill(&io, 1);
	EXPECT_EQ(fixed_io(&self->engine, self->target.dev_fd, &iov, true), (long)iov.iov_len);
	io_scrub(&io);
	io.res = fixed_io(&self->engine, self->target.dev_fd, &iov, false);
	EXPECT_EQ(io.res, (long)iov.iov_len);
	EXPECT_TRUE(io_matches(&io, 1));
	EXPECT_EQ(io_uring_unregister_buffers(&self->engine.ring), 0);
	EXPECT_EQ(hold_finish(h), 0);
	expect_no_self_wait(_metadata, &self->before);
	engine_close(&self->engine);
	target_close(&self->target);
}

#endif /* LOCAL_CONFIG_HAVE_LIBURING */

/*
 * btrfs pins with extents locked, so it asks for no page faults (FOLL_NOFAULT),
 * and has no way to learn that it would have to wait: it must not, and must not
 * try for ever either.
 */
FIXTURE(nofault)
{
	struct counters before;
	struct gated *g;
};

FIXTURE_SETUP(nofault)
{
	if (!test_prepare())
		SKIP(return, "%s", reason);
	self->g = calloc(1, sizeof(*self->g));
	ASSERT_NE(self->g, NULL);
	self->g->target.fs = FS_BTRFS;
	if (!gated_create(self->g, 64, HOLD_MS))
		SKIP(return, "%s", reason);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(nofault)
{
	system_restore();
}

TEST_F(nofault, btrfs)
{
	const unsigned int rounds = 5;
	struct gated *g = self->g;
	long long start, us, cpu, longest = 0;
	unsigned int i;
	bool early;
	int err;

	ASSERT_TRUE(gated_start(g))
		TH_LOG("%s", reason);
	cpu = thread_cpu_us();
	for (i = 0; i < 2 * rounds; i++) {
		if (i % 2)
			io_scrub(&g->io);
		else
			io_fill(&g->io, i / 2);
		start = now_us();
		gated_io(g, i % 2 == 0, 0);
		us = now_us() - start;
		longest = max_size(longest, us);
		EXPECT_EQ(g->io.res, (long)g->io.bytes);
		if (i % 2)
			EXPECT_TRUE(io_matches(&g->io, i / 2));
	}
	cpu = thread_cpu_us() - cpu;
	early = read_once(g->hold.alloc_done);
	err = hold_finish(&g->hold);
	ksft_print_msg("%u I/Os, longest %lld ms, %lld ms of CPU time; allocation: %s\n",
		       i, longest / USEC_PER_MSEC, cpu / USEC_PER_MSEC, strerror(-err));
	if (early)
		ksft_print_msg("the allocation ended before the I/O\n");

	EXPECT_LT(longest, PROMPT_MS * USEC_PER_MSEC);
	EXPECT_LT(cpu, HOLD_MS * USEC_PER_MSEC);
	expect_no_self_wait(_metadata, &self->before);
	target_close(&g->target);
}

int main(int argc, char **argv)
{
	if (!system_prepare(system_restore) ||
	    !ballast_leave_at_most(pool_may_leave(area_bytes() / 8)))
		ksft_exit_skip("%s\n", reason);
	return test_harness_run(argc, argv);
}
