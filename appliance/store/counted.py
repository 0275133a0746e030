"""Indexes that count every change and are no generations: pushed names and pinned names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, NoReturn, TypeVar

from appliance.oci import mediatypes
from appliance.oci.digests import digest_of
from appliance.oci.manifests import Descriptor
from appliance.store.blobs import BlobStore
from appliance.store.index import CREATED, PREFIX, Entry, SignedIndex, list_names, read_names, reading
from appliance.times import now
from appliance.trust import Signature, Trust

C = TypeVar("C", bound="Counted")


@dataclass(frozen=True)
class Counted:
    """One state of such an index.

    :param number: counts up by one with every change.
    :param created: the publisher's time, ISO 8601 in UTC; says what a clock said, orders nothing.
    :param names: name to what it points to.
    :param piece_maps: digest of a big blob to the descriptor of its piece map.
    :param raw: its bytes.
    :param digest: digest of its bytes: what it is signed and compared by.
    """

    KIND: ClassVar[str]
    """What it is called in its annotation, its file and its directory."""

    number: int
    created: str
    names: Mapping[str, Entry]
    piece_maps: Mapping[str, Descriptor]
    raw: bytes = field(default=b"", repr=False)
    digest: str = ""

    @classmethod
    def after(
        cls: type[C], before: C | None, names: Mapping[str, Entry], piece_maps: Mapping[str, Descriptor], created: str
    ) -> C:
        """The state that follows ``before`` and has exactly ``names``; its bytes depend on nothing else."""
        made = cls(
            number=before.number + 1 if before else 1,
            created=created,
            names=dict(sorted(names.items())),
            piece_maps=dict(sorted(piece_maps.items())),
        )
        index = {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_INDEX,
            "manifests": list_names(made.names, made.piece_maps),
            "annotations": {PREFIX + cls.KIND: str(made.number), CREATED: created},
        }
        raw = json.dumps(index, separators=(",", ":")).encode()
        return replace(made, raw=raw, digest=digest_of(raw))

    @classmethod
    def read(cls: type[C], raw: bytes, damaged: Callable[[str], NoReturn]) -> C:
        """Read one.

        :param damaged: raises the error for bytes that are none; called with why.
        """
        with reading(raw, damaged) as index:
            annotations = index["annotations"]
            number, created = int(annotations[PREFIX + cls.KIND]), annotations[CREATED]
            if number < 1 or not isinstance(created, str):
                raise ValueError("its number or its time is of a wrong kind")
            names, piece_maps = read_names(index["manifests"])
            return cls(number, created, names, piece_maps, raw, digest_of(raw))


class CountedIndex(SignedIndex[C]):
    """The file of such an index, ``<kind>.json``; a store in which nothing was ever listed has none.

    :param of: the class of its states.
    :param parse: reads one.
    :param damaged: raises the error of what is none; called with where and why.
    :param keep: signatures kept: whoever read the index a moment ago still finds the one that belongs to it.
    """

    def __init__(
        self,
        blobs: BlobStore,
        trust: Trust,
        of: type[C],
        parse: Callable[[bytes, str], C],
        damaged: Callable[[str, str], NoReturn],
        *,
        keep: int,
    ) -> None:
        directory, noun = blobs.root / of.KIND, f"index of {of.KIND}"
        super().__init__(blobs.root / f"{of.KIND}.json", directory, trust, parse, damaged, of.KIND, noun)
        self._of = of
        self._keep = keep

    def replace(self, names: Mapping[str, Entry], piece_maps: Mapping[str, Descriptor] | None = None) -> C:
        """Sign and publish the state that has exactly ``names``; one process at a time.

        :raises ApplianceError: where the current one is damaged or gone: its number would be given again.
        """
        if self.is_gone():
            self._damaged(str(self.index), "it is not there any more")
        following = self._of.after(self.current(), names, piece_maps or {}, now())
        self.publish(following)
        return following

    def is_gone(self) -> bool:
        """The signatures tell an index that was lost from one that was never written.

        A signature of the first one alone says neither: it is written before its index.
        """
        return not self.index.exists() and any(number > 1 for number, _ in self._known()) and not self.index.exists()

    def _replace(self, item: C, signature: Signature | None) -> None:
        # A store may be older than this index.
        self._directory.mkdir(exist_ok=True)
        # Of a process that was killed; one at a time writes here. Each is as large as the index.
        for leftover in self.index.parent.glob(f".{self.index.name}.*"):
            leftover.unlink(missing_ok=True)
        super()._replace(item, signature)
        self._forget(self._keep, item)
