#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""order.py FILE CONTROL STATUS-COMMAND...: a page that is dropped and read again while it is being written."""
import json
import os
import struct
import subprocess
import sys
import time

path, control, status = sys.argv[1], sys.argv[2], sys.argv[3:]
OLD, NEW = b'a' * 4096, b'b' * 512
WRITING = 9  # its place in counts


def child(work):
    pid = os.fork()
    if not pid:
        os._exit(work() or 0)
    return pid


def wait_until(what, true):
    end = time.monotonic() + 60
    while not true():
        if time.monotonic() > end:
            sys.exit(f'{what} did not come about')
        time.sleep(0.01)


def writing():
    with open(f'{control}/counts', 'rb') as f:
        return struct.unpack_from('<Q', f.read(), WRITING * 8)[0]


def in_flight():
    out = subprocess.run(status, check=True, capture_output=True).stdout
    return json.loads(out)['in_flight']


with open(path, 'wb') as f:
    f.write(OLD)
fd = os.open(path, os.O_RDWR)
if os.pread(fd, 8192, 0) != OLD:
    sys.exit('the file is not what was written')
hold = f'{control}/hold_writes'
open(hold, 'w').close()
writer = child(lambda: os.pwrite(fd, NEW, 0) != len(NEW))
wait_until('the write', writing)
# The open drops the page.
again = os.open(path, os.O_RDONLY)
reader = child(lambda: os.pread(again, 4096, 0) != NEW + OLD[512:])
wait_until('the read', lambda: os.waitid(os.P_PID, reader, os.WEXITED | os.WNOHANG | os.WNOWAIT) or in_flight() > 1)
os.unlink(hold)
statuses = [os.waitpid(pid, 0)[1] for pid in (writer, reader)]
if statuses[0]:
    sys.exit('the write failed')
if os.pread(fd, 4096, 0) != NEW + OLD[512:]:
    sys.exit('a page that was read while it was written is shown as it was before')
if statuses[1]:
    sys.exit('the read overtook the write')
