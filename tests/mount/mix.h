/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers that look random and can be had again: the step of splitmix64. */
#ifndef FE_TESTS_MIX_H
#define FE_TESTS_MIX_H

#include <stdint.h>

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

#endif
