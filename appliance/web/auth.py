"""Operators and their passwords: a file of scrypt hashes, and the check of a request.

One line each, ``name:scrypt$<log2 n>$<r>$<p>$<salt>$<hash>`` with salt and hash in base64; ``#`` begins a comment.
There is no default user and no default password.

Decision 19.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from appliance.errors import fail

PASSWORD_BYTES = 12
"""Shortest password that is hashed, in bytes."""
_LOG_N, _R, _P, _LENGTH = 15, 8, 1, 32
_MOST_MEMORY = 128 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HEADER_LIMIT = 1024
_REMEMBERED = 64


@dataclass(frozen=True)
class PasswordHash:
    """A salted scrypt hash (RFC 7914)."""

    log_n: int
    r: int
    p: int
    salt: bytes
    value: bytes

    def __str__(self) -> str:
        encoded = (base64.b64encode(part).decode() for part in (self.salt, self.value))
        return "$".join(["scrypt", str(self.log_n), str(self.r), str(self.p), *encoded])

    @classmethod
    def of(cls, password: bytes) -> PasswordHash:
        """Hash a password with a fresh salt."""
        salt = secrets.token_bytes(16)
        return cls(_LOG_N, _R, _P, salt, _scrypt(password, salt, _LOG_N, _R, _P, _LENGTH))

    @classmethod
    def parse(cls, text: str) -> PasswordHash:
        """Read the form of :meth:`__str__`; ValueError for anything else, and for what costs more than is sane."""
        kind, log_n, r, p, salt, value = text.split("$")
        made = cls(int(log_n), int(r), int(p), _decode(salt), _decode(value))
        if kind != "scrypt" or not (14 <= made.log_n <= 20 and 1 <= made.r <= 16 and 1 <= made.p <= 4):
            raise ValueError("not an scrypt hash of a sane cost")
        if len(made.salt) < 8 or len(made.value) < 16 or 128 * made.r << made.log_n > _MOST_MEMORY:
            raise ValueError("not an scrypt hash of a sane cost")
        return made

    def matches(self, password: bytes) -> bool:
        """Return whether it is the hash of this password; takes as long for a wrong one."""
        return hmac.compare_digest(
            self.value, _scrypt(password, self.salt, self.log_n, self.r, self.p, len(self.value))
        )


def _scrypt(password: bytes, salt: bytes, log_n: int, r: int, p: int, length: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=1 << log_n, r=r, p=p, dklen=length, maxmem=2 * _MOST_MEMORY)


def _decode(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def line_for(name: str, password: str) -> str:
    """The line of an operator (APL-0503 for a name or a password that is refused)."""
    if not _NAME.fullmatch(name):
        fail("APL-0503", "not a name for an operator", where=name[:80], why="letters, digits and ._@- are, 64 at most")
    encoded = password.encode()
    if len(encoded) < PASSWORD_BYTES:
        fail("APL-0503", "the password is too short", where=name, why=f"{PASSWORD_BYTES} bytes are the least")
    return f"{name}:{PasswordHash.of(encoded)}"


def parse_lines(text: str, where: str) -> dict[str, PasswordHash]:
    """Operators by name; APL-0503 for a line that is none, or a name given twice."""
    found: dict[str, PasswordHash] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        try:
            parsed = PasswordHash.parse(rest)
        except (ValueError, binascii.Error):
            _wrong(where, f"line {number} is not name:scrypt$...")
        if not _NAME.fullmatch(name) or name in found:
            _wrong(where, f"line {number} has a name that is none, or one given before")
        found[name] = parsed
    return found


def _wrong(where: str, why: str) -> NoReturn:
    fail(
        "APL-0503",
        "the operators' credentials cannot be used",
        where=where,
        why=why,
        fix="Make each line with 'appliance hash-password', put them into mirror_push_users and run site.yml",
    )


def basic(header: str | None) -> tuple[str, bytes] | None:
    """Name and password of an ``Authorization: Basic`` header (RFC 7617), else None."""
    if header is None or len(header) > _HEADER_LIMIT:
        return None
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = _decode(encoded.strip()).partition(b":")
        return (name.decode(), password) if colon else None
    except (ValueError, binascii.Error):
        return None


class Operators:
    """The operators of a file; a changed file counts from the next request on.

    A check costs tens of milliseconds and megabytes on purpose, so what was right is remembered, by a keyed hash and
    for this process and this file alone; what was wrong costs as much again each time.

    :param path: the file of credentials.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = secrets.token_bytes(32)
        self._nobody = PasswordHash(_LOG_N, _R, _P, secrets.token_bytes(16), secrets.token_bytes(_LENGTH))
        # With each file its own memory of what was right: what is found for an old one is never seen by a new one.
        self._loaded: tuple[object, Mapping[str, PasswordHash], OrderedDict[bytes, str]] = (None, {}, OrderedDict())

    def remembered(self, header: str | None) -> str | None:
        """Name of the operator whose credentials were found right a moment ago; never blocks for long."""
        given = basic(header)
        if given is None:
            return None
        _, right = self._operators()
        return right.get(self._fingerprint(*given))

    def check(self, header: str | None) -> str | None:
        """Name of the operator who sent these credentials, None for wrong ones; blocks, for a thread.

        :raises ApplianceError: APL-0503 when the file cannot be used.
        """
        given = basic(header)
        if given is None:
            return None
        name, password = given
        operators, right = self._operators()
        # Somebody who is not listed takes as long as somebody who is.
        anybody = next(iter(operators.values()), self._nobody)
        if not operators.get(name, anybody).matches(password) or name not in operators:
            return None
        # Where the file was replaced while this was hashed, it counts for this request, and is remembered for nobody.
        right[self._fingerprint(name, password)] = name
        while len(right) > _REMEMBERED:
            right.popitem(last=False)
        return name

    def _fingerprint(self, name: str, password: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + password, "sha256")

    def _operators(self) -> tuple[Mapping[str, PasswordHash], OrderedDict[bytes, str]]:
        try:
            status = os.stat(self._path)
            state = (status.st_ino, status.st_mtime_ns, status.st_size)
            if state != self._loaded[0]:
                operators = parse_lines(self._path.read_text(encoding="utf-8"), str(self._path))
                self._loaded = (state, operators, OrderedDict())
        except (OSError, UnicodeDecodeError) as error:
            self._loaded = (None, {}, OrderedDict())
            _wrong(str(self._path), str(error))
        return self._loaded[1:]
