/* SPDX-License-Identifier: MIT */
#include "core/irq.h"

void irq_line_init(struct irq_line *line, const struct irq_chip *chip, unsigned number)
{
    *line = (struct irq_line){.chip = chip, .number = number};
}

void irq_line_set(struct irq_line *line, bool level)
{
    if (line->level != level)
        irq_line_renew(line, level);
}

void irq_line_renew(struct irq_line *line, bool level)
{
    line->level = level;
    line->chip->set_line(line->chip->ctx, line->number, level);
}

void msi_send(const struct msi_sink *sink, uint64_t address, uint32_t data)
{
    sink->send(sink->ctx, address, data);
}
