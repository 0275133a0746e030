"""The main job's story, asserted point by point on three hosts; the order of the tests is the order of the story."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from appliance.web.auth import line_for
from tests.lab.host import Host
from tests.lab.images import NGINX as NGINX_IMAGE
from tests.lab.images import ImageSpec, docker_archive, make_stick, oci_layout
from tests.lab.keeper import CONTROLLER
from tests.lab.scenario import Luggage, inventory, pack
from tests.lab.site import Site
from tests.lab.squatter import squatters, took
from tests.lab.story import (
    EXTRA,
    IMPORTED,
    MOVED,
    NGINX,
    STICK,
    TOOL,
    UNITS,
    Run,
    command_to_share,
    import_by_hand,
    mirrors_stopped,
    move_into_images,
    must_pull,
    playbook,
    plug_extra,
    pull,
    pull_and_run,
    serve_http,
    serve_pod,
    status,
    until,
    wait_ready,
)

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

PUSHED = ImageSpec("team.test/pushed:1", page="hello from what was pushed", payload_mib=1)
DOCKED = ImageSpec("team.test/docked:1", page="hello from what docker pushed", payload_mib=1)


@dataclass
class Installed:
    """The site after the first runs of ``site.yml``, with what they said.

    :param check: the run with ``--check``; None where no chosen test asks for it.
    :param broken: the run in which b lost its power when K3s was about to start there; None likewise.
    :param untouched: what stood of K3s on c after it.
    """

    site: Site
    luggage: Luggage
    inventory: Path
    check: Run | None
    broken: Run | None
    untouched: str
    first: Run


@pytest.fixture(scope="module")
def installed(
    request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    # Each of the first two runs takes minutes: they are made for the tests that were chosen.
    chosen = {item.name for item in request.session.items}
    directory = tmp_path_factory.mktemp("controller")
    luggage = pack(directory)
    hosts = inventory(site, luggage, directory / "inventory")
    a, b, c = (site.hosts[name] for name in "abc")
    a.attach_stick(luggage.stick, STICK)
    check, broken, untouched = None, None, ""
    if test_check_mode_works_on_clean_hosts.__name__ in chosen:
        check = playbook(site, "site.yml", hosts, "--check", "--diff")
    if test_a_node_lost_in_the_middle_stops_the_run_before_the_next_one.__name__ in chosen:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(playbook, site, "site.yml", hosts, "-e", "confirm=yes", expect=None)
            try:
                here = "ls /usr/local/bin/k3s*"
                until(lambda: b.run(here, check=False).stdout or running.done(), "K3s to get to b", 600)
            finally:
                b.power_off()
            broken = running.result()
        untouched = c.run("ls /usr/local/bin/k3s* /etc/systemd/system/k3s*", check=False).stdout
        b.boot()
    first = playbook(site, "site.yml", hosts, "-e", "confirm=yes")
    a.detach_stick(STICK)
    yield Installed(site, luggage, hosts, check, broken, untouched, first)


@pytest.mark.sample(1)
def test_check_mode_works_on_clean_hosts(installed: Installed) -> None:
    assert installed.check is not None
    assert all(counts["failed"] == 0 and counts["unreachable"] == 0 for counts in installed.check.recap.values())
    assert set(installed.check.recap) >= {"a", "b", "c"}


@pytest.mark.sample(1)
def test_a_node_lost_in_the_middle_stops_the_run_before_the_next_one(installed: Installed) -> None:
    assert installed.broken is not None
    assert installed.broken.code != 0
    assert installed.broken.recap["b"]["unreachable"] == 1, installed.broken.output[-4000:]
    assert "APL-0838: b was lost" in installed.broken.output
    assert installed.untouched == "", "c was not to be touched after b had failed"


def test_the_pod_network_is_on_the_interface_that_the_nodes_share(installed: Installed) -> None:
    # c has no default route but the one that role host added, and that leads nowhere.
    for host in installed.site.hosts.values():
        assert "flannel-iface: host0\n" in host.run("cat /etc/rancher/k3s/config.yaml").stdout


def _assert_pods(installed: Installed) -> None:
    """Pods of the image answer across nodes; the stand-in for K3s runs none."""
    if installed.luggage.real:
        for name in ("b", "c"):
            assert serve_pod(installed.site.hosts["a"], installed.site.hosts[name], NGINX) == NGINX_IMAGE.text()


if os.environ.get("K3S_BINARY"):

    def test_pods_of_it_answer_across_nodes(installed: Installed) -> None:
        _assert_pods(installed)


PORTS = {"a": (5001, 5443, 6443, 10250), "b": (5001, 5443, 6443, 10250), "c": (5001, 5443, 6443, 10250)}
_RELOAD = {
    "nftables": "systemctl reload nftables",
    "firewalld": "firewall-cmd -q --reload",
    "ufw": "ufw reload",
}


def _assert_ports(site: Site) -> None:
    """Every port that nodes need opens to every other node, and to nobody else."""
    for host in site.hosts.values():
        for port in PORTS[host.name]:
            for peer in site.hosts.values():
                if peer is not host:
                    opened = peer.run(f"timeout 5 bash -c '</dev/tcp/{host.address}/{port}'", check=False)
                    assert opened.returncode == 0, f"{peer.name} cannot reach {host.name}:{port} {opened.stderr}"
            assert site.stranger_connect(host.address, port, timeout=0.5) == "filtered", f"{host.name}:{port}"
        assert site.stranger_connect(host.address, 22) == "open", "what was open before stays open"
        assert site.stranger_connect(host.address, 5000, timeout=0.5) == "filtered", "the local mirror is local"


@pytest.mark.parametrize("reload", [False, True], ids=["as installed", "after a reload of the firewall"])
def test_ports_are_open_to_nodes_and_closed_to_a_stranger(installed: Installed, reload: bool) -> None:
    if reload:
        for host in installed.site.hosts.values():
            host.run(_RELOAD[host.spec.firewall])
    _assert_ports(installed.site)


@pytest.mark.parametrize("name", ["b", "c"])
def test_the_other_nodes_pull_and_run_what_only_a_was_given(installed: Installed, name: str) -> None:
    pull_and_run(installed.site.hosts[name], NGINX_IMAGE, real=installed.luggage.real)


def test_every_mirror_follows_one_generation(installed: Installed) -> None:
    seen = {name: status(host)["generation"] for name, host in installed.site.hosts.items()}
    assert seen["a"]["number"] >= 1
    assert len({json.dumps(generation) for generation in seen.values()}) == 1


@pytest.fixture
def extra_stick(installed: Installed, tmp_path: Path) -> Iterator[None]:
    """A second stick in a, with images that nobody seeds."""
    a = installed.site.hosts["a"]
    plug_extra(a, tmp_path)
    yield
    a.detach_stick(EXTRA)


@pytest.mark.usefixtures("extra_stick")
def test_an_image_that_only_one_containerd_holds(installed: Installed) -> None:
    a, b, c = (installed.site.hosts[name] for name in "abc")
    move_into_images(a)
    # Its announcement takes the real embedded registry a moment.
    until(lambda: pull(b, MOVED.name, real=installed.luggage.real).ok, f"{MOVED.name} on b")
    with mirrors_stopped([a, b, c]):
        must_pull(c, MOVED.name, real=installed.luggage.real)
        assert serve_http(c, MOVED.name) == MOVED.text()


@pytest.mark.usefixtures("extra_stick")
def test_an_image_imported_by_ctr_alone_is_named_with_the_command_that_shares_it(installed: Installed) -> None:
    a, b = (installed.site.hosts[name] for name in "ab")
    import_by_hand(a)
    assert not pull(b, IMPORTED.name, real=installed.luggage.real).ok
    a.run(command_to_share(playbook(installed.site, "playbooks/verify.yml", installed.inventory).output))
    until(lambda: pull(b, IMPORTED.name, real=installed.luggage.real).ok, f"{IMPORTED.name} on b")
    said = playbook(installed.site, "playbooks/verify.yml", installed.inventory).output
    assert f"{IMPORTED.name} is on this node only [a]" not in said


def test_pull_with_a_powered_off(installed: Installed) -> None:
    a, b, c = (installed.site.hosts[name] for name in "abc")
    until(lambda: all(status(host)["wanted_missing"] == 0 for host in (a, b, c)), "two copies of every blob")
    before = {host.name: pull(host, TOOL, real=installed.luggage.real) for host in (b, c)}
    assert all(result.ok for result in before.values())
    a.power_off()
    try:
        for host in (b, c):
            # "Without a wait of more than about a second": against the same pull with everybody there.
            must_pull(host, TOOL, within=before[host.name].seconds + 2.0, real=installed.luggage.real)
            must_pull(host, NGINX, real=installed.luggage.real)
    finally:
        a.boot()
    wait_ready([a])


def test_whole_site_comes_back_with_dead_clocks(installed: Installed) -> None:
    site, squatted = installed.site, installed.site.hosts["b"]
    with squatters(squatted):
        site.power_off_all()
        site.boot_all(clock="1970-01-01 00:10:00")
        assert took(squatted) == [], "systemd had the port before anybody could ask for it"
    try:
        wait_ready(list(site.hosts.values()), 1, 120)
        for host in site.hosts.values():
            must_pull(host, NGINX, real=installed.luggage.real)
            must_pull(host, TOOL, real=installed.luggage.real)
    finally:
        for host in site.hosts.values():
            restarts = host.run(f"systemctl show {' '.join(UNITS)} -p NRestarts --value").stdout.split()
            assert restarts == ["0", "0", "0"], f"{host.name}: a watchdog, or a crash, in 1970"
            host.clear_service_clock()
            host.run("systemctl restart appliance-agent appliance-mirror appliance-peer")
    wait_ready(list(site.hosts.values()), 1, 60)
    _assert_ports(site)
    _assert_pods(installed)


def test_a_run_without_the_stick_after_all_that_changes_nothing(installed: Installed) -> None:
    run = playbook(installed.site, "site.yml", installed.inventory)
    assert installed.first.changed > 0
    assert run.changed == 0, run.output[-6000:]
    assert "eneration 1 is served" in run.output, "a rerun says which generation is served"
    assert STICK in run.output


_ASK = "curl -s -m 20 -o /dev/null -w '%{http_code} ' http://127.0.0.1:5000/healthz"


def test_a_restart_refuses_nobody_a_stop_lasts_until_the_next_client_and_the_socket_stops_both(
    installed: Installed,
) -> None:
    """systemd holds the listening socket while no process serves, and starts the next one when somebody asks."""
    host = installed.site.hosts["b"]
    with squatters(host):
        said = host.run(
            "for i in 1 2 3; do systemctl restart appliance-mirror; touch /run/lab-restarted; done & "
            f"while ! test -e /run/lab-restarted; do {_ASK} || echo refused; done; for i in $(seq 100); do {_ASK} || echo refused; "
            "done; wait; rm /run/lab-restarted"
        ).stdout
        assert set(said.split()) == {"200"}, said
        for end in ("systemctl kill --signal=KILL appliance-mirror", "systemctl stop appliance-mirror"):
            host.run(end)
            until(lambda: "200" in host.run(_ASK, check=False).stdout, f"an answer after {end}")
        assert took(host) == []
    host.run("systemctl stop appliance-mirror.socket")
    assert host.run(_ASK, check=False).returncode == 7, "refused"
    host.run("systemctl start appliance-mirror")
    assert host.run(_ASK).stdout.split() == ["200"]


def test_who_answers_in_place_of_the_mirror_is_named_and_the_mirror_is_back_when_he_goes(installed: Installed) -> None:
    host = installed.site.hosts["b"]
    with squatters(host):
        host.run("systemctl stop appliance-mirror.socket")
        until(lambda: took(host), "a squatter to take the port")
        host.run("systemctl start --no-block appliance-mirror")
        until(lambda: "APL-0405" in host.run("journalctl -b -u appliance-mirror -n 20").stdout, "the mirror to say so")
        said = host.run("/opt/appliance/current/venv/bin/appliance status").stdout
        assert "APL-0917: another process answers containerd in place of the mirror: " in said, said
        assert "python3)" in said, "with the process"
    until(lambda: "200" in host.run(_ASK, check=False).stdout, "the mirror to be back by itself")
    assert status(host)["foreign_listeners"] == []
    assert host.run("systemctl is-active appliance-mirror.socket appliance-mirror").stdout == "active\nactive\n"


def test_systemd_has_taken_the_limit_of_memory(installed: Installed) -> None:
    shown = installed.site.hosts["b"].run(f"systemctl show -p MemoryMax,OOMPolicy {' '.join(UNITS)}").stdout
    assert sorted(shown.split()) == ["MemoryMax=2684354560"] * 3 + ["OOMPolicy=continue"] * 3


@dataclass
class Pushing:
    """The site while its operator may push.

    :param seed: ``address:port`` of the publisher.
    :param ca: the site's authority, as a PEM file on the controller.
    """

    installed: Installed
    seed: str
    password: str
    ca: Path
    variables: Path
    before: str

    def switch(self, *operators: str) -> None:
        """Let these push, each a line of ``hash-password``; and the controller reach the seed."""
        opened = {"mirror_push_users": list(operators), "firewall_operator_sources": [CONTROLLER]}
        self.variables.write_text(self.before + yaml.safe_dump(opened))
        site, hosts = self.installed.site, self.installed.inventory
        playbook(site, "site.yml", hosts, "-e", "confirm=yes", "--tags", "firewall,mirror")

    def pulled_everywhere(self, name: str) -> None:
        for host in self.installed.site.hosts.values():
            until(lambda host=host: pull(host, name, real=self.installed.luggage.real).ok, f"{name} on {host.name}")


@pytest.fixture(scope="module")
def pushing(installed: Installed) -> Pushing:
    password, directory = "a long enough word", installed.inventory.parent
    variables, seed = directory / "group_vars/all.yml", f"{installed.site.hosts['a'].address}:5443"
    made = Pushing(installed, seed, password, directory / "pki/ca.crt", variables, variables.read_text())
    made.switch(line_for("ops", password))
    return made


def skopeo_push(pushing: Pushing, password: str) -> subprocess.CompletedProcess[str]:
    certificates = pushing.ca.parent / "skopeo"
    certificates.mkdir(exist_ok=True)
    (certificates / "ca.crt").write_bytes(pushing.ca.read_bytes())
    words: list[str | Path] = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-cert-dir", certificates]
    words += [f"oci:{oci_layout(PUSHED)}:{PUSHED.name}", "--dest-creds", f"ops:{password}"]
    return pushing.installed.site.exec([*words, f"docker://{pushing.seed}/team/pushed:1"], check=False)


def test_what_an_operator_pushes_to_the_seed_is_pulled_everywhere_by_that_name(pushing: Pushing) -> None:
    refused = skopeo_push(pushing, "wrong")
    assert refused.returncode != 0 and "unauthorized" in refused.stderr
    pushed = skopeo_push(pushing, pushing.password)
    assert pushed.returncode == 0, pushed.stderr
    name = f"{pushing.seed}/team/pushed:1"
    pushing.pulled_everywhere(name)
    assert serve_http(pushing.installed.site.hosts["c"], name) == PUSHED.text()


@pytest.fixture
def docker(pushing: Pushing, tmp_path: Path) -> Iterator[Host]:
    """Debian's docker engine on a node, with a daemon of its own.

    It is asked for nothing but images, and so touches neither the host's network nor its firewall.
    """
    host = pushing.installed.site.hosts["b"]
    for address in (pushing.seed, f"{host.address}:5443"):
        host.write(f"/etc/docker/certs.d/{address}/ca.crt", pushing.ca.read_text())
    archive = tmp_path / "archive"
    archive.mkdir()
    docker_archive(DOCKED, archive / "docked.tar")
    host.attach_stick(make_stick(archive, tmp_path / "docked.ext4"), EXTRA)
    # In memory: its layers cannot lie on the overlay that a lab host's root is.
    host.run(
        "mkdir -p /run/docker-data && systemd-run -q --unit lab-docker dockerd --iptables=false --bridge=none "
        "--storage-driver vfs --data-root /run/docker-data"
    )
    until(lambda: host.run("docker version", check=False).returncode == 0, "docker to answer", 60)
    yield host
    host.run("systemctl stop lab-docker; rm -rf /run/docker-data /root/.docker /etc/docker/certs.d", check=False)
    host.detach_stick(EXTRA)


def test_docker_pushes_to_the_seed_and_pulls_from_it_and_from_the_mirror(pushing: Pushing, docker: Host) -> None:
    name = f"{pushing.seed}/team/docked:1"
    refused = docker.run(f"docker login -u ops --password-stdin {pushing.seed}", stdin="wrong", check=False)
    assert refused.returncode != 0 and "unauthorized" in refused.stderr.lower(), refused.stderr
    docker.run(f"docker login -u ops --password-stdin {pushing.seed}", stdin=pushing.password)
    docker.run(f"docker load -q -i {EXTRA}/docked.tar && docker tag {DOCKED.name} {name}")
    said = docker.run(f"docker push {name}").stdout
    digest = said.rpartition("digest: ")[2].split()[0]
    assert digest.startswith("sha256:"), said
    pushing.pulled_everywhere(name)
    assert serve_http(pushing.installed.site.hosts["c"], name) == DOCKED.text()
    for wanted in (name, f"{pushing.seed}/team/docked@{digest}"):
        docker.run(f"docker image prune -af && docker pull -q {wanted} && docker image inspect {wanted}")
    assert digest in docker.run(f"docker manifest inspect -v {name}").stdout
    # What the stick brought, from the node's own mirror; docker takes plain HTTP from loopback.
    docker.run(f"docker pull -q 127.0.0.1:5000/{NGINX}")
    # Another node says who takes pushes.
    elsewhere = f"{docker.address}:5443"
    docker.run(f"docker login -u ops --password-stdin {elsewhere}", stdin=pushing.password)
    docker.run(f"docker tag 127.0.0.1:5000/{NGINX} {elsewhere}/team/docked:2")
    misled = docker.run(f"docker push {elsewhere}/team/docked:2", check=False)
    assert misled.returncode != 0 and "the publisher is a" in misled.stdout + misled.stderr


def test_pushing_is_off_again_and_what_was_pushed_stays(pushing: Pushing) -> None:
    pushing.switch()
    assert skopeo_push(pushing, pushing.password).returncode != 0
    must_pull(pushing.installed.site.hosts["b"], f"{pushing.seed}/team/pushed:1", real=pushing.installed.luggage.real)
