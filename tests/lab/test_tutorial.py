"""The first hour of a real site: the tutorial and the README's quick start, typed as they stand there.

A person sits at a terminal. The connected machine has a fresh home; the controller has that, a copy of the checkout, and no
way out. The hosts are one Debian 12 and one Debian 13, each with nothing but what a Debian server has.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bench.servers import docker_registry_command
from tests.docs.checkout import copy_checkout
from tests.docs.covered import CONTROLLER, NODE, filled_in, lines_of
from tests.docs.generate import ROOT
from tests.docs.page import shown_files, typed_commands
from tests.lab.base import run
from tests.lab.host import Host, HostSpec
from tests.lab.images import ImageSpec, docker_archive, make_stick, oci_layout, pause_image
from tests.lab.root import NEXT_RELEASE
from tests.lab.scenario import KUBELET_ARGS, PAUSE
from tests.lab.shell import ANSIBLE_ASKS, Shell
from tests.lab.site import Site, unique_id
from tests.lab.standin.build import build as build_standin
from tests.lab.story import STICK, digest_of, must_pull, status, until

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

TUTORIAL, README = ROOT / "docs/tutorial/first-site.md", ROOT / "README.md"
QUICK_START = "Quick start of a real site"
CHECKOUT = "/root/k3s-airgap-appliance"
NGINX = ImageSpec("docker.io/library/nginx:1.27", page="hello from the tutorial", payload_mib=1)
WRONG_USE = re.compile(
    r"usage:|invalid option|unrecognized option|unknown option|syntax error|Unknown operation", re.IGNORECASE
)

NOT_TYPED = {
    r"mkdir -p /media/stick && mount .*": "a lab host has no USB port: the stick is plugged in by Host.attach_stick",
    r"export KUBECONFIG=.*|kubectl get nodes": "typed with 'k3s kubectl' on the server: the page allows it",
    r"kubectl create deployment .*": "the stand-in for K3s runs no pods: containerd pulls the image on the other node",
}
"""Lines of the pages that this test replaces, with the reason."""


@dataclass
class FirstSite:
    """The lab in the place of what the reader has.

    :param typed: every line that was typed, on either machine.
    """

    site: Site
    home: Path
    srv: Path
    typed: list[str]
    stick: Path = Path()

    def terminal(self, stack: ExitStack, words: list[str], cwd: str, env: dict[str, str] | None = None) -> Shell:
        """Sit down at a machine."""
        terminal = Shell(words, {"/root": self.home, "/srv": self.srv}, cwd, env)
        terminal.typed = self.typed
        return stack.enter_context(terminal)

    def connected(self, stack: ExitStack, cwd: str) -> Shell:
        """Sit down at the connected machine; how this machine reaches its index of packages stands in its environment."""
        ways = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
        return self.terminal(stack, [], cwd, ways)

    def controller(self, stack: ExitStack) -> Shell:
        """Sit down at the controller, in the checkout."""
        network = f"--net=/proc/{self.site.keeper.pid}/ns/net"
        return self.terminal(stack, ["nsenter", network], CHECKOUT)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstSite]:
    directory = tmp_path_factory.mktemp("reader")
    Site.sweep()
    site = Site(
        f"{unique_id()}-tutorial",
        [
            HostSpec("a", "10.77.0.11", "nftables", outward=True),
            HostSpec("b", "10.77.0.12", "none", outward=False, release=NEXT_RELEASE),
        ],
    )
    site.up()
    try:
        home, srv = directory / "home", directory / "srv"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        srv.mkdir()
        # The reader's key, which the hosts know; no host is known to it yet.
        for name, mode in (("id", 0o600), ("id.pub", 0o644)):
            key = home / ".ssh" / name.replace("id", "id_ed25519")
            shutil.copyfile(site.state / "ssh" / name, key)
            key.chmod(mode)
        copy_checkout(home / Path(CHECKOUT).name)
        yield FirstSite(site, home, srv, [])
    finally:
        site.down()


@pytest.fixture
def docker_hub(first: FirstSite, tmp_path: Path) -> Iterator[None]:
    """Debian's docker-registry on this machine, which skopeo takes for docker.io (containers-registries.conf(5))."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [str(word) for word in docker_registry_command(tmp_path, port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        name = f"docker://127.0.0.1:{port}/library/nginx:1.27"
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
        source = f"oci:{oci_layout(NGINX)}:{NGINX.name}"
        until(lambda: run([*copy, source, name], check=False).returncode == 0, "docker-registry to take an image")
        containers = first.home / ".config/containers"
        containers.mkdir(parents=True)
        mirror = f'location = "127.0.0.1:{port}"\ninsecure = true\n'
        (containers / "registries.conf").write_text(
            f'[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\n{mirror}'
        )
        yield
    finally:
        server.terminate()
        server.wait(30)


def test_the_pages_as_they_are_typed(first: FirstSite, docker_hub: None) -> None:
    a, b = (first.site.hosts[name] for name in "ab")
    files = first.home / "images"
    files.mkdir()
    _release_files(first.srv / "k3s")
    tutorial, readme = typed_commands(TUTORIAL), typed_commands(README, QUICK_START)
    with ExitStack() as stack:
        there = first.connected(stack, "/root/images")
        for line in _between(tutorial, "skopeo", "python3"):
            there.type(line)
        there.type(f"cd {CHECKOUT}")
        fetched = [_between(page, "python3", "python3 -m venv .venv") for page in (tutorial, readme)]
        assert fetched[0] == fetched[1]
        for line in fetched[0]:
            there.type(line)

    with ExitStack() as stack:
        here = first.controller(stack)
        for line in _between(readme, "python3 -m venv .venv", "mkdir"):
            here.type(line)
        assert _between(readme, "python3 -m venv .venv", "mkdir") == _between(
            tutorial, "python3 -m venv .venv", "ansible-inventory"
        )
        _edit_inventory(first.home / Path(CHECKOUT).name / "inventory/site")
        assert "|--@k3s_agents" in here.type("ansible-inventory --graph")
        for line, host in zip(_between(tutorial, "ssh", "mkdir"), (a, b), strict=True):
            said = here.type(line, {r"yes/no": "yes"})
            assert _fingerprint(host) in said
        first.stick = make_stick(files, first.home / "stick.exfat", "exfat")
        a.attach_stick(first.stick, STICK)
        here.type("ansible-playbook playbooks/preflight.yml")
        said = here.type("ansible-playbook site.yml", {ANSIBLE_ASKS: "yes"}, seconds=900)
        assert re.search(r"node +role", said) and "!" not in _table(said), said[-4000:]
        assert (first.home / Path(CHECKOUT).name / "kubeconfig").exists()
        assert {line.split()[0] for line in a.run("k3s kubectl get nodes").stdout.splitlines()[1:]} == {"a", "b"}
        must_pull(b, NGINX.name)
        must_pull(b, f"{NGINX.name.rpartition(':')[0]}@{digest_of(a, NGINX.name)}")
        assert b.run("/opt/appliance/current/venv/bin/python --version").stdout.startswith("Python 3.13")
        assert status(b)["generation"] == status(a)["generation"]

        a.detach_stick(STICK)
        said = here.type("ansible-playbook site.yml", seconds=600)
        assert set(re.findall(r"changed=(\d+)", said)) == {"0"}, said[-4000:]
        for line in ("verify", "update", "backup"):
            here.type(f"ansible-playbook playbooks/{line}.yml", seconds=600)
        assert list((first.home / Path(CHECKOUT).name / "inventory/site/backup").glob("site-*.tar"))
    assert first.site.sink_log() == [], "something tried to leave the site"
    _assert_all_typed(first.typed)


def test_what_the_manual_types_on_a_node(first: FirstSite) -> None:
    """Each line is a command that the host has, used as its program wants it; the appliance's own do what they say."""
    a = first.site.hosts["a"]
    a.attach_stick(first.stick, STICK)
    version = a.run("ls /opt/appliance/releases").stdout.split()[0]
    digest = digest_of(a, NGINX.name).partition(":")[2]
    lines = lines_of(NODE)
    assert not any(line.startswith("date") for line in lines), "a lab host's clock is this machine's"
    # What stops and restarts the services comes last, and what starts them behind it.
    last = [line for order in ("restart", "stop", "start") for line in lines if line.startswith(f"systemctl {order} ")]
    wrong = []
    for line in [*(line for line in lines if line not in last), *last]:
        typed = filled_in(line, FILE=f"{STICK}/nginx.tar.zst", hex=digest, version=version).replace(
            "images.tar.zst", "nginx.tar.zst"
        )
        done = a.run(f"cd /root; PATH=/opt/appliance/current/venv/bin:$PATH\n{typed}", check=False)
        said = done.stdout + done.stderr
        ours = "appliance " in typed and not typed.startswith(("ps ", "pgrep "))
        if done.returncode in (126, 127) or WRONG_USE.search(said) or (ours and done.returncode != 0):
            wrong.append(f"$ {typed}\n{done.returncode} {said[-500:]}")
    assert not wrong, "\n".join(wrong)
    until(lambda: a.run("/opt/appliance/current/venv/bin/appliance status", check=False).returncode == 0, "the agent")
    a.detach_stick(STICK)


def test_what_the_manual_types_on_the_controller(first: FirstSite) -> None:
    with ExitStack() as stack:
        here = first.controller(stack)
        here.type(". .venv/bin/activate")
        for line in lines_of(CONTROLLER):
            typed = filled_in(line)
            if line.startswith("ssh"):
                typed = re.sub(r"(?<=[ @])[ab](?= |$)", lambda name: first.site.hosts[name[0]].address, typed)
            # What looks for a variable that this inventory does not set finds nothing.
            here.type(typed, expect=None if "grep" in line else 0)


def _assert_all_typed(typed: list[str]) -> None:
    wanted = [*typed_commands(TUTORIAL), *typed_commands(README, QUICK_START)]
    left = [line for line in wanted if line not in typed]
    assert [line for line in left if not any(re.fullmatch(pattern, line) for pattern in NOT_TYPED)] == []
    unused = [pattern for pattern in NOT_TYPED if not any(re.fullmatch(pattern, line) for line in left)]
    assert unused == [], "no page has these any more"


def _between(lines: list[str], first: str, after: str) -> list[str]:
    """The lines from the first that begins with a text, up to the first after it that begins with another."""
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    end = next(number for number, line in enumerate(lines) if number > start and line.startswith(after))
    return lines[start:end]


def _release_files(directory: Path) -> None:
    """The files of a K3s release, as the page names them; the stand-in for K3s in the place of its binary."""
    build_standin(directory)
    docker_archive(pause_image(PAUSE), directory / "k3s-airgap-images-amd64.tar")
    run(["zstd", "-q", "--rm", directory / "k3s-airgap-images-amd64.tar"])
    sums = run(["sha256sum", "k3s-airgap-images-amd64.tar.zst"], cwd=directory).stdout
    with (directory / "sha256sum-amd64.txt").open("a") as file:
        file.write(sums)


def _edit_inventory(inventory: Path) -> None:
    """Write the page's two files, the second one beside the content of the example."""
    hosts, brought = shown_files(TUTORIAL, "2. Set up the controller")
    (inventory / "hosts.yml").write_text(hosts)
    variables = inventory / "group_vars/all.yml"
    known: dict[str, Any] = yaml.safe_load(variables.read_text())
    assert yaml.safe_load(shown_files(README, QUICK_START)[1]) == yaml.safe_load(brought)
    known |= yaml.safe_load(brought)
    # As the example says for a host with cgroup v1, which this machine may have; and all hosts share its one disk.
    known |= {"k3s_kubelet_args": list(KUBELET_ARGS), "mirror_free_percent": 1}
    variables.write_text(yaml.safe_dump(known))


def _fingerprint(host: Host) -> str:
    """Return the fingerprint of the host's key, as its console shows it."""
    return host.run("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]


def _table(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if re.match(r"\s*(a|b) +(server|agent) ", line))
