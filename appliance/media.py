"""Name of a medium. It tells several sticks apart that were at one mount point.

A generation keeps it as a flat mapping of texts for each source. ``id`` is always among them: releases that know nothing but
labels print it, and require it.

Decision 51.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class MediumIdentity:
    """Properties that tell one medium from another, as far as it has them.

    :param site: the site that its ``medium.yaml`` names.
    :param id: what its ``medium.yaml`` calls it; of a medium without that file, see :attr:`name`.
    :param created: when it was made, as its ``medium.yaml`` says.
    :param note: the remark in its ``medium.yaml``.
    :param label: label of its file system.
    :param uuid: UUID of its file system.
    :param contents: the archives on it, in words.
    """

    site: str = ""
    id: str = ""
    created: str = ""
    note: str = ""
    label: str = ""
    uuid: str = ""
    contents: str = ""

    @property
    def name(self) -> str:
        """Name for people: its id, else the label and UUID of its file system, else its archives."""
        if self.id:
            return self.id
        if self.uuid:
            return f"{self.label} (UUID {self.uuid})" if self.label else f"UUID {self.uuid}"
        return self.label or self.contents or "a medium without a name"

    def as_dict(self) -> dict[str, str]:
        """Return the same as plain JSON, without what is empty; ``id`` is always there."""
        said = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return {key: text for key, text in said.items() if text and text != self.name} | {"id": self.name}

    @classmethod
    def from_dict(cls, said: Mapping[str, str]) -> MediumIdentity:
        """Return what :meth:`as_dict` wrote; what a newer release adds is left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: text for key, text in said.items() if key in known})

    def words(self) -> str:
        """Name it, with its date and what was on it, in one clause."""
        more = [f"made {self.created}"] if self.created else []
        more += [f"UUID {self.uuid}"] if self.uuid and self.uuid not in self.name else []
        more += [self.contents] if self.contents and self.contents != self.name else []
        return f"{self.name} ({'; '.join(more)})" if more else self.name

    def is_called(self, text: str) -> bool:
        """Return whether this text is a name of this medium."""
        return bool(text) and text in (self.name, self.uuid, self.label)


def media_words(sources: Iterable[str], media: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return each source with the medium that lay there, in words; the source alone where none is known."""
    return [
        f"{MediumIdentity.from_dict(media[source]).words()} at {source}" if source in media else source
        for source in sources
    ]
