/* Makes the pages of a memory map ready ahead of the writer, on a thread of its own.
 *
 * The first write to a page of a map costs a page fault, and of a file a step of its file system
 * with it: more than the frames that go into the page. Linux makes many pages ready in one call,
 * MADV_POPULATE_WRITE (5.14 and later); it changes no byte, and where the range is no map any more
 * it fails, so that nobody has to wait for the thread. The thread never takes the GIL: one that
 * did would come when the writer is long past the pages.
 *
 * A request that finds the queue full, or no such call, is dropped: the writer then meets the page
 * faults itself.
 */
#ifndef WALRUS_PREPARE_H
#define WALRUS_PREPARE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define WALRUS_HAS_PREPARE 1
#define WALRUS_PREPARE_QUEUE 16u
#define WALRUS_PREPARE_PAGE 4096u
#define WALRUS_PREPARE_PIECE (1u << 20) /* so that page faults of other threads come in between */

enum { WALRUS_PREPARE_NONE, WALRUS_PREPARE_RUNS, WALRUS_PREPARE_CANNOT };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct {
        uintptr_t at;
        size_t length;
    } waiting[WALRUS_PREPARE_QUEUE];
    unsigned first, count;
    int state, watches_forks;
} walrus_preparer = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* Returns 0, or the error after which the rest of the range is left alone. */
static int walrus_prepare_range(uintptr_t at, size_t length)
{
    while (length > 0) {
        size_t piece = length < WALRUS_PREPARE_PIECE ? length : WALRUS_PREPARE_PIECE;
        if (madvise((void *)at, piece, MADV_POPULATE_WRITE) != 0)
            return errno;
        at += piece;
        length -= piece;
    }
    return 0;
}

static void *walrus_prepare_run(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&walrus_preparer.lock);
    for (;;) {
        while (walrus_preparer.count == 0)
            pthread_cond_wait(&walrus_preparer.wake, &walrus_preparer.lock);
        uintptr_t at = walrus_preparer.waiting[walrus_preparer.first].at;
        size_t length = walrus_preparer.waiting[walrus_preparer.first].length;
        walrus_preparer.first = (walrus_preparer.first + 1) % WALRUS_PREPARE_QUEUE;
        walrus_preparer.count--;
        pthread_mutex_unlock(&walrus_preparer.lock);
        int error = walrus_prepare_range(at, length);
        pthread_mutex_lock(&walrus_preparer.lock);
        if (error == EINVAL) {
            /* A kernel without the call, or a map that cannot be written: never again. */
            walrus_preparer.state = WALRUS_PREPARE_CANNOT;
            pthread_mutex_unlock(&walrus_preparer.lock);
            return NULL;
        }
    }
}

/* A forked child has no such thread, and the lock may be held by it. */
static void walrus_prepare_in_child(void)
{
    pthread_mutex_init(&walrus_preparer.lock, NULL);
    pthread_cond_init(&walrus_preparer.wake, NULL);
    walrus_preparer.count = 0;
    if (walrus_preparer.state == WALRUS_PREPARE_RUNS)
        walrus_preparer.state = WALRUS_PREPARE_NONE;
}

/* Start the thread, with every signal blocked: they are for the threads of Python. */
static void walrus_prepare_start(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;

    if (!walrus_preparer.watches_forks && pthread_atfork(NULL, NULL, walrus_prepare_in_child) != 0)
        return;
    walrus_preparer.watches_forks = 1;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, &attributes, walrus_prepare_run, NULL) == 0)
        walrus_preparer.state = WALRUS_PREPARE_RUNS;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* Ask for the pages of [at, at + length), which must be reserved in their file. Does not wait. */
static void walrus_prepare(const void *start, size_t length)
{
    uintptr_t at = ((uintptr_t)start + WALRUS_PREPARE_PAGE - 1) & ~(uintptr_t)(WALRUS_PREPARE_PAGE - 1);
    uintptr_t end = ((uintptr_t)start + length) & ~(uintptr_t)(WALRUS_PREPARE_PAGE - 1);

    if (at >= end)
        return;
    pthread_mutex_lock(&walrus_preparer.lock);
    if (walrus_preparer.state == WALRUS_PREPARE_NONE)
        walrus_prepare_start();
    if (walrus_preparer.state == WALRUS_PREPARE_RUNS && walrus_preparer.count < WALRUS_PREPARE_QUEUE) {
        unsigned place = (walrus_preparer.first + walrus_preparer.count) % WALRUS_PREPARE_QUEUE;
        walrus_preparer.waiting[place].at = at;
        walrus_preparer.waiting[place].length = end - at;
        walrus_preparer.count++;
        pthread_cond_signal(&walrus_preparer.wake);
    }
    pthread_mutex_unlock(&walrus_preparer.lock);
}

#else

#define WALRUS_HAS_PREPARE 0

static inline void walrus_prepare(const void *start, size_t length) { (void)start, (void)length; }

#endif
#endif
