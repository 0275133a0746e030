"""Role uninstall against the roles that add: nothing that they write is forgotten, and the order is that of dependence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.site.appliance.plugins.filter import uninstall

ROLES = Path(__file__).resolve().parents[3] / "roles"
ROLE = ROLES / "uninstall"
READERS = {"preflight", "verify", "uninstall"}
PATH = re.compile(r"(?<![\w./}])/(?:etc|usr/local|opt|var/lib|run)/[\w./-]+")
UNIT = re.compile(r"\bappliance-[a-z-]+\.(?:service|timer|socket|path)\b")
# Named by the roles, and written by somebody else.
FOREIGN = ("/etc/resolv.conf", "/etc/default/", "/etc/sysconfig/", "/etc/rancher/k3s/config.yaml.d/")


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _texts() -> dict[str, str]:
    """The files of the roles that act, by path."""
    return {
        str(path.relative_to(ROLES)): path.read_text(encoding="utf-8")
        for folder in ("tasks", "vars", "templates", "files", "defaults", "handlers")
        for path in ROLES.glob(f"*/{folder}/*")
        if path.relative_to(ROLES).parts[0] not in READERS
    }


def _units() -> dict[str, list[str]]:
    units: dict[str, list[str]] = _load(ROLE / "vars/main.yml")["__uninstall_units"]
    return units


def _scope(**other: Any) -> dict[str, Any]:
    """What goes from a node that has everything, where everything is to go."""
    true = dict.fromkeys(("k3s", "data", "managed", "k3s_runs", "k3s_data_there", "store_there"), True)
    defaults = _load(ROLES / "k3s/defaults/main.yml")
    tokens = [defaults["k3s_token_file"], defaults["k3s_agent_token_file"]]
    scope: dict[str, Any] = uninstall.uninstall_scope({**true, "tokens": tokens, "links": [], "restored": [], **other})
    return scope


def test_every_unit_that_a_role_installs_is_taken_away() -> None:
    known = {unit for names in _units().values() for unit in names}
    named = {unit: path for path, text in _texts().items() for unit in UNIT.findall(text)}
    assert len(named) >= 5
    assert {unit: path for unit, path in named.items() if unit not in known} == {}


def test_every_path_that_a_role_names_goes() -> None:
    scope = _scope()
    gone = [path for step in ("k3s", "mirror", "host", "data", "last") for path in scope[step]]
    named = {match: path for path, text in _texts().items() for match in PATH.findall(text)}
    assert len(named) > 25
    left = {
        name: path
        for name, path in named.items()
        if not name.startswith((*FOREIGN, "/etc/systemd/system"))
        and not any(f"{name}/".startswith(f"{top}/") for top in gone)
    }
    assert left == {}


def test_directories_that_may_be_others_too_go_from_the_innermost_out() -> None:
    empty = _scope()["empty"]
    # The kubelet of a real K3s makes the one and those above it; /usr/libexec is Debian's.
    assert "/usr/libexec/kubernetes/kubelet-plugins/volume/exec" in empty and "/usr/libexec" not in empty
    for number, path in enumerate(empty):
        assert not [later for later in empty[number:] if later.startswith(f"{path}/")]
    assert _scope(k3s=False)["empty"] == []


def test_what_kubectl_remembers_goes_with_k3s() -> None:
    """By itself it keeps the API's lists in root's home, and nothing says there whose they are."""

    def tasks(block: Any) -> Iterator[dict[str, Any]]:
        for task in block:
            yield task
            for key in ("block", "rescue", "always"):
                yield from tasks(task.get(key, []))

    asking = [
        task
        for path in ROLES.glob("*/tasks/*.yml")
        for task in tasks(_load(path))
        if re.search(r"kubectl\W+(get|delete)\b", str(task.get("ansible.builtin.command", "")))
    ]
    assert len(asking) == 3
    assert {task["name"] for task in asking if task.get("environment") != {"KUBECACHEDIR": "/run/k3s/kubectl"}} == set()
    assert "/run/k3s" in _scope(data=False)["k3s"]


def test_what_only_these_nodes_hold_is_looked_for_before_the_yes_and_brought_over_after_it() -> None:
    names = [task["name"] for task in _load(ROLE / "tasks/plan.yml")]
    show, look, ask, bring = (
        names.index(f"plan | {what}")
        for what in (
            "Show the plan",
            "Look for what only these nodes hold",
            "Ask whether to go on",
            "Bring over what only these nodes hold",
        )
    )
    assert show < look < ask < bring == len(names) - 1
    tasks = _load(ROLE / "tasks/plan.yml")
    assert [tasks[number]["vars"]["__uninstall_fetch"] for number in (look, bring)] == [False, True]
    assert "not ansible_check_mode" in tasks[bring]["when"]


def test_what_runs_ends_before_its_files_go_and_the_note_goes_last() -> None:
    (block,) = _load(ROLE / "tasks/main.yml")
    steps = [task["ansible.builtin.include_tasks"].removesuffix(".yml") for task in block["block"]]
    assert steps == ["look", "embedded", "k3s", "mirror", "firewall", "data", "host"]
    last = _load(ROLE / "tasks/host.yml")[-1]["site.appliance.removed_paths"]
    assert last["paths"] == "{{ __uninstall_scope.host + __uninstall_scope.last }}"
    k3s = [next(word for word in task if "." in word) for task in _load(ROLE / "tasks/k3s.yml")]
    assert k3s.index("site.appliance.k3s_remains") < k3s.index("site.appliance.removed_paths")
    # In this step too, what says that there is something to bring back goes last.
    scope = uninstall.uninstall_scope(
        {
            **dict.fromkeys(("k3s", "managed"), True),
            **dict.fromkeys(("data", "k3s_runs", "k3s_data_there", "store_there"), False),
            "tokens": ["/t"],
            "links": [],
            "restored": [],
        }
    )
    assert scope["host"][-1] == _load(ROLE / "vars/main.yml")["__uninstall_sysctls"]


def test_role_host_writes_down_what_was_before_it_changes_it() -> None:
    (block,) = _load(ROLES / "host/tasks/main.yml")
    steps = [task.get("ansible.builtin.import_tasks", "") for task in block["block"]]
    assert steps.index("before.yml") < min(steps.index("modules.yml"), steps.index("sysctl.yml"))
    variables = {**_load(ROLES / "host/vars/main.yml"), **_load(ROLE / "vars/main.yml")}
    assert variables["__host_before"] == variables["__uninstall_before"]
    # It sets others, so it has to be set before them.
    assert variables["__host_sysctls_changed"].startswith("{{ ['net.ipv4.ip_forward']")
