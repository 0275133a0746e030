"""Bodies straight from the socket: the bytes that gunicorn's own reader gives, however they come, and nothing beyond."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import SocketUnreader
from hypothesis import given
from hypothesis import strategies as st

from appliance import limits
from appliance.server import gunicorn_body
from appliance.web.connection import BrokenBody

STEP = 64
NEXT = b"GET / HTTP/1.1\r\n\r\n"


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Buffers of a few bytes, so that every border is met."""
    patch = pytest.MonkeyPatch()
    patch.setattr(gunicorn_body, "STEP", STEP)
    yield
    patch.undo()


class Wire:
    """A socket on which bytes come in pieces, and then the end, or nothing more."""

    def __init__(self, pieces: list[bytes], *, ends: bool = True) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._ends = ends
        self.timeout: float | None = None

    def recv(self, size: int) -> bytes:
        if not self._pieces:
            if self._ends:
                return b""
            raise TimeoutError("timed out")
        piece = self._pieces.pop(0)
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def recv_into(self, view: memoryview) -> int:
        piece = self.recv(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def gettimeout(self) -> float | None:
        return self.timeout

    def settimeout(self, seconds: float | None) -> None:
        self.timeout = seconds


class Asked:
    """What gunicorn's reader needs of a request."""

    limit_request_field_size = 0
    max_buffer_headers = 0
    trailers: object = None

    def __init__(self, unreader: SocketUnreader) -> None:
        self.unreader = unreader

    def parse_headers(self, data: bytes, from_trailer: bool) -> list[bytes]:
        return [data]


def environ(sock: Wire, length: int | None, ahead: bytes = b"") -> dict[str, Any]:
    unreader = SocketUnreader(sock)
    unreader.unread(ahead)
    reader = LengthReader(unreader, length) if length is not None else ChunkedReader(Asked(unreader), unreader)
    return {"gunicorn.socket": sock, "wsgi.input": Body(reader)}


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(data)) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def read(found: dict[str, Any]) -> bytes:
    pieces = gunicorn_body.body(found)
    assert pieces is not None
    return b"".join(map(bytes, pieces))


def unread(found: dict[str, Any]) -> bytes:
    """What the next request on the connection would begin with."""
    reader = found["wsgi.input"].reader
    unreader: Any = reader.unreader if isinstance(reader, LengthReader) else reader.req.unreader
    return bytes(unreader.take_buffered()) + b"".join(unreader.sock._pieces)


cutting = st.lists(st.integers(0, 600), max_size=8)


@given(st.binary(max_size=400), cutting, st.integers(0, 500))
def test_a_counted_body_is_its_bytes_and_the_next_request_is_left_alone(
    data: bytes, cuts: list[int], ahead: int
) -> None:
    sent = data + NEXT
    sock = Wire(split(sent[ahead:], cuts))
    found = environ(sock, len(data), sent[:ahead])
    assert read(found) == data
    assert not found["wsgi.input"].failed
    assert sock.timeout is None
    assert unread(found) == NEXT
    assert found["wsgi.input"].read() == b""


def framed(data: bytes, sizes: list[int], *, last: bytes = b"0\r\n\r\n") -> bytes:
    out, at = b"", 0
    for size in [*sizes, len(data)]:
        piece = data[at : at + size]
        if piece:
            out += b"%x\r\n%b\r\n" % (len(piece), piece)
        at += len(piece)
    return out + last


@given(
    st.binary(max_size=400),
    st.lists(st.integers(1, 90), max_size=8),
    cutting,
    st.integers(0, 700),
    st.sampled_from([b"0\r\n\r\n", b"000\r\n\r\n", b"0;why=not\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n"]),
)
def test_a_chunked_body_is_its_bytes_and_the_next_request_is_left_alone(
    data: bytes, sizes: list[int], cuts: list[int], ahead: int, last: bytes
) -> None:
    sent = framed(data, sizes, last=last) + NEXT
    # The client waits for the answer: whoever asks for more than the body waits for ever.
    sock = Wire(split(sent[ahead:], cuts), ends=False)
    found = environ(sock, None, sent[:ahead])
    assert read(found) == data
    assert not found["wsgi.input"].failed
    assert unread(found) == NEXT


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=4), st.binary(max_size=12), st.integers(0, 250))
def test_it_takes_what_gunicorns_reader_takes_and_refuses_what_that_refuses(
    data: bytes, sizes: list[int], junk: bytes, at: int
) -> None:
    sent = framed(data, sizes)
    sent = sent[:at] + junk + sent[at:]

    def by_gunicorn() -> bytes | None:
        received = environ(Wire([sent]), None)["wsgi.input"]
        try:
            return bytes(received.read())
        except Exception:  # what it refuses, it refuses in several ways
            return None

    found = environ(Wire([sent]), None)
    try:
        mine: bytes | None = read(found)
    except BrokenBody:
        mine = None
    assert mine == by_gunicorn()


@pytest.mark.parametrize("length", [100, None])
@pytest.mark.parametrize("ends", [True, False])
def test_what_came_before_a_break_is_handed_over(length: int | None, ends: bool) -> None:
    sent = b"x" * 90 if length else b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 26
    found = environ(sock := Wire([sent], ends=ends), length)
    pieces, seen = gunicorn_body.body(found), b""
    assert pieces is not None
    with pytest.raises(BrokenBody, match="did not come|ended before|less than" if ends else "less than"):
        for piece in pieces:
            seen += bytes(piece)
    assert seen == b"x" * 90
    assert found["wsgi.input"].failed
    assert sock.timeout is None


def test_a_client_that_sends_a_byte_at_a_time_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("appliance.server.gunicorn_body.time.monotonic", lambda: clock[0])

    class Slow(Wire):
        def recv_into(self, view: memoryview) -> int:
            assert self.timeout is not None and 0 < self.timeout <= limits.STALL_SECONDS
            clock[0] += min(59.0, self.timeout)
            return super().recv_into(view)

    sock = Slow([bytes([65 + number]) for number in range(20)])
    with pytest.raises(BrokenBody, match="less than"):
        read(environ(sock, 20))
    assert len(sock._pieces) > 15


def test_a_slow_link_that_sends_enough_goes_on_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("appliance.server.gunicorn_body.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(limits, "LEAST_BYTES", 10)

    class Slow(Wire):
        def recv_into(self, view: memoryview) -> int:
            clock[0] += 50
            return super().recv_into(view)

    data = b"0123456789" * 30
    assert read(environ(Slow(split(data, list(range(0, 300, 10)))), 300)) == data
    assert clock[0] > 1000


def test_what_is_not_gunicorns_or_was_begun_is_left_to_the_usual_way() -> None:
    assert gunicorn_body.body({"wsgi.input": io.BytesIO(b"x")}) is None
    for length in (10, None):
        found = environ(Wire([b"5\r\n01234\r\n0\r\n\r\n"]), length)
        assert found["wsgi.input"].read(1)
        assert gunicorn_body.body(found) is None
