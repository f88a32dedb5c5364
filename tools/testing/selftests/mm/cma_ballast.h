/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_BALLAST_H
#define _MM_CMA_BALLAST_H

#include <stdbool.h>
#include <stddef.h>
#include "cma_env.h"

/*
 * The ballast: regular memory that is used up. Most of it belongs to the parent
 * of the tests, because it takes time to populate; a test can add some.
 */

#define NO_BALLAST	"regular memory cannot be used up, see above: try mem=1G"

/* Of /proc/meminfo. */
size_t mem_bytes(const char *name);
/* Grow it until only so much regular memory is free. */
bool ballast_grow(size_t leave);
/* The same, for memory that is to be populated in the area afterwards. */
bool ballast_leave_at_most(size_t leave);
/* Shrink it until so much is free. */
void ballast_leave_at_least(size_t leave);
/* Use up again what reclaim has taken from it; regular memory that may be free. */
bool ballast_renew(size_t leave);

/* How much regular memory may be free for a pool to be populated in the area. */
size_t pool_may_leave(size_t bytes);
/*
 * Populate a pool in the area, most of it. Needs the old one to be unmapped. The
 * first pages are likely to come from the per-CPU lists and not from the area.
 */
bool ballast_fill(struct pool *pool);

#endif
