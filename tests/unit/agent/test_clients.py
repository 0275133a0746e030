"""Counts of web workers about clients are kept for the status, in bounded memory, whatever they say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.agent.clients import SHOWN_SECONDS, ClientEvents


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def report(what: str, count: int = 1, address: str = "10.0.0.7", *details: str) -> dict[str, object]:
    return {"what": what, "count": count, "addresses": {address: count}, "details": list(details)}


def test_reports_of_one_kind_add_up_and_services_are_told_apart() -> None:
    clock = Clock()
    kept = ClientEvents(clock)
    kept.add("peer", report("wrong passwords", 1, "10.0.0.7", "ops"))
    clock.now = 60.0
    kept.add("mirror", report("malformed requests"))
    clock.now = 61.0
    kept.add("peer", report("wrong passwords", 240, "10.0.0.8", "ops", "root"))
    first, second = kept.all()
    assert (first["service"], first["what"], first["count"], first["detail"]) == (
        "peer",
        "wrong passwords",
        241,
        "root",
    )
    assert first["addresses"] == {"10.0.0.8": 240, "10.0.0.7": 1}
    assert (second["service"], second["what"], second["count"]) == ("mirror", "malformed requests", 1)


def test_what_is_over_is_forgotten_after_a_day() -> None:
    clock = Clock()
    kept = ClientEvents(clock)
    kept.add("peer", report("wrong passwords"))
    clock.now = SHOWN_SECONDS - 1
    assert len(kept.all()) == 1
    clock.now = SHOWN_SECONDS
    assert kept.all() == []


def test_neither_kinds_nor_addresses_grow_without_an_end() -> None:
    kept = ClientEvents()
    for number in range(1000):
        kept.add("peer", report(f"kind {number}"))
        kept.add("peer", report("the same", 1, f"10.{number // 250}.0.{number % 250}"))
    assert len(kept.all()) == 32
    (same,) = (item for item in kept.all() if item["what"] == "the same")
    assert same["count"] == 1000 and len(same["addresses"]) == 5


def test_who_comes_often_is_shown_whoever_came_first() -> None:
    kept = ClientEvents()
    for number in range(1000):
        kept.add("peer", report("wrong passwords", 1, f"2001:db8:0:{number:x}::/64"))
    for _ in range(600):
        kept.add("peer", report("wrong passwords", 5000, "10.9.9.9"))
    kept.add("peer", report("wrong passwords", 1, "10.0.0.7"))
    (item,) = kept.all()
    assert item["addresses"].pop("10.9.9.9") == 3_000_000
    assert set(item["addresses"].values()) == {1}, "nobody has what another did"
    assert item["others"] == item["count"] - 3_000_000 - len(item["addresses"])


def test_what_never_stops_is_counted_anew_after_a_day() -> None:
    clock = Clock()
    kept = ClientEvents(clock)
    kept.add("peer", report("wrong passwords", 1000, "10.0.0.7"))
    clock.now = SHOWN_SECONDS - 1
    kept.add("peer", report("wrong passwords", 1, "10.0.0.8"))
    assert kept.all()[0]["count"] == 1001
    clock.now = SHOWN_SECONDS
    kept.add("peer", report("wrong passwords", 2, "10.0.0.9"))
    (item,) = kept.all()
    assert (item["count"], item["addresses"]) == (2, {"10.0.0.9": 2})


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        {},
        {"what": "x"},
        report("x") | {"count": "many"},
        report("x") | {"addresses": [1]},
        report("x") | {"count": float("inf")},
        report("x") | {"count": float("nan")},
        report("x") | {"count": 10**400},
        report("x") | {"count": -1},
        report("x") | {"addresses": {"10.0.0.7": float("inf")}},
    ],
)
def test_what_is_no_report_is_refused_whole(odd: object) -> None:
    kept = ClientEvents()
    with pytest.raises(ValueError, match=r"no report of events|invalid literal|NaN"):
        kept.add("peer", odd)
    assert kept.all() == []


def test_an_address_is_cut() -> None:
    kept = ClientEvents()
    kept.add("peer", report("x", 1, "1" * 10_000_000))
    assert len(next(iter(kept.all()[0]["addresses"]))) <= 80


@given(st.text(), st.text(), st.text())
def test_whatever_words_it_has_it_is_one_line_each(service: str, what: str, detail: str) -> None:
    kept = ClientEvents()
    kept.add(service, report(what, 1, "10.0.0.7", detail))
    (item,) = kept.all()
    assert not any("\n" in str(value) or "\x1b" in str(value) for value in item.values())
    assert json.dumps(item)
