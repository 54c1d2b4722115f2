/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the library puts, the handlers find: names, attributes, and when they no longer do. */
#include <fcntl.h>

#include "tests/unit/cache.h"

static void setup(void)
{
	open_context(0);
	load_maps();
}

static struct extfuse_request r;

static const char *name_of(size_t len)
{
	static char name[300];

	memset(name, 'n', len);
	name[len] = 0;
	snprintf(name, len + 1, "%zu", len);
	name[strlen(name)] = len > strlen(name) ? 'x' : 0;
	return name;
}

static void check_entry(uint64_t nodeid)
{
	const struct fuse_entry_out *out = (const struct fuse_entry_out *)r.out;
	const struct fuse_attr expected = attr(nodeid);

	ck_assert_int_eq(r.error, 0);
	ck_assert_uint_eq(r.out_size, sizeof(*out));
	ck_assert_uint_eq(out->nodeid, nodeid);
	ck_assert_uint_eq(out->generation, nodeid ^ 99);
	ck_assert_uint_eq(r.node_index, nodeid % NODES);
	ck_assert_mem_eq(&out->attr, &expected, sizeof(expected));
	ck_assert_uint_eq(
		out->entry_valid + out->attr_valid + out->entry_valid_nsec + out->attr_valid_nsec, 0);
}

START_TEST(names_of_all_lengths)
{
	static const size_t lengths[] = { 1,  2,  7,  8,  9,   31,  32,	 39, 40,
					  41, 47, 48, 49, 128, 248, 254, 255 };
	const size_t n = sizeof(lengths) / sizeof(*lengths);

	for (size_t i = 0; i < n; i++) {
		ck_assert_int_eq(lookup(ROOT, name_of(lengths[i]), &r), EXTFUSE_UPCALL);
		ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, name_of(lengths[i]), 1000 + i, 0), 0);
	}
	for (size_t i = 0; i < n; i++) {
		ck_assert_int_eq(lookup(ROOT, name_of(lengths[i]), &r), EXTFUSE_RETURN);
		check_entry(1000 + i);
		ck_assert_uint_eq(r.ndeps, 2);
		ck_assert_int_eq(lookup(ROOT + 1, name_of(lengths[i]), &r), EXTFUSE_UPCALL);
	}
	ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, name_of(256), 9, 0), -ENAMETOOLONG);
	ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, "", 9, 0), -EINVAL);
}
END_TEST

START_TEST(absent_names)
{
	struct fuse_entry_out out;

	memset(&out, 0x77, sizeof(out));
	ck_assert_int_eq(extfuse_put_negative(x, extfuse_stamp(x), ROOT, "gone", &out, 0), 0);
	ck_assert_uint_eq(out.nodeid | out.entry_valid | out.entry_valid_nsec, 0);
	ck_assert_int_eq(lookup(ROOT, "gone", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(r.error, -ENOENT);
	ck_assert_uint_eq(r.out_size, 0);
	ck_assert_uint_eq(r.ndeps, 1);
	/* a name that appears replaces it */
	ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, "gone", 50, 0), 0);
	ck_assert_int_eq(lookup(ROOT, "gone", &r), EXTFUSE_RETURN);
	check_entry(50);
}
END_TEST

START_TEST(positive_names_need_attributes)
{
	uint64_t nodeid = 60;

	ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, "file", nodeid, 0), 0);
	ck_assert_int_eq(lookup(ROOT, "file", &r), EXTFUSE_RETURN);
	map_drop(x, MAP_ATTR, &nodeid);
	ck_assert_int_eq(lookup(ROOT, "file", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), nodeid, 0), 0);
	ck_assert_int_eq(lookup(ROOT, "file", &r), EXTFUSE_RETURN);
}
END_TEST

START_TEST(lookups_are_counted_or_not_answered)
{
	struct fuse_entry_out out = { .nodeid = 70, .attr = attr(70) };

	ck_assert_int_eq(extfuse_put_entry(x, extfuse_stamp(x), ROOT, "file", NODES, &out, 0), 0);
	ck_assert_int_eq(lookup(ROOT, "file", &r), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(times_to_live)
{
	uint64_t stamp = extfuse_stamp(x);

	ck_assert_int_eq(put_entry(stamp, ROOT, "file", 80, 0), 0);
	ck_assert_int_eq(extfuse_put_negative(x, stamp, ROOT, "none", NULL, 0), 0);
	r = request(FUSE_LOOKUP, ROOT, "file");
	r.now += 4900000000;
	ck_assert_int_eq(run("extfuse_lookup", &r), EXTFUSE_RETURN);
	ck_assert_uint_gt(r.expires, r.now);
	r = request(FUSE_LOOKUP, ROOT, "file");
	r.now += 5000000000;
	ck_assert_int_eq(run("extfuse_lookup", &r), EXTFUSE_UPCALL);
	r = request(FUSE_GETATTR, 80, NULL);
	r.now += 6900000000;
	ck_assert_int_eq(run("extfuse_getattr", &r), EXTFUSE_RETURN);
	r = request(FUSE_GETATTR, 80, NULL);
	r.now += 7000000000;
	ck_assert_int_eq(run("extfuse_getattr", &r), EXTFUSE_UPCALL);
	r = request(FUSE_LOOKUP, ROOT, "none");
	r.now += 3000000000;
	ck_assert_int_eq(run("extfuse_lookup", &r), EXTFUSE_UPCALL);
}
END_TEST

/* What is left is told to the driver, not the whole time anew. */
START_TEST(times_for_the_driver)
{
	const struct fuse_attr_out *out = (const struct fuse_attr_out *)r.out;
	struct fuse_attr_out reply = { .attr = attr(90) };

	x->options.flags = EXTFUSE_KERNEL_TTL;
	ck_assert_int_eq(extfuse_put_attr(x, extfuse_stamp(x), 90, &reply, 0), 0);
	ck_assert_uint_eq(reply.attr_valid, 7);
	r = request(FUSE_GETATTR, 90, NULL);
	r.now += 4000000000;
	ck_assert_int_eq(run("extfuse_getattr", &r), EXTFUSE_RETURN);
	ck_assert_uint_le(out->attr_valid, 3);
	ck_assert_uint_eq(out->attr_valid * 1000000000 + out->attr_valid_nsec, r.expires - r.now);
}
END_TEST

START_TEST(attributes)
{
	const struct fuse_attr_out *out = (const struct fuse_attr_out *)r.out;
	const struct fuse_attr expected = attr(100);

	ck_assert_int_eq(getattr(100, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 100, 0), 0);
	ck_assert_int_eq(getattr(100, &r), EXTFUSE_RETURN);
	ck_assert_uint_eq(r.out_size, sizeof(*out));
	ck_assert_mem_eq(&out->attr, &expected, sizeof(expected));
	ck_assert_uint_eq(out->attr_valid + out->attr_valid_nsec + out->dummy, 0);
	ck_assert_int_eq(getattr(101, &r), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(data_is_passed_on)
{
	r = request(FUSE_READ, 110, NULL);
	ck_assert_int_eq(run("extfuse_read", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 110, EXTFUSE_PASSTHRU_READ), 0);
	ck_assert_int_eq(run("extfuse_read", &r), EXTFUSE_PASSTHRU);
	ck_assert_int_eq(run("extfuse_write", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 110, EXTFUSE_PASSTHRU_WRITE), 0);
	ck_assert_int_eq(run("extfuse_read", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(run("extfuse_write", &r), EXTFUSE_PASSTHRU);
}
END_TEST

/* ---- what makes them old ---- */

START_TEST(changes_end_values)
{
	uint64_t stamp = extfuse_stamp(x);

	ck_assert_int_eq(put_entry(stamp, ROOT, "file", 120, 0), 0);
	begin(word(ABOUT_NODE, 120, NULL));
	ck_assert_int_eq(getattr(120, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(lookup(ROOT, "file", &r), EXTFUSE_UPCALL);
	end(word(ABOUT_NODE, 120, NULL));
	ck_assert_int_eq(getattr(120, &r), EXTFUSE_UPCALL);
	/* what was asked before is refused, what is asked now is not */
	ck_assert_int_eq(put_attr(stamp, 120, 0), -ESTALE);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 120, 0), 0);
	ck_assert_int_eq(lookup(ROOT, "file", &r), EXTFUSE_RETURN);
	begin(word(ABOUT_NAME, ROOT, "file"));
	end(word(ABOUT_NAME, ROOT, "file"));
	ck_assert_int_eq(lookup(ROOT, "file", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(getattr(120, &r), EXTFUSE_RETURN);
	begin(word_all(x));
	ck_assert_int_eq(getattr(120, &r), EXTFUSE_UPCALL);
	end(word_all(x));
	ck_assert_int_eq(getattr(120, &r), EXTFUSE_UPCALL);
}
END_TEST

/* Asked while a change is under way: whatever was read, it is not kept beyond its end. */
START_TEST(asked_during_a_change)
{
	struct extfuse_word *w = word(ABOUT_NODE, 130, NULL);
	uint64_t stamp;

	begin(w);
	stamp = extfuse_stamp(x);
	ck_assert_int_eq(put_attr(stamp, 130, 0), -ESTALE);
	end(w);
	ck_assert_int_eq(put_attr(stamp, 130, 0), -ESTALE);
	ck_assert_int_eq(getattr(130, &r), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(own_results)
{
	struct extfuse_word *w = word(ABOUT_NODE, 140, NULL);
	uint64_t stamp;

	begin(w);
	stamp = extfuse_stamp(x);
	ck_assert_int_eq(put_attr(stamp, 140, EXTFUSE_OWN_NODE), 0);
	ck_assert_int_eq(getattr(140, &r), EXTFUSE_UPCALL);
	end(w);
	ck_assert_int_eq(getattr(140, &r), EXTFUSE_RETURN);
	begin(w);
	end(w);
	ck_assert_int_eq(getattr(140, &r), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(own_results_with_others)
{
	struct extfuse_word *w = word(ABOUT_NODE, 150, NULL);
	uint64_t stamp;

	/* another one begins before the put */
	begin(w);
	stamp = extfuse_stamp(x);
	begin(w);
	ck_assert_int_eq(put_attr(stamp, 150, EXTFUSE_OWN_NODE), -ESTALE);
	end(w);
	/* ... and is over: it may have come after what was read */
	ck_assert_int_eq(put_attr(stamp, 150, EXTFUSE_OWN_NODE), -ESTALE);
	end(w);
	/* another one begins after the put, and ends first, or last */
	for (int i = 0; i < 2; i++) {
		begin(w);
		stamp = extfuse_stamp(x);
		ck_assert_int_eq(put_attr(stamp, 150, EXTFUSE_OWN_NODE), 0);
		begin(w);
		end(w);
		ck_assert_int_eq(getattr(150, &r), EXTFUSE_UPCALL);
		end(w);
		ck_assert_int_eq(getattr(150, &r), EXTFUSE_UPCALL);
	}
	/* a change that came by another way */
	begin(w);
	stamp = extfuse_stamp(x);
	ck_assert_int_eq(put_attr(stamp, 150, EXTFUSE_OWN_NODE), 0);
	extfuse_invalidate_node(x, 150, EXTFUSE_KEEP_DATA);
	end(w);
	ck_assert_int_eq(getattr(150, &r), EXTFUSE_UPCALL);
}
END_TEST

START_TEST(own_names)
{
	struct extfuse_word *w = word(ABOUT_NAME, ROOT, "new");
	uint64_t stamp;

	begin(w);
	stamp = extfuse_stamp(x);
	ck_assert_int_eq(put_entry(stamp, ROOT, "new", 160, 0), -ESTALE);
	ck_assert_int_eq(put_entry(stamp, ROOT, "new", 160, EXTFUSE_OWN_NAME), 0);
	end(w);
	ck_assert_int_eq(lookup(ROOT, "new", &r), EXTFUSE_RETURN);
	check_entry(160);
	begin(w);
	ck_assert_int_eq(extfuse_put_negative(x, extfuse_stamp(x), ROOT, "new", NULL, EXTFUSE_OWN_NAME),
			 0);
	end(w);
	ck_assert_int_eq(lookup(ROOT, "new", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(r.error, -ENOENT);
}
END_TEST

START_TEST(told_changes)
{
	uint64_t stamp = extfuse_stamp(x);

	ck_assert_int_eq(put_entry(stamp, ROOT, "a", 170, 0), 0);
	ck_assert_int_eq(extfuse_invalidate_entry(x, ROOT, "a"), 0);
	ck_assert_int_eq(lookup(ROOT, "a", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(getattr(170, &r), EXTFUSE_RETURN);
	ck_assert_int_eq(put_entry(stamp, ROOT, "a", 170, 0), -ESTALE);
	extfuse_invalidate_node(x, 170, 0);
	ck_assert_int_eq(getattr(170, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, "a", 170, 0), 0);
	extfuse_invalidate_deleted(x, ROOT, 170, "a");
	ck_assert_int_eq(lookup(ROOT, "a", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(getattr(170, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 170, 0), 0);
	ck_assert_int_eq(extfuse_invalidate_all(x), 0);
	ck_assert_int_eq(getattr(170, &r), EXTFUSE_UPCALL);
}
END_TEST

/* The driver knows: it is not notified. */
START_TEST(outdated_without_a_word)
{
	uint64_t stamp = extfuse_stamp(x), notifications = x->counters.notifications;

	ck_assert_int_eq(put_entry(stamp, ROOT, "b", 175, 0), 0);
	ck_assert_int_eq(extfuse_outdated_node(x, 175), 0);
	ck_assert_int_eq(getattr(175, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(stamp, 175, 0), -ESTALE);
	ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, "b", 175, 0), 0);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), ROOT, 0), 0);
	ck_assert_int_eq(lookup(ROOT, "b", &r), EXTFUSE_RETURN);
	ck_assert_int_eq(extfuse_outdated_entry(x, ROOT, "b"), 0);
	ck_assert_int_eq(lookup(ROOT, "b", &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(getattr(ROOT, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(getattr(175, &r), EXTFUSE_RETURN);
	ck_assert_int_eq(extfuse_outdated_entry(x, ROOT, ""), -EINVAL);
	ck_assert_uint_eq(x->counters.notifications, notifications);
}
END_TEST

/* Files that are written without requests. */
START_TEST(holds_are_silent)
{
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 180, 0), 0);
	ck_assert_int_eq(extfuse_hold(x, 180), 0);
	ck_assert_int_eq(getattr(180, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 180, 0), -ESTALE);
	ck_assert_int_eq(extfuse_unhold(x, 180), 0);
	ck_assert_int_eq(getattr(180, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 180, 0), 0);
	ck_assert_int_eq(extfuse_unhold(x, 180), -EINVAL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 180, 0), 0);
	ck_assert_int_eq(extfuse_hold(x, 180), 0);
	ck_assert_int_eq(extfuse_hold_reset(x), 0);
	ck_assert_int_eq(getattr(180, &r), EXTFUSE_UPCALL);
	ck_assert_int_eq(put_attr(extfuse_stamp(x), 180, 0), 0);
	ck_assert_int_eq(getattr(180, &r), EXTFUSE_RETURN);
}
END_TEST

START_TEST(wrong_values_are_refused)
{
	struct fuse_attr_out out = { .attr = attr(190) };

	ck_assert_int_eq(put_attr(extfuse_stamp(x), 0, 0), -EINVAL);
	out.attr.size = 1ull << 63;
	ck_assert_int_eq(extfuse_put_attr(x, extfuse_stamp(x), 190, &out, 0), -EINVAL);
	out.attr = attr(190);
	out.attr.mode = 0644;
	ck_assert_int_eq(extfuse_put_attr(x, extfuse_stamp(x), 190, &out, 0), -EINVAL);
	ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, "root", ROOT, 0), -EINVAL);
	ck_assert_int_eq(getattr(190, &r), EXTFUSE_UPCALL);
}
END_TEST

/* Full maps evict; the newest is there. */
START_TEST(full_maps)
{
	uint32_t n = x->sizes.elements[MAP_ATTR] * 4;
	char name[16];

	for (uint32_t i = 2; i < n; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ck_assert_int_eq(put_entry(extfuse_stamp(x), ROOT, name, i, 0), 0);
		if (i % 64 == 0) {
			ck_assert_int_eq(lookup(ROOT, name, &r), EXTFUSE_RETURN);
			check_entry(i);
		}
	}
	ck_assert_int_eq(lookup(ROOT, "f2", &r), EXTFUSE_UPCALL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { names_of_all_lengths,
				       absent_names,
				       positive_names_need_attributes,
				       lookups_are_counted_or_not_answered,
				       times_to_live,
				       times_for_the_driver,
				       attributes,
				       data_is_passed_on,
				       changes_end_values,
				       asked_during_a_change,
				       own_results,
				       own_results_with_others,
				       own_names,
				       told_changes,
				       outdated_without_a_word,
				       holds_are_silent,
				       wrong_values_are_refused,
				       full_maps,
				       NULL };

	need_bpf();
	return unit_run("handlers", tests, setup, close_context);
}
