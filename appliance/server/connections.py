"""Connections of one worker: it closes clients that stall, and makes room for nodes when there are too many.

Whether a client takes its answer is read from the kernel (TCP_INFO), not from how long a write blocks: send buffers
grow to megabytes, and on a slow link a write may wait for minutes although the client reads all the time.

Decisions 31 and 79.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from appliance import limits
from appliance.countedlog import CountedLog, origin

_UNACKED, _ACKED, _NOT_SENT = 24, 120, 144
"""Offsets in Linux' ``struct tcp_info`` (include/uapi/linux/tcp.h): packets in flight, bytes acknowledged and received,
bytes not sent yet. Since Linux 4.6."""
_INFO_BYTES = 160


@dataclass(frozen=True)
class Traffic:
    """Counters that the kernel keeps of a connection.

    :param taken: bytes that the client has acknowledged, since the connection began.
    :param given: bytes that it has sent.
    :param owed: whether it still has to take something.
    """

    taken: int
    given: int
    owed: bool


def traffic(sock: Any) -> Traffic | None:
    """Ask the kernel; None where the connection is gone or the kernel too old to say."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    if len(info) < _NOT_SENT + 4:
        return None
    (in_flight,) = struct.unpack_from("=I", info, _UNACKED)
    taken, given = struct.unpack_from("=QQ", info, _ACKED)
    (not_sent,) = struct.unpack_from("=I", info, _NOT_SENT)
    return Traffic(taken, given, bool(in_flight or not_sent))


class StallDetector:
    """Detector of a stall: fewer bytes than a minimum in a window of time."""

    __slots__ = ("_begun", "_bytes", "_last", "moved")

    def __init__(self) -> None:
        self._begun: float | None = None
        self._bytes = 0
        self._last = 0
        self.moved = 0.0
        """When it last moved, or was not expected to."""

    def look(self, now: float, count: int, expected: bool) -> bool:
        """Note how far it has come; says whether that is too slow.

        :param now: monotonic seconds.
        :param count: bytes since the connection began.
        :param expected: whether the client is who is waited for.
        """
        if not expected or count != self._last:
            self.moved = now
        self._last = count
        if not expected:
            self._begun = None
        elif self._begun is None:
            self._begun, self._bytes = now, count
        elif now - self._begun >= limits.STALL_SECONDS:
            if count - self._bytes < limits.LEAST_BYTES:
                return True
            self._begun, self._bytes = now, count
        return False


class Client:
    """One connection.

    :param sock: as the requests are read from it.
    :param address: where it comes from, for limits and the log.
    :param is_node: whether that is the address of a listed node.
    """

    def __init__(self, sock: Any, address: str, now: float, *, is_node: bool = False) -> None:
        self.sock = sock
        self.address = address
        self.is_node = is_node
        self.shaking = False
        """True during its TLS handshake, which has its own end."""
        self.met = False
        """True once its handshake is over."""
        self.proven = False
        """True once it showed a node's certificate."""
        self.method: str | None = None
        """Of the request that is being answered; None while one is waited for."""
        self.reading = False
        """Whether the next bytes of a request's body are waited for."""
        self.fresh = True
        """Whether no request came on it yet."""
        self.trusted = False
        """True once it gave right credentials: a listed node's certificate, or an operator's password."""
        self.since = now
        """When it began to wait for a request, or to be served."""
        self._taking, self._giving = StallDetector(), StallDetector()
        self._begins = True
        self._watched: object = None

    def meet(self, *, proven: bool) -> None:
        """Note that its handshake is over.

        :param proven: whether it showed a node's certificate.
        """
        self.shaking, self.met, self.proven = False, True, proven

    def serving(self, method: str, unreader: Any, now: float) -> None:
        """A request is here.

        :param unreader: gunicorn's reader of the connection, whose waiting is watched from now on.
        """
        self.method, self.since, self.fresh = method, now, False
        self._begins = True
        if unreader is not self._watched:
            self._watched, unreader.chunk = unreader, self._watch(unreader.chunk)

    def served(self, now: float) -> None:
        """It is answered."""
        self.method, self.since = None, now

    def trust(self) -> None:
        """Note that it gave right credentials."""
        self.trusted = True

    def _watch(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        # Here, since gevent is to be taken in by a process that it has patched.
        from gevent import sleep

        def chunk(*arguments: Any) -> bytes:
            self.reading = True
            try:
                data = read(*arguments)
            finally:
                self.reading = False
            # A read of bytes that are here already does not wait, so the others would have no turn.
            sleep(0)
            return data

        return chunk

    def verdict(self, now: float) -> str | None:
        """Return why this connection should be closed; None while all is well."""
        if self.method is None:
            # The time for the head of another request has its own end.
            return None
        if self._begins:
            # Here and not when the request came: most are over before anybody looks.
            self._taking, self._giving, self._begins = StallDetector(), StallDetector(), False
        seen = traffic(self.sock)
        if seen is None:
            return None
        if self._taking.look(now, seen.taken, seen.owed):
            return f"took fewer than {limits.LEAST_BYTES} bytes of its answer in {limits.STALL_SECONDS:g} s"
        if self._giving.look(now, seen.given, self.reading and not seen.owed):
            return f"sent fewer than {limits.LEAST_BYTES} bytes of its body in {limits.STALL_SECONDS:g} s"
        return None

    def is_silent(self, now: float) -> bool:
        """Return whether its first request should have come by now."""
        return self.fresh and not self.shaking and now - self.since >= limits.FIRST_HEAD_SECONDS

    def idle_since(self) -> float:
        """Since when nothing has moved that the client should have moved."""
        return self.since if self.method is None else max(self.since, min(self._taking.moved, self._giving.moved))

    def is_between(self) -> bool:
        """Return whether it was served, and is not being served now."""
        return not self.fresh and self.method is None

    def is_idle(self) -> bool:
        """Return whether it was served, and nothing has come from it since."""
        if not self.is_between():
            return False
        try:
            unread = fcntl.ioctl(self.sock.fileno(), termios.FIONREAD, bytes(4))
        except (OSError, ValueError):
            return True
        return unread == bytes(4)

    def cut(self) -> None:
        """End it by FIN; whoever reads or writes there finds it closed."""
        with contextlib.suppress(OSError):
            # Not TLS's own shutdown, which drops the state that a read under way still needs.
            self.sock._sock.shutdown(socket.SHUT_RDWR)


class Clients:
    """All connections of a worker.

    With ``listed``, whoever connects is a stranger until it proves to be more, and addresses are what can be told before:
    none has more than its part, and strangers together leave room for the listed nodes. One over a limit is closed at
    once. Where all room is taken, an address that has more than the one that comes gives one of its connections up, then
    the connection that waits longest for its next request, and those without credentials before the others.

    :param most: how many it may have.
    :param log: takes what strangers cause.
    :param listed: gives the addresses of the listed nodes; None where all clients are of this host.
    :param clock: monotonic seconds.
    :param believed: whether nobody has a certificate to show, as in development, and whoever has a node's address is one.
    """

    def __init__(
        self,
        most: int,
        log: CountedLog,
        listed: Callable[[], Collection[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        believed: bool = False,
    ) -> None:
        self._most = most
        self._log = log
        self._listed = listed
        self._clock = clock
        self._believed = believed
        self._here: set[Client] = set()
        self._by_origin: dict[str, set[Client]] = {}

    def enter(self, sock: Any, address: object) -> Client | None:
        """A client has connected; None where it is one too many, which is counted."""
        said = str(address[0]) if isinstance(address, tuple) and address else "a local client"
        listed = self._listed() if self._listed is not None else ()
        # A node's address is its own; a stranger's may be one of many that it has.
        where = said if said in listed else origin(said)
        client = Client(sock, where, self._clock(), is_node=where in listed)
        if self._believed:
            client.meet(proven=True)
        why = self._refusal(client) if self._listed is not None else None
        if why is not None:
            self._log.count("connections closed at once", where, why)
            return None
        self._here.add(client)
        self._by_origin.setdefault(where, set()).add(client)
        if self._listed is None:
            self._make_room()
        return client

    def leave(self, client: Client) -> None:
        """Its connection is over."""
        self._here.discard(client)
        same = self._by_origin.get(client.address, set())
        same.discard(client)
        if not same:
            self._by_origin.pop(client.address, None)

    def served(self, client: Client) -> None:
        """The request of a client is answered."""
        client.served(self._clock())
        if self._listed is None:
            # Where all are new or are served, nobody made room when the last one came.
            self._make_room()

    def now(self) -> float:
        """Monotonic seconds, as all of this counts them."""
        return self._clock()

    def sweep(self) -> None:
        """Look at each once, and end those that have stopped."""
        now = self._clock()
        for client in list(self._here):
            if self._listed is not None and client.is_silent(now):
                # No line: an honest client may keep a spare connection.
                client.cut()
                continue
            why = client.verdict(now)
            if why is not None:
                self._log.count(f"connections closed that {why}", client.address)
                client.cut()
        if self._listed is None:
            self._make_room()

    def cut_all(self, which: Callable[[Client], bool]) -> int:
        """End those; returns how many there were."""
        chosen = [client for client in self._here if which(client)]
        for client in chosen:
            client.cut()
        return len(chosen)

    def _refusal(self, client: Client) -> str | None:
        """Return why a connection is refused; None if there is room or room was made."""
        same = self._by_origin.get(client.address, set())
        if client.is_node:
            # Any user of a node, and pods on it, come from its address. The certificate shows only later, so nobody is
            # refused for them: the one that has been there longest without it makes room.
            unproven = [other for other in same if not other.proven]
            full = len(unproven) >= limits.ADDRESS_CONNECTIONS or len(same) >= limits.NODE_CONNECTIONS
            if full and not self._take_unproven(unproven):
                return f"the address has {limits.NODE_CONNECTIONS}"
        else:
            if len(same) >= limits.ADDRESS_CONNECTIONS:
                return f"the address has {limits.ADDRESS_CONNECTIONS}"
            if sum(other.fresh for other in same) >= limits.ADDRESS_UNASKED:
                return f"no request has come on {limits.ADDRESS_UNASKED} of the address"
            strangers = [other for other in self._here if not other.is_node]
            if len(strangers) >= limits.STRANGERS and not self._displace(strangers, len(same), limits.STRANGERS):
                return f"strangers have {limits.STRANGERS}"
        if len(self._here) >= self._most and not self._displace(self._here, len(same), self._most):
            return f"there are {self._most}"
        return None

    def _take_unproven(self, unproven: Collection[Client]) -> bool:
        """Take the one that is least likely the node's: after its handshake before in it, at rest before served."""
        if not unproven:
            return False
        worst = min(unproven, key=lambda item: (item.trusted, not item.met, item.method is not None, item.since))
        self._log.count("connections without a certificate closed to make room for their node's", worst.address)
        self._drop(worst)
        return True

    def _displace(self, among: Collection[Client], own: int, bound: int) -> bool:
        """Have a connection given up, if that is fair: one that never gave right credentials, where there is one."""
        untrusted = [client for client in among if not client.trusted]
        return (
            self._take_from_most(untrusted, own, bound)
            or self._take_resting(untrusted, bound)
            or self._take_from_most(among, own, bound)
            or self._take_stopped(among, bound)
        )

    def _take_from_most(self, among: Collection[Client], own: int, bound: int) -> bool:
        """Take one that is not being served from the address that has most of them."""
        counts = Counter(client.address for client in among)
        greedy = max(counts, key=counts.__getitem__, default=None)
        if greedy is None or counts[greedy] <= own + 1:
            return False
        resting = [client for client in among if client.address == greedy and client.method is None]
        if resting:
            self._end(min(resting, key=Client.idle_since), bound)
        return bool(resting)

    def _take_resting(self, among: Iterable[Client], bound: int) -> bool:
        """Take the one that waits longest for its next request; who keeps many asks often enough to be idle for 5 s never."""
        resting = sorted((client for client in among if client.is_between()), key=lambda client: client.since)
        # Whose next request is here already is spared, unless all are like that: a client whose kept connection ends before
        # any answer asks again by another one.
        longest = next((client for client in resting if client.is_idle()), resting[0] if resting else None)
        if longest is None:
            return False
        self._end(longest, bound, " at rest")
        return True

    def _take_stopped(self, among: Iterable[Client], bound: int) -> bool:
        longest = min(among, key=Client.idle_since)
        if self._clock() - longest.idle_since() < limits.YIELD_SECONDS:
            return False
        self._end(longest, bound)
        return True

    def _make_room(self) -> None:
        if len(self._here) >= self._most:
            _ = self._take_resting(self._here, self._most) or self._take_stopped(self._here, self._most)

    def _end(self, client: Client, bound: int, how: str = "") -> None:
        self._log.count(f"connections{how} closed to make room for others at the bound of {bound}", client.address)
        self._drop(client)

    def _drop(self, client: Client) -> None:
        client.cut()
        # Its place is free now, and not when its greenlet notices.
        self.leave(client)
