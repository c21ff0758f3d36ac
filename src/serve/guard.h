/* Who may ask: addresses, Host, Origin, tokens; and what an Accept header asks for. */
#ifndef ONESTEP_SERVE_GUARD_H
#define ONESTEP_SERVE_GUARD_H

#include "serve/job.h"

/* Compares in a time that depends on the lengths only. */
bool guard_token_matches(const char *given, const char *token);
/* The token of "Bearer TOKEN", or NULL. */
const char *guard_bearer(const char *authorization);
/* Whether a page of another site could have made a browser send this Host (DNS rebinding): only
 * addresses, "localhost" and the names in `hosts` (ends with NULL; may be NULL) are known to mean
 * this server. */
bool guard_host_known(const char *host, const char *const *hosts);
/* Whether an Origin header names the server that Host names. */
bool guard_same_origin(const char *origin, const char *host);
/* The last address in X-Forwarded-For, into `client`; false when there is none. */
bool guard_forwarded_client(const char *forwarded, char *client, size_t size);

/* What the Accept header likes best of image/png, image/webp, image/jpeg, application/json and
 * text/event-stream; without a header, image/png. `preferred` stands for image wildcards when it
 * is not IMAGE_FORMAT_UNKNOWN. False when nothing is acceptable. */
bool accept_choose(const char *accept, image_format preferred, answer_kind *kind,
                   image_format *format);

#endif
