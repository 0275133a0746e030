"""Lines of the manual, typed on this machine: what looks at a stick's files, and the small targets of the Makefile."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.checkout import copy_checkout, typed
from tests.docs.commands import make_targets
from tests.docs.covered import ARCHIVE, filled_in, lines_of
from tests.unit.store import made

IMAGE = made.image(1)
NAME = "docker.io/library/nginx:1.27"
_WRONG_USE = ("usage:", "invalid option", "unrecognized option", "unknown option", "command not found", "syntax error")


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """The files that lines of the manual name, under these names."""
    directory = tmp_path / "stick"
    oci = made.write_oci_archive(directory / "oci.tar", {NAME: IMAGE})
    made.write_docker_archive(directory / "docker.tar", NAME, IMAGE)
    (directory / "k3s").write_bytes(b"k3s")
    for name in ("images.tar", "k3s-airgap-images-amd64.tar"):
        typed(f"cp {oci.name} {name} && zstd -q --rm {name}", directory)
    typed("sha256sum images.tar.zst >images.tar.zst.sha256", directory)
    typed("sha256sum k3s k3s-airgap-images-amd64.tar.zst >sha256sum-amd64.txt", directory)
    typed("mkdir layout && tar xf oci.tar -C layout", directory)
    return directory


def _file_for(line: str) -> str:
    if line.startswith("zstd"):
        return "images.tar.zst"
    return "docker.tar" if "manifest.json" in line else "oci.tar"


@pytest.mark.parametrize("line", lines_of(ARCHIVE))
def test_what_looks_at_a_file_of_a_stick(stick: Path, line: str) -> None:
    if line.startswith("skopeo copy"):
        source, target = f"oci-archive:oci.tar:{NAME}", "oci-archive:copy.tar"
        line = (
            line.replace("docker://NAME", source)
            .replace("oci-archive:FILE", target)
            .replace("copy.tar:NAME", f"copy.tar:{NAME}")
        )
    config = str(IMAGE.document["config"]["digest"]).partition(":")[2]
    command = filled_in(line, FILE=_file_for(line), hex=config)
    done = subprocess.run(
        ["bash", "-c", command], cwd=stick, capture_output=True, text=True, errors="replace", check=False, timeout=60
    )
    # A filter that finds nothing, such as a path that leads upwards, ends with 1.
    assert done.returncode in (0, 1), f"{command}: {done.returncode} {done.stderr}"
    assert not any(words in done.stderr.lower() for words in _WRONG_USE), f"{command}: {done.stderr}"
    assert done.returncode == 0 or "grep" in command, f"{command}: {done.stderr}"


def test_a_store_is_an_oci_layout(tmp_path: Path, stick: Path) -> None:
    store = tmp_path / "store"
    typed(f"{sys.executable} -m appliance seed --store {store} {stick / 'oci.tar'}", tmp_path)
    document = json.loads(typed(f"skopeo inspect oci:{store}:{NAME}", tmp_path))
    assert document["Digest"] == IMAGE.digest


def test_small_targets(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout", with_venv=True)
    assert {line.split()[0] for line in typed("make", checkout).splitlines()} == set(make_targets())
    page = checkout / "docs/reference/variables.md"
    current = page.read_text()
    page.write_text("old\n")
    typed("make docs", checkout)
    assert page.read_text() == current
    (checkout / "build").mkdir(exist_ok=True)
    typed("make clean", checkout)
    assert not any((checkout / name).exists() for name in (".venv", "build"))


@pytest.mark.timeout(300)
def test_fuzzing_for_a_moment(tmp_path: Path) -> None:
    """It installs the fuzzer as it does for a person, into a virtual environment that is the checkout's own."""
    checkout = copy_checkout(tmp_path / "checkout", with_venv=True)
    printed = typed("make fuzz FUZZ_SECONDS=2 FUZZ_TARGETS=ranges", checkout, timeout=280)
    assert "ranges" in printed
    # Of the targets that were not fuzzed there is nothing to keep.
    assert re.fullmatch(
        r"ranges: \d+ inputs, \d+ before\n", typed(". .venv/bin/activate && python -m tests.fuzz keep", checkout)
    )


def test_the_corpus_is_made_again(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout", with_venv=True)
    seeds = sorted(path.relative_to(checkout) for path in checkout.glob("tests/fuzz/corpus/*/seed-*"))
    for seed in seeds:
        (checkout / seed).unlink()
    typed(". .venv/bin/activate && python -m tests.fuzz.seeds", checkout)
    assert sorted(path.relative_to(checkout) for path in checkout.glob("tests/fuzz/corpus/*/seed-*")) == seeds


def test_a_group_of_the_bench_alone(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout", with_venv=True)
    # The line of the page has 1024 MiB.
    typed("BENCH_QUICK=1 .venv/bin/python -m tests.bench --only seeding --seed-mib 4", checkout)
    cases = [result["case"] for result in json.loads((checkout / "build/bench.json").read_text())["results"]]
    assert cases and all(case.startswith("seeding 4 MiB") for case in cases)
