/* SPDX-License-Identifier: MIT
 *
 * Where events come from: by the thousand with numbers that an oracle can check, recorded ones, hostile ones.
 *
 * Every generated event carries Gen-Seq (its number in this process), Gen-Key and Gen-Key-Seq (its number within the key;
 * one thread fires all events of a key), Unique-ID (one for each key) and Gen-Hash, the wrapping sum of FNV-1a over
 * name, 0xff, value, 0xff of every header named Unique-ID, Gen-Seq, Gen-Key, Gen-Key-Seq or variable_<any>.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static volatile bool stopping;
static uint64_t next_sequence = 1, next_run = 1;

void generate_stop(bool stop) { stopping = stop; }

char *host_unescape(char *text)
{
	char *to = text;
	for (char *from = text; *from; from++) {
		unsigned byte;
		if (*from == '%' && sscanf(from + 1, "%2x", &byte) == 1) {
			*to++ = (char)byte;
			from += 2;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
	return text;
}

static const char *argument(const char *arguments, const char *name)
{
	size_t length = strlen(name);
	for (const char *p = arguments; p && *p; p = strchr(p, ' ')) {
		while (*p == ' ') p++;
		if (!strncmp(p, name, length) && p[length] == '=') return p + length + 1;
	}
	return NULL;
}

long host_number(const char *arguments, const char *name, long otherwise)
{
	const char *value = argument(arguments, name);
	return value ? strtol(value, NULL, 10) : otherwise;
}

static bool is(const char *arguments, const char *name, const char *value)
{
	const char *found = argument(arguments, name);
	size_t length = strlen(value);
	return found && !strncmp(found, value, length) && (!found[length] || found[length] == ' ');
}

/* ---- events with numbers ---- */

static uint64_t hash_pair(const char *name, const char *value)
{
	uint64_t hash = 14695981039346656037u;
	for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211u;
	hash = (hash ^ 0xff) * 1099511628211u;
	for (; *value; value++) hash = (hash ^ (unsigned char)*value) * 1099511628211u;
	return (hash ^ 0xff) * 1099511628211u;
}

enum { KIND_CHANNEL, KIND_CUSTOM, KIND_MIXED };

switch_event_t *generate_event(int kind, int headers, uint64_t sequence, const char *key, uint64_t key_sequence)
{
	static const char *const MIXED[] = { "CHANNEL_CREATE", "CHANNEL_ANSWER", "CUSTOM", "HEARTBEAT", "CHANNEL_EXECUTE",
		"CHANNEL_EXECUTE_COMPLETE", "DTMF", "CHANNEL_HANGUP_COMPLETE" };
	switch_event_types_t id = SWITCH_EVENT_CHANNEL_STATE;
	if (kind == KIND_MIXED) switch_name_event(MIXED[sequence % 8], &id);
	if (kind == KIND_CUSTOM) id = SWITCH_EVENT_CUSTOM;
	switch_event_t *event = event_new("generate_event", id, id == SWITCH_EVENT_CUSTOM ? "gen::test" : NULL);
	char name[64], value[160];
	uint64_t sum = 0, identity = hash_pair("key", key);
#define ADD(n, v) do { switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, n, v); sum += hash_pair(n, v); } while (0)
	snprintf(value, sizeof(value), "%llu", (unsigned long long)sequence);
	ADD("Gen-Seq", value);
	ADD("Gen-Key", key);
	snprintf(value, sizeof(value), "%llu", (unsigned long long)key_sequence);
	ADD("Gen-Key-Seq", value);
	snprintf(value, sizeof(value), "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)identity, (unsigned)(identity >> 32) & 0xffff,
		(unsigned)(identity >> 48) & 0xfff, (unsigned)(identity >> 20) & 0xfff, (unsigned long long)identity & 0xffffffffffff);
	ADD("Unique-ID", value);
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Channel-Name", "sofia/internal/1001@192.0.2.7:38002");
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Caller-Destination-Number", "1001");
	if (headers > 0) ADD("variable_rtp_local_sdp_str", "v=0\r\no=FreeSWITCH 1633238807 1633238808 IN IP4 192.0.2.29\r\n"
		"s=FreeSWITCH\r\nc=IN IP4 192.0.2.29\r\nt=0 0\r\nm=audio 22694 RTP/AVP 102 0 8 105 101\r\na=rtpmap:102 opus/48000/2\r\n"
		"a=fmtp:102 useinbandfec=1; maxaveragebitrate=30000\r\na=ptime:20\r\na=sendrecv\r\n");
	for (int i = 1; i < headers; i++) {
		snprintf(name, sizeof(name), "variable_some_channel_var_%d", i);
		snprintf(value, sizeof(value), "value \"%d\" <sip:mod_sofia@192.0.2.29:5060>;x=%d", i, i * 7919);
		ADD(name, value);
	}
#undef ADD
	snprintf(value, sizeof(value), "%016llx", (unsigned long long)sum);
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Gen-Hash", value);
	return event;
}

struct lane {
	pthread_t thread;
	int number, kind, headers, keys;
	bool ahead, through_queue;
	uint64_t count, done, first, run, rate_ns;
	uint32_t *nanoseconds;
};

static switch_event_t *lane_event(const struct lane *lane, uint64_t i)
{
	char key[64];
	snprintf(key, sizeof(key), "r%llu-t%d-k%llu", (unsigned long long)lane->run, lane->number, (unsigned long long)(i % (unsigned)lane->keys));
	return generate_event(lane->kind, lane->headers, lane->first + i, key, i / (unsigned)lane->keys);
}

static void *run_lane(void *argument)
{
	struct lane *lane = argument;
	switch_event_t **ready = lane->ahead ? host_alloc(sizeof(*ready) * lane->count) : NULL;
	for (uint64_t i = 0; ready && i < lane->count; i++) ready[i] = lane_event(lane, i);
	uint64_t due = host_now_ns();
	for (uint64_t i = 0; i < lane->count; i++) {
		if (stopping) break;
		if (lane->rate_ns) {
			struct timespec at = { .tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u) };
			while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) { }
			due += lane->rate_ns;
		}
		switch_event_t *event = ready ? ready[i] : lane_event(lane, i);
		uint64_t took;
		if (lane->through_queue) {
			uint64_t started = host_now_ns();
			event_fire(&event);
			took = host_now_ns() - started;
		} else {
			took = event_deliver(&event);
		}
		lane->nanoseconds[i] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
		lane->done++;
	}
	for (uint64_t i = lane->done; ready && i < lane->count; i++) switch_event_destroy(&ready[i]);
	free(ready);
	return NULL;
}

/* deliver n=1000 [headers=80] [threads=1] [rate=events/s in all] [keys=100 for each thread] [kind=channel|custom|mixed]
 *         [ahead=1: build every event first] [via=queue: fire instead of deliver; the times are fire's] [check=1] */
void generate_deliver(char *arguments, struct reply *reply)
{
	long count = host_number(arguments, "n", 1000), threads = host_number(arguments, "threads", 1), rate = host_number(arguments, "rate", 0);
	if (count < 1 || threads < 1 || threads > 64) {
		snprintf(reply->status, sizeof(reply->status), "-ERR deliver: n and threads must be at least 1, threads at most 64");
		return;
	}
	struct lane *lanes = host_alloc(sizeof(*lanes) * (size_t)threads);
	uint32_t *nanoseconds = host_alloc(sizeof(*nanoseconds) * (size_t)count);
	uint64_t first = __atomic_fetch_add(&next_sequence, (uint64_t)count, __ATOMIC_RELAXED), at = first;
	uint64_t run = __atomic_fetch_add(&next_run, 1, __ATOMIC_RELAXED);
	struct alloc_counts before = measure_allocations();
	event_checking = host_number(arguments, "check", 0);
	uint64_t mutated = event_mutated, started = host_now_ns();
	for (long t = 0; t < threads; t++) {
		uint64_t share = (uint64_t)(count / threads + (t < count % threads));
		lanes[t] = (struct lane){ .number = (int)t, .headers = (int)host_number(arguments, "headers", 80),
			.kind = is(arguments, "kind", "custom") ? KIND_CUSTOM : is(arguments, "kind", "mixed") ? KIND_MIXED : KIND_CHANNEL,
			.keys = (int)host_number(arguments, "keys", 100), .ahead = host_number(arguments, "ahead", 0),
			.through_queue = is(arguments, "via", "queue"), .count = share, .first = at, .run = run,
			.rate_ns = rate > 0 ? (uint64_t)(1000000000.0 * (double)threads / (double)rate) : 0,
			.nanoseconds = nanoseconds + (at - first) };
		if (lanes[t].keys < 1) lanes[t].keys = 1;
		at += share;
		lanes[t].thread = host_thread("host-dispatch", run_lane, &lanes[t]);
	}
	uint64_t done = 0;
	for (long t = 0; t < threads; t++) {
		pthread_join(lanes[t].thread, NULL);
		memmove(nanoseconds + done, lanes[t].nanoseconds, sizeof(*nanoseconds) * lanes[t].done);
		/* What was numbered but never sent, so that an oracle does not wait for it. */
		if (lanes[t].done < lanes[t].count) fprintf(reply->text, "unsent %llu %llu\n", (unsigned long long)(lanes[t].first + lanes[t].done),
			(unsigned long long)(lanes[t].first + lanes[t].count - 1));
		done += lanes[t].done;
	}
	double wall_ms = (double)(host_now_ns() - started) / 1e6;
	struct alloc_counts after = measure_allocations();
	event_checking = false;
	char times[256];
	measure_summary(nanoseconds, (size_t)done, times, sizeof(times));
	snprintf(reply->status, sizeof(reply->status), "+OK n=%llu first=%llu last=%llu wall_ms=%.1f %s allocs=%llu frees=%llu mutated=%llu",
		(unsigned long long)done, (unsigned long long)first, (unsigned long long)(at - 1), wall_ms, times,
		(unsigned long long)(after.allocations - before.allocations), (unsigned long long)(after.frees - before.frees),
		(unsigned long long)(event_mutated - mutated));
	free(nanoseconds);
	free(lanes);
}

/* ---- events written down ----
 *
 * core|bare NAME SUBCLASS|- FIELD…   every word %-escaped; FIELD is name=value, name+=item of an array, or !body=text.
 * `core` adds the thirteen headers an event is born with and treats values as the core does; `bare` takes them as they are,
 * which keeps the recorded numbers and dates. */

static switch_event_t *parse_event(char *line, const char **error)
{
	char *rest = line, *manner = strsep(&rest, " "), *name = strsep(&rest, " "), *subclass = strsep(&rest, " ");
	switch_event_types_t id;
	bool bare = manner && !strcmp(manner, "bare");
	*error = "an event is: core|bare NAME SUBCLASS|- FIELD…";
	if (!subclass || (!bare && strcmp(manner, "core"))) return NULL;
	*error = "no such event in this core";
	if (switch_name_event(name, &id) != SWITCH_STATUS_SUCCESS || id == event_all) return NULL;
	subclass = strcmp(subclass, "-") ? host_unescape(subclass) : NULL;
	*error = "only CUSTOM has a subclass";
	if (subclass && id != SWITCH_EVENT_CUSTOM && id != SWITCH_EVENT_CLONE) return NULL;
	switch_event_t *event = bare ? event_new_bare(id, subclass) : event_new("fire", id, subclass);
	for (char *field; (field = strsep(&rest, " ")); ) {
		char *value = strchr(field, '=');
		if (!value) continue;
		*value++ = '\0';
		bool item = value - 2 >= field && value[-2] == '+', body = !strcmp(field, "!body");
		if (item) value[-2] = '\0';
		host_unescape(field);
		host_unescape(value);
		if (body) event_set_body(event, value);
		else if (item) event_push(event, field, value);
		else if (bare) event_append_bare(event, field, value);
		else switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, field, value);
	}
	return event;
}

void generate_fire(char *arguments, struct reply *reply)
{
	const char *error;
	switch_event_t *event = parse_event(arguments, &error);
	if (!event) {
		snprintf(reply->status, sizeof(reply->status), "-ERR fire: %s", error);
		return;
	}
	event_fire(&event);
}

/* play FILE SPEED: each line is the microseconds since the first event, then the event. SPEED 1 is real time, 0 is at once. */
void generate_play(char *arguments, struct reply *reply)
{
	char *rest = arguments, *path = host_unescape(strsep(&rest, " "));
	double speed = rest ? strtod(rest, NULL) : 0;
	FILE *in = fopen(path, "re");
	if (!in) {
		snprintf(reply->status, sizeof(reply->status), "-ERR play: cannot read %s: %m", path);
		return;
	}
	switch_event_t **events = NULL;
	uint64_t *offsets = NULL, count = 0;
	char *line = NULL;
	size_t size = 0;
	for (ssize_t length; (length = getline(&line, &size, in)) > 0; ) {
		if (line[length - 1] == '\n') line[length - 1] = '\0';
		const char *error;
		char *event_text = strchr(line, ' ');
		switch_event_t *event = event_text ? parse_event(event_text + 1, &error) : NULL;
		if (!event) {
			fprintf(reply->text, "line %llu: %s\n", (unsigned long long)count + 1, event_text ? error : "no event");
			continue;
		}
		events = realloc(events, sizeof(*events) * (count + 1));
		offsets = realloc(offsets, sizeof(*offsets) * (count + 1));
		if (!events || !offsets) host_die("out of memory");
		offsets[count] = strtoull(line, NULL, 10);
		events[count++] = event;
	}
	free(line);
	fclose(in);
	uint64_t started = host_now_ns(), sent = 0;
	for (; sent < count && !stopping; sent++) {
		uint64_t due = started + (speed > 0 ? (uint64_t)((double)offsets[sent] * 1000.0 / speed) : 0);
		struct timespec at = { .tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u) };
		while (speed > 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) { }
		event_fire(&events[sent]);
	}
	event_flush();
	snprintf(reply->status, sizeof(reply->status), "+OK n=%llu wall_ms=%.1f", (unsigned long long)sent, (double)(host_now_ns() - started) / 1e6);
	for (; sent < count; sent++) switch_event_destroy(&events[sent]);
	free(events);
	free(offsets);
}

/* ---- hostile events ---- */

static char *repeated(char character, size_t length)
{
	char *text = host_alloc(length + 1);
	memset(text, character, length);
	return text;
}

static bool hostile(const char *kind, switch_event_t *e)
{
	char name[64], *big = NULL;
#define RAW(n, v) event_append_bare(e, n, v)
	if (!strcmp(kind, "huge-value")) RAW("X-Huge", big = repeated('h', 1 << 20));
	else if (!strcmp(kind, "huge-body")) event_set_body(e, big = repeated('b', 10 << 20));
	else if (!strcmp(kind, "huge-name")) RAW(big = repeated('n', 100000), "value");
	else if (!strcmp(kind, "many-headers")) for (int i = 0; i < 5000; i++) { snprintf(name, sizeof(name), "X-Many-%d", i); RAW(name, name); }
	else if (!strcmp(kind, "bracket")) { RAW("X-List[3]", "three"); RAW("X-Open[", "open"); RAW("[", "only"); RAW("X]Close", "close"); }
	else if (!strcmp(kind, "empty-name")) { RAW("", "nameless"); RAW("", ""); }
	else if (!strcmp(kind, "empty-value")) RAW("X-Empty", "");
	else if (!strcmp(kind, "not-utf8")) { RAW("X-Bytes", "before \xff\xfe after"); RAW("X-\xc3\x28", "bad name"); RAW("X-Cut", "cut \xe2\x82"); RAW("X-Surrogate", "\xed\xa0\x80"); }
	else if (!strcmp(kind, "utf8")) RAW("X-Utf8", "\xc3\xa4\xc3\xb6\xc3\xbc \xe2\x82\xac \xf0\x9f\x93\x9e");
	else if (!strcmp(kind, "control")) RAW("X-Control", "\x01\x02\b\t\n\v\f\r\x1f\x7f\"\\/");
	else if (!strcmp(kind, "null-value")) { RAW("X-Null", NULL); RAW("X-After-Null", "after"); }
	else if (!strcmp(kind, "duplicate")) { RAW("X-Twice", "first"); RAW("X-Other", "between"); RAW("X-Twice", "second"); RAW("x-twice", "third"); }
	else if (!strcmp(kind, "array")) { event_push(e, "X-Array", "one"); event_push(e, "X-Array", "two |: bars"); event_push(e, "X-Array", ""); event_push(e, "X-Array", "\xff"); }
	else if (!strcmp(kind, "array-of-one")) event_push(e, "X-Array", "alone");
	else if (!strcmp(kind, "array-holes")) switch_event_add_header_string(e, SWITCH_STACK_BOTTOM, "X-Array[7]", "seventh");
	else if (!strcmp(kind, "array-null-item")) { event_push(e, "X-Array", "one"); event_push(e, "X-Array", "two"); free(e->last_header->array[1]); e->last_header->array[1] = NULL; }
	else if (!strcmp(kind, "array-missing")) { RAW("X-Array", "text"); e->last_header->idx = 3; }
	else if (!strcmp(kind, "array-large")) for (int i = 0; i < 4000; i++) { if (!i) event_push(e, "X-Array", "item"); else { char **a = realloc(e->last_header->array, sizeof(char *) * (size_t)(i + 1)); if (!a) host_die("out of memory"); e->last_header->array = a; a[i] = host_dup("item"); e->last_header->idx = i + 1; } }
	else if (!strcmp(kind, "no-headers")) { switch_event_types_t id = e->event_id; while (e->headers) { switch_event_header_t *h = e->headers; e->headers = h->next; free(h->name); free(h->value); free(h); } e->last_header = NULL; e->event_id = id; }
	else if (!strcmp(kind, "wrong-name")) { free(e->headers->value); e->headers->value = host_dup("NOT_WHAT_IT_IS"); }
	else if (!strcmp(kind, "empty-body")) event_set_body(e, "");
	else if (!strcmp(kind, "custom-without-subclass")) e->event_id = SWITCH_EVENT_CUSTOM;
	else if (!strcmp(kind, "subclass-header-only")) { e->event_id = SWITCH_EVENT_CUSTOM; RAW("Event-Subclass", "only::header"); }
	else if (!strcmp(kind, "huge-id")) { RAW("Unique-ID", big = repeated('u', 4096)); }
	else return false;
#undef RAW
	free(big);
	return true;
}

static const char *const HOSTILE[] = { "huge-value", "huge-body", "huge-name", "many-headers", "bracket", "empty-name", "empty-value",
	"not-utf8", "utf8", "control", "null-value", "duplicate", "array", "array-of-one", "array-holes", "array-null-item", "array-missing",
	"array-large", "no-headers", "wrong-name", "empty-body", "custom-without-subclass", "subclass-header-only", "huge-id" };

/* raw KIND|all|list: delivered on this thread; the header Gen-Raw tells which. */
void generate_raw(char *arguments, struct reply *reply)
{
	size_t sent = 0;
	for (size_t i = 0; i < sizeof(HOSTILE) / sizeof(*HOSTILE); i++) {
		if (!strcmp(arguments, "list")) fprintf(reply->text, "%s\n", HOSTILE[i]);
		if (strcmp(arguments, "all") && strcmp(arguments, HOSTILE[i])) continue;
		switch_event_t *event = event_new("generate_raw", SWITCH_EVENT_GENERAL, NULL);
		switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Gen-Raw", HOSTILE[i]);
		hostile(HOSTILE[i], event);
		event_deliver(&event);
		sent++;
	}
	if (sent || !strcmp(arguments, "list")) snprintf(reply->status, sizeof(reply->status), "+OK n=%zu", sent);
	else snprintf(reply->status, sizeof(reply->status), "-ERR raw: no such kind; `raw list` names them");
}

/* ---- the floor: the least that a handler can do which keeps an event ---- */

static switch_event_node_t *floor_node;

static void copy_only(switch_event_t *event)
{
	static __thread char *buffer;           /* kept by its thread: the floor has no allocations either */
	const size_t size = 1 << 20;
	size_t used = 0;
	if (!buffer) buffer = host_alloc(size);
	for (switch_event_header_t *h = event->headers; h; h = h->next) {
		size_t name = strlen(h->name), value = h->value ? strlen(h->value) : 0;
		if (used + name + value + 8 > size) break;
		memcpy(buffer + used, &name, 4);
		memcpy(buffer + used + 4, &value, 4);
		memcpy(buffer + used + 8, h->name, name);
		if (value) memcpy(buffer + used + 8 + name, h->value, value);
		used += name + value + 8;
	}
	__asm__ volatile("" : : "r"(buffer), "r"(used) : "memory");
}

void generate_floor(bool on)
{
	if (on && !floor_node) switch_event_bind_removable("host-floor", event_all, NULL, copy_only, NULL, &floor_node);
	if (!on && floor_node) switch_event_unbind(&floor_node);
}
