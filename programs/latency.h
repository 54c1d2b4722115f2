/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How long requests of a mount take, as the kernel's tracepoints tell it. */
#ifndef FE_PROGRAMS_LATENCY_H
#define FE_PROGRAMS_LATENCY_H

#include <stddef.h>
#include <stdint.h>

#include "bpf/latency.h"

struct latencies;

#define LATENCY_WHY_SIZE 200

/* From now on; NULL where it can not be had, and why in `why`. */
struct latencies *latencies_open(uint32_t major, uint32_t minor, char *why);
void latencies_close(struct latencies *l);

/* So far, by opcode; 0 or a negative errno. */
int latencies_read(const struct latencies *l, struct latency out[LATENCY_OPCODES]);

/* In microseconds: what `percent` of them were not slower than, of those between two reads; below 0: there
 * were none. */
double latency_percentile(const struct latency *before, const struct latency *now, unsigned percent);

#endif
