/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs in a guest, with the module loaded. Prints result lines; the status is 1 where something failed.
 */
#include <signal.h>

#include "tests/vm/rig.h"

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{ "device", test_device },
		{ "answers", test_answers },
		{ "figures", test_figures },
		{ "early", test_early },
		{ "opcodes", test_opcodes },
		{ "mutations", test_mutations },
		{ "underway", test_underway },
		{ "hostile", test_hostile },
		{ "data", test_data },
		{ "direct", test_direct },
		{ "coherence", test_coherence },
		{ "life", test_life },
		{ "closing", test_closing },
	};

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (argc < 2 || !strcmp(argv[1], tests[i].name))
			tests[i].run();
	}
	return failures != 0;
}
