/* SPDX-License-Identifier: MIT
 *
 * Memory that runs out: of what mod_rustbridge allocates on threads of its own, each n-th fails. The file that
 * RUSTBRIDGE_SCARCE names has two numbers of eight bytes: n, 0 for none, read anew each time, and how many have failed.
 *
 * What a thread has just given back is there for it, as it is in any heap: a few small blocks after a large one. So has a new
 * thread a little.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "host.h"

struct scarcity {
	_Atomic uint64_t every, failed;
};

static struct scarcity *scarcity;
static _Atomic uint64_t asked;

/* How many allocations of this thread have room in what it gave back. */
enum { SMALL = 4096, LARGE = 60 * 1024, ROOM = 16 };
static __thread int room = ROOM;

__attribute__((constructor)) static void map_file(void)
{
	const char *path = getenv("RUSTBRIDGE_SCARCE");
	int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *memory = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(*scarcity), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (file >= 0) close(file);
	if (memory != MAP_FAILED) scarcity = memory;
}

/* Threads of the module are rb-…, ro-… and rs-…. */
static bool is_ours(const void *caller)
{
	char name[16] = "";
	Dl_info info;
	if (prctl(PR_GET_NAME, name) || name[0] != 'r' || !strchr("bos", name[1]) || name[2] != '-') return false;
	return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "mod_rustbridge");
}

void scarce_given_back(void *memory)
{
	if (scarcity && memory && malloc_usable_size(memory) >= LARGE) room = ROOM;
}

bool scarce_fails(const void *caller, size_t size)
{
	uint64_t every = scarcity ? atomic_load(&scarcity->every) : 0;
	if (!every || !is_ours(caller)) return false;
	if (size <= SMALL && room > 0) {
		room--;
		return false;
	}
	if (atomic_fetch_add(&asked, 1) % every) return false;
	atomic_fetch_add(&scarcity->failed, 1);
	return true;
}
