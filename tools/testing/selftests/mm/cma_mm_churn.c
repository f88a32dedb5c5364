// SPDX-License-Identifier: GPL-2.0
/*
 * The churn. See cma_mm_churn.h.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>	/* MADV_COLLAPSE */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <mm/gup_test.h>
#include "cma_mm_churn.h"
#include "cma_env.h"
#include "cma_io.h"
#include "hugepage_settings.h"
#include "vm_util.h"

#define CGROUP		"/sys/fs/cgroup"
#define OUR_CGROUP	CGROUP "/cma_gup_churn"
#define GUP_TEST	"/sys/kernel/debug/gup_test"
#define SWAP_DEV	NULLB_PREFIX "swap"

#define OUR_MEMORY	(40 * MB)
#define PAUSE_US	10000	/* between two rounds, at most */
#define PAGES		16	/* of a small buffer */

/* GUP's, see include/linux/mm_types.h */
#define FOLL_WRITE	1

enum outcome { DONE, FAILED, WRONG };

/* In memory that is shared with the processes. */
struct tally {
	unsigned long rounds[WRONG + 1];
	unsigned long restarts;
};

struct churner {
	const char *name;
	enum outcome (*round)(void);
	bool (*prepare)(void);	/* In the parent: can this system have it? */
	const char *needs;	/* for that */
	bool available;
	pid_t pid;
	struct tally *tally;
};

static struct churn_env env;
static bool *stopping;

/* Of the process of a churner */
static unsigned int seed;
static struct engine aio = { .method = AIO };

/*
 * What several of them need
 */

static char *hot_page(void)
{
	return env.hot_page(env.arg, &seed);
}

static char *map_anon(size_t bytes)
{
	char *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

static enum outcome done_if(bool ok)
{
	return ok ? DONE : FAILED;
}

/* Into the pages of a buffer, with the direct I/O in flight when it returns. */
static bool read_begin(char *addr, size_t bytes)
{
	static struct iovec iov;
	static struct io io = { .iov = &iov, .nr = 1 };

	iov = (struct iovec){ addr, bytes };
	io.fd = env.fd;
	return engine_start(&aio, &io);
}

static bool read_end(size_t bytes)
{
	return engine_finish(&aio)->res == (long)bytes;
}

static void fill_pages(char *addr, unsigned int pages)
{
	unsigned int i;

	for (i = 0; i < pages; i++)
		memset(addr + i * psize(), i + 1, psize());
}

static bool pages_are_filled(const char *addr, unsigned int pages)
{
	unsigned int i;

	for (i = 0; i < pages; i++)
		if (addr[i * psize()] != (char)(i + 1) ||
		    memcmp(addr + i * psize(), addr + i * psize() + 1, psize() - 1))
			return false;
	return true;
}

/*
 * The churners: one round each
 */

static bool have_gup_test(void)
{
	return !access(GUP_TEST, R_OK | W_OK);
}

/* A pin without an end in sight moves the page out of the area first. */
static enum outcome longterm(void)
{
	struct pin_longterm_test args = {
		.addr = (uintptr_t)hot_page(),
		.size = psize(),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE |
			 (rand_r(&seed) % 2 ? PIN_LONGTERM_TEST_FLAG_USE_FAST : 0),
	};
	int fd = open(GUP_TEST, O_RDWR);
	bool ok;

	if (fd < 0)
		return FAILED;
	ok = !ioctl(fd, PIN_LONGTERM_TEST_START, &args);
	if (ok) {
		usleep(rand_r(&seed) % 20000);
		ioctl(fd, PIN_LONGTERM_TEST_STOP);
	}
	close(fd);
	return done_if(ok);
}

/* Take and drop pins and references by all ways that gup_test has. */
static enum outcome gup_test(void)
{
	static const unsigned long calls[] = {
		GUP_FAST_BENCHMARK, PIN_FAST_BENCHMARK, GUP_BASIC_TEST, PIN_BASIC_TEST,
	};
	struct gup_test args = {
		.addr = (uintptr_t)hot_page(),
		.size = psize(),
		.nr_pages_per_call = 1,
		.gup_flags = FOLL_WRITE,
	};
	int fd = open(GUP_TEST, O_RDWR);
	bool ok;

	if (fd < 0)
		return FAILED;
	ok = !ioctl(fd, calls[rand_r(&seed) % ARRAY_SIZE(calls)], &args);
	close(fd);
	return done_if(ok);
}

static bool have_thp(void)
{
	return thp_is_enabled() && read_pmd_pagesize() == 2 * MB;
}

/* Split a huge page while it is pinned, and collapse the rest. */
static enum outcome thp(void)
{
	char *map = map_anon(4 * MB), *huge;
	bool ok;

	if (!map)
		return FAILED;
	huge = (char *)(((uintptr_t)map + 2 * MB - 1) & ~(2 * MB - 1));
	madvise(huge, 2 * MB, MADV_HUGEPAGE);
	fill_pages(huge, PAGES);
	ok = read_begin(huge + MB, MB / 2);
	munmap(huge + MB / 2, psize());
	if (ok)
		ok = read_end(MB / 2);
	if (!pages_are_filled(huge, PAGES))
		return WRONG;
	mmap(huge + MB / 2, psize(), PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	/* May fail for want of a huge page. */
	madvise(huge, 2 * MB, MADV_COLLAPSE);
	ok = ok && pread(env.fd, huge + MB, MB / 2, 0) == (ssize_t)(MB / 2);
	if (!pages_are_filled(huge, PAGES))
		return WRONG;
	munmap(map, 4 * MB);
	return done_if(ok);
}

static bool have_hugetlb(void)
{
	return default_huge_page_size() == 2 * MB;
}

/* A huge page that comes, is pinned, and goes. */
static enum outcome hugetlb(void)
{
	unsigned long before = hugetlb_nr_default_pages();
	bool ok = false;
	char *huge;

	hugetlb_set_nr_default_pages(before + 1);
	huge = mmap(NULL, 2 * MB, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (huge != MAP_FAILED) {
		ok = pread(env.fd, huge + MB, MB, 0) == (ssize_t)MB;
		munmap(huge, 2 * MB);
	}
	hugetlb_set_nr_default_pages(before);
	return done_if(ok);
}

static bool have_swap(void)
{
	struct nullb_conf conf = { .bytes = 16 * MB, .depth = 64, .memory_backed = true };
	int fd = nullb_create(SWAP_DEV, &conf);

	if (fd < 0)
		return false;
	close(fd);
	return run_cmd("mkswap /dev/" SWAP_DEV " >/dev/null 2>&1 && swapon /dev/" SWAP_DEV
		       " 2>/dev/null");
}

/* Swap out, and in again by a direct I/O and by a fault. */
static enum outcome swap(void)
{
	char *addr = map_anon(2 * PAGES * psize());
	enum outcome result;

	if (!addr)
		return FAILED;
	fill_pages(addr, 2 * PAGES);
	madvise(addr, 2 * PAGES * psize(), MADV_PAGEOUT);
	result = done_if(pread(env.fd, addr + PAGES * psize(), PAGES * psize(), 0) ==
			 (ssize_t)(PAGES * psize()));
	if (!pages_are_filled(addr, PAGES))
		result = WRONG;
	munmap(addr, 2 * PAGES * psize());
	return result;
}

/* Fork while pages are pinned, and have both processes write. */
static enum outcome fork_and_write(void)
{
	char *addr = map_anon(2 * PAGES * psize());
	enum outcome result;
	int status = 0;
	bool reading;
	pid_t pid;

	if (!addr)
		return FAILED;
	fill_pages(addr, 2 * PAGES);
	reading = read_begin(addr + PAGES * psize(), PAGES * psize());
	pid = fork();
	if (!pid) {
		status = !pages_are_filled(addr, PAGES);
		memset(addr, 0xff, 2 * PAGES * psize());
		_exit(status);
	}
	memset(addr + PAGES * psize(), 0, PAGES * psize());
	result = done_if(reading && read_end(PAGES * psize()) && pid > 0);
	if (pid > 0)
		waitpid(pid, &status, 0);
	if ((WIFEXITED(status) && WEXITSTATUS(status)) || !pages_are_filled(addr, PAGES))
		result = WRONG;
	munmap(addr, 2 * PAGES * psize());
	return result;
}

/* The last reference to a page is the pin. */
static enum outcome unmap(void)
{
	char *addr = map_anon(PAGES * psize());
	bool ok;

	if (!addr)
		return FAILED;
	ok = read_begin(addr, PAGES * psize());
	munmap(addr, PAGES * psize());
	return done_if(ok && read_end(PAGES * psize()));
}

/* Move what is pinned, and what is not, to another address. */
static enum outcome remap(void)
{
	size_t half = PAGES * psize();
	char *addr = map_anon(2 * half), *moved;
	bool reading, ok;

	if (!addr)
		return FAILED;
	fill_pages(addr, PAGES);
	reading = read_begin(addr + half, half);
	/*
	 * Leaves an empty mapping behind, so that it has to move. The kernel looks at
	 * the new address then, even if it may choose one.
	 */
	moved = mremap(addr, 2 * half, 2 * half, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	ok = reading && read_end(half);
	munmap(addr, 2 * half);
	if (moved == MAP_FAILED)
		return FAILED;
	if (!pages_are_filled(moved, PAGES))
		return WRONG;
	munmap(moved, 2 * half);
	return done_if(ok);
}

/* A block of memory that was offline before the test, to leave the others alone. */
static long memory_block = -1;

static bool block_is_offline(long block)
{
	char path[128], state[16];

	snprintf(path, sizeof(path), MEMORY_SYS "/memory%ld/state", block);
	return read_file(path, state, sizeof(state)) > 0 && !strcmp(state, "offline\n");
}

static bool have_hotplug(void)
{
	struct dirent *entry;
	long block;
	DIR *dir;

	dir = opendir(MEMORY_SYS);
	while (dir && memory_block < 0 && (entry = readdir(dir)))
		if (sscanf(entry->d_name, "memory%ld", &block) == 1 && block_is_offline(block))
			memory_block = block;
	if (dir)
		closedir(dir);
	return memory_block >= 0;
}

/* Memory comes, is used by the others, and goes. */
static enum outcome hotplug(void)
{
	int err = memory_set_state(memory_block, "online_movable", 5);

	usleep(rand_r(&seed) % 200000);
	return done_if(!memory_set_state(memory_block, "offline", 5) && !err);
}

static bool have_compaction(void)
{
	return !access("/proc/sys/vm/compact_memory", W_OK);
}

static enum outcome compact(void)
{
	return done_if(!put_num("/proc/sys/vm/compact_memory", 1));
}

static bool have_cgroup(void)
{
	return !access(OUR_CGROUP "/memory.max", W_OK);
}

/* Take memory away from all of the churn, and give it back. */
static enum outcome cgroup_limit(void)
{
	put_num(OUR_CGROUP "/memory.high", OUR_MEMORY / 2 + rand_r(&seed) % (OUR_MEMORY / 2));
	/* Less than that may be left to reclaim. */
	put_num(OUR_CGROUP "/memory.reclaim", 2 * MB);
	return done_if(!put_str(OUR_CGROUP "/memory.high", "max"));
}

/* A reference without a pin, for some ms: a migration that fails. */
static enum outcome refer(void)
{
	struct iovec iov = { .iov_base = hot_page(), .iov_len = psize() };
	ssize_t len;
	int fds[2];

	if (pipe(fds))
		return FAILED;
	len = vmsplice(fds[1], &iov, 1, SPLICE_F_NONBLOCK);
	usleep(rand_r(&seed) % 5000);
	close(fds[0]);
	close(fds[1]);
	return done_if(len == (ssize_t)psize());
}

static struct churner churners[] = {
	{ "longterm", longterm, have_gup_test, "CONFIG_GUP_TEST" },
	{ "gup_test", gup_test, have_gup_test, "CONFIG_GUP_TEST" },
	{ "THP split and collapse", thp, have_thp, "transparent huge pages of 2 MB" },
	{ "hugetlb", hugetlb, have_hugetlb, "hugetlb pages of 2 MB" },
	{ "swap", swap, have_swap, "CONFIG_SWAP, mkswap and swapon" },
	{ "fork", fork_and_write },
	{ "munmap", unmap },
	{ "mremap", remap },
	{ "memory hotplug", hotplug, have_hotplug, "a block in " MEMORY_SYS " that is offline" },
	{ "compaction", compact, have_compaction, "CONFIG_COMPACTION" },
	{ "cgroup limit", cgroup_limit, have_cgroup, "cgroup2 in " CGROUP " with memory" },
	{ "vmsplice", refer },
};

/*
 * Their processes
 */

static void churner_process(struct churner *c)
{
	enum outcome result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* If there is one. */
	put_num(OUR_CGROUP "/cgroup.procs", 0);
	seed = getpid();
	if (!engine_open(&aio, 1))
		_exit(KSFT_FAIL);
	while (!read_once(*stopping)) {
		result = c->round();
		count_one(c->tally->rounds[result]);
		usleep(rand_r(&seed) % PAUSE_US);
	}
	_exit(0);
}

static bool churner_start(struct churner *c)
{
	c->pid = fork();
	if (!c->pid)
		churner_process(c);
	return c->pid > 0 || cannot("fork: %s", strerror(errno));
}

/* Without a limit of its own the churn takes the memory that the tests need. */
static void cgroup_create(void)
{
	put_str(CGROUP "/cgroup.subtree_control", "+memory");
	mkdir(OUR_CGROUP, 0755);
	put_num(OUR_CGROUP "/memory.max", OUR_MEMORY);
}

bool churn_start(const struct churn_env *with)
{
	struct tally *tallies = map_shared(ARRAY_SIZE(churners) * sizeof(*tallies));
	unsigned int i;

	env = *with;
	stopping = map_shared(sizeof(*stopping));
	cgroup_create();
	for (i = 0; i < ARRAY_SIZE(churners); i++) {
		struct churner *c = &churners[i];

		c->tally = &tallies[i];
		c->available = !c->prepare || c->prepare();
		if (!c->available)
			ksft_print_msg("churn without %s: needs %s\n", c->name, c->needs);
		else if (!churner_start(c))
			return false;
	}
	return true;
}

void churn_tend(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(churners); i++) {
		struct churner *c = &churners[i];

		if (c->pid > 0 && waitpid(c->pid, NULL, WNOHANG) == c->pid) {
			c->tally->restarts++;
			churner_start(c);
		}
	}
}

static bool churner_stop(struct churner *c, long long deadline)
{
	while (c->pid > 0 && waitpid(c->pid, NULL, WNOHANG) != c->pid) {
		if (now_us() > deadline)
			return cannot("end %s (process %d)", c->name, c->pid);
		usleep(10000);
	}
	c->pid = 0;
	return true;
}

void churn_restore(void)
{
	run_cmd("swapoff /dev/" SWAP_DEV " 2>/dev/null");
	nullb_destroy(SWAP_DEV);
	rmdir(OUR_CGROUP);
	if (memory_block >= 0 && !block_is_offline(memory_block))
		memory_set_state(memory_block, "offline", 5);
}

bool churn_stop(unsigned int limit_ms)
{
	long long deadline = now_us() + limit_ms * USEC_PER_MSEC;
	bool ok = true;
	unsigned int i;

	write_once(*stopping, true);
	for (i = 0; i < ARRAY_SIZE(churners); i++)
		ok &= churner_stop(&churners[i], deadline);
	if (ok)
		churn_restore();
	return ok;
}

bool churn_report(void)
{
	bool ok = true;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(churners); i++) {
		const struct churner *c = &churners[i];

		if (!c->available)
			continue;
		ksft_print_msg("%s: %lu times, %lu failed, %lu with wrong data, %lu restarts\n",
			       c->name, c->tally->rounds[DONE], c->tally->rounds[FAILED],
			       c->tally->rounds[WRONG], c->tally->restarts);
		ok &= c->tally->rounds[DONE] && !c->tally->rounds[WRONG];
	}
	return ok;
}
