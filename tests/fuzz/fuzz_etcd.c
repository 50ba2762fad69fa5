/* SPDX-License-Identifier: MIT */
/*
 * What is in an etcd's place and answers. The first byte says in how large pieces the answer comes,
 * the rest is the answer, head and all. Then its body is read as each of the answers that there
 * are; and the body of what has no head, so that those need none.
 */
#include "ft/witness_etcd_parts.h"
#include "tests/fuzz/program.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static const uint8_t uuid[16] = {0x6f, 0x1e, 0xd0, 0x02, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static void require_words(const char *words, size_t most)
{
    require(strlen(words) < most);
    for (; *words; words++)
        require(*words >= ' ' && *words <= '~');
}

static void require_found(const struct etcd_found *found)
{
    struct witness_text text;

    require(found->mod_revision <= INT64_MAX && found->length <= sizeof(found->bytes));
    require(found->mod_revision || found->length == 0);
    const char *wrong = witness_text_parse(&text, found->bytes, found->length);
    require(!wrong || wrong[0]);
}

static void try_body(const char *body, size_t length)
{
    char key[ETCD_KEY], token[ETCD_TOKEN], words[ETCD_WORDS];
    struct etcd_found found;
    bool succeeded;

    etcd_text_key(uuid, key);
    const char *wrong = etcd_text_parse_range(body, length, key, &found);
    if (!wrong)
        require_found(&found);
    wrong = etcd_text_parse_exchange(body, length, key, &succeeded, &found);
    if (!wrong && !succeeded)
        require_found(&found);
    if (!etcd_text_parse_login(body, length, token)) {
        require_words(token, sizeof(token));
        require(token[0] && !strchr(token, ' '));
    }
    require(etcd_text_parse_error(body, length, words) <= 16);
    require_words(words, sizeof(words));
}

/* 1, or -EBADMSG with a reason. */
static int feed(struct http_answer *answer, const char *bytes, size_t length, size_t piece)
{
    int r = 0;

    http_answer_init(answer);
    for (size_t at = 0; at < length && r == 0; at += piece)
        r = http_answer_take(answer, bytes + at, piece < length - at ? piece : length - at);
    if (r == 0)
        r = http_answer_end(answer) == 0 ? 1 : -1;
    require(r == 1 || (answer->wrong && answer->wrong[0]));
    require(answer->length <= HTTP_BODY_MAX && answer->body[answer->length] == 0);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct http_answer whole, cut;
    const char *text = (const char *)bytes + 1;

    if (length == 0)
        return 0;
    int r = feed(&whole, text, length - 1, length);
    require(feed(&cut, text, length - 1, (size_t)bytes[0] + 1) == r);
    if (r == 1) {
        require(whole.status >= 200 && whole.status < 600 && whole.status == cut.status);
        require(whole.length == cut.length && memcmp(whole.body, cut.body, whole.length) == 0);
        try_body(whole.body, whole.length);
    }
    try_body(text, length - 1);
    return 0;
}
