"""A real Slurm of two nodes on this machine: munged, slurmctld and two slurmd, as root.

Each has one core. It needs the Debian packages slurm-wlm and munge; `why_not` says what is missing.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ranks import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
SECONDS = 60.0  # until the nodes are there
CONF = """\
ClusterName=mixopt
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={munge}/socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MinJobAge=60
SchedulerParameters=bf_interval=2,sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldPort={ports[0]}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=small Nodes=n1 MaxTime=10 State=UP
"""


def why_not():
    """Return why no cluster can be had here; None where one can."""
    if missing := [name for name in PROGRAMS if _found(name) is None]:
        return f"needs {missing[0]}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "needs root, to start slurmd"
    with suppress(KeyError):
        pwd.getpwnam("munge")
        return None
    return "needs the user munge"


@pytest.fixture(scope="module")
def slurm_cluster(tmp_path_factory):
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        yield cluster
        cluster.end()


class SlurmCluster:
    """The daemons, and what commands need to reach them."""

    def __init__(self, folder):
        self.folder, self._daemons = folder, {}
        host = socket.gethostname().partition(".")[0]
        ports = [free_port() for _ in range(3)]
        # The user munge cannot enter the folders of root's tests.
        self._munge = Path(tempfile.mkdtemp(prefix="munge-"))
        self.conf = folder / "slurm.conf"
        self.conf.write_text(CONF.format(folder=folder, munge=self._munge, host=host, ports=ports))
        (folder / "state").mkdir()
        self.environment = {"SLURM_CONF": str(self.conf)}
        self._start_munge()
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self.start_node("n1")
        self.start_node("n2")
        self.wait_for_nodes()

    def start_node(self, name):
        self._start(name, "slurmd", "-D", "-f", str(self.conf), "-N", name)

    def kill_node(self, name):
        """Kill a node as a loss of power does: its daemon, and all that it has started."""
        daemon = self._daemons.pop(name)
        steps = self.steps_of(name)
        daemon.kill()
        daemon.wait()
        _kill(steps)

    def steps_of(self, name):
        """Return the processes of the jobs of a node, and those of Slurm's that they are of."""
        marks = {"SLURM_CONF": str(self.conf), "SLURMD_NODENAME": name}.items()
        processes = psutil.process_iter(["environ", "ppid"])
        found = [item for item in processes if marks <= (item.info["environ"] or {}).items()]
        parents = {item.info["ppid"] for item in found} & {
            item.pid for item in psutil.process_iter(["name"]) if item.info["name"] == "slurmstepd"
        }
        return [*(item.pid for item in found), *parents]

    def wait_for_nodes(self, count=2):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            ended = self.run("sinfo", "--noheader", "--Node", "-p", "debug", "--format=%t")
            if ended.stdout.split().count("idle") >= count:
                return
            time.sleep(0.3)
        raise RuntimeError(f"the nodes are not there: {ended.stdout} {ended.stderr}")

    def run(self, *command):
        given = {"env": os.environ | self.environment, "capture_output": True, "text": True}
        return subprocess.run(command, check=False, timeout=60, **given)

    def end(self):
        with suppress(subprocess.TimeoutExpired):
            self.run("scancel", "--quiet", "--user=root")
            time.sleep(1)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()
        for name in ("n1", "n2"):
            _kill(self.steps_of(name))
        shutil.rmtree(self._munge, ignore_errors=True)

    def _start_munge(self):
        """Start munged on a key of this cluster's own, as the user munge."""
        folder, key = self._munge, self._munge / "key"
        key.write_bytes(os.urandom(128))
        user = pwd.getpwnam("munge")
        for path in (folder, key):
            os.chown(path, user.pw_uid, user.pw_gid)
        key.chmod(0o400)
        folder.chmod(0o755)
        places = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{name}={folder / file}" for name, file in places.items()]
        words = ("munged", "--foreground", f"--key-file={key}", *files)
        self._start("munged", *words, user="munge")

    def _start(self, name, program, *arguments, user=None):
        with (self.folder / f"{name}.out").open("ab") as log:
            given = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "user": user}
            given |= {"env": os.environ | self.environment, "start_new_session": True}
            self._daemons[name] = subprocess.Popen([_found(program), *arguments], **given)


def _found(program):
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _kill(pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
