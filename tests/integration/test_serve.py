"""``appliance serve`` as a process group: its agent lives as long as it does, and it ends without a word."""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.conftest import Site, lowered, wait_for, workers_of


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_it_quietly(site: Site, number: signal.Signals) -> None:
    node = site.add("a", [], publisher=True)
    node.ready()
    process = node.process
    parts = workers_of(process.popen.pid)
    if number == signal.SIGINT:
        # As a terminal sends it.
        os.killpg(process.popen.pid, number)
    else:
        process.popen.send_signal(number)
    assert process.popen.wait(20) in (0, 130)
    assert process.log == ""
    assert all(map(_is_gone, parts)) and len(parts) == 2


def test_a_worker_that_ends_leaves_the_agent_running(site: Site) -> None:
    node = site.add("a", [], publisher=True, program=lowered(site.root / "count"))
    node.ready()
    wait_for("a beat", lambda: list(site.root.glob("count.*[0-9]")))
    (worker,) = {int(path.suffix[1:]) for path in site.root.glob("count.*[0-9]")}
    (agent,) = workers_of(node.process.popen.pid) - {worker}
    os.kill(worker, signal.SIGTERM)
    wait_for("another worker", lambda: _is_gone(worker) and node.ping() is not None)
    assert agent in workers_of(node.process.popen.pid)
    assert "Traceback" not in node.process.log


def test_a_signal_while_it_starts_leaves_nothing_behind(site: Site) -> None:
    node = site.add("a", [], publisher=True)
    pid = node.process.popen.pid
    wait_for("the agent's process", lambda: len(workers_of(pid)) > 0)
    parts = workers_of(pid)
    node.process.popen.terminate()
    assert node.process.popen.wait(20) == 0
    assert all(map(_is_gone, parts))
    assert "Traceback" not in node.process.log
