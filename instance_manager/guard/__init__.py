"""The guard: starts the daemon, starts it again when it dies, and adopts the processes that it leaves.

It must outlive everything, so it is small: only what is needed of the standard library, one thread, no files
open but a pidfd. pathlib, asyncio, subprocess and dataclasses would each cost it 1 to 5 MiB.
"""
