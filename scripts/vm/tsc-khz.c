// SPDX-License-Identifier: GPL-2.0
/*
 * How many thousand ticks a second has this machine's time stamp counter?
 */

#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define TRIES	10000

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_RAW, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The moment of all tries at which least time passes while the counter is read */
static long long moment(long long *ticks)
{
	long long before, counter, took, when = 0, least = 1000000000;
	int i;

	for (i = 0; i < TRIES; i++) {
		before = now();
		counter = __rdtsc();
		took = now() - before;
		if (took < least) {
			least = took;
			when = before + took / 2;
			*ticks = counter;
		}
	}
	return when;
}

int main(void)
{
	long long start, end, ticks, more_ticks;

	start = moment(&ticks);
	usleep(200000);
	end = moment(&more_ticks);
	printf("%lld\n", (more_ticks - ticks) * 1000000 / (end - start));
	return 0;
}
