"""``python -m tests.fuzz``: run the targets for a while, repeat an input, or add what was learnt to the tree.

======================  =====================================================================================
``run [TARGET ...]``    each for ``FUZZ_SECONDS`` (300), from the corpus of the tree and of ``build/fuzz``
``replay TARGET FILE``  one input, with its traceback
``keep [TARGET ...]``   the smallest new inputs that reach more of the code, from ``build/fuzz`` into the tree
======================  =====================================================================================
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.fuzz import CORPUS, OUTPUT, ROOT, wait_for_no_disk
from tests.fuzz.targets import NAMES, load, words

_INPUT_SECONDS = 20
_MEMORY_MIB = 1024
_MINIMISE_SECONDS = 30
_MOST_BYTES = {"tars": 16384, "documents": 8192, "media": 4096, "streams": 4096, "requests": 2048, "peers": 2048}
_KEPT_FILE = 3000
_KEPT_FILES = 50
_KEPT_BYTES = 14_000


@dataclass(frozen=True)
class Outcome:
    """What came of one target.

    :param failures: inputs that broke it, as small as they got.
    """

    target: str
    runs: int
    rate: int
    learnt: int
    failures: tuple[Path, ...]

    def __str__(self) -> str:
        found = f"{len(self.failures)} FAILURES" if self.failures else "nothing found"
        return f"{self.target:<10} {self.runs:>9} runs {self.rate:>7}/s {self.learnt:>5} new inputs   {found}"


def run(names: Sequence[str], seconds: int, seed: int) -> int:
    """Each target in turn; 1 where one of them was broken."""
    print(f"FUZZ_SECONDS={seconds} SEED={seed} make fuzz  (each of: {' '.join(names)})", flush=True)
    outcomes = []
    for name in names:
        outcomes.append(_one(name, seconds, seed))
        print(outcomes[-1], flush=True)
    failures = [(outcome.target, file) for outcome in outcomes for file in outcome.failures]
    for target, file in failures:
        print(f"{sys.executable} -m tests.fuzz replay {target} {file.relative_to(ROOT)}")
    return 1 if failures else 0


def _one(name: str, seconds: int, seed: int) -> Outcome:
    output = OUTPUT / name
    corpus, failed = output / "corpus", output / "failed"
    for directory in (corpus, failed):
        directory.mkdir(parents=True, exist_ok=True)
    before, known = set(failed.iterdir()), len(list(corpus.iterdir()))
    log = output / "log"
    options = [f"-max_total_time={seconds}", f"-seed={seed}", *_limits(name), f"-artifact_prefix={failed}/"]
    with log.open("wb") as sink:
        code = _engine(name, [*options, "-print_final_stats=1", str(corpus), str(CORPUS / name)], sink)
    text = log.read_text(encoding="utf-8", errors="replace")
    found = sorted(set(failed.iterdir()) - before)
    runs = [int(number) for number in re.findall(r"stat::number_of_executed_units: +(\d+)", text)]
    rates = [int(number) for number in re.findall(r"stat::average_exec_per_sec: +(\d+)", text)]
    smallest = tuple(_minimise(name, file) for file in found)
    if code and not found:
        # Without a file: an input of the corpus breaks it, or the engine did not begin.
        smallest = (_culprit(name) or log,)
    return Outcome(name, sum(runs), sum(rates), len(list(corpus.iterdir())) - known, smallest)


def _limits(name: str) -> list[str]:
    most = f"-max_len={_MOST_BYTES.get(name, 256)}"
    limits = [most, f"-rss_limit_mb={_MEMORY_MIB}", f"-timeout={_INPUT_SECONDS}"]
    if words(name):
        dictionary = OUTPUT / name / "dictionary"
        lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in words(name))
        dictionary.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")
        limits.append(f"-dict={dictionary}")
    return limits


def _minimise(name: str, file: Path) -> Path:
    """A smaller input with the same end; the file itself where there is none."""
    target = file.with_name(f"small-{file.name}")
    options = ["-minimize_crash=1", f"-max_total_time={_MINIMISE_SECONDS}", f"-exact_artifact_path={target}"]
    with (OUTPUT / name / "log.minimise").open("wb") as sink:
        _engine(name, [*options, f"-timeout={_INPUT_SECONDS}", str(file)], sink)
    return target if target.exists() else file


def _culprit(name: str) -> Path | None:
    for file in sorted([*(OUTPUT / name / "corpus").iterdir(), *(CORPUS / name).iterdir()]):
        command = [sys.executable, "-m", "tests.fuzz", "replay", name, str(file)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=_INPUT_SECONDS)
        except subprocess.TimeoutExpired:
            return file
        if done.returncode:
            return file
    return None


def _engine(name: str, options: Sequence[str], sink: IO[bytes]) -> int:
    """Run the engine to its end; its exit code."""
    command = [sys.executable, "-m", "tests.fuzz.engine", name, *options]
    # Every input of some targets has files of its own: in memory they cost a third.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="apl-fuzz-", dir=memory) as scratch:
        environment = os.environ | {"TMPDIR": scratch}
        return subprocess.run(command, cwd=ROOT, stdout=sink, stderr=sink, env=environment, check=False).returncode


def replay(name: str, files: Sequence[str]) -> int:
    """Run inputs without the engine; an exception is the find."""
    wait_for_no_disk()
    call = load(name)
    for file in files:
        call(Path(file).read_bytes())
        print(f"{file}: everything holds")
    return 0


def keep(names: Sequence[str]) -> int:
    """Merge: of inputs that reach the same, the smallest (libFuzzer's ``-merge``), as far as the tree has room.

    A target that was not fuzzed here has nothing to keep.
    """
    for name in names:
        corpus = OUTPUT / name / "corpus"
        if not corpus.is_dir():
            continue
        with tempfile.TemporaryDirectory(prefix="apl-fuzz-") as merged:
            shutil.copytree(CORPUS / name, merged, dirs_exist_ok=True)
            with (OUTPUT / name / "log.keep").open("wb") as sink:
                _engine(name, ["-merge=1", f"-timeout={_INPUT_SECONDS}", merged, str(corpus)], sink)
            have = {file.name for file in (CORPUS / name).iterdir()}
            kept = list((CORPUS / name).glob("more-*"))
            left, places = _KEPT_BYTES - sum(file.stat().st_size for file in kept), _KEPT_FILES - len(kept)
            for file in sorted(Path(merged).iterdir(), key=lambda file: file.stat().st_size):
                size = file.stat().st_size
                if file.name in have or size > min(left, _KEPT_FILE) or places < 1:
                    continue
                content = file.read_bytes()
                (CORPUS / name / f"more-{hashlib.sha256(content).hexdigest()[:12]}").write_bytes(content)
                left, places = left - size, places - 1
        print(f"{name}: {len(list((CORPUS / name).iterdir()))} inputs, {len(have)} before")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Choose by the first argument."""
    command, *rest = arguments or ["run"]
    os.nice(10)
    if command == "replay" and len(rest) > 1 and rest[0] in NAMES:
        return replay(rest[0], rest[1:])
    if command in ("run", "keep") and set(rest) <= set(NAMES):
        if command == "keep":
            return keep(rest or NAMES)
        # libFuzzer takes 0 for "choose one".
        seed = int(os.environ.get("SEED") or 1 + secrets.randbelow((1 << 31) - 1))
        return run(rest or NAMES, int(os.environ.get("FUZZ_SECONDS") or 300), seed)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
