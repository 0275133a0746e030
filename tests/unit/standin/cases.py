"""The registries.yaml files whose translation is held as golden files, under the name of their directory.

To write them anew after a deliberate change: ``python -m tests.unit.standin.cases``. Judge the difference by the rules of
K3s, never by the program: ``measured`` is what a real K3s v1.36.3 wrote.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.lab.standin import translate

GOLDEN = Path(__file__).parent / "golden"

CASES = {
    "measured": """
        mirrors:
          "*":            {endpoint: ["http://127.0.0.1:5000"]}
          ksd.test.com:   {endpoint: ["http://127.0.0.1:5000"]}
    """,
    "named-null": """
        mirrors:
          ksd.test.com:
    """,
    "wildcard-null": """
        mirrors:
          "*":
    """,
    "worked-example": """
        mirrors:
          "*":
          docker.io:
            endpoint:
              - http://127.0.0.1:5000
    """,
    "private": """
        mirrors:
          reg.site:5443:
            endpoint:
              - https://store.site/prefix/v2
              - store.site
              - https://store.site/
              - https://reg.site:5443
            rewrite:
              "^b/(.*)": "second/$1"
              "^a/(.*)": "first/$1"
          localhost:5001:
            endpoint: ["127.0.0.1:5001"]
          127.0.0.1:5002:
        configs:
          reg.site:5443:
            auth: {username: u, password: p}
            tls: {ca_file: /etc/ssl/site.crt, cert_file: /etc/ssl/c.crt, key_file: /etc/ssl/c.key}
          store.site:
            tls: {insecure_skip_verify: true}
          alone.site:
            tls: {ca_file: "/etc/ssl/with \\"quotes\\".crt"}
          quiet.site:
    """,
    "wildcard-config": """
        mirrors:
          "*": {endpoint: ["http://127.0.0.1:5000"]}
        configs:
          "*":
            tls: {insecure_skip_verify: true}
    """,
}


def variants() -> Iterator[tuple[str, str, bool, bool]]:
    """Golden directory, case, embedded registry on, default endpoint disabled."""
    for case in CASES:
        for embedded in (True, False):
            for disabled in (True, False):
                name = f"{case}/{'embedded' if embedded else 'plain'}-{'disabled' if disabled else 'default'}"
                yield name, case, embedded, disabled


def rendered(case: str, embedded: bool, disabled: bool) -> dict[str, str]:
    """What the stand-in writes for a case."""
    registries = translate.parse(yaml.safe_load(CASES[case]))
    return translate.hosts_files(registries, embedded_registry=embedded, disable_default_endpoint=disabled)


def held(name: str) -> dict[str, str]:
    """What the golden files say; no directory means that K3s writes nothing."""
    return {item.stem: item.read_text("utf-8") for item in (GOLDEN / name).glob("*.toml")}


def main() -> None:
    """Write all golden files anew."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, case, embedded, disabled in variants():
        for host, text in rendered(case, embedded, disabled).items():
            target = GOLDEN / name / f"{host}.toml"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
