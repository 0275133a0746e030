"""Every input of the corpus, a few random ones, and proofs that the targets notice when something does not hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance import pki
from appliance.oci import digests, reference, strictjson
from appliance.publish import pushes
from appliance.store import uploads
from appliance.web import blobs, ranges
from tests.fuzz import CORPUS, seeds
from tests.fuzz.targets import NAMES, load, words

_SIZE_LIMIT = 200_000
_RANDOM = 60


def inputs(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


@pytest.mark.parametrize("target", NAMES)
def test_everything_holds_for_the_corpus(target: str) -> None:
    run = load(target)
    for file in inputs(target):
        try:
            run(file.read_bytes())
        except BaseException as error:
            raise AssertionError(f"python -m tests.fuzz replay {target} {file}") from error


@pytest.mark.parametrize("target", NAMES)
def test_everything_holds_for_inputs_nearby(target: str, sampled: random.Random) -> None:
    run, known = load(target), [file.read_bytes() for file in inputs(target)]
    for _ in range(_RANDOM):
        data = bytearray(sampled.choice(known))
        for _ in range(sampled.randint(1, 4)):
            at = sampled.randint(0, len(data))
            piece = sampled.choice([sampled.randbytes(1), sampled.choice(words(target) or (b"\0",))])
            data[at : at + sampled.randint(0, 4)] = piece
        try:
            run(bytes(data))
        except BaseException as error:
            raise AssertionError(f"{target}: {bytes(data)!r}") from error


def test_the_corpus_stays_small_and_each_target_has_one() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(NAMES)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < _SIZE_LIMIT


@pytest.mark.parametrize("target", NAMES)
def test_the_seeds_are_those_that_the_code_makes(target: str) -> None:
    made = {f"seed-{name}" for name in seeds.seeds()[target]}
    assert made == {file.name for file in inputs(target) if file.name.startswith("seed-")}


# What breaks is found: each is a mistake that somebody could make, and the target that has to see it.

BREAK: dict[str, tuple[str, Any, str, Callable[[Callable[..., Any]], Callable[..., Any]]]] = {
    "a range one byte short": (
        "requests",
        blobs,
        "parse_range",
        lambda _: lambda header, size: (0, 1) if header else None,
    ),
    "ranges beyond the end": ("ranges", ranges, "min", lambda _: max),
    "a bare word as a registry": (
        "names",
        reference,
        "is_registry_host",
        lambda _: lambda component: "." not in component,
    ),
    "digests in capitals": ("names", digests, "is_digest", lambda old: lambda text: old(str(text).lower())),
    "keys given twice": ("documents", strictjson, "_unique", lambda _: dict),
    "any repository may mount": ("pushes", pushes.Publishing, "mount", lambda _: lambda *_: True),
    "any certificate as the publisher's": ("peers", pki, "why_unsigned", lambda _: lambda *_: None),
    "uploads of everybody": ("uploads", uploads, "_scope", lambda _: lambda repository: "0" * 32),
}


@pytest.mark.parametrize("mistake", list(BREAK))
def test_a_mistake_is_found_by_the_corpus_alone(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, where, name, change = BREAK[mistake]
    run = load(target)
    monkeypatch.setattr(where, name, change(getattr(where, name, min)), raising=False)
    with pytest.raises(AssertionError):
        for file in inputs(target):
            run(file.read_bytes())
