/* Fetching files over HTTP: several at once, each resumed, retried and checked.
 *
 * Redirects are followed here and not by libcurl, so that it is plain to see what goes where: the
 * token to the first origin only, no step from https to http, the linked hash from the first
 * answer only. */
#include "store/transfer.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define REDIRECTS_MOST 10
/* What is left free for everybody else. */
#define DISK_MARGIN ((uint64_t)16 << 20)
/* So much more of a file makes up for earlier failures. */
#define HEADWAY ((uint64_t)1 << 20)

typedef enum fetch_state { FETCH_WAITING, FETCH_ACTIVE, FETCH_DONE } fetch_state;

/* What one response says, until the next one starts. */
typedef struct response {
    long code;
    char etag[256], modified[64], location[2048], linked_etag[128];
    int64_t length;                   /* Content-Length, or -1 */
    int64_t range_first, range_total; /* Content-Range, or -1 */
    uint64_t linked_size;
    double retry_after; /* seconds, or -1 */
} response;

/* A file under way. */
typedef struct fetch {
    transfer *job;
    const store_pull_options *options;
    CURL *easy;
    struct curl_slist *headers;
    fetch_state state;
    double start_at; /* when waiting: not before */
    unsigned failures, redirects, bad_hashes;
    uint64_t headway_from;
    char *url; /* of this hop */
    char *part, *record;
    int file; /* the part, open while a body arrives; -1 */
    uint64_t offset, size;
    /* From the record of an earlier try: what the part belongs to. */
    char kept_etag[256], kept_modified[64];
    int64_t kept_total;
    response answer;
    bool body_begun, restart; /* the part was useless: from the start again, without a delay */
    char linked_sha256[SHA256_TEXT];
    uint64_t linked_size;
    bool fatal;
    onestep_error error;
} fetch;

/* ---- the part and its record --------------------------------------------------------------- */

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ? from : "");
}

static void part_forget(fetch *f)
{
    if (f->file >= 0) {
        close(f->file);
        f->file = -1;
    }
    unlink(f->part);
    unlink(f->record);
    f->size = 0;
    f->kept_etag[0] = f->kept_modified[0] = '\0';
    f->kept_total = -1;
}

/* Reads what an earlier process left. */
static void part_find(fetch *f)
{
    f->size = file_bytes(f->part);
    f->kept_total = -1;
    json_t *record = f->size ? json_read(f->record, NULL) : NULL;
    if (record) {
        copy_text(f->kept_etag, sizeof f->kept_etag, json_text(record, "etag"));
        copy_text(f->kept_modified, sizeof f->kept_modified, json_text(record, "modified"));
        json_t *total = json_object_get(record, "total");
        f->kept_total = json_is_integer(total) ? json_integer_value(total) : -1;
        const char *url = json_text(record, "url");
        if (!url || strcmp(url, f->job->url) != 0) {
            part_forget(f); /* another address may have other bytes */
        }
        json_decref(record);
    } else if (f->size) {
        part_forget(f);
    }
}

static onestep_status record_write(fetch *f, onestep_error *error)
{
    json_t *record = json_pack("{s:s, s:s, s:s, s:I}", "url", f->job->url, "etag", f->kept_etag,
                               "modified", f->kept_modified, "total", (json_int_t)f->kept_total);
    onestep_status status = json_write(f->record, record, error);
    json_decref(record);
    return status;
}

/* Whether a later range can be known to belong to the same file. */
static bool part_can_go_on(const fetch *f)
{
    return f->size > 0 && (f->kept_etag[0] || f->kept_modified[0] || f->job->sha256);
}

/* ---- answers -------------------------------------------------------------------------------- */

static uint64_t expected_bytes(const fetch *f)
{
    return f->job->bytes ? f->job->bytes : f->linked_size;
}

static const char *expected_sha256(const fetch *f)
{
    return f->job->sha256 ? f->job->sha256 : f->linked_sha256[0] ? f->linked_sha256 : NULL;
}

static void take_header(response *r, const char *name, const char *value)
{
    if (strcasecmp(name, "etag") == 0) {
        copy_text(r->etag, sizeof r->etag, value);
    } else if (strcasecmp(name, "last-modified") == 0) {
        copy_text(r->modified, sizeof r->modified, value);
    } else if (strcasecmp(name, "location") == 0) {
        copy_text(r->location, sizeof r->location, value);
    } else if (strcasecmp(name, "content-length") == 0) {
        r->length = strtoll(value, NULL, 10);
    } else if (strcasecmp(name, "content-range") == 0) {
        long long first, last, total;
        if (sscanf(value, "bytes %lld-%lld/%lld", &first, &last, &total) == 3) {
            r->range_first = first;
            r->range_total = total;
        } else if (sscanf(value, "bytes */%lld", &total) == 1) {
            r->range_total = total;
        }
    } else if (strcasecmp(name, "retry-after") == 0) {
        char *end;
        double seconds = strtod(value, &end);
        r->retry_after = end != value && seconds >= 0 && isfinite(seconds) ? seconds : -1;
    } else if (strcasecmp(name, "x-linked-etag") == 0) {
        copy_text(r->linked_etag, sizeof r->linked_etag, value);
    } else if (strcasecmp(name, "x-linked-size") == 0) {
        r->linked_size = strtoull(value, NULL, 10);
    }
}

static size_t on_header(char *bytes, size_t one, size_t length, void *user_data)
{
    fetch *f = user_data;
    char line[2304];
    (void)one;
    snprintf(line, sizeof line, "%.*s", (int)size_minimum(length, sizeof line - 1), bytes);
    line[strcspn(line, "\r\n")] = '\0';
    if (strncmp(line, "HTTP/", 5) == 0) {
        const char *blank = strchr(line, ' ');
        f->answer = (response){.code = blank ? strtol(blank, NULL, 10) : 0,
                               .length = -1,
                               .range_first = -1,
                               .range_total = -1,
                               .retry_after = -1};
        return length;
    }
    char *colon = strchr(line, ':');
    if (colon) {
        *colon++ = '\0';
        colon += strspn(colon, " \t");
        size_t end = strlen(colon);
        while (end > 0 && (colon[end - 1] == ' ' || colon[end - 1] == '\t')) {
            colon[--end] = '\0';
        }
        take_header(&f->answer, line, colon);
        if (strcasecmp(line, "x-repo-commit") == 0 && f->redirects == 0) {
            copy_text(f->job->commit, sizeof f->job->commit, colon);
        }
    }
    return length;
}

static bool fail(fetch *f, onestep_status code, const char *format, ...) PRINTF_LIKE(3, 4);

/* A failure that no retry mends. */
static bool fail(fetch *f, onestep_status code, const char *format, ...)
{
    char text[800];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    f->fatal = true;
    error_set(&f->error, code, "%s: %s", f->job->url, text);
    return false;
}

/* The part belongs to another state of the file: once more, from the start. */
static bool start_over(fetch *f, const char *why)
{
    if (f->options->note) {
        char text[600];
        snprintf(text, sizeof text, "%s: %s: fetching it from the start", f->job->url, why);
        f->options->note(f->options->user_data, text);
    }
    part_forget(f);
    f->restart = true;
    return false;
}

/* Hugging Face names a file of its large-file store by its SHA-256: in the redirect's
 * X-Linked-Etag, or, where a mirror serves the file itself, in the ETag. Only the first server's
 * word counts. */
static void take_linked_hash(fetch *f)
{
    const response *r = &f->answer;
    const char *tags[] = {r->linked_etag, r->etag};
    if (f->redirects > 0 || !f->job->linked_hash) {
        return;
    }
    for (size_t i = 0; i < 2; i++) {
        char hash[SHA256_TEXT];
        const char *tag = tags[i] + (strncmp(tags[i], "W/", 2) == 0 ? 2 : 0);
        tag += *tag == '"';
        snprintf(hash, sizeof hash, "%s", tag);
        bool ends = strlen(tag) < sizeof hash || tag[SHA256_TEXT - 1] == '"';
        if (ends && sha256_valid(hash)) {
            memcpy(f->linked_sha256, hash, sizeof hash);
            f->linked_size = r->linked_size;
            return;
        }
    }
}

/* Before the first byte of a good answer's body: puts the part in the state that it continues. */
static bool begin_body(fetch *f)
{
    const response *r = &f->answer;
    f->body_begun = true;
    take_linked_hash(f);
    if (r->code == 206) {
        bool other = (r->etag[0] && f->kept_etag[0] && strcmp(r->etag, f->kept_etag) != 0) ||
                     (f->kept_total >= 0 && r->range_total >= 0 && r->range_total != f->kept_total);
        if (r->range_first != (int64_t)f->offset || f->offset == 0) {
            return start_over(f, "the server sent another range than was asked for");
        }
        if (other) {
            return start_over(f, "the file changed on the server");
        }
    } else {
        f->size = 0;
    }
    int64_t total = r->code == 206 ? r->range_total : r->length;
    uint64_t expected = expected_bytes(f);
    if (expected && total >= 0 && (uint64_t)total != expected) {
        return fail(f, ONESTEP_ERROR_FORMAT,
                    "has %lld bytes, expected %llu: is the address right, or the catalogue old?",
                    (long long)total, (unsigned long long)expected);
    }
    uint64_t whole = total >= 0 ? (uint64_t)total : expected;
    uint64_t rest = whole > f->size ? whole - f->size : 0;
    onestep_status status = parent_create(f->part, &f->error);
    if (status == ONESTEP_OK && f->file < 0) {
        f->file = open(f->part, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    }
    if (status != ONESTEP_OK || f->file < 0 || ftruncate(f->file, (off_t)f->size) != 0 ||
        lseek(f->file, (off_t)f->size, SEEK_SET) < 0) {
        return fail(f, ONESTEP_ERROR_IO, "%s cannot be written: %s", f->part, strerror(errno));
    }
    char *slash = strrchr(f->part, '/');
    *slash = '\0';
    uint64_t room = disk_free(f->part);
    *slash = '/';
    if (rest > 0 && (room < DISK_MARGIN || rest > room - DISK_MARGIN)) {
        return fail(f, ONESTEP_ERROR_IO,
                    "the disk is too full: %.1f MB to fetch, %.1f MB free at %s",
                    (double)rest / 1e6, (double)room / 1e6, f->part);
    }
    if (r->code == 200) {
        copy_text(f->kept_etag, sizeof f->kept_etag, r->etag);
        copy_text(f->kept_modified, sizeof f->kept_modified, r->modified);
    }
    f->kept_total = total;
    f->headway_from = f->size;
    onestep_error error;
    if (record_write(f, &error) != ONESTEP_OK) {
        return fail(f, error.code, "%s", error.message);
    }
    return true;
}

static bool good_code(const fetch *f)
{
    return f->answer.code == 200 || (f->answer.code == 206 && f->offset > 0);
}

static size_t on_body(char *bytes, size_t one, size_t length, void *user_data)
{
    fetch *f = user_data;
    (void)one;
    if (!good_code(f)) {
        return length; /* the page of an error or a redirect */
    }
    if (!f->body_begun && !begin_body(f)) {
        return length + 1; /* stops the transfer */
    }
    uint64_t expected = expected_bytes(f);
    if (expected && f->size + length > expected) {
        fail(f, ONESTEP_ERROR_FORMAT, "sends more than the expected %llu bytes",
             (unsigned long long)expected);
        return length + 1;
    }
    for (size_t done = 0; done < length;) {
        ssize_t put = write(f->file, bytes + done, length - done);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            fail(f, ONESTEP_ERROR_IO, "%s cannot be written: %s (what was fetched is kept)",
                 f->part, strerror(errno));
            return length + 1;
        }
        done += (size_t)put;
        f->size += (uint64_t)put;
        f->job->fetched += (uint64_t)put;
    }
    return length;
}

/* ---- one request ---------------------------------------------------------------------------- */

/* Scheme, host and port of two addresses are the same. */
static bool same_origin(const char *a, const char *b)
{
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    CURLU *first = curl_url(), *second = curl_url();
    bool same = first && second && curl_url_set(first, CURLUPART_URL, a, 0) == CURLUE_OK &&
                curl_url_set(second, CURLUPART_URL, b, 0) == CURLUE_OK;
    for (size_t i = 0; i < 3 && same; i++) {
        char *x = NULL, *y = NULL;
        same = curl_url_get(first, parts[i], &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
               curl_url_get(second, parts[i], &y, CURLU_DEFAULT_PORT) == CURLUE_OK &&
               strcasecmp(x, y) == 0;
        curl_free(x);
        curl_free(y);
    }
    curl_url_cleanup(first);
    curl_url_cleanup(second);
    return same;
}

static bool add_header(fetch *f, const char *format, ...) PRINTF_LIKE(2, 3);

static bool add_header(fetch *f, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    struct curl_slist *longer = curl_slist_append(f->headers, line);
    f->headers = longer ? longer : f->headers;
    return longer != NULL;
}

static bool begin(fetch *f, CURLM *multi)
{
    const store_pull_options *o = f->options;
    curl_easy_reset(f->easy);
    curl_slist_free_all(f->headers);
    f->headers = NULL;
    f->answer = (response){.length = -1, .range_first = -1, .range_total = -1, .retry_after = -1};
    f->body_begun = f->restart = false;
    if (!part_can_go_on(f)) {
        f->size = 0;
    }
    f->offset = f->size;
    bool good = add_header(f, "Accept-Encoding: identity");
    if (f->offset > 0) {
        char range[32];
        snprintf(range, sizeof range, "%llu-", (unsigned long long)f->offset);
        curl_easy_setopt(f->easy, CURLOPT_RANGE, range);
        /* Weak tags are not allowed here; the answer's tag is compared anyhow. */
        const char *validator = f->kept_etag[0] == '"' ? f->kept_etag : f->kept_modified;
        if (*validator && (f->kept_etag[0] == '"' || !f->kept_etag[0])) {
            good = good && add_header(f, "If-Range: %s", validator);
        }
    }
    if (f->job->token && same_origin(f->url, f->job->url)) {
        good = good && add_header(f, "Authorization: Bearer %s", f->job->token);
    }
    if (!good) {
        return fail(f, ONESTEP_ERROR_MEMORY, "no memory for a request");
    }
    curl_easy_setopt(f->easy, CURLOPT_URL, f->url);
    curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->headers);
    curl_easy_setopt(f->easy, CURLOPT_USERAGENT, "onestep/0.1");
    curl_easy_setopt(f->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(f->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(f->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(f->easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(f->easy, CURLOPT_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(f->easy, CURLOPT_CONNECTTIMEOUT_MS, lround(o->stall_seconds * 1000));
    curl_easy_setopt(f->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(f->easy, CURLOPT_LOW_SPEED_TIME, (long)ceil(o->stall_seconds));
    curl_easy_setopt(f->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(f->easy, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(f->easy, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_PRIVATE, f);
    if (o->certificates) {
        curl_easy_setopt(f->easy, CURLOPT_CAINFO, o->certificates);
    }
    if (curl_multi_add_handle(multi, f->easy) != CURLM_OK) {
        return fail(f, ONESTEP_ERROR_MEMORY, "the request cannot be started");
    }
    f->state = FETCH_ACTIVE;
    return true;
}

/* ---- what came of a request ----------------------------------------------------------------- */

static void retry(fetch *f, const char *why)
{
    if (f->size >= f->headway_from + HEADWAY) {
        f->failures = 0;
        f->headway_from = f->size;
    }
    if (f->failures++ >= f->options->retries) {
        fail(f, ONESTEP_ERROR_IO, "%s, after %u tries; what was fetched is kept: try again later",
             why, f->failures);
        return;
    }
    double delay = fmin(ldexp(f->options->first_delay, (int)size_minimum(f->failures - 1, 30)), 60);
    if (f->answer.retry_after >= 0) {
        delay = fmin(f->answer.retry_after, 300);
    }
    if (f->options->note) {
        char text[700];
        snprintf(text, sizeof text, "%s: %s: trying again in %.3g s", f->job->url, why, delay);
        f->options->note(f->options->user_data, text);
    }
    f->start_at = monotonic_seconds() + delay;
    f->state = FETCH_WAITING;
}

static void redirect(fetch *f)
{
    const response *r = &f->answer;
    take_linked_hash(f);
    if (f->redirects++ >= REDIRECTS_MOST) {
        fail(f, ONESTEP_ERROR_IO, "more than %d redirects, the last to %.200s", REDIRECTS_MOST,
             r->location);
        return;
    }
    CURLU *address = curl_url();
    char *next = NULL;
    bool good = address && curl_url_set(address, CURLUPART_URL, f->url, 0) == CURLUE_OK &&
                curl_url_set(address, CURLUPART_URL, r->location, 0) == CURLUE_OK &&
                curl_url_get(address, CURLUPART_URL, &next, 0) == CURLUE_OK;
    if (!good || !r->location[0]) {
        fail(f, ONESTEP_ERROR_IO, "redirects to nowhere (\"%.200s\")", r->location);
    } else if (strncasecmp(f->url, "https:", 6) == 0 && strncasecmp(next, "https:", 6) != 0) {
        fail(f, ONESTEP_ERROR_IO, "redirects from https to %.200s, which is not encrypted", next);
    } else {
        memory_free(f->url);
        f->url = string_duplicate(next, &f->error);
        f->state = FETCH_WAITING;
        f->start_at = 0;
        f->fatal = !f->url;
    }
    curl_free(next);
    curl_url_cleanup(address);
}

/* The part is whole: hash it and give it its name. */
static void finish(fetch *f)
{
    transfer *job = f->job;
    if (!f->body_begun && f->answer.code == 200 && !begin_body(f)) {
        return; /* an empty file has no body */
    }
    uint64_t expected = f->kept_total >= 0 ? (uint64_t)f->kept_total : expected_bytes(f);
    if (expected && f->size != expected) {
        char text[100];
        snprintf(text, sizeof text, "ended after %llu of %llu bytes", (unsigned long long)f->size,
                 (unsigned long long)expected);
        retry(f, text);
        return;
    }
    if (f->file >= 0) {
        bool flushed = fsync(f->file) == 0;
        flushed = close(f->file) == 0 && flushed;
        f->file = -1;
        if (!flushed) {
            fail(f, ONESTEP_ERROR_IO, "%s cannot be flushed: %s", f->part, strerror(errno));
            return;
        }
    }
    onestep_error error;
    if (sha256_file(f->part, job->found_sha256, NULL, NULL, &error) != ONESTEP_OK) {
        fail(f, error.code, "%s", error.message);
        return;
    }
    const char *wanted = expected_sha256(f);
    if (wanted && strcmp(wanted, job->found_sha256) != 0) {
        part_forget(f);
        if (f->bad_hashes++ == 0) {
            retry(f, "its SHA-256 is wrong");
            return;
        }
        fail(f, ONESTEP_ERROR_FORMAT, "SHA-256 %s, expected %s: nothing was installed",
             job->found_sha256, wanted);
        return;
    }
    job->found_bytes = f->size;
    if (path_rename(f->part, job->path, &error) != ONESTEP_OK) {
        fail(f, error.code, "%s", error.message);
        return;
    }
    unlink(f->record);
    f->state = FETCH_DONE;
}

static bool code_can_change(long code)
{
    return code == 408 || code == 425 || code == 429 || code >= 500;
}

static void refuse(fetch *f)
{
    long code = f->answer.code;
    if (code == 404 && f->job->optional) {
        f->job->missing = true;
        f->state = FETCH_DONE;
    } else if (code == 401 || code == 403) {
        fail(f, ONESTEP_ERROR_IO, "the server refuses (%ld): %s", code,
             f->job->token ? "does the token allow this model, and was its licence accepted?"
                           : "set HF_TOKEN if the model needs an account");
    } else if (code == 404 || code == 410) {
        fail(f, ONESTEP_ERROR_IO, "not found (%ld): name another address with --url", code);
    } else {
        fail(f, ONESTEP_ERROR_IO, "the server answers %ld, expected 200", code);
    }
}

static bool result_can_change(CURLcode result)
{
    switch (result) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_AGAIN:
        return true;
    default:
        return false;
    }
}

static void conclude(fetch *f, CURLcode result)
{
    const response *r = &f->answer;
    if (f->file >= 0 && result != CURLE_OK) {
        close(f->file);
        f->file = -1;
    }
    /* Every try begins at the catalogue's address: a redirect's target may have expired. */
    bool moved = result == CURLE_OK && r->code >= 300 && r->code < 400 && r->code != 304;
    if (!moved && !f->fatal && strcmp(f->url, f->job->url) != 0) {
        memory_free(f->url);
        f->url = string_duplicate(f->job->url, &f->error);
        f->fatal = !f->url;
        f->redirects = 0;
    }
    if (f->fatal) {
        return;
    }
    if (f->restart) {
        f->answer.retry_after = 0;
        retry(f, "starting over");
    } else if (result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CACERT_BADFILE) {
        fail(f, ONESTEP_ERROR_IO,
             "the server's certificate cannot be trusted (%s); CURL_CA_BUNDLE names other "
             "authorities",
             curl_easy_strerror(result));
    } else if (result != CURLE_OK) {
        if (result_can_change(result)) {
            retry(f, curl_easy_strerror(result));
        } else {
            fail(f, ONESTEP_ERROR_IO, "%s", curl_easy_strerror(result));
        }
    } else if (moved) {
        redirect(f);
    } else if (good_code(f)) {
        finish(f);
    } else if (r->code == 416 && f->offset > 0) {
        if (r->range_total == (int64_t)f->offset) {
            finish(f); /* the last byte came before the process ended */
        } else {
            start_over(f, "the file is shorter than what was fetched of it");
            f->answer.retry_after = 0;
            retry(f, "starting over");
        }
    } else if (code_can_change(r->code)) {
        char text[60];
        snprintf(text, sizeof text, "the server answers %ld", r->code);
        retry(f, text);
    } else {
        refuse(f);
    }
}

/* ---- all of them ---------------------------------------------------------------------------- */

static onestep_status fetch_open(fetch *f, transfer *job, const store_pull_options *options,
                                 onestep_error *error)
{
    *f = (fetch){.job = job, .options = options, .file = -1, .kept_total = -1};
    f->url = string_duplicate(job->url, error);
    f->part = string_format(error, "%s.part", job->path);
    f->record = string_format(error, "%s.part.json", job->path);
    f->easy = curl_easy_init();
    if (!f->url || !f->part || !f->record || !f->easy) {
        return error_set(error, ONESTEP_ERROR_MEMORY, "%s: no memory to fetch it", job->url);
    }
    part_find(f);
    return ONESTEP_OK;
}

static void fetch_close(fetch *f, CURLM *multi)
{
    if (f->easy) {
        curl_multi_remove_handle(multi, f->easy);
        curl_easy_cleanup(f->easy);
    }
    curl_slist_free_all(f->headers);
    if (f->file >= 0) {
        close(f->file);
    }
    memory_free(f->url);
    memory_free(f->part);
    memory_free(f->record);
}

/* The rate over the last seconds: an exponential mean of what came since the last look. */
typedef struct rate_meter {
    double time, rate;
    uint64_t bytes;
} rate_meter;

static int report(const fetch *fetches, size_t count, const char *model, uint64_t done_before,
                  rate_meter *meter)
{
    const store_pull_options *o = fetches[0].options;
    store_progress progress = {.model = model, .done = done_before, .total = done_before};
    uint64_t fetched = 0;
    for (size_t i = 0; i < count; i++) {
        const fetch *f = &fetches[i];
        uint64_t whole = f->state == FETCH_DONE ? f->job->found_bytes
                         : f->kept_total >= 0   ? (uint64_t)f->kept_total
                         : expected_bytes(f)    ? expected_bytes(f)
                                                : f->job->about_bytes;
        uint64_t done = f->state == FETCH_DONE ? f->job->found_bytes : f->size;
        progress.done += done;
        progress.total += done > whole ? done : whole;
        fetched += f->job->fetched;
        if (f->state == FETCH_ACTIVE) {
            progress.file = f->job->path;
        }
    }
    double now = monotonic_seconds(), passed = now - meter->time;
    if (passed > 0.2) {
        double current = (double)(fetched - meter->bytes) / passed;
        double weight = meter->rate > 0 ? 1 - exp(-passed / 3) : 1;
        meter->rate += weight * (current - meter->rate);
        meter->time = now;
        meter->bytes = fetched;
    }
    progress.bytes_per_second = meter->rate;
    return o->progress ? o->progress(o->user_data, &progress) : 0;
}

/* Starts what may start; says whether anything is left to do. */
static bool start_ready(fetch *fetches, size_t count, CURLM *multi, unsigned parallel)
{
    unsigned active = 0;
    bool left = false;
    double now = monotonic_seconds();
    for (size_t i = 0; i < count; i++) {
        active += fetches[i].state == FETCH_ACTIVE;
        left = left || fetches[i].state != FETCH_DONE;
    }
    for (size_t i = 0; i < count && active < parallel; i++) {
        fetch *f = &fetches[i];
        if (f->state == FETCH_WAITING && f->start_at <= now && !f->fatal) {
            active += begin(f, multi);
        }
    }
    return left;
}

static void collect(CURLM *multi)
{
    int remaining;
    const CURLMsg *message;
    while ((message = curl_multi_info_read(multi, &remaining))) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        fetch *f = NULL;
        CURLcode result = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&f);
        curl_multi_remove_handle(multi, f->easy);
        conclude(f, result);
    }
}

onestep_status transfer_run(transfer *list, size_t count, const char *model, uint64_t done_before,
                            const store_pull_options *options, onestep_error *error)
{
    if (count == 0) {
        return ONESTEP_OK;
    }
    unsigned parallel = options->parallel ? options->parallel : 4;
    rate_meter meter = {.time = monotonic_seconds()};
    onestep_status status = ONESTEP_OK;
    size_t opened = 0;
    CURLM *multi = NULL;
    fetch *fetches = memory_allocate(count, sizeof *fetches, error);
    if (!fetches) {
        return ONESTEP_ERROR_MEMORY;
    }
    multi = curl_multi_init();
    if (!multi) {
        status = error_set(error, ONESTEP_ERROR_MEMORY, "no memory for downloads");
    }
    while (opened < count && status == ONESTEP_OK) {
        status = fetch_open(&fetches[opened], &list[opened], options, error);
        opened++;
    }
    while (status == ONESTEP_OK && start_ready(fetches, count, multi, parallel)) {
        int running;
        curl_multi_perform(multi, &running);
        collect(multi);
        if (report(fetches, count, model, done_before, &meter)) {
            status =
                error_set(error, ONESTEP_ERROR_CANCELLED, "cancelled; what was fetched is kept");
        }
        for (size_t i = 0; i < count && status == ONESTEP_OK; i++) {
            if (fetches[i].fatal) {
                *error = fetches[i].error;
                status = error->code;
            }
        }
        if (status == ONESTEP_OK) {
            curl_multi_poll(multi, NULL, 0, running ? 100 : 5, NULL);
        }
    }
    for (size_t i = 0; i < opened; i++) {
        fetch_close(&fetches[i], multi);
    }
    curl_multi_cleanup(multi);
    memory_free(fetches);
    return status;
}
