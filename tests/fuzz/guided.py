"""Coverage-guided: `python -m tests.fuzz.guided TARGET [libFuzzer options] CORPUS` feeds a target with noise.

Ends with status 0 when the time (`-max_total_time=SECONDS`) is over. What a target fails on is left in a file
`crash-…`; put it into the corpus once it is mended.
"""

import logging
import sys

import atheris
import structlog

with atheris.instrument_imports(include=["instance_manager.core", "instance_manager.adapters.journal"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run until the time is over."""
    target = TARGETS[sys.argv[1]]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
