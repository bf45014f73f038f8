"""A bad wire between two network interfaces: carries every packet, but loses some RTP and lets some be overtaken.

Usage: wire.py NEAR FAR LOSS SWAP SEED   LOSS and SWAP are shares of the RTP packets that come from FAR.
Prints `up`; at SIGTERM `sent N lost N swapped N`, and ends.
"""

import random
import select
import signal
import socket
import sys

ETH_P_ALL = 3
PACKET_OUTGOING = 4
# Each packet then has what is not in it yet, such as the checksum, in a header of ten bytes; so it can be sent on.
SOL_PACKET, PACKET_VNET_HDR, HEADER = 263, 15, 10
SO_RCVBUFFORCE, BUFFER = 33, 8 << 20  # the wire itself is to lose nothing more


def interface(name):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    end.bind((name, 0))
    return end


def is_rtp(frame):
    """UDP over IPv4 with RTP that is no RTCP (RFC 5761 section 4)."""
    ip = HEADER + 14
    if frame[HEADER + 12 : ip] != b"\x08\x00" or frame[ip + 9] != socket.IPPROTO_UDP:
        return False
    udp = ip + 4 * (frame[ip] & 15)
    rtp = frame[udp + 8 :]
    return len(rtp) > 12 and rtp[0] >> 6 == 2 and not 64 <= rtp[1] & 127 <= 95


def ended(_signal, _frame):
    print("sent", counts["sent"], "lost", counts["lost"], "swapped", counts["swapped"], flush=True)
    sys.exit(0)


near, far = interface(sys.argv[1]), interface(sys.argv[2])
loss, swap = float(sys.argv[3]), float(sys.argv[4])
chance = random.Random(int(sys.argv[5]))
counts = {"sent": 0, "lost": 0, "swapped": 0}
held = None
signal.signal(signal.SIGTERM, ended)
print("up", flush=True)
while True:
    ready, _, _ = select.select([near, far], [], [], 0.005)
    for end in ready:
        frame, address = end.recvfrom(1 << 16)
        if address[2] == PACKET_OUTGOING:
            continue
        if end is near:
            far.send(frame)
            continue
        if is_rtp(frame):
            counts["sent"] += 1
            if chance.random() < loss:
                counts["lost"] += 1
                continue
            if held is None and chance.random() < swap:
                held = frame
                continue
            if held is not None:
                near.send(frame)
                near.send(held)
                held = None
                counts["swapped"] += 1
                continue
        near.send(frame)
    # What no packet overtakes goes on by itself.
    if not ready and held is not None:
        near.send(held)
        held = None
