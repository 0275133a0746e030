"""A blob that grows while it is sent: nothing is read before it was verified."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from appliance.agent.client import AgentClient, AgentDown, FetchedFile
from appliance.web.blob_provider import Unreachable
from tests.unit.store import made

CONTENT = made.noise(3, 1000)
DIGEST = made.sha(CONTENT)


class FakeAgent(AgentClient):
    """Gives the answers that a test wrote down; the last one again and again."""

    def __init__(self, root: Path, *answers: dict[str, Any] | Exception) -> None:
        super().__init__(root / "none.sock")
        self.partial = root / "partial" / "x.data"
        self.partial.parent.mkdir()
        (root / "blobs" / "sha256").mkdir(parents=True)
        self.whole = root / "blobs" / "sha256" / DIGEST[7:]
        self.answers = list(answers)
        self.asked: list[int] = []
        self.suspects: list[bool] = []

    def fetch(self, digest: str, size: int, beyond: int, *, suspect: bool = False, wait: float = 0.0) -> dict[str, Any]:
        self.asked.append(beyond)
        self.suspects.append(suspect)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"size": size, "partial": str(self.partial), "reason": "", **answer}


def fetching(verified: int) -> dict[str, Any]:
    return {"state": "fetching", "verified": verified}


def test_waits_until_a_byte_is_verified(tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path, fetching(0), fetching(0), fetching(500), fetching(900))
    agent.partial.write_bytes(CONTENT)
    source = agent.source(DIGEST, 1000, 0)
    assert agent.asked == [0, 0, 0]
    assert source.wait_beyond(0) == 500
    assert source.wait_beyond(499) == 500
    assert agent.asked == [0, 0, 0]
    assert source.wait_beyond(500) == 900
    assert os.pread(source.fileno(), 900, 0) == CONTENT[:900]
    source.close()
    source.close()


def test_a_file_without_a_verified_byte_is_not_opened(tmp_path: Path) -> None:
    """An attempt that failed leaves wrong bytes in a file that the next attempt replaces."""
    agent = FakeAgent(tmp_path, fetching(0), {"state": "complete", "verified": 1000})
    agent.partial.write_bytes(b"wrong" * 200)
    agent.whole.write_bytes(CONTENT)
    source = FetchedFile(agent, DIGEST, 1000)
    assert source.wait_beyond(0) == 1000
    assert os.pread(source.fileno(), 1000, 0) == CONTENT
    source.close()


def test_a_blob_that_is_whole_by_now_is_read_from_its_place(tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path, fetching(500), {"state": "complete", "verified": 1000})
    agent.whole.write_bytes(CONTENT)
    source = agent.source(DIGEST, 1000, 0)
    assert source.wait_beyond(700) == 1000
    assert os.pread(source.fileno(), 1000, 0) == CONTENT
    source.close()


@pytest.mark.parametrize(
    ("answer", "word"),
    [({"state": "failed", "verified": 0, "reason": "b is down"}, "b is down"), (AgentDown("no socket"), "no socket")],
)
def test_a_failure_is_said_at_once(tmp_path: Path, answer: Any, word: str) -> None:
    with pytest.raises(Unreachable, match=word):
        FakeAgent(tmp_path, answer).source(DIGEST, 1000, 0)


def test_a_stream_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = FakeAgent(tmp_path, fetching(500) | {"reason": "b delivers 2 B a second"})
    agent.partial.write_bytes(CONTENT)
    source = agent.source(DIGEST, 1000, 0)
    now = [0.0]

    def clock() -> float:
        now[0] += 5.0
        return now[0]

    monkeypatch.setattr(time, "monotonic", clock)
    with pytest.raises(OSError, match="no byte for 20 s, 500 of 1000 have come; b delivers 2 B a second"):
        source.wait_beyond(500)
    source.close()
    assert len(agent.asked) < 10


def test_an_empty_blob_asks_nobody(tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path, AgentDown("never asked"))
    agent.source(made.sha(b""), 0, 0).close()
    assert agent.asked == []


def test_an_agent_that_is_not_there(tmp_path: Path) -> None:
    client = AgentClient(tmp_path / "agent.sock")
    for call in (client.status, client.wake, lambda: client.fetch(DIGEST, 1, 0)):
        with pytest.raises(AgentDown, match=r"agent\.sock"):
            call()


def test_what_is_mended_was_looked_at_first(tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path, fetching(0), fetching(0), {"state": "complete", "verified": 1000})
    agent.mend(DIGEST, 1000)
    assert agent.suspects == [True, False, False]


def test_what_is_suspect_is_hashed_once(tmp_path: Path) -> None:
    """A second request would begin anew with what the first has found right."""
    agent = FakeAgent(tmp_path, fetching(0), fetching(0), {"state": "complete", "verified": 1000})
    agent.whole.write_bytes(CONTENT)
    agent.source(DIGEST, 1000, 0, suspect=True).close()
    assert agent.suspects == [True, False, False]
    agent.source(DIGEST, 1000, 0).close()
    assert agent.suspects[3:] == [False]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ({"state": "failed", "verified": 0, "reason": "b is down"}, "b is down"),
        (AgentDown("no socket"), "no socket"),
        (fetching(0), "did not come within 5 s"),
    ],
)
def test_what_cannot_be_mended_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, word: str) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr(time, "monotonic", clock)
    with pytest.raises(Unreachable, match=word):
        FakeAgent(tmp_path, answer).mend(DIGEST, 1000)
