"""MNIST's four files are recognised by their content, packed or not; others are refused by name."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lenet5.errors import InputError
from lenet5.preparation import mnist_files
from lenet5.preparation.mnist_files import MnistFile, find_mnist_files, unpack_mnist

NAMES = tuple(file.name for file in mnist_files.MNIST_FILES)
URL = "https://example.org/mnist/"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"


def content_of(name: str) -> bytes:
    """The content of a stand-in."""
    return name.encode() * 10


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces MNIST's contents by short ones."""
    files = tuple(
        MnistFile(name, len(content_of(name)), hashlib.sha256(content_of(name)).hexdigest())
        for name in NAMES
    )
    monkeypatch.setattr(mnist_files, "MNIST_FILES", files)


@pytest.fixture
def mnist_dir(tmp_path: Path) -> Path:
    """A folder with four packed stand-ins."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(content_of(name)))
    return folder


def unpack_all(folder: Path) -> None:
    for name in NAMES:
        packed = folder / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()


def dotted(name: str) -> str:
    return name.replace("-idx", ".idx")


def rename_dotted(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.rename(folder / dotted(path.name))


def unpack_dotted(folder: Path) -> None:
    unpack_all(folder)
    rename_dotted(folder)


def unpack_but_keep_the_ending(folder: Path) -> None:
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(content_of(name))


def pack_again(folder: Path) -> None:
    for level, name in zip((1, 3, 6, 9), NAMES, strict=True):
        packed = gzip.compress(content_of(name), level, mtime=level)
        (folder / f"{name}.gz").write_bytes(packed)


def mix(folder: Path) -> None:
    (folder / IMAGES).write_bytes(content_of(IMAGES))
    (folder / f"{IMAGES}.gz").unlink()
    (folder / f"{LABELS}.gz").rename(folder / dotted(f"{LABELS}.gz"))


def keep_both(folder: Path) -> None:
    for name in NAMES:
        (folder / name).write_bytes(content_of(name))
        (folder / dotted(name)).write_bytes(content_of(name))


def add_folders(folder: Path) -> None:
    """Some unpackers make a folder of each archive."""
    for name in NAMES:
        (folder / name).mkdir()


def link(folder: Path) -> None:
    target = folder.with_name("elsewhere")
    folder.rename(target)
    folder.mkdir()
    for path in target.iterdir():
        (folder / path.name).symlink_to(path)


@pytest.mark.parametrize(
    "arrange",
    [
        *(lambda _: None, unpack_all, rename_dotted, unpack_dotted, unpack_but_keep_the_ending),
        *(pack_again, mix, keep_both, add_folders, link),
    ],
)
def test_files_with_the_right_content_are_accepted(
    mnist_dir: Path, tmp_path: Path, arrange: Callable[[Path], None]
) -> None:
    arrange(mnist_dir)
    assert set(find_mnist_files(mnist_dir)) == set(NAMES)
    assert unpacked(tmp_path, mnist_dir=mnist_dir) == []


def unpacked(tmp_path: Path, **more: Path | None) -> list[str]:
    """Unpacks the four files, checks their contents and returns what was reported."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    lines: list[str] = []
    where: dict[str, Path | None] = {"data_dir": tmp_path / "data", "mnist_dir": None, **more}
    unpack_mnist(URL, folder=folder, report=lines.append, **where)  # type: ignore[arg-type]
    assert {name: (folder / name).read_bytes() for name in NAMES} == {
        name: content_of(name) for name in NAMES
    }
    return lines


def refusal(mnist_dir: Path) -> str:
    with pytest.raises(InputError) as info:
        find_mnist_files(mnist_dir)
    return str(info.value)


def test_missing_mnist_files_are_named(mnist_dir: Path) -> None:
    (mnist_dir / f"{TEST_LABELS}.gz").unlink()
    (mnist_dir / f"{IMAGES}.gz").unlink()
    assert refusal(mnist_dir) == (
        f"{mnist_dir}: missing files: train-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz; the "
        "folder named by LENET5_MNIST_DIR or --mnist-dir must hold MNIST's four original files, "
        "packed (.gz) or unpacked"
    )


def test_a_folder_or_a_dangling_link_is_not_an_mnist_file(mnist_dir: Path) -> None:
    (mnist_dir / f"{TEST_LABELS}.gz").unlink()
    (mnist_dir / f"{TEST_LABELS}.gz").mkdir()
    (mnist_dir / TEST_LABELS).symlink_to("nowhere")
    assert f"missing files: {TEST_LABELS}.gz;" in refusal(mnist_dir)


def test_a_missing_mnist_folder_is_refused(mnist_dir: Path) -> None:
    for path in (mnist_dir / "nowhere", mnist_dir / f"{TEST_LABELS}.gz"):
        assert refusal(path).startswith(f"{path}: missing files: ")


PACKED = gzip.compress(content_of(TEST_LABELS), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"t10k", b"<html>404 Not Found</html>", content_of(LABELS)),
        *(PACKED[:-20], PACKED[:3], PACKED[:-6] + b"\0" + PACKED[-5:], PACKED + b"rubbish"),
        *(gzip.compress(content_of(LABELS), mtime=0), gzip.compress(PACKED, mtime=0)),
    ],
    ids=lambda content: f"{len(content)} bytes",
)
@pytest.mark.parametrize("name", [f"{TEST_LABELS}.gz", TEST_LABELS, dotted(TEST_LABELS)])
def test_an_altered_mnist_file_is_named(mnist_dir: Path, name: str, content: bytes) -> None:
    """This includes one of two spellings of a file whose other one is right."""
    (mnist_dir / name).write_bytes(content)
    assert refusal(mnist_dir) == (
        f"{mnist_dir}: damaged, or not MNIST's original: {name}; replace or delete the named files"
    )


def test_swapped_mnist_files_are_named(mnist_dir: Path) -> None:
    images, labels = mnist_dir / f"{IMAGES}.gz", mnist_dir / f"{LABELS}.gz"
    images.rename(mnist_dir / "swap")
    labels.rename(images)
    (mnist_dir / "swap").rename(labels)
    assert f"{images.name}, {labels.name}; replace" in refusal(mnist_dir)


def test_an_archive_is_not_unpacked_beyond_the_expected_size(
    mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    class Counted(gzip.GzipFile):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal read
            content = super().read(size)
            read += len(content)
            return content

    monkeypatch.setattr(gzip, "GzipFile", Counted)
    monkeypatch.setattr(mnist_files, "_CHUNK", 100)
    (mnist_dir / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(bytes(10_000)))
    assert TEST_LABELS in refusal(mnist_dir)
    assert read < 2_000


def test_an_unreadable_mnist_file_is_named(
    mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, _: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(mnist_dir) == f"{mnist_dir / IMAGES}.gz: cannot be read: Permission denied"


# TFDS's download cache, and downloads


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Contents by address; an address without content cannot be reached."""
    contents: dict[str, bytes] = {}

    def download(url: str, largest: int) -> bytes:
        assert largest == len(content_of(Path(url).stem))
        if url not in contents:
            raise InputError("example.org: Failed to resolve")
        return contents[url]

    monkeypatch.setattr(mnist_files, "download", download)
    return contents


@pytest.fixture
def downloads(mnist_dir: Path, tmp_path: Path) -> Path:
    """TFDS's download cache with four whole archives."""
    folder = tmp_path / "data" / "downloads" / "mnist"
    folder.mkdir(parents=True)
    for name in NAMES:
        shutil.copy(mnist_dir / f"{name}.gz", folder / f"cvdf-datasets_mnist_{name}RA_Kv3-P.gz")
    return folder


def test_whole_archives_in_the_download_cache_are_used(tmp_path: Path, downloads: Path) -> None:
    assert downloads.exists()
    assert unpacked(tmp_path) == []


def test_archives_of_other_datasets_are_not_looked_at(tmp_path: Path, downloads: Path) -> None:
    """Fashion-MNIST and KMNIST use the same names."""
    for other in ("fashion-mnist.s3-website", "codh.rois.ac.jp_kmnist_kmnist"):
        (downloads / f"{other}_{LABELS}RA_Kv3-P.gz").write_bytes(b"")
    assert unpacked(tmp_path) == []


@pytest.mark.parametrize("folder", ["", "manual"])
def test_archives_of_other_places_of_the_cache_are_used(
    tmp_path: Path, downloads: Path, folder: str
) -> None:
    """Older TFDS has no folder per dataset; `manual` has the original names."""
    (downloads.parent / folder).mkdir(exist_ok=True)
    for path, name in zip(sorted(downloads.iterdir()), sorted(NAMES), strict=True):
        path.rename(downloads.parent / folder / (f"{name}.gz" if folder else path.name))
    assert unpacked(tmp_path) == []


def test_a_damaged_archive_in_the_download_cache_is_downloaded_again(
    tmp_path: Path, downloads: Path, server: dict[str, bytes]
) -> None:
    """TFDS itself would prepare it. The file stays: it is TFDS's."""
    (damaged,) = downloads.glob(f"*{LABELS}*")
    damaged.write_bytes(gzip.compress(b"other labels"))
    server[f"{URL}{LABELS}.gz"] = gzip.compress(content_of(LABELS))
    assert unpacked(tmp_path) == [
        f"{damaged}: damaged, not used",
        f"downloading {URL}{LABELS}.gz",
    ]
    assert damaged.exists()


def test_a_damaged_archive_without_network_is_refused(
    tmp_path: Path, downloads: Path, server: dict[str, bytes]
) -> None:
    assert not server
    (damaged,) = downloads.glob(f"*{LABELS}*")
    damaged.write_bytes(b"")
    lines: list[str] = []
    with pytest.raises(InputError) as info:
        unpack_mnist(
            URL, data_dir=tmp_path / "data", mnist_dir=None, folder=tmp_path, report=lines.append
        )
    assert lines[0] == f"{damaged}: damaged, not used"
    assert str(info.value) == (
        "MNIST cannot be downloaded: example.org: Failed to resolve; without network, name a "
        "folder with MNIST's four original files in LENET5_MNIST_DIR or --mnist-dir"
    )


def test_downloaded_files_are_verified(tmp_path: Path, server: dict[str, bytes]) -> None:
    """A proxy may answer with a page of its own; a server may unpack on the way."""
    for name in NAMES:
        server[f"{URL}{name}.gz"] = content_of(name)
    assert len(unpacked(tmp_path)) == 4
    server[f"{URL}{LABELS}.gz"] = b"<html>Please log in</html>"
    with pytest.raises(InputError, match=f"{LABELS}.gz: the answer is not MNIST's original; is it"):
        unpack_mnist(URL, data_dir=tmp_path, mnist_dir=None, folder=tmp_path, report=lambda _: None)
