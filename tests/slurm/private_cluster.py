"""A private SLURM cluster on the loopback interface: real daemons, several nodes on one machine.

Nothing outside one folder is touched, no database, no systemd and no rights are needed; node names
are loopback addresses, so that they resolve. Tests have it as the fixture ``slurm``; by hand:

    python tests/slurm/private_cluster.py /tmp/mine    # prints what to export, until Ctrl-C

Needs Linux and the packages slurm-wlm and munge. Memory and CPUs are given out, but not enforced.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

PROGRAMS: Final = ("munged", "munge", "slurmctld", "slurmd", "sinfo", "sbatch", "srun", "scontrol")
_SECONDS: Final = 60.0  # within which the cluster starts, and ends
_LOG: Final = 12  # lines of each log that an error shows
_ENDS_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG

_CONFIGURATION: Final = """\
ClusterName=hambench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until its credential has expired
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
# without cgroups
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
# without a database; ended jobs are known for a day
AccountingStorageType=accounting_storage/none
MinJobAge=86400
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=2,sched_interval=5,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
EnforcePartLimits=ALL
KillWait={kill_wait}
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout={node_timeout}
MaxArraySize={max_array}
PropagateResourceLimits=NONE
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory={memory} Feature=cpu,fake State=UNKNOWN Gres=gpu:fake:{gpus}
{nodes}
PartitionName=DEFAULT Nodes=ALL State=UP DefMemPerCPU=64 DefaultTime=10:00 MaxTime=1-00:00:00
PartitionName=debug Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=preempt PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
"""


class ClusterError(Exception):
    """The cluster cannot start; the message says why, and shows the ends of its logs."""


def missing() -> list[str]:
    """Programs that are not installed; ordinary users lack /usr/sbin on their PATH, it counts."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


class PrivateCluster:
    """Daemons from `start` to `stop`; they end with the process that started them.

    Args:
        folder: of all their files; made where it is not there. Its path is short: sockets may have
            100 characters.
        nodes, cpus, memory, gpus: how many nodes, and what each has; MB, and GPUs that are none.
        kill_wait: seconds between SIGTERM and SIGKILL.
        grace: seconds that a preempted job has.
        node_timeout: seconds until a silent node is down.
        max_array: bound of the tasks in an array.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 2,
        cpus: int = 2,
        memory: int = 8192,
        gpus: int = 4,
        kill_wait: int = 5,
        grace: int = 20,
        node_timeout: int = 10,
        max_array: int = 1001,
    ) -> None:
        self.folder = folder.absolute()
        self.names = [f"127.0.0.{k + 1}" for k in range(nodes)]
        self._limits = {
            "cpus": cpus, "memory": memory, "gpus": gpus, "kill_wait": kill_wait, "grace": grace,
            "node_timeout": node_timeout, "max_array": max_array,
        }  # fmt: skip
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """This process's, without what a job around it has set, for clients of the cluster."""
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_"))
        }
        return own | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def __enter__(self) -> PrivateCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all daemons, and wait until the nodes are idle.

        Raises:
            ClusterError: a program is missing, or a daemon does not come up.
        """
        if lacking := missing():
            raise ClusterError(f"{lacking[0]} is missing: apt-get install slurm-wlm munge")
        self._write()
        try:
            self._start_munge()
            conf = str(self.folder / "slurm.conf")
            self._launch("slurmctld", "-D", "-c", "-f", conf)
            for name in self.names:
                self.start_node(name)
            self._wait(lambda: self._idle() == len(self.names), "its nodes are not idle")
        except BaseException:
            self.stop()
            raise

    def start_node(self, name: str) -> None:
        """Start the daemon of a node, again if it has ended."""
        self._launch("slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf"), key=name)

    def stop_node(self, name: str) -> None:
        """Kill the daemon of a node and the jobs on it, as a power cut does."""
        self.daemons.pop(name).kill()
        for step in self._steps(name):  # first of all, or they would report the end of the job
            _kill_tree(step)
        mine = {f"SLURM_CONF={self.folder}/slurm.conf", f"SLURMD_NODENAME={name}"}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile, or is another user's
                if mine <= set((process / "environ").read_text(errors="replace").split("\0")):
                    os.kill(int(process.name), signal.SIGKILL)

    def stop(self) -> None:
        """Cancel all jobs and end all daemons; nothing of them is left. May be called twice."""
        controller = self.daemons.get("slurmctld")
        if controller is not None and controller.poll() is None:
            self.cancel_all()
        for process in reversed(self.daemons.values()):
            process.terminate()
        for process in reversed(self.daemons.values()):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons.clear()
        for step in self._steps():
            _kill_tree(step)

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait until they are gone."""
        self.run("scancel", "--user", _user(), check=False)
        self._wait(lambda: not self.run("squeue", "-h", check=False).strip(), None)

    def run(self, *words: str, check: bool = True, timeout: float = 30.0) -> str:
        """What a client of the cluster prints; ClusterError where it fails and that is checked."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise ClusterError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _write(self) -> None:
        """Folders and configuration of a cluster that has never run."""
        for name in ("state", "spool", "log", "munge", "dev"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)  # munge wants that others can reach its socket
        host, ports = socket.gethostname().partition(".")[0], _free_ports(1 + len(self.names))
        if not socket.gethostbyname(socket.gethostname()).startswith("127."):
            raise ClusterError(
                f"the name of this machine, {host}, is not on the loopback interface, where the "
                f"daemons listen: add '127.0.0.1 {host}' to /etc/hosts"
            )
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port}"
            for name, port in zip(self.names, ports[1:], strict=True)
        )
        text = _CONFIGURATION.format(
            folder=self.folder, host=host, port=ports[0], nodes=nodes, user=_user(), **self._limits
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        lines = []
        for k in range(self._limits["gpus"]):  # any device serves as a GPU that nobody uses
            (self.folder / "dev" / f"gpu{k}").symlink_to("/dev/null")
            lines.append(f"Name=gpu Type=fake File={self.folder}/dev/gpu{k}\n")
        (self.folder / "gres.conf").write_text("".join(lines))

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        key = munge / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        self._launch(
            "munged", "--foreground", f"--key-file={key}", f"--socket={munge}/socket",
            f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", f"--log-file={munge}/log",
        )  # fmt: skip
        self._wait((munge / "socket").exists, "munged gives no socket")

    def _launch(self, program: str, *words: str, key: str | None = None) -> None:
        log = self.folder / "log" / f"{key or program}.out"
        with open(log, "ab") as output:
            self.daemons[key or program] = subprocess.Popen(
                [str(shutil.which(program, path=_path())), *words],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=self.environment, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip

    def _idle(self) -> int:
        states = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%t", check=False).split()
        return sum(state in ("idle", "mix", "alloc") for state in states)

    def _wait(self, true: Callable[[], bool], failure: str | None) -> None:
        """Wait for something; ClusterError, or None: no matter, where it does not come true."""
        end = time.monotonic() + _SECONDS
        while not true():
            ended = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if ended and failure is not None:
                raise ClusterError(f"{ended[0]} has ended\n{self._logs()}")
            if time.monotonic() > end:
                if failure is None:
                    return
                raise ClusterError(f"{failure} after {_SECONDS:.0f} s\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        ends = []
        for log in sorted([*(self.folder / "log").iterdir(), self.folder / "munge" / "log"]):
            lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
            ends += [f"--- {log.name}", *lines[-_LOG:]] if lines else []
        return "\n".join(ends)

    def _steps(self, node: str | None = None) -> list[int]:
        """Processes of job steps (of a node) that have a file of this cluster open."""
        under = f"{self.folder}/" if node is None else f"{self.folder}/log/slurmd-{node}.log"
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "comm").read_text().strip() != "slurmstepd":
                    continue
                files = [os.readlink(file) for file in (process / "fd").iterdir()]
            except OSError:  # it has ended meanwhile, or is another user's
                continue
            if any(file.startswith(under) for file in files):
                found.append(int(process.name))
        return found


def _kill_tree(process: int) -> None:
    """Kill a process and all below it."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        os.kill(process, signal.SIGKILL)
    except OSError:
        return
    for child in children:
        _kill_tree(int(child))


def _end_with_parent() -> None:
    """Called in a daemon: SIGTERM when the process that started it ends, however that ends."""
    ctypes.CDLL(None).prctl(_ENDS_WITH_PARENT, signal.SIGTERM)


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def main(words: Sequence[str]) -> None:
    """Run a cluster until Ctrl-C."""
    with PrivateCluster(Path(words[0])) as cluster:
        for name in ("SLURM_CONF", "PATH"):
            print(f"export {name}={cluster.environment[name]!r}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
