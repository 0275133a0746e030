"""Module removed_paths: what goes, what is mounted or kept and stays."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.modules import removed_paths

patch_module_args: Any = importlib.import_module("ansible.module_utils.testing").patch_module_args


def run(capsys: pytest.CaptureFixture[str], *, check: bool = False, fails: bool = False, **args: Any) -> dict[str, Any]:
    with patch_module_args({**args, "_ansible_check_mode": check}), pytest.raises(SystemExit) as ended:
        removed_paths.main()
    assert bool(ended.value.code) is fails
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a file, a directory, a link that leads out of it, and one that leads nowhere."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("mine")
    top = tmp_path / "tree"
    (top / "below/deeper").mkdir(parents=True)
    (top / "below/deeper/file").write_text("x" * 5000)
    (top / "below/out").symlink_to(tmp_path / "outside")
    (top / "lost+found").mkdir()
    return top


def test_a_tree_goes_whole_and_what_its_links_lead_to_stays(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = run(capsys, check=True, paths=[str(tree)], measure=True)
    assert seen["removed"] == [str(tree)] and seen["changed"] and seen["bytes"][str(tree)] >= 5000
    assert (tree / "below/deeper/file").exists()
    assert run(capsys, paths=[str(tree)])["changed"]
    assert not tree.exists() and (tree.parent / "outside/file").exists()
    again = run(capsys, paths=[str(tree)], measure=True)
    assert (again["changed"], again["removed"], again["bytes"]) == (False, [], {})


def test_links_and_patterns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k3s-0a1").touch()
    (tmp_path / "k3s-killall.sh").touch()
    (tmp_path / "kubectl").symlink_to("k3s")
    done = run(capsys, paths=[f"{tmp_path}/k3s-[0-9a-f][0-9a-f][0-9a-f]", f"{tmp_path}/kubectl", f"{tmp_path}/absent"])
    assert done["removed"] == [f"{tmp_path}/k3s-0a1", f"{tmp_path}/kubectl"]
    assert [path.name for path in tmp_path.iterdir()] == ["k3s-killall.sh"]


def test_what_is_kept_stays_with_the_way_to_it(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = [str(tree / "below/deeper"), str(tree / "absent")]
    assert run(capsys, paths=[str(tree)], keep=keep)["changed"]
    assert sorted(path.name for path in tree.rglob("*")) == ["below", "deeper", "file"]
    assert not run(capsys, paths=[str(tree)], keep=keep)["changed"]
    # Kept in vain: the tree goes whole.
    assert run(capsys, paths=[str(tree)], keep=[str(tree / "absent")])["removed"] == [str(tree)]
    assert not tree.exists()


def test_what_is_mounted_in_it_stays(tree: Path) -> None:
    mounted = tree / "below/deeper"
    gone, left = removed_paths.victims(tree, {Path("/"), mounted}, set())
    assert (gone, left) == ([tree / "below/out", tree / "lost+found"], [mounted])


def test_a_mount_point_is_emptied_and_keeps_its_lost_and_found(tree: Path) -> None:
    assert removed_paths.victims(tree, {tree}, set()) == ([tree / "below"], [])


def test_a_tree_that_the_host_keeps_elsewhere_is_emptied_there(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tree.parent / "link"
    link.symlink_to(tree)
    assert run(capsys, paths=[str(link)])["removed"] == [str(link)]
    assert link.is_symlink() and [path.name for path in tree.iterdir()] == ["lost+found"]
    assert not run(capsys, paths=[str(link)])["changed"]


def test_directories_go_where_nothing_is_in_them(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree.parent / "a/b").mkdir(parents=True)
    done = run(capsys, paths=[], empty=[str(tree), f"{tree.parent}/a/b", f"{tree.parent}/a"])
    assert done["removed"] == [f"{tree.parent}/a/b", f"{tree.parent}/a"] and tree.exists()


@pytest.mark.parametrize("path", ["/", "/etc", "etc/appliance", "/etc/../home/x", ""])
def test_no_path_that_is_too_wide_by_mistake(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not an absolute path below" in run(capsys, fails=True, paths=[path])["msg"]


def test_what_cannot_be_removed_is_named(tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(removed_paths, "remove", refuse)
    failed = run(capsys, fails=True, paths=[str(tree)])
    assert failed["msg"] == f"APL-0852: {tree} cannot be removed: Operation not permitted"
