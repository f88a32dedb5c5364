/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_MM_CHURN_H
#define _MM_CMA_MM_CHURN_H

#include <stdbool.h>

/*
 * The churn: whatever else maps, moves, splits, reclaims or refers to pages,
 * each in a process of its own, all of them in a cgroup with little memory.
 */

/* What they work with, beside memory of their own. */
struct churn_env {
	int fd;				/* a device for direct I/O, 1 MB of it */
	char *(*hot_page)(void *arg, unsigned int *seed);	/* a page that others pin */
	void *arg;
};

/* Start all that this system can have. */
bool churn_start(const struct churn_env *env);
/* To be called now and then: starts again what has run out of memory. */
void churn_tend(void);
/* False if one of them does not end. */
bool churn_stop(unsigned int limit_ms);
/* Print what each has done. False if one got nowhere, or has seen wrong data. */
bool churn_report(void);
/*
 * Take back what the system has got for the churn. For a test that was killed, too:
 * its processes are gone with it, but the memory block may stay online.
 */
void churn_restore(void);

#endif
