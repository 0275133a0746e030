"""registries.yaml, hosts.toml and the traps: the rules of K3s, and the files word for word."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[3] / "collections"))
registries: Any = importlib.import_module("ansible_collections.site.appliance.plugins.filter.registries")
GOLDEN = Path(__file__).parent / "golden"
MIRROR = "http://127.0.0.1:5000/v2"
EMBEDDED = "https://127.0.0.1:6443/v2"


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


def render(**spec: Any) -> dict[str, Any]:
    result: dict[str, Any] = registries.registries_render(spec)
    return result


def codes(**spec: Any) -> list[str]:
    return [line.split(":")[0] for line in render(**spec)["problems"]]


def test_story_named_registry_alone_is_the_users_file() -> None:
    result = render(mirrors={"ksd.test.com": None}, wildcard=False, add_mirror=False)
    assert result["problems"] == []
    assert result["registries_yaml"] == golden("story-named.yaml")
    assert result["wildcard"] is False


def test_story_wildcard_alone_is_the_users_file() -> None:
    result = render(mirrors={}, wildcard=True, add_mirror=False)
    assert result["problems"] == []
    assert result["registries_yaml"] == golden("story-wildcard.yaml")
    assert render(mirrors={"*": None}, add_mirror=False)["registries_yaml"] == golden("story-wildcard.yaml")


@pytest.mark.parametrize("mirrors", [{"ksd.test.com": None, "docker.io": None}, ["ksd.test.com", "docker.io"]])
def test_the_mirror_is_under_the_wildcard_and_under_every_name(mirrors: Any) -> None:
    result = render(mirrors=mirrors)
    assert result["problems"] == []
    assert result["registries_yaml"] == golden("both.yaml")


def test_a_mirror_that_is_written_out_is_not_repeated() -> None:
    spelled = {
        "ksd.test.com": {"endpoint": ["127.0.0.1:5000/v2"]},
        "docker.io": {"endpoint": ["http://127.0.0.1:5000/"]},
    }
    assert render(mirrors=spelled)["registries_yaml"] == golden("both.yaml")


def test_an_explicit_empty_list_leaves_the_embedded_registry_alone() -> None:
    result = render(mirrors={"ksd.test.com": {"endpoint": []}}, wildcard=False, served=["ksd.test.com"])
    assert result["registries_yaml"] == golden("story-named.yaml")
    assert result["expected"]["ksd.test.com"] == [EMBEDDED]


def test_registries_inside_the_site() -> None:
    name = "harbor.site.example:8443"
    result = render(
        mirrors={"quay.io": {"endpoint": [f"https://{name}/v2/quay-proxy"]}},
        internal={
            name: {
                "rewrite": {"^library/(.*)$": "site/$1"},
                "auth": {"username": "puller", "password": "secret"},
                "tls": {"ca_file": "/etc/ssl/site-ca.crt"},
            }
        },
        served=["quay.io", name, "ksd.test.com"],
    )
    assert result["problems"] == []
    assert yaml.safe_load(result["registries_yaml"]) == yaml.safe_load(golden("internal.yaml"))
    assert result["node_files"] == ["/etc/ssl/site-ca.crt"]
    assert list(result["hosts"]) == ["ksd.test.com/hosts.toml"]
    assert result["left_out"] == [name, "quay.io"]
    assert result["expected"][name] == [EMBEDDED, f"https://{name}/v2"]


def test_mirror_first_word_for_word() -> None:
    result = render(served=["ksd.test.com", "reg.local:5000"], seeds=["10.77.0.11:5443"])
    assert result["dropin"] == golden("20-appliance.toml")
    assert result["hosts"] == {
        f"{name}/hosts.toml": golden("hosts.toml") for name in ("ksd.test.com", "reg.local:5000", "10.77.0.11:5443")
    }
    assert result["expected"]["ksd.test.com"] == [MIRROR, EMBEDDED]
    assert result["expected"]["*"] == [EMBEDDED, MIRROR]


def test_mirror_first_without_embedded_registry_asks_the_mirror_alone() -> None:
    result = render(served=["ksd.test.com"], embedded=False)
    assert "6443" not in result["hosts"]["ksd.test.com/hosts.toml"]
    assert result["expected"] == {"*": [MIRROR], "ksd.test.com": [MIRROR]}


def test_embedded_first_leaves_nothing_of_ours() -> None:
    result = render(served=["ksd.test.com"], seeds=["10.77.0.11:5443"], order="embedded_first")
    assert result["hosts"] == {} and result["dropin"] == ""
    assert result["expected"]["ksd.test.com"] == [EMBEDDED, MIRROR]


def test_a_name_that_nothing_covers_is_not_expected() -> None:
    result = render(mirrors=["a.example"], wildcard=False, served=["b.example"], order="embedded_first")
    assert list(result["expected"]) == ["a.example"]


def test_served_names_that_cannot_be_directories_are_skipped() -> None:
    assert render(served=["../etc", "localhost:5000", "ok.example"])["hosts"].keys() == {"ok.example/hosts.toml"}


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"mirrors": {"a.example": {"endpoints": []}}}, "APL-0801", "endpoints"),
        ({"mirrors": "a.example"}, "APL-0801", "registries_mirrors"),
        ({"mirrors": {"a.example": "http://127.0.0.1:5000"}}, "APL-0801", "registries_mirrors.a.example"),
        ({"mirrors": {"*": None}, "wildcard": False}, "APL-0801", "registries_wildcard"),
        ({"mirrors": ["a.example"], "internal": {"a.example": None}}, "APL-0801", "Keep one"),
        ({"internal": {"a.example": {"auth": {"token": "x"}}}}, "APL-0801", "no such key"),
        ({"internal": {"a.example": {"tls": {"ca": "/x"}}}}, "APL-0801", "ca_file"),
        ({"mirrors": ["https://a.example"]}, "APL-0802", "without scheme"),
        ({"mirrors": ["a.example/sub"]}, "APL-0802", "a.example/sub"),
        ({"mirrors": ["nginx"]}, "APL-0802", "docker.io/nginx/image"),
        ({"mirrors": ["registry-1.docker.io"]}, "APL-0802", "Write docker.io"),
        ({"mirrors": ["localhost:5000"]}, "APL-0803", "localhost:5000"),
        ({"mirrors": ["127.0.0.1:5000"]}, "APL-0803", "127.0.0.1:5000"),
        ({"mirrors": ["[::1]:5000"]}, "APL-0803", "::1"),
        ({"mirrors": {"a.example": {"endpoint": "http://127.0.0.1:5000"}}}, "APL-0804", "not a list"),
        ({"mirrors": {"a.example": {"endpoint": ["ftp://127.0.0.1"]}}}, "APL-0804", "ftp"),
        ({"mirrors": {"a.example": {"endpoint": ["http://127.0.0.1:5000/proxy"]}}}, "APL-0804", "/v2"),
        ({"mirrors": {"a.example": {"endpoint": ["http://u:p@127.0.0.1:5000"]}}}, "APL-0804", "auth"),
        ({"mirrors": {"a.example": {"endpoint": ["http://127.0.0.1:5000?x=1"]}}}, "APL-0804", "query"),
        (
            {"internal": {"a.example": {"endpoint": ["http://a.example"], "tls": {"insecure_skip_verify": True}}}},
            "APL-0805",
            "plain http",
        ),
        ({"mirrors": {"a.example": {"endpoint": ["https://b.example"]}}}, "APL-0806", "registries_internal"),
        ({"internal": {"docker.io": None}}, "APL-0806", "not inside the site"),
        ({"internal": {"*": None}}, "APL-0806", "endpoint"),
        ({"configs": {"*": {"tls": {"insecure_skip_verify": True}}}}, "APL-0807", "exact host"),
        ({"mirrors": ["a.example"], "configs": {"a.example": {"auth": {"auth": "x"}}}}, "APL-0807", "default endpoint"),
        (
            {
                "mirrors": ["a.example"],
                "internal": {"b.example": {"endpoint": ["https://a.example"]}},
                "configs": {"a.example": {"auth": {"auth": "x"}}},
            },
            "APL-0807",
            "not among its own endpoints",
        ),
        (
            {"internal": {"a.example": {"rewrite": {"^lib/(.*)": "x/$1", "^(.*)": "y/$1"}}}},
            "APL-0808",
            "random order",
        ),
        ({"mirrors": {"a.example": {"rewrite": {"(": "x"}}}}, "APL-0808", "not valid"),
        ({"configs": {"docker.io": {"auth": {"auth": "x"}}}}, "APL-0809", "registry-1.docker.io"),
        ({"wildcard": False}, "APL-0810", "no registry is listed"),
        ({"add_mirror": False, "embedded": False}, "APL-0810", "goes out"),
        ({"internal": {"a.example": {"auth": {"username": "x"}}}}, "APL-0811", "password"),
        ({"internal": {"a.example": {"tls": {"ca_file": "ca.crt"}}}}, "APL-0811", "absolute"),
        ({"internal": {"a.example": {"tls": {"cert_file": "/c"}}}}, "APL-0811", "key_file"),
    ],
)
def test_a_trap_is_named(spec: dict[str, Any], code: str, words: str) -> None:
    problems = render(**spec)["problems"]
    assert [line for line in problems if line.startswith(code) and words in line], problems


def test_everything_wrong_is_said_at_once() -> None:
    found = codes(mirrors=["localhost:5000", "nginx"], configs={"*": {}, "docker.io": {}})
    assert found == ["APL-0803", "APL-0802", "APL-0807", "APL-0809"]


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ("^library/(.*)", "^team/(.*)", False),
        ("^team/(.*)", "^team-a/(.*)", False),
        ("^team(.*)", "^team-a/(.*)", True),
        ("library/(.*)", "^team/(.*)", True),
        ("^a|b/(.*)", "^team/(.*)", True),
        ("^tea?m/(.*)", "^te/(.*)", True),
        (r"^my\.team/(.*)", r"^my\.site/(.*)", False),
    ],
)
def test_overlapping_rewrites(first: str, second: str, overlap: bool) -> None:
    found = codes(mirrors={"a.example": {"rewrite": {first: "x", second: "y"}}})
    assert ("APL-0808" in found) is overlap


@pytest.mark.parametrize(
    ("pattern", "replacement", "words"),
    [
        (r"^(?!library/)(.*)$", "hub/$1", "RE2 has no lookahead"),
        (r"^(a)\1$", "h/$1", "RE2 has no backreferences"),
        ("cp/x", "y/$1", "stands for group 1, and the pattern has no group"),
        ("^(a)b", "y/$2", "stands for group 2, and the pattern has 1 group:"),
        ("^(.*)$", r"hub/\1", "Write ${1} for group 1"),
        ("^(.*)$", r"hub/\g<1>", "Write ${1} for group 1"),
        ("^cp/(.*)", "n/$1_x", "Write ${1}_x"),
        ("^cp/(.*)", "n/$1x", "Write ${1}x"),
        ("^cp/(?P<rest>.*)", "n/$res", "a group named res"),
        ("^cp/(.*)", "n/$", "K3s takes $ as it stands"),
        ("^cp/(.*)", "n/${1", "K3s takes $ as it stands"),
        ("^cp/(.*)", "n/&", "K3s takes & as it stands"),
    ],
)
def test_a_rewrite_that_k3s_reads_in_another_way_is_named(pattern: str, replacement: str, words: str) -> None:
    (line,) = render(
        internal={"docker.io": {"endpoint": ["https://reg.site.example"], "rewrite": {pattern: replacement}}}
    )["problems"]
    assert line.startswith("APL-0808: ") and words in line and "[registries_internal.docker.io]" in line


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        ("^library/(.*)$", "site/$1"),
        ("^library/(.*)$", "${1}_x/$0"),
        (r"^(?<org>\pL+)/(?P<rest>.*)\z", "hub/${org}-x/$rest"),
        (r"^\Qa.b/\E(?i)([[:alpha:]]+)", "Hub/$1"),
        ("^a/.*$", "b/c"),
    ],
)
def test_a_rewrite_that_k3s_takes_is_taken(pattern: str, replacement: str) -> None:
    assert codes(internal={"a.example": {"rewrite": {pattern: replacement}}}) == []


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("reg.example", "https://reg.example/v2"),
        ("http://reg.example/", "http://reg.example/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("localhost:443", "https://localhost:443/v2"),
        ("localhost", "https://localhost/v2"),
        ("https://reg.example/v2/proxy", "https://reg.example/v2/proxy"),
    ],
)
def test_endpoints_as_k3s_writes_them(endpoint: str, url: str) -> None:
    assert registries.normalise_endpoint(endpoint) == url


def test_addresses() -> None:
    assert registries.host_address({"node_ip": "10.0.0.1", "ansible_host": "x"}) == "10.0.0.1"
    assert registries.host_address({"ansible_host": "10.0.0.2"}) == "10.0.0.2"
    assert registries.seed_registry("fd00::1") == "[fd00::1]:5443"
