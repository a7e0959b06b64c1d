/* Lets system calls on files below a directory fail, or end the process, at a chosen one.
 *
 * Loaded by LD_PRELOAD. faults_arm(directory, kind, number) counts from then on the calls that
 * touch the directory, and does to the one of this number, from 1, what the kind says:
 *   0 nothing, 1 the process is killed, 2 the disk is full from then on, 3 one I/O error.
 * faults_count() is how many there were, faults_fired() whether it has happened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 4096
static char below[PATH_MAX];
static int kind, number, count, fired;
static char ours[FILES];

void faults_arm(const char *directory, int what, int when) {
    kind = what; number = when; count = 0; fired = 0;
    memset(ours, 0, sizeof ours);
    strncpy(below, directory, sizeof below - 1);
}
int faults_count(void) { return count; }
int faults_fired(void) { return fired; }

static int inside(int at, const char *path) {
    if (!below[0] || !path) return 0;
    char whole[2 * PATH_MAX];
    if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
    else {
        char link[64], base[PATH_MAX] = "";
        if (at == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
        else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n < 0) return 0;
            base[n] = 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    size_t n = strlen(below);
    return !strncmp(whole, below, n) && (whole[n] == '/' || whole[n] == 0);
}

/* Whether this call fails, with errno set; writes says whether it needs room on the disk. */
static int fails(int writes) {
    count++;
    if (kind == 2 && number && count >= number && writes) {
        fired = 1; errno = ENOSPC; return 1;
    }
    if (count != number) return 0;
    if (kind == 1) { fired = 1; kill(getpid(), SIGKILL); pause(); }
    if (kind == 3) { fired = 1; errno = EIO; return 1; }
    return 0;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define OURS(fd) ((fd) >= 0 && (fd) < FILES && ours[fd])

#define OPEN(name, first, at, ...)                                              \
    int name(first const char *path, int flags, ...) {                          \
        REAL(name);                                                             \
        mode_t mode = 0;                                                        \
        if (flags & (O_CREAT | O_TMPFILE)) {                                    \
            va_list rest; va_start(rest, flags);                                \
            mode = va_arg(rest, mode_t); va_end(rest);                          \
        }                                                                       \
        int mine = inside(at, path);                                            \
        if (mine && fails((flags & O_CREAT) != 0)) return -1;                   \
        int fd = real(__VA_ARGS__ path, flags, mode);                           \
        if (fd >= 0 && fd < FILES) ours[fd] = (char)mine;                       \
        return fd;                                                              \
    }
#define NOTHING
#define COMMA ,
OPEN(open, NOTHING, AT_FDCWD, )
OPEN(open64, NOTHING, AT_FDCWD, )
OPEN(openat, int at COMMA, at, at COMMA)
OPEN(openat64, int at COMMA, at, at COMMA)

#define ON_FD(type, name, writes, declared, ...)                                \
    type name(int fd declared) {                                                \
        REAL(name);                                                             \
        if (OURS(fd) && fails(writes)) return -1;                               \
        return real(fd __VA_ARGS__);                                            \
    }
ON_FD(ssize_t, write, 1, COMMA const void *b COMMA size_t n, , b, n)
ON_FD(ssize_t, pwrite, 1, COMMA const void *b COMMA size_t n COMMA off_t o, , b, n, o)
ON_FD(ssize_t, pwrite64, 1, COMMA const void *b COMMA size_t n COMMA off64_t o, , b, n, o)
ON_FD(ssize_t, writev, 1, COMMA const struct iovec *v COMMA int n, , v, n)
ON_FD(ssize_t, read, 0, COMMA void *b COMMA size_t n, , b, n)
ON_FD(ssize_t, pread64, 0, COMMA void *b COMMA size_t n COMMA off64_t o, , b, n, o)
ON_FD(int, ftruncate, 1, COMMA off_t n, , n)
ON_FD(int, ftruncate64, 1, COMMA off64_t n, , n)
ON_FD(int, fsync, 1, , )
ON_FD(int, flock, 0, COMMA int how, , how)

int close(int fd) {
    REAL(close);
    int mine = OURS(fd);
    if (mine) ours[fd] = 0;
    if (mine && fails(0)) { int kept = errno; real(fd); errno = kept; return -1; }
    return real(fd);
}

#define ON_PATH(name, writes, declared, ...)                                    \
    int name(const char *path declared) {                                       \
        REAL(name);                                                             \
        if (inside(AT_FDCWD, path) && fails(writes)) return -1;                 \
        return real(path __VA_ARGS__);                                          \
    }
ON_PATH(mkdir, 1, COMMA mode_t m, , m)
ON_PATH(rmdir, 0, , )
ON_PATH(unlink, 0, , )
ON_PATH(stat, 0, COMMA struct stat *s, , s)
ON_PATH(lstat, 0, COMMA struct stat *s, , s)
ON_PATH(stat64, 0, COMMA struct stat64 *s, , s)
ON_PATH(lstat64, 0, COMMA struct stat64 *s, , s)
ON_PATH(access, 0, COMMA int m, , m)
ON_PATH(chmod, 0, COMMA mode_t m, , m)

int rename(const char *from, const char *to) {
    REAL(rename);
    if ((inside(AT_FDCWD, from) || inside(AT_FDCWD, to)) && fails(1)) return -1;
    return real(from, to);
}
int link(const char *from, const char *to) {
    REAL(link);
    if (inside(AT_FDCWD, to) && fails(1)) return -1;
    return real(from, to);
}
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    if (inside(at, path) && fails(0)) return -1;
    return real(at, path, flags);
}

#include <dirent.h>
DIR *opendir(const char *path) {
    REAL(opendir);
    if (inside(AT_FDCWD, path) && fails(0)) return NULL;
    return real(path);
}
