"""Output that an operator reads: each error once, and one sentence at the end, as ansible-playbook prints them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
OFF = {
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-o ConnectTimeout=1 -o ControlMaster=no -o ControlPath=none",
}
STATED = {
    "site.appliance.outcome": {
        "stopped": "Nothing was changed on any host.",
        "ends": "Every node serves generation 4. Next: take the medium out",
        "checked": "The plan above says what would change.",
    }
}


def run(
    root: Path, tasks: list[dict[str, Any]], *arguments: str, hosts: dict[str, Any] | None = None, **more: str
) -> str:
    play = {"name": "The step", "hosts": "all", "gather_facts": False, "any_errors_fatal": True, "tasks": tasks}
    (root / "play.yml").write_text(yaml.safe_dump([play]))
    (root / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts or {"a": LOCAL, "b": LOCAL}}}))
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            "-i",
            str(root / "hosts.yml"),
            str(root / "play.yml"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "TMPDIR": str(root),
            **more,
        },
    )
    return done.stdout + done.stderr


def test_an_error_of_all_hosts_is_shown_once_with_its_page_and_without_the_playbook(tmp_path: Path) -> None:
    error = "APL-0102: the archive is cut off [nginx.tar]: it has 7 of 14 bytes. Copy it to the medium again"
    said = run(tmp_path, [STATED, {"name": "Read", "ansible.builtin.fail": {"msg": error}}])
    assert said.count(error) == 1
    assert f"a, b: {error}\n  Page: docs/runbooks/APL-0102.md\n" in said
    for word in ("[ERROR]", "fatal:", "Origin:", "^ column"):
        assert word not in said
    assert said.rstrip().endswith(
        "Stopped at 'The step' on a, b. Nothing was changed on any host. Mend what is listed above, then run it again."
    )


def test_with_v_everything_is_shown_as_ansible_shows_it(tmp_path: Path) -> None:
    said = run(tmp_path, [{"name": "Read", "ansible.builtin.fail": {"msg": "APL-0102: cut off"}}], "-v")
    assert "fatal: [a]: FAILED!" in said and "[ERROR]" in said


def test_another_callback_has_the_information_too(tmp_path: Path) -> None:
    said = run(tmp_path, [STATED], ANSIBLE_STDOUT_CALLBACK="default")
    assert "Every node serves generation 4. Next: take the medium out" in said


def test_a_module_that_fails_is_shown_with_what_it_wrote(tmp_path: Path) -> None:
    command = {"name": "Try it", "ansible.builtin.command": {"argv": ["sh", "-c", "echo no such stick >&2; exit 5"]}}
    said = run(tmp_path, [command])
    assert "\na, b: Try it: non-zero return code" in said and "\n  no such stick\n  Add -v to see all of it (" in said


def test_items_that_fail_are_named(tmp_path: Path) -> None:
    loop = {"name": "Try", "ansible.builtin.fail": {"msg": "no room for {{ item }}"}, "loop": ["x", "y"]}
    said = run(tmp_path, [loop], hosts={"a": LOCAL})
    assert "\na: x: no room for x\n" in said and "\na: y: no room for y\n" in said


def test_a_host_that_is_lost_is_an_error_of_ours(tmp_path: Path) -> None:
    said = run(tmp_path, [STATED, {"name": "Look", "ansible.builtin.ping": None}], hosts={"a": LOCAL, "b": OFF})
    assert said.count("APL-0779: b cannot be reached [Look]: ") == 1
    assert "UNREACHABLE" not in said and "unreachable=1" in said
    assert "Stopped at 'The step' on b. Nothing was changed on any host." in said


def test_what_one_host_says_for_all_is_not_about_that_host(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        [STATED, {"name": "Judge", "run_once": True, "ansible.builtin.fail": {"msg": "1 problem found\n  b: x"}}],
    )
    assert "\n1 problem found\n    b: x\n" in said
    assert "Stopped at 'The step'. Nothing was changed on any host." in said


def test_what_later_tasks_judge_is_one_short_line(tmp_path: Path) -> None:
    look = {"name": "Look", "ansible.builtin.ping": None, "ignore_unreachable": True}
    fail = {"name": "Try", "ansible.builtin.fail": {"msg": "no"}, "ignore_errors": True}
    said = run(tmp_path, [{**look, "any_errors_fatal": False}, fail], hosts={"a": LOCAL, "b": OFF})
    assert "b: cannot be reached; the run goes on, and a later task judges that\n" in said
    assert "a: failed; the run goes on, and a later task judges that\n" in said
    assert "UNREACHABLE" not in said and "fatal:" not in said


def test_what_is_hidden_stays_hidden(tmp_path: Path) -> None:
    secret = {
        "name": "Read",
        "no_log": True,
        "ansible.builtin.command": {"argv": ["sh", "-c", "echo s3cret >&2; exit 1"]},
    }
    assert "s3cret" not in run(tmp_path, [secret])


def test_a_run_that_ends_well_ends_with_one_sentence(tmp_path: Path) -> None:
    change = {"name": "Change", "ansible.builtin.command": {"argv": ["true"]}}
    said = run(tmp_path, [STATED, change])
    assert said.rstrip().endswith("Changed: a, b. Every node serves generation 4. Next: take the medium out")
    checked = run(tmp_path, [STATED, change], "--check")
    assert checked.rstrip().endswith("Check mode: nothing was changed. The plan above says what would change.")


def test_a_message_of_several_lines_is_text(tmp_path: Path) -> None:
    said = run(
        tmp_path, [{"name": "Show", "ansible.builtin.debug": {"msg": "Images: one\n  add x"}}], hosts={"a": LOCAL}
    )
    assert "a:\n  Images: one\n    add x\n" in said
