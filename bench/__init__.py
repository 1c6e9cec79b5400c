"""The figures of the README, measured: `python -m bench --output bench/results.md` (or `make bench`, `make bench-quick`).

One file per table, each with a `measure(quick)`; report.py says what a figure is and how it looks, running.py starts, pins and
reads processes, wire.py is the clients' side in plain sockets. servers.py starts footlight's fan-out and its peers (peers/, in an
environment of their own: `make peers`), load.py is the one load generator for all of them. compare.py compares two commits. The
measured process has the first core to itself, whatever loads it the second one. Figures are medians of rounds; a peer or a limit
stands in the same run, so compare within one run.
"""
