// SPDX-License-Identifier: GPL-2.0
/*
 * Cases from the field: what users of CMA have reported, each set up as small as it
 * can be. Direct I/O is only one of the causes. Runs on kernels without pin gates,
 * too, so memory gets into the area by means of cma_ballast.h on all of them.
 *
 * One case per boot: some leave behind what only a new boot removes.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "local_config.h_gen"
#ifdef LOCAL_CONFIG_HAVE_LIBURING
#include <liburing.h>
#endif
#include "cma_ballast.h"
#include "cma_dio_load.h"
#include "cma_storage_server.h"
#include "vm_util.h"

#define TRACING		"/sys/kernel/tracing"
#define FS_DEV		NULLB_PREFIX "fs"
#define FS_CONF		"/sys/kernel/config/nullb/" FS_DEV
#define FS_FILE		FS_MNT "/file"
#define FRAME		(12 * MB / psize())
#define MAX_TRIES	4096

#ifndef EXT4_IOC_CHECKPOINT
#define EXT4_IOC_CHECKPOINT	_IOW('f', 43, __u32)	/* linux/ext4.h */
#endif

static const char * const counters[] = {
	"cma_alloc_success", "cma_alloc_fail", "cma_drain", "cma_drain_fail", "pin_gate_wait",
	"pin_gate_timeout",
};

static const char * const events[] = {
	TRACING "/events/cma/cma_alloc_finish/enable",
	TRACING "/events/page_isolation/test_pages_isolated/enable",
};

/* Allocations that are measured together */
struct set {
	unsigned int tried;
	long long us[MAX_TRIES];
	unsigned int errs[256];		/* how often which error number; 0: success */
	unsigned long delta[ARRAY_SIZE(counters)];
	long long longest_io_us;	/* of those that met an allocation */
	size_t in_area;			/* other memory in the area, at most */
	char note[128];
};

#define SPARE		(16 * MB)
static char *spare;			/* outside of the area, used up until it is needed */

static const char *kernel = "this";
static unsigned int tries, retries;
static struct set sets[3];

static struct load_spec spec;
static struct load load;
static struct pool pool;

static pthread_mutex_t io_lock = PTHREAD_MUTEX_INITIALIZER;
static struct set *io_set;			/* whose the allocation is */
static long long alloc_begin, alloc_end;	/* 0: not yet */

#define note(set, fmt, ...)	\
	snprintf((set)->note, sizeof((set)->note), fmt, ##__VA_ARGS__)

/*
 * Allocations
 */

/* Whose is the page that was in the way? */
static void print_owner(unsigned long pfn)
{
	int flags_fd = open("/proc/kpageflags", O_RDONLY);
	int owner_fd = open("/sys/kernel/debug/page_owner", O_RDONLY);
	__u64 flags = 0;
	char text[4096];
	ssize_t len;

	if (pread(flags_fd, &flags, sizeof(flags), pfn * sizeof(flags)) < 0)
		flags = 0;
	ksft_print_msg("in the way: pfn 0x%lx, kpageflags 0x%llx\n", pfn, flags);
	/* The offset in this file is a pfn. Without page_owner=on, there is no text. */
	len = pread(owner_fd, text, sizeof(text), pfn);
	if (len > 0)
		printf("%.*s", (int)len, text);
	close(flags_fd);
	close(owner_fd);
}

/* debugfs says -ENOMEM for all errors. Also, the last page that was in the way. */
static int traced_error(int err, unsigned long *pfn)
{
	FILE *f = fopen(TRACING "/trace", "r");
	char line[512], *at;

	while (f && fgets(line, sizeof(line), f)) {
		at = strstr(line, "errorno=");
		if (at)
			err = atoi(at + strlen("errorno="));
		at = strstr(line, "fin_pfn=");
		if (at && strstr(at, "ret=fail"))
			*pfn = strtoul(at + strlen("fin_pfn="), NULL, 0);
	}
	if (f)
		fclose(f);
	return err;
}

static int alloc(unsigned long pages)
{
	unsigned int retry;
	int err = area_put(&area, "alloc", pages);

	for (retry = 0; err && retry < retries; retry++) {
		usleep(100000);
		err = area_put(&area, "alloc", pages);
	}
	return err;
}

/* Allocate by that function, and free it. */
static void try_by(struct set *set, int (*by)(unsigned long pages), unsigned long pages)
{
	unsigned long before[ARRAY_SIZE(counters)], pfn = 0;
	unsigned int i;
	int err;

	if (set->tried == MAX_TRIES)
		return;
	set->in_area = max_size(set->in_area,
				area_bytes() - min_size(area_bytes(), mem_bytes("CmaFree")));
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		before[i] = vm_counter(counters[i]);
	close(open(TRACING "/trace", O_WRONLY | O_TRUNC));
	pthread_mutex_lock(&io_lock);
	io_set = set;
	alloc_end = 0;
	alloc_begin = now_us();
	pthread_mutex_unlock(&io_lock);
	err = by(pages);
	pthread_mutex_lock(&io_lock);
	alloc_end = now_us();
	pthread_mutex_unlock(&io_lock);
	set->us[set->tried++] = alloc_end - alloc_begin;
	/* What was moved can have taken the memory that a look at the trace needs. */
	if (spare)
		madvise(spare, SPARE, MADV_DONTNEED);
	ballast_leave_at_least(8 * MB);
	if (err)
		err = traced_error(err, &pfn);
	area_put(&area, "free", pages);
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		set->delta[i] += vm_counter(counters[i]) - before[i];
	if (!set->errs[-err & 0xff]++ && pfn)
		print_owner(pfn);
}

#define try_pages(set, pages)	try_by(set, alloc, pages)
#define try_area(set)		try_pages(set, area.count)

static int cmp_us(const void *a, const void *b)
{
	const long long *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void report(const char *name, struct set *set)
{
	unsigned int i, nr = set->tried;
	const char *sep = "";

	if (!nr)
		return;
	qsort(set->us, nr, sizeof(*set->us), cmp_us);
	printf("result case=%s kernel=%s tried=%u ok=%u p50_ms=%.3f max_ms=%.3f err=", name,
	       kernel, nr, set->errs[0], set->us[(nr - 1) / 2] / 1e3, set->us[nr - 1] / 1e3);
	for (i = 1; i < ARRAY_SIZE(set->errs); i++)
		if (set->errs[i]) {
			printf("%s-%ux%u", sep, i, set->errs[i]);
			sep = "/";
		}
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		printf(" %s=%lu", counters[i], set->delta[i]);
	printf(" longest_io_ms=%.1f in_area_mb=%zu note=%s\n", set->longest_io_us / 1e3,
	       set->in_area / MB, set->note);
}

/*
 * Processes, direct I/O and file systems beside the allocations
 */

static pid_t children[16];
static unsigned int nr_children;

/* A process that does that until it returns, or until reap() */
static pid_t spawn(void (*run)(void *arg), void *arg)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(arg);
		_exit(KSFT_PASS);
	}
	if (pid > 0)
		children[nr_children++] = pid;
	return pid;
}

static void reap(void)
{
	while (nr_children) {
		kill(children[--nr_children], SIGKILL);
		waitpid(children[nr_children], NULL, 0);
	}
}

static void *map(size_t bytes, int flags)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
}

static void note_io(struct load *l, const struct slot *slot)
{
	pthread_mutex_lock(&io_lock);
	if (alloc_begin && (!alloc_end || slot->submitted_us < alloc_end))
		raise_to(&io_set->longest_io_us, now_us() - slot->submitted_us);
	pthread_mutex_unlock(&io_lock);
}

/* One read after the other. Without a buffer, each goes to new memory. */
static void *read_run(void *slots)
{
	struct slot *slot = slots;
	struct load *l = slot->load;
	char *buf = slot->iov->iov_base;
	bool fresh = !buf;
	ssize_t ret;

	while (!read_once(l->stop)) {
		slot->submitted_us = now_us();
		if (fresh)
			buf = map(l->io_bytes, MAP_PRIVATE);
		ret = pread(l->fd, buf, l->io_bytes, slot->id * l->io_bytes);
		slot_done(slot, ret < 0 ? -errno : ret);
		if (fresh && buf != MAP_FAILED)
			munmap(buf, l->io_bytes);
	}
	return NULL;
}

/* So many threads that read one by one, or 2 x 16 reads by AIO; and a pool for it */
static bool load_setup(unsigned int readers, size_t bytes, size_t pool_bytes)
{
	spec = (struct load_spec){
		.threads = readers ?: 2,
		.slots = readers ? 1 : 16,
		.segs = 1,
		.seg_bytes = bytes,
		.completion_us = 2000,
	};
	if (!load_create(&load, &spec))
		return false;
	load.io_done = note_io;
	if (readers)
		load.run = read_run;
	return !pool_bytes || pool_prepare(&pool, POOL_ANON, pool_bytes);
}

#define load_setup_hot(bytes)	load_setup(0, 4 * KB, bytes)
#define load_setup_fresh()	load_setup(4, 64 * KB, 0)

/* The load shall use a file instead of its device: create it. */
static bool load_use(const char *path, size_t bytes)
{
	static char data[MB];
	size_t at;

	close(load.fd);
	load.fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
	for (at = 0; at < bytes; at += sizeof(data))
		if (pwrite(load.fd, data, sizeof(data), at) != sizeof(data))
			return cannot("write to %s: %s", path, strerror(errno));
	fsync(load.fd);
	close(load.fd);
	load.fd = open(path, O_RDWR | O_DIRECT);
	return load.fd >= 0 || cannot("open %s: %s", path, strerror(errno));
}

/* Children shall not share it: writes would then go to other pages. */
static bool fill(struct pool *p)
{
	return ballast_fill(p) && !madvise(p->addr, p->bytes, MADV_DONTFORK);
}

/* Start the load on pages that are in the area, of the last part of the pool. */
static bool hot_start(void)
{
	size_t bytes = min_size(pool.bytes, 64 * MB), stride = bytes / load.nr_slots, at;
	char *end = pool.addr + pool.bytes, *page;
	unsigned int i;

	for (i = 0; i < load.nr_slots; i++) {
		at = pool.bytes - bytes + (i * stride & ~(psize() - 1UL));
		page = resident_page(&pool, at);
		if (!page || page + load.io_bytes > end)
			page = pool.addr + at;
		load.slots[i].iov[0].iov_base = page;
	}
	return load_start(&load);
}

/* Allocations of the area under a load, each with a new pool */
static bool hot_rounds(struct set *set, bool (*populate)(struct pool *pool))
{
	bool ok = true;
	unsigned int i;

	for (i = 0; ok && i < tries; i++) {
		ok = populate(&pool) && hot_start();
		if (ok)
			try_area(set);
		if (ok && !i && !set->errs[0])
			note(set, "first_failed");
		load_stop(&load);
		pool_unmap(&pool);
		reap();
	}
	return ok;
}

static int fs_device(unsigned int mbytes)
{
	const struct nullb_conf conf = {
		.bytes = mbytes * MB,
		.completion_us = 100,
		.depth = 64,
		.memory_backed = true,
	};

	return nullb_create(FS_DEV, &conf);
}

static bool fs_setup(const char *type, const char *mkfs, unsigned int mbytes)
{
	int fd = fs_device(mbytes);

	if (fd < 0)
		return false;
	close(fd);
	return fs_create(FS_DEV, type, mkfs, "noatime") || cannot("have %s", type);
}

static bool fs_drop(void)
{
	if (load.slots) {
		close(load.fd);
		load.fd = -1;
	}
	return run_cmd("umount " FS_MNT) || cannot("unmount");
}

/*
 * 1: journals and other metadata of file systems
 */

#define CREATES		20000
#define CREATES_BATCH	2000	/* that exist at the same time */

static bool create_and_unlink(void)
{
	char path[64];
	int i, fd;

	for (i = 0; i < 2 * CREATES; i++) {
		snprintf(path, sizeof(path), FS_MNT "/%d", i % CREATES_BATCH);
		if (i / CREATES_BATCH % 2) {
			unlink(path);
			continue;
		}
		fd = open(path, O_CREAT | O_WRONLY, 0600);
		if (fd < 0)
			return cannot("create %s: %s", path, strerror(errno));
		close(fd);
	}
	return true;
}

static bool journal(void)
{
	const char *mkfs = "mkfs.ext4 -q -F -b 4096 -J size=4 -E lazy_itable_init=0";
	__u32 flags = 0;
	unsigned int i;
	int fd;

	if (!ballast_leave_at_most(pool_may_leave(32 * MB)))
		return false;
	for (i = 0; i < tries; i++) {
		if (!fs_setup("ext4", mkfs, 64) || !create_and_unlink())
			return false;
		/* Where to put what is in the area */
		ballast_leave_at_least(64 * MB);
		fd = open(FS_MNT, O_RDONLY);
		try_area(&sets[0]);
		syncfs(fd);
		try_area(&sets[1]);
		if (ioctl(fd, EXT4_IOC_CHECKPOINT, &flags))
			return cannot("force a checkpoint: %s", strerror(errno));
		try_area(&sets[2]);
		close(fd);
		if (!fs_drop())
			return false;
	}
	return true;
}

/*
 * No ballast. With mem=1G cma=256M, some 10,000 pages at the end of so much memory are
 * in the area.
 */
static bool fs_rounds(struct set *set, const char *type, const char *mkfs)
{
	return fs_setup(type, mkfs, 320) && load_use(FS_FILE, 8 * MB) &&
	       hot_rounds(set, pool_map) && fs_drop();
}

static bool ext4_alone(void)
{
	return load_setup_hot(480 * MB) && fs_rounds(&sets[0], "ext4", "mkfs.ext4 -q -F");
}

static bool btrfs_then_ext4(void)
{
	return load_setup_hot(480 * MB) && fs_rounds(&sets[0], "btrfs", "mkfs.btrfs -q -f") &&
	       fs_rounds(&sets[1], "ext4", "mkfs.ext4 -q -F");
}

/*
 * 2: references that are no pins
 */

static bool p9_reads(void)
{
	const char *dir = getenv("VM_OUT");
	char path[PATH_MAX];

	if (!dir)
		return cannot("find a folder of 9p: no VM_OUT in the environment");
	snprintf(path, sizeof(path), "%s/read", dir);
	return load_setup(8, 128 * KB, 32 * MB) && load_use(path, 2 * MB) &&
	       hot_rounds(&sets[0], fill);
}

#define NR_PIPES	64

/* A pipe with so much of that memory, and again so often, in it */
static bool pipe_fill(int fds[2], char *addr, size_t bytes, unsigned int times)
{
	struct iovec iov = { .iov_base = addr, .iov_len = bytes };
	ssize_t ret;

	ret = pipe(fds);
	if (!ret)
		ret = fcntl(fds[1], F_SETPIPE_SZ, bytes * times);
	for (; ret > 0 && times; times--)
		ret = vmsplice(fds[1], &iov, 1, 0);
	return ret > 0 || cannot("vmsplice: %s", strerror(errno));
}

/* Held as long as these allocations take, and then no longer */
static bool splice_case(unsigned int nr, size_t bytes, unsigned int times)
{
	int fds[NR_PIPES][2];
	unsigned int i;

	if (!pool_prepare(&pool, POOL_ANON, NR_PIPES * MB) || !fill(&pool))
		return false;
	for (i = 0; i < nr; i++)
		if (!pipe_fill(fds[i], nr > 1 ? pool.addr + i * MB : resident_page(&pool, MB),
			       bytes, times))
			return false;
	for (i = 0; i < tries; i++)
		try_area(&sets[0]);
	for (i = 0; i < nr; i++) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
	try_area(&sets[1]);
	return true;
}

static bool spliced_pipes(void)
{
	return splice_case(NR_PIPES, MB, 1);
}

/* One page, so often that it looks pinned */
static bool spliced_page(void)
{
	return splice_case(1, psize(), 1100);
}

/*
 * 3: fork and exit
 */

static void touch(size_t bytes)
{
	char *addr = map(bytes, MAP_PRIVATE);
	size_t at;

	for (at = 0; addr != MAP_FAILED && at < bytes; at += psize())
		write_once(addr[at], 1);
}

static void fork_again_and_again(void *arg)
{
	unsigned int i;
	pid_t pid;

	setpriority(PRIO_PROCESS, 0, 19);
	for (i = 0; ; i++) {
		pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			touch(32 * MB);
			if (i % 2)
				execl("/bin/true", "true", NULL);
			_exit(KSFT_PASS);
		}
		waitpid(pid, NULL, 0);
	}
}

/* Frames, one by one, at 30 Hz */
static void try_frames(struct set *set, unsigned int nr)
{
	long long start;

	for (; nr; nr--) {
		start = now_us();
		try_pages(set, FRAME);
		while (now_us() - start < 33333)
			usleep(1000);
	}
}

static bool fork_and_exit(void)
{
	unsigned int i;

	/* Even without the area, there is room for all of their memory. */
	if (!ballast_leave_at_most(300 * MB))
		return false;
	for (i = 0; i < 8; i++)
		spawn(fork_again_and_again, NULL);
	sleep(1);
	try_frames(&sets[0], 5 * tries);
	for (i = 0; i < tries; i++) {
		try_area(&sets[1]);
		usleep(200000);
	}
	return true;
}

#ifdef LOCAL_CONFIG_HAVE_LIBURING
/*
 * 4: batches of mlock, 9: huge pages that are freed when the I/O ends
 */

#define OVERCOMMIT	"/proc/sys/vm/nr_overcommit_hugepages"
#define OWNED_BYTES	(32 * MB)
#define OWNED_IOS	64

/* Another process and the allocator */
struct shared {
	unsigned int nr, failed;
	size_t left;		/* pages in the area */
	bool ready;
	int fd;
};

static void register_again_and_again(void *arg)
{
	struct pool own = { .pagemap = open("/proc/self/pagemap", O_RDONLY) };
	struct iovec iov = { .iov_len = OWNED_BYTES };
	struct shared *s = arg;
	struct io_uring ring;

	io_uring_queue_init(4, &ring, 0);
	for (; s->nr < tries; s->nr++) {
		iov.iov_base = map(iov.iov_len, MAP_PRIVATE);
		if (mlock2(iov.iov_base, iov.iov_len, MLOCK_ONFAULT) ||
		    io_uring_register_buffers(&ring, &iov, 1)) {
			s->failed++;
		} else {
			s->left += resident_pages(&own, iov.iov_base, iov.iov_len);
			io_uring_unregister_buffers(&ring);
		}
		munmap(iov.iov_base, iov.iov_len);
	}
	write_once(s->ready, true);
}

/* With AIO, the end of the process would wait for the I/O. */
static void own_huge_pages(void *arg)
{
	struct pool own = { .pagemap = open("/proc/self/pagemap", O_RDONLY) };
	char *addr = map(OWNED_BYTES, MAP_PRIVATE | MAP_HUGETLB | MAP_POPULATE);
	struct shared *s = arg;
	struct io_uring ring;
	unsigned int i;

	if (addr == MAP_FAILED || io_uring_queue_init(OWNED_IOS, &ring, 0))
		return;
	s->left = resident_pages(&own, addr, OWNED_BYTES);
	for (i = 0; i < OWNED_IOS; i++)
		io_uring_prep_read(io_uring_get_sqe(&ring), s->fd,
				   addr + i * (OWNED_BYTES / OWNED_IOS), 64 * KB, i * 64 * KB);
	write_once(s->ready, io_uring_submit(&ring) == OWNED_IOS);
	pause();
}

static bool mlock_batches(void)
{
	struct shared *s = map_shared(sizeof(*s));
	pid_t pid;

	if (!load_setup_fresh() || !ballast_leave_at_most(pool_may_leave(64 * MB)) ||
	    !load_start(&load))
		return false;
	pid = spawn(register_again_and_again, s);
	while (!read_once(s->ready) && !waitpid(pid, NULL, WNOHANG)) {
		try_area(&sets[0]);
		usleep(20000);
	}
	note(&sets[0], "registered:%u;failed:%u;pages_left:%zu", s->nr, s->failed, s->left);
	return true;
}

static bool huge_pages(void)
{
	struct nullb_conf conf = { .bytes = 8 * MB, .completion_us = 100000, .depth = 128 };
	struct shared *s = map_shared(sizeof(*s));
	size_t least = SIZE_MAX;
	unsigned int i;
	pid_t pid;

	s->fd = nullb_create(NULLB_PREFIX "huge", &conf);
	if (s->fd < 0 || put_num(OVERCOMMIT, 2 * OWNED_BYTES / (2 * MB)) ||
	    !ballast_leave_at_most(4 * OWNED_BYTES))
		return false;
	for (i = 0; i < tries; i++) {
		s->ready = false;
		pid = spawn(own_huge_pages, s);
		while (!read_once(s->ready)) {
			if (waitpid(pid, NULL, WNOHANG))
				return cannot("have I/O in flight to huge pages");
			usleep(1000);
		}
		least = min_size(least, s->left);
		kill(pid, SIGKILL);
		try_area(&sets[0]);
		reap();
	}
	note(&sets[0], "huge_mb_in_area:%zu", least * psize() / MB);
	put_num(OVERCOMMIT, 0);
	return true;
}
#endif

/*
 * 5: a FUSE server that does not answer
 */

static struct daemon *server;
static unsigned int kill_ms;

/*
 * Stops the server, and writes until it is throttled. Nobody else has the file open:
 * to exit, he would have to wait for the server.
 */
static void make_dirty(void *arg)
{
	int fd = open(FUSE_FILE, O_RDWR);
	static char data[DAEMON_IO_BYTES];
	size_t at;

	/* The first write asks for attributes. */
	if (fd < 0 || pwrite(fd, "", 1, 0) != 1 || fsync(fd))
		return;
	kill(server->pid, SIGSTOP);
	for (at = 0; at < FUSE_FILE_BYTES; at += sizeof(data)) {
		if (pwrite(fd, data, sizeof(data), at) < 0)
			return;
		sync_file_range(fd, at, sizeof(data), SYNC_FILE_RANGE_WRITE);
	}
}

static void continue_later(void *arg)
{
	sleep(30);
	kill(server->pid, SIGCONT);
}

/* An allocator that is killed after some time */
static int alloc_killed(unsigned long pages)
{
	long long start = now_us();
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(-area_put(&area, "alloc", pages));
	while (now_us() - start < kill_ms * USEC_PER_MSEC) {
		if (waitpid(pid, &status, WNOHANG))
			return -WEXITSTATUS(status);
		usleep(5000);
	}
	kill(pid, SIGKILL);
	start = now_us();
	waitpid(pid, &status, 0);
	note(&sets[0], "from_kill_to_exit_ms:%lld", (now_us() - start) / USEC_PER_MSEC);
	return -EINTR;
}

static bool fuse_stopped(void)
{
	server = map_shared(sizeof(*server));
	server->ublk_id = -1;
	server->store = fs_device(8);
	server->buf = map_shared(DAEMON_DEPTH * DAEMON_IO_BYTES);
	if (server->store < 0 || !load_setup_hot(32 * MB) || !fill(&pool) ||
	    fuse_missing() || !fuse_start(server))
		return cannot("start a FUSE server");
	spawn(continue_later, NULL);
	spawn(make_dirty, NULL);
	sleep(1);
	if (!hot_start())
		return false;
	if (!mem_bytes("Writeback"))
		return cannot("have folios under writeback");
	note(&sets[1], "writeback_kb:%zu", mem_bytes("Writeback") / KB);
	kill_ms = 5000;
	try_by(&sets[0], alloc_killed, area.count);
	kill_ms = 120000;
	try_by(&sets[1], alloc_killed, area.count);
	waitpid(children[0], NULL, 0);
	try_area(&sets[2]);
	return true;
}

/*
 * 6: folios that are locked by slow reads
 */

#define NR_READERS	8
#define READER_BYTES	(8 * MB)

static void read_again_and_again(void *arg)
{
	off_t from = (uintptr_t)arg * READER_BYTES;
	int fd = open(FS_FILE, O_RDONLY);
	char *addr;
	size_t at;

	for (;;) {
		addr = mmap(NULL, READER_BYTES, PROT_READ, MAP_SHARED, fd, from);
		if (addr == MAP_FAILED)
			return;
		for (at = 0; at < READER_BYTES; at += psize())
			FORCE_READ(addr[at]);
		munmap(addr, READER_BYTES);
		posix_fadvise(fd, from, READER_BYTES, POSIX_FADV_DONTNEED);
	}
}

static bool slow_reads(void)
{
	const size_t bytes = NR_READERS * READER_BYTES;
	uintptr_t i;

	/* The ballast comes after the data, which is kernel memory. */
	if (!load_setup_fresh() || !fs_setup("ext4", "mkfs.ext4 -q -F", bytes / MB + 32) ||
	    !load_use(FS_FILE, bytes) || !fs_drop() || !ballast_leave_at_most(48 * MB))
		return false;
	/* Its data survives that. Without the journal, a mount does not write. */
	if (put_num(FS_CONF "/power", 0) || put_num(FS_CONF "/completion_nsec", 500000000) ||
	    put_num(FS_CONF "/power", 1) ||
	    !run_cmd("mount -t ext4 -o ro,noload /dev/" FS_DEV " " FS_MNT))
		return cannot("make the device slow");
	load.fd = open("/dev/" NULLB_PREFIX "load", O_RDWR | O_DIRECT);
	for (i = 0; i < NR_READERS; i++)
		spawn(read_again_and_again, (void *)i);
	sleep(3);
	if (!load_start(&load))
		return false;
	try_frames(&sets[0], tries);
	return true;
}

/*
 * 7: a CPU that cannot drain its LRU batches
 */

static bool run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(0, sizeof(set), &set) || cannot("run on CPU %d", cpu);
}

static void spin(void *arg)
{
	const struct sched_param urgent = { .sched_priority = 50 };
	long long end = now_us() + 2 * USEC_PER_SEC;

	if (!run_on(1))
		return;
	sched_setscheduler(0, SCHED_FIFO, &urgent);
	/* So that there is something in them */
	touch(10 * psize());
	while (now_us() < end)
		;
}

static bool fill_and_spin(struct pool *p)
{
	return fill(p) && spawn(spin, NULL) > 0;
}

static bool nohz_setup(void)
{
	if (!run_cmd("grep -qs 1 /sys/devices/system/cpu/nohz_full"))
		note(&sets[0], "no_nohz_full");
	return run_on(0) && load_setup_hot(32 * MB);
}

static bool spinner(void)
{
	return nohz_setup() && hot_rounds(&sets[0], fill_and_spin);
}

static bool one_page(void)
{
	unsigned int i;

	if (!nohz_setup() || !fill(&pool) || !hot_start())
		return false;
	for (i = 0; i < tries; i++)
		try_pages(&sets[0], 1);
	return true;
}

/*
 * 8: no room, or nowhere to move to
 */

static bool no_room(void)
{
	int fds[1024], heap = heap_open();
	unsigned int i, nr = 0;

	if (heap < 0 || !ballast_leave_at_most(pool_may_leave(32 * MB)))
		return cannot("use a heap of the area");
	while (nr < ARRAY_SIZE(fds) && (fds[nr] = heap_alloc(heap, 4 * MB)) >= 0)
		nr++;
	for (i = 0; i < nr; i += 2)
		close(fds[i]);
	note(&sets[0], "pieces:%u", nr);
	if (!load_setup_fresh() || !load_start(&load))
		return false;
	try_frames(&sets[0], tries);
	return true;
}

static bool fill_all(struct pool *p)
{
	/* Without any ballast, the area can be emptied. */
	ballast_leave_at_least(SIZE_MAX / 2);
	if (!area_take(&area) || madvise(spare, SPARE, MADV_POPULATE_WRITE))
		return cannot("have memory to spare");
	area_free();
	return ballast_leave_at_most(pool_may_leave(p->bytes)) && pool_map(p) &&
	       ballast_grow(32 * MB);
}

static bool nowhere(void)
{
	/* Faults on its own text, evicted meanwhile, would call the OOM killer. */
	mlockall(MCL_CURRENT | MCL_ONFAULT);
	spare = map(SPARE, MAP_PRIVATE);
	return load_setup_hot(96 * MB) && hot_rounds(&sets[0], fill_all);
}

/*
 * 10: what else direct I/O can go through, or its memory can be
 */

/* What is below it is not made here. */
static bool given_file(void)
{
	const char *path = getenv("CMA_CASES_FILE");

	if (!path)
		return cannot("know what to read: no CMA_CASES_FILE in the environment");
	if (!load_setup_hot(32 * MB))
		return false;
	close(load.fd);
	load.fd = open(path, O_RDONLY | O_DIRECT);
	if (load.fd < 0)
		return cannot("open %s: %s", path, strerror(errno));
	return hot_rounds(&sets[0], fill);
}

/* Whoever boots the guest gives it memory and takes it away. */
static bool comes_and_goes(void)
{
	return load_setup_hot(32 * MB) && hot_rounds(&sets[0], fill);
}

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define MTHP		THP "hugepages-64kB/"

/* Memory that has room in the area is populated once more, in folios of that size. */
static bool fill_mthp(struct pool *p)
{
	return fill(p) && run_cmd("echo never >" THP "hugepages-2048kB/enabled") &&
	       !madvise(p->addr, p->bytes, MADV_DONTNEED) &&
	       !madvise(p->addr, p->bytes, MADV_HUGEPAGE) &&
	       !madvise(p->addr, p->bytes, MADV_POPULATE_WRITE);
}

static bool mthp(void)
{
	bool ok = run_cmd("echo always >" MTHP "enabled") && load_setup_hot(32 * MB) &&
		  hot_rounds(&sets[0], fill_mthp);

	run_cmd("sed 's/^/# folios of 64 KB: /' " MTHP "stats/anon_fault_alloc");
	return ok;
}

/*
 * All of them
 */

static const struct field_case {
	const char *name;
	bool (*run)(void);
	const char *sets[ARRAY_SIZE(sets)];
	unsigned int tries;
} cases[] = {
	{ "1a", journal, { "1a-dirty", "1a-synced", "1a-checkpoint" }, 60 },
	{ "1b", btrfs_then_ext4, { "1b-btrfs", "1b-then-ext4" }, 60 },
	{ "1c", ext4_alone, { "1c-ext4-alone" }, 60 },
	{ "2a", p9_reads, { "2a-9p" }, 60 },
	{ "2b", spliced_pipes, { "2b-pipes", "2b-closed" }, 60 },
	{ "2c", spliced_page, { "2c-page", "2c-closed" }, 60 },
	{ "3", fork_and_exit, { "3-frames", "3-area" }, 60 },
#ifdef LOCAL_CONFIG_HAVE_LIBURING
	{ "4", mlock_batches, { "4-mlock" }, 1000 },
	{ "9", huge_pages, { "9-hugetlb" }, 200 },
#endif
	{ "5", fuse_stopped, { "5-killed", "5-second", "5-after" } },
	{ "6", slow_reads, { "6-slow-reads" }, 60 },
	{ "7a", spinner, { "7a-spinner" }, 60 },
	{ "7b", one_page, { "7b-one-page" }, 1000 },
	{ "8a", no_room, { "8a-no-room" }, 60 },
	{ "8b", nowhere, { "8b-nowhere" }, 60 },
	{ "10-nbd", given_file, { "10-nbd" }, 60 },
	{ "10-crypt", given_file, { "10-crypt" }, 60 },
	{ "10-verity", given_file, { "10-verity" }, 60 },
	{ "10-nfs", given_file, { "10-nfs" }, 60 },
	{ "10-mthp", mthp, { "10-mthp" }, 60 },
	{ "10-virtio-mem", comes_and_goes, { "10-virtio-mem" }, 60 },
};

static void trace(bool on)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(events); i++)
		put_num(events[i], on);
}

static int case_run(const struct field_case *c)
{
	unsigned int i;
	bool ok;

	tries = tries ?: c->tries;
	trace(true);
	ok = c->run();
	load_stop(&load);
	if (server) {
		kill(server->pid, SIGCONT);
		daemon_stop(server);
	}
	reap();
	/* Patches the code of wake-ups, which an emulator can stumble over under load. */
	trace(false);
	for (i = 0; i < ARRAY_SIZE(c->sets) && c->sets[i]; i++)
		report(c->sets[i], &sets[i]);
	return ok ? KSFT_PASS : KSFT_FAIL;
}

static int print_help(void)
{
	fputs("usage: cma_cases [-k KERNEL] [-n TRIES] [-r RETRIES] CASE | --list\n"
	      "Run one case from the field, and call the kernel that; RETRIES come 100 ms apart.\n"
	      "Exit status: 0 measured, 1 error, 4 not possible here.\n", stderr);
	return KSFT_FAIL;
}

int main(int argc, char **argv)
{
	const struct field_case *c = cases, *end = cases + ARRAY_SIZE(cases);
	int opt;

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (; c < end; c++)
			puts(c->name);
		return KSFT_PASS;
	}
	while ((opt = getopt(argc, argv, "k:n:r:")) != -1)
		if (opt == 'k')
			kernel = optarg;
		else if (opt == 'n')
			tries = atoi(optarg);
		else if (opt == 'r')
			retries = atoi(optarg);
		else
			return print_help();
	if (optind != argc - 1)
		return print_help();
	while (c < end && strcmp(c->name, argv[optind]))
		c++;
	if (c == end)
		return print_help();
	setlinebuf(stdout);
	system_prepare(env_restore);
	return case_run(c);
}
