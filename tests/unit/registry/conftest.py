"""What several tests of the registry begin with."""

from __future__ import annotations

import pytest

from appliance.store.blobs import BlobStore
from tests.unit.registry.listeners import Listener


@pytest.fixture
def node(store: BlobStore) -> Listener:
    """The publisher's listener, with pushing on."""
    return Listener(store)
