/* `onestep models pull` as a process: killed at any moment, twice at once, and what it takes from
 * the environment. */
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
    static const char *const strange[] = {
        "http_proxy",   "https_proxy", "HTTPS_PROXY",    "all_proxy",    "ALL_PROXY",
        "no_proxy",     "NO_PROXY",    "HF_TOKEN",       "HF_ENDPOINT",  "HF_HUB_OFFLINE",
        "HF_HUB_CACHE", "HF_HOME",     "CURL_CA_BUNDLE", "SSL_CERT_FILE"};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        unsetenv(strange[i]);
    }
    setenv("XDG_CACHE_HOME", home, 1);
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

/* What the program says on standard error goes to `home`/said. */
static pid_t begin_pull_with(const char *option)
{
    char said[100];
    snprintf(said, sizeof said, "%s/said", home);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);
        int file = open(said, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(file, STDERR_FILENO);
        execl(PROGRAM, "onestep", "models", "pull", "mine", "--yes", "--retry-delay", "0",
              "--retries", "2", option, (char *)NULL);
        _exit(127);
    }
    assert_true(child > 0);
    return child;
}

static pid_t begin_pull(void)
{
    return begin_pull_with(NULL);
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
    unsigned kills = 0, empty = 0,
             scale = 1000; /* a slow machine needs more time to get anywhere */
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

/* ---- the environment ------------------------------------------------------------------------ */

enum { SMALL = 20000 };

/* The catalogue with "mine" as a file of a repository: ENDPOINT/REPOSITORY/resolve/main/3-20000. */
static void write_repository(const char *repository)
{
    char path[120], text[600];
    snprintf(path, sizeof path, "%s/config/onestep/catalogue.json", home);
    snprintf(text, sizeof text,
             "{\"format\": 1, \"models\": [{\"name\": \"mine\", \"kind\": \"checkpoint\", "
             "\"licence\": \"own words\", \"huggingface\": \"%s\", \"revision\": \"main\", "
             "\"files\": [{\"path\": \"3-%d\"}]}]}",
             repository, SMALL);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &error), ONESTEP_OK);
}

/* Runs a pull from a store without the file; `message` is part of what it must say. */
static void pull_expecting(int code, const char *option, const char *message)
{
    char path[120];
    uint8_t *said;
    size_t size;
    int status;
    snprintf(path, sizeof path, "%s/checkpoints/3-%d", home, SMALL);
    unlink(path);
    server_log_reset(server);
    pid_t child = begin_pull_with(option);
    assert_int_equal(waitpid(child, &status, 0), child);
    snprintf(path, sizeof path, "%s/said", home);
    assert_int_equal(file_read(path, 100000, &said, &size, &error), ONESTEP_OK);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code || !strstr((char *)said, message)) {
        fail_msg("status %x, expected exit %d and \"%s\": %s", (unsigned)status, code, message,
                 said);
    }
    memory_free(said);
    if (code == 0) {
        check_file(SMALL);
    }
}

static void set_address(const char *name, const char *scheme, const char *host, unsigned port)
{
    char text[100];
    snprintf(text, sizeof text, "%s://%s:%u", scheme, host, port);
    setenv(name, text, 1);
}

static void test_endpoint_and_token(void **state)
{
    (void)state;
    write_repository("private/0");
    set_address("HF_ENDPOINT", "http", "127.0.0.1", server_port(server));
    pull_expecting(1, NULL, "HF_TOKEN");
    setenv("HF_TOKEN", "secret", 1);
    pull_expecting(0, NULL, "verified");
    assert_int_equal(server_log_read(server).tokens, 1);
    unsetenv("HF_TOKEN");
    unsetenv("HF_ENDPOINT");
}

static void test_offline(void **state)
{
    (void)state;
    write_repository("good/0");
    set_address("HF_ENDPOINT", "http", "127.0.0.1", server_port(server));
    pull_expecting(1, "--offline", "--offline");
    setenv("HF_HUB_OFFLINE", "1", 1);
    pull_expecting(1, NULL, "--offline");
    assert_int_equal(server_log_read(server).requests, 0);
    setenv("HF_HUB_OFFLINE", "0", 1);
    pull_expecting(0, NULL, "verified");
    unsetenv("HF_HUB_OFFLINE");
    unsetenv("HF_ENDPOINT");
}

/* Both variables name the cache: HF_HOME the folder around "hub", HF_HUB_CACHE itself. */
static void test_cache(void **state)
{
    (void)state;
    static const char *const folders[] = {"refs", "snapshots/c0ffee"};
    char hub[100], path[300];
    static uint8_t bytes[SMALL];
    write_repository("good/0");
    snprintf(hub, sizeof hub, "%s/hf/hub", home);
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/models--good--0/%s", hub, folders[i]);
        assert_int_equal(folder_create(path, &error), ONESTEP_OK);
    }
    snprintf(path, sizeof path, "%s/models--good--0/refs/main", hub);
    assert_int_equal(file_write_atomic(path, "c0ffee", 6, &error), ONESTEP_OK);
    for (size_t i = 0; i < SMALL; i++) {
        bytes[i] = server_byte(3, 0, i);
    }
    snprintf(path, sizeof path, "%s/models--good--0/snapshots/c0ffee/3-%d", hub, SMALL);
    assert_int_equal(file_write_atomic(path, bytes, SMALL, &error), ONESTEP_OK);
    setenv("HF_HUB_CACHE", hub, 1);
    pull_expecting(0, "--offline", "Hugging Face's cache");
    unsetenv("HF_HUB_CACHE");
    snprintf(path, sizeof path, "%s/hf", home);
    setenv("HF_HOME", path, 1);
    pull_expecting(0, "--offline", "Hugging Face's cache");
    unsetenv("HF_HOME");
    pull_expecting(1, "--offline", "--offline");
}

/* The catalogue names a host that does not exist; the proxy answers for it. */
static void test_proxy(void **state)
{
    (void)state;
    write_repository("good/0");
    setenv("HF_ENDPOINT", "http://models.invalid", 1);
    setenv("HF_TOKEN", "secret", 1);
    pull_expecting(1, NULL, "after 3 tries");
    set_address("http_proxy", "http", "127.0.0.1", server_port(server));
    pull_expecting(0, NULL, "not encrypted"); /* why the token stays here */
    assert_int_equal(server_log_read(server).proxied, 1);
    assert_int_equal(server_log_read(server).tokens, 0);
    setenv("no_proxy", "models.invalid", 1);
    pull_expecting(1, NULL, "after 3 tries");
    unsetenv("no_proxy");
    unsetenv("http_proxy");
    unsetenv("HF_TOKEN");
    unsetenv("HF_ENDPOINT");
}

/* An encrypted address through a proxy: it sees a tunnel, not the request and not the token. */
static void test_tunnel(void **state)
{
    (void)state;
    char certificate[100], key[100];
    snprintf(certificate, sizeof certificate, "%s/certificate.pem", home);
    snprintf(key, sizeof key, "%s/key.pem", home);
    server_certificate(certificate, key, "DNS:models.invalid", 3600);
    test_server *secure = server_start(certificate, key);
    assert_non_null(secure);
    write_repository("private/0");
    set_address("HF_ENDPOINT", "https", "models.invalid", server_port(secure));
    set_address("https_proxy", "http", "127.0.0.1", server_port(server));
    setenv("HF_TOKEN", "secret", 1);
    pull_expecting(1, NULL, "certificate cannot be trusted");
    static const char *const names[] = {"CURL_CA_BUNDLE", "SSL_CERT_FILE"};
    for (size_t i = 0; i < 2; i++) {
        setenv(names[i], certificate, 1);
        server_log_reset(secure);
        pull_expecting(0, NULL, "verified");
        assert_int_equal(server_log_read(secure).tokens, 1);
        assert_int_equal(server_log_read(server).tunnels, 1);
        assert_int_equal(server_log_read(server).tokens, 0);
        assert_int_equal(server_log_read(server).requests, 0);
        unsetenv(names[i]);
    }
    unsetenv("HF_TOKEN");
    unsetenv("https_proxy");
    unsetenv("HF_ENDPOINT");
    server_stop(secure);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_two_at_once),
        cmocka_unit_test(test_endpoint_and_token),
        cmocka_unit_test(test_offline),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_proxy),
        cmocka_unit_test(test_tunnel),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
