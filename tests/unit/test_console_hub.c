/* SPDX-License-Identifier: MIT */
#include "core/clock.h"
#include "core/loop.h"
#include "core/thread.h"
#include "tests/unit/unit.h"
#include "vmm/console_hub.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000 };

/* A hub, its folder, and a guest that takes keys. The loop runs on a thread of its own or, where a
 * test says so, not at all. */
struct rig {
    struct loop *loop;
    struct console_hub *hub;
    struct thread thread;
    char folder[64];
    int folder_fd;
    size_t room; /* how many keys the guest takes (loop thread) */
    uint8_t keys[128 << 10];
    _Atomic size_t key_count;
};

static size_t handle_input(void *ctx, const uint8_t *bytes, size_t length)
{
    struct rig *rig = ctx;
    size_t count = rig->key_count;
    if (length > rig->room)
        length = rig->room;
    ck_assert_uint_le(count + length, sizeof(rig->keys));
    memcpy(rig->keys + count, bytes, length);
    rig->room -= length;
    rig->key_count = count + length;
    return length;
}

static void run_loop(void *arg)
{
    struct rig *rig = arg;
    ck_assert_int_eq(loop_run(rig->loop), 0);
}

static void make_hub(struct rig *rig, bool log)
{
    struct console_hub_handlers handlers = {.input = handle_input, .ctx = rig};
    ck_assert_int_eq(
        console_hub_create(&rig->hub, rig->loop, log ? rig->folder_fd : -1, &handlers, NULL), 0);
}

static struct rig *make_rig(bool log)
{
    const char *tmp = getenv("TMPDIR");
    struct rig *rig = calloc(1, sizeof(*rig));
    rig->room = SIZE_MAX;
    snprintf(rig->folder, sizeof(rig->folder), "%s/hub-XXXXXX",
             tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(rig->folder));
    rig->folder_fd = open(rig->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(loop_create(&rig->loop, NULL), 0);
    make_hub(rig, log);
    return rig;
}

static void start(struct rig *rig)
{
    ck_assert_int_eq(thread_start(&rig->thread, "hub", run_loop, rig, NULL), 0);
}

static void halt(struct rig *rig)
{
    if (!rig->thread.started)
        return;
    loop_stop(rig->loop);
    thread_join(&rig->thread);
    rig->thread.started = false;
}

static void end_hub(struct rig *rig)
{
    halt(rig);
    console_hub_destroy(rig->hub);
    rig->hub = NULL;
}

static void finish_rig(struct rig *rig)
{
    end_hub(rig);
    loop_destroy(rig->loop);
    unlinkat(rig->folder_fd, "console.log", 0);
    unlinkat(rig->folder_fd, "console.log.1", 0);
    close(rig->folder_fd);
    ck_assert_int_eq(rmdir(rig->folder), 0);
    free(rig);
}

/* Attaches while the loop stands still. */
static int attach_early(struct rig *rig, const char *early)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    loop_park(rig->loop);
    ck_assert_int_eq(console_hub_attach(rig->hub, fds[0], early, strlen(early), NULL), 0);
    loop_unpark(rig->loop);
    return fds[1];
}

static int attach(struct rig *rig)
{
    return attach_early(rig, "");
}

static void write_text(struct rig *rig, const char *text)
{
    console_hub_write(rig->hub, (const uint8_t *)text, strlen(text));
}

/* Exactly that many bytes. */
static void read_whole(int fd, void *to, size_t length)
{
    uint8_t *at = to;
    while (length) {
        struct pollfd io = {.fd = fd, .events = POLLIN};
        ck_assert_int_eq(poll(&io, 1, PATIENCE_MS), 1);
        ssize_t got = recv(fd, at, length, 0);
        ck_assert_int_gt(got, 0);
        at += got;
        length -= (size_t)got;
    }
}

static void expect(int fd, const char *text)
{
    char bytes[200] = "";
    read_whole(fd, bytes, strlen(text));
    ck_assert_str_eq(bytes, text);
}

static void type_keys(int fd, const char *keys)
{
    ck_assert_int_eq(send(fd, keys, strlen(keys), MSG_NOSIGNAL), (ssize_t)strlen(keys));
}

static void wait_for_keys(struct rig *rig, const char *expected)
{
    while (rig->key_count < strlen(expected))
        poll(NULL, 0, 1);
    ck_assert_uint_eq(rig->key_count, strlen(expected));
    ck_assert_int_eq(memcmp(rig->keys, expected, strlen(expected)), 0);
}

static unsigned count_clients(struct rig *rig)
{
    loop_park(rig->loop);
    unsigned count = console_hub_clients(rig->hub);
    loop_unpark(rig->loop);
    return count;
}

static void give_room(struct rig *rig, size_t room)
{
    loop_park(rig->loop);
    rig->room = room;
    loop_unpark(rig->loop);
    console_hub_input_room(rig->hub);
}

/* A stream of numbered lines of 16 bytes, so that a gap shows. */
static void write_lines(struct rig *rig, unsigned from, unsigned count)
{
    char line[17];
    for (unsigned i = from; i < from + count; i++) {
        snprintf(line, sizeof(line), "line %010u\n", i);
        write_text(rig, line);
    }
}

/* --- output ------------------------------------------------------------------------------- */

START_TEST(everybody_sees_what_the_guest_writes)
{
    struct rig *rig = make_rig(false);
    start(rig);
    int a = attach(rig), b = attach(rig);
    ck_assert_uint_eq(count_clients(rig), 2);
    write_text(rig, "login: ");
    expect(a, "login: ");
    expect(b, "login: ");
    console_hub_write(rig->hub, NULL, 0);
    write_text(rig, "again");
    expect(b, "again");
    expect(a, "again");
    close(a);
    close(b);
    finish_rig(rig);
}
END_TEST

START_TEST(a_new_one_sees_the_boot_first)
{
    struct rig *rig = make_rig(false);
    start(rig);
    write_text(rig, "Linux version 6.1\n");
    int fd = attach(rig);
    write_text(rig, "login: ");
    expect(fd, "Linux version 6.1\nlogin: ");
    close(fd);
    finish_rig(rig);
}
END_TEST

START_TEST(a_new_one_after_much_output_sees_the_newest_without_a_word_of_loss)
{
    struct rig *rig = make_rig(false);
    enum { LINES = 3 * HUB_RING / 16 };
    char line[17] = "", expected[17];
    start(rig);
    write_lines(rig, 0, LINES);
    int fd = attach(rig);
    for (unsigned i = LINES - HUB_RING / 16; i < LINES; i++) {
        snprintf(expected, sizeof(expected), "line %010u\n", i);
        read_whole(fd, line, 16);
        ck_assert_str_eq(line, expected);
    }
    close(fd);
    finish_rig(rig);
}
END_TEST

/* Reads lines from *at on until the given one; adds up what the words of loss say. */
static uint64_t read_to_line(int fd, unsigned *at, unsigned last)
{
    static const char word[] = "\r\n[minivmm: ";
    uint64_t lost = 0;
    char byte, line[128];
    size_t length = 0;
    while (*at <= last) {
        read_whole(fd, &byte, 1);
        line[length++] = byte;
        ck_assert_uint_lt(length, sizeof(line));
        if (byte != '\n' || length == 2)
            continue;
        line[length] = '\0';
        if (strncmp(line, word, sizeof(word) - 1) == 0) {
            unsigned long long gap;
            ck_assert_int_eq(sscanf(line, "\r\n[minivmm: %llu bytes were lost here]", &gap), 1);
            ck_assert_uint_eq(gap % 16, 0); /* pieces are multiples of a line here */
            lost += gap;
            *at += (unsigned)(gap / 16);
        } else {
            unsigned number;
            ck_assert_int_eq(sscanf(line, "line %u", &number), 1);
            ck_assert_uint_eq(number, *at);
            (*at)++;
        }
        length = 0;
    }
    return lost;
}

START_TEST(who_is_too_slow_is_told_what_he_lost_and_nobody_waits_for_him)
{
    struct rig *rig = make_rig(false);
    enum { ROUND = 64, LINES = ROUND * 1024 }; /* 1 MiB */
    unsigned slow_at = 0, quick_at = 0;
    start(rig);
    int slow = attach(rig), quick = attach(rig);
    for (unsigned i = 0; i < LINES; i += ROUND) {
        write_lines(rig, i, ROUND);
        ck_assert_uint_eq(read_to_line(quick, &quick_at, i + ROUND - 1), 0);
    }
    ck_assert_uint_gt(read_to_line(slow, &slow_at, LINES - 1), 0);
    ck_assert_uint_eq(slow_at, LINES); /* each line was there or was counted */
    close(slow);
    close(quick);
    finish_rig(rig);
}
END_TEST

START_TEST(more_than_a_ring_at_once_is_cut_to_its_end)
{
    struct rig *rig = make_rig(false);
    size_t length = HUB_RING + 100;
    uint8_t *bytes = malloc(length);
    char tail[5] = "";
    start(rig);
    memset(bytes, '.', length);
    memcpy(bytes + length - 4, "tail", 4);
    console_hub_write(rig->hub, bytes, length);
    int fd = attach(rig);
    for (size_t left = HUB_RING - 4; left > 0; left -= left < length ? left : length) {
        size_t piece = left < length ? left : length;
        read_whole(fd, bytes, piece);
    }
    read_whole(fd, tail, 4);
    ck_assert_str_eq(tail, "tail");
    free(bytes);
    close(fd);
    finish_rig(rig);
}
END_TEST

static void write_many(void *arg)
{
    struct rig *rig = arg;
    for (unsigned i = 0; i < 20000; i++)
        console_hub_write(rig->hub, (const uint8_t *)"0123456789abcdef", 16);
}

START_TEST(writers_of_several_threads_do_not_tear_each_others_bytes)
{
    struct rig *rig = make_rig(true);
    struct thread threads[3] = {0};
    char line[17] = "";
    start(rig);
    for (size_t i = 0; i < array_size(threads); i++)
        ck_assert_int_eq(thread_start(&threads[i], "writer", write_many, rig, NULL), 0);
    int fds[4];
    for (size_t i = 0; i < array_size(fds); i++)
        fds[i] = attach(rig);
    for (size_t i = 0; i < array_size(threads); i++)
        thread_join(&threads[i]);
    int fd = attach(rig);
    for (unsigned i = 0; i < HUB_RING / 16; i++) {
        read_whole(fd, line, 16);
        ck_assert_str_eq(line, "0123456789abcdef");
    }
    for (size_t i = 0; i < array_size(fds); i++)
        close(fds[i]);
    close(fd);
    finish_rig(rig);
}
END_TEST

/* A socket that keeps messages apart shows how often the loop was woken to send. */
START_TEST(a_guest_that_writes_byte_by_byte_wakes_the_loop_once_in_a_millisecond)
{
    struct rig *rig = make_rig(false);
    enum { BYTES = 20000 };
    char bytes[BYTES];
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    ck_assert_int_eq(console_hub_attach(rig->hub, fds[0], NULL, 0, NULL), 0);
    start(rig);
    uint64_t begun = clock_monotonic_ns();
    for (unsigned i = 0; i < BYTES; i++) {
        write_text(rig, "x");
        sched_yield(); /* whoever was woken runs now */
    }
    unsigned messages = 0;
    for (size_t got = 0; got < BYTES; messages++) {
        struct pollfd io = {.fd = fds[1], .events = POLLIN};
        ck_assert_int_eq(poll(&io, 1, PATIENCE_MS), 1);
        ssize_t length = recv(fds[1], bytes, sizeof(bytes), 0);
        ck_assert_int_gt(length, 0);
        got += (size_t)length;
    }
    /* The loop may still have been at it when the last byte was written. */
    uint64_t ms = (clock_monotonic_ns() - begun) / 1000000;
    ck_assert_uint_le(messages, ms + 10);
    close(fds[1]);
    finish_rig(rig);
}
END_TEST

START_TEST(a_client_that_goes_is_forgotten_while_the_guest_is_silent_or_not)
{
    struct rig *rig = make_rig(false);
    start(rig);
    int a = attach(rig), b = attach(rig), c = attach(rig);
    close(a);
    shutdown(b, SHUT_WR); /* will type no more, but listens */
    while (count_clients(rig) != 2)
        poll(NULL, 0, 1);
    write_text(rig, "still here");
    expect(b, "still here");
    close(b);
    close(c);
    write_text(rig, "anybody?");
    while (count_clients(rig) != 0)
        poll(NULL, 0, 1);
    int d = attach(rig);
    expect(d, "still hereanybody?");
    close(d);
    finish_rig(rig);
}
END_TEST

START_TEST(one_too_many_reads_why)
{
    struct rig *rig = make_rig(false);
    int fds[HUB_MAX_CLIENTS], late[2];
    struct err err = {0};
    for (int i = 0; i < HUB_MAX_CLIENTS; i++)
        fds[i] = attach(rig);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, late), 0);
    ck_assert_int_eq(console_hub_attach(rig->hub, late[0], NULL, 0, &err), -EBUSY);
    ck_assert_int_eq(err.kind, ERR_STATE);
    expect(late[1], "[minivmm: 16 are attached to the console");
    ck_assert_uint_eq(console_hub_clients(rig->hub), HUB_MAX_CLIENTS);
    close(late[1]);
    for (int i = 0; i < HUB_MAX_CLIENTS; i++)
        close(fds[i]);
    finish_rig(rig);
}
END_TEST

START_TEST(the_end_gives_clients_what_their_sockets_take)
{
    struct rig *rig = make_rig(false);
    int reader = attach(rig), stuck = attach(rig);
    char byte;
    for (unsigned i = 0; i < 100000; i++)
        write_text(rig, "0123456789");
    write_text(rig, "Power down.");
    end_hub(rig); /* the loop never ran */
    size_t count = 0;
    while (recv(reader, &byte, 1, 0) == 1)
        count++;
    ck_assert_uint_gt(count, 1000);
    close(reader);
    close(stuck);
    finish_rig(rig);
    console_hub_destroy(NULL);
}
END_TEST

/* --- input -------------------------------------------------------------------------------- */

START_TEST(keys_of_all_go_to_the_guest)
{
    struct rig *rig = make_rig(false);
    start(rig);
    int a = attach(rig), b = attach_early(rig, "early ");
    wait_for_keys(rig, "early ");
    type_keys(a, "one ");
    wait_for_keys(rig, "early one ");
    type_keys(b, "two");
    wait_for_keys(rig, "early one two");
    close(a);
    close(b);
    finish_rig(rig);
}
END_TEST

START_TEST(keys_that_the_guest_does_not_take_wait_and_so_does_who_types_them)
{
    struct rig *rig = make_rig(false);
    enum { CHUNK = 1000, MOST = 4000 };
    char chunk[CHUNK];
    size_t typed = 0;
    start(rig);
    give_room(rig, 3);
    int fd = attach(rig), other = attach(rig);
    memset(chunk, 'k', sizeof(chunk));
    for (ssize_t sent = 0; sent >= 0; typed += (size_t)sent) {
        struct pollfd io = {.fd = fd, .events = POLLOUT};
        if (poll(&io, 1, 100) == 0)
            break; /* his socket is full: nobody reads it */
        sent = send(fd, chunk, CHUNK, MSG_DONTWAIT | MSG_NOSIGNAL);
        ck_assert(sent >= 0 || errno == EAGAIN);
        if (sent < 0)
            break;
    }
    ck_assert_uint_gt(typed, 2 * MOST);
    while (rig->key_count < 3)
        poll(NULL, 0, 1);
    ck_assert_uint_eq(rig->key_count, 3);
    write_text(rig, "output goes on"); /* for both */
    expect(fd, "output goes on");
    expect(other, "output goes on");
    size_t most = sizeof(rig->keys);
    if (most > typed)
        most = typed;
    while (rig->key_count < most)
        give_room(rig, most - rig->key_count < 1000 ? most - rig->key_count : 1000);
    close(fd);
    close(other);
    finish_rig(rig);
}
END_TEST

START_TEST(the_last_keys_of_somebody_who_has_gone_still_reach_the_guest)
{
    struct rig *rig = make_rig(false);
    char keys[5001];
    start(rig);
    give_room(rig, 1);
    memset(keys, 'a', sizeof(keys) - 1);
    keys[sizeof(keys) - 2] = '\n';
    keys[sizeof(keys) - 1] = '\0';
    int fd = attach(rig);
    type_keys(fd, keys); /* more than is read at a time */
    close(fd);
    while (count_clients(rig) != 0)
        poll(NULL, 0, 1);
    give_room(rig, SIZE_MAX);
    wait_for_keys(rig, keys);
    finish_rig(rig);
}
END_TEST

START_TEST(those_who_have_gone_do_not_take_the_places_of_others)
{
    struct rig *rig = make_rig(false);
    start(rig);
    give_room(rig, 0);
    for (int i = 0; i < 3 * HUB_MAX_CLIENTS; i++) {
        int fd = attach(rig);
        type_keys(fd, "keys that nobody takes");
        close(fd);
        while (count_clients(rig) != 0)
            poll(NULL, 0, 1);
    }
    finish_rig(rig);
}
END_TEST

/* --- the log ------------------------------------------------------------------------------ */

/* The whole file, with a NUL behind it; free it. */
static char *read_log(struct rig *rig, const char *name, size_t *ret_length)
{
    struct stat info;
    int fd = openat(rig->folder_fd, name, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &info), 0);
    char *text = calloc(1, (size_t)info.st_size + 1);
    ck_assert_int_eq(read(fd, text, (size_t)info.st_size), info.st_size);
    close(fd);
    *ret_length = (size_t)info.st_size;
    return text;
}

static void expect_log(struct rig *rig, const char *expected)
{
    size_t length;
    char *text = read_log(rig, "console.log", &length);
    ck_assert_str_eq(text, expected);
    free(text);
}

START_TEST(the_log_has_every_byte_when_the_hub_has_ended_and_goes_on_with_the_next)
{
    struct rig *rig = make_rig(true);
    struct stat info;
    write_text(rig, "first boot\n");
    end_hub(rig);
    expect_log(rig, "first boot\n");
    ck_assert_int_eq(fstatat(rig->folder_fd, "console.log", &info, 0), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    make_hub(rig, true);
    write_text(rig, "second ");
    write_text(rig, "boot\n");
    ck_assert_int_eq(console_hub_log_error(rig->hub), 0);
    end_hub(rig);
    expect_log(rig, "first boot\nsecond boot\n");
    finish_rig(rig);
}
END_TEST

START_TEST(the_log_is_written_while_the_guest_runs)
{
    struct rig *rig = make_rig(true);
    struct stat info;
    write_text(rig, "soon\n");
    while (fstatat(rig->folder_fd, "console.log", &info, 0) < 0 || info.st_size < 5)
        poll(NULL, 0, 1);
    write_text(rig, "and again\n"); /* by now its thread sleeps, or gathers */
    while (fstatat(rig->folder_fd, "console.log", &info, 0) < 0 || info.st_size < 15)
        poll(NULL, 0, 1);
    finish_rig(rig);
}
END_TEST

START_TEST(a_guest_that_says_nothing_has_no_log)
{
    struct rig *rig = make_rig(true);
    end_hub(rig);
    ck_assert_int_eq(faccessat(rig->folder_fd, "console.log", F_OK, 0), -1);
    finish_rig(rig);
}
END_TEST

START_TEST(the_log_never_has_more_than_its_limit_and_always_the_newest)
{
    struct rig *rig = make_rig(true);
    enum { ROUND = 1024, LINES = 3 * HUB_LOG_MAX / 16 };
    for (unsigned i = 0; i < LINES; i += ROUND) {
        write_lines(rig, i, ROUND);
        if (i % (8 * ROUND) == 0) { /* so that nothing is lapped, and it is opened anew as well */
            end_hub(rig);
            make_hub(rig, true);
        }
    }
    end_hub(rig);
    size_t new_length, old_length;
    char *new = read_log(rig, "console.log", &new_length);
    char *old = read_log(rig, "console.log.1", &old_length);
    ck_assert_uint_le(new_length + old_length, HUB_LOG_MAX);
    ck_assert_uint_gt(new_length + old_length, HUB_LOG_MAX / 2 - 32768);
    char last[17];
    snprintf(last, sizeof(last), "line %010u\n", LINES - 1);
    ck_assert_uint_ge(new_length, 16);
    ck_assert_str_eq(new + new_length - 16, last);
    ck_assert_int_eq(memcmp(old, "line ", 5), 0);
    free(new);
    free(old);
    finish_rig(rig);
}
END_TEST

START_TEST(a_log_that_cannot_be_written_costs_the_log_only)
{
    struct rig *rig = make_rig(true);
    ck_assert_int_eq(symlinkat("/dev/null", rig->folder_fd, "console.log"), 0);
    start(rig);
    int fd = attach(rig);
    write_text(rig, "hello");
    expect(fd, "hello");
    while (console_hub_log_error(rig->hub) == 0)
        poll(NULL, 0, 1);
    ck_assert_int_eq(console_hub_log_error(rig->hub), -ELOOP); /* no link is followed */
    write_lines(rig, 0, 100);
    close(fd);
    end_hub(rig);

    unlinkat(rig->folder_fd, "console.log", 0);
    ck_assert_int_eq(mkfifoat(rig->folder_fd, "console.log", 0600), 0);
    int reader = openat(rig->folder_fd, "console.log", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    make_hub(rig, true);
    write_text(rig, "hello");
    while (console_hub_log_error(rig->hub) == 0)
        poll(NULL, 0, 1);
    ck_assert_int_eq(console_hub_log_error(rig->hub), -EINVAL); /* nor is a pipe a log */
    close(reader);
    finish_rig(rig);
}
END_TEST

START_TEST(a_full_disk_interrupts_the_log_until_there_is_room)
{
    struct rig *rig = make_rig(true);
    struct rlimit limit = {.rlim_cur = 1000, .rlim_max = RLIM_INFINITY};
    char expected[3000];
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 1000;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (size_t i = 0; i < sizeof(expected) - 1; i++)
        expected[i] = (char)('a' + i % 26);
    expected[sizeof(expected) - 1] = '\0';
    console_hub_write(rig->hub, (const uint8_t *)expected, 1500);
    while (console_hub_log_error(rig->hub) == 0)
        poll(NULL, 0, 1);
    ck_assert_int_eq(console_hub_log_error(rig->hub), -EFBIG);
    console_hub_write(rig->hub, (const uint8_t *)expected + 1500, sizeof(expected) - 1 - 1500);
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    while (console_hub_log_error(rig->hub) != 0)
        poll(NULL, 0, 1);
    end_hub(rig);
    expect_log(rig, expected); /* nothing is missing, and nothing there twice */
    finish_rig(rig);
}
END_TEST

START_TEST(a_full_disk_does_not_hold_up_the_end)
{
    struct rig *rig = make_rig(true);
    struct rlimit limit = {.rlim_cur = 1000, .rlim_max = 1000};
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    write_lines(rig, 0, 200);
    while (console_hub_log_error(rig->hub) == 0)
        poll(NULL, 0, 1);
    write_lines(rig, 0, 200);
    uint64_t before = clock_monotonic_ns();
    end_hub(rig);
    ck_assert_uint_lt(clock_monotonic_ns() - before, 10 * NS_PER_SEC);
    finish_rig(rig);
}
END_TEST

START_TEST(a_log_with_a_second_name_is_not_written_to)
{
    struct rig *rig = make_rig(true);
    struct stat info;
    int fd = openat(rig->folder_fd, "precious", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(linkat(rig->folder_fd, "precious", rig->folder_fd, "console.log", 0), 0);
    write_text(rig, "hello");
    while (console_hub_log_error(rig->hub) == 0)
        poll(NULL, 0, 1);
    ck_assert_int_eq(console_hub_log_error(rig->hub), -EMLINK);
    ck_assert_int_eq(fstat(fd, &info), 0);
    ck_assert_int_eq(info.st_size, 0);
    close(fd);
    unlinkat(rig->folder_fd, "precious", 0);
    finish_rig(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("console_hub");
    TCase *tcase = tcase_create("console_hub");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, everybody_sees_what_the_guest_writes);
    tcase_add_test(tcase, a_new_one_sees_the_boot_first);
    tcase_add_test(tcase, a_new_one_after_much_output_sees_the_newest_without_a_word_of_loss);
    tcase_add_test(tcase, who_is_too_slow_is_told_what_he_lost_and_nobody_waits_for_him);
    tcase_add_test(tcase, more_than_a_ring_at_once_is_cut_to_its_end);
    tcase_add_test(tcase, writers_of_several_threads_do_not_tear_each_others_bytes);
    tcase_add_test(tcase, a_guest_that_writes_byte_by_byte_wakes_the_loop_once_in_a_millisecond);
    tcase_add_test(tcase, a_client_that_goes_is_forgotten_while_the_guest_is_silent_or_not);
    tcase_add_test(tcase, one_too_many_reads_why);
    tcase_add_test(tcase, the_end_gives_clients_what_their_sockets_take);
    tcase_add_test(tcase, keys_of_all_go_to_the_guest);
    tcase_add_test(tcase, keys_that_the_guest_does_not_take_wait_and_so_does_who_types_them);
    tcase_add_test(tcase, the_last_keys_of_somebody_who_has_gone_still_reach_the_guest);
    tcase_add_test(tcase, those_who_have_gone_do_not_take_the_places_of_others);
    tcase_add_test(tcase, the_log_has_every_byte_when_the_hub_has_ended_and_goes_on_with_the_next);
    tcase_add_test(tcase, the_log_is_written_while_the_guest_runs);
    tcase_add_test(tcase, a_guest_that_says_nothing_has_no_log);
    tcase_add_test(tcase, the_log_never_has_more_than_its_limit_and_always_the_newest);
    tcase_add_test(tcase, a_log_that_cannot_be_written_costs_the_log_only);
    tcase_add_test(tcase, a_full_disk_interrupts_the_log_until_there_is_room);
    tcase_add_test(tcase, a_full_disk_does_not_hold_up_the_end);
    tcase_add_test(tcase, a_log_with_a_second_name_is_not_written_to);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
