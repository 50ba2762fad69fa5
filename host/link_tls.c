/* SPDX-License-Identifier: MIT */
/*
 * TLS 1.3 with a key that both sides hold (RFC 8446, PSK with ECDHE: a key that is stolen later
 * opens nothing that was said before). No certificates. gnutls (host/tls_library.h) does the work.
 *
 * Two sessions share the connection, each for one direction:
 *
 *   1. Both handshakes come one after the other, in both directions; the connecting side begins.
 *   2. After them the first session carries bytes only to the accepting side, the second one only
 *      back. So one byte stream of the connection belongs to each, and one thread on each side.
 *   3. The second session's key is derived from the first one's secrets (RFC 5705), so it cannot be
 *      that of another link.
 *
 * One session would be shared by the thread that reads and the one that writes. gnutls allows that
 * (its manual, "Thread safety") but for key updates, which it begins by itself after 2^24 records:
 * a link to a standby gets there within hours.
 */
#include "host/link_parts.h"

#include "host/tls_library.h"
#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Who connects says which key it has: its fingerprint (link_key_print). One that was given by
 * --key FILE may go by this name, too: older versions call it so.
 */
#define PSK_IDENTITY "minivmm"
#define PRINT_LABEL  "minivmm key 1" /* ahead of the key in what is hashed */
/* A pre-shared key is for SHA-256 unless said otherwise, which excludes AES-256-GCM. */
#define PRIORITIES                                                                         \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-" \
    "POLY1305:"                                                                            \
    "-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1"
#define SECOND_KEY_LABEL "EXPORTER-minivmm-link-back"

enum { BUFFER = 128 * 1024 }; /* several records for each system call */

/* One session. */
struct way {
    struct tls *tls;
    gnutls_session_t session;
    gnutls_psk_client_credentials_t client;
    gnutls_psk_server_credentials_t server;
    struct link_key key;
    struct link_keys *keys; /* where the key is yet to be found; NULL */
    bool second; /* its key is of this link only, and has no fingerprint to be known by */
    bool may_send, may_receive;
    int error; /* of the wire, which gnutls does not hand on */
};

struct tls {
    struct tls_calls calls;
    void *library;
    struct wire *wire;
    struct way out, in;
    uint8_t *gathered; /* written by the thread that sends */
    size_t pending;
    uint8_t *ahead; /* of the thread that receives: [read_at, available) */
    size_t read_at, available;
};

static int make_print(const struct tls_calls *calls, const struct link_key *key,
                      char ret_print[LINK_KEY_PRINT])
{
    struct {
        char label[sizeof(PRINT_LABEL)];
        struct link_key key;
    } hashed = {.label = PRINT_LABEL, .key = *key};
    uint8_t hash[32];

    int code = calls->hash_fast(GNUTLS_DIG_SHA256, &hashed, sizeof(hashed), hash);
    explicit_bzero(&hashed, sizeof(hashed));
    for (size_t i = 0; code >= 0 && i < LINK_KEY_PRINT / 2; i++)
        snprintf(ret_print + 2 * i, 3, "%02x", hash[i]);
    return code;
}

int link_key_print(const struct link_key *key, char ret_print[LINK_KEY_PRINT], struct err *err)
{
    struct tls_calls calls;
    void *library = NULL;

    int r = tls_library_load(&calls, &library, "the print of a key", err);
    if (r == 0 && make_print(&calls, key, ret_print) < 0)
        r = err_say(err, ERR_HOST, EIO, "libgnutls makes no SHA-256");
    if (library)
        dlclose(library);
    return r;
}

/* What gnutls wants of the connection. */

int tls_flush(struct tls *tls)
{
    struct iovec iov = {.iov_base = tls->gathered, .iov_len = tls->pending};

    tls->pending = 0;
    return iov.iov_len ? link_wire_send(tls->wire, &iov, 1, 0) : 0;
}

static ssize_t refuse(struct way *way, int error)
{
    way->error = error;
    errno = EIO;
    return -1;
}

static ssize_t handle_push(gnutls_transport_ptr_t ctx, const void *from, size_t length)
{
    struct way *way = ctx;
    struct tls *tls = way->tls;

    if (!way->may_send)
        return refuse(way, -EPROTO); /* only an answer that none of us asks for */
    if (length > BUFFER)
        return refuse(way, -EMSGSIZE);
    if (length > BUFFER - tls->pending) {
        int r = tls_flush(tls);
        if (r < 0)
            return refuse(way, r);
    }
    memcpy(tls->gathered + tls->pending, from, length);
    tls->pending += length;
    return (ssize_t)length;
}

static ssize_t handle_pull(gnutls_transport_ptr_t ctx, void *to, size_t length)
{
    struct way *way = ctx;
    struct tls *tls = way->tls;

    if (!way->may_receive)
        return refuse(way, -EPROTO);
    if (way->may_send) { /* in a handshake: what was asked must be on its way */
        int r = tls_flush(tls);
        if (r < 0)
            return refuse(way, r);
    }
    if (tls->read_at == tls->available) {
        ssize_t n = link_wire_receive(tls->wire, tls->ahead, BUFFER);
        if (n == -ENODATA)
            return 0;
        if (n < 0)
            return refuse(way, (int)n);
        tls->read_at = 0;
        tls->available = (size_t)n;
    }
    size_t ready = tls->available - tls->read_at;
    size_t n = length < ready ? length : ready;
    memcpy(to, tls->ahead + tls->read_at, n);
    tls->read_at += n;
    return (ssize_t)n;
}

/* gnutls hands over the session alone, and there is no table of calls without its owner. */
static struct way *way_of(gnutls_session_t session, gnutls_alloc_function **ret_malloc)
{
    typeof(gnutls_session_get_ptr) *get_ptr = NULL;
    void *library = dlopen("libgnutls.so.30", RTLD_NOW | RTLD_NOLOAD);

    if (!library)
        return NULL;
    *(void **)&get_ptr = dlsym(library, "gnutls_session_get_ptr");
    struct way *way = get_ptr ? get_ptr(session) : NULL;
    dlclose(library);
    if (way)
        *ret_malloc = way->tls->calls.malloc;
    return way;
}

/* The name is whatever somebody sends. */
static bool has_key(struct way *way, const char *name)
{
    char print[LINK_KEY_PRINT];

    if (way->keys)
        return way->keys->find(way->keys, name, &way->key) == 0;
    return strcmp(name, PSK_IDENTITY) == 0 ||
           (make_print(&way->tls->calls, &way->key, print) >= 0 && strcmp(name, print) == 0);
}

static int handle_key(gnutls_session_t session, const char *name, gnutls_datum_t *ret_key)
{
    gnutls_alloc_function *allocate;
    struct way *way = way_of(session, &allocate);

    if (!way)
        return -1;
    /* Who has no key here fails as with another key, and learns no names of keys. */
    if (!has_key(way, name) && link_key_make(&way->key, NULL) < 0)
        return -1;
    ret_key->data = (*allocate)(LINK_KEY_BYTES); /* gnutls frees it */
    if (!ret_key->data)
        return -1;
    memcpy(ret_key->data, way->key.bytes, LINK_KEY_BYTES);
    ret_key->size = LINK_KEY_BYTES;
    return 0;
}

/* Handshakes. */

/* For any return value of gnutls that is below 0. */
static int error_of(struct way *way, ssize_t code)
{
    switch (code) {
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR:
        return way->error ? way->error : -EIO;
    case GNUTLS_E_PREMATURE_TERMINATION:
        return -ECONNRESET; /* an end without the word for it: anybody could have made it */
    case GNUTLS_E_MEMORY_ERROR:
        return -ENOMEM;
    default:
        return -EBADMSG;
    }
}

/* The key of a session is checked by its first messages; this is how it looks when it differs. */
static bool is_other_key(struct way *way, int code)
{
    if (code != GNUTLS_E_FATAL_ALERT_RECEIVED)
        return code == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER || code == GNUTLS_E_DECRYPTION_FAILED ||
               code == GNUTLS_E_KEYFILE_ERROR;
    switch (way->tls->calls.alert_get(way->session)) {
    case GNUTLS_A_ILLEGAL_PARAMETER:
    case GNUTLS_A_DECRYPT_ERROR:
    case GNUTLS_A_BAD_RECORD_MAC:
    case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
        return true;
    default:
        return false;
    }
}

static int say_failed(struct way *way, int code, const char *peer, struct err *err)
{
    int error = error_of(way, code);

    if (is_other_key(way, code)) {
        int r = way->keys ? err_say(err, ERR_FAILED, EACCES,
                                    "this host has no such key as %s calls with", peer)
                          : err_say(err, ERR_FAILED, EACCES,
                                    "the keys differ, this one and that of %s", peer);
        err_hint(err, "minivmm pair, on either host and with the other one's name, makes a key for "
                      "both, or says how theirs differ; with --key FILE: the same file on both");
        return r;
    }
    if (error == -ETIMEDOUT)
        return err_say(err, ERR_TIMEOUT, ETIMEDOUT, "%s did not finish the handshake in time",
                       peer);
    if (error == -EBADMSG)
        return err_say(err, ERR_FAILED, EBADMSG, "the handshake with %s failed: %s", peer,
                       way->tls->calls.strerror(code));
    return err_sys(err, ERR_FAILED, -error, "the handshake with %s failed", peer);
}

static int give_key(struct way *way, bool accepting)
{
    const struct tls_calls *calls = &way->tls->calls;
    gnutls_datum_t key = {.data = way->key.bytes, .size = LINK_KEY_BYTES};
    char print[LINK_KEY_PRINT];
    int code;

    if (accepting) {
        code = calls->psk_allocate_server_credentials(&way->server);
        if (code < 0)
            return code;
        calls->psk_set_server_credentials_function(way->server, handle_key);
        return calls->credentials_set(way->session, GNUTLS_CRD_PSK, way->server);
    }
    code = calls->psk_allocate_client_credentials(&way->client);
    if (code < 0)
        return code;
    snprintf(print, sizeof(print), "%s", PSK_IDENTITY);
    code = way->second ? 0 : make_print(calls, &way->key, print);
    if (code >= 0)
        code = calls->psk_set_client_credentials(way->client, print, &key, GNUTLS_PSK_KEY_RAW);
    return code < 0 ? code : calls->credentials_set(way->session, GNUTLS_CRD_PSK, way->client);
}

/* way->key is set. */
static int shake_hands(struct way *way, struct tls *tls, bool accepting)
{
    const struct tls_calls *calls = &tls->calls;
    unsigned flags = accepting ? GNUTLS_SERVER : GNUTLS_CLIENT;

    way->tls = tls;
    way->may_send = way->may_receive = true;
    int code = calls->init(&way->session, flags | GNUTLS_NO_TICKETS | GNUTLS_NO_AUTO_SEND_TICKET);
    if (code < 0)
        return code;
    calls->session_set_ptr(way->session, way);
    calls->transport_set_ptr(way->session, way);
    calls->transport_set_push_function(way->session, handle_push);
    calls->transport_set_pull_function(way->session, handle_pull);
    code = calls->priority_set_direct(way->session, PRIORITIES, NULL);
    if (code >= 0)
        code = give_key(way, accepting);
    if (code < 0)
        return code;
    do
        code = calls->handshake(way->session);
    while (code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED ||
           code == GNUTLS_E_WARNING_ALERT_RECEIVED);
    if (code < 0 && code != GNUTLS_E_FATAL_ALERT_RECEIVED)
        calls->alert_send_appropriate(way->session, code); /* so that the peer knows why */
    int r = tls_flush(tls);
    if (code >= 0 && r < 0) {
        way->error = r;
        return GNUTLS_E_PUSH_ERROR;
    }
    return code;
}

static int shake_both(struct tls *tls, const struct link_config *config, bool accepting,
                      const char *peer, struct err *err)
{
    struct way *first = accepting ? &tls->in : &tls->out;
    struct way *second = accepting ? &tls->out : &tls->in;
    const char *label = SECOND_KEY_LABEL;

    second->second = true;
    if (config->key)
        first->key = *config->key;
    else
        first->keys = config->keys;
    int code = shake_hands(first, tls, accepting);
    if (code < 0)
        return say_failed(first, code, peer, err);
    code = tls->calls.prf_rfc5705(first->session, strlen(label), label, 0, NULL, LINK_KEY_BYTES,
                                  (char *)second->key.bytes);
    if (code >= 0)
        code = shake_hands(second, tls, accepting);
    return code < 0 ? say_failed(second, code, peer, err) : 0;
}

int tls_create(struct tls **ret_tls, struct wire *wire, const struct link_config *config,
               bool accepting, const char *peer, struct err *err)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    int r = 0;

    if (tls) {
        tls->wire = wire;
        tls->gathered = malloc(BUFFER);
        tls->ahead = malloc(BUFFER);
    }
    if (!tls || !tls->gathered || !tls->ahead)
        r = err_sys(err, ERR_HOST, ENOMEM, "a link to %s", peer);
    if (r == 0)
        r = tls_library_load(&tls->calls, &tls->library, "a link with a key", err);
    if (r == 0)
        r = shake_both(tls, config, accepting, peer, err);
    if (r < 0) {
        tls_destroy(tls);
        return r;
    }
    tls->out.may_receive = tls->in.may_send = false;
    *ret_tls = tls;
    return 0;
}

static void end_way(struct way *way)
{
    if (!way->tls)
        return;
    const struct tls_calls *calls = &way->tls->calls;
    if (way->session)
        calls->deinit(way->session);
    if (way->client)
        calls->psk_free_client_credentials(way->client);
    if (way->server)
        calls->psk_free_server_credentials(way->server);
    explicit_bzero(&way->key, sizeof(way->key));
}

void tls_destroy(struct tls *tls)
{
    if (!tls)
        return;
    end_way(&tls->out);
    end_way(&tls->in);
    if (tls->library)
        dlclose(tls->library);
    free(tls->gathered);
    free(tls->ahead);
    free(tls);
}

/* Afterwards. */

ssize_t tls_receive(struct tls *tls, void *to, size_t length)
{
    for (;;) {
        ssize_t n = tls->calls.record_recv(tls->in.session, to, length);
        if (n > 0)
            return n;
        if (n == 0)
            return -ENODATA;
        if (n != GNUTLS_E_AGAIN && n != GNUTLS_E_INTERRUPTED)
            return error_of(&tls->in, n);
    }
}

int tls_send(struct tls *tls, const void *from, size_t length)
{
    const uint8_t *at = from;

    while (length > 0) {
        size_t part = length < TLS_RECORD ? length : TLS_RECORD;
        ssize_t n = tls->calls.record_send(tls->out.session, at, part);
        if (n < 0)
            return error_of(&tls->out, n);
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

void tls_end(struct tls *tls)
{
    tls->pending = 0; /* nothing: every write ends with a flush, or its error */
    if (tls->calls.bye(tls->out.session, GNUTLS_SHUT_WR) < 0)
        return;
    struct iovec iov = {.iov_base = tls->gathered, .iov_len = tls->pending};
    if (link_wire_send(tls->wire, &iov, 1, MSG_DONTWAIT) < 0)
        return; /* then the peer sees an end that is none */
}
