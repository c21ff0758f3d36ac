/* Pulling from a server that breaks in every way. */
#include "server.h"
#include "store/store.h"
#include "support/check.h"

#include <ftw.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NUMBER 7
#define BYTES       100000

static test_server *server, *other;
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
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    server = server_start(NULL, NULL);
    other = server_start(NULL, NULL);
    return !server || !other;
}

static int stop(void **state)
{
    (void)state;
    server_stop(server);
    server_stop(other);
    return 0;
}

static int make_home(void **state)
{
    (void)state;
    snprintf(home, sizeof home, "/tmp/onestep-store-XXXXXX");
    server_log_reset(server);
    server_log_reset(other);
    return mkdtemp(home) == NULL;
}

static int remove_home(void **state)
{
    (void)state;
    return nftw(home, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- one file as a model -------------------------------------------------------------------- */

static char hash[65];

static const char *formula_hash(unsigned file, unsigned version, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    unsigned char digest[32];
    for (size_t i = 0; i < size; i++) {
        bytes[i] = server_byte(file, version, i);
    }
    EVP_Digest(bytes, size, digest, NULL, EVP_sha256(), NULL);
    free(bytes);
    for (int i = 0; i < 32; i++) {
        snprintf(hash + 2 * i, 3, "%02x", digest[i]);
    }
    return hash;
}

typedef struct setting {
    char url[200], file[40];
    catalogue_file entry;
    catalogue_model model;
    store_pull_options options;
    uint64_t fetched;
} setting;

/* A checkpoint at /FAULT/ARGUMENT/7-SIZE. */
static void prepare(setting *s, const char *scheme, unsigned port, const char *fault, long argument,
                    uint64_t size)
{
    *s = (setting){0};
    snprintf(s->url, sizeof s->url, "%s://127.0.0.1:%u/%s/%ld/", scheme, port, fault, argument);
    snprintf(s->file, sizeof s->file, "%d-%llu", FILE_NUMBER, (unsigned long long)size);
    s->entry = (catalogue_file){.path = s->file};
    s->model = (catalogue_model){.name = "mine",
                                 .kind = MODEL_CHECKPOINT,
                                 .licence = "none",
                                 .url = s->url,
                                 .files = &s->entry,
                                 .file_count = 1};
    store_pull_options_init(&s->options);
    s->options.first_delay = 0.001;
    s->options.retries = 4;
    s->options.stall_seconds = 1;
}

static onestep_status pull(setting *s)
{
    error.message[0] = '\0';
    return store_pull(home, &s->model, &s->options, &s->fetched, &error);
}

/* Every byte of the installed file is as the formula says. */
static void check_file(const setting *s, unsigned version, uint64_t size)
{
    uint8_t *bytes;
    size_t length;
    char *path = store_model_path(home, &s->model, &error);
    assert_int_equal(file_read(path, (size_t)1 << 30, &bytes, &length, &error), ONESTEP_OK);
    assert_int_equal(length, size);
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != server_byte(FILE_NUMBER, version, i)) {
            fail_msg("byte %zu of %s is wrong", i, path);
        }
    }
    memory_free(bytes);
    memory_free(path);
}

static void check_good(setting *s, unsigned version, uint64_t size)
{
    if (pull(s) != ONESTEP_OK) {
        fail_msg("%s: %s", s->url, error.message);
    }
    check_file(s, version, size);
    assert_int_equal(store_state(home, &s->model, false, NULL), MODEL_PRESENT);
}

static void check_bad(setting *s, onestep_status code, const char *message)
{
    onestep_status status = pull(s);
    if (status != code || !strstr(error.message, message)) {
        fail_msg("%s: status %d \"%s\", expected %d with \"%s\"", s->url, status, error.message,
                 code, message);
    }
    char *path = store_model_path(home, &s->model, &error);
    assert_int_not_equal(access(path, F_OK), 0);
    memory_free(path);
}

#define PREPARE(s, fault, argument) prepare(s, "http", server_port(server), fault, argument, BYTES)

/* ---- what goes well ------------------------------------------------------------------------- */

static void count_bad(void *user_data, const char *model, const char *path, uint64_t bytes,
                      const char *problem)
{
    (void)model;
    (void)path;
    (void)bytes;
    if (problem) {
        snprintf(user_data, 200, "%s", problem);
    }
}

static void test_good(void **state)
{
    (void)state;
    setting s;
    char problem[200] = "";
    size_t bad;
    PREPARE(&s, "good", 0);
    assert_int_equal(store_state(home, &s.model, false, NULL), MODEL_ABSENT);
    check_good(&s, 0, BYTES);
    assert_int_equal(s.fetched, BYTES);
    assert_int_equal(server_log_read(server).requests, 1);
    check_good(&s, 0, BYTES); /* nothing is asked for twice */
    assert_int_equal(server_log_read(server).requests, 1);

    assert_int_equal(store_verify(home, NULL, count_bad, problem, &bad, &error), ONESTEP_OK);
    assert_int_equal(bad, 0);
    char *path = store_find(home, NULL, "mine", &error);
    assert_non_null(path);
    FILE *file = fopen(path, "r+b");
    fseek(file, 5000, SEEK_SET);
    fputc(server_byte(FILE_NUMBER, 0, 5000) ^ 1, file);
    fclose(file);
    assert_int_equal(store_verify(home, "mine", count_bad, problem, &bad, &error), ONESTEP_OK);
    assert_int_equal(bad, 1);
    check_contains(problem, "SHA-256");
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(store_verify(home, "mine", count_bad, problem, &bad, &error), ONESTEP_OK);
    check_contains(problem, "has 10 bytes");
    unlink(path);
    assert_int_equal(store_verify(home, "mine", count_bad, problem, &bad, &error), ONESTEP_OK);
    check_contains(problem, "missing");
    memory_free(path);
    assert_int_equal(store_verify(home, "other", count_bad, problem, &bad, &error),
                     ONESTEP_ERROR_IO);
    check_good(&s, 0, BYTES);
    uint64_t freed;
    assert_int_equal(store_remove(home, NULL, "mine", &freed, &error), ONESTEP_OK);
    assert_int_equal(freed, BYTES);
    assert_int_equal(store_remove(home, NULL, "mine", &freed, &error), ONESTEP_ERROR_IO);
}

static void test_odd_answers(void **state)
{
    (void)state;
    static const struct {
        const char *fault;
        long argument;
        uint64_t size;
    } cases[] = {{"plain", 0, BYTES}, {"chunked", 0, BYTES}, {"good", 0, 1}, {"good", 0, 5000000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setting s;
        prepare(&s, "http", server_port(server), cases[i].fault, cases[i].argument, cases[i].size);
        s.entry.sha256 = formula_hash(FILE_NUMBER, 0, cases[i].size);
        s.entry.bytes = cases[i].size;
        check_good(&s, 0, cases[i].size);
        assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
    }
}

/* ---- breaks --------------------------------------------------------------------------------- */

static void test_cuts(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "cut", 30000);
    check_good(&s, 0, BYTES);
    assert_int_equal(s.fetched, BYTES); /* no byte twice */
    assert_int_equal(server_log_read(server).requests, 4);
    assert_int_equal(server_log_read(server).ranges, 3);
}

/* Parts survive a failed pull; the next one goes on. */
static void test_parts_stay(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "cut", 30000);
    s.options.retries = 0;
    check_bad(&s, ONESTEP_ERROR_IO, "try again later");
    assert_int_equal(store_state(home, &s.model, false, NULL), MODEL_PARTIAL);
    check_bad(&s, ONESTEP_ERROR_IO, "kept");
    s.options.retries = 4;
    check_good(&s, 0, BYTES);
    assert_int_equal(s.fetched, BYTES - 60000);
}

/* Without a validator nobody can tell whether a range belongs to the same file. */
static void test_no_validator(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "plain", 0);
    s.options.progress = NULL;
    char part[200];
    snprintf(part, sizeof part, "%s/incoming", home);
    mkdir(part, 0777);
    snprintf(part, sizeof part, "%s/incoming/mine", home);
    mkdir(part, 0777);
    snprintf(part, sizeof part, "%s/incoming/mine/%s.part", home, s.file);
    assert_int_equal(file_write_atomic(part, "stale", 5, &error), ONESTEP_OK);
    check_good(&s, 0, BYTES);
    assert_int_equal(server_log_read(server).ranges, 0);
}

static void test_stall(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "stall", 40000);
    check_good(&s, 0, BYTES);
    assert_int_equal(server_log_read(server).requests, 2);
    assert_int_equal(server_log_read(server).ranges, 1);
}

static void test_wrong_length(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "short", 10);
    check_bad(&s, ONESTEP_ERROR_IO, "tries");
    server_log_reset(server);
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_ERROR_IO);
    PREPARE(&s, "good", 0);
    s.entry.bytes = BYTES + 1;
    check_bad(&s, ONESTEP_ERROR_FORMAT, "expected 100001");
    assert_int_equal(server_log_read(server).requests, 1);
    PREPARE(&s, "chunked", 0);
    s.entry.bytes = BYTES - 1;
    check_bad(&s, ONESTEP_ERROR_FORMAT, "more than the expected");
}

static void test_wrong_hash(void **state)
{
    (void)state;
    setting s;
    char expected[65];
    snprintf(expected, sizeof expected, "%s", formula_hash(FILE_NUMBER, 0, BYTES));
    PREPARE(&s, "wrong", 0);
    s.entry.sha256 = expected;
    check_bad(&s, ONESTEP_ERROR_FORMAT, expected);
    assert_int_equal(server_log_read(server).requests, 2); /* once more, and no further */
    char part[200];
    snprintf(part, sizeof part, "%s/incoming/mine/%s.part", home, s.file);
    assert_int_not_equal(access(part, F_OK), 0);
    PREPARE(&s, "wrongonce", 0);
    s.entry.sha256 = expected;
    check_good(&s, 0, BYTES);
}

static void test_codes(void **state)
{
    (void)state;
    static const struct {
        const char *fault, *message;
        long code;
        unsigned requests; /* 0: success at the second */
    } cases[] = {{"code", "not found (404)", 404, 1},
                 {"code", "refuses (403)", 403, 1},
                 {"code", "HF_TOKEN", 401, 1},
                 {"code", "answers 400", 400, 1},
                 {"code", "answers 500", 500, 5},
                 {"code", "answers 503", 503, 5},
                 {"code", "answers 429", 429, 5},
                 {"codeonce", "", 429, 0},
                 {"codeonce", "", 502, 0},
                 {"garbage", "", 0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setting s;
        server_log_reset(server);
        PREPARE(&s, cases[i].fault, cases[i].code);
        if (cases[i].requests == 0) {
            check_good(&s, 0, BYTES);
            assert_int_equal(server_log_read(server).requests, 2);
            assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
        } else {
            check_bad(&s, ONESTEP_ERROR_IO, cases[i].message);
            assert_int_equal(server_log_read(server).requests, cases[i].requests);
        }
    }
    setting s;
    prepare(&s, "http", 1, "good", 0, BYTES); /* nobody listens there */
    check_bad(&s, ONESTEP_ERROR_IO, "after 5 tries");
}

/* ---- ranges that do not fit ----------------------------------------------------------------- */

static void test_ranges(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "norange", 0);
    check_good(&s, 0, BYTES);
    assert_int_equal(s.fetched, BYTES + BYTES / 2); /* the first half was for nothing */
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
    PREPARE(&s, "change", 0);
    check_good(&s, 1, BYTES); /* all of it the new version */
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
    PREPARE(&s, "changeblind", 0);
    check_good(&s, 1, BYTES);
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
}

/* The process ended after the last byte and before the file got its name. */
static void test_whole_part(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "cut", 30000);
    s.options.retries = 0;
    check_bad(&s, ONESTEP_ERROR_IO, "kept");
    char part[200];
    uint8_t bytes[BYTES];
    snprintf(part, sizeof part, "%s/incoming/mine/%s.part", home, s.file);
    for (size_t i = 0; i < BYTES; i++) {
        bytes[i] = server_byte(FILE_NUMBER, 0, i);
    }
    assert_int_equal(file_write_atomic(part, bytes, BYTES, &error), ONESTEP_OK);
    check_good(&s, 0, BYTES);
    assert_int_equal(s.fetched, 0);
}

/* ---- redirects and tokens ------------------------------------------------------------------- */

/* The model as Hugging Face would serve it: ENDPOINT/FAULT/PORT/resolve/main/7-100000. */
static void prepare_hugging(setting *s, const char *fault, unsigned port, char endpoint[64],
                            char repository[64])
{
    PREPARE(s, fault, 0);
    snprintf(endpoint, 64, "http://127.0.0.1:%u/", server_port(server));
    snprintf(repository, 64, "%s/%u", fault, port);
    s->model.url = NULL;
    s->model.huggingface = repository;
    s->model.revision = "main";
    s->options.endpoint = endpoint;
    s->options.token = "secret";
}

static void test_redirects(void **state)
{
    (void)state;
    setting s;
    char endpoint[64], repository[64];
    PREPARE(&s, "loop", 0);
    check_bad(&s, ONESTEP_ERROR_IO, "redirects");
    assert_int_equal(server_log_read(server).requests, 11);
    server_log_reset(server);

    prepare_hugging(&s, "private", 0, endpoint, repository);
    check_good(&s, 0, BYTES);
    assert_int_equal(server_log_read(server).tokens, 1);
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
    s.options.token = NULL;
    check_bad(&s, ONESTEP_ERROR_IO, "HF_TOKEN");
    server_log_reset(server);

    /* The token stays with the host that it is for. */
    prepare_hugging(&s, "to", server_port(other), endpoint, repository);
    check_good(&s, 0, BYTES);
    assert_int_equal(server_log_read(server).tokens, 1);
    assert_int_equal(server_log_read(other).requests, 1);
    assert_int_equal(server_log_read(other).tokens, 0);
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);

    /* And never goes to a mirror that --url names. */
    prepare_hugging(&s, "good", 0, endpoint, repository);
    s.options.url = s.url;
    snprintf(s.url, sizeof s.url, "http://127.0.0.1:%u/good/0/", server_port(other));
    check_good(&s, 0, BYTES);
    assert_int_equal(server_log_read(other).tokens, 0);
}

/* The manifest, by which a later `verify` goes. */
static void check_remembered(const char *text)
{
    char manifest[200];
    uint8_t *bytes;
    size_t size;
    snprintf(manifest, sizeof manifest, "%s/manifests/mine.json", home);
    assert_int_equal(file_read(manifest, 10000, &bytes, &size, &error), ONESTEP_OK);
    check_contains((char *)bytes, text);
    memory_free(bytes);
}

static void test_linked_hash(void **state)
{
    (void)state;
    setting s;
    char endpoint[64], repository[64];
    prepare_hugging(&s, "linkedwrong", server_port(other), endpoint, repository);
    check_bad(&s, ONESTEP_ERROR_FORMAT, "SHA-256");
    prepare_hugging(&s, "linked", server_port(other), endpoint, repository);
    check_good(&s, 0, BYTES);
    check_remembered("abc123"); /* the commit */
    check_remembered(formula_hash(FILE_NUMBER, 0, BYTES));
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
    /* A mirror that serves the file itself, with its hash as the tag. */
    prepare_hugging(&s, "taggedwrong", 0, endpoint, repository);
    check_bad(&s, ONESTEP_ERROR_FORMAT, "SHA-256");
    prepare_hugging(&s, "tagged", 0, endpoint, repository);
    check_good(&s, 0, BYTES);
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
    /* Elsewhere a tag is a tag, whatever it looks like. */
    PREPARE(&s, "taggedwrong", 0);
    check_good(&s, 0, BYTES);
    check_remembered(formula_hash(FILE_NUMBER, 0, BYTES));
}

/* ---- TLS ------------------------------------------------------------------------------------ */

static void test_tls(void **state)
{
    (void)state;
    char certificate[100], key[100];
    snprintf(certificate, sizeof certificate, "%s/certificate.pem", home);
    snprintf(key, sizeof key, "%s/key.pem", home);
    setting s;
    /* Of another host, expired, and signed by nobody: no request gets through. */
    static const struct {
        const char *of;
        long seconds;
        bool known;
    } bad[] = {
        {"IP:127.0.0.2", 3600, true}, {"IP:127.0.0.1", -60, true}, {"IP:127.0.0.1", 3600, false}};
    for (size_t i = 0; i < 3; i++) {
        server_certificate(certificate, key, bad[i].of, bad[i].seconds);
        test_server *untrusted = server_start(certificate, key);
        assert_non_null(untrusted);
        prepare(&s, "https", server_port(untrusted), "good", 0, BYTES);
        s.options.certificates = bad[i].known ? certificate : NULL;
        check_bad(&s, ONESTEP_ERROR_IO, "certificate cannot be trusted");
        assert_int_equal(server_log_read(untrusted).requests, 0);
        server_stop(untrusted);
    }
    test_server *secure = server_start(certificate, key);
    assert_non_null(secure);
    prepare(&s, "https", server_port(secure), "good", 0, BYTES);
    s.options.certificates = certificate;
    check_good(&s, 0, BYTES);
    assert_int_equal(store_remove(home, NULL, "mine", NULL, &error), ONESTEP_OK);
    prepare(&s, "https", server_port(secure), "toplain", (long)server_port(server), BYTES);
    s.options.certificates = certificate;
    check_bad(&s, ONESTEP_ERROR_IO, "not encrypted");
    assert_int_equal(server_log_read(server).requests, 0);
    server_stop(secure);
}

/* ---- the disk ------------------------------------------------------------------------------- */

static void test_full_disk(void **state)
{
    (void)state;
    setting s;
    PREPARE(&s, "good", 0);
    s.entry.about_bytes = (uint64_t)1 << 60;
    check_bad(&s, ONESTEP_ERROR_IO, "disk is too full");
    assert_int_equal(server_log_read(server).requests, 0); /* said before it happens */
    prepare(&s, "http", server_port(server), "good", 0, (uint64_t)1 << 60);
    check_bad(&s, ONESTEP_ERROR_IO, "disk is too full");
    assert_int_equal(server_log_read(server).requests, 1);
}

static char filler[100];

/* Somebody else fills the disk while the file is on its way. */
static int fill_disk(void *user_data, const store_progress *progress)
{
    static char block[1 << 16];
    (void)user_data;
    FILE *file = progress->done > 200000 && access(filler, F_OK) != 0 ? fopen(filler, "wb") : NULL;
    if (file) {
        while (fwrite(block, 1, sizeof block, file) == sizeof block) {
        }
        fclose(file);
    }
    return 0;
}

/* A file system of 70 MB: said before it is full, and nothing lost when others fill it. */
static void test_small_disk(void **state)
{
    (void)state;
    setting s;
    if (mount("none", home, "tmpfs", 0, "size=70m") != 0) {
        skip(); /* not root */
    }
    PREPARE(&s, "good", 0);
    s.entry.about_bytes = 10000000;
    check_bad(&s, ONESTEP_ERROR_IO, "disk is too full"); /* 64 MB stay free */
    assert_int_equal(server_log_read(server).requests, 0);
    prepare(&s, "http", server_port(server), "good", 0, 60000000); /* told by the server only */
    check_bad(&s, ONESTEP_ERROR_IO, "disk is too full");
    assert_int_equal(server_log_read(server).requests, 1);
    prepare(&s, "http", server_port(server), "slow", 8000, 3000000);
    snprintf(filler, sizeof filler, "%s/filler", home);
    s.options.progress = fill_disk;
    check_bad(&s, ONESTEP_ERROR_IO, "cannot be written");
    check_contains(error.message, "kept");
    unlink(filler);
    s.options.progress = NULL;
    check_good(&s, 0, 3000000);
    assert_true(s.fetched < 2900000);
    assert_int_equal(umount(home), 0);
}

/* A write that fails in the middle keeps what was fetched. */
static void test_write_fails(void **state)
{
    (void)state;
    setting s;
    prepare(&s, "http", server_port(server), "good", 0, 3000000);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){1000000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    onestep_status status = pull(&s);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, ONESTEP_ERROR_IO);
    check_contains(error.message, "cannot be written");
    check_good(&s, 0, 3000000);
    assert_true(s.fetched <= 2000000);
}

/* ---- a base of many files ------------------------------------------------------------------- */

static void prepare_base(setting *s, catalogue_file *files, size_t count, char (*paths)[40])
{
    PREPARE(s, "good", 0);
    for (size_t i = 0; i < count; i++) {
        snprintf(paths[i], 40, "%s/%zu-%zu", i % 2 ? "unet" : "vae", i, 1000 + 1000 * i);
        files[i] = (catalogue_file){.path = paths[i]};
    }
    s->model.name = "whole";
    s->model.kind = MODEL_BASE;
    s->model.files = files;
    s->model.file_count = count;
}

static void test_base(void **state)
{
    (void)state;
    enum { COUNT = 12 };
    setting s;
    catalogue_file files[COUNT];
    char paths[COUNT][40], base[100];
    prepare_base(&s, files, COUNT, paths);
    files[3].variant = VARIANT_FULL;
    files[4].variant = VARIANT_HALF;
    files[5].optional = true;
    snprintf(paths[6], sizeof paths[6], "unet/6-7000");
    snprintf(base, sizeof base, "%s/bases/whole", home);
    /* One file is not there: no folder that looks like a model appears. */
    snprintf(s.url, sizeof s.url, "http://127.0.0.1:%u/code/404/", server_port(server));
    assert_int_equal(pull(&s), ONESTEP_ERROR_IO);
    assert_int_not_equal(access(base, F_OK), 0);
    snprintf(s.url, sizeof s.url, "http://127.0.0.1:%u/good/0/", server_port(server));
    usleep(500 * 1000); /* requests of the pull that failed may still be on their way */
    server_log_reset(server);
    assert_int_equal(pull(&s), ONESTEP_OK);
    assert_int_equal(server_log_read(server).requests, COUNT - 1);
    assert_int_equal(access(base, F_OK), 0);
    assert_int_equal(store_state(home, &s.model, false, NULL), MODEL_PRESENT);
    assert_int_not_equal(store_state(home, &s.model, true, NULL), MODEL_PRESENT);
    s.options.full = true; /* only what is missing for it */
    assert_int_equal(pull(&s), ONESTEP_OK);
    assert_int_equal(server_log_read(server).requests, COUNT);
    char problem[200];
    size_t bad;
    assert_int_equal(store_verify(home, "whole", count_bad, problem, &bad, &error), ONESTEP_OK);
    assert_int_equal(bad, 0);
    char incoming[100];
    snprintf(incoming, sizeof incoming, "%s/incoming/whole", home);
    assert_int_not_equal(access(incoming, F_OK), 0);
}

/* ---- Hugging Face's cache ------------------------------------------------------------------- */

static void write_formula(const char *path, unsigned version)
{
    static uint8_t bytes[BYTES];
    for (size_t i = 0; i < BYTES; i++) {
        bytes[i] = server_byte(FILE_NUMBER, version, i);
    }
    assert_int_equal(file_write_atomic(path, bytes, BYTES, &error), ONESTEP_OK);
}

static void test_cache(void **state)
{
    (void)state;
    setting s;
    char endpoint[64], repository[64], hub[100], path[400], blob[200], link[400];
    prepare_hugging(&s, "good", 0, endpoint, repository);
    snprintf(hub, sizeof hub, "%s/hub", home);
    s.options.huggingface_cache = hub;
    s.options.offline = true;
    check_bad(&s, ONESTEP_ERROR_IO, "--offline");
    static const char *const folders[] = {"refs", "blobs", "snapshots/c0ffee"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/models--good--0/%s", hub, folders[i]);
        assert_int_equal(folder_create(path, &error), ONESTEP_OK);
    }
    snprintf(path, sizeof path, "%s/models--good--0/refs/main", hub);
    assert_int_equal(file_write_atomic(path, "c0ffee", 6, &error), ONESTEP_OK);
    snprintf(blob, sizeof blob, "%s/models--good--0/blobs/%s", hub,
             formula_hash(FILE_NUMBER, 0, BYTES));
    snprintf(link, sizeof link, "../../blobs/%s", hash);
    write_formula(blob, 2); /* damaged: its hash is not its name */
    snprintf(path, sizeof path, "%s/models--good--0/snapshots/c0ffee/%s", hub, s.file);
    assert_int_equal(symlink(link, path), 0);
    check_bad(&s, ONESTEP_ERROR_IO, "--offline");
    write_formula(blob, 0);
    check_good(&s, 0, BYTES);
    assert_int_equal(server_log_read(server).requests, 0);
}

/* ---- stopping ------------------------------------------------------------------------------- */

static uint64_t stop_after;

static int stop_in_the_middle(void *user_data, const store_progress *progress)
{
    (void)user_data;
    return progress->done > stop_after;
}

static void test_stopping(void **state)
{
    (void)state;
    setting s;
    prepare(&s, "http", server_port(server), "slow", 4000, 400000);
    s.options.progress = stop_in_the_middle;
    stop_after = 100000;
    assert_int_equal(pull(&s), ONESTEP_ERROR_CANCELLED);
    stop_after = 250000;
    assert_int_equal(pull(&s), ONESTEP_ERROR_CANCELLED);
    assert_true(s.fetched < 250000);
    s.options.progress = NULL;
    check_good(&s, 0, 400000);
    assert_true(s.fetched < 200000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_home, remove_home)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_good),         TEST(test_odd_answers),  TEST(test_cuts),
        TEST(test_parts_stay),   TEST(test_no_validator), TEST(test_stall),
        TEST(test_wrong_length), TEST(test_wrong_hash),   TEST(test_codes),
        TEST(test_ranges),       TEST(test_whole_part),   TEST(test_redirects),
        TEST(test_linked_hash),  TEST(test_tls),          TEST(test_full_disk),
        TEST(test_small_disk),   TEST(test_write_fails),  TEST(test_base),
        TEST(test_cache),        TEST(test_stopping),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
