/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_CMA_HELD_PAGES_H
#define _MM_CMA_HELD_PAGES_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>
#include "cma_env.h"

#define LEAD_MS		300	/* so long before their end the test acts */
#define MAX_HELD	8

#define BUF_BYTES	(8 * MB)

static inline long to_ms(long long us)
{
	return us / USEC_PER_MSEC;
}

void sleep_until(long long us);
/* CPU time of the calling thread */
long long cpu_us(void);

/* An allocation of the area in the background */
struct allocation {
	pthread_t thread;
	pid_t tid;
	bool running;
	int err;
	long long us;
};

bool allocation_start(struct allocation *a);
void allocation_finish(struct allocation *a);
/* In which functions is it? For the reader of the log only. */
void allocation_print_stack(const struct allocation *a);

/* Allocations of the area one after the other */
struct allocations {
	unsigned int tried;
	unsigned int succeeded;
	long long longest_us;
};

/* Allocate it, and free it. */
void allocations_try(struct allocations *a);
void allocations_print(const struct allocations *a);

/*
 * Memory in the area, pins of some of its pages that last for a known time, and
 * an allocation, which therefore closes the gates of their pageblocks.
 */
struct held_pages {
	long pins;		/* counters before the test */
	unsigned long waits;
	unsigned long timeouts;
	unsigned long drains;

	struct pool buf;	/* BUF_BYTES, shared with processes forked later */
	char *rw;		/* the same memory, writable */
	struct pool file;	/* the pages of a file, or unused */
	int quick;		/* a fast device */

	struct slow_pins slow;
	unsigned int hold_ms;
	char *held[MAX_HELD];
	unsigned int nr_held;
	long long release_us;	/* when the pins end */

	struct allocation alloc;
};

/* Remember the counters. */
void held_pages_begin(struct held_pages *s);
bool held_pages_devices(struct held_pages *s, unsigned int hold_ms);
/* Map the memory. */
bool held_pages_memory(struct held_pages *s);
/*
 * Populate it at the start of the area, again if need be, and after it the file if
 * there is one.
 */
bool held_pages_fill(struct held_pages *s);
/* The first page of a pool from that offset on that is in the area: to be held. */
char *held_pages_pick(struct held_pages *s, const struct pool *pool, size_t offset);
/*
 * All of that at once, to hold one page. Returns its address among the writable
 * ones.
 */
char *held_pages_of_one_page(struct held_pages *s);
/* Hold what was picked, start the allocation, wait until all gates are closed. */
bool held_pages_close_gates(struct held_pages *s, unsigned int budget_ms);
void held_pages_finish(struct held_pages *s);

/* Direct I/O on one page, or other pins, by a thread, again and again */
struct pinner {
	pthread_t thread;
	bool (*pin)(const struct pinner *p);	/* Pin once; did it work? */
	void *arg;		/* for pin() */
	int fd;			/* -1: read the page by process_vm_readv() */
	char *page;
	bool stop;
	bool running;
	long long since;	/* start of the I/O in flight, 0: none */
	long long longest_us;
	unsigned long calls;
	unsigned long errors;
};

bool pinner_start(struct pinner *p, const struct held_pages *s, char *page);
bool pinner_start_on(struct pinner *p, int fd, char *page);
/* Start one of other pins, or one that was stopped, which keeps its figures. */
bool pinner_go(struct pinner *p);
void pinner_stop(struct pinner *p);
bool pinner_is_stuck(const struct pinner *p);
bool pinner_wait_stuck(const struct held_pages *s, const struct pinner *p);

#endif
