"""How much a run measures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Sizes and counts of one run.

    :param blob_bytes: size of the blob that is downloaded.
    :param images: images of the big repository (one tag each), and repositories of the big catalog.
    :param repetitions: turns that each server gets for one figure.
    :param load_seconds: seconds that one turn of manifest requests lasts.
    :param rest_seconds: seconds after the last answer at which memory counts as memory at rest.
    :param pulls: manifest requests, at least, between the two measurements of memory under load.
    :param push_bytes: size of the blob that is pushed.
    :param seed_bytes: size of the image that is seeded.
    :param seedings: turns of each archive that is seeded.
    """

    blob_bytes: int
    images: int
    repetitions: int
    load_seconds: int
    rest_seconds: float
    pulls: int
    push_bytes: int
    seed_bytes: int
    seedings: int


FULL = Scale(
    blob_bytes=512 << 20,
    images=10_000,
    repetitions=5,
    load_seconds=4,
    rest_seconds=1.0,
    pulls=10_000,
    push_bytes=1 << 30,
    seed_bytes=4 << 30,
    seedings=3,
)
QUICK = Scale(
    blob_bytes=16 << 20,
    images=100,
    repetitions=1,
    load_seconds=1,
    rest_seconds=0.1,
    pulls=200,
    push_bytes=16 << 20,
    seed_bytes=8 << 20,
    seedings=1,
)
"""Shows that everything works; its figures say nothing."""
