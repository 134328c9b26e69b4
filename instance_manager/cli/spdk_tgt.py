"""The programs that a Longhorn manager's pods for the v2 data engine call, `start-spdk-tgt` before all.

They say what is missing: nothing here starts SPDK's target yet.
"""

import shutil
import sys

from instance_manager.guard.log import Log

PROGRAM = "spdk_tgt"


def start() -> None:
    """Say why the v2 data engine cannot be started here; does not return.

    Raises:
        SystemExit: with 2, which tells the guard that another attempt would end alike.
    """
    reason = "this image does not contain spdk_tgt, which the v2 data engine needs"
    if shutil.which(PROGRAM):
        reason = "spdk_tgt is in this image, but this instance manager cannot start it yet"
    advice = "; give v2 nodes the instance manager image of Longhorn, or turn the v2 data engine off"
    Log().error("cannot start", reason=reason + advice, exit_code=2)
    sys.exit(2)


def prestop() -> None:
    """Say that there is nothing to stop: what is not started needs no end."""
    sys.stdout.write("nothing to stop: this instance manager has not started spdk_tgt\n")
