"""Thousands of damaged DICOM files through the whole ingest, and what became of them.

    python -m benchmarks.mutations [COUNT]

Runs tests/delineate/studies/test_mutations.py with that many files: it fails on a crash, on a file
that takes over 1 GB, and on an outcome without a name. Prints the outcomes in Markdown, and ends
with status 1 also when a file took over 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

MAY_TAKE_S = 10.0


def main() -> int:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=5000)
    count = str(parser.parse_args().count)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "tests/delineate/studies/test_mutations.py"],
        env={**os.environ, "DELINEATE_MUTATIONS": count},
        capture_output=True,
        text=True,
        check=False,
    )
    told = next((line for line in run.stdout.splitlines() if line.startswith("{")), None)
    if run.returncode != 0 or told is None:
        print(run.stdout, file=sys.stderr)
        return 1
    figures = json.loads(told)
    print(f"| outcome of {count} files | files |\n|---|---|")
    for code, files in sorted(figures["outcomes"].items(), key=lambda item: -item[1]):
        print(f"| `{code}` | {files} |")
    print(f"\nslowest file {figures['slowest_s']:.1f} s, ", end="")
    print(f"most memory of a reading process {figures['peak_bytes'] / 1024**2:.0f} MiB")
    return int(figures["slowest_s"] > MAY_TAKE_S)


if __name__ == "__main__":
    sys.exit(main())
