/* SPDX-License-Identifier: MIT */
/*
 * Two Intel 8259A in cascade, at 0x20-0x21 and 0xA0-0xA1, and their edge/level control registers
 * (ELCR) at 0x4D0-0x4D1.
 *
 * Follows the 8259A data sheet (231468): initialization command words ICW1-4, operation command
 * words OCW1-3, priority, rotation, special mask, poll, cascade; and the 82371AB (PIIX4) data sheet
 * for ELCR. Differences, each on purpose:
 *
 *   - ICW1 clears the in-service register as well, though the data sheet does not list it: a kernel
 *     that takes over from a boot loader in the middle of an interrupt would be deaf otherwise.
 *   - MCS-80 mode, buffered mode and the slave's identity (ICW3) are stored, not acted upon: the
 *     wiring of a PC is fixed.
 *   - Between ICW1 and the last ICW the chip does not ask for anything.
 *   - The cascade is a level inside, not an edge: INTA has no pulses here that would make the edge
 *     for the slave's next request. So a spurious IRQ 15 cannot happen (it needs the request to go
 *     away between the two pulses of one INTA); a spurious IRQ 7 can.
 */
#include "devices/pic.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    MASTER = 0,
    SLAVE = 1,
    CASCADE = 2, /* the master's input that the slave drives */
    NONE = 8,    /* no level: worse than all others */

    ICW1 = 1 << 4, /* marks an ICW1 among the writes to the first port */
    ICW1_ICW4 = 1 << 0,
    ICW1_SINGLE = 1 << 1,
    ICW1_LEVEL = 1 << 3, /* LTIM: all inputs are level-triggered */
    ICW4_AUTO_EOI = 1 << 1,
    ICW4_SPECIAL_NESTED = 1 << 4,
    ICW4_BITS = 0x1f,

    OCW3 = 1 << 3, /* marks an OCW3; without it an OCW2 */
    OCW3_READ_ISR = 1 << 0,
    OCW3_READ = 1 << 1,
    OCW3_POLL = 1 << 2,
    OCW3_SPECIAL_MASK = 1 << 5,
    OCW3_SPECIAL_MASK_SET = 1 << 6,

    POLL_REQUEST = 1 << 7,
};

/* What the next write to the second port is. */
enum step { STEP_OCW1, STEP_ICW2, STEP_ICW3, STEP_ICW4 };

struct pic_chip_state {
    uint8_t lines;       /* levels at the inputs */
    uint8_t latched;     /* edges that nobody has acknowledged */
    uint8_t in_service;  /* ISR */
    uint8_t mask;        /* IMR */
    uint8_t elcr;        /* inputs that are level-triggered */
    uint8_t lowest;      /* the level of lowest priority */
    uint8_t vector_base; /* ICW2 */
    uint8_t icw1;
    uint8_t icw3;
    uint8_t icw4;
    uint8_t step;
    bool read_isr;
    bool poll; /* the next read is a poll */
    bool special_mask;
    bool rotate_on_auto_eoi;
};

struct pic_state {
    struct pic_chip_state chips[2];
};

struct pic {
    struct device device;
    pthread_mutex_t lock;
    struct bus *ports;
    unsigned ranges; /* how many of them are on the bus */
    const struct pic_output *output;
    atomic_bool interrupt; /* what output was told last; written under the lock */
    struct pic_state state;
};

/* PIIX4 7.2.5: IRQ 0, 1, 2, 8 and 13 cannot be level-triggered. */
static const uint8_t elcr_writable[2] = {0xf8, 0xde};

static uint8_t requests(const struct pic_chip_state *chip, unsigned which)
{
    uint8_t level = chip->icw1 & ICW1_LEVEL ? 0xff : chip->elcr & elcr_writable[which];
    if (which == MASTER)
        level |= 1u << CASCADE;
    /* An edge counts only as long as its line stays up: the chip forgets it, hence spurious IRQ 7.
     */
    return chip->lines & (level | chip->latched);
}

/* How far a level is from the best one: 0 is the highest priority, 7 the lowest, 8 nothing. */
static unsigned distance(const struct pic_chip_state *chip, unsigned level)
{
    return level == NONE ? NONE : (level - chip->lowest - 1) & 7;
}

static unsigned best_of(const struct pic_chip_state *chip, uint8_t levels)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned level = (chip->lowest + i) & 7;
        if (levels & 1u << level)
            return level;
    }
    return NONE;
}

/* The request that the chip would deliver now, or NONE. */
static unsigned winner(const struct pic_chip_state *chip, unsigned which)
{
    if (chip->step != STEP_OCW1)
        return NONE;
    unsigned request = best_of(chip, requests(chip, which) & ~chip->mask);
    /* Special mask mode: a level that is masked holds nobody back while it is in service. */
    uint8_t holding = chip->special_mask ? chip->in_service & ~chip->mask : chip->in_service;
    unsigned serving = best_of(chip, holding);
    if (distance(chip, request) < distance(chip, serving))
        return request;
    /* Special fully nested mode: the slave in service may ask again, for its better inputs. */
    if (which == MASTER && chip->icw4 & ICW4_SPECIAL_NESTED && request == CASCADE &&
        serving == CASCADE)
        return request;
    return NONE;
}

static void set_chip_line(struct pic_chip_state *chip, unsigned input, bool level)
{
    uint8_t bit = 1u << input;
    if (!level) {
        chip->lines &= ~bit;
        chip->latched &= ~bit;
    } else if (!(chip->lines & bit)) {
        chip->lines |= bit;
        chip->latched |= bit;
    }
}

/* Brings the cascade and INT in line with the state. Every change of the state ends here. */
static void update_locked(struct pic *pic)
{
    struct pic_chip_state *chips = pic->state.chips;
    set_chip_line(&chips[MASTER], CASCADE, winner(&chips[SLAVE], SLAVE) != NONE);
    bool level = winner(&chips[MASTER], MASTER) != NONE;
    if (level == atomic_load_explicit(&pic->interrupt, memory_order_relaxed))
        return;
    atomic_store(&pic->interrupt, level);
    pic->output->set_int(pic->output->ctx, level);
}

/* The chip's half of an INTA cycle. Returns the level, or NONE when the request has gone away. */
static unsigned acknowledge_chip(struct pic_chip_state *chip, unsigned which)
{
    unsigned level = winner(chip, which);
    if (level == NONE)
        return NONE;
    chip->latched &= ~(1u << level);
    if (!(chip->icw4 & ICW4_AUTO_EOI))
        chip->in_service |= 1u << level;
    else if (chip->rotate_on_auto_eoi)
        chip->lowest = (uint8_t)level;
    return level;
}

static int vector_of(const struct pic_chip_state *chip, unsigned level)
{
    return (chip->vector_base & 0xf8) | (level == NONE ? 7 : level);
}

int pic_acknowledge(struct pic *pic)
{
    pthread_mutex_lock(&pic->lock);
    struct pic_chip_state *chips = pic->state.chips;
    unsigned level = acknowledge_chip(&chips[MASTER], MASTER);
    int vector = vector_of(&chips[MASTER], level);
    if (level == CASCADE && !(chips[MASTER].icw1 & ICW1_SINGLE))
        vector = vector_of(&chips[SLAVE], acknowledge_chip(&chips[SLAVE], SLAVE));
    update_locked(pic);
    pthread_mutex_unlock(&pic->lock);
    return vector;
}

void pic_set_line(struct pic *pic, unsigned irq, bool level)
{
    if (irq >= PIC_LINES || irq == CASCADE)
        return;
    pthread_mutex_lock(&pic->lock);
    set_chip_line(&pic->state.chips[irq / 8], irq % 8, level);
    update_locked(pic);
    pthread_mutex_unlock(&pic->lock);
}

bool pic_pending(const struct pic *pic)
{
    return atomic_load(&pic->interrupt);
}

/* Command words. */

static void write_icw1(struct pic_chip_state *chip, uint8_t value)
{
    chip->icw1 = value;
    chip->step = STEP_ICW2;
    chip->latched = 0; /* an input must rise anew, even if it is up now */
    chip->in_service = 0;
    chip->mask = 0;
    chip->lowest = 7;
    chip->read_isr = false;
    chip->poll = false;
    chip->special_mask = false;
    chip->rotate_on_auto_eoi = false;
    if (!(value & ICW1_ICW4))
        chip->icw4 = 0;
}

static void end_interrupt(struct pic_chip_state *chip, unsigned level, bool rotate)
{
    if (level == NONE)
        return;
    chip->in_service &= ~(1u << level);
    if (rotate)
        chip->lowest = (uint8_t)level;
}

/* What a non-specific EOI means; in special mask mode the masked levels are out of its reach. */
static unsigned best_in_service(const struct pic_chip_state *chip)
{
    return best_of(chip, chip->in_service & ~(chip->special_mask ? chip->mask : 0));
}

static void write_ocw2(struct pic_chip_state *chip, uint8_t value)
{
    unsigned level = value & 7;
    switch (value >> 5) { /* R, SL, EOI */
    case 0:
        chip->rotate_on_auto_eoi = false;
        break;
    case 1:
        end_interrupt(chip, best_in_service(chip), false);
        break;
    case 3:
        end_interrupt(chip, level, false);
        break;
    case 4:
        chip->rotate_on_auto_eoi = true;
        break;
    case 5:
        end_interrupt(chip, best_in_service(chip), true);
        break;
    case 6:
        chip->lowest = (uint8_t)level;
        break;
    case 7:
        end_interrupt(chip, level, true);
        break;
    default: /* 2: no operation */
        break;
    }
}

static void write_ocw3(struct pic_chip_state *chip, uint8_t value)
{
    if (value & OCW3_SPECIAL_MASK_SET)
        chip->special_mask = value & OCW3_SPECIAL_MASK;
    chip->poll = value & OCW3_POLL;
    if (!chip->poll && value & OCW3_READ)
        chip->read_isr = value & OCW3_READ_ISR;
}

static void write_second_port(struct pic_chip_state *chip, uint8_t value)
{
    switch ((enum step)chip->step) {
    case STEP_OCW1:
        chip->mask = value;
        return;
    case STEP_ICW2:
        chip->vector_base = value & 0xf8;
        chip->step = chip->icw1 & ICW1_SINGLE ? STEP_ICW4 : STEP_ICW3;
        break;
    case STEP_ICW3:
        chip->icw3 = value;
        chip->step = STEP_ICW4;
        break;
    case STEP_ICW4:
        chip->icw4 = value & ICW4_BITS;
        chip->step = STEP_OCW1;
        break;
    }
    if (chip->step == STEP_ICW4 && !(chip->icw1 & ICW1_ICW4))
        chip->step = STEP_OCW1;
}

/* A poll is an INTA without the vector: the processor is told the level, and serves it. */
static uint8_t poll(struct pic_chip_state *chip, unsigned which)
{
    chip->poll = false;
    unsigned level = acknowledge_chip(chip, which);
    return level == NONE ? 0 : (uint8_t)(POLL_REQUEST | level);
}

/* Ports. */

static uint8_t read_port_locked(struct pic *pic, unsigned which, unsigned port)
{
    struct pic_chip_state *chip = &pic->state.chips[which];
    if (chip->poll)
        return poll(chip, which);
    if (port == 1)
        return chip->mask;
    return chip->read_isr ? chip->in_service : requests(chip, which);
}

static void write_port_locked(struct pic *pic, unsigned which, unsigned port, uint8_t value)
{
    struct pic_chip_state *chip = &pic->state.chips[which];
    if (port == 1)
        write_second_port(chip, value);
    else if (value & ICW1)
        write_icw1(chip, value);
    else if (value & OCW3)
        write_ocw3(chip, value);
    else
        write_ocw2(chip, value);
}

static uint8_t read_port(struct pic *pic, unsigned which, uint64_t port)
{
    pthread_mutex_lock(&pic->lock);
    uint8_t value = read_port_locked(pic, which, (unsigned)port);
    update_locked(pic);
    pthread_mutex_unlock(&pic->lock);
    return value;
}

static void write_port(struct pic *pic, unsigned which, uint64_t port, uint64_t value)
{
    pthread_mutex_lock(&pic->lock);
    write_port_locked(pic, which, (unsigned)port, (uint8_t)value);
    update_locked(pic);
    pthread_mutex_unlock(&pic->lock);
}

static uint64_t handle_master_read(void *device, uint64_t offset, unsigned width)
{
    return read_port(device, MASTER, offset);
}

static void handle_master_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    write_port(device, MASTER, offset, value);
}

static uint64_t handle_slave_read(void *device, uint64_t offset, unsigned width)
{
    return read_port(device, SLAVE, offset);
}

static void handle_slave_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    write_port(device, SLAVE, offset, value);
}

static uint64_t handle_elcr_read(void *device, uint64_t offset, unsigned width)
{
    struct pic *pic = device;
    pthread_mutex_lock(&pic->lock);
    uint8_t value = pic->state.chips[offset].elcr;
    pthread_mutex_unlock(&pic->lock);
    return value;
}

static void handle_elcr_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct pic *pic = device;
    pthread_mutex_lock(&pic->lock);
    pic->state.chips[offset].elcr = (uint8_t)value & elcr_writable[offset];
    update_locked(pic);
    pthread_mutex_unlock(&pic->lock);
}

/* Device. */

static struct pic *pic_of(struct device *device)
{
    return container_of(device, struct pic, device);
}

static void power_on(struct pic_chip_state *chip)
{
    /* The chip's own is random. All masked: a guest that never looks at the PIC is left in peace.
     */
    *chip = (struct pic_chip_state){.mask = 0xff, .lowest = 7};
}

static void handle_reset(struct device *device)
{
    struct pic *pic = pic_of(device);
    pthread_mutex_lock(&pic->lock);
    power_on(&pic->state.chips[MASTER]);
    power_on(&pic->state.chips[SLAVE]);
    update_locked(pic);
    pthread_mutex_unlock(&pic->lock);
}

static void handle_resume(struct device *device)
{
    struct pic *pic = pic_of(device);
    pthread_mutex_lock(&pic->lock);
    update_locked(pic);
    /* Whoever holds the flag on the other side may be new: say the level even if it is the old one.
     */
    pic->output->set_int(pic->output->ctx, atomic_load(&pic->interrupt));
    pthread_mutex_unlock(&pic->lock);
}

static const struct {
    uint16_t base;
    struct bus_ops ops;
} ranges[] = {
    {0x20, {"pic master", 1, handle_master_read, handle_master_write}},
    {0xa0, {"pic slave", 1, handle_slave_read, handle_slave_write}},
    {0x4d0, {"pic elcr", 1, handle_elcr_read, handle_elcr_write}},
};

static void handle_destroy(struct device *device)
{
    struct pic *pic = pic_of(device);
    for (unsigned i = 0; i < pic->ranges; i++)
        bus_remove(pic->ports, ranges[i].base);
    pthread_mutex_destroy(&pic->lock);
    free(pic);
}

static const struct device_ops pic_ops = {
    .reset = handle_reset,
    .resume = handle_resume,
    .destroy = handle_destroy,
};

/* State. */

static const struct state_field chip_fields[] = {
    STATE_FIELD_U8(struct pic_chip_state, lines),
    STATE_FIELD_U8(struct pic_chip_state, latched),
    STATE_FIELD_U8(struct pic_chip_state, in_service),
    STATE_FIELD_U8(struct pic_chip_state, mask),
    STATE_FIELD_U8(struct pic_chip_state, elcr),
    STATE_FIELD_U8(struct pic_chip_state, lowest, .max = 7),
    STATE_FIELD_U8(struct pic_chip_state, vector_base),
    STATE_FIELD_U8(struct pic_chip_state, icw1),
    STATE_FIELD_U8(struct pic_chip_state, icw3),
    STATE_FIELD_U8(struct pic_chip_state, icw4, .max = ICW4_BITS),
    STATE_FIELD_U8(struct pic_chip_state, step, .max = STEP_ICW4),
    STATE_FIELD_BOOL(struct pic_chip_state, read_isr),
    STATE_FIELD_BOOL(struct pic_chip_state, poll),
    STATE_FIELD_BOOL(struct pic_chip_state, special_mask),
    STATE_FIELD_BOOL(struct pic_chip_state, rotate_on_auto_eoi),
};

static const struct state_table chip_table = {
    .name = "pic_chip",
    .version = 1,
    STATE_TABLE_OF(struct pic_chip_state, chip_fields),
};

static const struct state_field pic_fields[] = {
    STATE_FIELD_TABLE(struct pic_state, chips, struct pic_chip_state, &chip_table),
};

static const struct state_table pic_table = {
    .name = "pic",
    .version = 1,
    STATE_TABLE_OF(struct pic_state, pic_fields),
};

/* Create. */

int pic_create(struct pic **ret_pic, struct bus *ports, const struct pic_output *output,
               struct err *err)
{
    struct pic *pic = calloc(1, sizeof(*pic));
    if (!pic)
        return err_sys(err, ERR_HOST, ENOMEM, "cannot create the interrupt controllers");
    pic->device = (struct device){.ops = &pic_ops, .table = &pic_table, .state = &pic->state};
    pic->ports = ports;
    pic->output = output;
    pthread_mutex_init(&pic->lock, NULL);
    power_on(&pic->state.chips[MASTER]);
    power_on(&pic->state.chips[SLAVE]);
    for (; pic->ranges < array_size(ranges); pic->ranges++) {
        int ret = bus_add(ports, ranges[pic->ranges].base, 2, &ranges[pic->ranges].ops, pic, err);
        if (ret < 0) {
            handle_destroy(&pic->device);
            return ret;
        }
    }
    *ret_pic = pic;
    return 0;
}

struct device *pic_device(struct pic *pic)
{
    return &pic->device;
}
