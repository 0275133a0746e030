"""What a medium says of itself: small, flat, strict, and never more than a text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appliance.archives.label import LIMIT, Label, check_site, parse_label, read_label
from appliance.archives.medium import Medium
from appliance.errors import ApplianceError

GOOD = b"site: harbour-7\nid: q2\ncreated: 2026-04-01T08:00:00Z\n"


def refused(raw: bytes) -> str:
    with pytest.raises(ApplianceError) as caught:
        parse_label(raw, "/media/stick/medium.yaml")
    assert (caught.value.code, caught.value.where) == ("APL-0150", "/media/stick/medium.yaml")
    return caught.value.why


def test_what_a_good_one_says() -> None:
    label = parse_label(GOOD + "note: für den Hafen\n".encode(), "x")
    assert label == Label("harbour-7", "q2", "2026-04-01T08:00:00Z", "für den Hafen")
    assert label.time.isoformat() == "2026-04-01T08:00:00+00:00"
    assert "note" not in parse_label(GOOD, "x").as_dict()


def test_a_number_or_a_date_is_the_text_that_it_is_written_as() -> None:
    label = parse_label(b"site: 007\nid: 1e3\ncreated: 2026-04-01\nnote: no\n", "x")
    assert (label.site, label.id, label.created, label.note) == ("007", "1e3", "2026-04-01", "no")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not a mapping"),
        (b"- a\n", "not a mapping"),
        (b"\xff\xfe", "not YAML"),
        (b"site: [", "not YAML"),
        (b"a: &a [1]\nb: *c\n", "not YAML"),
        (GOOD + b"sites: x\n", "unknown keys: sites"),
        (b"site: x\n", "it does not say: id, created"),
        (GOOD.replace(b"q2", b""), "it does not say: id"),
        (GOOD + b"id: q3\n", "id is given twice"),
        (GOOD.replace(b"q2", b"[q2]"), "not a plain text"),
        (GOOD.replace(b"id:", b"? {id: a}\n:"), "not a plain text"),
        (GOOD.replace(b"2026-04-01T08:00:00Z", b"last week"), "no time of ISO 8601"),
        (GOOD.replace(b"q2", b'"a\\0b"'), "cannot be written down"),
        (GOOD.replace(b"q2", b'"\\ud800"'), ""),
        (GOOD + b"#" * LIMIT, "larger than"),
        (b"[" * 4000, "not YAML"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_refused_and_why(raw: bytes, why: str) -> None:
    assert why in refused(raw)


@given(st.binary(max_size=300))
def test_bytes_end_in_a_label_or_in_one_error(raw: bytes) -> None:
    try:
        parse_label(raw, "x")
    except ApplianceError as error:
        assert error.code == "APL-0150"


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(
    lambda text: text == text.strip()
)


@given(texts, texts, st.datetimes())
def test_what_was_written_is_what_is_read(site: str, name: str, created: object) -> None:
    said = {"site": site, "id": name, "created": str(created)}
    assert parse_label(yaml.safe_dump(said, allow_unicode=True).encode(), "x").as_dict() == said


def test_it_lies_at_the_top_of_a_directory_and_is_not_followed_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "a.tar").touch()
    medium = Medium()
    assert read_label(tmp_path / "stick", medium) is None
    assert read_label(tmp_path / "a.tar", medium) is None
    assert read_label(tmp_path / "gone", medium) is None
    (tmp_path / "elsewhere.yaml").write_bytes(GOOD)
    (tmp_path / "stick" / "medium.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(ApplianceError, match="APL-0101"):
        read_label(tmp_path / "stick", medium)
    (tmp_path / "stick" / "medium.yaml").unlink()
    os.mkfifo(tmp_path / "stick" / "medium.yaml")
    with pytest.raises(ApplianceError, match="APL-0101"):
        read_label(tmp_path / "stick", medium)
    (tmp_path / "stick" / "medium.yaml").unlink()
    (tmp_path / "stick" / "medium.yaml").write_bytes(GOOD)
    assert read_label(tmp_path / "stick", medium) == parse_label(GOOD, "x")


def test_root_opens_it_and_another_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    (tmp_path / "medium.yaml").write_bytes(GOOD)
    medium = Medium([tmp_path])
    medium.open_beforehand()
    (tmp_path / "medium.yaml").unlink()
    assert read_label(tmp_path, medium) == parse_label(GOOD, "x")
    medium.close()


def test_the_site_that_it_is_for() -> None:
    label = parse_label(GOOD, "x")
    check_site(label, "harbour-7", "x")
    check_site(label, None, "x")
    with pytest.raises(ApplianceError) as caught:
        check_site(label, "harbour-8", "/media/stick")
    assert caught.value.code == "APL-0151"
    assert "harbour-7" in caught.value.why and "harbour-8" in caught.value.why
