"""``appliance backup store`` beside what else goes on in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.backup import container
from tests.unit.store import made

NAME = "docker.io/library/a:1"
Run = Callable[..., Any]


def test_what_is_being_backed_up_is_not_collected(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made.open_store(tmp_path / "store")
    for seed in range(1, 5):
        made.publish(store, {NAME: made.image(seed)})
    write, seen = container.write, list[bool]()

    def writing(*arguments: Any) -> container.Backup:
        seen.append(made.stays(store))
        return write(*arguments)

    monkeypatch.setattr(container, "write", writing)
    ran = run("backup", "store", "--store", store.root, tmp_path / "b.tar")
    assert (ran.code, seen) == (0, [True]), ran.err
    assert not made.stays(store)
