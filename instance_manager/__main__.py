"""`python -m instance_manager`: the command line."""

from instance_manager.cli import main

main()
