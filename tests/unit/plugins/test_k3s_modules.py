"""The modules that role registries and role k3s act with: what they write, leave alone and refuse."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "collections"))
patch_module_args: Any = importlib.import_module("ansible.module_utils.testing").patch_module_args
MARK = "# ours"


def run(
    name: str, capsys: pytest.CaptureFixture[str], *, check: bool = False, fails: bool = False, **args: Any
) -> dict[str, Any]:
    module: Any = importlib.import_module(f"ansible_collections.site.appliance.plugins.modules.{name}")
    with patch_module_args({**args, "_ansible_check_mode": check}), pytest.raises(SystemExit) as ended:
        module.main()
    assert bool(ended.value.code) is fails
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


# ------------------------------------------------------------------------------ marked_files


def marked(root: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], **more: Any) -> dict[str, Any]:
    given = {"path": str(root), "marker": MARK, "pattern": "*/hosts.toml", **more}
    return run("marked_files", capsys, files=files, **given)


def test_files_come_and_go_and_others_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "certs.d"
    (root / "theirs").mkdir(parents=True)
    (root / "theirs/hosts.toml").write_text("# theirs\n")
    wanted = {"a.example/hosts.toml": f"{MARK}\n1\n", "reg.local:5000/hosts.toml": f"{MARK}\n2\n"}

    first = marked(root, capsys, wanted, check=True)
    assert first["changed"] and len(first["diff"]) == 2 and not (root / "a.example").exists()
    assert marked(root, capsys, wanted)["changed"]
    assert not marked(root, capsys, wanted)["changed"]
    assert (root / "reg.local:5000/hosts.toml").read_text() == f"{MARK}\n2\n"
    assert (root / "a.example/hosts.toml").stat().st_mode & 0o777 == 0o644

    last = marked(root, capsys, {"a.example/hosts.toml": f"{MARK}\n3\n"})
    assert last["written"] == ["a.example/hosts.toml"] and last["removed"] == ["reg.local:5000/hosts.toml"]
    assert sorted(path.name for path in root.iterdir()) == ["a.example", "theirs"]


def test_a_foreign_file_is_named_and_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.example").mkdir()
    (tmp_path / "a.example/hosts.toml").write_text("# theirs\n")
    result = marked(tmp_path, capsys, {"a.example/hosts.toml": f"{MARK}\n"})
    assert not result["changed"] and result["foreign"] == ["a.example/hosts.toml"]
    assert (tmp_path / "a.example/hosts.toml").read_text() == "# theirs\n"


def test_stale_files_stay_where_the_names_are_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marked(tmp_path, capsys, {"a.example/hosts.toml": f"{MARK}\n"})
    assert not marked(tmp_path, capsys, {}, remove_stale=False)["changed"]
    assert (tmp_path / "a.example/hosts.toml").exists()


def test_a_directory_with_more_in_it_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marked(tmp_path, capsys, {"a.example/hosts.toml": f"{MARK}\n"})
    (tmp_path / "a.example/ca.crt").write_text("x")
    marked(tmp_path, capsys, {})
    assert [path.name for path in (tmp_path / "a.example").iterdir()] == ["ca.crt"]


def test_files_directly_in_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "dropins"
    assert marked(root, capsys, {"20-a.toml": f"{MARK}\n"}, pattern="*.toml")["changed"]
    (root / "10-theirs.toml").write_text("x = 1\n")
    assert marked(root, capsys, {}, pattern="*.toml")["removed"] == ["20-a.toml"]
    assert [path.name for path in root.iterdir()] == ["10-theirs.toml"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b/c", ".hidden/x"])
def test_no_file_outside_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert name in marked(tmp_path / "d", capsys, {name: f"{MARK}\n"}, fails=True)["msg"]
    assert not list(tmp_path.iterdir())


def test_content_without_the_mark_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "marker" in marked(tmp_path, capsys, {"a/x": "no mark\n"}, fails=True)["msg"]


# ----------------------------------------------------------------------------- cluster_token


def test_the_token_is_made_once_and_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rancher/cluster-token"
    args: dict[str, Any] = {"path": str(path), "k3s_token": str(tmp_path / "none")}
    assert run("cluster_token", capsys, check=True, **args)["changed"] and not path.exists()
    made = run("cluster_token", capsys, **args)
    token = path.read_text().strip()
    assert made["changed"] and made["origin"] == "made" and token not in json.dumps(made)
    assert len(token) == 64 and path.stat().st_mode & 0o777 == 0o600
    assert not run("cluster_token", capsys, **args)["changed"] and path.read_text().strip() == token


@pytest.mark.parametrize("text", ["K10abc::server:secret\n", "secret\n"])
def test_a_lost_token_file_is_made_from_k3s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    own = tmp_path / "token"
    own.write_text(text)
    result = run("cluster_token", capsys, path=str(tmp_path / "cluster-token"), k3s_token=str(own))
    assert result["origin"] == "k3s" and (tmp_path / "cluster-token").read_text() == "secret\n"


def test_the_agents_token_is_one_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """K3s writes the servers' password for agents too, as long as they have none; one of their own is kept."""
    servers, known, path = tmp_path / "cluster-token", tmp_path / "known", tmp_path / "agent-token"
    servers.write_text("secret\n")
    known.write_text("K10abc::node:secret\n")
    args: dict[str, Any] = {"path": str(path), "k3s_token": str(known), "unlike": str(servers)}
    assert run("cluster_token", capsys, **args)["origin"] == "made"
    assert len(path.read_text().strip()) == 64
    path.unlink()
    known.write_text("K10abc::node:agents\n")
    assert run("cluster_token", capsys, **args)["origin"] == "k3s"
    assert path.read_text() == "agents\n"


@pytest.mark.parametrize("text", ["secret\n", "K10abc::node:secret\n"])
def test_agents_with_the_servers_token_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    servers, path = tmp_path / "cluster-token", tmp_path / "agent-token"
    servers.write_text("K10abc::server:secret\n")
    path.write_text(text)
    args: dict[str, Any] = {"path": str(path), "k3s_token": "/nonexistent", "unlike": str(servers)}
    said = run("cluster_token", capsys, fails=True, **args)["msg"]
    assert "APL-0881" in said and str(path) in said and "secret" not in said


def test_an_open_token_file_is_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cluster-token"
    path.write_text("secret\n")
    path.chmod(0o644)
    assert run("cluster_token", capsys, path=str(path), k3s_token="/nonexistent")["changed"]
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == "secret\n"


# ------------------------------------------------------------------------ k3s_artifacts_info


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def brought(tmp_path: Path, binary: bytes = b"#!/bin/sh\n", images: dict[str, bytes] | None = None) -> dict[str, Any]:
    (tmp_path / "k3s").write_bytes(binary)
    lines = [f"{sha(binary)}  k3s\n"]
    for name, data in (images or {}).items():
        (tmp_path / name).write_bytes(data)
        lines.append(f"{sha(data)}  {name}\n")
    (tmp_path / "sha256sum-amd64.txt").write_text("".join(lines))
    return {
        "binary": str(tmp_path / "k3s"),
        "checksums": [str(tmp_path / "sha256sum-amd64.txt")],
        "images": [str(tmp_path / name) for name in images or {}],
        "architecture": "x86_64",
    }


def elf(machine: int) -> bytes:
    return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + bytes(8)


def problems(tmp_path: Path, capsys: pytest.CaptureFixture[str], **args: Any) -> list[str]:
    return list(run("k3s_artifacts_info", capsys, **args)["problems"])


def test_what_was_brought_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = brought(tmp_path, elf(62), {"k3s-airgap-images-amd64.tar.zst": b"\x28\xb5\x2f\xfd\x04\x78" + bytes(20)})
    result = run("k3s_artifacts_info", capsys, **args)
    assert result["problems"] == [] and result["binary_sha256"] == sha(elf(62))
    assert result["images"][0]["name"] == "k3s-airgap-images-amd64.tar.zst"


def test_a_binary_that_does_not_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = brought(tmp_path)
    (tmp_path / "k3s").write_bytes(b"#!/bin/sh\n#")
    (line,) = problems(tmp_path, capsys, **args)
    assert line.startswith("APL-0821") and sha(b"#!/bin/sh\n") in line and sha(b"#!/bin/sh\n#") in line


def test_a_renamed_binary_is_found_by_its_release_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = brought(tmp_path)
    (tmp_path / "k3s").rename(tmp_path / "k3s-1.36")
    assert problems(tmp_path, capsys, **{**args, "binary": str(tmp_path / "k3s-1.36")}) == []
    (line,) = problems(tmp_path, capsys, **{**args, "binary": str(tmp_path / "k3s-1.36"), "architecture": "aarch64"})
    assert line.startswith("APL-0822") and "k3s-arm64" in line


def test_all_that_is_missing_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = problems(
        tmp_path,
        capsys,
        binary=str(tmp_path / "k3s"),
        checksums=[str(tmp_path / "sums")],
        images=[str(tmp_path / "a.tar")],
        architecture="x86_64",
    )
    assert [line.split(":")[0] for line in found] == ["APL-0822"] * 3


def test_a_binary_for_another_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = problems(tmp_path, capsys, **brought(tmp_path, elf(183)))
    assert line.startswith("APL-0823") and "aarch64" in line


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.zip", b"x", "APL-0824"),
        (".a.tar", b"x", "APL-0824"),
        # Window descriptor 0x80: 2^26, twice what K3s takes.
        ("a.tar.zst", b"\x28\xb5\x2f\xfd\x04\x80" + bytes(20), "APL-0824"),
        # One segment of 64 MiB, its size in four bytes.
        ("b.tar.zst", b"\x28\xb5\x2f\xfd\xa0" + (1 << 26).to_bytes(4, "little") + bytes(20), "APL-0824"),
    ],
)
def test_archives_that_k3s_would_not_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, code: str
) -> None:
    (line,) = problems(tmp_path, capsys, **brought(tmp_path, images={name: data}))
    assert line.startswith(code)


def test_an_archive_that_does_not_match(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = brought(tmp_path, images={"a.tar": b"x"})
    (tmp_path / "a.tar").write_bytes(b"y")
    (line,) = problems(tmp_path, capsys, **args)
    assert line.startswith("APL-0821") and "a.tar" in line


def test_two_archives_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = brought(tmp_path, images={"a.tar": b"x"})
    (line,) = problems(tmp_path, capsys, **{**args, "images": args["images"] * 2})
    assert line.startswith("APL-0824")


# ----------------------------------------------------------------------------- airgap_images


class Images:
    """A node's directories for image archives."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory, self.staging = root / "images", root / ".staging"
        self.manifest = root / "manifest.json"
        self.capsys = capsys

    def stage(self, **files: bytes) -> None:
        self.staging.mkdir(exist_ok=True)
        for name, data in files.items():
            (self.staging / f"{name}.tar").write_bytes(data)

    def run(self, files: dict[str, bytes], **more: Any) -> dict[str, Any]:
        return run(
            "airgap_images",
            self.capsys,
            directory=str(self.directory),
            staging=str(self.staging),
            manifest=str(self.manifest),
            images=[{"name": f"{name}.tar", "sha256": sha(data)} for name, data in files.items()],
            **more,
        )


@pytest.fixture
def images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Images:
    return Images(tmp_path, capsys)


def test_archives_are_placed_once_with_whole_seconds(images: Images) -> None:
    wanted = {"a": b"1", "b": b"2"}
    assert images.run(wanted, stage=True)["needed"] == ["a.tar", "b.tar"]
    assert images.staging.stat().st_mode & 0o777 == 0o700
    images.stage(**wanted)
    assert images.run(wanted)["changed"]
    for name in wanted:
        assert (images.directory / f"{name}.tar").stat().st_mtime_ns % 10**9 == 0
    assert (images.directory / ".cache.json").read_bytes() == b""
    assert not images.staging.exists()
    assert not images.run(wanted)["changed"]
    again = images.run(wanted, stage=True)
    assert again["needed"] == [] and not again["changed"] and not images.staging.exists()


def test_a_replacement_is_newer_even_if_the_clock_is_behind(images: Images) -> None:
    images.stage(a=b"1")
    images.run({"a": b"1"})
    future = 4_000_000_000
    os.utime(images.directory / "a.tar", (future, future))
    images.stage(a=b"2")
    images.run({"a": b"2"})
    assert (images.directory / "a.tar").read_bytes() == b"2"
    assert (images.directory / "a.tar").stat().st_mtime == future + 1


def test_only_our_old_archives_are_removed(images: Images) -> None:
    images.stage(a=b"1", b=b"2")
    images.run({"a": b"1", "b": b"2"})
    (images.directory / "theirs.tar").write_bytes(b"x")
    checked = images.run({"a": b"1"}, check=True)
    assert checked["changed"] and checked["removed"] == ["b.tar"] and (images.directory / "b.tar").exists()
    images.run({"a": b"1"})
    assert sorted(path.name for path in images.directory.iterdir()) == [".cache.json", "a.tar", "theirs.tar"]
    assert json.loads(images.manifest.read_text()) == {"images": ["a.tar"]}


def test_a_half_copied_archive_is_not_placed(images: Images) -> None:
    images.stage(a=b"half")
    result = images.run({"a": b"whole"}, fails=True)
    assert "APL-0821" in result["msg"] and not (images.directory / "a.tar").exists()


def test_a_broken_manifest_counts_as_empty(images: Images) -> None:
    images.manifest.write_text('{"images": ["../../etc/passwd", 3]}')
    assert images.run({})["removed"] == []


def test_without_the_cache(images: Images) -> None:
    images.stage(a=b"1")
    images.run({"a": b"1"}, cache=False)
    assert not (images.directory / ".cache.json").exists()


def test_no_archives_change_nothing(images: Images) -> None:
    assert not images.run({})["changed"]
    assert not images.directory.exists()


# -------------------------------------------------------------------- containerd_config_info


def test_configuration_is_read_without_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1.toml").write_text('username = "puller"\n  password = "secret"\nauth = "x"\nconfig_path = "/p"\n')
    (tmp_path / "certs.d/a.example").mkdir(parents=True)
    (tmp_path / "certs.d/a.example/hosts.toml").write_text('server = "x"\n')
    (tmp_path / "certs.d/empty").mkdir()
    result = run(
        "containerd_config_info",
        capsys,
        files=[str(tmp_path / "d/*.toml"), str(tmp_path / "none.toml")],
        directories=[str(tmp_path / "certs.d"), str(tmp_path / "none")],
    )
    (text,) = result["files"].values()
    assert "secret" not in json.dumps(result) and "puller" not in text and 'config_path = "/p"' in text
    assert result["hosts"] == {
        str(tmp_path / "certs.d"): {"a.example": 'server = "x"\n', "empty": None},
        str(tmp_path / "none"): {},
    }


# --------------------------------------------------------------------------------------- k3s_node_info


def test_a_node_is_read_in_one_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = tmp_path / "k3s"
    binary.write_text("#!/bin/sh\necho k3s version v1.36.3+k3s1\n")
    binary.chmod(0o755)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.tar").write_bytes(b"1")
    (tmp_path / "manifest.json").write_text('{"images": ["a.tar", "old.tar"]}')
    (tmp_path / "inputs").write_text("now\n")
    args: dict[str, Any] = {
        "k3s": str(binary),
        "unit": "no-such-unit",
        "files": [str(binary), str(tmp_path / "none")],
        "paths": [str(tmp_path / "images"), str(tmp_path / "none")],
        "tools": ["sh", "no-such-tool"],
        "images": [{"name": "a.tar", "sha256": sha(b"1")}, {"name": "b.tar", "sha256": sha(b"2")}],
        "images_directory": str(tmp_path / "images"),
        "images_manifest": str(tmp_path / "manifest.json"),
        "inputs_command": "echo now",
        "inputs_file": str(tmp_path / "inputs"),
    }
    found = run("k3s_node_info", capsys, **args)
    assert found["version_output"] == "k3s version v1.36.3+k3s1\n"
    assert found["files"] == {str(binary): sha(binary.read_bytes()), str(tmp_path / "none"): ""}
    assert found["present"] == [str(tmp_path / "images")] and found["tools_missing"] == ["no-such-tool"]
    assert found["images_needed"] == ["b.tar"] and found["images_stale"] == ["old.tar"]
    assert found["active"] is False and found["outdated"] is False and not found["changed"]

    assert found["interface"] == ""
    assert run("k3s_node_info", capsys, **args, address="127.0.0.1,192.0.2.7")["interface"] == "lo"
    assert run("k3s_node_info", capsys, **args, address="192.0.2.7")["interface"] == ""

    (tmp_path / "inputs").write_text("then\n")
    assert run("k3s_node_info", capsys, **args)["outdated"] is True
    bare = {**args, "k3s": str(tmp_path / "none"), "inputs_file": str(tmp_path / "none")}
    assert run("k3s_node_info", capsys, **bare)["outdated"] is True
    assert run("k3s_node_info", capsys, **bare)["version_output"] == ""


# --------------------------------------------------------------------------------------- directories


def test_only_k3s_agent_directory_is_closed(tmp_path: Path) -> None:
    directories: Any = importlib.import_module("ansible_collections.site.appliance.plugins.module_utils.directories")
    agent = tmp_path / "rancher/k3s/agent"
    directories.make_directory(agent / "etc/containerd", 0o755, private=agent)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("**/*")}
    assert modes == {"rancher": 0o755, "k3s": 0o755, "agent": 0o700, "etc": 0o700, "containerd": 0o700}
    directories.make_directory(tmp_path / "open", 0o750, private=agent)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o750
