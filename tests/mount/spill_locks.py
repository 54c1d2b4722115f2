#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""spill_locks.py DO FILE SOURCE CONTROL STATUS...: a file of spill while a lock of it is asked for; see slow.c."""
import fcntl
import os
import struct
import sys
import threading
import time

from spill import content, expect, past_cache, worker_of, write_all

SIZE, MINE, THEIRS = 300000, 0, 200000


def counted(control, number):
    with open(f'{control}/counts', 'rb') as f:
        return struct.unpack_from('Q', f.read(), 8 * number)[0]


def wait_for(what, met):
    for _ in range(5000):
        if met():
            return
        time.sleep(0.002)
    sys.exit(f'{what}: it does not happen')


class Held:
    """All of this kind wait at the inner backend."""
    def __init__(self, control, kind):
        self.path = f'{control}/hold_{kind}'

    def __enter__(self):
        open(self.path, 'w').close()

    def __exit__(self, *_):
        os.unlink(self.path)


class Failing(Held):
    """All of this kind fail there."""
    def __init__(self, control, kind):
        self.path = f'{control}/{kind}'

    def __enter__(self):
        with open(self.path, 'w') as f:
            f.write('5')


def fresh(path):
    """A file of which all is here, and at the inner backend."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    write_all(fd, b'-' * SIZE, 0)
    os.fsync(fd)
    return fd, past_cache(path)


def changed_there(source, text):
    """By somebody else, with another time."""
    before = os.stat(source).st_ctime_ns
    fd = os.open(source, os.O_WRONLY)
    while os.stat(source).st_ctime_ns == before:
        write_all(fd, text, THEIRS)
    os.close(fd)


def started(fn, *args):
    t = threading.Thread(target=fn, args=args)
    t.start()
    return t


def lock(fd):
    fcntl.lockf(fd, fcntl.LOCK_EX, 100, THEIRS)


def waiting(fd, control):
    """Waits for a lock, and has been refused it once."""
    before = counted(control, 10)
    t = started(lock, fd)
    wait_for('waiting for a lock', lambda: counted(control, 10) > before)
    return t


class Waiter:
    """A process that waits for a lock which somebody else has at the source, and does what it is told under it."""
    def __init__(self, path, source, control, fn):
        self.holder = os.open(source, os.O_RDWR)
        fcntl.flock(self.holder, fcntl.LOCK_EX)
        before = counted(control, 10)
        self.pid = os.fork()
        if not self.pid:
            os.close(self.holder)
            fd = os.open(path, os.O_RDWR)
            fcntl.flock(fd, fcntl.LOCK_EX)
            fn(fd)
            os._exit(0)
        wait_for('waiting for a lock', lambda: counted(control, 10) > before)

    def end(self):
        os.close(self.holder)
        expect('end of who waited', 0, os.waitpid(self.pid, 0)[1])


def written_meanwhile(path, source, control, *_):
    """Somebody else writes while what is dirty goes back, before the lock is had."""
    fd, read = fresh(path)
    write_all(fd, b'mine', MINE)
    with Held(control, 'writes'):
        t = started(lock, fd)
        wait_for('writing back', lambda: counted(control, 9))
        changed_there(source, b'theirs')
    t.join()
    expect('under the lock', b'theirs', read(6, THEIRS))
    os.close(fd)


def read_meanwhile(path, source, control, *_):
    """Somebody reads here while the lock is waited for, and then writes beside."""
    fd, read = fresh(path)
    waiter = Waiter(path, source, control, lambda a: expect('under the lock', b'theirs', os.pread(a, 6, THEIRS)))
    expect('before', b'-' * 6, read(6, THEIRS))
    write_all(fd, b'mine', MINE)
    os.fstat(fd)
    changed_there(source, b'theirs')
    waiter.end()
    os.close(fd)


def granted_at_once(path, source, control, *_):
    """It is refused, somebody reads here, and then it is there at once."""
    fd, read = fresh(path)
    with Held(control, 'locks'):
        t = waiting(fd, control)
        expect('before', b'-' * 6, read(6, THEIRS))
        changed_there(source, b'theirs')
    t.join()
    expect('under the lock', b'theirs', read(6, THEIRS))
    os.close(fd)


def not_told(path, source, control, *_):
    """The inner backend does not say whether it changed."""
    fd, read = fresh(path)
    write_all(fd, b'mine', MINE)
    os.fstat(fd)
    expect('before', b'-' * 6, read(6, THEIRS))
    changed_there(source, b'theirs')
    with Failing(control, 'getattr'):
        lock(fd)
    expect('under the lock', b'theirs', read(6, THEIRS))
    os.close(fd)


def written_unsized(path, source, control, *_):
    """What is written while a lock is waited for stays, where there was no room for it at first."""
    fd, read = fresh(path)
    other = os.open(path + '-other', os.O_CREAT | os.O_RDWR, 0o644)
    write_all(other, b'o' * ((2 << 20) - (SIZE + 4095) // 4096 * 4096), 0)
    text = b'mine' * 100000
    with Held(control, 'locks'):
        with Held(control, 'writes'):
            writer = started(write_all, fd, text, SIZE)
            wait_for('making room', lambda: counted(control, 9))
            locker = waiting(fd, control)
        writer.join()
        expect('size', SIZE + len(text), os.fstat(fd).st_size)
        expect('what was written', b'mine', read(4, SIZE + 4096))
    locker.join()
    os.fsync(fd)
    expect('source', b'-' * 7 + text, content(source)[SIZE - 7:])
    os.close(fd)
    os.close(other)


def unpunched(path, source, control, *_):
    """What may be old goes also where the temporary file can have no holes made."""
    fd, read = fresh(path)
    zeros = 25 * 4096
    with open(source, 'r+b') as f:
        f.seek(zeros)
        f.write(bytes(4096))
    changed_there(source, b'theirs')
    write_all(fd, b'mine', THEIRS - 20000)
    with Failing(control, 'write'):
        lock(fd)
        expect('before what is dirty', bytes(4096), read(4096, zeros))
        expect('what is dirty', b'mine', read(4, THEIRS - 20000))
        expect('behind it', b'theirs', read(6, THEIRS))
    os.close(fd)


def refused_back(path, source, control, *_):
    """What was written can not be written back when its lock is given up."""
    fd, _ = fresh(path)
    lock(fd)
    write_all(fd, b'mine', MINE)
    with Failing(control, 'write'):
        fcntl.lockf(fd, fcntl.LOCK_UN, 100, THEIRS)
    os.close(fd)
    expect('later', b'mine', content(source)[:4])


def succeeded(path, source, control, *status):
    """Who waits for a lock when the server dies does not keep its successor from serving others."""
    fd, _ = fresh(path)
    with open(source + '-other', 'w') as f:
        f.write('other')
    waiter = Waiter(path, source, control, lambda _: None)
    worker = worker_of(status) # whose process closes what is open here, and that writes back
    write_all(fd, b'through', MINE) # what a write takes away is known behind it
    write_all(fd, b'mine', MINE)
    with Held(control, 'writes'):
        os.kill(worker, 9)
        reader = started(content, path + '-other')
        wait_for('serving others', lambda: not reader.is_alive())
    waiter.end()
    expect('source', b'mine', content(source)[:4])
    os.close(fd)


if __name__ == '__main__':
    globals()[sys.argv[1]](*sys.argv[2:])
