/* SPDX-License-Identifier: MIT */
/* What a VM's protection counts and measures: the part's table (vmm/instance.h). */
#pragma once

#include "vmm/metrics.h"

/* Of a VM that is not protected nothing is told. metrics_source.part is a struct ft_part. */
extern const struct metric protect_metrics[];
