/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_UTIL_H
#define _MM_CMA_UTIL_H

#include <asm/posix_types.h>	/* for aio_abi.h; not in the types.h of tools */
#include <limits.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "kselftest.h"

#define KB		1024UL
#define MB		(1024UL * KB)
#define USEC_PER_MSEC	1000LL
#define USEC_PER_SEC	1000000LL

/* To wait for pins is tested, not how long that takes on a slow machine. */
#define AMPLE_MS	5000
/* PIN_GATE_MAX_WAIT: the longest that one call waits for gates, from its start */
#define BOUND_MS	1000
#define PROMPT_MS	600	/* what has to be prompt may take this long */
#define HOLD_MS		4000	/* how long a pin lasts that keeps a gate closed */

#define DEBUGFS_CMA	"/sys/kernel/debug/cma"
#define SYSFS_CMA	"/sys/kernel/mm/cma"

#define NO_BUDGET	\
	"no drain_budget_ms: a kernel without pin gates, or without CONFIG_CMA_SYSFS"

/* null_blk devices of the tests; all that are left over are removed. */
#define NULLB_PREFIX	"cma_gup_pin_"

#define read_once(x)	__atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define write_once(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)
#define count_one(x)	__atomic_add_fetch(&(x), 1, __ATOMIC_RELAXED)

/* Print what went wrong; false. */
#define cannot(fmt, ...) ({ ksft_print_msg("cannot " fmt "\n", ##__VA_ARGS__); false; })

long long now_us(void);
/* Write to a file of the kernel. Both return 0 or -errno. */
int put_str(const char *path, const char *val);
int put_num(const char *path, unsigned long val);
/* The number behind a name in such a file, or 0 */
unsigned long stat_value(const char *path, const char *name);
#define vm_counter(name)	stat_value("/proc/vmstat", name)
/* Pins taken and not yet released, all over the system. */
long pins_held(void);
/* Wait until it is that many again. */
bool pins_back_to(long before);

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
/* Write to a debugfs file of an area: 0 or -errno. */
int area_put(const struct cma_area *a, const char *file, unsigned long val);
size_t area_bytes(void);
const char *budget_file(void);
/* Allocate the whole area: 0 or -errno. */
int area_alloc(void);
/* Frees only what was allocated through debugfs. */
void area_free(void);

struct nullb_conf {
	size_t bytes;
	unsigned int completion_us;
	unsigned int depth;
	unsigned int blocksize;		/* 0: 512 */
	unsigned int poll_queues;
	bool memory_backed;
	bool scheduler;		/* one queue, with an I/O scheduler before it */
};

/* Create a device, again if need be, and open it for direct I/O; -1 if that fails. */
int nullb_create(const char *dev, const struct nullb_conf *conf);
void nullb_destroy(const char *dev);

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

/*
 * The pool: memory in the area. It is populated wherever that may be, and moved to
 * the area by GUP_TEST_MOVE, in pieces of POOL_PIECE.
 */
#define POOL_PIECE	(2 * MB)

enum pool_kind { POOL_ANON, POOL_THP, POOL_SHMEM, POOL_FILE };

struct pool {
	enum pool_kind kind;
	size_t bytes;
	char *addr;
	int pagemap;
	int fd;			/* POOL_FILE: whose page cache it is */
};

/* Can this kernel move memory to an area? */
bool can_move(void);
/* A file comes from pool->fd, or is a block device of its own. */
bool pool_prepare(struct pool *pool, enum pool_kind kind, size_t bytes);
/* Populate it, not necessarily in the area. */
bool pool_map(struct pool *pool);
/* Move some pages to an offset in the area; both of them within a piece. */
bool pool_move(const struct pool *pool, char *addr, size_t bytes, size_t to);
/* Have all of it in the area, the pieces far apart. Unmap it after an allocation. */
bool pool_fill(struct pool *pool);
void pool_unmap(struct pool *pool);
/* How many pages of a part of the pool are in the area? */
size_t resident_pages(const struct pool *pool, const char *addr, size_t len);

/*
 * Look at the system, and have restore(), which calls system_restore(), bring it
 * back to that at exit. Exits if the tests cannot be run here.
 */
void system_prepare(void (*restore)(void));
/* Bring back all that a test, even one that was killed, can leave behind. */
void system_restore(void);

#endif
