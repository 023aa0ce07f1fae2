"""The server of the example as a process that tests stop, restart and disturb."""

import os, signal, subprocess, sys

import ipcq_tcp, ipcq_tcp_server


class ServerProcess:
    """The server, with its state in a file; programs that are started later find it by IPCQ_TCP."""

    def __init__(self, state: object) -> None:
        self.state, self.port = state, 0
        self.process: subprocess.Popen[str] | None = None
        self.start()
        os.environ["IPCQ_TCP"] = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.process is None:
            command = [sys.executable, ipcq_tcp_server.__file__, str(self.port), str(self.state)]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            with self.process.stdout as output:
                self.port = int(output.readline())

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stall(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def drop_replies(self, count: int, after: int = 0) -> None:
        self._ask("drop", count=count, after=after)

    def requests(self) -> int:
        return self._ask("figures")["requests"]

    def _ask(self, operation: str, **content: object) -> dict:
        return ipcq_tcp.TcpBackend().ask(operation, **content)
