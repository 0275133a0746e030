"""Module text_files: several small files in one call, as copy and file would have done them."""

from __future__ import annotations

import importlib
import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.modules import text_files

patch_module_args: Any = importlib.import_module("ansible.module_utils.testing").patch_module_args
ME = pwd.getpwuid(os.geteuid()).pw_name
MINE = {"owner": ME, "group": str(os.getegid())}


def run(capsys: pytest.CaptureFixture[str], *, check: bool = False, fails: bool = False, **args: Any) -> dict[str, Any]:
    given = {**args, "_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(given), pytest.raises(SystemExit) as ended:
        text_files.main()
    assert bool(ended.value.code) is fails
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def wanted(root: Path, text: str = "one\n") -> dict[str, Any]:
    return {
        "directories": [{"path": str(root / "etc"), "mode": "0750", **MINE}],
        "files": [
            {"path": str(root / "etc/unit"), "content": text, **MINE},
            {"path": str(root / "etc/secret"), "content": "s\u00e9cret", "mode": "0600", **MINE},
        ],
    }


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_what_is_not_there_is_made_and_a_second_run_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit, secret = tmp_path / "etc/unit", tmp_path / "etc/secret"
    seen = run(capsys, check=True, **wanted(tmp_path))
    assert seen["changed"] and seen["present"] == [] and not (tmp_path / "etc").exists()
    assert seen["diff"][0] == {"before_header": str(unit), "after_header": str(unit), "before": "", "after": "one\n"}
    first = run(capsys, **wanted(tmp_path))
    assert first["changed"] and first["written"] == first["present"] == [str(unit), str(secret)]
    assert (mode(tmp_path / "etc"), mode(unit), mode(secret)) == (0o750, 0o644, 0o600)
    assert secret.read_bytes() == "s\u00e9cret".encode()
    again = run(capsys, **wanted(tmp_path))
    assert not again["changed"] and again["written"] == [] and again["diff"] == []
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == ["secret", "unit"], (
        "nothing is left beside them"
    )


def test_another_text_is_written_and_another_mode_is_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, **wanted(tmp_path))
    (tmp_path / "etc/secret").chmod(0o644)
    seen = run(capsys, check=True, **wanted(tmp_path, "two\n"))
    assert seen["changed"] and seen["written"] == [str(tmp_path / "etc/unit")] and len(seen["present"]) == 2
    assert mode(tmp_path / "etc/secret") == 0o644 and (tmp_path / "etc/unit").read_text() == "one\n"
    seen = run(capsys, **wanted(tmp_path, "two\n"))
    assert seen["changed"] and seen["diff"][0]["before"] == "one\n"
    assert mode(tmp_path / "etc/secret") == 0o600 and (tmp_path / "etc/unit").read_text() == "two\n"


def test_a_file_whose_being_there_counts_keeps_its_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mark").write_text("theirs")
    (tmp_path / "mark").chmod(0o644)
    mark = {"path": str(tmp_path / "mark"), "content": "ours", "replace": False, **MINE}
    assert not run(capsys, files=[mark])["changed"]
    assert (tmp_path / "mark").read_text() == "theirs"
    assert run(capsys, files=[{**mark, "path": str(tmp_path / "new")}])["changed"]
    assert (tmp_path / "new").read_text() == "ours"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "unit").symlink_to(tmp_path / "theirs")
    run(capsys, files=[{"path": str(tmp_path / "unit"), "content": "ours", **MINE}])
    assert (tmp_path / "theirs").read_text() == "theirs" and not (tmp_path / "unit").is_symlink()


def test_files_go_after_the_others_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").write_text("old")
    seen = run(capsys, check=True, absent=[str(tmp_path / "old"), str(tmp_path / "never")])
    assert seen["changed"] and (tmp_path / "old").exists()
    assert run(capsys, absent=[str(tmp_path / "old")])["changed"] and not (tmp_path / "old").exists()
    assert not run(capsys, absent=[str(tmp_path / "old")])["changed"]


@pytest.mark.parametrize("path", ["no/such/directory/file", "directory"])
def test_what_cannot_be_written_is_one_error_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    (tmp_path / "directory").mkdir()
    seen = run(capsys, fails=True, files=[{"path": str(tmp_path / path), "content": "x", **MINE}])
    assert seen["msg"].startswith(f"{tmp_path / path}: ")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["directory"]
