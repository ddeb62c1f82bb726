"""Profiles: the file, who may read it, and sessions by name."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import telegrad as tg
from hypothesis import given
from hypothesis import strategies as st
from telegrad import profiles
from telegrad.errors import AccessError, NotFound
from telegrad.profiles import Profile, Profiles, read_profiles, write_profiles

from tests.cli.conftest import Server

printable = st.text(st.characters(exclude_categories=["Cs"]))
some = st.builds(Profile, address=printable, ca_cert=st.none() | printable, token=st.none() | printable)
names = st.from_regex(profiles.NAME, fullmatch=True)


def test_without_a_file_there_is_no_profile() -> None:
    assert read_profiles() == Profiles()


def test_what_is_written_is_read_and_is_the_users_alone(configuration: Path) -> None:
    written = Profiles().put("a.b", Profile("grpc://a:1", token="secret")).put("c", Profile("grpcs://c:2", "ca.pem"))

    assert write_profiles(written) == configuration

    assert read_profiles() == written
    assert written.default == "a.b"
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    assert [path.name for path in configuration.parent.iterdir()] == ["profiles.toml"]


@given(st.dictionaries(names, some, max_size=3), st.none() | printable)
def test_any_text_survives_the_file(by_name: dict[str, Profile], default: str | None) -> None:
    found = Profiles(by_name, default)

    text = profiles._text(found)  # pyright: ignore[reportPrivateUsage]

    assert profiles._parse(text, Path("x")) == found  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default = ", "no TOML"),
        ("profile = 1", "nothing else at its top"),
        ("default = 3", "nothing else at its top"),
        ("profiles = 3", "nothing else at its top"),
        ("[profiles.a]", "needs an address"),
        ("[profiles.a]\naddress = 1", "needs an address"),
        ('[profiles.a]\naddress = "x"\npassword = "y"', "may have ca_cert, token_file, token"),
        ('[profiles."a b"]\naddress = "x"', "is no profile"),
        ("[profiles]\na = 1", "is no profile"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(text: str, said: str, configuration: Path) -> None:
    configuration.parent.mkdir(parents=True)
    configuration.write_text(text)
    configuration.chmod(0o600)

    with pytest.raises(AccessError, match=said):
        read_profiles()


def test_a_file_that_others_may_read_is_refused(configuration: Path) -> None:
    write_profiles(Profiles().put("a", Profile("grpc://a:1")))
    configuration.chmod(0o644)

    with pytest.raises(AccessError, match="chmod 600"):
        read_profiles()


def test_the_token_is_not_in_the_repr() -> None:
    assert "secret" not in repr(Profile("grpc://a:1", token="secret"))


def test_a_profiles_token_goes_before_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TELEGRAD_TOKEN", "of another server")
    (tmp_path / "token").write_text("of the file\n")
    (tmp_path / "token").chmod(0o600)

    assert Profile("a", token="its own").find_token() == "its own"
    assert Profile("a", token_file=str(tmp_path / "token")).find_token() == "of the file"
    assert Profile("a").find_token() == "of another server"


def test_a_profile_that_is_removed_is_no_default() -> None:
    two = Profiles().put("a", Profile("grpc://a:1")).put("b", Profile("grpc://b:1"))

    assert two.without("a") == Profiles({"b": Profile("grpc://b:1")})
    assert two.without("b").default == "a"


def test_a_session_opens_by_a_profiles_name(secure: Server) -> None:
    entry = Profile(secure.address, secure.ca_cert, secure.token_file)
    write_profiles(Profiles().put("box", entry))

    with tg.connect("box", new=True):
        assert (tg.asarray([1.0]) + 1).item() == 2


def test_a_name_that_is_no_profile_says_which_there_are() -> None:
    write_profiles(Profiles().put("box", Profile("grpc://a:1")))

    with pytest.raises(NotFound, match=r"no profile 'bux'; there are box; .* grpc://host:port"):
        tg.connect("bux")
