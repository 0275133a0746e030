"""Rules for file names on a medium: archives, incomplete copies, containers, and files of operating systems.

Nothing here opens a file. Names are compared without regard to case, as the file systems of most sticks do.
"""

from __future__ import annotations

import re

_ARCHIVE_ENDING = r"\.(?:tar(?:\.(?:gz|zst|zstd|xz|bz2|lz4))?|tgz|tzst|txz|tbz2?)"
ARCHIVE_NAME = re.compile(rf".+{_ARCHIVE_ENDING}", re.IGNORECASE | re.DOTALL)
"""The name of an archive."""
_ARCHIVE_STEM = re.compile(rf"(?P<stem>.+?){_ARCHIVE_ENDING}", re.IGNORECASE | re.DOTALL)

_UNREAD_COMPRESSION = re.compile(
    r".+\.(?:tar\.(?P<long>lzma|lz|lzo|lzip|z|br|sz|lrz|rz)|(?P<short>tlz|taz|tz|tzo|tbr))", re.IGNORECASE | re.DOTALL
)
_LITTER = frozenset(
    {
        *("system volume information", "lost+found", "$recycle.bin", "recycler", "recycled", "found.000", "lost.dir"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "autorun.inf", "indexervolumeguid", "wpsettings.dat"),
        *(".ds_store", ".trashes", ".trash", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".apdisk"),
        *(
            ".documentrevisions-v100",
            ".volumeicon.icns",
            ".metadata_never_index",
            ".com.apple.timemachine.donotpresent",
        ),
        *(".directory", ".hidden", ".xdg-volume-info", ".autorun", "icon\r"),
    }
)
_LITTER_PREFIXES = ("._", ".trash-", ".fuse_hidden", ".nfs", ".~lock.")

_PARTIAL = re.compile(
    r"(?P<inner>.+)\.(?:part|partial|filepart|crdownload|opdownload|fdmdownload|dltemp|xltd|aria2|!ut|!qb|!sync|bc!|bt!|jc!"
    r"|incomplete|unfinished|downloading|unconfirmed|uploading|inprogress|lftp-pget-status)",
    re.IGNORECASE | re.DOTALL,
)
"""Endings that say that a copy has not ended."""
_TEMPORARY = re.compile(r"(?P<inner>.+)\.(?:tmp|temp|download|swp|copying|pending|new|st)", re.IGNORECASE | re.DOTALL)
"""Endings that may say so; other files have them too."""
_HIDDEN_COPY = (
    re.compile(r"\.(?P<inner>.+)\.(?:[A-Za-z0-9]{6}|~[0-9a-f]+)", re.DOTALL),  # rsync, Nextcloud
    re.compile(r"\.azDownload-[0-9A-Fa-f-]+-(?P<inner>.+)", re.DOTALL),  # AzCopy
    re.compile(r"\.(?:tmp-|in\.|syncthing\.)(?P<inner>.+?)(?:\d+|\.tmp)?", re.DOTALL),  # docker save, lftp, Syncthing
)
_HIDDEN_TEMPORARY = re.compile(
    r"\.(?:goutputstream-|docker_temp|com\.google\.chrome\.|org\.chromium\.).+", re.IGNORECASE | re.DOTALL
)

_VOLUME = re.compile(
    r".+\.(?:(?:7z|zip|rar|arj)\.(?:\d{2,9}|[a-z]{2,3})|[zr]\d{2}|part\d{1,5}\.rar)", re.IGNORECASE | re.DOTALL
)
_CONTAINER = re.compile(r"(?P<inner>.+)\.(?:zip|zipx|7z|rar)", re.IGNORECASE | re.DOTALL)
_OLD_COPY = re.compile(r"(?P<inner>.+?)(?:\.(?:bak|old|orig|backup|save|prev)|~)", re.IGNORECASE | re.DOTALL)
_PACKAGE = re.compile(
    r".+\.(?:ova|box|gem|crate|apk|ipk|opk|xbps|vma|conda|whl|jar|war|ear|egg|nupkg|docx|xlsx|pptx|odt|ods|odp|epub|xpi|aar|vsix)",
    re.IGNORECASE | re.DOTALL,
)
"""Names of files that are a tar or a zip inside, and are something else than an image archive."""
_OTHER_KIND = re.compile(
    r".+\.(?:txt|md|rst|pdf|docx?|xlsx?|pptx?|od[tsp]|rtf|html?|css|js|json|ya?ml|xml|csv|log|ini|conf|cfg|toml|sh|bash|ps1"
    r"|bat|cmd|py|go|c|h|rs|deb|rpm|msi|exe|dll|so|iso|qcow2?|vmdk|vdi|vhdx?|ova|jpe?g|png|gif|svg|bmp|tiff?|webp|heic|mp3|mp4"
    r"|m4v|mkv|avi|mov|wav|flac|ogg|webm|ttf|woff2?|sql|db|sqlite|pem|crt|cer|key|csr|eml|torrent)",
    re.IGNORECASE | re.DOTALL,
)
_MADE_OF_ARCHIVE = re.compile(
    r".+\.(?:par2|zsync|ots|p7[sm]|ts[rq]|idx|index|dict|x?delta|vcdiff|age|enc|aes|pgp|lnk|url|met)",
    re.IGNORECASE | re.DOTALL,
)
"""Names of what programs make of an archive and put beside it: parity, indexes, timestamps, encrypted copies, shortcuts."""
_COMPANION = re.compile(
    r"(?P<of>.+)\.(?:(?P<proof>(?:sha(?:1|224|256|384|512)(?:sums?)?|md5(?:sum)?)(?:\.txt)?|b2sum|crc32|sfv|asc|sig|sign|minisig)|gpg|sigstore"
    r"|sigstore\.json|bundle|pem|cert|crt|att|intoto\.jsonl|(?:cdx|spdx)(?:\.json)?|sbom(?:\.json)?)",
    re.IGNORECASE | re.DOTALL,
)


def is_archive_name(name: str) -> bool:
    """Return whether a name says that its file is an archive."""
    return ARCHIVE_NAME.fullmatch(name) is not None


def archive_stem(name: str) -> str | None:
    """Return the name of an archive without its ending; None for other names."""
    match = _ARCHIVE_STEM.fullmatch(name)
    return match["stem"] if match else None


def unread_compression(name: str) -> str | None:
    """Return the compression of an archive by its name, where it is none that is read here."""
    match = _UNREAD_COMPRESSION.fullmatch(name)
    return (match["long"] or match["short"]).lower() if match else None


def is_litter(name: str) -> bool:
    """Return whether a name is one that file systems and desktops leave behind."""
    folded = name.casefold()
    return folded in _LITTER or folded.startswith(_LITTER_PREFIXES)


def is_hidden(name: str) -> bool:
    """Return whether a name is hidden."""
    return name.startswith(".")


def is_broken_copy(name: str, *, is_archive: bool) -> bool:
    """Return whether a file is a copy of an archive that has not ended.

    :param is_archive: whether its content begins as an archive does.
    """
    if any((match := form.fullmatch(name)) and _is_archive_or_part(match["inner"]) for form in _HIDDEN_COPY):
        return True
    if _HIDDEN_TEMPORARY.fullmatch(name):
        return is_archive
    certain, possible = _PARTIAL.fullmatch(name), _TEMPORARY.fullmatch(name)
    if certain:
        return is_archive or _is_archive_or_part(certain["inner"]) or not _is_other_kind(certain["inner"])
    return possible is not None and (is_archive or _is_archive_or_part(possible["inner"]))


def is_broken_copy_folder(name: str) -> bool:
    """Return whether a folder holds copies that have not ended: rsync's, and Safari's for one download."""
    possible = _TEMPORARY.fullmatch(name) or _PARTIAL.fullmatch(name)
    return name == ".rsync-partial" or (possible is not None and _is_archive_or_part(possible["inner"]))


def is_unknown_copy(name: str) -> bool:
    """Return whether a name is that of an archive with an ending that no program here is known by.

    Each program that copies or downloads has an ending of its own for what is not whole yet, and new ones come. Call it for what
    neither begins as an archive nor is text.
    """
    inner = name.rpartition(".")[0]
    return (
        _is_archive_or_part(inner)
        and not is_archive_name(name)
        and not _is_other_kind(name)
        and not is_old_copy(name)
        and _MADE_OF_ARCHIVE.fullmatch(name) is None
        and _COMPANION.fullmatch(name) is None
    )


def is_volume(name: str) -> bool:
    """Return whether a name is that of one volume of a 7z, zip or rar container."""
    return _VOLUME.fullmatch(name) is not None


def container_of_archive(name: str) -> bool:
    """Return whether a name is that of a container with an archive in it, such as ``app.tar.zip``."""
    match = _CONTAINER.fullmatch(name)
    return match is not None and _is_archive_or_part(match["inner"])


def is_old_copy(name: str) -> bool:
    """Return whether a name is that of a backup copy, such as ``app.tar.bak``."""
    return _OLD_COPY.fullmatch(name) is not None


def is_package(name: str) -> bool:
    """Return whether a name is that of a tar or zip of another kind, such as a wheel or an appliance for a hypervisor."""
    return _PACKAGE.fullmatch(name) is not None


def companion_of(name: str) -> str | None:
    """Return the name of the file that a checksum, signature or bill of materials is for; None for other names."""
    match = _COMPANION.fullmatch(name)
    return match["of"] if match else None


def is_proof(name: str) -> bool:
    """Return whether a name is that of a checksum or signature, whatever else lies beside it."""
    match = _COMPANION.fullmatch(name)
    return match is not None and match["proof"] is not None


def _is_archive_or_part(name: str) -> bool:
    return (
        any(is_archive_name(name[:end]) for end in (len(name), name.rfind("."))) or unread_compression(name) is not None
    )


def _is_other_kind(name: str) -> bool:
    return _OTHER_KIND.fullmatch(name) is not None or is_package(name)
