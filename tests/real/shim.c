/* Stands between a process and the C library (LD_PRELOAD): counts the calls that change files below one
 * folder, and kills the process at one of them, lets it fail, or lets it write less. `shim.py` speaks to it.
 *
 * A call belongs to one kind; the numbers of kinds and actions are those of shim.py. Stores into memory
 * maps and what a ring is asked to do never come by here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SPACE = 2, SYNC = 4, NAME = 8, OPEN = 16, OTHER = 32 };
enum { COUNT, KILL_BEFORE, KILL_AFTER, FAIL, SHORT };
enum { PARTS_MAX = 1024 };

static char watched[PATH_MAX];
static size_t watched_size;
static atomic_long counted;
static int armed, action, kinds;
static long first_call, times, argument;

void shim_watch(const char *folder)
{
    snprintf(watched, sizeof watched, "%s", folder);
    watched_size = strlen(watched);
}

void shim_arm(int new_action, int new_kinds, long call, long new_argument, int new_times)
{
    action = new_action;
    kinds = new_kinds;
    first_call = call;
    times = new_times;
    argument = new_argument;
    atomic_store(&counted, 0);
    armed = 1;
}

long shim_disarm(void)
{
    armed = 0;
    return atomic_load(&counted);
}

/* --- is it one of ours, and its turn? ------------------------------------------------------------------- */

static int is_below(const char *path)
{
    return watched_size && !strncmp(path, watched, watched_size) &&
           (path[watched_size] == '/' || path[watched_size] == '\0');
}

static int is_descriptor_below(int descriptor)
{
    char link[64], path[PATH_MAX];
    ssize_t size;
    const int kept = errno;

    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    size = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (size < 0)
        return 0;
    path[size] = '\0';
    return is_below(path);
}

static int is_place_below(int folder, const char *path)
{
    return path[0] == '/' || folder == AT_FDCWD ? is_below(path) : is_descriptor_below(folder);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Count a call. Returns whether its turn has come; a process that is to die before it does so here. */
static int is_struck(int kind)
{
    long number;

    if (!(kinds & kind))
        return 0;
    number = atomic_fetch_add(&counted, 1) + 1;
    if (number < first_call || number - first_call >= times || action == COUNT)
        return 0;
    if (action == KILL_BEFORE)
        die();
    return 1;
}

/* How many bytes a write that is struck may write: fewer than it was asked to, and at least one. */
static size_t shortened(size_t size)
{
    const size_t wanted = argument ? (size_t)argument : size - 1;
    return wanted < size && wanted > 0 ? wanted : size;
}

/* The real function of this name; whoever asks for the 64-bit name gets that one. */
#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) \
        real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Make the call, or not, as its turn says. `failed` is what is returned where it fails with errno set. */
#define PASS(is_ours, kind, failed, call) \
    do { \
        const int struck = armed && (is_ours) && is_struck(kind); \
        if (struck && action == FAIL) { \
            errno = (int)argument; \
            return failed; \
        } \
        if (struck && action == KILL_AFTER) { \
            (void)!(call); \
            die(); \
        } \
        return call; \
    } while (0)

/* --- writes ----------------------------------------------------------------------------------------------- */

/* A write of `size` bytes at once: `call` writes so many of them. */
#define WRITE_SOME(descriptor, size, call) \
    do { \
        const int struck = armed && is_descriptor_below(descriptor) && is_struck(WRITE); \
        if (struck && action == FAIL) { \
            errno = (int)argument; \
            return -1; \
        } \
        if (struck && action == SHORT) \
            size = shortened(size); \
        if (struck && action == KILL_AFTER) { \
            (void)!(call); \
            die(); \
        } \
        return call; \
    } while (0)

#define DEFINE_PWRITE(name) \
    ssize_t name(int descriptor, const void *data, size_t size, off_t at) \
    { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        WRITE_SOME(descriptor, size, real(descriptor, data, size, at)); \
    }
DEFINE_PWRITE(pwrite)
DEFINE_PWRITE(pwrite64)

ssize_t write(int descriptor, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    WRITE_SOME(descriptor, size, real(descriptor, data, size));
}

/* Cut a list of parts down to `size` bytes, in `kept`. Returns how many parts are left. */
static int cut_parts(const struct iovec *parts, int count, size_t size, struct iovec *kept)
{
    int taken = 0;

    for (; taken < count && taken < PARTS_MAX && size > 0; taken++) {
        kept[taken] = parts[taken];
        if (kept[taken].iov_len > size)
            kept[taken].iov_len = size;
        size -= kept[taken].iov_len;
    }
    return taken;
}

#define GATHER(descriptor, parts, count, call) \
    do { \
        struct iovec kept[PARTS_MAX]; \
        size_t size = 0; \
        const int struck = armed && is_descriptor_below(descriptor) && is_struck(WRITE); \
        if (struck && action == FAIL) { \
            errno = (int)argument; \
            return -1; \
        } \
        if (struck && action == SHORT) { \
            for (int part = 0; part < count; part++) \
                size += parts[part].iov_len; \
            count = cut_parts(parts, count, shortened(size), kept); \
            parts = kept; \
        } \
        if (struck && action == KILL_AFTER) { \
            (void)!(call); \
            die(); \
        } \
        return call; \
    } while (0)

#define DEFINE_PWRITEV(name) \
    ssize_t name(int descriptor, const struct iovec *parts, int count, off_t at) \
    { \
        REAL(ssize_t, #name, int, const struct iovec *, int, off_t); \
        GATHER(descriptor, parts, count, real(descriptor, parts, count, at)); \
    }
DEFINE_PWRITEV(pwritev)
DEFINE_PWRITEV(pwritev64)

#define DEFINE_PWRITEV2(name) \
    ssize_t name(int descriptor, const struct iovec *parts, int count, off_t at, int flags) \
    { \
        REAL(ssize_t, #name, int, const struct iovec *, int, off_t, int); \
        GATHER(descriptor, parts, count, real(descriptor, parts, count, at, flags)); \
    }
DEFINE_PWRITEV2(pwritev2)
DEFINE_PWRITEV2(pwritev64v2)

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    GATHER(descriptor, parts, count, real(descriptor, parts, count));
}

/* --- space, syncs ----------------------------------------------------------------------------------------- */

/* posix_fallocate returns its error and leaves errno alone; a caller that looks there learns nothing. */
#define DEFINE_POSIX_FALLOCATE(name) \
    int name(int descriptor, off_t at, off_t size) \
    { \
        REAL(int, #name, int, off_t, off_t); \
        PASS(is_descriptor_below(descriptor), SPACE, (int)argument, real(descriptor, at, size)); \
    }
DEFINE_POSIX_FALLOCATE(posix_fallocate)
DEFINE_POSIX_FALLOCATE(posix_fallocate64)

#define DEFINE_FALLOCATE(name) \
    int name(int descriptor, int mode, off_t at, off_t size) \
    { \
        REAL(int, #name, int, int, off_t, off_t); \
        PASS(is_descriptor_below(descriptor), SPACE, -1, real(descriptor, mode, at, size)); \
    }
DEFINE_FALLOCATE(fallocate)
DEFINE_FALLOCATE(fallocate64)

#define DEFINE_FTRUNCATE(name) \
    int name(int descriptor, off_t size) \
    { \
        REAL(int, #name, int, off_t); \
        PASS(is_descriptor_below(descriptor), SPACE, -1, real(descriptor, size)); \
    }
DEFINE_FTRUNCATE(ftruncate)
DEFINE_FTRUNCATE(ftruncate64)

#define DEFINE_SYNC(name) \
    int name(int descriptor) \
    { \
        REAL(int, #name, int); \
        PASS(is_descriptor_below(descriptor), SYNC, -1, real(descriptor)); \
    }
DEFINE_SYNC(fsync)
DEFINE_SYNC(fdatasync)

/* Whose file a map is of is not asked: a process that is watched maps no other one that it syncs. */
int msync(void *start, size_t size, int flags)
{
    REAL(int, "msync", void *, size_t, int);
    PASS(1, SYNC, -1, real(start, size, flags));
}

/* --- names, descriptors ------------------------------------------------------------------------------------ */

int rename(const char *old, const char *new)
{
    REAL(int, "rename", const char *, const char *);
    PASS(is_below(old) || is_below(new), NAME, -1, real(old, new));
}

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    PASS(is_below(path), NAME, -1, real(path));
}

int mkdir(const char *path, mode_t mode)
{
    REAL(int, "mkdir", const char *, mode_t);
    PASS(is_below(path), NAME, -1, real(path, mode));
}

#define DEFINE_OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; \
        mode_t mode; \
        va_start(rest, flags); \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        PASS(is_below(path), OPEN, -1, real(path, flags, mode)); \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list rest; \
        mode_t mode; \
        va_start(rest, flags); \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        PASS(is_place_below(folder, path), OPEN, -1, real(folder, path, flags, mode)); \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

int close(int descriptor)
{
    REAL(int, "close", int);
    PASS(is_descriptor_below(descriptor), OTHER, -1, real(descriptor));
}

int flock(int descriptor, int operation)
{
    REAL(int, "flock", int, int);
    PASS(is_descriptor_below(descriptor), OTHER, -1, real(descriptor, operation));
}

int fchmod(int descriptor, mode_t mode)
{
    REAL(int, "fchmod", int, mode_t);
    PASS(is_descriptor_below(descriptor), OTHER, -1, real(descriptor, mode));
}
