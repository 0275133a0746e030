"""Checks of the operator's files: K3s's files on the controller, and wheelhouses against the hosts' Pythons."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.site.appliance.plugins.plugin_utils import brought, wheels

ELF = {"x86_64": 62, "aarch64": 183}


def _binary(path: Path, machine: str = "x86_64") -> Path:
    path.write_bytes(b"\x7fELF" + bytes(14) + ELF[machine].to_bytes(2, "little") + b"code")
    return path


def _sums(path: Path, *files: Path) -> Path:
    path.write_text("".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files))
    return path


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, Any]:
    """Write whole files of a release and return the variables that name them."""
    binary = _binary(tmp_path / "k3s")
    (tmp_path / "k3s-airgap-images-amd64.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd rest")
    return {
        "k3s_binary": str(binary),
        "k3s_checksums": str(_sums(tmp_path / "sha256sum-amd64.txt", binary)),
        "k3s_airgap_images": [str(tmp_path / "k3s-airgap-images-amd64.tar.zst")],
    }


def _found(variables: dict[str, Any], base: Path, machine: str = "x86_64") -> list[tuple[str, str]]:
    found = brought.k3s_problems({brought.K3sFiles.of(variables, machine): ["a"]}, base)
    assert all(entry["where"] == "controller" and entry["fix"] for entry in found), found
    return [(entry["id"], entry["what"]) for entry in found]


def test_whole_files_are_no_problem_by_any_way_to_name_them(variables: dict[str, Any], tmp_path: Path) -> None:
    assert _found(variables, Path("/nonexistent")) == []
    short = {
        key: os.path.basename(value) if isinstance(value, str) else [os.path.basename(value[0])]
        for key, value in variables.items()
    }
    assert _found(short, tmp_path) == []
    assert (
        _found({**variables, "k3s_checksums": [variables["k3s_checksums"]], "k3s_airgap_images": None}, tmp_path) == []
    )


@pytest.mark.parametrize("name", ["k3s_binary", "k3s_checksums", "k3s_airgap_images"])
def test_a_wrong_path_is_named_with_its_variable(name: str, variables: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty.tar").touch()
    for wrong, words in (("absent.tar", "no such file"), ("", "a directory"), ("empty.tar", "empty")):
        path = tmp_path / wrong
        value = [str(path)] if name == "k3s_airgap_images" else str(path)
        ((code, what),) = _found({**variables, name: value}, tmp_path)
        assert code == "APL-0822" and what.startswith(f"{name}: ") and words in what and what.endswith(f"[{path}]")


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    assert [what.split(":")[0] for _, what in _found({}, tmp_path)] == [
        "k3s_binary is not set",
        "k3s_checksums is not set",
    ]


def test_a_binary_that_cannot_be_the_right_one_is_named(variables: dict[str, Any], tmp_path: Path) -> None:
    ((code, what),) = _found(variables, tmp_path, "aarch64")
    # The checksums of another architecture have no line for this one's binary, so the binary's own name counts.
    assert code == "APL-0823" and "the node is aarch64" in what
    Path(variables["k3s_binary"]).write_bytes(b"<!DOCTYPE html>")
    assert [code for code, _ in _found(variables, tmp_path)] == ["APL-0823", "APL-0821"]
    _binary(Path(variables["k3s_binary"])).write_bytes(_binary(tmp_path / "other").read_bytes() + b"!")
    ((code, what),) = _found(variables, tmp_path)
    assert code == "APL-0821" and what.startswith("k3s_binary: the K3s binary does not match its checksum")


def test_two_architectures_are_checked_each_with_its_own_files(variables: dict[str, Any], tmp_path: Path) -> None:
    arm = _binary(tmp_path / "k3s-arm64", "aarch64")
    other = {"k3s_binary": str(arm), "k3s_checksums": str(_sums(tmp_path / "sha256sum-arm64.txt", arm))}
    files = {brought.K3sFiles.of(variables, "x86_64"): ["a", "b"], brought.K3sFiles.of(other, "aarch64"): ["c"]}
    assert brought.k3s_problems(files, tmp_path) == []
    files = {brought.K3sFiles.of(variables, machine): [host] for machine, host in (("x86_64", "a"), ("aarch64", "c"))}
    (found,) = brought.k3s_problems(files, tmp_path)
    assert found["id"] == "APL-0823" and found["what"].endswith("(for c)")


@pytest.mark.parametrize(
    ("name", "content", "is_good"),
    [
        ("x.tar", bytes(257) + b"ustar", True),
        ("x.tar", b"not a tar", False),
        ("x.tar.gz", b"\x1f\x8b\x08", True),
        ("x.tgz", b"\x28\xb5\x2f\xfd", False),
        ("x.tar.zst", b"\x50\x2a\x4d\x18", True),
        ("x.tar.zst", b"<!DOCTYPE html>", False),
        ("x.tar.bz2", b"BZh9", True),
        ("x.tar.lz4", b"\x04\x22\x4d\x18", True),
        ("images.txt", b"docker.io/rancher/mirrored-pause:3.6\n", True),
        ("x.zip", b"PK", False),
        (".x.tar", bytes(257) + b"ustar", False),
    ],
)
def test_an_archive_is_judged_by_name_and_first_bytes(
    name: str, content: bytes, is_good: bool, variables: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    codes = [code for code, _ in _found({**variables, "k3s_airgap_images": [str(tmp_path / name)]}, tmp_path)]
    assert codes == ([] if is_good else ["APL-0824"])


# --- the wheelhouse --------------------------------------------------------------------------------------------------


def _wheelhouse(
    root: Path, *names: str, required: tuple[str, ...] = ("cffi==2.1", "click==8.5", "k3s-airgap-appliance==0.2.0")
) -> Path:
    (root / "wheelhouse").mkdir(parents=True)
    hashes: dict[str, list[str]] = {}
    for name in names:
        (root / "wheelhouse" / name).write_bytes(name.encode())
        hashes.setdefault(name.split("-")[0].replace("_", "-"), []).append(hashlib.sha256(name.encode()).hexdigest())
    lines = [
        line + "".join(f" --hash=sha256:{found}" for found in hashes.get(line.split("==")[0], ["00"]))
        for line in required
    ]
    (root / "requirements.txt").write_text("\n".join(lines) + "\n")
    return root


WHEELS = (
    "cffi-2.1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    "click-8.5-py3-none-any.whl",
    "k3s_airgap_appliance-0.2.0-py3-none-any.whl",
    "pip-26.3-py3-none-any.whl",
)
DEBIAN_12 = wheels.Target((3, 11), "x86_64", (2, 36))
DEBIAN_13 = wheels.Target((3, 13), "x86_64", (2, 41))
ARM = wheels.Target((3, 11), "aarch64", (2, 36))


def _missing(wheelhouse: Path, *targets: wheels.Target) -> list[dict[str, str]]:
    hosts = {target: [f"host{number}"] for number, target in enumerate(targets)}
    return brought.wheelhouse_problems({wheelhouse: hosts})


def test_a_host_whose_python_has_no_wheels_is_named_with_the_command_for_all(tmp_path: Path) -> None:
    house = _wheelhouse(tmp_path / "house", *WHEELS)
    assert _missing(house, DEBIAN_12) == []
    found = _missing(house, DEBIAN_12, DEBIAN_13, ARM)
    assert [(entry["id"], entry["where"]) for entry in found] == [("APL-0713", "controller")] * 2
    assert f"no wheels for Python 3.13 on x86_64 of host1 [{house}]: cffi missing" in found[0]["what"]
    assert (
        "python3 -m appliance.release.wheelhouse build/wheelhouse --python 3.11 --python 3.13 --arch aarch64 --arch x86_64"
        in found[0]["fix"]
    )


def test_a_host_with_an_older_c_library_than_the_wheels_is_found(tmp_path: Path) -> None:
    names = ("cffi-2.1-cp311-cp311-manylinux_2_28_x86_64.whl", *WHEELS[1:])
    house = _wheelhouse(tmp_path / "house", *names)
    assert _missing(house, DEBIAN_12) == []
    assert [entry["id"] for entry in _missing(house, wheels.Target((3, 11), "x86_64", (2, 17)))] == ["APL-0713"]


def test_wheels_for_the_stable_abi_fit_later_pythons(tmp_path: Path) -> None:
    names = ("cffi-2.1-cp39-abi3-manylinux_2_28_x86_64.whl", *WHEELS[1:])
    assert _missing(_wheelhouse(tmp_path / "house", *names), DEBIAN_12, DEBIAN_13) == []


@pytest.mark.parametrize(
    ("names", "required", "code", "words"),
    [
        (WHEELS, ("cffi==2.1", "click==8.5"), "APL-0760", "does not hold the appliance"),
        (WHEELS[:2] + WHEELS[3:], None, "APL-0713", "k3s-airgap-appliance missing"),
        (WHEELS[:3], None, "APL-0762", "holds no pip"),
    ],
)
def test_a_wheelhouse_that_is_not_whole_is_named(
    names: tuple[str, ...], required: tuple[str, ...] | None, code: str, words: str, tmp_path: Path
) -> None:
    house = _wheelhouse(tmp_path / "house", *names, **({"required": required} if required else {}))
    (found,) = _missing(house, DEBIAN_12)
    assert found["id"] == code and words in found["what"] and "python3 -m appliance.release.wheelhouse" in found["fix"]


def test_a_damaged_wheel_is_named(tmp_path: Path) -> None:
    house = _wheelhouse(tmp_path / "house", *WHEELS)
    (house / "wheelhouse" / WHEELS[1]).write_bytes(b"cut off")
    (found,) = _missing(house, DEBIAN_12)
    assert found["id"] == "APL-0762" and WHEELS[1] in found["what"] and "Copy the wheelhouse again" in found["fix"]


def test_no_wheelhouse_at_all_is_one_line(tmp_path: Path) -> None:
    (found,) = _missing(tmp_path / "absent", DEBIAN_12, DEBIAN_13)
    assert (
        found["id"] == "APL-0760" and "No such file" in found["what"] and "--python 3.11 --python 3.13" in found["fix"]
    )
