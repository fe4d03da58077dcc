#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Delays what comes in, packet by packet, where a kernel has no netem: the packet filter queues each for this program.

delay.py MILLISECONDS JITTER   says READY once it does; whoever ends it takes the rule away as well (iptables -F INPUT)
"""
import heapq
import random
import select
import socket
import struct
import subprocess
import sys
import time

NETLINK_NETFILTER = 12
PACKET, VERDICT, CONFIG = 0x300, 0x301, 0x302
REQUEST, ACKNOWLEDGE = 1, 4
ACCEPT = 1


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def message(kind, flags, *attributes):
    # Family and version, and queue 0, in front of the attributes.
    body = struct.pack("=BBH", 0, 0, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def configure(netlink, *attributes):
    netlink.send(message(CONFIG, REQUEST | ACKNOWLEDGE, *attributes))
    error = struct.unpack_from("=i", netlink.recv(65536), 16)[0]
    if error:
        sys.exit(f"the kernel queues no packets for a program: error {-error}")


def packets(data):
    """The numbers of the packets in a datagram of netlink messages."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        at = 20
        while kind == PACKET and at + 4 <= length:
            size, name = struct.unpack_from("=HH", data, at)
            if name & 0x7FFF == 1:
                yield struct.unpack_from(">I", data, at + 4)[0]
            at += (size + 3) & ~3
        data = data[(length + 3) & ~3:]


def main():
    delay, jitter = (float(word) / 1000 for word in sys.argv[1:3])
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    netlink.bind((0, 0))
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    configure(netlink, attribute(1, struct.pack(">BBH", 1, 0, socket.AF_INET)))
    # Of each packet its number is enough.
    configure(netlink, attribute(2, struct.pack(">IB", 0, 1)))
    configure(netlink, attribute(3, struct.pack(">I", 20000)))
    rule = ["iptables", "-A", "INPUT", "!", "-i", "lo", "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"]
    subprocess.run(rule, check=True)
    print("READY", flush=True)
    held = []
    while True:
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        if select.select([netlink], [], [], wait)[0]:
            try:
                data = netlink.recv(1 << 16)
            except OSError:
                # More came than the socket holds: the kernel has let those go as it would on a bad network.
                continue
            for number in packets(data):
                heapq.heappush(held, (time.monotonic() + delay + random.uniform(-jitter, jitter), number))
        while held and held[0][0] <= time.monotonic():
            number = heapq.heappop(held)[1]
            netlink.send(message(VERDICT, REQUEST, attribute(2, struct.pack(">II", ACCEPT, number))))


main()
