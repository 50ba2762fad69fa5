/* SPDX-License-Identifier: MIT */
#include "host/tls_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define CALL(name)                                        \
    {                                                     \
        "gnutls_" #name, offsetof(struct tls_calls, name) \
    }
static const struct {
    const char *name;
    size_t offset;
} call_names[] = {
    CALL(init),
    CALL(deinit),
    CALL(priority_set_direct),
    CALL(credentials_set),
    CALL(session_set_ptr),
    CALL(transport_set_ptr),
    CALL(transport_set_push_function),
    CALL(transport_set_pull_function),
    CALL(handshake),
    CALL(alert_get),
    CALL(alert_get_name),
    CALL(alert_send_appropriate),
    CALL(record_send),
    CALL(record_recv),
    CALL(bye),
    CALL(strerror),
    CALL(psk_allocate_client_credentials),
    CALL(psk_set_client_credentials),
    CALL(psk_free_client_credentials),
    CALL(psk_allocate_server_credentials),
    CALL(psk_set_server_credentials_function),
    CALL(psk_free_server_credentials),
    CALL(prf_rfc5705),
    CALL(hash_fast),
    CALL(certificate_allocate_credentials),
    CALL(certificate_free_credentials),
    CALL(certificate_set_x509_trust_mem),
    CALL(certificate_set_x509_key_mem2),
    CALL(certificate_verification_status_print),
    CALL(session_set_verify_cert),
    CALL(session_get_verify_cert_status),
    CALL(server_name_set),
    CALL(malloc),
    CALL(free),
};
#undef CALL

_Static_assert(array_size(call_names) * sizeof(void *) == sizeof(struct tls_calls),
               "none is missing");

int tls_library_load(struct tls_calls *ret_calls, void **ret_library, const char *what,
                     struct err *err)
{
    struct tls_calls calls;

    /* It has destructors and thread-local data: once there, it stays. */
    void *library = dlopen("libgnutls.so.30", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) {
        int r = err_say(err, ERR_HOST, ENOENT, "%s needs libgnutls.so.30", what);
        err_hint(err, "sudo apt install libgnutls30");
        return r;
    }
    for (size_t i = 0; i < array_size(call_names); i++) {
        void *symbol = dlsym(library, call_names[i].name);
        if (!symbol) {
            dlclose(library);
            return err_say(err, ERR_HOST, ENOSYS, "this host's libgnutls.so.30 lacks %s",
                           call_names[i].name);
        }
        memcpy((uint8_t *)&calls + call_names[i].offset, &symbol, sizeof(symbol));
    }
    *ret_calls = calls;
    *ret_library = library;
    return 0;
}
