/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_STORAGE_SERVER_H
#define _MM_CMA_STORAGE_SERVER_H

#include <stdbool.h>
#include <sys/types.h>
#include "cma_env.h"

/* The file that the FUSE server offers, and the size of the ublk device. */
#define FUSE_FILE	FS_MNT "/file"
#define FUSE_FILE_BYTES	(4 * MB)
#define UBLK_BYTES	(48 * MB)

/* What a server needs of its buffers: for so many requests of that size. */
#define DAEMON_DEPTH	4
#define DAEMON_IO_BYTES	(128 * KB)

/*
 * A process that serves a file system (FUSE) or a block device (ublk) out of a
 * store, by direct I/O to and from its buffers. One request after the other.
 * In memory that is shared between the tests and the server.
 */
struct daemon {
	/* Set before it starts. */
	bool flusher;			/* PR_SET_IO_FLUSHER */
	int store;			/* block device for O_DIRECT */
	char *buf;			/* DAEMON_DEPTH * DAEMON_IO_BYTES, shared */

	unsigned int stall_ms;		/* think that long before each write */
	long long io_since;		/* start of the I/O in progress, 0: none */
	long long longest_us;
	unsigned long errors;

	pid_t pid;
	int ublk_id;			/* -1: no such device */
};

/* What is missing here to have one, or NULL */
const char *fuse_missing(void);
const char *ublk_missing(void);
/* Mounts FUSE_FILE's file system. */
bool fuse_start(struct daemon *d);
/* Creates /dev/ublkb<ublk_id>. */
bool ublk_start(struct daemon *d);
/* End the server, and delete its device. May be called by the parent, too. */
void daemon_stop(struct daemon *d);

#endif
