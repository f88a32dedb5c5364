/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_DIO_MEASURE_H
#define _MM_CMA_DIO_MEASURE_H

#include <stdbool.h>
#include <stdio.h>
#include "cma_ballast.h"
#include "cma_dio_load.h"

/*
 * Allocations under the load of cma_dio_load.h, and others, measured. The area is
 * filled by means of cma_ballast.h, so that all kernels are measured in the same way.
 *
 * With fresh buffers each I/O maps its buffer, reads into it and unmaps it. Its
 * pages come into being when GUP faults them in, or before if they are touched.
 *
 * Buffers outside of the area are hot ones that are never in it: what the same I/O
 * costs if it is in nobody's way. The area has as much memory in it as before.
 */
struct measure_spec {
	struct load_spec load;		/* fresh: one slot, one segment */
	bool fresh;
	bool touch;			/* write to fresh buffers first */
	bool outside;			/* have the buffers outside of the area */
	bool idle;			/* have the buffers, but no I/O */
	bool apart;			/* leave the last CPU to the allocator */
	size_t leave;			/* if not 0: so much regular memory is free */
	bool (*fill)(struct pool *pool); /* instead of ballast_fill() */
};

/* Times in us, cut to three digits: up to 9.99 s. */
#define HIST_SCALE	900	/* numbers of three digits */
#define HIST_SIZE	(1000 + 4 * HIST_SCALE)

struct hist {
	unsigned long count[HIST_SIZE];
};

void hist_add(struct hist *hist, long long us);
/* The time, in us, that an entry stands for. */
long long hist_us(unsigned int index);

/* Is it a page of a buffer, one of the pool or a fresh one? */
bool load_has_pfn(const struct load *load, const struct pool *pool, unsigned long pfn);

struct taker {
	/* Returns 0 or -errno. */
	int (*take)(void *arg);
	/* After each try, whether it succeeded or not */
	void (*give)(void *arg);
	/* After a try that failed, while the load still runs; may be NULL. */
	void (*failed)(void *arg, const struct load *load, const struct pool *pool);
	void *arg;
	bool whole;			/* no page of the area may be left over */
};

/* The whole area, through debugfs */
extern const struct taker take_area;

struct attempt {
	long long us;
	bool ok;
};

struct result {
	unsigned int tried;
	unsigned int succeeded;
	unsigned int resident;		/* % of the hot buffers, in the worst try */
	struct attempt *attempts;
	long long span_us;		/* of all of them */
	unsigned long completed;	/* I/Os within that span */
	unsigned long errors;
	long first_error;
	struct hist io;			/* I/Os that met an allocation */
};

/* False if it could not be measured. */
bool run_tries(const struct measure_spec *spec, struct pool *pool,
	       const struct taker *taker, unsigned int tries, struct result *res);
/* The nearest-rank percentile of all attempts, in ms. */
double percentile_ms(struct result *res, unsigned int percent);
double result_iops(const struct result *res);
void result_print(struct result *res);

/* An option of a program: one of these pointers, for what it sets, and for numbers a range */
struct option_spec {
	const char *name;
	bool *flag;
	const char **text;
	unsigned int *number;
	size_t *bytes;
	long *budget;			/* a number, or -1 for "keep" */
	unsigned long lowest;
	unsigned long highest;
	size_t unit;			/* of bytes; 0: 1 */
};

/* The last one has no name. Exits, and says which are right, if one is not. */
void parse_options(int argc, char **argv, const struct option_spec *specs);
/* Open a table to append rows to; a new one gets the header first. */
FILE *csv_open(const char *path, const char *header);
bool csv_close(FILE *f, const char *path);

#endif
