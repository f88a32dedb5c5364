/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_IO_H
#define _MM_CMA_IO_H

#include <errno.h>
#include <signal.h>
#include "cma_util.h"
#include <sys/uio.h>	/* after aio_abi.h, whose RWF_* need __force */
#include <tools/include/io_uring/mini_liburing.h>

/* Direct I/O, and the ways in which a program can have it done */
struct io {
	int fd;
	off_t offset;
	struct iovec *iov;
	unsigned int nr;
	size_t bytes;
	bool write;
	int rw_flags;
	long long start_us;
	long res;		/* bytes or -errno */
};

enum method {
	SYNC,			/* one part: pread(), pwrite(); else by vector */
	AIO,
	URING,
	URING_SQPOLL,
	URING_IOPOLL,
	URING_SQPOLL_IOPOLL,
};

#define NO_IO_URING	"no io_uring, see above: needs CONFIG_IO_URING"

struct engine {
	enum method method;
	bool from_worker;	/* io_uring: let a worker start it */
	bool unpolled;		/* IOPOLL: do not look for results at the start of an I/O */
	aio_context_t ctx;
	struct io_uring ring;
};

/* By a plain system call */
void io_run(struct io *io);

/* For that many I/Os in flight */
bool engine_open(struct engine *e, unsigned int depth);
void engine_close(struct engine *e);
/* Returns whether it is in flight then. */
bool engine_start(struct engine *e, struct io *io);
/* Wait for any of those in flight. */
struct io *engine_finish(struct engine *e);
/* io_uring: is there a result? */
bool engine_has_result(const struct engine *e);
/* Start all, then wait for all. */
void engine_run(struct engine *e, struct io *ios, unsigned int nr);

#endif
