"""Whatever stands in a search-space file, it is read or refused by a `UserError`: never a traceback."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler.errors import UserError
from scaler.space_file import read_space

SHIPPED = (Path(__file__).parent.parent / "search_spaces" / "yolo-ret.toml").read_text()
WORDS = [
    *("[fixed]\n", "[limits]\n", "[[parameters.drop]]\n", "[parameters.neck]\n", "parameters", "when", "range"),
    *("choices", "named", "= ", "[0, 4, 1]", "[]", "{}", "true", "0", "-1", "1e308", "nan", "inf", "9" * 5000, "'x'"),
    *('"mobilenetv2"', '"none"', '""', "{ rfcr = 0 }", '{ neck = "bifpn" }', "{ backbone = [] }", "\n", "#", ".", "\0"),
    *("[[[[", "{a={a={", "schema_version = 1", "[0.5]", "[[0]]", '["a", 1]', "[1, 9007199254740993, 1]"),
    *("[0, 1e308, 1e-308]", "1979-05-27"),
]
LINES = SHIPPED.splitlines(keepends=True)

fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the one file of a test is overwritten
)


def refused_or_read(folder: Path, text: str) -> None:
    path = folder / "space.toml"
    path.write_text(text)
    try:
        space = read_space(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        params = next(space.candidates())
        space.configure(params, classes=20)
        assert space.contains(params)


@fuzz
@given(st.lists(st.tuples(st.integers(0, len(SHIPPED)), st.integers(0, 12), st.sampled_from(["", *WORDS])), max_size=4))
def test_spans_cut_out_and_words_put_in(tmp_path: Path, edits: list[tuple[int, int, str]]) -> None:
    text = SHIPPED
    for start, length, word in edits:
        text = text[:start] + word + text[start + length :]
    refused_or_read(tmp_path, text)


@fuzz
@given(st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.integers(0, len(LINES) - 1)), min_size=1, max_size=4))
def test_lines_moved_and_doubled(tmp_path: Path, moves: list[tuple[int, int]]) -> None:
    lines = list(LINES)
    for source, target in moves:
        lines.insert(target, lines[source])
    refused_or_read(tmp_path, "".join(lines))


@fuzz
@given(st.sampled_from([line for line in LINES if "=" in line]), st.sampled_from(WORDS))
def test_values_replaced(tmp_path: Path, line: str, word: str) -> None:
    refused_or_read(tmp_path, SHIPPED.replace(line, f"{line.partition('=')[0]}= {word}\n", 1))
