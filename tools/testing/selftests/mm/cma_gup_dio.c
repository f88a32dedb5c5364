// SPDX-License-Identifier: GPL-2.0
/*
 * Direct I/O through file systems while CMA allocates what it pins.
 *
 * If a page has to wait because its pin gate is closed, the I/O waits up front:
 * before it has a pin or a lock, and for all of its memory. After that it pins
 * without waiting. It must not wait with pins in hand that nobody else can
 * release: the allocation may be waiting for these. If it does, only the bound
 * of the wait ends that, which pin_gate_timeout in /proc/vmstat counts, so no
 * test here may see one.
 *
 * There are two kinds of tests: threads that do large I/O while the whole area
 * is allocated, and compare what they have read; and single I/Os that are
 * brought into the state in question on purpose, with userfaultfd to stop them
 * half way, or to keep a gate closed.
 *
 * The device is null_blk, which completes after a chosen time.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
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
#include <sys/wait.h>
#include <unistd.h>
#include "cma_env.h"
#include "cma_io.h"
#include "vm_util.h"

#define TARGET_DEV	NULLB_PREFIX "target"
#define PROBE_DEV	NULLB_PREFIX "probe"

/* RWF_ATOMIC, which older C libraries do not have */
#define WRITE_ATOMIC	0x40

#define NR_WORKERS	2
#define NR_SLOTS	2	/* I/Os in flight, per worker */
#define HOT_SLOTS	8	/* the same, with hot buffers: one worker */
#define HOT_SEGS	4	/* of 1 MB each, the first one not in the area */
#define TAIL		1000	/* bytes that a file lacks to whole blocks */

#define GATE_MS		5000	/* a gate has to be closed after that, or met */

#define OLD_DATA	0	/* what a file has in the beginning */
#define NEW_DATA	1

/*
 * Data: a number for each 8 bytes of an I/O, whatever its vector is
 */

static __u64 number(__u64 seed, size_t offset)
{
	return (seed + 1) * 0x9e3779b97f4a7c15ULL + offset / sizeof(__u64);
}

static void fill(void *mem, size_t len, __u64 seed, size_t offset)
{
	__u64 *p = mem, val = number(seed, offset);
	size_t i;

	for (i = 0; i < len / sizeof(*p); i++)
		p[i] = val + i;
}

static bool matches(const void *mem, size_t len, __u64 seed, size_t offset)
{
	__u64 val = number(seed, offset);
	const __u64 *p = mem;
	size_t i;

	for (i = 0; i < len / sizeof(*p); i++)
		if (p[i] != val + i)
			return false;
	return true;
}

/*
 * Files to do I/O on
 */

enum fs_kind {
	FS_NONE,		/* the block device itself */
	FS_SCSI,		/* a disk of scsi_debug, for what null_blk has not */
	FS_EXT4,
	FS_XFS,
	FS_BTRFS,
	FS_F2FS,
	FS_GFS2,
	FS_VFAT,		/* by fs/direct-io.c */
};

static const struct {
	const char *type;
	const char *mkfs;
	const char *options;
	size_t bytes;
	const char *needs;	/* packages as in Debian */
} file_systems[] = {
	[FS_NONE] = { .bytes = 64 * MB, .needs = "null_blk and io_uring" },
	[FS_SCSI] = { .needs = "a disk of scsi_debug" },
	[FS_EXT4] = {
		"ext4", "mkfs.ext4 -q", "noatime", 64 * MB, "CONFIG_EXT4_FS and e2fsprogs",
	},
	/* Without lazytime, a non-blocking write cannot update the times. */
	[FS_XFS] = {
		"xfs", "mkfs.xfs -q -f", "noatime,lazytime", 320 * MB,
		"CONFIG_XFS_FS and xfsprogs",
	},
	/* To checksum what it writes, btrfs would copy it first. */
	[FS_BTRFS] = {
		"btrfs", "mkfs.btrfs -q -f", "noatime,nodatasum", 128 * MB,
		"CONFIG_BTRFS_FS and btrfs-progs",
	},
	[FS_F2FS] = {
		"f2fs", "mkfs.f2fs -q -f", "noatime", 128 * MB, "CONFIG_F2FS_FS and f2fs-tools",
	},
	[FS_GFS2] = {
		"gfs2", "mkfs.gfs2 -q -O -p lock_nolock -j 1 -J 8", "noatime", 128 * MB,
		"CONFIG_GFS2_FS and gfs2-utils",
	},
	/* With clusters of several pages, so that some are mapped already. */
	[FS_VFAT] = {
		"vfat", "mkfs.vfat -s 64", "noatime", 64 * MB, "CONFIG_VFAT_FS and dosfstools",
	},
};

/* Why it cannot be done was printed before. */
#define NEEDS	"cannot be set up, see above; needs %s"

struct target {
	enum fs_kind fs;
	size_t extent;		/* if not 0: files are in extents of that size */
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
		return cannot("map memory: %s", strerror(errno));
	for (done = 0; done < bytes; done += step) {
		fill(buf, step, OLD_DATA, done);
		ret = pwrite(fd, buf, step, done);
		if (ret != (ssize_t)step)
			break;
	}
	munmap(buf, step);
	/* Metadata is written now, and not while there is a test. */
	if (done < bytes || fsync(fd) || syncfs(fd))
		return cannot("write a file: %s", strerror(errno));
	return true;
}

/* The same in extents: every second part of a larger file is taken out. */
static bool file_fill_extents(int fd, size_t bytes, size_t extent)
{
	size_t at;

	if (!file_fill(fd, 2 * bytes))
		return false;
	for (at = extent; at < bytes; at += extent)
		if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, at, extent))
			return cannot("take out a part of a file: %s", strerror(errno));
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
	/* The rest is for env_restore(). */
}

static int scsi_open(void)
{
	glob_t found;
	char path[64];
	int fd = -1;

	if (glob("/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/sd*",
		 0, NULL, &found)) {
		cannot("find a disk of scsi_debug");
		return -1;
	}
	snprintf(path, sizeof(path), "/dev/%s", strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0)
		cannot("open %s: %s", path, strerror(errno));
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
	t->dev_fd = t->fs == FS_SCSI ? scsi_open() : nullb_create(TARGET_DEV, &t->conf);
	if (t->dev_fd < 0)
		return false;
	if (t->fs == FS_NONE || t->fs == FS_SCSI) {
		for (i = 0; i < NR_WORKERS; i++)
			t->fd[i] = t->dev_fd;
		return file_fill(t->dev_fd, NR_WORKERS * file_bytes);
	}

	close(t->dev_fd);
	t->dev_fd = -1;
	if (!fs_create(TARGET_DEV, file_systems[t->fs].type, file_systems[t->fs].mkfs,
		       file_systems[t->fs].options))
		return false;
	for (i = 0; i < NR_WORKERS; i++) {
		snprintf(path, sizeof(path), FS_MNT "/data%u", i);
		t->fd[i] = open(path, O_CREAT | O_RDWR | O_DIRECT, 0600);
		if (t->fd[i] < 0)
			return cannot("open %s for direct I/O: %s", path, strerror(errno));
		if (t->extent ? !file_fill_extents(t->fd[i], file_bytes, t->extent) :
				!file_fill(t->fd[i], file_bytes))
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
 * I/Os
 */

static void io_fill(const struct io *io, __u64 seed)
{
	size_t offset = 0;
	unsigned int seg;

	for (seg = 0; seg < io->nr; seg++) {
		fill(io->iov[seg].iov_base, io->iov[seg].iov_len, seed, offset);
		offset += io->iov[seg].iov_len;
	}
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
	long offset = 0, len;
	unsigned int seg;

	for (seg = 0; seg < io->nr && offset < io->res; seg++) {
		len = min_size(io->iov[seg].iov_len, io->res - offset);
		if (!matches(io->iov[seg].iov_base, len, seed, offset))
			return false;
		offset += len;
	}
	return true;
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
			ok = cannot("populate %zu MB outside of the area", bytes / MB);
	}
	area_free();
	return ok;
}

/*
 * The verifier: each worker writes, scrubs, reads and compares, again and again. Or,
 * with hot buffers, it reads into each of them again as soon as it is full: there
 * is always a pin on most of them.
 */

struct worker {
	struct verifier *verifier;
	unsigned int id;
	struct engine engine;
	struct io ios[HOT_SLOTS];
	pthread_t thread;
	bool running;
	unsigned long rounds;
};

struct verifier {
	struct target target;
	unsigned int nr_workers;
	unsigned int nr_slots;	/* of each worker */
	unsigned int segs;	/* of each I/O */
	size_t seg_bytes;
	bool hot;
	bool odd;		/* parts of pages that add up to a block by threes */
	bool tail;		/* the file ends within a block */
	bool two_extents;	/* for each I/O */
	size_t io_bytes;
	char *outside;
	struct iovec iov[HOT_SLOTS][IOV_MAX];
	struct worker workers[NR_WORKERS];
	bool stop;
	unsigned long errors;
	unsigned long corrupt;
	long first_error;
};

/* Pages in and outside of the area by turns; of hot buffers, all but the first MB. */
static bool seg_is_in_area(const struct verifier *v, unsigned int seg)
{
	return v->hot ? seg > 0 : seg % 2 == 0;
}

/* How many segments are in the area, or how many are outside. */
static size_t count_segs(const struct verifier *v, bool in_area)
{
	unsigned int seg, nr = 0;

	for (seg = 0; seg < v->segs; seg++)
		nr += seg_is_in_area(v, seg) == in_area;
	return nr * v->nr_workers * v->nr_slots;
}

/* Where and how long a segment is in its memory. */
static void seg_place(const struct verifier *v, struct iovec *iov, unsigned int seg, char *mem)
{
	static const unsigned int lens[] = { 512, 1536, 2048 };

	iov->iov_base = mem;
	iov->iov_len = v->seg_bytes;
	if (v->odd) {
		iov->iov_base = mem + 512;
		iov->iov_len = lens[seg % 3];
	}
}

static unsigned int verifier_place(struct verifier *v, const struct pool *pool)
{
	size_t nr = count_segs(v, true), pages = pool->bytes / psize();
	size_t in_area = 0, outside = 0, resident = 0;
	unsigned int slot, seg;
	char *mem;

	for (seg = 0; seg < v->segs; seg++)
		for (slot = 0; slot < v->nr_workers * v->nr_slots; slot++) {
			/* Neighbours in a vector are far from each other. */
			if (seg_is_in_area(v, seg)) {
				mem = pool->addr + in_area++ * pages / nr * psize();
				resident += resident_pages(pool, mem, v->seg_bytes);
			} else {
				mem = v->outside + outside++ * v->seg_bytes;
			}
			seg_place(v, &v->iov[slot][seg], seg, mem);
		}
	return resident * 100 / (nr * v->seg_bytes / psize());
}

static size_t io_expected(const struct verifier *v, const struct io *io, unsigned int slot)
{
	bool cut = v->tail && !io->write && slot == NR_SLOTS - 1;

	return io->bytes - (cut ? TAIL : 0);
}

static void worker_check(struct worker *w, const struct io *io)
{
	struct verifier *v = w->verifier;

	if (io->res != (long)io_expected(v, io, io - w->ios) && count_one(v->errors) == 1)
		v->first_error = io->res;
}

static void worker_io(struct worker *w, bool write)
{
	unsigned int i;

	for (i = 0; i < NR_SLOTS; i++)
		w->ios[i].write = write;
	engine_run(&w->engine, w->ios, NR_SLOTS);
	for (i = 0; i < NR_SLOTS; i++)
		worker_check(w, &w->ios[i]);
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	struct verifier *v = w->verifier;
	__u64 seed = (w->id + 1) << 24;
	unsigned int i;

	do {
		seed += NR_SLOTS;
		for (i = 0; i < NR_SLOTS; i++)
			io_fill(&w->ios[i], seed + i);
		worker_io(w, true);
		if (v->tail && ftruncate(w->ios[0].fd, NR_SLOTS * v->io_bytes - TAIL))
			count_one(v->errors);
		for (i = 0; i < NR_SLOTS; i++)
			io_scrub(&w->ios[i]);
		worker_io(w, false);
		for (i = 0; i < NR_SLOTS; i++)
			if (!io_matches(&w->ios[i], seed + i))
				count_one(v->corrupt);
		count_one(w->rounds);
	} while (!read_once(v->stop));
	return NULL;
}

static bool worker_start(struct worker *w, struct io *io)
{
	bool in_flight = engine_start(&w->engine, io);

	if (!in_flight)
		worker_check(w, io);
	return in_flight;
}

static void *worker_run_hot(void *arg)
{
	struct worker *w = arg;
	unsigned int i, in_flight = 0;

	for (i = 0; i < w->verifier->nr_slots; i++) {
		io_scrub(&w->ios[i]);
		in_flight += worker_start(w, &w->ios[i]);
	}
	while (in_flight) {
		struct io *io = engine_finish(&w->engine);

		worker_check(w, io);
		count_one(w->rounds);
		if (read_once(w->verifier->stop))
			in_flight--;
		else
			in_flight -= !worker_start(w, io);
	}
	for (i = 0; i < w->verifier->nr_slots; i++)
		if (!io_matches(&w->ios[i], OLD_DATA))
			count_one(w->verifier->corrupt);
	return NULL;
}

static void verifier_stop(struct verifier *v)
{
	unsigned int i;

	write_once(v->stop, true);
	for (i = 0; i < v->nr_workers; i++) {
		if (v->workers[i].running)
			pthread_join(v->workers[i].thread, NULL);
		v->workers[i].running = false;
	}
}

/* Start, and wait until each worker has been once around. */
static bool verifier_start(struct verifier *v)
{
	long long deadline = now_us() + 20 * USEC_PER_SEC;
	unsigned int i;

	v->stop = false;
	for (i = 0; i < v->nr_workers; i++) {
		struct worker *w = &v->workers[i];

		w->rounds = 0;
		if (pthread_create(&w->thread, NULL, v->hot ? worker_run_hot : worker_run, w)) {
			verifier_stop(v);
			return cannot("start a thread");
		}
		w->running = true;
	}
	for (i = 0; i < v->nr_workers; i++)
		while (!read_once(v->workers[i].rounds)) {
			if (now_us() > deadline) {
				verifier_stop(v);
				return cannot("get the workers going");
			}
			usleep(1000);
		}
	return true;
}

static bool worker_create(struct verifier *v, unsigned int id, enum method method,
			  size_t per_worker)
{
	struct worker *w = &v->workers[id];
	unsigned int i;

	w->verifier = v;
	w->id = id;
	w->engine.method = method;
	if (!engine_open(&w->engine, v->nr_slots))
		return false;
	for (i = 0; i < v->nr_slots; i++)
		w->ios[i] = (struct io){
			.fd = v->target.fd[id],
			.offset = target_offset(&v->target, id, per_worker) +
				  (v->hot ? 0 : i * v->io_bytes),
			.iov = v->iov[id * v->nr_slots + i],
			.nr = v->segs,
			.bytes = v->io_bytes,
		};
	return true;
}

static bool verifier_create(struct verifier *v, enum method method)
{
	size_t per_worker;
	unsigned int i;

	v->nr_workers = v->hot ? 1 : NR_WORKERS;
	v->nr_slots = v->hot ? HOT_SLOTS : NR_SLOTS;
	v->seg_bytes = v->hot ? MB : psize();
	v->io_bytes = v->odd ? v->segs / 3 * 4 * KB : v->segs * v->seg_bytes;
	per_worker = (v->hot ? 1 : NR_SLOTS) * v->io_bytes;
	v->target.extent = v->two_extents ? v->io_bytes / 2 : 0;
	/*
	 * null_blk copies data when it starts a request. With a scheduler and
	 * a shallow queue, that is long after the pages were pinned.
	 */
	v->target.conf.completion_us = 1000;
	v->target.conf.scheduler = !v->hot;
	v->target.conf.depth = v->hot ? 64 : 4;
	if (!outside_prepare(&v->target, per_worker, &v->outside,
			     count_segs(v, false) * v->seg_bytes))
		return false;
	for (i = 0; i < v->nr_workers; i++)
		if (!worker_create(v, i, method, per_worker))
			return false;
	return true;
}

static void verifier_destroy(struct verifier *v)
{
	unsigned int i;

	for (i = 0; i < v->nr_workers; i++)
		engine_close(&v->workers[i].engine);
	target_close(&v->target);
}

struct tries {
	unsigned int tried;
	unsigned int succeeded;
	unsigned int resident;		/* %, of the worst try */
	unsigned long rounds;
	long long longest_us;
};

static bool verifier_try(struct verifier *v, struct pool *pool, struct tries *res)
{
	unsigned int resident = verifier_place(v, pool);
	long long start;
	unsigned int i;

	if (!verifier_start(v))
		return false;
	start = now_us();
	res->succeeded += !area_alloc();
	raise_to(&res->longest_us, now_us() - start);
	verifier_stop(v);
	area_free();

	res->tried++;
	res->resident = min_size(res->resident, resident);
	for (i = 0; i < v->nr_workers; i++)
		res->rounds += v->workers[i].rounds;
	return true;
}

static unsigned int nr_tries(void)
{
	return from_env("CMA_GUP_DIO_TRIES", 2);
}

/*
 * Metadata of btrfs can be in the area. What is dirty there does not move, nor
 * do the roots, once they were written to.
 */
static bool metadata_stays(const struct verifier *v)
{
	return v->target.fs == FS_BTRFS && !v->hot;
}

static bool verifier_tries(struct verifier *v, struct tries *res)
{
	struct pool pool;
	bool ok = true;

	*res = (struct tries){ .resident = 100 };
	if (!pool_prepare(&pool, POOL_ANON,
			  max_size(count_segs(v, true) * v->seg_bytes, area_bytes() / 8)))
		return false;
	while (ok && res->tried < nr_tries()) {
		ok = pool_fill(&pool);
		if (!ok && res->tried && metadata_stays(v))
			return true;
		ok = ok && verifier_try(v, &pool, res);
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

/* False if the test is skipped. */
static bool test_prepare(struct __test_metadata *_metadata)
{
	if (area.budget < 0)
		SKIP(return false, NO_BUDGET);
	/* A test that gets skipped while it is set up is not torn down. */
	env_restore();
	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	return true;
}

static void expect_no_self_wait(struct __test_metadata *_metadata, const struct counters *before)
{
	EXPECT_EQ(vm_counter("pin_gate_timeout"), before->timeouts)
		TH_LOG("somebody waited for the full bound");
	EXPECT_TRUE(pins_back_to(before->pins))
		TH_LOG("%ld pins more than before", pins_held() - before->pins);
}

FIXTURE(verify)
{
	struct counters before;
	struct verifier *v;
};

FIXTURE_VARIANT(verify)
{
	enum fs_kind fs;
	enum method method;
	unsigned int segs;	/* 0: IOV_MAX */
	bool odd;
	bool tail;
	bool two_extents;
	bool hot;
};

FIXTURE_VARIANT_ADD(verify, bdev_sync) { .method = SYNC };
FIXTURE_VARIANT_ADD(verify, bdev_aio) { .method = AIO };
FIXTURE_VARIANT_ADD(verify, bdev_aio_odd_vectors) { .method = AIO, .segs = 1023, .odd = true };
FIXTURE_VARIANT_ADD(verify, bdev_uring) { .method = URING };
FIXTURE_VARIANT_ADD(verify, bdev_uring_sqpoll) { .method = URING_SQPOLL };
FIXTURE_VARIANT_ADD(verify, bdev_uring_iopoll) { .method = URING_IOPOLL, .segs = 128 };
FIXTURE_VARIANT_ADD(verify, ext4_sync) { .fs = FS_EXT4, .method = SYNC };
FIXTURE_VARIANT_ADD(verify, ext4_sync_tail) { .fs = FS_EXT4, .method = SYNC, .tail = true };
FIXTURE_VARIANT_ADD(verify, ext4_aio) { .fs = FS_EXT4, .method = AIO };
FIXTURE_VARIANT_ADD(verify, ext4_uring_sqpoll) { .fs = FS_EXT4, .method = URING_SQPOLL };
FIXTURE_VARIANT_ADD(verify, xfs_sync_tail) { .fs = FS_XFS, .method = SYNC, .tail = true };
FIXTURE_VARIANT_ADD(verify, xfs_aio) { .fs = FS_XFS, .method = AIO };
FIXTURE_VARIANT_ADD(verify, xfs_uring) { .fs = FS_XFS, .method = URING };
FIXTURE_VARIANT_ADD(verify, xfs_uring_iopoll) { .fs = FS_XFS, .method = URING_IOPOLL, .segs = 128 };
FIXTURE_VARIANT_ADD(verify, xfs_uring_iopoll_two_extents)
{
	.fs = FS_XFS, .method = URING_IOPOLL, .segs = 128, .two_extents = true,
};

FIXTURE_VARIANT_ADD(verify, vfat_sync) { .fs = FS_VFAT, .method = SYNC };
FIXTURE_VARIANT_ADD(verify, vfat_aio) { .fs = FS_VFAT, .method = AIO };
FIXTURE_VARIANT_ADD(verify, btrfs_sync) { .fs = FS_BTRFS, .method = SYNC };
FIXTURE_VARIANT_ADD(verify, btrfs_aio) { .fs = FS_BTRFS, .method = AIO };
FIXTURE_VARIANT_ADD(verify, f2fs_sync) { .fs = FS_F2FS, .method = SYNC };
FIXTURE_VARIANT_ADD(verify, f2fs_aio) { .fs = FS_F2FS, .method = AIO };
FIXTURE_VARIANT_ADD(verify, gfs2_sync) { .fs = FS_GFS2, .method = SYNC };
FIXTURE_VARIANT_ADD(verify, gfs2_aio) { .fs = FS_GFS2, .method = AIO };
FIXTURE_VARIANT_ADD(verify, ext4_uring_hot) { .fs = FS_EXT4, .method = URING, .hot = true };
FIXTURE_VARIANT_ADD(verify, xfs_uring_hot) { .fs = FS_XFS, .method = URING, .hot = true };
FIXTURE_VARIANT_ADD(verify, btrfs_uring_hot) { .fs = FS_BTRFS, .method = URING, .hot = true };
FIXTURE_VARIANT_ADD(verify, btrfs_aio_hot) { .fs = FS_BTRFS, .method = AIO, .hot = true };
FIXTURE_VARIANT_ADD(verify, f2fs_uring_hot) { .fs = FS_F2FS, .method = URING, .hot = true };
FIXTURE_VARIANT_ADD(verify, gfs2_aio_hot) { .fs = FS_GFS2, .method = AIO, .hot = true };

FIXTURE_SETUP(verify)
{
	static struct verifier verifier;
	struct verifier *v = &verifier;

	if (!test_prepare(_metadata))
		return;
	self->v = v;
	v->hot = variant->hot;
	v->segs = variant->segs ?: variant->hot ? HOT_SEGS : IOV_MAX;
	v->odd = variant->odd;
	v->tail = variant->tail;
	v->two_extents = variant->two_extents;
	v->target.fs = variant->fs;
	v->target.conf.poll_queues = variant->method == URING_IOPOLL;
	v->target.conf.blocksize = variant->odd ? 4096 : 0;
	if (!verifier_create(v, variant->method))
		SKIP(return, NEEDS, file_systems[variant->fs].needs);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(verify)
{
	env_restore();
}

TEST_F_TIMEOUT(verify, whole_area, 120)
{
	struct verifier *v = self->v;
	struct tries res;

	ASSERT_TRUE(verifier_tries(v, &res));
	ksft_print_msg("%u of %u allocations, max %lld ms, %lu rounds, %lu waits, %u %% in area\n",
		       res.succeeded, res.tried, res.longest_us / USEC_PER_MSEC, res.rounds,
		       vm_counter("pin_gate_wait") - self->before.waits, res.resident);
	EXPECT_EQ(v->errors, 0)
		TH_LOG("short or failed I/O, first result %ld", v->first_error);
	EXPECT_EQ(v->corrupt, 0);
	expect_no_self_wait(_metadata, &self->before);
	verifier_destroy(v);
	if (!metadata_stays(v) && res.resident >= MIN_RESIDENT)
		EXPECT_EQ(res.succeeded, res.tried);
}

/*
 * A page that is not there: I/O stops at it until it is provided.
 */

struct missing {
	char *page;
	int uffd;
};

static bool missing_create(struct missing *m)
{
	struct uffdio_api api = { .api = UFFD_API };

	m->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (m->uffd < 0 || ioctl(m->uffd, UFFDIO_API, &api))
		return cannot("set up userfaultfd: %s", strerror(errno));
	m->page = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return m->page != MAP_FAILED || cannot("map a page: %s", strerror(errno));
}

/* From now on it is not there. */
static bool missing_start(struct missing *m)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)m->page, .len = psize() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	madvise(m->page, psize(), MADV_DONTNEED);
	if (ioctl(m->uffd, UFFDIO_REGISTER, &reg))
		return cannot("register a page to userfaultfd: %s", strerror(errno));
	return true;
}

static bool missing_wait(struct missing *m)
{
	struct pollfd pollfd = { .fd = m->uffd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&pollfd, 1, GATE_MS) != 1 || read(m->uffd, &msg, sizeof(msg)) != sizeof(msg))
		return cannot("stop the I/O at the missing page");
	return true;
}

static void missing_provide(struct missing *m, const char *from)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)m->page,
		.src = (uintptr_t)from,
		.len = psize(),
	};

	struct uffdio_range range = { .start = copy.dst, .len = copy.len };

	ioctl(m->uffd, UFFDIO_COPY, &copy);
	ioctl(m->uffd, UFFDIO_UNREGISTER, &range);
}

/*
 * A page in the area, and an allocation that cannot have it for some time
 */

struct hold {
	struct pool pool;
	char *page;
	int probe_fd;
	struct missing missing;
	pthread_t holder;
	bool holding;
	pthread_t allocator;
	bool allocating;
	bool alloc_done;
	int alloc_err;
};

static bool hold_create(struct hold *h)
{
	struct nullb_conf probe = { .bytes = MB, .completion_us = 10, .depth = 4 };

	h->probe_fd = nullb_create(PROBE_DEV, &probe);
	return h->probe_fd >= 0 && missing_create(&h->missing) &&
	       pool_prepare(&h->pool, POOL_ANON, 16 * MB);
}

/* Have a page in the area, if there is none. */
static bool hold_page(struct hold *h)
{
	struct pool *pool = &h->pool;
	unsigned int tries;

	if (pool->addr)
		return true;
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

static void *holder_run(void *arg)
{
	struct hold *h = arg;
	struct iovec iov[] = { { h->page, psize() }, { h->missing.page, psize() } };

	pwritev(h->probe_fd, iov, ARRAY_SIZE(iov), 0);
	return NULL;
}

/* Pin the page, by an I/O that is stopped behind it, until hold_release(). */
static bool hold_pin(struct hold *h)
{
	if (!missing_start(&h->missing))
		return false;
	if (pthread_create(&h->holder, NULL, holder_run, h))
		return cannot("start a thread");
	h->holding = true;
	return missing_wait(&h->missing);
}

static void hold_release(struct hold *h)
{
	if (!h->holding)
		return;
	missing_provide(&h->missing, h->page);
	pthread_join(h->holder, NULL);
	h->holding = false;
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
		return cannot("start a thread");
	h->allocating = true;
	while (now_us() < deadline && !read_once(h->alloc_done)) {
		if (gate_is_closed(h->probe_fd, h->page))
			return true;
		usleep(5000);
	}
	return cannot("have a gate closed; the allocation has %sended",
		      read_once(h->alloc_done) ? "" : "not ");
}

/* Returns the result of the allocation. */
static int hold_finish(struct hold *h)
{
	hold_release(h);
	if (h->allocating)
		pthread_join(h->allocator, NULL);
	h->allocating = false;
	area_free();
	pool_unmap(&h->pool);
	return h->alloc_err;
}

/*
 * One I/O, and a page in the area
 */

struct gated {
	struct counters before;
	struct hold hold;
	struct target target;
	struct engine engine;
	struct io io;
	struct iovec iov[IOV_MAX];
	char *outside;		/* a page for each segment, and one more */
	pthread_t thread;
	long long done_us;
};

static bool gated_create(struct gated *g, unsigned int segs)
{
	unsigned int i;

	g->target.conf.completion_us = 100;
	g->target.conf.depth = 64;
	g->io.iov = g->iov;
	g->io.nr = segs;
	g->io.bytes = segs * psize();
	if (!outside_prepare(&g->target, g->io.bytes, &g->outside, (segs + 1) * psize()) ||
	    !engine_open(&g->engine, 1) || !hold_create(&g->hold) || !hold_page(&g->hold))
		return false;
	g->io.fd = g->target.fd[0];
	for (i = 0; i < segs; i++)
		g->iov[i] = (struct iovec){ g->outside + i * psize(), psize() };
	return true;
}

/* For a fixture. The extents of a file are that long, or 0: any. */
static struct gated *gated_setup(struct __test_metadata *_metadata, enum fs_kind fs,
				 enum method method, unsigned int segs, size_t extent)
{
	static struct gated gated;
	struct gated *g = &gated;

	if (!test_prepare(_metadata))
		return NULL;
	g->target.fs = fs;
	g->target.extent = extent;
	g->target.conf.poll_queues = method == URING_IOPOLL;
	g->engine.method = method;
	if (!gated_create(g, segs))
		SKIP(return NULL, NEEDS, file_systems[fs].needs);
	counters_read(&g->before);
	return g;
}

/* Close the gate of the last page of the I/O until gated_finish(). */
static bool gated_start(struct gated *g)
{
	if (!hold_page(&g->hold))
		return false;
	g->iov[g->io.nr - 1].iov_base = g->hold.page;
	return hold_pin(&g->hold) && hold_allocate(&g->hold);
}

/* Returns the result of the allocation. The last page is not in the area then. */
static int gated_finish(struct gated *g)
{
	g->iov[g->io.nr - 1].iov_base = g->outside + (g->io.nr - 1) * psize();
	return hold_finish(&g->hold);
}

static void gated_destroy(struct gated *g)
{
	engine_close(&g->engine);
	target_close(&g->target);
}

static void gated_io(struct gated *g, bool write, int rw_flags)
{
	g->io.write = write;
	g->io.rw_flags = rw_flags;
	io_run(&g->io);
}

static void *gated_run(void *arg)
{
	struct gated *g = arg;

	engine_run(&g->engine, &g->io, 1);
	g->done_us = now_us();
	return NULL;
}

/* Until somebody waits at a gate: more waits than that. */
static bool gated_wait(unsigned long waits)
{
	long long deadline = now_us() + GATE_MS * USEC_PER_MSEC;

	while (vm_counter("pin_gate_wait") == waits) {
		if (now_us() > deadline)
			return cannot("see anybody wait at the gate");
		usleep(1000);
	}
	return true;
}

/*
 * Self-wait: an I/O that is stopped half way, with a pin in the area, by a page
 * that is missing; then it goes on to another part of the page that it has pinned
 * already, but which is gated now. It must not wait any more.
 */

/*
 * Half a page in the area, the missing page, the other half; else outside. The
 * first and the last part are half as long, so that a block begins with the
 * missing page.
 */
static void stopped_vector(struct gated *g, unsigned int at)
{
	size_t half = psize() / 2;

	g->iov[0].iov_len = half;
	g->iov[g->io.nr - 1].iov_len = half;
	g->io.bytes = (g->io.nr - 2) * psize();
	g->iov[at] = (struct iovec){ g->hold.page, half };
	g->iov[at + 1] = (struct iovec){ g->hold.missing.page, psize() };
	g->iov[at + 2] = (struct iovec){ g->hold.page + half, half };
}

struct stop_result {
	int alloc_err;
	long long stopped_us;	/* from the start until it goes on */
	long long us;		/* and from there to the end */
};

/* One I/O, stopped at the missing page until the gate is closed. */
static bool stopped_io(struct gated *g, unsigned int at, bool write, struct stop_result *res)
{
	char *source = g->outside + g->io.nr * psize();
	long long began, start;
	bool ok;

	if (!hold_page(&g->hold))
		return false;
	g->io.write = write;
	stopped_vector(g, at);
	if (write)
		io_fill(&g->io, NEW_DATA);
	else
		io_scrub(&g->io);
	fill(source, psize(), NEW_DATA, at * psize());
	if (!missing_start(&g->hold.missing))
		return false;

	began = now_us();
	if (pthread_create(&g->thread, NULL, gated_run, g))
		return cannot("start a thread");
	ok = missing_wait(&g->hold.missing) && hold_allocate(&g->hold);
	start = now_us();
	res->stopped_us = start - began;
	missing_provide(&g->hold.missing, source);
	pthread_join(g->thread, NULL);
	res->us = g->done_us - start;
	if (!write && !io_matches(&g->io, NEW_DATA))
		g->io.res = -EILSEQ;
	res->alloc_err = hold_finish(&g->hold);
	return ok;
}

FIXTURE(self_wait)
{
	struct gated *g;
};

FIXTURE_VARIANT(self_wait)
{
	enum fs_kind fs;
	enum method method;
	unsigned int segs;
	unsigned int at;	/* which segment is in the area */
	bool two_extents;	/* the missing page begins the second one */
};

FIXTURE_VARIANT_ADD(self_wait, bdev_sync) { .method = SYNC, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_sync_second_bio) { .method = SYNC, .segs = 600, .at = 300 };
FIXTURE_VARIANT_ADD(self_wait, bdev_aio) { .method = AIO, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_uring) { .method = URING, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_uring_sqpoll) { .method = URING_SQPOLL, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, bdev_uring_iopoll) { .method = URING_IOPOLL, .segs = 8, .at = 1 };
FIXTURE_VARIANT_ADD(self_wait, ext4_sync)
{
	.fs = FS_EXT4, .method = SYNC, .segs = 8, .at = 1,
};

FIXTURE_VARIANT_ADD(self_wait, xfs_uring)
{
	.fs = FS_XFS, .method = URING, .segs = 8, .at = 1,
};

/* The first part is in flight then, and only the submitter could complete it. */
FIXTURE_VARIANT_ADD(self_wait, xfs_uring_iopoll_two_extents)
{
	.fs = FS_XFS, .method = URING_IOPOLL, .segs = 8, .at = 3, .two_extents = true,
};

FIXTURE_VARIANT_ADD(self_wait, vfat_sync)
{
	.fs = FS_VFAT, .method = SYNC, .segs = 8, .at = 1,
};

/* With integrity metadata, if scsi_debug has dif=1 dix=1 */
FIXTURE_VARIANT_ADD(self_wait, scsi_sync)
{
	.fs = FS_SCSI, .method = SYNC, .segs = 8, .at = 1,
};

FIXTURE_SETUP(self_wait)
{
	self->g = gated_setup(_metadata, variant->fs, variant->method, variant->segs,
			      variant->two_extents ? variant->at * psize() : 0);
}

FIXTURE_TEARDOWN_PARENT(self_wait)
{
	env_restore();
}

TEST_F_TIMEOUT(self_wait, write_and_read, 60)
{
	struct gated *g = self->g;
	struct stop_result res = { };
	int write;

	/* A worker may wait; the first attempt never does. */
	g->engine.from_worker = true;
	for (write = 1; write >= 0; write--) {
		ASSERT_TRUE(stopped_io(g, variant->at, write, &res));
		ksft_print_msg("%s: stopped for %lld ms, then %lld ms with the gate closed\n",
			       write ? "write" : "read", res.stopped_us / USEC_PER_MSEC,
			       res.us / USEC_PER_MSEC);
		EXPECT_EQ(g->io.res, (long)g->io.bytes);
		EXPECT_EQ(res.alloc_err, 0);
		EXPECT_LT(res.us, BOUND_MS * USEC_PER_MSEC);
	}
	EXPECT_EQ(vm_counter("pin_gate_wait"), g->before.waits);
	expect_no_self_wait(_metadata, &g->before);
	gated_destroy(g);
}

/*
 * An I/O that finds the gate closed waits, however it is started and whatever
 * the file system is, and then all of it is done.
 */

FIXTURE(waits)
{
	struct gated *g;
};

FIXTURE_VARIANT(waits)
{
	enum fs_kind fs;
	enum method method;
	unsigned int segs;	/* the last one is in the area */
	int write_flags;
	bool write_only;	/* PROT_WRITE without PROT_READ */
};

FIXTURE_VARIANT_ADD(waits, bdev_sync) { .method = SYNC, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, bdev_sync_one) { .method = SYNC, .segs = 1 };
FIXTURE_VARIANT_ADD(waits, bdev_sync_write_only) { .segs = 8, .write_only = true };
FIXTURE_VARIANT_ADD(waits, bdev_aio) { .method = AIO, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, bdev_uring) { .method = URING, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, ext4_sync) { .fs = FS_EXT4, .method = SYNC, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, xfs_aio) { .fs = FS_XFS, .method = AIO, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, vfat_sync) { .fs = FS_VFAT, .method = SYNC, .segs = 600 };
/* fs/direct-io.c writes zeroes for what it cannot pin. */
FIXTURE_VARIANT_ADD(waits, vfat_sync_write_only)
{
	.fs = FS_VFAT, .method = SYNC, .segs = 8, .write_only = true,
};

FIXTURE_VARIANT_ADD(waits, btrfs_sync) { .fs = FS_BTRFS, .method = SYNC, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, btrfs_uring) { .fs = FS_BTRFS, .method = URING, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, f2fs_sync) { .fs = FS_F2FS, .method = SYNC, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, gfs2_sync) { .fs = FS_GFS2, .method = SYNC, .segs = 600 };
FIXTURE_VARIANT_ADD(waits, scsi_atomic)
{
	.fs = FS_SCSI, .method = SYNC, .segs = 1, .write_flags = WRITE_ATOMIC,
};

FIXTURE_SETUP(waits)
{
	self->g = gated_setup(_metadata, variant->fs, variant->method, variant->segs, 0);
}

FIXTURE_TEARDOWN_PARENT(waits)
{
	env_restore();
}

/* Release the page when the I/O waits for it. */
static bool gated_io_waits(struct gated *g, bool write, int rw_flags)
{
	unsigned long waits = vm_counter("pin_gate_wait");
	bool ok;

	g->io.write = write;
	g->io.rw_flags = rw_flags;
	if (pthread_create(&g->thread, NULL, gated_run, g))
		return cannot("start a thread");
	ok = gated_wait(waits);
	hold_release(&g->hold);
	pthread_join(g->thread, NULL);
	return ok;
}

TEST_F_TIMEOUT(waits, read_and_write, 60)
{
	struct gated *g = self->g;
	int write;

	io_fill(&g->io, OLD_DATA);
	if (variant->write_flags)
		gated_io(g, true, variant->write_flags);
	if (g->io.res == -EOPNOTSUPP)
		SKIP(return, "no atomic writes; scsi_debug has them with atomic_wr=1");

	/* What btrfs has written can be in the way of the next allocation. */
	for (write = 0; write <= 1; write++) {
		ASSERT_TRUE(gated_start(g));
		if (variant->write_only)
			ASSERT_EQ(mprotect(g->hold.page, psize(), PROT_WRITE), 0);
		if (write)
			io_fill(&g->io, NEW_DATA);
		else
			io_scrub(&g->io);
		/* A page that is not there is no reason to look no further. */
		if (!write && g->io.nr > 1)
			madvise(g->iov[0].iov_base, psize(), MADV_DONTNEED);
		EXPECT_TRUE(gated_io_waits(g, write, write ? variant->write_flags : 0));
		EXPECT_EQ(g->io.res, (long)g->io.bytes);
		if (!write)
			EXPECT_TRUE(io_matches(&g->io, OLD_DATA));
		EXPECT_EQ(gated_finish(g), 0);
	}
	io_scrub(&g->io);
	gated_io(g, false, 0);
	EXPECT_EQ(g->io.res, (long)g->io.bytes);
	EXPECT_TRUE(io_matches(&g->io, NEW_DATA));
	expect_no_self_wait(_metadata, &g->before);
	gated_destroy(g);
}

/*
 * I/O that must not sleep, while the gate is closed: nothing of it is done.
 */

FIXTURE(nowait)
{
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
	self->g = gated_setup(_metadata, variant->fs, SYNC, variant->segs, 0);
}

FIXTURE_TEARDOWN_PARENT(nowait)
{
	env_restore();
}

/* Read the file without the page in the area: is it as it was written? */
static bool gated_file_matches(struct gated *g, __u64 seed)
{
	struct io io = g->io;

	io.write = false;
	io.rw_flags = 0;
	io.nr--;
	io.bytes -= psize();
	io_run(&io);
	return io.res == (long)io.bytes && io_matches(&io, seed);
}

/* Without io_uring there is nothing to be seen. */
static long nowait_io(struct gated *g, enum method how, bool write)
{
	struct engine e = { .method = how };

	if (!engine_open(&e, 1))
		return -EAGAIN;
	g->io.write = write;
	g->io.rw_flags = RWF_NOWAIT;
	engine_run(&e, &g->io, 1);
	engine_close(&e);
	return g->io.res;
}

/* RWF_NOWAIT is final. */
TEST_F(nowait, final)
{
	static const enum method methods[] = { SYNC, AIO, URING };
	struct gated *g = self->g;
	unsigned int i;

	gated_io(g, false, RWF_NOWAIT);
	if (variant->read)
		EXPECT_EQ(g->io.res, (long)g->io.bytes);
	io_fill(&g->io, OLD_DATA);
	gated_io(g, true, RWF_NOWAIT);
	if (variant->write)
		EXPECT_EQ(g->io.res, (long)g->io.bytes);
	ASSERT_TRUE(gated_start(g));

	io_fill(&g->io, NEW_DATA);
	for (i = 0; i < 2 * ARRAY_SIZE(methods); i++)
		EXPECT_EQ(nowait_io(g, methods[i / 2], i % 2), -EAGAIN)
			TH_LOG("method %u, %s", methods[i / 2], i % 2 ? "write" : "read");
	EXPECT_TRUE(gated_file_matches(g, OLD_DATA))
		TH_LOG("a part was written");
	EXPECT_EQ(vm_counter("pin_gate_wait"), g->before.waits);
	EXPECT_EQ(gated_finish(g), 0);
	expect_no_self_wait(_metadata, &g->before);
	gated_destroy(g);
}

/* Without it, io_uring does not sleep at submission, and the I/O completes. */
TEST_F(nowait, submission)
{
	struct engine e = { .method = URING };
	struct gated *g = self->g;
	long long start, us;

	if (!engine_open(&e, 1))
		SKIP(return, NO_IO_URING);
	ASSERT_TRUE(gated_start(g));

	g->io.write = true;
	io_fill(&g->io, NEW_DATA);
	start = now_us();
	engine_start(&e, &g->io);
	us = now_us() - start;
	EXPECT_FALSE(engine_has_result(&e));
	EXPECT_TRUE(gated_wait(g->before.waits));

	hold_release(&g->hold);
	engine_finish(&e);
	EXPECT_EQ(gated_finish(g), 0);
	EXPECT_EQ(g->io.res, (long)g->io.bytes);
	EXPECT_TRUE(gated_file_matches(g, NEW_DATA));
	EXPECT_LT(us, PROMPT_MS * USEC_PER_MSEC);
	expect_no_self_wait(_metadata, &g->before);
	engine_close(&e);
	gated_destroy(g);
}

/*
 * A process that is killed at the gate goes on as if it had waited for long
 * enough. What it has not overwritten in the end is as it was.
 */

#define KILLED_SEGS	100

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

FIXTURE_VARIANT_ADD(killed, bdev) { .fs = FS_NONE, .path = "/dev/" TARGET_DEV };
FIXTURE_VARIANT_ADD(killed, ext4) { .fs = FS_EXT4, .path = FS_MNT "/data0" };
FIXTURE_VARIANT_ADD(killed, xfs) { .fs = FS_XFS, .path = FS_MNT "/data0" };
FIXTURE_VARIANT_ADD(killed, vfat) { .fs = FS_VFAT, .path = FS_MNT "/data0" };

FIXTURE_SETUP(killed)
{
	if (!test_prepare(_metadata))
		return;
	self->bytes = KILLED_SEGS * psize();
	self->data = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(self->data, MAP_FAILED);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(killed)
{
	env_restore();
}

/* Returns only if it does not come to wait: an exit status. */
static int killed_writer(enum fs_kind fs)
{
	static struct gated g;

	g.target.fs = fs;
	if (!gated_create(&g, KILLED_SEGS))
		return KSFT_SKIP;
	if (!gated_start(&g))
		return KSFT_FAIL;
	io_fill(&g.io, NEW_DATA);
	gated_io(&g, true, 0);
	return KSFT_FAIL;
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
		SKIP(return, NEEDS, file_systems[variant->fs].needs);
	ASSERT_GT(vm_counter("pin_gate_wait"), self->before.waits);

	fd = open(variant->path, O_RDONLY | O_DIRECT);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(pread(fd, self->data, self->bytes, 0), (ssize_t)self->bytes);
	close(fd);
	for (seg = 0; seg < KILLED_SEGS; seg++) {
		const char *page = self->data + seg * psize();
		bool old = matches(page, psize(), OLD_DATA, seg * psize());

		nr_old += old;
		EXPECT_TRUE(old || matches(page, psize(), NEW_DATA, seg * psize()))
			TH_LOG("page %u begins with %llx", seg, *(__u64 *)page);
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
	if (!test_prepare(_metadata))
		return;
	self->target.fs = variant->fs;
	self->target.conf.completion_us = 100;
	self->target.conf.depth = 64;
	self->target.conf.poll_queues = 1;
	self->engine.method = URING_IOPOLL;
	if (!target_open(&self->target, MB) || !hold_create(&self->hold) ||
	    !hold_page(&self->hold) || !engine_open(&self->engine, 2))
		SKIP(return, NEEDS, file_systems[variant->fs].needs);
	counters_read(&self->before);
}

FIXTURE_TEARDOWN_PARENT(polled)
{
	env_restore();
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
	engine_start(&self->engine, &ios[0]);
	usleep(100000);
	ASSERT_TRUE(hold_allocate(&self->hold));
	self->engine.from_worker = false;
	start = now_us();
	engine_start(&self->engine, &ios[1]);
	us = now_us() - start;
	engine_finish(&self->engine);
	engine_finish(&self->engine);
	ksft_print_msg("submission took %lld ms\n", us / USEC_PER_MSEC);

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(ios[i].res, psize());
		back = ios[i];
		back.write = false;
		io_scrub(&back);
		io_run(&back);
		EXPECT_TRUE(back.res == psize() && io_matches(&back, 1));
	}
	EXPECT_LT(us, PROMPT_MS * USEC_PER_MSEC);
	EXPECT_EQ(hold_finish(&self->hold), 0);
	EXPECT_GT(vm_counter("pin_gate_wait"), self->before.waits);
	expect_no_self_wait(_metadata, &self->before);
	engine_close(&self->engine);
	target_close(&self->target);
}

int main(int argc, char **argv)
{
	env_prepare(env_restore);
	return test_harness_run(argc, argv);
}
