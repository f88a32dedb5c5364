// SPDX-License-Identifier: GPL-2.0
/*
 * An updater and a camera on a device with little memory. The updater reads an
 * image by direct I/O, in big chunks and each into memory that it has just
 * mapped. The camera wants a buffer for a frame from the dma-buf heap of the CMA
 * area, frame by frame, and gives the oldest one of its queue back for it.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cma_dio_measure.h"
#include "vm_util.h"

#define CSV_HEADER	"kernel,frame,asked_ms,us,got,no_room\n"
#define TABLE_HEADER	"kernel,asked,got,late,missed,no_room,worst_ms,mb_per_s\n"
#define MAX_QUEUE	64

struct frame {
	long long asked_us;	/* since the first one */
	long long us;		/* until the heap had answered */
	bool got;
	bool no_room;		/* not because of pages that are in use */
};

/* Shared by the camera and the updater. */
struct shared {
	bool go;
	unsigned int nr;
	struct frame frames[];
};

struct scenario {
	const char *heap;
	const char *csv;
	const char *table;
	const char *kernel;
	long budget;		/* ms; -1: keep */
	unsigned int sessions;
	unsigned int period_us;
	size_t frame_bytes;
	unsigned int queue;	/* frames that the camera holds */
	unsigned int session;	/* frames from opening the camera to closing it */
	unsigned int pause_ms;	/* from closing it to opening it */
	size_t old_bytes;	/* other memory of the updater in the area */
	size_t leave;		/* memory that is free outside of the area */
	struct measure_spec spec;
	struct shared *shared;
	pid_t camera;
};

static void print_help(void)
{
	fputs("usage: cma_scenario OPTION...\n"
	      "A camera allocates frames from a dma-buf heap with the default CMA area while an\n"
	      "updater reads with O_DIRECT into fresh memory. Needs root, debugfs, null_blk, and\n"
	      "an area of at least 64 MB, such as by cma=128M.\n"
	      "  --heap FILE        of the heap (/dev/dma_heap/default_cma_region)\n"
	      "  --period-us N      time between frames (33333)\n"
	      "  --frame-bytes N    size of a frame (12441600: 3840 x 2160, NV12)\n"
	      "  --queue N          frames that the camera holds (8)\n"
	      "  --session N        frames from opening the camera to closing it (60)\n"
	      "  --pause-ms N       from closing it to opening it again (500)\n"
	      "  --sessions N       how often it is opened (12)\n"
	      "  --threads N        of the updater (4)\n"
	      "  --chunk-bytes N    that it reads at once (1048576)\n"
	      "  --completion-us N  time that its device takes for that (40000)\n"
	      "  --old-mb N         other memory of the updater that is in the area (4)\n"
	      "  --leave-mb N       of memory outside of the area only so much is free (24)\n"
	      "  --budget MS|keep   the area's drain_budget_ms, if there is one (keep)\n"
	      "  --kernel NAME      what to call the kernel (this)\n"
	      "  --csv FILE         append a row for each frame: " CSV_HEADER
	      "  --table FILE       append a row for all: " TABLE_HEADER
	      "A frame is asked for every period, or, if an earlier one took longer, as soon as\n"
	      "that is answered; its time counts from when it should have been asked for. It is\n"
	      "late if that is more than a period, and missed if the heap has no memory for it.\n"
	      "Exit status: 0 measured, 1 error, 4 not possible here.\n", stdout);
}

/*
 * The camera
 */

struct camera {
	const struct scenario *sc;
	int heap;
	int queue[MAX_QUEUE];	/* file descriptors; -1: none */
};

static void camera_release(int *buffer)
{
	if (*buffer >= 0)
		close(*buffer);
	*buffer = -1;
}

static void camera_close(struct camera *cam)
{
	unsigned int i;

	for (i = 0; i < cam->sc->queue; i++)
		camera_release(&cam->queue[i]);
}

static void wait_until(long long us)
{
	long long now;

	while ((now = now_us()) < us)
		usleep(us - now);
}

/*
 * Is there room for a frame in one piece, only with somebody else in it? If not,
 * the frames that the camera has are spread over the area in a bad way.
 */
static bool area_has_room(size_t bytes)
{
	return area_get("maxchunk") * psize() >= bytes + ALIGNMENT;
}

static void camera_frame(const struct camera *cam, int *buffer, long long due_us,
			 struct frame *frame)
{
	/* What was last in this place of the queue has been used by now. */
	wait_until(due_us - cam->sc->period_us / 2);
	camera_release(buffer);
	wait_until(due_us);
	*buffer = heap_alloc(cam->heap, cam->sc->frame_bytes);
	frame->us = now_us() - due_us;
	frame->got = *buffer >= 0;
	frame->no_room = !frame->got && !area_has_room(cam->sc->frame_bytes);
}

static void camera_run(const struct scenario *sc)
{
	struct camera cam = { .sc = sc, .heap = open(sc->heap, O_RDWR | O_CLOEXEC) };
	const struct sched_param urgent = { .sched_priority = 10 };
	struct shared *shared = sc->shared;
	unsigned int i, session;
	long long start, due;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* As camera services do. Without, it shares the CPU with the updater. */
	sched_setscheduler(0, SCHED_FIFO, &urgent);
	if (cam.heap < 0)
		_exit(KSFT_SKIP);
	for (i = 0; i < sc->queue; i++)
		cam.queue[i] = -1;
	while (!read_once(shared->go))
		usleep(1000);
	start = now_us();
	due = start;
	for (session = 0; session < sc->sessions; session++) {
		for (i = 0; i < sc->session; i++, due += sc->period_us) {
			struct frame *frame = &shared->frames[shared->nr++];

			frame->asked_us = due - start;
			camera_frame(&cam, &cam.queue[i % sc->queue], due, frame);
		}
		camera_close(&cam);
		due = now_us() + sc->pause_ms * USEC_PER_MSEC;
	}
	_exit(KSFT_PASS);
}

static bool camera_start(struct scenario *sc)
{
	size_t nr = (size_t)sc->sessions * sc->session;
	size_t bytes = sizeof(*sc->shared) + nr * sizeof(struct frame);

	sc->shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (sc->shared == MAP_FAILED)
		return cannot("map memory: %s", strerror(errno));
	sc->camera = fork();
	if (!sc->camera)
		camera_run(sc);
	return sc->camera > 0 || cannot("fork: %s", strerror(errno));
}

/* For run_tries(): what is tried is a whole run of the camera. */
static int camera_take(void *arg)
{
	struct scenario *sc = arg;
	int status;

	write_once(sc->shared->go, true);
	if (waitpid(sc->camera, &status, 0) < 0)
		return -errno;
	return status ? -EIO : 0;
}

static void camera_give(void *arg)
{
}

/*
 * Everybody else on the device, who leaves little memory. A process of its own:
 * run_tries() would make room if it could.
 */

static void others_run(size_t leave, int ready)
{
	bool ok;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ok = ballast_leave_at_most(leave);
	fflush(stdout);
	if (write(ready, &ok, sizeof(ok)) != sizeof(ok))
		_exit(KSFT_FAIL);
	pause();
	_exit(KSFT_PASS);
}

static bool others_start(const struct scenario *sc)
{
	int ready[2];
	pid_t pid;
	bool ok;

	if (pipe(ready))
		return cannot("set up a pipe: %s", strerror(errno));
	pid = fork();
	if (!pid)
		others_run(sc->leave, ready[1]);
	close(ready[1]);
	if (pid < 0 || read(ready[0], &ok, sizeof(ok)) != sizeof(ok))
		return cannot("use up memory");
	return ok;
}

/*
 * The rest
 */

static bool run(struct scenario *sc, struct result *res)
{
	const struct taker camera = {
		.take = camera_take,
		.give = camera_give,
		.arg = sc,
	};
	struct pool pool;

	if (sc->budget >= 0 && area.budget >= 0 && put_num(budget_file(), sc->budget))
		return cannot("set the budget to %ld ms", sc->budget);
	if (!others_start(sc) || !pool_prepare(&pool, POOL_ANON, sc->old_bytes) ||
	    !camera_start(sc) ||
	    !run_tries(&sc->spec, &pool, &camera, 1, res))
		return false;
	if (!res->succeeded)
		return cannot("open the heap %s: needs CONFIG_DMABUF_HEAPS_CMA", sc->heap);
	if (res->errors)
		return cannot("read: %lu errors, the first: %ld", res->errors, res->first_error);
	return true;
}

static bool write_frames(const struct scenario *sc)
{
	FILE *f = csv_open(sc->csv, CSV_HEADER);
	unsigned int i;

	for (i = 0; f && i < sc->shared->nr; i++) {
		const struct frame *frame = &sc->shared->frames[i];

		fprintf(f, "%s,%u,%.1f,%lld,%d,%d\n", sc->kernel, i,
			(double)frame->asked_us / USEC_PER_MSEC, frame->us, frame->got,
			frame->no_room);
	}
	return f && csv_close(f, sc->csv);
}

static bool write_summary(const struct scenario *sc, const struct result *res)
{
	unsigned int i, got = 0, late = 0, no_room = 0;
	FILE *f = stdout;
	long long worst = 0;

	for (i = 0; i < sc->shared->nr; i++) {
		const struct frame *frame = &sc->shared->frames[i];

		got += frame->got;
		no_room += frame->no_room;
		late += frame->got && frame->us > sc->period_us;
		if (frame->us > worst)
			worst = frame->us;
	}
	if (sc->table)
		f = csv_open(sc->table, TABLE_HEADER);
	if (!f)
		return false;
	fprintf(f, "%s,%u,%u,%u,%u,%u,%.1f,%.1f\n", sc->kernel, i, got, late, i - got, no_room,
		(double)worst / USEC_PER_MSEC,
		result_iops(res) * sc->spec.load.seg_bytes / MB);
	return f == stdout || csv_close(f, sc->table);
}

static void parse(int argc, char **argv, struct scenario *sc)
{
	struct measure_spec *spec = &sc->spec;
	const struct option_spec options[] = {
		{ "heap", .text = &sc->heap },
		{ "sessions", .number = &sc->sessions, .lowest = 1, .highest = 10000 },
		{ "period-us", .number = &sc->period_us, .lowest = 1000, .highest = 1000000 },
		{ "frame-bytes", .bytes = &sc->frame_bytes, .lowest = 1, .highest = LONG_MAX },
		{ "queue", .number = &sc->queue, .lowest = 1, .highest = MAX_QUEUE },
		{ "session", .number = &sc->session, .lowest = 1, .highest = 10000 },
		{ "pause-ms", .number = &sc->pause_ms, .highest = 60000 },
		{ "threads", .number = &spec->load.threads, .lowest = 1, .highest = 256 },
		{ "chunk-bytes", .bytes = &spec->load.seg_bytes, .lowest = 512,
		  .highest = 64 * MB },
		/* null_blk gives up on a request after 5 s. */
		{ "completion-us", .number = &spec->load.completion_us, .lowest = 1,
		  .highest = 4000000 },
		{ "old-mb", .bytes = &sc->old_bytes, .lowest = 2, .highest = 4096, .unit = MB },
		{ "leave-mb", .bytes = &sc->leave, .lowest = 8, .highest = 4096, .unit = MB },
		{ "budget", .budget = &sc->budget, .highest = INT_MAX },
		{ "kernel", .text = &sc->kernel },
		{ "csv", .text = &sc->csv },
		{ "table", .text = &sc->table },
		{ },
	};

	parse_options(argc, argv, options);
}

int main(int argc, char **argv)
{
	static struct scenario sc = {
		.heap = "/dev/dma_heap/default_cma_region",
		.kernel = "this",
		.budget = -1,
		.sessions = 12,
		.period_us = 33333,
		.frame_bytes = 3840 * 2160 * 3 / 2,
		.queue = 8,
		.session = 60,
		.pause_ms = 500,
		.old_bytes = 4 * MB,
		.leave = 24 * MB,
		.spec = {
			.load = {
				.threads = 4,
				.slots = 1,
				.segs = 1,
				.seg_bytes = MB,
				.completion_us = 40000,
			},
			.fresh = true,
		},
	};
	static struct result res;

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		print_help();
		return KSFT_PASS;
	}
	parse(argc, argv, &sc);
	system_prepare(env_restore);
	if (!run(&sc, &res) || (sc.csv && !write_frames(&sc)) || !write_summary(&sc, &res))
		return KSFT_FAIL;
	return KSFT_PASS;
}
