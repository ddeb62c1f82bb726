/* The threads that run kernels: one pool in a process, made when it is first needed.

A thread that waits spins first, since the next call comes within microseconds, and then sleeps. Where the pool may have
every processor of the process, each helper is pinned to its own: woken on the caller's, it would wait for the caller
to stop spinning. A second caller while the pool is busy runs its calls alone, with the same bits. A forked child has
no helpers, and makes its own. */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#ifdef __linux__
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define MOST_THREADS 256
#define SPIN_NANOSECONDS 50000

static struct {
    pthread_mutex_t busy; /* held by the caller whose calls are run */
    long threads;         /* that are wanted, the caller among them */
    long helpers;         /* that there are */
    pthread_t helper[MOST_THREADS];
    int processor[MOST_THREADS]; /* a helper's own, -1 if it has none; the caller is number 0 */
    const struct tg_call *calls; /* what helpers are to run; NULL tells them to end */
    long count;
    unsigned round __attribute__((aligned(64)));    /* how often helpers were given something */
    unsigned arrived __attribute__((aligned(64)));  /* how many threads have done their part of a call */
    unsigned phase __attribute__((aligned(64)));    /* how often all had */
    unsigned sleepers __attribute__((aligned(64))); /* how many threads sleep, or are about to */
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER, .threads = 1};

/* ---- waiting */

static long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static inline void breathe(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#ifdef __linux__

static void sleep_while(unsigned *word, unsigned old)
{
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == old)
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
}

static void wake_all(unsigned *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void after_fork(void) {}

#else

static pthread_mutex_t asleep = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;

static void sleep_while(unsigned *word, unsigned old)
{
    pthread_mutex_lock(&asleep);
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == old)
        pthread_cond_wait(&woken, &asleep);
    pthread_mutex_unlock(&asleep);
}

static void wake_all(unsigned *word)
{
    pthread_mutex_lock(&asleep);
    pthread_cond_broadcast(&woken);
    pthread_mutex_unlock(&asleep);
}

static void after_fork(void)
{
    pthread_mutex_init(&asleep, NULL);
    pthread_cond_init(&woken, NULL);
}

#endif

static void wait_while(unsigned *word, unsigned old)
{
    for (long begin = 0, turn = 1;; turn++) {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != old)
            return;
        breathe();
        if (turn % 64 == 0) {
            long now = nanoseconds();
            if (!begin)
                begin = now;
            else if (now - begin > SPIN_NANOSECONDS)
                break;
        }
    }
    __atomic_fetch_add(&pool.sleepers, 1, __ATOMIC_SEQ_CST);
    sleep_while(word, old);
    __atomic_fetch_sub(&pool.sleepers, 1, __ATOMIC_SEQ_CST);
}

/* Change a word; a sleeper either sees the change or is seen here. */
static void change(unsigned *word)
{
    __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool.sleepers, __ATOMIC_SEQ_CST))
        wake_all(word);
}

/* ---- working */

static inline int is_for_one(const struct tg_call *call)
{
    return call->serial || call->units <= 1;
}

static void work(const struct tg_call *calls, long count, long number, long threads)
{
    for (long i = 0; i < count; i++) {
        const struct tg_call *call = calls + i;
        int one = is_for_one(call);
        if (!one) {
            long begin = call->units * number / threads, end = call->units * (number + 1) / threads;
            if (begin < end)
                call->kernel(call->arguments, begin, end);
        } else if (number == 0) {
            call->kernel(call->arguments, 0, call->units);
        }
        if (threads > 1 && !(one && i + 1 < count && is_for_one(call + 1))) {
            unsigned phase = __atomic_load_n(&pool.phase, __ATOMIC_ACQUIRE);
            if (__atomic_add_fetch(&pool.arrived, 1, __ATOMIC_ACQ_REL) == threads) {
                __atomic_store_n(&pool.arrived, 0, __ATOMIC_RELAXED);
                change(&pool.phase);
            } else {
                wait_while(&pool.phase, phase);
            }
        }
    }
}

static void *help(void *given)
{
    long number = (long)given;
    for (unsigned seen = 0;; seen++) {
        wait_while(&pool.round, seen);
        if (!pool.calls)
            return NULL;
        work(pool.calls, pool.count, number, pool.helpers + 1);
    }
}

/* ---- the pool's life; all of it by whoever holds `busy` */

static void after_fork_in_child(void)
{
    pthread_mutex_init(&pool.busy, NULL);
    pool.helpers = 0;
    pool.arrived = pool.phase = pool.sleepers = 0;
    after_fork();
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork_in_child);
}

#ifdef __linux__

/* Give each thread a processor, if there is just one for each: beside another pool on a part of them, pins only harm. */
static void choose_processors(void)
{
    cpu_set_t may;
    int whole = !sched_getaffinity(0, sizeof may, &may) && CPU_COUNT(&may) == pool.threads;
    for (int cpu = 0, n = 0; whole && cpu < CPU_SETSIZE && n < MOST_THREADS; cpu++)
        if (CPU_ISSET(cpu, &may))
            pool.processor[n++] = cpu;
    for (int n = 0; !whole && n < MOST_THREADS; n++)
        pool.processor[n] = -1;
}

static void pin(pthread_t thread, int processor)
{
    cpu_set_t own;
    if (processor < 0)
        return;
    CPU_ZERO(&own);
    CPU_SET(processor, &own);
    pthread_setaffinity_np(thread, sizeof own, &own);
}

/* Leave a helper's processor to it. The caller belongs to somebody else: it is moved, not pinned. */
static void step_aside(void)
{
    int here = sched_getcpu();
    for (long n = 1; n <= pool.helpers; n++)
        if (here >= 0 && pool.processor[n] == here) {
            cpu_set_t before;
            if (pthread_getaffinity_np(pthread_self(), sizeof before, &before))
                return;
            pin(pthread_self(), pool.processor[0]);
            pthread_setaffinity_np(pthread_self(), sizeof before, &before);
            return;
        }
}

#else

static void choose_processors(void) {}
static void pin(pthread_t thread, int processor) {}
static void step_aside(void) {}

#endif

static void start_helpers(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pool.round = 0; /* nobody waits for it */
    choose_processors();
    sigset_t all, before; /* signals are for the threads that were there */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.helpers + 1 < pool.threads) {
        long number = pool.helpers + 1;
        if (pthread_create(&pool.helper[number], NULL, help, (void *)number)) {
            pool.threads = number; /* no more to be had: that many it is */
            break;
        }
        pin(pool.helper[number], pool.processor[number]);
        pool.helpers = number;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void end_helpers(void)
{
    if (!pool.helpers)
        return;
    pool.calls = NULL;
    change(&pool.round);
    for (long n = 1; n <= pool.helpers; n++)
        pthread_join(pool.helper[n], NULL);
    pool.helpers = 0;
}

void tg_use_threads(long threads)
{
    pthread_mutex_lock(&pool.busy);
    end_helpers();
    pool.threads = threads < 1 ? 1 : threads < MOST_THREADS ? threads : MOST_THREADS;
    pthread_mutex_unlock(&pool.busy);
}

long tg_threads(void)
{
    return pool.threads;
}

void tg_run(const struct tg_call *calls, long count)
{
    int one = 1;
    for (long i = 0; i < count && one; i++)
        one = is_for_one(calls + i);
    if (one || pthread_mutex_trylock(&pool.busy)) {
        work(calls, count, 0, 1);
        return;
    }
    if (pool.helpers + 1 < pool.threads)
        start_helpers();
    if (pool.helpers) {
        step_aside();
        pool.calls = calls;
        pool.count = count;
        change(&pool.round);
    }
    work(calls, count, 0, pool.helpers + 1);
    pthread_mutex_unlock(&pool.busy);
}

/* ---- scratch */

static __thread struct {
    void *at;
    long bytes;
} scratch;

static pthread_key_t scratch_key;

static void watch_ends(void)
{
    pthread_key_create(&scratch_key, free);
}

void *tg_scratch(long bytes)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (scratch.bytes < bytes) {
        pthread_once(&once, watch_ends);
        free(scratch.at);
        scratch.bytes = (bytes + 4095) / 4096 * 4096;
        if (posix_memalign(&scratch.at, 64, scratch.bytes)) {
            fprintf(stderr, "telegrad: no room for %ld bytes of scratch memory\n", bytes);
            abort();
        }
        pthread_setspecific(scratch_key, scratch.at);
    }
    return scratch.at;
}
