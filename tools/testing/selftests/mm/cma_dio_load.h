/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_DIO_LOAD_H
#define _MM_CMA_DIO_LOAD_H

#include <asm/posix_types.h>	/* for aio_abi.h; not in the types.h of tools */
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>
#include "cma_util.h"

/*
 * The load: some threads keep a number of O_DIRECT I/Os in flight on a null_blk
 * device, which completes them after a chosen time.
 *
 * With hot buffers each I/O has a buffer of its own in pages of the area, and is
 * submitted again as soon as it completes. So there is always a pin on nearly
 * every buffer, and an allocation of the whole area can only succeed if new pins
 * wait for it. Buffers leave the area with the allocation, so the load is
 * stopped after each try and starts over with new buffers.
 *
 * With fresh buffers each I/O maps its buffer, reads into it and unmaps it. Its
 * pages come into being when GUP faults them in, or before if they are touched.
 *
 * Buffers outside of the area are hot ones that are never in it: what the same I/O
 * costs if it is in nobody's way. The area has as much memory in it as before.
 */
struct load_spec {
	unsigned int threads;
	unsigned int slots;		/* I/Os in flight, per thread; fresh: 1 */
	unsigned int segs;		/* parts of a buffer, far from each other */
	size_t seg_bytes;
	unsigned int completion_us;
	bool write;
	bool verify;			/* write, read back, compare */
	bool fresh;
	bool touch;			/* write to fresh buffers first */
	bool outside;			/* have the buffers outside of the area */
	bool idle;			/* have the buffers, but no I/O */
	bool apart;			/* leave the last CPU to the allocator */
	size_t leave;			/* if not 0: so much regular memory is free */
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

struct slot {
	struct iocb iocb;
	struct iovec *iov;
	unsigned int id;
	unsigned int generation;	/* of the data, for spec->verify */
	bool reading;
	unsigned long completed;
	long long submitted_us;
};

struct worker {
	struct load *load;
	struct slot *slots;
	struct iocb **batch;		/* room for all slots */
	struct io_event *events;	/* the same */
	aio_context_t ctx;
	pthread_t thread;
	bool running;
};

struct load {
	const struct load_spec *spec;
	unsigned int nr_slots;
	size_t io_bytes;
	int fd;
	struct slot *slots;
	struct iovec *iov;
	struct iocb **batch;
	struct io_event *events;
	struct worker *workers;
	struct pool outside;		/* buffers, for spec->outside */
	bool stop;
	long long alloc_begin_us;	/* of this try, 0: not yet */
	long long alloc_end_us;
	unsigned long completed;
	unsigned long errors;		/* failed or short */
	unsigned long corrupt;
	long first_error;
	struct hist io;			/* I/Os that met an allocation */
};

/* Is it a page of a buffer, one of the pool or a fresh one? */
bool load_has_pfn(const struct load *load, const struct pool *pool, unsigned long pfn);

/*
 * Tries: allocations under load
 */

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
	unsigned long corrupt;
	long first_error;
	struct hist io;
};

size_t pool_bytes_for(const struct load_spec *spec);
/* False, with the reason set, if it could not be measured. */
bool run_tries(const struct load_spec *spec, struct pool *pool,
	       const struct taker *taker, unsigned int tries, struct result *res);
/* The nearest-rank percentile of all attempts, in ms. */
double percentile_ms(struct result *res, unsigned int percent);
double result_iops(const struct result *res);
void result_print(struct result *res);

#endif
