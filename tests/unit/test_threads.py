"""Work on threads: what it returns, what it raises, and that a refusal is no traceback in the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.errors import ApplianceError, fail
from appliance.threads import feed, offload


def refuse(_: object) -> None:
    fail("APL-0107", "refused")


def test_it_returns_what_the_function_returns() -> None:
    assert offload(divmod, 7, 2) == (3, 1)
    assert offload(lambda: None) is None


def test_a_refusal_comes_back_and_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ApplianceError, match="APL-0107"):
        offload(refuse, 1)
    with pytest.raises(ApplianceError, match="APL-0107"):
        feed(iter([b"a", b"b"]), refuse)
    assert capfd.readouterr() == ("", "")


def test_chunks_are_taken_in_order_also_before_a_break() -> None:
    taken: list[bytes | memoryview] = []

    def chunks() -> Iterator[bytes]:
        yield from (b"a", b"b", b"c")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        feed(chunks(), taken.append)
    assert taken == [b"a", b"b", b"c"]
