"""README and docs/ say what is so: the tree, the commands, the links, the errors, the dependencies, the generated pages."""

import ast
import fnmatch
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from colorize import errors
from colorize.cli.evaluate import HEADINGS
from colorize.cli.main import app
from colorize.model.card import read_card, resolve, shipped_names
from jobs.pages import cards, commands, scaling

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = {"cli.md": commands.page, "models.md": cards.page, "scaling.md": scaling.page}
WRITTEN = [page for page in PAGES if page.name not in GENERATED]

FORBIDDEN = re.compile(
    r"/(?:work|root|tmp|home)/|\.\./shared|\b(?:pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.|index-url)|localhost:\d+/simple"
)
"""Paths of the machine on which this was written, and hosts of package registries."""

GROUP: Any = typer.main.get_command(app)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_written_page = pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    """The contents of the page's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def section(page: Path, heading: str) -> str:
    """What stands between a heading and the next one of its level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section {heading!r}"
    return found[1]


def rows(markdown: str) -> list[list[str]]:
    """The cells of all table rows below a head."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = {index - 1 for index, row in enumerate(cells) if all(re.fullmatch(r":?-+:?", cell) for cell in row)}
    return [row for index, row in enumerate(cells) if index not in heads and index - 1 not in heads]


# The tree


def tree_of_readme() -> dict[str, str]:
    """path (folders end with /) → purpose."""
    lines = re.search(r"^```text\n(.*?)^```$", section(README, "The tree"), re.MULTILINE | re.DOTALL)
    assert lines
    named: dict[str, str] = {}
    parents: list[str] = []
    for line in lines[1].splitlines():
        indent, name, purpose = re.fullmatch(r"( *)(\S+)(?: {2,}(.*\S))?", line).groups()  # type: ignore[union-attr]
        assert len(indent) % 2 == 0, line
        parents = parents[: len(indent) // 2]
        assert len(parents) == len(indent) // 2, f"{line}: deeper than what it stands under"
        path = "".join(parents) + name
        assert path not in named, f"{path} is named twice"
        named[path] = purpose or ""
        parents.append(name)
    return named


def ignored(name: str) -> bool:
    patterns = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def what_must_be_named() -> Iterator[str]:
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and not ignored(entry.name):
            yield f"{entry.name}/" if entry.is_dir() else entry.name
    for package in ("colorize", "jobs"):
        for path in (ROOT / package).rglob("*"):
            relative = path.relative_to(ROOT).as_posix()
            if "__pycache__" in relative:
                continue
            if path.is_dir():
                yield f"{relative}/"
            elif path.suffix == ".py" and path.name != "__init__.py":
                yield relative


def test_the_tree_names_every_module_and_every_top_level_file() -> None:
    assert set(what_must_be_named()) - set(tree_of_readme()) == set()


def test_the_tree_names_nothing_else() -> None:
    missing = [name for name in tree_of_readme() if not ((ROOT / name).is_dir() if name.endswith("/") else (ROOT / name).is_file())]
    assert missing == []


def test_the_tree_gives_everything_its_purpose() -> None:
    assert [name for name, purpose in tree_of_readme().items() if len(purpose) < 10] == []


# What is generated


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == GENERATED[name](), f"docs/{name} is out of date: run `make docs`"


# Links


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


@each_page
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leads out of the project"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {link}: no such heading"


def test_readme_leads_to_every_page() -> None:
    assert {f"docs/{page.name}" for page in PAGES if page != README} <= set(links(README))


# Commands


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every command in the page's `sh` blocks, line by line and as joined by pipes and the like."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            between = {"|", "&&", "&", ";", ">"} | (set() if words[:3] == ["colorize", "schedule", "add"] else {"--"})
            yield from (list(part) for part in split_at(words, between))


def split_at(words: list[str], separators: set[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, ";"]:
        if word in separators | {";"}:
            if part:
                yield part
            part = []
        else:
            part.append(word)


def mentions(page: Path) -> Iterator[list[str]]:
    """The words of every `colorize …` in running text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`((?:colorize|python -m jobs\.\w+|make) [^`]+)`", text):
        yield code.split()


def check_command(words: list[str], *, whole: bool) -> None:
    """That a command, its options and, where `whole`, its arguments are what the program takes."""
    program, *rest = words
    match Path(program).name, rest:
        case "colorize", [name, *arguments] if not name.startswith("-"):
            assert name in GROUP.commands, f"there is no command {name}"
            command = GROUP.commands[name]
            if hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):  # a group of commands
                name, *arguments = arguments
                assert name in command.commands, f"there is no command {words}"
                command = command.commands[name]
            if name == "submit" and arguments:  # takes another command's options as well
                check_command(["colorize", *arguments], whole=whole)
                return
            known = {"-h", "--help"}.union(*(parameter.opts for parameter in command.params))
            own = arguments[: arguments.index("--")] if "--" in arguments else arguments
            if own != arguments:  # a schedule's command
                check_command(["colorize", *arguments[len(own) + 1 :]], whole=whole)
            unknown = [word for word in own if re.match(r"--?[a-zA-Z]", word) and word.split("=")[0] not in known]
            assert not unknown, f"colorize {name} has no option {', '.join(unknown)}"
            if whole:
                command.make_context(name, list(arguments))
        case "colorize", options:
            known = {"-h", "--help", *(flag for parameter in GROUP.params for flag in parameter.opts)}
            assert set(options) <= known, f"colorize has no option {options}"
        case "python", ["-m", module, *arguments] if module.startswith("jobs."):
            source = file_of(module).read_text()
            if called := re.search(r'run\(\["(\w+)", \*sys\.argv', source):
                check_command(["colorize", called[1], *arguments], whole=whole)
            elif module == "jobs.benchmark":
                assert file_of(f"jobs.benchmarks.{arguments[0]}").is_file(), f"there is no benchmark {arguments[0]}"
        case "make", targets:
            known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            assert set(targets) <= known, f"the Makefile has no {targets}"


@each_written_page
def test_commands_in_blocks_are_what_the_program_takes(page: Path) -> None:
    for words in command_lines(page):
        check_command(words, whole=True)


@each_written_page
def test_commands_in_running_text_exist(page: Path) -> None:
    for words in mentions(page):
        check_command(words, whole=False)


def test_readme_opens_with_the_two_commands_and_names_every_other() -> None:
    found = [" ".join(words) for words in command_lines(README)]
    assert found[:2] == ["make demo", "make test"]
    for name in GROUP.commands:
        assert f"colorize {name}" in README.read_text(), f"README does not speak of colorize {name}"


def file_of(module: str) -> Path:
    """The module's file. It is read and not imported: torch and Ray take seconds."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def names_in(file: Path) -> set[str]:
    """What can be imported from a module: what it defines and imports, under TYPE_CHECKING too, and a package's modules."""
    found = {path.stem for path in file.parent.iterdir()} if file.name == "__init__.py" else set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
    return found


@each_written_page
def test_python_examples_import_what_there_is(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("colorize"):
                assert {alias.name for alias in node.names} <= names_in(file_of(node.module or ""))


# Errors


def tree_of_errors(text: str) -> list[str]:
    lines = inspect.cleandoc(text).splitlines()
    drawn = [line.strip() for line in lines if line.strip().startswith(("ColorizeError (", "├──", "└──"))]
    return [re.sub(r" +", " ", line) for line in drawn]


def error_classes() -> dict[str, type[Exception]]:
    return {name: member for name, member in vars(errors).items() if isinstance(member, type) and issubclass(member, Exception)}


def test_errors_are_drawn_as_they_are() -> None:
    drawn = tree_of_errors(errors.__doc__ or "")
    assert {re.search(r"\w+Error", line)[0] for line in drawn} == set(error_classes())  # type: ignore[index]
    for name, error in error_classes().items():
        assert error.__base__ is (ValueError if name == "ColorizeError" else errors.ColorizeError)


def test_errors_page_mirrors_the_module() -> None:
    page = ROOT / "docs" / "errors.md"
    assert any(tree_of_errors(block) == tree_of_errors(errors.__doc__ or "") for block in blocks(page, "text"))
    named = {cell.strip("`") for cell, *_ in rows(page.read_text())}
    assert {name for name in error_classes() if name != "ColorizeError"} <= named


def test_errors_page_begins_with_what_is_said() -> None:
    (command, *_), (said, *_) = (blocks(ROOT / "docs" / "errors.md", language) for language in ("sh", "text"))
    with pytest.raises(errors.ModelError) as caught:
        resolve(command.split()[-1])
    assert said == f"colorize: {caught.value}\n"


# Dependencies


def test_every_dependency_is_explained_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    declared += [one for extra in project["project"]["optional-dependencies"].values() for one in extra]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in declared}  # type: ignore[index]
    table = rows((ROOT / "docs" / "dependencies.md").read_text())
    explained = [name.strip("`") for name, *_ in table if name.startswith("`")]
    assert sorted(explained) == sorted(names)
    assert all(len(row) == 4 and all(row) for row in table if row[0].startswith("`")), "name, purpose, licence, why it"


# Metrics and results


def test_every_metric_is_defined_under_the_heading_that_is_printed() -> None:
    defined = {row[0].strip("`"): row[1] for row in rows(section(ROOT / "docs" / "metrics.md", "The scores"))}
    assert defined == {key: heading for key, (heading, _) in HEADINGS.items()}


def test_every_figure_has_its_command() -> None:
    for row in rows((ROOT / "docs" / "results.md").read_text()):
        assert re.search(r"`(colorize|python -m|make|time colorize) ?[^`]*`", row[-1]), f"without a command: {row}"


# What must not be there


@each_page
def test_no_page_names_a_machine_or_a_registry(page: Path) -> None:
    assert FORBIDDEN.findall(page.read_text()) == []


@pytest.mark.parametrize("name", shipped_names())
def test_no_card_names_a_machine_or_a_registry(name: str) -> None:
    assert FORBIDDEN.findall(read_card(resolve(name)).to_json()) == []
