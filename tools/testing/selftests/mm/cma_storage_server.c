// SPDX-License-Identifier: GPL-2.0
/*
 * Storage servers that a CMA allocation can depend on, and that do direct I/O
 * themselves: one on libfuse, and one for ublk on liburing.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "local_config.h_gen"
#include "cma_storage_server.h"
#include "vm_util.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER	57
#endif

#if defined(LOCAL_CONFIG_HAVE_LIBFUSE) || defined(LOCAL_CONFIG_HAVE_LIBURING)
/* Returns 0 or an error number. */
static int daemon_io(struct daemon *d, bool write, char *buf, size_t len, off_t pos)
{
	long long start = now_us();
	ssize_t ret;

	write_once(d->io_since, start);
	if (write && d->stall_ms)
		usleep(d->stall_ms * USEC_PER_MSEC);
	ret = write ? pwrite(d->store, buf, len, pos) : pread(d->store, buf, len, pos);
	raise_to(&d->longest_us, now_us() - start);
	write_once(d->io_since, 0);
	if (ret == (ssize_t)len)
		return 0;
	count_one(d->errors);
	return ret < 0 ? errno : EIO;
}

static bool daemon_fork(struct daemon *d, void (*serve)(struct daemon *d))
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (d->flusher && prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
			_exit(KSFT_FAIL);
		serve(d);
		_exit(KSFT_PASS);
	}
	if (pid < 0)
		return cannot("fork: %s", strerror(errno));
	d->pid = pid;
	return true;
}
#endif

#if defined(LOCAL_CONFIG_HAVE_LIBFUSE)

#define FUSE_USE_VERSION 35
#include <fuse3/fuse_lowlevel.h>

/* The root folder is inode 1, its only file inode 2. */
#define FILE_INO	2

static void fuse_stat(fuse_ino_t ino, struct stat *st)
{
	*st = (struct stat){
		.st_ino = ino,
		.st_nlink = 1,
		.st_mode = ino == FILE_INO ? S_IFREG | 0600 : S_IFDIR | 0700,
		.st_size = ino == FILE_INO ? FUSE_FILE_BYTES : 0,
	};
}

static void fuse_init(void *data, struct fuse_conn_info *conn)
{
	conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	conn->max_write = DAEMON_IO_BYTES;
	conn->max_read = DAEMON_IO_BYTES;	/* as in the mount options */
}

static void fuse_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {
		.ino = FILE_INO,
		.attr_timeout = 1000,
		.entry_timeout = 1000,
	};

	if (strcmp(name, "file")) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fuse_stat(FILE_INO, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void fuse_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	fuse_stat(ino, &st);
	fuse_reply_attr(req, &st, 1000);
}

static void fuse_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
			 struct fuse_file_info *fi)
{
	fuse_getattr(req, ino, fi);
}

static void fuse_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_open(req, fi);
}

static void fuse_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t pos,
		      struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	int err;

	if (len > DAEMON_IO_BYTES)
		len = DAEMON_IO_BYTES;
	err = daemon_io(d, false, d->buf, len, pos);
	if (err)
		fuse_reply_err(req, err);
	else
		fuse_reply_buf(req, d->buf, len);
}

static void fuse_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t len, off_t pos,
		       struct fuse_file_info *fi)
{
	struct daemon *d = fuse_req_userdata(req);
	int err;

	memcpy(d->buf, data, len);
	err = daemon_io(d, true, d->buf, len, pos);
	if (err)
		fuse_reply_err(req, err);
	else
		fuse_reply_write(req, len);
}

static const struct fuse_lowlevel_ops fuse_ops = {
	.init = fuse_init,
	.lookup = fuse_lookup,
	.getattr = fuse_getattr,
	.setattr = fuse_setattr,
	.open = fuse_open,
	.read = fuse_read,
	.write = fuse_write,
};

static void fuse_serve(struct daemon *d)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session;
	char option[32];

	snprintf(option, sizeof(option), "-omax_read=%lu", DAEMON_IO_BYTES);
	if (fuse_opt_add_arg(&args, "cma_gup_cycle") || fuse_opt_add_arg(&args, option))
		return;
	session = fuse_session_new(&args, &fuse_ops, sizeof(fuse_ops), d);
	if (session && !fuse_session_mount(session, FS_MNT))
		fuse_session_loop(session);
}

const char *fuse_missing(void)
{
	return access("/dev/fuse", R_OK | W_OK) ? "no /dev/fuse: needs CONFIG_FUSE_FS" : NULL;
}

bool fuse_start(struct daemon *d)
{
	struct stat st;
	int i;

	mkdir(FS_MNT, 0700);
	if (!daemon_fork(d, fuse_serve))
		return false;
	for (i = 0; i < 500; i++) {
		if (!stat(FUSE_FILE, &st))
			return true;
		usleep(10000);
	}
	return cannot("get the FUSE server up");
}

#else

const char *fuse_missing(void)
{
	return "built without libfuse 3";
}

bool fuse_start(struct daemon *d)
{
	return false;
}

#endif

#if defined(LOCAL_CONFIG_HAVE_LIBURING)

#include <liburing.h>
#include <linux/ublk_cmd.h>

#define UBLK_CONTROL	"/dev/ublk-control"

/* The numbers alone are legacy; not all headers have the others. */
#define ublk_ctrl_op(nr)	_IOWR('u', nr, struct ublksrv_ctrl_cmd)
#define ublk_io_op(nr)		_IOWR('u', nr, struct ublksrv_io_cmd)
#define UBLK_DEL_DEV_ASYNC	_IOR('u', 0x14, struct ublksrv_ctrl_cmd)

/* There is always a free one here: as many as can be in flight. */
static struct io_uring_sqe *ublk_sqe(struct io_uring *ring, int fd, unsigned int op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		exit(KSFT_FAIL);
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, op);
	return sqe;
}

/* One command for the control device: 0 or -errno. */
static int ublk_control(unsigned int op, const struct ublksrv_ctrl_cmd *cmd)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SQE128 };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	int fd, ret;

	fd = open(UBLK_CONTROL, O_RDWR);
	if (fd < 0)
		return -errno;
	ret = io_uring_queue_init_params(1, &ring, &params);
	if (ret) {
		close(fd);
		return ret;
	}
	sqe = ublk_sqe(&ring, fd, op);
	memcpy(sqe->cmd, cmd, sizeof(*cmd));
	io_uring_submit(&ring);
	ret = io_uring_wait_cqe(&ring, &cqe);
	if (!ret)
		ret = cqe->res;
	io_uring_queue_exit(&ring);
	close(fd);
	return ret;
}

static void ublk_delete(int id)
{
	struct ublksrv_ctrl_cmd cmd = { .dev_id = id, .queue_id = -1 };

	ublk_control(ublk_ctrl_op(UBLK_CMD_STOP_DEV), &cmd);
	/* Does not wait for whoever still has it open. */
	ublk_control(UBLK_DEL_DEV_ASYNC, &cmd);
}

struct ublk_queue {
	struct daemon *d;
	struct io_uring ring;
	int fd;
	const struct ublksrv_io_desc *descs;
};

static char *ublk_buf(struct ublk_queue *q, unsigned int tag)
{
	return q->d->buf + tag * DAEMON_IO_BYTES;
}

static void ublk_fetch(struct ublk_queue *q, unsigned int op, unsigned int tag, int result)
{
	struct io_uring_sqe *sqe = ublk_sqe(&q->ring, q->fd, ublk_io_op(op));
	struct ublksrv_io_cmd cmd = {
		.tag = tag,
		.result = result,
		.addr = (uintptr_t)ublk_buf(q, tag),
	};

	sqe->user_data = tag;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
}

static int ublk_handle(struct ublk_queue *q, unsigned int tag)
{
	const struct ublksrv_io_desc *desc = &q->descs[tag];
	unsigned int op = ublksrv_get_op(desc);
	size_t len = desc->nr_sectors * 512UL;
	int err = 0;

	if (op == UBLK_IO_OP_READ || op == UBLK_IO_OP_WRITE)
		err = daemon_io(q->d, op == UBLK_IO_OP_WRITE, ublk_buf(q, tag), len,
				desc->start_sector * 512);
	return err ? -err : (int)len;
}

static void ublk_serve(struct daemon *d)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SQE128 };
	struct ublk_queue q = { .d = d };
	struct io_uring_cqe *cqe;
	unsigned int tag;
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkc%d", d->ublk_id);
	q.fd = open(path, O_RDWR);
	if (q.fd < 0 || io_uring_queue_init_params(DAEMON_DEPTH, &q.ring, &params))
		return;
	q.descs = mmap(NULL, psize(), PROT_READ, MAP_SHARED | MAP_POPULATE, q.fd, 0);
	if (q.descs == MAP_FAILED)
		return;
	for (tag = 0; tag < DAEMON_DEPTH; tag++)
		ublk_fetch(&q, UBLK_IO_FETCH_REQ, tag, 0);
	for (;;) {
		io_uring_submit_and_wait(&q.ring, 1);
		while (!io_uring_peek_cqe(&q.ring, &cqe)) {
			int res = cqe->res;

			tag = cqe->user_data;
			io_uring_cqe_seen(&q.ring, cqe);
			if (res != UBLK_IO_RES_OK)
				return;
			ublk_fetch(&q, UBLK_IO_COMMIT_AND_FETCH_REQ, tag, ublk_handle(&q, tag));
		}
	}
}

static int ublk_add(struct daemon *d)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1,
		.queue_depth = DAEMON_DEPTH,
		.max_io_buf_bytes = DAEMON_IO_BYTES,
		.dev_id = -1,
	};
	struct ublksrv_ctrl_cmd cmd = {
		.dev_id = -1,
		.queue_id = -1,
		.addr = (uintptr_t)&info,
		.len = sizeof(info),
	};
	int err = ublk_control(ublk_ctrl_op(UBLK_CMD_ADD_DEV), &cmd);

	if (!err)
		d->ublk_id = info.dev_id;
	return err;
}

static int ublk_set_params(struct daemon *d)
{
	struct ublk_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.logical_bs_shift = 9,
			.physical_bs_shift = 12,
			.io_opt_shift = 12,
			.io_min_shift = 9,
			.max_sectors = DAEMON_IO_BYTES / 512,
			.dev_sectors = UBLK_BYTES / 512,
		},
	};
	struct ublksrv_ctrl_cmd cmd = {
		.dev_id = d->ublk_id,
		.queue_id = -1,
		.addr = (uintptr_t)&params,
		.len = sizeof(params),
	};

	return ublk_control(ublk_ctrl_op(UBLK_CMD_SET_PARAMS), &cmd);
}

/* Returns once the server has fetched all its requests. */
static int ublk_run(struct daemon *d)
{
	struct ublksrv_ctrl_cmd cmd = {
		.dev_id = d->ublk_id,
		.queue_id = -1,
		.data = { d->pid },
	};

	return ublk_control(ublk_ctrl_op(UBLK_CMD_START_DEV), &cmd);
}

const char *ublk_missing(void)
{
	return access(UBLK_CONTROL, R_OK | W_OK) ?
	       "no " UBLK_CONTROL ": needs CONFIG_BLK_DEV_UBLK" : NULL;
}

bool ublk_start(struct daemon *d)
{
	char path[32];
	int err, i;

	err = ublk_add(d);
	err = err ?: ublk_set_params(d);
	if (err)
		return cannot("add a ublk device: %s", strerror(-err));
	if (!daemon_fork(d, ublk_serve))
		return false;
	err = ublk_run(d);
	if (err)
		return cannot("start the ublk device: %s", strerror(-err));
	snprintf(path, sizeof(path), "/dev/ublkb%d", d->ublk_id);
	for (i = 0; i < 100 && access(path, R_OK | W_OK); i++)
		usleep(10000);
	return i < 100 || cannot("find %s", path);
}

#else

static void ublk_delete(int id)
{
}

const char *ublk_missing(void)
{
	return "built without liburing";
}

bool ublk_start(struct daemon *d)
{
	return false;
}

#endif

void daemon_stop(struct daemon *d)
{
	if (d->ublk_id >= 0)
		ublk_delete(d->ublk_id);
	d->ublk_id = -1;
	if (d->pid) {
		kill(d->pid, SIGKILL);
		waitpid(d->pid, NULL, 0);
	}
	d->pid = 0;
}
