"""Allow-lists: which names a source may bring.

A pattern is a name as people write it, in which ``*`` stands for any characters, ``/`` included:
``docker.io/rancher/*``, ``registry.example/team/app:1.*``, ``nginx``. It is completed as names are (``nginx`` is
``docker.io/library/nginx``), and holds for every tag where it has none.

Decision 44.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.errors import fail
from appliance.oci.reference import DEFAULT_REGISTRY, Reference, check_registry, is_registry_host

_PATTERN = re.compile(r"[A-Za-z0-9._*\[\]:/-]+")


@dataclass(frozen=True)
class Pattern:
    """One pattern of an allow-list.

    :param text: as it was written.
    :param name: expression for ``registry/repository``.
    :param tag: expression for the tag; None where every tag fits.
    """

    text: str
    name: re.Pattern[str]
    tag: re.Pattern[str] | None

    def fits(self, reference: Reference, *, any_tag: bool = False) -> bool:
        """Return whether a name fits.

        :param any_tag: look at the repository alone: a signature lies beside its image under a tag of its own.
        """
        if not self.name.fullmatch(reference.name):
            return False
        return any_tag or self.tag is None or (reference.tag is not None and bool(self.tag.fullmatch(reference.tag)))


def parse_pattern(text: str) -> Pattern:
    """Read a pattern.

    :raises ApplianceError: APL-0143, APL-0202 for a registry that is none.
    """
    name, colon, tag = text, "", ""
    if text.rfind(":") > text.rfind("/"):
        name, colon, tag = text.rpartition(":")
    if not _PATTERN.fullmatch(text) or not name or name.startswith("/") or name.endswith("/") or (colon and not tag):
        fail(
            "APL-0143",
            f"not a pattern for names: {text[:200]!r}",
            where="allow-list",
            fix="Write names such as docker.io/rancher/* or registry.example/app:1.*; * stands for any characters",
        )
    first, slash, rest = name.partition("/")
    if "*" not in first and slash and is_registry_host(first):
        registry = check_registry(first, "allow-list")
        alone = registry == DEFAULT_REGISTRY and "/" not in rest and "*" not in rest
        name = f"{registry}/library/{rest}" if alone else f"{registry}/{rest}"
    elif name != "*" and not (slash and "*" in first):
        name = f"{DEFAULT_REGISTRY}/{name}" if slash else f"{DEFAULT_REGISTRY}/library/{name}"
    return Pattern(text, _expression(name), _expression(tag) if colon else None)


def _expression(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")))


class AllowLists:
    """Allow-lists by source.

    Without any list every source brings what it holds. With one, a source for which there is none brings nothing: a
    path that was mistyped must not open the site.

    :param texts: ``PATTERN`` for every source, or ``SOURCE=PATTERN`` for one, named as it is when it is read.
    :raises ApplianceError: APL-0143.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        """Read the lists."""
        self._everywhere: list[Pattern] = []
        self._by_source: dict[str, list[Pattern]] = {}
        for text in texts:
            source, equals, pattern = text.rpartition("=")
            if equals:
                self._by_source.setdefault(_path(source), []).append(parse_pattern(pattern))
            else:
                self._everywhere.append(parse_pattern(pattern))

    def allows(self, source: str, reference: Reference, *, any_tag: bool = False) -> bool:
        """Return whether a source may bring a name; see :meth:`Pattern.fits`."""
        if not self._everywhere and not self._by_source:
            return True
        patterns = [*self._everywhere, *self._by_source.get(_path(source), ())]
        return any(pattern.fits(reference, any_tag=any_tag) for pattern in patterns)

    def shown(self, source: str) -> str:
        """The patterns of a source, for messages."""
        patterns = [*self._everywhere, *self._by_source.get(_path(source), ())]
        return ", ".join(pattern.text for pattern in patterns) or "nothing: no list is given for it"


def _path(source: str) -> str:
    return source.rstrip("/") or "/"
