/* SPDX-License-Identifier: MIT */
/*
 * An etcd as a witness. The record of a VM is the key minivmm/UUID, whose value is as in a folder
 * (ft/witness_text.c): with a random number, the attempt, that is in no other. It has one value at
 * a time; the older ones are etcd's business.
 *
 * An exchange of g for g + 1:
 *
 *   1. read the key, linearizably: it has to be of generation g (g is 0: there has to be none)
 *   2. a transaction: if the key's mod_revision and value are what we read (or its create_revision
 *      is 0), put ours; else read the key
 *   3. it has succeeded: done. Else whose attempt is in what it read? Ours: done, see (b)
 *
 * Why there are never two winners of one generation:
 *
 *   a. etcd makes transactions one after the other, for all its members. Whichever succeeds first
 *      changes the key, so no other one that began from the same value can.
 *   b. An answer may be lost: then it is not known whether the transaction took place, or will yet.
 *      So the same one is sent again, to the same member or to another one. By (a) it takes place
 *      once at most, however often it was sent and whenever it arrives. If an earlier sending made
 *      it, the later one does not succeed, and reads our own attempt.
 *   c. If all answers are lost the caller is told "not known". The transaction may come later: it
 *      makes the very next generation, or nothing.
 *   d. Nothing hangs on a lease, or on any clock.
 *
 * Members that do not see the majority of the others answer nothing (reads are linearizable, not
 * "serializable"), so what is read was true after it was asked for.
 *
 * None of this helps against who changes records by hand, or brings an old copy of the etcd back:
 * for that the nodes have what they keep themselves (ft/protocol.h). The value is compared beside
 * the revision, because an etcd that was brought back counts the same revisions again. The same
 * holds for addresses that name members of two etcds: the other one has another generation, or
 * none.
 */
#include "ft/witness_etcd_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char range_path[] = "/v3/kv/range", txn_path[] = "/v3/kv/txn";

/* What a key has, understood. Generation 0: there is none. */
struct view {
    char key[ETCD_KEY];
    struct etcd_found found;
    struct witness_text text;
};

static int say_bad(const char *key, const char *what, struct err *err)
{
    int r = err_say(err, ERR_FAILED, EBADMSG, "witness: %s in the etcd %s", key, what);

    err_hint(err,
             "who may run the VM is not known as long as this is there: look where it runs "
             "before you remove it (etcdctl del %s)",
             key);
    return r;
}

static int say_strange(const char *what, struct err *err)
{
    return err_say(err, ERR_FAILED, EPROTO, "witness: what answers in place of the etcd %s", what);
}

static int understand(struct view *view, const uint8_t uuid[16], struct err *err)
{
    view->text = (struct witness_text){.record = {0}};
    if (!view->found.mod_revision)
        return 0;
    const char *wrong = witness_text_parse(&view->text, view->found.bytes, view->found.length);
    if (!wrong && memcmp(view->text.uuid, uuid, 16) != 0)
        wrong = "is a copy of another record";
    return wrong ? say_bad(view->key, wrong, err) : 0;
}

static int ask(struct etcd *etcd, const char *path, char *question, bool *ret_maybe,
               struct err *err)
{
    *ret_maybe = false;
    if (!question)
        return err_sys(err, ERR_HOST, ENOMEM, "witness");
    int r = etcd_ask(etcd, path, question, ret_maybe, err);
    free(question);
    return r;
}

static int look(struct etcd *etcd, const uint8_t uuid[16], struct view *ret_view, struct err *err)
{
    bool maybe;

    *ret_view = (struct view){.found = {.length = 0}};
    etcd_text_key(uuid, ret_view->key);
    int r = ask(etcd, range_path, etcd_text_range(ret_view->key), &maybe, err);
    if (r < 0)
        return r;
    const char *wrong = etcd_text_parse_range(etcd->answer.body, etcd->answer.length, ret_view->key,
                                              &ret_view->found);
    return wrong ? say_strange(wrong, err) : understand(ret_view, uuid, err);
}

static int witness_etcd_read(struct witness *witness, const uint8_t uuid[16],
                             struct ft_record *ret_record, struct err *err)
{
    struct etcd *etcd = container_of(witness, struct etcd, base);
    struct view view;

    pthread_mutex_lock(&etcd->lock);
    int r = look(etcd, uuid, &view, err);
    pthread_mutex_unlock(&etcd->lock);
    if (r == 0)
        *ret_record = view.text.record;
    return r;
}

/* --- exchanging ------------------------------------------------------------------------------- */

static int say_not_known(const char *key, struct err *err)
{
    char why[sizeof(err->text)];

    if (err) {
        memcpy(why, err->text, sizeof(why));
        char hint[sizeof(err->hint)];
        memcpy(hint, err->hint, sizeof(hint));
        (void)err_say(err, ERR_FAILED, ESTALE,
                      "witness: whether the etcd took what we said of %s is not known: %.280s", key,
                      why);
        err_hint(err, "%s", hint);
    }
    return -ESTALE;
}

static int say_other(const struct view *view, uint64_t expected, struct ft_record *ret_is,
                     struct err *err)
{
    *ret_is = view->text.record;
    return err_say(err, ERR_STATE, EAGAIN,
                   "witness: the etcd has generation %llu of the VM, and not %llu",
                   (unsigned long long)view->text.record.generation, (unsigned long long)expected);
}

/* The transaction was sent at least once, and the last time it did not succeed. */
static int judge(struct view *view, const struct witness_text *ours, struct ft_record *ret_is,
                 struct err *err)
{
    uint64_t expected = ours->record.generation - 1;

    int r = understand(view, ours->uuid, err);
    if (r < 0)
        return r;
    if (memcmp(view->text.attempt, ours->attempt, sizeof(ours->attempt)) == 0)
        return 0; /* an earlier sending has made it */
    if (view->text.record.generation == expected)
        return err_say(err, ERR_FAILED, EBUSY, "witness: somebody has written %s anew by hand",
                       view->key);
    return say_other(view, expected, ret_is, err);
}

/* Steps 2 and 3. */
static int exchange(struct etcd *etcd, struct view *view, const struct witness_text *ours,
                    struct ft_record *ret_is, struct err *err)
{
    char value[WITNESS_TEXT_MAX];
    size_t length = witness_text_format(ours, value);
    bool maybe, succeeded;

    int r = ask(etcd, txn_path, etcd_text_exchange(view->key, &view->found, value, length), &maybe,
                err);
    if (r < 0)
        return maybe ? say_not_known(view->key, err) : r;
    const char *wrong = etcd_text_parse_exchange(etcd->answer.body, etcd->answer.length, view->key,
                                                 &succeeded, &view->found);
    if (wrong)
        return say_strange(wrong, err);
    return succeeded ? 0 : judge(view, ours, ret_is, err);
}

static int draw_attempt(struct witness_text *text, struct err *err)
{
    /* So few bytes come in one piece, once the kernel has any. */
    if (getrandom(text->attempt, sizeof(text->attempt), 0) != sizeof(text->attempt))
        return err_sys(err, ERR_HOST, errno, "witness: the kernel gives no random bytes");
    return 0;
}

static int witness_etcd_exchange(struct witness *witness, const uint8_t uuid[16], uint64_t expected,
                                 const struct ft_record *next, struct ft_record *ret_is,
                                 struct err *err)
{
    struct etcd *etcd = container_of(witness, struct etcd, base);
    struct witness_text ours = {.record = *next};
    struct view view;

    if (next->generation == 0 || next->generation > WITNESS_MOST_GENERATIONS)
        return err_say(err, ERR_FAILED, EOVERFLOW, "witness: generation %llu is senseless",
                       (unsigned long long)next->generation);
    memcpy(ours.uuid, uuid, 16);
    int r = draw_attempt(&ours, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&etcd->lock);
    r = look(etcd, uuid, &view, err);
    if (r == 0 && view.text.record.generation != expected)
        r = say_other(&view, expected, ret_is, err);
    if (r == 0)
        r = exchange(etcd, &view, &ours, ret_is, err);
    pthread_mutex_unlock(&etcd->lock);
    return r;
}

/* --- opening ---------------------------------------------------------------------------------- */

static void witness_etcd_close(struct witness *witness)
{
    struct etcd *etcd = container_of(witness, struct etcd, base);

    etcd_config_finish(&etcd->config);
    pthread_mutex_destroy(&etcd->lock);
    explicit_bzero(etcd->token, sizeof(etcd->token));
    free(etcd);
}

static const struct witness_ops etcd_ops = {
    .read = witness_etcd_read,
    .exchange = witness_etcd_exchange,
    .close = witness_etcd_close,
};

/* Whether we may write there: what asks for it writes nothing. */
static int probe(struct etcd *etcd, struct err *err)
{
    struct etcd_found found;
    bool maybe, succeeded;

    int r = ask(etcd, txn_path, etcd_text_probe(ETCD_PLACE), &maybe, err);
    if (r < 0)
        return r;
    const char *wrong = etcd_text_parse_exchange(etcd->answer.body, etcd->answer.length, ETCD_PLACE,
                                                 &succeeded, &found);
    return wrong ? say_strange(wrong, err) : 0;
}

static int check_known(struct etcd *etcd, const uint8_t uuid[16], struct err *err)
{
    struct view view;

    int r = look(etcd, uuid, &view, err);
    if (r < 0 || view.text.record.generation > 0)
        return r;
    r = err_say(err, ERR_STATE, ESTALE, "witness: the etcd has no record of the VM (%s)", view.key);
    err_hint(err, "both hosts must ask members of the same etcd");
    return r;
}

int witness_etcd_open(struct witness **ret_witness, const char *address, const uint8_t known[16],
                      struct err *err)
{
    struct etcd *etcd = calloc(1, sizeof(*etcd));

    if (!etcd)
        return err_sys(err, ERR_HOST, ENOMEM, "witness");
    etcd->base.ops = &etcd_ops;
    pthread_mutex_init(&etcd->lock, NULL);
    int r = etcd_config_read(&etcd->config, address, err);
    if (r == 0)
        r = known ? check_known(etcd, known, err) : probe(etcd, err);
    if (r < 0)
        witness_etcd_close(&etcd->base);
    else
        *ret_witness = &etcd->base;
    return r;
}
