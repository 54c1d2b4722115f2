/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One check on both sides: prepared, run, compared. */
#ifndef TESTS_MOUNT_POSIX_JUDGE_H
#define TESTS_MOUNT_POSIX_JUDGE_H

#include "posix.h"

enum { SIDE_PLAIN, SIDE_MOUNT, SIDES };
enum { STEPS_MAX = 24 };

struct trial {
	const struct check *check;
	bool skipped;
	struct {
		char dir[PATH_MAX];
		struct tree before, after;
		char *broken;	/* why the check could not be prepared */
		char *result[STEPS_MAX];
		int steps;
	} side[SIDES];
};

void trial_prepare(struct trial *trial, int side);
void trial_act(struct trial *trial, int side);
void trial_judge(struct trial *trial);	/* prints a line when something differs */
void trial_free(struct trial *trial);
int judge_report(void);			/* prints the last line; how many failed */

#endif
