"""The sink: where the default routes of the lab lead. It forwards nothing and writes down every attempt to leave.

Runs in a network namespace of its own behind ``SINK_ADDRESS``. A packet filter there refuses what arrives at once
(network unreachable), so a program that tries to reach the outside fails fast, and is found by the log instead of by a
test that hangs. Names asked of the resolver get "port unreachable" for the same reason.

Logged: every IP packet for an address that is not the lab's own, and everything sent to the sink itself, name queries
above all. Not logged: what cannot leave a link by definition, which is IPv4 multicast to 224.0.0.0/24 (RFC 5771, 4) and
IPv6 of link-local scope (neighbour discovery, MLD: RFC 4291, 2.5.6 and 2.7).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
import time
from pathlib import Path

NETWORK = ipaddress.IPv4Network("10.77.0.0/24")
SINK_ADDRESS = ipaddress.IPv4Address("10.77.0.254")
SINK_ADDRESS_6 = ipaddress.IPv6Address("fe80::fe")
MARK_PORT = 9
MARK = b"lab-mark "

_LOCAL_MULTICAST = ipaddress.IPv4Network("224.0.0.0/24")
_ETH_P_ALL = 0x0003
_PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_QUERY_TYPES = {1: "A", 2: "NS", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS"}
_HOP_BY_HOP = 0


def describe(packet: bytes) -> str | None:
    """One line for a packet that tried to leave, None for one that did not.

    :param packet: an IP packet from its first byte on.
    """
    if not packet:
        return None
    version = packet[0] >> 4
    if version == 4 and len(packet) >= 20:
        return _describe4(packet)
    if version == 6 and len(packet) >= 40:
        return _describe6(packet)
    return None


def mark_of(packet: bytes) -> str | None:
    """The word that the controller sent to learn how far the log has been written, if this is such a packet."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != 17:
        return None
    body = packet[(packet[0] & 15) * 4 :]
    if len(body) < 8 or struct.unpack("!H", body[2:4])[0] != MARK_PORT or not body[8:].startswith(MARK):
        return None
    return body[8 + len(MARK) :].decode("ascii", "replace")


def _describe4(packet: bytes) -> str | None:
    source, target = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
    if (target in NETWORK and target != SINK_ADDRESS) or target in _LOCAL_MULTICAST:
        return None
    fragment = struct.unpack("!H", packet[6:8])[0] & 0x1FFF
    return _line(str(source), str(target), packet[9], b"" if fragment else packet[(packet[0] & 15) * 4 :])


def _describe6(packet: bytes) -> str | None:
    source, target = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
    protocol, body = packet[6], packet[40:]
    if protocol == _HOP_BY_HOP and len(body) >= 8:
        protocol, body = body[0], body[(body[1] + 1) * 8 :]
    if target.is_multicast and target.packed[1] & 15 <= 2:
        return None
    if target.is_link_local and (target != SINK_ADDRESS_6 or protocol == 58):
        return None
    return _line(f"[{source}]", f"[{target}]", protocol, body)


def _line(source: str, target: str, protocol: int, body: bytes) -> str:
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    if protocol not in (6, 17) or len(body) < 8:
        return f"{source} > {target} {name}"
    sport, dport = struct.unpack("!HH", body[:4])
    extra = ""
    if protocol == 6 and len(body) >= 20:
        extra = _flags(body[13])
        if dport == 53 and len(body) > (body[12] >> 4) * 4 + 2:
            extra += _question(body[(body[12] >> 4) * 4 + 2 :])
    elif dport in (53, 5353):
        extra = _question(body[8:])
    return f"{source}:{sport} > {target}:{dport} {name}{extra}"


def _flags(bits: int) -> str:
    names = ["fin", "syn", "rst", "psh", "ack", "urg"]
    return "".join(f" {name}" for place, name in enumerate(names) if bits >> place & 1)


def _question(message: bytes) -> str:
    """What a DNS message asks, RFC 1035, 4.1; nothing where it cannot be read."""
    labels: list[str] = []
    place = 12
    while place < len(message) and 0 < message[place] < 64:
        labels.append(message[place + 1 : place + 1 + message[place]].decode("ascii", "replace"))
        place += 1 + message[place]
    if not labels or place + 3 > len(message):
        return ""
    kind = struct.unpack("!H", message[place + 1 : place + 3])[0]
    return f" asks {'.'.join(labels)} {_QUERY_TYPES.get(kind, kind)}"


def serve(log: Path, marks: Path) -> None:
    """Read packets for ever. Each line is on its file before the next packet is looked at.

    :param log: attempts, one a line; may be truncated by others at any time.
    :param marks: the controller's marks, one a line, in the order they arrived among the packets.
    """
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as wire,
        log.open("a", buffering=1) as attempts,
        marks.open("a", buffering=1) as seen,
    ):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        seen.write("listening\n")
        while True:
            packet, address = wire.recvfrom(65535)
            # Only what was sent to the sink or to everybody; frames that a bridge floods for another host, and the
            # sink's own answers, are nobody's attempt.
            if address[0] == "lo" or address[2] not in (
                socket.PACKET_HOST,
                socket.PACKET_BROADCAST,
                socket.PACKET_MULTICAST,
            ):
                continue
            mark = mark_of(packet)
            if mark is not None:
                seen.write(f"{mark}\n")
                continue
            line = describe(packet)
            if line is not None:
                attempts.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
