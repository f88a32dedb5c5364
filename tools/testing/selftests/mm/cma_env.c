// SPDX-License-Identifier: GPL-2.0
/* For tests that use more of a system than cma_gup_pin: file systems, heaps, memory blocks */

#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-heap.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cma_env.h"
#include <sys/uio.h>	/* after aio_abi.h, whose RWF_* need __force */
#include "vm_util.h"

void *map_shared(size_t bytes)
{
	void *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	return addr;
}

unsigned int from_env(const char *name, unsigned int preset)
{
	const char *env = getenv(name);
	int val = env ? atoi(env) : 0;

	return val > 0 ? val : preset;
}

__printf(1, 2) bool run_cmd(const char *fmt, ...)
{
	char cmd[PATH_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, args);
	va_end(args);
	return !system(cmd);
}

bool fs_create(const char *dev, const char *type, const char *mkfs, const char *options)
{
	char name[16] = "";
	size_t i;

	mkdir(FS_MNT, 0700);
	if (!run_cmd("%s /dev/%s >/dev/null 2>&1", mkfs, dev))
		return cannot("run '%s': is it installed?", mkfs);
	if (run_cmd("mount -t %s -o %s /dev/%s " FS_MNT " 2>/dev/null", type, options, dev))
		return true;
	for (i = 0; type[i] && i < sizeof(name) - 1; i++)
		name[i] = toupper(type[i]);
	return cannot("mount %s: needs CONFIG_%s_FS", type, name);
}

int memory_set_state(unsigned long block, const char *state, unsigned int seconds)
{
	char path[128];
	int status;
	pid_t pid;

	snprintf(path, sizeof(path), MEMORY_SYS "/memory%lu/state", block);
	pid = fork();
	if (!pid) {
		/* The default action of SIGALRM, which ends offlining. */
		signal(SIGALRM, SIG_DFL);
		alarm(seconds);
		_exit(put_str(path, state) ? KSFT_FAIL : KSFT_PASS);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

unsigned long area_get(const char *file)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEBUGFS_CMA "/%s/%s", area.name, file);
	return read_num(path);
}

bool area_take(const struct cma_area *a)
{
	int i, err = 0;

	for (i = 0; i < 50; i++) {
		err = area_put(a, "alloc", a->count);
		if (!err)
			return true;
		usleep(20000);
	}
	return cannot("allocate area %s even without load: %s", a->name, strerror(-err));
}

int heap_alloc(int heap, size_t bytes)
{
	struct dma_heap_allocation_data data = {
		.len = bytes,
		.fd_flags = O_RDWR | O_CLOEXEC,
	};

	return ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data) ? -errno : (int)data.fd;
}

/* The names do not tell which area a heap has: try it. */
static bool heap_has_area(int heap)
{
	int fd = heap_alloc(heap, psize());
	bool used;

	if (fd < 0)
		return false;
	used = area_get("used");
	close(fd);
	return used;
}

int heap_open(void)
{
	struct dirent *entry;
	int fd = -1;
	DIR *dir;

	dir = opendir(HEAPS);
	while (dir && fd < 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && !heap_has_area(fd)) {
			close(fd);
			fd = -1;
		}
	}
	if (dir)
		closedir(dir);
	return fd;
}

bool gate_is_closed(int fd, char *page)
{
	struct iovec iov = { .iov_base = page, .iov_len = psize() };

	/* A write, to leave the page alone. */
	return pwritev2(fd, &iov, 1, 0, RWF_NOWAIT) < 0 && errno == EAGAIN;
}

char *resident_page(const struct pool *pool, size_t offset)
{
	for (; offset < pool->bytes; offset += psize())
		if (resident_pages(pool, pool->addr + offset, psize()))
			return pool->addr + offset;
	cannot("find a page of the buffers in the area");
	return NULL;
}

void env_prepare(void (*restore)(void))
{
	system_prepare(restore);
	if (!can_move())
		ksft_exit_skip("no GUP_TEST_MOVE: needs CONFIG_GUP_TEST of a newer kernel\n");
}

void env_restore(void)
{
	if (!access(FS_MNT, F_OK)) {
		run_cmd("umount " FS_MNT " 2>/dev/null");
		rmdir(FS_MNT);
	}
	system_restore();
}
