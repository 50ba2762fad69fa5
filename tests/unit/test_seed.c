/* SPDX-License-Identifier: MIT */
/* Seeds: a reader of our own, blkid as a witness, and people who type strange things. */
#include "core/iov.h"
#include "host/disk.h"
#include "host/seed.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 2048 };

/* The public half of a pair that was thrown away. */
#define KEY \
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPdyBrEFHonLU6wlCjKsZTEY73WBTGvVBB2jcm/HEgCK anna@home"

static struct {
    uint8_t *bytes;
    size_t size;
    char text[70000];
} t;

static void tear_down(void)
{
    free(t.bytes);
    t.bytes = NULL;
}

/* A reader that knows ISO 9660 and Rock Ridge from their papers, and nothing of iso.c. */

static uint32_t both(const uint8_t *at)
{
    uint32_t little = at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
    uint32_t big = at[7] | at[6] << 8 | at[5] << 16 | (uint32_t)at[4] << 24;

    ck_assert_uint_eq(little, big);
    return little;
}

/* The Rock Ridge name of a record; empty: none. */
static void read_name(const uint8_t *record, char *ret_name)
{
    const uint8_t *at = record + 33 + record[32] + (record[32] + 1) % 2, *end = record + record[0];
    bool owned = false;

    *ret_name = '\0';
    while (end - at >= 4) {
        ck_assert_uint_ge(at[2], 4);
        ck_assert_int_le(at[2], end - at);
        ck_assert_uint_eq(at[3], 1);
        if (memcmp(at, "NM", 2) == 0) {
            memcpy(ret_name, at + 5, at[2] - 5u);
            ret_name[at[2] - 5] = '\0';
        }
        if (memcmp(at, "PX", 2) == 0) {
            ck_assert_uint_eq(at[2], 36);
            if (S_ISREG(both(at + 4)))
                ck_assert_uint_eq(both(at + 4) & 0377, 0); /* a password may be inside */
            ck_assert_uint_eq(both(at + 20), 0);
            owned = true;
        }
        at += at[2];
    }
    ck_assert(owned);
}

/* Into t.text. */
static bool read_file(const char *name)
{
    const uint8_t *volume = t.bytes + 16 * SECTOR, *root = volume + 156;
    char found[256];

    ck_assert_mem_eq(volume, "\1CD001\1", 7);
    ck_assert_mem_eq(volume + SECTOR, "\377CD001\1", 7);
    ck_assert_uint_eq(both(volume + 80) * SECTOR, t.size);
    size_t at = (size_t)both(root + 2) * SECTOR, end = at + both(root + 10);
    ck_assert_mem_eq(t.bytes + at + 34, "SP\7\1\xbe\xef", 6);
    for (const uint8_t *record; at < end && (record = t.bytes + at)[0]; at += record[0]) {
        read_name(record, found);
        if (strcmp(found, name) != 0)
            continue;
        size_t from = (size_t)both(record + 2) * SECTOR, length = both(record + 10);
        ck_assert_uint_le(from + length, t.size);
        ck_assert_uint_lt(length, sizeof(t.text));
        memcpy(t.text, t.bytes + from, length);
        t.text[length] = '\0';
        ck_assert_uint_eq(strlen(t.text), length);
        return true;
    }
    return false;
}

static void make(struct seed_config config)
{
    struct err err = {0};
    void *bytes;

    tear_down();
    int r = seed_make(&config, &bytes, &t.size, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    t.bytes = bytes;
    ck_assert_uint_eq(t.size % 512, 0);
}

static void expect_user_data(struct seed_config config, const char *text)
{
    make(config);
    ck_assert(read_file("user-data"));
    ck_assert_str_eq(t.text, text);
}

static struct err refuse(struct seed_config config, const char *word)
{
    struct err err = {0};
    void *bytes = NULL;
    size_t size = 0;

    ck_assert_int_eq(seed_make(&config, &bytes, &size, &err), -EINVAL);
    ck_assert_ptr_null(bytes);
    ck_assert_int_eq(err.kind, ERR_USAGE);
    ck_assert_msg(strstr(err.text, word), "no \"%s\" in: %s", word, err.text);
    return err;
}

START_TEST(a_seed_says_who_the_guest_is)
{
    make((struct seed_config){
        .hostname = "web1.example", .password = "x", .instance = {0, 1, 2, 3, 0xff, [15] = 0xab}});
    ck_assert(read_file("meta-data"));
    ck_assert_str_eq(t.text, "instance-id: \"minivmm-00010203-ff00-0000-0000-0000000000ab\"\n"
                             "local-hostname: \"web1.example\"\n");
    ck_assert(!read_file("vendor-data"));
    ck_assert(!read_file("network-config"));
}
END_TEST

START_TEST(an_account_with_a_key_has_no_password)
{
    expect_user_data((struct seed_config){.user = "anna", .key = KEY "\n"},
                     "#cloud-config\n"
                     "users:\n"
                     "  - name: \"anna\"\n"
                     "    shell: \"/bin/bash\"\n"
                     "    sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n"
                     "    lock_passwd: true\n"
                     "    ssh_authorized_keys:\n"
                     "      - \"" KEY "\"\n");
}
END_TEST

START_TEST(an_account_with_a_password_may_use_it)
{
    expect_user_data((struct seed_config){.user = "anna", .password = "secret", .hostname = "h"},
                     "#cloud-config\n"
                     "hostname: \"h\"\n"
                     "ssh_pwauth: true\n"
                     "users:\n"
                     "  - name: \"anna\"\n"
                     "    shell: \"/bin/bash\"\n"
                     "    sudo: \"ALL=(ALL) NOPASSWD:ALL\"\n"
                     "    lock_passwd: false\n"
                     "    plain_text_passwd: \"secret\"\n");
}
END_TEST

START_TEST(root_is_let_in_where_he_is_asked_for)
{
    expect_user_data((struct seed_config){.user = "root", .key = KEY}, "#cloud-config\n"
                                                                       "disable_root: false\n"
                                                                       "users:\n"
                                                                       "  - name: \"root\"\n"
                                                                       "    shell: \"/bin/bash\"\n"
                                                                       "    lock_passwd: true\n"
                                                                       "    ssh_authorized_keys:\n"
                                                                       "      - \"" KEY "\"\n");
}
END_TEST

START_TEST(without_a_name_the_images_own_account_gets_it)
{
    expect_user_data(
        (struct seed_config){.key = "# mine\r\n\r\n  " KEY "\r\n" KEY "2\r\n", .password = "p"},
        "#cloud-config\n"
        "password: \"p\"\n"
        "chpasswd: {expire: false}\n"
        "ssh_authorized_keys:\n"
        "  - \"" KEY "\"\n"
        "  - \"" KEY "2\"\n");
}
END_TEST

START_TEST(no_value_becomes_yaml_of_its_own)
{
    expect_user_data((struct seed_config){.password = "\"}, x: [&a *b] # \\n 'no': %@`|>-?!"},
                     "#cloud-config\n"
                     "ssh_pwauth: true\n"
                     "password: \"\\\"}, x: [&a *b] # \\\\n 'no': %@`|>-?!\"\n"
                     "chpasswd: {expire: false}\n");
    expect_user_data((struct seed_config){.password = "Gr\u00fc\u00dfe\u2028\U0001F600"},
                     "#cloud-config\n"
                     "ssh_pwauth: true\n"
                     "password: \"Gr\\u00FC\\u00DFe\\u2028\\U0001F600\"\n"
                     "chpasswd: {expire: false}\n");
}
END_TEST

START_TEST(control_characters_and_broken_utf8_are_refused)
{
    static const char *const controls[] = {"a\nb", "a\rb", "\t", "\x1b[2J", "\x7f", "\xc2\x85"};
    static const char *const broken[] = {"\xff",
                                         "\x80",
                                         "\xc0\xaf",
                                         "\xc3",
                                         "\xe2\x82",
                                         "\xed\xa0\x80",
                                         "a\xf8zzz",
                                         "\xf4\x90\x80\x80",
                                         "\xf0\x80\x80\x80",
                                         "\xe0\x80\xaf"};

    for (size_t i = 0; i < array_size(controls); i++)
        refuse((struct seed_config){.password = controls[i]}, "password holds a control character");
    for (size_t i = 0; i < array_size(broken); i++)
        refuse((struct seed_config){.password = broken[i]}, "password is not UTF-8");
    refuse((struct seed_config){.password = ""}, "password is empty");
    refuse((struct seed_config){.key = KEY "\x1b[2J"}, "key holds a control character");
    refuse((struct seed_config){.key = KEY "\xff"}, "key is not UTF-8");
}
END_TEST

START_TEST(names_are_those_that_linux_takes)
{
    static const char *const users[] = {
        "",       "Anna", "1a",   "a b",    "a:b",
        "a/../b", "-rf",  "a\nb", "\u00e4", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const hosts[] = {"",    "-a",  "a-",   "a..b", ".a",  "a.",
                                        "a_b", "a b", "a-.b", "a\n",  "a.-b"};

    for (size_t i = 0; i < array_size(users); i++)
        refuse((struct seed_config){.user = users[i], .key = KEY}, "no user's name");
    for (size_t i = 0; i < array_size(hosts); i++)
        refuse((struct seed_config){.hostname = hosts[i], .key = KEY}, "no host's name");
    make((struct seed_config){.user = "_a-b.c9", .hostname = "A--1.b-2", .key = KEY});
}
END_TEST

START_TEST(only_public_keys_are_keys)
{
    static const char *const bad[] = {
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIPdyBrEFHonLU6wlCjKsZTEY73WBTGvVBB2jcm/HEgCK",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPdyBrEFHonLU6wlCjKsZTEY73WBTGvVBB2jcm/HEgC\"",
        "command=\"sh\" " KEY,
        KEY "\nhello",
    };

    for (size_t i = 0; i < array_size(bad); i++)
        refuse((struct seed_config){.key = bad[i]}, "no public ssh key");
    struct err err = refuse((struct seed_config){.key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAA"},
                            "private key");
    ck_assert_ptr_nonnull(strstr(err.hint, ".pub"));
    ck_assert_ptr_null(strstr(err.text, "AA"));
    refuse((struct seed_config){.key = ""}, "keys are empty");
    refuse((struct seed_config){.key = "# none\n\n"}, "keys are empty");
}
END_TEST

START_TEST(as_many_keys_as_anybody_has)
{
    char *keys = calloc(600, sizeof(KEY));

    for (unsigned i = 0; i < 600; i++)
        strcpy(keys + i * sizeof(KEY), KEY)[sizeof(KEY) - 1] = '\n';
    keys[600 * sizeof(KEY) - 1] = '\0';
    make((struct seed_config){.key = keys});
    ck_assert(read_file("user-data"));
    unsigned count = 0;
    for (const char *at = t.text; (at = strstr(at, KEY)); at++)
        count++;
    ck_assert_uint_eq(count, 600);
    free(keys);
}
END_TEST

START_TEST(the_same_words_give_the_same_bytes)
{
    const struct seed_config config = {.user = "anna", .key = KEY, .instance = {7}};
    struct seed_config other = config;
    void *again;
    size_t size;

    make(config);
    ck_assert_int_eq(seed_make(&config, &again, &size, NULL), 0);
    ck_assert_uint_eq(size, t.size);
    ck_assert_mem_eq(again, t.bytes, size);
    free(again);
    other.instance[15] = 1;
    ck_assert_int_eq(seed_make(&other, &again, &size, NULL), 0);
    ck_assert_mem_ne(again, t.bytes, size);
    free(again);
}
END_TEST

START_TEST(blkid_sees_the_label_that_cloud_init_looks_for)
{
    char path[] = "/tmp/minivmm-seed-XXXXXX", command[128], line[64] = "";

    make((struct seed_config){.key = KEY});
    int fd = mkstemp(path);
    ck_assert_int_eq(write(fd, t.bytes, t.size), (ssize_t)t.size);
    close(fd);
    snprintf(command, sizeof(command),
             "PATH=$PATH:/sbin:/usr/sbin; blkid -p -o value -s LABEL -s TYPE %s", path);
    FILE *out = popen(command, "re");
    size_t length = fread(line, 1, sizeof(line) - 1, out);
    int status = pclose(out);
    unlink(path);
    if (status != 0 && length == 0) {
        fprintf(stderr, "SKIPPED: no blkid here\n");
        return;
    }
    ck_assert_str_eq(line, "cidata\niso9660\n");
}
END_TEST

/* The disk that it becomes. */

static void handle_done(struct disk_request *request, int result)
{
    *(int *)request->arg = result;
}

static int run(struct disk *disk, enum disk_op op, uint64_t offset, const struct iovec *iov,
               unsigned count)
{
    int result = 1;
    struct disk_request request = {.op = op,
                                   .offset = offset,
                                   .length = iov_size(iov, count),
                                   .iov = iov,
                                   .iov_count = count,
                                   .done = handle_done,
                                   .arg = &result};

    disk_submit(disk, &request);
    ck_assert_int_eq(result, 1); /* never from within submit */
    disk_kick(disk);
    return result;
}

START_TEST(a_disk_in_memory_is_read_and_never_written)
{
    static const struct disk_client client = {0};
    uint8_t *bytes = malloc(8192), back[1024];
    const struct iovec iov[] = {{back, 100}, {back + 100, 924}};
    struct disk *disk;

    for (size_t i = 0; i < 8192; i++)
        bytes[i] = (uint8_t)(i / 512 + i % 7);
    ck_assert_int_eq(disk_memory_create(&disk, bytes, 8192, NULL), 0);
    ck_assert_uint_eq(disk->info.size, 8192);
    ck_assert(disk->info.readonly && !disk->info.discard);
    ck_assert_int_eq(disk_attach(disk, NULL, &client, NULL), 0);
    ck_assert_int_eq(run(disk, DISK_READ, 7168, iov, 2), 0);
    ck_assert_mem_eq(back, bytes + 7168, 1024);
    memset(back, 0, sizeof(back));
    ck_assert_int_eq(run(disk, DISK_WRITE, 0, iov, 2), -EROFS);
    ck_assert_int_eq(run(disk, DISK_ZEROES, 0, iov, 2), -EROFS);
    ck_assert_int_eq(run(disk, DISK_DISCARD, 0, iov, 2), -EROFS);
    ck_assert_int_eq(run(disk, DISK_FLUSH, 0, NULL, 0), 0);
    ck_assert_uint_eq(bytes[1], 1);
    disk_detach(disk);
    disk_destroy(disk);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("seed");
    TCase *tc = tcase_create("seed");

    tcase_add_checked_fixture(tc, NULL, tear_down);
    tcase_add_test(tc, a_seed_says_who_the_guest_is);
    tcase_add_test(tc, an_account_with_a_key_has_no_password);
    tcase_add_test(tc, an_account_with_a_password_may_use_it);
    tcase_add_test(tc, root_is_let_in_where_he_is_asked_for);
    tcase_add_test(tc, without_a_name_the_images_own_account_gets_it);
    tcase_add_test(tc, no_value_becomes_yaml_of_its_own);
    tcase_add_test(tc, control_characters_and_broken_utf8_are_refused);
    tcase_add_test(tc, names_are_those_that_linux_takes);
    tcase_add_test(tc, only_public_keys_are_keys);
    tcase_add_test(tc, as_many_keys_as_anybody_has);
    tcase_add_test(tc, the_same_words_give_the_same_bytes);
    tcase_add_test(tc, blkid_sees_the_label_that_cloud_init_looks_for);
    tcase_add_test(tc, a_disk_in_memory_is_read_and_never_written);
    suite_add_tcase(suite, tc);
    return unit_main(suite);
}
