/* SPDX-License-Identifier: MIT
 *
 * Measures event handlers inside a real FreeSWITCH, one call at a time.
 *
 * The core calls the handlers of an event in the reverse order of their binding. So a mark bound before the handler under
 * test is called after it, one bound after it is called before, and the time between the two is what the handler took:
 * nothing of the event's making, of its destruction or of the core's own walk is in it.
 *
 *   bench mark end|begin|off        bind a mark (end, then the handler under test, then begin)
 *   bench handler floor|json|bump|dup|off
 *                                   a handler to compare with: copies every byte once; makes the JSON at once; copies into slabs
 *                                   that many events share; does what mod_event_socket does
 *   bench event <file>              headers of the events, name=value with \r, \n and \\ escaped
 *   bench run [n=10000] [headers=85] [threads=1] [ahead=1] [burst=1] [rate=0] [kind=real|plain|custom] [warm=1000] [stamp=0]
 *                                   deliver n events from each thread, `rate` a second each in bursts, built `ahead` at a time;
 *                                   answers one line of name=value; with stamp=1 each carries the time of its delivery
 *   bench calls [n=1000] …          the same on a thread of its own whose system calls are counted
 *   bench live n=5000               deliver the CHANNEL_CREATE of n calls that nobody has seen yet
 *
 * `real` events have the names and values of a recorded CHANNEL_HANGUP_COMPLETE, `plain` ones names that no table of known
 * names has, `custom` ones are those as CUSTOM bench::event. All have exactly `headers` entries.
 */
#define _GNU_SOURCE
#include <switch.h>

#include <dlfcn.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>

SWITCH_MODULE_LOAD_FUNCTION(mod_bench_load);
SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_bench_shutdown);
SWITCH_MODULE_DEFINITION(mod_bench, mod_bench_load, mod_bench_shutdown, NULL);

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- marks ---- */

static __thread uint64_t began, inside, allocations_before, allocations_inside;
static __thread volatile int in_handler;
/* Present when the counting library is preloaded: allocations of this thread so far. */
static uint64_t (*allocations)(void);
static switch_event_node_t *begin_node, *end_node, *floor_node, *json_node, *bump_node, *dup_node;
static switch_event_types_t all_events;

static void on_begin(switch_event_t *event)
{
	(void)event;
	if (allocations) allocations_before = allocations();
	in_handler = 1;
	began = now_ns();
}

static void on_end(switch_event_t *event)
{
	(void)event;
	inside = began ? now_ns() - began : 0;
	in_handler = 0;
	if (allocations) allocations_inside += allocations() - allocations_before;
}

/* ---- the floor: the least that any handler must do that keeps the event ---- */

static __thread char *floor_buffer;
static __thread size_t floor_size;

static void on_floor(switch_event_t *event)
{
	size_t used = 0;
	for (switch_event_header_t *header = event->headers; header; header = header->next) {
		size_t name = strlen(header->name), value = header->value ? strlen(header->value) : 0;
		if (used + name + value + 8 > floor_size) {
			floor_size = (used + name + value + 8) * 2;
			floor_buffer = realloc(floor_buffer, floor_size);
			if (!floor_buffer) abort();
		}
		uint32_t lengths[2] = { (uint32_t)name, (uint32_t)value };
		memcpy(floor_buffer + used, lengths, sizeof(lengths));
		memcpy(floor_buffer + used + 8, header->name, name);
		memcpy(floor_buffer + used + 8 + name, header->value, value);
		used += 8 + name + value;
	}
}

/* ---- what a handler could do instead of copying: make the JSON that is sent ---- */

static __thread char *json_buffer;
static __thread size_t json_size;

#if defined(__SSE2__)
#include <emmintrin.h>
/* Copies a string of this length, 16 bytes at a time while nothing in it needs escaping; says how far it came. There is room
 * for 16 bytes behind either. */
static size_t json_plain(char *to, const char *from, size_t length)
{
	size_t done = 0;
	while (done + 16 <= length) {
		__m128i some = _mm_loadu_si128((const __m128i *)(from + done));
		__m128i care = _mm_or_si128(_mm_cmplt_epi8(some, _mm_set1_epi8(0x20)), _mm_or_si128(_mm_cmpeq_epi8(some, _mm_set1_epi8('"')), _mm_cmpeq_epi8(some, _mm_set1_epi8('\\'))));
		if (_mm_movemask_epi8(care)) break;
		_mm_storeu_si128((__m128i *)(to + done), some);
		done += 16;
	}
	return done;
}
#else
static size_t json_plain(char *to, const char *from, size_t length) { (void)to; (void)from; (void)length; return 0; }
#endif

static char *json_string(char *to, const char *from)
{
	static const char hex[] = "0123456789abcdef";
	size_t length = strlen(from), at = json_plain(to + 1, from, length);
	*to = '"';
	to += 1 + at;
	for (; at < length; at++) {
		unsigned char c = (unsigned char)from[at];
		if (c >= 0x20 && c != '"' && c != '\\') { *to++ = (char)c; continue; }
		*to++ = '\\';
		switch (c) {
		case '\n': *to++ = 'n'; break;
		case '\r': *to++ = 'r'; break;
		case '\t': *to++ = 't'; break;
		case '"': case '\\': *to++ = (char)c; break;
		default: *to++ = 'u'; *to++ = '0'; *to++ = '0'; *to++ = hex[c >> 4]; *to++ = hex[c & 15];
		}
	}
	*to++ = '"';
	return to;
}

static void on_json(switch_event_t *event)
{
	size_t used = 0;
	for (switch_event_header_t *header = event->headers; header; header = header->next) {
		/* Six bytes for one at the most. */
		size_t most = 6 * (strlen(header->name) + strlen(switch_str_nil(header->value))) + 64;
		if (used + most > json_size) {
			json_size = (used + most) * 2;
			json_buffer = realloc(json_buffer, json_size);
			if (!json_buffer) abort();
		}
		char *to = json_buffer + used;
		*to++ = used ? ',' : '{';
		to = json_string(to, header->name);
		*to++ = ':';
		used = (size_t)(json_string(to, switch_str_nil(header->value)) - json_buffer);
	}
}

/* ---- copies of many events in one block: no block per event, and a block goes to its reader when it is full ---- */

enum { SLAB = 1 << 20, SLABS = 32 };
static __thread char *slab;
static __thread size_t slab_used;
static __thread unsigned slab_turn;
static char *slabs[SLABS];
/* What a thread that has ended held is given out again when the handler is bound anew. */
static volatile unsigned slabs_turn;
static uint64_t slab_lost;
static switch_queue_t *slabs_free, *slabs_full;
static pthread_t slab_thread;
static volatile int slab_running;

static void on_bump(switch_event_t *event)
{
	void *next;
	if (slab_turn != slabs_turn) {
		slab_turn = slabs_turn;
		slab = NULL;
	}
	if (slab && slab_used > SLAB - SLAB / 4) {
		if (switch_queue_trypush(slabs_full, slab) != SWITCH_STATUS_SUCCESS) abort();
		slab = NULL;
	}
	if (!slab) {
		if (switch_queue_trypop(slabs_free, &next) != SWITCH_STATUS_SUCCESS) {
			slab_lost++;
			return;
		}
		slab = next;
		slab_used = 0;
	}
	for (switch_event_header_t *header = event->headers; header; header = header->next) {
		size_t name = strlen(header->name), value = header->value ? strlen(header->value) : 0;
		if (slab_used + name + value + 8 > SLAB) return;
		uint32_t lengths[2] = { (uint32_t)name, (uint32_t)value };
		memcpy(slab + slab_used, lengths, sizeof(lengths));
		memcpy(slab + slab_used + 8, header->name, name);
		memcpy(slab + slab_used + 8 + name, header->value, value);
		slab_used += 8 + name + value;
	}
}

static void *slab_listen(void *nothing)
{
	void *found;
	volatile char seen = 0;
	while (slab_running) {
		if (switch_queue_trypop(slabs_full, &found) == SWITCH_STATUS_SUCCESS) {
			for (size_t at = 0; at < SLAB; at += 64) seen ^= ((char *)found)[at];
			switch_queue_trypush(slabs_free, found);
		} else {
			switch_micro_sleep(5000);
		}
	}
	return nothing;
}

/* ---- what mod_event_socket does: a deep copy for each listener, and a queue; the listener looks into it by itself ---- */

static switch_queue_t *dup_queue;
static pthread_t dup_thread;
static volatile int dup_running;
static uint64_t dup_lost;

static void on_dup(switch_event_t *event)
{
	switch_event_t *copy = NULL;
	if (switch_event_dup(&copy, event) != SWITCH_STATUS_SUCCESS) return;
	if (switch_queue_trypush(dup_queue, copy) != SWITCH_STATUS_SUCCESS) {
		dup_lost++;
		switch_event_destroy(&copy);
	}
}

static void *dup_listen(void *nothing)
{
	void *found;
	while (dup_running || switch_queue_size(dup_queue)) {
		if (switch_queue_trypop(dup_queue, &found) == SWITCH_STATUS_SUCCESS) {
			switch_event_t *event = found;
			switch_event_destroy(&event);
		} else {
			switch_micro_sleep(5000);
		}
	}
	return nothing;
}

static void handler(const char *which)
{
	if (floor_node) switch_event_unbind(&floor_node);
	if (json_node) switch_event_unbind(&json_node);
	if (bump_node) {
		switch_event_unbind(&bump_node);
		slab_running = 0;
		pthread_join(slab_thread, NULL);
	}
	if (dup_node) {
		switch_event_unbind(&dup_node);
		dup_running = 0;
		pthread_join(dup_thread, NULL);
	}
	if (!strcmp(which, "floor")) switch_event_bind_removable("bench", all_events, NULL, on_floor, NULL, &floor_node);
	if (!strcmp(which, "json")) switch_event_bind_removable("bench", all_events, NULL, on_json, NULL, &json_node);
	if (!strcmp(which, "bump")) {
		void *some;
		while (switch_queue_trypop(slabs_free, &some) == SWITCH_STATUS_SUCCESS);
		while (switch_queue_trypop(slabs_full, &some) == SWITCH_STATUS_SUCCESS);
		for (int i = 0; i < SLABS; i++) switch_queue_trypush(slabs_free, slabs[i]);
		slabs_turn++;
		slab_running = 1;
		if (pthread_create(&slab_thread, NULL, slab_listen, NULL)) abort();
		switch_event_bind_removable("bench", all_events, NULL, on_bump, NULL, &bump_node);
	}
	if (!strcmp(which, "dup")) {
		dup_running = 1;
		if (pthread_create(&dup_thread, NULL, dup_listen, NULL)) abort();
		switch_event_bind_removable("bench", all_events, NULL, on_dup, NULL, &dup_node);
	}
}

/* ---- events ---- */

enum { TEMPLATE_MAX = 1024 };
static struct { char *name, *value; } template[TEMPLATE_MAX];
static int template_size;

static char *unescape(char *text)
{
	char *to = text;
	for (char *from = text; *from; from++) {
		if (*from == '\\' && from[1]) {
			from++;
			*to++ = *from == 'r' ? '\r' : *from == 'n' ? '\n' : *from;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
	return text;
}

static int read_template(const char *path)
{
	char line[8192];
	FILE *file = fopen(path, "r");
	if (!file) return 0;
	template_size = 0;
	while (template_size < TEMPLATE_MAX && fgets(line, sizeof(line), file)) {
		char *value = strchr(line, '=');
		if (!value) continue;
		line[strcspn(line, "\n")] = '\0';
		*value++ = '\0';
		template[template_size].name = strdup(line);
		template[template_size++].value = strdup(unescape(value));
	}
	fclose(file);
	return template_size;
}

struct shape { int headers, plain, custom; };

static int count(switch_event_t *event)
{
	int n = 0;
	for (switch_event_header_t *header = event->headers; header; header = header->next) n++;
	return n;
}

static switch_event_t *make(const struct shape *shape, uint64_t number)
{
	switch_event_t *event = NULL;
	char name[64], value[128];
	switch_status_t made = shape->custom ? switch_event_create_subclass(&event, SWITCH_EVENT_CUSTOM, "bench::event")
		: switch_event_create(&event, SWITCH_EVENT_CHANNEL_HANGUP_COMPLETE);
	if (made != SWITCH_STATUS_SUCCESS) abort();
	snprintf(value, sizeof(value), "%llu", (unsigned long long)number);
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Bench-Number", value);
	int have = count(event);
	for (int i = 0; have < shape->headers; i++, have++) {
		if (!shape->plain && i < template_size) {
			switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, template[i].name, template[i].value);
		} else {
			snprintf(name, sizeof(name), "variable_customer_field_%d", i);
			snprintf(value, sizeof(value), "value \"%d\" <sip:mod_sofia@192.0.2.29:5060>;x=%d", i, i * 7919);
			switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, name, value);
		}
	}
	return event;
}

/* ---- runs ---- */

struct lane {
	pthread_t thread;
	struct shape shape;
	uint64_t n, warm, rate_ns, ahead, burst, first;
	uint32_t *inside, *whole;
	uint64_t allocations, faults;
	int trap, trapped, stamp;
};

/* As if the event had been made now. */
static void stamp(switch_event_t *event)
{
	struct timespec t;
	char value[32];
	clock_gettime(CLOCK_REALTIME, &t);
	snprintf(value, sizeof(value), "%lld", (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000);
	switch_event_del_header(event, "Event-Date-Timestamp");
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Event-Date-Timestamp", value);
}

static void trap_calls(struct lane *lane);

static uint32_t clip(uint64_t ns) { return ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns; }

static void *run_lane(void *argument)
{
	struct lane *lane = argument;
	switch_event_t **events = calloc(lane->ahead, sizeof(*events));
	if (!events) abort();
	struct rusage before, after;
	uint64_t due = 0;
	memset(&before, 0, sizeof(before));
	for (uint64_t i = 0; i < lane->warm + lane->n; i++) {
		uint64_t slot = i % lane->ahead;
		if (!slot) for (uint64_t j = 0; j < lane->ahead && i + j < lane->warm + lane->n; j++) events[j] = make(&lane->shape, lane->first + i + j);
		if (i == lane->warm) {
			allocations_inside = 0;
			getrusage(RUSAGE_THREAD, &before);
			if (lane->trap) trap_calls(lane);
		}
		if (lane->rate_ns && !(i % lane->burst)) {
			uint64_t now = now_ns();
			if (!due) due = now;
			struct timespec at = { .tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u) };
			if (now < due) clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
			due += lane->rate_ns * lane->burst;
		}
		if (lane->stamp) stamp(events[slot]);
		inside = 0;
		uint64_t started = now_ns();
		switch_event_deliver(&events[slot]);
		uint64_t took = now_ns() - started;
		if (i >= lane->warm) {
			lane->whole[i - lane->warm] = clip(took);
			lane->inside[i - lane->warm] = clip(inside);
		}
	}
	lane->allocations = allocations_inside;
	if (!lane->trap) {
		getrusage(RUSAGE_THREAD, &after);
		lane->faults = (uint64_t)(after.ru_minflt - before.ru_minflt);
	}
	free(events);
	return NULL;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void summarize(switch_stream_handle_t *stream, const char *what, uint32_t *ns, uint64_t n)
{
	uint64_t sum = 0, low = n - n / 20, low_sum = 0;
	qsort(ns, n, sizeof(*ns), by_size);
	for (uint64_t i = 0; i < n; i++) { sum += ns[i]; if (i < low) low_sum += ns[i]; }
	stream->write_function(stream, " %s_mean=%.1f %s_trim=%.1f %s_min=%u %s_p25=%u %s_p50=%u %s_p90=%u %s_p99=%u %s_p999=%u %s_max=%u",
		what, (double)sum / (double)n, what, (double)low_sum / (double)low, what, ns[0], what, ns[n / 4], what, ns[n / 2], what, ns[n * 9 / 10],
		what, ns[n * 99 / 100], what, ns[n * 999 / 1000], what, ns[n - 1]);
}

static double cpu_seconds(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static long number(const char *text, const char *name, long otherwise)
{
	size_t length = strlen(name);
	for (const char *at = text; at && *at; at = strchr(at, ' ')) {
		while (*at == ' ') at++;
		if (!strncmp(at, name, length) && at[length] == '=') return strtol(at + length + 1, NULL, 10);
	}
	return otherwise;
}

static uint64_t next_number = 1, trap_counts[1024];

static void run(const char *words, switch_stream_handle_t *stream, int trap)
{
	long threads = trap ? 1 : number(words, "threads", 1), rate = number(words, "rate", 0);
	struct lane base = { .shape = { (int)number(words, "headers", 85), !strstr(words, "kind=real"), strstr(words, "kind=custom") != NULL },
		.n = (uint64_t)number(words, "n", trap ? 1000 : 10000), .warm = (uint64_t)number(words, "warm", 1000),
		.ahead = (uint64_t)number(words, "ahead", 1), .burst = (uint64_t)number(words, "burst", 1), .rate_ns = rate ? 1000000000u / (uint64_t)rate : 0, .trap = trap,
		.stamp = (int)number(words, "stamp", 0) };
	if (threads < 1 || threads > 64 || !base.n || !base.ahead || !base.burst) {
		stream->write_function(stream, "-ERR n, ahead, burst and threads must be at least 1\n");
		return;
	}
	struct lane *lanes = calloc((size_t)threads, sizeof(*lanes));
	uint32_t *inside_ns = calloc(base.n * (uint64_t)threads, sizeof(*inside_ns)), *whole_ns = calloc(base.n * (uint64_t)threads, sizeof(*whole_ns));
	if (!lanes || !inside_ns || !whole_ns) abort();
	memset(trap_counts, 0, sizeof(trap_counts));
	switch_event_t *sample = make(&base.shape, 0);
	uint64_t bytes = 0;
	for (switch_event_header_t *h = sample->headers; h; h = h->next) bytes += strlen(h->name) + strlen(h->value ? h->value : "");
	switch_event_destroy(&sample);
	double cpu = cpu_seconds();
	uint64_t started = now_ns();
	for (long i = 0; i < threads; i++) {
		lanes[i] = base;
		lanes[i].first = next_number;
		next_number += base.n + base.warm;
		lanes[i].inside = inside_ns + base.n * (uint64_t)i;
		lanes[i].whole = whole_ns + base.n * (uint64_t)i;
		if (pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i])) abort();
	}
	uint64_t allocated = 0, faults = 0;
	for (long i = 0; i < threads; i++) {
		pthread_join(lanes[i].thread, NULL);
		allocated += lanes[i].allocations;
		faults += lanes[i].faults;
	}
	double wall = (double)(now_ns() - started) / 1e9;
	uint64_t n = base.n * (uint64_t)threads;
	stream->write_function(stream, "+OK n=%llu headers=%d bytes=%llu wall=%.6f cpu=%.6f faults=%llu", (unsigned long long)n, base.shape.headers,
		(unsigned long long)bytes, wall, cpu_seconds() - cpu, (unsigned long long)faults);
	if (allocations) stream->write_function(stream, " allocations=%llu", (unsigned long long)allocated);
	if (trap) {
		uint64_t calls = 0;
		for (int i = 0; i < 1024; i++) calls += trap_counts[i];
		stream->write_function(stream, " calls=%llu trapped=%d", (unsigned long long)calls, lanes[0].trapped);
		for (int i = 0; i < 1024; i++) if (trap_counts[i]) stream->write_function(stream, " call_%d=%llu", i, (unsigned long long)trap_counts[i]);
	}
	summarize(stream, "inside", inside_ns, n);
	summarize(stream, "whole", whole_ns, n);
	stream->write_function(stream, " dup_lost=%llu slab_lost=%llu\n", (unsigned long long)dup_lost, (unsigned long long)slab_lost);
	free(lanes);
	free(inside_ns);
	free(whole_ns);
}

/* ---- system calls: a filter on the measured thread traps each one; the trap counts it and makes it from the one place
 * that the filter lets through ---- */

#if defined(__x86_64__)
long bench_syscall(long number, long a, long b, long c, long d, long e, long f);
extern char bench_syscall_after[];
__asm__(".text\n.globl bench_syscall\n.hidden bench_syscall\n.type bench_syscall,@function\nbench_syscall:\n"
	"mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\nmov 8(%rsp),%r9\nsyscall\n"
	".globl bench_syscall_after\n.hidden bench_syscall_after\nbench_syscall_after:\nret\n");

static void on_trap(int signal, siginfo_t *info, void *context)
{
	greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
	int saved = errno;
	(void)signal;
	if (in_handler && info->si_syscall >= 0 && info->si_syscall < 1024) trap_counts[info->si_syscall]++;
	r[REG_RAX] = bench_syscall(info->si_syscall, (long)r[REG_RDI], (long)r[REG_RSI], (long)r[REG_RDX], (long)r[REG_R10], (long)r[REG_R8], (long)r[REG_R9]);
	errno = saved;
}

static void trap_calls(struct lane *lane)
{
	uint64_t after = (uint64_t)(uintptr_t)bench_syscall_after;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 5, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)after, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(after >> 32), 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(filter) / sizeof(*filter), .filter = filter };
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER };
	sigaction(SIGSYS, &action, NULL);
	lane->trapped = !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}
#else
static void trap_calls(struct lane *lane) { lane->trapped = 0; }
#endif

static void begin_calls(long n)
{
	static unsigned long calls;
	for (long i = 0; i < n; i++) {
		switch_event_t *event = NULL;
		if (switch_event_create(&event, SWITCH_EVENT_CHANNEL_CREATE) != SWITCH_STATUS_SUCCESS) abort();
		switch_event_add_header(event, SWITCH_STACK_BOTTOM, "Unique-ID", "bench-live-%lu", ++calls);
		switch_event_add_header(event, SWITCH_STACK_BOTTOM, "Channel-Name", "loopback/%lu", calls);
		switch_event_deliver(&event);
	}
}

SWITCH_STANDARD_API(bench_api)
{
	const char *words = switch_str_nil(cmd);
	const char *rest = strchr(words, ' ') ? strchr(words, ' ') + 1 : "";
	if (!strncmp(words, "run", 3)) {
		run(rest, stream, 0);
		return SWITCH_STATUS_SUCCESS;
	}
	if (!strncmp(words, "calls", 5)) {
		run(rest, stream, 1);
		return SWITCH_STATUS_SUCCESS;
	}
	if (!strcmp(words, "mark end") && !end_node) switch_event_bind_removable("bench", all_events, NULL, on_end, NULL, &end_node);
	else if (!strcmp(words, "mark begin") && !begin_node) switch_event_bind_removable("bench", all_events, NULL, on_begin, NULL, &begin_node);
	else if (!strcmp(words, "mark off")) {
		if (begin_node) switch_event_unbind(&begin_node);
		if (end_node) switch_event_unbind(&end_node);
	} else if (!strncmp(words, "handler ", 8)) handler(rest);
	else if (!strncmp(words, "live", 4)) begin_calls(number(rest, "n", 5000));
	else if (!strncmp(words, "event ", 6)) {
		stream->write_function(stream, "+OK headers=%d\n", read_template(rest));
		return SWITCH_STATUS_SUCCESS;
	} else {
		stream->write_function(stream, "-ERR bench mark|handler|event|run|calls|live\n");
		return SWITCH_STATUS_SUCCESS;
	}
	stream->write_function(stream, "+OK\n");
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_MODULE_LOAD_FUNCTION(mod_bench_load)
{
	switch_api_interface_t *api;
	/* The number of ALL differs between releases. */
	if (switch_name_event("ALL", &all_events) != SWITCH_STATUS_SUCCESS) return SWITCH_STATUS_FALSE;
	*(void **)&allocations = dlsym(RTLD_DEFAULT, "bench_allocations");
	switch_queue_create(&dup_queue, 100000, pool);
	switch_queue_create(&slabs_free, SLABS, pool);
	switch_queue_create(&slabs_full, SLABS, pool);
	for (int i = 0; i < SLABS; i++) {
		slabs[i] = malloc(SLAB);
		if (!slabs[i]) return SWITCH_STATUS_FALSE;
		/* Its pages are there before it is used. */
		memset(slabs[i], 1, SLAB);
	}
	*module_interface = switch_loadable_module_create_module_interface(pool, modname);
	SWITCH_ADD_API(api, "bench", "measure event handlers", bench_api, "mark|handler|event|run|calls|live");
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_bench_shutdown)
{
	if (begin_node) switch_event_unbind(&begin_node);
	if (end_node) switch_event_unbind(&end_node);
	handler("off");
	return SWITCH_STATUS_SUCCESS;
}
