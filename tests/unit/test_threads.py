"""Work on threads: what it returns, what it raises, and that a refusal is no traceback in the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.errors import ApplianceError, fail
from appliance.threads import pipe_to_thread, run_in_thread


def refuse(_: object) -> None:
    fail("APL-0107", "refused")


def test_it_returns_what_the_function_returns() -> None:
    assert run_in_thread(divmod, 7, 2) == (3, 1)
    assert run_in_thread(lambda: None) is None


def test_a_refusal_comes_back_and_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ApplianceError, match="APL-0107"):
        run_in_thread(refuse, 1)
    with pytest.raises(ApplianceError, match="APL-0107"):
        pipe_to_thread(iter([b"a", b"b"]), refuse)
    assert capfd.readouterr() == ("", "")


def test_chunks_are_taken_in_order_also_before_a_break() -> None:
    taken: list[bytes | memoryview] = []

    def chunks() -> Iterator[bytes]:
        yield from (b"a", b"b", b"c")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        pipe_to_thread(chunks(), taken.append)
    assert taken == [b"a", b"b", b"c"]
