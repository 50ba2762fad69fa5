/* SPDX-License-Identifier: MIT */
/* The console's way out. (Keys and modes want a terminal: tests/system/test_cli.py.) */
#include "host/term.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOTAL = 1 << 20, PIECE = 1000 };

static size_t take_nothing(void *ctx, const uint8_t *bytes, size_t length)
{
    return 0;
}

static uint8_t byte_at(size_t at)
{
    return (uint8_t)('a' + at % 23);
}

/* Reads what has been written until all of it is accounted for: it came, or a line counts it. */
static void read_all(int fd, size_t total, uint64_t *ret_lost)
{
    static const char line[] = "\r\n[minivmm: %llu bytes of console output lost, the terminal is "
                               "too slow]\r\n%n";
    char *text = malloc(2 * TOTAL);
    size_t have = 0, at = 0, came = 0;
    uint64_t lost = 0;

    while (came + lost < total) {
        ssize_t n = read(fd, text + have, 2 * TOTAL - 1 - have);
        ck_assert_int_gt(n, 0);
        have += (size_t)n;
        text[have] = 0;
        while (at < have) {
            unsigned long long count;
            int length = 0;
            if (text[at] != '\r') {
                ck_assert_uint_eq((uint8_t)text[at++], byte_at(came + lost));
                came++;
            } else if (sscanf(text + at, line, &count, &length) == 1 && length > 0 &&
                       text[at + (size_t)length - 1] == '\n') {
                lost += count;
                at += (size_t)length;
            } else {
                break; /* the line is not whole yet */
            }
        }
    }
    ck_assert_uint_eq(came + lost, total);
    *ret_lost = lost;
    free(text);
}

START_TEST(what_a_slow_reader_loses_is_counted_to_the_byte)
{
    static const struct term_handlers handlers = {.input = take_nothing};
    struct loop *loop;
    struct term *term;
    int in[2], out[2];
    int stdin_before = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    int stdout_before = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    uint8_t piece[PIECE];
    uint64_t lost;
    size_t at = 0;

    ck_assert(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    ck_assert(dup2(in[0], STDIN_FILENO) == 0 && dup2(out[1], STDOUT_FILENO) == 1);
    ck_assert_int_eq(loop_create(&loop, NULL), 0);
    ck_assert_int_eq(term_create(&term, loop, &handlers, NULL), 0);
    while (at < TOTAL) { /* and nobody reads: more than pipe and ring can hold */
        size_t length = TOTAL - at < PIECE ? TOTAL - at : PIECE;
        for (size_t i = 0; i < length; i++)
            piece[i] = byte_at(at + i);
        term_write(term, piece, length);
        at += length;
    }
    read_all(out[0], TOTAL, &lost);
    ck_assert_uint_gt(lost, 0);
    term_write(term, (const uint8_t *)"abc", 3); /* and it goes on */
    ck_assert_int_eq(read(out[0], piece, PIECE), 3);
    ck_assert_int_eq(term_output_error(term), 0);
    term_destroy(term);
    loop_destroy(loop);
    dup2(stdin_before, STDIN_FILENO);
    dup2(stdout_before, STDOUT_FILENO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("term");
    TCase *tc = tcase_create("term");

    tcase_add_test(tc, what_a_slow_reader_loses_is_counted_to_the_byte);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
