/* How many CPUs a control group allows; private to base. */
#ifndef BASE_CPU_COUNT_H
#define BASE_CPU_COUNT_H

/* CPUs that the quotas of the process's control groups (version 1 or 2) and all their parents
 * allow, rounded up; 0: no limit. `memberships` is /proc/self/cgroup and `root` /sys/fs/cgroup,
 * except in tests. */
unsigned cgroup_cpu_limit(const char *memberships, const char *root);

#endif
