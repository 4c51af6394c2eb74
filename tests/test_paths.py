import sys
from pathlib import Path

import pytest

from lorafit.errors import DataError, ModelError
from lorafit.paths import resolve


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that must not be imported."""
    root = tmp_path / "site" / "some_pack"
    (root / "data").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('was imported')")
    (root / "data" / "reviews.csv").write_text("text,label\ngood,1\n")
    (tmp_path / "site" / "secret.csv").write_text("no")
    (tmp_path / "site" / "lonely_module.py").write_text("raise RuntimeError('was imported')")
    info = tmp_path / "site" / "other_name-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-name\nVersion: 1.0\n")
    (info / "RECORD").write_text("some_pack/__init__.py,,\nsome_pack/data/reviews.csv,,\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return root


def test_a_package_file_is_found_without_importing_the_package(package):
    path = resolve("package:some_pack/data/reviews.csv")
    assert path == (package / "data" / "reviews.csv").resolve()
    assert "some_pack" not in sys.modules


def test_a_package_folder_and_the_package_itself_are_found(package):
    assert resolve("package:some_pack/data") == (package / "data").resolve()
    assert resolve("package:some_pack") == package.resolve()


@pytest.mark.parametrize("name", ["some-pack", "other-name", "Other_Name"])
def test_dashes_and_the_distribution_name_find_the_module(package, name):
    assert resolve(f"package:{name}/data/reviews.csv") is not None


def test_a_missing_package_says_how_to_install_it(package):
    with pytest.raises(
        DataError, match=r'"some-pak".*Did you mean "some_pack".*pip install some-pak'
    ):
        resolve("package:some-pak/data/reviews.csv")


def test_a_missing_package_file_lists_close_names(package):
    with pytest.raises(DataError, match=r'has no "review.csv"\. Did you mean "reviews.csv"'):
        resolve("package:some_pack/data/review.csv")
    with pytest.raises(DataError, match=r'package "some_pack" has no "dat"\. Did you mean "data"'):
        resolve("package:some_pack/dat/reviews.csv")
    with pytest.raises(DataError, match=r"is a file, not a folder"):
        resolve("package:some_pack/data/reviews.csv/x")
    with pytest.raises(DataError, match=r'has no "zzzzzz"\. It has reviews.csv'):
        resolve("package:some_pack/data/zzzzzz")


@pytest.mark.parametrize(
    "name",
    ["some_pack/../secret.csv", "some_pack/data/../../secret.csv", "some_pack//etc/passwd"],
)
def test_a_package_path_cannot_leave_the_package(package, name):
    with pytest.raises(DataError, match="leaves the package"):
        resolve(f"package:{name}")


def test_links_cannot_lead_out_of_the_package(package):
    (package / "data" / "link.csv").symlink_to(package.parent / "secret.csv")
    for name in ("data/link.csv", "data"):
        with pytest.raises(DataError, match=r"link.*outside"):
            resolve(f"package:some_pack/{name}")


def test_links_inside_the_package_are_followed(package):
    (package / "link.csv").symlink_to(package / "data" / "reviews.csv")
    found = resolve("package:some_pack/link.csv")
    assert found is not None
    assert found.read_text().startswith("text")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:", "names no package"),
        ("package:a.b/c", "not the name of a package"),
        ("package:lonely_module/x", "ships no files"),
        ("package:__main__/x", "not installed"),
        ("", "empty name"),
        ("   ", "empty name"),
        ("a\0b", "NUL"),
    ],
)
def test_names_that_cannot_be_are_refused(package, name, message):
    with pytest.raises(DataError, match=message):
        resolve(name)


def test_an_existing_path_is_that_path(tmp_path, monkeypatch):
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("org/model") == Path("org/model")
    assert resolve(tmp_path) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/org") == tmp_path / "org"


@pytest.mark.parametrize("name", ["distilbert-base-uncased", "org/name", "org/name-v1.5"])
def test_what_looks_like_a_hub_id_is_none(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert resolve(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "./reviews",
        "../nothing-there",
        "/no/such/place",
        "reviews.csv",
        "a/b/c",
        "train.jsonl.gz",
        "folder/",
        "~nobody-of-that-name/x",
        "model.gguf",
        "two words",
    ],
)
def test_what_clearly_is_a_path_and_does_not_exist_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        resolve(name)


def test_a_misspelled_path_names_the_close_ones(tmp_path):
    (tmp_path / "reviews.csv").touch()
    with pytest.raises(DataError, match=r'has no "review.csv"\. Did you mean "reviews.csv"'):
        resolve(f"{tmp_path}/review.csv")
    with pytest.raises(DataError, match=r"has no \"dta\"\. It has reviews.csv"):
        resolve(f"{tmp_path}/dta/review.csv")


def test_the_caller_chooses_the_error():
    with pytest.raises(ModelError):
        resolve("./no-such-model", ModelError)


def test_a_name_that_is_too_long_is_an_error():
    with pytest.raises(DataError, match="cannot look at"):
        resolve("/" + "x" * 5000)
