/* What the compiled twin asks of the operating system by itself: the time, and a write at a place.
 *
 * Where a system has no pwrite (Windows), WALRUS_HAS_PWRITE is 0 and the Tail writes by way of the
 * backend instead; where it has no clock_gettime, WALRUS_HAS_CLOCK is 0 and the time is Python's.
 */
#ifndef WALRUS_SYSTEM_H
#define WALRUS_SYSTEM_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

static inline void walrus_set_errno(int number) { errno = number; }

#if defined(_WIN32)

#define WALRUS_HAS_PWRITE 0
#define WALRUS_HAS_CLOCK 0

static inline uint64_t walrus_now_ns(void) { return 0; }

static inline int walrus_read_at(int descriptor, uint8_t *first, size_t first_size, uint8_t *second,
                                 size_t second_size, uint64_t position)
{
    (void)descriptor, (void)first, (void)first_size, (void)second, (void)second_size, (void)position;
    return ENOSYS;
}

static inline int64_t walrus_write_frame_at(int descriptor, const uint8_t *head, size_t head_size,
                                            const uint8_t *payload, size_t length, size_t padding,
                                            size_t done, uint64_t position)
{
    (void)descriptor, (void)head, (void)head_size, (void)payload, (void)length, (void)padding;
    (void)done, (void)position;
    return -ENOSYS;
}

#else

#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define WALRUS_HAS_PWRITE 1
#define WALRUS_HAS_CLOCK 1

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__)
#define WALRUS_HAS_PWRITEV 1
#else
#define WALRUS_HAS_PWRITEV 0
#endif

/* Nanoseconds since the epoch; a clock set before 1970 gives 0, since the time is informative. */
static inline uint64_t walrus_now_ns(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0 || now.tv_sec < 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Read two parts that stand behind each other at `position`, all of them, however many calls it takes.
 * Returns 0 or an errno, EIO where the file ends before. Holds no Python state: may run without the GIL. */
static int walrus_read_at(int descriptor, uint8_t *first, size_t first_size, uint8_t *second, size_t second_size,
                          uint64_t position)
{
    while (first_size + second_size > 0) {
        ssize_t count;
#if WALRUS_HAS_PWRITEV
        if (first_size > 0 && second_size > 0) {
            struct iovec parts[2] = {{first, first_size}, {second, second_size}};
            count = preadv(descriptor, parts, 2, (off_t)position);
        } else
#endif
            count = pread(descriptor, first_size ? first : second, first_size ? first_size : second_size,
                          (off_t)position);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? errno : EIO;
        const size_t got = (size_t)count, of_first = got < first_size ? got : first_size;
        first += of_first;
        first_size -= of_first;
        second += got - of_first;
        second_size -= got - of_first;
        position += got;
    }
    return 0;
}

/* One attempt to write head, payload and up to 7 zero bytes of padding as one run that starts at
 * `position`, leaving out the first `done` bytes, which an earlier attempt wrote.
 * Returns the bytes written, or -errno. Holds no Python state: may run without the GIL. */
static int64_t walrus_write_frame_at(int descriptor, const uint8_t *head, size_t head_size,
                                     const uint8_t *payload, size_t length, size_t padding, size_t done,
                                     uint64_t position)
{
    static const uint8_t zeros[8] = {0};
    const uint8_t *starts[3] = {head, payload, zeros};
    const size_t sizes[3] = {head_size, length, padding};
    struct iovec parts[3];
    int count = 0;
    size_t skip = done;
    ssize_t written;

    for (int part = 0; part < 3; part++) {
        if (skip >= sizes[part]) {
            skip -= sizes[part];
            continue;
        }
        parts[count].iov_base = (void *)(uintptr_t)(starts[part] + skip);
        parts[count].iov_len = sizes[part] - skip;
        skip = 0;
        count++;
    }
    if (count == 0)
        return 0;
#if WALRUS_HAS_PWRITEV
    if (count > 1)
        written = pwritev(descriptor, parts, count, (off_t)(position + done));
    else
#endif
        written = pwrite(descriptor, parts[0].iov_base, parts[0].iov_len, (off_t)(position + done));
    return written >= 0 ? (int64_t)written : -(int64_t)errno;
}

#endif
#endif
