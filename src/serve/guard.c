#include "serve/guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- tokens ------------------------------------------------------------------------------------
 */

bool guard_token_matches(const char *given, const char *token)
{
    size_t given_length = given ? strlen(given) : 0, length = strlen(token);
    volatile unsigned char difference = given_length != length;
    for (size_t i = 0; i < given_length; i++) {
        difference |= (unsigned char)(given[i] ^ token[length ? i % length : 0]);
    }
    return length > 0 && difference == 0;
}

const char *guard_bearer(const char *authorization)
{
    if (!authorization || strncasecmp(authorization, "bearer ", 7) != 0) {
        return NULL;
    }
    authorization += 7;
    return authorization + strspn(authorization, " ");
}

/* ---- addresses ---------------------------------------------------------------------------------
 */

bool serve_is_loopback(const char *address)
{
    struct in_addr four;
    struct in6_addr six;
    if (inet_pton(AF_INET, address, &four) == 1) {
        return ntohl(four.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, address, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

onestep_status serve_parse_listen(const char *text, char address[64], uint16_t *port,
                                  onestep_error *error)
{
    const char *host = text, *digits = text;
    size_t length = 0;
    const char *colon = strrchr(text, ':');
    if (text[0] == '[') {
        const char *close = strchr(text, ']');
        host = text + 1;
        length = close ? (size_t)(close - host) : 0;
        digits = close && close[1] == ':' ? close + 2 : "";
    } else if (colon) {
        length = (size_t)(colon - text);
        digits = colon + 1;
    }
    char *end;
    unsigned long number = strtoul(digits, &end, 10);
    if (*digits < '0' || *digits > '9' || *end || number > 65535 || length >= 64) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--listen \"%.80s\": expected ADDRESS:PORT, for example 127.0.0.1:8080 or "
                         "[::1]:8080",
                         text);
    }
    snprintf(address, 64, "%.*s", (int)length, host);
    if (length == 0 || strcmp(address, "localhost") == 0) {
        snprintf(address, 64, "127.0.0.1");
    } else if (strcmp(address, "*") == 0) {
        snprintf(address, 64, "0.0.0.0");
    }
    struct in6_addr any;
    if (inet_pton(AF_INET, address, &any) != 1 && inet_pton(AF_INET6, address, &any) != 1) {
        return error_set(error, ONESTEP_ERROR_ARGUMENT,
                         "--listen \"%.80s\": %s is no address (a name cannot be listened on)",
                         text, address);
    }
    *port = (uint16_t)number;
    return ONESTEP_OK;
}

/* ---- Host and Origin ---------------------------------------------------------------------------
 */

/* The host of "host", "host:port", "[v6]:port", without brackets. */
static bool host_of(const char *authority, char *host, size_t size)
{
    size_t length;
    if (authority[0] == '[') {
        const char *close = strchr(authority, ']');
        if (!close || (close[1] != '\0' && close[1] != ':')) {
            return false;
        }
        authority++;
        length = (size_t)(close - authority);
    } else {
        length = strcspn(authority, ":");
    }
    if (length == 0 || length >= size) {
        return false;
    }
    memcpy(host, authority, length);
    host[length] = '\0';
    return true;
}

bool guard_host_known(const char *authority, const char *const *hosts)
{
    char host[256];
    struct in6_addr any;
    if (!authority || !host_of(authority, host, sizeof host)) {
        return false;
    }
    if (strcasecmp(host, "localhost") == 0 || inet_pton(AF_INET, host, &any) == 1 ||
        inet_pton(AF_INET6, host, &any) == 1) {
        return true;
    }
    for (; hosts && *hosts; hosts++) {
        if (strcasecmp(host, *hosts) == 0) {
            return true;
        }
    }
    return false;
}

/* A port at the end, when there is one; else that of the scheme. */
static const char *port_of(const char *authority)
{
    const char *close = strrchr(authority, ']'), *colon = strrchr(authority, ':');
    return colon && (!close || colon > close) ? colon + 1 : "";
}

bool guard_same_origin(const char *origin, const char *authority)
{
    char host_a[256], host_b[256];
    const char *scheme_end = strstr(origin, "://");
    if (!scheme_end || !authority) {
        return false;
    }
    const char *from = scheme_end + 3;
    if (strpbrk(from, "/?#@") || !host_of(from, host_a, sizeof host_a) ||
        !host_of(authority, host_b, sizeof host_b) || strcasecmp(host_a, host_b) != 0) {
        return false;
    }
    /* Behind a proxy that speaks TLS the scheme differs, and with it the port that goes without
     * saying; two ports that are both said must be the same. */
    const char *a = port_of(from), *b = port_of(authority);
    return strcmp(a, b) == 0;
}

bool guard_forwarded_client(const char *forwarded, char *client, size_t size)
{
    if (!forwarded) {
        return false;
    }
    const char *comma = strrchr(forwarded, ',');
    const char *from = comma ? comma + 1 : forwarded;
    from += strspn(from, " ");
    size_t length = strcspn(from, " ");
    if (length == 0 || length >= size || strspn(from, "0123456789abcdefABCDEF.:[]") < length) {
        return false;
    }
    memcpy(client, from, length);
    client[length] = '\0';
    return true;
}

/* ---- Accept (RFC 9110, 12.5.1) ------------------------------------------------------------------
 */

typedef struct offer {
    const char *type;
    answer_kind kind;
    image_format format;
} offer;

static const offer offers[] = {{"image/png", ANSWER_IMAGE, IMAGE_FORMAT_PNG},
                               {"image/webp", ANSWER_IMAGE, IMAGE_FORMAT_WEBP},
                               {"image/jpeg", ANSWER_IMAGE, IMAGE_FORMAT_JPEG},
                               {"application/json", ANSWER_JSON, IMAGE_FORMAT_PNG},
                               {"text/event-stream", ANSWER_EVENTS, IMAGE_FORMAT_PNG}};

/* How well a range of `length` bytes fits a type: 3 exactly, 2 the family, 1 anything, 0 not. */
static int specificity(const char *range, size_t length, const char *type)
{
    size_t family = (size_t)(strchr(type, '/') - type) + 1;
    if (length == strlen(type) && strncasecmp(range, type, length) == 0) {
        return 3;
    }
    if (length == family + 1 && range[family] == '*' && strncasecmp(range, type, family) == 0) {
        return 2;
    }
    return length == 3 && strncmp(range, "*/*", 3) == 0;
}

static double quality_of(const char *parameters, const char *end)
{
    for (const char *at = parameters; at < end; at++) {
        if (*at == ';') {
            const char *name = at + 1 + strspn(at + 1, " \t");
            if ((*name == 'q' || *name == 'Q') && name[1] == '=') {
                double q = 0, unit = 1;
                for (name += 2; *name == '.' || (*name >= '0' && *name <= '9'); name++) {
                    if (*name == '.') {
                        unit = 0.1;
                    } else if (unit >= 1) {
                        q = *name - '0';
                    } else {
                        q += (*name - '0') * unit;
                        unit /= 10;
                    }
                }
                return q;
            }
        }
    }
    return 1;
}

bool accept_choose(const char *accept, image_format preferred, answer_kind *kind,
                   image_format *format)
{
    double best = 0;
    image_format usual = preferred == IMAGE_FORMAT_UNKNOWN ? IMAGE_FORMAT_PNG : preferred;
    bool any = !accept || !*accept;
    const offer *chosen = NULL;
    for (size_t i = 0; i < sizeof offers / sizeof *offers && !any; i++) {
        int fit = 0;
        double quality = 0;
        for (const char *at = accept; *at;) {
            at += strspn(at, " \t,");
            size_t length = strcspn(at, ";, \t");
            const char *end = at + strcspn(at, ",");
            int here = length ? specificity(at, length, offers[i].type) : 0;
            if (here > fit) {
                fit = here;
                quality = quality_of(at + length, end);
            }
            at = end;
        }
        /* Among equals an exact name beats a wildcard, the preferred format the others, and then
         * the first wins. */
        if (fit && quality > 0) {
            double score = quality * 100 + fit * 4 +
                           (offers[i].kind == ANSWER_IMAGE && offers[i].format == usual ? 1 : 0);
            if (score > best) {
                best = score;
                chosen = &offers[i];
            }
        }
    }
    if (any) {
        *kind = ANSWER_IMAGE;
        *format = usual;
        return true;
    }
    if (!chosen) {
        return false;
    }
    *kind = chosen->kind;
    *format = chosen->kind == ANSWER_IMAGE ? chosen->format : usual;
    return true;
}
