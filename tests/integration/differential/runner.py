"""Sends every scenario to its pairs and collects what differs."""

from __future__ import annotations

from collections.abc import Iterator

from tests.integration.differential.answers import compare
from tests.integration.differential.cases import SCENARIOS, Ask, Scenario, pairs_of
from tests.integration.differential.observed import Observed
from tests.integration.differential.servers import Answer, Pair, Server


def observe(pairs: dict[str, Pair]) -> list[Observed]:
    """What differs, request by request."""
    return [one for scenario in SCENARIOS for name in pairs_of(scenario) for one in _differences(scenario, pairs[name])]


def _differences(scenario: Scenario, pair: Pair) -> Iterator[Observed]:
    theirs, ours = _Side(pair.theirs, scenario.repository), _Side(pair.ours, scenario.repository)
    for number, ask in enumerate(scenario.asks, 1):
        answers = theirs.send(ask), ours.send(ask)
        request = f"{pair.name}:{scenario.name}:{number} {ask.method}"
        yield from compare(request, ask.method, scenario.repository, (pair.theirs, answers[0]), (pair.ours, answers[1]))


class _Side:
    """One server in one scenario: it remembers where the last answer pointed."""

    def __init__(self, server: Server, repository: str) -> None:
        self._server = server
        self._repository = repository
        self._location = ""

    def send(self, ask: Ask) -> Answer:
        answer = self._server.ask(ask.method, self._path(ask.path), ask.headers, ask.body, chunked=ask.chunked)
        if "Location" in answer.headers and "/uploads/" in answer.headers["Location"]:
            self._location = answer.headers["Location"]
        return answer

    def _path(self, path: str) -> str:
        if path.startswith("@"):
            # A server that opened no upload is asked for one that is not.
            where = self._location or f"/v2/{self._repository}/blobs/uploads/none"
            return where + (path[1:].replace("?", "&", 1) if "?" in where else path[1:])
        path = path.replace("{r}", self._repository)
        return path[1:] if path.startswith("//") else f"/v2{path}"
