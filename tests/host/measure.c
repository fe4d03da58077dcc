/* SPDX-License-Identifier: MIT
 *
 * What a handler costs, by counting: allocations (the malloc family is this program's own, so calls out of a loaded module
 * come here too) and system calls (a seccomp filter on a thread of its own traps every one of them).
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- allocations: glibc's own functions behind ours, counted while a handler runs on this thread ---- */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static uint64_t allocations, frees, bytes;

static void count(size_t size)
{
	if (!host_in_handler) return;
	__atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&bytes, size, __ATOMIC_RELAXED);
}

#define FAILS(size) scarce_fails(__builtin_return_address(0), size)

void *malloc(size_t size) { count(size); return FAILS(size) ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { count(n * size); return FAILS(n * size) ? NULL : __libc_calloc(n, size); }
void *realloc(void *old, size_t size) { count(size); return FAILS(size) ? NULL : __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { count(size); return FAILS(size) ? NULL : __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { count(size); return FAILS(size) ? NULL : __libc_memalign(alignment, size); }
int posix_memalign(void **out, size_t alignment, size_t size)
{
	count(size);
	void *memory = FAILS(size) ? NULL : __libc_memalign(alignment, size);
	if (!memory) return ENOMEM;
	*out = memory;
	return 0;
}
void free(void *memory)
{
	if (host_in_handler && memory) __atomic_add_fetch(&frees, 1, __ATOMIC_RELAXED);
	scarce_given_back(memory);
	__libc_free(memory);
}

struct alloc_counts measure_allocations(void)
{
	return (struct alloc_counts){ __atomic_load_n(&allocations, __ATOMIC_RELAXED), __atomic_load_n(&frees, __ATOMIC_RELAXED),
		__atomic_load_n(&bytes, __ATOMIC_RELAXED) };
}

/* ---- system calls ----
 *
 * The filter lets through only what comes from one instruction of ours; anything else traps, and the handler of the trap
 * counts it if an event handler is running, then makes the call from that instruction. So the handler under test sees
 * every call succeed or fail as ever. A new thread or process cannot be made that way: it is counted and refused. */

#if defined(__x86_64__)
#define AUDIT_ARCH_HERE AUDIT_ARCH_X86_64
__asm__(".text\n.globl host_syscall\n.type host_syscall,@function\nhost_syscall:\n"
	"mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\nmov 8(%rsp),%r9\nsyscall\n"
	".globl host_syscall_after\nhost_syscall_after:\nret\n");
#define REGISTER(u, i) ((long)(u)->uc_mcontext.gregs[(int[]){ REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9 }[i]])
#define RESULT(u) (u)->uc_mcontext.gregs[REG_RAX]
#elif defined(__aarch64__)
#define AUDIT_ARCH_HERE AUDIT_ARCH_AARCH64
__asm__(".text\n.globl host_syscall\n.type host_syscall,%function\nhost_syscall:\n"
	"mov x8,x0\nmov x0,x1\nmov x1,x2\nmov x2,x3\nmov x3,x4\nmov x4,x5\nmov x5,x6\nsvc #0\n"
	".globl host_syscall_after\nhost_syscall_after:\nret\n");
#define REGISTER(u, i) ((long)(u)->uc_mcontext.regs[i])
#define RESULT(u) (u)->uc_mcontext.regs[0]
#endif

#ifdef AUDIT_ARCH_HERE
extern long host_syscall(long number, long a, long b, long c, long d, long e, long f);
extern char host_syscall_after[];

static uint64_t calls_by_number[1024], calls_in_handlers;

static bool makes_a_thread(int number)
{
#ifdef SYS_fork
	if (number == SYS_fork || number == SYS_vfork) return true;
#endif
	return number == SYS_clone || number == SYS_clone3;
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	ucontext_t *u = context;
	int number = info->si_syscall, saved = errno;
	if (host_in_handler) {
		calls_in_handlers++;
		if (number >= 0 && number < 1024) calls_by_number[number]++;
	}
	long result = makes_a_thread(number) ? -EAGAIN :
		host_syscall(number, REGISTER(u, 0), REGISTER(u, 1), REGISTER(u, 2), REGISTER(u, 3), REGISTER(u, 4), REGISTER(u, 5));
	errno = saved;
	RESULT(u) = result;
}

static bool trap_system_calls(void)
{
	uint64_t after = (uint64_t)(uintptr_t)host_syscall_after;
#define FIELD(name, half) (offsetof(struct seccomp_data, name) + (half) * 4)
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(arch, 0)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_HERE, 0, 7),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(nr, 0)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 5, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(instruction_pointer, 0)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)after, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, FIELD(instruction_pointer, 1)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(after >> 32), 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(filter) / sizeof(*filter), .filter = filter };
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER };
	sigaction(SIGSYS, &action, NULL);
	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

struct trap_run { long warmup, count; int headers; bool trapped; uint32_t *nanoseconds; };

static void *deliver_trapped(void *argument)
{
	struct trap_run *run = argument;
	long all = run->warmup + run->count;
	switch_event_t **events = host_alloc(sizeof(*events) * (size_t)all);
	for (long i = 0; i < all; i++) events[i] = generate_event(0, run->headers, (uint64_t)i, "syscalls", (uint64_t)i);
	for (long i = 0; i < run->warmup; i++) event_deliver(&events[i]);
	run->trapped = trap_system_calls();
	for (long i = run->warmup; i < all; i++) {
		if (run->trapped) run->nanoseconds[i - run->warmup] = (uint32_t)event_deliver(&events[i]);
		else switch_event_destroy(&events[i]);
	}
	free(events);
	return NULL;
}

/* syscalls n=1000 [headers=80] [warmup=100]: Gen-Key is "syscalls", and these events are outside the numbering of deliver. */
void measure_syscalls(char *arguments, struct reply *reply)
{
	struct trap_run run = { .warmup = host_number(arguments, "warmup", 100), .count = host_number(arguments, "n", 1000),
		.headers = (int)host_number(arguments, "headers", 80) };
	if (run.count < 1 || run.warmup < 0) {
		snprintf(reply->status, sizeof(reply->status), "-ERR syscalls: n must be at least 1");
		return;
	}
	run.nanoseconds = host_alloc(sizeof(uint32_t) * (size_t)run.count);
	memset(calls_by_number, 0, sizeof(calls_by_number));
	calls_in_handlers = 0;
	pthread_join(host_thread("host-dispatch", deliver_trapped, &run), NULL);
	for (int i = 0; i < 1024; i++) if (calls_by_number[i]) fprintf(reply->text, "number %d called %llu\n", i, (unsigned long long)calls_by_number[i]);
	char times[256];
	measure_summary(run.nanoseconds, (size_t)run.count, times, sizeof(times));
	if (run.trapped) snprintf(reply->status, sizeof(reply->status), "+OK n=%ld syscalls=%llu %s", run.count, (unsigned long long)calls_in_handlers, times);
	else snprintf(reply->status, sizeof(reply->status), "-ERR syscalls: this kernel refuses a seccomp filter: %m");
	free(run.nanoseconds);
}
#else
void measure_syscalls(char *arguments, struct reply *reply)
{
	(void)arguments;
	snprintf(reply->status, sizeof(reply->status), "-ERR syscalls: only on x86_64 and aarch64");
}
#endif

/* ---- times ---- */

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

void measure_summary(uint32_t *ns, size_t n, char *line, size_t size)
{
	if (!n) { snprintf(line, size, "mean_ns=0 min_ns=0 p50_ns=0 p90_ns=0 p99_ns=0 p999_ns=0 max_ns=0"); return; }
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++) sum += ns[i];
	qsort(ns, n, sizeof(*ns), by_size);
	snprintf(line, size, "mean_ns=%llu min_ns=%u p50_ns=%u p90_ns=%u p99_ns=%u p999_ns=%u max_ns=%u", (unsigned long long)(sum / n),
		ns[0], ns[n / 2], ns[n * 9 / 10], ns[n * 99 / 100], ns[n * 999 / 1000], ns[n - 1]);
}
