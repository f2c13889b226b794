"""What the pages say about the code is so: links, tables, targets, and two readmes in step."""

from __future__ import annotations

import functools
import inspect
import re
import tomllib
from pathlib import Path

import pytest

from lepton_client.policy import Policy
from lepton_core import errors
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_protos.v1 import control_pb2, identity_pb2, kg_pb2, transfer_pb2
from tests.architecture.sources import ROOT, pages

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) +(.+?) *$", re.MULTILINE)
TABLE_ROW = re.compile(r"^\| `(\w+)` \| ([^|]*) \|", re.MULTILINE)
#: The requests of the RPCs that a data owner's daemon calls.
SENT_BY_DAEMONS = (
    control_pb2.ReportBatch,
    control_pb2.PollRequest,
    control_pb2.LinksRequest,
    identity_pb2.EnrolRequest,
    identity_pb2.RenewRequest,
    identity_pb2.GetMembershipRequest,
    kg_pb2.GetOntologyRequest,
    transfer_pb2.UploadChunk,
    transfer_pb2.UploadStatusRequest,
    transfer_pb2.DownloadRequest,
)
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"


@functools.cache
def read(path: Path) -> str:
    """A page's text."""
    return path.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", text)


@functools.cache
def anchors(text: str) -> set[str]:
    """The fragment of each heading, made as GitHub makes it."""
    titles = (title for _, title in HEADING.findall(prose(text)))
    return {re.sub(r"[^\w\- ]", "", re.sub(r"`", "", title)).strip().lower().replace(" ", "-") for title in titles}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of the page that lead nowhere, and every absolute path."""
    broken = []
    for link in (first or second for first, second in LINK.findall(prose(text))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        target, _, fragment = link.partition("#")
        path = page.parent / target if target else page
        if (
            target.startswith("/")
            or not path.resolve().is_relative_to(ROOT)
            or not path.exists()
            or (fragment and path.suffix == ".md" and fragment not in anchors(text if path == page else read(path)))
        ):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page, read(page)) == []


@pytest.mark.parametrize("link", ["nowhere.md", "README.md#no-such-heading", "/etc/passwd", "../../outside.md"])
def test_the_link_check_finds_a_broken_link(link: str) -> None:
    assert broken_links(README, f"see [there]({link})") == [link]


def test_every_page_in_docs_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [README]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        links = (first or second for first, second in LINK.findall(prose(read(page))))
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links if ":" not in link]
        waiting += [path for path in waiting if path.is_dir() for path in path.glob("*.md")]

    lost = [page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in seen]
    assert lost == []


def test_the_readmes_have_the_same_headings_and_commands() -> None:
    english, chinese = read(README), read(README_ZH)

    assert [len(marks) for marks, _ in HEADING.findall(prose(english))] == [
        len(marks) for marks, _ in HEADING.findall(prose(chinese))
    ]
    assert FENCE.findall(english) == FENCE.findall(chinese)


def test_the_readmes_link_to_the_same_pages() -> None:
    english, chinese = ({first or second for first, second in LINK.findall(read(page))} for page in (README, README_ZH))
    assert english - {"README.zh-CN.md"} == chinese - {"README.md"}


def test_every_test_that_a_page_names_is_there() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^(?:async )?def (test_\w+)\(", tests, re.MULTILINE))
    named = {name for page in pages() for name in re.findall(r"`(test_\w+)`", read(page))}
    files = {path for page in pages() for path in re.findall(r"`(tests/[\w/.]+\.py)`", read(page))}
    assert named
    assert files
    assert sorted(named - defined) == []
    assert sorted(path for path in files if not (ROOT / path).exists()) == []


def test_every_error_class_has_its_row_in_the_error_table() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \| `([\w.-]+)` \| (\d+) \|", read(ROOT / "docs/errors.md"), re.MULTILINE))
    classes = {
        (name, kind.code, str(kind.exit_code))
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.LeptonError)
    }
    assert rows == classes


def test_every_make_target_in_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    named = {
        (page.relative_to(ROOT).as_posix(), target)
        for page in pages()
        for target in re.findall(r"(?:`|^|&& )make ([a-z-]+)", read(page), re.MULTILINE)
    }
    assert named, "no page names a make target"
    assert sorted((page, target) for page, target in named if target not in targets) == []


def fields_a_daemon_can_send() -> dict[str, set[str]]:
    """Name of every message that a daemon's requests are made of, with its field names."""
    found: dict[str, set[str]] = {}
    waiting = [message.DESCRIPTOR for message in SENT_BY_DAEMONS]
    while waiting:
        message = waiting.pop()
        if message.name not in found:
            found[message.name] = {field.name for field in message.fields}
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return found


def test_the_table_of_what_leaves_has_every_field_a_daemon_can_send() -> None:
    rows = TABLE_ROW.findall(read(ROOT / "docs/what-leaves.md"))
    told = {name: set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}

    assert told == fields_a_daemon_can_send()


def test_every_decision_record_has_its_sections() -> None:
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert records
    wanted = ["Status", "Context", "Options", "Decision", "Consequences"]
    lacking = {
        path.name: [title for title in wanted if title not in (found for _, found in HEADING.findall(read(path)))]
        for path in records
        if path.name != "README.md"
    }
    assert {name: titles for name, titles in lacking.items() if titles} == {}


def test_every_changelog_fragment_is_one_sentence_of_a_known_kind() -> None:
    kinds = {"added", "changed", "fixed", "removed", "security"}
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    wrong = [
        path.name
        for path in fragments
        if path.suffixes[-2:-1] == []
        or path.suffixes[-2].removeprefix(".") not in kinds
        or len(read(path).strip().splitlines()) != 1
    ]
    assert wrong == []


def toml_blocks() -> list[tuple[str, str]]:
    """Page and text of every TOML block in the pages that is a whole job."""
    blocks = ((page, language, text) for page in pages() for language, text in FENCE.findall(read(page)))
    return [
        (page.relative_to(ROOT).as_posix(), text)
        for page, language, text in blocks
        if language == "toml" and "[task]" in text
    ]


def policy_blocks() -> list[tuple[str, str]]:
    """Page and text of every TOML block in the pages that is a whole policy."""
    blocks = ((page, language, text) for page in pages() for language, text in FENCE.findall(read(page)))
    return [
        (page.relative_to(ROOT).as_posix(), text)
        for page, language, text in blocks
        if language == "toml" and "[peers]" in text
    ]


@pytest.mark.parametrize(("page", "text"), policy_blocks(), ids=lambda value: value if value.endswith(".md") else "")
def test_every_policy_in_the_pages_can_be_loaded(page: str, text: str) -> None:
    policy = parse_settings(Policy, tomllib.loads(text), source=page)

    assert policy.populations


def test_the_deployment_page_shows_a_policy() -> None:
    assert "deploy/README.md" in [page for page, _ in policy_blocks()]


def test_the_readme_shows_a_job() -> None:
    assert "README.md" in [page for page, _ in toml_blocks()]


@pytest.mark.parametrize(("page", "text"), toml_blocks(), ids=lambda value: value if value.endswith(".md") else "job")
def test_every_job_in_the_pages_can_be_loaded(page: str, text: str) -> None:
    job = parse_settings(JobFile, tomllib.loads(text), source=page)

    assert job.task.features
