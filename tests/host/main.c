/* SPDX-License-Identifier: MIT
 *
 * The program: options, then one command a line on standard input.
 *
 * An answer is any number of lines that begin with "|" (the text, cut at its line feeds), one that begins with +OK or -ERR,
 * and a line ".". A text that ends in a line feed so ends with a lone "|". Words may hold %XX. "& COMMAND" runs the command
 * on a thread of its own and answers +OK job=N at once; "wait N" gives its answer.
 */
#define _GNU_SOURCE
#include "host.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct job { long number; char *command, *text; size_t size; struct reply reply; pthread_t thread; bool done; struct job *next; };

static struct job *jobs;
static long last_job;
static pthread_mutex_t jobs_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t job_ended = PTHREAD_COND_INITIALIZER;

static void list_proc(const char *folder, const char *file, struct reply *reply)
{
	DIR *dir = opendir(folder);
	long count = 0;
	for (struct dirent *entry; dir && (entry = readdir(dir)); ) {
		if (entry->d_name[0] == '.') continue;
		char *path = host_print("%s/%s%s", folder, entry->d_name, file), text[512] = "";
		if (*file) {
			FILE *in = fopen(path, "re");
			if (in && fgets(text, sizeof(text), in)) text[strcspn(text, "\n")] = '\0';
			if (in) fclose(in);
		} else if (atoi(entry->d_name) != dirfd(dir)) {
			ssize_t length = readlink(path, text, sizeof(text) - 1);
			if (length > 0) text[length] = '\0';
		}
		if (*text) { fprintf(reply->text, "%s %s\n", entry->d_name, text); count++; }
		free(path);
	}
	if (dir) closedir(dir);
	snprintf(reply->status, sizeof(reply->status), "+OK n=%ld", count);
}

static void stat_line(struct reply *reply)
{
	struct event_counts events = event_counts();
	struct alloc_counts allocs = measure_allocations();
	long pages = 0, resident = 0;
	FILE *in = fopen("/proc/self/statm", "re");
	if (in) {
		if (fscanf(in, "%ld %ld", &pages, &resident) != 2) resident = 0;
		fclose(in);
	}
	struct mallinfo2 heap = mallinfo2();
	snprintf(reply->status, sizeof(reply->status), "+OK delivered=%llu fired=%llu queued=%llu bindings=%llu allocs=%llu frees=%llu alloc_bytes=%llu heap=%zu rss_kb=%ld event_all=%d",
		(unsigned long long)events.delivered, (unsigned long long)events.fired, (unsigned long long)events.queued, (unsigned long long)events.bindings,
		(unsigned long long)allocs.allocations, (unsigned long long)allocs.frees, (unsigned long long)allocs.bytes, heap.uordblks + heap.hblkhd,
		resident * (sysconf(_SC_PAGESIZE) / 1024), (int)event_all);
}

static void run_command(char *line, struct reply *reply)
{
	char *rest = line, *command = strsep(&rest, " "), none[] = "", *arguments = rest ? rest : none;
	bool needs_name = !strcmp(command, "load") || !strcmp(command, "unload") || !strcmp(command, "reload") || !strcmp(command, "api") || !strcmp(command, "app");
	bool force = needs_name && !strncmp(arguments, "-f ", 3), null = needs_name && !strncmp(arguments, "-null ", 6);
	if (force) arguments += 3;
	if (null) arguments += 6;
	char *after = arguments, *name = needs_name ? host_unescape(strsep(&after, " ")) : none;
	strcpy(reply->status, "+OK");
	if (needs_name && !*name) {
		snprintf(reply->status, sizeof(reply->status), "-ERR %s what?", command);
	} else if (!strcmp(command, "load")) {
		module_load(name, reply);
	} else if (!strcmp(command, "unload")) {
		module_unload(name, force, reply);
	} else if (!strcmp(command, "reload")) {
		module_unload(name, force, reply);         /* load is tried whatever became of it */
		if (*reply->status == '-') fprintf(reply->text, "%s\n", reply->status);
		strcpy(reply->status, "+OK");
		module_load(name, reply);
	} else if (!strcmp(command, "reloadxml")) {
		const char *error;
		if (!xml_reload(&error)) snprintf(reply->status, sizeof(reply->status), "-ERR [%s]", error);
	} else if (!strcmp(command, "api")) {
		module_api(name, null ? NULL : host_unescape(after ? after : none), reply);
	} else if (!strcmp(command, "app")) {
		module_app(name, null ? NULL : host_unescape(after ? after : none), reply);
	} else if (!strcmp(command, "vars")) {
		channel_reset();
		for (char *word; (word = strsep(&rest, " ")); ) {
			char *value = strchr(word, '=');
			if (!value) continue;
			*value++ = '\0';
			channel_set(host_unescape(word), host_unescape(value));
		}
	} else if (!strcmp(command, "complete")) {
		module_complete(host_unescape(arguments), reply);
	} else if (!strcmp(command, "interfaces")) {
		module_interfaces(reply);
	} else if (!strcmp(command, "deliver")) {
		generate_deliver(arguments, reply);
	} else if (!strcmp(command, "fire")) {
		generate_fire(arguments, reply);
	} else if (!strcmp(command, "play")) {
		generate_play(arguments, reply);
	} else if (!strcmp(command, "raw")) {
		generate_raw(arguments, reply);
	} else if (!strcmp(command, "floor")) {
		generate_floor(!strcmp(arguments, "on"));
	} else if (!strcmp(command, "flush")) {
		event_flush();
	} else if (!strcmp(command, "stop")) {
		generate_stop(true);
	} else if (!strcmp(command, "go")) {
		generate_stop(false);
	} else if (!strcmp(command, "set")) {
		char *value = strchr(arguments, '=');
		if (value) { *value++ = '\0'; core_set_variable(host_unescape(arguments), host_unescape(value)); }
	} else if (!strcmp(command, "syscalls")) {
		measure_syscalls(arguments, reply);
	} else if (!strcmp(command, "stat")) {
		stat_line(reply);
	} else if (!strcmp(command, "threads")) {
		list_proc("/proc/self/task", "/comm", reply);
	} else if (!strcmp(command, "fds")) {
		list_proc("/proc/self/fd", "", reply);
	} else {
		snprintf(reply->status, sizeof(reply->status), "-ERR no command %s", command);
	}
}

static void print_answer(const char *text, size_t size, const char *status)
{
	for (const char *at = text, *end = text + size; size && at <= end; ) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		if (!stop) stop = end;
		putchar('|');
		fwrite(at, 1, (size_t)(stop - at), stdout);
		putchar('\n');
		at = stop + 1;
	}
	printf("%s\n.\n", status);
	fflush(stdout);
}

static void run_job(struct job *job)
{
	job->reply.text = open_memstream(&job->text, &job->size);
	run_command(job->command, &job->reply);
	fclose(job->reply.text);
}

static void free_job(struct job *job)
{
	free(job->command);
	free(job->text);
	free(job);
}

static void *run_in_background(void *argument)
{
	struct job *job = argument;
	run_job(job);
	pthread_mutex_lock(&jobs_lock);
	job->done = true;
	pthread_cond_broadcast(&job_ended);
	pthread_mutex_unlock(&jobs_lock);
	return NULL;
}

static void wait_for_job(long number)
{
	pthread_mutex_lock(&jobs_lock);
	struct job **at = &jobs;
	while (*at && (*at)->number != number) at = &(*at)->next;
	struct job *job = *at;
	if (job) *at = job->next;
	while (job && !job->done) pthread_cond_wait(&job_ended, &jobs_lock);
	pthread_mutex_unlock(&jobs_lock);
	if (!job) { print_answer("", 0, "-ERR no such job"); return; }
	pthread_join(job->thread, NULL);
	print_answer(job->text, job->size, job->reply.status);
	free_job(job);
}

/* A command comes in on a thread like those of the core's own consoles, with their 240 KB of stack. */
static void *command_loop(void *unused)
{
	(void)unused;
	char *line = NULL;
	size_t size = 0;
	printf("+OK rustbridge-host, like FreeSWITCH %s, pid %d\n.\n", host_options.version, (int)getpid());
	fflush(stdout);
	for (ssize_t length; (length = getline(&line, &size, stdin)) > 0; ) {
		if (line[length - 1] == '\n') line[length - 1] = '\0';
		if (!*line) continue;
		if (!strcmp(line, "quit")) break;
		if (!strncmp(line, "wait ", 5)) { wait_for_job(atol(line + 5)); continue; }
		bool background = !strncmp(line, "& ", 2);
		struct job *job = host_alloc(sizeof(*job));
		job->command = host_dup(line + (background ? 2 : 0));
		if (!background) {
			run_job(job);
			print_answer(job->text, job->size, job->reply.status);
			free_job(job);
			continue;
		}
		char answer[64];
		pthread_mutex_lock(&jobs_lock);
		job->number = ++last_job;
		job->next = jobs;
		jobs = job;
		job->thread = host_thread("host-job", run_in_background, job);
		pthread_mutex_unlock(&jobs_lock);
		snprintf(answer, sizeof(answer), "+OK job=%ld", job->number);
		print_answer("", 0, answer);
	}
	free(line);
	return NULL;
}

/* Whoever commands us may die while a command hangs: nobody then ends this process but itself. */
static void *watch_commander(void *unused)
{
	(void)unused;
	struct pollfd input = { .fd = STDIN_FILENO };
	while (poll(&input, 1, -1) < 0 && errno == EINTR) { }
	if (input.revents & POLLNVAL) return NULL;
	struct timespec grace = { .tv_sec = 20 };
	while (nanosleep(&grace, &grace) && errno == EINTR) { }
	_exit(3);
}

static const char USAGE[] =
	"rustbridge-host --conf DIR --mod DIR [options]: a small switch core that mod_rustbridge is tested in.\n"
	"  --conf DIR       holds freeswitch.xml, or only autoload_configs/rustbridge.conf.xml\n"
	"  --mod DIR        holds mod_rustbridge.so\n"
	"  --log DIR, --run DIR, --db DIR   $${log_dir} and so on; default: the configuration folder\n"
	"  --core 1.10|1.11 whose event numbers and manners to have (1.11)\n"
	"  --dispatch N     dispatch threads (1)\n"
	"  --log-file FILE  log lines go there instead of standard error\n"
	"  --log-level N    0 console to 7 debug (7)\n"
	"  --busy-seconds N how long unload waits for running calls (10)\n"
	"  --uuid, --hostname, --switchname TEXT\n";

int main(int argc, char **argv)
{
	static const struct option LONG[] = { { "conf", 1, NULL, 'c' }, { "mod", 1, NULL, 'm' }, { "log", 1, NULL, 'l' }, { "run", 1, NULL, 'r' },
		{ "db", 1, NULL, 'd' }, { "core", 1, NULL, 'C' }, { "dispatch", 1, NULL, 'D' }, { "log-file", 1, NULL, 'f' }, { "log-level", 1, NULL, 'v' },
		{ "busy-seconds", 1, NULL, 'b' }, { "uuid", 1, NULL, 'u' }, { "hostname", 1, NULL, 'h' }, { "switchname", 1, NULL, 's' }, { NULL, 0, NULL, 0 } };
	struct options o = { .dispatch_threads = 1, .log_level = SWITCH_LOG_DEBUG, .busy_seconds = 10, .hostname = "fs1.example",
		.uuid = NULL };
	char uuid[37];
	for (int option; (option = getopt_long(argc, argv, "", LONG, NULL)) != -1; ) {
		switch (option) {
		case 'c': o.conf = optarg; break;
		case 'm': o.mod = optarg; break;
		case 'l': o.log = optarg; break;
		case 'r': o.run = optarg; break;
		case 'd': o.db = optarg; break;
		case 'C': o.is_1_10 = !strncmp(optarg, "1.10", 4); break;
		case 'D': o.dispatch_threads = atoi(optarg); break;
		case 'f': o.log_file = optarg; break;
		case 'v': o.log_level = atoi(optarg); break;
		case 'b': o.busy_seconds = atoi(optarg); break;
		case 'u': o.uuid = optarg; break;
		case 'h': o.hostname = optarg; break;
		case 's': o.switchname = optarg; break;
		default: fputs(USAGE, stderr); return 2;
		}
	}
	if (!o.conf || !o.mod || o.dispatch_threads < 1 || o.dispatch_threads > 64) { fputs(USAGE, stderr); return 2; }
	if (!o.uuid) {
		FILE *in = fopen("/proc/sys/kernel/random/uuid", "re");
		if (!in || !fgets(uuid, sizeof(uuid), in)) host_die("no /proc");
		fclose(in);
		o.uuid = uuid;
	}
	if (!o.log) o.log = o.conf;
	if (!o.run) o.run = o.conf;
	if (!o.db) o.db = o.conf;
	if (!o.switchname) o.switchname = o.hostname;
	o.version = o.is_1_10 ? "1.10.12-release  64bit" : "1.11.2-release  64bit";
	signal(SIGPIPE, SIG_IGN);
	core_init(&o);
	event_init();
	module_init();
	const char *error;
	if (!xml_reload(&error)) {
		fprintf(stderr, "Cannot Initialize [%s]\n", error);
		return 1;
	}
	pthread_detach(host_thread("host-watch", watch_commander, NULL));
	pthread_join(host_thread("host-console", command_loop, NULL), NULL);
	generate_stop(true);
	module_shutdown_all();
	generate_floor(false);
	event_shutdown();
	return 0;
}
