/* SPDX-License-Identifier: MIT
 *
 * Preloaded into a switch: its wall clock is ahead of the machine's by as many seconds as stand in the file that
 * RUSTBRIDGE_CLOCK names, eight bytes, read anew each time. Clocks that only measure time are left alone, and a wait until a
 * time of the wall clock lasts as long as it was meant to when it began: what a jump does to waits under way is not shown.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;

__attribute__((constructor)) static void map_file(void)
{
	const char *path = getenv("RUSTBRIDGE_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *memory = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, file, 0);
	if (file >= 0) close(file);
	if (memory != MAP_FAILED) ahead = memory;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	long failed = syscall(SYS_clock_gettime, clock, now);
	if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += (time_t)*ahead;
	return (int)failed;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
	static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
	if (!wait) *(void **)&wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
	if (!wait) *(void **)&wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
	struct timespec real = *until;
	if (ahead) real.tv_sec -= (time_t)*ahead;
	return wait(condition, mutex, &real);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
	static int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
	if (!wait) *(void **)&wait = dlsym(RTLD_NEXT, "cnd_timedwait");
	struct timespec real = *until;
	if (ahead) real.tv_sec -= (time_t)*ahead;
	return wait(condition, mutex, &real);
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
	*now = (struct timeval){ .tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000 };
	return 0;
}

time_t time(time_t *out)
{
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now)) return (time_t)-1;
	if (out) *out = now.tv_sec;
	return now.tv_sec;
}
