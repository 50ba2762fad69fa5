/* SPDX-License-Identifier: MIT */
/* Doorbells, reset, and the state of the transport. */
#include "tests/unit/virtio_pci_fixture.h"

/* --- doorbells -------------------------------------------------------------------------------- */

static void expect_doorbell(uint64_t base)
{
    ck_assert_uint_eq(pc.board.count, 1);
    ck_assert_uint_eq(pc.board.places[0].address, base + pc.offsets[DOORBELLS]);
    ck_assert_int_eq(pc.board.places[0].fd, pc.virtio->queues[0].doorbell);
}

START_TEST(kvm_has_the_doorbells_of_enabled_queues)
{
    ck_assert_uint_eq(pc.board.adds, 0);
    bring_up();
    expect_doorbell(bar_base(&pc));
    put(STATUS, 1, 0);
    ck_assert_uint_eq(pc.board.count, 0);
    bring_up();
    expect_doorbell(bar_base(&pc));
    pci_rig_pause(&pc);
    pci_rig_resume(&pc);
    ck_assert_uint_eq(pc.board.adds, 2); /* a pause costs KVM nothing */
    pci_rig_pause(&pc);
    pci_rig_reset(&pc);
    ck_assert_uint_eq(pc.board.count, 0);
    pci_rig_resume(&pc);
    ck_assert_uint_eq(pc.board.adds, 2);
}
END_TEST

START_TEST(doorbells_move_with_the_bar)
{
    bring_up();
    config_put(&pc, PCI_COMMAND, 2, 0);
    ck_assert_uint_eq(pc.board.count, 0);
    config_put(&pc, 0x10, 4, (uint32_t)TOY_HIGH);
    config_put(&pc, 0x14, 4, TOY_HIGH >> 32);
    ck_assert_uint_eq(pc.board.count, 0);
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    expect_doorbell(TOY_HIGH);
    unsigned before = probe->notified[0];
    ring(0, 4);
    rig_turn(&pc.rig);
    ck_assert_uint_eq(probe->notified[0], before + 1);
}
END_TEST

START_TEST(a_doorbell_that_kvm_refuses_is_an_exit)
{
    pc.board.failing = true;
    probe->serve = true;
    bring_up();
    ck_assert_uint_eq(pc.board.count, 0);
    for (unsigned width = 1; width <= 8; width *= 2) {
        struct model_done done;
        add_request();
        ring(0, width);
        rig_turn(&pc.rig);
        ck_assert_msg(model_reap(&driver, &done), "width %u", width);
    }
    unsigned before = probe->notified[0];
    for (unsigned at = 1; at < 0x1000; at++) /* nobody else's */
        reg_put(&pc, DOORBELLS, at, 1, 0);
    rig_turn(&pc.rig);
    ck_assert_uint_eq(probe->notified[0], before);
}
END_TEST

/* --- reset ------------------------------------------------------------------------------------ */

START_TEST(a_drivers_reset_clears_its_registers)
{
    uint8_t new[COMMON_LENGTH];
    for (unsigned i = 0; i < COMMON_LENGTH; i++)
        new[i] = (uint8_t)get(i, 1);
    probe->serve = true;
    put(CONFIG_VECTOR, 2, 1);
    put(OFFERED_SELECT, 4, 7);
    bring_up();
    put(QUEUE_VECTOR, 2, 1);
    request_is_done();
    put(QUEUE_SELECT, 2, 1);
    ck_assert(pc.chip.level[LINE]);
    put(STATUS, 1, 0);
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_uint_eq(reg_get(&pc, ISR, 0, 1), 0);
    for (unsigned i = 0; i < COMMON_LENGTH; i++)
        ck_assert_msg(new[i] == get(i, 1), "byte 0x%x", i);
}
END_TEST

START_TEST(the_machines_reset_masks_every_vector)
{
    uint64_t table = config_get(&pc, 0x18, 4) & ~0xfu;
    msix_turn_on(&pc, 3);
    ck_assert_uint_eq(guest_read(&pc, table + 8, 8), 1);
    pci_rig_pause(&pc);
    pci_rig_reset(&pc);
    pci_rig_resume(&pc);
    ck_assert_uint_eq(config_get(&pc, pc.msix + 2, 2) & 0xc000, 0);
    for (unsigned v = 0; v < 3; v++)
        ck_assert_uint_eq(guest_read(&pc, table + 16 * v + 8, 8), 1ull << 32);
}
END_TEST

START_TEST(a_reset_that_waits_holds_off_the_driver)
{
    bring_up();
    probe->busy = true;
    put(STATUS, 1, 0);
    ck_assert_uint_eq(status(), 15);
    ck_assert_uint_eq(pc.board.count, 0);
    put(STATUS, 1, 1);
    put(QUEUE_SELECT, 2, 1);
    put(CONFIG_VECTOR, 2, 1);
    enable_queue(1, &driver);
    config_put(&pc, PCI_COMMAND, 2, 0);
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    ck_assert_uint_eq(pc.board.count, 0);
    ck_assert_uint_eq(get(CONFIG_VECTOR, 2), NO_VECTOR);
    virtio_lock(pc.virtio);
    probe->busy = false;
    virtio_stop_done(pc.virtio);
    virtio_unlock(pc.virtio);
    ck_assert_uint_eq(status(), 0);
    probe->serve = true;
    make_driver();
    bring_up();
    request_is_done();
}
END_TEST

/* Linux takes the bus away before it starts another kernel, and may leave the device as it is. */
START_TEST(a_device_that_loses_the_bus_is_silent_until_its_reset)
{
    struct model_done done;
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    probe->serve = true;
    bring_up();
    request_is_done();
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    add_request();
    ring(0, 2);
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    ring(0, 2);
    pci_rig_pause(&pc);
    pci_rig_resume(&pc);
    rig_turn(&pc.rig);
    ck_assert(!model_reap(&driver, &done));
    ck_assert_uint_eq(status(), 15 | 64);
    put(STATUS, 1, 0);
    make_driver();
    bring_up();
    request_is_done();
}
END_TEST

/* Small guests never give it. */
START_TEST(a_device_that_never_had_the_bus_works)
{
    probe->serve = true;
    bring_up();
    config_put(&pc, PCI_COMMAND, 2, 0);
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    request_is_done();
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    put(STATUS, 1, 0);
    config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY); /* after its reset */
    make_driver();
    bring_up();
    request_is_done();
}
END_TEST

/* --- life and state --------------------------------------------------------------------------- */

START_TEST(transport_and_device_end_in_either_order)
{
    struct probe *others[2];
    const struct virtio_pci_config config = {
        .bus = pc.pci, .router = &pc.counting_router, .doorbells = &pc.board.board, .slot = 9};
    struct virtio_pci *transport;
    for (unsigned i = 0; i < 2; i++) {
        others[i] = probe_create(&pc.rig.world, i ? "probe" : NULL, NULL);
        ck_assert_int_eq(virtio_pci_create(&transport, &config, &others[i]->virtio, NULL), 0);
        struct device *devices[] = {virtio_pci_device(transport), &others[i]->virtio.device};
        for (unsigned j = 0; j < 2; j++) {
            devices[j]->ops->reset(devices[j]);
            devices[j]->ops->resume(devices[j]);
        }
        devices[1]->ops->pause(devices[1]);
        device_destroy(devices[i]);
        device_destroy(devices[1 - i]);
        ck_assert_uint_eq(bus_read(pc.mmio, TOY_ECAM + (9 << 15), 4), UINT32_MAX);
    }
}
END_TEST

START_TEST(a_slot_that_is_taken_is_an_error)
{
    struct probe *other = probe_create(&pc.rig.world, NULL, NULL);
    struct virtio_pci *transport;
    struct err err = {0};
    const struct virtio_pci_config config = {
        .bus = pc.pci, .router = &pc.counting_router, .slot = PCI_RIG_SLOT};
    ck_assert_int_lt(virtio_pci_create(&transport, &config, &other->virtio, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "6"));
    ck_assert_ptr_null(other->virtio.transport);
    device_destroy(&other->virtio.device);
}
END_TEST

START_TEST(the_slot_is_the_instance_of_both)
{
    ck_assert_uint_eq(virtio_pci_device(pc.transport)->instance, PCI_RIG_SLOT);
    ck_assert_uint_eq(pc.virtio->device.instance, PCI_RIG_SLOT);
}
END_TEST

static void move_state(struct pci_rig *from, struct pci_rig *to)
{
    struct stream_buffer saved;
    struct state_item items[2];
    struct pci_rig *rigs[] = {from, to};
    stream_buffer_init(&saved, 0);
    for (unsigned i = 0; i < 2; i++) {
        struct device *devices[] = {virtio_pci_device(rigs[i]->transport),
                                    &rigs[i]->virtio->device};
        for (unsigned j = 0; j < 2; j++)
            items[j] = (struct state_item){devices[j]->table, devices[j]->instance,
                                           devices[j]->state};
        if (i == 0)
            ck_assert_int_eq(state_save(&saved.stream, items, 2), 0);
        else
            ck_assert_int_eq(state_load(&saved.stream, items, 2, NULL), 0);
        stream_buffer_rewind(&saved);
    }
    stream_buffer_finish(&saved);
}

/* The rng serves at once; memory is what the first machine had. */
START_TEST(a_machine_goes_on_elsewhere)
{
    static struct pci_rig other;
    struct model_done done;
    struct rng *rng;
    msix_turn_on(&pc, 2);
    config_put(&pc, 0x10, 4, (uint32_t)TOY_LOW + 0x100000);
    negotiate();
    put(CONFIG_VECTOR, 2, 0);
    enable_queue(0, &driver);
    put(QUEUE_VECTOR, 2, 1);
    put(STATUS, 1, 15);
    request_is_done();
    add_request(); /* and the machine pauses before it rings */
    pci_rig_pause(&pc);

    pci_rig_init(&other);
    struct virtio_world world = other.rig.world;
    world.memory = pc.rig.memory;
    ck_assert_int_eq(rng_create(&rng, &world, NULL), 0);
    ck_assert_int_eq(pci_rig_plug(&other, rng_virtio(rng), NULL), 0);
    move_state(&pc, &other);
    pci_rig_resume(&other);
    ck_assert_uint_eq(other.board.count, 1);
    ck_assert_uint_eq(other.board.places[0].address, TOY_LOW + 0x100000 + pc.offsets[DOORBELLS]);
    rig_turn(&other.rig);
    ck_assert(model_reap(&driver, &done));
    /* One for the request, and perhaps one that was under way in the old machine. */
    uint64_t sent = messages(&other, 1);
    ck_assert(sent == 1 || sent == 2);
    pci_rig_finish(&other);
    pci_rig_resume(&pc); /* for tear_down() */
}
END_TEST

START_TEST(a_line_that_was_up_is_up_elsewhere)
{
    static struct pci_rig other;
    struct rng *rng;
    bring_up();
    request_is_done();
    pci_rig_pause(&pc);
    pci_rig_init(&other);
    ck_assert_int_eq(rng_create(&rng, &other.rig.world, NULL), 0);
    ck_assert_int_eq(pci_rig_plug(&other, rng_virtio(rng), NULL), 0);
    move_state(&pc, &other);
    pci_rig_resume(&other);
    ck_assert(other.chip.level[LINE]);
    walk_capabilities(&other);
    ck_assert_uint_eq(reg_get(&other, ISR, 0, 1), 1);
    ck_assert(!other.chip.level[LINE]);
    pci_rig_finish(&other);
}
END_TEST

START_TEST(the_line_is_what_isr_says_whatever_was_loaded)
{
    struct device *device = virtio_pci_device(pc.transport);
    uint8_t *isr = (uint8_t *)device->state + device->table->size - 4;
    for (unsigned up = 1; up < 2; up--) {
        pci_rig_pause(&pc);
        *isr = (uint8_t)up;
        pci_rig_resume(&pc);
        ck_assert_uint_eq(pc.chip.level[LINE], up);
        ck_assert_uint_eq(config_get(&pc, 6, 2) & 8, 8 * up);
    }
}
END_TEST

START_TEST(no_loaded_state_does_harm)
{
    struct device *device = virtio_pci_device(pc.transport);
    uint8_t *bytes = device->state;
    uint64_t seed = 99;
    for (unsigned round = 0; round < 500; round++) {
        pci_rig_pause(&pc);
        for (size_t i = 0; i < device->table->size; i++)
            bytes[i] = (uint8_t)chance(&seed);
        /* The two kinds of field that are bounded. */
        for (unsigned v = 0; v < PCI_MSIX_MAX; v++)
            memset(bytes + PCI_CONFIG_SIZE + 16 * v + 12, 0, 4);
        bytes[device->table->size - 4] &= 3;
        ck_assert_int_eq(state_check(device->table, bytes, NULL), 0);
        pci_rig_resume(&pc);
        config_put(&pc, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
        config_put(&pc, 0x10, 4, (uint32_t)TOY_LOW);
        config_put(&pc, 0x14, 4, 0);
        for (unsigned at = 0; at < 0x40; at += 4)
            get(at, 4);
        for (unsigned i = 0; i < 20; i++)
            put((unsigned)chance(&seed) % 64, 1u << chance(&seed) % 4, chance(&seed));
        virtio_lock(pc.virtio);
        virtio_break(pc.virtio);
        virtio_unlock(pc.virtio);
        ck_assert_int_eq(state_check(device->table, bytes, NULL), 0);
        put(STATUS, 1, 0);
    }
    config_put(&pc, pc.msix + 2, 2, 0);
    make_driver();
    bring_up();
    request_is_done();
}
END_TEST

START_TEST(its_state_keeps_the_promises_of_states)
{
    struct device *device = virtio_pci_device(pc.transport);
    msix_turn_on(&pc, 2);
    bring_up();
    put(CONFIG_VECTOR, 2, 0);
    put(QUEUE_VECTOR, 2, 1);
    put(OFFERED_SELECT, 4, 1);
    request_is_done();
    virtio_lock(pc.virtio);
    virtio_break(pc.virtio);
    virtio_unlock(pc.virtio);
    put(QUEUE_SELECT, 2, 5);
    pci_rig_pause(&pc);
    unit_check_table(device->table, device->state);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_pci_life");
    TCase *tcase = tcase_create("probe");
    TCase *rng = tcase_create("rng");

    tcase_add_checked_fixture(tcase, set_up_probe, tear_down);
    tcase_add_test(tcase, kvm_has_the_doorbells_of_enabled_queues);
    tcase_add_test(tcase, doorbells_move_with_the_bar);
    tcase_add_test(tcase, a_doorbell_that_kvm_refuses_is_an_exit);
    tcase_add_test(tcase, a_drivers_reset_clears_its_registers);
    tcase_add_test(tcase, the_machines_reset_masks_every_vector);
    tcase_add_test(tcase, a_reset_that_waits_holds_off_the_driver);
    tcase_add_test(tcase, a_device_that_loses_the_bus_is_silent_until_its_reset);
    tcase_add_test(tcase, a_device_that_never_had_the_bus_works);
    tcase_add_test(tcase, transport_and_device_end_in_either_order);
    tcase_add_test(tcase, a_slot_that_is_taken_is_an_error);
    tcase_add_test(tcase, the_slot_is_the_instance_of_both);
    suite_add_tcase(suite, tcase);

    tcase_add_checked_fixture(rng, set_up_rng, tear_down);
    tcase_add_test(rng, a_machine_goes_on_elsewhere);
    tcase_add_test(rng, a_line_that_was_up_is_up_elsewhere);
    tcase_add_test(rng, the_line_is_what_isr_says_whatever_was_loaded);
    tcase_add_test(rng, no_loaded_state_does_harm);
    tcase_add_test(rng, its_state_keeps_the_promises_of_states);
    suite_add_tcase(suite, rng);
    return unit_main(suite);
}
