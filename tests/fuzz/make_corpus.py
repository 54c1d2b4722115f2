#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the seed corpora: make_corpus.py [DIRECTORY]

request/: one file for each operation with all that must come before it, and some longer sequences; the
format is described in fuzz_request.c. options/: command lines, as fuzz_options.c takes them.
checkpoint/: changes to a good checkpoint, see fuzz_checkpoint.c. area/: what libextfuse is given, see
fuzz_area.c. remote/: what a 9P server answers, see fuzz_remote.c.
"""
import os
import struct
import sys

OPCODES = dict(
    LOOKUP=1, FORGET=2, GETATTR=3, SETATTR=4, READLINK=5, SYMLINK=6, MKNOD=8, MKDIR=9, UNLINK=10, RMDIR=11,
    RENAME=12, LINK=13, OPEN=14, READ=15, WRITE=16, STATFS=17, RELEASE=18, FSYNC=20, SETXATTR=21, GETXATTR=22,
    LISTXATTR=23, REMOVEXATTR=24, FLUSH=25, INIT=26, OPENDIR=27, READDIR=28, RELEASEDIR=29, FSYNCDIR=30, GETLK=31,
    SETLK=32, SETLKW=33, ACCESS=34, CREATE=35, INTERRUPT=36, BMAP=37, DESTROY=38, IOCTL=39, POLL=40,
    NOTIFY_REPLY=41, BATCH_FORGET=42, FALLOCATE=43, READDIRPLUS=44, RENAME2=45, LSEEK=46, COPY_FILE_RANGE=47,
    SETUPMAPPING=48, REMOVEMAPPING=49, SYNCFS=50, TMPFILE=51, STATX=52)
LOCKS, NOHANDLES, WRITEBACK, NEGATIVE, SETXATTR, SUBMOUNTS, NO_INIT = (1 << i for i in range(7))
RAW, EXT, REFUSED, USER, NOBODY, OTHER, BAD_NODE, LENGTH = (1 << i for i in range(8))
O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_TMPFILE = 2, 0o100, 0o200, 0o1000, 0o20200000


def req(op, payload=b'', node=0, fh=0, flags=0):
    return struct.pack('<BBBBH', OPCODES[op], node, fh, flags, len(payload)) + payload


def text(*names):
    return b''.join(n.encode() + b'\0' for n in names)


def lookup(name, node=0, flags=0):
    return req('LOOKUP', text(name), node, flags=flags)


def group():
    return struct.pack('<4I', 16, 32, 1, 1000)


def lock(kind, whole=0, owner=1, start=0, end=2**64 - 1):
    return struct.pack('<QQQQIIII', 0, owner, start, end, kind, 1, whole, 0)


# The nodes that SCENE makes known: 1 d, 2 d/e, 3 f, 4 l, 5 d/s; its handles: file 0 on f, directory 0 on d.
SCENE = (lookup('d') + lookup('e', 1) + lookup('f') + lookup('l') + lookup('s', 1) +
         req('OPEN', struct.pack('<II', O_RDWR, 0), 3) + req('OPENDIR', struct.pack('<II', 0, 0), 1))
READ = struct.pack('<QQIIQII', 0, 0, 4096, 0, 0, O_RDWR, 0)


def setattr_in(valid, size=3, mode=0o6755, uid=1000, gid=1000):
    return struct.pack('<IIQQQQQQIIIIIIII', valid, 0, 0, size, 0, 5, 6, 7, 8, 9, 10, mode, 0, uid, gid, 0)


def write_in(data, off=0, flags=0):
    return struct.pack('<QQIIQII', 0, off, len(data), flags, 0, O_RDWR, 0) + data


def create_in(name, flags=O_RDWR | O_CREAT, mode=0o100644):
    return struct.pack('<IIII', flags, mode, 0o22, 0) + text(name)


def ioctl_in(cmd, data, out):
    return struct.pack('<QIIQII', 0, 0, cmd, 0, len(data), out) + data


def single():
    """Each operation once: name, options, requests."""
    fh = struct.pack('<Q', 0)
    yield 'lookup', 0, lookup('missing') + lookup('p') + lookup('abs', 1)
    yield 'lookup-negative', NEGATIVE, lookup('missing')
    yield 'forget', 0, req('FORGET', struct.pack('<Q', 1), 5) + lookup('s', 1)
    yield 'batch-forget', 0, req('BATCH_FORGET', struct.pack('<IIQQQQ', 2, 0, 3, 1, 4, 1), flags=RAW)
    yield 'getattr', 0, req('GETATTR', struct.pack('<IIQ', 1, 0, 0), 3) + req('GETATTR', bytes(16), 4)
    yield 'statx', 0, req('STATX', struct.pack('<IIQII', 1, 0, 0, 0, 0xfff), 3)
    for bit in (0, 1, 2, 4, 8, 0x10, 0x20, 0x1b0, 0x40 | 8, 1 << 11 | 8, 0xfff):
        yield f'setattr-{bit:x}', 0, req('SETATTR', setattr_in(bit), 5, flags=USER) + req('SETATTR', setattr_in(bit), 4)
    yield 'readlink', 0, req('READLINK', node=4) + req('READLINK', node=3)
    yield 'symlink', 0, req('SYMLINK', text('new', '../../outside/canary'), 1) + req('READLINK', node=6)
    for mode in (0o100644, 0o10644, 0o140644, 0o20644, 0o60644, 0o40755, 0o102775):
        yield f'mknod-{mode:o}', 0, (req('MKNOD', struct.pack('<IIII', mode, 0x103, 0o22, 0) + text('new'), 2, flags=USER) +
                                     req('OPEN', struct.pack('<II', O_RDWR, 0), 6))
    yield 'mkdir', 0, (req('MKDIR', struct.pack('<II', 0o755, 0o22) + text('new'), 1) +
                       req('MKDIR', bytes([2]) + struct.pack('<II', 0o755, 0)[1:] + text('abc') + group(), 2, flags=EXT | USER) +
                       req('RMDIR', text('new'), 1))
    yield 'unlink', 0, req('UNLINK', text('s'), 1) + req('GETATTR', bytes(16), 5) + req('UNLINK', text('hard'), 1)
    yield 'rmdir', 0, req('RMDIR', text('e'), 1) + req('GETATTR', bytes(16), 2) + req('RMDIR', text('d'))
    yield 'rename', 0, req('RENAME', fh + text('f', 'moved'), 0, 1) + req('RENAME', fh + text('s', 'f'), 1, 0)
    for flags in (1, 2, 4, 3, 8):
        yield f'rename2-{flags}', 0, req('RENAME2', struct.pack('<QII', 0, flags, 0) + text('f', 's'), 0, 1)
    yield 'link', 0, req('LINK', fh + text('again'), 1, 3) + req('LINK', fh + text('dir'), 1, 1)
    yield 'open', 0, req('OPEN', struct.pack('<II', O_RDWR | O_TRUNC, 1), 5, flags=USER) + req('OPEN', bytes(8), 4)
    yield 'read', 0, req('READ', READ, 3)
    yield 'write', 0, req('WRITE', write_in(b'some data', 5), 3, flags=USER) + req('WRITE', write_in(b'x', 2**40, 5), 3)
    yield 'statfs', 0, req('STATFS', node=4)
    yield 'release', 0, req('RELEASE', bytes(24), 3) + req('RELEASE', bytes(24), 3) + req('READ', READ, 3)
    yield 'fsync', 0, req('FSYNC', struct.pack('<QII', 0, 1, 0), 3)
    yield 'setxattr', 0, (req('SETXATTR', struct.pack('<II', 3, 0) + text('user.a') + b'abc', 3) +
                          req('GETXATTR', struct.pack('<II', 0, 0) + text('user.a'), 3) +
                          req('LISTXATTR', struct.pack('<II', 99, 0), 3) + req('REMOVEXATTR', text('user.a'), 3))
    yield 'setxattr-ext', SETXATTR, req('SETXATTR', struct.pack('<IIII', 3, 1, 1, 0) + text('trusted.a') + b'abc', 3)
    acl = struct.pack('<IHHIHHIHHI', 2, 1, 7, 2**32 - 1, 4, 5, 2**32 - 1, 32, 5, 2**32 - 1)
    yield 'setxattr-acl', SETXATTR, req('SETXATTR', struct.pack('<IIII', len(acl), 0, 1, 0) +
                                        text('system.posix_acl_access') + acl, 5, flags=USER)
    yield 'xattr-link', 0, req('GETXATTR', struct.pack('<II', 9, 0) + text('trusted.b'), 4) + req('LISTXATTR', bytes(8), 4)
    yield 'flush', 0, req('FLUSH', struct.pack('<QIIQ', 0, 0, 0, 1), 3)
    yield 'readdir', 0, req('READDIR', READ, 1) + req('READDIR', struct.pack('<QQIIQII', 0, 3, 64, 0, 0, 0, 0), 1)
    yield 'readdirplus', 0, req('READDIRPLUS', READ, 1) + req('READDIRPLUS', struct.pack('<QQIIQII', 0, 1, 200, 0, 0, 0, 0), 1)
    yield 'releasedir', 0, req('RELEASEDIR', bytes(24), 1) + req('READDIR', READ, 1)
    yield 'fsyncdir', 0, req('FSYNCDIR', bytes(16), 1) + req('FSYNCDIR', b'\x77' * 16, 1, flags=RAW)
    for name, options in (('lock', LOCKS), ('lock-local', 0)):
        yield name, options, (req('OPEN', struct.pack('<II', O_RDWR, 0), 3) + req('SETLK', lock(1), 3) +
                              req('GETLK', lock(1, owner=2), 3, 1) + req('SETLKW', lock(1, owner=2), 3, 1) +
                              req('SETLKW', lock(0, 1, owner=3), 1, 128) + req('SETLK', lock(1, 1, owner=4), 1, 128) +
                              req('INTERRUPT', bytes(8), 10) + req('SETLK', lock(2), 3) + req('RELEASE', bytes(24), 3))
        yield name + '-wait', options, req('SETLK', lock(1), 3) + req('SETLKW', lock(1, owner=2), 3)
    yield 'access', 0, req('ACCESS', struct.pack('<II', 4, 0), 3)
    yield 'create', 0, (req('CREATE', create_in('new'), 2, flags=USER) + req('WRITE', write_in(b'data'), 6, 1) +
                        req('CREATE', create_in('new', O_RDWR | O_CREAT | O_EXCL), 2) + req('CREATE', create_in('l')))
    yield 'tmpfile', 0, (req('TMPFILE', create_in('', O_RDWR | O_TMPFILE), 1) + req('LINK', fh + text('named'), 1, 6) +
                         req('RELEASE', bytes(24), 6, 1) + req('FORGET', struct.pack('<Q', 2), 6))
    for cmd, data, out in ((0x80086601, b'', 8), (0x40086602, struct.pack('<Q', 0x10), 0), (0x801c581f, b'', 28),
                           (0x401c5820, bytes(28), 0), (0x80087601, b'', 8), (0x5401, b'', 36)):
        yield f'ioctl-{cmd:x}', 0, req('IOCTL', ioctl_in(cmd, data, out), 3) + req('IOCTL', ioctl_in(cmd, data, out), 4, 9)
    yield 'poll', 0, req('POLL', bytes(24), 3)
    for mode in (0, 1, 3, 0x10, 8):
        yield f'fallocate-{mode:x}', 0, req('FALLOCATE', struct.pack('<QQQII', 0, 2, 5000, mode, 0), 3, flags=USER)
    yield 'lseek', 0, req('LSEEK', struct.pack('<QQII', 0, 1, 3, 0), 3) + req('LSEEK', struct.pack('<QQII', 0, 1, 4, 0), 3)
    yield 'copy', 0, (req('OPEN', struct.pack('<II', O_RDWR, 0), 5) +
                      req('COPY_FILE_RANGE', struct.pack('<QQBBHIQQQQ', 0, 1, 2, 0, 0, 0, 1, 2, 5, 0), 3))
    yield 'syncfs', 0, req('SYNCFS', bytes(8))
    for op in ('BMAP', 'DESTROY', 'NOTIFY_REPLY', 'SETUPMAPPING', 'REMOVEMAPPING'):
        yield op.lower(), 0, req(op, bytes(32), 3)


def refused(requests):
    """The same, but no reply to the last ones can be written."""
    out, at, known = b'', 0, len(SCENE)
    while at < len(requests):
        head = bytearray(requests[at:at + 6])
        size = head[4] | head[5] << 8
        if at >= known:
            head[3] |= REFUSED
        out += head + requests[at + 6:at + 6 + size]
        at += 6 + size
    return out


def all_seeds():
    for name, options, requests in single():
        yield name, options, SCENE + requests
    for name, options, requests in single():
        if name in ('lookup', 'mkdir', 'create', 'tmpfile', 'open', 'readdirplus', 'link', 'symlink'):
            yield name + '-refused', options, refused(SCENE + requests)
            yield name + '-nohandles', options | NOHANDLES, SCENE + requests
        if name in ('unlink', 'rmdir', 'rename', 'lock', 'create', 'write'):
            yield name + '-nohandles', options | NOHANDLES, SCENE + requests
            yield name + '-writeback', options | WRITEBACK | SUBMOUNTS, SCENE + requests
    init = struct.pack('<IIIIII', 7, 41, 0x20000, 0xffffffff, 0xffffffff, 0) + bytes(40)
    yield 'init', NO_INIT, req('INIT', init) + req('INIT', init) + SCENE
    yield 'init-short', NO_INIT, req('INIT', init[:16])
    yield 'init-major-8', NO_INIT, req('INIT', b'\x08' + init[1:])
    yield 'init-old', NO_INIT, req('INIT', struct.pack('<IIII', 7, 26, 0, 0))
    way_out = lookup('d') + lookup('abs', 1)  # a link to the directory beside the source: node 2
    yield 'escape', 0, (way_out + req('SETATTR', setattr_in(1), 2) + lookup('canary', 2) +
                        req('MKDIR', struct.pack('<II', 0o777, 0) + text('new'), 2) + req('UNLINK', text('canary'), 2))
    yield 'escape-create', 0, way_out + req('CREATE', create_in('new'), 2)
    yield 'escape-rename', 0, way_out + req('RENAME', struct.pack('<Q', 0) + text('f', 'f'), 0, 2)
    yield 'bad-node', 0, SCENE + req('GETATTR', bytes(16), 3, 32, BAD_NODE) + req('GETATTR', bytes(16), 99, 0, BAD_NODE)
    yield 'bad-length', 0, lookup('d', flags=LENGTH)
    yield 'names', 0, b''.join(lookup(n) for n in ('.', '..', '', 'a/b', '/', 'd/e', 'x' * 255, 'x' * 256, 'x' * 5000))
    yield 'ids', 0, SCENE + b''.join(req('MKDIR', struct.pack('<II', 0o777, 0) + text(f'm{f}'), 2, flags=f)
                                     for f in (USER, NOBODY, OTHER))


COMMAND_LINES = (
    '', 'passthrough:/srv', 'passthrough:/srv /mnt', '-f passthrough:/srv /mnt', 'passthrough:/srv /mnt -d',
    './b.so:x:y /mnt', '/a:b/c.so:arg /mnt', ':x /mnt', 'passthrough: /mnt', 'a:b /mnt extra', '--help', '--version',
    '-h', '-V', '--nonsense', '-x', '-o', '-- a:b /mnt', 'a:b /mnt -o suid,dev', 'a:b /mnt -o rw,suid,nosuid,dev,nodev',
    'a:b /mnt -o allow_other,default_permissions,nopassthrough,writeback,debug', 'a:b /mnt -o allow_root',
    'a:b /mnt -o fsname=x,subtype=y', 'a:b /mnt -o remount,ro', 'a:b /mnt -o submounts,locks=source -o nohandles',
    'a:b /mnt -o entry_timeout=1.5,attr_timeout=.25,negative_timeout=0', 'a:b /mnt -o entry_timeout=99999999999',
    'a:b /mnt -o max_threads=4,max_read=64K,max_write=1M', 'a:b /mnt -o max_write=1,max_threads=0',
    'a:b /mnt -o max_read=99999999999999999999M', 'a:b /mnt -o own=a\\,suid,x-systemd.automount,_netdev,noauto',
    'a:b /mnt -o ,,=,a=,=b', 'a:b /mnt -o noatime,relatime,strictatime,nodiratime,lazytime,ro,sync,dirsync,noexec',
    'a:b /mnt -oro -orw', 'a:b /mnt -o debug=1', 'a:b /mnt -o attr_timeout')


def change(what, where, data=b''):
    return struct.pack('<BBI', what, len(data), where) + data


CHECKPOINTS = {
    'good': b'',
    'magic': change(0, 0, b'x'),
    'layout-number': change(0, 12, b'\1'),
    'size': change(0, 64, b'\xff' * 8),
    'parts': change(0, 52, b'\xff\0\0\0'),
    'part-offset': change(0, 128, b'\xff' * 8),
    'slot-state': change(1, 0, b'\xff' * 8),
    'slots': b''.join(change(1, at, b'\1\2\3\4\5\6\7\x08') for at in range(0, 256, 8)),
    'counts': b''.join(change(2, at, b'\xff\xff\0\0') for at in range(0, 28, 4)),
    'fresh': change(2, 4, b'\7\0\0\0'),
    'free-list': change(2, 8, b'\1\0\0\0'),
    'buckets': change(2, 20, b'\x41\0\0\0'),
    'heads': b''.join(change(3, 4096 + at, b'\3\0\0\0\4\0\0\0') for at in range(0, 256, 8)),
    'records': b''.join(change(3, 12288 + at, b'\1\0\0\0') for at in range(0, 960, 4)),
}


# struct extfuse_area, pages behind it less one, names
def area(words_at=128, nodes_at=4096, size=8192, abi=1, bits=6, nodes=16, pages=1, names=b''):
    return (struct.pack('<IIIIQQQQQ', abi, bits, nodes, 0, 77, words_at, nodes_at, size, 0) +
            struct.pack('<B', pages) + names)


AREAS = {
    'good': area(names=text('a', 'file', 'x' * 40, 'y' * 41, 'z' * 255)),
    'long-name': area(names=text('z' * 256, '', '.')),
    'no-names': area(),
    'words-beyond': area(bits=20),
    'nodes-beyond': area(nodes=100000),
    'odd-offset': area(words_at=129),
    'far-offset': area(nodes_at=2**64 - 8),
    'other-abi': area(abi=2),
    'large': area(size=2**63),
    'options': area(names=struct.pack('<IIQIIIIII', 112, 2, 2 << 20, 9, 1, 2, 3, 1, 0).ljust(120, b'\0')),
}


def p9(kind, tag, body=b''):
    return struct.pack('<IBH', 7 + len(body), kind, tag) + body


def qid(kind=0, path=7):
    return struct.pack('<BIQ', kind, 1, path)


def dirent(name, offset, kind=8):
    return qid(0x80 if kind == 4 else 0) + struct.pack('<QBH', offset, kind, len(name)) + name


ATTR = struct.pack('<Q', 0x7ff) + qid() + struct.pack('<3I15Q', 0o100644, 1, 2, 1, 0, 99, 4096, 8, *range(1, 11))
LISTING = dirent(b'.', 1, 4) + dirent(b'file', 2) + dirent(b'x' * 255, 3)
ANSWERS = [
    p9(111, 0, struct.pack('<H', 2) + qid(0x80, 1) + qid()), p9(25, 1, ATTR),
    p9(117, 2, struct.pack('<I', 5) + b'hello'), p9(41, 3, struct.pack('<I', len(LISTING)) + LISTING),
    p9(23, 4, struct.pack('<H', 6) + b'target'), p9(9, 5, struct.pack('<2I6QI', 1, 4096, 9, 8, 7, 6, 5, 4, 255)),
    p9(13, 6, qid() + bytes(4)), p9(119, 7, struct.pack('<I', 9)), p9(31, 8, struct.pack('<Q', 3)), p9(121, 9),
]
REMOTE = {
    'all': b''.join(ANSWERS),
    'mixed': b''.join(reversed(ANSWERS)),
    'twice': b''.join(a + a for a in ANSWERS),
    'errors': b''.join(p9(7, tag, struct.pack('<I', code)) for tag, code in
                       enumerate([2, 0, 38, 512, 4294967295, 5, 13, 17, 39, 61])),
    'types': b''.join(a[:4] + b'\x79' + a[5:] for a in ANSWERS),
    'lengths': ANSWERS[0] + b'\3\0\0\0' + ANSWERS[1],
    'too-long': struct.pack('<IBH', 70000, 111, 0) + bytes(100),
    'count': p9(117, 2, struct.pack('<I', 6) + b'hello') + p9(41, 3, struct.pack('<I', 5000) + bytes(5000)),
    'names': p9(41, 3, struct.pack('<I', 27) + dirent(b'a/b', 1)),
    'nobody': p9(121, 1000) + p9(121, 65535) + ANSWERS[9],
    'cut': ANSWERS[1][:50],
}


def write(directory, name, data):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), 'wb') as f:
        f.write(data)


def main():
    to = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), 'corpus')
    for name, options, requests in all_seeds():
        write(os.path.join(to, 'request'), name, bytes([options]) + requests)
    for number, line in enumerate(COMMAND_LINES):
        for root in (0, 1):
            write(os.path.join(to, 'options'), f'{number:02}-{root}', bytes([root]) + text(*line.split()))
    for name, changes in CHECKPOINTS.items():
        write(os.path.join(to, 'checkpoint'), name, changes)
    for name, data in AREAS.items():
        write(os.path.join(to, 'area'), name, data)
    for name, stream in REMOTE.items():
        write(os.path.join(to, 'remote'), name, stream)


if __name__ == '__main__':
    main()
