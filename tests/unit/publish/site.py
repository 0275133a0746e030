"""A publisher's store and a medium, as the commands see them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from appliance.archives.medium import Medium
from appliance.archives.sink import HashingSink
from appliance.config import Config
from appliance.publish.approval import Consent
from appliance.publish.plan import Plan, make_plan
from appliance.publish.publisher import Publisher, Result
from appliance.publish.read_media import read_sources
from appliance.publish.removal import names_to_remove
from appliance.publish.rollback import Rollback, make_rollback, roll_back
from appliance.publish.seed import Request, StagedPlan, seed, stage
from appliance.store.auditcheck import audit
from appliance.store.blobs import BlobStore
from appliance.store.fsck import check
from appliance.store.generations import Generation
from appliance.store.history import find
from appliance.store.pins import pin
from appliance.store.store import Store
from appliance.trust import Trust
from tests.unit.store import made

A, B = "docker.io/library/a:1", "docker.io/library/b:1"


class Site:
    """A publisher's store and a medium."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = BlobStore(root / "store", reserve=0)
        self.generations = made.generations(self.blobs)
        self.medium = root / "medium"
        self.medium.mkdir()

    def archive(self, file: str, **images: made.Image) -> str:
        names = {f"docker.io/library/{name}:1": item for name, item in images.items()}
        return str(made.write_oci_archive(self.medium / file, names))

    def seed(
        self,
        *sources: str,
        site: str | None = None,
        expect: str | None = None,
        consent: Consent | None = None,
        medium: Medium | None = None,
        **asked: Any,
    ) -> Result:
        agreed = consent or Consent()
        asked = {"any_platform": agreed.any_platform, "other_site": agreed.other_site, **asked}
        request = Request(sources, **asked)
        return seed(self.target(site), request, expect=expect, consent=agreed, medium=medium)

    def stage(self, *sources: str, medium: Medium | None = None, **asked: Any) -> StagedPlan:
        """Do the same as ``appliance plan --stage``."""
        return stage(self.target(), Request(sources, **asked), medium=medium)

    def target(self, site: str | None = None) -> Store:
        """The store as another process opens it."""
        return made.store(BlobStore(self.root / "store", reserve=0), site=site)

    def plan(self, *sources: str, remove: Sequence[str] = (), **more: Any) -> Plan:
        current = self.generations.current() if self.generations.index.exists() else None
        history = self.generations.newest_first if current else tuple
        with HashingSink(self.blobs) as sink:
            reading = read_sources(sources, sink, self.blobs.root, current, **more)
        return make_plan(
            reading,
            current,
            self.blobs,
            made.pushes(self.blobs).current(),
            made.pins(self.blobs).current(),
            removed=names_to_remove(remove, reading, current, history, self.blobs.root),
            history=history,
        )

    def pin(self, *names: str) -> list[str]:
        return pin(self.blobs, self.generations, made.pins(self.blobs), names)

    def pinned(self) -> dict[str, str]:
        current = made.pins(self.blobs).current()
        return {name: entry.descriptor.digest for name, entry in current.names.items()} if current else {}

    def served(self) -> dict[str, str]:
        current = self.generations.current()
        return {name: entry.descriptor.digest for name, entry in current.names.items()} if current else {}

    def problems(self) -> list[str]:
        return check(made.store(self.blobs)).problems

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.blobs.root / "journal.jsonl").read_text().splitlines()]

    def stick(self, name: str, label: Mapping[str, str] | None = None, **images: made.Image) -> str:
        """A directory with one archive, and what it says of itself."""
        self.archive(f"{name}/a.tar", **images)
        if label is not None:
            (self.medium / name / "medium.yaml").write_text(yaml.safe_dump(dict(label)))
        return str(self.medium / name)

    def current(self) -> Generation:
        """What is served."""
        current = self.generations.current()
        assert current is not None
        return current

    def look_back(self, **which: Any) -> Rollback:
        """What a rollback would change."""
        target = find(self.generations, **which)
        return make_rollback(
            target, self.current(), self.blobs, made.pushes(self.blobs).current(), made.pins(self.blobs).current()
        )

    def back(self, choose: Callable[[], Generation] | None = None, **more: Any) -> Result:
        """Roll back; another object each time, as another process would have."""
        blobs = BlobStore(self.root / "store", reserve=0)
        which = {key: more.pop(key) for key in ("to", "at", "medium") if key in more}
        config = more.pop("config", None) or Config(node="local", store=blobs.root)
        store = Store.over(blobs, Trust(None, "local", ()), lambda: config)
        return roll_back(Publisher(store), choose or (lambda: find(store.generations, **which)), **more)[1]

    def check_log(self) -> None:
        """The audit log is whole and knows every generation."""
        found = audit(self.blobs.root, self.generations.newest_first())
        found.check()
        assert found.remarks == []
