/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_ENV_H
#define _MM_CMA_ENV_H

#include <stdbool.h>
#include "cma_util.h"

#define MEMORY_SYS	"/sys/devices/system/memory"
#define FS_MNT		"/tmp/cma_gup_pin_mnt"

/* Below this share of buffers in the area a try says nothing. */
#define MIN_RESIDENT	90	/* % */

/* Of what is allocated from CMA: the default of CONFIG_CMA_ALIGNMENT */
#define ALIGNMENT	(256 * psize())

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static inline size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

static inline void raise_to(long long *us, long long to)
{
	if (*us < to)
		*us = to;
}

/* Memory that processes share which are forked later. Exits if there is none. */
void *map_shared(size_t bytes);

/* By how much a busy, slow machine is late, in the environment */
#define SLACK_MS	"CMA_GUP_STRESS_SLACK_MS"

/* A positive number from the environment, or the preset */
unsigned int from_env(const char *name, unsigned int preset);

/* Shell commands for what has no plain system call: mkfs, mount, modprobe. */
__printf(1, 2) bool run_cmd(const char *fmt, ...);
/* Make a file system on a device by the command mkfs and mount it at FS_MNT. */
bool fs_create(const char *dev, const char *type, const char *mkfs, const char *options);
/* Set the state of a memory block, for no longer than that. 0 if it worked. */
int memory_set_state(unsigned long block, const char *state, unsigned int seconds);

/* What a debugfs file of the area says. */
unsigned long area_get(const char *file);
/* Allocate an area while there is no load: then it has to work soon. */
bool area_take(const struct cma_area *a);

#define HEAPS		"/dev/dma_heap"
#define NO_HEAP		"no heap in " HEAPS " has the area: needs CONFIG_DMABUF_HEAPS_CMA"

/* Open the dma-buf heap that has the area, or return -1. */
int heap_open(void);
/* Returns a file descriptor of a dma-buf, or -errno. */
int heap_alloc(int heap, size_t bytes);

/* Would a pin of that page have to wait? Tried with a device that is open. */
bool gate_is_closed(int fd, char *page);
/* The first page from that offset on that is in the area, or NULL. */
char *resident_page(const struct pool *pool, size_t offset);

/* system_prepare() for those who need memory to be moved to the area */
void env_prepare(void (*restore)(void));
/* system_restore(), and the file system */
void env_restore(void);

#endif
