/* SPDX-License-Identifier: MIT */
/*
 * Whatever a guest has in its mailbox, its memory and on its disks, and whatever a person types,
 * the BIOS answers: no call moves a byte outside of the guest's memory and its drives (the rig
 * aborts, or the sanitizers do), and its own state stays one that can be saved.
 */
#include "tests/fuzz/program.h"
#include "tests/unit/bios_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

enum { MOST_STEPS = 200, DISK_SIZE = 256 * 512, CD_SIZE = 48 * 2048, MEMORY = 2 << 20 };

/* Registers are mostly small, and often an address that the program has written something to. */
static uint32_t take_register(struct program *program)
{
    uint8_t kind = take(program);

    if (kind < 0x80)
        return kind;
    return kind < 0xC0 ? (uint32_t)take_number(program, 2) : take_u32(program);
}

static void call(struct bios_rig *rig, struct program *program)
{
    static const uint8_t vectors[] = {0x10, 0x11, 0x12, 0x13, 0x13, 0x14, 0x15,
                                      0x16, 0x17, 0x18, 0x19, 0x1A, 0x42};
    struct bios_mailbox *mail = &rig->mail;
    uint8_t vector = vectors[take(program) % sizeof(vectors)];

    set_word(&mail->eax, (uint16_t)take_number(program, 2));
    mail->ebx = take_register(program);
    mail->ecx = take_register(program);
    mail->edx = take_register(program);
    mail->esi = take_register(program);
    mail->edi = take_register(program);
    mail->ebp = take_register(program);
    mail->ds = (uint16_t)take_register(program);
    mail->es = (uint16_t)take_register(program);
    if (vector == 0x15 && high(mail->eax) == 0x86)
        mail->ecx = mail->edx = 0; /* time is all that would pass */
    bios_rig_call(rig, vector);
    require(rig->mail.action <= BIOS_HALT);
}

static void spoil_memory(struct bios_rig *rig, struct program *program)
{
    gpa_t at = take_number(program, 3) % (MEMORY - 64);
    uint8_t *to = bios_rig_ram(rig, at, 64);

    for (unsigned i = take(program) % 64; i > 0; i--)
        *to++ = take(program);
}

static void spoil_disk(struct bios_rig *rig, struct program *program)
{
    struct bios_rig_drive *disk = &rig->disks[take(program) % rig->drive_count];
    size_t at = take_number(program, 3) % (disk->size - 64);

    for (unsigned i = take(program) % 64; i > 0; i--)
        disk->bytes[at++] = take(program);
}

static void type(struct bios_rig *rig, struct program *program)
{
    uint8_t text[16];
    unsigned count = take(program) % 17;

    for (unsigned i = 0; i < count; i++)
        text[i] = take(program);
    (void)serial_input(rig->serial, text, count);
}

static void reset(struct bios_rig *rig)
{
    struct device *device = bios_device(rig->bios);
    struct cpu_entry entry;

    device->ops->reset(device);
    require(bios_load(rig->memory, &entry, NULL) == 0);
}

static void step(struct bios_rig *rig, struct program *program)
{
    switch (take(program) % 8) {
    case 0:
        spoil_memory(rig, program);
        break;
    case 1:
        spoil_disk(rig, program);
        break;
    case 2:
        type(rig, program);
        break;
    case 3: /* the mailbox as it is, which no stub has filled in */
        bus_write(rig->ports, BIOS_PORT, 1, 0);
        break;
    case 4:
        if (take(program) % 8 == 0)
            reset(rig);
        else
            bus_write(rig->ports, 0x3F8 + take(program) % 8, 1, take(program));
        break;
    default:
        call(rig, program);
        break;
    }
}

/* The rig's mailbox may hold INT 15h, AH=86h from spoilt memory: a wait ends after 5 ms. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct program program = {bytes, length};
    struct bios_rig *rig = calloc(1, sizeof(*rig));

    require(rig);
    bios_rig_add_drive(rig, DISK_SIZE, 512);
    bios_rig_add_drive(rig, CD_SIZE, 512);
    bios_rig_add_drive(rig, 16 * 4096, 4096);
    rig->drives[2].readonly = true;
    memcpy(rig->disks[0].bytes + 510, "\x55\xAA", 2);
    memcpy(rig->disks[1].bytes + 16 * 2048, "\1CD001\1", 7);
    memcpy(rig->disks[1].bytes + 17 * 2048, "\0CD001\1EL TORITO SPECIFICATION", 30);
    rig->disks[1].bytes[17 * 2048 + 71] = 18;
    memcpy(rig->disks[1].bytes + 18 * 2048, "\1", 1);
    memcpy(rig->disks[1].bytes + 18 * 2048 + 28, "\xAA\x55\x55\xAA\x88", 5);
    rig->disks[1].bytes[18 * 2048 + 40] = 19;
    bios_rig_start_with(rig, MEMORY);
    for (unsigned i = 0; i < MOST_STEPS && program.left; i++) {
        step(rig, &program);
        require(state_check(bios_device(rig->bios)->table, bios_device(rig->bios)->state, NULL) ==
                0);
    }
    bios_rig_finish(rig);
    free(rig);
    return 0;
}
