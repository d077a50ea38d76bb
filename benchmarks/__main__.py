"""``python -m benchmarks NAME [--quick]``: start what it needs, measure, print a table and one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys

from rich.console import Console

from benchmarks.harness import Effort, Report

BENCHMARKS = {
    "access": "benchmarks.access",
    "aggregate": "benchmarks.aggregate",
    "bulk": "benchmarks.bulk",
    "connections": "benchmarks.connections",
    "insights": "benchmarks.insights",
    "isolated-read": "benchmarks.isolated_read",
    "search": "benchmarks.search",
    "tenants": "benchmarks.tenants",
}


def main() -> int:
    """Run the benchmark that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS), nargs="?", help="which; all of them by default")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds at the same scale")
    arguments = parser.parse_args()
    console = Console(stderr=False, width=None if sys.stdout.isatty() else 110)
    names = [arguments.name] if arguments.name else sorted(BENCHMARKS)
    for name in names:
        module = importlib.import_module(BENCHMARKS[name])
        report: Report = asyncio.run(module.run(Effort.of(quick=arguments.quick), console))
        sys.stdout.write(report.line() + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
