"""Tests in a machine of its own: control groups of version 2 with all controllers, systemd, containers.

`scripts/vm test` boots it and runs them inside, as root, with the package installed from its wheel. They may
start units and make control groups as they like. A new test is a function in a module of this folder, or
anywhere else with the mark `vm`; pytest in the machine runs it. While you write one, `scripts/vm start` keeps
a machine for all runs until `scripts/vm stop`.

Everything is five to ten times slower there; `patience`, through which bounds of time go, knows.
"""
