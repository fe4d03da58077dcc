#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A line of IP packets that loses some, has some overtaken by later ones and flips a bit of others.

rough_line.py NEAR FAR SEED LOST HELD CHANGED

Makes a TUN device with the address NEAR here and one with FAR in a network namespace of its own, and carries packets
between them. LOST, HELD and CHANGED are shares in thousandths, the same for both directions; SEED is that of the
pseudo-random numbers. Says the number of a process in that namespace once packets pass; then each line of standard input
is answered by one line of JSON that says how many packets met which fate. Ends when standard input does.

The namespace and the devices have no other owner than this program and its child, so they go with it however it ends.
What the machine does not allow is one line of standard error, and status 77.
"""
import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
import traceback

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
TCP = 6
NOT_ALLOWED = 77
# How long a packet that is held back waits for later ones at most: on a quiet line none may come.
HELD_SECONDS = 0.02


def device():
    """A new TUN device, as a descriptor and a name; its packets come with whole checksums and no more than its MTU."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    asked = struct.pack("16sH22x", b"rough%d", IFF_TUN | IFF_NO_PI)
    made = fcntl.ioctl(tun, TUNSETIFF, asked)
    return tun, made[:16].rstrip(b"\0").decode()


def namespace():
    """A process in a network namespace of its own. It ends when its standard input does, so not after this program."""
    child = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if not child.stdout.readline():
        raise PermissionError(child.stderr.read().decode().strip())
    return child


def ip(*arguments, inside=None):
    enter = [] if inside is None else ["nsenter", f"--net=/proc/{inside}/ns/net", "--"]
    subprocess.run([*enter, "ip", *arguments], check=True, stdin=subprocess.DEVNULL)


class Direction(threading.Thread):
    """Carries packets from one device to the other."""

    def __init__(self, name, source, target, seed, lost, held, changed):
        super().__init__(name=name, daemon=True)
        self.source, self.target = source, target
        self.chance = random.Random(f"{seed} {name}")
        self.shares = lost, held, changed
        self.counts = {"carried": 0, "lost": 0, "overtaken": 0, "changed": 0}
        # Until when, how many later packets go first, the packet, and whether one has.
        self.waiting = []

    def run(self):
        while True:
            until = min((each[0] for each in self.waiting), default=None)
            left = None if until is None else max(0, until - time.monotonic())
            readable, _, _ = select.select([self.source], [], [], left)
            if readable:
                self.take(os.read(self.source, 65536))
            self.release()

    def take(self, packet):
        # The kernel's own IPv6 chatter is no part of this.
        if packet[0] >> 4 != 4:
            return
        lost, held, changed = (self.chance.random() * 1000 < share for share in self.shares)
        if lost:
            self.counts["lost"] += 1
            return
        if changed:
            packet = self.change(packet)
        if held:
            self.waiting.append([time.monotonic() + HELD_SECONDS, self.chance.randint(1, 8), packet, False])
            return
        self.send(packet)
        for each in self.waiting:
            each[1] -= 1
            each[3] = True

    def change(self, packet):
        """Flips a bit of a TCP segment: a TCP with sound checksums throws it away."""
        header = (packet[0] & 15) * 4
        if packet[9] != TCP or len(packet) <= header:
            return packet
        self.counts["changed"] += 1
        place = self.chance.randrange(header, len(packet))
        changed = bytearray(packet)
        changed[place] ^= 1 << self.chance.randrange(8)
        return bytes(changed)

    def release(self):
        now, still = time.monotonic(), []
        for each in self.waiting:
            until, after, packet, was_overtaken = each
            if after > 0 and until > now:
                still.append(each)
                continue
            self.send(packet)
            self.counts["overtaken"] += was_overtaken
        self.waiting = still

    def send(self, packet):
        os.write(self.target, packet)
        self.counts["carried"] += 1


def refused(process):
    """How many TCP segments the kernel has thrown away for their checksum, where this process is."""
    with open(f"/proc/{process}/net/snmp", encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("Tcp:"))
    return int(dict(zip(names, values))["InCsumErrors"])


def main():
    near, far, seed = sys.argv[1:4]
    shares = [float(share) for share in sys.argv[4:7]]
    try:
        (here, here_name), (there, there_name) = device(), device()
        child = namespace()
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_ALLOWED)
    ip("link", "set", there_name, "netns", str(child.pid))
    ip("address", "add", f"{near}/30", "dev", here_name)
    ip("link", "set", here_name, "up")
    ip("address", "add", f"{far}/30", "dev", there_name, inside=child.pid)
    ip("link", "set", there_name, "up", inside=child.pid)
    ip("link", "set", "lo", "up", inside=child.pid)

    def fail(failure):
        # A line that carries one way only would be another fault than the one that was asked for.
        traceback.print_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
        os._exit(1)

    threading.excepthook = fail
    directions = [
        Direction("to-far", here, there, seed, *shares),
        Direction("to-near", there, here, seed, *shares),
    ]
    for direction in directions:
        direction.start()
    print(child.pid, flush=True)
    for _ in sys.stdin:
        total = {name: sum(each.counts[name] for each in directions) for name in directions[0].counts}
        print(json.dumps({**total, "refused": refused(child.pid)}), flush=True)
    child.stdin.close()
    child.wait()


if __name__ == "__main__":
    main()
