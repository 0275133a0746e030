"""The lab as a fixture: one site a test run, and the proof after each test that nothing tried to leave it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.site import Site, unique_id

# Building the hosts' tree, once, falls into the first test's time.
_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give lab tests the time that real hosts take."""
    for item in items:
        if item.get_closest_marker("lab") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SECONDS))


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """Three fresh hosts, gone at the end however the run ends."""
    Site.sweep()
    site = Site(unique_id())
    site.up()
    try:
        yield site
    finally:
        site.down()


@pytest.fixture(autouse=True)
def nothing_leaves(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test of the site: the sink has seen no attempt. A test that makes one on purpose resets the log."""
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
    elif of := next((name for name in ("life", "stage") if name in request.fixturenames), ""):
        site = request.getfixturevalue(of).site
    else:
        yield
        return
    yield
    attempts = site.sink_log()
    if attempts:
        site.sink_reset()
    assert attempts == [], "something tried to leave the site"
