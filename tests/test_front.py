"""Front, hypervolume and knee by formula and against slow twins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaler.search.front import hypervolume, knee, pareto_front, reference_point

points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25)


def split(pairs: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [ap for ap, _ in pairs], [ms for _, ms in pairs]


def slow_front(pairs: list[tuple[int, int]]) -> list[int]:
    kept = []
    for i, (ap, ms) in enumerate(pairs):
        beaten = any(a >= ap and m <= ms and (a, m) != (ap, ms) for a, m in pairs)
        if not beaten and (ap, ms) not in pairs[:i]:
            kept.append(i)
    return sorted(kept, key=lambda i: pairs[i][1])


@given(points)
def test_front_is_that_of_the_definition(pairs: list[tuple[int, int]]) -> None:
    assert pareto_front(*split(pairs)).tolist() == slow_front(pairs)


@given(points)
def test_hypervolume_is_the_number_of_dominated_unit_squares(pairs: list[tuple[int, int]]) -> None:
    squares = sum(any(a > x and m <= y for a, m in pairs) for x in range(2, 9) for y in range(8))
    assert hypervolume(*split(pairs), reference=(2, 8)) == squares


@given(points, st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_a_further_point_never_lowers_the_hypervolume(pairs: list[tuple[int, int]], more: tuple[int, int]) -> None:
    before, after = (hypervolume(*split(some), reference=(0, 9)) for some in (pairs, [*pairs, more]))
    assert after >= before


def test_of_equal_points_the_first_stands_for_all() -> None:
    assert pareto_front([5, 5, 5], [2, 2, 2]).tolist() == [0]


def test_a_tie_in_one_objective_is_decided_by_the_other() -> None:
    assert pareto_front([5, 6, 6, 4], [2, 2, 3, 1]).tolist() == [3, 1]


def test_no_points_no_front() -> None:
    assert pareto_front([], []).tolist() == []
    assert hypervolume([], [], (0, 1)) == 0
    assert knee([], []) is None


def test_hypervolume_of_a_staircase() -> None:
    assert hypervolume([10, 20, 30], [1, 2, 4], reference=(0, 5)) == 10 * 1 + 20 * 2 + 30 * 1


def test_points_outside_the_reference_add_nothing() -> None:
    assert hypervolume([10, -5, 99], [1, 0.5, 5], reference=(0, 5)) == 40


def test_the_reference_lies_a_tenth_beyond_the_worst_of_the_front() -> None:
    assert reference_point([10, 30, 0], [1, 5, 9]) == pytest.approx((8, 5.4))


def test_the_reference_of_nothing_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no points"):
        reference_point([], [])


def test_the_knee_is_farthest_above_the_chord() -> None:
    ap, ms = [0, 8, 9, 10, 3], [0, 2, 6, 10, 9]
    assert knee(ap, ms) == 1
    assert knee([100 * a + 7 for a in ap], [0.01 * m for m in ms]) == 1  # whatever the units


def test_the_knee_is_farthest_in_true_distance_too() -> None:
    rng = np.random.default_rng(3)
    ms = np.sort(rng.random(50))
    ap = np.sqrt(ms) + 0.01 * rng.random(50)
    front = pareto_front(ap, ms)
    a, m = ap[front], ms[front]
    x, y = (m - m[0]) / (m[-1] - m[0]), (a - a[0]) / (a[-1] - a[0])
    distance = (y - x) / np.sqrt(2)  # from the line y = x
    assert knee(ap, ms) == front[np.argmax(distance)]


def test_the_knee_of_a_straight_line_or_of_two_points_is_the_fast_end() -> None:
    assert knee([1, 2, 3], [1, 2, 3]) == 0
    assert knee([2, 1], [2, 1]) == 1
    assert knee([7], [7]) == 0


@pytest.mark.parametrize("wrong", [([1, 2], [1]), ([[1]], [[1]]), ([np.nan], [1]), ([1], [np.inf])])
def test_what_is_no_list_of_numbers_is_a_bug(wrong: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match=r"length|finite"):
        pareto_front(*wrong)
