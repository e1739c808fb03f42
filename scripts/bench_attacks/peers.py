"""The peers: other people's attacks on a model over 0..1, each with the settings that are swept.

A peer is a name, and a list of settings; a setting is a label and a function of (model, x, y, levels) that gives
adversarial images in 0..1. `levels` is the radius in 8-bit levels for attacks in a ball; attacks that minimise the
norm take none of it.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable

STEPS = (10, 40, 100)


@dataclasses.dataclass(frozen=True)
class Setting:
    label: str
    run: Callable
    ball: bool


@dataclasses.dataclass(frozen=True)
class Peer:
    name: str
    settings: tuple


def foolbox_attack(build, model, x, y, levels):
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    epsilon = None if levels is None else levels / 255
    _, clipped, _ = build(foolbox.attacks)(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=epsilon)
    return clipped


def advlib_attack(function, options, model, x, y, levels):
    run = getattr(importlib.import_module("adv_lib.attacks"), function)
    if levels is not None:
        options = {**options, "eps": levels / 255}
    return run(model, x, y, **options)


def torchattacks_attack(build, model, x, y, levels):
    import torchattacks

    return build(torchattacks, model, levels / 255)(x, y)


def upstream(model, x, y, levels):
    """The subnet's own baseline: 10 steps of max(eps/4, 1/255), eps 0.06 and more."""
    import foolbox

    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(steps=10, abs_stepsize=max(0.06 / 4, 1 / 255))
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=0.06)[1]


def foolbox(name, ball, builds):
    return Peer(f"foolbox {name}", tuple(
        Setting(label, functools.partial(foolbox_attack, build), ball) for label, build in builds))


def advlib(name, function, ball, sweeps):
    return Peer(f"adv-lib {name}", tuple(
        Setting(label, functools.partial(advlib_attack, function, options), ball) for label, options in sweeps))


def torchattacks(name, builds):
    return Peer(f"torchattacks {name}", tuple(
        Setting(label, functools.partial(torchattacks_attack, build), True) for label, build in builds))


def all_peers():
    inf = float("inf")
    pgd = [(f"{n} steps of {share} eps", lambda a, n=n, share=share: a.LinfPGD(steps=n, rel_stepsize=share))
           for n, share in ((10, 0.25), (40, 0.1), (40, 0.25), (100, 0.1))]
    bim = [(f"{n} steps of {share} eps", lambda a, n=n, share=share: a.LinfBasicIterativeAttack(
        steps=n, rel_stepsize=share)) for n, share in ((10, 0.25), (10, 1.0), (40, 0.25), (40, 1.0))]
    return [
        Peer("upstream baseline", (Setting("10 steps", upstream, False),)),
        foolbox("FGSM", True, [("1 step", lambda a: a.LinfFastGradientAttack())]),
        foolbox("BIM", True, bim),
        foolbox("PGD", True, pgd),
        foolbox("DeepFool", False, [(f"{n} steps", lambda a, n=n: a.LinfDeepFoolAttack(steps=n)) for n in (10, 50)]),
        foolbox("FMN", False, [(f"{n} steps, step {s}", lambda a, n=n, s=s: a.LInfFMNAttack(
            steps=n, max_stepsize=s)) for n in STEPS for s in (0.3, 1.0, 10.0)]),
        advlib("FMN", "fmn", False, [(f"{n} steps, step {s}", {"norm": inf, "steps": n, "α_init": s})
                                     for n in STEPS for s in (0.3, 1.0, 10.0)]),
        advlib("PDPGD", "pdpgd", False, [(f"{n} steps", {"norm": inf, "num_steps": n}) for n in (100, 300)]),
        advlib("FAB", "fab", False, [(f"{n} steps", {"norm": inf, "n_iter": n}) for n in (20, 100)]),
        advlib("APGD", "apgd", True, [(f"{loss} {n} steps", {"norm": inf, "n_iter": n, "loss_function": loss})
                                      for n in STEPS for loss in ("ce", "dlr")]),
        advlib("APGD-T", "apgd_targeted", True, [(f"{n} steps", {"norm": inf, "n_iter": n}) for n in STEPS]),
        torchattacks("FGSM", [("1 step", lambda t, m, e: t.FGSM(m, eps=e))]),
        torchattacks("BIM", [(f"{n} steps of {share} eps", lambda t, m, e, n=n, share=share: t.BIM(
            m, eps=e, alpha=share * e, steps=n)) for n, share in ((10, 0.25), (10, 1.0), (40, 0.25), (40, 1.0))]),
        torchattacks("PGD", [(f"{n} steps of {share} eps", lambda t, m, e, n=n, share=share: t.PGD(
            m, eps=e, alpha=share * e, steps=n)) for n, share in ((10, 0.25), (40, 0.1), (40, 0.25), (100, 0.1))]),
        torchattacks("APGD", [(f"{n} steps", lambda t, m, e, n=n: t.APGD(m, eps=e, steps=n)) for n in STEPS]),
        torchattacks("APGDT", [(f"{n} steps", lambda t, m, e, n=n: t.APGDT(
            m, eps=e, steps=n, n_classes=10)) for n in (10, 40)]),
        torchattacks("FAB", [(f"{n} steps", lambda t, m, e, n=n: t.FAB(m, eps=e, steps=n)) for n in (10, 40)]),
        torchattacks("Square", [("1000 queries", lambda t, m, e: t.Square(m, eps=e, n_queries=1000))]),
    ]
