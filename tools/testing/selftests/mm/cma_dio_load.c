// SPDX-License-Identifier: GPL-2.0
/* Direct I/O that keeps pages of the area pinned. See cma_dio_load.h. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cma_dio_load.h"

#define LOAD_DEV	NULLB_PREFIX "load"

/* Write the pattern to a slot's buffer, or look whether it is there. */
static bool slot_pattern(const struct slot *slot, bool write)
{
	__u64 word, *p;
	unsigned int seg;
	size_t i;

	for (seg = 0; seg < slot->load->spec->segs; seg++) {
		p = slot->iov[seg].iov_base;
		for (i = 0; i < slot->iov[seg].iov_len / sizeof(*p); i++) {
			word = (__u64)slot->id << 48 | (__u64)slot->generation << 24 | seg << 16;
			word ^= i * 0x9e3779b97f4a7c15ULL;
			if (write)
				p[i] = word;
			else if (p[i] != word)
				return false;
		}
	}
	return true;
}

void load_error(struct load *load, long res)
{
	if (count_one(load->errors) == 1)
		load->first_error = res;
}

/* Make the next I/O of a slot: with verify, writes and reads take turns. */
static void slot_prepare(struct slot *slot)
{
	const struct load *load = slot->load;
	const struct load_spec *spec = load->spec;
	bool write = spec->verify ? !slot->reading : spec->write;
	unsigned int seg;

	if (spec->verify && write)
		slot_pattern(slot, true);
	for (seg = 0; seg < spec->segs && spec->verify && !write; seg++)
		memset(slot->iov[seg].iov_base, 0xa5, spec->seg_bytes);
	slot->iocb = (struct iocb){
		.aio_data = (uintptr_t)slot,
		.aio_lio_opcode = write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV,
		.aio_fildes = load->fd,
		.aio_buf = (uintptr_t)slot->iov,
		.aio_nbytes = spec->segs,
		.aio_offset = slot->id * load->io_bytes,
	};
	slot->submitted_us = now_us();
}

void slot_done(struct slot *slot, long res)
{
	struct load *load = slot->load;

	if (load->io_done)
		load->io_done(load, slot);
	if (res != (long)load->io_bytes)
		load_error(load, res);
	if (load->spec->verify && slot->reading) {
		if (!slot_pattern(slot, false))
			count_one(load->corrupt);
		slot->generation++;
	}
	slot->reading = !slot->reading;
	count_one(slot->completed);
}

/* Returns how many I/Os were submitted; one that fails is dropped. */
static unsigned int submit(struct load *load, aio_context_t ctx, struct iocb **batch,
			   unsigned int nr)
{
	unsigned int done = 0, submitted = 0;
	long ret;

	while (done < nr) {
		ret = syscall(__NR_io_submit, ctx, nr - done, batch + done);
		if (ret > 0) {
			submitted += ret;
			done += ret;
		} else {
			load_error(load, ret ? -errno : 0);
			done++;
		}
	}
	return submitted;
}

static void *load_run(void *slots)
{
	struct slot *slot = slots;
	struct load *load = slot->load;
	unsigned int nr = load->spec->slots, queued, in_flight = 0;
	struct io_event events[nr];
	struct iocb *batch[nr];
	aio_context_t ctx = 0;
	long done, i;

	if (syscall(__NR_io_setup, nr, &ctx)) {
		load_error(load, -errno);
		return NULL;
	}
	for (queued = 0; queued < nr; queued++, slot++) {
		slot_prepare(slot);
		batch[queued] = &slot->iocb;
	}
	while ((in_flight += submit(load, ctx, batch, queued))) {
		queued = 0;
		done = syscall(__NR_io_getevents, ctx, 1, nr, events, NULL);
		if (done < 0)
			continue;
		in_flight -= done;
		for (i = 0; i < done; i++) {
			slot = (struct slot *)(uintptr_t)events[i].data;
			slot_done(slot, events[i].res);
			if (read_once(load->stop))
				continue;
			slot_prepare(slot);
			batch[queued++] = &slot->iocb;
		}
	}
	syscall(__NR_io_destroy, ctx);
	return NULL;
}

void load_destroy(struct load *load)
{
	if (load->fd >= 0)
		close(load->fd);
	free(load->threads);
	free(load->slots);
}

bool load_create(struct load *load, const struct load_spec *spec)
{
	unsigned int i, seg, nr = spec->threads * spec->slots;
	size_t io_bytes = spec->segs * spec->seg_bytes;
	struct nullb_conf conf = {
		.bytes = nr * io_bytes,
		.completion_us = spec->completion_us,
		/* An I/O of scattered pages is split into several requests. */
		.depth = MIN(nr * (2 + io_bytes / (256 * KB)), 8192),
	};

	/*
	 * null_blk copies data when it starts a request, not at the end of the
	 * completion time. To have the copy late after the pin, only half of
	 * the I/Os are with the device: the others wait in the scheduler.
	 */
	if (spec->verify) {
		conf.memory_backed = true;
		conf.scheduler = true;
		conf.depth = nr / 2;
	}
	*load = (struct load){
		.spec = spec,
		.nr_slots = nr,
		.io_bytes = io_bytes,
		.fd = nullb_create(LOAD_DEV, &conf),
		.slots = calloc(nr, sizeof(*load->slots)),
		.threads = calloc(spec->threads, sizeof(*load->threads)),
		.run = load_run,
	};
	if (load->fd < 0 || !load->slots || !load->threads) {
		load_destroy(load);
		return cannot("create the load");
	}
	for (i = 0; i < nr; i++) {
		load->slots[i].load = load;
		load->slots[i].id = i;
		for (seg = 0; seg < spec->segs; seg++)
			load->slots[i].iov[seg].iov_len = spec->seg_bytes;
	}
	return true;
}

void load_stop(struct load *load)
{
	write_once(load->stop, true);
	while (load->nr_threads)
		pthread_join(load->threads[--load->nr_threads], NULL);
}

bool load_start(struct load *load)
{
	long long deadline = now_us() + 10 * USEC_PER_SEC;
	unsigned int i;

	load->stop = false;
	for (i = 0; i < load->nr_slots; i++) {
		load->slots[i].completed = 0;
		load->slots[i].reading = false;
	}
	for (i = 0; i < load->spec->threads; i++)
		if (!pthread_create(&load->threads[i], NULL, load->run,
				    &load->slots[i * load->spec->slots]))
			load->nr_threads++;
	for (i = 0; i < load->nr_slots && now_us() < deadline; )
		if (read_once(load->slots[i].completed))
			i++;
		else
			usleep(1000);
	if (i == load->nr_slots)
		return true;
	load_stop(load);
	return cannot("get the load going: %lu errors, the first: %ld", load->errors,
		      load->first_error);
}

size_t pool_bytes_for(const struct load_spec *spec)
{
	size_t buffers = spec->threads * spec->slots * spec->segs * spec->seg_bytes;

	return MAX(buffers + MIN(buffers / 8, area_bytes() - buffers), area_bytes() / 8);
}
