/* SPDX-License-Identifier: MIT */
/*
 * TLS 1.2 or 1.3 as a client, for HTTP. The server shows a certificate for the name that we call it
 * by, signed by the one authority that a person has named: what else the host trusts does not
 * count, since a name that is given to us must not be enough to get a password.
 */
#include "host/http_parts.h"

#include "host/tls_library.h"
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

struct http_tls {
    struct tls_calls calls;
    void *library;
    struct wire *wire;
    gnutls_session_t session;
    gnutls_certificate_credentials_t trust;
    int error; /* of the wire, which gnutls does not hand on */
};

static ssize_t handle_push(gnutls_transport_ptr_t ctx, const void *from, size_t length)
{
    struct http_tls *tls = ctx;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)from, .iov_len = length};

    tls->error = link_wire_send(tls->wire, &iov, 1, 0);
    if (tls->error == 0)
        return (ssize_t)length;
    errno = EIO;
    return -1;
}

static ssize_t handle_pull(gnutls_transport_ptr_t ctx, void *to, size_t length)
{
    struct http_tls *tls = ctx;

    ssize_t n = link_wire_receive(tls->wire, to, length);
    if (n >= 0)
        return n;
    if (n == -ENODATA)
        return 0;
    tls->error = (int)n;
    errno = EIO;
    return -1;
}

static int error_of(const struct http_tls *tls, ssize_t code)
{
    switch (code) {
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR:
        return tls->error ? tls->error : -EIO;
    case GNUTLS_E_PREMATURE_TERMINATION:
        return -ECONNRESET;
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
        return -EKEYREJECTED;
    case GNUTLS_E_MEMORY_ERROR:
        return -ENOMEM;
    default:
        return -EBADMSG;
    }
}

static int say_not_trusted(struct http_tls *tls, struct err *err)
{
    unsigned status = tls->calls.session_get_verify_cert_status(tls->session);
    gnutls_datum_t words = {.data = NULL};

    if (tls->calls.certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0) < 0)
        words.data = NULL;
    int r = err_say(err, ERR_FAILED, EKEYREJECTED,
                    "shows a certificate that is not trusted: %.150s",
                    words.data ? (const char *)words.data : "it is none");
    if (words.data)
        (*tls->calls.free)(words.data);
    return r;
}

int http_tls_say_refused(struct http_tls *tls, struct err *err)
{
    const char *alert = tls->calls.alert_get_name(tls->calls.alert_get(tls->session));

    return err_say(err, ERR_FAILED, EACCES, "refused us, says its TLS: %.60s",
                   alert ? alert : "why is not known");
}

static int say_failed(struct http_tls *tls, int code, struct err *err)
{
    int error = error_of(tls, code);

    if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR || code == GNUTLS_E_CERTIFICATE_ERROR)
        return say_not_trusted(tls, err);
    if (code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH || code == GNUTLS_E_UNEXPECTED_PACKET ||
        code == GNUTLS_E_UNSUPPORTED_VERSION_PACKET)
        return err_say(err, ERR_FAILED, EPROTO, "does not speak TLS");
    if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
        return http_tls_say_refused(tls, err);
    if (error == -ETIMEDOUT)
        return err_say(err, ERR_TIMEOUT, ETIMEDOUT, "did not finish the TLS handshake in time");
    if (error == -EBADMSG)
        return err_say(err, ERR_FAILED, EBADMSG, "does not get through the TLS handshake: %.100s",
                       tls->calls.strerror(code));
    return err_sys(err, ERR_FAILED, -error, "does not get through the TLS handshake");
}

static gnutls_datum_t datum(const char *text)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)text,
                            .size = (unsigned)strlen(text)};
}

static int take_trust(struct http_tls *tls, const struct http_trust *trust, struct err *err)
{
    const struct tls_calls *calls = &tls->calls;
    gnutls_datum_t ca = datum(trust->ca);

    int code = calls->certificate_allocate_credentials(&tls->trust);
    if (code < 0)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot be asked");
    code = calls->certificate_set_x509_trust_mem(tls->trust, &ca, GNUTLS_X509_FMT_PEM);
    if (code <= 0)
        return err_say(err, ERR_DEFINITION, EINVAL,
                       "cannot be asked: the file that \"ca\" names holds no certificate");
    if (!trust->cert)
        return 0;
    gnutls_datum_t cert = datum(trust->cert), key = datum(trust->key);
    code = calls->certificate_set_x509_key_mem2(tls->trust, &cert, &key, GNUTLS_X509_FMT_PEM, NULL,
                                                0);
    return code >= 0 ? 0
                     : err_say(err, ERR_DEFINITION, EINVAL,
                               "cannot be asked: \"cert\" and \"key\" are no pair: %.80s",
                               calls->strerror(code));
}

static int shake_hands(struct http_tls *tls, const char *host)
{
    const struct tls_calls *calls = &tls->calls;

    int code = calls->init(&tls->session, GNUTLS_CLIENT);
    if (code < 0)
        return code;
    calls->transport_set_ptr(tls->session, tls);
    calls->transport_set_push_function(tls->session, handle_push);
    calls->transport_set_pull_function(tls->session, handle_pull);
    code = calls->priority_set_direct(tls->session, PRIORITIES, NULL);
    if (code >= 0)
        code = calls->credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, tls->trust);
    if (code >= 0 && !link_address_is_number(host))
        code = calls->server_name_set(tls->session, GNUTLS_NAME_DNS, host, strlen(host));
    if (code < 0)
        return code;
    calls->session_set_verify_cert(tls->session, host, 0);
    do
        code = calls->handshake(tls->session);
    while (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED ||
           code == GNUTLS_E_WARNING_ALERT_RECEIVED);
    if (code < 0 && code != GNUTLS_E_FATAL_ALERT_RECEIVED)
        calls->alert_send_appropriate(tls->session, code);
    return code;
}

int http_tls_create(struct http_tls **ret_tls, struct wire *wire, const struct http_server *server,
                    const struct http_trust *trust, struct err *err)
{
    struct http_tls *tls = calloc(1, sizeof(*tls));

    if (!tls)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot be asked");
    tls->wire = wire;
    int r = tls_library_load(&tls->calls, &tls->library, "TLS", err);
    if (r == 0)
        r = take_trust(tls, trust, err);
    int code = r == 0 ? shake_hands(tls, server->host) : 0;
    if (code < 0)
        r = say_failed(tls, code, err);
    if (r < 0) {
        http_tls_destroy(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

void http_tls_destroy(struct http_tls *tls)
{
    if (!tls)
        return;
    if (tls->session)
        tls->calls.deinit(tls->session);
    if (tls->trust)
        tls->calls.certificate_free_credentials(tls->trust);
    if (tls->library)
        dlclose(tls->library);
    free(tls);
}

int http_tls_send(struct http_tls *tls, const void *from, size_t length)
{
    const uint8_t *at = from;

    while (length > 0) {
        ssize_t n = tls->calls.record_send(tls->session, at, length);
        if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
            continue;
        if (n < 0)
            return error_of(tls, n);
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

ssize_t http_tls_receive(struct http_tls *tls, void *to, size_t length)
{
    for (;;) {
        ssize_t n = tls->calls.record_recv(tls->session, to, length);
        if (n > 0)
            return n;
        if (n == 0)
            return -ENODATA;
        if (n != GNUTLS_E_AGAIN && n != GNUTLS_E_INTERRUPTED)
            return error_of(tls, n);
    }
}
