"""The guard: starts the daemon, restarts it when it dies, and adopts the processes it leaves behind.

It must outlive everything, so it is small: few modules of the standard library, one thread, and no open files
but a pidfd. pathlib, asyncio, subprocess and dataclasses would each cost it 1 to 5 MiB.
"""
