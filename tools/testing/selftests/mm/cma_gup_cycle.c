// SPDX-License-Identifier: GPL-2.0
/*
 * A CMA allocation and those who pin pages of its area can come to wait for each
 * other, by way of storage: that of a server which itself pins pages, that of one
 * which does not answer, that of a device with one tag. These tests set up such
 * cycles and show that they end within the bound, or that there is none.
 *
 * Most tests make pins of a known length, by I/O on a slow null_blk device, and
 * start an allocation, which finds these pins and closes the gates of their
 * pageblocks: from there on, other pins of these pages wait. What the test is
 * about starts a bit before the I/O ends. What only waits for the pins goes on
 * then; what is part of a cycle goes on when it has waited for the bound.
 */

#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <mm/gup_test.h>
#include "cma_storage_server.h"
#include "cma_held_pages.h"
#include "cma_env.h"
#include "vm_util.h"

#define STORE_DEV	NULLB_PREFIX "store"
#define LOOP_DEV	"$(losetup -n -O NAME -j " FS_MNT "/image)"
#define LOOP_MNT	"/tmp/cma_gup_cycle_mnt"

#define STALL_MS	3000	/* how long a server does not answer */

/* The server's buffers are at the end of the memory: see held_pages_fill(). */
#define SERVER_POS	(BUF_BYTES - DAEMON_DEPTH * DAEMON_IO_BYTES)
/* Without what ext4 reads later, of its own, which takes the server's buffers. */
#define EXT4_OPTIONS	"noatime,noinit_itable,no_prefetch_block_bitmaps"

/* Shared with the server and, to restore the system, with the parent of the tests. */
static struct daemon *server;

/* Without a look at it, which fails if its server is dead; what has ended is a bit late. */
static void unmount(const char *path)
{
	int i;

	for (i = 0; i < 50 && umount2(path, UMOUNT_NOFOLLOW) && errno == EBUSY; i++)
		usleep(20000);
	umount2(path, MNT_DETACH);
}

/* Bring back all that tests can leave behind, also if they were killed. */
static void restore_all(void)
{
	if (!access(LOOP_MNT, F_OK)) {
		unmount(LOOP_MNT);
		rmdir(LOOP_MNT);
		run_cmd("losetup -d " LOOP_DEV " 2>/dev/null");
	}
	unmount(FS_MNT);
	daemon_stop(server);
	env_restore();
}

/*
 * Storage that is served by a process, which does direct I/O from buffers in the
 * area. The allocation waits for writeback of a page in the area; the server, at
 * the gate of its buffers, for the allocation.
 */

enum storage {
	STORAGE_FUSE,
	STORAGE_UBLK,
	STORAGE_LOOP,		/* on a file on ublk */
};

static const char *ext4_missing(void)
{
	return run_cmd("command -v mkfs.ext4 >/dev/null") &&
	       run_cmd("command -v losetup >/dev/null") &&
	       run_cmd("grep -qw ext4 /proc/filesystems") ?
	       NULL : "no ext4, mkfs.ext4 or losetup";
}

static const char *stack_missing(enum storage storage)
{
	if (area.budget < 0)
		return NO_BUDGET;
	if (storage == STORAGE_FUSE)
		return fuse_missing();
	return ublk_missing() ?: ext4_missing();
}

/* For a fixture: false if the test is skipped. */
static bool stack_begin(struct __test_metadata *_metadata, struct held_pages *s,
			enum storage storage)
{
	const char *missing = stack_missing(storage);

	if (missing)
		SKIP(return false, "%s", missing);
	held_pages_begin(s);
	return true;
}

/* The server and its buffers, which are not populated yet. */
static bool stack_server(struct held_pages *s, enum storage storage)
{
	struct nullb_conf store = {
		.bytes = UBLK_BYTES, .completion_us = 1000, .depth = 64, .memory_backed = true,
	};

	server->store = nullb_create(STORE_DEV, &store);
	if (server->store < 0)
		return false;
	if (!held_pages_memory(s))
		return false;
	server->buf = s->rw + SERVER_POS;
	return storage == STORAGE_FUSE ? fuse_start(server) : ublk_start(server);
}

/* A file whose blocks are allocated, and not cached. */
static int file_create(const char *path, size_t bytes)
{
	static char buf[128 * KB];
	size_t done;
	int fd;

	fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	for (done = 0; fd >= 0 && done < bytes; done += sizeof(buf))
		if (write(fd, buf, sizeof(buf)) != sizeof(buf))
			break;
	if (fd < 0 || done < bytes || fsync(fd)) {
		cannot("write %s: %s", path, strerror(errno));
		return -1;
	}
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return fd;
}

static bool stack_loop(void)
{
	int fd = file_create(FS_MNT "/image", 16 * MB);

	if (fd < 0)
		return false;
	close(fd);
	mkdir(LOOP_MNT, 0700);
	if (!run_cmd("losetup --direct-io=on -f " FS_MNT "/image") ||
	    !run_cmd("mkfs.ext4 -q -O ^has_journal " LOOP_DEV " >/dev/null 2>&1") ||
	    !run_cmd("mount -t ext4 -o " EXT4_OPTIONS " " LOOP_DEV " " LOOP_MNT))
		return cannot("mount a file system on a loop device");
	return true;
}

/* The file system on it, and a file there. */
static bool stack_file(struct held_pages *s, enum storage storage)
{
	char dev[16];

	if (storage == STORAGE_FUSE) {
		s->file.fd = open(FUSE_FILE, O_RDWR | O_CLOEXEC);
		return s->file.fd >= 0 || cannot("open the file: %s", strerror(errno));
	}
	snprintf(dev, sizeof(dev), "ublkb%d", server->ublk_id);
	if (!fs_create(dev, "ext4", "mkfs.ext4 -q -O ^has_journal", EXT4_OPTIONS))
		return false;
	if (storage == STORAGE_LOOP && !stack_loop())
		return false;
	s->file.fd = file_create(storage == STORAGE_LOOP ? LOOP_MNT "/file" : FUSE_FILE, 2 * MB);
	return s->file.fd >= 0;
}

/* All of it, with the file and the server's buffers in the area. */
static bool stack_start(struct held_pages *s, enum storage storage)
{
	s->file = (struct pool){ .kind = POOL_FILE, .bytes = 2 * MB, .pagemap = -1 };
	return held_pages_devices(s, HOLD_MS) && stack_server(s, storage) &&
	       stack_file(s, storage) && held_pages_fill(s);
}

/* Pick what the server can use for its next request. */
static bool stack_pick_buffers(struct held_pages *s)
{
	unsigned int i;

	for (i = 0; i < DAEMON_DEPTH; i++) {
		size_t pos = SERVER_POS + i * DAEMON_IO_BYTES;

		if (held_pages_pick(s, &s->buf, pos) != s->buf.addr + pos)
			return cannot("have the server's buffers in the area");
	}
	return true;
}

/* Change a page of the file and start to write it back. */
static bool stack_write_back(struct held_pages *s, const char *page, int val)
{
	off_t pos = page - s->file.addr;
	char data[psize()];

	memset(data, val, sizeof(data));
	if (pwrite(s->file.fd, data, sizeof(data), pos) != (ssize_t)sizeof(data))
		return cannot("write to the file: %s", strerror(errno));
	return !sync_file_range(s->file.fd, pos, sizeof(data), SYNC_FILE_RANGE_WRITE) ||
	       cannot("start to write back: %s", strerror(errno));
}

static bool stack_file_has(struct held_pages *s, size_t pos, char val)
{
	char data[psize()];
	size_t i;

	if (fsync(s->file.fd))
		return false;
	munmap(s->file.addr, s->file.bytes);
	s->file.addr = NULL;
	posix_fadvise(s->file.fd, 0, 0, POSIX_FADV_DONTNEED);
	if (pread(s->file.fd, data, sizeof(data), pos) != (ssize_t)sizeof(data))
		return false;
	for (i = 0; i < sizeof(data) && data[i] == val; i++)
		;
	return i == sizeof(data);
}

static void stack_finish(struct held_pages *s)
{
	server->stall_ms = 0;
	held_pages_finish(s);
}

FIXTURE(stack)
{
	struct held_pages s;
};

FIXTURE_VARIANT(stack)
{
	enum storage storage;
	bool flusher;
};

FIXTURE_VARIANT_ADD(stack, fuse) { STORAGE_FUSE };
FIXTURE_VARIANT_ADD(stack, fuse_flusher) { STORAGE_FUSE, .flusher = true };
FIXTURE_VARIANT_ADD(stack, ublk) { STORAGE_UBLK };
FIXTURE_VARIANT_ADD(stack, ublk_flusher) { STORAGE_UBLK, .flusher = true };
FIXTURE_VARIANT_ADD(stack, loop_on_ublk) { STORAGE_LOOP };

FIXTURE_SETUP(stack)
{
	if (!stack_begin(_metadata, &self->s, variant->storage))
		return;
	server->flusher = variant->flusher;
	ASSERT_TRUE(stack_start(&self->s, variant->storage));
}

FIXTURE_TEARDOWN_PARENT(stack)
{
	restore_all();
}

TEST_F_TIMEOUT(stack, writeback, 60)
{
	struct held_pages *s = &self->s;
	long waited;
	char *page;

	page = held_pages_pick(s, &s->file, 0);
	ASSERT_TRUE(page && stack_pick_buffers(s) && held_pages_close_gates(s, AMPLE_MS));
	sleep_until(s->release_us - LEAD_MS * USEC_PER_MSEC);
	server->longest_us = 0;
	ASSERT_TRUE(stack_write_back(s, page, 'x'));
	allocation_finish(&s->alloc);
	EXPECT_TRUE(stack_file_has(s, page - s->file.addr, 'x'));
	waited = to_ms(server->longest_us);
	stack_finish(s);
	ksft_print_msg("the server's I/O took %ld ms, bound %d ms; the allocation %ld ms\n",
		       waited, BOUND_MS, to_ms(s->alloc.us));

	EXPECT_EQ(server->errors, 0);
	EXPECT_EQ(s->alloc.err, 0);
	EXPECT_GE(waited, variant->flusher ? 0 : LEAD_MS - 100);
	EXPECT_LT(waited, variant->flusher ? LEAD_MS - 100 : BOUND_MS + PROMPT_MS);
	/* It is not the bound that ends this: the allocation does not wait for writeback. */
	EXPECT_EQ(vm_counter("pin_gate_timeout"), s->timeouts);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* The same by chance: read and write the file while the area is allocated. */
struct file_load {
	pthread_t thread;
	const struct held_pages *s;
	bool reads;
	unsigned int seed;
	bool stop;
	unsigned long done;
	unsigned long errors;
};

static void *file_load_run(void *arg)
{
	struct file_load *l = arg;
	int fd = l->s->file.fd;
	char data[psize()];
	ssize_t ret;
	off_t pos;

	memset(data, 'z', sizeof(data));
	while (!read_once(l->stop)) {
		pos = rand_r(&l->seed) % (l->s->file.bytes / psize()) * psize();
		if (l->reads) {
			posix_fadvise(fd, pos, sizeof(data), POSIX_FADV_DONTNEED);
			ret = pread(fd, data, sizeof(data), pos);
		} else {
			ret = pwrite(fd, data, sizeof(data), pos);
			sync_file_range(fd, pos, sizeof(data), SYNC_FILE_RANGE_WRITE);
		}
		if (ret != (ssize_t)sizeof(data))
			l->errors++;
		count_one(l->done);
	}
	return NULL;
}

TEST_F_TIMEOUT(stack, load, 90)
{
	struct file_load loads[2] = { };
	struct allocations allocs = { };
	struct held_pages *s = &self->s;
	unsigned int i, j;

	ASSERT_EQ(put_num(budget_file(), AMPLE_MS), 0);
	server->longest_us = 0;
	for (i = 0; i < 3; i++) {
		pool_unmap(&s->file);
		ASSERT_TRUE(held_pages_fill(s));
		for (j = 0; j < ARRAY_SIZE(loads); j++) {
			loads[j] = (struct file_load){ .s = s, .reads = j, .seed = i + 1 };
			ASSERT_EQ(pthread_create(&loads[j].thread, NULL, file_load_run,
						 &loads[j]), 0);
		}
		while (!read_once(loads[0].done) || !read_once(loads[1].done))
			usleep(1000);
		allocations_try(&allocs);
		for (j = 0; j < ARRAY_SIZE(loads); j++) {
			write_once(loads[j].stop, true);
			pthread_join(loads[j].thread, NULL);
			EXPECT_EQ(loads[j].errors, 0);
		}
	}
	EXPECT_EQ(fsync(s->file.fd), 0);
	stack_finish(s);
	allocations_print(&allocs);
	ksft_print_msg("the server's longest I/O took %ld ms, bound %d ms\n",
		       to_ms(server->longest_us), BOUND_MS);
	EXPECT_GT(allocs.succeeded, 0);
	EXPECT_EQ(server->errors, 0);
	EXPECT_LT(to_ms(server->longest_us), BOUND_MS + PROMPT_MS);
	EXPECT_LT(to_ms(allocs.longest_us), 2 * AMPLE_MS);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * Metadata of a file system on ublk: the lock of a buffer, unlike writeback, does
 * not show in the folio, so that the allocation waits for it with gates closed. It is
 * the bound that ends this cycle.
 */

#define METADATA_FILE	FS_MNT "/file"

FIXTURE(metadata)
{
	struct held_pages s;
	struct pool dev;	/* the block device's page cache */
	int file;
	char *page;		/* of dev: the block of the file's inode */
};

static bool metadata_file_system(void)
{
	char dev[16];

	snprintf(dev, sizeof(dev), "ublkb%d", server->ublk_id);
	/* A block is a page; inodes have 256 bytes, and there is but one table of them. */
	return fs_create(dev, "ext4", "mkfs.ext4 -q -b 4096 -I 256 -O ^has_journal",
			 EXT4_OPTIONS ",inode_readahead_blks=0") &&
	       run_cmd(": >" METADATA_FILE) &&
	       run_cmd("umount " FS_MNT) &&
	       run_cmd("mount -t ext4 -o " EXT4_OPTIONS ",inode_readahead_blks=0 /dev/%s "
		       FS_MNT, dev);
}

static bool metadata_map_device(struct pool *dev)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkb%d", server->ublk_id);
	*dev = (struct pool){
		.kind = POOL_FILE,
		.bytes = UBLK_BYTES,
		.fd = open(path, O_RDONLY | O_CLOEXEC),
		.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC),
	};
	dev->addr = mmap(NULL, dev->bytes, PROT_READ, MAP_SHARED, dev->fd, 0);
	if (dev->addr == MAP_FAILED || madvise(dev->addr, dev->bytes, MADV_RANDOM))
		return cannot("map %s: %s", path, strerror(errno));
	return true;
}

/* The first block of the table of inodes, 0 if that cannot be found out. */
static unsigned long metadata_table(void)
{
	unsigned long block = 0;
	char cmd[128];
	FILE *f;

	snprintf(cmd, sizeof(cmd),
		 "dumpe2fs /dev/ublkb%d 2>/dev/null | sed -n 's/.*Inode table at //p'",
		 server->ublk_id);
	f = popen(cmd, "r");
	if (!f || fscanf(f, "%lu", &block) != 1)
		block = 0;
	if (f)
		pclose(f);
	return block;
}

/* Read the inode of the file, and move its block to the area. */
static bool metadata_pick(struct held_pages *s, struct pool *dev, int *fd, char **page)
{
	unsigned long table = metadata_table();
	struct stat st;

	*fd = open(METADATA_FILE, O_RDWR | O_CLOEXEC);
	if (!table || *fd < 0 || fstat(*fd, &st))
		return cannot("open %s: %s, inodes at block %lu", METADATA_FILE, strerror(errno),
			      table);
	*page = dev->addr + table * 4096 + (st.st_ino - 1) * 256 / 4096 * 4096;
	(void)read_once(**page);
	s->held[s->nr_held++] = *page;
	return pool_move(dev, *page, psize(), BUF_BYTES);
}

FIXTURE_SETUP(metadata)
{
	struct held_pages *s = &self->s;

	if (!stack_begin(_metadata, s, STORAGE_UBLK))
		return;
	ASSERT_TRUE(held_pages_devices(s, HOLD_MS) && stack_server(s, STORAGE_UBLK) &&
		    metadata_file_system() && metadata_map_device(&self->dev) &&
		    held_pages_fill(s) && stack_pick_buffers(s) &&
		    metadata_pick(s, &self->dev, &self->file, &self->page));
}

FIXTURE_TEARDOWN_PARENT(metadata)
{
	restore_all();
}

static void *fsync_file(void *arg)
{
	return (void *)(long)fsync(*(int *)arg);
}

TEST_F_TIMEOUT(metadata, buffer_lock, 60)
{
	struct held_pages *s = &self->s;
	pthread_t thread;
	void *err;

	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS));
	sleep_until(s->release_us - LEAD_MS * USEC_PER_MSEC);
	server->longest_us = 0;
	EXPECT_EQ(fchmod(self->file, 0644), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, fsync_file, &self->file), 0);
	sleep_until(s->release_us + 200 * USEC_PER_MSEC);
	allocation_print_stack(&s->alloc);
	allocation_finish(&s->alloc);
	pthread_join(thread, &err);
	munmap(self->dev.addr, self->dev.bytes);
	close(self->file);
	close(self->dev.fd);
	stack_finish(s);
	ksft_print_msg("the server's I/O took %ld ms, bound %d ms; the allocation %ld ms\n",
		       to_ms(server->longest_us), BOUND_MS, to_ms(s->alloc.us));

	EXPECT_EQ(err, NULL);
	EXPECT_EQ(server->errors, 0);
	EXPECT_EQ(s->alloc.err, 0);
	EXPECT_GE(to_ms(server->longest_us), LEAD_MS - 100);
	EXPECT_LT(to_ms(server->longest_us), BOUND_MS + PROMPT_MS);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * A server that does not answer: a folio stays under writeback, or locked, for as
 * long as it likes, with the gate of its pageblock closed.
 */

FIXTURE(stall)
{
	struct held_pages s;
	char *page;		/* of the file */
	char *other;		/* another one in a gated pageblock */
};

FIXTURE_SETUP(stall)
{
	struct held_pages *s = &self->s;

	if (!stack_begin(_metadata, s, STORAGE_FUSE))
		return;
	ASSERT_TRUE(stack_start(s, STORAGE_FUSE));
	self->page = held_pages_pick(s, &s->file, 0);
	self->other = held_pages_pick(s, &s->buf, 0);
	ASSERT_TRUE(self->page && self->other);
}

FIXTURE_TEARDOWN_PARENT(stall)
{
	restore_all();
}

/* Close the gates, then have the page under writeback, for less than the budget. */
static bool stall_start(struct held_pages *s, char *page)
{
	if (!held_pages_close_gates(s, 2 * AMPLE_MS))
		return false;
	sleep_until(s->release_us - LEAD_MS * USEC_PER_MSEC);
	server->stall_ms = STALL_MS;
	return stack_write_back(s, page, 'x');
}

/* Pins that wait meanwhile end by their own clock, or when their folio has moved. */
static void expect_pinners_bounded(struct __test_metadata *_metadata, struct held_pages *s,
				   char *page, char *other)
{
	struct pinner on_page, on_other;

	ASSERT_TRUE(pinner_start(&on_page, s, page) && pinner_start(&on_other, s, other));
	sleep_until(s->release_us + STALL_MS / 2 * USEC_PER_MSEC);
	allocation_print_stack(&s->alloc);
	allocation_finish(&s->alloc);
	pinner_stop(&on_page);
	pinner_stop(&on_other);
	ksft_print_msg("the longest of %lu I/Os on this folio took %ld ms, bound %d ms\n",
		       on_page.calls, to_ms(on_page.longest_us), BOUND_MS);
	ksft_print_msg("the longest of %lu on another %ld ms; the allocation %ld ms\n",
		       on_other.calls, to_ms(on_other.longest_us), to_ms(s->alloc.us));

	EXPECT_GT(to_ms(on_page.longest_us), BOUND_MS - 100);
	EXPECT_LT(to_ms(on_page.longest_us), BOUND_MS + PROMPT_MS);
	EXPECT_LT(to_ms(on_other.longest_us), BOUND_MS + PROMPT_MS);
	EXPECT_EQ(on_page.errors + on_other.errors, 0);
	EXPECT_EQ(s->alloc.err, 0);
	EXPECT_GT(to_ms(s->alloc.us), STALL_MS)
		TH_LOG("the allocation did not wait for the server");
	EXPECT_GT(vm_counter("pin_gate_timeout"), s->timeouts);
}

TEST_F_TIMEOUT(stall, writeback, 60)
{
	struct held_pages *s = &self->s;

	ASSERT_TRUE(stall_start(s, self->page));
	expect_pinners_bounded(_metadata, s, self->page, self->other);
	stack_finish(s);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* Write to a page under writeback: that waits, and holds the folio's lock. */
static void *store_to_page(void *arg)
{
	write_once(*(char *)arg, 'y');
	return NULL;
}

TEST_F_TIMEOUT(stall, folio_lock, 60)
{
	struct held_pages *s = &self->s;
	size_t pos = self->page - s->file.addr;
	pthread_t thread;
	char *map;

	map = mmap(NULL, s->file.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->file.fd, 0);
	ASSERT_NE(map, MAP_FAILED);
	ASSERT_TRUE(stall_start(s, self->page));
	ASSERT_EQ(pthread_create(&thread, NULL, store_to_page, map + pos), 0);
	expect_pinners_bounded(_metadata, s, self->page, self->other);
	pthread_join(thread, NULL);
	munmap(map, s->file.bytes);
	stack_finish(s);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* Allocate while the page is under writeback, and nothing is pinned for long. */
static void alloc_under_writeback(struct __test_metadata *_metadata, struct held_pages *s,
				  char *page, char *other, unsigned int budget_ms)
{
	struct pinner p;

	ASSERT_EQ(put_num(budget_file(), budget_ms), 0);
	server->stall_ms = STALL_MS;
	ASSERT_TRUE(stack_write_back(s, page, 'x'));
	if (budget_ms)
		ASSERT_TRUE(pinner_start(&p, s, other));
	ASSERT_TRUE(allocation_start(&s->alloc));
	if (!budget_ms) {
		/* A pin before the page could end the allocation before it gets there. */
		sleep_until(now_us() + 100 * USEC_PER_MSEC);
		ASSERT_TRUE(pinner_start(&p, s, other));
	}
	sleep_until(now_us() + STALL_MS / 2 * USEC_PER_MSEC);
	allocation_print_stack(&s->alloc);
	sleep_until(now_us() + STALL_MS / 4 * USEC_PER_MSEC);
	pinner_stop(&p);
	stack_finish(s);
	ksft_print_msg("the longest of %lu I/Os took %ld ms; the allocation %ld ms, budget %u ms\n",
		       p.calls, to_ms(p.longest_us), to_ms(s->alloc.us), budget_ms);

	EXPECT_LT(to_ms(p.longest_us), PROMPT_MS);
	EXPECT_EQ(p.errors, 0);
	EXPECT_EQ(vm_counter("pin_gate_timeout"), s->timeouts);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/* Writeback closes no gate, so the allocation's wait for it concerns nobody else ... */
TEST_F_TIMEOUT(stall, first_pass, 60)
{
	struct held_pages *s = &self->s;

	alloc_under_writeback(_metadata, s, self->page, self->other, AMPLE_MS);
	EXPECT_EQ(s->alloc.err, 0);
	EXPECT_GT(to_ms(s->alloc.us), STALL_MS - PROMPT_MS)
		TH_LOG("the allocation did not wait for the server");
}

/* ... and is over with the budget ... */
TEST_F_TIMEOUT(stall, budget_spent, 60)
{
	struct held_pages *s = &self->s;

	alloc_under_writeback(_metadata, s, self->page, self->other, 400);
	EXPECT_NE(s->alloc.err, 0);
	EXPECT_LT(to_ms(s->alloc.us), 400 + PROMPT_MS + from_env(SLACK_MS, 1000));
}

/* ... but without one, it is not, and there is no wait for pins. */
TEST_F_TIMEOUT(stall, no_budget, 60)
{
	unsigned long waits = vm_counter("pin_gate_wait");
	struct held_pages *s = &self->s;

	alloc_under_writeback(_metadata, s, self->page, self->other, 0);
	EXPECT_GT(to_ms(s->alloc.us), STALL_MS - PROMPT_MS);
	EXPECT_EQ(vm_counter("pin_gate_wait"), waits);
}

/*
 * A long-term pin has to migrate a page that an allocation without a budget has taken
 * off the LRU, and cannot: it retries, but must not burn the CPU for that.
 */
TEST_F_TIMEOUT(stall, longterm, 60)
{
	struct held_pages *s = &self->s;
	struct pin_longterm_test args = {
		.addr = (uintptr_t)self->page,
		.size = psize(),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_FAST,
	};
	long long start, us, cpu;
	int fd, ret;

	fd = open("/sys/kernel/debug/gup_test", O_RDWR);
	if (fd < 0) {
		stack_finish(s);
		SKIP(return, "no gup_test: needs CONFIG_GUP_TEST");
	}
	ASSERT_EQ(put_num(budget_file(), 0), 0);
	server->stall_ms = STALL_MS;
	ASSERT_TRUE(stack_write_back(s, self->page, 'x') && allocation_start(&s->alloc));
	sleep_until(now_us() + STALL_MS / 4 * USEC_PER_MSEC);
	start = now_us();
	cpu = cpu_us();
	ret = ioctl(fd, PIN_LONGTERM_TEST_START, &args);
	cpu = cpu_us() - cpu;
	us = now_us() - start;
	EXPECT_EQ(ret, 0);
	ioctl(fd, PIN_LONGTERM_TEST_STOP);
	close(fd);
	stack_finish(s);
	ksft_print_msg("the pin took %ld ms, %ld ms of CPU; the allocation %ld ms\n",
		       to_ms(us), to_ms(cpu), to_ms(s->alloc.us));

	EXPECT_GT(to_ms(us), STALL_MS / 4);
	EXPECT_LT(cpu, us / 2);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * A hostile owner: unprivileged, and keeps a pin by direct I/O on a file whose
 * server does not answer. CMA_GUP_CYCLE_OWNER_MS in the environment: for how long.
 */

static unsigned int owner_ms(void)
{
	return from_env("CMA_GUP_CYCLE_OWNER_MS", 4000);
}

/* The child opens the file: to close it, the parent would have to wait for the server. */
static pid_t owner_start(char *page)
{
	pid_t pid = fork();
	int fd;

	if (!pid) {
		fd = open(FUSE_FILE, O_RDWR | O_DIRECT);
		if (setresuid(65534, 65534, 65534) || prctl(PR_SET_PDEATHSIG, SIGKILL))
			_exit(KSFT_FAIL);
		_exit(pwrite(fd, page, psize(), 0) == psize() ? KSFT_PASS : KSFT_FAIL);
	}
	return pid;
}

FIXTURE(owner)
{
	struct held_pages s;
};

FIXTURE_VARIANT(owner)
{
	unsigned int budget_ms;
};

/* Gates open and close again within the time that one call waits. */
FIXTURE_VARIANT_ADD(owner, short_budget) { .budget_ms = 200 };
FIXTURE_VARIANT_ADD(owner, default_budget) { .budget_ms = 1000 };
/* Gates stay closed for longer than anybody waits. */
FIXTURE_VARIANT_ADD(owner, long_budget) { .budget_ms = 3000 };

FIXTURE_SETUP(owner)
{
	if (!stack_begin(_metadata, &self->s, STORAGE_FUSE))
		return;
	ASSERT_TRUE(stack_start(&self->s, STORAGE_FUSE));
}

FIXTURE_TEARDOWN_PARENT(owner)
{
	restore_all();
}

TEST_F_TIMEOUT(owner, pinners, 120)
{
	long long end = now_us() + owner_ms() * USEC_PER_MSEC;
	struct allocations allocs = { };
	struct held_pages *s = &self->s;
	struct pinner p[2];
	int status = 0;
	unsigned int i;
	pid_t owner;
	char *page;

	/* The last allocation ends before this does. */
	server->stall_ms = owner_ms() + PROMPT_MS + from_env(SLACK_MS, 1000);
	page = held_pages_pick(s, &s->buf, MB);
	ASSERT_TRUE(page && !put_num(budget_file(), variant->budget_ms));
	/* Writable, unlike the pool. */
	page = s->rw + (page - s->buf.addr);
	owner = owner_start(page);
	ASSERT_GT(owner, 0);
	while (!read_once(server->io_since) && now_us() < end)
		usleep(1000);
	ASSERT_NE(read_once(server->io_since), 0);

	for (i = 0; i < ARRAY_SIZE(p); i++)
		ASSERT_TRUE(pinner_start(&p[i], s, page));
	while (now_us() < end - variant->budget_ms * USEC_PER_MSEC)
		allocations_try(&allocs);
	for (i = 0; i < ARRAY_SIZE(p); i++)
		pinner_stop(&p[i]);
	waitpid(owner, &status, 0);
	for (i = 0; i < ARRAY_SIZE(p); i++) {
		ksft_print_msg("the longest of %lu I/Os took %ld ms, bound %d ms\n",
			       p[i].calls, to_ms(p[i].longest_us), BOUND_MS);
		EXPECT_GT(to_ms(p[i].longest_us), 50);
		EXPECT_LT(to_ms(p[i].longest_us), BOUND_MS + PROMPT_MS);
		EXPECT_EQ(p[i].errors, 0);
	}
	allocations_print(&allocs);
	EXPECT_EQ(status, 0);
	EXPECT_GT(allocs.tried, 0);
	EXPECT_EQ(allocs.succeeded, 0);
	/* The budget does not count the first pass, which is slow on a slow kernel. */
	EXPECT_LT(to_ms(allocs.longest_us),
		  variant->budget_ms + PROMPT_MS + from_env(SLACK_MS, 1000));
	EXPECT_GT(vm_counter("pin_gate_wait"), s->waits);
	if (variant->budget_ms > BOUND_MS)
		EXPECT_GT(vm_counter("pin_gate_timeout"), s->timeouts);
	stack_finish(s);
	EXPECT_TRUE(pins_back_to(s->pins));
}

/*
 * Passthrough: the pins are taken with the only tag of the device in hand, which
 * writeback can need. So these do not wait.
 */

/* The name of scsi_debug's disk, if that has but one tag. */
static const char *scsi_disk(void)
{
	static char disk[16];
	struct dirent *entry;
	char path[512], model[32];
	DIR *dir;

	if (read_num("/sys/module/scsi_debug/parameters/max_queue") != 1)
		return NULL;
	dir = opendir("/sys/block");
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/block/%s/device/model", entry->d_name);
		if (!strncmp(entry->d_name, "sd", 2) &&
		    read_file(path, model, sizeof(model)) > 0 &&
		    !strncmp(model, "scsi_debug", 10))
			snprintf(disk, sizeof(disk), "%.15s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return disk[0] ? disk : NULL;
}

static int passthrough_read(const char *disk, char *buf)
{
	unsigned char sense[32], read10[10] = { 0x28, [8] = psize() / 512 };
	struct sg_io_hdr hdr = {
		.interface_id = 'S',
		.dxfer_direction = SG_DXFER_FROM_DEV,
		.cmdp = read10,
		.cmd_len = sizeof(read10),
		.sbp = sense,
		.mx_sb_len = sizeof(sense),
		.dxferp = buf,
		.dxfer_len = psize(),
		.timeout = 20000,
	};
	char path[32];
	int fd, ret;

	snprintf(path, sizeof(path), "/dev/%s", disk);
	fd = open(path, O_RDWR);
	ret = ioctl(fd, SG_IO, &hdr);
	close(fd);
	return ret ? -errno : hdr.status;
}

FIXTURE(passthrough)
{
	struct held_pages s;
	char *page;
};

FIXTURE_SETUP(passthrough)
{
	if (area.budget < 0)
		SKIP(return, NO_BUDGET);
	self->page = held_pages_of_one_page(&self->s);
	ASSERT_NE(self->page, NULL);
}

FIXTURE_TEARDOWN_PARENT(passthrough)
{
	restore_all();
}

TEST_F_TIMEOUT(passthrough, one_tag, 60)
{
	const char *disk = access("/sys/module/scsi_debug", F_OK) ? NULL : scsi_disk();
	const char *missing = ext4_missing();
	struct held_pages *s = &self->s;
	long long start, us, sync_us;
	unsigned long waits;
	int fd, err;

	if (!disk)
		SKIP(return, "no disk of scsi_debug with max_queue=1");
	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_TRUE(fs_create(disk, "ext4", "mkfs.ext4 -q -O ^has_journal", "noatime"));
	fd = file_create(FS_MNT "/file", MB);
	ASSERT_GE(fd, 0);
	ASSERT_TRUE(held_pages_close_gates(s, AMPLE_MS));
	waits = vm_counter("pin_gate_wait");

	EXPECT_EQ(pwrite(fd, "x", 1, 0), 1);
	start = now_us();
	EXPECT_EQ(sync_file_range(fd, 0, MB, SYNC_FILE_RANGE_WRITE), 0);
	err = passthrough_read(disk, self->page);
	us = now_us() - start;
	EXPECT_EQ(fsync(fd), 0);
	sync_us = now_us() - start;
	EXPECT_TRUE(gate_is_closed(s->quick, self->page))
		TH_LOG("the gate was opened too early for this test");
	EXPECT_EQ(vm_counter("pin_gate_wait"), waits);
	close(fd);
	held_pages_finish(s);
	ksft_print_msg("passthrough took %ld ms, writeback %ld ms\n", to_ms(us), to_ms(sync_us));
	EXPECT_EQ(err, 0);
	EXPECT_LT(to_ms(us), PROMPT_MS);
	EXPECT_LT(to_ms(sync_us), 2 * PROMPT_MS);
	EXPECT_TRUE(pins_back_to(s->pins));
}

int main(int argc, char **argv)
{
	server = map_shared(sizeof(*server));
	server->ublk_id = -1;
	env_prepare(restore_all);
	return test_harness_run(argc, argv);
}
