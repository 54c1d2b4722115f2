/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A mount of server.h with the module attached and handlers of handlers.bpf.c, and values put for them.
 */
#ifndef VM_RIG_H
#define VM_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/extfuse.h"
#include "bpf/extfuse_ioctl.h"
#include "tests/vm/server.h"
#include "tests/vm/values.h"

struct bpf_object;

struct rig {
	struct mounted *m;
	struct fs *fs;
	int dev;
	struct extfuse_area *area;
	struct extfuse_word *words;
	struct extfuse_node *nodes;
	struct bpf_object *object;
	int names, attrs, xattrs, script;
};

extern int failures;

/* The result of one thing: its name, whether it is as it should be, and what is. */
void result(bool good, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
void fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* A server at /tmp/NAME, not attached. */
struct rig *rig_open(const char *name);
/* Attached, with LOOKUP, GETATTR and GETXATTR answered by handlers. */
void rig_start(struct rig *r);
/* Both. */
struct rig *rig_new(const char *name);
/* LOOKUP and GETATTR also before there is a request. */
void rig_early(struct rig *r);
void rig_free(struct rig *r);
/* errno, or 0. */
int rig_attach(struct rig *r, uint32_t word_bits, uint32_t nodes);
int rig_program(struct rig *r, uint32_t opcode, const char *program, uint32_t flags);
int rig_backing(struct rig *r, uint64_t nodeid, int fd);
struct extfuse_opcode_stats rig_stats(struct rig *r, uint32_t opcode);
void rig_settle(struct rig *r);

uint64_t rig_all(struct rig *r);
uint64_t rig_node_state(struct rig *r, uint64_t nodeid);
uint64_t rig_stamp(struct rig *r);
void rig_bump(struct rig *r, struct extfuse_word *word);
struct extfuse_word *rig_node_word(struct rig *r, uint64_t nodeid);
struct extfuse_word *rig_name_word(struct rig *r, uint64_t parent, const char *name);

/* What the server would say now. */
void rig_put_attr(struct rig *r, uint64_t nodeid);
void rig_put_attr_value(struct rig *r, uint64_t nodeid, const struct attr_value *value);
struct attr_value rig_attr_value(struct rig *r, uint64_t nodeid);
void rig_put_name(struct rig *r, uint64_t parent, const char *name);
void rig_put_xattr(struct rig *r, uint64_t nodeid, const char *name, const char *value, uint32_t size);

unsigned long rig_asked(struct rig *r, uint32_t opcode);
/* The path inside the mount; four at a time. */
const char *rig_path(struct rig *r, const char *below);
/* A descriptor that only names: fstat() of it is one GETATTR. */
int rig_handle(struct rig *r, const char *below);
uint64_t rig_id(struct rig *r, const char *below);
void rig_file(struct rig *r, const char *below);
void rig_dir(struct rig *r, const char *below);

void test_answers(void);
void test_figures(void);
void test_mutations(void);
void test_underway(void);
void test_opcodes(void);
void test_hostile(void);
void test_data(void);
void test_direct(void);
void test_life(void);
void test_closing(void);
void test_device(void);
void test_coherence(void);
void test_early(void);

#endif
