import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.tasks.request import Permutation, draw_permutations

orders = st.integers(1, 12).flatmap(lambda n: st.permutations(range(n))).map(lambda order: Permutation(tuple(order)))


@given(orders)
def test_inverse_of_inverse_is_the_permutation(p):
    assert p.inverse.inverse == p


@given(orders)
def test_inverse_undoes_apply(p):
    images = [f"image {i}" for i in range(len(p))]
    assert p.inverse.apply(p.apply(images)) == tuple(images)


@given(orders)
def test_position_of_an_image_is_where_apply_puts_it(p):
    shown = p.apply(range(len(p)))
    for image in range(len(p)):
        assert shown[p.position_of(image)] == image
        assert p.inverse.order[image] == p.position_of(image)


@given(orders, st.integers(-30, 30), st.integers(-30, 30))
def test_shifts_add_up(p, a, b):
    assert p.shifted(a).shifted(b) == p.shifted(a + b)
    assert p.shifted(len(p)) == p


@given(orders, st.integers(-30, 30))
def test_a_shift_moves_position_j_to_j_plus_shift(p, shift):
    n = len(p)
    for j, image in enumerate(p.order):
        assert p.shifted(shift).order[(j + shift) % n] == image


@given(orders)
def test_cyclic_shifts_bring_every_image_to_every_position_once(p):
    shifts = p.cyclic_shifts()
    assert shifts[0] == p
    for image in range(len(p)):
        assert sorted(s.position_of(image) for s in shifts) == list(range(len(p)))


def test_by_hand():
    # At N = 3 an order and its inverse differ, and so do the two ways to compose two orders.
    order, turn = Permutation((1, 2, 0)), Permutation((0, 2, 1))
    assert order.apply("abc") == ("b", "c", "a")
    assert order.inverse.order == (2, 0, 1)
    assert order.followed_by(turn).order == (1, 0, 2)
    assert turn.followed_by(order).order == (2, 1, 0)
    assert order.followed_by(turn).apply("abc") == turn.apply(order.apply("abc")) == ("b", "a", "c")


@pytest.mark.parametrize("order", [(0, 0), (1, 2), (0, 2), (-1, 0), (0, 1, 1)])
def test_no_permutation_is_refused(order):
    with pytest.raises(ValueError, match="not a permutation of 0"):
        Permutation(order)


def test_apply_refuses_another_number_of_images():
    with pytest.raises(ValueError, match="3 images for a permutation of 2"):
        Permutation((1, 0)).apply("abc")


def test_text_stays_readable_beyond_ten():
    assert str(Permutation((2, 0, 1))) == "201"
    assert str(Permutation.identity(11)) == "0.1.2.3.4.5.6.7.8.9.10"


def test_seed_42_gives_the_orders_of_the_released_code():
    assert [str(p) for p in draw_permutations(4, 5)] == ["0123", "0312", "1023", "3021", "3012"]


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 999))
def test_drawn_orders_are_distinct_begin_with_the_identity_and_never_exceed_n_factorial(n, count, seed):
    drawn = draw_permutations(n, count, seed)
    assert drawn[0] == Permutation.identity(n)
    assert len(set(drawn)) == len(drawn) == min(count, math.factorial(n))
    assert draw_permutations(n, count, seed) == drawn
    assert draw_permutations(n, max(1, count - 1), seed) == drawn[: max(1, min(count - 1, math.factorial(n)))]


def test_asking_for_all_orders_gives_all():
    assert {p.order for p in draw_permutations(4, 99)} == set(permutations(range(4)))


@pytest.mark.parametrize(("n", "count"), [(0, 1), (4, 0), (-1, 5)])
def test_nothing_to_draw_is_refused(n, count):
    with pytest.raises(ValueError, match="must be positive"):
        draw_permutations(n, count)
