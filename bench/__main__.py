"""python -m bench: measure every table, or those that are named, and write them as Markdown."""

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from bench.report import Table, missed, render

TABLES = (
    "journal",
    "replay",
    "fanout",
    "wake",
    "growth",
    "sessions",
    "startup",
    "idle",
    "api",
    "tunnel",
    "model",
)  # modules of this folder, in the order they are shown


def main() -> int:
    """The exit code: 0, whatever the figures are; a target that is missed is said in the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default: all")
    parser.add_argument("--output", type=Path, help="the file to write; default: stdout")
    parser.add_argument("--json", action="store_true", help="the medians as JSON, for bench.compare")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, two minutes in all")
    asked = parser.parse_args()
    if unknown := set(asked.tables) - {*TABLES}:
        parser.error(f"there is no table {min(unknown)!r}")
    tables: list[Table] = []
    load = os.getloadavg()[0]
    for name in asked.tables or TABLES:
        began = time.monotonic()
        measured: Table | list[Table] = importlib.import_module(f"bench.{name}").measure(asked.quick)
        tables += measured if isinstance(measured, list) else [measured]
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        if asked.output:  # after each: a table that fails later takes nothing of it along
            asked.output.write_text(render(tables, quick=asked.quick, load=load))
    if asked.json:
        print(
            json.dumps(
                {f"{table.title}: {each.what}": [each.value, each.unit] for table in tables for each in table.figures}
            )
        )
        return 0
    text = render(tables, quick=asked.quick, load=load)
    if not asked.output:
        print(text)
    for line in missed(tables):
        print(f"missed: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
