// SPDX-License-Identifier: GPL-2.0
/*
 * What the tests of CMA under direct I/O have in common: the area, memory in
 * it, devices, counters.
 *
 * To have memory in the area, two properties of the page allocator are used:
 * movable allocations are served from CMA while it has more than half of a
 * zone's free memory, and nothing is while the whole area is allocated. So:
 * allocate the area, use up regular memory with a ballast, free the area, and
 * populate new memory.
 */

#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-heap.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "cma_util.h"
#include "vm_util.h"
#include "hugepage_settings.h"

#define SYSFS_CMA	"/sys/kernel/mm/cma"
#define CONFIGFS_NULLB	"/sys/kernel/config/nullb"
#define HEAPS		"/dev/dma_heap"
#define FS_DEV		NULLB_PREFIX "fs"
#define SLOW_DEV	NULLB_PREFIX "slow"

/* Regular memory that stays free for everybody else. */
#define SLACK		(32 * MB)
#define MIN_LEAVE	(48 * MB)
/* More free memory than this is not worth to be used up for a test. */
#define MAX_BALLAST	(sizeof(long) == 8 ? 4096 * MB : 1024 * MB)

char reason[512];

/* Remember why something cannot be done: for SKIP() and for messages. */
__printf(1, 2) bool because(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	return false;
}

FILE *csv_open(const char *path, const char *header)
{
	FILE *f = fopen(path, "a");

	if (!f) {
		because("cannot open %s: %s", path, strerror(errno));
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

	return (!fclose(f) && !bad) || because("cannot write to %s", path);
}

long long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * USEC_PER_SEC + ts.tv_nsec / 1000;
}

/* Returns 0 or -errno. */
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

int memory_set_state(unsigned long block, const char *state, unsigned int seconds)
{
	char path[128];
	int status;
	pid_t pid;

	snprintf(path, sizeof(path), MEMORY_SYS "/memory%lu/state", block);
	pid = fork();
	if (!pid) {
		/* The default action of SIGALRM, which ends offlining. */
		signal(SIGALRM, SIG_DFL);
		alarm(seconds);
		_exit(put_str(path, state) ? KSFT_FAIL : KSFT_PASS);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

/* The number behind "name" in a file such as /proc/vmstat, 0 if not there. */
static unsigned long stat_value(const char *path, const char *name)
{
	size_t len = strlen(name);
	unsigned long val = 0;
	char line[256];
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, len) && strchr(": ", line[len])) {
			val = strtoul(line + len + 1, NULL, 10);
			break;
		}
	}
	fclose(f);
	return val;
}

unsigned long vm_counter(const char *name)
{
	return stat_value("/proc/vmstat", name);
}

size_t mem_bytes(const char *name)
{
	return stat_value("/proc/meminfo", name) * KB;
}

/* Pins taken and not yet released, all over the system. */
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

unsigned long num_option(const char *name, const char *arg, unsigned long lowest,
			 unsigned long highest)
{
	unsigned long val;
	char *end;

	errno = 0;
	val = strtoul(arg, &end, 10);
	if (errno || end == arg || *end || *arg == '-' || val < lowest || val > highest) {
		fprintf(stderr, "%s: --%s %s: give a number from %lu to %lu\n",
			program_invocation_short_name, name, arg, lowest, highest);
		exit(KSFT_FAIL);
	}
	return val;
}

/*
 * The CMA area
 */

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

int area_set_budget(const struct cma_area *a, unsigned long ms)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSFS_CMA "/%s/drain_budget_ms", a->name);
	return put_num(path, ms);
}

unsigned long area_get(const char *file)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/%s", area.name, file);
	return read_num(path);
}

const char *budget_file(void)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), SYSFS_CMA "/%s/drain_budget_ms", area.name);
	return path;
}

static bool area_has(unsigned long pfn)
{
	return pfn >= area.base_pfn && pfn < area.base_pfn + area.count;
}

int area_alloc(void)
{
	return area_put(&area, "alloc", area.count);
}

/* Frees only what was allocated through debugfs. */
void area_free(void)
{
	area_put(&area, "free", area.count);
}

/* Allocate an area while there is no load: then it has to work soon. */
bool area_take(const struct cma_area *a)
{
	int i, err = 0;

	for (i = 0; i < 50; i++) {
		err = area_put(a, "alloc", a->count);
		if (!err)
			return true;
		usleep(20000);
	}
	return because("area %s cannot be allocated even without load: %s",
		       a->name, strerror(-err));
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

static void area_consider(const char *name)
{
	struct cma_area a;

	if (area_read(&a, name) && a.count > area.count)
		area = a;
}

static bool area_find(void)
{
	struct dirent *entry;
	DIR *dir;

	dir = opendir(DEBUGFS_CMA);
	if (!dir)
		return because("no %s: needs debugfs, CONFIG_CMA_DEBUGFS and e.g. cma=256M",
			       DEBUGFS_CMA);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			area_consider(entry->d_name);
	closedir(dir);
	if (area_bytes() < 64 * MB)
		return because("no unused CMA area of one range and at least 64 MB, e.g. cma=256M");
	return true;
}

/* Free the start of the area last: then it is used first. */
static bool area_offer_low(void)
{
	unsigned long low = min_size(8 * MB / psize(), area.count / 2);
	int i, err = 0;

	for (i = 0; i < 50; i++) {
		err = area_put(&area, "alloc", low) ?:
		      area_put(&area, "alloc", area.count - low);
		area_free();
		if (!err)
			return true;
		usleep(20000);
	}
	return because("area %s cannot be allocated in two parts: %s", area.name,
		       strerror(-err));
}

/*
 * The heap
 */

int heap_alloc(int heap, size_t bytes)
{
	struct dma_heap_allocation_data data = {
		.len = bytes,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};

	return ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data) ? -errno : (int)data.fd;
}

/* The names do not tell which area a heap has: try it. */
static bool heap_has_area(int heap)
{
	int fd = heap_alloc(heap, psize());
	bool used;

	if (fd < 0)
		return false;
	used = area_get("used");
	close(fd);
	return used;
}

int heap_open(void)
{
	struct dirent *entry;
	int fd = -1;
	DIR *dir;

	dir = opendir(HEAPS);
	while (dir && fd < 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && !heap_has_area(fd)) {
			close(fd);
			fd = -1;
		}
	}
	if (dir)
		closedir(dir);
	if (fd < 0)
		because("no heap in " HEAPS " has the area %s: needs CONFIG_DMABUF_HEAPS_CMA",
			area.name);
	return fd;
}

/*
 * The devices
 */

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

static int nullb_open(const char *dev)
{
	char path[PATH_MAX];
	int fd, i;

	snprintf(path, sizeof(path), "/dev/%s", dev);
	for (i = 0; i < 100; i++) {
		fd = open(path, O_RDWR | O_DIRECT);
		if (fd >= 0)
			return fd;
		usleep(10000);
	}
	because("cannot open %s: %s", path, strerror(errno));
	return -1;
}

/* Create a device and open it; -1 with the reason set if that fails. */
int nullb_create(const char *dev, const struct nullb_conf *conf)
{
	char path[PATH_MAX];
	int err = 0;

	nullb_destroy(dev);
	snprintf(path, sizeof(path), CONFIGFS_NULLB "/%s", dev);
	if (mkdir(path, 0700)) {
		because("cannot create %s: %s", path, strerror(errno));
		return -1;
	}
	err = err ?: nullb_set(dev, "size", (conf->bytes + MB - 1) / MB);
	err = err ?: nullb_set(dev, "blocksize", conf->blocksize ?: 512);
	err = err ?: nullb_set(dev, "max_sectors", 2048);
	err = err ?: nullb_set(dev, "irqmode", 2);
	err = err ?: nullb_set(dev, "completion_nsec",
			       conf->completion_us * 1000UL);
	err = err ?: nullb_set(dev, "submit_queues",
			       conf->scheduler ? 1 : sysconf(_SC_NPROCESSORS_ONLN));
	err = err ?: nullb_set(dev, "poll_queues", conf->poll_queues);
	err = err ?: nullb_set(dev, "no_sched", !conf->scheduler);
	err = err ?: nullb_set(dev, "hw_queue_depth", conf->depth);
	err = err ?: nullb_set(dev, "memory_backed", conf->memory_backed);
	err = err ?: nullb_set(dev, "power", 1);
	if (err) {
		because("cannot set up %s: %s", path, strerror(-err));
		nullb_destroy(dev);
		return -1;
	}
	return nullb_open(dev);
}

/* Shell commands for what has no plain system call: mkfs, mount, modprobe. */
__printf(1, 2) bool run_cmd(const char *fmt, ...)
{
	char cmd[PATH_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, args);
	va_end(args);
	return !system(cmd);
}

static bool nullb_available(void)
{
	if (access(CONFIGFS_NULLB, W_OK))
		run_cmd("modprobe -q null_blk nr_devices=0 2>/dev/null");
	if (access(CONFIGFS_NULLB, W_OK))
		return because("no %s: needs configfs and CONFIG_BLK_DEV_NULL_BLK",
			       CONFIGFS_NULLB);
	return true;
}

static unsigned long hugetlb_before;

bool gate_is_closed(int fd, char *page)
{
	struct iovec iov = { .iov_base = page, .iov_len = psize() };

	/* A write, to leave the page alone. */
	return pwritev2(fd, &iov, 1, 0, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

bool slow_pins_create(struct slow_pins *pins, unsigned int hold_ms, unsigned int max)
{
	struct nullb_conf conf = { .bytes = MB, .completion_us = hold_ms * 1000, .depth = 64 };

	pins->fd = nullb_create(SLOW_DEV, &conf);
	if (pins->fd < 0)
		return false;
	if (syscall(__NR_io_setup, max, &pins->ctx))
		return because("io_setup: %s", strerror(errno));
	return true;
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
		return because("io_submit: %s", strerror(errno));
	pins->nr++;
	return true;
}

void slow_pins_finish(struct slow_pins *pins)
{
	struct io_event event;

	for (; pins->nr; pins->nr--)
		syscall(__NR_io_getevents, pins->ctx, 1, 1, &event, NULL);
}

bool fs_create(const char *dev, const char *type, const char *mkfs, const char *options)
{
	char name[16] = "";
	size_t i;

	mkdir(FS_MNT, 0700);
	if (!run_cmd("%s /dev/%s >/dev/null 2>&1", mkfs, dev))
		return because("'%s' failed: is it installed?", mkfs);
	if (run_cmd("mount -t %s -o %s /dev/%s " FS_MNT " 2>/dev/null", type, options, dev))
		return true;
	for (i = 0; type[i] && i < sizeof(name) - 1; i++)
		name[i] = toupper(type[i]);
	return because("cannot mount %s: needs CONFIG_%s_FS", type, name);
}

/* Bring back all that a test, even one that was killed, can leave behind. */
void system_restore(void)
{
	area_free();
	hugetlb_set_nr_default_pages(hugetlb_before);
	if (area.budget >= 0)
		put_num(budget_file(), area.budget);
	if (!access(FS_MNT, F_OK)) {
		run_cmd("umount " FS_MNT " 2>/dev/null");
		rmdir(FS_MNT);
	}
	nullb_destroy_all();
}

/*
 * The ballast: regular memory that is used up. Most of it belongs to the parent
 * of the tests, because it takes time to populate; a test can add some.
 */

static struct {
	pid_t owner;
	char *addr;
	size_t used;
} ballast;

/* At least that much: somebody may allocate or free an area meanwhile. */
static size_t regular_free(void)
{
	size_t cma = mem_bytes("CmaFree"), free = mem_bytes("MemFree");

	cma = max_size(cma, mem_bytes("CmaFree"));
	return free > cma ? free - cma : 0;
}

static bool ballast_reserve(void)
{
	if (ballast.owner == getpid())
		return true;
	ballast.addr = mmap(NULL, MAX_BALLAST, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ballast.addr == MAP_FAILED)
		return because("cannot map the ballast: %s", strerror(errno));
	ballast.owner = getpid();
	ballast.used = 0;
	/* Huge pages are only for speed, and no child needs a copy. */
	madvise(ballast.addr, MAX_BALLAST, MADV_HUGEPAGE);
	madvise(ballast.addr, MAX_BALLAST, MADV_DONTFORK);
	return true;
}

bool ballast_grow(size_t leave)
{
	size_t free, len;

	while ((free = regular_free()) > leave + 4 * MB) {
		len = (free - leave) & ~(2 * MB - 1);
		if (len > MAX_BALLAST - ballast.used)
			return because("%zu MB free outside of the area: too much, try mem=1G",
				       free / MB);
		if (madvise(ballast.addr + ballast.used, len, MADV_POPULATE_WRITE))
			return because("cannot populate the ballast: %s", strerror(errno));
		ballast.used += len;
	}
	return true;
}

/*
 * Grow until only so much regular memory is free. Allocating the area also
 * empties the per-CPU lists of free pages, which would be used first.
 */
bool ballast_leave_at_most(size_t leave)
{
	bool ok;

	if (!area_take(&area))
		return false;
	ok = ballast_reserve() && ballast_grow(leave);
	area_free();
	return ok;
}

/* Shrink until so much regular memory is free. */
void ballast_leave_at_least(size_t leave)
{
	size_t free = regular_free();
	size_t len;

	if (ballast.owner != getpid() || free >= leave)
		return;
	len = min_size((leave - free + 2 * MB) & ~(2 * MB - 1), ballast.used);
	ballast.used -= len;
	madvise(ballast.addr + ballast.used, len, MADV_DONTNEED);
}

/*
 * While there is swap, reclaim splits huge pages of the ballast, and frees what is
 * zero in them. If much is gone, use it up again, but not all: that is what keeps
 * the kernel from running out of memory.
 */
bool ballast_renew(size_t leave)
{
	if (regular_free() < leave + 64 * MB)
		return true;
	ballast_leave_at_least(SIZE_MAX / 2);
	return ballast_reserve() && ballast_grow(leave + 16 * MB);
}

/*
 * The pool: memory in the area, of which the load uses a part for its buffers
 */

static bool pool_file_fill(int fd, size_t bytes)
{
	static char buf[MB];
	size_t done;

	for (done = 0; done < bytes; done += sizeof(buf)) {
		memset(buf, done / sizeof(buf), sizeof(buf));
		if (write(fd, buf, sizeof(buf)) != sizeof(buf))
			return because("cannot write the file: %s", strerror(errno));
	}
	if (fsync(fd))
		return because("cannot write back the file: %s", strerror(errno));
	return true;
}

/* A file system in memory. Not tmpfs: its pages are those of POOL_SHMEM. */
static bool pool_file_create(struct pool *pool)
{
	struct nullb_conf conf = {
		.bytes = pool->bytes + pool->bytes / 8 + 16 * MB,
		.completion_us = 10,
		.depth = 64,
		.memory_backed = true,
	};
	bool ok;
	int fd;

	fd = nullb_create(FS_DEV, &conf);
	if (fd < 0)
		return false;
	close(fd);
	if (!fs_create(FS_DEV, "ext4", "mkfs.ext4 -q -O ^has_journal", "noatime"))
		return false;
	fd = open(FS_MNT "/pool", O_CREAT | O_RDWR, 0600);
	if (fd < 0)
		return because("cannot create a file: %s", strerror(errno));
	ok = pool_file_fill(fd, pool->bytes);
	close(fd);
	if (!ok)
		return false;
	/* Without writers no page of the file gets dirty or under writeback. */
	if (!run_cmd("mount -o remount,ro " FS_MNT " 2>/dev/null"))
		return because("cannot mount the file system read-only");
	pool->fd = open(FS_MNT "/pool", O_RDONLY);
	if (pool->fd < 0)
		return because("cannot open the file: %s", strerror(errno));
	return true;
}

/* What a kind of memory needs once, or why it is not there. */
bool pool_prepare(struct pool *pool, enum pool_kind kind, size_t bytes)
{
	*pool = (struct pool){
		.kind = kind,
		.bytes = (bytes + 2 * MB - 1) & ~(2 * MB - 1),
		.fd = -1,
		.pagemap = -1,
	};

	switch (kind) {
	case POOL_THP:
		if (!thp_is_enabled() || read_pmd_pagesize() != 2 * MB)
			return because("no transparent huge pages of 2 MB");
		break;
	case POOL_HUGETLB:
		if (default_huge_page_size() != 2 * MB)
			return because("no hugetlb pages of 2 MB");
		break;
	case POOL_FILE:
		return pool_file_create(pool);
	default:
		break;
	}
	return true;
}

/* Map without populating, aligned for huge pages. */
static char *pool_mmap(struct pool *pool)
{
	size_t len = pool->bytes, huge = 2 * MB;
	char *addr, *start;

	switch (pool->kind) {
	case POOL_HUGETLB:
		return mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	case POOL_SHMEM:
		return mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	case POOL_FILE:
		return mmap(NULL, len, PROT_READ, MAP_SHARED, pool->fd, 0);
	default:
		break;
	}

	addr = mmap(NULL, len + huge, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (addr == MAP_FAILED)
		return addr;
	start = (char *)(((uintptr_t)addr + huge - 1) & ~(huge - 1));
	if (start > addr)
		munmap(addr, start - addr);
	munmap(start + len, addr + huge - start);
	madvise(start, len, pool->kind == POOL_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return start;
}

void pool_unmap(struct pool *pool)
{
	if (!pool->addr)
		return;
	munmap(pool->addr, pool->bytes);
	pool->addr = NULL;
	close(pool->pagemap);
	if (pool->kind == POOL_HUGETLB)
		hugetlb_set_nr_default_pages(hugetlb_before);
	if (pool->kind == POOL_FILE)
		posix_fadvise(pool->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static bool pool_map(struct pool *pool)
{
	int populate = pool->kind == POOL_FILE ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;
	char *addr;

	if (pool->kind == POOL_HUGETLB)
		hugetlb_set_nr_default_pages(hugetlb_before + pool->bytes / (2 * MB));
	addr = pool_mmap(pool);
	if (addr == MAP_FAILED)
		return because("cannot map the buffers: %s", strerror(errno));
	pool->addr = addr;
	pool->pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (pool->pagemap < 0 || madvise(addr, pool->bytes, populate)) {
		because("cannot populate the buffers: %s", strerror(errno));
		pool_unmap(pool);
		return false;
	}
	if (pool->kind == POOL_THP &&
	    !check_huge_anon(addr, pool->bytes, pool->bytes / (2 * MB), 2 * MB)) {
		because("the buffers are not in huge pages");
		pool_unmap(pool);
		return false;
	}
	return true;
}

/*
 * How much regular memory may be free for a pool to be populated in the area:
 * free CMA memory has to be more than that to the end.
 */
size_t pool_may_leave(size_t bytes)
{
	size_t least = max_size(MIN_LEAVE, bytes / 4);

	if (area_bytes() < bytes + SLACK + least)
		return least;
	return area_bytes() - bytes - SLACK;
}

bool pools_fill(struct pool *pools[], unsigned int nr)
{
	size_t bytes = 0;
	unsigned int i;

	for (i = 0; i < nr; i++)
		bytes += pools[i]->bytes;
	if (!ballast_leave_at_most(pool_may_leave(bytes)) ||
	    (pools[0]->low && !area_offer_low()))
		return false;
	for (i = 0; i < nr; i++)
		if (!pool_map(pools[i]))
			return false;
	/* The allocation has to find room for what it moves. */
	ballast_leave_at_least(bytes + SLACK);
	return true;
}

bool pool_fill(struct pool *pool)
{
	return pools_fill(&pool, 1);
}

bool pool_fill_outside(struct pool *pool)
{
	bool ok;

	if (!area_take(&area))
		return false;
	ok = pool_map(pool);
	area_free();
	return ok;
}

/* How many pages of a part of the pool are in the area? */
size_t resident_pages(const struct pool *pool, const char *addr, size_t len)
{
	size_t page = (uintptr_t)addr / psize();
	size_t end = page + len / psize();
	size_t i, nr, resident = 0;
	__u64 ent[512];

	for (; page < end; page += nr) {
		nr = min_size(end - page, ARRAY_SIZE(ent));
		if (pread(pool->pagemap, ent, nr * sizeof(ent[0]), page * sizeof(ent[0])) !=
		    (ssize_t)(nr * sizeof(ent[0])))
			return 0;
		for (i = 0; i < nr; i++)
			if (PAGEMAP_PRESENT(ent[i]) && area_has(PAGEMAP_PFN(ent[i])))
				resident++;
	}
	return resident;
}

char *resident_page(const struct pool *pool, size_t offset)
{
	for (; offset < pool->bytes; offset += psize())
		if (resident_pages(pool, pool->addr + offset, psize()))
			return pool->addr + offset;
	because("no page of the buffers is in the area");
	return NULL;
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

bool system_prepare(void (*restore)(void))
{
	if (geteuid())
		return because("needs root");
	if (!area_find() || !nullb_available())
		return false;
	hugetlb_before = hugetlb_nr_default_pages();
	main_pid = getpid();
	restore_all = restore;
	atexit(restore_at_exit);
	signal(SIGHUP, restore_on_signal);
	signal(SIGINT, restore_on_signal);
	signal(SIGTERM, restore_on_signal);
	system_restore();
	return true;
}
