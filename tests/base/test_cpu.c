#include "base/allowance.h"
#include "base/base.h"
#include "support/check.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void features_are_plausible(void **state)
{
    (void)state;
    cpu_features features, again;
    cpu_features_detect(&features);
    cpu_features_detect(&again);
    assert_int_equal(features.level, again.level);
    assert_string_equal(features.model, again.model);
    assert_true(strlen(features.model) < sizeof features.model);
    assert_true(features.l1_bytes == 0 ||
                (features.l1_bytes >= 4096 && features.l1_bytes <= 1 << 20));
    assert_true(features.l2_bytes == 0 || features.l2_bytes >= features.l1_bytes);
    assert_true(features.l3_bytes == 0 || features.l3_bytes >= features.l2_bytes / 2);
#if defined(__x86_64__)
    /* The compiler's own detection, made independently. */
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
    assert_int_equal(features.level >= CPU_LEVEL_AVX2, avx2);
    assert_int_equal(features.level >= CPU_LEVEL_AVX512, avx512);
    assert_int_equal(features.level >= CPU_LEVEL_AVX512_VNNI, vnni);
    assert_true(cpu_level_runs(&features, CPU_LEVEL_PLAIN));
    assert_false(cpu_level_runs(&features, CPU_LEVEL_NEON));
    assert_int_equal(cpu_level_runs(&features, CPU_LEVEL_AVX2), avx2);
    assert_int_equal(cpu_level_runs(&features, CPU_LEVEL_AVX_VNNI), features.avx_vnni);
    assert_int_equal(cpu_level_runs(&features, CPU_LEVEL_AVX512_VNNI), vnni);
#endif
}

/* Levels are in order but for AVX-VNNI, which a CPU has or lacks beside AVX-512. */
static void levels_run_where_they_can(void **state)
{
    static const struct {
        cpu_level has;
        bool avx_vnni;
        cpu_level runs[6];
        size_t count;
    } cases[] = {
        {CPU_LEVEL_PLAIN, false, {CPU_LEVEL_PLAIN}, 1},
        {CPU_LEVEL_NEON, false, {CPU_LEVEL_PLAIN, CPU_LEVEL_NEON}, 2},
        {CPU_LEVEL_AVX2, false, {CPU_LEVEL_PLAIN, CPU_LEVEL_AVX2}, 2},
        {CPU_LEVEL_AVX_VNNI, true, {CPU_LEVEL_PLAIN, CPU_LEVEL_AVX2, CPU_LEVEL_AVX_VNNI}, 3},
        {CPU_LEVEL_AVX512_VNNI,
         false,
         {CPU_LEVEL_PLAIN, CPU_LEVEL_AVX2, CPU_LEVEL_AVX512, CPU_LEVEL_AVX512_VNNI},
         4},
        {CPU_LEVEL_AVX512_BF16,
         true,
         {CPU_LEVEL_PLAIN, CPU_LEVEL_AVX2, CPU_LEVEL_AVX_VNNI, CPU_LEVEL_AVX512,
          CPU_LEVEL_AVX512_VNNI, CPU_LEVEL_AVX512_BF16},
         6},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cpu_features features = {.level = cases[i].has, .avx_vnni = cases[i].avx_vnni};
        size_t runs = 0;
        for (int l = CPU_LEVEL_PLAIN; l <= CPU_LEVEL_AVX512_BF16; l++) {
            if (cpu_level_runs(&features, (cpu_level)l)) {
                assert_true(runs < cases[i].count && cases[i].runs[runs] == (cpu_level)l);
                runs++;
            }
        }
        assert_int_equal(runs, cases[i].count);
    }
}

static void levels_have_names(void **state)
{
    (void)state;
    assert_string_equal(cpu_level_name(CPU_LEVEL_PLAIN), "plain");
    assert_string_equal(cpu_level_name(CPU_LEVEL_NEON), "neon");
    assert_string_equal(cpu_level_name(CPU_LEVEL_AVX2), "avx2");
    assert_string_equal(cpu_level_name(CPU_LEVEL_AVX_VNNI), "avxvnni");
    assert_string_equal(cpu_level_name(CPU_LEVEL_AVX512), "avx512");
    assert_string_equal(cpu_level_name(CPU_LEVEL_AVX512_VNNI), "avx512vnni");
    assert_string_equal(cpu_level_name(CPU_LEVEL_AVX512_BF16), "avx512bf16");
}

static void count_follows_the_affinity_mask(void **state)
{
    (void)state;
    unsigned before = thread_default_count();
    assert_true(before >= 1);
    cpu_set_t old, one;
    assert_int_equal(sched_getaffinity(0, sizeof old, &old), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; ++i) {
        if (CPU_ISSET(i, &old)) {
            CPU_SET(i, &one);
            break;
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(thread_default_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof old, &old), 0);
    assert_int_equal(thread_default_count(), before);
}

/* ---- control groups, as a folder made up --------------------------------------------------- */

static char root[64];

static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    char folder[512];
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(folder_create(folder, NULL), ONESTEP_OK);
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), ONESTEP_OK);
}

static unsigned limit(const char *memberships)
{
    put("memberships", memberships);
    char path[128], groups[128];
    snprintf(path, sizeof path, "%s/memberships", root);
    snprintf(groups, sizeof groups, "%s/sys", root);
    return cgroup_cpu_limit(path, groups);
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/onestep-cgroup-XXXXXX");
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static void quotas_of_version_2(void **state)
{
    (void)state;
    put("sys/service/one/cpu.max", "150000 100000\n");
    put("sys/service/cpu.max", "max 100000\n");
    assert_int_equal(limit("0::/service/one\n"), 2);
    assert_int_equal(limit("0::/service\n"), 0);
    put("sys/service/cpu.max", "100000 100000\n"); /* the parent is stricter */
    assert_int_equal(limit("0::/service/one\n"), 1);
    put("sys/service/cpu.max", "400000 100000\n");
    assert_int_equal(limit("0::/service/one\n"), 2);
    put("sys/service/one/cpu.max", "1000 100000\n"); /* less than one CPU */
    assert_int_equal(limit("0::/service/one\n"), 1);
    put("sys/cpu.max", "300000 100000\n"); /* in a container, whose path is not visible */
    assert_int_equal(limit("0::/docker/0123\n"), 3);
    put("sys/cpu.max", "nonsense");
    assert_int_equal(limit("0::/docker/0123\n"), 0);
    put("sys/cpu.max", "-5 0");
    assert_int_equal(limit("0::/docker/0123\n"), 0);
}

static void quotas_of_version_1(void **state)
{
    (void)state;
    put("sys/cpu,cpuacct/job/cpu.cfs_quota_us", "250000\n");
    put("sys/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(limit("9:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n"), 3);
    put("sys/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(limit("4:cpu,cpuacct:/job\n"), 0);
    put("sys/cpu/job/cpu.cfs_quota_us", "200000\n");
    put("sys/cpu/job/cpu.cfs_period_us", "50000\n");
    assert_int_equal(limit("4:cpu:/job\n"), 4);
    assert_int_equal(limit("4:cpuset,cpu:/job\n"), 4); /* mounted under another name */
    assert_int_equal(limit("4:cpuset:/job\n"), 0);
}

static void memory_limits(void **state)
{
    (void)state;
    char path[128], groups[128];
    snprintf(path, sizeof path, "%s/memberships", root);
    snprintf(groups, sizeof groups, "%s/sys", root);
    put("memberships", "0::/service/one\n");
    put("sys/service/one/memory.max", "max\n");
    assert_int_equal(cgroup_memory_limit(path, groups), 0);
    put("sys/service/memory.max", "5000000000\n");
    assert_true(cgroup_memory_limit(path, groups) == UINT64_C(5000000000));
    put("memberships", "4:memory:/job\n");
    put("sys/memory/job/memory.limit_in_bytes", "300000000\n");
    assert_int_equal(cgroup_memory_limit(path, groups), 300000000);
    assert_true(memory_default_bytes() > 1 << 20);
}

static void odd_memberships_give_no_limit(void **state)
{
    (void)state;
    assert_int_equal(limit(""), 0);
    assert_int_equal(limit("::::\n\n0::\n4\nx:cpu\n0::relative\n"), 0);
    put("cpu.max", "100000 100000\n");
    assert_int_equal(limit("0::/../\n"), 0);
    assert_int_equal(cgroup_cpu_limit("/nonexistent", "/nonexistent"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_plausible),
        cmocka_unit_test(levels_run_where_they_can),
        cmocka_unit_test(levels_have_names),
        cmocka_unit_test(count_follows_the_affinity_mask),
        cmocka_unit_test_setup_teardown(quotas_of_version_2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(quotas_of_version_1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(memory_limits, make_root, remove_root),
        cmocka_unit_test_setup_teardown(odd_memberships_give_no_limit, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
