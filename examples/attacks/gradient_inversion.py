"""Gradient inversion: an attacker that knows the model looks at what a site has sent, and rebuilds the digit in it.

    python examples/attacks/gradient_inversion.py [--out FOLDER]

Two attacks. `analytic` (Phong et al. 2017, section 3): the gradient of a Linear layer with bias is the outer product of
the bias's gradient and the input, so that a division gives the input. `search` (Zhu et al. 2019; Geiping et al. 2020):
an image is sought, by L-BFGS, whose gradient is like the one that was sent, by cosine or L2, and that is smooth.

Figures are peak signal-to-noise ratios in dB, pixels clipped to [0, 1], over some victims. `analytic` is what the
attack says by itself: least squares over all outputs. `nearest` is helped: each output says an image, and somebody who
knows the victim chooses the nearest to it. `search` is told all labels, seeks as many images and is helped in the same
way. Helped figures are to be compared with the nearest of as many other digits.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from lepton_client.train.rows import Rows, loss_of
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_pool.models import Architecture, architecture_of, build_model, load_vector, model_layout
from pictures import Images, Strip, draw_png, draw_strips
from report import Findings, main, parser_of, progress
from wire import (
    DELTA,
    SITES,
    Doubles,
    SeenRound,
    first_model,
    learn,
    load_rows,
    make_job,
    pick,
    plain_upload,
    secure_round,
)

Indices = npt.NDArray[np.int64]

#: Outputs of the first layer.
_HIDDEN = 64
#: The private jobs: each record is in every one of so many sums.
EPSILON, ROUNDS = 8.0, 60
#: A site with more than one record has so many.
SEVERAL = 30
_RATE = 0.05


@dataclass
class Seen:
    """A case: what the attacker has of each victim's round, and what came of it."""

    name: str
    #: The gradient as the attacker reads it from the wire, summed over the labelled records, and their labels.
    of: Callable[[int], tuple[Doubles, Doubles]]
    noisy: bool = False
    records: int = 0
    analytic: list[float] = field(default_factory=list)
    nearest: list[float] = field(default_factory=list)
    search: list[float] = field(default_factory=list)
    #: What the analytic attack says by itself, and the nearest to the victim of what single outputs say.
    images: list[Images] = field(default_factory=list)
    chosen: list[Images] = field(default_factory=list)


def psnr(image: Images, victim: Images) -> float:
    """Peak signal-to-noise ratio in dB, both (64,) in [0, 1]."""
    return -10.0 * math.log10(max(float(np.mean((image - victim) ** 2)), 1e-30))


def invert_linear(gradient: Doubles, architecture: Architecture) -> Images:
    """The inputs of the first layer, if it is Linear: least squares over its outputs, then each output's own."""
    weight, bias = model_layout(architecture).places[:2]
    by_weight = gradient[: weight.size].reshape(weight.shape)  # (outputs, 64)
    by_bias = gradient[weight.size : weight.size + bias.size]
    alive = np.abs(by_bias) > 1e-12 * np.abs(by_bias).max()
    single = by_weight[alive] / by_bias[alive, None]
    images: Images = np.clip(np.vstack([by_bias @ by_weight / (by_bias @ by_bias), single]), 0.0, 1.0)
    return images


def search_images(
    gradient: Doubles, labels: Doubles, job: Job, model: Vector, args: argparse.Namespace, *, smoothness: float
) -> Images:
    """Images, one a label, whose summed gradient is like this one; the best of some starts."""
    module = build_model(architecture_of(job))
    load_vector(module, model)
    module.double()
    parameters, target = list(module.parameters()), torch.from_numpy(labels).float()
    wanted = torch.from_numpy(gradient)
    chance = torch.Generator().manual_seed(args.seed)
    best, least = torch.zeros(len(labels), 64), math.inf
    for _ in range(1 if args.quick or len(labels) > SITES else args.starts):
        free = torch.randn(len(labels), 64, generator=chance, dtype=torch.float64).mul_(0.5).requires_grad_()
        search = torch.optim.LBFGS(
            [free], max_iter=30 if args.quick else args.iterations, history_size=20, line_search_fn="strong_wolfe"
        )

        def distance(free: torch.Tensor = free) -> torch.Tensor:
            images = torch.sigmoid(free)  # (labels, 64)
            loss = loss_of(module(images), target, "sum")
            found = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
            if args.distance == "cosine":
                apart = 1.0 - found @ wanted / (found.norm() * wanted.norm())
            else:
                apart = (found - wanted).square().sum() / wanted.square().sum()
            square = images.view(-1, 8, 8)
            rough = square.diff(dim=1).abs().mean() + square.diff(dim=2).abs().mean()
            total: torch.Tensor = apart + smoothness * rough
            return total

        def step(free: torch.Tensor = free) -> torch.Tensor:
            value = distance(free)
            (free.grad,) = torch.autograd.grad(value, [free])
            return value

        search.step(step)  # type: ignore[no-untyped-call]  # torch does not annotate it
        reached = float(distance(free).detach())
        if reached < least:
            best, least = torch.sigmoid(free.detach()), reached
    images: Images = best.double().numpy()
    return images


def attack(args: argparse.Namespace) -> Findings:
    """Every case, with as many victims as are asked for."""
    rows, chance = load_rows(), np.random.default_rng(args.seed)
    count = 1 if args.quick else args.victims
    order = _one_of_each_first(chance.permutation(len(rows.target)), rows, count)
    victims = rows.features[order[:count]].astype(np.float64)
    cases = _cases(rows, order, several=2 if args.quick else SEVERAL)
    job = make_job("none", {})
    for number, case in progress([(n, case) for case in cases for n in range(count)], "attacking"):
        _attack(case, number, victims[number], job, args)
    found = [
        {"seen": case.name, "records": case.records}
        | _told("analytic", case.analytic)
        | _told("nearest", case.nearest)
        | _told("search", case.search)
        for case in cases
    ]
    mean = rows.features.mean(axis=0).astype(np.float64)
    strangers = rows.features[order[count:]].astype(np.float64)
    guesses = {"the mean image": [psnr(mean, victim) for victim in victims]}
    lucky = {
        many: [_nearest(chance.choice(strangers, many), one) for one in victims] for many in (_HIDDEN, SITES * SEVERAL)
    }
    for many, images in lucky.items():
        guesses[f"nearest of {many} other digits"] = [psnr(*pair) for pair in zip(images, victims, strict=True)]
    if args.out is not None:
        strips = [Strip("the victims", victims), *(Strip(case.name, np.array(case.images)) for case in cases)]
        strips += [Strip(f"nearest in the {case.name}", np.array(case.chosen)) for case in cases if case.chosen]
        strips.append(Strip(f"nearest of {_HIDDEN} other digits", np.array(lucky[_HIDDEN])))
        for number, strip in enumerate(strips):
            name = strip.name.replace(",", "").replace("'", "").replace(" ", "-")
            (args.out / f"{number}-{name}.png").write_bytes(draw_png(strip.images))
        (args.out / "gradient-inversion.svg").write_text(draw_strips(strips), encoding="utf-8")
    return {
        "rows": found,
        "guesses": {name: _told("psnr", values) for name, values in guesses.items()},
        "victims": count,
        "epsilon": EPSILON,
        "delta": DELTA,
        "rounds": ROUNDS,
    }


def _attack(case: Seen, number: int, victim: Images, job: Job, args: argparse.Namespace) -> None:
    gradient, labels = case.of(number)
    case.records = len(labels)
    squares, *single = invert_linear(gradient, architecture_of(job))
    smoothness = 0.03 if case.noisy else 0.0
    found = search_images(gradient, labels, job, first_model(job), args, smoothness=smoothness)
    tries = [squares, _nearest(np.array(single), victim), _nearest(found, victim)]
    for values, image in zip((case.analytic, case.nearest, case.search), tries, strict=True):
        values.append(psnr(image, victim))
    case.images.append(squares)
    if len(labels) > 1 and not case.noisy:
        case.chosen.append(tries[1])


def _one_of_each_first(order: Indices, rows: Rows, count: int) -> Indices:
    """The same order, but that a 0, a 1, a 2 and so on come first, so many of them."""
    first: list[int] = []
    for digit in range(count):
        first.append(next(int(row) for row in order if rows.target[row] == digit % 10 and int(row) not in first))
    return np.concatenate([first, order[~np.isin(order, first)]])


def _nearest(images: Images, victim: Images) -> Images:
    """The one of these images that somebody who knows the victim would choose."""
    chosen: Images = images[np.argmin(((images - victim) ** 2).sum(axis=1))]
    return chosen


def _told(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}_median": float(np.median(values)), f"{name}_best": max(values)}


def _cases(rows: Rows, order: Indices, *, several: int) -> list[Seen]:
    """What is on the wire in each case. Victim v is the first record of the first site in the v-th round."""
    whole = {"batching": "epochs", "batch_size": 4096, "learning_rate": _RATE}
    one_step = {"sampling_rate": 1.0, "local_steps": 1, "rounds": ROUNDS, "learning_rate": _RATE}
    one_sum = {"batching": "all", "expected_rows": 1, "rounds": ROUNDS, "learning_rate": _RATE}
    clear, masked = make_job("none", whole, secure=False), make_job("none", whole)
    local = make_job("record-local", one_step, epsilon=EPSILON, secure=False)
    distributed = make_job("record-distributed", one_sum, epsilon=EPSILON)

    def sites(number: int, each: int) -> list[Rows]:
        others = np.delete(order, number)[: SITES * each - 1]
        members = np.concatenate([order[number : number + 1], others])
        return [pick(rows, members[site * each : (site + 1) * each]) for site in range(SITES)]

    @functools.cache
    def secure(job: Job, number: int, each: int) -> tuple[SeenRound, Doubles]:
        data = sites(number, each)
        labels = np.concatenate([site.target for site in data]).astype(np.float64)
        return secure_round(job, [learn(job, site) for site in data]), labels

    def in_clear(job: Job, number: int, each: int = 1) -> tuple[Doubles, Doubles]:
        (site, *_) = sites(number, each)
        return plain_upload(job, learn(job, site)) * (-each / _RATE), site.target.astype(np.float64)

    def summed(job: Job, number: int, each: int = 1) -> tuple[Doubles, Doubles]:
        seen, labels = secure(job, number, each)
        return seen.total * (-each / _RATE), labels

    def alone(job: Job, number: int) -> tuple[Doubles, Doubles]:
        seen, labels = secure(job, number, 1)
        return seen.from_masked * (-1.0 / _RATE), labels[:1]

    return [
        Seen("one record, in clear", lambda number: in_clear(clear, number)),
        Seen(f"{several} records of one site, in clear", lambda number: in_clear(clear, number, several)),
        Seen("one site's masked words", lambda number: alone(masked, number), noisy=True),
        Seen(f"sum of {SITES} sites, 1 record each", lambda number: summed(masked, number)),
        Seen(f"sum of {SITES} sites, {several} records each", lambda number: summed(masked, number, several)),
        Seen("clipped and noised, one site", lambda number: in_clear(local, number), noisy=True),
        Seen(f"clipped, noised in the sum of {SITES}", lambda number: summed(distributed, number), noisy=True),
    ]


def parser() -> argparse.ArgumentParser:
    """The options of this attack."""
    options = parser_of(__doc__)
    options.add_argument("--victims", type=int, default=10, help="rounds that are attacked, each with its victim")
    options.add_argument("--distance", choices=("l2", "cosine"), default="l2", help="how gradients are compared")
    options.add_argument(
        "--starts", type=int, default=2, help="searches begun for a victim, if ten records or fewer are sought"
    )
    options.add_argument("--iterations", type=int, default=300, help="of L-BFGS")
    return options


if __name__ == "__main__":
    sys.exit(main(parser(), attack))
