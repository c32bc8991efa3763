"""Starts `vmae` commands as cheap processes, to be killed: PyTorch is imported once, then forked.

This file also runs as a program, the parent of those processes; tests talk to it through `Nursery`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until `condition` holds; fail the test if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.01)


def free_port() -> int:
    """A port below those that systems hand out for 0, so that no other process gets it meanwhile."""
    chance = random.SystemRandom()  # tests seed the other one, in two processes alike
    while True:
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", chance.randrange(20_000, 32_000)))
            except OSError:
                continue
            return free.getsockname()[1]


class Nursery:
    """The parent of all processes of a test. It never trains itself, so forking it is safe."""

    def __enter__(self) -> Nursery:
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parent.stdin and self._parent.stdout
        self._parent.stdin.close()
        self._parent.wait(30)
        self._parent.stdout.close()

    def start(self, log: Path, *arguments: str, env: dict[str, str] | None = None) -> int:
        """Start `vmae ARGUMENTS` with its output in `log`; returns its process id."""
        return self._ask({"start": arguments, "log": str(log), "env": env or {}})

    def start_group(self, log: Path, world: int, *arguments: str, **env: str) -> list[int]:
        """Start `world` processes of one run, as a launcher would."""
        port = free_port()
        local = "lo0" if sys.platform == "darwin" else "lo"
        shared = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
                  "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": local} | env  # fmt: skip
        return [
            self.start(
                log.with_suffix(f".{rank}"),
                *arguments,
                env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(world)
        ]

    def wait(self, process: int, seconds: float = 60) -> int:
        """The exit status of a process, negative for a signal. Raises TimeoutError."""
        status = self._ask({"wait": process, "seconds": seconds})
        if status is None:
            raise TimeoutError(f"process {process} is still running after {seconds} s")
        return status

    def _ask(self, question: dict) -> int:
        assert self._parent.stdin and self._parent.stdout
        self._parent.stdin.write(json.dumps(question) + "\n")
        self._parent.stdin.flush()
        return json.loads(self._parent.stdout.readline())


def _serve() -> None:
    import torch
    import torch._dynamo  # the first optimizer would import it

    import vmae.train.finetune
    import vmae.train.pretrain  # noqa: F401 - imported once, shared by all children

    torch.set_num_threads(1)
    started = set()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = _wait(question["wait"], question["seconds"])
            if answer is not None:
                started.discard(question["wait"])
        else:
            answer = os.fork()
            if answer == 0:
                _become(question)
            started.add(answer)
        print(json.dumps(answer), flush=True)
    for process in started:  # left over from a failed test; they would slow down the rest
        os.kill(process, signal.SIGKILL)


def _wait(process: int, seconds: float) -> int | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def _become(question: dict) -> None:
    """In the child: run the command and exit, without returning to the parent's loop."""
    status = 70
    try:
        os.environ.update(question["env"])
        file = os.open(question["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(file, number)
        os.close(0)
        from vmae.cli.main import main

        status = main(question["start"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
    os._exit(0)  # at once: there is nothing to save, and taking PyTorch down can last
