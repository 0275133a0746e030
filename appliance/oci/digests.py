"""Digests as the OCI image specification writes them: ``algorithm:hex``.

Digests travel as plain strings; whatever comes from outside passes :func:`check_digest` once, before it
becomes a key or a part of a path.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from appliance.errors import fail

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]  # 3.12 on
    from hashlib import _Hash

_FORMS = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}
ALGORITHMS = tuple(_FORMS)
"""Those that are read."""


def is_digest(text: object) -> bool:
    """Return whether ``text`` is a string and a digest in a form that is accepted here."""
    if not isinstance(text, str):
        return False
    algorithm, _, value = text.partition(":")
    form = _FORMS.get(algorithm)
    return form is not None and form.fullmatch(value) is not None


def check_digest(text: object, where: str = "") -> str:
    """Return ``text`` unchanged if it is a digest.

    :param where: file or field for the message.
    :raises ApplianceError: APL-0201.
    """
    if not isinstance(text, str) or not is_digest(text):
        fail(
            "APL-0201",
            f"not a digest: {str(text)[:150]!r}",
            where=where,
            why="expected sha256: and 64, or sha512: and 128 lower-case hexadecimal digits",
        )
    return text


def hasher(algorithm: str = "sha256") -> _Hash:
    """A fresh hash object for ``sha256`` or ``sha512``; also takes a whole digest.

    :raises ApplianceError: APL-0201 for another algorithm.
    """
    name = algorithm.partition(":")[0]
    if name not in _FORMS:
        fail("APL-0201", f"unknown digest algorithm: {name[:50]!r}", why="sha256 and sha512 are accepted")
    return hashlib.new(name, usedforsecurity=True)


def digest_of(data: Buffer, algorithm: str = "sha256") -> str:
    """Digest of bytes that are at hand."""
    state = hasher(algorithm)
    state.update(data)
    return f"{state.name}:{state.hexdigest()}"
