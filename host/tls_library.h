/* SPDX-License-Identifier: MIT */
/*
 * libgnutls.so.30, loaded when the first connection asks for TLS, so that a VM without any does not
 * pay for it. For the files that include this, and nobody else: what they see of gnutls are calls
 * through this table.
 */
#pragma once

#include "core/err.h"
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct tls_calls {
    /* Sessions. */
    typeof(gnutls_init) *init;
    typeof(gnutls_deinit) *deinit;
    typeof(gnutls_priority_set_direct) *priority_set_direct;
    typeof(gnutls_credentials_set) *credentials_set;
    typeof(gnutls_session_set_ptr) *session_set_ptr;
    typeof(gnutls_transport_set_ptr) *transport_set_ptr;
    typeof(gnutls_transport_set_push_function) *transport_set_push_function;
    typeof(gnutls_transport_set_pull_function) *transport_set_pull_function;
    typeof(gnutls_handshake) *handshake;
    typeof(gnutls_alert_get) *alert_get;
    typeof(gnutls_alert_get_name) *alert_get_name;
    typeof(gnutls_alert_send_appropriate) *alert_send_appropriate;
    typeof(gnutls_record_send) *record_send;
    typeof(gnutls_record_recv) *record_recv;
    typeof(gnutls_bye) *bye;
    typeof(gnutls_strerror) *strerror;
    /* With a key that both sides have. */
    typeof(gnutls_psk_allocate_client_credentials) *psk_allocate_client_credentials;
    typeof(gnutls_psk_set_client_credentials) *psk_set_client_credentials;
    typeof(gnutls_psk_free_client_credentials) *psk_free_client_credentials;
    typeof(gnutls_psk_allocate_server_credentials) *psk_allocate_server_credentials;
    typeof(gnutls_psk_set_server_credentials_function) *psk_set_server_credentials_function;
    typeof(gnutls_psk_free_server_credentials) *psk_free_server_credentials;
    typeof(gnutls_prf_rfc5705) *prf_rfc5705;
    typeof(gnutls_hash_fast) *hash_fast;
    /* With certificates. */
    typeof(gnutls_certificate_allocate_credentials) *certificate_allocate_credentials;
    typeof(gnutls_certificate_free_credentials) *certificate_free_credentials;
    typeof(gnutls_certificate_set_x509_trust_mem) *certificate_set_x509_trust_mem;
    typeof(gnutls_certificate_set_x509_key_mem2) *certificate_set_x509_key_mem2;
    typeof(gnutls_certificate_verification_status_print) *certificate_verification_status_print;
    typeof(gnutls_session_set_verify_cert) *session_set_verify_cert;
    typeof(gnutls_session_get_verify_cert_status) *session_get_verify_cert_status;
    typeof(gnutls_server_name_set) *server_name_set;
    /* Variables of the library's. */
    gnutls_alloc_function *malloc;
    gnutls_free_function *free;
};

/* what: who needs it, "a link with a key". Afterwards dlclose(*ret_library) is for the caller. */
int tls_library_load(struct tls_calls *ret_calls, void **ret_library, const char *what,
                     struct err *err) must_check;
