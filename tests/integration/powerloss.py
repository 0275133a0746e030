"""What may be on a disk after the power went off, worked out from the system calls of a real run.

strace writes down every call that changes a directory tree, with the bytes. They are played into a model with two
sides: what a process sees, and what POSIX promises to be there after a power loss, which is no more than fsync of a
file (its bytes) and fsync of a directory (its entries) made durable. A state is taken after any number of calls, and
written out as a real directory.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Variant = Literal["nothing unsynced", "names without bytes", "at random"]
VARIANTS: tuple[Variant, ...] = ("nothing unsynced", "names without bytes", "at random")

_CALLS = (
    "open openat creat write pwrite64 writev pwritev pwritev2 copy_file_range sendfile splice ftruncate truncate fallocate "
    "fsync fdatasync sync syncfs rename renameat renameat2 link linkat unlink unlinkat rmdir mkdir mkdirat symlink symlinkat"
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)(?:<.*>)?(?: .*)?$", re.DOTALL)
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_DESCRIPTOR = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True)
class Call:
    """One call that succeeded below the watched directory.

    :param name: ``create``, ``truncate``, ``write``, ``fsync``, ``rename``, ``unlink`` or ``mkdir``.
    :param path: what it was for; ``other`` is the new name of a rename.
    """

    name: str
    path: str
    other: str = ""
    data: bytes = b""
    append: bool = False


def record(words: Sequence[object], below: Path, log: Path) -> list[Call]:
    """Run a command and write down what it changed below a directory (absolute, as the command names it)."""
    strace = ["strace", "-f", "-y", "-qq", "-xx", "-s", str(64 << 20), "-e", "signal=none", "-e"]
    strace += ["trace=" + ",".join(f"?{name}" for name in _CALLS.split()), "-o", str(log)]
    done = subprocess.run([*strace, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [call for call in _calls(log) if call.path.startswith(f"{below}/") or call.path == str(below)]


def _lines(log: Path) -> Iterator[str]:
    """Whole calls, in the order in which they ended."""
    begun: dict[str, str] = {}
    with log.open(encoding="ascii") as file:
        for line in file:
            text = line.rstrip("\n")
            if found := _UNFINISHED.match(text):
                begun[found[1]] = text[: -len(" <unfinished ...>")]
            elif found := _RESUMED.match(text):
                yield begun.pop(found[1]) + found[2]
            else:
                yield text


def _calls(log: Path) -> Iterator[Call]:
    for line in _lines(log):
        found = _LINE.match(line)
        if found is None or found[4].startswith("-"):
            continue
        name, arguments = found[2], found[3]
        texts = [bytes.fromhex(text[0].replace("\\x", "")) for text in _TEXT.findall(arguments)]
        assert not any(text[1] for text in _TEXT.findall(arguments)), "strace cut a string short"
        handle = _DESCRIPTOR.match(arguments)
        path = os.fsdecode(bytes.fromhex(handle[1].replace("\\x", ""))) if handle else ""
        if name in ("open", "openat", "creat"):
            opened = os.fsdecode(texts[-1])
            if "O_CREAT" in arguments:
                yield Call("create", opened)
            if "O_TRUNC" in arguments:
                yield Call("truncate", opened)
        elif name == "write":
            yield Call("write", path, data=texts[0][: int(found[4])])
        elif name in ("fsync", "fdatasync"):
            yield Call("fsync", path)
        elif name in ("rename", "renameat", "renameat2"):
            yield Call("rename", os.fsdecode(texts[-2]), os.fsdecode(texts[-1]))
        elif name in ("unlink", "unlinkat"):
            yield Call("unlink", os.fsdecode(texts[-1]))
        elif name in ("mkdir", "mkdirat"):
            yield Call("mkdir", os.fsdecode(texts[-1]))
        else:
            yield Call(name, path or (os.fsdecode(texts[-1]) if texts else ""))


@dataclass
class _File:
    """A file: the bytes that a process sees, and those that are durable."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


_Node = _File | None  # None: a directory, which is known by its path (no directory of a store is ever renamed)


@dataclass
class Disk:
    """The model. ``seen`` and ``durable`` are entries by path; ``pending`` the changes of each directory since its fsync."""

    seen: dict[str, _Node] = field(default_factory=dict)
    durable: dict[str, _Node] = field(default_factory=dict)
    pending: dict[str, list[tuple[str, _Node | Literal["gone"]]]] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> Disk:
        """Everything below a directory, durable."""
        disk = cls()
        for path in root.rglob("*"):
            node = None if path.is_dir() else _File(bytearray(path.read_bytes()), path.read_bytes())
            disk.seen[str(path)] = disk.durable[str(path)] = node
        return disk

    def apply(self, call: Call) -> None:
        """Play one call."""
        if call.name == "create":
            if call.path not in self.seen:
                self._enter(call.path, _File())
        elif call.name == "mkdir":
            self._enter(call.path, None)
        elif call.name == "write":
            # Everything a store writes is written from its beginning to its end, or appended.
            self._file(call.path).seen += call.data
        elif call.name == "truncate":
            self._file(call.path).seen.clear()
        elif call.name == "unlink":
            self._enter(call.path, "gone")
        elif call.name == "rename":
            node = self.seen[call.path]
            self._enter(call.other, node)
            self._enter(call.path, "gone")
        elif call.name == "fsync":
            node = self.seen.get(call.path)
            if isinstance(node, _File):
                node.durable = bytes(node.seen)
            else:
                for path, change in self.pending.pop(call.path, []):
                    _change(self.durable, path, change)
        else:
            raise AssertionError(f"the model does not know {call.name}")

    def _file(self, path: str) -> _File:
        node = self.seen[path]
        assert isinstance(node, _File)
        return node

    def _enter(self, path: str, node: _Node | Literal["gone"]) -> None:
        _change(self.seen, path, node)
        self.pending.setdefault(os.path.dirname(path), []).append((path, node))

    def write_out(self, root: Path, target: Path, variant: Variant, chance: random.Random) -> None:
        """What is there after a power loss now, as a directory ``target`` in place of ``root``."""
        entries = dict(self.durable)
        for changes in self.pending.values():
            count = {"nothing unsynced": 0, "names without bytes": len(changes)}.get(variant)
            for path, change in changes[: chance.randint(0, len(changes)) if count is None else count]:
                _change(entries, path, change)
        target.mkdir()
        for path in sorted(entries):
            place = target / os.path.relpath(path, root)
            node = entries[path]
            if not place.parent.is_dir():
                continue  # its directory was lost
            if node is None:
                place.mkdir()
            else:
                extra = node.seen[len(node.durable) :] if node.seen.startswith(node.durable) else b""
                kept = chance.randint(0, len(extra)) if variant == "at random" else 0
                place.write_bytes(node.durable + extra[:kept])


def _change(entries: dict[str, _Node], path: str, node: _Node | Literal["gone"]) -> None:
    if isinstance(node, str):
        entries.pop(path, None)
    else:
        entries[path] = node
