// SPDX-License-Identifier: GPL-2.0
/*
 * Pages in the area that are held, and pin gates that are closed, for a known time.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "cma_held_pages.h"
#include "vm_util.h"

#define QUICK_DEV	NULLB_PREFIX "quick"

void sleep_until(long long us)
{
	long long now;

	while ((now = now_us()) < us)
		usleep(min_size(us - now, 10000));
}

long long cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * USEC_PER_SEC + ts.tv_nsec / 1000;
}

static void *allocation_run(void *arg)
{
	struct allocation *a = arg;
	long long start = now_us();

	write_once(a->tid, gettid());
	a->err = area_alloc();
	a->us = now_us() - start;
	return NULL;
}

bool allocation_start(struct allocation *a)
{
	if (pthread_create(&a->thread, NULL, allocation_run, a))
		return cannot("start a thread");
	a->running = true;
	return true;
}

void allocation_finish(struct allocation *a)
{
	if (!a->running)
		return;
	pthread_join(a->thread, NULL);
	a->running = false;
	area_free();
}

void allocation_print_stack(const struct allocation *a)
{
	char path[64], line[256], name[64], text[256] = "";
	int nr = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stack", read_once(a->tid));
	f = fopen(path, "r");
	if (!f)
		return;
	while (nr < 5 && fgets(line, sizeof(line), f))
		if (sscanf(line, "[<0>] %63[^+]", name) == 1) {
			strncat(text, nr++ ? " < " : "", sizeof(text) - strlen(text) - 1);
			strncat(text, name, sizeof(text) - strlen(text) - 1);
		}
	fclose(f);
	ksft_print_msg("the allocation is in %s\n", text);
}

void allocations_try(struct allocations *a)
{
	long long start = now_us();

	a->tried++;
	a->succeeded += !area_alloc();
	raise_to(&a->longest_us, now_us() - start);
	area_free();
}

void allocations_print(const struct allocations *a)
{
	ksft_print_msg("%u of %u allocations succeeded, the longest took %ld ms\n",
		       a->succeeded, a->tried, to_ms(a->longest_us));
}

bool held_pages_devices(struct held_pages *s, unsigned int hold_ms)
{
	struct nullb_conf quick = { .bytes = 4 * MB, .completion_us = 100, .depth = 64 };

	s->hold_ms = hold_ms;
	s->quick = nullb_create(QUICK_DEV, &quick);
	return s->quick >= 0 && slow_pins_create(&s->slow, hold_ms, MAX_HELD);
}

void held_pages_begin(struct held_pages *s)
{
	s->pins = pins_held();
	s->waits = vm_counter("pin_gate_wait");
	s->timeouts = vm_counter("pin_gate_timeout");
	s->drains = vm_counter("cma_drain");
}

bool held_pages_memory(struct held_pages *s)
{
	s->buf = (struct pool){
		.kind = POOL_FILE,
		.bytes = BUF_BYTES,
		.pagemap = -1,
		.fd = memfd_create("cma_gup_cycle", MFD_CLOEXEC | MFD_ALLOW_SEALING),
	};
	if (s->buf.fd < 0 || ftruncate(s->buf.fd, s->buf.bytes) ||
	    fcntl(s->buf.fd, F_ADD_SEALS, F_SEAL_SHRINK))
		return cannot("create a memfd: %s", strerror(errno));
	s->rw = mmap(NULL, s->buf.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->buf.fd, 0);
	return s->rw != MAP_FAILED || cannot("map a memfd: %s", strerror(errno));
}

/* All of a pool in one piece, at some place in the area */
static bool fill_at(struct pool *pool, size_t place)
{
	size_t i;

	if (!pool->addr && !pool_map(pool))
		return false;
	for (i = 0; i < pool->bytes; i += POOL_PIECE)
		if (!pool_move(pool, pool->addr + i, POOL_PIECE, place + i))
			return false;
	return true;
}

bool held_pages_fill(struct held_pages *s)
{
	pool_unmap(&s->buf);
	/* A server must not use its buffers before they are populated. */
	if (s->file.bytes)
		syncfs(s->file.fd);
	if (fallocate(s->buf.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, s->buf.bytes))
		return cannot("punch a hole: %s", strerror(errno));
	return fill_at(&s->buf, 0) && (!s->file.bytes || fill_at(&s->file, BUF_BYTES));
}

char *held_pages_pick(struct held_pages *s, const struct pool *pool, size_t offset)
{
	char *page = resident_page(pool, offset);

	if (page)
		s->held[s->nr_held++] = page;
	return page;
}

char *held_pages_of_one_page(struct held_pages *s)
{
	held_pages_begin(s);
	/* Not the first page, which an allocation of all but one could do without */
	if (!held_pages_devices(s, HOLD_MS) || !held_pages_memory(s) || !held_pages_fill(s) ||
	    !held_pages_pick(s, &s->buf, MB))
		return NULL;
	return s->rw + (s->held[0] - s->buf.addr);
}

bool held_pages_close_gates(struct held_pages *s, unsigned int budget_ms)
{
	unsigned int i;

	if (put_num(budget_file(), budget_ms))
		return cannot("set the budget");
	s->release_us = now_us() + s->hold_ms * USEC_PER_MSEC;
	for (i = 0; i < s->nr_held; i++)
		if (!slow_pin(&s->slow, s->held[i]))
			return false;
	if (!allocation_start(&s->alloc))
		return false;
	for (i = 0; i < s->nr_held; i++)
		while (!gate_is_closed(s->quick, s->held[i])) {
			if (now_us() > s->release_us - LEAD_MS * USEC_PER_MSEC)
				return cannot("have a gate closed in time");
			usleep(1000);
		}
	return true;
}

void held_pages_finish(struct held_pages *s)
{
	allocation_finish(&s->alloc);
	slow_pins_finish(&s->slow);
	pool_unmap(&s->file);
	pool_unmap(&s->buf);
	if (s->file.bytes)
		close(s->file.fd);
	if (s->buf.bytes)
		close(s->buf.fd);
}

static bool pin_page(const struct pinner *p)
{
	char copy[psize()];
	struct iovec to = { .iov_base = copy, .iov_len = psize() };
	struct iovec from = { .iov_base = p->page, .iov_len = psize() };

	if (p->fd < 0)
		return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == psize();
	return pwrite(p->fd, p->page, psize(), 0) == psize();
}

static void *pinner_run(void *arg)
{
	struct pinner *p = arg;
	long long start;

	while (!read_once(p->stop)) {
		start = now_us();
		write_once(p->since, start);
		if (!p->pin(p))
			p->errors++;
		write_once(p->since, 0);
		raise_to(&p->longest_us, now_us() - start);
		count_one(p->calls);
	}
	return NULL;
}

bool pinner_go(struct pinner *p)
{
	p->stop = false;
	if (pthread_create(&p->thread, NULL, pinner_run, p))
		return cannot("start a thread");
	p->running = true;
	return true;
}

bool pinner_start_on(struct pinner *p, int fd, char *page)
{
	*p = (struct pinner){ .pin = pin_page, .fd = fd, .page = page };
	return pinner_go(p);
}

bool pinner_start(struct pinner *p, const struct held_pages *s, char *page)
{
	return pinner_start_on(p, s->quick, page);
}

void pinner_stop(struct pinner *p)
{
	write_once(p->stop, true);
	if (p->running)
		pthread_join(p->thread, NULL);
	p->running = false;
}

bool pinner_is_stuck(const struct pinner *p)
{
	long long since = read_once(p->since);

	return since && now_us() - since > 50 * USEC_PER_MSEC;
}

bool pinner_wait_stuck(const struct held_pages *s, const struct pinner *p)
{
	while (!pinner_is_stuck(p)) {
		if (now_us() > s->release_us)
			return cannot("make I/O wait that is on a page of a gated pageblock");
		usleep(1000);
	}
	return true;
}
