"""The main job, step by step, on a booted lab: what the demo tells and the lab tests assert.

Every step is a function of the running site that does one thing for real (`ansible-playbook`, containerd, power) and
raises :class:`StoryError` with what it saw when the thing did not happen.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.base import REPOSITORY
from tests.lab.images import ImageSpec, docker_archive, make_stick
from tests.lab.site import Host, Site

NGINX = "ksd.test.com/ksd/nginx:1.27"
TOOL = "quay.io/team/tool:2.0"
STICK = "/media/stick"
EXTRA = "/media/extra"
IMAGES = "/var/lib/rancher/k3s/agent/images"
MOVED = ImageSpec("ksd.test.com/ops/moved:1", page="hello from moved", payload_mib=1)
IMPORTED = ImageSpec("elsewhere.test/ops/imported:1", page="hello from imported", payload_mib=1)
CONTAINERD = "/run/k3s/containerd/containerd.sock"
# Without leaving in root's home what it remembers of the API: what a run of the appliance left there would not be seen.
KUBECTL = "KUBECACHEDIR=/run/lab-kubectl k3s kubectl"
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
    site: Site,
    name: str,
    inventory: Path,
    *arguments: str,
    expect: int | None = 0,
    timeout: float = 1200,
    tree: Path = REPOSITORY,
) -> Run:
    """Run a playbook as the operator would, from inside the lab's network.

    :param tree: the checkout whose playbook it is.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(tree / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    done = site.exec(
        [Path(sys.executable).parent / "ansible-playbook", "-i", str(inventory), name, *arguments],
        env=environment,
        cwd=tree,
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


def pull_and_run(host: Host, image: ImageSpec, *, real: bool) -> Pull:
    """Pull by tag, by digest and by tag again, and hear a container of it answer; returns the first pull.

    :raises StoryError: what did not come true.
    """
    first = must_pull(host, image.name, real=real)
    must_pull(host, f"{image.name.rpartition(':')[0]}@{digest_of(host, image.name)}", real=real)
    must_pull(host, image.name, real=real)
    page = serve_http(host, image.name)
    if page != image.text():
        raise StoryError(f"{host.name} answered {page!r}")
    return first


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


def serve_pod(server: Host, host: Host, image: str, port: int = 8080) -> str:
    """Run a pod of an image on a node, and return what it answers over the cluster's network to the server.

    The pod stays and comes back by itself; a second call asks the one that is there.
    """
    name = f"story-{host.name}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": host.name,
            "restartPolicy": "Always",
            "containers": [{"name": "web", "image": image, "imagePullPolicy": "Always"}],
        },
    }
    server.run(f"{KUBECTL} apply -f -", stdin=json.dumps(pod))

    def answer() -> str:
        address = server.run(f"{KUBECTL} get pod {name} -o jsonpath='{{.status.podIP}}'", check=False).stdout
        # Not before the pod network is there on both: the attempt would take a default route, and count as one to leave.
        ways = [at.run(f"ip route show match {address}", check=False).stdout.splitlines() for at in (server, host)]
        if not address or not all(any(not line.startswith("default") for line in way) for way in ways):
            return ""
        return server.run(f"curl -sf -m 2 http://{address}:{port}/", check=False).stdout

    try:
        page: str = until(answer, f"pod {name} to answer", 180)
    except StoryError as error:
        events = server.run(f"{KUBECTL} describe pod {name}", check=False).stdout
        raise StoryError(f"{error}\n{events[-3000:]}") from error
    return page


def stop_container(host: Host, name: str) -> None:
    """End and remove a container, where there is one."""
    host.run(
        f"k3s ctr containers ls -q | grep -qx {name} || exit 0; k3s ctr tasks kill -s SIGKILL {name}; "
        f"for i in $(seq 50); do k3s ctr tasks ls -q | grep -qx {name} || break; k3s ctr tasks rm {name}; done; "
        f"k3s ctr containers rm {name}",
        check=False,
    )


def plug_extra(host: Host, directory: Path) -> None:
    """Plug in a second stick with images that nobody seeds: one to be moved into place, one to be imported by hand."""
    files = directory / "extra"
    files.mkdir(parents=True)
    docker_archive(MOVED, files / "moved.tar")
    docker_archive(IMPORTED, files / "imported.tar")
    host.attach_stick(make_stick(files, directory / "extra.ext4"), EXTRA)


def move_into_images(host: Host) -> None:
    """Give an image to one node's containerd alone, the way that K3s shares: a file moved into ``agent/images``."""
    host.run(
        f"mkdir -p {IMAGES} && cp {EXTRA}/moved.tar {IMAGES}/.moved.tar && mv {IMAGES}/.moved.tar {IMAGES}/moved.tar"
    )
    until(lambda: MOVED.name in host.run("k3s ctr images ls -q").stdout, "K3s to import what was moved in")


def import_by_hand(host: Host) -> None:
    """Give an image to one node's containerd alone, the way that K3s does not share."""
    host.run(f"k3s ctr -n k8s.io images import {EXTRA}/imported.tar")


def command_to_share(said: str) -> str:
    """The command that ``verify`` names for the image that was imported by hand."""
    found = re.search(rf"k3s ctr -n k8s\.io images tag {re.escape(IMPORTED.name)} \S+@sha256:[0-9a-f]{{64}}", said)
    if found is None or "APL-0906" not in said:
        raise StoryError(f"verify did not name {IMPORTED.name}:\n{said[-4000:]}")
    return found[0]


@contextlib.contextmanager
def mirrors_stopped(hosts: Sequence[Host]) -> Iterator[None]:
    """With no mirror at all on these hosts."""
    for host in hosts:
        # The socket and, with it, the mirror: otherwise the next client would start it again.
        host.run("systemctl stop appliance-mirror.socket appliance-peer")
    try:
        yield
    finally:
        for host in hosts:
            host.run("systemctl start appliance-mirror appliance-peer")
        wait_ready(hosts)


def table(said: str) -> str:
    """The site's table out of what ``verify`` said."""
    lines = iter(said.splitlines())
    head = next((line for line in lines if line.split()[:2] == ["node", "role"]), None)
    if head is None:
        raise StoryError(f"verify printed no table:\n{said[-4000:]}")
    rows = [head]
    for line in lines:
        if not line.strip():
            break
        rows.append(line)
    return "\n".join(row[len(head) - len(head.lstrip()) :] for row in rows)


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
