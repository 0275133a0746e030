"""Fixtures that unit tests share: a store, its generations, and the smallest images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from appliance.store.blobs import BlobStore
from appliance.store.generations import Generations
from tests.unit.store import made

# A loaded machine is no failure: examples are counted, not timed.
settings.register_profile("appliance", deadline=None, print_blob=True)
settings.load_profile("appliance")


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """A unit test outlives no power loss: what is synced, and when, one test counts; nobody has to wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """An empty store."""
    return made.open_store(tmp_path / "store")


@pytest.fixture
def generations(store: BlobStore) -> Generations:
    """The generations of ``store``, unsigned."""
    return made.generations(store)
