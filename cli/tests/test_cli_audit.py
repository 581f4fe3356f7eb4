"""An exported chain checked by itself: what holds holds, and every change of a line is found."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from collegium_cli.arguments import parser
from collegium_cli.tenants.audit import line_of
from collegium_cli.tenants.audit_file import FileVerdict, verify_lines
from collegium_contracts.audit import AuditEntry, Signed
from collegium_contracts.audit_chain import genesis, link
from collegium_contracts.audit_export import ChainLine, EndLine, Format, MalformedExportError, Writer
from collegium_runtime.audit_keys import AuditSigner, load_signer

TEXTS = ("plain", "=1+1", "'quoted", 'a,b"c', "é漢\u00a0😀", "-", "\\n")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> AuditSigner:
    return load_signer(tmp_path_factory.mktemp("key"), None)


def export(signer: AuditSigner, form: Format = "jsonl", *, records: int = 5, signed: int = 5) -> list[str]:
    """An export of a chain whose first records are covered by a signature."""
    writer = Writer(form)
    head = ChainLine(
        tenant="acme", after_seq=0, after_hash=genesis("acme"), checkpoint=None,
        public_keys={signer.key_id: signer.public_key},
    )  # fmt: skip
    lines = [writer.head() + writer.line(head)]
    prev, places = genesis("acme"), []
    for seq in range(1, records + 1):
        text = TEXTS[seq % len(TEXTS)]
        entry = AuditEntry(
            id=f"aud_{seq}", tenant="acme", service="gateway", actor=text, action="keys.create", outcome="done",
            at_ms=seq, object=text, details={"name": text},
        )  # fmt: skip
        record = link(entry, seq=seq, prev_hash=prev, sealed_at_ms=9, stream="s", stream_sequence=seq)
        prev = record.hash
        lines.append(writer.line(record))
        if seq == signed:
            unsigned = Signed(kind="head", tenant="acme", seq=seq, hash=prev, at_ms=9, round=0, key_id="", signature="")
            places.append(writer.line(signer.sign(unsigned)))
    return "".join([*lines, *places, writer.line(EndLine(records=records))]).splitlines(keepends=True)


def problem_of(lines: list[str], signer: AuditSigner | None = None) -> tuple[int, str] | None:
    found = verify_lines(lines, [signer.public_key] if signer else ())
    return (found.problem.seq, found.problem.kind) if found.problem else None


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_was_exported_holds(signer: AuditSigner, form: Format) -> None:
    found = verify_lines(export(signer, form, records=7, signed=7), [signer.public_key])
    assert found == FileVerdict(
        tenant="acme", records=7, first=1, last=7, covered=7, begins="genesis", keys=[signer.key_id], trusted=True
    )
    assert found.holds
    assert not verify_lines(export(signer, form, records=7, signed=5)).holds, "two records are not covered"


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_every_changed_digit_or_letter_of_a_record_is_found(signer: AuditSigner, form: Format) -> None:
    lines = export(signer, form)
    changed = 0
    for number in range(2 if form == "csv" else 1, len(lines) - 2):
        for position, old in enumerate(lines[number].rstrip("\n")):
            if not old.isalnum():
                continue
            new = "7" if old != "7" else "8"
            damaged = [*lines]
            damaged[number] = lines[number][:position] + new + lines[number][position + 1 :]
            with contextlib.suppress(MalformedExportError):
                assert problem_of(damaged, signer) is not None, (number, position, old)
            changed += 1
    assert changed > 500


Change = Callable[[list[str]], list[str]]
CHANGES: dict[str, tuple[Change, tuple[int, str]]] = {
    "delete": (lambda lines: [*lines[:3], *lines[4:]], (3, "missing")),
    "reorder": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], (2, "missing")),
    "repeat": (lambda lines: [*lines[:3], lines[2], *lines[3:]], (2, "repeated")),
    "cut": (lambda lines: lines[:-1], (6, "missing")),
    "cut records": (lambda lines: [*lines[:5], *lines[6:]], (5, "head")),
    "another tenant's name": (lambda lines: [line.replace('"acme"', '"evil"') for line in lines], (0, "unlinked")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_lines_that_went_or_moved_are_found(signer: AuditSigner, what: str) -> None:
    change, expected = CHANGES[what]
    assert problem_of(change(export(signer)), signer) == expected


def test_a_file_signed_by_somebody_else_is_refused_by_who_knows_the_key(signer: AuditSigner, tmp_path: Path) -> None:
    other = load_signer(tmp_path, "another secret")
    assert other.key_id != signer.key_id
    assert problem_of(export(other), signer) == (5, "signature")
    assert problem_of(export(other)) is None
    assert not verify_lines(export(other)).trusted
    stolen = [line.replace(other.key_id, signer.key_id) for line in export(other)]
    assert problem_of(stolen, signer) == (5, "signature")


@pytest.mark.parametrize("text", ["", "no export\n", "{}\n", '{"kind":"end","records":0}\n', "[1]\n", "{" * 9 + "\n"])
def test_what_is_no_export_is_refused(text: str) -> None:
    with pytest.raises(MalformedExportError):
        verify_lines(text.splitlines(keepends=True))


def test_the_verb_checks_a_file_without_a_platform(
    signer: AuditSigner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "acme.jsonl"
    file.write_text("".join(export(signer)))
    words = ["audit", "verify", "--file", str(file), "--public-key", signer.public_key]
    options = parser().parse_args([*words, "--json"])
    assert options.run(options) == 0
    assert json.loads(capsys.readouterr().out)["holds"] is True
    file.write_text("".join(export(signer)).replace("keys.create", "keys.revoke", 1))
    options = parser().parse_args(words)
    assert options.run(options) == 1
    assert "BROKEN at record 1 (altered)" in capsys.readouterr().err
    options = parser().parse_args([*words[:-1], "xyz"])
    assert options.run(options) == 1
    options = parser().parse_args(["audit", "verify", "--file", str(tmp_path / "absent")])
    assert options.run(options) == 1


def test_a_line_tells_of_a_chain() -> None:
    sound = {"tenant": "acme", "records": 3, "seq": 3, "hash": "ab" * 32, "anchors": 1, "findings": 0, "problem": None}
    assert line_of(sound).startswith("acme                 holds: 3 records up to 3, 1 anchors")
    broken = {**sound, "problem": {"seq": 2, "kind": "altered", "detail": "why"}}
    assert line_of(broken) == "acme                 BROKEN at record 2 (altered): why"


def test_the_signing_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = load_signer(tmp_path, None)
    assert load_signer(tmp_path, None).public_key == first.public_key
    assert (tmp_path / "audit.key").stat().st_mode & 0o777 == 0o600
    assert load_signer(tmp_path, "configured").public_key != first.public_key
