/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_UTIL_H
#define _MM_CMA_UTIL_H

#include <asm/posix_types.h>	/* for aio_abi.h; not in the types.h of tools */
#include <limits.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>	/* after aio_abi.h, whose RWF_* need __force */
#include "kselftest.h"

#define KB		1024UL
#define MB		(1024UL * KB)
#define USEC_PER_MSEC	1000LL
#define USEC_PER_SEC	1000000LL

/* Below this share of buffers in the area a try says nothing. */
#define MIN_RESIDENT	90	/* % */

/* To wait for pins is tested, not how long that takes on a slow machine. */
#define AMPLE_MS	5000
/* PIN_GATE_MAX_WAIT: the longest that one call waits for gates, from its start */
#define BOUND_MS	1000
#define PROMPT_MS	600	/* what has to be prompt may take this long */
#define HOLD_MS		2500	/* how long a pin lasts that keeps a gate closed */

#define DEBUGFS_CMA	"/sys/kernel/debug/cma"
#define MEMORY_SYS	"/sys/devices/system/memory"

#define NO_BUDGET	"no drain_budget_ms: this kernel's CMA does not wait for pins"

/* null_blk devices of the tests; all that are left over are removed. */
#define NULLB_PREFIX	"cma_gup_pin_"
#define FS_MNT		"/tmp/cma_gup_pin_mnt"

#define read_once(x)	__atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define write_once(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)
#define count_one(x)	__atomic_add_fetch(&(x), 1, __ATOMIC_RELAXED)

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Why something cannot be done: for SKIP() and for messages. */
extern char reason[512];
/* Set it; returns false. */
__printf(1, 2) bool because(const char *fmt, ...);

/* Open a table to append rows to; a new one gets the header first. */
FILE *csv_open(const char *path, const char *header);
/* Both say in the reason what went wrong. */
bool csv_close(FILE *f, const char *path);

long long now_us(void);
/* Write to a file of the kernel. Both return 0 or -errno. */
int put_str(const char *path, const char *val);
int put_num(const char *path, unsigned long val);
/* Set the state of a memory block, for no longer than that. 0 if it worked. */
int memory_set_state(unsigned long block, const char *state, unsigned int seconds);
unsigned long vm_counter(const char *name);
/* Of /proc/meminfo. */
size_t mem_bytes(const char *name);
/* Pins taken and not yet released, all over the system. */
long pins_held(void);
/* Wait until it is that many again. */
bool pins_back_to(long before);
/* The number that an option of this program has, or exit and say which are right. */
unsigned long num_option(const char *name, const char *arg, unsigned long lowest,
			 unsigned long highest);
/* Shell commands for what has no plain system call: mkfs, mount, modprobe. */
__printf(1, 2) bool run_cmd(const char *fmt, ...);

/* The largest unused CMA area of one range, found by system_prepare(). */
struct cma_area {
	char name[NAME_MAX + 1];
	unsigned long base_pfn;
	unsigned long count;
	long budget;		/* as found, in ms; -1: this kernel has none */
};

extern struct cma_area area;

/* Any area, if it is of one range and wholly unused. */
bool area_read(struct cma_area *a, const char *name);
/* Write to a debugfs file of an area, and set its budget: 0 or -errno. */
int area_put(const struct cma_area *a, const char *file, unsigned long val);
int area_set_budget(const struct cma_area *a, unsigned long ms);

size_t area_bytes(void);
/* What a debugfs file of the area says. */
unsigned long area_get(const char *file);
const char *budget_file(void);
/* Allocate the whole area: 0 or -errno. */
int area_alloc(void);
/* Allocate an area while there is no load: then it has to work soon. */
bool area_take(const struct cma_area *a);
/* Frees only what was allocated through debugfs. */
void area_free(void);

/* Of what is allocated from CMA: the default of CONFIG_CMA_ALIGNMENT */
#define ALIGNMENT	(256 * psize())

/* Open the dma-buf heap that has the area, or return -1 with the reason set. */
int heap_open(void);
/* Returns a file descriptor of a dma-buf, or -errno. */
int heap_alloc(int heap, size_t bytes);

struct nullb_conf {
	size_t bytes;
	unsigned int completion_us;
	unsigned int depth;
	unsigned int blocksize;		/* 0: 512 */
	unsigned int poll_queues;
	bool memory_backed;
	bool scheduler;		/* one queue, with an I/O scheduler before it */
};

/* Create a device and open it; -1 with the reason set if that fails. */
int nullb_create(const char *dev, const struct nullb_conf *conf);
void nullb_destroy(const char *dev);

/* Would a pin of that page have to wait? Tried with a device that is open. */
bool gate_is_closed(int fd, char *page);

/* Pins that last for a known time: those of I/O on a slow device. */
struct slow_pins {
	int fd;
	aio_context_t ctx;
	unsigned int nr;
};

/* For up to max pages at a time. */
bool slow_pins_create(struct slow_pins *pins, unsigned int hold_ms, unsigned int max);
bool slow_pin(struct slow_pins *pins, char *page);
/* Wait for their end. */
void slow_pins_finish(struct slow_pins *pins);

/* Make a file system on a device by the command mkfs and mount it at FS_MNT. */
bool fs_create(const char *dev, const char *type, const char *mkfs, const char *options);

/*
 * The ballast: regular memory that is used up. Most of it belongs to the parent
 * of the tests, because it takes time to populate; a test can add some.
 */

/* Grow it until only so much regular memory is free. */
bool ballast_grow(size_t leave);
/* The same, for memory that is to be populated in the area afterwards. */
bool ballast_leave_at_most(size_t leave);
/* Shrink it until so much is free. */
void ballast_leave_at_least(size_t leave);
/* Use up again what reclaim has taken from it; regular memory that may be free. */
bool ballast_renew(size_t leave);

/* The pool: memory in the area. */
enum pool_kind {
	POOL_ANON,
	POOL_THP,
	POOL_HUGETLB,
	POOL_SHMEM,
	POOL_FILE,
};

struct pool {
	enum pool_kind kind;
	size_t bytes;
	char *addr;
	int pagemap;
	int fd;			/* POOL_FILE */
	bool low;		/* at the start of the area, if it can be had */
};

/* What a kind of memory needs once, or why it is not there. */
bool pool_prepare(struct pool *pool, enum pool_kind kind, size_t bytes);
/* How much regular memory may be free for a pool to be populated in the area. */
size_t pool_may_leave(size_t bytes);
/* Populate new memory in the area. Needs the old one to be unmapped. */
bool pool_fill(struct pool *pool);
/* The same for several at once: to fill one empties the area of all others. */
bool pools_fill(struct pool *pools[], unsigned int nr);
/* Populate new memory outside of the area. */
bool pool_fill_outside(struct pool *pool);
void pool_unmap(struct pool *pool);
/* How many pages of a part of the pool are in the area? */
size_t resident_pages(const struct pool *pool, const char *addr, size_t len);
/* The first page from that offset on that is in the area, or NULL. */
char *resident_page(const struct pool *pool, size_t offset);

/*
 * Look at the system, and have restore(), which calls system_restore(), bring it
 * back to that at exit.
 */
bool system_prepare(void (*restore)(void));
/* Bring back all that a test, even one that was killed, can leave behind. */
void system_restore(void);

#endif
