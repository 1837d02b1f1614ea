"""Requests whose images have their names before them: what another order moves, and how positions are read."""

import itertools
from dataclasses import replace

import pytest

from lad_eval.errors import UserError
from lad_eval.methods import make_method
from lad_eval.run.collect import check_options
from lad_eval.tasks.plan import plan
from lad_eval.tasks.probes import Probe
from lad_eval.tasks.prompts import PROMPT_VARIANTS, labelling_of
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation

TASK = "scenes_random_n4"
VIEWS = ("labelled", "labelled-places", "labelled-names")
ORDERS = [Permutation(order) for order in itertools.permutations(range(4))]


@pytest.fixture(scope="module")
def task():
    return load_task(TASK)


@pytest.fixture(scope="module")
def sample(task):
    return next(sample for sample in task.samples("test") if sample.gold == 1)


@pytest.mark.parametrize(
    ("view", "shown", "names", "labels", "gold"),
    [  # order 2031, the right image is the second
        ("labelled", [2, 0, 3, 1], "1234", "1234", 3),  # a position is a place, and its name
        ("labelled-places", [2, 0, 3, 1], "3142", "3142", 3),  # a place; each image keeps its name
        ("labelled-names", [0, 1, 2, 3], "1234", "2413", 3),  # a name: "1" is borne by the third image
    ],
)
def test_what_an_order_moves(task, sample, view, shown, names, labels, gold):
    request = task.with_prompt(view).request(sample, Permutation((2, 0, 3, 1)))
    assert [sample.images.index(image) for image in request.images] == shown
    assert "".join(request.identifiers) == names
    assert request.labels == tuple(f"Image {name}:" for name in labels)
    assert request.gold_position == gold


@pytest.mark.parametrize("view", VIEWS)
def test_the_right_name_is_that_of_the_right_image_in_every_order(task, sample, view):
    labelled = task.with_prompt(view)
    for order in ORDERS:
        request = labelled.request(sample, order)
        place = request.places[request.gold_position]
        assert request.images[place] == sample.images[sample.gold]
        assert request.labels[place] == f"Image {request.identifiers[request.gold_position]}:"
        for position, image in enumerate(order.order):
            assert request.images[request.places[position]] == sample.images[image]
        assert request.question == task.request(sample, order).question
        assert request.listed_identifiers == task.identifiers


@pytest.mark.parametrize("view", VIEWS)
def test_orders_lead_from_one_to_another_and_have_keys_of_their_own(task, sample, view):
    labelled = task.with_prompt(view)
    requests = [labelled.request(sample, order) for order in ORDERS]
    assert len({request.key for request in requests}) == 24
    assert task.request(sample, ORDERS[0]).key not in {request.key for request in requests}
    for request in requests[::5]:
        assert [request.reordered(order) for order in ORDERS] == requests
        assert [request.reordered(order).key for order in ORDERS] == [other.key for other in requests]


def test_what_stays_in_each_view(task, sample):
    def of(view, take):
        return {take(task.with_prompt(view).request(sample, order)) for order in ORDERS}

    def bearer(request):
        return frozenset(zip(request.labels, request.images, strict=True))

    assert len(of("labelled-places", bearer)) == 1, "each image keeps its name"
    assert len(of("labelled-names", lambda request: request.images)) == 1, "each image keeps its place"
    assert len(of("labelled", lambda request: request.labels)) == 1, "each name keeps its place"
    assert len(of("labelled", bearer)) == len(of("labelled-names", bearer)) == 24


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("probe", [Probe(caption="na"), Probe(images="grey"), Probe(images="grey", caption="na")])
def test_a_probe_has_the_labels_of_its_question(task, view, probe):
    labelled = task.with_prompt(view)
    planned = plan(labelled, limit=1, calibration=True)
    probes = probe.plan(labelled, planned)
    by_key = {request.key: request for request in (*planned.requests, *probes.requests)}
    for own, other in zip((*planned.evaluated, *planned.calibration), (*probes.evaluated, *probes.calibration), strict=True):
        request, blank = by_key[own], by_key[other]
        assert blank.labels == request.labels
        assert blank.identifiers == request.identifiers
        assert blank.places == request.places
        caption = "N/A" if probe.caption == "na" else request.caption
        assert blank.question == request.question.replace(request.caption, caption)
        assert (blank.images == request.images) == (probe.images == "own")
    # Blank images under the same labels are one probe for all orders; under others they are not.
    count = len(set(probes.evaluated))
    assert count == (1 if view == "labelled" and probe.images == "grey" else 5)


def test_an_unlabelled_question_is_the_one_it_was(task, sample):
    for names in ((), ("instruction",), ("cot",)):
        request = task.with_prompt(*names).request(sample, ORDERS[7])
        assert (request.labelling, request.labels, labelling_of(names)) == (None, (), None)
    assert task.request(sample, Permutation((2, 0, 3, 1))).candidates is None
    assert {name for name in PROMPT_VARIANTS.built_in if PROMPT_VARIANTS[name].labelling} == set(VIEWS)


@pytest.mark.parametrize("view", VIEWS)
def test_where_not_every_image_is_an_option_none_is_labelled(task, view):
    listed = replace(task, spec=task.spec.model_copy(update={"prompt": "choices"}))  # by place: "1. image 1"
    for other in (load_task("scenes_count_n4"), listed):
        with pytest.raises(UserError, match=f"^{other.name} is not answered by naming one of all its images, and {view} puts a"):
            check_options(other, [make_method(f"{view}+vanilla")])
        with pytest.raises(UserError, match="is not answered by naming one of all its images; leave out labelled"):
            plan(other.with_prompt(view), limit=1)
    check_options(task, [make_method(view)])
