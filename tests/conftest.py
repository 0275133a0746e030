"""Options and fixtures that every kind of test shares."""

from __future__ import annotations

import os
import random

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole-series", action="store_true", help="run long series (kill points, hostile cases) whole")


def pytest_report_header(config: pytest.Config) -> str:
    return f"series: {'whole' if config.getoption('--whole-series') else f'sampled, SEED={_seed()}'}"


def _seed() -> str:
    return os.environ.setdefault("SEED", "") or os.environ.setdefault(
        "SERIES_SEED", str(random.SystemRandom().getrandbits(32))
    )


@pytest.fixture(scope="session")
def whole_series(request: pytest.FixtureRequest) -> bool:
    """Whether long series run whole (`make test-all`)."""
    return bool(request.config.getoption("--whole-series"))


@pytest.fixture
def sampled() -> random.Random:
    """Randomness that the seed printed in the header repeats: SEED=... make test."""
    return random.Random(_seed())
