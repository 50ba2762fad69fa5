/* SPDX-License-Identifier: MIT */
/* minivmm new: a VM's folder, from images. */
#include "cli/making.h"
#include "cli/new_text.h"
#include "cli/progress.h"
#include "cli/run_devices.h"
#include "cli/verbs.h"
#include "cli/vms.h"
#include "core/log.h"
#include "host/copy.h"
#include "host/disk_grow.h"
#include "host/tree.h"
#include "vmm/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE "seed.pub"

enum { NEW_DISK, NEW_SIZE, NEW_CPUS, NEW_MEMORY, NEW_NET, NEW_FORWARD, NEW_SEED, NEW_HELP };

static const struct option new_options[] = {
    [NEW_DISK] = {"disk", 'd', "FILE[,...]", "an image that is copied; options as for run"},
    [NEW_SIZE] = {"size", 's', "SIZE", "how large the (first) disk becomes: 20G (as the image)"},
    [NEW_CPUS] = {"cpus", 'c', "N", "virtual CPUs (1)"},
    [NEW_MEMORY] = {"memory", 'm', "SIZE", "guest memory: 512M, 6G (512M)"},
    [NEW_NET] = {"net", 'n', "MODE[,...]", "user, passt, tap[:NAME], bridge:NAME or none (user)"},
    [NEW_FORWARD] = {"forward", 'p', "HOST:GUEST", "a port of this host that leads into the guest"},
    [NEW_SEED] = {"seed", 0, "user=NAME,key=FILE",
                  "an account for a cloud image; password=, hostname= too"},
    [NEW_HELP] = {"help", 'h', NULL, "this text"},
};

struct image {
    const char *path;  /* what is copied */
    struct disk *open; /* while it is: no VM writes to it */
    char name[32];     /* in the folder */
};

struct new_vm {
    struct run_devices devices;
    struct definition definition; /* of the VM: disks have their names in the folder */
    uint64_t size;
    struct image images[MACHINE_MAX_DISKS];
    char *text; /* of vm.json */
    struct making making;
    struct progress progress;
};

/* --- the command line ------------------------------------------------------------------------- */

static int take_new_option(void *ctx, int what, const char *value, struct err *err)
{
    struct new_vm *vm = ctx;
    uint64_t number = 0;
    int ret = 0;

    switch (what) {
    case NEW_DISK:
        return run_devices_add_disk(&vm->devices, value, err);
    case NEW_SIZE:
        ret = parse_size(value, "--size", &vm->size, err);
        if (ret == 0 && vm->size == 0)
            ret = err_say(err, ERR_USAGE, EINVAL, "--size %s: a disk has some size", value);
        return ret;
    case NEW_CPUS:
        ret = parse_number(value, "--cpus", 1, 1024, &number, err);
        vm->definition.cpus = (unsigned)number;
        return ret;
    case NEW_MEMORY:
        ret = parse_size(value, "--memory", &vm->definition.memory, err);
        vm->definition.memory &= ~(uint64_t)4095;
        if (ret == 0 && vm->definition.memory == 0)
            ret = err_say(err, ERR_USAGE, EINVAL, "--memory %s: a VM needs some", value);
        return ret;
    case NEW_NET:
        return run_devices_add_net(&vm->devices, value, err);
    case NEW_FORWARD:
        return run_devices_add_forward(&vm->devices, value, err);
    case NEW_SEED:
        return run_devices_set_seed(&vm->devices, value, err);
    default:
        return 0;
    }
}

static int check_words(struct new_vm *vm, const struct verb_words *words, struct err *err)
{
    int ret = 0;

    vm->making.path = words->words[0];
    if (words->word_count > 1)
        ret = run_devices_set_image(&vm->devices, words->words[1], err);
    if (ret < 0)
        return ret;
    if (vm->devices.disk_count == 0) {
        ret = err_say(err, ERR_USAGE, EINVAL, "new: from which image?");
        err_hint(err, "minivmm new %.60s --disk FILE; an empty one: truncate -s 20G FILE",
                 vm->making.path);
    }
    for (unsigned i = 0; i < vm->devices.disk_count && ret == 0; i++)
        if (vm->devices.disks[i].ephemeral)
            ret = err_say(err, ERR_USAGE, EINVAL, "new: ephemeral is for run");
    return ret;
}

static int read_words(struct new_vm *vm, int argc, char **argv, struct err *err)
{
    struct verb_words words = {
        .verb = "new",
        .table = new_options,
        .count = array_size(new_options),
        .examples =
            "Examples:\n"
            "  minivmm new web1 debian.qcow2\n"
            "  minivmm new web1 --disk debian.qcow2 --size 20G --cpus 2 --memory 2G -p 2222:22\n"
            "  minivmm new web1 cloud.img --seed user=me,key=~/.ssh/id_ed25519.pub\n"
            "\n"
            "Usage: minivmm new NAME [IMAGE] [OPTION...]\n"
            "\n"
            "Makes a VM: the folder NAME with a vm.json and copies of the images, which take no "
            "space\n"
            "where the file system can share it. NAME may have a path before it.\n",
        .take = take_new_option,
        .ctx = vm,
        .least = 1,
        .most = 2,
        .missing = "what shall it be called?"};

    int ret = verb_words_read(&words, argc, argv, err);
    return ret == 0 ? check_words(vm, &words, err) : ret;
}

/* --- images ----------------------------------------------------------------------------------- */

static int say_has_backing(const char *path, struct err *err)
{
    int ret = err_say(err, ERR_DEFINITION, ENOTSUP,
                      "%s stands on another image, without which a copy is worth nothing", path);

    err_hint(err, "make one image of them: qemu-img convert -O qcow2 %.60s flat.qcow2", path);
    return ret;
}

/* Read only, which is shared with others that read: so the image holds still while it is copied. */
static int open_image(struct image *image, struct disk_config *disk, struct err *err)
{
    struct disk_config config = {.path = disk->path, .format = disk->format, .readonly = true};

    if (disk->format != DISK_FORMAT_RAW && disk_has_backing(disk->path))
        return say_has_backing(disk->path, err);
    int ret = disk_open(&image->open, &config, err);
    if (ret < 0) {
        if (err->kind == ERR_STATE)
            err_hint(err, "stop that VM first, or make a copy of it while it runs: minivmm clone");
        return ret;
    }
    disk->format = image->open->info.format;
    disk->backing = false;
    return 0;
}

/* disk.img, disk2.qcow2, ... */
static void name_image(struct image *image, unsigned i, enum disk_format format)
{
    char number[12] = "";

    if (i > 0)
        snprintf(number, sizeof(number), "%u", i + 1);
    snprintf(image->name, sizeof(image->name), "disk%s.%s", number,
             format == DISK_FORMAT_QCOW2 ? "qcow2" : "img");
}

static int open_images(struct new_vm *vm, struct err *err)
{
    for (unsigned i = 0; i < vm->devices.disk_count; i++) {
        struct disk_config *disk = &vm->devices.disks[i];
        struct image *image = &vm->images[i];
        int ret = open_image(image, disk, err);
        if (ret < 0)
            return ret;
        name_image(image, i, disk->format);
        image->path = disk->path;
        disk->path = image->name;
    }
    uint64_t size = vm->images[0].open->info.size;
    if (vm->size == 0 || vm->size >= size)
        return 0;
    int ret = err_say(err, ERR_USAGE, EINVAL,
                      "--size: %s has %llu MiB: a disk can grow, and not "
                      "become smaller",
                      vm->images[0].path, (unsigned long long)(size >> 20));
    err_hint(err, "leave --size out, or make it larger");
    return ret;
}

static void close_images(struct new_vm *vm)
{
    for (unsigned i = 0; i < array_size(vm->images); i++) {
        disk_destroy(vm->images[i].open);
        vm->images[i].open = NULL;
    }
}

static bool handle_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct new_vm *vm = ctx;

    progress_tell(&vm->progress, done, total);
    return !making_is_interrupted(&vm->making);
}

/* An image may be readonly as a file; its copy is the guest's to write to. */
static int make_writable(const struct new_vm *vm, const char *name, struct err *err)
{
    struct stat stat;

    if (fstatat(vm->making.folder.fd, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 &&
        ((stat.st_mode & 0600) == 0600 ||
         fchmodat(vm->making.folder.fd, name, (stat.st_mode & 0777) | 0600, 0) == 0))
        return 0;
    return err_sys(err, ERR_FAILED, errno, "cannot make %s/%s writable", vm->making.path, name);
}

static int copy_image(struct new_vm *vm, unsigned i, struct err *err)
{
    const struct copy_progress progress = {.tell = handle_progress, .ctx = vm};
    const struct image *image = &vm->images[i];

    progress_begin(&vm->progress, image->name);
    int ret = copy_file(AT_FDCWD, image->path, vm->making.folder.fd, image->name, &progress, NULL,
                        err);
    progress_end(&vm->progress);
    if (ret == 0)
        ret = make_writable(vm, image->name, err);
    if (ret == 0 && i == 0 && vm->size)
        ret = disk_grow(vm->making.folder.fd, image->name, vm->devices.disks[i].format, vm->size,
                        err);
    return ret;
}

/* --- the folder ------------------------------------------------------------------------------- */

/* Whether the words make a VM is known before anything is copied. */
static int write_text(struct new_vm *vm, struct err *err)
{
    struct definition *definition;

    int ret = run_devices_apply(&vm->devices, &vm->definition, err);
    if (ret < 0)
        return ret;
    if (vm->devices.seed_key)
        vm->definition.seed_key_file = KEY_FILE;
    vm->text = new_text(&vm->definition);
    if (!vm->text)
        return err_sys(err, ERR_HOST, ENOMEM, "new");
    ret = definition_parse(&definition, vm->text, strlen(vm->text), "new: " FOLDER_DEFINITION,
                           vm->making.place.path, NULL, err);
    if (ret < 0 && err->kind == ERR_DEFINITION)
        err->kind = ERR_USAGE; /* it came from the command line */
    if (ret == 0)
        definition_destroy(definition);
    return ret;
}

/* A password is nobody else's to read. */
static int write_definition(struct new_vm *vm, struct err *err)
{
    if (vm->definition.seed.password) {
        int fd = openat(vm->making.folder.fd, FOLDER_DEFINITION,
                        O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_sys(err, ERR_FAILED, errno, "cannot make %s/" FOLDER_DEFINITION,
                           vm->making.path);
        close(fd); /* who replaces it keeps its mode */
    }
    return folder_write_file(&vm->making.folder, FOLDER_DEFINITION, vm->text, strlen(vm->text),
                             err);
}

static int fill_folder(struct new_vm *vm, struct err *err)
{
    const char *key = vm->devices.seed_key;
    int ret = 0;

    for (unsigned i = 0; i < vm->devices.disk_count && ret == 0; i++)
        ret = copy_image(vm, i, err);
    if (ret == 0 && key)
        ret = folder_write_file(&vm->making.folder, KEY_FILE, key, strlen(key), err);
    if (ret == 0)
        ret = write_definition(vm, err);
    return ret;
}

static int make_folder(struct new_vm *vm, struct err *err)
{
    int ret = making_begin(&vm->making, err);
    if (ret < 0)
        return ret;
    ret = fill_folder(vm, err);
    return making_end(&vm->making, ret, err);
}

/* --- the whole -------------------------------------------------------------------------------- */

static int make(struct new_vm *vm, struct err *err)
{
    int ret = place_find(&vm->making.place, vm->making.path, err);
    if (ret == 0)
        ret = open_images(vm, err);
    if (ret == 0)
        ret = write_text(vm, err);
    if (ret == 0)
        ret = make_folder(vm, err);
    return ret;
}

int verb_new(int argc, char **argv)
{
    struct err err = {0};
    struct new_vm vm = {.making = MAKING_INIT};

    int ret = read_words(&vm, argc, argv, &err);
    if (ret == 0) {
        making_hold_signals(&vm.making);
        ret = make(&vm, &err);
        if (ret == 0)
            making_tell_ready(&vm.making, vm.making.path);
        close_images(&vm);
        place_close(&vm.making.place);
    }
    run_devices_finish(&vm.devices);
    free(vm.text);
    int code = ret < 0 ? fail(&err) : 0;
    making_let_signals(&vm.making);
    return code;
}
