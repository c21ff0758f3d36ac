#include "base/base.h"
#include "support/allocation_failure.h"
#include "support/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

/* "folder/name"; four are valid at a time. */
static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/onestep-file-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static unsigned count_entries(void)
{
    DIR *opened = opendir(folder);
    assert_non_null(opened);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(opened)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    closedir(opened);
    return count;
}

static void check_content(const char *path, const char *expected)
{
    uint8_t *bytes;
    size_t size;
    onestep_error error;
    assert_int_equal(file_read(path, 1 << 20, &bytes, &size, &error), ONESTEP_OK);
    assert_int_equal(size, strlen(expected));
    assert_string_equal((char *)bytes, expected);
    memory_free(bytes);
}

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text), NULL), ONESTEP_OK);
}

static void writes_and_replaces(void **state)
{
    (void)state;
    const char *path = in_folder("a");
    put(path, "first");
    check_content(path, "first");
    assert_int_equal(chmod(path, 0640), 0);
    put(path, "second, longer");
    check_content(path, "second, longer");
    struct stat information;
    assert_int_equal(stat(path, &information), 0);
    assert_int_equal(information.st_mode & 0777, 0640);
    put(path, "");
    check_content(path, "");
    assert_int_equal(count_entries(), 1);
    /* New files obey the umask. */
    mode_t old = umask(027);
    put(in_folder("b"), "x");
    umask(old);
    assert_int_equal(stat(in_folder("b"), &information), 0);
    assert_int_equal(information.st_mode & 0777, 0640);
}

static void parts_follow_each_other(void **state)
{
    (void)state;
    const file_part parts[] = {{"one ", 4}, {NULL, 0}, {"two ", 4}, {"three", 5}};
    assert_int_equal(file_write_parts(in_folder("a"), parts, 4, NULL), ONESTEP_OK);
    check_content(in_folder("a"), "one two three");
    assert_int_equal(file_write_parts(in_folder("a"), parts, 0, NULL), ONESTEP_OK);
    check_content(in_folder("a"), "");
    assert_int_equal(count_entries(), 1);
}

/* A bare name: the folder is the current one. */
static void writes_into_the_current_folder(void **state)
{
    (void)state;
    char old[4096];
    assert_non_null(getcwd(old, sizeof old));
    assert_int_equal(chdir(folder), 0);
    put("bare", "text");
    check_content("bare", "text");
    assert_int_equal(chdir(old), 0);
    check_content(in_folder("bare"), "text");
}

static void a_link_stays_a_link(void **state)
{
    (void)state;
    put(in_folder("target"), "old");
    assert_int_equal(symlink("target", in_folder("link")), 0);
    put(in_folder("link"), "new");
    check_content(in_folder("target"), "new");
    struct stat information;
    assert_int_equal(lstat(in_folder("link"), &information), 0);
    assert_true(S_ISLNK(information.st_mode));
}

static void devices_are_not_replaced(void **state)
{
    (void)state;
    onestep_error error;
    assert_int_equal(file_write_atomic("/dev/null", "x", 1, &error), ONESTEP_OK);
    struct stat information;
    assert_int_equal(stat("/dev/null", &information), 0);
    assert_true(S_ISCHR(information.st_mode));
    assert_int_equal(file_write_atomic("/dev/full", "x", 1, &error), ONESTEP_ERROR_IO);
    assert_string_equal(error.message, "/dev/full: cannot be written: No space left on device");
}

static void refuses_impossible_targets(void **state)
{
    (void)state;
    onestep_error error;
    assert_int_equal(file_write_atomic(folder, "x", 1, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "is a folder");
    assert_int_equal(file_write_atomic(in_folder("no/such"), "x", 1, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "no/such: no file can be written in its folder: No such file");
    put(in_folder("file"), "x");
    assert_int_equal(file_write_atomic(in_folder("file/name"), "x", 1, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "Not a directory");
}

static void a_failed_write_leaves_the_old_file(void **state)
{
    (void)state;
    put(in_folder("a"), "old");
    struct rlimit unlimited, limited;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
    limited = unlimited;
    limited.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
    static const char bytes[5000];
    onestep_error error;
    onestep_status status = file_write_atomic(in_folder("a"), bytes, sizeof bytes, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
    assert_int_equal(status, ONESTEP_ERROR_IO);
    check_contains(error.message, "/a: cannot be written: File too large");
    check_content(in_folder("a"), "old");
    assert_int_equal(count_entries(), 1);
}

static void writing_survives_failed_allocations(void **state)
{
    (void)state;
    put(in_folder("a"), "old");
    bool failed;
    size_t n = 1;
    do {
        onestep_error error = {0};
        allocation_failure_start(n++);
        onestep_status status = file_write_atomic(in_folder("a"), "new", 3, &error);
        failed = allocation_failure_stop();
        assert_int_equal(error.code, status);
        /* Flushing the folder is the one part that may be left out. */
        check_content(in_folder("a"), status == ONESTEP_OK ? "new" : "old");
        assert_true(status == ONESTEP_OK || status == ONESTEP_ERROR_MEMORY);
        assert_int_equal(count_entries(), 1);
        put(in_folder("a"), "old");
    } while (failed);
    assert_true(n > 3);
}

static void reads_within_the_limit(void **state)
{
    (void)state;
    char text[10001];
    memset(text, 'x', 10000);
    text[10000] = '\0';
    put(in_folder("a"), text);
    uint8_t *bytes;
    size_t size;
    onestep_error error;
    assert_int_equal(file_read(in_folder("a"), 10000, &bytes, &size, &error), ONESTEP_OK);
    assert_int_equal(size, 10000);
    assert_string_equal((char *)bytes, text);
    memory_free(bytes);
    assert_int_equal(file_read(in_folder("a"), 9999, &bytes, &size, &error), ONESTEP_ERROR_FORMAT);
    check_contains(error.message, "10000 bytes, more than the 9999");
    assert_null(bytes);
    assert_int_equal(size, 0);
    /* A file without a size of its own. */
    assert_int_equal(file_read("/proc/self/maps", 1 << 24, &bytes, &size, &error), ONESTEP_OK);
    assert_true(size > 100 && bytes[size] == '\0');
    memory_free(bytes);
    assert_int_equal(file_read("/dev/zero", 100000, &bytes, &size, &error), ONESTEP_ERROR_FORMAT);
    check_contains(error.message, "/dev/zero: more than the 100000 bytes");
}

static void reading_names_its_failure(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t size;
    onestep_error error;
    assert_int_equal(file_read(in_folder("none"), 10, &bytes, &size, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "/none: cannot be opened: No such file or directory");
    assert_int_equal(file_read(folder, 10, &bytes, &size, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "is a folder");
    put(in_folder("a"), "x");
    allocation_failure_start(1);
    assert_int_equal(file_read(in_folder("a"), 10, &bytes, &size, &error), ONESTEP_ERROR_MEMORY);
    assert_true(allocation_failure_stop());
    assert_null(bytes);
}

static void maps_files(void **state)
{
    (void)state;
    char text[20001];
    for (int i = 0; i < 20000; ++i) {
        text[i] = (char)('a' + i % 23);
    }
    text[20000] = '\0';
    put(in_folder("a"), text);
    mapped_file file;
    onestep_error error;
    assert_int_equal(mapped_file_open(&file, in_folder("a"), &error), ONESTEP_OK);
    assert_int_equal(file.size, 20000);
    assert_memory_equal(file.data, text, 20000);
    mapped_memory_prefetch(file.data + 1, 15000);
    mapped_memory_release(file.data + 1, 15000);
    assert_memory_equal(file.data, text, 20000);
    mapped_memory_release(file.data, 0);
    mapped_memory_prefetch(file.data, 0);
    mapped_file_close(&file);
    assert_null(file.data);
    mapped_file_close(&file);

    put(in_folder("empty"), "");
    assert_int_equal(mapped_file_open(&file, in_folder("empty"), &error), ONESTEP_OK);
    assert_null(file.data);
    assert_int_equal(file.size, 0);
    mapped_file_close(&file);
}

static void mapping_refuses_what_is_not_a_file(void **state)
{
    (void)state;
    mapped_file file;
    onestep_error error;
    assert_int_equal(mapped_file_open(&file, in_folder("none"), &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "/none: cannot be opened: No such file or directory");
    assert_int_equal(mapped_file_open(&file, folder, &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "is a folder, not a file");
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    assert_int_equal(mapped_file_open(&file, in_folder("pipe"), &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "is a device or pipe, not a file");
    put(in_folder("a"), "x");
    allocation_failure_start(1);
    assert_int_equal(mapped_file_open(&file, in_folder("a"), &error), ONESTEP_ERROR_MEMORY);
    assert_true(allocation_failure_stop());
    assert_null(file.data);
}

static void makes_folders(void **state)
{
    (void)state;
    onestep_error error;
    assert_int_equal(folder_create(in_folder("one/two//three/"), &error), ONESTEP_OK);
    assert_true(path_is_folder(in_folder("one/two/three")));
    assert_int_equal(folder_create(in_folder("one/two/three"), &error), ONESTEP_OK);
    assert_int_equal(folder_create("/", &error), ONESTEP_OK);
    put(in_folder("file"), "x");
    assert_true(path_exists(in_folder("file")));
    assert_false(path_is_folder(in_folder("file")));
    assert_false(path_exists(in_folder("other")));
    assert_int_equal(folder_create(in_folder("file"), &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "/file: exists and is not a folder");
    assert_int_equal(folder_create(in_folder("file/inside"), &error), ONESTEP_ERROR_IO);
    assert_int_equal(folder_create("", &error), ONESTEP_ERROR_IO);
    check_contains(error.message, "empty");
    allocation_failure_start(1);
    assert_int_equal(folder_create(in_folder("x"), &error), ONESTEP_ERROR_MEMORY);
    assert_true(allocation_failure_stop());
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(writes_and_replaces),
        IN_FOLDER(parts_follow_each_other),
        IN_FOLDER(writes_into_the_current_folder),
        IN_FOLDER(a_link_stays_a_link),
        IN_FOLDER(devices_are_not_replaced),
        IN_FOLDER(refuses_impossible_targets),
        IN_FOLDER(a_failed_write_leaves_the_old_file),
        IN_FOLDER(writing_survives_failed_allocations),
        IN_FOLDER(reads_within_the_limit),
        IN_FOLDER(reading_names_its_failure),
        IN_FOLDER(maps_files),
        IN_FOLDER(mapping_refuses_what_is_not_a_file),
        IN_FOLDER(makes_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
