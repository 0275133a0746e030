"""``make bench`` runs from a clean copy of the checkout to its end, in its quick form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.__main__ import GROUPS
from tests.docs.checkout import copy_checkout, typed


@pytest.mark.timeout(300)
def test_the_quick_form_of_make_bench_measures_every_group(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout", with_venv=True)
    printed = typed("BENCH_QUICK=1 make bench", checkout, timeout=280)
    assert "missed" not in printed, "a quick run's figures say nothing"
    document = json.loads((checkout / "build/bench.json").read_text())
    assert document["quick"] is True
    cases = {result["case"] for result in document["results"]}
    words = {
        "blobs": "blob over HTTP",
        "tls": "blob over mutual TLS",
        "manifests": "manifest by tag",
        "push": "push of",
        "seeding": "seeding",
        "tags": "list of",
        "images": "start to ready",
        "memory": "memory",
    }
    assert set(words) == set(GROUPS)
    for group, beginning in words.items():
        assert any(case.startswith(beginning) for case in cases), f"nothing was measured of {group}"
