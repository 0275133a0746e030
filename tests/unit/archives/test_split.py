"""Names of parts: which belong together, in which order, and what is missing."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.archives.sniff import Kind
from appliance.archives.split import PartSet, find_sets, whole_name
from appliance.errors import ApplianceError


def letters(width: int) -> Iterator[str]:
    """Give the suffixes of ``split -a WIDTH``."""
    return map("".join, itertools.product(string.ascii_lowercase, repeat=width))


def growing(alphabet: str) -> Iterator[str]:
    """Give the suffixes of ``split`` without ``-a``: yz is followed by zaaa, 89 by 9000."""
    for step in itertools.count():
        for rest in itertools.product(alphabet, repeat=2 + step):
            if rest[0] != alphabet[-1]:
                yield alphabet[-1] * step + "".join(rest)


def numbers(form: str, first: int = 0) -> Callable[[], Iterator[str]]:
    return lambda: (form.format(number) for number in itertools.count(first))


FORMS: dict[str, Callable[[], Iterator[str]]] = {
    "split": lambda: growing(string.ascii_lowercase),
    "split -d": lambda: growing(string.digits),
    "split -x": lambda: map("".join, itertools.product("0123456789abcdef", repeat=2)),
    "split -a 3": lambda: letters(3),
    "split -a 1": lambda: letters(1),
    "split --numeric-suffixes=1": numbers("{:02d}", 1),
    "three digits": numbers("{:03d}"),
    "printf %02d": numbers("{:02d}"),
}
MOST = {"split -x": 256, "split -a 1": 26}
MARKS = (".", "-", "_", ".part", "-part-")


def kind_of_first(first: str) -> Callable[[str], Kind]:
    return lambda name: Kind.COMPRESSED if name == first else Kind.OTHER


def only(names: list[str], first: str) -> PartSet:
    (found,) = find_sets(names, kind_of_first(first))
    return found


@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(MARKS),
    st.sampled_from(["app.tar", "app.tar.zst", "a b.TGZ", "x.tar.1.tar"]),
    st.sampled_from([2, 3, 11, 27, 101]) | st.integers(2, 700),
    st.randoms(),
)
def test_parts_of_every_form_are_put_in_order(form: str, mark: str, base: str, count: int, random: object) -> None:
    count = min(count, MOST.get(form, count))
    names = [f"{base}{mark}{suffix}" for suffix in itertools.islice(FORMS[form](), count)]
    mixed = sorted(names, key=lambda _: random.random())  # type: ignore[attr-defined]
    found = only([*mixed, "README.txt", f"{base}.sha256"], names[0])
    assert (list(found.names), found.missing, found.is_named) == (names, (), True)
    assert whole_name(names[0]) == base


@given(st.sampled_from(sorted(FORMS)), st.integers(3, 700), st.data())
def test_a_hole_is_named_in_every_form(form: str, count: int, data: st.DataObject) -> None:
    count = min(count, MOST.get(form, count))
    suffixes = [*itertools.islice(FORMS[form](), count)]
    hole = data.draw(st.integers(1, count - 2).filter(lambda number: suffixes[number] not in ("gy", "xy", "zss")))
    names = [f"app.tar.{suffix}" for suffix in suffixes]
    found = only(names[:hole] + names[hole + 1 :], names[0])
    shown = suffixes[hole] if suffixes[hole].isalpha() and form != "split -x" else None
    assert found.missing == (shown,) if shown else len(found.missing) == 1
    with pytest.raises(ApplianceError, match=r"APL-0144.*app\.tar\."):
        found.check(Path("/medium"))


@pytest.mark.parametrize("prefix", ["x", "app", "app-", "app.", "app.tar.zst", "2026-"])
@pytest.mark.parametrize("suffixes", [["aa", "ab", "ac"], ["aaa", "aab"], ["00", "01"], ["01", "02"]])
def test_any_prefix_where_the_first_begins_as_an_archive(prefix: str, suffixes: list[str]) -> None:
    names = [prefix + suffix for suffix in suffixes]
    others = ["banana", "xml", "xyz", "kernel", "appliance"]
    assert list(only(names + others, names[0]).names) == names
    # Where none or every one begins as an archive, they are files of their own.
    if prefix[-1:].isalnum() and "tar" not in prefix:
        assert not [*find_sets(names + others, lambda _: Kind.OTHER)]
        assert not [*find_sets(names + others, lambda _: Kind.TAR)]


def test_a_hole_behind_any_prefix() -> None:
    assert only(["xaa", "xac"], "xaa").missing == ("ab",)
    assert only(["app00", "app02"], "app00").missing == ("1",)
    assert not [*find_sets(["xaa", "xyz"], kind_of_first("xaa"))], "far away from each other"


def test_the_first_part_is_missing() -> None:
    for names in (["app.tar.ab", "app.tar.ac"], ["app.tar.03", "app.tar.04"], ["app.tar.part2"]):
        (found,) = find_sets(names, lambda _: Kind.OTHER)
        assert found.missing


@pytest.mark.parametrize(
    "name",
    ["app.tar.bak", "app.tar.asc", "app.tar.sig", "app.tar.old", "app.tar.b2", "app.targz", "app.tarball", "x.tar.7z"],
)
def test_an_extension_is_no_part(name: str) -> None:
    assert not [*find_sets([name, "app.tar"], lambda _: Kind.OTHER)]


@pytest.mark.parametrize("names", [["app.tar.1", "app.tar.2"], ["app.tar.20260101"], ["app.tar", "app.tar.7"]])
def test_rotated_archives_are_archives_of_their_own(names: list[str]) -> None:
    assert not [*find_sets(names, lambda _: Kind.TAR)]
    assert not [*find_sets(["a.tar.zst.01", "a.tar.zst.02"], lambda _: Kind.COMPRESSED)]
    assert [*find_sets(["app.tar.1", "app.tar.2"], kind_of_first("app.tar.1"))]


def test_one_set_is_of_one_form() -> None:
    names = ["app.tar.aa", "app.tar.ab", "app.tar.00", "app.tar.01", "app.tar.000", "app.tar.001"]
    found = find_sets(names, lambda name: Kind.TAR if name.endswith(("aa", "0")) else Kind.OTHER)
    assert {item.names for item in found} == {tuple(names[at : at + 2]) for at in (0, 2, 4)}


@given(st.lists(st.text("abxyz019._-", min_size=1, max_size=8).map(lambda text: f"{text}"), max_size=12), st.randoms())
def test_no_file_is_in_two_sets(names: list[str], random: object) -> None:
    kinds = {name: random.choice([Kind.TAR, Kind.OTHER]) for name in names}  # type: ignore[attr-defined]
    found = [*find_sets([*names, *(f"a.tar.{name}" for name in names)], lambda name: kinds.get(name, Kind.OTHER))]
    members = [name for item in found for name in item.names]
    assert len(members) == len(set(members))


def test_many_files_cost_no_look_at_each_other() -> None:
    """Ten thousand small files that each could be a first part: the work grows with their number, not with its square."""
    looks = []

    class Name(str):
        __slots__ = ()

        def startswith(self, *given: Any) -> bool:
            looks.append(self)
            return str.startswith(self, *given)

    names = [Name(f"log{number}.00") for number in range(1000)]
    assert not [*find_sets(names, lambda _: Kind.COMPRESSED)]
    assert len(looks) < 20 * len(names)
