/* SPDX-License-Identifier: MIT
 *
 * Names, folders, global variables, locks and log lines.
 */
#define _GNU_SOURCE
#include "host.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

struct options host_options;
switch_directories SWITCH_GLOBAL_dirs;

static int log_fd = 2;
static const char *const LEVELS[] = { "CONSOLE", "ALERT", "CRIT", "ERR", "WARNING", "NOTICE", "INFO", "DEBUG" };

struct variable { char *name, *value; struct variable *next; };
static struct variable *variables;
static pthread_mutex_t variables_lock = PTHREAD_MUTEX_INITIALIZER;

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
	fprintf(stderr, "host: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	abort();
}

void *host_alloc(size_t size)
{
	void *memory = calloc(1, size ? size : 1);
	if (!memory) host_die("out of memory");
	return memory;
}

char *host_dup(const char *text)
{
	char *copy = strdup(text);
	if (!copy) host_die("out of memory");
	return copy;
}

char *host_print(const char *format, ...)
{
	char *text = NULL;
	va_list arguments;
	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0) host_die("out of memory");
	va_end(arguments);
	return text;
}

/* ---- log lines: one write each, so that lines of several threads never mix ---- */

static void log_line(int level, const char *file, int line, const char *format, va_list arguments)
{
	if (level > host_options.log_level) return;
	char *text = NULL, *whole = NULL;
	if (vasprintf(&text, format, arguments) < 0) return;
	size_t length = strlen(text);
	while (length && text[length - 1] == '\n') text[--length] = '\0';
	struct timespec now;
	struct tm tm;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	int size = asprintf(&whole, "%04d-%02d-%02d %02d:%02d:%02d.%06ld [%s] %s:%d %s\n", tm.tm_year + 1900, tm.tm_mon + 1,
		tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000, LEVELS[level], file, line, text);
	if (size > 0 && write(log_fd, whole, (size_t)size) < 0) { /* a lost log line stops nothing */ }
	free(whole);
	free(text);
}

void host_say(int level, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	log_line(level, "host", 0, format, arguments);
	va_end(arguments);
}

SWITCH_DECLARE(void) switch_log_printf(switch_text_channel_t channel, const char *file, const char *func, int line,
	const char *userdata, switch_log_level_t level, const char *fmt, ...)
{
	(void)channel; (void)func; (void)userdata;
	if ((int)level < 0 || (int)level > SWITCH_LOG_DEBUG) host_die("switch_log_printf: level %d", (int)level);
	const char *base = file ? strrchr(file, '/') : NULL;
	va_list arguments;
	va_start(arguments, fmt);
	log_line((int)level, base ? base + 1 : (file ? file : ""), line, fmt, arguments);
	va_end(arguments);
}

/* ---- global variables: $${name} in the configuration ---- */

static struct variable *find_variable(const char *name)
{
	struct variable *v = variables;
	while (v && strcasecmp(v->name, name)) v = v->next;
	return v;
}

void core_set_variable(const char *name, const char *value)
{
	pthread_mutex_lock(&variables_lock);
	struct variable *v = find_variable(name);
	if (!v) {
		v = host_alloc(sizeof(*v));
		v->name = host_dup(name);
		v->next = variables;
		variables = v;
	}
	free(v->value);
	v->value = host_dup(value);
	pthread_mutex_unlock(&variables_lock);
}

SWITCH_DECLARE(char *) switch_core_get_variable_dup(const char *varname)
{
	if (!varname) return NULL;
	pthread_mutex_lock(&variables_lock);
	struct variable *v = find_variable(varname);
	char *value = v ? host_dup(v->value) : NULL;
	pthread_mutex_unlock(&variables_lock);
	return value;
}

SWITCH_DECLARE(const char *) switch_core_get_hostname(void) { return host_options.hostname; }
SWITCH_DECLARE(const char *) switch_core_get_switchname(void) { return host_options.switchname; }
SWITCH_DECLARE(char *) switch_core_get_uuid(void) { return (char *)host_options.uuid; }
SWITCH_DECLARE(const char *) switch_version_full(void) { return host_options.version; }

/* ---- locks: the types are opaque to a module, so their insides are ours ---- */

SWITCH_DECLARE(switch_status_t) switch_mutex_lock(switch_mutex_t *lock)
{
	pthread_mutex_lock((pthread_mutex_t *)lock);
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_DECLARE(switch_status_t) switch_mutex_unlock(switch_mutex_t *lock)
{
	pthread_mutex_unlock((pthread_mutex_t *)lock);
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_DECLARE(switch_status_t) switch_thread_rwlock_unlock(switch_thread_rwlock_t *rwlock)
{
	pthread_rwlock_unlock((pthread_rwlock_t *)rwlock);
	return SWITCH_STATUS_SUCCESS;
}

/* SWITCH_MUTEX_NESTED: a thread may take it again. */
switch_mutex_t *host_mutex_new(void)
{
	pthread_mutex_t *mutex = host_alloc(sizeof(*mutex));
	pthread_mutexattr_t nested;
	pthread_mutexattr_init(&nested);
	pthread_mutexattr_settype(&nested, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(mutex, &nested);
	pthread_mutexattr_destroy(&nested);
	return (switch_mutex_t *)mutex;
}

void host_mutex_free(switch_mutex_t *mutex)
{
	pthread_mutex_destroy((pthread_mutex_t *)mutex);
	free(mutex);
}

switch_thread_rwlock_t *host_rwlock_new(void)
{
	pthread_rwlock_t *lock = host_alloc(sizeof(*lock));
	pthread_rwlock_init(lock, NULL);
	return (switch_thread_rwlock_t *)lock;
}

void host_rwlock_free(switch_thread_rwlock_t *lock)
{
	pthread_rwlock_destroy((pthread_rwlock_t *)lock);
	free(lock);
}

void host_rwlock_read(switch_thread_rwlock_t *lock) { pthread_rwlock_rdlock((pthread_rwlock_t *)lock); }

bool host_rwlock_try_write(switch_thread_rwlock_t *lock, int seconds)
{
	if (seconds <= 0) return !pthread_rwlock_trywrlock((pthread_rwlock_t *)lock);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	return !pthread_rwlock_timedwrlock((pthread_rwlock_t *)lock, &until);
}

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

void core_init(const struct options *options)
{
	host_options = *options;
	if (options->log_file) {
		log_fd = open(options->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (log_fd < 0) host_die("cannot write the log file %s", options->log_file);
	}
	char *conf = (char *)options->conf, *log = (char *)options->log, *run = (char *)options->run;
	char *db = (char *)options->db, *mod = (char *)options->mod;
	SWITCH_GLOBAL_dirs = (switch_directories){
		.base_dir = conf, .mod_dir = mod, .conf_dir = conf, .log_dir = log, .run_dir = run, .db_dir = db,
		.script_dir = conf, .temp_dir = run, .htdocs_dir = conf, .grammar_dir = conf, .storage_dir = db,
		.cache_dir = db, .recordings_dir = db, .sounds_dir = conf, .lib_dir = mod, .certs_dir = conf,
		.fonts_dir = conf, .images_dir = conf, .data_dir = db, .localstate_dir = db };
	const char *const known[][2] = {
		{ "base_dir", conf }, { "conf_dir", conf }, { "log_dir", log }, { "run_dir", run }, { "db_dir", db },
		{ "mod_dir", mod }, { "temp_dir", run }, { "storage_dir", db }, { "cache_dir", db }, { "certs_dir", conf },
		{ "data_dir", db }, { "localstate_dir", db }, { "hostname", options->hostname },
		{ "switchname", options->switchname }, { "core_uuid", options->uuid }, { "local_ip_v4", "127.0.0.1" },
		{ "domain", "127.0.0.1" } };
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) core_set_variable(known[i][0], known[i][1]);
}
