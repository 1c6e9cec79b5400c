"""Two commits under the same benchmarks: `python -m bench.compare REV [REV] TABLE…`; one REV: against the tree as it is.

The commits' worktrees lie in a temporary folder; both get the bench/ of this tree. Rounds alternate, so that a machine that
becomes slower does so for both. What is printed are the ratios second / first: their median, and the lowest and the highest.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.__main__ import TABLES
from bench.report import show
from bench.servers import PEERS, ROOT

Medians = dict[str, tuple[float, str]]  # what -> median of one run, and its unit


def main() -> int:
    """The exit code: 0; what the ratios mean is for a reader to say."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("words", nargs="+", metavar="REV [REV] TABLE", help=f"tables: {', '.join(TABLES)}")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; default: 3")
    parser.add_argument("--full", action="store_true", help="long runs instead of quick ones")
    asked = parser.parse_args()
    revisions = [word for word in asked.words if word not in TABLES]
    tables = [word for word in asked.words if word in TABLES]
    if not 1 <= len(revisions) <= 2 or not tables:
        parser.error("one or two revisions and at least one table")
    with TemporaryDirectory(prefix="footlight-compare-") as folder, _trees(revisions, Path(folder)) as trees:
        runs: list[list[Medians]] = [[] for _ in trees]
        for at in range(asked.rounds):
            for tree, found in zip(trees, runs, strict=True):
                found.append(_run(tree, tables, quick=not asked.full))
            print(f"round {at + 1} of {asked.rounds}", file=sys.stderr)
    names = [*revisions, "the tree as it is"][:2]
    print("\n".join(report(names, *runs)))
    return 0


@contextmanager
def _trees(revisions: Sequence[str], folder: Path) -> Iterator[list[Path]]:
    """A worktree for each, with this tree's bench/ and peers; one revision: and this tree itself."""
    made: list[Path] = []
    try:
        for at, revision in enumerate(revisions):
            tree = folder / str(at)
            _git("worktree", "add", "--quiet", "--detach", str(tree), revision)
            made.append(tree)
            shutil.rmtree(tree / "bench", ignore_errors=True)
            shutil.copytree(ROOT / "bench", tree / "bench")
            if PEERS.exists():
                (tree / PEERS.name).symlink_to(PEERS)
        yield made if len(made) == 2 else [*made, ROOT]
    finally:
        for tree in made:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> None:
    subprocess.run(["git", *words], check=True, cwd=ROOT)


def _run(tree: Path, tables: Sequence[str], *, quick: bool) -> Medians:
    """One run in a tree: what lies in the working folder is imported before what is installed."""
    command = [sys.executable, "-m", "bench", "--json", *(["--quick"] if quick else []), *tables]
    done = subprocess.run(command, cwd=tree, check=True, stdout=subprocess.PIPE, text=True)
    found: Medians = {what: (value, unit) for what, (value, unit) in json.loads(done.stdout).items()}
    return found


def report(names: Sequence[str], first: Sequence[Medians], second: Sequence[Medians]) -> Iterator[str]:
    """The comparison as a table in Markdown; of what both have."""
    yield f"| what | {names[0]} | {names[1]} | ratio | lowest - highest |"
    yield "| --- | --- | --- | --- | --- |"
    for what, (_, unit) in first[0].items():
        if what not in second[0]:
            continue
        before, after = ([run[what][0] for run in runs] for runs in (first, second))
        ratios = [new / old for old, new in zip(before, after, strict=True) if old]
        if ratios:
            spread = f"{show(min(ratios))} - {show(max(ratios))}"
            yield f"| {what} ({unit or 'count'}) | {show(median(before))} | {show(median(after))} | {show(median(ratios))} | {spread} |"


if __name__ == "__main__":
    sys.exit(main())
