#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATHS_MOST 256

struct test_server {
    int listener;
    unsigned port;
    pthread_t thread;
    SSL_CTX *tls;
    pthread_mutex_t mutex;
    bool stopping;
    server_log log;
    char seen_path[PATHS_MOST][160]; /* how often a path was asked for */
    unsigned seen_count[PATHS_MOST];
    unsigned workers;
    pthread_cond_t idle;
};

typedef struct connection {
    test_server *server;
    int socket;
    SSL *tls;
    /* The request. */
    bool tunnel, proxied;
    char path[512], fault[32], authorization[128], if_range[128];
    long argument;
    unsigned file;
    uint64_t size;
    long long range; /* first byte, or -1 */
    unsigned visit;  /* 1 for the first request of this path */
} connection;

uint8_t server_byte(unsigned file, unsigned version, uint64_t index)
{
    uint64_t x = index * 2654435761u + file * 40503u + version * 97u;
    return (uint8_t)((x >> 16) ^ x);
}

static bool send_bytes(connection *c, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        long put = c->tls ? SSL_write(c->tls, at, (int)(size > 16384 ? 16384 : size))
                          : send(c->socket, at, size, MSG_NOSIGNAL);
        if (put <= 0) {
            return false;
        }
        at += put;
        size -= (size_t)put;
    }
    return true;
}

static bool send_text(connection *c, const char *text)
{
    return send_bytes(c, text, strlen(text));
}

/* Bytes `first` to `last` - 1 of the file. */
static bool send_body(connection *c, unsigned version, uint64_t first, uint64_t last, size_t piece,
                      bool chunked)
{
    uint8_t block[16384];
    piece = piece && piece < sizeof block ? piece : sizeof block;
    while (first < last) {
        size_t count = last - first < piece ? (size_t)(last - first) : piece;
        for (size_t i = 0; i < count; i++) {
            block[i] = server_byte(c->file, version, first + i);
        }
        char head[32];
        snprintf(head, sizeof head, "%zx\r\n", count);
        if ((chunked && !send_text(c, head)) || !send_bytes(c, block, count) ||
            (chunked && !send_text(c, "\r\n"))) {
            return false;
        }
        pthread_mutex_lock(&c->server->mutex);
        c->server->log.sent += count;
        pthread_mutex_unlock(&c->server->mutex);
        if (piece < sizeof block) {
            usleep(2000);
        }
        first += count;
    }
    return true;
}

static void hash_text(unsigned file, uint64_t size, char text[65])
{
    uint8_t *bytes = malloc(size + 1);
    unsigned char digest[32];
    for (uint64_t i = 0; i < size; i++) {
        bytes[i] = server_byte(file, 0, i);
    }
    EVP_Digest(bytes, size, digest, NULL, EVP_sha256(), NULL);
    for (int i = 0; i < 32; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
    free(bytes);
}

static void answer_redirect(connection *c, const char *scheme)
{
    char text[1024], linked[200] = "", hash[65];
    if (strncmp(c->fault, "linked", 6) == 0) {
        hash_text(c->file, c->size, hash);
        hash[0] = strcmp(c->fault, "linkedwrong") == 0 ? (hash[0] == '0' ? '1' : '0') : hash[0];
        snprintf(linked, sizeof linked,
                 "X-Linked-Etag: \"%s\"\r\nX-Linked-Size: %llu\r\nX-Repo-Commit: abc123\r\n", hash,
                 (unsigned long long)c->size);
    }
    snprintf(text, sizeof text,
             "HTTP/1.1 302 Found\r\nLocation: %s://127.0.0.1:%ld/good/0/%u-%llu\r\n%s"
             "Content-Length: 4\r\nConnection: close\r\n\r\nmove",
             scheme, c->argument, c->file, (unsigned long long)c->size, linked);
    send_text(c, text);
}

static void answer_code(connection *c, long code)
{
    char text[256];
    snprintf(text, sizeof text,
             "HTTP/1.1 %ld Fault\r\n%sContent-Length: 5\r\nConnection: close\r\n\r\nfault", code,
             code == 429 ? "Retry-After: 0\r\n" : "");
    send_text(c, text);
}

static bool is(const connection *c, const char *fault)
{
    return strcmp(c->fault, fault) == 0;
}

static void answer_file(connection *c)
{
    bool changes = is(c, "change") || is(c, "changeblind");
    bool once = is(c, "cutonce") || is(c, "stall") || is(c, "norange") || changes;
    unsigned version = changes && c->visit > 1 ? 1 : 0;
    if (is(c, "wrong") || (is(c, "wrongonce") && c->visit == 1)) {
        version = 2;
    }
    bool tagged = !is(c, "plain");
    char etag[80], text[512];
    snprintf(etag, sizeof etag, "\"%u-%u\"", c->file, version);
    if (strncmp(c->fault, "tagged", 6) == 0) {
        char hash[65];
        hash_text(c->file, c->size, hash);
        hash[0] = is(c, "taggedwrong") ? (hash[0] == '0' ? '1' : '0') : hash[0];
        snprintf(etag, sizeof etag, "\"%s\"", hash);
    }
    uint64_t first = 0, last = c->size;
    bool partial = c->range >= 0 && !is(c, "norange");
    if (partial && c->if_range[0] && strcmp(c->if_range, etag) != 0 && !is(c, "changeblind")) {
        partial = false;
    }
    if (partial && (uint64_t)c->range >= c->size) {
        snprintf(text, sizeof text,
                 "HTTP/1.1 416 Range\r\nContent-Range: bytes */%llu\r\nContent-Length: 0\r\n"
                 "Connection: close\r\n\r\n",
                 (unsigned long long)c->size);
        send_text(c, text);
        return;
    }
    first = partial ? (uint64_t)c->range : 0;
    int length = snprintf(text, sizeof text, "HTTP/1.1 %s\r\nConnection: close\r\n",
                          partial ? "206 Partial" : "200 OK");
    if (tagged) {
        length += snprintf(text + length, sizeof text - (size_t)length, "ETag: %s\r\n", etag);
    }
    if (partial) {
        length += snprintf(text + length, sizeof text - (size_t)length,
                           "Content-Range: bytes %llu-%llu/%llu\r\n", (unsigned long long)first,
                           (unsigned long long)last - 1, (unsigned long long)c->size);
    }
    bool chunked = is(c, "chunked");
    uint64_t told = last - first + (is(c, "short") ? (uint64_t)c->argument : 0);
    if (chunked) {
        length +=
            snprintf(text + length, sizeof text - (size_t)length, "Transfer-Encoding: chunked\r\n");
    } else {
        length += snprintf(text + length, sizeof text - (size_t)length, "Content-Length: %llu\r\n",
                           (unsigned long long)told);
    }
    snprintf(text + length, sizeof text - (size_t)length, "\r\n");
    if (!send_text(c, text)) {
        return;
    }
    uint64_t stop = last;
    if (is(c, "cut") || ((is(c, "cutonce") || is(c, "stall")) && c->visit == 1)) {
        stop = first + (uint64_t)c->argument < last ? first + (uint64_t)c->argument : last;
    } else if (once && c->visit == 1) {
        stop = last / 2;
    }
    bool sent =
        send_body(c, version, first, stop, is(c, "slow") ? (size_t)c->argument : 0, chunked);
    if (chunked && sent) {
        send_text(c, "0\r\n\r\n");
    }
    if (is(c, "stall") && c->visit == 1) {
        char byte;
        struct pollfd poller = {.fd = c->socket, .events = POLLIN};
        poll(&poller, 1, 10000); /* until the client gives up */
        (void)!recv(c->socket, &byte, 1, MSG_DONTWAIT);
    }
}

static void answer(connection *c)
{
    if (is(c, "loop")) {
        char text[700];
        snprintf(text, sizeof text,
                 "HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: "
                 "close\r\n\r\n",
                 c->path);
        send_text(c, text);
    } else if (is(c, "to") || is(c, "linked") || is(c, "linkedwrong")) {
        answer_redirect(c, c->tls ? "https" : "http");
    } else if (is(c, "toplain")) {
        answer_redirect(c, "http");
    } else if (is(c, "code") || (is(c, "codeonce") && c->visit == 1)) {
        answer_code(c, c->argument);
    } else if (is(c, "private") && strcmp(c->authorization, "Bearer secret") != 0) {
        answer_code(c, 401);
    } else if (is(c, "garbage")) {
        send_text(c, "\x01\x02\x03 this is no HTTP at all\r\n\r\n");
    } else {
        answer_file(c);
    }
}

static bool read_request(connection *c)
{
    char text[8192];
    size_t length = 0;
    while (length < sizeof text - 1) {
        long got = c->tls ? SSL_read(c->tls, text + length, (int)(sizeof text - 1 - length))
                          : recv(c->socket, text + length, sizeof text - 1 - length, 0);
        if (got <= 0) {
            return false;
        }
        length += (size_t)got;
        text[length] = '\0';
        if (strstr(text, "\r\n\r\n")) {
            break;
        }
    }
    char *line = text, *next = strstr(text, "\r\n"), target[512];
    *next = '\0';
    c->range = -1;
    if (sscanf(line, "CONNECT %*[^:]:%ld", &c->argument) == 1) {
        c->tunnel = true;
        return true;
    }
    if (sscanf(line, "GET %511s", target) != 1) {
        return false;
    }
    c->proxied = strncmp(target, "http://", 7) == 0;
    const char *path = c->proxied ? strchr(target + 7, '/') : target;
    snprintf(c->path, sizeof c->path, "%s", path ? path : "/");
    for (line = next + 2; (next = strstr(line, "\r\n")) && next != line; line = next + 2) {
        *next = '\0';
        if (strncasecmp(line, "range: bytes=", 13) == 0) {
            c->range = strtoll(line + 13, NULL, 10);
        } else if (strncasecmp(line, "if-range: ", 10) == 0) {
            snprintf(c->if_range, sizeof c->if_range, "%s", line + 10);
        } else if (strncasecmp(line, "authorization: ", 15) == 0) {
            snprintf(c->authorization, sizeof c->authorization, "%s", line + 15);
        }
    }
    const char *last = strrchr(c->path, '/');
    unsigned long long size = 0;
    sscanf(c->path, "/%31[^/]/%ld", c->fault, &c->argument);
    sscanf(last + 1, "%u-%llu", &c->file, &size);
    c->size = size;
    return true;
}

/* Carries bytes both ways until one side ends. */
static void run_tunnel(connection *c)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)c->argument),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int ends[2] = {c->socket, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (connect(ends[1], (struct sockaddr *)&address, sizeof address) == 0) {
        send_text(c, "HTTP/1.1 200 Connected\r\n\r\n");
        for (bool open = true; open;) {
            struct pollfd waiting[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLIN, 0}};
            open = poll(waiting, 2, 10000) > 0;
            for (int i = 0; i < 2 && open; i++) {
                char block[16384];
                ssize_t got = waiting[i].revents ? recv(ends[i], block, sizeof block, 0) : 0;
                open = !waiting[i].revents ||
                       (got > 0 && send(ends[1 - i], block, (size_t)got, MSG_NOSIGNAL) == got);
            }
        }
    } else {
        answer_code(c, 502);
    }
    close(ends[1]);
}

static void count_request(connection *c)
{
    test_server *s = c->server;
    pthread_mutex_lock(&s->mutex);
    s->log.tunnels += c->tunnel;
    s->log.requests += !c->tunnel;
    s->log.proxied += c->proxied;
    s->log.ranges += c->range >= 0;
    s->log.tokens += c->authorization[0] != '\0';
    for (unsigned i = 0; i < PATHS_MOST && !c->tunnel; i++) {
        if (!s->seen_path[i][0]) {
            snprintf(s->seen_path[i], sizeof s->seen_path[i], "%.159s", c->path);
        }
        if (strcmp(s->seen_path[i], c->path) == 0) {
            c->visit = ++s->seen_count[i];
            break;
        }
    }
    pthread_mutex_unlock(&s->mutex);
}

static void *serve_connection(void *argument)
{
    connection *c = argument;
    test_server *s = c->server;
    bool good = true;
    if (s->tls) {
        c->tls = SSL_new(s->tls);
        SSL_set_fd(c->tls, c->socket);
        good = SSL_accept(c->tls) == 1;
    }
    if (good && read_request(c)) {
        count_request(c);
        if (c->tunnel) {
            run_tunnel(c);
        } else {
            answer(c);
        }
        if (c->tls) {
            SSL_shutdown(c->tls);
        }
    }
    SSL_free(c->tls);
    close(c->socket);
    free(c);
    pthread_mutex_lock(&s->mutex);
    s->workers--;
    pthread_cond_signal(&s->idle);
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static void *serve(void *argument)
{
    test_server *s = argument;
    /* A client that hangs up in the middle ends a connection, not this program. */
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL);
    for (;;) {
        int socket = accept(s->listener, NULL, NULL);
        pthread_mutex_lock(&s->mutex);
        bool stopping = s->stopping;
        s->workers += !stopping && socket >= 0;
        pthread_mutex_unlock(&s->mutex);
        if (stopping) {
            if (socket >= 0) {
                close(socket);
            }
            return NULL;
        }
        connection *c = socket >= 0 ? calloc(1, sizeof *c) : NULL;
        if (!c) {
            continue;
        }
        c->server = s;
        c->socket = socket;
        pthread_t thread;
        pthread_create(&thread, NULL, serve_connection, c);
        pthread_detach(thread);
    }
}

test_server *server_start(const char *certificate, const char *key)
{
    test_server *s = calloc(1, sizeof *s);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->idle, NULL);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (certificate) {
        s->tls = SSL_CTX_new(TLS_server_method());
        if (SSL_CTX_use_certificate_file(s->tls, certificate, SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_use_PrivateKey_file(s->tls, key, SSL_FILETYPE_PEM) != 1) {
            return NULL;
        }
    }
    if (bind(s->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(s->listener, 64) != 0 ||
        getsockname(s->listener, (struct sockaddr *)&address, &length) != 0) {
        return NULL;
    }
    s->port = ntohs(address.sin_port);
    pthread_create(&s->thread, NULL, serve, s);
    return s;
}

void server_certificate(const char *certificate_path, const char *key_path, const char *subject,
                        long seconds)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), seconds);
    X509_set_pubkey(certificate, key);
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, subject);
    X509_add_ext(certificate, names, -1);
    X509_EXTENSION_free(names);
    X509_sign(certificate, key, EVP_sha256());
    FILE *file = fopen(certificate_path, "wb");
    PEM_write_X509(file, certificate);
    fclose(file);
    file = fopen(key_path, "wb");
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

void server_stop(test_server *s)
{
    pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    pthread_mutex_unlock(&s->mutex);
    /* One more connection wakes the accepting thread. */
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)s->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int waker = socket(AF_INET, SOCK_STREAM, 0);
    (void)!connect(waker, (struct sockaddr *)&address, sizeof address);
    close(waker);
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&s->mutex);
    while (s->workers > 0) {
        pthread_cond_wait(&s->idle, &s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    close(s->listener);
    SSL_CTX_free(s->tls);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->idle);
    free(s);
}

unsigned server_port(const test_server *s)
{
    return s->port;
}

server_log server_log_read(test_server *s)
{
    pthread_mutex_lock(&s->mutex);
    server_log log = s->log;
    pthread_mutex_unlock(&s->mutex);
    return log;
}

void server_log_reset(test_server *s)
{
    pthread_mutex_lock(&s->mutex);
    s->log = (server_log){0};
    memset(s->seen_path, 0, sizeof s->seen_path);
    memset(s->seen_count, 0, sizeof s->seen_count);
    pthread_mutex_unlock(&s->mutex);
}
