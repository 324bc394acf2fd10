"""The docs are true: every table is the code's, every link leads somewhere, every command can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from atoll import config
from atoll.cli.main import app
from atoll.training.opponents import ATTACKS
from atoll.wire.messages import Phase
from atoll.wire.reasons import Reason
from tests.docs import generated_tables
from tests.docs.generated_tables import BLOCK, ROOT, SOURCES, TABLES, documents, error_classes

GLOSSARY = ROOT / "docs" / "glossary.md"
HINT = "run `python -m tests.docs.generated_tables`"
PROTOCOL = sorted((ROOT / "docs" / "protocol").glob("*.md"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


# -- tables ------------------------------------------------------------------------------------------------------------
def test_every_table_stands_in_exactly_one_document() -> None:
    placed = [name for path in documents() for _, name, _, _ in BLOCK.findall(path.read_text("utf-8"))]
    assert sorted(placed) == sorted(TABLES)


def test_no_mark_of_a_table_is_broken() -> None:
    for path in documents():
        text = path.read_text("utf-8")
        if path.name != "README.md" or path.parent != ROOT / "docs" / "protocol":  # it explains the marks
            assert text.count("<!-- table:") == text.count("<!-- end -->") == len(BLOCK.findall(text)), name_of(path)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_says_what_the_code_says(name: str) -> None:
    written = [
        content
        for path in documents()
        for _, found, content, _ in BLOCK.findall(path.read_text("utf-8"))
        if found == name
    ]
    assert written == [TABLES[name]()], HINT


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_table_has_no_empty_meaning(name: str) -> None:
    heading, *_ = TABLES[name]().splitlines()
    if "meaning" not in heading or name == "transport-limits":  # some limits are named so that nothing is left to say
        return
    place = [cell.strip() for cell in heading.split("|")].index("meaning")
    for line in TABLES[name]().splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("|"):
            assert cells[place].strip(), line


# -- names in the text -------------------------------------------------------------------------------------------------
def quoted(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(path))


def test_capital_names_in_the_protocol_exist() -> None:
    """REASONS, PHASES and TAGS that the text names are in the code."""
    known = {*Reason.__members__, *Phase.__members__, *generated_tables.hashing.Tag.__members__}
    known |= {*generated_tables.receipts.Kind.__members__, "DOMAIN_SEPARATOR", "MAX_COMMITTEE", "VALIDATOR"}
    for path in PROTOCOL:
        for text in quoted(path):
            if re.fullmatch(r"[A-Z][A-Z_]{3,}", text) and text not in config.NOT_SETTINGS:
                assert text in known, f"{name_of(path)}: {text}"


def test_files_in_the_text_exist() -> None:
    for path in documents():
        for text in quoted(path):
            if re.fullmatch(r"(src|tests|docs|bench|examples)/[\w./-]+", text) and "ROOM" not in text:
                assert (ROOT / text).exists(), f"{name_of(path)}: {text}"


def test_settings_in_the_protocol_exist() -> None:
    settings = {row.name for row in config.TABLE}
    named = {"requests_at_once", "memory_mb", "max_train_seconds", "disk_mb", "chain_id", "cpu_threads", "advertise"}
    assert named <= settings
    for path in documents():
        for text in re.findall(r"\bsettings? `(\w+)`", prose(path)):
            assert text in settings, f"{name_of(path)}: {text}"


def test_every_error_says_what_to_do() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8").split("## What to do")[1]
    told = re.findall(r"^- `(\w+)`: ", text, re.MULTILINE)
    assert told == [kind.code for kind in error_classes()]


def test_attacks_are_in_the_glossary() -> None:
    text = GLOSSARY.read_text("utf-8")
    assert all(f"`{name}`" in text for name in ATTACKS)


# -- links -------------------------------------------------------------------------------------------------------------
def anchors(path: Path) -> set[str]:
    """Names of headings as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), target
        assert place.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(place), target


# -- the glossary ------------------------------------------------------------------------------------------------------
def terms() -> list[str]:
    return re.findall(r"^- \*\*(.+?)\*\*:", GLOSSARY.read_text("utf-8"), re.MULTILINE)


def test_the_glossary_is_in_order_and_defines_a_word_once() -> None:
    words = [word.lower() for word in terms()]
    assert len(words) > 50
    assert words == sorted(set(words))


def test_every_word_of_the_glossary_is_used() -> None:
    files = [*SOURCES.rglob("*.py"), *(path for path in documents() if path != GLOSSARY)]
    text = " ".join(path.read_text("utf-8") for path in files).lower().replace("_", " ")
    text = " ".join(text.split())
    unused = [word for word in terms() if not re.search(rf"\b{re.escape(word.lower())}", text)]
    assert not unused


def test_roles_and_phases_have_their_words() -> None:
    words = set(terms())
    assert set(config.ROLES) <= words
    assert {"lock", "beacon", "audit", "reveal", "certificate"} <= words


# -- commands ----------------------------------------------------------------------------------------------------------
def console_lines() -> Iterator[tuple[str, str]]:
    for path in documents():
        for block in re.findall(r"^```console\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                if line.startswith("$ "):
                    yield name_of(path), line.removeprefix("$ ")


LINES = sorted(set(console_lines()))


@pytest.mark.parametrize(("where", "line"), [one for one in LINES if one[1].startswith("atoll")])
def test_a_shown_command_can_be_typed(where: str, line: str) -> None:
    """The words are parsed as the program would, without running anything."""
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    context = command.make_context("atoll", [])
    while hasattr(command, "commands"):
        assert words, f"{where}: {line}"
        command = command.commands[words[0]]
        context = command.make_context(words[0], words[1:] if not hasattr(command, "commands") else [], parent=context)
        words = words[1:]


@pytest.mark.parametrize(("where", "line"), [one for one in LINES if one[1].startswith("make")])
def test_a_shown_chore_exists(where: str, line: str) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    words = shlex.split(line, comments=True)
    assert words[1] in targets, where
    arguments = [word.removeprefix("ARGS=") for word in words[2:]]
    if words[1] == "up":
        typer.main.get_command(app).commands["up"].make_context("up", shlex.split(" ".join(arguments)))  # type: ignore[attr-defined]


def test_chores_are_told_to_contributors() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for chore in ("check", "test", "fix", "up", "sim", "contracts"):
        assert f"`make {chore}`" in text


# -- what must not be told ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_nothing_points_outside_the_project(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"TODO|FIXME|/root/", text)
