/* Folders and lists: killed at any moment, constant memory, messages in order, lists of all kinds.
 */
#include "image/image.h"
#include "program.h"
#include "support/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GOLDEN PROJECT_FOLDER "/tests/golden/"
#define BASE   GOLDEN "models/base_a"
#define EDGE   GOLDEN "models/base_a_edge.pkl"
#define SMALL  GOLDEN "cases/a_edge_8x8/input.png"
#define COUNT  120

static char folder[64];
static program_result last;
static onestep_error error;

static void write_file(const char *path, const void *bytes, size_t size)
{
    assert_int_equal(file_write_atomic(path, bytes, size, &error), ONESTEP_OK);
}

/* in/0000.png ... in/0119.png, all links to one picture. */
static int make_folder(void **state)
{
    (void)state;
    program_folder_make(folder);
    if (chdir(folder) != 0 || mkdir("in", 0777) != 0) {
        return 1;
    }
    for (int i = 0; i < COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "in/%04d.png", i);
        if (symlink(SMALL, name) != 0) {
            return 1;
        }
    }
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    int result = chdir("/");
    program_folder_remove(folder);
    return result;
}

#define RUN(code, input, ...)                                                                      \
    do {                                                                                           \
        program_run(&last, input,                                                                  \
                    (const char *const[]){"translate", "-b", BASE, "-c", EDGE, "-p", "x",          \
                                          __VA_ARGS__, NULL});                                     \
        if (last.exit_code != (code)) {                                                            \
            fail_msg("exit %d: %s", last.exit_code, last.error);                                   \
        }                                                                                          \
    } while (0)

/* Pictures in a folder, each of which must be whole; temporary files do not count. */
static int count_whole(const char *path)
{
    DIR *directory = opendir(path);
    int count = 0;
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        const char *dot = strrchr(entry->d_name, '.');
        if (!dot || strcmp(dot, ".png") != 0) {
            continue;
        }
        char file[300];
        onestep_image image;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (image_load(&image, file, NULL, &error) != ONESTEP_OK) {
            fail_msg("%s", error.message);
        }
        image_destroy(&image);
        count++;
    }
    if (directory) {
        closedir(directory);
    }
    return count;
}

/* One run that is killed after `microseconds`; true when it ended by itself. */
static bool run_killed(unsigned microseconds, const char *output)
{
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execl(PROGRAM, "onestep", "translate", "-b", BASE, "-c", EDGE, "-t", "edge_to_image", "-p",
              "x", "-i", "in", "-o", output, "--resume", "--threads", "1", (char *)NULL);
        _exit(127);
    }
    assert_true(child > 0);
    usleep(microseconds);
    kill(child, SIGKILL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return true;
    }
    return false;
}

/* Remembers the file of every output that is there; false when one of them is another file than
 * before, so was written twice. A name is only ever given to a new file, whose number differs. */
static bool same_files(const char *path, ino_t files[COUNT])
{
    for (int i = 0; i < COUNT; i++) {
        char name[64];
        struct stat now;
        snprintf(name, sizeof name, "%s/%04d.png", path, i);
        if (stat(name, &now) == 0) {
            if (files[i] != 0 && files[i] != now.st_ino) {
                return false;
            }
            files[i] = now.st_ino;
        }
    }
    return true;
}

static void test_killed(void **state)
{
    (void)state;
    enum { KILLS = 50 };
    int kills = 0, moments = 0, before = 0;
    unsigned scale = 2000; /* a slow machine needs more time to get anywhere */
    for (int round = 0; kills < KILLS; round++) {
        char output[32];
        ino_t files[COUNT] = {0};
        snprintf(output, sizeof output, "killed%d", round);
        before = 0;
        while (kills < KILLS && !run_killed((15 + (unsigned)(kills * 7919 % 97)) * scale, output)) {
            kills++;
            int whole = count_whole(output);
            assert_true(whole >= before);
            moments += whole > before;
            scale += whole == before ? scale / 8 : 0;
            before = whole;
            assert_true(same_files(output, files));
        }
        assert_true(same_files(output, files));
    }
    assert_true(moments > 3); /* kills that came between pictures, not all of them before */
    RUN(0, NULL, "-t", "edge_to_image", "-i", "in", "-o", "killed0", "--resume");
    assert_int_equal(count_whole("killed0"), 2 * COUNT); /* with the edge maps */
}

/* Peak resident memory of a run over `count` pictures of 256x256, in kilobytes. */
static long peak_of(int count, const char *list)
{
    text_buffer names = {0};
    for (int i = 0; i < count; i++) {
        text_buffer_print(&names, "many/%d.png\n", i);
    }
    write_file(list, names.data, names.length);
    text_buffer_free(&names);
    char at[64];
    snprintf(at, sizeof at, "@%s", list);
    pid_t child = fork();
    if (child == 0) {
        execl(PROGRAM, "onestep", "translate", "-q", "-b", BASE, "-c", EDGE, "-p", "x", "-i", at,
              "-o", "memory", "--max-side", "16", "--threads", "1", (char *)NULL);
        _exit(127);
    }
    int status;
    struct rusage usage;
    assert_int_equal(wait4(child, &status, 0, &usage), child);
    assert_int_equal(status, 0);
    return usage.ru_maxrss;
}

static void test_constant_memory(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* a sanitizer's own memory grows */
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    skip();
#endif
#endif
    onestep_image small, large;
    assert_int_equal(image_load(&small, SMALL, NULL, &error), ONESTEP_OK);
    assert_int_equal(image_resize(&large, &small, 512, 512, NULL, &error), ONESTEP_OK);
    assert_int_equal(image_save(&large, "large.png", 0, NULL, &error), ONESTEP_OK);
    image_destroy(&small);
    image_destroy(&large);
    mkdir("many", 0777);
    for (int i = 0; i < 150; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/%d.png", i);
        assert_int_equal(symlink("../large.png", name), 0);
    }
    long few = peak_of(15, "few.txt"), many = peak_of(150, "many.txt");
    /* 135 pictures more are 106 MB of pixels. */
    if (many > few + 8192) {
        fail_msg("%ld kB for 15 pictures, %ld kB for 150", few, many);
    }
}

static void test_lists(void **state)
{
    (void)state;
    static const char lines[] = "in/0001.png\nin/0002.png\n", nul[] = "in/0003.png\0in/0004.png";
    write_file("lines", lines, sizeof lines - 1);
    write_file("nul", nul, sizeof nul);
    RUN(0, NULL, "-i", "@lines", "-i", "@nul", "-o", "lists");
    RUN(0, "nul", "-i", "@-", "-o", "piped");
    assert_int_equal(count_whole("lists"), 4);
    assert_int_equal(count_whole("piped"), 2);
    write_file("new\nline.png", lines, sizeof lines - 1); /* no picture, and a strange name */
    static const char strange[] = "new\nline.png\0in/0005.png";
    write_file("strange", strange, sizeof strange);
    RUN(1, NULL, "-i", "@strange", "-o", "strange_out", "--on-error", "skip");
    assert_int_equal(count_whole("strange_out"), 1);
}

/* Whatever the threads do, messages come in the order of the inputs. */
static void test_order(void **state)
{
    (void)state;
    text_buffer list = {0};
    for (int i = 0; i < 40; i++) {
        text_buffer_print(&list, i % 7 == 3 ? "missing%04d.png\n" : "in/%04d.png\n", i);
    }
    write_file("mixed", list.data, list.length);
    text_buffer_free(&list);
    RUN(1, NULL, "-i", "@mixed", "-o", "order", "--on-error", "skip", "--json");
    char *line = last.out;
    for (int i = 0; i < 40; i++) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        json_t *object = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(object);
        char input[32];
        snprintf(input, sizeof input, i % 7 == 3 ? "missing%04d.png" : "in/%04d.png", i);
        assert_string_equal(json_string_value(json_object_get(object, "input")), input);
        assert_true((json_object_get(object, "error") != NULL) == (i % 7 == 3));
        json_decref(object);
        line = end + 1;
    }
    assert_int_equal(*line, '\0');
    RUN(1, NULL, "-i", "@mixed", "-o", "order", "--on-error", "skip", "--resume", "--json");
    int skipped = 0;
    for (const char *at = last.out; (at = strstr(at, "\"skipped\":true")); at++) {
        skipped++;
    }
    assert_int_equal(skipped, 34); /* the log tells of every picture */
    check_contains(last.error, "0 done, 34 skipped, 6 failed");
    check_contains(last.error, "failed:\n  missing0003.png\n");
    /* Without skip the first bad one ends the run, and those before it are done. */
    RUN(1, NULL, "-i", "@mixed", "-o", "stops");
    assert_int_equal(count_whole("stops"), 3);
}

/* The same bytes with threads that take turns. */
static void test_turns(void **state)
{
    (void)state;
    RUN(0, NULL, "-i", "in", "-o", "free");
    RUN(0, NULL, "-i", "in", "-o", "turns", "--memory-limit", "1G");
    RUN(0, NULL, "-i", "in/0000.png", "-i", "in/0001.png", "-o", "grid", "--grid", "-n", "3");
    assert_int_equal(count_whole("free"), COUNT);
    assert_int_equal(count_whole("turns"), COUNT);
    assert_int_equal(count_whole("grid"), 8);
    for (int i = 0; i < COUNT; i++) {
        char first[32], second[32];
        uint8_t *a, *b;
        size_t a_size, b_size;
        snprintf(first, sizeof first, "free/%04d.png", i);
        snprintf(second, sizeof second, "turns/%04d.png", i);
        assert_int_equal(file_read(first, 1 << 20, &a, &a_size, &error), ONESTEP_OK);
        assert_int_equal(file_read(second, 1 << 20, &b, &b_size, &error), ONESTEP_OK);
        assert_int_equal(a_size, b_size);
        assert_memory_equal(a, b, a_size);
        memory_free(a);
        memory_free(b);
    }
}

/* Pictures for terminals: nothing of them on stdout, and none where nobody can draw them. */
static void test_show(void **state)
{
    (void)state;
    RUN(2, NULL, "-i", SMALL, "-o", "show.png", "--show");
    check_contains(last.error, "--show");
    setenv("ONESTEP_SHOW", "kitty", 1);
    RUN(0, NULL, "-i", SMALL, "-o", "show.png", "--show");
    check_contains(last.error, "\033_Ga=T,f=100,m=0;iVBORw0KGgo"); /* a PNG's first bytes */
    check_contains(last.error, "\033\\");
    setenv("ONESTEP_SHOW", "iterm2", 1);
    RUN(0, NULL, "-i", SMALL, "-o", "show.png", "--show");
    check_contains(last.error, "\033]1337;File=inline=1;size=");
    assert_int_equal(last.out_size, 0);
    unsetenv("ONESTEP_SHOW");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed), cmocka_unit_test(test_constant_memory),
        cmocka_unit_test(test_lists),  cmocka_unit_test(test_order),
        cmocka_unit_test(test_turns),  cmocka_unit_test(test_show),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
