"""The name of a medium: what it is called, what older releases read of it, and who is meant by a word."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media import MediumIdentity, media_words

STICK = MediumIdentity(label="STICK", uuid="1B2C-3D4F", contents="2 archives: a.tar, b.tar, newest of 2026-04-01")


@pytest.mark.parametrize(
    ("identity", "name", "words"),
    [
        (
            MediumIdentity(
                site="harbour", id="q2", created="2026-04-01", uuid="1B2C-3D4F", contents="1 archive: a.tar"
            ),
            "q2",
            "q2 (made 2026-04-01; UUID 1B2C-3D4F; 1 archive: a.tar)",
        ),
        (STICK, "STICK (UUID 1B2C-3D4F)", "STICK (UUID 1B2C-3D4F) (2 archives: a.tar, b.tar, newest of 2026-04-01)"),
        (MediumIdentity(uuid="1B2C-3D4F"), "UUID 1B2C-3D4F", "UUID 1B2C-3D4F"),
        (MediumIdentity(label="STICK"), "STICK", "STICK"),
        (MediumIdentity(contents="1 archive: a.tar"), "1 archive: a.tar", "1 archive: a.tar"),
        (MediumIdentity(), "a medium without a name", "a medium without a name"),
    ],
)
def test_it_is_called_by_the_best_that_is_known(identity: MediumIdentity, name: str, words: str) -> None:
    assert (identity.name, identity.words()) == (name, words)


@given(st.builds(MediumIdentity, **{field.name: st.text(max_size=5) for field in fields(MediumIdentity)}))
def test_what_is_kept_says_the_same_again_and_has_what_older_releases_require(identity: MediumIdentity) -> None:
    said = identity.as_dict()
    assert said["id"] and all(isinstance(text, str) for text in said.values())
    assert MediumIdentity.from_dict(said).name == identity.name
    assert (
        MediumIdentity.from_dict(said | {"of a newer release": "x"}).as_dict()
        == MediumIdentity.from_dict(said).as_dict()
    )


def test_a_word_means_its_id_its_label_or_its_uuid() -> None:
    assert all(STICK.is_called(word) for word in ("STICK", "1B2C-3D4F", "STICK (UUID 1B2C-3D4F)"))
    assert not any(STICK.is_called(word) for word in ("", "stick", "a.tar"))


def test_a_source_of_which_nothing_is_known_is_named_by_its_path() -> None:
    assert media_words(["/a", "/b"], {"/b": {"id": "q2"}}) == ["/a", "q2 at /b"]
