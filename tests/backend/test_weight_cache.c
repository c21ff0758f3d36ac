/* The weight cache: keys, limits, failures, threads. */
#include "support.h"
#include "support/allocation_failure.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What an entry costs beyond its packed form. */
#define EXTRA 64

typedef struct packing {
    atomic_uint calls;
    unsigned fail_every; /* 0: never */
    unsigned microseconds;
} packing;

/* The packed form: the weight's address, then the scalar, as often as fits. */
static onestep_status pack(void *context, const weight_expression *weight, const float *scalars,
                           void *packed, onestep_error *error)
{
    packing *p = context;
    unsigned call = atomic_fetch_add(&p->calls, 1) + 1;
    if (p->microseconds) {
        usleep(p->microseconds);
    }
    if (p->fail_every && call % p->fail_every == 0) {
        return error_set(error, ONESTEP_ERROR_FORMAT, "weight %s is bad", weight->name);
    }
    memcpy(packed, &weight, sizeof weight);
    memcpy((uint8_t *)packed + sizeof weight, scalars, sizeof *scalars);
    return ONESTEP_OK;
}

static weight_expression plain(const char *name)
{
    return (weight_expression){.name = name, .dims = {2, 2, 1, 1}};
}

static weight_cache *new_cache(size_t limit)
{
    weight_cache *cache = NULL;
    assert_ok(weight_cache_create(&cache, limit, error));
    return cache;
}

static const float gammas[] = {0, 1};

/* Acquires with format 1 and 128 bytes. */
static const void *take(weight_cache *cache, const weight_expression *w, packing *p)
{
    const void *packed = NULL;
    assert_ok(weight_cache_acquire(cache, w, 1, 128, gammas, pack, p, &packed, error));
    const weight_expression *seen;
    memcpy(&seen, packed, sizeof seen);
    assert_ptr_equal(seen, w);
    return packed;
}

static void touch(weight_cache *cache, const weight_expression *w, packing *p)
{
    weight_cache_release(cache, take(cache, w, p));
}

static void test_packs_once(void **state)
{
    (void)state;
    weight_cache *cache = new_cache(SIZE_MAX);
    weight_expression a = plain("a");
    packing p = {0};
    const void *first = take(cache, &a, &p), *second = take(cache, &a, &p);
    assert_ptr_equal(first, second);
    assert_int_equal((uintptr_t)first % 64, 0);
    weight_cache_release(cache, first);
    weight_cache_release(cache, second);
    assert_ptr_equal(take(cache, &a, &p), first);
    weight_cache_release(cache, first);
    assert_int_equal(p.calls, 1);
    assert_int_equal(weight_cache_bytes(cache), 128 + EXTRA);
    weight_cache_release(cache, NULL);
    weight_cache_destroy(&cache);
    assert_null(cache);
    weight_cache_destroy(&cache);
}

static void test_key(void **state)
{
    (void)state;
    weight_cache *cache = new_cache(SIZE_MAX);
    weight_expression fixed = plain("fixed"), bound = plain("bound");
    bound.term_count = 1;
    bound.terms[0].scale = (coefficient){0, 1, SCALAR_GAMMA};
    packing p = {0};
    for (int round = 0; round < 2; round++) {
        for (uint64_t format = 0; format < 3; format++) {
            for (int gamma = 0; gamma < 2; gamma++) {
                const weight_expression *both[] = {&fixed, &bound};
                for (int k = 0; k < 2; k++) {
                    const void *packed;
                    float seen;
                    assert_ok(weight_cache_acquire(cache, both[k], format, 64, &gammas[gamma], pack,
                                                   &p, &packed, error));
                    memcpy(&seen, (const uint8_t *)packed + sizeof(void *), sizeof seen);
                    assert_true(k == 0 || seen == gammas[gamma]);
                    weight_cache_release(cache, packed);
                }
            }
        }
        assert_int_equal(p.calls, 3 + 3 * 2);
    }
    weight_cache_destroy(&cache);
}

/* What is asked for once leaves its memory to the next, even to a smaller one; what is asked for
 * again stays from then on, and so does what two hold at the same time. */
static void test_keeps_what_is_asked_for_again(void **state)
{
    (void)state;
    weight_cache *cache = new_cache(SIZE_MAX);
    weight_cache_keep_repeated(cache, true);
    weight_expression a = plain("a"), b = plain("b"), c = plain("c");
    packing p = {0};
    const void *first = take(cache, &a, &p);
    weight_cache_release(cache, first);
    assert_int_equal(weight_cache_bytes(cache), 0);
    const void *smaller;
    assert_ok(weight_cache_acquire(cache, &b, 1, 64, gammas, pack, &p, &smaller, error));
    assert_ptr_equal(smaller, first);
    weight_cache_release(cache, smaller);
    assert_int_equal(weight_cache_bytes(cache), 0);

    touch(cache, &a, &p);
    assert_int_equal(p.calls, 3);
    assert_int_equal(weight_cache_bytes(cache), 128 + EXTRA);
    touch(cache, &a, &p);
    assert_int_equal(p.calls, 3);

    first = take(cache, &c, &p);
    touch(cache, &c, &p);
    weight_cache_release(cache, first);
    assert_int_equal(p.calls, 4);
    assert_int_equal(weight_cache_bytes(cache), 2 * (128 + EXTRA));
    weight_cache_destroy(&cache);
}

/* However many are asked for once, those asked for again are known and the others not taken for
 * them, but for a few. */
static void test_many_are_asked_for_once(void **state)
{
    (void)state;
    enum { COUNT = 40000, REPEATED = 100 };
    weight_cache *cache = new_cache(SIZE_MAX);
    weight_cache_keep_repeated(cache, true);
    weight_expression *many = calloc(COUNT, sizeof *many);
    assert_non_null(many);
    packing p = {0};
    for (int i = 0; i < COUNT; i++) {
        many[i] = plain("one of many");
        touch(cache, &many[i], &p);
    }
    assert_true(weight_cache_bytes(cache) < COUNT / 2 * (128 + EXTRA));
    weight_cache_set_limit(cache, 0);
    weight_cache_set_limit(cache, SIZE_MAX);
    for (int round = 0; round < 3; round++) {
        p.calls = 0;
        for (int i = 0; i < REPEATED; i++) {
            touch(cache, &many[i], &p);
        }
    }
    assert_int_equal(p.calls, 0);
    weight_cache_destroy(&cache);
    free(many);
}

/* Goes through all weights in order, as pictures do; returns how many had to be packed. */
static unsigned go_through(weight_cache *cache, const weight_expression *weights, int count)
{
    packing p = {0};
    for (int i = 0; i < count; i++) {
        touch(cache, &weights[i], &p);
    }
    return p.calls;
}

/* With room for 7 of 10 weights, 7 stay and 3 pass through. A weight that is used twice in a row
 * makes no difference. */
static void test_a_part_stays_within_the_limit(void **state)
{
    (void)state;
    weight_cache *cache = new_cache(7 * (128 + EXTRA));
    weight_expression weights[10], others[10];
    for (int i = 0; i < 10; i++) {
        weights[i] = plain("one of ten");
        others[i] = plain("of another model");
    }
    assert_int_equal(go_through(cache, weights, 10), 10);
    packing p = {0};
    for (int round = 0; round < 100; round++) {
        assert_int_equal(go_through(cache, weights, 10), 3);
        touch(cache, &weights[9], &p);
    }
    assert_int_equal(weight_cache_bytes(cache), 7 * (128 + EXTRA));
    /* What is not used any more gives way after two rounds. */
    assert_int_equal(go_through(cache, others, 10), 10);
    assert_true(go_through(cache, others, 10) > 4);
    go_through(cache, others, 10);
    go_through(cache, others, 10);
    for (int round = 0; round < 100; round++) {
        assert_in_range(go_through(cache, others, 10), 3, 4);
        touch(cache, &others[9], &p);
    }
    /* With room for all, nothing is packed twice. */
    weight_cache_set_limit(cache, SIZE_MAX);
    go_through(cache, others, 10);
    assert_int_equal(go_through(cache, others, 10), 0);
    weight_cache_set_limit(cache, 7 * (128 + EXTRA) - 1);
    assert_int_equal(weight_cache_bytes(cache), 6 * (128 + EXTRA));
    weight_cache_set_limit(cache, 128 + EXTRA - 1);
    assert_int_equal(weight_cache_bytes(cache), 0);
    weight_cache_destroy(&cache);
}

/* What is in use stays, whatever the limit, and goes when it is released. */
static void test_streaming(void **state)
{
    (void)state;
    weight_cache *cache = new_cache(0);
    weight_expression a = plain("a"), b = plain("b");
    packing p = {0};
    const void *first = take(cache, &a, &p), *other = take(cache, &b, &p);
    assert_ptr_equal(take(cache, &a, &p), first);
    assert_int_equal(weight_cache_bytes(cache), 2 * (128 + EXTRA));
    weight_cache_release(cache, first);
    weight_cache_release(cache, other);
    assert_int_equal(weight_cache_bytes(cache), 128 + EXTRA);
    weight_cache_release(cache, first);
    assert_int_equal(weight_cache_bytes(cache), 0);
    assert_int_equal(p.calls, 2);
    touch(cache, &a, &p);
    assert_int_equal(p.calls, 3);
    weight_cache_destroy(&cache);
}

static void test_failure_leaves_nothing(void **state)
{
    (void)state;
    weight_cache *cache = new_cache(SIZE_MAX);
    weight_expression a = plain("a");
    packing p = {.fail_every = 1};
    const void *packed = &p;
    onestep_error error = {0};
    assert_int_equal(weight_cache_acquire(cache, &a, 1, 128, gammas, pack, &p, &packed, &error),
                     ONESTEP_ERROR_FORMAT);
    assert_null(packed);
    assert_string_equal(error.message, "weight a is bad");
    assert_int_equal(weight_cache_bytes(cache), 0);
    p.fail_every = 0;
    touch(cache, &a, &p);
    assert_int_equal(p.calls, 2);
    assert_int_equal(
        weight_cache_acquire(cache, &a, 2, SIZE_MAX - 8, gammas, pack, &p, &packed, &error),
        ONESTEP_ERROR_MEMORY);
    assert_int_equal(weight_cache_bytes(cache), 128 + EXTRA);
    weight_cache_destroy(&cache);
}

static void test_many_entries(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    weight_cache *cache = new_cache(SIZE_MAX);
    weight_expression *all = calloc(COUNT, sizeof *all);
    assert_non_null(all);
    packing p = {0};
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            all[i].name = "one of many";
            touch(cache, &all[i], &p);
        }
    }
    assert_int_equal(p.calls, COUNT);
    assert_int_equal(weight_cache_bytes(cache), COUNT * (128 + EXTRA));
    weight_cache_destroy(&cache);
    free(all);
}

/* ---- memory -------------------------------------------------------------------------------------
 */

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    weight_expression a = plain("a"), b = plain("b");
    for (size_t n = 1;; n++) {
        weight_cache *cache = NULL;
        const void *first = NULL, *second = NULL;
        packing p = {0};
        onestep_error error = {0};
        allocation_failure_start(n);
        onestep_status status = weight_cache_create(&cache, SIZE_MAX, &error);
        if (status == ONESTEP_OK) {
            status = weight_cache_acquire(cache, &a, 1, 128, gammas, pack, &p, &first, &error);
        }
        if (status == ONESTEP_OK) {
            status = weight_cache_acquire(cache, &b, 1, 128, gammas, pack, &p, &second, &error);
        }
        bool failed = allocation_failure_stop();
        assert_int_equal(status, failed ? ONESTEP_ERROR_MEMORY : ONESTEP_OK);
        assert_true(!failed || error.message[0] != '\0');
        if (cache) {
            assert_int_equal(weight_cache_bytes(cache),
                             ((first ? 1 : 0) + (second ? 1 : 0)) * (128 + EXTRA));
            weight_cache_release(cache, first);
            weight_cache_release(cache, second);
            touch(cache, &b, &p);
        }
        weight_cache_destroy(&cache);
        if (!failed) {
            assert_true(n > 3);
            break;
        }
    }
}

/* When there is no memory for a new entry, what is not in use gives way. */
static void test_memory_comes_from_what_is_not_in_use(void **state)
{
    (void)state;
    weight_cache *cache = new_cache(SIZE_MAX);
    weight_expression a = plain("a"), b = plain("b"), c = plain("c");
    packing p = {0};
    touch(cache, &a, &p);
    const void *used = take(cache, &b, &p);
    allocation_failure_start(2); /* the entry, then its block */
    const void *packed = take(cache, &c, &p);
    assert_true(allocation_failure_stop());
    assert_int_equal(weight_cache_bytes(cache), 2 * (128 + EXTRA));
    weight_cache_release(cache, used);
    weight_cache_release(cache, packed);
    assert_int_equal(p.calls, 3);
    touch(cache, &a, &p);
    assert_int_equal(p.calls, 4);
    weight_cache_destroy(&cache);
}

/* Resident kilobytes of the mapping that begins at `start`. */
static long resident(const void *start)
{
    char line[512], wanted[32];
    snprintf(wanted, sizeof wanted, "%lx-", (unsigned long)(uintptr_t)start);
    FILE *maps = fopen("/proc/self/smaps", "r");
    assert_non_null(maps);
    long kilobytes = -1;
    bool inside = false;
    while (fgets(line, sizeof line, maps)) {
        inside = inside || strncmp(line, wanted, strlen(wanted)) == 0;
        if (inside && sscanf(line, "Rss: %ld", &kilobytes) == 1) {
            break;
        }
    }
    fclose(maps);
    return kilobytes;
}

static onestep_status pack_by_evaluation(void *context, const weight_expression *weight,
                                         const float *scalars, void *packed, onestep_error *error)
{
    (void)context;
    (void)error;
    weight_evaluate(weight, scalars, 0, weight->dims[0], packed);
    return ONESTEP_OK;
}

static void test_sources_are_released(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20 };
    char path[] = "/tmp/onestep-weights-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    unlink(path);
    assert_int_equal(ftruncate(file, BYTES), 0);
    void *data = mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE, file, 0);
    assert_true(data != MAP_FAILED);
    named_tensor full = {.name = "w",
                         .type = ELEMENT_F32,
                         .rank = 2,
                         .shape = {512, 512},
                         .data = data,
                         .bytes = BYTES,
                         .mapped = true};
    weight_expression w = {.name = "w",
                           .dims = {512, 512, 1, 1},
                           .term_count = 1,
                           .terms = {{.scale = coefficient_constant(1), .full = &full}}};
    for (int release = 0; release < 2; release++) {
        weight_cache *cache = new_cache(0);
        weight_cache_release_sources(cache, release);
        const void *packed;
        assert_ok(weight_cache_acquire(cache, &w, 1, BYTES, gammas, pack_by_evaluation, NULL,
                                       &packed, error));
        assert_int_equal(resident(data), release ? 0 : BYTES / 1024);
        weight_cache_release(cache, packed);
        weight_cache_destroy(&cache);
    }
    munmap(data, BYTES);
    close(file);
}

/* ---- threads ------------------------------------------------------------------------------- */

enum { THREADS = 6, WEIGHTS = 12 };

typedef struct crowd {
    weight_cache *cache;
    weight_expression weights[WEIGHTS];
    packing packing;
    atomic_uint mistakes, failures, turns;
    unsigned rounds;
} crowd;

static void *visitor(void *context)
{
    crowd *c = context;
    uint32_t random = 1 + atomic_fetch_add(&c->turns, 1);
    for (unsigned i = 0; i < c->rounds; i++) {
        random = random * 1664525u + 1013904223u;
        const weight_expression *w = &c->weights[random >> 16 & 7];
        float gamma = (float)(random >> 20 & 1);
        const void *packed = NULL;
        const weight_expression *seen;
        float seen_gamma;
        onestep_error error = {0};
        if (weight_cache_acquire(c->cache, w, 1, 128, &gamma, pack, &c->packing, &packed, &error) !=
            ONESTEP_OK) {
            atomic_fetch_add(&c->failures, 1);
            atomic_fetch_add(&c->mistakes, packed != NULL || error.code != ONESTEP_ERROR_FORMAT);
            continue;
        }
        memcpy(&seen, packed, sizeof seen);
        memcpy(&seen_gamma, (const uint8_t *)packed + sizeof seen, sizeof seen_gamma);
        atomic_fetch_add(&c->mistakes, seen != w || seen_gamma != gamma);
        if ((random & 15) == 0) {
            weight_cache_set_limit(c->cache, (random >> 8 & 7) * (128 + EXTRA));
        }
        weight_cache_release(c->cache, packed);
    }
    return NULL;
}

static void crowd_run(crowd *c, size_t limit, unsigned rounds, packing p)
{
    memset(c, 0, sizeof *c);
    c->cache = new_cache(limit);
    c->rounds = rounds;
    c->packing.fail_every = p.fail_every;
    c->packing.microseconds = p.microseconds;
    for (int i = 0; i < WEIGHTS; i++) {
        c->weights[i] = plain("crowded");
        c->weights[i].term_count = 1;
        c->weights[i].terms[0].scale = (coefficient){0, 1, SCALAR_GAMMA};
    }
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, visitor, c), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(c->mistakes, 0);
    weight_cache_set_limit(c->cache, 0);
    assert_int_equal(weight_cache_bytes(c->cache), 0);
    weight_cache_destroy(&c->cache);
}

static void test_threads(void **state)
{
    (void)state;
    crowd c;
    crowd_run(&c, 5 * (128 + EXTRA), 3000, (packing){0});
    assert_int_equal(c.failures, 0);
}

static void test_threads_and_failures(void **state)
{
    (void)state;
    crowd c;
    crowd_run(&c, 3 * (128 + EXTRA), 500, (packing){.fail_every = 3, .microseconds = 20});
    /* Who waited for an entry whose packing failed tried for itself: one failure a failed call. */
    assert_int_equal(c.failures, c.packing.calls / 3);
}

/* All want the same at the same time: one packs, the others wait. */
static void *late_visitor(void *context)
{
    crowd *c = context;
    const void *packed = NULL;
    if (weight_cache_acquire(c->cache, &c->weights[0], 1, 128, gammas, pack, &c->packing, &packed,
                             NULL) == ONESTEP_OK) {
        weight_cache_release(c->cache, packed);
    } else {
        atomic_fetch_add(&c->failures, 1);
    }
    return NULL;
}

static void test_one_packs_others_wait(void **state)
{
    (void)state;
    crowd c = {.packing = {.microseconds = 50000}};
    c.cache = new_cache(SIZE_MAX);
    c.weights[0] = plain("wanted");
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, late_visitor, &c), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(c.packing.calls, 1);
    assert_int_equal(c.failures, 0);
    weight_cache_destroy(&c.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packs_once),
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_keeps_what_is_asked_for_again),
        cmocka_unit_test(test_many_are_asked_for_once),
        cmocka_unit_test(test_a_part_stays_within_the_limit),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_failure_leaves_nothing),
        cmocka_unit_test(test_many_entries),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_memory_comes_from_what_is_not_in_use),
        cmocka_unit_test(test_sources_are_released),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_and_failures),
        cmocka_unit_test(test_one_packs_others_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
