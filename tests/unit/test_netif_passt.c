/* SPDX-License-Identifier: MIT */
/*
 * The real passt where this host has it, and a default route; and for all that the real one does
 * not do, this program itself, found under the name of passt (see play_passt).
 */
#include "tests/unit/netif_bench.h"
#include <signal.h>

enum { FRAME_MAX = NETIF_MAX_FRAME - NETIF_HEADER };

/* --- the fake ----------------------------------------------------------------------------- */

static void put(const void *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t n = write(NETIF_CHILD_SOCKET, (const uint8_t *)bytes + at, length - at);
        if (n <= 0)
            _exit(9);
        at += (size_t)n;
    }
}

static void get(void *bytes, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t n = read(NETIF_CHILD_SOCKET, (uint8_t *)bytes + at, length - at);
        if (n <= 0)
            _exit(0);
        at += (size_t)n;
    }
}

static void play_echo(void)
{
    static uint8_t frame[4 + FRAME_MAX];
    for (;;) {
        get(frame, 4);
        uint32_t length = get32(frame);
        if (length > FRAME_MAX)
            _exit(9);
        get(frame + 4, length);
        put(frame, 4 + length);
    }
}

/* Sizes from the smallest to the largest, and a pattern by number. */
static size_t make_frame(uint8_t *frame, unsigned number)
{
    size_t length = number % 10 == 9 ? FRAME_MAX - number : 14 + (number * 37U) % 1600;
    memset(frame, (int)number, length);
    put16(frame, number);
    return length;
}

enum { FRAMES = 300 };

/* Frames cut everywhere: in pieces of 1, 2, 3... bytes that know no border. */
static void play_pieces(bool whole)
{
    uint8_t *stream = malloc((size_t)FRAMES * (4 + FRAME_MAX));
    size_t length = 0, piece = 1;
    for (unsigned i = 0; i < FRAMES; i++) {
        size_t n = make_frame(stream + length + 4, i);
        put32(stream + length, (uint32_t)n);
        length += 4 + n;
    }
    for (size_t at = 0; at < length; at += piece) {
        piece = whole ? length : piece % 3000 + 1;
        put(stream + at, piece < length - at ? piece : length - at);
    }
    free(stream);
}

static int play_passt(const char *how, int argc, char **argv)
{
    static const uint8_t zero[64];
    uint8_t length[4];
    if (strcmp(how, "no-route") == 0) {
        fprintf(stderr, "No external routable interface for IPv4\nExternal interface not usable\n");
        return 1;
    }
    if (strcmp(how, "taken") == 0) {
        fprintf(stderr, "Failed to bind any port for '-t %s', exiting\n", argv[argc - 1]);
        return 1;
    }
    if (dprintf(STDOUT_FILENO, "%d\n", getpid()) < 0)
        return 9;
    close(STDOUT_FILENO);
    if (strcmp(how, "echo") == 0)
        play_echo();
    if (strcmp(how, "pieces") == 0 || strcmp(how, "whole") == 0)
        play_pieces(how[0] == 'w');
    if (strcmp(how, "closes") == 0)
        close(NETIF_CHILD_SOCKET);
    if (strncmp(how, "length-", 7) == 0) {
        put32(length, (uint32_t)strtoul(how + 7, NULL, 10));
        put(length, sizeof(length));
        put(zero, sizeof(zero));
    }
    for (;;)
        pause();
}

/* From here on passt is the fake. */
static void use_fake(const char *how)
{
    char self[4096], folder[] = "/tmp/minivmm-passt-XXXXXX", path[64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    ck_assert_int_gt(n, 0);
    self[n] = '\0';
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/passt", folder);
    ck_assert_int_eq(symlink(self, path), 0);
    ck_assert_int_eq(setenv("PATH", folder, 1), 0);
    ck_assert_int_eq(setenv("FAKE_PASST", how, 1), 0);
}

static void drop_fake(void)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/passt", getenv("PATH"));
    unlink(path);
    rmdir(getenv("PATH"));
}

static struct netif_bench *open_passt(const struct netif_forward *forward, struct err *err,
                                      int *ret)
{
    struct netif_bench *bench = bench_create();
    struct netif_config config = {
        .mode = NETIF_PASST, .forwards = forward, .forward_count = forward != NULL};
    *ret = netif_passt_open(&bench->netif, &config, err);
    if (*ret == 0)
        *ret = bench->netif->ops->attach(bench->netif, bench->loop, &bench->handlers, err);
    if (*ret == 0)
        bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE);
    return bench;
}

static struct netif_bench *open_fake(const char *how)
{
    struct err err = {0};
    int ret;
    use_fake(how);
    struct netif_bench *bench = open_passt(NULL, &err, &ret);
    ck_assert_msg(ret == 0, "%s", err.text);
    return bench;
}

/* --- frames ------------------------------------------------------------------------------- */

static bool is_any(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return true;
}

START_TEST(frames_of_every_size_come_back_as_they_went)
{
    static uint8_t frame[FRAME_MAX];
    struct netif_bench *bench = open_fake("echo");
    for (unsigned i = 0; i < FRAMES; i++) {
        size_t length = make_frame(frame, i);
        bench_send(bench, frame, length);
        bench_await(bench, is_any);
        ck_assert_uint_eq(bench->found_length, length);
        ck_assert_mem_eq(bench->found, frame, length);
    }
    bench_destroy(bench);
    drop_fake();
}
END_TEST

struct progress {
    unsigned next, wanted;
};

static bool is_next(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    uint8_t expected[FRAME_MAX];
    struct progress *progress = bench->arg;
    size_t n = make_frame(expected, progress->next);
    ck_assert_uint_eq(length, n);
    ck_assert_mem_eq(frame, expected, n);
    return ++progress->next == progress->wanted;
}

static void take_all(const char *how, unsigned at_once)
{
    struct progress progress = {.wanted = FRAMES};
    struct netif_bench *bench = open_fake(how);
    bench->at_once = at_once;
    bench->arg = &progress;
    bench_await(bench, is_next);
    bench_destroy(bench);
    drop_fake();
}

START_TEST(a_stream_in_any_pieces_gives_the_same_frames)
{
    take_all("pieces", 64);
}
END_TEST

START_TEST(a_reader_of_one_frame_a_time_is_told_as_long_as_there_are_some)
{
    take_all("whole", 1);
}
END_TEST

static void handle_writable(void *ctx, unsigned queue, unsigned what)
{
    struct netif_bench *bench = ctx;
    if (what & NETIF_WRITABLE) {
        bench->writables++;
        bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE);
        bench->done = true;
        loop_stop(bench->loop);
        return;
    }
    bench_ready(ctx, queue, what);
}

/* No frame is lost or torn on the way. */
START_TEST(a_full_socket_says_so_and_when_there_is_room_again)
{
    static uint8_t frame[NETIF_MAX_FRAME];
    struct progress progress = {0};
    struct netif_bench *bench = open_fake("echo");
    bench->handlers.ready = handle_writable;
    bench->arg = &progress;
    ck_assert_int_eq(kill(bench_child(bench), SIGSTOP), 0);
    for (;;) {
        struct iovec iov = {frame,
                            NETIF_HEADER + make_frame(frame + NETIF_HEADER, progress.wanted)};
        ssize_t n = bench->netif->ops->send(bench->netif, 0, &iov, 1);
        if (n == -EAGAIN)
            break;
        ck_assert_int_eq(n, (ssize_t)iov.iov_len);
        ck_assert_uint_lt(++progress.wanted, 10000);
    }
    ck_assert_uint_gt(progress.wanted, 2);
    ck_assert_int_eq(kill(bench_child(bench), SIGCONT), 0);
    bench->netif->ops->watch(bench->netif, 0, NETIF_READABLE | NETIF_WRITABLE);
    bench_await(bench, is_next);
    while (!bench->writables || progress.next < progress.wanted)
        bench_await(bench, is_next);
    bench_destroy(bench);
    drop_fake();
}
END_TEST

/* --- its death ---------------------------------------------------------------------------- */

static bool is_told(struct netif_bench *bench)
{
    return bench->troubles > 0;
}

static bool is_up_again(struct netif_bench *bench)
{
    return bench->link_ups > 0;
}

START_TEST(a_hostile_length_counts_as_death)
{
    static const char *const plays[] = {"length-0", "length-13", "length-65554",
                                        "length-4294967295"};
    for (size_t i = 0; i < array_size(plays); i++) {
        struct netif_bench *bench = open_fake(plays[i]);
        pid_t first = bench_child(bench);
        bench_until(bench, is_told);
        ck_assert_uint_eq(bench->link_downs, 1);
        ck_assert_str_eq(bench->trouble, "passt broke the framing of its stream; the guest has no "
                                         "network until it runs again");
        ck_assert_int_eq(kill(first, 0), -1);
        bench_destroy(bench);
        drop_fake();
    }
}
END_TEST

START_TEST(a_closed_connection_counts_as_death)
{
    struct netif_bench *bench = open_fake("closes");
    bench_until(bench, is_told);
    ck_assert_str_eq(bench->trouble,
                     "passt closed its socket; the guest has no network until it runs again");
    bench_destroy(bench);
    drop_fake();
}
END_TEST

START_TEST(a_killed_passt_is_started_again)
{
    struct netif_bench *bench = open_fake("echo");
    ck_assert_int_eq(kill(bench_child(bench), SIGKILL), 0);
    bench_until(bench, is_up_again);
    ck_assert_uint_eq(bench->link_downs, 1);
    ck_assert_uint_eq(bench->troubles, 1);
    ck_assert_ptr_nonnull(strstr(bench->trouble, "passt was killed by signal 9"));
    bench_send(bench, "an Ethernet frame", 17);
    bench_await(bench, is_any);
    ck_assert_mem_eq(bench->found, "an Ethernet frame", 17);
    bench_destroy(bench);
    drop_fake();
}
END_TEST

/* --- errors ------------------------------------------------------------------------------- */

START_TEST(a_missing_passt_is_named_with_its_package)
{
    struct netif *netif = NULL;
    struct netif_config config = {.mode = NETIF_PASST};
    struct err err = {0};
    ck_assert_int_eq(setenv("PATH", "/nowhere", 1), 0);
    ck_assert_int_lt(netif_passt_open(&netif, &config, &err), 0);
    ck_assert_ptr_null(netif);
    ck_assert_int_eq(err.kind, ERR_HOST);
    ck_assert_str_eq(err.text, "passt is not installed");
    ck_assert_ptr_nonnull(strstr(err.hint, "apt install passt"));
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}
END_TEST

START_TEST(what_passt_says_becomes_our_sentence)
{
    struct err err = {0};
    int ret;
    use_fake("no-route");
    struct netif_bench *bench = open_passt(NULL, &err, &ret);
    ck_assert_int_lt(ret, 0);
    ck_assert_int_eq(err.kind, ERR_HOST);
    ck_assert_str_eq(err.text, "passt does not start: External interface not usable");
    ck_assert_ptr_nonnull(strstr(err.hint, "default route"));
    bench_destroy(bench);
    drop_fake();

    struct netif_forward forward = {.host_address = "127.0.0.1", .guest_port = 22};
    char sentence[100];
    int fd = bench_bind(SOCK_STREAM, "127.0.0.1", &forward.host_port);
    snprintf(sentence, sizeof(sentence), "-p 127.0.0.1:%u:22: host port %u is in use",
             forward.host_port, forward.host_port);
    use_fake("taken");
    bench = open_passt(&forward, &err, &ret);
    ck_assert_int_lt(ret, 0);
    ck_assert_int_eq(err.kind, ERR_STATE);
    ck_assert_str_eq(err.text, sentence);
    bench_destroy(bench);
    drop_fake();
    close(fd);
}
END_TEST

/* --- the real one ------------------------------------------------------------------------- */

static bool is_dhcp(struct netif_bench *bench, const uint8_t *frame, size_t length)
{
    return is_ip(frame, length, 17) && get16(frame + AT_L4 + 2) == 68;
}

static void ask_dhcp(struct netif_bench *bench)
{
    uint8_t frame[512];
    bench_send(bench, frame, build_dhcp(&bench->net, frame, 1));
    bench_await(bench, is_dhcp);
    ck_assert_ptr_nonnull(dhcp_option(bench->found, bench->found_length, 53));
}

START_TEST(the_real_passt_gives_a_lease_and_survives_a_death)
{
    struct netif_forward forward = {.host_address = "127.0.0.1", .guest_port = 22};
    struct err err = {0};
    char sentence[100];
    int ret, fd = bench_bind(SOCK_STREAM, "127.0.0.1", &forward.host_port);

    struct netif_bench *bench = open_passt(NULL, &err, &ret);
    if (ret < 0) {
        printf("SKIPPED: the real passt was not tried here: %s\n", err.text);
        close(fd);
        bench_destroy(bench);
        return;
    }
    ask_dhcp(bench);
    ck_assert_int_eq(kill(bench_child(bench), SIGKILL), 0);
    bench_until(bench, is_up_again);
    ask_dhcp(bench);
    bench_destroy(bench);

    snprintf(sentence, sizeof(sentence), "-p 127.0.0.1:%u:22: host port %u is in use",
             forward.host_port, forward.host_port);
    bench = open_passt(&forward, &err, &ret);
    ck_assert_int_lt(ret, 0);
    ck_assert_str_eq(err.text, sentence);
    bench_destroy(bench);

    close(fd);
    bench = open_passt(&forward, &err, &ret);
    ck_assert_msg(ret == 0, "%s", err.text);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(forward.host_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    close(fd);
    bench_destroy(bench);
}
END_TEST

static Suite *suite(void)
{
    Suite *suite = suite_create("netif_passt");
    TCase *tcase = tcase_create("all");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, frames_of_every_size_come_back_as_they_went);
    tcase_add_test(tcase, a_stream_in_any_pieces_gives_the_same_frames);
    tcase_add_test(tcase, a_reader_of_one_frame_a_time_is_told_as_long_as_there_are_some);
    tcase_add_test(tcase, a_full_socket_says_so_and_when_there_is_room_again);
    tcase_add_test(tcase, a_hostile_length_counts_as_death);
    tcase_add_test(tcase, a_closed_connection_counts_as_death);
    tcase_add_test(tcase, a_killed_passt_is_started_again);
    tcase_add_test(tcase, a_missing_passt_is_named_with_its_package);
    tcase_add_test(tcase, what_passt_says_becomes_our_sentence);
    tcase_add_test(tcase, the_real_passt_gives_a_lease_and_survives_a_death);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(int argc, char **argv)
{
    const char *how = getenv("FAKE_PASST");
    /* Never the suite as its own child: that would go on without end. */
    if (strcmp(argv[0], "passt") == 0)
        return how ? play_passt(how, argc, argv) : 1;
    return unit_main(suite());
}
