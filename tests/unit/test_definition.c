/* SPDX-License-Identifier: MIT */
/* What vm.json can say, and what becomes of it. */
#include "tests/unit/definition_rig.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- good ones ------------------------------------------------------------------------------ */

START_TEST(one_disk_is_a_complete_vm)
{
    struct definition *definition = parse_good("{\"disks\":[{\"file\":\"disk.img\"}]}");
    static const struct disk_config disk = {.path = "/vms/web1/disk.img"};

    ck_assert_uint_eq(definition->cpus, 1);
    ck_assert_int_eq(definition->cpu, CPU_HOST);
    ck_assert_uint_eq(definition->memory, 512ull << 20);
    ck_assert_uint_eq(definition->disk_count, 1);
    ck_assert_str_eq(definition->disks[0].path, disk.path);
    definition->disks[0].path = disk.path;
    ck_assert_mem_eq(&definition->disks[0], &disk, sizeof(disk));
    ck_assert(!definition->nets_said && definition->net_count == 0);
    ck_assert(!definition->kernel && !definition->console_virtio && !definition->vsock);
    ck_assert(!definition->no_balloon && definition->balloon == 0 && !definition->has_seed);
    ck_assert(definition->restart == RESTART_NO && !definition->keep_identity);
    ck_assert_uint_eq(definition->disk_limits.operations, 0);
    ck_assert_ptr_null(definition->ft.peer);
    definition_destroy(definition);
}
END_TEST

START_TEST(a_kernel_is_one_too)
{
    struct definition *definition = parse_good("{\"boot\":{\"kernel\":\"/boot/vmlinuz\"}}");
    ck_assert_str_eq(definition->kernel, "/boot/vmlinuz");
    ck_assert_ptr_null(definition->cmdline);
    definition_destroy(definition);
}
END_TEST

static void check_full_disks(const struct definition *definition)
{
    const struct disk_config *disk = &definition->disks[0];
    ck_assert_uint_eq(definition->disk_count, 2);
    ck_assert_str_eq(disk->path, "/vms/web1/disk.qcow2");
    ck_assert_int_eq(disk->format, DISK_FORMAT_QCOW2);
    ck_assert(disk->backing && !disk->readonly && disk->ephemeral && disk->direct);
    ck_assert(disk->write_through && disk->no_discard);
    ck_assert_int_eq(disk->engine, DISK_ENGINE_THREADS);
    ck_assert_uint_eq(disk->queues, 2);
    ck_assert_str_eq(disk->serial, "WEB-0001");
    ck_assert_uint_eq(disk->block_size, 4096);
    ck_assert_uint_eq(disk->iops, 500);
    ck_assert_uint_eq(disk->bandwidth, 100 << 20);
    ck_assert_str_eq(definition->disks[1].path, "/srv/images/Größe 1.iso");
    ck_assert(definition->disks[1].readonly && !definition->disks[1].no_discard);
}

static void check_full_nets(const struct definition *definition)
{
    static const uint8_t mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    const struct netif_config *nets = definition->nets;
    ck_assert(definition->nets_said);
    ck_assert_uint_eq(definition->net_count, 4);
    ck_assert_int_eq(nets[0].mode, NETIF_PASST);
    ck_assert_mem_eq(nets[0].mac, mac, sizeof(mac));
    ck_assert_uint_eq(nets[0].queues, 2);
    ck_assert_uint_eq(nets[0].mtu, 9000);
    ck_assert_uint_eq(nets[0].forward_count, 3);
    ck_assert_uint_eq(nets[0].forwards[0].host_port, 2222);
    ck_assert_str_eq(nets[0].forwards[1].host_address, "127.0.0.1");
    ck_assert_uint_eq(nets[0].forwards[1].guest_port, 80);
    ck_assert(nets[0].forwards[2].udp && nets[0].forwards[2].ipv6 && !nets[0].forwards[1].udp);
    ck_assert_uint_eq(nets[0].limits.operations, 100000);
    ck_assert_uint_eq(nets[0].limits.bytes, 10 << 20);
    ck_assert_int_eq(nets[1].mode, NETIF_BRIDGE);
    ck_assert_str_eq(nets[1].name, "br0");
    ck_assert_int_eq(nets[2].mode, NETIF_TAP);
    ck_assert_str_eq(nets[2].name, "web1");
    ck_assert_str_eq(nets[3].name, "");
}

START_TEST(the_full_example_arrives_whole)
{
    char *text = read_whole(DEFINITION_FULL);
    struct definition *definition = parse_good(text);

    ck_assert_uint_eq(definition->cpus, 4);
    ck_assert_int_eq(definition->cpu, CPU_X86_64_V3);
    ck_assert_uint_eq(definition->memory, 2ull << 30);
    ck_assert_str_eq(definition->kernel, "/vms/web1/vmlinuz");
    ck_assert_str_eq(definition->initrd, "/vms/web1/initrd.img");
    ck_assert_str_eq(definition->cmdline, "console=ttyS0 root=/dev/vda1");
    check_full_disks(definition);
    check_full_nets(definition);
    ck_assert(definition->console_virtio && !definition->no_balloon && definition->vsock);
    ck_assert_uint_eq(definition->balloon, 512 << 20);
    ck_assert_uint_eq(definition->vsock_cid, 7);
    ck_assert_str_eq(definition->vsock_path, "/vms/web1/vsock.sock");
    ck_assert(definition->has_seed);
    ck_assert_str_eq(definition->seed.user, "anna");
    ck_assert_str_eq(definition->seed.password, "geheim");
    ck_assert_str_eq(definition->seed.hostname, "web1");
    ck_assert_str_eq(definition->seed_key_file, "/home/anna/.ssh/id_ed25519.pub");
    ck_assert_uint_eq(definition->disk_limits.operations, 1000);
    ck_assert_uint_eq(definition->disk_limits.bytes, 200 << 20);
    ck_assert_uint_eq(definition->net_limits.operations, 200000);
    ck_assert_uint_eq(definition->net_limits.bytes, 1 << 30);
    ck_assert_int_eq(definition->restart, RESTART_ON_FAILURE);
    ck_assert(definition->keep_identity);
    ck_assert_str_eq(definition->ft.peer, "[fe80::1]:7000,10.1.0.2");
    ck_assert_str_eq(definition->ft.witness, "etcd:https://10.0.0.1:2379,https://10.0.0.2:2379");
    ck_assert_uint_eq(definition->ft.epoch_min_ms, 5);
    ck_assert_uint_eq(definition->ft.epoch_max_ms, 25);
    ck_assert_uint_eq(definition->ft.heartbeat_ms, 10);
    ck_assert_uint_eq(definition->ft.timeout_ms, 75);
    ck_assert_uint_eq(definition->ft.pause_percent, 20);
    ck_assert_uint_eq(definition->ft.peer_count, 2);
    ck_assert_str_eq(definition->ft.peers[0], "[fe80::1]:7000");
    ck_assert_str_eq(definition->ft.peers[1], "web3");
    ck_assert(definition->ft.has_peers_after);
    ck_assert_uint_eq(definition->ft.peers_after_s, 60);
    ck_assert_str_eq(definition->ft.preferred, "web3:7420");
    ck_assert_uint_eq(definition->ft.preferred_after_s, 600);
    definition_destroy(definition);
    free(text);
}
END_TEST

/* The text between "disks" and the rest is `more`. */
static struct definition *with(const char *more)
{
    char text[2048];
    snprintf(text, sizeof(text), "{\"disks\":[{\"file\":\"a\"}],%s}", more);
    return parse_good(text);
}

START_TEST(memory_is_a_size_or_a_number_of_mib)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {{"\"3G\"", 3ull << 30},   {"1024", 1ull << 30},   {"\"64\"", 64 << 20},
                 {"1048576", 1ull << 40},  {"1e3", 1000ull << 20}, {"2.0", 2 << 20},
                 {"\"5001K\"", 5000 << 10}};
    for (size_t i = 0; i < array_size(cases); i++) {
        char more[64];
        snprintf(more, sizeof(more), "\"memory\":%s", cases[i].text);
        struct definition *definition = with(more);
        ck_assert_uint_eq(definition->memory, cases[i].bytes);
        definition_destroy(definition);
    }
}
END_TEST

START_TEST(what_can_be_true_or_more_is_both)
{
    struct definition *definition = with("\"balloon\":false,\"vsock\":true");
    ck_assert(definition->no_balloon && definition->vsock && !definition->vsock_path);
    ck_assert_uint_eq(definition->vsock_cid, 0);
    definition_destroy(definition);
    definition = with("\"balloon\":true,\"vsock\":false");
    ck_assert(!definition->no_balloon && !definition->vsock);
    definition_destroy(definition);
    definition = with("\"vsock\":{}");
    ck_assert(definition->vsock);
    definition_destroy(definition);
}
END_TEST

START_TEST(no_nets_and_nothing_said_of_nets_differ)
{
    static const char *const none[] = {"\"nets\":[]", "\"nets\":[{\"mode\":\"none\"}]"};
    for (size_t i = 0; i < array_size(none); i++) {
        struct definition *definition = with(none[i]);
        ck_assert(definition->nets_said && definition->net_count == 0);
        definition_destroy(definition);
    }
    struct definition *definition = with("\"nets\":[{}]");
    ck_assert_uint_eq(definition->net_count, 1);
    ck_assert_int_eq(definition->nets[0].mode, NETIF_USER);
    definition_destroy(definition);
}
END_TEST

START_TEST(caches_are_what_the_disk_calls_them)
{
    struct definition *definition = parse_good(
        "{\"disks\":[{\"file\":\"a\",\"cache\":\"none\"},{\"file\":\"b\",\"cache\":"
        "\"writeback\"},{\"file\":\"c\",\"direct\":true,\"cache\":\"writethrough\"},"
        "{\"direct\":true,\"cache\":\"none\",\"file\":\"d\"}]}");
    ck_assert(definition->disks[0].direct && !definition->disks[0].write_through);
    ck_assert(!definition->disks[1].direct && !definition->disks[1].write_through);
    ck_assert(definition->disks[2].direct && definition->disks[2].write_through);
    ck_assert(definition->disks[3].direct && !definition->disks[3].write_through);
    definition_destroy(definition);
}
END_TEST

START_TEST(paths_begin_at_the_folder_the_root_or_home)
{
    setenv("HOME", "/home/anna", 1);
    struct definition *definition = parse_good(
        "{\"disks\":[{\"file\":\"../base.img\"},{\"file\":\"/a\"},{\"file\":\"~/b\"},"
        "{\"file\":\"~c\"}],\"ft\":{\"witness\":\"file:w/x\",\"links\":[\"b:1\",\"c\"]}}");
    ck_assert_str_eq(definition->disks[0].path, "/vms/web1/../base.img");
    ck_assert_str_eq(definition->disks[1].path, "/a");
    ck_assert_str_eq(definition->disks[2].path, "/home/anna/b");
    ck_assert_str_eq(definition->disks[3].path, "/vms/web1/~c");
    ck_assert_str_eq(definition->ft.witness, "file:/vms/web1/w/x");
    ck_assert_str_eq(definition->ft.peer, "b:1,c");
    definition_destroy(definition);
}
END_TEST

START_TEST(a_path_without_a_home_or_without_end_is_refused)
{
    static struct told told;
    char *text = calloc(1, 8192);
    unsetenv("HOME");
    ck_assert_ptr_null(parse_text(&told, "{\"disks\":[{\"file\":\"~/b\"}]}"));
    ck_assert_str_eq(told.text, "vm.json:1:19: disks[0].file begins with ~/, and there is no home "
                                "folder here\n");
    strcpy(text, "{\"disks\":[{\"file\":\"");
    memset(text + strlen(text), 'x', 4090);
    strcat(text, "\"}]}");
    ck_assert_ptr_null(parse_text(&told, text));
    ck_assert_str_eq(told.text, "vm.json:1:19: disks[0].file is too long a path: with the folder "
                                "before it 4100 bytes\n");
    free(text);
}
END_TEST

START_TEST(all_places_for_disks_can_be_taken_or_all_but_the_seeds)
{
    static struct told told;
    for (unsigned count = 17; count <= 20; count++) {
        for (int seed = 0; seed < 2; seed++) {
            char text[2048] = "{\"disks\":[";
            for (unsigned i = 0; i < count; i++)
                sprintf(text + strlen(text), "%s\n{\"file\":\"%u\"}", i ? "," : "", i);
            strcat(text, seed ? "],\"seed\":{\"password\":\"x\"}}" : "]}");
            struct definition *definition = parse_text(&told, text);
            ck_assert_int_eq(definition != NULL, count + (unsigned)seed <= MACHINE_MAX_DISKS);
            if (!definition)
                ck_assert_msg(strstr(told.text, "is one too many"), "%s", told.text);
            definition_destroy(definition);
        }
    }
}
END_TEST

START_TEST(ports_of_different_addresses_and_protocols_do_not_collide)
{
    definition_destroy(with("\"nets\":[{\"forwards\":[\"127.0.0.1:80:80\",\"127.0.0.2:80:80\","
                            "\"80:80/udp\",\"[::1]:80:80\"]},{\"forwards\":[\"81:80\"]}]"));
}
END_TEST

/* --- hostile ones --------------------------------------------------------------------------- */

START_TEST(every_beginning_of_the_full_example_is_refused_with_a_place)
{
    static struct told told;
    char *text = read_whole(DEFINITION_FULL);
    size_t length = strlen(text);
    while (text[length - 1] != '}')
        length--;
    for (size_t i = 0; i < length; i++) {
        unsigned line, column;
        char *copy = malloc(i ? i : 1); /* so that ASan sees a read past the end */
        memcpy(copy, text, i);
        ck_assert_ptr_null(parse_bytes(&told, copy, i));
        ck_assert_int_eq(told.err.kind, ERR_DEFINITION);
        ck_assert_uint_eq(told.count, 1);
        ck_assert_int_eq(sscanf(told.text, "vm.json:%u:%u: ", &line, &column), 2);
        free(copy);
    }
    free(text);
}
END_TEST

START_TEST(every_byte_of_the_full_example_can_be_another)
{
    static struct told told;
    static const char others[] = "\"{}[],:0x\\ \xff";
    char *text = read_whole(DEFINITION_FULL);
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        char kept = text[i];
        for (size_t j = 0; j < sizeof(others); j++) {
            text[i] = others[j];
            definition_destroy(parse_bytes(&told, text, length));
        }
        text[i] = kept;
    }
    free(text);
}
END_TEST

static void refuse_repeated(const char *begin, const char *what, unsigned count, const char *wanted)
{
    static struct told told;
    size_t length = strlen(what), used = strlen(begin);
    char *text = malloc(used + length * count);
    memcpy(text, begin, used);
    for (unsigned i = 0; i < count; i++, used += length)
        memcpy(text + used, what, length);
    ck_assert_ptr_null(parse_bytes(&told, text, used));
    ck_assert_msg(strstr(told.text, wanted), "%.300s", told.text);
    ck_assert_uint_le(told.count, 101);
    free(text);
}

START_TEST(depth_size_and_number_are_bounded)
{
    char deep[200] = "[";
    memset(deep + 1, '[', 99);
    memset(deep + 100, ']', 99);
    refuse_repeated(deep, "]", 1, "vm.json:1:33: there are more than 32 brackets in brackets");
    refuse_repeated("", "[", 1 << 20, "there are too many brackets in brackets");
    refuse_repeated("", "{\"a\":", 100000, "there are too many brackets in brackets");
    refuse_repeated("", " ", (1 << 20) + 1, "vm.json:1:1: there is more than 1 MiB");
    refuse_repeated("", " ", 1 << 20, "nothing is in it");
    refuse_repeated("[", "1,", 5000, "the file ends here");
}
END_TEST

START_TEST(more_values_than_any_definition_has_are_refused)
{
    static struct told told;
    char *text = calloc(1, 20000);
    strcpy(text, "[1");
    for (unsigned i = 0; i < 5000; i++)
        memcpy(text + 2 + 2 * i, ",1", 2);
    strcat(text, "]");
    ck_assert_ptr_null(parse_text(&told, text));
    ck_assert_str_eq(told.text, "vm.json:1:8192: there are more than 4096 values\n");
    free(text);
}
END_TEST

START_TEST(a_hundred_problems_are_told_and_the_others_counted)
{
    static struct told told;
    char *text = calloc(1, 8192);
    strcpy(text, "{\"disks\":[{\"file\":\"a\"}]");
    for (unsigned i = 0; i < 250; i++)
        sprintf(text + strlen(text), ",\n\"unheard-of-%u\":1", i);
    strcat(text, "}");
    ck_assert_ptr_null(parse_text(&told, text));
    ck_assert_uint_eq(told.count, 101);
    ck_assert(
        strstr(told.text, "vm.json:2:1: unheard-of-0 is not known; there are cpus, cpu, memory,"));
    ck_assert(strstr(told.text, "vm.json:101:1: unheard-of-99 is not known"));
    ck_assert(strstr(told.text, "\nvm.json: and 150 more\n"));
    ck_assert_str_eq(told.err.text, "vm.json: 250 errors");
    free(text);
}
END_TEST

START_TEST(without_a_judge_the_first_problem_is_the_error)
{
    static const char text[] = "{\"cpus\":0,\n\"memory\":0}";
    struct definition *definition = NULL;
    struct err err = {0};
    ck_assert_int_eq(
        definition_parse(&definition, text, strlen(text), "web1/vm.json", "web1", NULL, &err),
        -EINVAL);
    ck_assert_int_eq(err.kind, ERR_DEFINITION);
    ck_assert_str_eq(err.text, "web1/vm.json:1:1: the definition has nothing to boot; name a disk: "
                               "\"disks\": [{\"file\": \"disk.img\"}]");
    ck_assert_int_eq(
        definition_parse(&definition, text, strlen(text), "web1/vm.json", "web1", NULL, NULL),
        -EINVAL);
    ck_assert_ptr_null(definition);
}
END_TEST

/* --- files ---------------------------------------------------------------------------------- */

static char folder[64], file[80];

static void make_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/minivmm-definition-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(file, sizeof(file), "%s/vm.json", folder);
}

static void remove_folder(void)
{
    if (unlink(file) < 0)
        (void)rmdir(file);
    ck_assert_int_eq(rmdir(folder), 0);
}

static void write_file(const char *text, mode_t mode)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static int load(struct definition **ret_definition, const char *where, struct told *told)
{
    const struct definition_judge judge = {.problem = handle_told, .ctx = told};
    memset(told, 0, sizeof(*told));
    return definition_load(ret_definition, where, &judge, &told->err);
}

START_TEST(a_folder_is_loaded_and_its_errors_name_the_file)
{
    static struct told told;
    struct definition *definition = NULL;
    char wanted[200];

    write_file("{\"disks\":[{\"file\":\"disk.img\"}]}\n", 0600);
    ck_assert_int_eq(load(&definition, folder, &told), 0);
    snprintf(wanted, sizeof(wanted), "%s/disk.img", folder);
    ck_assert_str_eq(definition->disks[0].path, wanted);
    definition_destroy(definition);

    write_file("{\"disks\":[{\"file\":\"disk.img\"}],\n  \"cpus\": \"two\"}\n", 0600);
    ck_assert_int_eq(load(&definition, folder, &told), -EINVAL);
    snprintf(wanted, sizeof(wanted), "%s:2:11: cpus must be a number from 1 to 1024, not \"two\"\n",
             file);
    ck_assert_str_eq(told.text, wanted);
    snprintf(wanted, sizeof(wanted), "%s: 1 error", file);
    ck_assert_str_eq(told.err.text, wanted);

    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_int_eq(load(&definition, "./", &told), -EINVAL);
    ck_assert_int_eq(strncmp(told.text, "vm.json:2:11: ", 14), 0);
    ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

START_TEST(where_no_file_is_that_is_said)
{
    static struct told told;
    struct definition *definition = NULL;
    ck_assert_int_eq(load(&definition, folder, &told), -ENOENT);
    ck_assert_int_eq(told.err.kind, ERR_NOT_FOUND);
    ck_assert(strstr(told.err.text, "vm.json: No such file"));
    ck_assert(strstr(told.err.hint, "disk.img"));
    ck_assert_int_eq(load(&definition, "/dev/null", &told), -ENOTDIR);
    ck_assert_int_eq(told.err.kind, ERR_NOT_FOUND);
}
END_TEST

START_TEST(a_file_that_may_not_be_read_is_not_missing)
{
    static struct told told;
    struct definition *definition = NULL;
    uid_t me = geteuid();
    write_file("{}", 0);
    if (me == 0) /* who reads everything */
        ck_assert_int_eq(seteuid(65534), 0);
    int ret = load(&definition, folder, &told);
    ck_assert_int_eq(seteuid(me), 0);
    ck_assert_int_eq(ret, -EACCES);
    ck_assert_int_eq(told.err.kind, ERR_FAILED);
    ck_assert(strstr(told.err.hint, "ls -ld"));
}
END_TEST

START_TEST(what_is_no_regular_file_stops_nobody)
{
    static struct told told;
    struct definition *definition = NULL;

    ck_assert_int_eq(mkfifo(file, 0600), 0);
    ck_assert_int_eq(load(&definition, folder, &told), -EINVAL);
    ck_assert_int_eq(told.err.kind, ERR_DEFINITION);
    ck_assert_int_eq(unlink(file), 0);
    ck_assert_int_eq(symlink("/dev/zero", file), 0);
    ck_assert_int_eq(load(&definition, folder, &told), -EINVAL);
    ck_assert_int_eq(unlink(file), 0);
    ck_assert_int_eq(mkdir(file, 0700), 0);
    ck_assert_int_eq(load(&definition, folder, &told), -EINVAL);
}
END_TEST

START_TEST(a_file_of_any_size_is_read_no_further_than_it_may_be)
{
    static struct told told;
    struct definition *definition = NULL;
    write_file("{", 0600);
    ck_assert_int_eq(truncate(file, 1ll << 40), 0);
    ck_assert_int_eq(load(&definition, folder, &told), -EINVAL);
    ck_assert(strstr(told.text, "vm.json:1:1: there is more than 1 MiB"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("definition");
    TCase *good = tcase_create("good"), *hostile = tcase_create("hostile"),
          *files = tcase_create("files");
    tcase_add_test(good, one_disk_is_a_complete_vm);
    tcase_add_test(good, a_kernel_is_one_too);
    tcase_add_test(good, the_full_example_arrives_whole);
    tcase_add_test(good, memory_is_a_size_or_a_number_of_mib);
    tcase_add_test(good, what_can_be_true_or_more_is_both);
    tcase_add_test(good, no_nets_and_nothing_said_of_nets_differ);
    tcase_add_test(good, caches_are_what_the_disk_calls_them);
    tcase_add_test(good, paths_begin_at_the_folder_the_root_or_home);
    tcase_add_test(good, a_path_without_a_home_or_without_end_is_refused);
    tcase_add_test(good, all_places_for_disks_can_be_taken_or_all_but_the_seeds);
    tcase_add_test(good, ports_of_different_addresses_and_protocols_do_not_collide);
    suite_add_tcase(suite, good);
    tcase_set_timeout(hostile, 60);
    tcase_add_test(hostile, every_beginning_of_the_full_example_is_refused_with_a_place);
    tcase_add_test(hostile, every_byte_of_the_full_example_can_be_another);
    tcase_add_test(hostile, depth_size_and_number_are_bounded);
    tcase_add_test(hostile, more_values_than_any_definition_has_are_refused);
    tcase_add_test(hostile, a_hundred_problems_are_told_and_the_others_counted);
    tcase_add_test(hostile, without_a_judge_the_first_problem_is_the_error);
    suite_add_tcase(suite, hostile);
    tcase_add_checked_fixture(files, make_folder, remove_folder);
    tcase_add_test(files, a_folder_is_loaded_and_its_errors_name_the_file);
    tcase_add_test(files, where_no_file_is_that_is_said);
    tcase_add_test(files, a_file_that_may_not_be_read_is_not_missing);
    tcase_add_test(files, what_is_no_regular_file_stops_nobody);
    tcase_add_test(files, a_file_of_any_size_is_read_no_further_than_it_may_be);
    suite_add_tcase(suite, files);
    return unit_main(suite);
}
