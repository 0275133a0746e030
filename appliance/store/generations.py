"""Generations: what the site serves, as an OCI image index that is signed and replaced by one rename.

``index.json`` of the store is the current generation, byte for byte. The same bytes and their signature lie under
``generations/``, with the ones before.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NoReturn

from appliance.errors import ApplianceError, fail
from appliance.files import write_atomically
from appliance.media import MediumIdentity, media_words
from appliance.oci import mediatypes
from appliance.oci.digests import digest_of
from appliance.oci.manifests import Descriptor
from appliance.store.blobs import BlobStore
from appliance.store.index import (
    CREATED,
    PREFIX,
    Entry,
    Referrer,
    SignedIndex,
    list_names,
    read_names,
    read_referrers,
    reading,
)
from appliance.trust import Signature, Trust

NUMBER = PREFIX + "generation"
PARENT = PREFIX + "parent"
CAUSE = PREFIX + "cause"
SOURCES = PREFIX + "sources"
MEDIA = PREFIX + "media"
BY = PREFIX + "by"

HISTORY = 100
"""Generations whose bytes are kept: for the history, for comparing two, and for going back as far as their blobs lie here."""
HISTORY_BYTES = 256 << 20
"""Most bytes that these take; those that stay complete are kept in any case."""


@dataclass(frozen=True)
class Generation:
    """One state of the site.

    :param number: counts up by one from the first, 1.
    :param parent: digest of the generation before, None for the first.
    :param cause: ``seeding``, ``bundle`` or ``rollback``.
    :param created: the publisher's time, ISO 8601 in UTC; says what a clock said, orders nothing.
    :param sources: the sources it was made from, as the operator named them.
    :param names: full reference (``docker.io/library/nginx:1.27``) to :class:`Entry`.
    :param piece_maps: digest of a big blob to the descriptor of its piece map.
    :param raw: its bytes.
    :param digest: digest of its bytes: what it is signed, compared and kept by.
    :param media: source to the medium that it was; see :class:`appliance.media.MediumIdentity`. Of an older release: to what
        the medium said of itself, where it did.
    :param by: who made it; empty where a release that did not ask made it.
    :param referrers: digest to :class:`Referrer`: signatures and attestations of what the names reach, without names of
        their own.
    """

    number: int
    parent: str | None
    cause: str
    created: str
    sources: tuple[str, ...]
    names: Mapping[str, Entry]
    piece_maps: Mapping[str, Descriptor]
    raw: bytes = field(default=b"", repr=False)
    digest: str = ""
    media: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    by: str = ""
    referrers: Mapping[str, Referrer] = field(default_factory=dict)

    @property
    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Everything that is served, each with its name, or for a referrer with words that stand for one."""
        yield from self.names.items()
        for digest, referrer in self.referrers.items():
            yield f"{digest} (refers to {referrer.subject})", referrer.entry

    def comes_from(self, text: str) -> bool:
        """Return whether it was made from a source or medium of this name: a path, or a name of the medium."""
        return text in self.sources or any(
            MediumIdentity.from_dict(said).is_called(text) for said in self.media.values()
        )

    @property
    def origin(self) -> list[str]:
        """The media that it was made from, in words."""
        return media_words(self.sources, self.media)

    @property
    def summary(self) -> dict[str, object]:
        """Number, digest and time, for JSON."""
        return {
            "number": self.number,
            "digest": self.digest,
            "created": self.created,
            "sources": list(self.sources),
            "medium": {source: dict(label) for source, label in self.media.items()},
        }


def make(
    parent: Generation | None,
    names: Mapping[str, Entry],
    piece_maps: Mapping[str, Descriptor],
    *,
    cause: str,
    created: str,
    sources: Iterable[str],
    media: Mapping[str, Mapping[str, str]] | None = None,
    by: str = "",
    referrers: Mapping[str, Referrer] | None = None,
) -> Generation:
    """Return the generation that follows ``parent`` and serves exactly ``names`` and ``referrers``.

    Its bytes depend on nothing else.
    """
    generation = Generation(
        number=parent.number + 1 if parent else 1,
        parent=parent.digest if parent else None,
        cause=cause,
        created=created,
        sources=tuple(sources),
        names=dict(sorted(names.items())),
        piece_maps=dict(sorted(piece_maps.items())),
        media={source: dict(label) for source, label in (media or {}).items()},
        by=by,
        referrers=dict(sorted((referrers or {}).items())),
    )
    raw = _serialise(generation)
    return replace(generation, raw=raw, digest=digest_of(raw))


def _serialise(generation: Generation) -> bytes:
    annotations = {
        NUMBER: str(generation.number),
        CAUSE: generation.cause,
        CREATED: generation.created,
        SOURCES: json.dumps(list(generation.sources)),
    }
    if generation.parent:
        annotations[PARENT] = generation.parent
    if generation.media:
        annotations[MEDIA] = json.dumps(generation.media)
    if generation.by:
        annotations[BY] = generation.by
    index = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": list_names(generation.names, generation.piece_maps, generation.referrers.values()),
        "annotations": annotations,
    }
    return json.dumps(index, separators=(",", ":")).encode()


def parse(raw: bytes, where: str) -> Generation | None:
    """Read a generation; None for the empty index of a fresh store.

    :raises ApplianceError: APL-0305 when the bytes are no generation.
    """
    with reading(raw, lambda why: _damaged(where, why)) as index:
        annotations = index.get("annotations") or {}
        if NUMBER not in annotations and index["manifests"] == []:
            return None
        names, piece_maps = read_names(index["manifests"])
        sources = json.loads(annotations[SOURCES])
        if int(annotations[NUMBER]) < 1 or not all(isinstance(source, str) for source in sources):
            raise ValueError("its number or its sources are of a wrong kind")
        media = json.loads(annotations.get(MEDIA, "{}"))
        said = [word for label in media.values() for word in label.values()]
        if not all(isinstance(word, str) for word in (*said, annotations.get(BY, ""))):
            raise ValueError("its media or who made it are of a wrong kind")
        return Generation(
            number=int(annotations[NUMBER]),
            parent=annotations.get(PARENT),
            cause=annotations[CAUSE],
            created=annotations[CREATED],
            sources=tuple(sources),
            names=names,
            piece_maps=piece_maps,
            raw=raw,
            digest=digest_of(raw),
            media=media,
            by=annotations.get(BY, ""),
            referrers=read_referrers(index["manifests"]),
        )


def _damaged(where: str, why: str) -> NoReturn:
    fail(
        "APL-0305",
        "this is not a valid generation",
        where=where,
        why=why,
        fix="The agent puts it back within half a minute, from its copy or from another node; see the runbook where it does not",
    )


class Generations(SignedIndex[Generation]):
    """The generations of one store: the current one, the kept ones, and the way to replace it."""

    def __init__(self, blobs: BlobStore, trust: Trust) -> None:
        directory = blobs.root / "generations"
        super().__init__(blobs.root / "index.json", directory, trust, parse, _damaged, "generation", "generation")

    def newest_first(self) -> Iterator[Generation]:
        """Every generation that was served and whose bytes are kept, one at a time, the current one first.

        One whose publisher was ended before the switch lies there too, and was never served; a damaged one is left to
        ``appliance fsck``. Neither is among them.
        """
        later = self.current()
        if later is None:
            return
        yield later
        for path in sorted(self._directory.glob("[0-9]*-*.json"), reverse=True):
            number = int(path.name.partition("-")[0])
            if number >= later.number:
                continue
            before = None
            with contextlib.suppress(ApplianceError, FileNotFoundError):
                before = parse(path.read_bytes(), str(path))
            # A follower may have skipped numbers; where none is skipped, only the parent was served.
            if before is not None and (number < later.number - 1 or later.parent in (None, before.digest)):
                yield before
                later = before

    def kept(self) -> list[Generation]:
        """The same, oldest first, all at once."""
        return list(self.newest_first())[::-1]

    def complete(self, keep: int) -> list[Generation]:
        """The last ``keep`` of them by their numbers, oldest first: those whose blobs are all kept.

        By their numbers, so that a follower which skipped some keeps the same ones as the publisher.
        """
        found = list(islice(self.newest_first(), keep))
        return [generation for generation in reversed(found) if generation.number > found[0].number - keep]

    def find(self, number: int) -> Generation | None:
        """The generation of a number, where its bytes are kept."""
        return next((generation for generation in self.newest_first() if generation.number == number), None)

    def prune(self, keep: int) -> list[int]:
        """Forget the bytes of what is no history any more; returns the numbers forgotten.

        :param keep: how many stay complete, and so stay in any case; older ones up to :data:`HISTORY` of all and
            :data:`HISTORY_BYTES`.
        """
        sizes: dict[int, int] = {}
        for path in self._directory.glob("[0-9]*-*.json"):
            number = int(path.name.partition("-")[0])
            with contextlib.suppress(FileNotFoundError):
                sizes[number] = sizes.get(number, 0) + path.stat().st_size
        kept, total, forgotten = 0, 0, []
        for number in sorted(sizes, reverse=True):
            total += sizes[number]
            if kept < keep or (kept < HISTORY and total <= HISTORY_BYTES):
                kept += 1
            else:
                forgotten.append(number)
        for number in forgotten:
            # The bytes last: a signature without them says that a generation was lost.
            for end in ("sig", "json"):
                for path in self._directory.glob(f"{number:08d}-*.{end}"):
                    path.unlink(missing_ok=True)
        return sorted(forgotten)

    def lost(self, limit: int, published: Collection[tuple[int, str]] = ()) -> list[tuple[int, str]]:
        """Return number and beginning of the digest of generations whose bytes should be here and are not.

        They left their signature. What is no history any more is not among them.

        :param limit: the current number; what has a higher one was never served here.
        :param published: those that this node is known to have published.
        """
        here = {item for item in self._known() if self.file(*item, ".json").exists()}
        missing = {*self._known(), *published} - here
        oldest = min(here, default=(0, ""))[0]
        with contextlib.suppress(FileNotFoundError):
            size = sum(self.file(*item, ".json").stat().st_size for item in here)
            if len(here) < HISTORY and size < HISTORY_BYTES // 2:
                oldest = 0
        return sorted(item for item in missing if max(oldest, limit - HISTORY) < item[0] <= limit)

    def remove_stray_signatures(self) -> None:
        """Remove signatures of what is no history, or was never served; only where nobody publishes or follows meanwhile."""
        current = self.current()
        lost = self.lost(current.number) if current else []
        for item in self._known():
            if item not in lost and not self.file(*item, ".json").exists():
                self.file(*item, ".sig").unlink(missing_ok=True)

    def _read(self) -> bytes | None:
        """Every store has the file from its first moment: without it, it was lost."""
        try:
            return self.index.read_bytes()
        except FileNotFoundError:
            self._damaged(str(self.index), "it is not there any more")

    def _copy(self, number: int, start: str) -> bytes | None:
        return (self._directory / f"{number:08d}-{start}.json").read_bytes()

    def _is_whole(self, number: int, start: str) -> bool:
        # The copy is written before the signature: one alone was not published, where anything is signed.
        ends = (".json", ".sig") if self._trust.signs else (".json",)
        return all((self._directory / f"{number:08d}-{start}{end}").exists() for end in ends)

    def _replace(self, item: Generation, signature: Signature | None) -> None:
        # The copy first: whoever sees the new index.json finds it.
        write_atomically(self._file(item, ".json"), item.raw)
        super()._replace(item, signature)
