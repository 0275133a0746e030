"""Choice between several images under one name, where the platforms of the nodes decide it.

Decision 67.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from appliance.archives.model import NamedImage
from appliance.errors import fail
from appliance.oci.platforms import Platform, matches
from appliance.publish.naming import Found

_SHOWN = 10


@dataclass(frozen=True)
class _Holder:
    """A file and what it has under a name."""

    found: Found
    image: NamedImage

    @property
    def digest(self) -> str:
        return self.image.descriptor.digest

    @property
    def words(self) -> str:
        return f"{platform_words(self.image) or self.digest} in {self.found.file}"


def settle_names(found: Sequence[Found], wanted: Sequence[Platform], site_addresses: Collection[str]) -> list[str]:
    """Leave out, of several images under one name, those that no node runs; refuse what is still not clear.

    :param wanted: what the site's nodes run; empty where that is not known.
    :returns: remarks on what was left out.
    :raises ApplianceError: APL-0125 with every name that means several images.
    """
    holders: dict[str, list[_Holder]] = {}
    for item in found:
        for image in item.contents.images:
            if image.reference is not None:
                holders.setdefault(image.reference.at_site(site_addresses).key, []).append(_Holder(item, image))
    unclear: dict[str, list[_Holder]] = {}
    left_out: dict[tuple[str, str], list[str]] = {}
    for name, several in sorted(holders.items()):
        if len({holder.digest for holder in several}) == 1:
            continue
        fitting = [holder for holder in several if _runs(holder.image, wanted)]
        if len({holder.digest for holder in fitting}) != 1 or not all(holder.image.platforms for holder in several):
            unclear[name] = several
            continue
        for holder in several:
            if holder not in fitting:
                holder.found.contents.images.remove(holder.image)
                left_out.setdefault((holder.found.file.name, platform_words(holder.image)), []).append(name)
    _refuse(unclear)
    return [
        f"{file}: left out, since no node of this site runs {platforms}: {some(names)}; another file brings the same "
        "names for the nodes."
        for (file, platforms), names in left_out.items()
    ]


def _runs(image: NamedImage, wanted: Iterable[Platform]) -> bool:
    return any(matches(have, want) for want in wanted for have in image.platforms)


def _refuse(unclear: dict[str, list[_Holder]]) -> None:
    if not unclear:
        return
    by_platform = all(_differ_by_platform(several) for several in unclear.values())
    files = dict.fromkeys(str(holder.found.file) for several in unclear.values() for holder in several)
    shown = [
        f"{name} is "
        + " and ".join(
            holder.words + ("" if by_platform else f" ({holder.digest})")
            for holder in {holder.digest: holder for holder in several}.values()
        )
        for name, several in unclear.items()
    ]
    first = next(iter(unclear))
    fix = "Take the wrong one off the medium"
    if by_platform:
        fix = (
            "Neither is wrong, but a registry has one image under a name. Where there is a connection, save both platforms "
            f"as one image: skopeo copy --all docker://{first} oci-archive:FILE:{first}; bring that in place of these "
            "files. Or bring the files of one platform only"
        )
    fail(
        "APL-0125",
        "two platforms of one image come as two files under one name"
        if by_platform
        else "two sources bring different images under one name",
        where=" and ".join(files),
        why="; ".join(shown[:_SHOWN]) + (f"; and {len(shown) - _SHOWN} names more" if len(shown) > _SHOWN else ""),
        fix=fix,
    )


def _differ_by_platform(several: Sequence[_Holder]) -> bool:
    """Tell whether each image is for other platforms than the others, so that neither is the wrong one."""
    images = list({holder.digest: holder.image for holder in several}.values())
    platforms = [platform for image in images for platform in set(image.platforms)]
    return all(image.platforms for image in images) and len(set(platforms)) == len(platforms)


def platform_words(image: NamedImage) -> str:
    """Return the platforms of an image for people."""
    return ", ".join(map(str, image.platforms))


def some(words: Iterable[str]) -> str:
    """Return a list for people, cut where it is long."""
    listed = sorted(set(words))
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
