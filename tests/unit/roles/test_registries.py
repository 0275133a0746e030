"""Role registries: what it writes is what the filters and modules take for the appliance's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.site.appliance.plugins.filter import registries

ROLE = Path(__file__).resolve().parents[3] / "roles/registries"


def load(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def test_the_marks_are_the_filters() -> None:
    values = load("vars/main.yml")
    rendered = registries.registries_render({"served": ["ksd.test.com"]})
    assert rendered["hosts"]["ksd.test.com/hosts.toml"].split("\n")[0] == values["__registries_marker"]
    assert rendered["dropin"].split("\n")[0] == values["__registries_dropin_marker"]


def test_the_paths_are_the_filters() -> None:
    values = load("vars/main.yml")
    assert values["__registries_certs"] == registries.CERTS_DIR
    assert values["__registries_dropins"] == f"{registries.AGENT_DIR}/etc/containerd/config-v3.toml.d"


def test_every_input_reaches_the_filter() -> None:
    spec = load("vars/main.yml")["__registries_spec"]
    inputs = set(load("defaults/main.yml")) - {"registries_no_log", "registries_seed_group"}
    text = " ".join(spec.values())
    assert not [name for name in inputs if name not in text]


def test_credentials_are_written_0600_and_not_shown() -> None:
    (task,) = [item for item in load("tasks/configure.yml") if "registries.yaml" in item["name"]]
    (file,) = task["site.appliance.text_files"]["files"]
    assert file["mode"] == "0600"
    assert task["no_log"] == "{{ __registries_secret }}" and task["diff"] == "{{ not __registries_secret }}"


def test_the_plan_and_the_expectation_change_nothing() -> None:
    for name in ("tasks/plan.yml", "tasks/expected.yml", "tasks/validate.yml"):
        for task in load(name):
            if "site.appliance.marked_files" in task:
                assert task["check_mode"] is True and task["changed_when"] is False
            elif "ansible.builtin.command" in task:
                assert task["changed_when"] is False
            else:
                reads = {"stat", "assert", "set_fact", "import_tasks"}
                assert any(f"ansible.builtin.{module}" in task for module in reads), task["name"]
