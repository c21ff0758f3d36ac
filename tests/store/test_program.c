/* `onestep models pull` as a process: killed at any moment, and twice at once. */
#include "server.h"
#include "store/store.h"
#include "support/check.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static test_server *server;
static char home[64];
static onestep_error error;

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static int start(void **state)
{
    (void)state;
    char config[100];
    server = server_start(NULL, NULL);
    snprintf(home, sizeof home, "/tmp/onestep-store-XXXXXX");
    if (!server || !mkdtemp(home)) {
        return 1;
    }
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    snprintf(config, sizeof config, "%s/config", home);
    setenv("ONESTEP_HOME", home, 1);
    setenv("XDG_CONFIG_HOME", config, 1);
    strcat(config, "/onestep");
    return folder_create(config, &error) != ONESTEP_OK;
}

static int stop(void **state)
{
    (void)state;
    server_stop(server);
    return nftw(home, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* A catalogue with the model "mine" at /FAULT/ARGUMENT/3-SIZE. */
static void write_catalogue(const char *fault, long argument, unsigned size)
{
    char path[120], text[600];
    snprintf(path, sizeof path, "%s/config/onestep/catalogue.json", home);
    snprintf(text, sizeof text,
             "{\"format\": 1, \"models\": [{\"name\": \"mine\", \"kind\": \"checkpoint\", "
             "\"licence\": \"own words\", \"url\": \"http://127.0.0.1:%u/%s/%ld/\", "
             "\"files\": [{\"path\": \"3-%u\"}]}]}",
             server_port(server), fault, argument, size);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &error), ONESTEP_OK);
}

static pid_t begin_pull(void)
{
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execl(PROGRAM, "onestep", "models", "pull", "mine", "--yes", "--retry-delay", "0",
              (char *)NULL);
        _exit(127);
    }
    assert_true(child > 0);
    return child;
}

static void check_file(unsigned size)
{
    char path[120];
    uint8_t *bytes;
    size_t length;
    snprintf(path, sizeof path, "%s/checkpoints/3-%u", home, size);
    if (file_read(path, (size_t)1 << 30, &bytes, &length, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(length, size);
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != server_byte(3, 0, i)) {
            fail_msg("byte %zu is wrong", i);
        }
    }
    memory_free(bytes);
}

static void test_killed(void **state)
{
    (void)state;
    enum { SIZE = 3000000 };
    char part[160], staged[160], whole[120];
    write_catalogue("slow", 4000, SIZE);
    snprintf(part, sizeof part, "%s/incoming/mine/3-%d.part", home, SIZE);
    snprintf(staged, sizeof staged, "%s/incoming/mine/3-%d", home, SIZE);
    snprintf(whole, sizeof whole, "%s/checkpoints/3-%d", home, SIZE);
    struct stat information;
    off_t before = 0;
    unsigned kills = 0, empty = 0, scale = 1000; /* a slow machine needs more time to get anywhere */
    for (unsigned run = 0; run < 500; run++) {
        pid_t child = begin_pull();
        usleep((20 + run * 7919 % 90) * scale);
        assert_int_equal(kill(child, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            break;
        }
        kills++;
        /* What was fetched is never lost; the final name never stands on a part. */
        if (stat(whole, &information) == 0 || stat(staged, &information) == 0) {
            assert_int_equal(information.st_size, SIZE);
            continue;
        }
        off_t now = stat(part, &information) == 0 ? information.st_size : 0;
        if (now < before) {
            fail_msg("after %u kills the part shrank from %lld to %lld", kills, (long long)before,
                     (long long)now);
        }
        empty += now == 0; /* nothing came yet, so the next request asks for all of it */
        scale += now == before ? scale / 4 : 0;
        before = now;
    }
    assert_true(kills >= 5);
    check_file(SIZE);
    server_log log = server_log_read(server);
    assert_true(log.ranges + 1 + empty >= log.requests); /* the others went on where it broke */
}

static void test_two_at_once(void **state)
{
    (void)state;
    enum { SIZE = 300000 };
    write_catalogue("slow", 4000, SIZE);
    server_log_reset(server);
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = begin_pull();
    }
    for (int i = 0; i < 3; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    check_file(SIZE);
    assert_int_equal(server_log_read(server).requests, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_two_at_once),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
