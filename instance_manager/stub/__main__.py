"""`python -m instance_manager.stub`, and what `instance-manager stub` runs."""

import os
import sys
from collections.abc import Sequence

from instance_manager.platform import descriptors, signals
from instance_manager.platform.contract import NAME_VARIABLE
from instance_manager.stub.helpers import start_helper
from instance_manager.stub.instance import Instance
from instance_manager.stub.listener import AddressError, split_address
from instance_manager.stub.options import parse


def main(argv: Sequence[str]) -> None:
    """Run a stub with the arguments after `stub`, and end the process with it: this does not return.

    Raises:
        SystemExit: The arguments are wrong (2), or `--help` is among them (0).
    """
    descriptors.open_standard()
    signals.release()  # a guard has held them back for the start of a daemon
    status = _live(argv)
    # Finalizing the interpreter takes longer than the stub's start, and nothing is left to flush.
    os._exit(status)


def _live(argv: Sequence[str]) -> int:
    options = parse(argv)
    name = os.environ.get(NAME_VARIABLE, "unnamed")
    try:
        # The package alone loads nothing; what it is for is imported with the first health check.
        import h2  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        sys.stderr.write("instance-manager stub: needs h2: pip install 'instance-manager[stub]'\n")
        return 1
    try:
        split_address(options.listen)
        helpers = [start_helper() for _ in range(options.helpers)]
        return Instance(options, name, helpers).run()
    except (AddressError, OSError) as error:
        sys.stderr.write(f"instance-manager stub: {error}\n")
        return 1


if __name__ == "__main__":
    main(sys.argv[1:])
