/* A pool of threads that run the iterations of a loop.
 *
 * The workers have one loop at a time; a caller that comes meanwhile runs its own alone. Iterations
 * are claimed one by one from a shared counter, by the caller too, so a worker that wakes up late
 * costs nothing: the caller closes the loop when the counter has run out and waits only for those
 * that joined it. Everything a loop needs is guarded by the word `state`:
 *
 *   bits 16..63  number of the loop
 *   bit  15      open: workers may join
 *   bits 0..14   workers that joined and have not left
 *
 * Idle workers watch `state` for a moment, since a network is a rapid series of loops, and then
 * sleep. fork() takes only the calling thread into the child: the owner's process id tells, and the
 * first loop there makes new locks and workers. */
#include "base/base.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { CACHE_LINE = 64, THREAD_LIMIT = 4096 };

#define STATE_OPEN   ((uint64_t)1 << 15)
#define STATE_ACTIVE (STATE_OPEN - 1)
#define STATE_LOOP   ((uint64_t)1 << 16)

/* How long an idle thread watches before it sleeps. */
static const double WATCH_SECONDS = 50e-6;

typedef struct worker {
    thread_pool *pool;
    pthread_t thread;
    unsigned number; /* 1.. ; 0 is the caller */
    bool started;
} worker;

struct thread_pool {
    unsigned size;
    worker *workers;     /* size - 1 of them */
    bool may_watch;      /* no more threads than CPUs */
    _Atomic pid_t owner; /* the process whose threads these are; negative: it is making them */

    pthread_mutex_t turn; /* held by the caller whose loop the workers run */
    pthread_mutex_t lock; /* for sleeping and waking */
    pthread_cond_t work, finished;
    atomic_uint sleepers; /* workers in pthread_cond_wait(work), or about to */
    atomic_bool caller_sleeps, stop;

    /* The loop: written before it is opened, constant until every worker has left. */
    thread_pool_task task;
    void *context;
    size_t count;

    _Alignas(CACHE_LINE) _Atomic uint64_t state;
    _Alignas(CACHE_LINE) atomic_size_t next;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void claim_iterations(thread_pool *pool, unsigned number)
{
    while (atomic_load_explicit(&pool->next, memory_order_relaxed) < pool->count) {
        size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->count) {
            break;
        }
        pool->task(pool->context, index, number);
    }
}

/* ---- workers ------------------------------------------------------------------------------ */

/* Joins the open loop unless it is `*seen` (where the worker was already). */
static bool try_join(thread_pool *pool, uint64_t *seen)
{
    uint64_t state = atomic_load(&pool->state);
    while ((state & STATE_OPEN) != 0 && state / STATE_LOOP != *seen) {
        if (atomic_compare_exchange_weak(&pool->state, &state, state + 1)) {
            *seen = state / STATE_LOOP;
            return true;
        }
    }
    return false;
}

static void leave(thread_pool *pool)
{
    uint64_t state = atomic_fetch_sub(&pool->state, 1) - 1;
    if ((state & (STATE_OPEN | STATE_ACTIVE)) == 0 && atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->finished);
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Waits for a loop and joins it; false when the pool ends. */
static bool wait_and_join(thread_pool *pool, uint64_t *seen)
{
    if (pool->may_watch) {
        double end = monotonic_seconds() + WATCH_SECONDS;
        do {
            for (int i = 0; i < 64; ++i) {
                if (try_join(pool, seen)) {
                    return true;
                }
                relax();
            }
        } while (!atomic_load(&pool->stop) && monotonic_seconds() < end);
    }
    bool joined = false;
    pthread_mutex_lock(&pool->lock);
    /* The caller opens its loop, then looks for sleepers; we count ourselves, then look for an open
     * loop. Both in sequentially consistent order, so one of us sees the other. */
    atomic_fetch_add(&pool->sleepers, 1);
    while (!atomic_load(&pool->stop) && !(joined = try_join(pool, seen))) {
        pthread_cond_wait(&pool->work, &pool->lock);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return joined;
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    thread_pool *pool = self->pool;
    uint64_t seen = 0;
    while (wait_and_join(pool, &seen)) {
        claim_iterations(pool, self->number);
        leave(pool);
    }
    return NULL;
}

/* ---- starting and ending ------------------------------------------------------------------ */

static void start_state(thread_pool *pool)
{
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    atomic_store(&pool->sleepers, 0);
    atomic_store(&pool->caller_sleeps, false);
    atomic_store(&pool->stop, false);
    atomic_store(&pool->next, 0);
    atomic_store(&pool->state, 0);
    for (unsigned i = 0; i + 1 < pool->size; ++i) {
        pool->workers[i].started = false;
    }
}

/* The error number of the first thread that could not be started, or 0. */
static int start_workers(thread_pool *pool)
{
    /* Signals are the program's own business: none is delivered to a worker. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int reason = 0;
    for (unsigned i = 0; i + 1 < pool->size && reason == 0; ++i) {
        worker *made = &pool->workers[i];
        *made = (worker){.pool = pool, .number = i + 1};
        reason = pthread_create(&made->thread, NULL, worker_main, made);
        made->started = reason == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return reason;
}

static void stop_workers(thread_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i + 1 < pool->size; ++i) {
        if (pool->workers[i].started) {
            pthread_join(pool->workers[i].thread, NULL);
        }
    }
}

static void free_pool(thread_pool *pool)
{
    if (pool != NULL) {
        memory_free(pool->workers);
        memory_free_aligned(pool, sizeof *pool);
    }
}

onestep_status thread_pool_create(thread_pool **pool, unsigned threads, onestep_error *error)
{
    *pool = NULL;
    if (threads == 0) {
        threads = (unsigned)size_minimum(thread_default_count(), THREAD_LIMIT);
    }
    if (threads > THREAD_LIMIT) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT, "threads: %u is more than %d", threads,
                         THREAD_LIMIT);
    }
    thread_pool *made = memory_allocate_aligned(sizeof *made, error);
    if (made == NULL) {
        return ONESTEP_ERROR_MEMORY;
    }
    memset(made, 0, sizeof *made);
    made->size = threads;
    made->may_watch = threads <= thread_default_count();
    made->workers = memory_allocate(threads - 1, sizeof *made->workers, error);
    if (made->workers == NULL) {
        free_pool(made);
        return ONESTEP_ERROR_MEMORY;
    }
    start_state(made);
    atomic_store(&made->owner, getpid());
    int reason = start_workers(made);
    if (reason != 0) {
        thread_pool_destroy(&made);
        errno = reason;
        return error_set(error, ONESTEP_ERROR_MEMORY,
                         "threads: %u cannot be started: %m; ask for fewer", threads);
    }
    *pool = made;
    return ONESTEP_OK;
}

void thread_pool_destroy(thread_pool **pool)
{
    thread_pool *ended = *pool;
    if (ended == NULL) {
        return;
    }
    /* In a forked child that never ran a loop there are no workers to end, and the locks may be
     * held by threads that are not there. */
    if (atomic_load(&ended->owner) == getpid()) {
        stop_workers(ended);
        pthread_cond_destroy(&ended->work);
        pthread_cond_destroy(&ended->finished);
        pthread_mutex_destroy(&ended->lock);
        pthread_mutex_destroy(&ended->turn);
    }
    free_pool(ended);
    *pool = NULL;
}

unsigned thread_pool_size(const thread_pool *pool)
{
    return pool->size;
}

/* After fork(): the first caller in the child makes new locks and workers, others wait for it. */
static void adopt(thread_pool *pool)
{
    pid_t self = getpid();
    pid_t owner = atomic_load(&pool->owner);
    while (owner != self) {
        if (owner == -self) {
            sched_yield();
            owner = atomic_load(&pool->owner);
        } else if (atomic_compare_exchange_strong(&pool->owner, &owner, -self)) {
            start_state(pool);
            /* With fewer workers, or none, loops are slower and still complete. */
            (void)start_workers(pool);
            atomic_store(&pool->owner, self);
            owner = self;
        }
    }
}

/* ---- running ------------------------------------------------------------------------------ */

static void open_loop(thread_pool *pool)
{
    uint64_t state = atomic_load(&pool->state);
    atomic_store(&pool->state, (state / STATE_LOOP + 1) * STATE_LOOP | STATE_OPEN);
    unsigned sleepers = atomic_load(&pool->sleepers);
    if (sleepers > 0) {
        size_t wanted = pool->count - 1;
        pthread_mutex_lock(&pool->lock);
        if (wanted >= sleepers) {
            pthread_cond_broadcast(&pool->work);
        } else {
            for (size_t i = 0; i < wanted; ++i) {
                pthread_cond_signal(&pool->work);
            }
        }
        pthread_mutex_unlock(&pool->lock);
    }
}

/* Lets no more workers in and waits for those inside. */
static void close_loop(thread_pool *pool)
{
    uint64_t state = atomic_fetch_and(&pool->state, ~STATE_OPEN);
    if ((state & STATE_ACTIVE) == 0) {
        return;
    }
    if (pool->may_watch) {
        double end = monotonic_seconds() + WATCH_SECONDS;
        do {
            for (int i = 0; i < 64; ++i) {
                if ((atomic_load(&pool->state) & STATE_ACTIVE) == 0) {
                    return;
                }
                relax();
            }
        } while (monotonic_seconds() < end);
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while ((atomic_load(&pool->state) & STATE_ACTIVE) != 0) {
        pthread_cond_wait(&pool->finished, &pool->lock);
    }
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

void thread_pool_run(thread_pool *pool, size_t count, thread_pool_task task, void *context)
{
    if (count == 0) {
        return;
    }
    adopt(pool);
    /* Two callers at once keep the CPUs busy by themselves: handing the workers from one to the
     * other would only cost. */
    if (count == 1 || pool->size == 1 || pthread_mutex_trylock(&pool->turn) != 0) {
        for (size_t i = 0; i < count; ++i) {
            task(context, i, 0);
        }
        return;
    }
    pool->task = task;
    pool->context = context;
    pool->count = count;
    atomic_store(&pool->next, 0);
    open_loop(pool);
    claim_iterations(pool, 0);
    close_loop(pool);
    pthread_mutex_unlock(&pool->turn);
}
