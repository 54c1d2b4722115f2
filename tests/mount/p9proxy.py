#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""p9proxy.py LISTEN-PORT SERVER-PORT MODE-FILE [SEED]: stands between a 9P client and its server.

What it does to the messages is in MODE-FILE, looked at for each message, one word or more:
  pass          nothing
  twice         every reply comes twice
  reorder       up to eight replies, or all that are asked for, are held back and come in another order
  reset N       the connection ends after each N-th message, in one of four places of it
  poison TYPE   the connection ends where the client asks by a message of this type
  cut T N C...  ... where it does so for the N-th time; the command C is run then
  late T [N]    ... in place of the first message of type T, which the server gets right before the second one, or
                before the name N is walked to
  lost T R      the connection ends in place of each reply to a message of type T; to R the reply is EACCES
  once T [C...] the connection ends in place of the first reply to a message of type T; the command C is run before
  corrupt N     one byte of each N-th reply is another one (but for the first four of a connection)
  length N      each N-th reply says another length than it has
  stall [T]     nothing comes from the server any more, once a reply to a message of type T would
  flush T       the first reply to a message of type T comes when a Tflush for that does; Rflush comes in no case
  circle        every listing is one name that the client does not show, of which each leads to the other of two
  delay MS      every reply comes so much later, as on a long line
Ends with its standard input. It says where a tag is used that a Tflush without an answer is about.
"""
import errno
import itertools
import os
import queue
import random
import socket
import struct
import subprocess
import sys
import threading
import time

listen_port, server_port, mode_file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
cookies = itertools.cycle((1, 2))
rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
lock = threading.Lock()
counted = 0
TFLUSH, TWALK = 108, 110
held_back = []


told = (0, ["pass"])
times = (0, 0)


def mode():
    """Whoever changes it puts another file in its place."""
    global told
    st = os.stat(mode_file)
    if (st.st_ino, st.st_mtime_ns) != told[0]:
        with open(mode_file, encoding="ascii") as f:
            told = ((st.st_ino, st.st_mtime_ns), f.read().split() or ["pass"])
    return told[1]


def nth(n):
    """Whether this message is one of every n, counted over all connections."""
    global counted
    with lock:
        counted += 1
        return counted % n == 0


def met(n):
    """Whether this message is the n-th one since the mode is what it is."""
    global times
    with lock:
        times = (told[0], (times[1] if times[0] == told[0] else 0) + 1)
        return times[1] == n


def take(sock, size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def message(sock):
    head = take(sock, 4)
    return head + take(sock, struct.unpack("<I", head)[0] - 4)


def end(*socks):
    for s in socks:
        try:
            # no FIN that could be mistaken for an orderly end
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def maybe_reset(what, data, to, other):
    if what[0] != "reset" or not nth(int(what[1])):
        return False
    # before it, inside of its header, inside of its body, behind it
    to.sendall(data[:rng.choice([0, 5, len(data) - 1, len(data)])])
    time.sleep(0.005)
    end(to, other)
    return True


def until_late(what, data):
    return data[4] == TWALK and data.endswith(what[2].encode()) if what[2:] else data[4] == int(what[1])


def circle(tag):
    name = b".fuse-extent-removed-x"
    entry = struct.pack("<BIQQBH", 0, 0, 1, next(cookies), 8, len(name)) + name
    return struct.pack("<IB2sI", 11 + len(entry), 41, tag, len(entry)) + entry


class Asked:
    """How many requests of a connection have no reply yet, and what is being flushed: old tags by those of Tflush."""
    def __init__(self):
        self.lock, self.n = threading.Lock(), 0
        self.flushed, self.kept = {}, {}
        self.holds = False

    def add(self, n):
        with self.lock:
            self.n += n
            return self.n


def requests(client, server, asked):
    try:
        while True:
            data = message(client)
            what = mode()
            if maybe_reset(what, data, server, client):
                return
            if what[0] == "poison" and data[4] == int(what[1]):
                end(client, server)
                return
            if what[0] == "cut" and data[4] == int(what[1]) and met(int(what[2])):
                subprocess.run(what[3:], check=True)
                end(client, server)
                return
            if what[0] == "late" and not held_back and data[4] == int(what[1]) and met(1):
                asked.holds = True
                held_back.append((server, data))
                end(client)
                return
            if what[0] == "late" and held_back and until_late(what, data):
                for to, old in held_back:
                    to.sendall(old)
                    time.sleep(0.3)
                held_back.clear()
            if data[5:7] in list(asked.flushed.values()):
                print("tag used again:", data[4], data[5:7].hex(), flush=True)
            if data[4] == TFLUSH:
                asked.flushed[data[5:7]] = data[7:9]
            asked.add(1)
            server.sendall(data)
    except EOFError:
        # what it has asked for before is answered
        try:
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    except OSError:
        end(client, server)


def changed(what, data, first):
    if first:
        return data
    if what[0] == "corrupt" and nth(int(what[1])):
        at = rng.randrange(4, len(data))
        return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1:]
    if what[0] == "length" and nth(int(what[1])):
        return struct.pack("<I", rng.choice([0, 6, len(data) - 1, len(data) + 1, 0xffffffff])) + data[4:]
    return data


def late(client, server, asked, line):
    try:
        for when, data in iter(line.get, None):
            time.sleep(max(0, when - time.monotonic()))
            client.sendall(data)
        print("end: the client took all replies", flush=True)
    except OSError:
        print("end: the client did not wait for a reply", flush=True)
    end(client)
    # What is held back is to reach the server yet.
    if not asked.holds:
        end(server)


def replies(server, client, asked):
    held, replied = [], 0
    line = queue.Queue()
    threading.Thread(target=late, args=(client, server, asked, line), daemon=True).start()
    try:
        while True:
            data = message(server)
            left = asked.add(-1)
            replied += 1
            what = mode()
            while what[0] == "stall" and (len(what) == 1 or data[4] == int(what[1]) + 1):
                time.sleep(0.05)
                what = mode()
            if what[0] == "delay":
                line.put((time.monotonic() + int(what[1]) / 1000, data))
                continue
            if what[0] == "lost" and data[4] == int(what[1]) + 1:
                end(client, server)
                return
            if what[0] == "lost" and data[4] == int(what[2]) + 1:
                data = struct.pack("<IB2sI", 11, 7, data[5:7], errno.EACCES)
            if what[0] == "flush" and data[4] == int(what[1]) + 1 and met(1):
                asked.kept[data[5:7]] = data
                continue
            if what[0] == "flush" and data[4] == TFLUSH + 1:
                data = asked.kept.pop(asked.flushed[data[5:7]], None)
                if not data:
                    continue
                print("flush: answered", data[5:7].hex(), flush=True)
            if data[4] == TFLUSH + 1:
                asked.flushed.pop(data[5:7], None)
            if what[0] == "circle" and data[4] == 41:
                data = circle(data[5:7])
            if what[0] == "once" and data[4] == int(what[1]) + 1 and met(1):
                if what[2:]:
                    subprocess.run(what[2:], check=True)
                end(client, server)
                return
            if maybe_reset(what, data, client, server):
                return
            if what[0] == "reorder" and replied > 4:
                held.append(data)
            if held and (not left or len(held) >= 8 or what[0] != "reorder"):
                rng.shuffle(held)
                client.sendall(b"".join(held))
                held = []
            if what[0] != "reorder" or replied <= 4:
                client.sendall(changed(what, data, replied <= 4) * (2 if what[0] == "twice" and replied > 4 else 1))
    except (OSError, EOFError):
        pass
    finally:
        line.put(None)


def serve(listener):
    while True:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", server_port))
        except OSError:
            client.close()
            continue
        for s in (client, server):
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = Asked()
        threading.Thread(target=requests, args=(client, server, asked), daemon=True).start()
        threading.Thread(target=replies, args=(server, client, asked), daemon=True).start()


sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", listen_port))
sock.listen(64)
threading.Thread(target=serve, args=(sock,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
