"""A publisher's store and its media."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.publish.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose store is still to be made."""
    return Site(tmp_path)
