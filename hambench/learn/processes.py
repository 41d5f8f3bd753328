"""The processes that train one model together, found by the variables that torchrun sets.

Every process computes the same course: what decides it (clock, requests to stop, files) is what
the first process sees, and what adds up (sums of losses, errors, gradients) is summed over all.
Only the first one writes files. A process alone has an object of the same kind that does nothing.

Small words between the processes go through a key-value store, in which nobody waits without
looking up now and then: a process that fails leaves its reason there, for the others to end with.
Tensors go through gloo (CPU) or NCCL (CUDA).
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, distributed, nn

from hambench.errors import ConfigError, HambenchError, RunError
from hambench.learn.interrupts import Interrupted

T = TypeVar("T")

_MEETING: Final = timedelta(minutes=5)  # for all processes to have started and found each other
_COMPUTING: Final = timedelta(minutes=30)  # between two processes that compute the same step
_LOOK: Final = 0.25  # seconds between two looks of a process that waits
_ENDING: Final = 60.0  # seconds in which the first process writes down how the run ended
_PARTING: Final = 3.0  # seconds for which it then keeps the store for the others

_FAILED: Final = "failed"  # key of the first failure
_BROKEN: Final = re.compile(r"gloo|NCCL|TCPStore|Connection (closed|reset)|Broken pipe", re.I)


class LostError(RunError):
    """A process can no longer be reached; why is not known here."""


class Processes:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: number of this one.
        size: how many there are.
        local_rank: number of this one on its machine.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Any = None,
        control: Any = None,
    ) -> None:  # fmt: skip
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._store, self._control = store, control
        self._turns = self._courses = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process; the others do not call it.

        Args:
            make: may take long. What it returns can be pickled; no tensors on a GPU.

        Raises:
            HambenchError: what it raised, in all processes.
        """
        if not self.several:
            return make()
        made: list[T | HambenchError | None] = [None]
        failed: BaseException | None = None
        if self.first:
            try:
                made = [make()]
            except HambenchError as error:
                made, failed = [error], error
        self._turn()
        with _reached():
            distributed.broadcast_object_list(made, src=0, group=self._control)
        if failed is not None:
            raise failed
        (found,) = made
        if isinstance(found, HambenchError):
            raise found
        return found  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in each process, the first one before the others.

        For what finds the work of the first one done, such as files it has written.
        """
        if not self.several:
            return make()
        made: list[T] = []
        self.from_first(lambda: made.append(make()))
        return made[0] if self.first else make()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each."""
        if not self.several:
            return tensor
        total = tensor.clone()
        with _reached():
            distributed.all_reduce(total)
        return total

    def share(self, module: nn.Module) -> None:
        """Give all processes the parameters and buffers of the first."""
        if not self.several:
            return
        with torch.no_grad(), _reached():
            for tensor in chain(module.parameters(), module.buffers()):
                given = tensor.detach().clone(memory_format=torch.contiguous_format)
                distributed.broadcast(given, src=0)
                if not self.first:
                    tensor.copy_(given)

    def agreed(self, elapsed: float, asked: str | None) -> tuple[float, str | None]:
        """Seconds of the first process, and the signal by which any of them was asked to stop.

        On the CPU: nothing waits for a GPU.

        Args:
            elapsed: seconds here, not negative.
            asked: name of a signal that arrived here.
        """
        if not self.several:
            return elapsed, asked
        number = 0 if asked is None else int(signal.Signals[asked])
        told = torch.tensor([elapsed if self.first else 0.0, number], dtype=torch.float64)
        with _reached():
            distributed.all_reduce(told, distributed.ReduceOp.MAX, group=self._control)
        seconds, number = float(told[0]), int(told[1])
        return seconds, signal.Signals(number).name if number else None

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails inside is left to the others, and what failed elsewhere is raised here.

        Raises:
            RunError: another process failed, with its number and its reason.
            Interrupted: another one was interrupted.
        """
        try:
            yield
        except BaseException as error:
            if not self.several:
                raise
            if _is_broken(error):
                raise self._reason() from error
            self._leave(error)
            raise

    @contextmanager
    def course(self) -> Iterator[None]:
        """`together`, for the whole of a run: no process is gone before its end is written down.

        Whoever started the processes ends all of them when one has ended.
        """
        stays = True
        self._courses += 1
        try:
            with self.together():
                yield
        except BaseException as error:
            stays = isinstance(error, Interrupted | KeyboardInterrupt)
            raise
        finally:
            if self.several:
                self._part(stays)

    def _turn(self) -> None:
        """Wait until the first process is here, for hours if need be."""
        self._turns += 1
        key = f"turn/{self._turns}"
        if self.first:
            with _reached():
                self._store.set(key, "")
        else:
            self._wait(key)

    def _wait(self, key: str, seconds: float = float("inf")) -> None:
        """Until somebody has set a key. Signals are heard meanwhile.

        Raises:
            LostError: a process failed; or the first one, which keeps the keys, is gone.
        """
        until, pause = time.monotonic() + seconds, 0.001
        while time.monotonic() < until:  # the store's own wait hears no signals
            with _reached():
                if self._store.check([key]):
                    return
                if self._store.check([_FAILED]):
                    raise LostError("another process failed")
            time.sleep(pause)
            pause = min(2 * pause, _LOOK)

    def _leave(self, error: BaseException) -> None:
        """Leave the reason of a failure to the others, unless one of them was faster."""
        kind = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
        said = (
            str(error) if isinstance(error, HambenchError) else f"{type(error).__name__}: {error}"
        )
        left = json.dumps({"rank": self.rank, "kind": kind, "said": said})
        with suppress(RuntimeError):
            self._store.compare_set(_FAILED, "", left)

    def _reason(self) -> HambenchError:
        """Why another process cannot be reached."""
        left: dict[str, Any] = {}
        try:
            if self._store.check([_FAILED]):
                left = json.loads(self._store.get(_FAILED))
        except RuntimeError:
            return LostError(
                f"process {self.rank} of {self.size} lost the first one, whose own message and "
                "status.json say why it ended"
            )
        if left.get("rank", self.rank) == self.rank:
            return LostError(
                f"process {self.rank} of {self.size} lost the connection to another one, which "
                "left no reason; what it said last, or who ended it (memory, a signal), tells more"
            )
        if left["kind"] == "interrupted":
            return Interrupted(left["said"])
        return RunError(f"process {left['rank']} of {self.size} failed: {left['said']}")

    def _part(self, stays: bool) -> None:
        """Wait for the end of the others, each for as long as it is of use."""
        over, parted = f"over/{self._courses}", f"parted/{self._courses}"
        with suppress(RuntimeError, RunError):  # they are gone already
            if self.first:
                self._store.set(over, "")
                until = time.monotonic() + _PARTING
                while self._store.add(parted, 0) < self.size - 1 and time.monotonic() < until:
                    time.sleep(0.02)
                return
            if stays:
                self._wait(over, _ENDING)
            self._store.add(parted, 1)


ALONE: Final = Processes()
"""One process without others."""

_JOINED: dict[tuple[str, ...], Processes] = {}


def join(nodes: int, gpus: int, device: str) -> Processes:
    """Find the other processes of a run; made once, later calls return the same.

    Args:
        nodes: machines.
        gpus: processes on each.
        device: ``auto``, ``cpu`` or ``cuda``, as the run has it.

    Raises:
        ConfigError: other processes were started than are asked for, or two would share a GPU.
        RunError: they do not find each other within some minutes.
    """
    size, wanted = int(os.environ.get("WORLD_SIZE") or 1), nodes * gpus
    if size != wanted:
        raise ConfigError(
            f"nodes={nodes} gpus={gpus} asks for {wanted} process{'es' * (wanted > 1)}, and there "
            f"{'is' if size == 1 else 'are'} {size} (WORLD_SIZE); start them with `hambench run`, "
            f"or with `torchrun --nnodes {nodes} --nproc-per-node {gpus} -m hambench run`"
        )
    if size == 1:
        return ALONE
    place = tuple(_variable(name) for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK"))
    if place not in _JOINED:
        address, port, rank, local_rank = place
        store = _meet(address, int(port), int(rank), size)
        uses_gpu = device != "cpu" and torch.cuda.is_available()
        if uses_gpu:
            torch.cuda.set_device(gpu_of(int(local_rank)))
        backend = "cpu:gloo,cuda:nccl" if uses_gpu else "gloo"
        with _reached():
            distributed.init_process_group(
                backend, store=distributed.PrefixStore("data", store), rank=int(rank),
                world_size=size, timeout=_COMPUTING,
            )  # fmt: skip
            control = distributed.new_group(backend="gloo", timeout=_COMPUTING)
        if int(rank) > 0:  # what there is to tell, the first one tells
            logging.getLogger("hambench").setLevel(logging.ERROR)
        _JOINED[place] = Processes(int(rank), size, int(local_rank), store, control)
        if uses_gpu:
            _refuse_shared_gpus(size, control)
    return _JOINED[place]


def gpu_of(local_rank: int) -> int:
    """Number of the GPU of a process on its machine, where it may see its own one alone.

    Raises:
        ConfigError: there is none for it.
    """
    count = torch.cuda.device_count()
    number = 0 if count == 1 else local_rank
    if number >= count:
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own: torch sees {count}; "
            f"set gpus={count}, or device=cpu"
        )
    return number


def is_first() -> bool:
    """Whether this process, by its variables alone, is the one that writes and speaks."""
    return int(os.environ.get("RANK") or 0) == 0


def _meet(address: str, port: int, rank: int, size: int) -> Any:
    """The store of all processes, each of which has come to it.

    Raises:
        RunError: the address is not known, or not all come in time.
    """
    where = f"MASTER_ADDR:MASTER_PORT {address}:{port}"
    try:
        socket.getaddrinfo(address, port)
    except OSError as error:
        raise RunError(
            f"process {rank} of {size} does not know the host of {where} ({error}); give a name or "
            "address of the first node that all nodes know"
        ) from None
    # torchrun keeps the store itself, and sets it up anew when it starts the processes again
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        server = distributed.TCPStore(
            address, port, is_master=rank == 0 and not kept, timeout=_MEETING,
            wait_for_workers=False,
        )  # fmt: skip
        store = distributed.PrefixStore(f"hambench/{attempt}", server)
        store.set(f"here/{rank}", "")
        store.wait([f"here/{k}" for k in range(size)], _MEETING)
    except RuntimeError as error:
        raise RunError(
            f"process {rank} of {size} did not meet the others at {where} within "
            f"{_MEETING.seconds // 60} minutes ({_line(error)}); see whether all of them "
            "were started, and whether that port of the first node is free and open to the others"
        ) from None
    return store


def _refuse_shared_gpus(size: int, control: Any) -> None:
    """ConfigError where two processes have the same GPU, with which NCCL would not start."""
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    found: list[Any] = [None] * size
    with _reached():
        distributed.all_gather_object(found, (socket.gethostname(), str(device.uuid)), control)
    if len(set(found)) < size:
        raise ConfigError(
            f"{size} processes have {len(set(found))} GPUs between them; give each one its own "
            "(lower gpus), or set device=cpu"
        )


def _variable(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise ConfigError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set and {name} is not; set all variables "
            "that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), or none"
        )
    return value


@contextmanager
def _reached() -> Iterator[None]:
    """What torch raises when another process cannot be reached is `LostError`."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(_line(error)) from error


def _is_broken(error: BaseException) -> bool:
    """Whether an error only tells that another process is gone."""
    if isinstance(error, LostError | distributed.DistError):
        return True
    return type(error) is RuntimeError and bool(_BROKEN.search(str(error)))


def _line(error: BaseException) -> str:
    """The first line of an error, shortened."""
    lines: Iterable[str] = str(error).strip().splitlines() or [type(error).__name__]
    return next(iter(lines))[:200]
