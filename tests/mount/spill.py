#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""spill.py DO ARGUMENT...: what spill.test does with files where a shell would be clumsy."""
import ctypes
import errno
import mmap
import os
import random
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)


def expect(what, expected, got):
    if expected != got:
        short = [x if len(repr(x)) < 80 else repr(x)[:60] + '...' for x in (expected, got)]
        sys.exit(f'{what}: expected {short[0]}, got {short[1]}')


def content(path):
    with open(path, 'rb') as f:
        return f.read()


def expect_same(a, b):
    if content(a) != content(b):
        sys.exit(f'{a} and {b} differ')


def write_all(fd, data, off):
    while data:
        n = os.pwrite(fd, data, off)
        data, off = data[n:], off + n


def failing(what, fn, *args):
    """The errno that it ends with, by name."""
    try:
        fn(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
    return f'{what} succeeded'


def held(path, source, ready, go):
    """Writes, and says so before it closes when told to."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    write_all(fd, os.urandom(300000), 0)
    open(ready, 'w').close()
    while not os.path.exists(go):
        os.sched_yield()
    os.close(fd)
    expect_same(path, source)


def fails(path, control):
    """Errors of write-back come from fsync and close, and nothing is lost while the file is open."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    write_all(fd, b'a' * 100000, 0)
    with open(control, 'w') as f:
        f.write(str(errno.ENOSPC))
    expect('fsync', 'ENOSPC', failing('fsync', os.fsync, fd))
    expect('close of a copy', 'ENOSPC', failing('close', os.close, os.dup(fd)))
    expect('what was written', b'a' * 100000, os.pread(fd, 200000, 0))
    os.unlink(control)
    os.fsync(fd)
    write_all(fd, b'b' * 10, 50)
    with open(control, 'w') as f:
        f.write(str(errno.EIO))
    expect('close', 'EIO', failing('close', os.close, fd))


def cut(path):
    """What is dirty is cut off again, by ftruncate and by an open."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    write_all(fd, b'a' * 100000, 0)
    os.ftruncate(fd, 0)
    os.close(fd)
    fd = os.open(path, os.O_RDWR)
    write_all(fd, b'b' * 100000, 0)
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    os.close(fd)
    expect('size', 0, os.stat(path).st_size)


def hidden_change(path, source, change):
    """A change that somebody else made is seen behind one that was made here, where nobody looked in between."""
    kept = change.startswith('open-')
    with open(source, 'wb') as f:
        f.write(b'first')
    fd = os.open(path, os.O_RDONLY)
    expect('before', b'first', os.pread(fd, 10, 0))
    if not kept:
        os.close(fd)
    before = os.stat(source)
    # The clock of the source's file system has to go on.
    while os.stat(source).st_ctime_ns == before.st_ctime_ns:
        with open(source, 'r+b') as f:
            f.write(b'other')
        if not change.endswith('times'):
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    if change.endswith('times'):
        os.utime(path, (1, 1))
    elif change.endswith('link'):
        os.link(path, path + '-linked')
    elif change.endswith('rename'):
        os.rename(path, path + '-renamed')
        path += '-renamed'
    elif failing('setxattr', os.setxattr, path, 'user.a', b'b') == 'EOPNOTSUPP':
        return
    expect('behind it', b'other', content(path))
    if kept:
        os.close(fd)


def mapping(path, source):
    """A shared map, of a file that others read by read(2)."""
    with open(path, 'wb') as f:
        f.write(b'-' * 20000)
    fd = os.open(path, os.O_RDWR)
    m = mmap.mmap(fd, 20000)
    m[5000:5005] = b'hello'
    m.flush()
    expect('source after msync', b'hello', content(source)[5000:5005])
    expect('read', b'hello', os.pread(fd, 5, 5000))
    m[7000:7005] = b'later'
    os.close(fd)
    m.close()
    expect('source after munmap', b'later', content(path)[7000:7005])
    fd = os.open(source, os.O_RDONLY)
    while os.pread(fd, 5, 7000) != b'later':
        os.sched_yield()
    os.close(fd)


def passed(path, source):
    """A file that the kernel reads by itself is written: only what changed goes back."""
    content(path)
    reader = os.open(path, os.O_RDONLY)
    size = os.fstat(reader).st_size
    expect('first read', content(source)[:100], os.pread(reader, 100, 0))
    writer = os.open(path, os.O_RDWR)
    write_all(writer, b'changed', 100000)
    write_all(writer, b'tail' * 3000, size)
    expect('by the reader', b'changed', os.pread(reader, 7, 100000))
    expect('size', size + 12000, os.fstat(reader).st_size)
    os.fsync(writer)
    expect_same(path, source)
    m = mmap.mmap(writer, 0)
    m[200000:200006] = b'mapped'
    m.close()
    os.ftruncate(writer, 300000)
    os.close(writer)
    os.fsync(reader)
    expect('source', (b'mapped', 300000), (content(source)[200000:200006], os.stat(source).st_size))
    expect('by the reader', b'mapped', os.pread(reader, 6, 200000))
    os.close(reader)
    expect_same(path, source)


def copies(a, b, count):
    """copy_file_range between files: the inner backend is asked for what is absent, and given at the close."""
    before = content(a)
    writes = int(content(count)[16:24][::-1].hex(), 16)
    src = os.open(a, os.O_RDONLY)
    dst = os.open(b, os.O_CREAT | os.O_RDWR, 0o644)
    done = 0
    while done < len(before):
        n = os.copy_file_range(src, dst, len(before) - done)
        expect('bytes copied', True, n > 0)
        done += n
    expect('writes of the inner backend', writes, int(content(count)[16:24][::-1].hex(), 16))
    expect('copy', before, os.pread(dst, len(before), 0) if len(before) < 1 << 20 else
           b''.join(os.pread(dst, 1 << 20, o) for o in range(0, len(before), 1 << 20)))
    os.close(src)
    os.close(dst)


def copies_to(a, b, source):
    """copy_file_range, of which the inner backend sees nothing before the close."""
    src, dst = os.open(a, os.O_RDONLY), os.open(b, os.O_CREAT | os.O_RDWR, 0o644)
    while os.copy_file_range(src, dst, 1 << 24):
        pass
    expect('size at the inner backend', 0, os.stat(source).st_size)
    os.close(dst)
    os.close(src)
    expect_same(a, source)


def worker_of(status):
    import json
    import subprocess
    return json.loads(subprocess.run(status, check=True, capture_output=True).stdout)['worker_pid']


def killed(path, source, *status):
    """The server dies again and again while a file is written that nobody has written back."""
    rng = random.Random(os.environ.get('SPILL_SEED', '1'))
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    model = bytearray(3000000)
    os.ftruncate(fd, len(model))
    dirty = 0
    for turn in range(30):
        for _ in range(20):
            off, n = rng.randrange(len(model)), rng.randrange(1, 30000)
            data = rng.randbytes(min(n, len(model) - off))
            write_all(fd, data, off)
            model[off:off + len(data)] = data
        dirty += content(source) != bytes(model)
        os.kill(worker_of(status), 9)
        off = rng.randrange(len(model) - 100000)
        expect(f'read after death {turn}', bytes(model[off:off + 100000]), os.pread(fd, 100000, off))
    if dirty < 10:
        sys.exit(f'it was dirty in {dirty} of 30 deaths only: too little was tested')
    os.fsync(fd)
    expect('source', bytes(model), content(source))
    os.close(fd)


def upgraded(path, source, mnt, ctl):
    """Another program goes on with what is dirty."""
    import subprocess
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    write_all(fd, b'before' * 1000, 0)
    subprocess.run([ctl, 'upgrade', mnt], check=True)
    write_all(fd, b'after', 3)
    expect('read', b'befafterfore', os.pread(fd, 12, 0))
    os.fsync(fd)
    os.close(fd)
    expect('source', b'befafter', content(source)[:8])
    expect_same(path, source)


def many(where, n):
    """Files with contents of their own, made, and read in another order."""
    n = int(n)
    for i in range(n):
        with open(f'{where}/f{i}', 'wb') as f:
            f.write(b'%d,' % i * (i % 700 + 1))
    order = list(range(n))
    random.Random(n).shuffle(order)
    for i in order:
        expect(f'f{i}', b'%d,' % i * (i % 700 + 1), content(f'{where}/f{i}'))


def opened(where, n):
    """As many open at a time, all of them dirty."""
    fds = [os.open(f'{where}/o{i}', os.O_CREAT | os.O_RDWR, 0o644) for i in range(int(n))]
    for i, fd in enumerate(fds):
        write_all(fd, b'%d.' % i * 3000, 0)
    for i, fd in enumerate(fds):
        expect(f'o{i}', b'%d.' % i * 3000, os.pread(fd, 30000, 0))
        os.close(fd)


def sparse(path, size):
    """The end of a large file."""
    fd = os.open(path, os.O_RDONLY)
    expect('end', b'the end', os.pread(fd, 100, int(size) - 7))
    os.close(fd)


def pieces(path, source):
    """Reads and writes here and there, against a plain copy."""
    rng = random.Random(os.environ.get('SPILL_SEED', '1'))
    model = bytearray(content(source))
    fd = os.open(path, os.O_RDWR)
    for _ in range(600):
        off, n = rng.randrange(len(model)), rng.randrange(1, 200000)
        if rng.randrange(3):
            expect(f'read of {n} at {off}', bytes(model[off:off + n]), os.pread(fd, n, off))
        else:
            data = rng.randbytes(n)[:len(model) - off]
            write_all(fd, data, off)
            model[off:off + len(data)] = data
    os.close(fd)
    expect('source', bytes(model), content(source))


def appends(path, source):
    a = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    b = os.open(path, os.O_WRONLY | os.O_APPEND)
    for i in range(200):
        os.write(a if i % 2 else b, b'%04d' % i)
    os.close(a)
    os.close(b)
    expect('source', b''.join(b'%04d' % i for i in range(200)), content(source))


def synced(path, source):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DSYNC, 0o644)
    for i in range(5):
        os.write(fd, b'%d' % i * 1000)
        expect('source', b''.join(b'%d' % j * 1000 for j in range(i + 1)), content(source))
    os.close(fd)


def writer_beside(path):
    """A process of its own that never stops to write the first bytes."""
    pid = os.fork()
    if not pid:
        fd = os.open(path, os.O_RDWR)
        i = 0
        while True:
            os.pwrite(fd, b'%015d.' % i * 64, 0)
            i += 1
    return pid


def locked(fd, how, off, fn, *args):
    import fcntl
    fcntl.lockf(fd, how, 100, off)
    try:
        return fn(*args)
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN, 100, off)


def past_cache(path):
    """Reads without the kernel's cache, which a process that writes beside keeps from hearing of changes."""
    fd, buf = os.open(path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 8192)

    def read(size, off):
        os.preadv(fd, [buf], off // 4096 * 4096)
        return buf[off % 4096:off % 4096 + size]
    return read


def locked_beside(one, two, rounds):
    """What was written under a lock is seen under the next one, also where others write beside it all the time."""
    import fcntl
    size = 300000
    with open(one, 'wb') as f:
        f.write(b'-' * size)
    a, b = os.open(one, os.O_RDWR), os.open(two, os.O_RDWR)
    read_a, read_b = past_cache(one), past_cache(two)
    pids = [writer_beside(one) for _ in range(3)]

    def rounds_of(what, n, read_a, read_b):
        for i in range(n):
            off = 100000 + i % 40 * 4096
            text = what + b' %06d' % i
            time.sleep(0.01) # two changes within one tick look like one
            locked(b, fcntl.LOCK_EX, off, os.pwrite, b, text, off)
            expect(f'{text} at {off}', text, locked(a, fcntl.LOCK_EX, off, read_a, len(text), off))
            text = b'back' + text
            time.sleep(0.01)
            locked(a, fcntl.LOCK_EX, off, os.pwrite, a, text, off)
            expect(f'{text} at {off}', text, locked(b, fcntl.LOCK_SH, off, read_b, len(text), off))

    try:
        rounds_of(b'beside', int(rounds), read_a, read_b)
        for i in range(int(rounds) // 10):
            text = b'grown %06d' % i
            locked(b, fcntl.LOCK_EX, size, os.pwrite, b, text, size)
            expect(f'grown in round {i}', text, locked(a, fcntl.LOCK_SH, size, read_a, len(text), size))
            size += len(text)
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
    rounds_of(b'alone', int(rounds), lambda n, off: os.pread(a, n, off), lambda n, off: os.pread(b, n, off))


def locked_readers(one, two, rounds):
    """Of a file that is read only here, and whole: under a lock it is what it is there."""
    import fcntl
    with open(two, 'wb') as f:
        f.write(b'-' * 300000)
    content(one)
    content(one)
    a, b = os.open(one, os.O_RDONLY), os.open(two, os.O_RDWR)
    for i in range(int(rounds)):
        off = i % 70 * 4096
        text = b'read %06d' % i
        time.sleep(0.01)
        locked(b, fcntl.LOCK_EX, off, os.pwrite, b, text, off)
        expect(f'round {i}', text, locked(a, fcntl.LOCK_SH, off, os.pread, a, len(text), off))


def locked_waiting(one, two, rounds):
    """Who waits for a lock sees what was written before it was granted, while others write beside it."""
    import fcntl
    with open(one, 'wb') as f:
        f.write(b'-' * 300000)
    b = os.open(two, os.O_RDWR)
    pid = writer_beside(one)
    try:
        for i in range(int(rounds)):
            off, text = 100000 + i * 4096, b'waited %06d' % i
            fcntl.lockf(b, fcntl.LOCK_EX)
            said, says = os.pipe()
            child = os.fork()
            if not child:
                a, read = os.open(one, os.O_RDWR), past_cache(one)
                read(len(text), off)
                os.write(says, b'x')
                expect(f'{text} at {off}', text, locked(a, fcntl.LOCK_EX, off, read, len(text), off))
                os._exit(0)
            os.read(said, 1)
            time.sleep(0.2)
            os.pwrite(b, text, off)
            fcntl.lockf(b, fcntl.LOCK_UN)
            if os.waitpid(child, 0)[1]:
                sys.exit(f'round {i}')
            os.close(said)
            os.close(says)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def locked_by_close(one, two):
    """A lock goes with any close of its file, and flock(2)'s with a descriptor that was not written by."""
    import fcntl
    a = os.open(one, os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(a, b'old text', 0)
    os.fsync(a)
    for i in range(20):
        text = b'closed %d' % (10 + i)
        other = os.open(one, os.O_RDONLY)
        fcntl.lockf(a, fcntl.LOCK_EX)
        # the first write may go through for what it takes away
        os.pwrite(a, b'first', 20)
        os.pwrite(a, text, 0)
        os.close(other)
        b = os.open(two, os.O_RDWR)
        fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
        expect(f'lockf {i}', text, os.pread(b, len(text), 0))
        os.close(b)
        text = b'flocks %d' % (10 + i)
        other = os.open(one, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        os.pwrite(a, b'first', 20)
        os.pwrite(a, text, 0)
        os.close(other)
        b = os.open(two, os.O_RDONLY)
        fcntl.flock(b, fcntl.LOCK_SH)
        expect(f'flock {i}', text, os.pread(b, len(text), 0))
        os.close(b)


if __name__ == '__main__':
    globals()[sys.argv[1]](*sys.argv[2:])
