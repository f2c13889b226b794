from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lepton_admin.demo.child import command_lines
from lepton_admin.demo.folder import DemoFolder, load_example
from lepton_admin.demo.processes import Processes, free_port
from lepton_core.errors import ConflictError, FaultError


@pytest.fixture
def processes(tmp_path):
    with Processes(tmp_path / "logs") as running:
        yield running


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "script.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_second_run_replaces_the_first_ones_folder(tmp_path):
    folder = DemoFolder(tmp_path / "demo")
    folder.replace()
    (folder.root / "old").write_text("x")
    folder.replace()
    assert sorted(path.name for path in folder.root.iterdir()) == [".lepton-demo"]


def test_a_folder_that_is_not_the_demos_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(ConflictError, match="not the demo's"):
        DemoFolder(tmp_path).replace()
    assert (tmp_path / "thesis.txt").read_text() == "three years"


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FaultError, match="cannot be written"):
        DemoFolder(tmp_path / "file" / "demo").replace()


def test_the_hospitals_example_is_found():
    assert callable(load_example().write_hospitals)


def test_command_lines_are_run_one_after_another():
    assert command_lines(["coordinator", "init", "x", "--then", "coordinator", "serve", "x"]) == [
        ["coordinator", "init", "x"],
        ["coordinator", "serve", "x"],
    ]


def test_a_process_and_its_children_are_gone_after_the_end(tmp_path, processes):
    pids = tmp_path / "pids"
    text = (
        "import os, pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(pids)!r} + '.part').write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(pids)!r} + '.part', {str(pids)!r})\n"
        "time.sleep(600)\n"
    )
    processes.lepton("stubborn", "--file", script(tmp_path, text))
    processes.wait_until(pids.is_file, "the script", "stubborn")
    parent, child = map(int, pids.read_text().split())
    assert is_alive(parent)
    assert is_alive(child)
    processes.end()
    assert not is_alive(parent)
    # The grandchild was reparented when its parent ended, and was killed with the group just before `end` returned.
    processes.wait_until(lambda: not is_alive(child), "the grandchild's end")


def test_a_process_that_dies_early_is_told_with_its_last_words(tmp_path, processes):
    processes.lepton("broken", "--file", script(tmp_path, "import sys\nsys.exit('the disk is full')"))
    with pytest.raises(FaultError, match="broken ended with exit code 1") as refused:
        processes.wait_until(lambda: False, "something", "broken")
    assert "the disk is full" in refused.value.got


def test_waiting_for_what_never_comes_ends_with_the_log(tmp_path, processes):
    processes.lepton("slow", "--file", script(tmp_path, "import time\ntime.sleep(600)"))
    with pytest.raises(FaultError, match="takes too long"):
        processes.wait_until(lambda: False, "something", "slow", timeout_s=0.2)


def test_a_process_killed_on_purpose_is_no_fault_and_one_that_failed_is(tmp_path, processes):
    processes.lepton("victim", "--file", script(tmp_path, "import time\ntime.sleep(600)"))
    processes.kill("victim")
    processes.check()
    running = processes.lepton("broken", "--file", script(tmp_path, "import sys\nsys.exit(3)"))
    running.process.wait(30)
    with pytest.raises(FaultError, match="broken ended with exit code 3"):
        processes.check()


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_processes_end_with_a_demo_that_is_killed(tmp_path, processes):
    pid_file = tmp_path / "pid"
    inner = script(tmp_path, "import time\ntime.sleep(600)")
    outer = tmp_path / "outer.py"
    outer.write_text(
        "import pathlib, time\n"
        "from lepton_admin.demo.processes import Processes\n"
        f"running = Processes(pathlib.Path({str(tmp_path / 'inner')!r})).lepton('inner', '--file', {inner!r})\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(running.process.pid))\n"
        "time.sleep(600)\n",
        encoding="utf-8",
    )
    processes.lepton("outer", "--file", str(outer))
    processes.wait_until(lambda: pid_file.is_file() and pid_file.read_text() != "", "the inner process", "outer")
    inner_pid = int(pid_file.read_text())
    processes.kill("outer")
    processes.wait_until(lambda: not is_alive(inner_pid), "the inner process's end")


def test_a_free_port_can_be_listened_on():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has started")
def test_what_a_process_has_started_can_be_stopped_and_ends_with_it_all_the_same(tmp_path, processes):
    started = tmp_path / "started"
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(started)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    processes.lepton("parent", "--file", script(tmp_path, code))
    processes.wait_until(lambda: started.is_file() and bool(started.read_text()), "the child's start", "parent")
    child = int(started.read_text())
    assert processes.stop_children("parent")
    status = Path(f"/proc/{child}/stat")
    processes.wait_until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", "the child's stop")
    processes.kill("parent")
    processes.wait_until(lambda: not is_alive(child), "the child's end")


def test_a_process_without_children_has_nothing_that_could_be_stopped(tmp_path, processes):
    processes.lepton("alone", "--file", script(tmp_path, "import time; time.sleep(600)"))
    assert not processes.stop_children("alone")
