/* SPDX-License-Identifier: MIT
 *
 * A small switch core that the module is tested in where no FreeSWITCH is installed.
 *
 * It offers the C functions that the module imports, and nothing else: it stands in for libfreeswitch's event engine,
 * module loader, configuration tree, console completion and logging. Each part imitates what a real core (1.10.12 and
 * 1.11.2) was seen to do, quirks included, and its file says which. There are no calls, no media and no SQL in here.
 *
 *   core.c      names, folders, global variables, locks, log lines
 *   event.c     events, bindings, the dispatch queue and its threads
 *   xml.c       the configuration: preprocessor, parser, tree
 *   module.c    load and unload, interfaces, API and application calls, tab completion
 *   generate.c  events by the thousand, recorded events, hostile events
 *   measure.c   what a handler costs: time, allocations, system calls
 *   main.c      options, and the line protocol on standard input and output
 */
#ifndef RUSTBRIDGE_HOST_H
#define RUSTBRIDGE_HOST_H

#include <switch.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What a command answers: free text, and one line that tells how it went. */
struct reply {
	FILE *text;
	char status[1024];
};

struct options {
	const char *conf, *log, *run, *db, *mod;
	bool is_1_10;               /* the event numbers and manners of 1.10.12 instead of 1.11.2 */
	const char *version, *uuid, *hostname, *switchname;
	int dispatch_threads;
	int log_level;
	int busy_seconds;           /* how long unload waits for running calls; the core: 10 */
	const char *log_file;
};

/* core.c */
extern struct options host_options;
void core_init(const struct options *options);
void host_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void *host_alloc(size_t size);
char *host_dup(const char *text);
char *host_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void host_say(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void core_set_variable(const char *name, const char *value);
uint64_t host_now_ns(void);
switch_mutex_t *host_mutex_new(void);
void host_mutex_free(switch_mutex_t *mutex);
switch_thread_rwlock_t *host_rwlock_new(void);
void host_rwlock_free(switch_thread_rwlock_t *lock);
void host_rwlock_read(switch_thread_rwlock_t *lock);
bool host_rwlock_try_write(switch_thread_rwlock_t *lock, int seconds);
/* FreeSWITCH's threads have 240 KB of stack: what runs on them must get along with it here too. */
pthread_t host_thread(const char *name, void *(*run)(void *), void *argument);
#define HOST_STACK_BYTES (240 * 1024)

/* event.c */
void event_init(void);
void event_shutdown(void);
switch_event_t *event_new(const char *function, switch_event_types_t id, const char *subclass);
switch_event_t *event_new_bare(switch_event_types_t id, const char *subclass);
void event_append_bare(switch_event_t *event, const char *name, const char *value);
void event_push(switch_event_t *event, const char *name, const char *value);
void event_set_body(switch_event_t *event, const char *body);
/* Whether a handler changed an event; looked for while event_checking is set. */
extern bool event_checking;
extern uint64_t event_mutated;
/* Runs every handler of the event on this thread, under the read-lock; returns the nanoseconds that took. */
uint64_t event_deliver(switch_event_t **event);
/* Queues the event for the dispatch threads; waits while the queue is full, as the core does. */
void event_fire(switch_event_t **event);
/* Until everything queued has been delivered. */
void event_flush(void);
struct event_counts { uint64_t delivered, fired, queued, bindings; };
struct event_counts event_counts(void);
extern switch_event_types_t event_all;
extern __thread bool host_in_handler;

/* xml.c */
bool xml_reload(const char **error);
switch_xml_t xml_child(switch_xml_t node, const char *name);
const char *xml_attribute(switch_xml_t node, const char *name);

/* module.c */
void module_init(void);
void module_shutdown_all(void);
void module_load(const char *name, struct reply *reply);
void module_unload(const char *name, bool force, struct reply *reply);
void module_api(const char *name, const char *arguments, struct reply *reply);
void module_app(const char *name, const char *arguments, struct reply *reply);
void module_complete(const char *line, struct reply *reply);
void module_interfaces(struct reply *reply);
void channel_reset(void);
void channel_set(const char *name, const char *value);

/* generate.c */
void generate_deliver(char *arguments, struct reply *reply);
void generate_play(char *arguments, struct reply *reply);
void generate_fire(char *arguments, struct reply *reply);
void generate_raw(char *arguments, struct reply *reply);
void generate_stop(bool stop);              /* ends what runs; `false` lets new ones start */
switch_event_t *generate_event(int kind, int headers, uint64_t sequence, const char *key, uint64_t key_sequence);
void generate_floor(bool on);
char *host_unescape(char *text);
long host_number(const char *arguments, const char *name, long otherwise);

/* measure.c */
struct alloc_counts { uint64_t allocations, frees, bytes; };
struct alloc_counts measure_allocations(void);

/* Whether an allocation by this caller fails, as the test wants it. */
bool scarce_fails(const void *caller, size_t size);
void scarce_given_back(void *memory);
void measure_syscalls(char *arguments, struct reply *reply);
void measure_summary(uint32_t *nanoseconds, size_t count, char *line, size_t size);

#endif
