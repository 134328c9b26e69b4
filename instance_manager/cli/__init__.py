"""The command line: one module per command group, loaded only when it is called.

`instance-manager stub` is started by the hundred in tests, and `guard` must stay tiny, so nothing here may
import more than it needs: commands are found by name, and their modules import what they use. Stub and guard
run without click, which takes longer to load than the stub to listen, and more memory than the guard.
"""

import sys


def main() -> None:
    """Run the command line; the entry point of both console scripts."""
    if sys.argv[1:2] == ["stub"]:
        from instance_manager.stub.__main__ import main as stub

        stub(sys.argv[2:])
    elif sys.argv[1:2] == ["guard"]:
        from instance_manager.guard.__main__ import main as guard

        guard(sys.argv[2:])
    elif sys.argv[1:2] == ["start-spdk-tgt"]:  # what the guard of a v2 pod runs
        from instance_manager.cli.spdk_tgt import start

        start()
    else:
        from instance_manager.cli.root import main as command_line

        command_line()
