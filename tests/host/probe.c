/* SPDX-License-Identifier: MIT
 *
 * A module as small as one can be, to prove the host itself: it binds ALL, counts, and offers an API, an application and a
 * completion. On request it does what a good handler must not, so that the host's counters can be seen to count.
 */
#include <switch.h>
#include <pthread.h>
#include <unistd.h>
#include <sys/syscall.h>

SWITCH_MODULE_LOAD_FUNCTION(mod_probe_load);
SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_probe_shutdown);
SWITCH_MODULE_DEFINITION(mod_probe, mod_probe_load, mod_probe_shutdown, NULL);

static switch_event_node_t *node;
static unsigned long long seen;
static char misbehaviour[16];
static volatile int holding;
static int data_marker;

static void on_event(switch_event_t *event)
{
	if (event->bind_user_data != &data_marker) abort();
	__atomic_add_fetch(&seen, 1, __ATOMIC_RELAXED);
	if (*misbehaviour == 'm') {
		void *volatile kept = malloc(100);
		free(kept);
	}
	if (*misbehaviour == 's') syscall(SYS_gettid);
	if (*misbehaviour == 'c' && event->headers->value) event->headers->value[0] ^= 1;
}

static switch_status_t complete_words(const char *line, const char *cursor, switch_console_callback_match_t **matches)
{
	switch_console_callback_match_t *mine = NULL;
	switch_console_push_match(&mine, "zebra");
	switch_console_push_match(&mine, "apple");
	*matches = mine;
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_STANDARD_API(probe_api)
{
	char *text = NULL;
	switch_xml_t cfg, xml, node_;
	if (!strcmp(cmd, "count")) {
		stream->write_function(stream, "%llu\n", __atomic_load_n(&seen, __ATOMIC_RELAXED));
	} else if (!strcmp(cmd, "hold")) {
		__atomic_store_n(&holding, 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&holding, __ATOMIC_SEQ_CST)) usleep(1000);
		stream->write_function(stream, "held\n");
	} else if (!strcmp(cmd, "holding")) {
		stream->write_function(stream, "%d\n", __atomic_load_n(&holding, __ATOMIC_SEQ_CST));
	} else if (!strcmp(cmd, "release")) {
		__atomic_store_n(&holding, 0, __ATOMIC_SEQ_CST);
	} else if (!strcmp(cmd, "xml")) {
		if (!(xml = switch_xml_open_cfg("rustbridge.conf", &cfg, NULL))) {
			stream->write_function(stream, "none\n");
			return SWITCH_STATUS_SUCCESS;
		}
		for (node_ = cfg->child; node_; node_ = node_->ordered) {
			stream->write_function(stream, "<%s", node_->name);
			for (char **a = node_->attr; *a; a += 2) stream->write_function(stream, " %s=%s", a[0], a[1]);
			stream->write_function(stream, ">%s\n", node_->txt);
		}
		switch_xml_free(xml);
	} else if (!strncmp(cmd, "be ", 3)) {
		snprintf(misbehaviour, sizeof(misbehaviour), "%s", cmd + 3);
	} else if ((text = switch_core_get_variable_dup(cmd))) {
		stream->raw_write_function(stream, (uint8_t *)text, strlen(text));
		free(text);
	} else {
		return SWITCH_STATUS_FALSE;
	}
	return SWITCH_STATUS_SUCCESS;
}

SWITCH_STANDARD_APP(probe_app)
{
	switch_channel_t *channel = switch_core_session_get_channel(session);
	const char *value = switch_channel_get_variable_dup(channel, "probe_in", SWITCH_TRUE, -1);
	switch_channel_set_variable_var_check(channel, "probe_out", value ? value : data, SWITCH_FALSE);
}

SWITCH_MODULE_LOAD_FUNCTION(mod_probe_load)
{
	switch_api_interface_t *api;
	switch_application_interface_t *app;
	switch_event_types_t all;
	*module_interface = switch_loadable_module_create_module_interface(pool, modname);
	SWITCH_ADD_API(api, "probe", "proves the host", probe_api, "count|hold|holding|release|xml|be [m|s|c]|<variable>");
	SWITCH_ADD_APP(app, "probe_app", "proves the host", "proves the host", probe_app, "<text>", SAF_NONE);
	switch_console_set_complete("add probe count");
	switch_console_set_complete("add probe hold");
	switch_console_set_complete("add probe be ::probe::words");
	switch_console_add_complete_func("::probe::words", complete_words);
	if (switch_name_event("ALL", &all) != SWITCH_STATUS_SUCCESS) return SWITCH_STATUS_FALSE;
	return switch_event_bind_removable(modname, all, SWITCH_EVENT_SUBCLASS_ANY, on_event, &data_marker, &node);
}

SWITCH_MODULE_SHUTDOWN_FUNCTION(mod_probe_shutdown)
{
	switch_console_set_complete("del probe");
	switch_event_unbind(&node);
	return SWITCH_STATUS_SUCCESS;
}
