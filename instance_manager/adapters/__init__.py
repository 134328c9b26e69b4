"""Adapters: one sub-package per outside thing, independent of each other."""
