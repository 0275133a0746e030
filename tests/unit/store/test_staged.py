"""Records of verified readings: kept for a day, for one release, and never trusted when they are damaged."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from appliance.oci.manifests import Descriptor
from appliance.store import staged
from appliance.store.staged import KEEP_SECONDS, StagedReadings

KEY = "0123456789abcdef"
BLOB, MAP = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def readings(tmp_path: Path, clock: Clock) -> StagedReadings:
    return StagedReadings(tmp_path, clock)


def keep(readings: StagedReadings, key: str = KEY) -> float:
    maps = {BLOB: Descriptor("x/y", MAP, 7)}
    return readings.keep(key, {"names": ["ä"]}, blobs={BLOB: 5, MAP: 7}, stored={BLOB: 5}, piece_maps=maps)


def test_a_record_comes_back_as_it_was(readings: StagedReadings, clock: Clock) -> None:
    assert keep(readings) == clock.now + KEEP_SECONDS
    record = readings.find(KEY)
    assert record is not None
    assert msgspec.json.decode(record.content) == {"names": ["ä"]}
    assert (record.blobs, record.stored) == ({BLOB: 5, MAP: 7}, {BLOB: 5})
    assert record.piece_maps == {BLOB: Descriptor("x/y", MAP, 7)}
    assert dict(readings.claims()) == {BLOB: 5, MAP: 7}


@pytest.mark.parametrize("seconds", [KEEP_SECONDS, -1.0])
def test_a_record_whose_time_is_over_or_not_yet_come_does_not_count(
    readings: StagedReadings, clock: Clock, seconds: float
) -> None:
    keep(readings)
    clock.now += seconds
    assert readings.find(KEY) is None
    assert dict(readings.claims()) == {}
    readings.drop_expired()
    clock.now -= seconds
    assert readings.find(KEY) is None


def test_a_record_of_another_release_does_not_count(readings: StagedReadings, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(readings)
    monkeypatch.setattr(staged, "__version__", "0.0.0")
    assert readings.find(KEY) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 5000, b'{"release": 1}', b"\xff"])
def test_a_damaged_record_is_none(readings: StagedReadings, tmp_path: Path, content: bytes) -> None:
    keep(readings)
    (tmp_path / "staged" / f"{KEY}.json").write_bytes(content)
    assert readings.find(KEY) is None
    assert dict(readings.claims()) == {}
    readings.drop_expired()
    assert not (tmp_path / "staged" / f"{KEY}.json").exists()


def test_the_state_changes_with_each_record(readings: StagedReadings) -> None:
    states = [readings.state()]
    keep(readings)
    states.append(readings.state())
    keep(readings, "another-key")
    states.append(readings.state())
    readings.drop_all_but({KEY})
    states.append(readings.state())
    assert states[3] == states[1]
    assert len(set(states)) == 3


def test_blobs_that_were_stored_are_remembered(readings: StagedReadings, tmp_path: Path) -> None:
    for digest in (BLOB, MAP):
        readings.note_placed(digest)
    with (tmp_path / "staged" / "placed").open("a") as file:
        file.write("sha256:cut sh")
    assert readings.placed() == {BLOB, MAP}
    readings.forget_placed({MAP})
    assert readings.placed() == {MAP}
    readings.forget_placed()
    assert readings.placed() == set()


@pytest.mark.parametrize("key", ["../../x", "a/b", "", ".hidden00", "A" * 20, "x" * 200])
def test_a_key_cannot_lead_elsewhere(readings: StagedReadings, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        readings.find(key)
