"""`telegrad-server journal`: what it says of a journal that is whole, damaged, or in use."""

from __future__ import annotations

from pathlib import Path

import pytest
from telegrad.wire.job_codec import encode_spec, spec_digest
from telegrad_server.commands import main
from telegrad_server.jobs import events as e
from telegrad_server.journal import Journal

from tests.jobs.specs import small_spec

pytestmark = pytest.mark.slow  # commands in processes of their own


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = small_spec("a")
    data = encode_spec(spec)
    journal = Journal(tmp_path / "journal.db")
    journal.append([e.Submitted.of("a", "t", spec, data)], 1.0, specs={spec_digest(data): data})
    journal.append([e.CancelAsked("a")], 2.0)
    journal.close()
    return tmp_path


def test_a_whole_journal_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "check", "--data-dir", str(folder)]) == 0
    assert "2 events of 1 jobs" in capsys.readouterr().out


def test_a_copy_can_take_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = folder / "copy.db"

    assert main(["journal", "backup", str(copy), "--data-dir", str(folder)]) == 0

    assert f"copied  {copy}" in capsys.readouterr().out
    backup, journal = Journal(copy), Journal(folder / "journal.db")
    assert backup.replay() == journal.replay()
    backup.close()
    journal.close()


def test_a_damaged_one_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "journal.db"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"CancelAsked", b"CancelAskeD"))

    assert main(["journal", "check", "--data-dir", str(folder)]) == 2

    assert "event 2 is not as it was written" in capsys.readouterr().err


def test_one_that_a_server_has_open_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Journal(folder / "journal.db")

    assert main(["journal", "check", "--data-dir", str(folder)]) == 2

    assert "open in another process" in capsys.readouterr().err
    server.close()


@pytest.mark.parametrize("words", [["check", "x.db"], ["backup"], ["mend"]])
def test_what_is_no_command_is_refused(folder: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["journal", *words, "--data-dir", str(folder)])
    assert caught.value.code == 2


def test_a_folder_without_one_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "check", "--data-dir", str(tmp_path)]) == 2
    assert "there is no journal" in capsys.readouterr().err
