/* Parts of the server alone: who may ask, what Accept means, the fair queue, forms. */
#include "serve/guard.h"
#include "support/check.h"

#include <stdio.h>
#include <stdlib.h>

static void test_token(void **state)
{
    (void)state;
    assert_true(guard_token_matches("secret", "secret"));
    assert_false(guard_token_matches("secreT", "secret"));
    assert_false(guard_token_matches("secretsecret", "secret"));
    assert_false(guard_token_matches("secre", "secret"));
    assert_false(guard_token_matches("", "secret"));
    assert_false(guard_token_matches(NULL, "secret"));
    assert_false(guard_token_matches("", ""));
    assert_string_equal(guard_bearer("bearer  abc"), "abc");
    assert_null(guard_bearer("Basic abc"));
    assert_null(guard_bearer(NULL));
}

static void test_hosts(void **state)
{
    (void)state;
    const char *const hosts[] = {"pictures.example", NULL};
    const char *const good[] = {"localhost",        "LOCALHOST:80",        "127.0.0.1",
                                "192.168.1.5:8080", "[::1]:8080",          "[fe80::1]",
                                "Pictures.Example", "pictures.example:443"};
    const char *const bad[] = {"",     "evil.example", "localhost.evil.example", "127.0.0.1.nip.io",
                               "[::1", ":80",          "pictures.example.evil",  "[::1]evil"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(guard_host_known(good[i], hosts));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(guard_host_known(bad[i], hosts));
    }
    assert_false(guard_host_known(NULL, hosts));
    assert_false(guard_host_known("pictures.example", NULL));
}

static void test_origins(void **state)
{
    (void)state;
    assert_true(guard_same_origin("http://localhost:8080", "localhost:8080"));
    assert_true(guard_same_origin("https://pictures.example", "pictures.example"));
    assert_true(guard_same_origin("http://[::1]:80", "[::1]:80"));
    assert_false(guard_same_origin("http://localhost:8081", "localhost:8080"));
    assert_false(guard_same_origin("http://evil.example", "localhost:8080"));
    assert_false(guard_same_origin("http://localhost:8080.evil.example", "localhost:8080"));
    assert_false(guard_same_origin("http://localhost:8080@evil.example", "localhost:8080"));
    assert_false(guard_same_origin("null", "localhost"));
    assert_false(guard_same_origin("http://localhost", NULL));
}

static void test_forwarded(void **state)
{
    (void)state;
    char client[64] = "";
    assert_true(guard_forwarded_client("1.2.3.4, 10.0.0.1", client, sizeof client));
    assert_string_equal(client, "10.0.0.1");
    assert_true(guard_forwarded_client("2001:db8::1", client, sizeof client));
    assert_string_equal(client, "2001:db8::1");
    assert_false(guard_forwarded_client("1.2.3.4, <script>", client, sizeof client));
    assert_false(guard_forwarded_client("", client, sizeof client));
    assert_false(guard_forwarded_client(NULL, client, sizeof client));
}

static void test_listen(void **state)
{
    (void)state;
    static const struct {
        const char *text, *address;
        unsigned port;
    } good[] = {{"127.0.0.1:80", "127.0.0.1", 80},
                {"localhost:8080", "127.0.0.1", 8080},
                {":9", "127.0.0.1", 9},
                {"9", "127.0.0.1", 9},
                {"[::]:65535", "::", 65535},
                {"*:1", "0.0.0.0", 1}};
    static const char *const bad[] = {"",          "x",       "1.2.3.4",         "1.2.3:4",
                                      "::1:8080x", "name:80", "127.0.0.1:65536", "127.0.0.1:-1",
                                      "[::1]8080"};
    char address[64];
    uint16_t port;
    onestep_error error;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(serve_parse_listen(good[i].text, address, &port, &error), ONESTEP_OK);
        assert_string_equal(address, good[i].address);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(serve_parse_listen(bad[i], address, &port, &error),
                         ONESTEP_ERROR_ARGUMENT);
    }
    assert_true(serve_is_loopback("127.8.9.1"));
    assert_true(serve_is_loopback("::1"));
    assert_false(serve_is_loopback("0.0.0.0"));
    assert_false(serve_is_loopback("::"));
}

static void test_accept(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        image_format preferred;
        answer_kind kind;
        image_format format;
    } good[] = {
        {NULL, IMAGE_FORMAT_UNKNOWN, ANSWER_IMAGE, IMAGE_FORMAT_PNG},
        {NULL, IMAGE_FORMAT_WEBP, ANSWER_IMAGE, IMAGE_FORMAT_WEBP},
        {"*/*", IMAGE_FORMAT_JPEG, ANSWER_IMAGE, IMAGE_FORMAT_JPEG},
        {"image/*", IMAGE_FORMAT_UNKNOWN, ANSWER_IMAGE, IMAGE_FORMAT_PNG},
        {"image/webp;q=0.9, image/jpeg", IMAGE_FORMAT_UNKNOWN, ANSWER_IMAGE, IMAGE_FORMAT_JPEG},
        {"image/png;q=0, image/*", IMAGE_FORMAT_UNKNOWN, ANSWER_IMAGE, IMAGE_FORMAT_WEBP},
        {"application/json", IMAGE_FORMAT_UNKNOWN, ANSWER_JSON, IMAGE_FORMAT_PNG},
        {"application/json, */*;q=0.1", IMAGE_FORMAT_JPEG, ANSWER_JSON, IMAGE_FORMAT_JPEG},
        {"application/json, text/plain, */*", IMAGE_FORMAT_UNKNOWN, ANSWER_JSON, IMAGE_FORMAT_PNG},
        {"TEXT/event-stream", IMAGE_FORMAT_UNKNOWN, ANSWER_EVENTS, IMAGE_FORMAT_PNG},
    };
    answer_kind kind;
    image_format format;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(accept_choose(good[i].accept, good[i].preferred, &kind, &format));
        assert_int_equal(kind, good[i].kind);
        assert_int_equal(format, good[i].format);
    }
    assert_false(accept_choose("text/html", IMAGE_FORMAT_UNKNOWN, &kind, &format));
    assert_false(accept_choose("image/png;q=0", IMAGE_FORMAT_UNKNOWN, &kind, &format));
    assert_false(accept_choose(",;,", IMAGE_FORMAT_UNKNOWN, &kind, &format));
}

static job make_job(const char *client)
{
    job j = {0};
    snprintf(j.client, sizeof j.client, "%s", client);
    return j;
}

static void test_queue_takes_turns(void **state)
{
    (void)state;
    job_queue queue = {.most = 10};
    job a[3], b[2], c = make_job("c"), *evicted;
    for (int i = 0; i < 3; i++) {
        a[i] = make_job("a");
        assert_true(job_queue_push(&queue, &a[i], NULL, 0, &evicted));
    }
    for (int i = 0; i < 2; i++) {
        b[i] = make_job("b");
        assert_true(job_queue_push(&queue, &b[i], NULL, 0, &evicted));
    }
    assert_ptr_equal(job_queue_pop(&queue), &a[0]);
    assert_ptr_equal(job_queue_pop(&queue), &b[0]);
    /* A newcomer waits for no more than one job of each. */
    assert_true(job_queue_push(&queue, &c, NULL, 0, &evicted));
    assert_ptr_equal(job_queue_pop(&queue), &c);
    assert_ptr_equal(job_queue_pop(&queue), &a[1]);
    assert_ptr_equal(job_queue_pop(&queue), &b[1]);
    assert_ptr_equal(job_queue_pop(&queue), &a[2]);
    assert_null(job_queue_pop(&queue));
    assert_int_equal(queue.count, 0);
}

static void test_queue_counts_running_jobs(void **state)
{
    (void)state;
    job_queue queue = {.most = 10};
    job first = make_job("a"), second = make_job("a"), other = make_job("b"), *evicted;
    assert_true(job_queue_push(&queue, &first, NULL, 0, &evicted));
    job *running[1] = {job_queue_pop(&queue)};
    assert_true(job_queue_push(&queue, &second, running, 1, &evicted));
    assert_true(job_queue_push(&queue, &other, running, 1, &evicted));
    assert_ptr_equal(job_queue_pop(&queue), &other);
}

static void test_full_queue(void **state)
{
    (void)state;
    job_queue queue = {.most = 3};
    job a[4], b[3], *evicted;
    for (int i = 0; i < 4; i++) {
        a[i] = make_job("a");
        assert_int_equal(job_queue_admits(&queue, "a"), i < 3);
        assert_int_equal(job_queue_push(&queue, &a[i], NULL, 0, &evicted), i < 3);
        assert_null(evicted);
    }
    for (int i = 0; i < 3; i++) {
        b[i] = make_job("b");
    }
    assert_true(job_queue_admits(&queue, "b"));
    assert_true(job_queue_push(&queue, &b[0], NULL, 0, &evicted));
    assert_ptr_equal(evicted, &a[2]);
    /* Two against one: as fair as it gets. */
    assert_false(job_queue_admits(&queue, "b"));
    assert_false(job_queue_push(&queue, &b[1], NULL, 0, &evicted));
    assert_null(evicted);
    assert_int_equal(queue.count, 3);
}

static void test_base64(void **state)
{
    (void)state;
    uint8_t bytes[300];
    onestep_error error;
    for (size_t size = 0; size < sizeof bytes; size++) {
        text_buffer text = {0};
        uint8_t *back;
        size_t back_size;
        bytes[size] = (uint8_t)(size * 89 + 7);
        base64_append(&text, bytes, size);
        assert_int_equal(
            base64_decode(&back, &back_size, text.data ? text.data : "", text.length, &error),
            ONESTEP_OK);
        assert_int_equal(back_size, size);
        assert_memory_equal(back, bytes, size);
        memory_free(back);
        text_buffer_free(&text);
    }
    static const char *const bad[] = {"A", "AB=C", "A===", "AB*D", "AAAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t *back;
        size_t back_size;
        assert_int_equal(base64_decode(&back, &back_size, bad[i], strlen(bad[i]), &error),
                         ONESTEP_ERROR_FORMAT);
        assert_null(back);
    }
}

static onestep_status parse(form *f, const char *body, onestep_error *error)
{
    return form_parse_multipart(f, "multipart/form-data; boundary=\"b\"", (const uint8_t *)body,
                                strlen(body), error);
}

#define PART "--b\r\nContent-Disposition: form-data; "

static void test_multipart(void **state)
{
    (void)state;
    form f;
    onestep_error error;
    assert_int_equal(parse(&f,
                           "preamble\r\n" PART "name=\"prompt\"\r\n\r\n\r\n--bx\r\n" PART
                           "filename=\"x;name=y\"; name=image\r\n\r\n\x89P\r\n" PART
                           "name=\"empty\"\r\n\r\n\r\n--b--\r\nepilogue",
                           &error),
                     ONESTEP_ERROR_FORMAT); /* "--bx" is no limit */
    assert_int_equal(parse(&f,
                           "preamble\r\n" PART "name=\"prompt\"\r\n\r\na b\r\n" PART
                           "filename=\"x;name=y\"; name=image\r\n\r\n\x89P\r\n" PART
                           "name=\"empty\"\r\n\r\n\r\n--b--\r\nepilogue",
                           &error),
                     ONESTEP_OK);
    assert_string_equal(form_text(&f, "prompt"), "a b");
    assert_string_equal(form_text(&f, "empty"), "");
    assert_int_equal(f.picture_size, 2);
    assert_memory_equal(f.picture, "\x89P", 2);
    form_free(&f);
    static const struct {
        const char *body;
        onestep_status status;
    } bad[] = {
        {"", ONESTEP_ERROR_FORMAT},
        {"--b", ONESTEP_ERROR_FORMAT},
        {"--bad", ONESTEP_ERROR_FORMAT},
        {PART "name=\"x\"\r\n\r\nv", ONESTEP_ERROR_FORMAT},
        {PART "name=\"x\"\r\n\r\nv\r\n--b", ONESTEP_ERROR_FORMAT},
        {PART "nothing\r\n\r\nv\r\n--b--", ONESTEP_ERROR_FORMAT},
        {PART "name=\"\"\r\n\r\nv\r\n--b--", ONESTEP_ERROR_ARGUMENT},
        {PART "name=\"x\"\r\n\r\n\xff\r\n--b--", ONESTEP_ERROR_ARGUMENT},
        {PART "name=\"x\"\r\n\r\nv\r\n" PART "name=\"x\"\r\n\r\nw\r\n--b--",
         ONESTEP_ERROR_ARGUMENT},
        {"--b\r\nContent-Transfer-Encoding: base64\r\n\r\nv\r\n--b--", ONESTEP_ERROR_FORMAT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse(&f, bad[i].body, &error), bad[i].status);
        assert_int_equal(f.count, 0);
        assert_null(f.picture);
    }
    assert_int_equal(
        form_parse_multipart(&f, "multipart/form-data", (const uint8_t *)"", 0, &error),
        ONESTEP_ERROR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_token),
                                       cmocka_unit_test(test_hosts),
                                       cmocka_unit_test(test_origins),
                                       cmocka_unit_test(test_forwarded),
                                       cmocka_unit_test(test_listen),
                                       cmocka_unit_test(test_accept),
                                       cmocka_unit_test(test_queue_takes_turns),
                                       cmocka_unit_test(test_queue_counts_running_jobs),
                                       cmocka_unit_test(test_full_queue),
                                       cmocka_unit_test(test_base64),
                                       cmocka_unit_test(test_multipart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
