"""Appending to journals: what one core can write, and how long one append takes."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.report import Figure, Table, percentile
from bench.running import SERVER_CORE, pinned
from daemon.config import Config
from daemon.journal import events, frames
from daemon.journal.journal import Journal, open_journal
from daemon.journal.recovery import RECORD

EVENT_BYTES = 500


def event_data(session_id: str, offset: int = 1, size: int = EVENT_BYTES) -> dict[str, Any]:
    """The data of a `claude_text` event that is `size` bytes of JSON in all."""
    bare = events.encode(session_id, "claude_text", {"turn": 1, "block": 0, "text": ""}, offset)
    return {"turn": 1, "block": 0, "text": "x" * (size - len(bare))}


@contextmanager
def open_journals(folder: Path, count: int) -> Iterator[list[Journal]]:
    """That many empty journals, as sessions have them."""
    with ExitStack() as stack:
        limit = Config().journal_limit
        opened = (open_journal(f"bench{at:04}", folder / str(at), limit=limit) for at in range(count))
        yield [stack.enter_context(journal)[0] for journal in opened]


def measure(quick: bool) -> Table:
    """1, 50 and 500 journals in turn, and the two writes of an append alone."""
    rounds, total = (3, 10_000) if quick else (5, 50_000)
    figures = []
    for count in (1, 50, 500):
        results = [_appends(count, total) for _ in range(rounds)]
        target = count == 50
        name = f"{count} journal{'s' if count > 1 else ''}"
        rates, waits = [1e6 / cpu for cpu, _ in results], [wait for _, wait in results]
        figures += [
            Figure(f"{name}: events a second of CPU", rates, "/s", at_least=60_000 if target else None),
            Figure(f"{name}: CPU for one event", [cpu for cpu, _ in results], "us"),
            Figure(f"{name}: p99 of one append", waits, "ms", at_most=2 if target else None),
        ]
    figures.append(Figure("limit: the two writes alone, one file", [_writes(total) for _ in range(rounds)], "us"))
    how = f"{total:,} events of {EVENT_BYTES} bytes of JSON a round, the journals in turn; `Journal.append` encodes, frames, writes the frame and its index record, and shows it to the (absent) clients."
    return Table("Journal: append", how, figures)


def _appends(count: int, total: int) -> tuple[float, float]:
    """CPU us for one event, and the p99 of one append in ms."""
    with TemporaryDirectory(prefix="footlight-bench-") as folder, open_journals(Path(folder), count) as journals:
        data = event_data(journals[0].session_id, offset=total // count)
        clock = time.perf_counter_ns
        for journal in journals:
            journal.append("claude_text", **data)
        waits = []
        with pinned(SERVER_CORE):
            cpu = time.process_time_ns()
            for at in range(total):
                began = clock()
                journals[at % count].append("claude_text", **data)
                waits.append(clock() - began)
            cpu = time.process_time_ns() - cpu
    return cpu / total / 1e3, percentile(waits, 0.99) / 1e6


def _writes(total: int) -> float:
    """CPU us for what an append cannot do without: the frame and its record, written to their files."""
    ready, record = frames.frame(b"x" * EVENT_BYTES), bytes(RECORD.size)
    with TemporaryDirectory(prefix="footlight-bench-") as folder:
        fds = [os.open(f"{folder}/{name}", os.O_RDWR | os.O_CREAT) for name in ("frames", "index")]
        try:
            with pinned(SERVER_CORE):
                cpu = time.process_time_ns()
                for at in range(total):
                    os.pwrite(fds[0], ready, at * len(ready))
                    os.pwrite(fds[1], record, at * len(record))
                return (time.process_time_ns() - cpu) / total / 1e3
        finally:
            for fd in fds:
                os.close(fd)
