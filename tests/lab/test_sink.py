"""What the sink calls an attempt to leave. Needs neither root nor a network."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from tests.lab.sink import MARK, MARK_PORT, describe, mark_of

A = "10.77.0.11"


def ip4(target: str, protocol: int = 6, body: bytes = b"") -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
    return head + ipaddress.IPv4Address(A).packed + ipaddress.IPv4Address(target).packed + body


def ip6(target: str, protocol: int = 6, body: bytes = b"") -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return head + ipaddress.IPv6Address("fe80::11").packed + ipaddress.IPv6Address(target).packed + body


def tcp(port: int, flags: int = 2) -> bytes:
    return struct.pack("!HHIIBBHHH", 40000, port, 0, 0, 5 << 4, flags, 0, 0, 0)


def udp(port: int, body: bytes = b"") -> bytes:
    return struct.pack("!HHHH", 40000, port, 8 + len(body), 0) + body


QUESTION = b"\0\1\1\0\0\1\0\0\0\0\0\0" + b"\x08registry\x07example\x03com\0" + b"\0\1\0\1"


@pytest.mark.parametrize(
    ("packet", "line"),
    [
        (ip4("203.0.113.7", 6, tcp(443)), f"{A}:40000 > 203.0.113.7:443 tcp syn"),
        (ip4("203.0.113.7", 1), f"{A} > 203.0.113.7 icmp"),
        (ip4("10.78.0.11", 17, udp(123)), f"{A}:40000 > 10.78.0.11:123 udp"),
        (ip4("10.77.0.254", 17, udp(53, QUESTION)), f"{A}:40000 > 10.77.0.254:53 udp asks registry.example.com A"),
        (ip4("239.255.255.250", 17, udp(1900)), f"{A}:40000 > 239.255.255.250:1900 udp"),
        (ip4("255.255.255.255", 17, udp(67)), f"{A}:40000 > 255.255.255.255:67 udp"),
        (ip6("2001:db8::7", 6, tcp(443)), "[fe80::11]:40000 > [2001:db8::7]:443 tcp syn"),
        (ip6("fe80::fe", 17, udp(53, QUESTION)), "[fe80::11]:40000 > [fe80::fe]:53 udp asks registry.example.com A"),
        (ip6("ff05::1:3", 17, udp(547)), "[fe80::11]:40000 > [ff05::1:3]:547 udp"),
        (ip4("203.0.113.7", 132), f"{A} > 203.0.113.7 protocol 132"),
    ],
)
def test_attempts(packet: bytes, line: str) -> None:
    assert describe(packet) == line


@pytest.mark.parametrize(
    "packet",
    [
        ip4("10.77.0.12", 6, tcp(6443)),
        ip4("10.77.0.255", 17, udp(9999)),
        ip4("224.0.0.22", 2),
        ip6("ff02::2", 58, b"\x85\0\0\0"),
        ip6("ff02::16", 0, b"\x3a\0\5\2\0\0\1\0\x8f\0\0\0"),
        ip6("fe80::fe", 58, b"\x87\0\0\0"),
        ip6("fe80::12", 6, tcp(22)),
        b"",
        b"\x45\0",
        b"\x60",
    ],
)
def test_what_stays_on_the_link(packet: bytes) -> None:
    assert describe(packet) is None


def test_a_truncated_question_is_still_an_attempt() -> None:
    for cut in range(len(QUESTION)):
        line = describe(ip4("10.77.0.254", 17, udp(53, QUESTION[:cut])))
        assert line is not None
        assert line.startswith(f"{A}:40000 > 10.77.0.254:53 udp")


def test_the_controllers_mark_is_told_from_an_attempt() -> None:
    assert mark_of(ip4("10.77.0.254", 17, udp(MARK_PORT, MARK + b"abc"))) == "abc"
    assert mark_of(ip4("10.77.0.254", 17, udp(MARK_PORT, b"abc"))) is None
    assert mark_of(ip4("10.77.0.254", 17, udp(53, MARK + b"abc"))) is None
    assert mark_of(ip4("10.77.0.254", 6, tcp(MARK_PORT))) is None
