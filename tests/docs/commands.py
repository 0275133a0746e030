"""Every command that the manual has somebody type, as single commands: pipes and lists are taken apart."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.generate import PAGES, ROOT
from tests.docs.page import typed_commands, without_fences

PROGRAMS = (
    "appliance ansible ansible-inventory ansible-playbook cat chmod chown cp ctr curl date dd df dmesg docker du file find findmnt"
    " firewall-cmd free fsck fuser grep hauler head id ip journalctl k3s kubectl ls lsblk lsmod make mkdir modinfo modprobe mount mv nft"
    " openssl pgrep podman ps python python3 readlink rm sed sha256sum skopeo smartctl ss ssh ssh-keygen sudo sysctl systemctl tail"
    " tar touch umount xxd zstd"
)
"""First words of a command: a text between backquotes that begins with one and has an argument is a command."""
_PROGRAM = re.compile(
    rf"(?:[A-Z][A-Z0-9_]*=\S+ )*(?:(?:/|\./|\.venv/)\S+|{'|'.join(map(re.escape, PROGRAMS.split()))}) \S"
)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_REDIRECTION = re.compile(r"\s\d?>{1,2}\s*[^\s<>]+|\s<\s+\S+")
_APPLIANCE = re.compile(r"(?:(?:\S*/bin/)?appliance|\S*python3? -m appliance)(?= |$)")


@dataclass(frozen=True)
class Line:
    """One line of the manual for the shell.

    :param page: where it stands, relative to the checkout.
    :param text: it, without its comment.
    :param is_typed: whether it stands in a block for the shell, and so is complete; in running text it may only be named.
    """

    page: str
    text: str
    is_typed: bool

    @property
    def commands(self) -> list[str]:
        """The single commands of it: what stands between ``|``, ``;``, ``&&`` and ``||``, without assignments and redirections."""
        return list(_simple_commands(self.text))

    @property
    def of_the_appliance(self) -> list[list[str]]:
        """Return the arguments of ``appliance`` on each command line of the page."""
        found = [(command, _APPLIANCE.match(command)) for command in self.commands]
        return [shlex.split(command[match.end() :]) for command, match in found if match]

    @property
    def of_ansible_playbook(self) -> list[list[str]]:
        """Return the arguments of ``ansible-playbook`` on each command line of the page."""
        return [shlex.split(command)[1:] for command in self.commands if command.startswith("ansible-playbook ")]


def pages() -> list[Path]:
    """Return the pages that people wrote."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return sorted([*top, *(path for path in (ROOT / "docs").rglob("*.md") if str(path.relative_to(ROOT)) not in PAGES)])


@functools.cache
def manual() -> tuple[Line, ...]:
    """Return every line of the manual that somebody types, once for each page that has it; of the Makefile, its targets."""
    found: dict[Line, None] = {Line("Makefile", f"make {target}", True): None for target in make_targets()}
    for page in pages():
        name = str(page.relative_to(ROOT))
        found |= {Line(name, line, True): None for line in typed_commands(page)}
        inline = (" ".join(text.split()) for text in _INLINE.findall(without_fences(page)))
        found |= {Line(name, text, False): None for text in inline if _PROGRAM.match(text)}
    return tuple(found)


def make_targets() -> list[str]:
    """Return the targets of the Makefile that people call."""
    return re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def _simple_commands(line: str) -> Iterator[str]:
    parts, current, quote, escaped = [], "", "", False
    for character in line:
        if escaped or character == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "|;&":
            parts.append(current)
            current = ""
            continue
        current += character
    for part in (*parts, current):
        text = _REDIRECTION.sub("", part).strip()
        while _ASSIGNMENT.match(text):
            _, _, text = text.partition(" ")
        if text:
            yield text
