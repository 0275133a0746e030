"""The catalogue of bad peers, replayed: a publisher, a follower, and one node that is sick or hostile, over mutual TLS.

Whatever the bad node answers concerns it alone: the site goes on, within bounds, and says who is bad. The nodes run from entry to
entry; each entry is another node in the list, so that nothing that was remembered of the last one counts.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from appliance import pki
from appliance.agent.client import AgentClient, AgentDown
from appliance.cli.main import main
from appliance.store import readiness
from tests.badpeers.entries import ENTRIES, FORGED, WELL, Entry
from tests.badpeers.server import Settings
from tests.fuzz.checks import plain
from tests.integration.conftest import APPLIANCE, Process, Relay, free_port, request, wait_for, workers_of
from tests.keys import certify
from tests.memory import forget_peak, memory
from tests.unit.store import made

FOLLOWED_SECONDS = 10.0
SILENT_SECONDS = 2.0
STATUS_SECONDS = 2.0
GROWN_BYTES = 64 << 20
LINES_A_MINUTE = 10
_SEED_SECONDS = 10.0
_BEHIND_SECONDS = 0.1
_LOOKS = 12
"""As many as a minute has when every look ends badly."""
_LOOKS_SECONDS = 1.5

HARMFUL = (
    "generation-deep",
    "generation-version-7",
    "generation-signer-number",
    "ping-head-drips",
    "index-continue-drip",
    "blob-head-drips",
    "stranger-record-drips",
    "blob-drips",
    "layer-64k",
    "generation-brackets",
    "ping-infinite",
    "ping-deep",
    "ping-line-breaks",
)
"""Entries that held a whole site up, or forged its logs, before each conversation had bounds: they run every time."""


@dataclass
class Pull:
    """Result of a client's pull of one blob.

    :param silence: the longest time without a byte, in seconds.
    :param problem: why it was given up, if so.
    """

    content: bytes = b""
    silence: float = 0.0
    problem: str = ""


@dataclass
class Run:
    """Effect of an entry on the site.

    :param node: id of the bad node.
    :param faults: each promise that did not hold.
    :param asked: what the bad node was asked: a line each, see :mod:`tests.badpeers.server`.
    """

    entry: Entry
    node: str
    asked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def hold(self, holds: bool, fault: str) -> None:
        """Note a fault unless something holds."""
        if not holds:
            self.faults.append(fault)


class Behind(Relay):
    """A way to a node that takes each request some time, so that the bad node is the first to answer."""

    @staticmethod
    def _up(client: socket.socket, server: socket.socket) -> None:
        pause = threading.Event()
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                pause.wait(_BEHIND_SECONDS)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)


class Trio:
    """Nodes a (the publisher) and b as processes, and a third one, which is bad.

    :param root: an empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ports = {"a": free_port(), "b": free_port()}
        self._way = Behind(self._ports["a"])
        self.mirror = free_port()
        for ca in ("ca", "other"):
            pki.init_ca(root / ca)
        for node in "ab":
            self._certify("ca", node)
        self._published = 0
        self._replayed = 0
        self._processes: dict[str, Process] = {}
        self._rest: dict[int, int] = {}
        for node in "ab":
            self._configure(node)
        (root / "store-a").mkdir()
        readiness.mark_ready(root / "store-a", "a")
        self.publish()
        self.start()

    def _certify(self, ca: str, node: str) -> None:
        certify(self.root / ca, self._pki(node, ca), node, "127.0.0.1")

    def _pki(self, node: str, ca: str = "ca") -> Path:
        return self.root / f"pki-{ca}-{node}"

    def _configure(self, node: str, **bad: int) -> None:
        """Write a node's configuration.

        :param bad: id of the bad node to its port.
        """
        ports = self._ports | ({"a": self._way.port} if node == "b" else {}) | bad
        document = {
            "node": node,
            "store": str(self.root / f"store-{node}"),
            "pki": str(self._pki(node)),
            "seeds": ["a"],
            "peers": [
                {"id": peer, "address": "127.0.0.1", "url": f"https://127.0.0.1:{port}", "seed": peer == "a"}
                for peer, port in ports.items()
            ],
            # What the follower serves of layers it has to fetch when it is asked.
            "mirror_copies": 1,
            "peer_listen": f"127.0.0.1:{self._ports[node]}",
            "mirror_listen": f"127.0.0.1:{self.mirror}",
            "agent_socket": str(self.socket(node)),
            "free_percent": 0,
            "scrub_rate": 0,
            "workers": 1,
        }
        new = self.root / f"{node}.new"
        new.write_text(yaml.safe_dump(document))
        new.rename(self.config(node))

    def config(self, node: str) -> Path:
        """Return the configuration file of a node."""
        return self.root / f"{node}.yaml"

    def socket(self, node: str) -> Path:
        """Return the socket of a node's agent."""
        return self.root / f"{node}.sock"

    def start(self) -> None:
        """Start both honest nodes, and wait until the follower serves what the publisher does."""
        for node, units in (("a", ("peer", "agent")), ("b", ("peer", "agent", "mirror"))):
            for unit in units:
                words = [*APPLIANCE, "unit", unit, "--config", str(self.config(node))]
                self._processes[f"{node}-{unit}"] = Process(words, self.root / f"{node}-{unit}.log")
        wait_for("the mirror", lambda: request(self.mirror, "/healthz")[0] == 200)
        wait_for("the generation", lambda: self.serves(self._published), 40)
        self._rest = {pid: memory(pid)[0] for pid in self._pids()}

    def stop(self) -> None:
        """Kill everything."""
        for process in self._processes.values():
            process.kill()

    def close(self) -> None:
        """Leave nothing running."""
        self.stop()
        self._way.close()

    def restart(self) -> None:
        """Begin anew after an entry that did harm, so that the next one is not blamed for it."""
        self.stop()
        for node in "ab":
            self._configure(node)
            self.socket(node).unlink(missing_ok=True)
        readiness.mark_ready(self.root / "store-a", "a")
        self.start()

    def image(self, number: int) -> made.Image:
        """Return the image of a generation: its layer has two pieces."""
        return made.image(number, size=1_600_000)

    def publish(self) -> made.Image:
        """Publish the next image as the next generation.

        :raises AssertionError: where the command fails, or does not end.
        """
        image = self.image(self._published + 1)
        archive = made.write_oci_archive(self.root / "medium.tar", {"docker.io/library/app:1": image})
        words = [*APPLIANCE, "seed", "--store", self.root / "store-a", "--config", self.config("a"), archive]
        try:
            done = subprocess.run(
                [str(word) for word in words], capture_output=True, text=True, check=False, timeout=_SEED_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the publisher's seed did not end in {_SEED_SECONDS:g} s") from None
        if done.returncode:
            raise AssertionError(f"the publisher cannot seed: {done.stderr.strip()[-600:]}")
        self._published += 1
        return image

    def serves(self, number: int) -> bool:
        """Return whether the follower serves this image."""
        return request(self.mirror, "/v2/library/app/manifests/1")[2] == self.image(number).raw

    def replay(self, entry: Entry) -> Run:
        """Have the third node be this entry, publish, and see what becomes of the site."""
        self._replayed += 1
        run = Run(entry, f"c{self._replayed}")
        before = {name: len(process.log) for name, process in self._processes.items()}
        for pid in self._pids():
            forget_peak(pid)
        begun = time.monotonic()
        with self._bad(run) as asked:
            try:
                wait_for("both nodes to ask the bad one", asked, 10)
                image = self.publish()
                number = self._published
                wait_for(
                    f"the follower to have the new generation (entry {entry.name})",
                    lambda: self.serves(number),
                    FOLLOWED_SECONDS,
                )
                for digest, raw in image.blobs.items():
                    self._pulled(run, digest, raw)
            except AssertionError as fault:
                run.faults.append(str(fault))
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._looks, "ab"))
                list(pool.map(lambda node: self._status(run, node), "ab"))
            self._words(run, "`status`", status_text(self.config("b")))
            run.asked = (self.root / "bad" / "asked").read_text().splitlines()
            self._memory(run)
            self._logs(run, before, time.monotonic() - begun)
        return run

    @contextlib.contextmanager
    def _bad(self, run: Run) -> Iterator[Callable[[], bool]]:
        """Run the third node; yield a function that says whether the others have asked it."""
        directory = self.root / "bad"
        directory.mkdir(exist_ok=True)
        for name in ("port", "asked"):
            (directory / name).unlink(missing_ok=True)
        for ca in ("ca", "other"):
            self._certify(ca, run.node)
        settings = Settings(
            run.entry.name,
            run.node,
            str(directory),
            str(self._pki(run.node)),
            str(self._pki(run.node, "other")),
            self._ports["a"],
            str(self.root / "store-a"),
            self._ports,
        )
        settings.write(directory / "settings")
        words = [sys.executable, "-m", "tests.badpeers.server", str(directory / "settings")]
        process = Process(words, self.root / "bad.log")
        try:
            wait_for("the bad node", (directory / "port").exists)
            for node in "ab":
                self._configure(node, **{run.node: int((directory / "port").read_text())})

            def asked() -> bool:
                lines = (directory / "asked").read_text().splitlines()
                if run.entry.certificate != "site" or run.entry.greeting or run.entry.errands:
                    return lines.count("connected") >= 2
                return {"a", "b"} <= {line.partition(" ")[0] for line in lines}

            yield asked
        finally:
            process.kill()

    def _pulled(self, run: Run, digest: str, raw: bytes) -> None:
        got = pull(self.mirror, f"/v2/library/app/blobs/{digest}", len(raw))
        what = f"the pull of a blob of {len(raw)} bytes"
        run.hold(not got.problem, f"{what} failed: {got.problem}")
        run.hold(bool(got.problem) or got.content == raw, f"{what} gave wrong bytes")
        run.hold(got.silence <= SILENT_SECONDS, f"{what} had {got.silence:.1f} s without a byte")

    def _looks(self, node: str) -> None:
        """Have an agent look as often as it does in a minute, as far as that goes quickly."""
        end = time.monotonic() + _LOOKS_SECONDS
        for _ in range(_LOOKS):
            left = end - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask_agent(self.socket(node), "POST", "/v1/look", left)

    def _status(self, run: Run, node: str) -> None:
        begun = time.monotonic()
        try:
            shown = AgentClient(self.socket(node)).status()
        except AgentDown as error:
            run.faults.append(f"`status` of {node} failed: {error}")
            return
        took = time.monotonic() - begun
        run.hold(took < STATUS_SECONDS, f"`status` of {node} took {took:.1f} s")
        if node in run.entry.met_by:
            known = mentions(shown, run.node)
            run.hold(any(known.values()), f"`status` of {node} does not name the bad node")

    def _words(self, run: Run, where: str, lines: list[str]) -> None:
        for line in lines:
            run.hold(not line.startswith(FORGED), f"{where} has a line that the bad node wrote: {line[:200]!r}")
            try:
                plain(line)
            except AssertionError as fault:
                run.faults.append(f"{where}: {str(fault)[:300]}")

    def _memory(self, run: Run) -> None:
        for name, process in self._processes.items():
            run.hold(process.popen.poll() is None, f"{name} has ended")
            for pid in self._of(process):
                peak = memory(pid)[1]
                grown = peak - self._rest.setdefault(pid, peak)
                run.hold(grown <= GROWN_BYTES, f"a process of {name} grew by {grown >> 20} MiB")

    def _logs(self, run: Run, before: dict[str, int], seconds: float) -> None:
        for name, process in self._processes.items():
            lines = process.log[before[name] :].splitlines()
            most = LINES_A_MINUTE * math.ceil(seconds / 60)
            run.hold(len(lines) <= most, f"the log of {name} has {len(lines)} lines more, as: {lines[-1:]}")
            run.hold(
                not any("Traceback" in line for line in lines),
                f"the log of {name} has a traceback: {lines[-1][:300]}" if lines else "",
            )
            self._words(run, f"the log of {name}", lines)

    def _pids(self) -> list[int]:
        return [pid for process in self._processes.values() for pid in self._of(process)]

    @staticmethod
    def _of(process: Process) -> list[int]:
        with contextlib.suppress(OSError):
            return [process.popen.pid, *sorted(workers_of(process.popen.pid))]
        return []


def pull(port: int, path: str, size: int) -> Pull:
    """Pull a blob as containerd does: after a body that ended early it goes on at the byte where that was."""
    got = Pull()
    last = time.monotonic()
    for _ in range(10):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3 * SILENT_SECONDS)
        try:
            connection.request("GET", path, headers={"Range": f"bytes={len(got.content)}-"} if got.content else {})
            response = connection.getresponse()
            if response.status not in (200, 206):
                got.problem = f"{response.status} {response.read()[:500]!r}"
                return got
            while data := response.read1(65536):
                now = time.monotonic()
                got.silence, last = max(got.silence, now - last), now
                got.content += data
        except OSError as error:
            # A reset ends a pull for good, and so does a client's own patience.
            got.problem = f"{type(error).__name__}: {error}, {len(got.content)} bytes came"
            got.silence = max(got.silence, time.monotonic() - last)
            return got
        finally:
            connection.close()
        if len(got.content) >= size:
            return got
    got.problem = f"10 answers ended early, {len(got.content)} bytes came"
    return got


class AgentConnection(http.client.HTTPConnection):
    """HTTP over an agent's socket."""

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("agent", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask_agent(path: Path, method: str, route: str, seconds: float) -> int:
    """Send one request to an agent; return the status of its answer."""
    connection = AgentConnection(path, seconds)
    try:
        connection.request(method, route)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def mentions(shown: dict[str, Any], node: str) -> dict[str, Any]:
    """Return all the bad that ``status --json`` says of a node."""
    return {
        "down": [peer for peer in shown["peers"] if peer["id"] == node and peer["state"] != "up"],
        "refused": [item for item in shown["standing"]["refused"] if item["peer"] == node],
        "silent": [item for item in shown["standing"]["silent"] if item == node],
        "troubles": [item for item in shown.get("troubles", []) if item["peer"] == node],
    }


def status_text(config: Path) -> list[str]:
    """Return the lines that ``appliance status`` prints."""
    return CliRunner().invoke(main, ["status", "--config", str(config)]).output.splitlines()


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """The nodes, for all entries."""
    # Short: a unix socket's path may have 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="apl-"))
    nodes = Trio(root)
    yield nodes
    nodes.close()
    shutil.rmtree(root, ignore_errors=True)


def replay(trio: Trio, name: str) -> None:
    run = trio.replay(ENTRIES[name])
    if run.faults:
        trio.restart()
    if run.faults:
        pytest.fail("\n".join([f"{name}: {run.entry.sentence}", *run.faults]), pytrace=False)


@pytest.mark.parametrize("name", HARMFUL)
def test_what_once_held_up_a_site_concerns_one_node_alone(trio: Trio, name: str) -> None:
    replay(trio, name)


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in HARMFUL])
def test_what_one_node_answers_concerns_it_alone(trio: Trio, name: str) -> None:
    replay(trio, name)


def test_a_site_without_a_bad_node_is_well(trio: Trio) -> None:
    """The test sees a good node as good."""
    run = trio.replay(WELL)
    assert run.faults == []
    assert run.asked
