"""Strict parsing of requests, with errors of one line."""

from __future__ import annotations

import re
import shlex
import site
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.environments.builds import default_cache
from bench.environments.request import moment_of, parse_request, quoted
from lenet5.errors import InputError
from tests.environments.wheels import write_wheel


@pytest.mark.parametrize(
    ("text", "requirements", "settings", "overrides"),
    [
        ("tensorflow-cpu==2.16.2 keras==3.0.5", ("tensorflow-cpu==2.16.2", "keras==3.0.5"), {}, ()),
        ("  tf-nightly\t", ("tf-nightly",), {}, ()),
        ("tensorflow-cpu>=2.22.0rc0,<3", ("tensorflow-cpu>=2.22.0rc0,<3",), {}, ()),
        ("'keras; python_version < \"4\"'", ('keras; python_version < "4"',), {}, ()),
        ("tf-nightly 'numpy >= 1'", ("tf-nightly", "numpy >= 1"), {}, ()),
        (
            "tf-nightly 'XLA_FLAGS=--a=b --c=d' LD_LIBRARY_PATH=/opt/a:/opt/b",
            ("tf-nightly",),
            {"XLA_FLAGS": "--a=b --c=d", "LD_LIBRARY_PATH": "/opt/a:/opt/b"},
            (),
        ),
        (
            "tensorflow==2.21.0 TF_ENABLE_ONEDNN_OPTS=0 XLA_FLAGS=--a=b KERAS_BACKEND=tensorflow",
            ("tensorflow==2.21.0",),
            {"TF_ENABLE_ONEDNN_OPTS": "0", "XLA_FLAGS": "--a=b", "KERAS_BACKEND": "tensorflow"},
            (),
        ),
        ("tf-nightly TF_X=", ("tf-nightly",), {"TF_X": ""}, ()),
        (
            "tensorflow[and-cuda]==2.21.0 NVIDIA_TF32_OVERRIDE=0",
            ("tensorflow[and-cuda]==2.21.0",),
            {"NVIDIA_TF32_OVERRIDE": "0"},
            (),
        ),
        (
            "tensorflow-cpu==2.16.2 tf-keras==2.16.0 without:tensorflow override:keras==3.0.5",
            ("tensorflow-cpu==2.16.2", "tf-keras==2.16.0"),
            {},
            ("tensorflow ; sys_platform == 'never'", "keras==3.0.5"),
        ),
    ],
)
def test_a_request_is_parsed(
    text: str, requirements: tuple[str, ...], settings: dict[str, str], overrides: tuple[str, ...]
) -> None:
    request = parse_request(text)
    assert request.text == " ".join(text.split())
    assert request.requirements == requirements
    assert request.settings == settings
    assert request.overrides == overrides
    assert request.interpreter is None


ODD_NAMES = ("a b", "it's", 'say "so"', "back\\slash", "Grüße", "100 % #1 $HOME", " b ")


def with_backslashes(word: str) -> str:
    return re.sub(r"(\W)", r"\\\1", word)


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize(
    "quote", [quoted, shlex.quote, lambda word: re.sub(r"(\W)", r"\\\1", word)]
)
def test_a_path_with_blanks_quotes_or_backslashes_is_quoted_as_in_a_shell(
    name: str, quote: Callable[[str], str], tmp_path: Path
) -> None:
    """All spellings give the same request, and its text gives the request again."""
    wheel = write_wheel(tmp_path / name)
    python = tmp_path / name / "bin" / "python"
    for word, setting in (
        (f"python:{python}", f"LD_LIBRARY_PATH={wheel.parent}"),
        (wheel, "TF_A="),
    ):
        key, _, value = setting.partition("=")
        request = parse_request(f"  {quote(str(word))}   {key}={quote(value) if value else ''}")
        assert request.text == f"{quoted(str(word))} {quoted(setting)}"
        assert parse_request(request.text) == request
        assert request.interpreter in (None, python)
        assert request.requirements in ((), (str(wheel),))
        assert list(request.settings.values()) in ([""], [str(wheel.parent)])


def test_folders_in_settings_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = parse_request("python:/x PYTHONPATH=a::./b PYTHONUSERBASE=c LD_LIBRARY_PATH=d")
    assert request.settings == {
        "PYTHONPATH": f"{tmp_path}/a:{tmp_path}/b",
        "PYTHONUSERBASE": f"{tmp_path}/c",
        "LD_LIBRARY_PATH": f"{tmp_path}/d",
    }


def test_a_dot_includes_the_import_path_of_this_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path of checkouts only is left out; words of the request prevail."""
    for folder in ("one/tensorflow", "two/keras-3.15.1.dist-info", "checkout/lenet5", "user/numpy"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    for names in ("one:checkout", "checkout::two"):
        monkeypatch.setenv("PYTHONPATH", names)
        folders = [f"{tmp_path}/{name}" for name in names.split(":") if name]
        assert parse_request(".").settings == {"PYTHONPATH": ":".join(folders)}
    assert parse_request("python:/x").settings == {}
    assert parse_request(". PYTHONPATH=").settings == {"PYTHONPATH": ""}
    monkeypatch.setenv("PYTHONPATH", "checkout")
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(site, "getuserbase", lambda: "/home/someone/.local")
    assert parse_request(". TF_A=1").settings == {
        "PYTHONUSERBASE": "/home/someone/.local",
        "TF_A": "1",
    }
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    assert parse_request(".").settings == {}


@pytest.mark.parametrize(
    ("as_of", "moment"),
    [
        ("2026-09-01", "2026-09-02T00:00:00+00:00"),  # to its end
        ("2024-02-29", "2024-03-01T00:00:00+00:00"),
        ("2026-09-01T12:00:00Z", "2026-09-01T12:00:00+00:00"),
        ("2026-09-01t12:00:00.25z", "2026-09-01T12:00:00.250000+00:00"),
        ("2026-09-01T01:00:00.123456789+02:00", "2026-08-31T23:00:00.123456+00:00"),
    ],
)
def test_a_date_means_the_same_moment_everywhere(as_of: str, moment: str) -> None:
    request = parse_request(f"as-of:{as_of} tensorflow-cpu keras>=3")
    assert request.as_of == as_of
    assert request.requirements == ("tensorflow-cpu", "keras>=3")
    assert moment_of(request.as_of).isoformat() == moment
    assert parse_request(request.text) == request


def test_a_dot_is_the_current_environment() -> None:
    request = parse_request(". TF_ENABLE_ONEDNN_OPTS=0")
    assert request.interpreter == Path(sys.executable)
    assert request.requirements == ()
    assert request.settings == {"TF_ENABLE_ONEDNN_OPTS": "0"}


def test_an_interpreter_path_may_be_missing_and_keeps_its_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment's python is a link to another Python, without its packages."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").symlink_to(sys.executable)
    assert parse_request("python:./python").interpreter == tmp_path / "python"
    assert parse_request("python:missing/python").interpreter == tmp_path / "missing" / "python"


def test_a_wheel_becomes_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = write_wheel(tmp_path / "a folder")
    monkeypatch.chdir(wheel.parent)
    monkeypatch.setenv("HOME", str(wheel.parent))
    for word in (wheel.name, f"./{wheel.name}", f"~/{wheel.name}"):
        assert parse_request(word).requirements == (str(wheel),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty environment: give requirements, a wheel, . or python:PATH"),
        ("TF_X=1", "TF_X=1: give requirements, a wheel, . or python:PATH"),
        ("without:keras", "without:keras: give requirements, a wheel, . or python:PATH"),
        ("-r reqs.txt", "-r reqs.txt: -r: options are not allowed, give packages only"),
        ("keras\n--index-url=x", "keras --index-url=x: --index-url=x: options are not allowed"),
        ("keras\u2028-rx", r"'keras\u2028-rx': contains an invisible character"),
        ("keras --config-settings=a=b", "--config-settings=a=b: options are not allowed"),
        ("without:--find-links=x", "--find-links=x: options are not allowed"),
        ("keras;--hash=x", "keras;--hash=x is not a requirement"),
        ("keras\\", "keras\\: no escaped character: quote words as in a shell"),
        ("keras==3.0#egg", "keras==3.0#egg is not a requirement"),
        ("keras[a,--b]", "is not a requirement"),
        (
            "tensorflow-cpu[and-cuda]==2.21.0",
            "tensorflow-cpu cannot use CUDA's libraries: ask for tensorflow[and-cuda]",
        ),
        ("TF_Nightly.CPU[and_cuda]", "TF_Nightly.CPU cannot use CUDA's libraries"),
        ("keras\0", r"keras\x00: contains an invisible character"),
        (". TF_X=a\x1b[2J", r"TF_X=a\x1b[2J: contains an invisible character"),
        ("keras==3\u202e", r"keras==3\u202e: contains an invisible character"),
        ("\ud800", r"\ud800: contains an invisible character"),
        ("--index-url=x", "--index-url=x: --index-url=x: options are not allowed"),
        ("override:-e", "override:-e: -e: options are not allowed"),
        ("https://x.invalid/a.whl", "URLs are not allowed, give a version or a wheel's path"),
        ("git+https://x.invalid/a", "URLs are not allowed"),
        ("keras@https://x.invalid/a", "URLs are not allowed"),
        ("keras @ file:/x", "keras @ file:/x: @: URLs are not allowed"),
        ("keras@./x", "URLs are not allowed"),
        ("override:keras@./x", "URLs are not allowed"),
        ("./folder", "./folder: ./folder: only wheels (.whl) are accepted as files"),
        ("/x/tensorflow.tar.gz", "only wheels (.whl) are accepted"),
        ("./missing-1-py3-none-any.whl", "missing-1-py3-none-any.whl: the wheel does not exist"),
        ("keras >= 3", "keras >= 3: >= is not a requirement: write it without blanks, such as"),
        (
            'keras;python_version<"4"',
            "keras;python_version<4 is not a requirement: write it in",
        ),
        ("tf-nightly ''", "tf-nightly '': nothing is not a requirement"),
        ("./it's-1-py3-none-any.whl", "any.whl: no closing quotation: quote words as in a shell"),
        ("tf-nightly \\", "tf-nightly \\: no escaped character: quote words as in a shell"),
        ("'./a\nb.whl'", r"'./a\nb.whl': contains an invisible character"),
        ("tf-nightly PYTHONPATH=/x", "PYTHONPATH needs an existing Python beside it"),
        ("override:", "override:: nothing is not a requirement"),
        ("python:", "python:: python: is not a requirement"),
        ("without:keras==3", "without:keras==3: expected a name only, such as without:keras"),
        (
            "tensorflow=2.16",
            "tensorflow=2.16 is not a setting, which begins with TF_, XLA_ or KERAS_ or is "
            "NVIDIA_TF32_OVERRIDE, PYTHONPATH, PYTHONUSERBASE or LD_LIBRARY_PATH; a version is "
            "written with ==",
        ),
        (". NVIDIA_TF32_OVERRIDE=2", "NVIDIA_TF32_OVERRIDE=2: expected 0 or 1"),
        (". NVIDIA_TF32_OVERRIDE=", "NVIDIA_TF32_OVERRIDE=: expected 0 or 1"),
        (". NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=0 is not a setting"),
        (
            ". CUDA_VISIBLE_DEVICES=1",
            "CUDA_VISIBLE_DEVICES=1: a device is not part of an environment: choose it with "
            "--device",
        ),
        (". PATH=/x", "PATH=/x is not a setting"),
        (". LD_PRELOAD=x", "LD_PRELOAD=x is not a setting"),
        (". KERAS_BACKEND=jax", "KERAS_BACKEND=jax: only Keras on TensorFlow is measured"),
        (". TF_X=1 TF_X=2", ". TF_X=1 TF_X=2: TF_X is set twice"),
        (". keras==3.0.5", "an existing Python accepts only settings beside it"),
        (". without:keras", "an existing Python accepts only settings"),
        (". as-of:2026-09-01", "an existing Python accepts only settings"),
        ("python:/x as-of:2026-09-01", "an existing Python accepts only settings"),
        ("as-of:2026-09-01", "as-of:2026-09-01: give requirements, a wheel, . or python:PATH"),
        ("keras as-of:2026-09-01 as-of:2026-09-02", "2026-09-02: as-of: is given twice"),
        *(
            (f"keras as-of:{date}", f"as-of:{date}: expected a date such as as-of:2026-09-01")
            for date in (
                *("", "today", "2026-9-1", "2026-09-31", "20260901", "2026-W36-2", "9999-12-31"),
                *("2026-09-01T12:00Z", "2026-09-01T12:00:00", "2026-09-01T25:00:00Z"),
                *("2026-09-01T12:00:00+99:00", "0001-01-01T00:00:00+01:00", "٢٠٢٦-09-01"),
            )
        ),
        (". python:/x", "an existing Python accepts only settings"),
        ("python:~nobody-of-this-name/python", "nobody-of-this-name"),
    ],
)
def test_an_invalid_request_is_rejected_in_one_line(
    text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        parse_request(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["keras@https://user:secret@x.invalid/a", ". TF_X=http://secret@x.invalid"]
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InputError, match="would stand in every report") as caught:
        parse_request(text)
    assert "secret" not in str(caught.value)
    assert "://****@x.invalid" in str(caught.value)


@pytest.mark.parametrize(
    "required", ["other @ https://x.invalid/a.whl", "other@file:///x", "other @ git+ssh://x/y"]
)
def test_a_wheel_that_requires_a_url_is_refused(required: str, tmp_path: Path) -> None:
    """Uv would fetch and build it, and the lock would have no version of it."""
    wheel = write_wheel(tmp_path, requires=["keras==3.15.1", required])
    with pytest.raises(InputError, match="requires other from a URL: give its wheel beside it"):
        parse_request(str(wheel))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_wheel_is_refused(content: bytes, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path)
    wheel.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{wheel.name} is not a whole wheel")):
        parse_request(str(wheel))


def test_metadata_without_end_is_not_read(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, requires=["k" * 2**20] * 5)
    with pytest.raises(InputError, match="METADATA is too large"):
        parse_request(str(wheel))


def test_a_file_without_a_wheel_name_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "my.whl").touch()
    with pytest.raises(InputError, match="is not a wheel's name: keep its original"):
        parse_request(f"{tmp_path}/my.whl")


def test_environments_are_stored_in_the_users_cache() -> None:
    assert default_cache({"XDG_CACHE_HOME": "/x"}) == Path("/x/lenet5-bench")
    assert default_cache({"XDG_CACHE_HOME": ""}) == Path.home() / ".cache" / "lenet5-bench"
