"""Verified readings of media that wait for the operator's answer.

``appliance plan --stage`` stores the blobs of a medium and keeps here what it read, so that the publication after the
operator's answer, or the next run after a "no", reads nothing again. ``staged/<key>.json`` is one reading: of one file of
the medium, or of a whole plan (``plan-<id>``). Until :data:`KEEP_SECONDS` have passed the garbage collection keeps the
blobs that a reading needs. ``staged/placed`` lists every blob that such a run stored, one digest a line, so that a later
run can remove what nothing needs, also after a power loss.

Decision 64.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from appliance import __version__
from appliance.files import write_atomically
from appliance.oci.digests import digest_of, is_digest
from appliance.oci.manifests import Descriptor

KEEP_SECONDS = 24 * 3600.0
"""Seconds for which a reading is kept."""
_KEY = re.compile(r"[0-9a-z-]{8,80}")
_DIRECTORY, _PLACED = "staged", "placed"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Header of a record: what the garbage collection has to know.

    :param release: release of the appliance that wrote it; another release reads the medium again.
    :param until: end of its time, in seconds since 1970.
    :param blobs: digest to size in bytes of every blob that it needs in the store.
    """

    release: str
    until: float
    blobs: dict[str, int]


class Record(Claim, frozen=True, kw_only=True):
    """One verified reading.

    :param stored: digest to size in bytes of those of its blobs that were not in the store before.
    :param piece_maps: digest of a big blob to the descriptor of its piece map, which is among ``blobs``.
    :param parts: keys of the records that this one was made from; they end together.
    :param content: what was read, as JSON; only its writer knows the form.
    """

    stored: dict[str, int]
    piece_maps: dict[str, Descriptor]
    parts: list[str]
    content: msgspec.Raw


_Claim = TypeVar("_Claim", bound=Claim)


class StagedReadings:
    """The records of one store.

    :param root: directory of the store.
    :param clock: the time in seconds since 1970.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = root / _DIRECTORY
        self._clock = clock

    def find(self, key: str) -> Record | None:
        """Return a record of this release whose time is not over."""
        record = _decode(self._file(key), Record)
        return record if record is not None and self._is_valid(record) else None

    def keep(
        self,
        key: str,
        content: Any,
        *,
        blobs: Mapping[str, int],
        stored: Mapping[str, int],
        piece_maps: Mapping[str, Descriptor],
        parts: Collection[str] = (),
    ) -> float:
        """Write a record; see :class:`Record`. Return the end of its time, in seconds since 1970."""
        until = self._clock() + KEEP_SECONDS
        record = Record(
            release=__version__,
            until=until,
            blobs=dict(blobs),
            stored=dict(stored),
            piece_maps=dict(piece_maps),
            parts=sorted(parts),
            content=msgspec.Raw(msgspec.json.encode(content)),
        )
        self._directory.mkdir(exist_ok=True)
        raw = msgspec.json.encode(record)
        write_atomically(self._file(key), raw + b"\n" + digest_of(raw).encode())
        return until

    def note_placed(self, digest: str) -> None:
        """Remember a blob that was stored. The line is not synced: a lost one leaves the blob to the collection."""
        self._directory.mkdir(exist_ok=True)
        with (self._directory / _PLACED).open("a", encoding="ascii") as file:
            file.write(f"{digest}\n")

    def placed(self) -> set[str]:
        """Return the digests of the blobs that were stored and not forgotten since."""
        try:
            lines = (self._directory / _PLACED).read_text(encoding="ascii", errors="replace").split("\n")
        except FileNotFoundError:
            return set()
        return {line for line in lines if is_digest(line)}

    def forget_placed(self, staying: Collection[str] = ()) -> None:
        """Keep of the list of stored blobs only those in ``staying``."""
        path = self._directory / _PLACED
        if staying:
            write_atomically(path, "".join(f"{digest}\n" for digest in sorted(staying)).encode())
        else:
            path.unlink(missing_ok=True)

    def claims(self) -> Iterator[tuple[str, int]]:
        """Yield digest and size in bytes of every blob that a record needs whose time is not over."""
        for path in self._files():
            claim = _decode(path, Claim)
            if claim is not None and self._is_valid(claim):
                yield from claim.blobs.items()

    def state(self) -> frozenset[str]:
        """Return what changes with every record."""
        return frozenset(f"{path.name} {path.stat().st_mtime_ns}" for path in self._files() if path.exists())

    def drop(self, keys: Collection[str]) -> None:
        """Remove records."""
        for key in keys:
            self._file(key).unlink(missing_ok=True)

    def drop_expired(self) -> None:
        """Remove records whose time is over, and those of other releases."""
        for path in self._files():
            claim = _decode(path, Claim)
            if claim is None or not self._is_valid(claim):
                path.unlink(missing_ok=True)

    def damaged(self) -> list[Path]:
        """Return the records that cannot be read."""
        return [path for path in self._files() if _decode(path, Claim) is None and path.exists()]

    def drop_all_but(self, keys: Collection[str] = ()) -> None:
        """Remove every record but those of ``keys``."""
        for path in self._files():
            if path.stem not in keys:
                path.unlink(missing_ok=True)

    def _is_valid(self, claim: Claim) -> bool:
        # A record from the future is one of a clock that was set back: it would be kept for longer than was said.
        return claim.release == __version__ and 0 < claim.until - self._clock() <= KEEP_SECONDS

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("[0-9a-z]*.json"))

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a key of a staged reading: {key!r}")
        return self._directory / f"{key}.json"


def _decode(path: Path, kind: type[_Claim]) -> _Claim | None:
    """Return a record; None for one that cannot be read: then the medium is read again.

    Its digest stands in the line after it: a changed name in it would be published.
    """
    try:
        raw, _, digest = path.read_bytes().rpartition(b"\n")
        return msgspec.json.decode(raw, type=kind) if digest == digest_of(raw).encode() else None
    except (OSError, msgspec.MsgspecError):
        return None
