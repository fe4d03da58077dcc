/* SPDX-License-Identifier: MIT
 *
 * Stands in for the core's event engine.
 *
 * As in the core: the thirteen headers every event is born with, and Event-Sequence given at birth; a linked list of
 * headers with a case-insensitive hash of the name; arrays, both as items and as "ARRAY::a|:b"; names with "[n]"; an empty
 * value deletes; bindings in last-in first-out lists by event number, then those bound to ALL, all called under one
 * read-lock on the delivering thread; bind and unbind take the write-lock; a bounded queue before the dispatch threads,
 * and whoever fires waits while it is full.
 */
#define _GNU_SOURCE
#include "host.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

struct switch_event_node {
	char *id, *subclass;
	switch_event_types_t event_id;
	switch_event_callback_t callback;
	void *user_data;
	struct switch_event_node *next;
};

/* In the order of the core's own table; the one before the last came with 1.11.1 and moved ALL from 92 to 93. */
static const char *const NAMES[] = {
	"CUSTOM", "CLONE", "CHANNEL_CREATE", "CHANNEL_DESTROY", "CHANNEL_STATE", "CHANNEL_CALLSTATE", "CHANNEL_ANSWER",
	"CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_EXECUTE", "CHANNEL_EXECUTE_COMPLETE", "CHANNEL_HOLD",
	"CHANNEL_UNHOLD", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_PROGRESS", "CHANNEL_PROGRESS_MEDIA",
	"CHANNEL_OUTGOING", "CHANNEL_PARK", "CHANNEL_UNPARK", "CHANNEL_APPLICATION", "CHANNEL_ORIGINATE", "CHANNEL_UUID",
	"API", "LOG", "INBOUND_CHAN", "OUTBOUND_CHAN", "STARTUP", "SHUTDOWN", "PUBLISH", "UNPUBLISH", "TALK", "NOTALK",
	"SESSION_CRASH", "MODULE_LOAD", "MODULE_UNLOAD", "DTMF", "MESSAGE", "PRESENCE_IN", "NOTIFY_IN", "PRESENCE_OUT",
	"PRESENCE_PROBE", "MESSAGE_WAITING", "MESSAGE_QUERY", "ROSTER", "CODEC", "BACKGROUND_JOB", "DETECTED_SPEECH",
	"DETECTED_TONE", "PRIVATE_COMMAND", "HEARTBEAT", "TRAP", "ADD_SCHEDULE", "DEL_SCHEDULE", "EXE_SCHEDULE",
	"RE_SCHEDULE", "RELOADXML", "NOTIFY", "PHONE_FEATURE", "PHONE_FEATURE_SUBSCRIBE", "SEND_MESSAGE", "RECV_MESSAGE",
	"REQUEST_PARAMS", "CHANNEL_DATA", "GENERAL", "COMMAND", "SESSION_HEARTBEAT", "CLIENT_DISCONNECTED",
	"SERVER_DISCONNECTED", "SEND_INFO", "RECV_INFO", "RECV_RTCP_MESSAGE", "SEND_RTCP_MESSAGE", "CALL_SECURE", "NAT",
	"RECORD_START", "RECORD_STOP", "PLAYBACK_START", "PLAYBACK_STOP", "CALL_UPDATE", "FAILURE", "SOCKET_DATA",
	"MEDIA_BUG_START", "MEDIA_BUG_STOP", "CONFERENCE_DATA_QUERY", "CONFERENCE_DATA", "CALL_SETUP_REQ",
	"CALL_SETUP_RESULT", "CALL_DETAIL", "DEVICE_STATE", "TEXT", "SHUTDOWN_REQUESTED", "CERT_RELOAD", "ALL" };
enum { NAME_COUNT = sizeof(NAMES) / sizeof(*NAMES), QUEUE_LENGTH = 20000 };

switch_event_types_t event_all;
__thread bool host_in_handler;
bool event_checking;
uint64_t event_mutated;

static struct switch_event_node *nodes[NAME_COUNT];
static pthread_rwlock_t nodes_lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t sequence_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t sequence, delivered, fired;

static switch_event_t **queue;
static size_t queue_head, queue_size, queue_busy;
static bool queue_open;
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER, queue_drained = PTHREAD_COND_INITIALIZER;
static pthread_t dispatchers[64];

/* ---- names and numbers ---- */

SWITCH_DECLARE(const char *) switch_event_name(switch_event_types_t event)
{
	if ((unsigned)event > (unsigned)event_all) host_die("switch_event_name(%d): this core knows 0 to %d", (int)event, (int)event_all);
	return event == event_all ? "ALL" : NAMES[event];
}

/* Takes a name with or without the thirteen letters SWITCH_EVENT_, whatever those letters are. */
SWITCH_DECLARE(switch_status_t) switch_name_event(const char *name, switch_event_types_t *type)
{
	for (int id = 0; id <= (int)event_all; id++) {
		const char *known = switch_event_name((switch_event_types_t)id);
		if ((strlen(name) > 13 && !strcasecmp(name + 13, known)) || !strcasecmp(name, known)) {
			*type = (switch_event_types_t)id;
			return SWITCH_STATUS_SUCCESS;
		}
	}
	return SWITCH_STATUS_FALSE;
}

/* ---- headers ---- */

static unsigned long hash_name(const char *name)
{
	unsigned int hash = 0;
	for (const unsigned char *p = (const unsigned char *)name; *p; p++) hash = hash * 33 + (unsigned)tolower(*p);
	return hash;
}

static switch_event_header_t *find_header(const switch_event_t *event, const char *name)
{
	unsigned long hash = hash_name(name);
	switch_event_header_t *h = event->headers;
	while (h && !((!h->hash || h->hash == hash) && !strcasecmp(h->name, name))) h = h->next;
	return h;
}

static switch_event_header_t *new_header(const char *name)
{
	switch_event_header_t *header = host_alloc(sizeof(*header));
	header->name = host_dup(name);
	return header;
}

static void free_header(switch_event_header_t *header)
{
	if (header->array) for (int i = 0; i < header->idx; i++) free(header->array[i]);
	free(header->array);
	free(header->name);
	free(header->value);
	free(header);
}

static void link_header(switch_event_t *event, switch_event_header_t *header, bool on_top)
{
	header->hash = hash_name(header->name);
	if (on_top) {
		header->next = event->headers;
		event->headers = header;
		if (!event->last_header) event->last_header = header;
		return;
	}
	if (event->last_header) event->last_header->next = header; else event->headers = header;
	event->last_header = header;
}

static void delete_headers(switch_event_t *event, const char *name)
{
	switch_event_header_t *last = NULL, **at = &event->headers;
	unsigned long hash = hash_name(name);
	while (*at) {
		switch_event_header_t *h = *at;
		if ((!h->hash || h->hash == hash) && !strcasecmp(h->name, name)) {
			*at = h->next;
			free_header(h);
		} else {
			last = h;
			at = &h->next;
		}
	}
	event->last_header = last;
}

/* The value of an array is all its items in one text; a single item stands alone. */
static void redraw_array(switch_event_header_t *header)
{
	size_t length = 8;
	for (int i = 0; i < header->idx; i++) length += 2 + (header->array[i] ? strlen(header->array[i]) : 0);
	char *text = realloc(header->value, length), *end = text;
	if (!text) host_die("out of memory");
	*end = '\0';
	if (header->idx > 1) end = stpcpy(end, "ARRAY::");
	for (int i = 0; i < header->idx; i++) {
		if (i) end = stpcpy(end, "|:");
		if (header->array[i]) end = stpcpy(end, header->array[i]);
	}
	header->value = text;
}

static void grow_array(switch_event_header_t *header, int size)
{
	char **array = realloc(header->array, sizeof(char *) * (size_t)size);
	if (!array) host_die("out of memory");
	header->array = array;
}

/* name[n]: puts the item at its place; places that were skipped hold empty items. */
static void put_indexed(switch_event_t *event, const char *name, int index, const char *value)
{
	switch_event_header_t *header = find_header(event, name);
	if (index < 0 || index > 4000) return;
	if (!header) {
		header = new_header(name);
		link_header(event, header, false);
	}
	if (index < header->idx) {
		free(header->array[index]);
		header->array[index] = host_dup(value);
		return;
	}
	grow_array(header, index + 1);
	while (header->idx < index) header->array[header->idx++] = host_dup("");
	header->array[header->idx++] = host_dup(value);
	redraw_array(header);
}

static void push_item(switch_event_t *event, const char *name, const char *value, bool front)
{
	switch_event_header_t *header = find_header(event, name);
	bool fresh = !header;
	if (fresh) {
		if (!*value) return;
		header = new_header(name);
	}
	if (header->value && !header->idx) {
		grow_array(header, 1);
		header->array[header->idx++] = header->value;
		header->value = NULL;
	}
	grow_array(header, header->idx + 1);
	if (front) {
		memmove(header->array + 1, header->array, sizeof(char *) * (size_t)header->idx);
		header->array[0] = host_dup(value);
	} else {
		header->array[header->idx] = host_dup(value);
	}
	header->idx++;
	redraw_array(header);
	if (fresh) link_header(event, header, false);
}

void event_push(switch_event_t *event, const char *name, const char *value) { push_item(event, name, value, false); }

static void split_array(switch_event_t *event, const char *name, const char *value)
{
	if (strlen(value) < 8) return;
	char *items = host_dup(value + 7), *item = items;
	for (char *end; (end = strstr(item, "|:")); item = end + 2) {
		*end = '\0';
		push_item(event, name, item, false);
	}
	push_item(event, name, item, false);
	free(items);
}

SWITCH_DECLARE(switch_status_t) switch_event_add_header_string(switch_event_t *event, switch_stack_t stack,
	const char *header_name, const char *data)
{
	if (!data) return SWITCH_STATUS_GENERR;
	if (!strcmp(header_name, "_body")) event_set_body(event, data);
	const char *bracket = strchr(header_name, '[');
	if (bracket) {
		char *name = host_dup(header_name);
		name[bracket - header_name] = '\0';
		put_indexed(event, name, atoi(bracket + 1), data);
		free(name);
		return SWITCH_STATUS_SUCCESS;
	}
	if (stack & (SWITCH_STACK_PUSH | SWITCH_STACK_UNSHIFT)) {
		push_item(event, header_name, data, stack & SWITCH_STACK_UNSHIFT);
		return SWITCH_STATUS_SUCCESS;
	}
	if (!*data || (event->flags & EF_UNIQ_HEADERS)) delete_headers(event, header_name);
	if (!*data) return SWITCH_STATUS_SUCCESS;
	if (!strncmp(data, "ARRAY::", 7)) {
		split_array(event, header_name, data);
		return SWITCH_STATUS_SUCCESS;
	}
	switch_event_header_t *header = new_header(header_name);
	header->value = host_dup(data);
	link_header(event, header, stack & SWITCH_STACK_TOP);
	return SWITCH_STATUS_SUCCESS;
}

/* The header exactly as given, NULL included: for recorded and for hostile events. */
void event_append_bare(switch_event_t *event, const char *name, const char *value)
{
	switch_event_header_t *header = new_header(name);
	if (value) header->value = host_dup(value);
	link_header(event, header, false);
}

void event_set_body(switch_event_t *event, const char *body)
{
	free(event->body);
	event->body = body ? host_dup(body) : NULL;
}

SWITCH_DECLARE(char *) switch_event_get_header_idx(switch_event_t *event, const char *header_name, int idx)
{
	switch_event_header_t *header = header_name ? find_header(event, header_name) : NULL;
	if (header) {
		if (idx < 0) return header->value;
		return idx < header->idx ? header->array[idx] : NULL;
	}
	return header_name && !strcmp(header_name, "_body") ? event->body : NULL;
}

/* ---- birth and death ---- */

static void add_core_headers(switch_event_t *event, const char *file, const char *function, int line)
{
	struct timespec now;
	struct tm tm;
	char text[80];
	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&sequence_lock);
	uint64_t number = ++sequence;
	pthread_mutex_unlock(&sequence_lock);
	const char *base = file ? strrchr(file, '/') : NULL;
#define ADD(name, value) switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, name, value)
	ADD("Event-Name", switch_event_name(event->event_id));
	ADD("Core-UUID", host_options.uuid);
	ADD("FreeSWITCH-Hostname", host_options.hostname);
	ADD("FreeSWITCH-Switchname", host_options.switchname);
	ADD("FreeSWITCH-IPv4", "127.0.0.1");
	ADD("FreeSWITCH-IPv6", "::1");
	localtime_r(&now.tv_sec, &tm);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	ADD("Event-Date-Local", text);
	gmtime_r(&now.tv_sec, &tm);
	strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	ADD("Event-Date-GMT", text);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)now.tv_sec * 1000000u + (unsigned long long)now.tv_nsec / 1000);
	ADD("Event-Date-Timestamp", text);
	ADD("Event-Calling-File", base ? base + 1 : (file ? file : "host"));
	ADD("Event-Calling-Function", function ? function : "host");
	snprintf(text, sizeof(text), "%d", line);
	ADD("Event-Calling-Line-Number", text);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	ADD("Event-Sequence", text);
#undef ADD
}

SWITCH_DECLARE(switch_status_t) switch_event_create_subclass_detailed(const char *file, const char *func, int line,
	switch_event_t **event, switch_event_types_t event_id, const char *subclass_name)
{
	*event = NULL;
	if (subclass_name && event_id != SWITCH_EVENT_CLONE && event_id != SWITCH_EVENT_CUSTOM) return SWITCH_STATUS_GENERR;
	switch_event_t *e = host_alloc(sizeof(*e));
	if (event_id == SWITCH_EVENT_REQUEST_PARAMS || event_id == SWITCH_EVENT_CHANNEL_DATA || event_id == SWITCH_EVENT_MESSAGE)
		e->flags |= EF_UNIQ_HEADERS;
	if (event_id != SWITCH_EVENT_CLONE) {
		e->event_id = event_id;
		add_core_headers(e, file, func, line);
	}
	if (subclass_name) {
		e->subclass_name = host_dup(subclass_name);
		switch_event_add_header_string(e, SWITCH_STACK_BOTTOM, "Event-Subclass", subclass_name);
	}
	*event = e;
	return SWITCH_STATUS_SUCCESS;
}

switch_event_t *event_new(const char *function, switch_event_types_t id, const char *subclass)
{
	switch_event_t *event = NULL;
	if (switch_event_create_subclass_detailed("host.c", function, 1, &event, id, subclass) != SWITCH_STATUS_SUCCESS)
		host_die("an event %s cannot have the subclass %s", switch_event_name(id), subclass);
	return event;
}

switch_event_t *event_new_bare(switch_event_types_t id, const char *subclass)
{
	switch_event_t *event = host_alloc(sizeof(*event));
	event->event_id = id;
	event->subclass_name = subclass ? host_dup(subclass) : NULL;
	return event;
}

SWITCH_DECLARE(void) switch_event_destroy(switch_event_t **event)
{
	switch_event_t *e = *event;
	*event = NULL;
	if (!e) return;
	while (e->headers) {
		switch_event_header_t *header = e->headers;
		e->headers = header->next;
		free_header(header);
	}
	free(e->body);
	free(e->subclass_name);
	free(e);
}

/* Changes when anything a handler could reach changes: handlers must leave an event as they found it. */
static uint64_t event_digest(const switch_event_t *event)
{
	uint64_t digest = 14695981039346656037u;
#define MIX(text) do { for (const char *p = (text); p && *p; p++) digest = (digest ^ (unsigned char)*p) * 1099511628211u; \
	digest = (digest ^ 0xff) * 1099511628211u; } while (0)
	for (const switch_event_header_t *h = event->headers; h; h = h->next) {
		MIX(h->name);
		MIX(h->value);
		digest = (digest ^ (uintptr_t)h->next ^ h->hash ^ (uintptr_t)h->array) * 1099511628211u;
		if (h->array) for (int i = 0; i < h->idx; i++) MIX(h->array[i]);
	}
	MIX(event->body);
	MIX(event->subclass_name);
#undef MIX
	return digest ^ (uint64_t)event->event_id ^ ((uint64_t)event->flags << 32);
}

/* ---- bindings ---- */

SWITCH_DECLARE(switch_status_t) switch_event_bind_removable(const char *id, switch_event_types_t event,
	const char *subclass_name, switch_event_callback_t callback, void *user_data, switch_event_node_t **node)
{
	if (node) *node = NULL;
	if (host_in_handler) host_die("switch_event_bind from inside a handler: a real core deadlocks here");
	if ((unsigned)event > (unsigned)event_all) return SWITCH_STATUS_MEMERR;
	struct switch_event_node *n = host_alloc(sizeof(*n));
	n->id = host_dup(id);
	n->subclass = subclass_name ? host_dup(subclass_name) : NULL;
	n->event_id = event;
	n->callback = callback;
	n->user_data = user_data;
	pthread_rwlock_wrlock(&nodes_lock);
	n->next = nodes[event];
	nodes[event] = n;
	pthread_rwlock_unlock(&nodes_lock);
	if (node) *node = n;
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_DECLARE(switch_status_t) switch_event_unbind(switch_event_node_t **node)
{
	struct switch_event_node *n = *node;
	switch_status_t status = SWITCH_STATUS_FALSE;
	if (!n) return status;
	if (host_in_handler) host_die("switch_event_unbind from inside a handler: a real core deadlocks here");
	pthread_rwlock_wrlock(&nodes_lock);
	struct switch_event_node **at = &nodes[n->event_id];
	while (*at && *at != n) at = &(*at)->next;
	if (*at) {
		*at = n->next;
		*node = NULL;
		status = SWITCH_STATUS_SUCCESS;
	}
	pthread_rwlock_unlock(&nodes_lock);
	if (status == SWITCH_STATUS_SUCCESS) {
		host_say(SWITCH_LOG_DEBUG, "Event Binding deleted for %s:%s", n->id, switch_event_name(n->event_id));
		free(n->id);
		free(n->subclass);
		free(n);
	}
	return status;
}

static bool matches(const switch_event_t *event, const struct switch_event_node *node)
{
	if (!node->subclass) return true;
	return event->subclass_name && !strcmp(event->subclass_name, node->subclass);
}

uint64_t event_deliver(switch_event_t **event)
{
	switch_event_t *e = *event;
	uint64_t before = event_checking ? event_digest(e) : 0, started = host_now_ns();
	pthread_rwlock_rdlock(&nodes_lock);
	for (switch_event_types_t id = e->event_id;; id = event_all) {
		for (struct switch_event_node *node = nodes[id]; node; node = node->next) {
			if (!matches(e, node)) continue;
			e->bind_user_data = node->user_data;
			host_in_handler = true;
			node->callback(e);
			host_in_handler = false;
		}
		if (id == event_all) break;
	}
	pthread_rwlock_unlock(&nodes_lock);
	uint64_t took = host_now_ns() - started;
	if (before && event_digest(e) != before) __atomic_add_fetch(&event_mutated, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&delivered, 1, __ATOMIC_RELAXED);
	switch_event_destroy(event);
	return took;
}

/* ---- the queue before the dispatch threads ---- */

void event_fire(switch_event_t **event)
{
	pthread_mutex_lock(&queue_lock);
	while (queue_open && queue_size == QUEUE_LENGTH) pthread_cond_wait(&queue_drained, &queue_lock);
	if (!queue_open) {              /* "sorry, we're closed" */
		pthread_mutex_unlock(&queue_lock);
		switch_event_destroy(event);
		return;
	}
	queue[(queue_head + queue_size++) % QUEUE_LENGTH] = *event;
	fired++;
	*event = NULL;
	pthread_cond_signal(&queue_filled);
	pthread_mutex_unlock(&queue_lock);
}

SWITCH_DECLARE(switch_status_t) switch_event_fire_detailed(const char *file, const char *func, int line, switch_event_t **event, void *user_data)
{
	event_fire(event);              /* user_data would go to handlers that ask for it; ours does not */
	return SWITCH_STATUS_SUCCESS;
}

static void *dispatch(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&queue_lock);
	for (;;) {
		while (queue_open && !queue_size) pthread_cond_wait(&queue_filled, &queue_lock);
		if (!queue_open) break;
		switch_event_t *event = queue[queue_head];
		queue_head = (queue_head + 1) % QUEUE_LENGTH;
		queue_size--;
		queue_busy++;
		pthread_mutex_unlock(&queue_lock);
		event_deliver(&event);
		pthread_mutex_lock(&queue_lock);
		queue_busy--;
		pthread_cond_broadcast(&queue_drained);
	}
	pthread_mutex_unlock(&queue_lock);
	return NULL;
}

void event_flush(void)
{
	pthread_mutex_lock(&queue_lock);
	while (queue_size || queue_busy) pthread_cond_wait(&queue_drained, &queue_lock);
	pthread_mutex_unlock(&queue_lock);
}

struct event_counts event_counts(void)
{
	struct event_counts counts = { .delivered = __atomic_load_n(&delivered, __ATOMIC_RELAXED) };
	pthread_mutex_lock(&queue_lock);
	counts.fired = fired;
	counts.queued = queue_size + queue_busy;
	pthread_mutex_unlock(&queue_lock);
	pthread_rwlock_rdlock(&nodes_lock);
	for (int id = 0; id <= (int)event_all; id++)
		for (struct switch_event_node *n = nodes[id]; n; n = n->next) counts.bindings++;
	pthread_rwlock_unlock(&nodes_lock);
	return counts;
}

void event_init(void)
{
	event_all = (switch_event_types_t)(host_options.is_1_10 ? NAME_COUNT - 2 : NAME_COUNT - 1);
	queue = host_alloc(sizeof(*queue) * QUEUE_LENGTH);
	queue_open = true;
	for (int i = 0; i < host_options.dispatch_threads; i++) dispatchers[i] = host_thread("host-dispatch", dispatch, NULL);
}

/* What is still queued is destroyed undelivered, as in the core. */
void event_shutdown(void)
{
	pthread_mutex_lock(&queue_lock);
	queue_open = false;
	pthread_cond_broadcast(&queue_filled);
	pthread_cond_broadcast(&queue_drained);
	pthread_mutex_unlock(&queue_lock);
	for (int i = 0; i < host_options.dispatch_threads; i++) pthread_join(dispatchers[i], NULL);
	while (queue_size) {
		switch_event_destroy(&queue[queue_head]);
		queue_head = (queue_head + 1) % QUEUE_LENGTH;
		queue_size--;
	}
}
