/* SPDX-License-Identifier: MIT
 *
 * Stands in for the core's module loader and for what calls into a module.
 *
 * As in the core: <mod folder>/<name>.so is opened RTLD_NOW|RTLD_LOCAL, its symbol <name>_module_interface must say API
 * version 5, and a load that fails is closed at once without a shutdown; interfaces are registered after load() returned,
 * those that switch.conf's <interface-allowlist> does not name are skipped with a warning (1.11 only), each of the others
 * fires MODULE_LOAD; unload is refused while a call into the module runs, unless forced; then each interface is withdrawn,
 * waiting at most ten seconds for its calls; then shutdown(), then dlclose unless it said NOUNLOAD. An API call strips the
 * white space around its argument and fires the event API when it is over; an unknown one answers INVALID COMMAND!.
 * Completion keeps the words that were registered and asks functions for those that begin with "::".
 */
#define _GNU_SOURCE
#include "host.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct chunk { struct chunk *next; };
struct pool { struct chunk *chunks; };
struct lock { switch_mutex_t *mutex; switch_thread_rwlock_t *rwlock; struct lock *next; };

struct module {
	char *key, *path;
	void *library;
	switch_loadable_module_function_table_t *table;
	switch_loadable_module_interface_t *interface;
	struct pool pool;
	struct lock *locks;
	bool permanent;
	struct module *next;
};

struct completion { char *words[10]; struct completion *next; };
struct completer { char *name; switch_console_complete_callback_t function; struct completer *next; };

static struct module *modules, *loading;
static struct completion *completions;
static struct completer *completers;
static switch_mutex_t *modules_lock, *completion_lock;
/* One channel at a time: its variables as an event's headers, which is how the core keeps them. */
static switch_event_t *channel_variables;

/* A session and its channel are opaque to a module. */
static char the_session, the_channel;

static void *pool_alloc(struct pool *pool, size_t size)
{
	struct chunk *chunk = host_alloc(sizeof(*chunk) + 16 + size);
	chunk->next = pool->chunks;
	pool->chunks = chunk;
	return (char *)chunk + 16;
}

/* ---- what a module calls while it loads ---- */

static void new_locks(switch_thread_rwlock_t **rwlock, switch_mutex_t **mutex)
{
	struct lock *lock = host_alloc(sizeof(*lock));
	*rwlock = lock->rwlock = host_rwlock_new();
	lock->mutex = host_mutex_new();
	if (mutex) *mutex = lock->mutex;
	lock->next = loading->locks;
	loading->locks = lock;
}

SWITCH_DECLARE(switch_loadable_module_interface_t *) switch_loadable_module_create_module_interface(
	switch_memory_pool_t *pool, const char *name)
{
	if (!loading || (void *)pool != (void *)&loading->pool) host_die("create_module_interface outside of load()");
	switch_loadable_module_interface_t *m = pool_alloc(&loading->pool, sizeof(*m));
	char *copy = pool_alloc(&loading->pool, strlen(name) + 1);
	m->module_name = strcpy(copy, name);
	m->pool = pool;
	new_locks(&m->rwlock, NULL);
	return m;
}

#define APPEND(kind) do { switch_##kind##_interface_t *i = pool_alloc(&loading->pool, sizeof(*i)), **at = &mod->kind##_interface; \
	while (*at) at = &(*at)->next; \
	*at = i; \
	new_locks(&i->rwlock, &i->reflock); \
	i->parent = mod; \
	return i; } while (0)

SWITCH_DECLARE(void *) switch_loadable_module_create_interface(switch_loadable_module_interface_t *mod,
	switch_module_interface_name_t iname)
{
	if (!loading) host_die("create_interface outside of load()");
	if (iname == SWITCH_API_INTERFACE) APPEND(api);
	if (iname == SWITCH_APPLICATION_INTERFACE) APPEND(application);
	host_say(SWITCH_LOG_WARNING, "Invalid Module Type!");
	return NULL;
}

static struct module *find_module(const char *key)
{
	struct module *m = modules;
	while (m && strcmp(m->key, key)) m = m->next;
	return m;
}

/* ---- the allowlist of 1.11 ---- */

static bool allowed(const char *key, const char *name, const char *type)
{
	switch_xml_t node, root = host_options.is_1_10 ? NULL : switch_xml_open_cfg("switch.conf", &node, NULL);
	if (!root) return true;
	bool enforced = false, found = false;
	char *full = host_print("%s.%s", key, name), *exact = host_print("%s.%s", full, type);
	for (switch_xml_t a = xml_child(xml_child(node, "interface-allowlist"), "allow"); a; a = a->next) {
		const char *entry = xml_attribute(a, "name");
		if (!entry || !*entry) continue;
		enforced = true;
		found = found || !strcasecmp(entry, key) || !strcasecmp(entry, full) || !strcasecmp(entry, exact);
	}
	free(full);
	free(exact);
	switch_xml_free(root);
	return !enforced || found;
}

/* A registered interface says so in `refs` of nobody: the lists below are what a call is looked up in. */
static switch_api_interface_t *apis[64];
static switch_application_interface_t *applications[64];

static void announce(switch_event_types_t id, const char *type, const char *name, const struct module *m)
{
	switch_event_t *event = event_new("switch_loadable_module_process", id, NULL);
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "type", type);
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "name", name);
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "key", m->key);
	switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "filename", m->path);
	event_fire(&event);
}

static void process(struct module *m)
{
	switch_mutex_lock(modules_lock);
	m->next = modules;
	modules = m;
#define REGISTER(kind, list, type, title) \
	for (switch_##kind##_interface_t *i = m->interface->kind##_interface; i; i = i->next) { \
		if (!i->interface_name) { host_say(SWITCH_LOG_CRIT, "Failed to load " type " interface from %s due to no interface name.", m->key); continue; } \
		if (!allowed(m->key, i->interface_name, type)) { \
			host_say(SWITCH_LOG_WARNING, "Skipping " title " '%s' from %s: not permitted by interface allowlist", i->interface_name, m->key); continue; } \
		host_say(SWITCH_LOG_NOTICE, "Adding " title " '%s'", i->interface_name); \
		size_t slot = 0; \
		while (slot < 63 && list[slot]) slot++; \
		list[slot] = i; \
		announce(SWITCH_EVENT_MODULE_LOAD, #kind, i->interface_name, m); \
	}
	REGISTER(application, applications, "app", "Application")
	REGISTER(api, apis, "api", "API")
#undef REGISTER
	switch_mutex_unlock(modules_lock);
}

static void unprocess(struct module *m)
{
	switch_mutex_lock(modules_lock);
#define WITHDRAW(kind, list, title) \
	for (switch_##kind##_interface_t *i = m->interface->kind##_interface; i; i = i->next) { \
		if (!i->interface_name) continue; \
		host_say(SWITCH_LOG_NOTICE, "Deleting " title " '%s'", i->interface_name); \
		if (host_rwlock_try_write(i->rwlock, host_options.busy_seconds)) switch_thread_rwlock_unlock(i->rwlock); \
		else host_say(SWITCH_LOG_ERROR, "Giving up on '%s' waiting for existing references.", i->interface_name); \
		announce(SWITCH_EVENT_MODULE_UNLOAD, #kind, i->interface_name, m); \
		for (size_t slot = 0; slot < 64; slot++) if (list[slot] == i) list[slot] = NULL; \
	}
	WITHDRAW(application, applications, "Application")
	WITHDRAW(api, apis, "API Function")
#undef WITHDRAW
	switch_mutex_unlock(modules_lock);
}

static void free_module(struct module *m)
{
	while (m->locks) {
		struct lock *lock = m->locks;
		m->locks = lock->next;
		host_rwlock_free(lock->rwlock);
		host_mutex_free(lock->mutex);
		free(lock);
	}
	while (m->pool.chunks) {
		struct chunk *chunk = m->pool.chunks;
		m->pool.chunks = chunk->next;
		free(chunk);
	}
	free(m->key);
	free(m->path);
	free(m);
}

/* ---- load and unload ---- */

void module_load(const char *name, struct reply *reply)
{
	const char *xml_error;
	if (!xml_reload(&xml_error)) host_say(SWITCH_LOG_ERROR, "Error Reloading XML: %s", xml_error);
	if (find_module(name)) {
		host_say(SWITCH_LOG_WARNING, "Module %s Already Loaded!", name);
		snprintf(reply->status, sizeof(reply->status), "-ERR [Module already loaded]");
		return;
	}
	struct module *m = host_alloc(sizeof(*m));
	m->key = host_dup(name);
	m->path = host_print("%s/%s.so", host_options.mod, name);
	char *symbol = host_print("%s_module_interface", name), *error = NULL;
	m->library = dlopen(m->path, RTLD_NOW | RTLD_LOCAL);
	if (!m->library) error = host_dup(dlerror());
	if (!error && !(m->table = dlsym(m->library, symbol))) error = host_dup(dlerror());
	if (!error && m->table->switch_api_version != SWITCH_API_VERSION)
		error = host_dup("Trying to load an out of date module, please rebuild the module.");
	if (!error && !m->table->load) error = host_dup("Cannot locate symbol 'switch_module_load' please make sure this is a valid module.");
	free(symbol);
	if (!error) {
		loading = m;
		switch_status_t status = m->table->load(&m->interface, (switch_memory_pool_t *)&m->pool);
		loading = NULL;
		if (status != SWITCH_STATUS_SUCCESS && status != SWITCH_STATUS_NOUNLOAD) error = host_dup("Module load routine returned an error");
		else if (!m->interface) error = host_dup("Module failed to initialize its module_interface. Is this a valid module?");
		m->permanent = status == SWITCH_STATUS_NOUNLOAD;
	}
	if (error) {
		if (m->library) dlclose(m->library);
		host_say(SWITCH_LOG_CRIT, "Error Loading module %s\n**%s**", m->path, error);
		snprintf(reply->status, sizeof(reply->status), "-ERR [module load file routine returned an error] %s", error);
		free(error);
		free_module(m);
		return;
	}
	host_say(SWITCH_LOG_CONSOLE, "Successfully Loaded [%s]", m->interface->module_name);
	process(m);
}

static void shut_down(struct module *m, bool close)
{
	unprocess(m);
	switch_status_t status = SWITCH_STATUS_SUCCESS;
	if (m->table->shutdown) status = m->table->shutdown();
	if (close && status != SWITCH_STATUS_NOUNLOAD) {
		host_say(SWITCH_LOG_CONSOLE, "%s unloaded.", m->interface->module_name);
		dlclose(m->library);
		free_module(m);
	}
}

void module_unload(const char *name, bool force, struct reply *reply)
{
	switch_mutex_lock(modules_lock);
	struct module *m = find_module(name), **at = &modules;
	const char *error = !m ? "No such module!" : m->permanent ? "Module is not unloadable" : NULL;
	if (!error && !force && !host_rwlock_try_write(m->interface->rwlock, 0)) {
		host_say(SWITCH_LOG_WARNING, "Module %s is in use, cannot unload.", name);
		error = "Module in use.";
	}
	if (error) {
		switch_mutex_unlock(modules_lock);
		snprintf(reply->status, sizeof(reply->status), "-ERR [%s]", error);
		return;
	}
	while (*at != m) at = &(*at)->next;
	*at = m->next;
	switch_mutex_unlock(modules_lock);
	/* The core holds the module's write-lock through shutdown(): calls that come now fail to find it anyway. */
	if (!force) switch_thread_rwlock_unlock(m->interface->rwlock);
	shut_down(m, true);
}

/* The end of the process: every module is shut down, then every library is closed; the event engine ends last. */
void module_shutdown_all(void)
{
	for (struct module *m = modules; m; m = m->next) if (!m->permanent) shut_down(m, false);
	while (modules) {
		struct module *m = modules;
		modules = m->next;
		if (m->permanent) continue;
		dlclose(m->library);
		free_module(m);
	}
}

/* ---- calls ---- */

#define PROTECT(i) do { host_rwlock_read((i)->parent->rwlock); host_rwlock_read((i)->rwlock); \
	switch_mutex_lock((i)->reflock); (i)->refs++; (i)->parent->refs++; switch_mutex_unlock((i)->reflock); } while (0)

#define LOOKUP(kind, list) \
	SWITCH_DECLARE(switch_##kind##_interface_t *) switch_loadable_module_get_##kind##_interface(const char *name) \
	{ \
		switch_##kind##_interface_t *found = NULL; \
		switch_mutex_lock(modules_lock); \
		for (size_t i = 0; i < 64 && !found; i++) if (list[i] && !strcasecmp(list[i]->interface_name, name)) found = list[i]; \
		if (found) PROTECT(found); \
		switch_mutex_unlock(modules_lock); \
		return found; \
	}
LOOKUP(api, apis)
LOOKUP(application, applications)

static switch_status_t stream_write_raw(switch_stream_handle_t *handle, uint8_t *data, switch_size_t size)
{
	if (handle->data_len + size >= handle->data_size) {
		size_t want = handle->data_len + size + handle->alloc_chunk;
		void *more = realloc(handle->data, want);
		if (!more) return SWITCH_STATUS_MEMERR;
		handle->data = more;
		handle->data_size = want;
	}
	memcpy((char *)handle->data + handle->data_len, data, size);
	handle->data_len += size;
	handle->end = (char *)handle->data + handle->data_len;
	*(char *)handle->end = '\0';
	return SWITCH_STATUS_SUCCESS;
}

static switch_status_t stream_write(switch_stream_handle_t *handle, const char *format, ...)
{
	char *text = NULL;
	va_list arguments;
	va_start(arguments, format);
	int size = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (size < 0) return SWITCH_STATUS_FALSE;
	switch_status_t status = stream_write_raw(handle, (uint8_t *)text, (switch_size_t)size);
	free(text);
	return status;
}

static char *stripped(const char *text)
{
	while (text && *text && strchr(" \t\r\n\v", *text)) text++;
	char *copy = host_dup(text ? text : "");
	for (size_t n = strlen(copy); n && strchr(" \t\r\n\v", copy[n - 1]); ) copy[--n] = '\0';
	return copy;
}

void module_api(const char *name, const char *arguments, struct reply *reply)
{
	switch_stream_handle_t stream = { .write_function = stream_write, .raw_write_function = stream_write_raw,
		.data_size = 1024, .alloc_len = 1024, .alloc_chunk = 1024 };
	stream.data = stream.end = host_alloc(1024);
	stream.param_event = event_new("switch_api_execute", SWITCH_EVENT_API, NULL);
	char *argument = stripped(arguments);
	switch_event_add_header_string(stream.param_event, SWITCH_STACK_BOTTOM, "API-Command", name);
	if (*argument) switch_event_add_header_string(stream.param_event, SWITCH_STACK_BOTTOM, "API-Command-Argument", argument);
	switch_status_t status = SWITCH_STATUS_FALSE;
	switch_api_interface_t *api = switch_loadable_module_get_api_interface(name);
	if (api) {
		if ((status = api->function(argument, NULL, &stream)) != SWITCH_STATUS_SUCCESS) stream_write(&stream, "COMMAND RETURNED ERROR!\n");
		UNPROTECT_INTERFACE(api);
	} else {
		stream_write(&stream, "INVALID COMMAND!\n");
	}
	if (stream.param_event) event_fire(&stream.param_event);
	fwrite(stream.data, 1, stream.data_len, reply->text);
	snprintf(reply->status, sizeof(reply->status), "+OK status=%d", (int)status);
	free(stream.data);
	free(argument);
}

void channel_reset(void)
{
	if (channel_variables) switch_event_destroy(&channel_variables);
	channel_variables = event_new_bare(SWITCH_EVENT_CHANNEL_DATA, NULL);
	channel_set("uuid", "7c7b5e50-0000-4000-8000-000000000001");
}

void channel_set(const char *name, const char *value)
{
	channel_variables->flags |= EF_UNIQ_HEADERS;
	switch_event_add_header_string(channel_variables, SWITCH_STACK_BOTTOM, name, value);
}

SWITCH_DECLARE(switch_channel_t *) switch_core_session_get_channel(switch_core_session_t *session)
{
	if ((void *)session != (void *)&the_session) host_die("switch_core_session_get_channel: no such session");
	return (switch_channel_t *)&the_channel;
}

/* The copy lives as long as the session in the core; here until the next `vars` or the end. */
SWITCH_DECLARE(const char *) switch_channel_get_variable_dup(switch_channel_t *channel, const char *varname,
	switch_bool_t dup, int idx)
{
	(void)dup;
	if ((void *)channel != (void *)&the_channel) host_die("switch_channel_get_variable_dup: no such channel");
	return varname && *varname ? switch_event_get_header_idx(channel_variables, varname, idx) : NULL;
}

SWITCH_DECLARE(switch_status_t) switch_channel_set_variable_var_check(switch_channel_t *channel, const char *varname,
	const char *value, switch_bool_t var_check)
{
	if ((void *)channel != (void *)&the_channel) host_die("switch_channel_set_variable_var_check: no such channel");
	if (!varname || !*varname) return SWITCH_STATUS_FALSE;
	if (value && var_check && strstr(value, "${")) {
		host_say(SWITCH_LOG_CRIT, "Invalid data (${%s} contains a variable)", varname);
		return SWITCH_STATUS_FALSE;
	}
	channel_set(varname, value ? value : "");
	return SWITCH_STATUS_SUCCESS;
}

void module_app(const char *name, const char *arguments, struct reply *reply)
{
	switch_application_interface_t *app = switch_loadable_module_get_application_interface(name);
	if (!app) {
		host_say(SWITCH_LOG_ERROR, "Invalid Application %s", name);
		snprintf(reply->status, sizeof(reply->status), "-ERR invalid application %s", name);
		return;
	}
	static const switch_event_types_t AROUND[] = { SWITCH_EVENT_CHANNEL_EXECUTE, SWITCH_EVENT_CHANNEL_EXECUTE_COMPLETE };
	for (int i = 0; i < 2; i++) {
		switch_event_t *event = event_new("switch_core_session_exec", AROUND[i], NULL);
		switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Unique-ID", switch_event_get_header_idx(channel_variables, "uuid", -1));
		switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Application", name);
		if (arguments) switch_event_add_header_string(event, SWITCH_STACK_BOTTOM, "Application-Data", arguments);
		if (i) app->application_function((switch_core_session_t *)&the_session, arguments);
		event_fire(&event);
	}
	UNPROTECT_INTERFACE(app);
	for (switch_event_header_t *h = channel_variables->headers; h; h = h->next) fprintf(reply->text, "%s=%s\n", h->name, h->value);
}

/* ---- completion ---- */

SWITCH_DECLARE(switch_status_t) switch_console_add_complete_func(const char *name, switch_console_complete_callback_t cb)
{
	switch_mutex_lock(completion_lock);
	struct completer *c = completers;
	while (c && strcmp(c->name, name)) c = c->next;
	if (!c) {
		c = host_alloc(sizeof(*c));
		c->name = host_dup(name);
		c->next = completers;
		completers = c;
	}
	c->function = cb;
	switch_mutex_unlock(completion_lock);
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_DECLARE(switch_status_t) switch_console_del_complete_func(const char *name)
{
	return switch_console_add_complete_func(name, NULL);
}

SWITCH_DECLARE(void) switch_console_push_match(switch_console_callback_match_t **matches, const char *new_val)
{
	if (!*matches) {
		*matches = host_alloc(sizeof(**matches));
		(*matches)->dynamic = 1;
	}
	switch_console_callback_match_node_t *match = host_alloc(sizeof(*match));
	match->val = host_dup(new_val);
	if ((*matches)->head) (*matches)->end->next = match; else (*matches)->head = match;
	(*matches)->end = match;
	(*matches)->count++;
}

static int split(char *text, char **words, int limit)
{
	int count = 0;
	char *rest = NULL;
	for (char *word = strtok_r(text, " ", &rest); word && count < limit; word = strtok_r(NULL, " ", &rest)) words[count++] = word;
	return count;
}

SWITCH_DECLARE(switch_status_t) switch_console_set_complete(const char *string)
{
	if (!string) return SWITCH_STATUS_FALSE;
	char *copy = host_dup(string), *words[11] = { 0 };
	int count = split(copy, words, 11);
	bool add = count && (!strcasecmp(words[0], "add") || !strcasecmp(words[0], "stickyadd"));
	bool del = count > 1 && !strcasecmp(words[0], "del");
	switch_mutex_lock(completion_lock);
	if (add) {
		struct completion *row = host_alloc(sizeof(*row)), **at = &completions;
		for (int i = 1; i < count; i++) row->words[i - 1] = host_dup(strcasecmp(words[i], "_any_") ? words[i] : "");
		while (*at) at = &(*at)->next;
		*at = row;
	}
	for (struct completion **at = &completions; del && *at; ) {
		struct completion *row = *at;
		bool same = true;
		for (int i = 1; strcmp(words[1], "*") && i < count; i++) same = same && row->words[i - 1] && !strcmp(row->words[i - 1], words[i]);
		if (same) {
			*at = row->next;
			for (int i = 0; i < 10; i++) free(row->words[i]);
			free(row);
		} else {
			at = &row->next;
		}
	}
	switch_mutex_unlock(completion_lock);
	free(copy);
	return add || del ? SWITCH_STATUS_SUCCESS : SWITCH_STATUS_FALSE;
}

struct found { char *names[1024]; int count; };

static void add_found(struct found *found, const char *name)
{
	for (int i = 0; i < found->count; i++) if (!strcmp(found->names[i], name)) return;
	if (*name && found->count < 1024) found->names[found->count++] = host_dup(name);
}

static void ask(struct found *found, const char *function, const char *line, const char *last)
{
	/* The core hands in an uninitialised pointer: a function must set it before it pushes. */
	switch_console_callback_match_t *matches = (void *)(uintptr_t)8;
	struct completer *c = completers;
	while (c && strcmp(c->name, function)) c = c->next;
	if (!c || !c->function || c->function(line, last, &matches) != SWITCH_STATUS_SUCCESS) return;
	for (switch_console_callback_match_node_t *m = matches->head, *next; m; m = next) {
		next = m->next;
		if (!last || !strncmp(m->val, last, strlen(last))) add_found(found, m->val);
		free(m->val);
		free(m);
	}
	if (matches->dynamic) free(matches);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void module_complete(const char *line, struct reply *reply)
{
	struct found *found = host_alloc(sizeof(*found));
	char *copy = host_dup(line), *words[10] = { 0 };
	bool fresh = !*line || line[strlen(line) - 1] == ' ';
	int count = split(copy, words, 10), at = fresh ? count : count - 1;
	const char *last = fresh || !count ? NULL : words[count - 1];
	if (at > 9) at = 9;
	switch_mutex_lock(modules_lock);
	for (size_t i = 0; at == 0 && i < 64; i++)
		if (apis[i] && (!last || !strncasecmp(apis[i]->interface_name, last, strlen(last)))) add_found(found, apis[i]->interface_name);
	switch_mutex_unlock(modules_lock);
	switch_mutex_lock(completion_lock);
	for (struct completion *row = completions; row; row = row->next) {
		bool fits = row->words[at] != NULL;
		for (int i = 0; fits && i < count; i++) {
			const char *word = row->words[i] ? row->words[i] : "";
			fits = !strncmp(word, "::", 2) || !*word || !strncasecmp(word, words[i], fresh ? strlen(word) + 1 : strlen(words[i]));
		}
		if (!fits) continue;
		if (!strncmp(row->words[at], "::[", 3)) {
			char *list = host_dup(row->words[at] + 3), *rest = list;
			for (char *item; (item = strsep(&rest, ":")); ) if (!last || !strncmp(item, last, strlen(last))) add_found(found, item);
			free(list);
		} else if (!strncmp(row->words[at], "::", 2)) {
			ask(found, row->words[at], line, last);
		} else {
			add_found(found, row->words[at]);
		}
	}
	switch_mutex_unlock(completion_lock);
	qsort(found->names, (size_t)found->count, sizeof(char *), by_name);
	for (int i = 0; i < found->count; i++) {
		fprintf(reply->text, "%s\n", found->names[i]);
		free(found->names[i]);
	}
	free(found);
	free(copy);
}

void module_interfaces(struct reply *reply)
{
	switch_mutex_lock(modules_lock);
	for (size_t i = 0; i < 64; i++) if (apis[i]) fprintf(reply->text, "api %s %s\n", apis[i]->interface_name, apis[i]->syntax ? apis[i]->syntax : "");
	for (size_t i = 0; i < 64; i++) if (applications[i]) fprintf(reply->text, "app %s %s\n", applications[i]->interface_name, applications[i]->syntax ? applications[i]->syntax : "");
	for (struct module *m = modules; m; m = m->next) fprintf(reply->text, "module %s\n", m->key);
	switch_mutex_unlock(modules_lock);
}

void module_init(void)
{
	modules_lock = host_mutex_new();
	completion_lock = host_mutex_new();
	channel_reset();
}
