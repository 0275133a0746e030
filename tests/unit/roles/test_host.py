"""Role host: what its files say, and what its script does with routes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles/host"


def _render(name: str, **variables: Any) -> str:
    loader = jinja2.FileSystemLoader(ROLE / "templates")
    environment = jinja2.Environment(
        loader=loader, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name).render(**variables)


def _settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_sysctls() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    text = _render("sysctl.conf.j2", host_sysctls=defaults["host_sysctls"])
    assert _settings(text) == ["net.ipv4.ip_forward = 1", "net.bridge.bridge-nf-call-iptables = 1"]
    assert text.endswith("\n")


def test_what_the_kernel_changes_with_forwarding_is_given_back_after_it() -> None:
    """The kernel sets accept_redirects whenever forwarding changes, so its value has to be loaded last."""
    names = re.findall(r"'(net\.[^']+)'", (ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    ipv4 = [name for name in names if name.startswith("net.ipv4.") and "forward" in name]
    assert all(names.index(name) < names.index("net.ipv4.conf.all.accept_redirects") for name in ipv4)


def test_resolv_conf_always_names_a_server_and_never_a_public_one() -> None:
    text = _render("k3s-resolv.conf.j2", __host_nameservers=["192.0.2.11"], host_search_domains=[])
    assert _settings(text) == ["nameserver 192.0.2.11"]
    text = _render(
        "k3s-resolv.conf.j2",
        __host_nameservers=["192.0.2.53", "192.0.2.54"],
        host_search_domains=["a.example", "b.example"],
    )
    assert _settings(text) == ["nameserver 192.0.2.53", "nameserver 192.0.2.54", "search a.example b.example"]


def test_the_default_route_is_there_before_k3s_starts() -> None:
    unit = _render("appliance-default-route.service.j2", host_default_route_metric=65000)
    assert "Before=k3s.service k3s-agent.service\n" in unit
    assert "ExecStart=/usr/local/lib/appliance/default-route start 65000\n" in unit
    assert "WantedBy=multi-user.target\n" in unit


IP = """#!/bin/sh
# Stands for ip: state is files in $STATE, every change is a line of $STATE/log.
case "$*" in
    "-4 route show default") cat "$STATE/routes" ;;
    "link show dev appliance0") test -e "$STATE/link" ;;
    "link add appliance0 type dummy") test ! -e "$STATE/no-dummy" && touch "$STATE/link" && echo "$*" >> "$STATE/log" ;;
    "link add appliance0 type bridge") touch "$STATE/link" && echo "$*" >> "$STATE/log" ;;
    *) echo "$*" >> "$STATE/log" ;;
esac
"""

ADDED = [
    "link set appliance0 up",
    "-4 address replace 203.0.113.254/31 dev appliance0",
    "-4 route replace default via 203.0.113.255 dev appliance0 metric 65000",
]


class Kernel:
    """A host's routes, as far as the script asks for them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "bin").mkdir()
        (path / "bin/ip").write_text(IP, encoding="utf-8")
        (path / "bin/ip").chmod(0o755)
        (path / "routes").write_text("", encoding="utf-8")

    def script(self, *arguments: str) -> tuple[int, list[str]]:
        """Run the script; returns its exit code and the changes that it made."""
        (self.path / "log").write_text("", encoding="utf-8")
        environment = {**os.environ, "PATH": f"{self.path}/bin:{os.environ['PATH']}", "STATE": str(self.path)}
        argv = ["sh", str(ROLE / "files/default-route"), *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, (self.path / "log").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_a_real_default_route_is_left_alone(kernel: Kernel) -> None:
    (kernel.path / "routes").write_text("default via 192.0.2.1 dev eth0 proto dhcp metric 100\n", encoding="utf-8")
    assert kernel.script("start", "65000") == (0, [])


def test_none_is_added_to(kernel: Kernel) -> None:
    assert kernel.script("start", "65000") == (0, ["link add appliance0 type dummy", *ADDED])


def test_a_kernel_without_dummy_gets_an_empty_bridge(kernel: Kernel) -> None:
    (kernel.path / "no-dummy").touch()
    assert kernel.script("start", "65000") == (0, ["link add appliance0 type bridge", *ADDED])


def test_our_own_route_is_not_taken_for_a_real_one(kernel: Kernel) -> None:
    (kernel.path / "routes").write_text(
        "default via 203.0.113.255 dev appliance0 metric 65000 linkdown\n", encoding="utf-8"
    )
    (kernel.path / "link").touch()
    assert kernel.script("start", "65000") == (0, ADDED)


def test_stop_takes_our_interface_away_and_nothing_else(kernel: Kernel) -> None:
    assert kernel.script("stop") == (0, [])
    (kernel.path / "link").touch()
    assert kernel.script("stop") == (0, ["link delete appliance0"])


def test_wrong_usage(kernel: Kernel) -> None:
    assert kernel.script("begin") == (2, [])
