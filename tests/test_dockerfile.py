import json
import re
import shlex
import tomllib
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import pytest

from sdconv.ui import ui

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


def the(keyword: str) -> list[Instruction]:
    return [i for i in parsed() if i.keyword == keyword]


def copied() -> list[str]:
    return [s for i in the("COPY") if not i.text.startswith("--from") for s in i.words[:-1]]


def test_every_instruction_is_known() -> None:
    known = {"FROM", "COPY", "RUN", "WORKDIR", "USER", "ENV", "VOLUME", "EXPOSE", "HEALTHCHECK"}
    assert {i.keyword for i in parsed()} <= known | {"CMD"}


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
    assert set(packages) | {"pyproject.toml", PYPROJECT["project"]["readme"]} == set(copied())


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


def test_it_does_not_run_as_root_and_writes_into_the_volume() -> None:
    assert the("USER")[-1].text != "root"
    variables = dict(word.split("=", 1) for word in the("ENV")[0].words)
    assert Path(variables["SDCONV_HOME"]).is_relative_to(the("VOLUME")[0].text)


def test_both_stages_are_of_one_debian_release() -> None:
    releases = {i.words[0].rpartition("-")[2] for i in the("FROM")}
    assert releases == {"bookworm"}  # the copied Python uses the other image's libraries
