"""The image: two targets, pinned, without root, and with what KubeRay runs in it. It is read; nothing here can build it."""

import json
import re
import tomllib
from typing import Any

import pytest
import typer

from colorize.cli.main import app
from tests.manifests import ROOT

GROUP: Any = typer.main.get_command(app)
USER = 10001
"""The user of the manifests' pods too."""


# The image


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of the Dockerfile, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """stage → (what it starts from, its instructions), in order."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            parent, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            found[name] = (parent, [])
        elif name:
            found[name][1].append((word, rest))
    return found


def with_parents(stage: str) -> list[tuple[str, str]]:
    parent, own = stages()[stage]
    return [*(with_parents(parent) if parent in stages() else []), *own]


def test_the_image_has_a_target_for_cpus_which_is_the_default_and_one_for_gpus() -> None:
    assert list(stages())[-2:] == ["gpu", "cpu"]
    sources = {target: [rest for word, rest in stages()[target][1] if word == "COPY"] for target in ("cpu", "gpu")}
    assert sources == {target: [f"--from=packages-{target} /opt/venv /opt/venv"] for target in ("cpu", "gpu")}
    assert "whl/cpu" in str(stages()["packages-cpu"])
    assert "TORCH_INDEX" not in str(with_parents("packages-gpu"))


def test_bases_are_pinned_to_a_release_of_python_that_the_project_takes() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions()[:1] if word == "ARG")
    outside = {parent for parent, _ in stages().values() if parent not in stages()}
    assert outside == {"python:${PYTHON}"}
    release = re.fullmatch(r"(3\.\d+)(?:\.\d+)?-slim-[a-z]+", arguments["PYTHON"])
    assert release
    assert float(release[1].removeprefix("3.")) >= 11


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_image_runs_as_the_user_of_the_manifests(target: str) -> None:
    users = [rest for word, rest in with_parents(target) if word == "USER"]
    assert users == [f"{USER}:{USER}"]
    made = next(rest for word, rest in with_parents(target) if word == "RUN" and "useradd" in rest)
    assert f"--uid {USER} --gid {USER}" in made
    after = [word for word, _ in with_parents(target)]
    assert "RUN" not in after[after.index("USER") :]


def test_every_installation_keeps_to_the_constraints() -> None:
    commands = [rest for _, own in stages().values() for word, rest in own if word == "RUN"]
    installations = [command for command in commands if "pip install" in command]
    assert len(installations) == 3
    assert all("--constraint /constraints.txt" in command for command in installations)
    assert ("COPY", "constraints.txt /constraints.txt") in stages()["packages"][1]
    assert "PIP_ONLY_BINARY=:all:" in str(stages()["packages"])
    extras = set(re.findall(r"\[([a-z,]+)\]", " ".join(installations)))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert all(extra in known for several in extras for extra in several.split(","))


def test_nothing_is_fetched_by_address_and_no_secret_is_given() -> None:
    words = {word for word, _ in instructions()}
    assert words <= {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}  # ADD among others is not
    for word, rest in instructions():
        assert (
            (word == "RUN" and "pip install" in rest) or not re.search(r"curl|wget\s+(?:-|http)|git clone", rest) or word == "HEALTHCHECK"
        )
        assert not (word in {"ARG", "ENV"} and re.search(r"KEY|PASSWORD|TOKEN|SECRET", rest))


def test_the_image_has_what_kuberay_runs_in_it() -> None:
    """It starts Ray by bash; the readiness of a service's workers is asked with wget."""
    packages = next(rest for word, rest in with_parents("cpu") if word == "RUN" and "apt-get install" in rest)
    assert {"bash", "wget"} <= set(packages.split())


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_image_serves_by_itself_and_says_whether_it_is_well(target: str) -> None:
    (command,) = [json.loads(rest) for word, rest in with_parents(target) if word == "CMD"]
    assert command[:2] == ["colorize", "serve"]
    told = GROUP.commands["serve"].make_context("serve", command[2:]).params
    (health,) = [rest for word, rest in with_parents(target) if word == "HEALTHCHECK"]
    assert f"http://127.0.0.1:{told['port']}/healthz" in health


def test_the_image_is_built_from_what_the_package_is_made_of_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for _, own in stages().values()
        for word, rest in own
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert {source.removeprefix("./") for source in copied} == let_in
    assert all((ROOT / name).exists() for name in let_in)
