/* SPDX-License-Identifier: MIT */
#include "ft/handover.h"
#include "ft/moving.h"
#include "tests/unit/snapshot_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct stream_buffer buffer, payload;

static void set_up(void)
{
    stream_buffer_init(&buffer, 0);
    stream_buffer_init(&payload, 0);
}

static void tear_down(void)
{
    stream_buffer_finish(&buffer);
    stream_buffer_finish(&payload);
}

static void next(enum frame_kind kind)
{
    struct frame frame;
    struct err err = {0};
    ck_assert_msg(frame_read(&buffer.stream, &frame, &payload, NULL, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(frame.kind, kind);
}

/* The same section, first in the payload, with another protocol and a checksum that is right. */
static void set_protocol(struct stream_buffer *in, uint32_t protocol)
{
    enum { HEADER = 1 + 6 + 4 + 2 + 4, AT_PROTOCOL = HEADER + 8 };
    uint32_t length, crc;
    ck_assert_mem_eq(in->bytes + 1, "moving", 6);
    memcpy(&length, in->bytes + HEADER - 4, sizeof(length));
    memcpy(in->bytes + AT_PROTOCOL, &protocol, sizeof(protocol));
    crc = crc32c(0, in->bytes, HEADER + length);
    memcpy(in->bytes + HEADER + length, &crc, sizeof(crc));
    stream_buffer_rewind(in);
}

/* Whoever is older than this may come here; who is newer says what this does not understand. */
START_TEST(a_hello_arrives_as_it_left_and_not_from_a_newer_minivmm)
{
    const struct moving_hello hello = {
        .wall_ns = 1234, .protocol = MOVING_PROTOCOL, .uuid = {1}, .macs = {{2}}, .name = "web1"};
    struct machine_model *model = make_model(MODEL_NOW, MEMORY), *got_model;
    ck_assert_int_eq(machine_model_create(&got_model, NULL), 0);
    moving_put_hello(&buffer.stream, &hello, model);
    next(FRAME_HELLO);
    for (uint32_t protocol = 0; protocol <= MOVING_PROTOCOL + 1; protocol++) {
        bool good = protocol >= MOVING_OLDEST && protocol <= MOVING_PROTOCOL;
        struct moving_hello got = {0};
        struct err err = {0};
        set_protocol(&payload, protocol);
        int ret = moving_get_hello(&payload, &got, got_model, &err);
        ck_assert_msg((ret == 0) == good, "%u: %d: %s", protocol, ret, err.text);
        if (!good)
            ck_assert_msg(strstr(err.text, "the other side speaks version"), "%s", err.text);
        else
            ck_assert(got.protocol == protocol && memcmp(&got.uuid, &hello.uuid, 16) == 0);
    }
    ck_assert_uint_eq(machine_model_memory(got_model), MEMORY);
    machine_model_destroy(model);
    machine_model_destroy(got_model);
}
END_TEST

START_TEST(an_announcement_arrives_with_its_time)
{
    uint32_t us = 0;
    moving_put_announced(&buffer.stream, 1234);
    moving_put_announced(&buffer.stream, MOVING_UNHEARD);
    moving_put_ack(&buffer.stream, FRAME_ANNOUNCED);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(moving_wait_ack(&buffer.stream, &payload, NULL), FRAME_ANNOUNCED);
        int ret = moving_get_announced(&payload, &us, NULL);
        ck_assert_int_eq(ret, i < 2 ? 0 : -EBADMSG);
        ck_assert_uint_eq(us, i == 0 ? 1234 : MOVING_UNHEARD);
    }
}
END_TEST

START_TEST(blocks_arrive_as_they_left)
{
    struct moving_block block;
    const struct frame of = {.epoch = MOVING_EPOCH};
    const struct moving_block bytes = {
        .place = 3, .offset = 1ull << 40, .bytes = (const uint8_t *)"12345678", .length = 8};
    const struct moving_block zeroes = {.place = 4, .offset = 512, .length = 65536};
    moving_put_block(&buffer.stream, &of, &bytes, NULL);
    moving_put_block(&buffer.stream, &of, &zeroes, NULL);
    next(FRAME_BLOCKS);
    ck_assert_int_eq(moving_get_block(&payload, &block, NULL), 0);
    ck_assert(block.place == 3 && block.offset == 1ull << 40 && block.length == 8);
    ck_assert_mem_eq(block.bytes, "12345678", 8);
    next(FRAME_BLOCKS);
    ck_assert_int_eq(moving_get_block(&payload, &block, NULL), 0);
    ck_assert(block.place == 4 && block.length == 65536 && !block.bytes);
}
END_TEST

START_TEST(names_stay_inside)
{
    static const char *const good[] = {"disk.img", "sub/disk.img", "a..b", "x/..y"};
    static const char *const bad[] = {"/etc/passwd", "../x", "a/../x", "..", ".",   "a//b",
                                      "a/",          "./a",  "a/.",    "",   "a/.."};
    struct moving_disk disk = {.place = 1, .size = 4096}, read;
    for (size_t i = 0; i < array_size(good) + array_size(bad); i++) {
        bool is_good = i < array_size(good);
        snprintf(disk.name, sizeof(disk.name), "%s", is_good ? good[i] : bad[i - array_size(good)]);
        moving_put_disk(&buffer.stream, &disk);
        next(FRAME_DISK);
        int ret = moving_get_disk(&payload, &read, NULL);
        ck_assert_msg((ret == 0) == is_good, "%s: %d", disk.name, ret);
    }
}
END_TEST

START_TEST(shared_disks_arrive_as_they_left)
{
    static const struct moving_shared sent[] = {
        {.place = 0, .format = DISK_FORMAT_RAW, .size = 512, .mark = UINT64_MAX},
        {.place = 18,
         .format = DISK_FORMAT_QCOW2,
         .size = 1ull << 40,
         .link = "sub/disk.img",
         .target = "../../nfs/./a//b"},
    };
    struct moving_shared read;
    for (size_t i = 0; i < array_size(sent); i++) {
        moving_put_shared(&buffer.stream, &sent[i]);
        next(FRAME_SHARED);
        ck_assert_int_eq(moving_get_shared(&payload, &read, NULL), 0);
        ck_assert(read.place == sent[i].place && read.format == sent[i].format &&
                  read.size == sent[i].size && read.mark == sent[i].mark);
        ck_assert_str_eq(read.link, sent[i].link);
        ck_assert_str_eq(read.target, sent[i].target);
        for (size_t cut = 0; cut < payload.length; cut++) {
            struct stream_buffer less;
            stream_buffer_init_read(&less, payload.bytes, cut);
            ck_assert_int_lt(moving_get_shared(&less, &read, NULL), 0);
        }
    }
}
END_TEST

START_TEST(shared_disks_that_lie_are_refused)
{
    const struct moving_shared good = {
        .place = 1, .format = DISK_FORMAT_RAW, .size = 512, .link = "a", .target = "b"};
    struct moving_shared bad[9], read;
    for (size_t i = 0; i < array_size(bad); i++)
        bad[i] = good;
    bad[0].place = MACHINE_MAX_DISKS;
    bad[1].format = DISK_FORMAT_ANY;
    bad[2].format = 3;
    snprintf(bad[3].link, sizeof(bad[3].link), "../vm.json");
    snprintf(bad[4].link, sizeof(bad[4].link), "/etc/passwd");
    snprintf(bad[5].link, sizeof(bad[5].link), "a/../b");
    bad[6].link[0] = '\0';
    bad[7].target[0] = '\0';
    memset(bad[8].target, 'x', MOVING_LINK_MAX + 1);
    for (size_t i = 0; i < array_size(bad); i++) {
        moving_put_shared(&buffer.stream, &bad[i]);
        next(FRAME_SHARED);
        ck_assert_msg(moving_get_shared(&payload, &read, NULL) < 0, "%zu", i);
    }
}
END_TEST

START_TEST(an_error_of_the_other_side_is_said_here_and_is_only_text)
{
    struct err theirs = {.kind = ERR_STATE, .text = "no\033[31m room", .hint = "make some"};
    struct err err = {0};
    moving_put_error(&buffer.stream, &theirs);
    ck_assert_int_eq(moving_wait_ack(&buffer.stream, &payload, &err), -EREMOTEIO);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_str_eq(err.text, "no?[31m room");
    ck_assert_str_eq(err.hint, "make some");
    moving_put_ack(&buffer.stream, FRAME_STORED);
    ck_assert_int_eq(moving_wait_ack(&buffer.stream, &payload, &err), FRAME_STORED);
}
END_TEST

/* --- whose it is ------------------------------------------------------------------------------ */

static char folder[64];

static int make_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/minivmm-moving-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    int place = open(folder, O_RDONLY | O_DIRECTORY);
    ck_assert_int_eq(mkdirat(place, "web1", 0700), 0);
    return place;
}

static void remove_folder(int place)
{
    static const char *const names[] = {"web1/.arriving", "web1/.arrived", "web1/.unwanted",
                                        "web1/.moved", ".standby"};
    for (size_t i = 0; i < array_size(names); i++)
        unlinkat(place, names[i], 0);
    unlinkat(place, "web1", AT_REMOVEDIR);
    close(place);
    ck_assert_int_eq(rmdir(folder), 0);
}

START_TEST(what_was_declined_never_comes_and_what_has_come_stays)
{
    static const uint8_t ticket[MOVING_TICKET] = {1, 2, 3};
    for (unsigned claim_first = 0; claim_first < 2; claim_first++) {
        int place = make_folder(), web = openat(place, "web1", O_RDONLY | O_DIRECTORY);
        ck_assert_int_eq(handover_arrive(web, ticket, NULL), 0);
        if (claim_first) {
            ck_assert_int_eq(handover_claim(web, NULL), 0);
            ck_assert_int_eq(handover_decline(web), -ENOENT);
            ck_assert_int_eq(handover_answer(place, ticket), FRAME_YOURS);
        } else {
            ck_assert_int_eq(handover_decline(web), 0);
            ck_assert_int_eq(handover_claim(web, NULL), -ECANCELED);
            ck_assert_int_eq(handover_answer(place, ticket), FRAME_NOT_MINE);
        }
        close(web);
        remove_folder(place);
    }
}
END_TEST

START_TEST(whoever_comes_first_decides)
{
    static const uint8_t ticket[MOVING_TICKET] = {1, 2, 3}, other[MOVING_TICKET] = {9};
    for (unsigned claim_first = 0; claim_first < 2; claim_first++) {
        int place = make_folder(), web = openat(place, "web1", O_RDONLY | O_DIRECTORY);
        struct err err = {0};
        ck_assert_int_eq(handover_check(web, "web1", &err), 0);
        ck_assert_int_eq(handover_arrive(web, ticket, NULL), 0);
        ck_assert_int_lt(handover_check(web, "web1", &err), 0);
        ck_assert_int_eq(err.kind, ERR_STATE);
        ck_assert_int_eq(handover_answer(place, other), FRAME_NOT_MINE);
        if (claim_first) {
            ck_assert_int_eq(handover_claim(web, NULL), 0);
            ck_assert_int_eq(handover_answer(place, ticket), FRAME_YOURS);
            ck_assert_int_eq(handover_check(web, "web1", NULL), 0);
        } else {
            ck_assert_int_eq(handover_answer(place, ticket), FRAME_NOT_MINE);
            ck_assert_int_eq(handover_claim(web, NULL), -ECANCELED);
            ck_assert_int_eq(handover_answer(place, ticket), FRAME_NOT_MINE);
            ck_assert_int_lt(handover_check(web, "web1", NULL), 0);
        }
        close(web);
        remove_folder(place);
    }
}
END_TEST

/* So many more descriptors from here on; RLIM_INFINITY: as many as may be. */
static void allow_files(rlim_t more)
{
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int next = dup(STDERR_FILENO);
    ck_assert_int_ge(next, 0);
    close(next);
    if (more < limit.rlim_max)
        limit.rlim_cur = (rlim_t)next + more;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Who hears that it is not here runs it. */
START_TEST(what_cannot_be_looked_at_may_be_here)
{
    static const uint8_t ticket[MOVING_TICKET] = {1, 2, 3};
    int place = make_folder(), web = openat(place, "web1", O_RDONLY | O_DIRECTORY);
    uint8_t id[MOVING_TICKET], again[MOVING_TICKET];
    ck_assert_int_eq(handover_arrive(web, ticket, NULL), 0);
    ck_assert_int_eq(handover_claim(web, NULL), 0);
    ck_assert_int_eq(handover_place(place, id, NULL), 0);
    for (rlim_t more = 0; more < 3; more++) {
        allow_files(more);
        enum frame_ack answer = handover_answer(place, ticket);
        int known = handover_place(place, again, NULL);
        allow_files(RLIM_INFINITY);
        ck_assert_int_eq(answer, FRAME_UNKNOWN);
        ck_assert(more == 0 ? known < 0 : known == 0 && memcmp(id, again, sizeof(id)) == 0);
        ck_assert_int_eq(handover_place(place, again, NULL), 0);
        ck_assert_mem_eq(again, id, sizeof(id));
    }
    ck_assert_int_eq(handover_answer(place, ticket), FRAME_YOURS);
    close(web);
    remove_folder(place);
}
END_TEST

START_TEST(a_vm_that_was_handed_over_does_not_start)
{
    int place = make_folder(), web = openat(place, "web1", O_RDONLY | O_DIRECTORY);
    struct handover handover = {.to = "hostB:7420", .name = "web1", .ticket = {7}, .place = {8}};
    struct handover read;
    struct err err = {0};
    ck_assert_int_eq(handover_read(web, &read, NULL), -ENOENT);
    ck_assert_int_eq(handover_write(web, &handover, NULL), 0);
    ck_assert_int_eq(handover_read(web, &read, NULL), 0);
    ck_assert_str_eq(read.to, "hostB:7420");
    ck_assert_mem_eq(read.ticket, handover.ticket, MOVING_TICKET);
    ck_assert(!read.over);
    ck_assert_int_lt(handover_check(web, "web1", &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "hostB:7420"));
    ck_assert_int_eq(handover_remove(web, NULL), 0);
    ck_assert_int_eq(handover_check(web, "web1", NULL), 0);
    close(web);
    remove_folder(place);
}
END_TEST

START_TEST(a_place_keeps_its_number)
{
    uint8_t first[MOVING_TICKET], second[MOVING_TICKET];
    int place = make_folder();
    ck_assert_int_eq(handover_place(place, first, NULL), 0);
    ck_assert_int_eq(handover_place(place, second, NULL), 0);
    ck_assert_mem_eq(first, second, MOVING_TICKET);
    remove_folder(place);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("moving");
    TCase *tcase = tcase_create("all");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, a_hello_arrives_as_it_left_and_not_from_a_newer_minivmm);
    tcase_add_test(tcase, an_announcement_arrives_with_its_time);
    tcase_add_test(tcase, blocks_arrive_as_they_left);
    tcase_add_test(tcase, names_stay_inside);
    tcase_add_test(tcase, shared_disks_arrive_as_they_left);
    tcase_add_test(tcase, shared_disks_that_lie_are_refused);
    tcase_add_test(tcase, an_error_of_the_other_side_is_said_here_and_is_only_text);
    tcase_add_test(tcase, whoever_comes_first_decides);
    tcase_add_test(tcase, what_cannot_be_looked_at_may_be_here);
    tcase_add_test(tcase, what_was_declined_never_comes_and_what_has_come_stays);
    tcase_add_test(tcase, a_vm_that_was_handed_over_does_not_start);
    tcase_add_test(tcase, a_place_keeps_its_number);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
