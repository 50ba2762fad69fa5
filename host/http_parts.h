/* SPDX-License-Identifier: MIT */
/* Between the files of host/http*.c: TLS with certificates over a wire. */
#pragma once

#include "host/http_client.h"
#include "host/link_parts.h"

struct http_tls;

/* Shakes hands, before the wire's deadline. The wire outlives it. */
int http_tls_create(struct http_tls **ret_tls, struct wire *wire, const struct http_server *server,
                    const struct http_trust *trust, struct err *err) must_check;
void http_tls_destroy(struct http_tls *tls); /* NULL is fine */

int http_tls_send(struct http_tls *tls, const void *from, size_t length) must_check;
/*
 * At least one byte; -ENODATA at the end; -EKEYREJECTED: the server has told why it refuses us,
 * which with TLS 1.3 may come after the handshake. The rest as link_wire_receive.
 */
ssize_t http_tls_receive(struct http_tls *tls, void *to, size_t length);
int http_tls_say_refused(struct http_tls *tls, struct err *err) must_check;
