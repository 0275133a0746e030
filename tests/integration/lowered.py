"""The appliance's command with other bounds on clients, for tests that must not wait for minutes."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance import limits


def run(values: Mapping[str, float], report: str | None) -> None:
    """Set the bounds and run the command with the words of this process.

    :param report: where workers say how many greenlets they have, as ``<report>.<pid>``; None: nowhere.
    """
    for name, value in values.items():
        assert hasattr(limits, name), name
        setattr(limits, name, value)
    if report is not None:
        _count_greenlets(Path(report))
    sys.argv[0] = "appliance"
    from appliance.cli.main import main

    main()


def _count_greenlets(report: Path) -> None:
    from gevent import Greenlet

    from appliance.server.gunicorn_worker import Worker

    beat = Worker.notify

    def notify(self: Any) -> None:
        beat(self)
        alive = sum(1 for item in gc.get_objects() if isinstance(item, Greenlet) and not item.dead)
        temporary = report.with_suffix(f".{os.getpid()}.new")
        temporary.write_text(str(alive))
        temporary.rename(report.with_suffix(f".{os.getpid()}"))

    Worker.notify = notify
