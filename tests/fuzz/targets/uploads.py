"""Uploads: any order of requests to a few of them, held against a list of bytes.

Input: steps, a byte for each decision. Bodies are made of the step's number, so that no two chunks are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fuzz.choices import Choices
from tests.fuzz.world import OPERATOR, Answer, World, world
from tests.unit.store.made import sha

REPOSITORIES = ("team/app", "quay.io/team/app", "team/other")
_STEPS = 16
_MOST = 3


@dataclass
class Model:
    """What the uploads hold, and what became of them."""

    held: dict[str, bytes] = field(default_factory=dict)  # by location
    gone: list[str] = field(default_factory=list)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by repository and digest


def run(data: bytes) -> None:
    """After each step the upload holds what the model says, or is as gone."""
    here, model, choices = world(), Model(), Choices(data)
    here.reset()
    steps = (_begin, _patch, _patch, _put, _status, _delete, _at_once, _elsewhere, _restart)
    for number in range(_STEPS):
        if not choices.more:
            break
        choices.pick(steps)(here, model, choices, number)
        for location, content in model.held.items():
            answer = _call(here, "GET", location)
            assert (answer.status, answer.headers["range"]) == (204, _span(content)), (location, content, answer)
    for location in model.gone:
        assert _call(here, "GET", location).status == 404
    for (repository, digest), content in model.blobs.items():
        for other in REPOSITORIES:
            answer = _call(here, "GET", f"/v2/{other}/blobs/{digest}")
            if (other, digest) in model.blobs:
                assert answer.body == content and answer.status == 200
            else:
                assert answer.status == 404, (repository, other, digest)
    waiting = list((here.store.root / "uploads").iterdir())
    assert len(waiting) == len(model.held), "a file of an upload that nobody can go on with"


def _call(here: World, method: str, target: str, body: bytes = b"", length: int | None = -1, **headers: str) -> Answer:
    sent = {"Authorization": OPERATOR} | {name.replace("_", "-"): value for name, value in headers.items()}
    return here.call(here.peer, method, target, headers=sent, body=body, length=length)


def _span(content: bytes) -> str:
    return f"0-{max(0, len(content) - 1)}"


def _chunk(choices: Choices, number: int) -> bytes:
    return bytes([number + 1]) * choices.number(12)


def _location(model: Model, choices: Choices) -> str:
    """One that is held or gone, or one that never was."""
    return choices.pick([*model.held, *model.gone, f"/v2/team/app/blobs/uploads/{'0' * 32}"])


def _repository(location: str) -> str:
    return location.removeprefix("/v2/").partition("/blobs/")[0]


def _begin(here: World, model: Model, choices: Choices, number: int) -> None:
    if len(model.held) >= _MOST:
        return
    answer = _call(here, "POST", f"/v2/{choices.pick(REPOSITORIES)}/blobs/uploads/")
    assert (answer.status, answer.headers["range"]) == (202, "0-0")
    model.held[answer.headers["location"]] = b""


def _sent(choices: Choices, number: int, held: int) -> tuple[bytes, dict[str, str], int | None, int]:
    """A body, its headers and its announced length; and the status of the model, 0 for "it is taken"."""
    body, kind = _chunk(choices, number), choices.number(8)
    if kind < 3 or not body:  # a stream, its length known or not
        return body, {}, -1 if kind else None, 0
    first = held if kind < 6 else max(0, held + choices.pick((-1, 1, 5)))
    last = first + len(body) - 1
    expected = 0 if first == held else 416
    if kind == 5:  # a range that is not the body's
        last += 1 + choices.number(3)
        expected = 400
    length = None if kind == 4 else -1
    return body, {"Content_Range": f"{first}-{last}"}, length, expected


def _patch(here: World, model: Model, choices: Choices, number: int) -> None:
    location = _location(model, choices)
    held = model.held.get(location)
    body, headers, length, expected = _sent(choices, number, len(held or b""))
    cut = choices.number(4) if choices.flag() else 0
    if cut and length == -1 and expected == 0:  # the client goes away: what came is kept, or all of the range is not
        answer = _call(here, "PATCH", location, body, len(body) + cut, **headers)
        if held is None:
            assert answer.status == 404
        else:
            assert answer.status == 400
            model.held[location] = held if headers else held + body
        return
    answer = _call(here, "PATCH", location, body, length, **headers)
    if held is None:
        assert answer.status == 404
    elif expected:
        assert answer.status == expected, (answer, headers, body, held)
    else:
        assert (answer.status, answer.headers["range"]) == (202, _span(held + body))
        assert answer.headers["location"] == location
        model.held[location] = held + body


def _put(here: World, model: Model, choices: Choices, number: int) -> None:
    location = _location(model, choices)
    held = model.held.get(location)
    body, headers, length, expected = _sent(choices, number, len(held or b""))
    algorithm = choices.pick(("sha256", "sha512"))
    is_right = choices.number(4) != 3
    digest = sha((held or b"") + body + (b"" if is_right else b"x"), algorithm)
    answer = _call(here, "PUT", f"{location}?digest={digest}", body, length, **headers)
    if held is None:
        assert answer.status == 404
    elif expected:
        assert answer.status == expected, (answer, headers, body, held)
    else:
        assert answer.status == (201 if is_right else 400), answer
        model.gone.append(location)
        del model.held[location]
        if is_right:
            assert answer.headers["docker-content-digest"] == digest
            model.blobs[_repository(location), digest] = held + body


def _status(here: World, model: Model, choices: Choices, number: int) -> None:
    location = _location(model, choices)
    answer = _call(here, choices.pick(("GET", "POST", "HEAD")), location)
    assert answer.status in ((204, 405) if location in model.held else (404, 405))


def _delete(here: World, model: Model, choices: Choices, number: int) -> None:
    location = _location(model, choices)
    answer = _call(here, "DELETE", location)
    assert answer.status == (204 if location in model.held else 404)
    if model.held.pop(location, None) is not None:
        model.gone.append(location)


def _at_once(here: World, model: Model, choices: Choices, number: int) -> None:
    """The whole blob in the POST."""
    repository, body = choices.pick(REPOSITORIES), _chunk(choices, number)
    is_right = choices.flag()
    digest = sha(body if is_right else body + b"x", choices.pick(("sha256", "sha512")))
    answer = _call(here, "POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", body)
    assert answer.status == (201 if is_right else 400)
    if is_right:
        model.blobs[repository, digest] = body


def _elsewhere(here: World, model: Model, choices: Choices, number: int) -> None:
    """An upload of one repository under the name of another: there is none."""
    if not model.held:
        return
    location = choices.pick([*model.held])
    other = choices.pick([name for name in REPOSITORIES if name != _repository(location)])
    moved = location.replace(f"/v2/{_repository(location)}/", f"/v2/{other}/")
    method = choices.pick(("GET", "PATCH", "PUT", "DELETE"))
    assert _call(here, method, f"{moved}?digest={sha(b'')}").status == 404


def _restart(here: World, model: Model, choices: Choices, number: int) -> None:
    """Another worker goes on: it has the files and has seen nothing pass."""
    here.listener.uploads._hashing.clear()
