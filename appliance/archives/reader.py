"""Detection of the format of a source, and the one way to read it: :func:`read_source`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from appliance.archives.docker import resolve_docker
from appliance.archives.entries import check_whole, clean_descriptor, finish, resolve_layout, tag_signatures
from appliance.archives.limits import Limits
from appliance.archives.medium import Medium
from appliance.archives.model import ArchiveContents, Context, NamedImage, refuse_unusable_names
from appliance.archives.names import ref_tag
from appliance.archives.oci_layout import FindBlob, Walker, check_layout_version
from appliance.archives.scan import Collected, Directory, collect_tar, diff_ids_again
from appliance.archives.sink import BlobSink
from appliance.archives.source import Progress, RawFile
from appliance.archives.split import whole_name
from appliance.archives.tar import BLOCK
from appliance.archives.unsupported import GiveUp, refuse_imgpkg, refuse_unknown
from appliance.errors import (
    ApplianceError,
    ContentError,
    DamagedArchive,
    NotAnImageArchive,
    SourceError,
    UnreadableSource,
    fail,
)
from appliance.oci.blob import StoredBlob
from appliance.oci.digests import digest_of
from appliance.oci.manifests import Descriptor, parse_manifest
from appliance.oci.reference import DEFAULT_TAG, parse_reference
from appliance.oci.strictjson import load_json

_LOG = logging.getLogger("appliance.archives")


def read_source(
    path: Path,
    sink: BlobSink,
    limits: Limits | None = None,
    names: Sequence[str] | None = (),
    *,
    deep: bool = False,
    medium: Medium | None = None,
    progress: Progress | None = None,
    is_doubtful: bool = False,
) -> ArchiveContents:
    """Read one source whole, every blob into ``sink``, and say what it holds.

    :param path: an archive file or a part of one, an OCI layout directory or a skopeo ``dir:``.
    :param names: what ``--name`` gave; see :func:`apply_names`. None: the caller names images, and none is noted to
        lack a name.
    :param deep: unpack compressed layers of OCI layouts too, and hold them against their configs.
    :param medium: opens the source; None: as this process may.
    :param progress: called with bytes read and total, for a directory as far as it is known.
    :param is_doubtful: give up early on a tar whose members are not those of an image archive.
    :raises NotAnImageArchive: for a file that is no archive of images.
    :raises ApplianceError: APL-01xx for archives, APL-02xx for names and documents inside them.
    """
    limits, medium = limits or Limits(), medium or Medium()
    try:
        if medium.is_directory(path):
            contents = _read_directory(path, medium, sink, limits, deep, progress)
        else:
            only = GiveUp(str(path)) if is_doubtful else None
            contents = _read_file(path, medium, sink, limits, deep, progress, only)
    except ApplianceError as error:
        raise _located(error, path) from error
    except _FAULTS as error:
        # The words of Python say nothing to an operator; who looks for the fault has the file and the log.
        _LOG.debug("%s", path, exc_info=error)
        fail(
            "APL-0168",
            "archive has a form that the reader does not handle",
            where=str(path),
            why="it has a form that the reader was not made for",
            fix="Take the file off the medium, or save its images again with a current tool; please report the error",
        )
    if names is not None:
        apply_names(contents, names, str(path))
        refuse_unusable_names([(path, contents)])
        _note_nameless(contents)
    return contents


_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _located(error: ApplianceError, path: Path) -> ApplianceError:
    """Return the error with the file in its place; what is wrong with the store itself is no matter of the file."""
    whole = path.with_name(whole_name(path.name) or path.name)
    of_file = isinstance(error, (SourceError, ContentError)) and not error.where.startswith(str(whole))
    return error.within(str(path)) if of_file else error


def _read_file(
    path: Path,
    medium: Medium,
    sink: BlobSink,
    limits: Limits,
    deep: bool,
    progress: Progress | None,
    only: Callable[[str], bool] | None,
) -> ArchiveContents:
    where = str(path)
    with RawFile(path, limits, medium) as raw:
        try:
            collected = collect_tar(raw, sink, limits, deep=deep, progress=progress, only=only)
        except DamagedArchive as error:
            if raw.bytes_unpacked < BLOCK:
                # Not one header could be unpacked: the first bytes may be those of a compression by chance.
                raise NotAnImageArchive(**error.as_dict()) from None
            raise
        compression, bytes_read, in_parts = raw.compression, raw.bytes_read, raw.in_parts
    try:
        contents = _resolve(path, medium, collected, sink, limits)
    except ApplianceError as error:
        if not collected.whole and not isinstance(error, UnreadableSource):
            _cut(where, bytes_read, str(error))
        raise
    if not collected.whole:
        if contents.missing:
            _cut(where, bytes_read, f"{len(contents.missing)} blobs are missing")
        contents.notes.append("The tar has no proper end marker; everything it names is there.")
    if collected.trailing is not None and in_parts:
        fail(
            "APL-0166",
            "something follows the end of the archive",
            where=where,
            why=f"it was joined of parts, and ends before the last of them, at byte {collected.trailing} of the tar",
            fix="Take the files off that are no parts of it, or name the archive by itself in a directory of its own",
        )
    if collected.trailing is not None:
        contents.notes.append(
            f"Bytes that are no part of the archive follow its end, from byte {collected.trailing} of the tar on; they "
            "were not read."
        )
    contents.compression, contents.bytes_read = compression, bytes_read
    return contents


def _cut(where: str, bytes_read: int, why: str) -> None:
    fail(
        "APL-0102",
        "archive is truncated",
        where=where,
        why=f"{bytes_read} bytes, without the end of a tar; {why}",
        fix="Copy the file again; it is not whole",
    )


def _resolve(path: Path, medium: Medium, collected: Collected, sink: BlobSink, limits: Limits) -> ArchiveContents:
    where = str(path)
    context = Context(sink, limits, where)
    documents = collected.documents
    manifest_json = documents.get("manifest.json")

    def as_docker(covered: Collection[str] = ()) -> ArchiveContents:
        assert manifest_json is not None

        def reread(wanted: set[str]) -> dict[str, str | None]:
            return diff_ids_again(path, medium, limits, collected, wanted)

        docker = ArchiveContents("docker-archive")
        resolve_docker(manifest_json, collected, context, docker, reread, covered)
        return docker

    if "oci-layout" in documents:
        walker = Walker(collected.blob, context, collected.diff_ids)
        try:
            contents = ArchiveContents("oci-archive")
            check_layout_version(documents["oci-layout"], limits, where)
            if "index.json" not in documents:
                fail("APL-0119", "OCI layout without index.json", where=where)
            resolve_layout(documents["index.json"], walker, context, contents)
        except ApplianceError as error:
            if manifest_json is None or isinstance(error, UnreadableSource):
                raise
            try:
                contents = as_docker()
            except ApplianceError:
                raise error from None
            contents.notes.append(f"The OCI part of the archive is not sound and was passed over ({error.what}).")
            return contents
        if manifest_json is not None:
            _add_left_out(contents, lambda: as_docker(contents.blobs), where)
        return contents
    if manifest_json is not None:
        if _is_dir_transport(manifest_json, limits, where):
            return _dir_transport(manifest_json, _in_root(collected), context)
        refuse_imgpkg(manifest_json, limits, where)
        if not collected.whole and collected.has_blobs:
            # Tools write oci-layout last. Without it the same images would get other digests.
            fail("APL-0119", "archive with blobs, without oci-layout and without an end", where=where)
        return as_docker()
    return refuse_unknown(collected, where)


def _add_left_out(contents: ArchiveContents, rest: Callable[[], ArchiveContents], where: str) -> None:
    """Take images that manifest.json lists and index.json does not: Docker leaves out what is saved by its digest.

    moby #51389. The image is the one that ``docker load`` would give.

    :param rest: resolves what the index does not reach.
    """
    try:
        found = rest()
    except ApplianceError as error:
        if isinstance(error, UnreadableSource):
            raise
        contents.notes.append(f"manifest.json was passed over; index.json is what counts ({error.what}).")
        return
    if not found.images:
        return
    known = {image.reference.key: image.descriptor.digest for image in contents.images if image.reference}
    for image in found.images:
        if image.reference is not None and image.reference.key in known:
            fail(
                "APL-0114",
                f"archive gives one name to two images: {image.reference}",
                where=where,
                why=f"index.json: {known[image.reference.key]}, manifest.json: {image.descriptor.digest}",
                fix="Save the image again with a current tool",
            )
    contents.images += found.images
    contents.settle()
    contents.blobs |= found.blobs
    contents.notes += [f"{len(found.images)} images stand in manifest.json alone and were taken from it.", *found.notes]


def _in_root(collected: Collected) -> FindBlob:
    def find(digest: str) -> StoredBlob | None:
        value = digest.partition(":")[2]
        found = collected.lookup(value) or collected.lookup(f"{value}.manifest.json")
        return found if found is not None and found.digest == digest else None

    return find


def _read_directory(
    path: Path, medium: Medium, sink: BlobSink, limits: Limits, deep: bool, progress: Progress | None
) -> ArchiveContents:
    where = str(path)
    context = Context(sink, limits, where)
    with Directory(path, medium, sink, limits, progress, deep=deep) as directory:
        version, index = directory.document("oci-layout"), directory.document("index.json")
        manifest_json = directory.document("manifest.json")
        if version is not None:
            contents = ArchiveContents("oci-layout")
            check_layout_version(version, limits, where)
            if index is None:
                fail("APL-0119", "OCI layout without index.json", where=where)
            walker = Walker(directory.blob, context, directory.diff_ids)
            resolve_layout(index, walker, context, contents)
        elif manifest_json is not None and _is_dir_transport(manifest_json, limits, where):

            def find(digest: str) -> StoredBlob | None:
                value = digest.partition(":")[2]
                return directory.file(value, digest) or directory.file(f"{value}.manifest.json", digest)

            contents = _dir_transport(manifest_json, find, context)
        else:
            why = "index.json without oci-layout" if index is not None else "neither oci-layout nor manifest.json"
            fail(
                "APL-0119",
                "directory is not an OCI layout",
                where=where,
                why=why,
                fix="Give the archives in it, or the directory above a layout",
            )
        contents.bytes_read = directory.bytes_read
    return contents


def _is_dir_transport(manifest_json: bytes, limits: Limits, where: str) -> bool:
    """skopeo's ``dir:`` has a real manifest where docker-archives have a list."""
    return isinstance(load_json(manifest_json, limit=limits.json_bytes, where=f"{where}: manifest.json"), dict)


def _dir_transport(data: bytes, find: FindBlob, context: Context) -> ArchiveContents:
    where = context.where
    contents = ArchiveContents("dir")
    manifest = parse_manifest(data, where=f"{where}: manifest.json")
    stored = context.sink.put([data], size=len(data), expect=digest_of(data), where=f"{where}: manifest.json")
    entry = Descriptor(manifest.media_type, stored.digest, stored.size)
    walker = Walker(lambda digest: stored if digest == stored.digest else find(digest), context)
    node = walker.visit(entry)
    check_whole(node, entry, where)
    contents.images.append(NamedImage(None, clean_descriptor(entry), node.platforms))
    finish(contents, walker, where)
    return contents


def apply_names(contents: ArchiveContents, names: Sequence[str], where: str) -> None:
    """Give names to nameless images, as ``--name`` asks.

    Every name goes to the one image without a name, or to the one image that there is at all; with several,
    ``NAME@sha256:...`` says which. A name without a tag takes the tag that the archive gives.

    :raises ApplianceError: APL-0123 if it is not clear which image is meant.
    """
    for text in names:
        given = parse_reference(text, default_tag=None, where="--name")
        image = _meant(contents, given.digest, text, where)
        tag = given.tag or ref_tag(image.descriptor) or DEFAULT_TAG
        named = replace(image, reference=replace(given, tag=tag, digest=None))
        named = replace(named, problem="")
        # It wins over every name that the archive has for the image and that cannot be used.
        contents.images = [item for item in contents.images if item is image or not _is_replaced(item, image)]
        if image.reference is None:
            contents.images[contents.images.index(image)] = named
        elif named not in contents.images:
            contents.images.append(named)
    tag_signatures(contents)


def _is_replaced(item: NamedImage, image: NamedImage) -> bool:
    return item.reference is None and not item.is_referrer and item.descriptor.digest == image.descriptor.digest


def _note_nameless(contents: ArchiveContents) -> None:
    nameless = contents.nameless
    contents.notes += [
        f"{image.descriptor.digest} has no name and cannot be pulled by one; give it one with "
        f"--name NAME{'' if len(nameless) == 1 else '@' + image.descriptor.digest}."
        for image in nameless
    ]


def _meant(contents: ArchiveContents, digest: str | None, text: str, where: str) -> NamedImage:
    candidates = [image for image in contents.images if not image.is_referrer]
    if digest is not None:
        candidates = [image for image in candidates if image.descriptor.digest == digest]
    elif contents.nameless:
        candidates = contents.nameless
    if len({image.descriptor.digest for image in candidates}) != 1:
        listed = ", ".join(image.descriptor.digest for image in candidates[:5])
        fail(
            "APL-0123",
            f"not clear which image {text[:200]!r} is for",
            where=where,
            why=f"candidates: {listed}" if listed else "the source holds no such image",
            fix="Write --name NAME@sha256:... with the digest of the image",
        )
    return candidates[0]
