#include "base/base.h"
#include "support/allocation_failure.h"
#include "support/check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* ThreadSanitizer cannot follow a forked child that starts threads: those tests are skipped. */
#if defined(__SANITIZE_THREAD__)
#define FORK_IS_TESTED 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FORK_IS_TESTED 0
#endif
#endif
#ifndef FORK_IS_TESTED
#define FORK_IS_TESTED 1
#endif

enum { LARGEST = 5000, WORKERS = 64 };

typedef struct loop {
    unsigned size;
    atomic_uint runs[LARGEST];   /* of each index */
    atomic_uint inside[WORKERS]; /* iterations of each worker that run now */
    atomic_uint wrong;
    size_t plain[LARGEST]; /* written by whoever runs the index, read by the caller */
} loop;

static void count_iteration(void *context, size_t index, unsigned worker)
{
    loop *counted = context;
    if (worker >= counted->size || atomic_fetch_add(&counted->inside[worker], 1) != 0) {
        atomic_fetch_add(&counted->wrong, 1);
    }
    atomic_fetch_add(&counted->runs[index], 1);
    counted->plain[index] += index + 1;
    atomic_fetch_sub(&counted->inside[worker], 1);
}

/* Runs a loop and returns whether each index ran once. */
static bool run_and_check_with(loop *counted, thread_pool *pool, size_t count)
{
    memset(counted, 0, sizeof *counted);
    counted->size = thread_pool_size(pool);
    thread_pool_run(pool, count, count_iteration, counted);
    bool right = counted->wrong == 0;
    for (size_t i = 0; i < LARGEST; ++i) {
        right = right && counted->runs[i] == (i < count) &&
                counted->plain[i] == (i < count ? i + 1 : 0);
    }
    return right;
}

static bool run_and_check(thread_pool *pool, size_t count)
{
    loop *counted = malloc(sizeof *counted);
    bool right = counted != NULL && run_and_check_with(counted, pool, count);
    free(counted);
    return right;
}

static void each_index_runs_once(void **state)
{
    (void)state;
    const unsigned sizes[] = {1, 2, 3, 7, 33};
    const size_t counts[] = {0, 1, 2, 3, 6, 7, 8, 100, LARGEST};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
        thread_pool *pool;
        assert_int_equal(thread_pool_create(&pool, sizes[s], NULL), ONESTEP_OK);
        assert_int_equal(thread_pool_size(pool), sizes[s]);
        for (int repeat = 0; repeat < 20; ++repeat) {
            for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
                assert_true(run_and_check(pool, counts[c]));
            }
        }
        thread_pool_destroy(&pool);
        assert_null(pool);
    }
    thread_pool *none = NULL;
    thread_pool_destroy(&none);
}

static void sleeping_workers_wake(void **state)
{
    (void)state;
    thread_pool *pool;
    assert_int_equal(thread_pool_create(&pool, 4, NULL), ONESTEP_OK);
    for (int i = 0; i < 100; ++i) {
        usleep(i % 5 * 100);
        assert_true(run_and_check(pool, 50));
    }
    thread_pool_destroy(&pool);
}

/* Every worker takes part when no iteration can end before all have begun. */
typedef struct meeting {
    atomic_uint arrived;
    unsigned expected;
} meeting;

static void meet(void *context, size_t index, unsigned worker)
{
    (void)index;
    (void)worker;
    meeting *here = context;
    atomic_fetch_add(&here->arrived, 1);
    while (atomic_load(&here->arrived) < here->expected) {
        usleep(10);
    }
}

static void all_workers_take_part(void **state)
{
    (void)state;
    for (unsigned size = 2; size <= 9; ++size) {
        thread_pool *pool;
        assert_int_equal(thread_pool_create(&pool, size, NULL), ONESTEP_OK);
        for (int i = 0; i < 10; ++i) {
            usleep(i % 2 * 300);
            meeting here = {.expected = size};
            thread_pool_run(pool, size, meet, &here);
            assert_int_equal(here.arrived, size);
        }
        thread_pool_destroy(&pool);
    }
}

/* A thread that runs loops; it allocates nothing (a sanitizer's allocator does not survive a fork
 * in another thread). */
typedef struct looper {
    thread_pool *pool;
    loop counted;
    bool right;
} looper;

static void *run_loops(void *argument)
{
    looper *self = argument;
    self->right = true;
    for (size_t i = 0; i < 200; ++i) {
        self->right = self->right && run_and_check_with(&self->counted, self->pool, i * 3);
    }
    return NULL;
}

static void start_looper(pthread_t *thread, looper **made, thread_pool *pool)
{
    *made = calloc(1, sizeof **made);
    assert_non_null(*made);
    (*made)->pool = pool;
    assert_int_equal(pthread_create(thread, NULL, run_loops, *made), 0);
}

static void end_looper(pthread_t thread, looper *ended)
{
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(ended->right);
    free(ended);
}

static void several_callers_share_a_pool(void **state)
{
    (void)state;
    thread_pool *pool;
    assert_int_equal(thread_pool_create(&pool, 3, NULL), ONESTEP_OK);
    pthread_t threads[4];
    looper *loopers[4];
    for (int i = 0; i < 4; ++i) {
        start_looper(&threads[i], &loopers[i], pool);
    }
    for (int i = 0; i < 4; ++i) {
        end_looper(threads[i], loopers[i]);
    }
    thread_pool_destroy(&pool);
}

/* The exit code of a child in which `several` threads use the pool. */
static int run_in_child(thread_pool *pool, bool several)
{
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        bool right = true;
        pthread_t thread;
        looper *other;
        if (several) {
            start_looper(&thread, &other, pool);
        }
        for (size_t i = 0; i < 20; ++i) {
            right = right && run_and_check(pool, i * 10);
        }
        if (several) {
            end_looper(thread, other);
        }
        thread_pool_destroy(&pool);
        _exit(right ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void a_forked_child_starts_afresh(void **state)
{
    (void)state;
    if (!FORK_IS_TESTED) {
        skip();
    }
    thread_pool *pool;
    assert_int_equal(thread_pool_create(&pool, 3, NULL), ONESTEP_OK);
    assert_int_equal(run_in_child(pool, false), 0); /* before any loop */
    assert_true(run_and_check(pool, 100));
    assert_int_equal(run_in_child(pool, true), 0); /* after one */
    /* While another thread's loops hold the locks. */
    for (int i = 0; i < 10; ++i) {
        pthread_t thread;
        looper *other;
        start_looper(&thread, &other, pool);
        int status = run_in_child(pool, false);
        end_looper(thread, other);
        assert_int_equal(status, 0);
    }
    assert_true(run_and_check(pool, 100));
    /* A child that never uses the pool may destroy it; a grandchild starts afresh too. */
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        int status = run_in_child(pool, false);
        thread_pool_destroy(&pool);
        _exit(status == 0 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    thread_pool_destroy(&pool);
}

static void default_size(void **state)
{
    (void)state;
    thread_pool *pool;
    assert_int_equal(thread_pool_create(&pool, 0, NULL), ONESTEP_OK);
    assert_int_equal(thread_pool_size(pool), thread_default_count());
    assert_true(run_and_check(pool, 1000));
    thread_pool_destroy(&pool);
    onestep_error error;
    assert_int_equal(thread_pool_create(&pool, 1000000, &error), ONESTEP_ERROR_ARGUMENT);
    assert_string_equal(error.message, "threads: 1000000 is more than 4096");
    assert_null(pool);
}

static void creation_fails_cleanly(void **state)
{
    (void)state;
    bool failed;
    size_t n = 1;
    do {
        thread_pool *pool;
        onestep_error error = {0};
        allocation_failure_start(n++);
        onestep_status status = thread_pool_create(&pool, 5, &error);
        failed = allocation_failure_stop();
        if (status != ONESTEP_OK) {
            assert_true(failed);
            assert_null(pool);
            assert_int_equal(status, ONESTEP_ERROR_MEMORY);
            assert_int_equal(error.code, ONESTEP_ERROR_MEMORY);
        } else {
            assert_true(run_and_check(pool, 100));
        }
        thread_pool_destroy(&pool);
    } while (failed);
    assert_true(n > 6);
}

static void loops_complete_without_workers(void **state)
{
    (void)state;
    if (!FORK_IS_TESTED) {
        skip();
    }
    /* A child whose threads cannot be started has the caller alone. */
    thread_pool *pool;
    assert_int_equal(thread_pool_create(&pool, 3, NULL), ONESTEP_OK);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        loop *counted = calloc(1, sizeof *counted);
        counted->size = 3;
        allocation_failure_start(1);
        thread_pool_run(pool, 100, count_iteration, counted);
        bool right = allocation_failure_stop() && counted->wrong == 0;
        for (size_t i = 0; i < 100; ++i) {
            right = right && counted->runs[i] == 1;
        }
        free(counted);
        thread_pool_destroy(&pool);
        _exit(right ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    thread_pool_destroy(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_index_runs_once),
        cmocka_unit_test(sleeping_workers_wake),
        cmocka_unit_test(all_workers_take_part),
        cmocka_unit_test(several_callers_share_a_pool),
        cmocka_unit_test(a_forked_child_starts_afresh),
        cmocka_unit_test(default_size),
        cmocka_unit_test(creation_fails_cleanly),
        cmocka_unit_test(loops_complete_without_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
