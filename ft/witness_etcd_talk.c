/* SPDX-License-Identifier: MIT */
/*
 * One question, to one member after the other until one answers: the one that answered last first,
 * and where it cannot be reached at once, whoever can be (host/http_client.h). A member that is cut
 * off from the others takes a connection and says nothing: that costs ANSWER_MS, half of the
 * patience of whoever asks (ask_ns, 2 s at least), or another one's answer would come too late. The
 * last one has ATTEMPT_MS: a disk may be slow, a new leader not be there as yet.
 *
 * With a user, what is sent carries a token, which a login brings and etcd forgets when it likes; a
 * question that is refused for its token has not taken place, and is asked once more with a new
 * one.
 */
#include "ft/witness_etcd_parts.h"

#include "core/clock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_MS = 1000, ATTEMPT_MS = 3000, ALL_MS = 10000 };

/* gRPC's, of errors that say for certain that nothing took place. */
enum { CODE_ARGUMENT = 3, CODE_PERMISSION = 7, CODE_STATE = 9, CODE_NOT_THERE = 12, CODE_WHO = 16 };

/* One member's turn. */
struct turn {
    struct etcd *etcd;
    size_t which;
    uint64_t deadline_ns;
    bool sent;  /* the question, and what became of it is not known */
    bool final; /* another member would say the same */
};

static const char *config_path(const struct etcd *etcd)
{
    return etcd->config.path ? etcd->config.path : "~/.config/minivmm/etcd.json";
}

/* --- what a member says ----------------------------------------------------------------------- */

static int say_login_failed(struct turn *turn, const char *words, struct err *err)
{
    turn->final = true;
    int r = err_say(err, ERR_STATE, EACCES, "does not let the user \"%.60s\" in: %s",
                    turn->etcd->config.user, words);
    err_hint(err, "\"user\" and \"password\" in %.180s", config_path(turn->etcd));
    return r;
}

static int say_who(struct turn *turn, const char *words, struct err *err)
{
    turn->final = true;
    int r = err_say(err, ERR_STATE, EACCES, "wants to know who asks: %s", words);
    err_hint(err, "\"user\" and \"password\" in %.180s, mode 600", config_path(turn->etcd));
    return r;
}

static int say_no_permission(struct turn *turn, const char *words, struct err *err)
{
    turn->final = true;
    int r = err_say(err, ERR_STATE, EPERM, "does not let the user \"%.60s\" use " ETCD_PLACE ": %s",
                    turn->etcd->config.user, words);
    err_hint(err, "etcdctl role grant-permission ROLE readwrite " ETCD_PLACE
                  " --prefix=true, for a role of that user");
    return r;
}

/* An answer that is not 200. */
static int judge(struct turn *turn, struct err *err)
{
    const struct http_answer *answer = &turn->etcd->answer;
    char words[ETCD_WORDS];

    int code = etcd_text_parse_error(answer->body, answer->length, words);
    if (code < 0) {
        turn->sent = false; /* who knows no transactions makes none */
        int r = err_say(err, ERR_FAILED, EPROTO, "does not answer like an etcd: HTTP status %u, %s",
                        answer->status, words[0] ? words : "and no words");
        err_hint(err, "the address for clients is wanted (2379), with https:// where it is TLS");
        return r;
    }
    bool is_refused = code == CODE_ARGUMENT || code == CODE_PERMISSION || code == CODE_STATE ||
                      code == CODE_NOT_THERE || code == CODE_WHO;
    if (is_refused)
        turn->sent = false;
    bool has_user = turn->etcd->config.user != NULL;
    if (code == CODE_PERMISSION && has_user)
        return say_no_permission(turn, words, err);
    if (code == CODE_PERMISSION || code == CODE_WHO || strstr(words, "user name is empty"))
        return say_who(turn, words, err);
    int r = err_say(err, ERR_FAILED, EREMOTEIO, "says: %s", words);
    if (strstr(words, "no leader") || strstr(words, "timed out"))
        err_hint(err, "more than half of its members have to run");
    return r;
}

/* --- asking one ------------------------------------------------------------------------------- */

static int post(struct turn *turn, int *fd, const struct http_request *request, struct err *err)
{
    struct etcd *etcd = turn->etcd;
    int socket = *fd;

    *fd = -1;
    return http_post(socket, &etcd->config.servers[turn->which], &etcd->config.trust, request,
                     turn->deadline_ns, &etcd->answer, &turn->sent, err);
}

static int log_in(struct turn *turn, int *fd, struct err *err)
{
    struct etcd *etcd = turn->etcd;
    struct http_answer *answer = &etcd->answer;
    char words[ETCD_WORDS];
    char *text = etcd_text_login(etcd->config.user, etcd->config.password);
    struct http_request request = {.path = "/v3/auth/authenticate", .body = text};

    if (!text)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot be asked");
    int r = post(turn, fd, &request, err);
    turn->sent = false; /* this was not the question */
    explicit_bzero(text, strlen(text));
    free(text);
    if (r < 0)
        return r;
    if (answer->status == 200) {
        const char *wrong = etcd_text_parse_login(answer->body, answer->length, etcd->token);
        return wrong ? err_say(err, ERR_FAILED, EPROTO, "gives an answer that %s", wrong) : 0;
    }
    int code = etcd_text_parse_error(answer->body, answer->length, words);
    if (code == CODE_STATE) /* it asks nobody who he is */
        return 0;
    return code == CODE_ARGUMENT ? say_login_failed(turn, words, err) : judge(turn, err);
}

static int redial(struct turn *turn, int *fd, struct err *err)
{
    int why[HTTP_SERVERS];
    size_t which;

    *fd = http_dial(&turn->etcd->config.servers[turn->which], 1, 0, 0, turn->deadline_ns, &which,
                    why);
    return *fd < 0 ? err_sys(err, ERR_FAILED, -*fd, "cannot be connected to again") : 0;
}

/* The token has become old, or was of a time before the rights were changed. */
static bool is_stale(const struct http_answer *answer)
{
    char words[ETCD_WORDS];

    int code = etcd_text_parse_error(answer->body, answer->length, words);
    return code == CODE_WHO || (code >= 0 && strstr(words, "auth") && strstr(words, " old"));
}

static int ask_once(struct turn *turn, int *fd, const struct http_request *request, struct err *err)
{
    struct http_request with = *request;
    struct etcd *etcd = turn->etcd;
    int r = 0;

    if (etcd->config.user && !etcd->token[0]) {
        r = log_in(turn, fd, err);
        if (r == 0)
            r = redial(turn, fd, err);
    }
    if (r < 0)
        return r;
    with.token = etcd->token[0] ? etcd->token : NULL;
    return post(turn, fd, &with, err);
}

static int ask_one(struct turn *turn, int fd, const struct http_request *request, struct err *err)
{
    struct etcd *etcd = turn->etcd;

    int r = ask_once(turn, &fd, request, err);
    if (r == 0 && etcd->token[0] && etcd->answer.status != 200 && is_stale(&etcd->answer)) {
        etcd->token[0] = 0;
        turn->sent = false;
        r = redial(turn, &fd, err);
        if (r == 0)
            r = ask_once(turn, &fd, request, err);
    }
    if (fd >= 0)
        close(fd);
    if (r < 0 || etcd->answer.status == 200)
        return r;
    return judge(turn, err);
}

/* --- asking all ------------------------------------------------------------------------------- */

/* "h1:2379 hung up; h2:2379 did not answer in time" */
struct reasons {
    char text[360];
    char hint[sizeof(((struct err *)0)->hint)];
};

static void add_reason(struct reasons *reasons, const struct etcd *etcd, size_t which,
                       const struct err *err)
{
    size_t used = strlen(reasons->text);
    char name[300];

    http_server_name(&etcd->config.servers[which], name, sizeof(name));
    snprintf(reasons->text + used, sizeof(reasons->text) - used, "%s%.100s %.200s",
             used ? "; " : "", name, err->text);
    if (err->hint[0])
        memcpy(reasons->hint, err->hint, sizeof(reasons->hint));
}

static const char *words_for(int why)
{
    switch (why) {
    case -ECONNREFUSED:
        return "has nobody who listens";
    case -ETIMEDOUT:
        return "cannot be reached";
    case -ENOENT:
        return "is a name that nobody knows";
    case -EAGAIN:
        return "is a name for which there is no name server";
    default:
        return strerror(-why);
    }
}

static void add_unreached(struct reasons *reasons, const struct etcd *etcd, uint32_t tried,
                          const int why[HTTP_SERVERS])
{
    for (size_t i = 0; i < etcd->config.count; i++) {
        struct err one = {.kind = ERR_FAILED};
        if (tried & 1u << i)
            continue;
        snprintf(one.text, sizeof(one.text), "%s", words_for(why[i]));
        add_reason(reasons, etcd, i, &one);
    }
}

static int say_nobody(const struct reasons *reasons, struct err *err)
{
    int r = err_say(err, ERR_FAILED, EHOSTUNREACH, "no etcd answers: %s", reasons->text);

    err_hint(err, "%s",
             reasons->hint[0] ? reasons->hint
                              : "more than half of its members have to run, and firewalls to let "
                                "the port through");
    return r;
}

static void hint_at_tls(const struct turn *turn, int error, struct err *err)
{
    const struct etcd_config *config = &turn->etcd->config;
    bool is_tls = config->servers[turn->which].tls;

    if (error == -EKEYREJECTED)
        err_hint(err, "\"ca\" in %.100s has to be who signed it, for just that name",
                 config_path(turn->etcd));
    else if (is_tls && !config->trust.cert && (error == -EACCES || error == -ECONNRESET))
        err_hint(err, "does it want a certificate of ours? \"cert\" and \"key\" in %.120s",
                 config_path(turn->etcd));
    else if (!is_tls && error == -ECONNRESET)
        err_hint(err, "does it run there? If it wants TLS: \"ca\" in %.120s",
                 config_path(turn->etcd));
}

/* Another member may do better: its reason is noted, and the error is for him who was the last. */
static int take_turn(struct turn *turn, int fd, const struct http_request *request,
                     struct reasons *reasons, struct err *err)
{
    struct err one = {.kind = ERR_NONE};
    char name[300];

    int r = ask_one(turn, fd, request, &one);
    if (r == 0)
        return 0;
    if (!one.hint[0])
        hint_at_tls(turn, r, &one);
    if (turn->final) {
        http_server_name(&turn->etcd->config.servers[turn->which], name, sizeof(name));
        (void)err_say(err, one.kind, -r, "the etcd at %.100s %.280s", name, one.text);
        err_hint(err, "%s", one.hint);
    }
    add_reason(reasons, turn->etcd, turn->which, &one);
    return r;
}

/* It is connected, and others are left to be asked. */
static void hurry(struct turn *turn)
{
    uint64_t until = clock_monotonic_ns() + ANSWER_MS * 1000000ull;

    if (turn->deadline_ns > until)
        turn->deadline_ns = until;
}

int etcd_ask(struct etcd *etcd, const char *path, const char *question, bool *ret_maybe,
             struct err *err)
{
    const struct http_request request = {.path = path, .body = question};
    uint64_t end = clock_monotonic_ns() + ALL_MS * 1000000ull;
    struct reasons reasons = {.text = ""};
    uint32_t tried = 0, all = (1u << etcd->config.count) - 1;

    *ret_maybe = false;
    while (tried != all) {
        struct turn turn = {.etcd = etcd};
        int why[HTTP_SERVERS] = {0};
        uint64_t now = clock_monotonic_ns();
        for (size_t i = 0; i < HTTP_SERVERS; i++)
            why[i] = -ETIMEDOUT;
        turn.deadline_ns = now + ATTEMPT_MS * 1000000ull;
        if (turn.deadline_ns > end)
            turn.deadline_ns = end;
        int fd = now < end ? http_dial(etcd->config.servers, etcd->config.count, tried, etcd->last,
                                       turn.deadline_ns, &turn.which, why)
                           : -ETIMEDOUT;
        if (fd < 0) {
            add_unreached(&reasons, etcd, tried, why);
            break;
        }
        tried |= 1u << turn.which;
        if (tried != all)
            hurry(&turn);
        int r = take_turn(&turn, fd, &request, &reasons, err);
        *ret_maybe = *ret_maybe || (r < 0 && turn.sent);
        if (r == 0)
            etcd->last = turn.which;
        if (r == 0 || turn.final)
            return r;
    }
    return say_nobody(&reasons, err);
}
