"""Options and fixtures that every kind of test shares."""

from __future__ import annotations

import os
import random
import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-series", action="store_true", help="run long series (kill points, hostile cases) whole")


def pytest_configure() -> None:
    """Choose the seed before other processes are started that run a part of the tests: they inherit it.

    They inherit ignored signals too, and so does what they start: after ``nohup make test &`` no test could interrupt anything.
    """
    _seed()
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_report_header(config: pytest.Config) -> str:
    return f"series: {'whole' if config.getoption('--whole-series') else f'sampled, SEED={_seed()}'}"


def _seed() -> str:
    return os.environ.setdefault("SEED", "") or os.environ.setdefault(
        "SERIES_SEED", str(random.SystemRandom().getrandbits(32))
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests of a file that are marked ``sample(n)`` run n, and none of those marked ``whole``, unless series run whole."""
    if config.getoption("--whole-series"):
        return
    dropped = [item for item in items if item.get_closest_marker("whole")]
    for path in {item.path for item in items if item.get_closest_marker("sample")}:
        series = [item for item in items if item.path == path and item.get_closest_marker("sample")]
        marker = series[0].get_closest_marker("sample")
        count = min(marker.args[0], len(series)) if marker else 0
        dropped += random.Random(_seed()).sample(series, len(series) - count)
    if dropped:
        items[:] = [item for item in items if item not in dropped]
        config.hook.pytest_deselected(items=dropped)


@pytest.fixture(scope="session")
def whole_series(request: pytest.FixtureRequest) -> bool:
    """Whether long series run whole (`make test-all`)."""
    return bool(request.config.getoption("--whole-series"))


@pytest.fixture
def sampled() -> random.Random:
    """Randomness that the seed printed in the header repeats: SEED=... make test."""
    return random.Random(_seed())
