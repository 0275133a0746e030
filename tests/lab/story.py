"""The main job, step by step, on a booted lab: what the demo tells and the lab tests assert.

Every step is a function of the running site that does one thing for real (`ansible-playbook`, containerd, power) and
raises :class:`StoryError` with what it saw when the thing did not happen.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.base import REPOSITORY
from tests.lab.site import Host, Site

NGINX = "ksd.test.com/ksd/nginx:1.27"
TOOL = "quay.io/team/tool:2.0"
STICK = "/media/stick"
CONTAINERD = "/run/k3s/containerd/containerd.sock"
UNITS = ("appliance-mirror", "appliance-peer", "appliance-agent")


class StoryError(AssertionError):
    """A step did not come true; the message holds what was seen."""


@dataclass
class Run:
    """One run of a playbook: its exit code, its output, and the recap by host."""

    code: int
    output: str
    recap: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Changed tasks over all hosts."""
        return sum(counts.get("changed", 0) for counts in self.recap.values())


_RECAP = re.compile(r"^(\S+)\s+: (ok=\d+.*)$", re.MULTILINE)


def playbook(
    site: Site, name: str, inventory: Path, *arguments: str, expect: int | None = 0, timeout: float = 1200
) -> Run:
    """Run a playbook as the operator would, from inside the lab's network."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    done = site.exec(
        [Path(sys.executable).parent / "ansible-playbook", "-i", str(inventory), name, *arguments],
        env=environment,
        cwd=REPOSITORY,
        timeout=timeout,
        check=False,
    )
    output = done.stdout + done.stderr
    recap = {
        host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)}
        for host, counts in _RECAP.findall(output)
    }
    if expect is not None and done.returncode != expect:
        raise StoryError(f"{name} ended with {done.returncode}, {expect} expected:\n{output[-12000:]}")
    return Run(done.returncode, output, recap)


@dataclass(frozen=True)
class Pull:
    """One pull by a node's containerd: whether it worked, how long it took in seconds, and its output."""

    ok: bool
    seconds: float
    output: str


def pull(host: Host, image: str, *, real: bool = False, timeout: float = 120) -> Pull:
    """Let a node's containerd pull an image anew, through the order of registries that K3s's containerd uses."""
    forget(host, image)
    command = (
        f"k3s crictl pull {shlex.quote(image)}"
        if real
        else f"k3s ctr images pull --hosts-dir /var/lib/rancher/k3s/agent/etc/containerd/standin-certs.d {shlex.quote(image)}"
    )
    begun = time.monotonic()
    done = host.run(command, check=False, timeout=timeout)
    return Pull(done.returncode == 0, time.monotonic() - begun, done.stdout + done.stderr)


def forget(host: Host, image: str) -> None:
    """Take an image and its content out of a node's containerd, so that the next pull has to fetch it."""
    host.run(
        f"for name in $(k3s ctr images ls -q | grep -F {shlex.quote(image.split('@', maxsplit=1)[0].rpartition(':')[0] or image)}); do "
        'k3s ctr images rm --sync "$name"; done; true',
        check=False,
    )


def must_pull(host: Host, image: str, *, within: float | None = None, real: bool = False) -> Pull:
    """Pull, and raise where that failed or took longer than a promise allows."""
    result = pull(host, image, real=real)
    if not result.ok:
        raise StoryError(f"{host.name}: pull of {image} failed:\n{result.output[-3000:]}{journal(host)}")
    if within is not None and result.seconds > within:
        raise StoryError(f"{host.name}: pull of {image} took {result.seconds:.1f} s, {within} s at the most")
    return result


def digest_of(host: Host, image: str) -> str:
    """The digest that the site serves a name with, as the store on a node says."""
    done = host.run("/opt/appliance/current/venv/bin/appliance images --store /var/lib/appliance --json")
    for row in json.loads(done.stdout)["images"]:
        if row["name"] == image:
            return str(row["digest"])
    raise StoryError(f"{host.name} does not serve {image}: {done.stdout}")


def serve_http(host: Host, image: str, port: int = 8080) -> str:
    """Run a container of an image with the host's network, and return what it answers over HTTP."""
    name = "story"
    stop_container(host, name)
    host.run(f"k3s ctr run -d --net-host {shlex.quote(image)} {name}")
    try:
        page: str = until(
            lambda: host.run(f"curl -sf http://127.0.0.1:{port}/", check=False).stdout,
            f"{image} on {host.name} to answer",
        )
    finally:
        stop_container(host, name)
    return page


def stop_container(host: Host, name: str) -> None:
    """End and remove a container, where there is one."""
    host.run(
        f"k3s ctr containers ls -q | grep -qx {name} || exit 0; k3s ctr tasks kill -s SIGKILL {name}; "
        f"for i in $(seq 50); do k3s ctr tasks ls -q | grep -qx {name} || break; k3s ctr tasks rm {name}; done; "
        f"k3s ctr containers rm {name}",
        check=False,
    )


def status(host: Host) -> dict[str, Any]:
    """What the agent of a node says."""
    done = host.run("/opt/appliance/current/venv/bin/appliance status --json")
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def wait_ready(hosts: Sequence[Host], generation: int | None = None, seconds: float = 60) -> None:
    """Wait until every node's mirror serves the generation and K3s's containerd answers."""

    def ready(host: Host) -> bool:
        if host.run(f"test -S {CONTAINERD} && k3s ctr version", check=False).returncode != 0:
            return False
        done = host.run("/opt/appliance/current/venv/bin/appliance status --json", check=False)
        if done.returncode != 0:
            return False
        served = json.loads(done.stdout)["generation"]
        return served is not None and (generation is None or served["number"] >= generation)

    for host in hosts:
        until(lambda host=host: ready(host), f"{host.name} to be ready", seconds)


def until(ask: Any, what: str, seconds: float = 30) -> Any:
    """Ask again until the answer is true; the bound is for a broken run, not a promise."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise StoryError(f"waited {seconds:.0f} s in vain for {what}")
        wait_a_moment()


def wait_a_moment() -> None:
    """Between two looks at something real that has no event to wait for."""
    subprocess.run(["/bin/sleep", "0.2"], check=True)


def journal(host: Host) -> str:
    """The last words of the appliance's units and K3s, for a failure's message."""
    if not host.is_up():
        return f"\n{host.name} is off"
    units = " ".join(f"-u {unit}" for unit in (*UNITS, "k3s", "k3s-agent"))
    return "\n" + host.run(f"journalctl {units} -n 40 --no-pager -o short-monotonic", check=False).stdout
