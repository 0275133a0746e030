"""What overrides Ansible's own judgement of a task says why, where it does."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OVERRIDES = ("failed_when: false", "changed_when: true", "ignore_errors: true", "ignore_unreachable: true")


def test_every_override_has_its_reason_above_it() -> None:
    """One reason may stand above several of them."""
    found, bare = 0, []
    for path in sorted([*ROOT.glob("roles/*/*/*.yml"), *ROOT.glob("playbooks/*.yml"), ROOT / "site.yml"]):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        for number, line in enumerate(lines):
            if line in OVERRIDES:
                found += 1
                above = next(before for before in reversed(lines[:number]) if before not in OVERRIDES)
                if not above.startswith("# "):
                    bare.append(f"{path.relative_to(ROOT)}:{number + 1}: {line}")
    assert found > 40
    assert bare == []
