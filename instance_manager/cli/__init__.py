"""The command line: one module per command group, loaded only when it is called.

`instance-manager stub` starts by the hundred in tests and `guard` has to stay tiny, so nothing here may
import more than it needs: the groups are found by name, and their modules import what they use.
"""

from instance_manager.cli.root import main

__all__ = ["main"]
