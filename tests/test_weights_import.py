"""`scaler weights`: files are checked, told apart, kept with their facts, or refused in one line."""

import io
import json
import pickle
import sys
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from scaler.cli import run
from scaler.data.preprocessing import UNIT
from scaler.errors import MissingExtraError, UserError
from scaler.models.backbones import mobilenetv2
from scaler.training.pretrained.facts import imported

torch = pytest.importorskip("torch", reason="torch is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")

from pretrained_files import renamed, write_keras  # noqa: E402
from torch import Tensor  # noqa: E402

from scaler.training.network.mapping import torchvision_mobilenetv2  # noqa: E402
from scaler.training.network.module import to_torch  # noqa: E402
from scaler.training.pretrained.files import read_arrays, read_content  # noqa: E402
from scaler.training.pretrained.weights import import_weights, read_weights  # noqa: E402


def saved(data: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(data, buffer, **options)
    return buffer.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """MobileNetV2 x0.35 in torchvision's names, without its classifier."""
    graph = mobilenetv2.classifier(0.35, 32, classes=2)
    naming = torchvision_mobilenetv2(graph)
    del naming["classifier.linear"]
    return renamed(to_torch(graph).state_dict(), graph, naming)


@pytest.fixture(scope="module")
def content(state: dict[str, Tensor]) -> bytes:
    return saved(state)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SCALER_DATA_DIR", str(home))
    return home / "weights"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_file_is_kept_with_its_facts_and_read_by_name(content: bytes, tmp_path: Path, folder: Path, capsys):
    digest = sha256(content).hexdigest()
    file = written(tmp_path / f"small-{digest[:8]}.pth", content)
    assert run(["weights", "import", str(file)]) == 0
    out = capsys.readouterr()
    assert out.out.split() == [file.stem]
    assert "MobileNetV2 x0.35 as of torchvision" in out.err
    assert (folder / file.name).read_bytes() == content
    facts = tomllib.loads((folder / f"{file.stem}.toml").read_text())
    assert facts["sha256"] == digest
    assert (facts["network"], facts["padding"], facts["epsilon"]) == ("MobileNetV2 x0.35", "symmetric", 1e-5)
    assert facts["source"] == str(file)
    assert read_weights(file.stem).facts == read_weights(file).facts == imported()[file.stem].facts
    assert sorted(path.name for path in folder.iterdir()) == [file.name, f"{file.stem}.toml"]


def test_the_same_file_twice_is_no_mistake_and_another_under_its_name_is(
    content: bytes, state: dict, tmp_path: Path, folder: Path
):
    import_weights(written(tmp_path / "a.pth", content))
    import_weights(tmp_path / "a.pth")
    other = written(tmp_path / "b.pth", saved(state | {"classifier.1.bias": torch.zeros(3)}))
    with pytest.raises(UserError, match=r"a is imported already, of another file .* choose a name with --name"):
        import_weights(other, name="a")
    assert (folder / "a.pth").read_bytes() == content


@pytest.mark.parametrize("digest", ["mine-0badcafe", "resnet50-0676ba61"])
def test_another_digest_than_promised_is_refused(content: bytes, tmp_path: Path, folder: Path, capsys, digest: str):
    file = written(tmp_path / f"{digest}.pth", content)
    assert run(["weights", "import", str(file)]) == 1
    error = capsys.readouterr().err
    assert digest.rpartition("-")[2] in error
    assert sha256(content).hexdigest()[:8] in error
    assert error.count("\n") == 1
    assert not folder.exists()


def test_the_digest_can_be_given(content: bytes, tmp_path: Path):
    file = written(tmp_path / "a.pth", content)
    digest = sha256(content).hexdigest()
    assert import_weights(file, sha256=digest.upper()).sha256 == digest
    with pytest.raises(UserError, match="but ffffffffff was promised"):
        import_weights(file, sha256="ffffffffff")


def test_keras_published_an_md5(tmp_path: Path):
    write_keras(tmp_path / "efficientnetb0_notop.h5", {"a": {"kernel": np.ones((2, 2))}})
    with pytest.raises(UserError, match="another md5"):
        import_weights(tmp_path / "efficientnetb0_notop.h5")


def test_a_wheel_with_one_file_inside(content: bytes, tmp_path: Path, folder: Path):
    wheel = archive({"a/__init__.py": b"", "a/weights/small.pth": content, "a.dist-info/RECORD": b"a"})
    entry = import_weights(written(tmp_path / "a-1.0-py3-none-any.whl", wheel))
    assert entry.name == "small"
    assert entry.source.endswith("a-1.0-py3-none-any.whl: small.pth")
    assert (folder / "small.pth").read_bytes() == content


def test_of_several_files_one_is_chosen(content: bytes, tmp_path: Path):
    file = written(tmp_path / "a.zip", archive({"one/a.pth": content, "two/a.pth": b"", "b.h5": b"x"}))
    for member, words in (("", "3 files of weights inside: one/a.pth, two/a.pth, b.h5"), ("a.pth", "2 files"),
                          ("c.pth", "0 files of weights called c.pth")):  # fmt: skip
        with pytest.raises(UserError, match=words):
            read_content(file, member)
    assert read_content(file, "one/a.pth").data == content
    with pytest.raises(UserError, match=r"a\.zip: a\.pth: empty"):
        read_content(file, "two/a.pth")
    with pytest.raises(UserError, match="0 files of weights inside: none"):
        read_content(written(tmp_path / "b.zip", archive({"readme.txt": b"a"})))
    with pytest.raises(UserError, match="no archive; leave --member out"):
        read_content(written(tmp_path / "a.pth", b"a"), "a")


def in_parallel(state: dict[str, Tensor]) -> dict:
    return {"model": {f"module.{key}": value for key, value in state.items()}}


@pytest.mark.parametrize(
    "around",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        in_parallel,
        lambda state: {k: v.half() for k, v in state.items()},
    ],
)
def test_what_training_programs_put_around_arrays_is_taken_off(state: dict, tmp_path: Path, around):
    weights = read_weights(written(tmp_path / "a.pt", saved(around(state))))
    assert weights.facts.network == "MobileNetV2 x0.35"


class Malicious:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.path, "gotcha")


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_with_code_is_not_run(tmp_path: Path, legacy: bool):
    victim = tmp_path / "victim"
    data = saved({"a": Malicious(victim)}, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"holds Python objects \([\w.]+\), which are not loaded"):
        read_weights(written(tmp_path / "a.pth", data))
    with pytest.raises(UserError, match=r"holds Python objects|damaged or cut off"):
        read_weights(written(tmp_path / "b.pth", pickle.dumps(Malicious(victim))))
    assert not victim.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty; expected PyTorch's"),
        (b"hello world, no weights", "no weights; expected PyTorch's"),
        (b"PK\x03\x04", "an archive that is damaged or cut off"),
        (b"\x80", "damaged or cut off"),
        (b"\x89HDF\r\n\x1a\n", "damaged or cut off"),
        (saved([1, 2]), "no arrays inside"),
        (saved({"state_dict": {}}), "no arrays inside"),
        (saved(torch.zeros(3)), "no arrays inside"),
        (saved({"kind": "scaler-checkpoint"}), "a checkpoint without its network"),
        (saved({"kind": "scaler-checkpoint", "spec": {}, "state": {"a": torch.zeros(1)}}), "family: missing"),
        (saved({"a.weight": torch.zeros(3), "b": torch.zeros(1)}), "'a.weight'.*of no network that is known"),
        (saved({"a.weight": torch.tensor([1.0, float("nan")])}), "'a.weight' has numbers that are not finite"),
    ],
)
def test_what_is_no_weights_is_one_line(tmp_path: Path, folder: Path, capsys, data: bytes, words: str):
    file = written(tmp_path / "a.pth", data)
    with pytest.raises(UserError, match=words):
        read_weights(file)
    assert run(["weights", "import", str(file)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not folder.exists()


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys):
    for source, words in (
        (tmp_path / "a.pth", "no such file"),
        (tmp_path, "is a folder"),
        ("a", "unknown weights 'a'"),
    ):
        with pytest.raises(UserError, match=words):
            read_weights(source)
    assert run(["weights", "show", "nothing"]) == 2
    assert "known: none" in capsys.readouterr().err


def small_files(folder: Path) -> dict[str, bytes]:
    """One of every kind, small."""
    arrays = {"a.weight": torch.rand(4, 3, 2, 2), "a.bias": torch.rand(4)}
    write_keras(folder / "a.h5", {"a": {"kernel": np.ones((2, 2, 3, 4)), "bias": np.ones(4)}})
    kinds = {"zip": saved(arrays), "old": saved(arrays, _use_new_zipfile_serialization=False),
             "h5": (folder / "a.h5").read_bytes()}  # fmt: skip
    return kinds | {"wheel": archive({"a/a.pth": kinds["old"]})}


@pytest.mark.parametrize("kind", ["zip", "old", "h5", "wheel"])
def test_a_file_cut_off_anywhere_is_one_line(tmp_path: Path, kind: str):
    data = small_files(tmp_path)[kind]
    whole = read_arrays(read_content(written(tmp_path / "whole", data)))
    assert whole.state["a.weight"].shape == (4, 3, 2, 2)
    for length in {*range(0, len(data), max(1, len(data) // 60)), 1, 2, 4, 8, 9, 16, len(data) - 1}:
        with pytest.raises(UserError) as error:
            read_arrays(read_content(written(tmp_path / "cut", data[:length])))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "old", "wheel"])
def test_a_file_with_wrong_bytes_is_one_line_or_other_numbers(tmp_path: Path, kind: str):
    data, random = small_files(tmp_path)[kind], np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 3):
            damaged[place] = random.integers(0, 256)
        try:
            read_weights(written(tmp_path / "damaged", bytes(damaged)))
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused == 60  # as it is no network's, even where the numbers were hit


def test_a_change_after_the_import_is_found(content: bytes, tmp_path: Path, folder: Path):
    import_weights(written(tmp_path / "a.pth", content))
    written(folder / "a.pth", content[:-1] + b"!")
    with pytest.raises(UserError, match=r"changed since it was imported; sha256 .*; import it again"):
        read_weights("a")
    (folder / "a.pth").unlink()
    with pytest.raises(UserError, match="no such file"):
        read_weights("a")


def test_damaged_facts_are_one_line(content: bytes, tmp_path: Path, folder: Path, capsys):
    import_weights(written(tmp_path / "a.pth", content))
    facts = folder / "a.toml"
    facts.write_text(facts.read_text().replace('"symmetric"', '"sometimes"'))
    assert run(["weights", "list"]) == 1
    assert "padding: found 'sometimes'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../a", "a/b", "", " ", "a b", ".a", "a" * 101, "ä"])
def test_a_name_that_is_no_files_is_refused(content: bytes, tmp_path: Path, name: str):
    file = written(tmp_path / "a.pth", content)
    if name:
        with pytest.raises(UserError, match="is no name for weights"):
            import_weights(file, name=name)
    else:
        assert import_weights(file, name=name).name == "a"


def test_a_folder_that_cannot_be_made_is_one_line(content: bytes, tmp_path: Path, folder: Path):
    written(folder, b"a file in the way")
    with pytest.raises(UserError, match=r"cannot make the folder .* set SCALER_DATA_DIR to another"):
        import_weights(written(tmp_path / "a.pth", content))


def test_padding_and_normalisation_can_be_said_otherwise(content: bytes, tmp_path: Path, capsys):
    file = written(tmp_path / "a.pth", content)
    assert run(["weights", "import", str(file), "--padding", "same", "--normalisation", "unit"]) == 0
    facts = read_weights("a").facts
    assert (facts.padding, (facts.mean, facts.std), facts.epsilon) == ("same", UNIT, 1e-5)
    capsys.readouterr()
    assert run(["weights", "import", str(file), "--padding", "some"]) == 2
    assert "unknown padding 'some'; did you mean 'same'?" in capsys.readouterr().err


def test_the_list_has_public_files_and_own_ones(content: bytes, tmp_path: Path, capsys):
    import_weights(written(tmp_path / "mine.pth", content))
    capsys.readouterr()
    assert run(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows if row["imported as"]] == ["mine.pth"]
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.75_224_no_top.h5" in {row["file"] for row in rows}
    assert run(["weights", "list", "mobilenet", "--imported"]) == 0
    table = capsys.readouterr().out
    assert "MobileNetV2 x0.35" in table
    assert "EfficientNet" not in table


def test_show_tells_the_conditions(content: bytes, tmp_path: Path, capsys):
    import_weights(written(tmp_path / "mine.pth", content))
    capsys.readouterr()
    assert run(["weights", "show", "mine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["network"] == "MobileNetV2 x0.35"
    assert told["sha256"] == sha256(content).hexdigest()
    assert (told["kind"], told["arrays"]) == ("PyTorch", 260)
    assert run(["weights", "show", str(tmp_path / "mine.pth")]) == 0
    assert "padding       symmetric" in capsys.readouterr().out


def test_safetensors_are_read_where_the_package_is(state: dict, tmp_path: Path):
    package = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    data = package.save({key: value.contiguous() for key, value in state.items()})
    weights = read_weights(written(tmp_path / "model.safetensors", data))
    assert (weights.kind, weights.facts.network) == ("safetensors", "MobileNetV2 x0.35")
    assert import_weights(tmp_path / "model.safetensors").file.name == "model.safetensors"
    with pytest.raises(UserError, match="damaged or cut off"):
        read_weights(written(tmp_path / "cut.safetensors", data[:-1]))


@pytest.mark.parametrize(
    ("package", "data"),
    [("safetensors.torch", b"\x10\0\0\0\0\0\0\0" + b'{"a":1}         '), ("h5py", b"\x89HDF\r\n\x1a\nabc")],
)
def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, data: bytes):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"needs {package.partition('.')[0]}, which is not installed"):
        read_weights(written(tmp_path / "a", data))
