/* SPDX-License-Identifier: MIT
 *
 * Stands in for the core's configuration: one tree, read at start and by `reloadxml`, that switch_xml_open_cfg looks up.
 *
 * As in the core: the preprocessor works line by line, drops every line with "<?" or <include>, takes a directive only
 * where <X-PRE-PROCESS .../> stands, and replaces $${name}; a document that cannot be parsed leaves the old tree in place at
 * reload; a tree is counted, and whoever opened it gives it back; switch_xml_parse_file returns what it could read of a
 * broken file, with the error kept beside the root, where switch_xml_error finds it. Where the configuration folder has no
 * freeswitch.xml, one is made up that includes autoload_configs/<any>.xml. There is no DTD, and only "set" and "include".
 */
#define _GNU_SOURCE
#include "host.h"

#include <ctype.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The node comes first: the core's public type is what a module sees of it. */
struct tree { struct switch_xml root; char error[256]; };

static struct tree *main_tree;
static pthread_mutex_t main_lock = PTHREAD_MUTEX_INITIALIZER;
static char *no_attributes[] = { NULL };
static const char SPACE[] = " \t\r\n";

/* ---- the preprocessor ---- */

static void expand_line(const char *line, FILE *out)
{
	for (const char *start; (start = strstr(line, "$${")); ) {
		const char *end = strchr(start, '}');
		if (!end) break;
		fwrite(line, 1, (size_t)(start - line), out);
		char *name = strndup(start + 3, (size_t)(end - start - 3)), *value = switch_core_get_variable_dup(name);
		if (value) fputs(value, out);
		free(value);
		free(name);
		line = end + 1;
	}
	fputs(line, out);
}

static char *quoted_after(const char *text, const char *word)
{
	const char *at = text ? strcasestr(text, word) : NULL;
	at = at ? strchr(at, '=') : NULL;
	at = at ? strchr(at, '"') : NULL;
	const char *end = at ? strchr(at + 1, '"') : NULL;
	return end ? strndup(at + 1, (size_t)(end - at - 1)) : NULL;
}

static void set_variable(char *assignment)
{
	char *value = strchr(assignment, '=');
	if (!value) return;
	char *end = value;
	*value++ = '\0';
	while (end > assignment && end[-1] == ' ') *--end = '\0';
	while (*value == ' ') value++;
	core_set_variable(assignment, value);
}

static bool preprocess(const char *path, FILE *in, FILE *out, int depth);

static void include_files(const char *pattern, const char *from, FILE *out, int depth)
{
	const char *slash = strrchr(from, '/');
	char *full = *pattern == '/' ? host_dup(pattern) :
		host_print("%.*s/%s", slash ? (int)(slash - from) : 1, slash ? from : ".", pattern);
	glob_t found;
	if (!glob(full, GLOB_ERR, NULL, &found)) {
		for (size_t i = 0; i < found.gl_pathc; i++) {
			FILE *in = fopen(found.gl_pathv[i], "re");
			if (!in) continue;
			preprocess(found.gl_pathv[i], in, out, depth + 1);
			fclose(in);
		}
		globfree(&found);
	} else {
		host_say(SWITCH_LOG_INFO, "No files to include at %s", full);
	}
	free(full);
}

static bool preprocess(const char *path, FILE *in, FILE *out, int depth)
{
	char *raw = NULL;
	size_t size = 0;
	bool in_comment = false;
	if (depth > 100) return false;
	while (getline(&raw, &size, in) > 0) {
		if (strstr(raw, "<include>") || strstr(raw, "</include>") || strstr(raw, "<?")) continue;
		char *line = NULL, *rest;
		size_t length = 0;
		FILE *expanded = open_memstream(&line, &length);
		expand_line(raw, expanded);
		fclose(expanded);
		rest = line;
		if (in_comment && (rest = strstr(line, "-->"))) {
			in_comment = false;
			rest += 3;
		}
		char *directive = rest ? strcasestr(rest, "X-pre-process") : NULL;
		if (directive) {
			char *command = directive > line && directive[-1] == '<' ? quoted_after(directive, "cmd") : NULL;
			const char *after = command ? strcasestr(directive, command) : NULL;
			char *data = quoted_after(after, "data");
			if (command && data && !strcasecmp(command, "set")) set_variable(data);
			if (command && data && !strcasecmp(command, "include")) include_files(data, path, out, depth);
			free(command);
			free(data);
		} else if (rest) {
			fputs(rest, out);
		}
		free(line);
	}
	free(raw);
	return true;
}

/* ---- the tree ---- */

static switch_xml_t new_node(switch_xml_t parent, const char *name)
{
	switch_xml_t node = parent ? host_alloc(sizeof(*node)) : host_alloc(sizeof(struct tree));
	node->name = name ? host_dup(name) : NULL;
	node->attr = no_attributes;
	node->txt = host_dup("");
	node->parent = parent;
	if (!parent) return node;
	node->off = strlen(parent->txt);
	/* ordered: the next in the document; next: the next of its name; sibling: the first of the next name */
	if (!parent->child) {
		parent->child = node;
		return node;
	}
	switch_xml_t last = parent->child, same = parent->child, previous = NULL;
	while (last->ordered) last = last->ordered;
	last->ordered = node;
	for (; same && strcmp(same->name, name); same = same->sibling) previous = same;
	if (same) {
		while (same->next) same = same->next;
		same->next = node;
	} else {
		previous->sibling = node;
	}
	return node;
}

static void free_node(switch_xml_t node)
{
	while (node) {
		switch_xml_t next = node->ordered;
		free_node(node->child);
		if (node->attr != no_attributes) {
			for (char **a = node->attr; *a; a++) free(*a);
			free(node->attr);
		}
		free(node->name);
		free(node->txt);
		free(node);
		node = next;
	}
}

/* ---- the parser ---- */

static void append_character(FILE *out, unsigned long c)
{
	if (c < 0x80) { fputc((int)c, out); return; }
	if (c < 0x800) fputc((int)(0xc0 | c >> 6), out);
	else if (c < 0x10000) { fputc((int)(0xe0 | c >> 12), out); fputc((int)(0x80 | (c >> 6 & 0x3f)), out); }
	else { fputc((int)(0xf0 | c >> 18), out); fputc((int)(0x80 | (c >> 12 & 0x3f)), out); fputc((int)(0x80 | (c >> 6 & 0x3f)), out); }
	fputc((int)(0x80 | (c & 0x3f)), out);
}

static char *decode(const char *from, size_t length, bool attribute)
{
	static const struct { const char *name; char character; } KNOWN[] = {
		{ "lt;", '<' }, { "gt;", '>' }, { "quot;", '"' }, { "apos;", '\'' }, { "amp;", '&' } };
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	for (const char *p = from, *end = from + length; p < end; p++) {
		if (*p == '\r') {                       /* line ends are one line feed */
			if (p + 1 < end && p[1] == '\n') continue;
			fputc(attribute ? ' ' : '\n', out);
			continue;
		}
		if (attribute && isspace((unsigned char)*p)) { fputc(' ', out); continue; }
		if (*p != '&') { fputc(*p, out); continue; }
		if (p[1] == '#') {
			char *stop;
			bool hex = p[2] == 'x';
			unsigned long c = isxdigit((unsigned char)p[hex ? 3 : 2]) ? strtoul(p + (hex ? 3 : 2), &stop, hex ? 16 : 10) : 0;
			if (c && c < 0x110000 && *stop == ';' && stop < end) { append_character(out, c); p = stop; continue; }
		}
		size_t i = 0, known = sizeof(KNOWN) / sizeof(*KNOWN);
		while (i < known && strncmp(p + 1, KNOWN[i].name, strlen(KNOWN[i].name))) i++;
		if (i == known) { fputc('&', out); continue; }
		fputc(KNOWN[i].character, out);
		p += strlen(KNOWN[i].name);
	}
	fclose(out);
	return text;
}

static void add_text(switch_xml_t node, const char *from, size_t length, bool plain)
{
	if (!node || !node->name || !length) return;
	char *more = plain ? strndup(from, length) : decode(from, length, false);
	char *whole = host_print("%s%s", node->txt, more);
	free(more);
	free(node->txt);
	node->txt = whole;
}

static void add_attribute(switch_xml_t node, const char *name, size_t name_length, const char *value, size_t length)
{
	size_t count = 0;
	while (node->attr[count]) count++;
	char **all = realloc(node->attr == no_attributes ? NULL : node->attr, sizeof(char *) * (count + 3));
	if (!all) host_die("out of memory");
	all[count] = strndup(name, name_length);
	all[count + 1] = decode(value, length, true);
	all[count + 2] = NULL;
	node->attr = all;
}

static struct tree *fail(struct tree *tree, const char *text, const char *at, const char *format, const char *name)
{
	int line = 1;
	for (const char *p = text; p < at && *p; p++) line += *p == '\n';
	int used = snprintf(tree->error, sizeof(tree->error), "[error near line %d]: ", line);
	snprintf(tree->error + used, sizeof(tree->error) - (size_t)used, format, name);
	return tree;
}

/* Never NULL: what could be read, and an error beside it where the text is not well-formed. */
static struct tree *parse(const char *text)
{
	struct tree *tree = (struct tree *)new_node(NULL, NULL);
	switch_xml_t at = &tree->root;
	const char *p = strchr(text, '<');
	if (!p) return fail(tree, text, text, "root tag missing", "");
	while (*p) {
		const char *start = p++;
		if (isalpha((unsigned char)*p) || *p == '_' || *p == ':' || (signed char)*p < 0) {
			if (!at) return fail(tree, text, start, "markup outside of root element", "");
			size_t length = strcspn(p, " \t\r\n/>");
			char *name = strndup(p, length);
			switch_xml_t node = at;
			if (at->name) node = new_node(at, name);
			else at->name = host_dup(name);
			free(name);
			p += length;
			for (p += strspn(p, SPACE); *p && *p != '/' && *p != '>'; p += strspn(p, SPACE)) {
				const char *attribute = p, *value = "";
				size_t attribute_length = strcspn(p, " \t\r\n=/>"), value_length = 0;
				p += attribute_length;
				if (*p == '=' || isspace((unsigned char)*p)) {
					p += strspn(p, " \t\r\n=");
					if (*p == '"' || *p == '\'') {
						const char *end = strchr(p + 1, *p);
						if (!end) return fail(tree, text, start, *p == '"' ? "missing \"" : "missing '", "");
						value = p + 1;
						value_length = (size_t)(end - value);
						p = end + 1;
					}
				}
				add_attribute(node, attribute, attribute_length, value, value_length);
			}
			if (*p == '/') {
				if (*++p != '>') return fail(tree, text, start, "missing >", "");
				at = node->parent;
			} else if (*p == '>') {
				at = node;
			} else {
				return fail(tree, text, start, "missing >", "");
			}
		} else if (*p == '/') {
			size_t length = strcspn(++p, " \t\r\n>");
			char *name = strndup(p, length);
			bool fits = at && at->name && !strcmp(at->name, name);
			if (!fits) fail(tree, text, start, "unexpected closing tag </%s>", name);
			free(name);
			if (!fits) return tree;
			p += length;
			p += strspn(p, SPACE);
			if (*p != '>') return fail(tree, text, start, "missing >", "");
			at = at->parent;
		} else if (!strncmp(p, "!--", 3)) {
			const char *end = strstr(p + 3, "--");
			if (!end || end[2] != '>') return fail(tree, text, start, "unclosed <!--", "");
			p = end + 2;
		} else if (!strncmp(p, "![CDATA[", 8)) {
			const char *end = strstr(p, "]]>");
			if (!end) return fail(tree, text, start, "unclosed <![CDATA[", "");
			if (at) at->flags |= SWITCH_XML_CDATA;
			add_text(at, p + 8, (size_t)(end - p - 8), true);
			p = end + 2;
		} else if (*p == '?' || !strncmp(p, "!DOCTYPE", 8)) {
			if (!(p = strchr(p, '>'))) return fail(tree, text, start, "unclosed <?", "");
		} else {
			return fail(tree, text, start, "unexpected <", "");
		}
		size_t content = strcspn(++p, "<");
		if (p[content]) add_text(at, p, content, false);
		p += content;
	}
	if (!at) return tree;
	if (!at->name) return fail(tree, text, p, "root tag missing", "");
	return fail(tree, text, p, "unclosed tag <%s>", at->name);
}

static struct tree *read_tree(const char *path, const char *instead)
{
	char *text = NULL;
	size_t size = 0;
	FILE *in = path ? fopen(path, "re") : NULL;
	if (!in && instead) in = fmemopen((char *)instead, strlen(instead), "r");
	if (!in) {
		host_say(SWITCH_LOG_ERROR, "Couldn't open %s (%m)", path);
		return NULL;
	}
	FILE *out = open_memstream(&text, &size);
	preprocess(path, in, out, 0);
	fclose(in);
	fclose(out);
	struct tree *tree = size ? parse(text) : NULL;
	free(text);
	return tree;
}

/* ---- what the core offers ---- */

SWITCH_DECLARE(void) switch_xml_free(switch_xml_t xml)
{
	if (!xml) return;
	pthread_mutex_lock(&main_lock);
	if (xml->refs) xml->refs--;
	bool shared = (xml->flags & SWITCH_XML_ROOT) && xml->refs;
	pthread_mutex_unlock(&main_lock);
	if (!shared) free_node(xml);
}

SWITCH_DECLARE(const char *) switch_xml_error(switch_xml_t xml)
{
	while (xml && xml->parent) xml = xml->parent;
	return xml ? ((struct tree *)xml)->error : "";
}

SWITCH_DECLARE(switch_xml_t) switch_xml_parse_file(const char *file)
{
	struct tree *tree = read_tree(file, NULL);
	return tree ? &tree->root : NULL;
}

switch_xml_t xml_child(switch_xml_t node, const char *name)
{
	node = node ? node->child : NULL;
	while (node && strcmp(node->name, name)) node = node->sibling;
	return node;
}

const char *xml_attribute(switch_xml_t node, const char *name)
{
	for (char **a = node ? node->attr : no_attributes; *a; a += 2) if (!strcmp(*a, name)) return a[1];
	return NULL;
}

static switch_xml_t named(switch_xml_t node, const char *tag, const char *name)
{
	for (node = xml_child(node, tag); node; node = node->next) {
		const char *value = xml_attribute(node, "name");
		if (value && !strcasecmp(value, name)) return node;
	}
	return NULL;
}

SWITCH_DECLARE(switch_xml_t) switch_xml_open_cfg(const char *file_path, switch_xml_t *node, switch_event_t *params)
{
	(void)params;
	*node = NULL;
	pthread_mutex_lock(&main_lock);
	switch_xml_t root = main_tree ? &main_tree->root : NULL;
	switch_xml_t found = named(named(root, "section", "configuration"), "configuration", file_path);
	if (found) {
		root->refs++;
		*node = found;
	}
	pthread_mutex_unlock(&main_lock);
	return found ? root : NULL;
}

bool xml_reload(const char **error)
{
	static char said[256];
	char *path = host_print("%s/freeswitch.xml", host_options.conf);
	struct tree *fresh = read_tree(path,
		"<document type=\"freeswitch/xml\">\n<section name=\"configuration\">\n"
		"<X-PRE-PROCESS cmd=\"include\" data=\"autoload_configs/*.xml\"/>\n</section>\n</document>\n");
	free(path);
	*error = "Success";
	if (!fresh || *fresh->error) {
		snprintf(said, sizeof(said), "%s", fresh ? fresh->error : "Cannot Open log directory or XML Root!");
		*error = said;
		if (fresh) free_node(&fresh->root);
		return false;
	}
	fresh->root.flags |= SWITCH_XML_ROOT;
	fresh->root.refs = 1;
	pthread_mutex_lock(&main_lock);
	struct tree *old = main_tree;
	main_tree = fresh;
	pthread_mutex_unlock(&main_lock);
	if (old) switch_xml_free(&old->root);
	switch_event_t *event = event_new("switch_xml_open_root", SWITCH_EVENT_RELOADXML, NULL);
	event_fire(&event);
	return true;
}

SWITCH_DECLARE(switch_status_t) switch_xml_reload(const char **err)
{
	return xml_reload(err) ? SWITCH_STATUS_SUCCESS : SWITCH_STATUS_GENERR;
}
