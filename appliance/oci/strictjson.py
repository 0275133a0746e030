"""Parser of untrusted JSON: bounded, UTF-8 only, no duplicate keys.

Python's parser takes what other parsers read differently (UTF-16, ``NaN``, a key given twice); a document
that means two things to two tools is refused here, because its digest would vouch for both meanings.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from appliance.errors import fail

VALUES = 1_000_000
"""Most commas and opening brackets in a document: 20 MiB of ``[[],[],`` are half a gigabyte as objects."""


class _NotStrict(ValueError):
    """A document that another parser would read differently."""


def load_json(data: bytes | bytearray | memoryview, *, limit: int, where: str = "") -> Any:
    """Parse a JSON document that nobody vouches for.

    :param data: the document.
    :param limit: largest accepted size in bytes.
    :param where: file or digest for messages.
    :raises ApplianceError: APL-0203 for what is not plain JSON, APL-0204 for what is too large or too deep.
    """
    if len(data) > limit:
        fail(
            "APL-0204",
            "JSON document is too large",
            where=where,
            why=f"{len(data)} bytes, the limit is {limit}",
        )
    data = bytes(data)
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES:
        fail("APL-0204", "JSON document has too many values", where=where, why=f"over {VALUES}")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        fail("APL-0204", "JSON document is nested too deep", where=where)
    except UnicodeDecodeError as error:
        fail("APL-0203", "not a JSON document", where=where, why=f"it is not text in UTF-8, from byte {error.start} on")
    except json.JSONDecodeError as error:
        why = f"it is not valid JSON at line {error.lineno}, column {error.colno}"
        fail("APL-0203", "not a JSON document", where=where, why=why)
    except ValueError as error:  # of the hooks, and of Python for a number of thousands of digits
        why = str(error) if isinstance(error, _NotStrict) else "it has a number that is too long"
        fail("APL-0203", "not a JSON document", where=where, why=why)


def dump_json(value: Any) -> bytes:
    """Compact JSON in the order of insertion, ASCII only: the form whose bytes are hashed."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def is_clean_text(value: object) -> bool:
    """Return whether ``value`` is a string that can be written out again: no lone surrogates, no NUL."""
    if not isinstance(value, str) or "\0" in value:
        return False
    return not any("\ud800" <= char <= "\udfff" for char in value) if not value.isascii() else True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _NotStrict("a key is given twice in one object")
    return result


def _no_constant(text: str) -> NoReturn:
    raise _NotStrict(f"{text} is not JSON")
