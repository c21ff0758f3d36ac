/* The CPUs that this process may use. */
#include "base/cpu_count.h"
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

static unsigned smaller_limit(unsigned a, unsigned b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static unsigned quota_to_cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0) {
        return 0;
    }
    long long cpus = quota / period + (quota % period != 0);
    return cpus > 1 << 20 ? 1 << 20 : (unsigned)cpus;
}

/* The limit that one group states itself; 0: none. */
static unsigned group_limit(const char *folder)
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

/* The smallest limit of the group `root` + `group` and its parents up to `root`. */
static unsigned group_chain_limit(const char *root, const char *group)
{
    unsigned limit = group_limit(root);
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
            limit = smaller_limit(limit, group_limit(path));
        }
    }
    memory_free(path);
    return limit;
}

/* Whether the comma-separated list holds "cpu". */
static bool lists_cpu(const char *controllers)
{
    for (const char *word = controllers; word != NULL; word = strchr(word, ',')) {
        word += *word == ',';
        if (strncmp(word, "cpu", 3) == 0 && (word[3] == ',' || word[3] == '\0')) {
            return true;
        }
    }
    return false;
}

unsigned cgroup_cpu_limit(const char *memberships, const char *root)
{
    uint8_t *bytes;
    size_t size;
    if (file_read(memberships, SMALL_FILE, &bytes, &size, NULL) != ONESTEP_OK) {
        return 0;
    }
    unsigned limit = 0;
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
        } else if (lists_cpu(controllers)) {
            mount = path_join(root, controllers, NULL);
            if (mount != NULL && !path_is_folder(mount)) {
                memory_free(mount);
                mount = path_join(root, "cpu", NULL);
            }
        }
        if (mount != NULL) {
            limit = smaller_limit(limit, group_chain_limit(mount, group));
            memory_free(mount);
        }
    }
    memory_free(bytes);
    return limit;
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
    return smaller_limit(affinity_count(), cgroup_cpu_limit("/proc/self/cgroup", "/sys/fs/cgroup"));
}
