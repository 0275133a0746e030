"""Client of the agent's unix socket, for the web workers and the command line."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from appliance.web.blob_provider import Unreachable
from appliance.web.streaming import BlobSource

FIRST_BYTE_SECONDS = 20.0
"""How long a client may wait for the first byte: containerd gives up after 30 s without headers."""
STALL_SECONDS = 20.0
"""How long a stream may stand still before it is closed, by FIN, for the client to resume."""
MEND_SECONDS = 5.0
"""How long a request waits for a manifest that is lost or damaged here."""
LOOK_SECONDS = 600.0
"""How long a look at all peers may take, with all the manifests of what is found."""
FETCH_SECONDS = 86400.0
"""How long it may take to bring all that leaving nodes hold; each fetch has bounds of its own."""
_ASK_SECONDS = 2.0
_REPAIR_SECONDS = 24 * 3600.0
"""For the whole of a store, over whatever links the site has."""


class AgentDown(Exception):
    """The agent does not answer on its socket."""


class AgentRefused(AgentDown):
    """The agent answers, and could not do what it was asked; the text says why."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class AgentClient:
    """Asks the agent behind one socket.

    :param path: the unix socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> dict[str, Any]:
        """See :meth:`appliance.agent.daemon.Agent.status`; raises :class:`AgentDown`."""
        return self._ask("GET", "/v1/status", 15.0)

    def look(self, without: Collection[str] = ()) -> dict[str, Any]:
        """See :meth:`appliance.agent.daemon.Agent.look`; raises :class:`AgentDown`."""
        return self._ask("POST", f"/v1/look?{urlencode([('without', node) for node in without])}", LOOK_SECONDS)

    def leaving(self, staying: Collection[str], *, fetch: bool) -> dict[str, Any]:
        """See :class:`appliance.agent.departure.Leaving`; raises :class:`AgentDown`.

        :param fetch: bring what only leaving nodes hold.
        """
        asked = urlencode([("stay", node) for node in staying])
        return self._ask("POST" if fetch else "GET", f"/v1/leaving?{asked}", FETCH_SECONDS if fetch else LOOK_SECONDS)

    def report(self, service: str, events: dict[str, Any]) -> None:
        """Hand over what clients of a listener did, for ``appliance status``; returns at once, and nothing waits for it.

        :param service: ``mirror`` or ``peer``.
        :param events: see :data:`appliance.countedlog.Report`.
        """
        from gevent import spawn

        def tell() -> None:
            # The log has it in any case.
            with contextlib.suppress(AgentDown):
                self._ask("POST", f"/v1/clients?{urlencode({'service': service})}", _ASK_SECONDS, json.dumps(events))

        spawn(tell)

    def wake(self) -> None:
        """Let the agent look for a newer generation; raises :class:`AgentDown`."""
        self._ask("POST", "/v1/wake", 5.0)

    def repair(self) -> dict[str, Any]:
        """Fetch what is missing of every generation that is kept, and wait for it; raises :class:`AgentDown`.

        See :mod:`appliance.agent.daemon` for the answer.
        """
        return self._ask("POST", "/v1/repair", _REPAIR_SECONDS)

    def fetch(
        self, digest: str, size: int, beyond: int, *, suspect: bool = False, wait: float = _ASK_SECONDS
    ) -> dict[str, Any]:
        """Start or join a fetch, and wait a moment for a byte at ``beyond``; raises :class:`AgentDown`.

        :param suspect: let the agent hash what lies here before it believes it.
        :param wait: seconds.
        """
        path = f"/v1/fetch/{digest}?size={size}&beyond={beyond}&wait={wait:.3f}" + ("&suspect=1" if suspect else "")
        return self._ask("GET", path, wait + 5)

    def mend(self, digest: str, size: int) -> None:
        """Bring back a small blob that is lost or damaged here; see :class:`appliance.web.blob_provider.Fetcher`."""
        end, suspect = time.monotonic() + MEND_SECONDS, True
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise Unreachable(f"it is being fetched, and did not come within {MEND_SECONDS:g} s")
            try:
                answer = self.fetch(digest, size, size, suspect=suspect, wait=min(left, _ASK_SECONDS))
            except AgentDown as error:
                raise Unreachable(str(error)) from error
            if answer["state"] == "failed":
                raise Unreachable(answer["reason"])
            if answer["state"] == "complete":
                return
            suspect = False

    def suspect(self, digest: str) -> None:
        """Have a blob looked at and, where it is damaged, fetched again; returns at once."""
        from gevent import spawn

        def ask() -> None:
            # Nobody waits for it, and without an agent the next request for it finds the same.
            with contextlib.suppress(AgentDown):
                self._ask("POST", f"/v1/suspect/{digest}", _ASK_SECONDS)

        spawn(ask)

    def source(self, digest: str, size: int, start: int, *, suspect: bool = False) -> BlobSource:
        """Bytes of a blob that another node holds; see :class:`appliance.web.blob_provider.Fetcher`."""
        source = FetchedFile(self, digest, size, suspect=suspect)
        try:
            if size:
                source.wait_beyond(start)
        except OSError as error:
            source.close()
            raise Unreachable(str(error)) from error
        return source

    def _ask(self, method: str, path: str, timeout: float, body: str | None = None) -> dict[str, Any]:
        connection = _Connection(self._path, timeout)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read()
            if response.status == 204:
                return {}
            answer = json.loads(content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AgentDown(f"the agent does not answer on {self._path}: {error}") from error
        finally:
            connection.close()
        if response.status != 200 or not isinstance(answer, dict):
            raise AgentRefused(f"the agent answered {response.status}{_reason(answer)}")
        return answer


def _reason(answer: Any) -> str:
    """The words of an error document."""
    try:
        return f": {answer['errors'][0]['message']}"
    except (KeyError, IndexError, TypeError):
        return ""


class FetchedFile:
    """A blob that the agent is fetching; grows while it is sent.

    :param suspect: let the agent hash what lies here before it believes it.
    """

    def __init__(self, agent: AgentClient, digest: str, size: int, *, suspect: bool = False) -> None:
        self._suspect = suspect
        self._agent = agent
        self._digest = digest
        self._size = size
        self._verified = 0
        self._handle = -1

    def fileno(self) -> int:
        """Descriptor of the file the fetch writes to; the same file once it is a blob of the store."""
        return self._handle

    def wait_beyond(self, offset: int) -> int:
        """Wait until verified bytes reach beyond ``offset``, and return how far they reach.

        :raises OSError: when the fetch failed, or nothing has come for so long that waiting on helps nobody.
        """
        patience = FIRST_BYTE_SECONDS if self._handle < 0 else STALL_SECONDS
        begun, known = time.monotonic(), self._verified
        while self._verified <= offset or self._handle < 0:
            try:
                answer = self._agent.fetch(self._digest, self._size, offset, suspect=self._suspect)
                # From here on it is under way: to ask for it again could begin another.
                self._suspect = False
            except AgentDown as error:
                raise OSError(str(error)) from error
            if answer["state"] == "failed":
                raise OSError(answer["reason"])
            self._verified = int(answer["verified"])
            if self._verified > offset or answer["state"] == "complete":
                # Not before: a file without a verified byte may still be replaced by another attempt's.
                self._open(answer)
            if self._verified > known:
                begun, known = time.monotonic(), self._verified
            if self._verified <= offset and time.monotonic() - begun > patience:
                why = f"; {answer['reason']}" if answer["reason"] else ""
                raise OSError(f"no byte for {patience:.0f} s, {self._verified} of {self._size} have come{why}")
        return self._verified

    def failed(self) -> None:
        """Its bytes cannot be read: the agent looks at them."""
        self._agent.suspect(self._digest)

    def close(self) -> None:
        """Close the descriptor; harmless a second time."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _open(self, answer: dict[str, Any]) -> None:
        if self._handle >= 0:
            return
        partial = Path(answer["partial"])
        algorithm, _, encoded = self._digest.partition(":")
        whole = partial.parent.parent / "blobs" / algorithm / encoded
        # Whole or partial, in either order: the rename between the two looks must not be mistaken for a loss.
        for candidate in (whole, partial, whole):
            try:
                self._handle = os.open(candidate, os.O_RDONLY | os.O_CLOEXEC)
                return
            except FileNotFoundError:
                continue
