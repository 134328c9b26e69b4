"""The stub's life: it starts, gets ready, logs, and ends as its options say."""

import functools
import os
import signal
from collections.abc import Sequence

from instance_manager.stub.helpers import STOP_SIGNALS
from instance_manager.stub.listener import AddressError, Listener
from instance_manager.stub.loop import READ, Loop
from instance_manager.stub.options import Options
from instance_manager.stub.output import NumberedLines, Output

SIGNAL_BYTES = 64


class Instance:
    """One stub; `run` is its whole life."""

    def __init__(self, options: Options, name: str, helpers: Sequence[int] = ()) -> None:
        self._options = options
        self._helpers = helpers
        self._title = f"stub {options.kind} {name}"
        self._loop = Loop()
        numbered = NumberedLines(options.log_rate, options.log_line_bytes, options.log_lines)
        self._output = Output(self._loop, numbered)
        self._stopping = False
        self._failure: AddressError | None = None

    def run(self) -> int:
        """Live until a signal or an option ends it; returns the exit status.

        Raises:
            AddressError: The address to listen on cannot be used.
        """
        self._handle_signals()
        self._plan()
        status = self._loop.run()
        self._output.flush()
        if self._failure:
            raise self._failure
        return status

    def _handle_signals(self) -> None:
        """Turn the stop signals into events of the loop, and ignore what is to be ignored."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._loop.watch(reader, READ, functools.partial(self._signalled, reader))
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)  # the wakeup descriptor reports it
        for number in self._options.ignore:
            signal.signal(number, signal.SIG_IGN)

    def _plan(self) -> None:
        options = self._options
        for pid in self._helpers:
            self._output.line(f"helper pid={pid}")
        if options.crash_after is not None:
            self._loop.after(options.crash_after, self._crash)
        if options.exit is not None or options.exit_after is not None:
            self._loop.after(options.exit_after or 0.0, self._exit)
        if options.never_ready:
            self._say("never listens")
        elif options.ready_after:
            self._say(f"listens in {options.ready_after:g} s")
            self._loop.after(options.ready_after, self._listen)
        elif options.exit is None or options.exit_after is not None:
            self._listen()

    def _say(self, what: str) -> None:
        self._output.line(f"{self._title} {what} pid={os.getpid()}")

    def _listen(self) -> None:
        try:
            listener = Listener(self._loop, self._options.listen, serving=not self._options.not_serving)
        except AddressError as error:
            self._failure = error
            self._loop.end(1)
        else:
            self._say(f"listening on {listener.address}")

    def _signalled(self, reader: int) -> None:
        number = os.read(reader, SIGNAL_BYTES)[0]
        if self._stopping:
            return
        self._stopping = True
        delay = self._options.stop_after
        self._say(f"ending on {signal.Signals(number).name}" + (f" in {delay:g} s" if delay else ""))
        if delay:
            self._loop.after(delay, lambda: self._loop.end(self._options.stop_exit))
        else:
            self._loop.end(self._options.stop_exit)

    def _exit(self) -> None:
        code = self._options.exit or 0
        self._say(f"exiting with code {code}")
        self._loop.end(code)

    def _crash(self) -> None:
        number = signal.Signals[self._options.crash_signal]
        self._say(f"crashing with {number.name}")
        self._output.flush()
        _die_of(number)


def _die_of(number: signal.Signals) -> None:
    import resource  # noqa: PLC0415 - only a crash needs it

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a thousand crashes in tests leave no thousand cores
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
