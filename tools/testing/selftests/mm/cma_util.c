// SPDX-License-Identifier: GPL-2.0
/* For tests of CMA under direct I/O: the area, memory in it, devices, counters */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <mm/gup_test.h>
#include "cma_util.h"
#include "vm_util.h"

#define GUP_TEST	"/sys/kernel/debug/gup_test"
#define CONFIGFS_NULLB	"/sys/kernel/config/nullb"
#define SLOW_DEV	NULLB_PREFIX "slow"
#define CACHE_DEV	NULLB_PREFIX "cache"

long long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * USEC_PER_SEC + ts.tv_nsec / 1000;
}

int put_str(const char *path, const char *val)
{
	int fd = open(path, O_WRONLY);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, val, strlen(val)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

int put_num(const char *path, unsigned long val)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "%lu", val);
	return put_str(path, buf);
}

unsigned long stat_value(const char *path, const char *name)
{
	char line[128], key[64];
	unsigned long val, found = 0;
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63[^: ]%*[: ]%lu", key, &val) == 2 && !strcmp(key, name))
			found = val;
	fclose(f);
	return found;
}

long pins_held(void)
{
	/* The counters are batched per CPU. */
	put_num("/proc/sys/vm/stat_refresh", 1);
	return vm_counter("nr_foll_pin_acquired") - vm_counter("nr_foll_pin_released");
}

/* Releases can trail the completion of the I/O. */
bool pins_back_to(long before)
{
	int i;

	for (i = 0; i < 200; i++) {
		if (pins_held() == before)
			return true;
		usleep(10000);
	}
	return false;
}

/* The CMA area */

struct cma_area area;

size_t area_bytes(void)
{
	return area.count * psize();
}

int area_put(const struct cma_area *a, const char *file, unsigned long val)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/%s", a->name, file);
	return put_num(path, val);
}

const char *budget_file(void)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSFS_CMA "/%s/drain_budget_ms", area.name);
	return path;
}

int area_alloc(void)
{
	return area_put(&area, "alloc", area.count);
}

void area_free(void)
{
	area_put(&area, "free", area.count);
}

bool area_read(struct cma_area *a, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/ranges/1", name);
	if (!access(path, F_OK))
		return false;
	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/used", name);
	if (access(path, R_OK) || read_num(path))
		return false;
	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/count", name);
	a->count = read_num(path);
	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/base_pfn", name);
	a->base_pfn = read_num(path);
	snprintf(path, sizeof(path), SYSFS_CMA "/%s/drain_budget_ms", name);
	a->budget = access(path, F_OK) ? -1 : (long)read_num(path);
	snprintf(a->name, sizeof(a->name), "%s", name);
	return true;
}

static void area_find(void)
{
	struct dirent *entry;
	struct cma_area a;
	DIR *dir;

	dir = opendir(DEBUGFS_CMA);
	if (!dir)
		ksft_exit_skip("no " DEBUGFS_CMA ": needs debugfs and CONFIG_CMA_DEBUGFS\n");
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && area_read(&a, entry->d_name) &&
		    a.count > area.count)
			area = a;
	closedir(dir);
	if (area_bytes() < 64 * MB)
		ksft_exit_skip("no unused CMA area of one range and 64 MB: boot with cma=64M\n");
}

/* The devices */

static int nullb_set(const char *dev, const char *attr, unsigned long val)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CONFIGFS_NULLB "/%s/%s", dev, attr);
	return put_num(path, val);
}

void nullb_destroy(const char *dev)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), CONFIGFS_NULLB "/%s", dev);
	if (access(path, F_OK))
		return;
	nullb_set(dev, "power", 0);
	rmdir(path);
}

/* All those of these tests, that is. */
static void nullb_destroy_all(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(CONFIGFS_NULLB);
	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, NULLB_PREFIX, strlen(NULLB_PREFIX)))
			nullb_destroy(entry->d_name);
	closedir(dir);
}

int nullb_create(const char *dev, const struct nullb_conf *conf)
{
	const struct {
		const char *name;
		unsigned long val;
	} attrs[] = {
		{ "size", (conf->bytes + MB - 1) / MB },
		{ "blocksize", conf->blocksize ?: 512 },
		{ "max_sectors", 2048 },
		{ "irqmode", 2 },
		{ "completion_nsec", conf->completion_us * 1000UL },
		{ "submit_queues", conf->scheduler ? 1 : sysconf(_SC_NPROCESSORS_ONLN) },
		{ "poll_queues", conf->poll_queues },
		{ "no_sched", !conf->scheduler },
		{ "hw_queue_depth", conf->depth },
		{ "memory_backed", conf->memory_backed },
		{ "power", 1 },
	};
	char path[PATH_MAX];
	unsigned int i;
	int err, fd = -1;

	nullb_destroy(dev);
	snprintf(path, sizeof(path), CONFIGFS_NULLB "/%s", dev);
	err = mkdir(path, 0700) ? -errno : 0;
	for (i = 0; !err && i < ARRAY_SIZE(attrs); i++)
		err = nullb_set(dev, attrs[i].name, attrs[i].val);
	snprintf(path, sizeof(path), "/dev/%s", dev);
	if (!err)
		fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0)
		cannot("set up %s: %s", path, strerror(err ? -err : errno));
	return fd;
}

static void nullb_find(void)
{
	if (access(CONFIGFS_NULLB, W_OK) &&
	    (system("modprobe -q null_blk nr_devices=0") < 0 ||
	     system("mount -t configfs none /sys/kernel/config 2>/dev/null") < 0 ||
	     access(CONFIGFS_NULLB, W_OK)))
		ksft_exit_skip("no " CONFIGFS_NULLB
			       ": needs CONFIG_CONFIGFS_FS and CONFIG_BLK_DEV_NULL_BLK\n");
}

bool slow_pins_create(struct slow_pins *pins, unsigned int hold_ms, unsigned int max)
{
	struct nullb_conf conf = { .bytes = MB, .completion_us = hold_ms * 1000, .depth = 64 };

	pins->fd = nullb_create(SLOW_DEV, &conf);
	if (pins->fd < 0)
		return false;
	return !syscall(__NR_io_setup, max, &pins->ctx) ||
	       cannot("set up AIO: %s", strerror(errno));
}

bool slow_pin(struct slow_pins *pins, char *page)
{
	struct iocb iocb = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_fildes = pins->fd,
		.aio_buf = (uintptr_t)page,
		.aio_nbytes = psize(),
	};
	struct iocb *batch = &iocb;

	if (syscall(__NR_io_submit, pins->ctx, 1, &batch) != 1)
		return cannot("start I/O: %s", strerror(errno));
	pins->nr++;
	return true;
}

void slow_pins_finish(struct slow_pins *pins)
{
	struct io_event event;

	for (; pins->nr; pins->nr--)
		syscall(__NR_io_getevents, pins->ctx, 1, 1, &event, NULL);
}

/* The pool */

static int gup_test = -1;

bool can_move(void)
{
	struct gup_test_move nothing = { };

	if (gup_test < 0)
		gup_test = open(GUP_TEST, O_RDWR | O_CLOEXEC);
	return !ioctl(gup_test, GUP_TEST_MOVE, &nothing);
}

bool pool_prepare(struct pool *pool, enum pool_kind kind, size_t bytes)
{
	struct nullb_conf conf = { .bytes = bytes + POOL_PIECE, .depth = 64 };

	*pool = (struct pool){
		.kind = kind,
		.bytes = (bytes + POOL_PIECE - 1) & ~(POOL_PIECE - 1),
		.fd = -1,
		.pagemap = -1,
	};
	if (kind == POOL_FILE)
		pool->fd = nullb_create(CACHE_DEV, &conf);
	return kind != POOL_FILE || pool->fd >= 0;
}

void pool_unmap(struct pool *pool)
{
	if (!pool->addr)
		return;
	munmap(pool->addr, pool->bytes);
	pool->addr = NULL;
	close(pool->pagemap);
	if (pool->kind == POOL_FILE)
		posix_fadvise(pool->fd, 0, 0, POSIX_FADV_DONTNEED);
}

bool pool_map(struct pool *pool)
{
	bool file = pool->kind == POOL_FILE, thp = pool->kind == POOL_THP;
	int flags = file || pool->kind == POOL_SHMEM ? MAP_SHARED : MAP_PRIVATE;
	/* To align it for huge pages */
	size_t len = pool->bytes, room = flags == MAP_PRIVATE ? POOL_PIECE : 0;
	char *addr = mmap(NULL, len + room, PROT_READ | (file ? 0 : PROT_WRITE),
			  flags | (file ? 0 : MAP_ANONYMOUS), pool->fd, 0);

	if (addr == MAP_FAILED)
		return cannot("map the buffers: %s", strerror(errno));
	if (room)
		addr += -(uintptr_t)addr % room;
	pool->addr = addr;
	pool->pagemap = open("/proc/self/pagemap", O_RDONLY);
	madvise(addr, len, thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	/* Readahead would make folios of any size. */
	madvise(addr, len, MADV_RANDOM);
	if (pool->pagemap < 0 ||
	    madvise(addr, len, file ? MADV_POPULATE_READ : MADV_POPULATE_WRITE))
		cannot("populate the buffers: %s", strerror(errno));
	else if (thp && !check_huge_anon(addr, len, len / (2 * MB), 2 * MB))
		cannot("have the buffers in huge pages");
	else
		return true;
	pool_unmap(pool);
	return false;
}

/* What is in use otherwise, if only for a moment, is worth another try. */
bool pool_move(const struct pool *pool, char *addr, size_t bytes, size_t to)
{
	struct gup_test_move move = {
		.addr = (uintptr_t)addr,
		.size = bytes,
		.pfn = area.base_pfn + to / psize(),
	};
	int i, err = 0;

	for (i = 0; i < 50; i++) {
		err = ioctl(gup_test, GUP_TEST_MOVE, &move) ? errno : 0;
		for (; move.size && resident_pages(pool, addr, psize()); addr += psize()) {
			move.addr += psize();
			move.size -= psize();
			move.pfn++;
		}
		if (!move.size)
			return true;
		usleep(20000);
	}
	return cannot("move %llu pages to the area: %s", move.size / psize(), strerror(err));
}

bool pool_fill(struct pool *pool)
{
	size_t i, nr = pool->bytes / POOL_PIECE, stride = area_bytes() / nr & ~(POOL_PIECE - 1);

	if (!pool->addr && !pool_map(pool))
		return false;
	for (i = 0; i < nr; i++)
		if (!pool_move(pool, pool->addr + i * POOL_PIECE, POOL_PIECE, i * stride))
			return false;
	return true;
}

size_t resident_pages(const struct pool *pool, const char *addr, size_t len)
{
	size_t resident = 0;
	unsigned long pfn;
	const char *page;

	for (page = addr; page < addr + len; page += psize()) {
		pfn = pagemap_get_pfn(pool->pagemap, (char *)page);
		if (pfn - area.base_pfn < area.count)
			resident++;
	}
	return resident;
}

/* The system */

void system_restore(void)
{
	area_free();
	if (area.budget >= 0)
		put_num(budget_file(), area.budget);
	nullb_destroy_all();
}

static pid_t main_pid;
static void (*restore_all)(void);

/* Runs in forked tests, too, if one of them calls exit(). */
static void restore_at_exit(void)
{
	if (getpid() == main_pid)
		restore_all();
}

/* Not all of this may be called here, but to leave it undone would be worse. */
static void restore_on_signal(int sig)
{
	restore_at_exit();
	_exit(KSFT_FAIL);
}

void system_prepare(void (*restore)(void))
{
	if (geteuid())
		ksft_exit_skip("needs root\n");
	area_find();
	nullb_find();
	main_pid = getpid();
	restore_all = restore;
	atexit(restore_at_exit);
	signal(SIGHUP, restore_on_signal);
	signal(SIGINT, restore_on_signal);
	signal(SIGTERM, restore_on_signal);
	system_restore();
}
