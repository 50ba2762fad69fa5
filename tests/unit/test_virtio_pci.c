/* SPDX-License-Identifier: MIT */
/* The registers that a guest finds, and the interrupts that it gets. */
#include "tests/unit/virtio_pci_fixture.h"

/* --- what a driver finds ---------------------------------------------------------------------- */

START_TEST(a_driver_recognises_a_modern_device)
{
    ck_assert_uint_eq(config_get(&pc, 0, 4), (0x1040 + 63u) << 16 | 0x1af4);
    ck_assert_uint_eq(config_get(&pc, 8, 4), 0x00ff0001);
    ck_assert_uint_eq(config_get(&pc, 0x2c, 2), 0x1af4);
}
END_TEST

START_TEST(capabilities_lead_to_all_registers)
{
    const uint32_t sizes[REGIONS] = {0, COMMON_LENGTH, 4 * PROBE_QUEUES, 1, PROBE_CONFIG, 0};
    for (unsigned type = COMMON; type < REGIONS; type++) {
        unsigned at = pc.capabilities[type];
        ck_assert_uint_ne(at, 0);
        ck_assert_uint_eq(config_get(&pc, at + 2, 1),
                          type == DOORBELLS || type == WINDOW ? 20 : 16);
        ck_assert_uint_eq(config_get(&pc, at + 4, 1), 0); /* BAR */
        ck_assert_uint_eq(pc.sizes[type], sizes[type]);
        ck_assert_uint_eq(pc.offsets[type] % 4, 0);
        ck_assert_uint_le(pc.offsets[type] + pc.sizes[type], BAR_LENGTH);
        for (unsigned other = COMMON; other < type; other++)
            ck_assert(pc.offsets[other] + pc.sizes[other] <= pc.offsets[type] ||
                      pc.offsets[type] + pc.sizes[type] <= pc.offsets[other]);
    }
    ck_assert_uint_eq(pc.step, 4);
    ck_assert_uint_eq(config_get(&pc, pc.msix + 2, 2), PROBE_QUEUES); /* one more than queues */
}
END_TEST

START_TEST(fields_read_what_they_say)
{
    ck_assert_uint_eq(get(NUM_QUEUES, 2), PROBE_QUEUES);
    put(OFFERED_SELECT, 4, 0);
    ck_assert_uint_eq(get(OFFERED, 4), PROBE_FEATURE | 3u << 28);
    put(OFFERED_SELECT, 4, 1);
    ck_assert_uint_eq(get(OFFERED, 4), 1);
    put(OFFERED_SELECT, 4, 2);
    ck_assert_uint_eq(get(OFFERED, 4), 0);
    put(ACCEPTED_SELECT, 4, 1);
    put(ACCEPTED, 4, 0x12345678);
    ck_assert_uint_eq(get(ACCEPTED, 4), 0x12345678);
    put(ACCEPTED_SELECT, 4, 0);
    ck_assert_uint_eq(get(ACCEPTED, 4), 0);
    ck_assert_uint_eq(get(GENERATION, 1), 0);
    virtio_lock(pc.virtio);
    virtio_config_changed(pc.virtio);
    virtio_unlock(pc.virtio);
    ck_assert_uint_eq(get(GENERATION, 1), 1);
    for (unsigned queue = 0; queue < PROBE_QUEUES; queue++) {
        put(QUEUE_SELECT, 2, queue);
        ck_assert_uint_eq(get(QUEUE_SELECT, 2), queue);
        ck_assert_uint_eq(get(QUEUE_LENGTH, 2), PROBE_SIZE);
        ck_assert_uint_eq(get(QUEUE_NOTIFY_OFF, 2), queue);
        ck_assert_uint_eq(get(QUEUE_ENABLE, 2), 0);
        ck_assert_uint_eq(get(QUEUE_VECTOR, 2), NO_VECTOR);
    }
}
END_TEST

START_TEST(addresses_are_written_whole_or_in_halves)
{
    for (unsigned field = QUEUE_DESC; field <= QUEUE_DEVICE; field += 8) {
        put(field, 4, 0x11111111);
        ck_assert_uint_eq(get(field, 8), 0x11111111);
        put(field + 4, 4, 0x22222222);
        ck_assert_uint_eq(get(field, 4), 0x11111111);
        ck_assert_uint_eq(get(field + 4, 4), 0x22222222);
        put(field, 8, 0x8877665544332211);
        ck_assert_uint_eq(get(field, 8), 0x8877665544332211);
    }
    put(QUEUE_DRIVER + 4, 8, UINT64_MAX); /* across two of them */
    ck_assert_uint_eq(get(QUEUE_DRIVER, 8), 0x8877665544332211);
    ck_assert_uint_eq(get(QUEUE_DEVICE, 8), 0x8877665544332211);
}
END_TEST

START_TEST(pieces_of_fields_can_be_read)
{
    negotiate();
    put(QUEUE_DESC, 8, 0x8877665544332211);
    uint8_t bytes[COMMON_LENGTH];
    for (unsigned i = 0; i < COMMON_LENGTH; i++)
        bytes[i] = (uint8_t)get(i, 1);
    ck_assert_uint_eq(bytes[STATUS], 11);
    ck_assert_uint_eq(bytes[QUEUE_DESC + 6], 0x77);
    for (unsigned width = 2; width <= 8; width *= 2) {
        for (unsigned at = 0; at < COMMON_LENGTH + 8; at++) {
            uint64_t value = get(at, width);
            for (unsigned i = 0; i < width; i++)
                ck_assert_uint_eq(value >> 8 * i & 0xff,
                                  at + i < COMMON_LENGTH ? bytes[at + i] : 0xff);
        }
    }
}
END_TEST

START_TEST(a_write_that_is_not_a_field_changes_nothing)
{
    static const struct {
        unsigned offset, width;
    } fields[] = {{0, 4},  {8, 4},  {12, 4}, {16, 2}, {20, 1}, {22, 2}, {24, 2}, {26, 2}, {28, 2},
                  {32, 4}, {36, 4}, {32, 8}, {40, 4}, {44, 4}, {40, 8}, {48, 4}, {52, 4}, {48, 8}};
    negotiate();
    for (unsigned offset = 0; offset < COMMON_LENGTH + 8; offset++) {
        for (unsigned width = 1; width <= 8; width *= 2) {
            bool is_field = false;
            for (size_t i = 0; i < array_size(fields); i++)
                is_field |= fields[i].offset == offset && fields[i].width == width;
            if (is_field)
                continue;
            uint8_t before[COMMON_LENGTH];
            for (unsigned i = 0; i < COMMON_LENGTH; i++)
                before[i] = (uint8_t)get(i, 1);
            put(offset, width, 0x0101010101010101);
            put(offset, width, 0);
            for (unsigned i = 0; i < COMMON_LENGTH; i++)
                ck_assert_msg(before[i] == get(i, 1), "%u bytes at 0x%x", width, offset);
        }
    }
}
END_TEST

START_TEST(a_queue_that_is_not_there_has_no_size)
{
    const unsigned absent[] = {PROBE_QUEUES, VIRTIO_MAX_QUEUES - 1, VIRTIO_MAX_QUEUES, 0x7fff,
                               0xffff};
    for (size_t i = 0; i < array_size(absent); i++) {
        struct virtio_state before = probe->state.virtio;
        put(QUEUE_SELECT, 2, absent[i]);
        for (unsigned offset = QUEUE_LENGTH; offset < QUEUE_DESC; offset += 2)
            put(offset, 2, 1);
        put(QUEUE_DESC, 8, 0x1000);
        ck_assert_uint_eq(get(QUEUE_LENGTH, 2), 0);
        ck_assert_uint_eq(get(QUEUE_VECTOR, 2), NO_VECTOR);
        ck_assert_uint_eq(get(QUEUE_ENABLE, 2), 0);
        ck_assert_uint_eq(get(QUEUE_DESC, 8), 0);
        ck_assert_mem_eq(&before, &probe->state.virtio, sizeof(before));
    }
}
END_TEST

START_TEST(only_sizes_that_a_queue_can_have_are_taken)
{
    const unsigned bad[] = {0, 3, 12, 15, PROBE_SIZE * 2, 0x8000, 0xffff};
    for (size_t i = 0; i < array_size(bad); i++) {
        put(QUEUE_LENGTH, 2, bad[i]);
        ck_assert_uint_eq(get(QUEUE_LENGTH, 2), PROBE_SIZE);
    }
    for (unsigned size = PROBE_SIZE; size; size /= 2) {
        put(QUEUE_LENGTH, 2, size);
        ck_assert_uint_eq(get(QUEUE_LENGTH, 2), size);
    }
}
END_TEST

START_TEST(an_enabled_queue_cannot_be_moved)
{
    put(QUEUE_ENABLE, 2, 0);
    put(QUEUE_ENABLE, 2, 2); /* neither enables it */
    ck_assert_uint_eq(get(QUEUE_ENABLE, 2), 0);
    bring_up();
    for (unsigned field = QUEUE_DESC; field <= QUEUE_DEVICE; field += 8) {
        uint64_t before = get(field, 8);
        put(field, 8, 0x5000);
        ck_assert_uint_eq(get(field, 8), before);
    }
    put(QUEUE_LENGTH, 2, 4);
    ck_assert_uint_eq(get(QUEUE_LENGTH, 2), 8);
    put(QUEUE_ENABLE, 2, 0);
    ck_assert_uint_eq(get(QUEUE_ENABLE, 2), 1);
}
END_TEST

START_TEST(vectors_that_are_not_there_are_refused)
{
    const unsigned bad[] = {PROBE_QUEUES + 1, 31, 32, 0x8000, NO_VECTOR};
    for (unsigned v = 0; v <= PROBE_QUEUES; v++) {
        put(CONFIG_VECTOR, 2, v);
        put(QUEUE_VECTOR, 2, v);
        ck_assert_uint_eq(get(CONFIG_VECTOR, 2), v);
        ck_assert_uint_eq(get(QUEUE_VECTOR, 2), v);
    }
    for (size_t i = 0; i < array_size(bad); i++) {
        put(CONFIG_VECTOR, 2, 1);
        put(QUEUE_VECTOR, 2, 1);
        put(CONFIG_VECTOR, 2, bad[i]);
        put(QUEUE_VECTOR, 2, bad[i]);
        ck_assert_uint_eq(get(CONFIG_VECTOR, 2), NO_VECTOR);
        ck_assert_uint_eq(get(QUEUE_VECTOR, 2), NO_VECTOR);
    }
}
END_TEST

START_TEST(the_devices_own_configuration_is_behind_its_capability)
{
    for (unsigned i = 0; i < PROBE_CONFIG; i++)
        reg_put(&pc, CONFIG, i, 1, 0x30 + i);
    ck_assert_uint_eq(probe->state.config[PROBE_CONFIG - 1], 0x30 + PROBE_CONFIG - 1);
    ck_assert_uint_eq(reg_get(&pc, CONFIG, 0, 8), 0x3736353433323130);
    ck_assert_uint_eq(reg_get(&pc, CONFIG, 8, 2), 0x3938);
    ck_assert_uint_eq(reg_get(&pc, CONFIG, PROBE_CONFIG, 4), UINT32_MAX);
    struct probe_state before = probe->state;
    reg_put(&pc, CONFIG, PROBE_CONFIG - 1, 2, 0);
    reg_put(&pc, CONFIG, 0xffc, 4, 0);
    ck_assert_mem_eq(&before, &probe->state, sizeof(before));
}
END_TEST

START_TEST(every_access_to_the_bar_is_harmless)
{
    uint64_t base = bar_base(&pc);
    for (uint64_t at = 0; at < BAR_LENGTH; at += 1 + (at > 0x40 && at % 0x1000 < 0xff0) * 7) {
        for (unsigned width = 1; width <= 8; width *= 2) {
            guest_read(&pc, base + at, width);
            guest_write(&pc, base + at, width, 0x5a5a5a5a5a5a5a5a);
            ck_assert_int_eq(state_check(&probe_table, &probe->state, NULL), 0);
        }
    }
    put(STATUS, 1, 0);
    probe->serve = true;
    bring_up();
    request_is_done();
}
END_TEST

/* --- interrupts ------------------------------------------------------------------------------- */

START_TEST(without_msix_the_line_and_isr_tell)
{
    probe->serve = true;
    bring_up();
    ck_assert(!pc.chip.level[LINE]);
    request_is_done();
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(config_get(&pc, 6, 2) & 8, 8);
    ck_assert_uint_eq(reg_get(&pc, ISR, 0, 1), 1);
    ck_assert(!pc.chip.level[LINE]); /* reading is the end of it */
    ck_assert_uint_eq(reg_get(&pc, ISR, 0, 1), 0);

    virtio_lock(pc.virtio);
    virtio_config_changed(pc.virtio);
    virtio_unlock(pc.virtio);
    request_is_done();
    reg_put(&pc, ISR, 0, 1, 0);
    ck_assert_uint_eq(reg_get(&pc, ISR, 1, 1), 0xff);
    ck_assert(pc.chip.level[LINE]);
    ck_assert_uint_eq(reg_get(&pc, ISR, 0, 4), 3);
    ck_assert(!pc.chip.level[LINE]);
}
END_TEST

START_TEST(with_msix_each_queue_has_its_vector)
{
    probe->serve = true;
    msix_turn_on(&pc, 3);
    negotiate();
    put(CONFIG_VECTOR, 2, 2);
    enable_queue(0, &driver);
    put(QUEUE_VECTOR, 2, 1);
    put(STATUS, 1, 15);
    rig_turn(&pc.rig);
    request_is_done();
    ck_assert_uint_eq(messages(&pc, 0), 0);
    ck_assert_uint_eq(messages(&pc, 1), 1);
    ck_assert_uint_eq(messages(&pc, 2), 0);
    ck_assert_uint_eq(reg_get(&pc, ISR, 0, 1), 0);
    virtio_lock(pc.virtio);
    virtio_config_changed(pc.virtio);
    virtio_unlock(pc.virtio);
    ck_assert_uint_eq(messages(&pc, 2), 1);
    ck_assert(!pc.chip.level[LINE]);
    ck_assert_uint_eq(reg_get(&pc, ISR, 0, 1), 2); /* that bit is there with MSI-X too */
    put(QUEUE_VECTOR, 2, NO_VECTOR);
    request_is_done();
    ck_assert_uint_eq(messages(&pc, 1), 0);
}
END_TEST

START_TEST(a_driver_that_changes_from_line_to_msix_loses_the_line)
{
    probe->serve = true;
    bring_up();
    request_is_done();
    ck_assert(pc.chip.level[LINE]);
    msix_turn_on(&pc, 3);
    ck_assert(!pc.chip.level[LINE]);
    config_put(&pc, pc.msix + 2, 2, 0);
    ck_assert(pc.chip.level[LINE]); /* nobody has read it yet */
}
END_TEST

START_TEST(a_broken_device_tells_its_driver)
{
    bring_up();
    model_poke_index(&driver, 500);
    probe->serve = true;
    ring(0, 2);
    rig_turn(&pc.rig);
    ck_assert_uint_eq(status(), 15 | 64);
    ck_assert_uint_eq(reg_get(&pc, ISR, 0, 1), 2);
}
END_TEST

/* --- the window in configuration space -------------------------------------------------------- */

static void aim(uint32_t bar, uint32_t offset, uint32_t length)
{
    config_put(&pc, pc.capabilities[WINDOW] + 4, 1, bar);
    config_put(&pc, pc.capabilities[WINDOW] + 8, 4, offset);
    config_put(&pc, pc.capabilities[WINDOW] + 12, 4, length);
}

static uint32_t window_get(uint32_t offset, uint32_t length)
{
    aim(0, offset, length);
    return config_get(&pc, pc.capabilities[WINDOW] + 16, length);
}

static void window_put(uint32_t offset, uint32_t length, uint32_t value)
{
    aim(0, offset, length);
    config_put(&pc, pc.capabilities[WINDOW] + 16, length, value);
}

START_TEST(the_window_shows_the_bars_registers)
{
    config_put(&pc, PCI_COMMAND, 2, 0); /* for those who have no BAR */
    window_put(STATUS, 1, 1);
    window_put(STATUS, 1, 3);
    window_put(ACCEPTED_SELECT, 4, 1);
    window_put(ACCEPTED, 4, 1);
    window_put(STATUS, 1, 11);
    ck_assert_uint_eq(window_get(STATUS, 1), 11);
    ck_assert_uint_eq(window_get(QUEUE_LENGTH, 2), PROBE_SIZE);
    window_put(QUEUE_DESC, 4, driver.descriptors);
    window_put(QUEUE_DRIVER, 4, driver.available);
    window_put(QUEUE_DEVICE, 4, driver.used);
    window_put(QUEUE_LENGTH, 2, driver.size);
    window_put(QUEUE_ENABLE, 2, 1);
    window_put(STATUS, 1, 15);
    rig_turn(&pc.rig);
    probe->serve = true;
    add_request();
    window_put(pc.offsets[DOORBELLS], 2, 0);
    rig_turn(&pc.rig);
    struct model_done done;
    ck_assert(model_reap(&driver, &done));
    ck_assert_uint_eq(window_get(pc.offsets[ISR], 1), 1);
    ck_assert_uint_eq(window_get(pc.offsets[ISR], 1), 0);
    window_put(pc.offsets[CONFIG] + 4, 4, 0xa1b2c3d4);
    ck_assert_uint_eq(window_get(pc.offsets[CONFIG] + 4, 4), 0xa1b2c3d4);
}
END_TEST

START_TEST(a_window_that_leads_nowhere_is_shut)
{
    const struct {
        uint32_t bar, offset, length;
    } bad[] = {{0, STATUS, 0},          {0, STATUS, 3},         {0, STATUS, 8},
               {0, STATUS, UINT32_MAX}, {1, STATUS, 1},         {2, STATUS, 1},
               {0xff, STATUS, 1},       {0, STATUS - 1, 2},     {0, STATUS - 2, 4},
               {0, BAR_LENGTH, 4},      {0, UINT32_MAX - 3, 4}, {0, UINT32_MAX, 1}};
    negotiate();
    struct probe_state before = probe->state;
    for (size_t i = 0; i < array_size(bad); i++) {
        for (unsigned width = 1; width <= 4; width *= 2) {
            aim(bad[i].bar, bad[i].offset, bad[i].length);
            config_get(&pc, pc.capabilities[WINDOW] + 16, width);
            config_put(&pc, pc.capabilities[WINDOW] + 16, width, 0);
            ck_assert_msg(memcmp(&before, &probe->state, sizeof(before)) == 0, "window %zu", i);
        }
    }
    aim(0, STATUS, 1);
    config_get(&pc, pc.capabilities[WINDOW] + 12, 4);
    config_put(&pc, pc.capabilities[WINDOW] + 14, 2, 0); /* beside it is not through it */
    ck_assert_uint_eq(status(), 11);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_pci");
    TCase *tcase = tcase_create("probe");

    tcase_add_checked_fixture(tcase, set_up_probe, tear_down);
    tcase_add_test(tcase, a_driver_recognises_a_modern_device);
    tcase_add_test(tcase, capabilities_lead_to_all_registers);
    tcase_add_test(tcase, fields_read_what_they_say);
    tcase_add_test(tcase, addresses_are_written_whole_or_in_halves);
    tcase_add_test(tcase, pieces_of_fields_can_be_read);
    tcase_add_test(tcase, a_write_that_is_not_a_field_changes_nothing);
    tcase_add_test(tcase, a_queue_that_is_not_there_has_no_size);
    tcase_add_test(tcase, only_sizes_that_a_queue_can_have_are_taken);
    tcase_add_test(tcase, an_enabled_queue_cannot_be_moved);
    tcase_add_test(tcase, vectors_that_are_not_there_are_refused);
    tcase_add_test(tcase, the_devices_own_configuration_is_behind_its_capability);
    tcase_add_test(tcase, every_access_to_the_bar_is_harmless);
    tcase_add_test(tcase, without_msix_the_line_and_isr_tell);
    tcase_add_test(tcase, with_msix_each_queue_has_its_vector);
    tcase_add_test(tcase, a_driver_that_changes_from_line_to_msix_loses_the_line);
    tcase_add_test(tcase, a_broken_device_tells_its_driver);
    tcase_add_test(tcase, the_window_shows_the_bars_registers);
    tcase_add_test(tcase, a_window_that_leads_nowhere_is_shut);
    suite_add_tcase(suite, tcase);
    return unit_main(suite);
}
