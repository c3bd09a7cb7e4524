/* Fails one I/O step of a process: the FAIL_AT-th one on paths that contain FAIL_MARK.
 *
 * Loaded with LD_PRELOAD. FAIL_ERRNO: the error. FAIL_LOG: receives the number of steps at the end,
 * and the name of the step that failed. Steps: open, write, sync, truncate, rename, unlink, mkdir.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long steps;
static char failed[400] = "none";

static int fails(const char *step, const char *path) {
    const char *mark = getenv("FAIL_MARK"), *at = getenv("FAIL_AT");
    if (!mark || !path || !strstr(path, mark)) return 0;
    long now = atomic_fetch_add(&steps, 1) + 1;
    if (!at || atol(at) != now) return 0;
    snprintf(failed, sizeof failed, "%s %s", step, strrchr(path, '/') ? strrchr(path, '/') : path);
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

static int fails_fd(const char *step, int fd) {
    char link[40], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return fails(step, path);
}

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("FAIL_LOG");
    if (!path) return;
    FILE *log = fopen(path, "w");
    if (!log) return;
    fprintf(log, "%ld %s\n", atomic_load(&steps), failed);
    fclose(log);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN(name)                                               \
    int name(const char *path, int flags, ...) {                 \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode_t mode = va_arg(rest, mode_t);                      \
        va_end(rest);                                            \
        return fails("open", path) ? -1 : REAL(name)(path, flags, mode); \
    }
#define ON_FD(kind, name, step, parameters, arguments) \
    kind name parameters { return fails_fd(step, fd) ? -1 : REAL(name) arguments; }
#define ON_PATH(name, step, parameters, arguments) \
    int name parameters { return fails(step, path) ? -1 : REAL(name) arguments; }

OPEN(open)
OPEN(open64)
ON_FD(ssize_t, write, "write", (int fd, const void *bytes, size_t count), (fd, bytes, count))
ON_FD(ssize_t, pwrite, "write", (int fd, const void *bytes, size_t count, off_t at),
      (fd, bytes, count, at))
ON_FD(ssize_t, pwrite64, "write", (int fd, const void *bytes, size_t count, off64_t at),
      (fd, bytes, count, at))
ON_FD(int, fsync, "sync", (int fd), (fd))
ON_FD(int, fdatasync, "sync", (int fd), (fd))
ON_FD(int, ftruncate, "truncate", (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, "truncate", (int fd, off64_t size), (fd, size))
ON_PATH(rename, "rename", (const char *path, const char *to), (path, to))
ON_PATH(unlink, "unlink", (const char *path), (path))
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), (path, mode))
