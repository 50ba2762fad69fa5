/* SPDX-License-Identifier: MIT */
/* What is wrong with a vm.json, told with its place: a case is a text and all that is said of it.
 */
#include "tests/unit/definition_rig.h"

struct wrong {
    const char *text, *told; /* told: without "vm.json:", a line each */
};

#define DISK "\"disks\":[{\"file\":\"a\"}]"

/* --- no JSON -------------------------------------------------------------------------------- */

static const struct wrong syntax[] = {
    {"", "1:1: nothing is in it; the least that can be: {\"disks\": [{\"file\": \"disk.img\"}]}"},
    {" \n\n",
     "3:1: nothing is in it; the least that can be: {\"disks\": [{\"file\": \"disk.img\"}]}"},
    {"{\n  \"cpus\": 2,\n}", "3:1: the comma before this } is too many"},
    {"{\"disks\": [1,2,]}", "1:16: the comma before this ] is too many"},
    {"{\"cpus\": 2,, \"memory\": 1}", "1:12: this comma has no place here"},
    {"{,}", "1:2: this comma has no place here"},
    {"{\n  // two\n  \"cpus\": 2\n}", "2:3: JSON has no comments"},
    {"{\"cpus\": 2 # two\n}", "1:12: JSON has no comments"},
    {"{\"cpus\": /* two */ 2}", "1:10: JSON has no comments"},
    {"{\n  cpus: 2\n}", "2:3: a key stands in double quotes: \"cpus\""},
    {"{'cpus': 2}", "1:2: a text stands in double quotes: \"...\""},
    {"{\"console\": virtio}",
     "1:13: virtio is not known; a text stands in double quotes: \"virtio\""},
    {"{\"vsock\": True}", "1:11: True is not known; true, false and null are written so"},
    {"{\"cpus\": 02}", "1:10: 02 is no number as JSON has them: 512, 1.5"},
    {"{\"cpus\": +2}", "1:10: +2 is no number as JSON has them: 512, 1.5"},
    {"{\"cpus\": .5}", "1:10: .5 is no number as JSON has them: 512, 1.5"},
    {"{\"cpus\": 0x2}", "1:10: 0x2 is no number as JSON has them: 512, 1.5"},
    {"{\"cpus\" 2}", "1:9: a : is missing between the key and its value"},
    {"{\"cpus\" = 2}", "1:9: a : is missing between the key and its value"},
    {"{\"cpus\", 2}", "1:8: a : is missing between the key and its value"},
    {"{\"cpus\" \"2\"}", "1:9: a : is missing between the key and its value"},
    {"{\"cpus\": }", "1:10: a value is missing behind the colon"},
    {"{\"cpus\": , \"memory\": 1}", "1:10: a value is missing behind the colon"},
    {"{\"cpus\": 2\n \"memory\": 1}", "2:2: a comma is missing before this"},
    {"{\"disks\": [{} {}]}", "1:15: a comma is missing before this"},
    {"{\"disks\": [1 2]}", "1:14: a comma is missing before this"},
    {"{\n \"cpus\": 2\n", "3:1: the file ends here, and the { of line 1, column 1 is not closed"},
    {"{\"disks\": [{\"file\": \"a\"}",
     "1:25: the file ends here, and the [ of line 1, column 11 is not closed"},
    {"{\"cpus\": 2]", "1:11: this ] does not close the { of line 1, column 1"},
    {"{\"disks\": [1}}", "1:13: this } does not close the [ of line 1, column 11"},
    {"{\"cpus\": 2}\n}", "2:1: the definition has ended, and something follows"},
    {"{\"cpus\": 2} x", "1:13: the definition has ended, and something follows"},
    {"{\"console\": \"virtio}", "1:13: the text that begins here has no end: a \" is missing"},
    {"{\"console\": \"virtio,\n\"cpus\": 2}",
     "1:13: the text that begins here is not closed in its line: a \" is missing"},
    {"{\"console\": \"a\tb\"}",
     "1:15: a control character in a text is written as an escape: \\t for a tab"},
    {"{\"console\": \"C:\\x\"}", "1:17: this is no escape; a backslash itself is written \\\\"},
    {"{\"console\": \"\\ud800\"}",
     "1:20: this escape is half a character: \\ud800 to \\udfff come in pairs"},
    {"{\"console\": \"\\u0000\"}", "1:20: \\u0000 has no place in a text"},
    {"{\"\\u0000\": 1}", "1:9: \\u0000 has no place in a text"},
    {"{\"\u00fc\": \"\xff\"}", "1:8: the text is not UTF-8 from here on"},
    {"\xef\xbb\xbf{}", "1:1: the text begins with a byte order mark; save it as UTF-8 without one"},
    {"\xff\xfe{", "1:1: the text is UTF-16; save it as UTF-8"},
    {"{\"cpus\": 1e999}", "1:10: the number 1e999 is too large"},
};

/* --- one mistake, one sentence -------------------------------------------------------------- */

static const struct wrong values[] = {
    {"[]", "1:1: the definition must be an object: {...}, not a list"},
    {"2", "1:1: the definition must be an object: {...}, not 2"},
    {"null", "1:1: the definition must be an object: {...}, not null"},
    {"{}",
     "1:1: the definition has nothing to boot; name a disk: \"disks\": [{\"file\": \"disk.img\"}]"},
    {"{\"disks\":[]}",
     "1:1: the definition has nothing to boot; name a disk: \"disks\": [{\"file\": \"disk.img\"}]"},
    {"{\"boot\":{}}", "1:9: boot names no kernel, and there is no disk"},
    {"{\"disk\":[]}", "1:2: disk is not known; did you mean \"disks\"?"},
    {"{" DISK ",\n \"cpus\": \"two\"}", "2:10: cpus must be a number from 1 to 1024, not \"two\""},
    {"{" DISK ",\n \"cpus\": \"2\"}",
     "2:10: cpus must be a number from 1 to 1024, not \"2\"; leave out the quotes"},
    {"{" DISK ",\n \"cpus\": 0}", "2:10: cpus must be a number from 1 to 1024, not 0"},
    {"{" DISK ",\n \"cpus\": 1025}", "2:10: cpus must be a number from 1 to 1024, not 1025"},
    {"{" DISK ",\n \"cpus\": -1}", "2:10: cpus must be a number from 1 to 1024, not -1"},
    {"{" DISK ",\n \"cpus\": 2.5}", "2:10: cpus must be a number from 1 to 1024, not 2.5"},
    {"{" DISK ",\n \"cpus\": 1e300}", "2:10: cpus must be a number from 1 to 1024, not 1e300"},
    {"{" DISK ",\n \"cpus\": 9223372036854775808}",
     "2:10: cpus must be a number from 1 to 1024, not 9223372036854775808"},
    {"{" DISK ",\n \"cpus\": 18446744073709551617}",
     "2:10: cpus must be a number from 1 to 1024, not 18446744073709551617"},
    {"{" DISK ",\n \"cpus\": 4294967297}",
     "2:10: cpus must be a number from 1 to 1024, not 4294967297"},
    {"{" DISK ",\n \"cpus\": null}", "2:10: cpus must be a number from 1 to 1024, not null"},
    {"{" DISK ",\n \"cpus\": [2]}", "2:10: cpus must be a number from 1 to 1024, not a list"},
    {"{" DISK ",\n \"cpu\": \"x86-64-v5\"}",
     "2:9: cpu \"x86-64-v5\" is not known; did you mean \"x86-64-v2\"?"},
    {"{" DISK ",\n \"cpu\": \"hosts\"}", "2:9: cpu \"hosts\" is not known; did you mean \"host\"?"},
    {"{" DISK ",\n \"cpu\": \"EPYC\"}",
     "2:9: cpu \"EPYC\" is not known; there are \"host\", \"x86-64-v2\", \"x86-64-v3\" and "
     "\"x86-64-v4\""},
    {"{" DISK ",\n \"cpu\": 3}",
     "2:9: cpu must be \"host\", \"x86-64-v2\", \"x86-64-v3\" or \"x86-64-v4\", not 3"},
    {"{" DISK ",\n \"memory\": \"2GB\"}",
     "2:12: memory \"2GB\" is no size; a whole number with K, M, G or T is: \"512M\", \"6G\""},
    {"{" DISK ",\n \"memory\": \"1M\"}", "2:12: memory must be a size from 2M to 1T, like \"512M\" "
                                         "or a number of MiB from 2 to 1048576, not \"1M\""},
    {"{" DISK ",\n \"memory\": 1048577}",
     "2:12: memory must be a size from 2M to 1T, like \"512M\" or a number of MiB from 2 to "
     "1048576, not 1048577"},
    {"{" DISK ",\n \"memory\": \"18446744073709551615T\"}",
     "2:12: memory \"18446744073709551615T\" is no size; a whole number with K, M, G or T is: "
     "\"512M\", \"6G\""},
    {"{" DISK ",\n \"boot\": {\"initrd\": \"i\"}}",
     "2:21: boot.initrd is for a kernel, and boot.kernel names none"},
    {"{" DISK ",\n \"boot\": \"linux\"}", "2:10: boot must be an object: {...}, not \"linux\""},
    {"{\"disks\": [\"a\"]}", "1:12: disks[0] must be an object: {...}, not \"a\""},
    {"{\"disks\": {\"file\": \"a\"}}", "1:11: disks must be a list: [...], not an object"},
    {"{\"disks\": [{\"format\": \"raw\"}]}", "1:12: disks[0] lacks \"file\""},
    {"{\"disks\": [{\"flie\": \"a\"}]}",
     "1:13: disks[0].flie is not known; did you mean \"file\"?"},
    {"{\"disks\": [{\"file\": \"\"}]}", "1:21: disks[0].file is empty"},
    {"{\"disks\": [{\"file\": 1}]}", "1:21: disks[0].file must be a file's path, not 1"},
    {"{\"disks\": [{\"file\": \"a\\nb\"}]}", "1:21: disks[0].file holds a control character"},
    {"{\"disks\": [{\"file\": \"a\\u009bb\"}]}", "1:21: disks[0].file holds a control character"},
    {"{\"disks\": [{\"file\": \"a\", \"format\": \"qcow\"}]}",
     "1:36: disks[0].format \"qcow\" is not known; did you mean \"qcow2\"?"},
    {"{\"disks\": [{\"file\": \"a\", \"format\": \"vmdk\"}]}",
     "1:36: disks[0].format \"vmdk\" is not known; there are \"raw\" and \"qcow2\""},
    {"{\"disks\": [{\"file\": \"a\", \"format\": 2}]}",
     "1:36: disks[0].format must be \"raw\" or \"qcow2\", not 2"},
    {"{\"disks\": [{\"file\": \"a\", \"format\": \"raw\", \"backing\": true}]}",
     "1:54: disks[0].backing has no place: a raw image stands on no other"},
    {"{\"disks\": [{\"file\": \"a\", \"readonly\": \"true\"}]}",
     "1:38: disks[0].readonly must be true or false, not \"true\"; leave out the quotes"},
    {"{\"disks\": [{\"file\": \"a\", \"readonly\": 1}]}",
     "1:38: disks[0].readonly must be true or false, not 1"},
    {"{\"disks\": [{\"file\": \"a\", \"cache\": \"none\", \"direct\": false}]}",
     "1:53: disks[0].direct is false, and \"cache\": \"none\" means true"},
    {"{\"disks\": [{\"file\": \"a\", \"block_size\": 1024}]}",
     "1:40: disks[0].block_size must be 512 or 4096, not 1024"},
    {"{\"disks\": [{\"file\": \"a\", \"serial\": \"123456789012345678901\"}]}",
     "1:36: disks[0].serial has 21 characters, and 20 is the most"},
    {"{\"disks\": [{\"file\": \"a\", \"serial\": \"\u00e4\"}]}",
     "1:36: disks[0].serial must be of ASCII characters, not \"\u00e4\""},
    {"{\"disks\": [{\"file\": \"\u00e4\", \"queues\": 9}]}",
     "1:36: disks[0].queues must be a number from 1 to 8, not 9"},
    {"{\"disks\": [{\"file\": \"a\", \"limits\": {\"iops\": 0}}]}",
     "1:45: disks[0].limits.iops must be a number from 1 to 1000000000, not 0"},
    {"{\"disks\": [{\"file\": \"a\", \"limits\": {\"bandwidth\": \"0\"}}]}",
     "1:50: disks[0].limits.bandwidth must be a size from 1K to 1T, like \"512M\", not \"0\""},
    {"{\"disks\": [{\"file\": \"a\"},\n{\"file\": \".//./a\"}]}",
     "2:10: disks[1].file is the file of disks[0] too, in line 1"},
    {"{\"disks\": [{\"file\": \"a\"},\n{\"file\": \"./identity.json\"}]}",
     "2:10: disks[1].file is a file in which minivmm keeps what it knows of the VM"},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"usr\"}]}",
     "2:19: nets[0].mode \"usr\" is not known; did you mean \"user\"?"},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"usr\", \"bridge\": \"br0\"}]}",
     "2:19: nets[0].mode \"usr\" is not known; did you mean \"user\"?"},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"bridge\"}]}",
     "2:19: nets[0].mode \"bridge\" needs the bridge's name: \"bridge\": \"br0\""},
    {"{" DISK ",\n\"nets\": [{\"bridge\": \"br0\"}]}",
     "2:21: nets[0].bridge has no place here; it goes with \"mode\": \"bridge\""},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"passt\", \"tap\": \"t\"}]}",
     "2:35: nets[0].tap has no place here; it goes with \"mode\": \"tap\""},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"tap\", \"tap\": \"../../x\"}]}",
     "2:33: nets[0].tap must be the name of a network device, not \"../../x\""},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"tap\", \"tap\": \"sixteen-letters-\"}]}",
     "2:33: nets[0].tap has 16 characters, and 15 is the most"},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"none\"}, {}]}",
     "2:19: nets[0].mode \"none\" does not go with another interface"},
    {"{" DISK ",\n\"nets\": [{\"mac\": \"52:54:00:12:34\"}]}",
     "2:18: nets[0].mac must be six bytes like \"02:00:00:12:34:56\", not \"52:54:00:12:34\""},
    {"{" DISK ",\n\"nets\": [{\"mac\": \"53:54:00:12:34:56\"}]}",
     "2:18: nets[0].mac \"53:54:00:12:34:56\" is the address of a group; the first byte must be "
     "even"},
    {"{" DISK ",\n\"nets\": [{\"mac\": \"00:00:00:00:00:00\"}]}",
     "2:18: nets[0].mac is zero, which is nobody's address; without the key minivmm makes one"},
    {"{" DISK ",\n\"nets\": [{\"mac\": \"52:54:00:aa:34:56\"},\n{\"mac\": \"52:54:00:AA:34:56\"}]}",
     "3:9: nets[1].mac is the address of nets[0] too, in line 2"},
    {"{" DISK ",\n\"nets\": [{\"mtu\": 67}]}",
     "2:18: nets[0].mtu must be a number from 68 to 65535, not 67"},
    {"{" DISK ",\n\"nets\": [{\"mtu\": 65536}]}",
     "2:18: nets[0].mtu must be a number from 68 to 65535, not 65536"},
    {"{" DISK ",\n\"nets\": [{\"forwards\": [\"22\"]}]}",
     "2:24: nets[0].forwards[0] must be a port forward like \"2222:22\" or "
     "\"127.0.0.1:5353:53/udp\", not \"22\""},
    {"{" DISK ",\n\"nets\": [{\"forwards\": [\"22:0\"]}]}",
     "2:24: nets[0].forwards[0] must be a port forward like \"2222:22\" or "
     "\"127.0.0.1:5353:53/udp\", not \"22:0\""},
    {"{" DISK ",\n\"nets\": [{\"mode\": \"tap\", \"forwards\": [\"22:22\"]}]}",
     "2:38: nets[0].forwards go with the modes \"user\" and \"passt\"; this guest has an address "
     "of its own"},
    {"{" DISK ",\n\"nets\": [{\"forwards\": [\"22:22\",\n\"127.0.0.1:22:23\"]}]}",
     "3:1: nets[0].forwards[1] takes port 22 of this host, which line 2 has"},
    {"{" DISK ",\n\"nets\": [{\"forwards\": [\"22:22/udp\"]},\n{\"forwards\": [\"22:1/udp\"]}]}",
     "3:15: nets[1].forwards[0] takes port 22 of this host, which line 2 has"},
    {"{" DISK ",\n\"nets\": [{},{},{},{},{},{},{},{},\n{}]}",
     "3:1: nets[8] is one too many; 8 are the most"},
    {"{" DISK ",\n\"console\": \"vga\"}",
     "2:12: console \"vga\" is not known; there are \"serial\" and \"virtio\""},
    {"{" DISK ",\n\"balloon\": 5}",
     "2:12: balloon must be true or false, or a size from 0 to 1T, like \"512M\", not 5"},
    {"{" DISK ",\n\"balloon\": \"512M\"}", "2:12: balloon takes all the memory there is (512 MiB)"},
    {"{" DISK ",\n\"vsock\": {\"cid\": 2}}",
     "2:18: vsock.cid must be a number from 3 to 4294967294, not 2"},
    {"{" DISK ",\n\"seed\": {\"user\": \"anna\"}}",
     "2:9: seed lets nobody in; name a file of public keys: \"key\": \"~/.ssh/id_ed25519.pub\""},
    {"{" DISK ",\n\"seed\": {\"user\": \"Anna\", \"key\": \"k\"}}",
     "2:18: seed.user must be a small letter, then small letters, digits, - and _, not \"Anna\""},
    {"{" DISK ",\n\"seed\": {\"hostname\": \"web_1\", \"key\": \"k\"}}",
     "2:22: seed.hostname must be letters, digits and hyphens, with points between, not \"web_1\""},
    {"{" DISK ",\n\"restart\": true}",
     "2:12: restart must be \"no\", \"on-failure\" or \"always\", not true"},
    {"{" DISK ",\n\"identity\": \"kept\"}",
     "2:13: identity \"kept\" is not known; did you mean \"keep\"?"},
    {"{" DISK ",\n\"ft\": {\"peer\": \"fe80::1\"}}",
     "2:16: ft.peer must be HOST or HOST:PORT, an IPv6 address in brackets, not \"fe80::1\""},
    {"{" DISK ",\n\"ft\": {\"peer\": \"web2:0\"}}",
     "2:16: ft.peer must be HOST or HOST:PORT, an IPv6 address in brackets, not \"web2:0\""},
    {"{" DISK ",\n\"ft\": {\"links\": [\"b1\", \"b 2\"]}}",
     "2:24: ft.links[1] must be HOST or HOST:PORT, an IPv6 address in brackets, not \"b 2\""},
    {"{" DISK ",\n\"ft\": {\"links\": [\"b1\", \"b2\", \"b3\"]}}",
     "2:30: ft.links[2] is one too many; 2 are the most"},
    {"{" DISK ",\n\"ft\": {\"links\": [\"b1\", \"b1\"]}}", "2:17: ft.links has one address twice"},
    {"{" DISK ",\n\"ft\": {\"peer\": \"b\", \"links\": [\"b1\"]}}",
     "2:30: ft.links begins with another host than peer: b1"},
    {"{" DISK ",\n\"ft\": {\"witness\": \"etcd:10.0.0.1\"}}",
     "2:19: ft.witness must be file:PATH, etcd://HOST[:PORT][,...] or etcd:URL[,URL...], not "
     "\"etcd:10.0.0.1\""},
    {"{" DISK ",\n\"ft\": {\"epoch\": {\"min_ms\": 50, \"max_ms\": 20}}}",
     "2:28: ft.epoch.min_ms is 50, and max_ms only 20"},
    {"{" DISK ",\n\"ft\": {\"heartbeat_ms\": 100, \"timeout_ms\": 299}}",
     "2:43: ft.timeout_ms is 299, and 3 heartbeats are 300"},
    {"{" DISK ",\n\"ft\": {\"peers\": \"hostB\"}}",
     "2:17: ft.peers must be a list: [...], not \"hostB\""},
    {"{" DISK ",\n\"ft\": {\"peers\": [\"hostA\", 7]}}",
     "2:27: ft.peers[1] must be a text of 1 to 260 characters, not 7"},
    {"{" DISK ",\n\"ft\": {\"peers\": [\"hostA\", \"hosta:7420\"]}}",
     "2:27: ft.peers[1] is ft.peers[0] too"},
    {"{" DISK ",\n\"ft\": {\"peers_after_s\": 60}}",
     "2:25: ft.peers_after_s is for ft.peers, which is not there"},
    {"{" DISK ",\n\"ft\": {\"peers\": [\"hostA\", \"hostB\"], \"preferred\": \"hostC\"}}",
     "2:50: ft.preferred is none of ft.peers, which is to name every host that may have the VM"},
    {"{" DISK ",\n\"ft\": {\"peers\": [\"hostA\"], \"preferred_after_s\": 60}}",
     "2:49: ft.preferred_after_s is for ft.preferred, which is not there"},
    {"{" DISK ",\n\"cpus\": 1,\n  \"cpus\": 1}",
     "3:3: cpus is there twice: first in line 2 (column 1), again in line 3; leave one out"},
    {"{" DISK ",\n\"cpus\": 1,\n\"\\u0063pus\": 1}",
     "3:1: cpus is there twice: first in line 2 (column 1), again in line 3; leave one out"},
    {"{" DISK ",\n\"\u00e4\": 1}",
     "2:1: \u00e4 is not known; there are cpus, cpu, memory, boot, disks, "
     "nets, console, balloon, vsock, seed, limits, "
     "restart, identity and ft"},
    {"{" DISK ",\n\"\\u001b[2J\": 1}", "2:1: ?[2J is not known; there are cpus, cpu, memory, boot, "
                                       "disks, nets, console, balloon, vsock, seed, limits, "
                                       "restart, identity and ft"},
};

/* --- many at once --------------------------------------------------------------------------- */

static const struct wrong many[] = {
    {"{\n"
     "  \"memory\": \"lots\",\n"
     "  \"cpus\": 0,\n"
     "  \"disks\": [{\"fil\": \"disk.img\", \"queues\": 0}],\n"
     "  \"nets\": [\n"
     "    {\"mode\": \"usr\", \"mac\": \"x\"}\n"
     "  ],\n"
     "  \"cpu\": 2,\n"
     "  \"cqus\": 2,\n"
     "  \"nets\": []\n"
     "}\n",
     "2:13: memory \"lots\" is no size; a whole number with K, M, G or T is: \"512M\", \"6G\"\n"
     "3:11: cpus must be a number from 1 to 1024, not 0\n"
     "4:14: disks[0].fil is not known; did you mean \"file\"?\n"
     "4:43: disks[0].queues must be a number from 1 to 8, not 0\n"
     "8:10: cpu must be \"host\", \"x86-64-v2\", \"x86-64-v3\" or \"x86-64-v4\", not 2\n"
     "9:3: cqus is not known; did you mean \"cpus\"?\n"
     "10:3: nets is there twice: first in line 5 (column 3), again in line 10; leave one out"},
    {"{\"ft\": {\"timeout_ms\": 20, \"heartbeat_ms\": 10}, \"disks\": [{\"file\": \"x\"}, "
     "{\"file\": \"x\", "
     "\"format\": \"x\"}]}",
     "1:23: ft.timeout_ms is 20, and 3 heartbeats are 30\n"
     "1:82: disks[1].file is the file of disks[0] too, in line 1\n"
     "1:97: disks[1].format \"x\" is not known; there are \"raw\" and \"qcow2\""},
};

static void check_case(const struct wrong *wrong)
{
    static struct told told;
    char wanted[4096] = "";
    const char *at = wrong->told;
    while (*at) {
        int length = (int)strcspn(at, "\n");
        sprintf(wanted + strlen(wanted), "vm.json:%.*s\n", length, at);
        at += length + (at[length] != '\0');
    }
    ck_assert_ptr_null(parse_text(&told, wrong->text));
    ck_assert_int_eq(told.err.kind, ERR_DEFINITION);
    ck_assert_msg(strcmp(told.text, wanted) == 0, "%s\nwanted:\n%sgot:\n%s", wrong->text, wanted,
                  told.text);
}

START_TEST(what_is_no_json_is_told_as_people_would)
{
    check_case(&syntax[_i]);
}
END_TEST

START_TEST(one_mistake_is_one_sentence_with_its_place)
{
    check_case(&values[_i]);
}
END_TEST

START_TEST(many_mistakes_come_in_the_order_of_the_file)
{
    check_case(&many[_i]);
}
END_TEST

START_TEST(a_byte_of_zero_is_no_text)
{
    static struct told told;
    ck_assert_ptr_null(parse_bytes(&told, "{\n \"a\0\": 1}", 11));
    ck_assert_str_eq(told.text, "vm.json:2:4: there is a byte of zero: this is no text\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("definition_wrong");
    TCase *tcase = tcase_create("wrong");
    tcase_add_loop_test(tcase, what_is_no_json_is_told_as_people_would, 0, array_size(syntax));
    tcase_add_loop_test(tcase, one_mistake_is_one_sentence_with_its_place, 0, array_size(values));
    tcase_add_loop_test(tcase, many_mistakes_come_in_the_order_of_the_file, 0, array_size(many));
    tcase_add_test(tcase, a_byte_of_zero_is_no_text);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
