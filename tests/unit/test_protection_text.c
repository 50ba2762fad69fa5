/* SPDX-License-Identifier: MIT */
/* What people read of a VM's protection; and the sums that it is made of. */
#include "cli/protection_text.h"
#include "ft/epochs.h"
#include "ft/protocol.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

/* --- what a VM says --------------------------------------------------------------------------- */

static json_t *spread_of(double median, double p99, double most)
{
    return json_pack("{sf, sf, sf}", "median", median, "p99", p99, "most", most);
}

static json_t *recent_of(void)
{
    return json_pack("{si, so, so, sf, sf, sf, sf}", "epochs", 100, "pause_us",
                     spread_of(310, 1204, 22000), "commit_us", spread_of(1100, 4200, 120000),
                     "epochs_per_s", 20.04, "dirty_bytes_per_s", 12.5 * 1024 * 1024,
                     "wire_bytes_per_s", 3.0 * 1024, "stood_still_percent", 0.71);
}

static json_t *protection_of(const char *role, const char *state)
{
    return json_pack("{ss, ss, ss, ss, ss, si, si, si, sb, ss, si}", "role", role, "state", state,
                     "peer", "hostB:7420", "witness", "file:/nfs/w", "level", "memory",
                     "generation", 3, "epoch", 1234, "acked", 1233, "gated", 0, "why", "",
                     "held_bytes", 12288);
}

static json_t *paired(void)
{
    json_t *protection = protection_of("primary", "paired");
    json_object_set_new(protection, "gated", json_true());
    json_object_set_new(protection, "recent", recent_of());
    return protection;
}

/* The protection becomes ours. */
static char *print(json_t *protection, const struct protection_pace *pace)
{
    char *text;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    protection_print(to, protection, pace);
    fclose(to);
    json_decref(protection);
    return text;
}

static void check_print(json_t *protection, const struct protection_pace *pace,
                        const char *expected)
{
    char *text = print(protection, pace);
    ck_assert_str_eq(text, expected);
    free(text);
}

static void check_has(json_t *protection, const char *line)
{
    char *text = print(protection, NULL);
    const char *at = strstr(text, line);
    ck_assert_msg(at && (at == text || at[-1] == '\n'), "no \"%s\" in\n%s", line, text);
    free(text);
}

/* --- the paragraph ---------------------------------------------------------------------------- */

START_TEST(a_protected_vm_says_how_it_goes)
{
    check_print(paired(), NULL,
                "protected yes: its twin at hostB:7420 goes on when this host dies\n"
                "witness   file:/nfs/w, generation 3\n"
                "level     memory: an epoch counts when its twin has it in its memory\n"
                "epochs    1234, acknowledged to 1233; 20.0 a second\n"
                "pauses    median 0.31 ms, p99 1.20 ms, longest 22.0 ms; 0.7 % of the time\n"
                "commit    median 1.10 ms, p99 4.20 ms, longest 120 ms\n"
                "rates     12.5 MiB/s of memory written, 3 KiB/s sent\n"
                "held      12 KiB wait for its twin\n");
}
END_TEST

START_TEST(one_that_is_not_at_home_says_when_it_goes_there)
{
    json_t *protection = paired();
    json_object_set_new(protection, "home",
                        json_pack("{ss, ss, ss, si, sf}", "preferred", "hostA", "state", "waits",
                                  "why", "it goes home when all is well", "moves", 1, "in_s",
                                  119.6));
    check_has(protection, "home      hostA: it goes home when all is well, in 120 s at the "
                          "earliest\n");
    protection = paired();
    json_object_set_new(protection, "home",
                        json_pack("{ss, ss, ss, si}", "preferred", "hostA", "state", "here", "why",
                                  "it is at home here", "moves", 0));
    check_has(protection, "home      hostA: it is at home here\n");
}
END_TEST

START_TEST(what_is_so_just_now_goes_first)
{
    const struct protection_pace pace = {.epochs_per_s = 33.3,
                                         .dirty_bytes_per_s = 1024,
                                         .wire_bytes_per_s = 2048,
                                         .stood_still_percent = 2.5,
                                         .pause_us = 250,
                                         .commit_us = 500};
    char *text = print(paired(), &pace);
    ck_assert_ptr_nonnull(strstr(text, "; 33.3 a second\n"));
    ck_assert_ptr_nonnull(strstr(text, "pauses    0.25 ms; lately median 0.31 ms, p99 1.20 ms, "
                                       "longest 22.0 ms; 2.5 % of the time\n"));
    ck_assert_ptr_nonnull(strstr(text, "commit    0.50 ms; lately median 1.10 ms"));
    ck_assert_ptr_nonnull(strstr(text, "rates     1 KiB/s of memory written, 2 KiB/s sent\n"));
    free(text);
}
END_TEST

START_TEST(one_that_is_alone_says_why)
{
    json_t *protection = protection_of("primary", "alone");
    json_object_set_new(protection, "gated", json_true());
    json_object_set_new(protection, "why", json_string("the witness does not answer"));
    json_object_set_new(protection, "level", json_string("durable"));
    check_print(protection, NULL,
                "protected no: its twin at hostB:7420 is gone, and what it sends waits until the "
                "witness lets it go on alone\n"
                "why       the witness does not answer\n"
                "witness   file:/nfs/w, generation 3\n"
                "level     durable: an epoch counts when its twin has it on its disk\n"
                "held      12 KiB wait for its twin\n");
}
END_TEST

START_TEST(a_twin_says_that_it_is_one)
{
    json_t *protection = protection_of("twin", "twin");
    json_object_del(protection, "held_bytes");
    json_object_set_new(protection, "generation", json_integer(0));
    json_object_set_new(
        protection, "twin",
        json_pack("{si, sf, sf}", "epochs", 523, "apply_us", 771.0, "takeover_ms", 0.0));
    check_print(protection, NULL,
                "twin      ready: it goes on when the VM is lost, which runs at hostB:7420\n"
                "witness   file:/nfs/w\n"
                "level     memory: an epoch counts when its twin has it in its memory\n"
                "epochs    523 came, acknowledged to 1233; the last one was applied in 0.77 ms\n");
}
END_TEST

START_TEST(who_has_taken_over_says_how_long_that_took)
{
    json_t *protection = protection_of("primary", "solo");
    json_object_set_new(protection, "peer", json_string(""));
    json_object_set_new(protection, "recent", recent_of());
    json_object_set_new(
        protection, "twin",
        json_pack("{si, sf, sf}", "epochs", 523, "apply_us", 771.0, "takeover_ms", 1.46));
    check_print(protection, NULL,
                "protected no: nobody follows it at (not known)\n"
                "witness   file:/nfs/w, generation 3\n"
                "level     memory: an epoch counts when its twin has it in its memory\n"
                "held      12 KiB wait; what it sends leaves at once\n"
                "before    it was the twin, and took over in 1.46 ms\n");
}
END_TEST

START_TEST(a_twin_that_is_being_filled_is_none_yet)
{
    json_t *protection = protection_of("primary", "solo");
    json_object_set_new(protection, "sync",
                        json_pack("{si, si, si}", "done", 1 << 20, "total", 8 << 20, "round", 1));
    check_has(protection,
              "protected not yet: its twin at hostB:7420 gets what it lacks, 1 MiB of 8 MiB\n");
    protection = protection_of("primary", "solo");
    json_object_set_new(
        protection, "sync",
        json_pack("{si, si, si, sb}", "done", 8 << 20, "total", 8 << 20, "round", 1, "storing", 1));
    check_has(protection,
              "protected not yet: its twin at hostB:7420 gets what it lacks, 8 MiB of 8 MiB; "
              "its disks take what was sent\n");
}
END_TEST

/* The protocol's own names. */
START_TEST(every_state_has_its_words)
{
    for (enum ft_state state = FT_STARTING; state <= FT_OVER; state++) {
        const char *name = ft_state_name(state);
        char *text = print(protection_of("primary", name), NULL), other[64];
        snprintf(other, sizeof(other), "protected %s, by", name);
        ck_assert_msg(!strstr(text, other), "%s: %s", name, text);
        ck_assert_int_eq(strcmp(protection_word(name), "protected") == 0, state == FT_PAIRED);
        ck_assert_int_eq(strncmp(text, "protected yes", 13) == 0, state == FT_PAIRED);
        free(text);
    }
    check_has(protection_of("primary", "of a later version"),
              "protected of a later version, by hostB:7420\n");
    ck_assert_str_eq(protection_word("of a later version"), "");
}
END_TEST

START_TEST(strange_words_do_no_harm)
{
    char longer[4000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    json_t *protection = protection_of("primary", "alone");
    json_object_set_new(protection, "peer", json_string(longer));
    json_object_set_new(protection, "why", json_string("a\033[2Jb\nc"));
    json_object_set_new(protection, "witness", json_integer(7));
    json_object_set_new(protection, "generation", json_string("x"));
    json_object_set_new(protection, "recent", json_array());
    json_object_set_new(protection, "twin", json_array());
    json_object_set_new(protection, "held_bytes", json_real(-1e300));
    char *text = print(protection, NULL);
    ck_assert_ptr_nonnull(strstr(text, "\nwhy       a?[2Jb?c\nwitness   -\n"));
    ck_assert_ptr_null(strchr(text, '\033'));
    ck_assert_uint_lt(strlen(text), 2 * PROTECTION_LINE);
    free(text);
    check_has(json_object(), "protected -, by (not known)\n");
}
END_TEST

/* --- the pace --------------------------------------------------------------------------------- */

static json_t *counted(int epochs, double bytes, double sum)
{
    return json_pack("{s{s{si, sf, sf, s{si, sf}, s{si, sf}}}}", "metrics", "ft", "epochs", epochs,
                     "dirty_bytes", bytes, "wire_bytes", bytes / 2, "pauses", "count", epochs,
                     "sum", sum, "commits", "count", epochs, "sum", 2 * sum);
}

START_TEST(the_pace_is_what_was_counted_meanwhile)
{
    json_t *before = counted(100, 1000, 1), *now = counted(140, 5000, 1.02), *none = json_object();
    struct protection_pace pace;
    ck_assert(protection_pace(before, now, 2, &pace));
    ck_assert_double_eq_tol(pace.epochs_per_s, 20, 1e-9);
    ck_assert_double_eq_tol(pace.dirty_bytes_per_s, 2000, 1e-9);
    ck_assert_double_eq_tol(pace.wire_bytes_per_s, 1000, 1e-9);
    ck_assert_double_eq_tol(pace.stood_still_percent, 1, 1e-6);
    ck_assert_double_eq_tol(pace.pause_us, 500, 1e-6);
    ck_assert_double_eq_tol(pace.commit_us, 1000, 1e-6);
    ck_assert(protection_pace(now, now, 1, &pace));
    ck_assert(pace.pause_us == 0 && pace.epochs_per_s == 0);
    ck_assert(!protection_pace(now, before, 1, &pace)); /* it counts anew */
    ck_assert(!protection_pace(before, now, 0, &pace));
    ck_assert(!protection_pace(none, now, 1, &pace) && !protection_pace(now, none, 1, &pace));
    json_decref(before);
    json_decref(now);
    json_decref(none);
}
END_TEST

/* --- lines ------------------------------------------------------------------------------------ */

static void check_line(json_t *status, const struct protection_pace *pace, const char *expected)
{
    char *text;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    protection_print_line(to, 1763712000, status, pace);
    fclose(to);
    ck_assert_uint_gt(length, 9);
    ck_assert(text[2] == ':' && text[5] == ':' && text[8] == ' ');
    ck_assert_str_eq(text + 9, expected);
    free(text);
    json_decref(status);
}

START_TEST(a_line_says_all_of_it)
{
    const struct protection_pace pace = {.epochs_per_s = 20,
                                         .dirty_bytes_per_s = 1024,
                                         .wire_bytes_per_s = 2048,
                                         .pause_us = 250,
                                         .commit_us = 500};
    check_line(json_pack("{ss, so}", "state", "running", "protection", paired()), &pace,
               "running, protected; epoch 1234, acknowledged 1233, 20.0/s; pause 0.25 ms (p99 1.20 "
               "ms), commit 0.50 ms (p99 4.20 ms); written 1 KiB/s, sent 2 KiB/s, held 12 KiB\n");
    check_line(json_pack("{ss, so}", "state", "running", "protection", paired()), NULL,
               "running, protected\n");
    check_line(json_pack("{ss}", "state", "paused"), NULL, "paused, not protected\n");
    check_line(
        json_pack("{ss, so}", "state", "a twin", "protection", protection_of("twin", "twin")), NULL,
        "a twin: twin, acknowledged 1233\n");
    json_t *solo = protection_of("primary", "solo");
    json_object_set_new(solo, "why", json_string("nobody listens at hostB:7420"));
    check_line(json_pack("{ss, so}", "state", "running", "protection", solo), NULL,
               "running, not protected: solo (nobody listens at hostB:7420)\n");
}
END_TEST

static char *print_event(json_t *event)
{
    char *text;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    protection_print_event(to, event);
    fclose(to);
    json_decref(event);
    return text;
}

static void check_event(json_t *event, const char *expected)
{
    char *text = print_event(event);
    ck_assert_uint_gt(strlen(text), 9);
    ck_assert_str_eq(text + 9, expected);
    free(text);
}

START_TEST(events_are_said_in_a_line)
{
    check_event(json_pack("{ss, sf, ss}", "event", "paused", "at", 1763712000.5, "why", "asked"),
                "paused, why: asked\n");
    check_event(json_pack("{ss, sf, si}", "event", "resumed", "at", 1763712000.5, "paused_ms", 11),
                "resumed, paused_ms: 11\n");
    json_t *changed = paired();
    json_object_set_new(changed, "event", json_string("protection"));
    check_event(changed, "protection: paired, generation 3\n");
    json_t *lost = protection_of("primary", "alone");
    json_object_set_new(lost, "event", json_string("protection"));
    json_object_set_new(lost, "why", json_string("no\nanswer"));
    check_event(lost, "protection: alone, generation 3 (no?answer)\n");
    char *text = print_event(json_pack("{ss, si}", "event", "protect-progress", "done", 1));
    ck_assert_str_eq(text, "");
    free(text);
}
END_TEST

START_TEST(protect_ends_with_a_line)
{
    json_t *answer = paired();
    char text[PROTECTION_LINE];
    protection_sum_up(text, sizeof(text), "web1", answer, 905ull << 20, 3.46);
    ck_assert_str_eq(text, "web1 is protected: a twin follows at hostB:7420, 905 MiB went over in "
                           "3.5 s; level memory, generation 3");
    protection_sum_up(text, sizeof(text), "web1", answer, 0, 0.12);
    ck_assert_str_eq(text, "web1 is protected: a twin follows at hostB:7420, ready after 0.1 s; "
                           "level memory, generation 3");
    json_decref(answer);
}
END_TEST

/* --- totals ----------------------------------------------------------------------------------- */

START_TEST(totals_count_what_the_ring_has_forgotten)
{
    struct epochs epochs;
    struct epochs_total total;
    struct err err = {0};
    static const uint64_t kinds[4];
    const uint64_t count = EPOCHS_KEPT + 10;
    ck_assert_int_eq(epochs_init(&epochs, &err), 0);
    for (uint64_t i = 1; i <= count; i++) {
        const struct epoch_record record = {
            .epoch = i, .began_ns = 1000 * i, .pause_ns = 3000, .pages = 2, .cause = EPOCH_TIME};
        epochs_add(&epochs, &record);
        epochs_note_sent(&epochs, i, 1, 100, kinds);
        epochs_note_acked(&epochs, i, 1000 * i + 9000, 0);
        epochs_note_acked(&epochs, i, 1000 * i + 99000, 0); /* once is enough */
    }
    epochs_read_total(&epochs, &total);
    ck_assert_uint_eq(total.count, count);
    ck_assert_uint_eq(total.pages, 2 * count);
    ck_assert_uint_eq(total.wire_bytes, 100 * count);
    ck_assert_uint_eq(total.pauses.count, count);
    ck_assert_uint_eq(total.pauses.sum, 3000 * count);
    ck_assert_uint_eq(total.commits.count, count);
    ck_assert_uint_eq(total.commits.sum, 9000 * count);
    epochs_finish(&epochs);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protection_text");
    TCase *paragraph = tcase_create("paragraph");
    tcase_add_test(paragraph, a_protected_vm_says_how_it_goes);
    tcase_add_test(paragraph, one_that_is_not_at_home_says_when_it_goes_there);
    tcase_add_test(paragraph, what_is_so_just_now_goes_first);
    tcase_add_test(paragraph, one_that_is_alone_says_why);
    tcase_add_test(paragraph, a_twin_says_that_it_is_one);
    tcase_add_test(paragraph, who_has_taken_over_says_how_long_that_took);
    tcase_add_test(paragraph, a_twin_that_is_being_filled_is_none_yet);
    tcase_add_test(paragraph, every_state_has_its_words);
    tcase_add_test(paragraph, strange_words_do_no_harm);
    suite_add_tcase(suite, paragraph);
    TCase *lines = tcase_create("lines");
    tcase_add_test(lines, the_pace_is_what_was_counted_meanwhile);
    tcase_add_test(lines, a_line_says_all_of_it);
    tcase_add_test(lines, events_are_said_in_a_line);
    tcase_add_test(lines, protect_ends_with_a_line);
    tcase_add_test(lines, totals_count_what_the_ring_has_forgotten);
    suite_add_tcase(suite, lines);
    return unit_main(suite);
}
