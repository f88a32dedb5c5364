// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that is used up, so that the page allocator puts new memory into the area.
 * This works on any kernel, but has to fill the machine.
 *
 * Two properties of the page allocator are used: movable allocations are served from
 * CMA while it has more than half of a zone's free memory, and nothing is while the
 * whole area is allocated. So: allocate the area, use up regular memory with a
 * ballast, free the area, and populate new memory.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cma_ballast.h"
#include "vm_util.h"

/* Regular memory that stays free for everybody else. */
#define SLACK		(32 * MB)
#define MIN_LEAVE	(48 * MB)
/* More free memory than this is not worth to be used up for a test. */
#define MAX_BALLAST	(sizeof(long) == 8 ? 4096 * MB : 1024 * MB)

static struct {
	pid_t owner;
	char *addr;
	size_t used;
} ballast;

size_t mem_bytes(const char *name)
{
	return stat_value("/proc/meminfo", name) * KB;
}

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
		return cannot("map the ballast: %s", strerror(errno));
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
			return cannot("use up %zu MB outside of the area: try mem=1G", free / MB);
		if (madvise(ballast.addr + ballast.used, len, MADV_POPULATE_WRITE))
			return cannot("populate the ballast: %s", strerror(errno));
		ballast.used += len;
	}
	return true;
}

/* Allocating the area also empties the per-CPU lists of free pages, which would be used first. */
bool ballast_leave_at_most(size_t leave)
{
	bool ok;

	if (!area_take(&area))
		return false;
	ok = ballast_reserve() && ballast_grow(leave);
	area_free();
	return ok;
}

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

/* Free CMA memory has to be more than that to the end. */
size_t pool_may_leave(size_t bytes)
{
	size_t least = max_size(MIN_LEAVE, bytes / 4);

	if (area_bytes() < bytes + SLACK + least)
		return least;
	return area_bytes() - bytes - SLACK;
}

bool ballast_fill(struct pool *pool)
{
	if (!ballast_leave_at_most(pool_may_leave(pool->bytes)) || !pool_map(pool))
		return false;
	/* The allocation has to find room for what it moves. */
	ballast_leave_at_least(pool->bytes + SLACK);
	return true;
}
