"""Signed index of names, an OCI image index that is replaced by one rename: the base of generations, pushes and pins.

Decision 14.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from appliance.errors import ApplianceError, fail
from appliance.files import write_atomically
from appliance.oci import mediatypes
from appliance.oci.digests import check_digest, digest_of
from appliance.oci.manifests import IMAGE_NAME, REF_NAME, SUBJECT, Descriptor
from appliance.oci.reference import parse_reference
from appliance.store.head import IndexHead
from appliance.store.locks import Rank, locked
from appliance.trust import Signature, Trust

PREFIX = "vnd.k3s-airgap-appliance."
CREATED = PREFIX + "created"
ABSENT = PREFIX + "absent"
PIECES_OF = PREFIX + "pieces-of"
SIZE_LIMIT = 256 << 20
"""Largest index that is read, in bytes: about half a million names."""


_FILE = re.compile(r"([0-9]{8})-([0-9a-f]{16})\.(?:json|sig)")
# Each web worker holds the whole index: what most names share is there once.
_NONE: frozenset[str] = frozenset()
_NO_NOTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """Target of one name.

    :param descriptor: media type, digest and size of its manifest or index.
    :param absent: digests of what it lists and was not brought: children of a sparse index, layers that may not be
        distributed.
    """

    descriptor: Descriptor
    absent: frozenset[str] = _NONE


@dataclass(frozen=True, slots=True)
class Referrer:
    """A manifest without a name that refers to another one: a signature, an attestation, an SBOM.

    :param entry: what it is.
    :param subject: digest of the manifest that it refers to.
    """

    entry: Entry
    subject: str


class NameIndex(Protocol):
    """One state of an index of names."""

    @property
    def number(self) -> int:
        """Counts up by one from the first, 1."""
        ...

    @property
    def created(self) -> str:
        """The publisher's time, ISO 8601 in UTC; says what a clock said, orders nothing."""
        ...

    @property
    def names(self) -> Mapping[str, Entry]:
        """Full reference to what it points to."""
        ...

    @property
    def piece_maps(self) -> Mapping[str, Descriptor]:
        """Digest of a big blob to the descriptor of its piece map."""
        ...

    @property
    def raw(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def digest(self) -> str:
        """Digest of its bytes: what it is signed, compared and kept by."""
        ...


@contextlib.contextmanager
def reading(raw: bytes, damaged: Callable[[str], NoReturn]) -> Iterator[dict[str, Any]]:
    """The JSON of an index, its descriptors read; whatever is wrong with it, here or in the block, becomes one error.

    :param damaged: raises the error; called with why.
    """
    if len(raw) > SIZE_LIMIT:
        damaged(f"{len(raw)} bytes, {SIZE_LIMIT} are the limit")
    try:
        yield json.loads(raw, object_hook=_listed)
    except ApplianceError as error:
        damaged(str(error))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        damaged(f"{type(error).__name__}: {error}")


def list_names(
    names: Mapping[str, Entry],
    piece_maps: Mapping[str, Descriptor],
    referrers: Iterable[Referrer] = (),
) -> list[dict[str, Any]]:
    """Return the ``manifests`` of an index that serves exactly these names, with what refers to their manifests.

    A referrer has no name: a release that does not know referrers passes over entries that are neither named nor piece
    maps, so it reads the index all the same.
    """
    manifests = [_listing(entry, {IMAGE_NAME: name, REF_NAME: name}) for name, entry in names.items()]
    manifests += [_listing(item.entry, {SUBJECT: item.subject}) for item in referrers]
    for blob, descriptor in piece_maps.items():
        manifests.append(replace(descriptor, annotations={PIECES_OF: blob}).to_dict())
    return manifests


def _listing(entry: Entry, annotations: dict[str, str]) -> dict[str, Any]:
    if entry.absent:
        annotations[ABSENT] = " ".join(sorted(entry.absent))
    return replace(entry.descriptor, annotations=annotations).to_dict()


@dataclass(frozen=True, slots=True)
class _Listed:
    """A descriptor of an index, and what it is listed as: a name, the piece map of a blob, a referrer, or nothing known."""

    entry: Entry
    name: str | None = None
    pieces_of: str | None = None
    subject: str | None = None


def _listed(item: dict[str, Any]) -> dict[str, Any] | _Listed:
    """Convert each JSON object as soon as it is parsed: 10,000 names as objects would take 14 MB."""
    if "digest" not in item:
        return item
    descriptor = Descriptor.from_dict(item)
    notes = descriptor.annotations
    bare = replace(descriptor, annotations=_NO_NOTES, media_type=sys.intern(descriptor.media_type))
    if descriptor.media_type == mediatypes.PIECE_MAP:
        return _Listed(Entry(bare), pieces_of=notes[PIECES_OF])
    name = notes.get(REF_NAME)
    # A name that nobody can parse, or finds only by another spelling, must stop here, not in every mirror that follows.
    if name is not None and str(parse_reference(name)) != name:
        fail("APL-0202", "a name of an index is not written out in full", where=name[:200])
    entry = Entry(bare, frozenset(notes[ABSENT].split()) if ABSENT in notes else _NONE)
    subject = check_digest(notes[SUBJECT]) if name is None and SUBJECT in notes else None
    return _Listed(entry, name, subject=subject)


def read_names(manifests: Iterable[object]) -> tuple[dict[str, Entry], dict[str, Descriptor]]:
    """Names and piece maps from the ``manifests`` of an index that :func:`reading` reads.

    :raises TypeError: for one that is no descriptor.
    """
    names: dict[str, Entry] = {}
    piece_maps: dict[str, Descriptor] = {}
    for item in manifests:
        if not isinstance(item, _Listed):
            raise TypeError("an entry of it is no descriptor")
        if item.pieces_of is not None:
            piece_maps[item.pieces_of] = item.entry.descriptor
        elif item.name is not None:
            names[item.name] = item.entry
    return names, piece_maps


def read_referrers(manifests: Iterable[object]) -> dict[str, Referrer]:
    """Return the referrers of an index that :func:`reading` reads, by digest."""
    return {
        item.entry.descriptor.digest: Referrer(item.entry, item.subject)
        for item in manifests
        if isinstance(item, _Listed) and item.subject is not None
    }


T = TypeVar("T", bound=NameIndex)


class SignedIndex(Generic[T]):
    """The file of an index: what is current, whose signature it carries, and the ways to replace it.

    The signature lies in ``directory`` under the number and digest of what it signs, and is written first: whoever
    sees a new index finds its signature, and no moment has the one without the other.

    :param index: the file that is the current index, byte for byte.
    :param directory: where signatures lie.
    :param trust: who may sign.
    :param parse: reads the bytes; None for an index that was never written.
    :param damaged: raises the error of what is none; called with where and why.
    :param kind: what its heads call it, and peers.
    :param noun: what one of them is called in errors.
    """

    def __init__(
        self,
        index: Path,
        directory: Path,
        trust: Trust,
        parse: Callable[[bytes, str], T | None],
        damaged: Callable[[str, str], NoReturn],
        kind: str,
        noun: str,
    ) -> None:
        self.index = index
        self.kind = kind
        self._directory = directory
        self._trust = trust
        self._parse = parse
        self._damaged = damaged
        self._noun = noun

    def current(self) -> T | None:
        """The index that is served now; None in a fresh store.

        :raises ApplianceError: for a file that is damaged or cannot be read. One bit may make another index of it that reads well:
            what has a number that only another one had here is none either.
        """
        where = str(self.index)
        try:
            raw = self._read()
            item = None if raw is None else self._parse(raw, where)
            # Read once more: it may have been replaced, and the files of the one before removed, between two looks.
            is_right = item is None or self._is_published(item) or self._read() != raw
        except OSError as error:
            self._damaged(where, f"it cannot be read: {error.strerror or error}")
        if item is not None and not is_right:
            self._damaged(where, f"it is no {self._noun} that was here: its digest is {item.digest}")
        return item

    def state(self) -> tuple[int, int, int] | None:
        """Changes whenever the index is replaced: a rename gives the file another inode and time. None where it is not there."""
        try:
            return _state(self.index.stat())
        except FileNotFoundError:
            return None

    def is_gone(self) -> bool:
        """Return whether the file of the index was lost, where :meth:`current` does not say so itself."""
        return False

    def signatures_state(self) -> int | None:
        """Changes whenever a signature is written, by the rename; None where there are none."""
        try:
            return self._directory.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def is_last(self, item: T) -> bool:
        """Return whether what was read some time ago is still what was current here last, as far as that can be known."""
        last = self.newest()
        return not last or (item.number, beginning(item.digest)) in last

    def newest(self) -> list[tuple[int, str]]:
        """Number and beginning of the digest of what was current here last, as the files beside the index say, whatever it says.

        More than one where a publisher was ended before it switched, and another one has its number; none where nothing is signed
        and no copies are kept.
        """
        known = [item for item in self._known() if self._is_whole(*item)]
        return [item for item in known if item[0] == known[-1][0]]

    def put_back(self) -> T | None:
        """Put the copy in the place of a file that is damaged; one that is sound by now stays.

        :returns: what is current now; None where there is no copy that can be believed.
        :raises ApplianceError: APL-0606 for a copy whose signature is wrong.
        """
        with self.commit_lock():
            with contextlib.suppress(ApplianceError):
                return self.current()
            last, item = self.newest(), None
            # One that is damaged too is none.
            with contextlib.suppress(ApplianceError, OSError):
                if len(last) == 1 and (raw := self._copy(*last[0])) is not None:
                    item = self._parse(raw, f"the copy of {self.index}")
            if item is None or not self.is_last(item):
                return None
            # Whose signature it is does not matter: this node has followed it.
            signature = self.signature(item)
            self._trust.check(item.raw, signature, [signature.signer] if signature else ())
            self._replace(item, signature)
        return item

    def remove_orphans(self, current: T | None) -> None:
        """Remove the files of what a publisher was ended over before it switched, so that nobody takes them for what was served.

        :param current: what is current, read just now.
        :raises ApplianceError: where the index is damaged by now; nothing is removed then.
        """
        if self._orphans(current):
            # Or it is being published this moment.
            with self.commit_lock():
                for number, start in self._orphans(self.current()):
                    for path in self._directory.glob(f"{number:08d}-{start}.*"):
                        path.unlink(missing_ok=True)

    def known(self) -> list[tuple[int, str]]:
        """Return number and beginning of the digest of everything that has files beside the index, by number."""
        return self._known()

    def file(self, number: int, start: str, suffix: str) -> Path:
        """Return where the ``.json`` or ``.sig`` of one of them lies or would lie."""
        return self._directory / f"{number:08d}-{start}{suffix}"

    @property
    def signs(self) -> bool:
        """Return whether each of them has a signature: not without a PKI (development)."""
        return self._trust.signs

    def why_unsound(self, number: int, raw: bytes | None, signature: bytes) -> str | None:
        """Return why a ``.sig`` file is not what it was; None where it is sound.

        It has to be of a node of the site. Whether that node is a seed today does not matter: it was one once.

        :param number: number of what it signs.
        :param raw: what it signs; None where that is not at hand, so that only the form is looked at.
        """
        try:
            read = Signature.from_json(signature)
            if raw is not None:
                self._trust.check(raw, read, [read.signer])
                if read.head is not None:
                    self.check_head(self._head(number, digest_of(raw), raw), read, [read.signer])
        except ApplianceError as error:
            return error.why or error.what
        return None

    def put_signature(self, number: int, start: str, raw: bytes, signature: Signature | None = None) -> None:
        """Write the ``.sig`` of one of them.

        :param raw: what it signs, for the publisher, which signs it anew.
        :param signature: another node's copy of it, already checked; None: this node signs.
        """
        head = self._head(number, digest_of(raw), raw)
        made = self._trust.sign(raw, head.to_bytes()) if signature is None else self._with_sound_head(head, signature)
        if made is not None:
            self._directory.mkdir(exist_ok=True)
            write_atomically(self.file(number, start, ".sig"), made.to_json())

    def check_signature(self, raw: bytes, signature: Signature, besides: Collection[str]) -> None:
        """Refuse (APL-0606) a signature that is neither a seed's nor that of one of the nodes ``besides``."""
        self._trust.check(raw, signature, besides)

    def head(self, item: T) -> IndexHead:
        """Return the head of an index."""
        return self._head(item.number, item.digest, item.raw)

    def check_head(self, head: IndexHead, signature: Signature | None, besides: Collection[str] = ()) -> None:
        """Refuse (APL-0606) a head that neither a seed nor one of the nodes ``besides`` has signed."""
        self._trust.check(head.to_bytes(), None if signature is None else signature.of_head(), besides)

    def signature(self, item: T) -> Signature | None:
        """The signature that came with an index, None where there is none (development)."""
        try:
            return Signature.from_json(self._file(item, ".sig").read_bytes())
        except FileNotFoundError:
            return None

    def publish(self, item: T) -> None:
        """Sign an index and make it the current one; only the publisher calls this.

        :raises ApplianceError: APL-0317 for one that nobody would read again, APL-0342 where the current one is not the
            one that it was made to follow.
        """
        if len(item.raw) > SIZE_LIMIT:
            fail(
                "APL-0317",
                f"this {self._noun} would be larger than any that is read",
                where=str(self.index),
                why=f"{len(item.raw)} bytes, {SIZE_LIMIT} are the limit",
                fix="Take names away that nobody needs, then do the same again; what was served is served on",
            )
        signature = self._sign(item)
        with self.commit_lock():
            current = self.current()
            if item.number != (current.number if current else 0) + 1:
                fail(
                    "APL-0342",
                    f"another {self._noun} became current meanwhile",
                    where=str(self.index),
                    why=f"{current.number if current else 'none'} is current, and this was to be {item.number}",
                    fix="Nothing was published. Do the same again",
                )
            self._replace(item, signature)

    def sign_anew(self) -> bool:
        """Sign the current index where its signer is no seed any more; true when that was so.

        For the seed that follows a lost publisher: nodes that come later take only what a listed seed has signed. What this
        node signed without a head, or with a wrong one, gets its head.
        """
        current = self.current()
        if current is None:
            return False
        signature, is_new = None, False
        try:
            signature = self.signature(current)
            self._trust.check(current.raw, signature)
        except ApplianceError:
            is_new = True
        if is_new or (signature is not None and self._needs_head(current, signature)):
            made = self._sign(current)
            if made is not None:
                write_atomically(self._file(current, ".sig"), made.to_json())
        return is_new

    def accept(
        self,
        raw: bytes,
        signature: Signature | None,
        prepare: Callable[[T], None],
        besides: Collection[str] = (),
    ) -> T | None:
        """Follow the publisher: make a newer signed index the current one.

        :param raw: its bytes.
        :param signature: the publisher's signature, None in development.
        :param prepare: called once it is found valid and newer; brings all its manifests or raises.
        :param besides: nodes whose signature counts beside the seeds'.
        :returns: the index that is followed now, None when the current one is as new.
        :raises ApplianceError: APL-0606 for a wrong signature, APL-0306 for another index of the same number.
        """
        offered = self.check(raw, signature, besides)
        if offered is None or not self.is_newer(offered, signature):
            return None
        prepare(offered)
        return offered if self.switch_to(offered, signature) else None

    def check(self, raw: bytes, signature: Signature | None, besides: Collection[str] = ()) -> T | None:
        """Read an index that a peer sent, once its signature is found valid; None for the empty one of a fresh store.

        :raises ApplianceError: APL-0606 for a wrong signature, and where what it signs cannot be read.
        """
        self._trust.check(raw, signature, besides)
        return self._parse(raw, f"a peer's {self._noun}")

    def switch_to(self, offered: T, signature: Signature | None) -> bool:
        """Make an index the current one; false where another one became that meanwhile.

        :raises ApplianceError: APL-0306 for another index of the current number.
        """
        with self.commit_lock():
            # A publisher may have made one while the manifests came.
            if not self.is_newer(offered, signature):
                return False
            self._replace(offered, signature)
        return True

    def is_newer(self, offered: T, signature: Signature | None) -> bool:
        """Return whether an index is to be followed; refuses (APL-0306) another one of the current number.

        In the place of one that is damaged, the same one or a newer one; without a trace of what it was, none: it might be a step back.
        """
        try:
            if self.is_gone():
                self._damaged(str(self.index), "it is not there any more")
            current = self.current()
        except ApplianceError:
            last = self.newest()
            if not last:
                raise
            return offered.number > last[0][0] or (offered.number, beginning(offered.digest)) in last
        if current is not None and offered.number == current.number:
            if offered.digest != current.digest:
                fail(
                    "APL-0306",
                    f"two different {self._noun}s have the number {offered.number}",
                    where=str(self.index.parent),
                    why=f"served here: {current.digest} of {current.created}; offered: {offered.digest} of "
                    f"{offered.created}" + (f", signed by {signature.signer}" if signature else ""),
                    fix="Nothing was changed. Keep one publisher: take the other one out of mirror_seeds, then publish anew",
                )
            return False
        return current is None or offered.number > current.number

    @contextlib.contextmanager
    def commit_lock(self) -> Iterator[None]:
        """Hold the store while an index is compared and replaced, over all processes of the node; for milliseconds."""
        with locked(self.index.parent, Rank.INDEX):
            yield

    def open(self, state: tuple[int, int, int]) -> int | None:
        """Open the file of the index; None where it was replaced since it had this :meth:`state`."""
        try:
            handle = os.open(self.index, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        if _state(os.fstat(handle)) == state:
            return handle
        os.close(handle)
        return None

    def _replace(self, item: T, signature: Signature | None) -> None:
        if signature is not None:
            kept = self._with_sound_head(self.head(item), signature)
            write_atomically(self._file(item, ".sig"), kept.to_json())
        write_atomically(self.index, item.raw)

    def _head(self, number: int, digest: str, raw: bytes) -> IndexHead:
        return IndexHead(self.kind, number, digest, len(raw))

    def _sign(self, item: T) -> Signature | None:
        return self._trust.sign(item.raw, self.head(item).to_bytes())

    def _with_sound_head(self, head: IndexHead, signature: Signature) -> Signature:
        """Return a signature that was found valid, without its head where that is not."""
        return signature if self._is_head_sound(head, signature) else signature.without_head()

    def _needs_head(self, item: T, signature: Signature) -> bool:
        """Return whether this node signed an index without a valid head."""
        return signature.signer == self._trust.node and not self._is_head_sound(self.head(item), signature)

    def _is_head_sound(self, head: IndexHead, signature: Signature) -> bool:
        try:
            # By whoever signed the index.
            self.check_head(head, signature, [signature.signer])
        except ApplianceError:
            return False
        return True

    def _read(self) -> bytes | None:
        """The bytes of the index; None where there is none yet."""
        try:
            return self.index.read_bytes()
        except FileNotFoundError:
            return None

    def _known(self) -> list[tuple[int, str]]:
        """Number and beginning of the digest of everything that has its files here, by number."""
        found = map(_FILE.fullmatch, os.listdir(self._directory) if self._directory.is_dir() else ())
        return sorted({(int(match[1]), match[2]) for match in found if match})

    def _orphans(self, current: T | None) -> list[tuple[int, str]]:
        known = self._known()
        if current is None:
            # The very first one; of more, the index was lost, and these are all that is left to put it back from.
            return known if all(number == 1 for number, _ in known) else []
        here = current.number, beginning(current.digest)
        return [item for item in known if item[0] >= here[0] and item != here]

    def _copy(self, number: int, start: str) -> bytes | None:
        """The kept bytes of one that was current; None where none are kept."""
        return None

    def _is_whole(self, number: int, start: str) -> bool:
        """Return whether what has files here has all that it had before it became the current one."""
        return True

    def _is_published(self, item: T) -> bool:
        """Return whether what was read may have been made the current one here: its files are there, or there are none of its number."""
        of_number = [start for number, start in self._known() if number == item.number]
        return not of_number or beginning(item.digest) in of_number

    def _file(self, item: T, suffix: str) -> Path:
        return self.file(item.number, beginning(item.digest), suffix)

    def _forget(self, keep: int, item: T) -> None:
        """Remove the files of all but the last ``keep`` numbers, and never those of ``item``."""
        numbers = sorted({number for number, _ in self._known()})[:-keep]
        for number, start in self._known():
            if number in numbers and number != item.number:
                for path in self._directory.glob(f"{number:08d}-{start}.*"):
                    path.unlink(missing_ok=True)


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def beginning(digest: str) -> str:
    """Return the part of a digest that the names of an index's files contain."""
    return digest.partition(":")[2][:16]


def summary(index: NameIndex | None) -> dict[str, Any] | None:
    """Return number and digest of an index, for peers and ``appliance status``."""
    return None if index is None else {"number": index.number, "digest": index.digest}
