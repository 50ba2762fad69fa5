/* SPDX-License-Identifier: MIT */
/*
 * Why a text is no JSON. jansson says where it stopped and what it expected; people want to know
 * what they did: the comma before the bracket, the comment, the quote that is missing. So the words
 * are walked up to that place, with the brackets that are open there, and the usual mistakes are
 * looked for.
 */
#include "vmm/definition_parts.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* --- bytes ---------------------------------------------------------------------------------- */

static struct json_spot spot_of(const char *text, size_t offset)
{
    struct json_spot spot = {.line = 1, .column = 1};
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n')
            spot = (struct json_spot){.line = spot.line + 1, .column = 1};
        else
            spot.column += ((unsigned char)text[i] & 0xc0) != 0x80;
    }
    return spot;
}

bool definition_check_bytes(struct definition_problems *problems, const char *text, size_t length)
{
    const struct json_spot begin = {.line = 1, .column = 1};
    const char *nul = memchr(text, '\0', length);

    if (length >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
        definition_problem(problems, begin, "the text is UTF-16; save it as UTF-8");
    else if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        definition_problem(problems, begin,
                           "the text begins with a byte order mark; save it as UTF-8 without one");
    else if (nul)
        definition_problem(problems, spot_of(text, (size_t)(nul - text)),
                           "there is a byte of zero: this is no text");
    else
        return true;
    return false;
}

/* --- the place ------------------------------------------------------------------------------ */

enum { MAX_OPEN = 64 };

struct stop {
    struct definition_problems *problems;
    const json_error_t *error;
    struct json_token token;  /* at which jansson stopped */
    struct json_token before; /* kind 0: none */
    struct json_token open[MAX_OPEN];
    unsigned depth;                      /* may be more than MAX_OPEN */
    char reason[JSON_ERROR_TEXT_LENGTH]; /* jansson's, without what it quotes */
    struct json_spot spot;               /* of the last byte that jansson took */
    struct json_spot next;               /* of the one that it did not take */
};

static void count_bracket(struct stop *stop, const struct json_token *token)
{
    if (token->kind == '{' || token->kind == '[') {
        if (stop->depth < MAX_OPEN)
            stop->open[stop->depth] = *token;
        stop->depth++;
    } else if ((token->kind == '}' || token->kind == ']') && stop->depth > 0) {
        stop->depth--;
    }
}

static void find_stop(struct stop *stop, const char *text, size_t length)
{
    size_t position = stop->error->position > 0 ? (size_t)stop->error->position : 0;
    struct json_tokens tokens;

    json_tokens_begin(&tokens, text, length);
    for (json_tokens_next(&tokens, &stop->token); stop->token.kind;) {
        if ((size_t)(tokens.at - text) >= position && stop->token.kind)
            break;
        count_bracket(stop, &stop->token);
        stop->before = stop->token;
        json_tokens_next(&tokens, &stop->token);
    }
    /* What ends too early may well end behind a whole word. */
    bool early = json_error_code(stop->error) == json_error_premature_end_of_input;
    bool open_text = stop->token.kind == '"' && !stop->token.closed;
    if (early && stop->token.kind && !open_text) {
        count_bracket(stop, &stop->token);
        stop->before = stop->token;
        json_tokens_next(&tokens, &stop->token);
    }
    if (position > length)
        position = length;
    stop->spot = spot_of(text, position > 0 ? position - 1 : 0);
    stop->next = spot_of(text, position);
}

/* --- the words ------------------------------------------------------------------------------ */

static bool begins(const struct stop *stop, const char *words)
{
    return strncmp(stop->reason, words, strlen(words)) == 0;
}

static void show(const struct json_token *token, char to[256])
{
    json_show(token->text, token->length, to, 256);
}

static void say(struct stop *stop, const char *what)
{
    definition_problem(stop->problems, stop->token.spot, "%s", what);
}

static void explain_end(struct stop *stop)
{
    if (stop->token.kind == '"') {
        say(stop, "the text that begins here has no end: a \" is missing");
    } else if (!stop->before.kind) {
        definition_problem(stop->problems, stop->token.spot,
                           "nothing is in it; the least that can be: "
                           "{\"disks\": [{\"file\": \"disk.img\"}]}");
    } else if (stop->depth > 0 && stop->depth <= MAX_OPEN) {
        const struct json_token *open = &stop->open[stop->depth - 1];
        definition_problem(stop->problems, stop->token.spot,
                           "the file ends here, and the %c of line %u, column %u is not closed",
                           open->kind, open->spot.line, open->spot.column);
    } else {
        say(stop, "the file ends too early");
    }
}

static void explain_text(struct stop *stop)
{
    const char *what;
    if (begins(stop, "unexpected newline")) {
        say(stop, "the text that begins here is not closed in its line: a \" is missing");
        return;
    }
    if (begins(stop, "control character")) {
        definition_problem(stop->problems, stop->next,
                           "a control character in a text is written as an escape: \\t for a tab");
        return;
    }
    if (begins(stop, "invalid escape"))
        what = "this is no escape; a backslash itself is written \\\\";
    else if (begins(stop, "invalid Unicode"))
        what = "this escape is half a character: \\ud800 to \\udfff come in pairs";
    else
        what = "\\u0000 has no place in a text";
    definition_problem(stop->problems, stop->spot, "%s", what);
}

static void explain_word(struct stop *stop)
{
    bool key = begins(stop, "string or '}' expected");
    char word[256];
    show(&stop->token, word);
    bool digit = isdigit((unsigned char)word[0]);
    bool number = (digit || strchr("+-.", word[0])) && !begins(stop, "'}' expected") &&
                  !begins(stop, "']' expected");
    if (digit && word[strspn(word, "0123456789+-.eE")]) /* 0x2: behind the 0 all was well */
        number = true;

    if (word[0] == '/' || word[0] == '#')
        say(stop, "JSON has no comments");
    else if (word[0] == '\'')
        say(stop, "a text stands in double quotes: \"...\"");
    else if (begins(stop, "':' expected"))
        say(stop, "a : is missing between the key and its value");
    else if (key)
        definition_problem(stop->problems, stop->token.spot,
                           "a key stands in double quotes: \"%s\"", word);
    else if (number)
        definition_problem(stop->problems, stop->token.spot,
                           "%s is no number as JSON has them: 512, 1.5", word);
    else if (begins(stop, "'}' expected") || begins(stop, "']' expected"))
        say(stop, "a comma is missing before this");
    else if (strncasecmp(word, "true", 4) == 0 || strncasecmp(word, "false", 5) == 0 ||
             strncasecmp(word, "null", 4) == 0)
        definition_problem(stop->problems, stop->token.spot,
                           "%s is not known; true, false and null are written so", word);
    else
        definition_problem(stop->problems, stop->token.spot,
                           "%s is not known; a text stands in double quotes: \"%s\"", word, word);
}

/* At a bracket, a comma, a colon, or a text in the wrong place. */
static void explain_mark(struct stop *stop)
{
    char kind = stop->token.kind;
    bool closes = kind == '}' || kind == ']';
    if (closes && stop->before.kind == ',') {
        definition_problem(stop->problems, stop->token.spot, "the comma before this %c is too many",
                           kind);
    } else if (stop->before.kind == ':' && kind != '"') {
        say(stop, "a value is missing behind the colon");
    } else if (begins(stop, "':' expected")) {
        say(stop, "a : is missing between the key and its value");
    } else if (kind == ',' || kind == ':') {
        definition_problem(stop->problems, stop->token.spot, "this %s has no place here",
                           kind == ',' ? "comma" : "colon");
    } else if (closes && stop->depth > 0 && stop->depth <= MAX_OPEN) {
        const struct json_token *open = &stop->open[stop->depth - 1];
        definition_problem(stop->problems, stop->token.spot,
                           "this %c does not close the %c of line %u, column %u", kind, open->kind,
                           open->spot.line, open->spot.column);
    } else if (begins(stop, "'}' expected") || begins(stop, "']' expected")) {
        say(stop, "a comma is missing before this");
    } else {
        definition_problem(stop->problems, stop->token.spot, "this is no JSON: %s", stop->reason);
    }
}

static void explain(struct stop *stop)
{
    char word[256];
    show(&stop->token, word);
    switch (json_error_code(stop->error)) {
    case json_error_invalid_utf8:
        definition_problem(stop->problems, stop->next, "the text is not UTF-8 from here on");
        return;
    case json_error_stack_overflow:
        say(stop, "there are too many brackets in brackets");
        return;
    case json_error_numeric_overflow:
        definition_problem(stop->problems, stop->token.spot, "the number %s is too large", word);
        return;
    case json_error_premature_end_of_input:
        explain_end(stop);
        return;
    case json_error_end_of_input_expected:
        say(stop, "the definition has ended, and something follows");
        return;
    default:
        break;
    }
    if (stop->token.kind == 'w')
        explain_word(stop);
    else if (stop->token.kind == '"' && !strstr(stop->reason, " expected"))
        explain_text(stop);
    else
        explain_mark(stop);
}

void definition_explain(struct definition_problems *problems, const char *text, size_t length,
                        const json_error_t *error)
{
    struct stop stop = {.problems = problems, .error = error};
    snprintf(stop.reason, sizeof(stop.reason), "%s", error->text);
    char *quote = strstr(stop.reason, " near ");
    if (quote)
        *quote = '\0';
    find_stop(&stop, text, length);
    explain(&stop);
}
