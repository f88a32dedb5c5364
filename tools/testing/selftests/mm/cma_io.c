// SPDX-License-Identifier: GPL-2.0
/* Direct I/O by several interfaces. See cma_io.h. */

#define _GNU_SOURCE
#include <stdint.h>
#include "cma_io.h"

void io_run(struct io *io)
{
	ssize_t ret;

	if (io->nr == 1 && !io->rw_flags && io->write)
		ret = pwrite(io->fd, io->iov->iov_base, io->bytes, io->offset);
	else if (io->nr == 1 && !io->rw_flags)
		ret = pread(io->fd, io->iov->iov_base, io->bytes, io->offset);
	else if (io->write)
		ret = pwritev2(io->fd, io->iov, io->nr, io->offset, io->rw_flags);
	else
		ret = preadv2(io->fd, io->iov, io->nr, io->offset, io->rw_flags);
	io->res = ret < 0 ? -errno : ret;
}

static void aio_start(struct engine *e, struct io *io)
{
	struct iocb iocb = {
		.aio_data = (uintptr_t)io,
		.aio_lio_opcode = io->write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV,
		.aio_fildes = io->fd,
		.aio_buf = (uintptr_t)io->iov,
		.aio_nbytes = io->nr,
		.aio_offset = io->offset,
		.aio_rw_flags = io->rw_flags,
	};
	struct iocb *batch = &iocb;

	if (syscall(__NR_io_submit, e->ctx, 1, &batch) != 1)
		io->res = -errno;
}

static struct io *aio_finish(struct engine *e)
{
	struct io_event event;
	struct io *io;

	while (syscall(__NR_io_getevents, e->ctx, 1, 1, &event, NULL) != 1)
		;
	io = (struct io *)(uintptr_t)event.data;
	io->res = event.res;
	return io;
}

/* Not by io_uring_submit(), which always polls, and does not wake up a thread of SQPOLL. */
static void uring_start(struct engine *e, struct io *io)
{
	unsigned int flags = IORING_ENTER_SQ_WAKEUP | (e->unpolled ? 0 : IORING_ENTER_GETEVENTS);
	struct io_uring_sq *sq = &e->ring.sq;
	int ret;

	sq->sqes[sq->sqe_tail++ & *sq->kring_mask] = (struct io_uring_sqe){
		.opcode = io->write ? IORING_OP_WRITEV : IORING_OP_READV,
		.flags = e->from_worker ? IOSQE_ASYNC : 0,
		.fd = io->fd,
		.off = io->offset,
		.addr = (uintptr_t)io->iov,
		.len = io->nr,
		.rw_flags = io->rw_flags,
		.user_data = (uintptr_t)io,
	};
	write_once(*sq->ktail, sq->sqe_tail);
	do
		ret = io_uring_enter(e->ring.ring_fd, 1, 0, flags, NULL);
	while (ret < 0 && errno == EAGAIN);	/* no memory for the request: still queued */
	if (ret < 0) {
		io->res = -errno;
		write_once(*sq->ktail, --sq->sqe_tail);
	}
}

static struct io *uring_finish(struct engine *e)
{
	struct io_uring_cqe *cqe;
	struct io *io;

	do
		io_uring_wait_cqe(&e->ring, &cqe);
	while (!cqe);
	io = (struct io *)(uintptr_t)cqe->user_data;
	io->res = cqe->res;
	io_uring_cqe_seen(&e->ring);
	return io;
}

bool engine_has_result(const struct engine *e)
{
	return *e->ring.cq.khead != read_once(*e->ring.cq.ktail);
}

bool engine_open(struct engine *e, unsigned int depth)
{
	static const unsigned int flags[] = {
		[URING] = 0,
		[URING_SQPOLL] = IORING_SETUP_SQPOLL,
		[URING_IOPOLL] = IORING_SETUP_IOPOLL,
		[URING_SQPOLL_IOPOLL] = IORING_SETUP_SQPOLL | IORING_SETUP_IOPOLL,
	};

	if (e->method == AIO)
		return !syscall(__NR_io_setup, depth, &e->ctx) ||
		       cannot("set up AIO: %s", strerror(errno));
	return e->method == SYNC ||
	       !io_uring_queue_init(depth, &e->ring, flags[e->method] | IORING_SETUP_NO_SQARRAY) ||
	       cannot("set up io_uring: %s", strerror(errno));
}

void engine_close(struct engine *e)
{
	if (e->method == AIO)
		syscall(__NR_io_destroy, e->ctx);
	else if (e->method != SYNC)
		io_uring_queue_exit(&e->ring);
}

bool engine_start(struct engine *e, struct io *io)
{
	io->start_us = now_us();
	io->res = -EINPROGRESS;
	if (e->method == SYNC)
		io_run(io);
	else if (e->method == AIO)
		aio_start(e, io);
	else
		uring_start(e, io);
	return io->res == -EINPROGRESS;
}

struct io *engine_finish(struct engine *e)
{
	return e->method == AIO ? aio_finish(e) : uring_finish(e);
}

void engine_run(struct engine *e, struct io *ios, unsigned int nr)
{
	unsigned int i, started = 0;

	for (i = 0; i < nr; i++)
		started += engine_start(e, &ios[i]);
	while (started--)
		engine_finish(e);
}
