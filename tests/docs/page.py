"""Content of a page of the manual that its reader types: blocks of commands, and files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s)#(?:\s.*)?$")
SHELL = ("sh", "bash", "console")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    :param section: the heading that it stands under.
    :param language: what is written behind the fence.
    """

    section: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands of a block for the shell, one string each: no comments, continued lines joined."""
        joined = self.text.replace("\\\n", " ")
        lines = (_COMMENT.sub("", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text[: found.start()]), re.MULTILINE)
        lines = (line.removeprefix(found["indent"]) for line in found["text"].splitlines())
        yield Block(headings[-1] if headings else "", found["language"], "\n".join(lines))


def typed_commands(page: Path, section: str = "") -> list[str]:
    """Return what the blocks for the shell have typed, in order; of one section, where it is named."""
    found = [block for block in blocks(page) if block.language in SHELL and section in ("", block.section)]
    return [command for block in found for command in block.commands]


def shown_files(page: Path, section: str = "") -> list[str]:
    """Return the YAML that a page shows, in order; of one section, where it is named."""
    return [block.text for block in blocks(page) if block.language == "yaml" and section in ("", block.section)]


def without_fences(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
