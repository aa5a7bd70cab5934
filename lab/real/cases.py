"""Runs the cases of a suite, one after the other, and tells of those that fail."""

import sys


def run(cases, wrong):
    """`cases`: pairs of a name and what to call. `wrong`: what a case that fails raises. Ends the program."""
    failed = 0
    for name, case in cases:
        try:
            case()
        except wrong as error:
            failed += 1
            print(f"FAILED {name}: {error!r:.2000}")
    print(f"{len(cases) - failed} of {len(cases)} cases passed")
    sys.exit(bool(failed))
