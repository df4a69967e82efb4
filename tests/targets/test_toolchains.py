"""Finding a Python for a toolchain, running its programs, and the `toolchain` verb."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter.errors import InputError
from sdconv.main import run
from targets.base import ToolchainError
from targets.environments import RECORD_FILE
from targets.processes import ChildFailedError, own_group, run_logged, telling_line, watched
from targets.sophgo.toolchain import TpuMlir
from targets.toolchains import find_python, get_toolchain

VERSION = (3, 77)
"""A Python that no machine has."""


CRASH = """\
UNREACHABLE executed at Module.cpp:1943!
PLEASE submit a bug report to the compiler's makers
Stack dump:
0.	Program arguments: tpuc-opt x.mlir
 #0 0x000055b72ff9fb27 (tpuc-opt+0x95fb27)
#30 0x000055b72ff88ab5 (tpuc-opt+0x948ab5)
Aborted
Traceback (most recent call last):
  File "model_deploy.py", line 814, in <module>
    lowering_patterns = tool.lowering()
RuntimeError: [!Error]: tpuc-opt x.mlir --convert -o y.mlir
"""
"""How a crash of the compiler looks from outside."""


def fake_python(path: Path, *, says: str = "3.77", code: int = 0, error: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\necho '{error}' >&2\nexit {code}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any Python, and nothing on the path but /bin and /usr/bin."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    for variable in ("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR", "SDCONV_PYTHON377"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_a_shim_that_does_not_start_is_passed_over(home: Path) -> None:
    fake_python(home / "path" / "python3.77", code=127)
    found = fake_python(home / ".pyenv/versions/3.77.2/bin/python3.77")
    assert find_python(VERSION) == found


def test_a_python_of_another_version_is_passed_over(home: Path) -> None:
    fake_python(home / "path" / "python3.77", says="3.12")
    found = fake_python(home / ".local/share/uv/python/cpython-3.77.0-linux/bin/python3.77")
    assert find_python(VERSION) == found


def test_the_path_comes_before_version_managers(home: Path) -> None:
    first = fake_python(home / "path" / "python3.77")
    fake_python(home / ".pyenv/versions/3.77.2/bin/python3.77")
    assert find_python(VERSION) == first


def test_the_variable_decides(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(home / "path" / "python3.77")
    named = fake_python(home / "mine")
    monkeypatch.setenv("SDCONV_PYTHON377", str(named))
    assert find_python(VERSION) == named
    monkeypatch.setenv("SDCONV_PYTHON377", str(home / "nothing"))
    with pytest.raises(ToolchainError, match=r"SDCONV_PYTHON377=.*nothing: does not exist"):
        find_python(VERSION)


def test_no_python_says_what_was_tried_and_how_to_get_one(home: Path) -> None:
    fake_python(home / "path" / "python3.77", code=1, error="No module named 'ensurepip'")
    with pytest.raises(ToolchainError) as error:
        find_python(VERSION)
    said = str(error.value)
    assert f"{home / 'path' / 'python3.77'} (has no venv module)" in said
    for way in ("uv python install", "pyenv install", "python3.77-venv", "SDCONV_PYTHON377"):
        assert way in said
    assert "\n" not in said


def test_an_unknown_toolchain_lists_the_known() -> None:
    with pytest.raises(InputError, match="choose one of tpu-mlir"):
        get_toolchain("tpu")


def test_the_log_holds_command_and_output(tmp_path: Path) -> None:
    log, lines = tmp_path / "log", list[str]()
    argv = [sys.executable, "-c", "print('one'); print('two')"]
    run_logged(argv, log, env=os.environ, on_line=lines.append)
    assert lines == ["one\n", "two\n"]
    assert log.read_text().splitlines()[0].startswith("$ ")
    assert log.read_text().endswith("one\ntwo\n")


def test_whoever_watches_sees_every_program(tmp_path: Path) -> None:
    seen: list[str] = []
    argv = [sys.executable, "-c", "print('one')"]
    with watched(seen.append):
        run_logged(argv, tmp_path / "log", env=os.environ)
    run_logged(argv, tmp_path / "log", env=os.environ)
    assert len(seen) == 2
    assert seen[0].startswith("$ ")
    assert seen[1] == "one\n"


def test_a_failure_carries_its_most_telling_line(tmp_path: Path) -> None:
    with pytest.raises(ChildFailedError, match="exit code 3: it is full") as error:
        run_logged(["/bin/sh", "-c", "echo it is full; exit 3"], tmp_path / "log", env={})
    assert error.value.code == 3


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Traceback (most recent call last):\n  File x\n    y\nKeyError: 'z'\n", "KeyError: 'z'"),
        (
            CRASH,
            "UNREACHABLE executed at Module.cpp:1943!",
        ),
        ("*** stack smashing detected ***: terminated\n", "*** stack smashing detected ***"),
        ("", "it printed nothing"),
    ],
)
def test_the_telling_line_of_real_logs(log: str, line: str) -> None:
    assert telling_line(log).startswith(line)


def test_an_interrupt_ends_everything_that_was_started(tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > grandchild; wait"

    def interrupted() -> None:
        with own_group(["/bin/sh", "-c", script], env=os.environ, cwd=tmp_path):
            while not (tmp_path / "grandchild").exists():
                time.sleep(0.01)
            time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    grandchild = int((tmp_path / "grandchild").read_text())
    for _ in range(100):
        if _state(grandchild) in ("gone", "Z"):
            return
        time.sleep(0.02)
    pytest.fail("the grandchild still runs")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def test_the_verb_without_any_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["toolchain", "list"]) == 0
    assert "not installed" in capsys.readouterr().out
    assert run(["toolchain", "doctor"]) == 3
    assert "run 'sdconv toolchain install tpu-mlir'" in capsys.readouterr().err
    assert run(["toolchain", "install", "nothing"]) == 2
    monkeypatch.setenv("SDCONV_PYTHON310", "/bin/false")
    assert run(["toolchain", "install", "tpu-mlir"]) == 3
    assert list((tmp_path / "data" / "toolchains").glob("*1.30.2")) == []


def test_a_second_install_says_that_it_is_there(
    fake_tpu_mlir: TpuMlir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["toolchain", "install", "tpu-mlir"]) == 0
    assert "installed already" in capsys.readouterr().out


def test_another_glibc_in_the_installation_is_noticed(
    fake_tpu_mlir: TpuMlir, capsys: pytest.CaptureFixture[str]
) -> None:
    (fake_tpu_mlir.third_party / "libc.so.6").touch()
    assert run(["toolchain", "doctor", "tpu-mlir"]) == 3
    assert "libc.so.6 of another glibc" in capsys.readouterr().err


def test_half_an_installation_does_not_count(fake_tpu_mlir: TpuMlir) -> None:
    (fake_tpu_mlir.folder / RECORD_FILE).unlink()
    assert "is not installed" in (fake_tpu_mlir.problem() or "")


def test_children_do_not_inherit_this_python(
    fake_tpu_mlir: TpuMlir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/wrong")
    monkeypatch.setenv("PYTHONHOME", "/wrong")
    env = fake_tpu_mlir.env()
    assert "PYTHONHOME" not in env
    assert "/wrong" not in env["PYTHONPATH"]
    said = subprocess.run(
        ["/bin/sh", "-c", "echo $TPUC_ROOT"], env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(fake_tpu_mlir.package)
