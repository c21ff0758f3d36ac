/* A hostile HTTP(S) server on loopback for the tests of the store: it serves bytes that a formula
 * gives, and breaks in every way a path names. */
#ifndef TESTS_STORE_SERVER_H
#define TESTS_STORE_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct test_server test_server;

/* Starts a server (a thread of this process) on a free port of 127.0.0.1; with `certificate` and
 * `key` (PEM files) it speaks TLS. */
test_server *server_start(const char *certificate, const char *key);
void server_stop(test_server *server);
/* Writes a certificate, signed by itself, for a name ("IP:127.0.0.1", "DNS:host"), that is valid
 * until `seconds` from now, and its key. */
void server_certificate(const char *certificate_path, const char *key_path, const char *subject,
                        long seconds);
unsigned server_port(const test_server *server);

/* What was asked since the start or the last reset. */
typedef struct server_log {
    unsigned requests, ranges, tokens; /* `tokens`: requests with Authorization */
    unsigned proxied, tunnels;         /* requests for another host; CONNECTs, no requests */
    uint64_t sent;                     /* bytes of bodies */
} server_log;
server_log server_log_read(test_server *server);
void server_log_reset(test_server *server);

/* Byte `index` of the file number `file` in its state `version`. */
uint8_t server_byte(unsigned file, unsigned version, uint64_t index);

/* Paths: /FAULT/ARGUMENT/FILE-SIZE, for example /good/0/7-100000.
 *   good            answers with ETag and ranges
 *   plain           no validators at all
 *   cut/N           every connection ends after N bytes of body
 *   cutonce/N       only the first does
 *   stall/N         sends N bytes and then nothing, the first time
 *   short/N         Content-Length N bytes too large, then ends
 *   wrong           other bytes than the formula's, always
 *   wrongonce       the first time
 *   chunked         no length
 *   code/N          answers N always
 *   codeonce/N      answers N (429: Retry-After 0) the first time
 *   norange         ignores ranges; the first answer is cut in the middle
 *   change          cut in the middle; the second half would be of another version
 *   changeblind     the same, but the server answers 206 for the new version regardless
 *   loop            redirects to itself
 *   to/PORT         redirects to /good/0/... on another port (another origin)
 *   linked/PORT     the same, with X-Linked-Etag and X-Linked-Size of the file
 *   linkedwrong/PORT the same, with a wrong hash
 *   tagged          the file itself, with its SHA-256 as ETag
 *   taggedwrong     the same, with a wrong hash
 *   toplain/PORT    redirects to http://127.0.0.1:PORT
 *   slow/N          N bytes a piece with pauses of 2 ms
 *   garbage         bytes that are no HTTP
 *   private         401 without the token "secret"
 * As a proxy it takes http://HOST/PATH for /PATH, whatever the host, and CONNECT HOST:PORT, which
 * it connects to 127.0.0.1:PORT.
 * The /resolve/ of Hugging Face: the last part FILE-SIZE counts, the first two are the fault. */

#endif
