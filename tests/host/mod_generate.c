/* SPDX-License-Identifier: MIT
 *
 * The host's generator as a module of a real FreeSWITCH, so that a scenario sends the very same events to both: the API
 * `generate deliver|fire|play|raw|floor|stop|go|flush …` takes and answers what the host's own commands do.
 */
#define _GNU_SOURCE
#include "host.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

SWITCH_MODULE_LOAD_FUNCTION(mod_generate_load);
SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_generate_shutdown);
SWITCH_MODULE_DEFINITION(mod_generate, mod_generate_load, mod_generate_shutdown, NULL);

/* The binding's number of ALL differs from core to core. */
switch_event_types_t event_all;
bool event_checking;
uint64_t event_mutated;

uint64_t host_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void host_die(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	abort();
}

void *host_alloc(size_t size)
{
	void *memory = calloc(1, size ? size : 1);
	if (!memory) host_die("out of memory");
	return memory;
}

char *host_dup(const char *text) { return strcpy(host_alloc(strlen(text) + 1), text); }

pthread_t host_thread(const char *name, void *(*run)(void *), void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, HOST_STACK_BYTES);
	if (pthread_create(&thread, &attributes, run, argument)) host_die("no thread for %s", name);
	pthread_attr_destroy(&attributes);
	pthread_setname_np(thread, name);
	return thread;
}

switch_event_t *event_new(const char *function, switch_event_types_t id, const char *subclass)
{
	switch_event_t *event = NULL;
	if (switch_event_create_subclass_detailed("host.c", function, 1, &event, id, subclass) != SWITCH_STATUS_SUCCESS)
		host_die("an event cannot have the subclass %s", subclass);
	return event;
}

switch_event_t *event_new_bare(switch_event_types_t id, const char *subclass)
{
	switch_event_t *event = host_alloc(sizeof(*event));
	event->event_id = id;
	event->subclass_name = subclass ? host_dup(subclass) : NULL;
	return event;
}

/* Through the core first, which knows its hash, then as it is. */
void event_append_bare(switch_event_t *event, const char *name, const char *value)
{
	switch_event_header_t *header = host_alloc(sizeof(*header));
	switch_ssize_t length = -1;
	header->name = host_dup(name);
	header->value = value ? host_dup(value) : NULL;
	header->hash = switch_ci_hashfunc_default(name, &length);
	if (event->last_header) event->last_header->next = header; else event->headers = header;
	event->last_header = header;
}

void event_push(switch_event_t *event, const char *name, const char *value)
{
	switch_event_add_header_string(event, SWITCH_STACK_PUSH, name, value);
}

void event_set_body(switch_event_t *event, const char *body) { switch_event_set_body(event, body); }

uint64_t event_deliver(switch_event_t **event)
{
	uint64_t started = host_now_ns();
	switch_event_deliver(event);
	return host_now_ns() - started;
}

void event_fire(switch_event_t **event) { switch_event_fire(event); }

/* The core tells nobody how full its queue is: an event of ours that came back has been preceded by all before it, as long
 * as one thread dispatches. */
static unsigned long marks_fired, marks_seen;

static void on_mark(switch_event_t *event) { (void)event; __atomic_add_fetch(&marks_seen, 1, __ATOMIC_SEQ_CST); }

void event_flush(void)
{
	unsigned long mine = __atomic_add_fetch(&marks_fired, 1, __ATOMIC_SEQ_CST);
	switch_event_t *event = event_new("flush", SWITCH_EVENT_CUSTOM, "generate::mark");
	switch_event_fire(&event);
	for (int i = 0; i < 60000 && __atomic_load_n(&marks_seen, __ATOMIC_SEQ_CST) < mine; i++) switch_micro_sleep(1000);
}

struct alloc_counts measure_allocations(void) { return (struct alloc_counts){ 0, 0, 0 }; }

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

void measure_summary(uint32_t *ns, size_t n, char *line, size_t size)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++) sum += ns[i];
	qsort(ns, n, sizeof(*ns), by_size);
	if (!n) snprintf(line, size, "mean_ns=0");
	else snprintf(line, size, "mean_ns=%llu min_ns=%u p50_ns=%u p90_ns=%u p99_ns=%u p999_ns=%u max_ns=%u", (unsigned long long)(sum / n),
		ns[0], ns[n / 2], ns[n * 9 / 10], ns[n * 99 / 100], ns[n * 999 / 1000], ns[n - 1]);
}

SWITCH_STANDARD_API(generate_api)
{
	char *line = host_dup(cmd ? cmd : ""), *rest = line, *command = strsep(&rest, " "), none[] = "", *text = NULL;
	size_t size = 0;
	struct reply reply = { .text = open_memstream(&text, &size), .status = "+OK" };
	char *arguments = rest ? rest : none;
	if (!strcmp(command, "deliver")) generate_deliver(arguments, &reply);
	else if (!strcmp(command, "fire")) generate_fire(arguments, &reply);
	else if (!strcmp(command, "play")) generate_play(arguments, &reply);
	else if (!strcmp(command, "raw")) generate_raw(arguments, &reply);
	else if (!strcmp(command, "floor")) generate_floor(!strcmp(arguments, "on"));
	else if (!strcmp(command, "stop")) generate_stop(true);
	else if (!strcmp(command, "go")) generate_stop(false);
	else if (!strcmp(command, "flush")) event_flush();
	else snprintf(reply.status, sizeof(reply.status), "-ERR no command");
	fclose(reply.text);
	stream->write_function(stream, "%s%s", text, reply.status);
	free(text);
	free(line);
	return SWITCH_STATUS_SUCCESS;
}

static switch_event_node_t *mark_node;

SWITCH_MODULE_LOAD_FUNCTION(mod_generate_load)
{
	switch_api_interface_t *api;
	*module_interface = switch_loadable_module_create_module_interface(pool, modname);
	SWITCH_ADD_API(api, "generate", "events for tests", generate_api, "deliver|fire|play|raw|floor|stop|go|flush");
	if (switch_name_event("ALL", &event_all) != SWITCH_STATUS_SUCCESS) return SWITCH_STATUS_FALSE;
	return switch_event_bind_removable(modname, SWITCH_EVENT_CUSTOM, "generate::mark", on_mark, NULL, &mark_node);
}

SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_generate_shutdown)
{
	generate_floor(false);
	switch_event_unbind(&mark_node);
	return SWITCH_STATUS_SUCCESS;
}
