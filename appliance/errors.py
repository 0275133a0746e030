"""Errors that the appliance raises on purpose: what happened, where, why, and what to do next.

Callers catch families, which are types; nobody compares ids. :data:`ERRORS` is the one table of ids: the title that the
runbook page ``docs/runbooks/<id>.md`` and ``docs/reference/errors.md`` have, the type, and the answer over HTTP.

Decision 88.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from appliance.words import one_line


class ApplianceError(Exception):
    """An error with a stable id, meant for the operator's eyes.

    :param code: stable id, ``APL-`` and four digits.
    :param what: what happened, one clause.
    :param where: file, host or address it happened at; may be empty.
    :param why: the cause as far as it is known; may be empty.
    :param fix: what to do next; may be empty.
    """

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        """One line: id, what, where, why, and what to do.

        Archives and requests choose a part of these words; escaped, they move no cursor and begin no line of a log.
        """
        text = f"{self.code}: {one_line(self.what)}"
        if self.where:
            text += f" [{one_line(self.where)}]"
        if self.why:
            text += f": {one_line(self.why)}"
        if self.fix:
            text += f". {one_line(self.fix)}"
        return text

    def within(self, place: str) -> ApplianceError:
        """Return the same error with a place in front of its own, unless it names that place already."""
        if self.where.startswith(place):
            return self
        where = f"{place}: {self.where}" if self.where else place
        return type(self)(self.code, self.what, where=where, why=self.why, fix=self.fix)

    def as_dict(self) -> dict[str, Any]:
        """The same as a mapping of strings, for ``--json`` output and log records."""
        return {"code": self.code, "what": self.what, "where": self.where, "why": self.why, "fix": self.fix}


class SourceError(ApplianceError):
    """Something is wrong with a source: an archive, a file beside it, or its medium (01xx)."""


class NotAnImageArchive(SourceError):
    """A file that begins as an archive may, and is none of images.

    It is an error where the operator, or the name of the file, says that it is an image archive.
    """


class UnreadableSource(SourceError):
    """The file itself cannot be read whole: another way of reading it has the same end."""


class DamagedArchive(UnreadableSource):
    """The archive or its compression is damaged, or something follows behind its end."""


class LimitExceeded(UnreadableSource):
    """The archive goes beyond a limit."""


class ContentError(ApplianceError):
    """A name, a digest or a document of an image is invalid (02xx)."""


class StoreError(ApplianceError):
    """Something is wrong with the store or with what it serves (03xx)."""


class DiskFull(StoreError):
    """There is no room left in the store."""


class Diverged(StoreError):
    """Two different generations have the same number."""


class NodeError(ApplianceError):
    """Another node, or the agent of this one, cannot do what it was asked (04xx)."""


class RequestError(ApplianceError):
    """The registry refuses what a client asks for (05xx)."""


class TrustError(ApplianceError):
    """The configuration, a key or a signature is invalid (06xx)."""


class InstallError(ApplianceError):
    """A host lacks what the appliance needs (07xx)."""


class SiteError(ApplianceError):
    """The site's registries, backups or K3s are not as they should be (08xx)."""


class ProofError(ApplianceError):
    """The site does not serve what it should (09xx)."""


@dataclass(frozen=True)
class Kind:
    """Properties that all errors with one id share.

    :param title: what happened, as the pages of the documents say it.
    :param family: type of the error.
    :param http: status and code (OCI Distribution 1.1, section on error codes) of an answer to a client that pushes; None: those
        of the family.
    """

    title: str
    family: type[ApplianceError]
    http: tuple[int, str] | None = None


ERRORS: Final[Mapping[str, Kind]] = {
    "APL-0101": Kind("A source is not there or cannot be opened", UnreadableSource),
    "APL-0102": Kind("An archive is truncated or empty", UnreadableSource),
    "APL-0103": Kind("An archive or its compression is damaged", DamagedArchive),
    "APL-0104": Kind("An archive goes beyond a limit", LimitExceeded),
    "APL-0105": Kind("An archive has a member that is refused", SourceError),
    "APL-0106": Kind("A blob has another size than announced", SourceError),
    "APL-0107": Kind("A blob does not match its digest", SourceError, (400, "DIGEST_INVALID")),
    "APL-0108": Kind("A blob is missing", SourceError),
    "APL-0109": Kind("An archive holds too many documents", SourceError),
    "APL-0110": Kind("A compression is not supported", SourceError),
    "APL-0111": Kind("A file is not an image archive", SourceError),
    "APL-0112": Kind("An image is incomplete", SourceError),
    "APL-0113": Kind("An archive is of a kind that holds no images", SourceError),
    "APL-0114": Kind("An archive gives one name to two images", SourceError),
    "APL-0115": Kind("A file does not match the checksum beside it", UnreadableSource),
    "APL-0116": Kind("A source cannot be read", UnreadableSource),
    "APL-0117": Kind("Two members of an archive have one name", SourceError),
    "APL-0118": Kind("Layers and config of an image do not belong together", SourceError),
    "APL-0119": Kind("A directory or archive is not a valid OCI layout", SourceError),
    "APL-0120": Kind("An archive contains no image", SourceError),
    "APL-0121": Kind("manifest.json of a docker-archive is invalid", SourceError),
    "APL-0122": Kind("A directory contains no image archive", SourceError),
    "APL-0123": Kind("It is ambiguous which image a name belongs to", SourceError),
    "APL-0124": Kind("The sources have images without a name", SourceError),
    "APL-0125": Kind("Two sources bring different images under one name", SourceError),
    "APL-0126": Kind("The medium or the store changed after the plan was confirmed", SourceError),
    "APL-0128": Kind("The medium brings images that no node can run", SourceError),
    "APL-0140": Kind("The process that reads the sources was killed", SourceError),
    "APL-0141": Kind("Pinned names would move", SourceError),
    "APL-0142": Kind("A source brings names that it may not bring", SourceError),
    "APL-0143": Kind("An allow-list cannot be read", SourceError),
    "APL-0144": Kind("Parts of an archive are missing", SourceError),
    "APL-0150": Kind("medium.yaml is invalid", SourceError),
    "APL-0151": Kind("This medium is for another site", SourceError),
    "APL-0152": Kind("The medium would take the site back to something older", SourceError),
    "APL-0153": Kind("Names to remove are not served", SourceError),
    "APL-0154": Kind("Pinned names would be removed", SourceError),
    "APL-0155": Kind("Archives on the medium are incomplete copies", SourceError),
    "APL-0156": Kind("Containers on a medium have to be unpacked first", SourceError),
    "APL-0157": Kind("A list of checksums names archives that are not on the medium", SourceError),
    "APL-0165": Kind("Names on the medium cannot be used", SourceError),
    "APL-0166": Kind("A second archive, or something else, follows the end of an archive", DamagedArchive),
    "APL-0167": Kind("An archive holds a build cache, or something else that is no image", UnreadableSource),
    "APL-0168": Kind("An archive has a form that the reader does not handle", SourceError),
    "APL-0201": Kind("Invalid digest", ContentError, (400, "DIGEST_INVALID")),
    "APL-0202": Kind("Invalid image name", ContentError),
    "APL-0203": Kind("A document is not a valid manifest or JSON", ContentError),
    "APL-0204": Kind("A JSON document is too large or too deep", ContentError),
    "APL-0205": Kind("Invalid platform", ContentError),
    "APL-0206": Kind("Invalid piece map", ContentError),
    "APL-0207": Kind("A manifest is ambiguous", ContentError),
    "APL-0208": Kind("Invalid descriptor", ContentError),
    "APL-0301": Kind("A directory contains no store", StoreError),
    "APL-0302": Kind("A blob is missing from the store", StoreError),
    "APL-0303": Kind("A blob is too large to be a manifest", StoreError),
    "APL-0305": Kind("The bytes of a generation are damaged", StoreError),
    "APL-0306": Kind("Two different generations have the same number", Diverged),
    "APL-0307": Kind("Another seeding is running on this store", StoreError),
    "APL-0310": Kind("There is not enough room in the store", DiskFull, (507, "DENIED")),
    "APL-0311": Kind("The operating system refused a read or a write", StoreError),
    "APL-0312": Kind("Only the publisher makes generations and keeps pins", StoreError),
    "APL-0313": Kind("Blobs that the names need are missing from the store", StoreError),
    "APL-0314": Kind("The index of pushes is damaged", StoreError),
    "APL-0315": Kind("A blob was damaged on this disk", StoreError),
    "APL-0316": Kind("A blob is listed with a size that it does not have", StoreError),
    "APL-0317": Kind("The index of names would be too large", StoreError, (507, "DENIED")),
    "APL-0321": Kind("No collection: the blobs that must stay are unknown", StoreError),
    "APL-0322": Kind("No collection: the images that all nodes run are unknown", StoreError),
    "APL-0323": Kind("No collection: this node does not serve the site's newest generation", StoreError),
    "APL-0324": Kind("Invalid list of running images", StoreError),
    "APL-0325": Kind("The blobs that must stay changed after the plan", StoreError),
    "APL-0326": Kind("The store is near its limit", StoreError),
    "APL-0327": Kind("The images that run on this host are unknown", StoreError),
    "APL-0331": Kind("The index of pins is damaged", StoreError),
    "APL-0332": Kind("A name that is not served cannot be pinned", StoreError),
    "APL-0333": Kind("A name that is not pinned cannot be unpinned", StoreError),
    "APL-0341": Kind("The publisher is not sure that no other node has something newer", StoreError),
    "APL-0342": Kind("Another generation became current meanwhile", StoreError),
    "APL-0343": Kind("The store has a form that this release does not support", StoreError),
    "APL-0345": Kind("The command stopped because its run is gone", StoreError),
    "APL-0350": Kind("The audit log was changed after it was written, or is damaged", StoreError),
    "APL-0351": Kind("The audit log does not match the generations", StoreError),
    "APL-0352": Kind("The generation does not exist", StoreError),
    "APL-0353": Kind("Invalid time", StoreError),
    "APL-0354": Kind("A generation cannot be restored", StoreError),
    "APL-0355": Kind("A file of the store is damaged", StoreError),
    "APL-0356": Kind("A kept generation is damaged", StoreError),
    "APL-0357": Kind("The agent could not repair the store", StoreError),
    "APL-0401": Kind("A newer generation is not followed yet", NodeError),
    "APL-0402": Kind("The agent of this node does not answer", NodeError),
    "APL-0403": Kind("Another agent holds the socket", NodeError),
    "APL-0404": Kind("The mirror of this node does not answer", NodeError),
    "APL-0405": Kind("systemd gave the mirror no listening socket", NodeError),
    "APL-0411": Kind("A node that leaves may be the only holder of a blob", NodeError),
    "APL-0421": Kind("A blob is lost: no node of the site has it any more", NodeError),
    "APL-0430": Kind("A peer sent an invalid answer", NodeError),
    "APL-0431": Kind("This node cannot write the index that it follows", NodeError),
    "APL-0501": Kind("Only the publisher accepts pushes", RequestError, (403, "DENIED")),
    "APL-0502": Kind("A push cannot change a seeded name", RequestError, (403, "DENIED")),
    "APL-0503": Kind("The credentials of operators cannot be used", RequestError),
    "APL-0504": Kind("Too many uploads are open", RequestError, (503, "TOOMANYREQUESTS")),
    "APL-0505": Kind("A manifest lists a missing blob", RequestError, (404, "MANIFEST_BLOB_UNKNOWN")),
    "APL-0506": Kind("A blob in use cannot be deleted", RequestError, (405, "UNSUPPORTED")),
    "APL-0601": Kind("The configuration cannot be read", TrustError),
    "APL-0602": Kind("The configuration is invalid", TrustError),
    "APL-0603": Kind("Half of the site's certificate authority is missing", TrustError),
    "APL-0604": Kind("Invalid signing request", TrustError),
    "APL-0605": Kind("Invalid signature", TrustError),
    "APL-0606": Kind("A generation without a valid signature was refused", TrustError),
    "APL-0607": Kind("A private key or certificate cannot be used", TrustError),
    "APL-0753": Kind("pip is missing", InstallError),
    "APL-0754": Kind("The destination is not a wheelhouse", InstallError),
    "APL-0790": Kind("The sources of a wheelhouse are missing", InstallError),
    "APL-0791": Kind("The wheelhouse cannot be made", InstallError),
    "APL-0870": Kind("The backup is incomplete or corrupt", SiteError),
    "APL-0871": Kind("A backup of that name exists already", SiteError),
    "APL-0872": Kind("The backup belongs to another site", SiteError),
    "APL-0873": Kind("The publisher serves names that the backup does not contain", SiteError),
    "APL-0874": Kind("This controller has another certificate authority than the backup", SiteError),
    "APL-0879": Kind("The names of the store change faster than they can be read", SiteError),
    "APL-0917": Kind("Another process answers in place of the mirror or of the peer service", ProofError),
}
"""Every id that the appliance's own code raises. Ids of playbooks and modules are in the collection."""


def make_error(code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> ApplianceError:
    """Return an error of the family that its id has in :data:`ERRORS`."""
    kind = ERRORS.get(code)
    family = ApplianceError if kind is None else kind.family
    return family(code, what, where=where, why=why, fix=fix)


def http_of(error: ApplianceError) -> tuple[int, str]:
    """Return status and code of the answer to a client whose push met this error."""
    kind = ERRORS.get(error.code)
    if kind is not None and kind.http is not None:
        return kind.http
    return (400, "MANIFEST_INVALID") if isinstance(error, ContentError) else (503, "UNKNOWN")


def error_from_dict(fields: Mapping[str, str]) -> ApplianceError:
    """Return the error that :meth:`ApplianceError.as_dict` described, perhaps in another process or release."""
    return make_error(**fields)


def system_error(error: OSError, where: str = "", what: str = "the operating system refused") -> ApplianceError:
    """Return the error for what the operating system refused: APL-0310 for a full disk, APL-0311 for everything else.

    :param where: what it was refused for; the file that the system names, where it is empty.
    """
    why = error.strerror or str(error)
    where = where or ("" if error.filename is None else str(error.filename))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "Free space there, then run the same again"
        return make_error("APL-0310", "not enough room in the store", where=where, why=why, fix=fix)
    fixes = {
        errno.EROFS: "Its file system is mounted read-only, mostly after an error of the disk: see dmesg and findmnt -T",
        errno.EACCES: "Run this as root; 'ls -ld' there says who may write",
        errno.EPERM: "Run this as root; 'ls -ld' there says who may write",
        errno.EIO: "The disk fails: see dmesg and smartctl",
    }
    return make_error("APL-0311", what, where=where, why=why, fix=fixes.get(error.errno or 0, ""))


def fail(code: str, what: str, *, where: str = "", why: str = "", fix: str = "") -> NoReturn:
    """Raise :func:`make_error` with these words."""
    raise make_error(code, what, where=where, why=why, fix=fix)
