/* SPDX-License-Identifier: MIT
 *
 * Preloaded, it puts a process's time of day wrong by as many seconds as the file named by CLOCK_SKEW_FILE says, which is
 * looked at each time. Intervals stay what they are: monotonic clocks are left alone, and a wait until some time of day is
 * put right again, also C11's, which librdkafka uses.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static time_t skew(void)
{
	static _Atomic time_t known;
	const char *path = getenv("CLOCK_SKEW_FILE");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (file >= 0) {
		char text[32];
		ssize_t length = read(file, text, sizeof(text) - 1);
		close(file);
		if (length > 0) {
			text[length] = '\0';
			known = strtol(text, NULL, 10);
		}
	}
	return known;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	int status = (int)syscall(SYS_clock_gettime, clock, at);
	if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec += skew();
	return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	(void)zone;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (at) *at = now.tv_sec;
	return now.tv_sec;
}

int timespec_get(struct timespec *at, int base)
{
	return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, at) ? base : 0;
}

static struct timespec put_right(const struct timespec *until)
{
	struct timespec right = *until;
	right.tv_sec -= skew();
	return right;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
	static int (*_Atomic next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
	if (!next) next = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
	struct timespec right = put_right(until);
	return next(condition, mutex, &right);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
	static int (*_Atomic next)(cnd_t *, mtx_t *, const struct timespec *);
	if (!next) next = (int (*)(cnd_t *, mtx_t *, const struct timespec *))dlsym(RTLD_NEXT, "cnd_timedwait");
	struct timespec right = put_right(until);
	return next(condition, mutex, &right);
}
