"""What a figure is, whether it meets its target, and how tables look in Markdown."""

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.servers import versions

_PACKAGES = ("trio", "trio-websocket", "hypercorn", "quart-trio", "h11", "msgspec", "apsw", "anthropic")


@dataclass(frozen=True)
class Figure:
    """One line of a table: what was measured in each round, and what is wanted of the median."""

    what: str
    rounds: Sequence[float]
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def target(self) -> str:
        """The target in words; empty where there is none."""
        if self.at_most is not None:
            return f"<= {show(self.at_most)} {self.unit}".rstrip()
        return f">= {show(self.at_least)} {self.unit}".rstrip() if self.at_least is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None where there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.value >= self.at_least if self.at_least is not None else None

    def row(self) -> str:
        """The line in Markdown."""
        verdict = {True: "yes", False: "**no**", None: ""}[self.met]
        spread = (
            f"{len(self.rounds)}: {show(min(self.rounds))} - {show(max(self.rounds))}" if len(self.rounds) > 1 else "1"
        )
        return f"| {self.what} | {show(self.value)} {self.unit}".rstrip() + f" | {self.target} | {verdict} | {spread} |"


@dataclass(frozen=True)
class Table:
    """One measurement with its peers."""

    title: str
    how: str
    figures: Sequence[Figure]


def show(value: float) -> str:
    """Three digits that count, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def missed(tables: Sequence[Table]) -> Iterator[str]:
    """The figures that miss their target, one line each."""
    for table in tables:
        for figure in table.figures:
            if figure.met is False:
                yield f"{table.title}: {figure.what}: {show(figure.value)} {figure.unit}, target {figure.target}"


def render(tables: Sequence[Table], *, quick: bool, load: float) -> str:
    """The whole report."""
    parts = ["# Figures", "", *_circumstances(quick=quick, load=load)]
    for table in tables:
        parts += ["", f"## {table.title}", "", table.how, ""]
        parts += ["| what | median | target | met | rounds: lowest - highest |", "| --- | --- | --- | --- | --- |"]
        parts += [figure.row() for figure in table.figures]
    return "\n".join(parts) + "\n"


def _circumstances(*, quick: bool, load: float) -> Iterator[str]:
    """When, on what and of what."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    yield f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}" + (", a quick run" if quick else "")
    yield f"- {_cpu_model()}, {os.cpu_count()} cores, load {load:.1f} before; {platform.system()} {platform.release()}"
    yield f"- {platform.python_implementation()} {platform.python_version()}, {packages}"
    yield f"- Peers: {versions()}"
    yield ""
    yield "Server on one core, load on another, loopback. Only ratios within one run can be compared between machines."


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
