"""Label of a medium: the file ``medium.yaml`` at the top of a source.

    site: harbour-7                      the site it was made for, as mirror_site names it
    id: harbour-7-2026q2                 what people call it
    created: 2026-04-01T08:00:00Z        when it was made
    note: K3s 1.36.3, web 5.2            optional

It is a hint that keeps the wrong stick out, not a proof: whoever makes a medium writes it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import yaml

from appliance.archives.discovery import LABEL_FILE
from appliance.archives.medium import Medium
from appliance.errors import fail
from appliance.oci.strictjson import is_clean_text
from appliance.times import parse_time

LIMIT = 4096
"""Largest file that is read, in bytes."""
_REQUIRED = ("site", "id", "created")
_KEYS = frozenset({*_REQUIRED, "note"})


@dataclass(frozen=True)
class Label:
    """One such file.

    :param site: the site it is for.
    :param id: what people call the medium.
    :param created: when it was made, as it is written there.
    :param note: a remark; may be empty.
    """

    site: str
    id: str
    created: str
    note: str = ""

    @property
    def time(self) -> datetime:
        """When it was made."""
        return parse_time(self.created)

    def as_dict(self) -> dict[str, str]:
        """The same as plain JSON, without what is empty."""
        said = {"site": self.site, "id": self.id, "created": self.created, "note": self.note}
        return {key: text for key, text in said.items() if text}


def read_label(source: Path, medium: Medium) -> Label | None:
    """The label of a source; None for one without, and for a source that is a file.

    :raises ApplianceError: APL-0150 for one that is not as it should be, APL-0101 for one that cannot be opened.
    """
    path = source / LABEL_FILE
    if not medium.has(path):
        return None
    handle = medium.open(path, follow=False)
    try:
        raw = os.read(handle, LIMIT + 1)
    except OSError as error:
        _wrong(str(path), f"it cannot be read: {error.strerror}")
    finally:
        os.close(handle)
    return parse_label(raw, str(path))


def parse_label(raw: bytes, where: str) -> Label:
    """Read a label.

    :raises ApplianceError: APL-0150.
    """
    if len(raw) > LIMIT:
        _wrong(where, f"it is larger than {LIMIT} bytes")
    said = _scalars(raw, where)
    unknown, missing = sorted(set(said) - _KEYS), [key for key in _REQUIRED if not said.get(key)]
    if unknown:
        _wrong(where, f"unknown keys: {', '.join(unknown)}")
    if missing:
        _wrong(where, f"it does not say: {', '.join(missing)}")
    try:
        parse_time(said["created"])
    except ValueError:
        _wrong(where, f"created is no time of ISO 8601: {said['created'][:50]!r}")
    return Label(**said)


def _scalars(raw: bytes, where: str) -> dict[str, str]:
    """A flat mapping of texts, each key once; a number or a date is the text that it is written as."""
    try:
        root = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        _wrong(where, f"it is not YAML: {' '.join(str(error).split())[:200]}")
    if not isinstance(root, yaml.MappingNode):
        _wrong(where, "it is not a mapping")
    said: dict[str, str] = {}
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            _wrong(where, "something in it is not a plain text")
        if key.value in said:
            _wrong(where, f"{key.value} is given twice")
        if not is_clean_text(value.value):
            _wrong(where, f"{key.value} cannot be written down")
        said[key.value] = value.value.strip()
    return said


def _wrong(where: str, why: str) -> NoReturn:
    fail(
        "APL-0150",
        "medium.yaml is invalid",
        where=where,
        why=why,
        fix="Nothing was changed. medium.yaml has the texts site, id and created, and may have note; correct it or take it off",
    )


def check_site(label: Label, site: str | None, where: str) -> None:
    """Refuse a medium that was made for another site.

    :param site: the name of this one; None where it has none, and then nothing is refused.
    :raises ApplianceError: APL-0151.
    """
    if site is not None and label.site != site:
        fail(
            "APL-0151",
            "this medium is for another site",
            where=where,
            why=f"it says that it is for {label.site} ({label.id} of {label.created}), and this is {site}",
            fix="Nothing was changed. Bring this site's medium, correct this site's name (mirror_site), or take this one all "
            "the same with --allow-other-site (seed_other_site)",
        )
