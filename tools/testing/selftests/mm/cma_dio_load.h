/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_DIO_LOAD_H
#define _MM_CMA_DIO_LOAD_H

#include <pthread.h>
#include "cma_util.h"
#include <sys/uio.h>	/* after aio_abi.h, whose RWF_* need __force */

/*
 * The load: some threads keep a number of O_DIRECT I/Os in flight on a null_blk
 * device, which completes them after a chosen time. Each I/O has a buffer of its
 * own in pages of the area, and is submitted again as soon as it completes. So
 * there is always a pin on nearly every buffer, and an allocation of the whole area
 * can only succeed if new pins wait for it. Buffers leave the area with the
 * allocation, so the load is stopped after each try and starts over with new ones.
 */
#define MAX_SEGS	8

struct load_spec {
	unsigned int threads;
	unsigned int slots;		/* I/Os in flight, per thread */
	unsigned int segs;		/* parts of a buffer, far from each other */
	size_t seg_bytes;
	unsigned int completion_us;
	bool write;
	bool verify;			/* write, read back, compare */
};

struct slot {
	struct load *load;
	struct iocb iocb;
	struct iovec iov[MAX_SEGS];
	unsigned int id;
	unsigned int generation;	/* of the data, for spec->verify */
	bool reading;
	unsigned long completed;
	long long submitted_us;
};

struct load {
	const struct load_spec *spec;
	unsigned int nr_slots;
	size_t io_bytes;
	int fd;
	struct slot *slots;
	pthread_t *threads;
	unsigned int nr_threads;
	bool stop;
	unsigned long errors;		/* failed or short */
	unsigned long corrupt;
	long first_error;
	void *(*run)(void *slots);	/* a thread */
	/* Called for each I/O that has ended, or NULL */
	void (*io_done)(struct load *load, const struct slot *slot);
};

bool load_create(struct load *load, const struct load_spec *spec);
/* Start, and wait until each slot was submitted a second time. */
bool load_start(struct load *load);
/* Stop submitting and wait for what is in flight. */
void load_stop(struct load *load);
void load_destroy(struct load *load);
/* For a thread: an I/O could not be submitted, or has ended, with that result. */
void load_error(struct load *load, long res);
void slot_done(struct slot *slot, long res);
/* Memory for the buffers, and some more: moving that is part of the job. */
size_t pool_bytes_for(const struct load_spec *spec);

#endif
