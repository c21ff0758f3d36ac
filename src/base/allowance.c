/* The CPUs and the memory that this process may use. */
#include "base/allowance.h"
#include "base/base.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The files below are small; anything larger is not one of them. */
static const size_t SMALL_FILE = 65536;

static char *read_small_file(const char *folder, const char *name)
{
    char *path = path_join(folder, name, NULL);
    uint8_t *bytes = NULL;
    size_t size;
    if (path != NULL && file_read(path, SMALL_FILE, &bytes, &size, NULL) != ONESTEP_OK) {
        bytes = NULL;
    }
    memory_free(path);
    return (char *)bytes;
}

/* What a group itself states; 0: no limit. */
typedef uint64_t (*group_limit)(const char *folder);

static uint64_t smaller_limit(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static uint64_t quota_to_cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0) {
        return 0;
    }
    long long cpus = quota / period + (quota % period != 0);
    return cpus > 1 << 20 ? 1 << 20 : (uint64_t)cpus;
}

static uint64_t group_cpus(const char *folder)
{
    long long quota = 0, period = 0;
    char *text = read_small_file(folder, "cpu.max"); /* version 2: "max 100000" or "50000 100000" */
    if (text != NULL) {
        if (sscanf(text, "%lld %lld", &quota, &period) != 2) {
            quota = 0;
        }
        memory_free(text);
        return quota_to_cpus(quota, period);
    }
    text = read_small_file(folder, "cpu.cfs_quota_us"); /* version 1: -1 or microseconds */
    if (text != NULL) {
        quota = strtoll(text, NULL, 10);
        memory_free(text);
    }
    text = read_small_file(folder, "cpu.cfs_period_us");
    if (text != NULL) {
        period = strtoll(text, NULL, 10);
        memory_free(text);
    }
    return quota_to_cpus(quota, period);
}

static uint64_t group_memory(const char *folder)
{
    char *text = read_small_file(folder, "memory.max"); /* version 2: "max" or bytes */
    if (text == NULL) {
        text = read_small_file(folder, "memory.limit_in_bytes"); /* version 1: bytes */
    }
    const uint64_t bytes = text != NULL ? strtoull(text, NULL, 10) : 0;
    memory_free(text);
    return bytes;
}

/* The smallest limit of the group `root` + `group` and its parents up to `root`. */
static uint64_t group_chain_limit(const char *root, const char *group, group_limit limit_of)
{
    uint64_t limit = limit_of(root);
    char *path = string_format(NULL, "%s%s", root, group);
    if (path == NULL) {
        return limit;
    }
    size_t root_length = strlen(root);
    /* A group may be seen from inside a container, where its path does not exist: then the mount
     * shows the container's own group as root, which was read above. */
    for (size_t length = strlen(path); length > root_length; --length) {
        if (path[length] == '/' || path[length] == '\0') {
            path[length] = '\0';
            limit = smaller_limit(limit, limit_of(path));
        }
    }
    memory_free(path);
    return limit;
}

/* Whether the comma-separated list holds the controller. */
static bool lists_controller(const char *controllers, const char *name)
{
    const size_t length = strlen(name);
    for (const char *word = controllers; word != NULL; word = strchr(word, ',')) {
        word += *word == ',';
        if (strncmp(word, name, length) == 0 && (word[length] == ',' || word[length] == '\0')) {
            return true;
        }
    }
    return false;
}

static uint64_t cgroup_limit(const char *memberships, const char *root, const char *controller,
                             group_limit limit_of)
{
    uint8_t *bytes;
    size_t size;
    if (file_read(memberships, SMALL_FILE, &bytes, &size, NULL) != ONESTEP_OK) {
        return 0;
    }
    uint64_t limit = 0;
    char *rest = (char *)bytes;
    /* Lines are "hierarchy:controllers:group"; version 2 has hierarchy 0 and no controllers. */
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        char *field = line;
        const char *hierarchy = strsep(&field, ":");
        const char *controllers = strsep(&field, ":");
        const char *group = field;
        if (controllers == NULL || group == NULL || group[0] != '/' ||
            strstr(group, "/..") != NULL) {
            continue;
        }
        char *mount = NULL;
        if (strcmp(hierarchy, "0") == 0 && controllers[0] == '\0') {
            mount = string_duplicate(root, NULL);
        } else if (lists_controller(controllers, controller)) {
            mount = path_join(root, controllers, NULL);
            if (mount != NULL && !path_is_folder(mount)) {
                memory_free(mount);
                mount = path_join(root, controller, NULL);
            }
        }
        if (mount != NULL) {
            limit = smaller_limit(limit, group_chain_limit(mount, group, limit_of));
            memory_free(mount);
        }
    }
    memory_free(bytes);
    return limit;
}

unsigned cgroup_cpu_limit(const char *memberships, const char *root)
{
    return (unsigned)cgroup_limit(memberships, root, "cpu", group_cpus);
}

uint64_t cgroup_memory_limit(const char *memberships, const char *root)
{
    return cgroup_limit(memberships, root, "memory", group_memory);
}

static unsigned affinity_count(void)
{
    /* The mask has as many bits as the kernel was built for: try larger sets until one fits. */
    for (int cpus = 1024; cpus <= 1 << 18; cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (set == NULL) {
            break;
        }
        size_t size = CPU_ALLOC_SIZE((size_t)cpus);
        int count = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (count > 0) {
            return (unsigned)count;
        }
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

unsigned thread_default_count(void)
{
    return (unsigned)smaller_limit(affinity_count(),
                                   cgroup_cpu_limit("/proc/self/cgroup", "/sys/fs/cgroup"));
}

uint64_t memory_default_bytes(void)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const uint64_t machine = pages > 0 ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    return smaller_limit(machine, cgroup_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup"));
}
