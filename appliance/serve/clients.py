"""The connections of one worker: who is waited for, who has stopped, and who makes room.

Whether a client takes its answer is read from the kernel (TCP_INFO), not from how long a write blocks: send buffers
grow to megabytes, and on a slow link a write may wait for minutes although the client reads all the time.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from appliance import bounds

_UNACKED, _ACKED, _NOT_SENT = 24, 120, 144
"""Offsets in Linux' ``struct tcp_info`` (include/uapi/linux/tcp.h): packets in flight, bytes acknowledged and received,
bytes not sent yet. Since Linux 4.6."""
_INFO_BYTES = 160
_TELL_SECONDS = 60.0


@dataclass(frozen=True)
class Traffic:
    """What the kernel knows of a connection.

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


class Pace:
    """Whether something moves fast enough: at least so many bytes in each window in which it should."""

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
        elif now - self._begun >= bounds.STALL_SECONDS:
            if count - self._bytes < bounds.LEAST_BYTES:
                return True
            self._begun, self._bytes = now, count
        return False


class Client:
    """One connection.

    :param sock: as the requests are read from it.
    :param address: where it comes from, for the log.
    """

    def __init__(self, sock: Any, address: object, now: float) -> None:
        self.sock = sock
        self.address = str(address[0]) if isinstance(address, tuple) and address else "a local client"
        self.method: str | None = None
        """Of the request that is being answered; None while one is waited for."""
        self.reading = False
        """Whether the next bytes of a request's body are waited for."""
        self.fresh = True
        """Whether no request came on it yet."""
        self.since = now
        """When it began to wait for a request, or to be served."""
        self._taking, self._giving = Pace(), Pace()
        self._begins = True
        self._watched: object = None

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

    def _watch(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        def chunk(*arguments: Any) -> bytes:
            self.reading = True
            try:
                return read(*arguments)
            finally:
                self.reading = False

        return chunk

    def verdict(self, now: float) -> str | None:
        """Why this connection should be ended; None while all is well."""
        if self.method is None:
            # The time for a handshake and for a head has its own end.
            return None
        if self._begins:
            # Here and not when the request came: most are over before anybody looks.
            self._taking, self._giving, self._begins = Pace(), Pace(), False
        seen = traffic(self.sock)
        if seen is None:
            return None
        if self._taking.look(now, seen.taken, seen.owed):
            return f"took fewer than {bounds.LEAST_BYTES} bytes of its answer in {bounds.STALL_SECONDS:g} s"
        if self._giving.look(now, seen.given, self.reading and not seen.owed):
            return f"sent fewer than {bounds.LEAST_BYTES} bytes of its body in {bounds.STALL_SECONDS:g} s"
        return None

    def idle_since(self) -> float:
        """Since when nothing has moved that the client should have moved."""
        return self.since if self.method is None else max(self.since, min(self._taking.moved, self._giving.moved))

    def is_idle(self) -> bool:
        """Whether it was served, and nothing has come from it since."""
        if self.fresh or self.method is not None:
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

    :param most: how many it may have.
    :param warn: takes a line for the log.
    :param clock: monotonic seconds.
    """

    def __init__(self, most: int, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._warn = warn
        self._clock = clock
        self._here: set[Client] = set()
        self._quiet: dict[str, tuple[int, str]] = {}
        self._told = clock() - _TELL_SECONDS

    def enter(self, sock: Any, address: object) -> Client:
        """A client has connected."""
        client = Client(sock, address, self._clock())
        self._here.add(client)
        self._make_room()
        return client

    def leave(self, client: Client) -> None:
        """Its connection is over."""
        self._here.discard(client)

    def now(self) -> float:
        """Monotonic seconds, as all of this counts them."""
        return self._clock()

    def sweep(self) -> None:
        """Look at each once, and end those that have stopped."""
        now = self._clock()
        for client in list(self._here):
            why = client.verdict(now)
            if why is not None:
                self._warn(f"{client.address} {why}; the connection is closed")
                client.cut()
        self._make_room()
        self._tell()

    def note(self, what: str, last: str) -> None:
        """Count something that is told in one line a minute: a scan of ports must not fill the log.

        :param last: who or what it was this time.
        """
        self._quiet[what] = (self._quiet.get(what, (0, ""))[0] + 1, last)
        self._tell()

    def cut_all(self, which: Callable[[Client], bool]) -> int:
        """End those; returns how many there were."""
        chosen = [client for client in self._here if which(client)]
        for client in chosen:
            client.cut()
        return len(chosen)

    def _make_room(self) -> None:
        if len(self._here) < self._most:
            return
        longest = min(self._here, key=Client.idle_since)
        if self._clock() - longest.idle_since() >= bounds.YIELD_SECONDS:
            self.note(f"made room for others at the bound of {self._most}", longest.address)
            longest.cut()

    def _tell(self) -> None:
        now = self._clock()
        if self._quiet and now - self._told >= _TELL_SECONDS:
            said = (f"{count} {what} (the last: {last})" for what, (count, last) in sorted(self._quiet.items()))
            self._warn(f"connections that were closed: {'; '.join(said)}")
            self._quiet.clear()
            self._told = now
