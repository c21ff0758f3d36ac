/* How many CPUs and how much memory a control group allows; private to base. */
#ifndef BASE_ALLOWANCE_H
#define BASE_ALLOWANCE_H

#include <stdint.h>

/* CPUs that the quotas of the process's control groups (version 1 or 2) and all their parents
 * allow, rounded up; 0: no limit. `memberships` is /proc/self/cgroup and `root` /sys/fs/cgroup,
 * except in tests. */
unsigned cgroup_cpu_limit(const char *memberships, const char *root);
/* The same for bytes of memory. */
uint64_t cgroup_memory_limit(const char *memberships, const char *root);

#endif
