"""Map trials to other domains, after the training domains have changed.

Each change is a linear map of the weights with an assumption, which the notes of the result state:

- split: a domain becomes several parts. Old trials drew the parts in stated shares, by default
  those of the inventory; exact if the old domain was drawn uniformly.
- merge: domains become one with the sum of their weights. Old trials drew them in varying
  proportions; the notes state the distance from those of the new domain.
- freeze: a group becomes one domain with fixed inner shares. Trials with other inner shares are
  left out.
- remove: a domain is removed. Trials that used it are left out, and the others are rescaled.
- add: a domain is added. Old trials have none of it, and tell nothing about its effect.

Trials of an earlier corpus are carried over by these changes: a domain with the same content is
renamed, one with more tokens has grown, and the user states what became of the others. Held-out
errors decide the weight of carried trials.

Distances between mixtures are total variations. Losses are not changed: an evaluation domain with
the name of a split domain stays a target that is not trained on.

Shapes: N trials, D domains before, E domains after.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mixopt.errors import TrialsError, did_you_mean
from mixopt.mixture import DomainContent, Mixture, total_variation
from mixopt.system import Array, BoolArray
from mixopt.trials.columns import WEIGHT, listed, schema
from mixopt.trials.table import Trials

Shares = Mapping[str, float]
Parts = Shares | Sequence[str]
NOTHING = 1e-9  # minimum total share of the remaining domains in a trial
SHARES_SUM = 1e-6  # tolerance of the sum of stated shares


def reindexed(
    trials: Trials,
    *,
    split: Mapping[str, Parts] | None = None,
    merge: Mapping[str, Sequence[str]] | None = None,
    freeze: Mapping[str, Parts] | None = None,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    inventory: Mapping[str, float] | None = None,
    tolerance: float = 0.02,
) -> Trials:
    """Return trials on other domains, with assumptions in the notes (`Trials.reindex`)."""
    sizes = inventory or {}
    changes = _splits(split or {}, sizes)
    changes += _merges(merge or {})
    changes += _freezes(freeze or {}, sizes)
    changes += _removals(remove)
    _check(trials, changes, add)
    new_domains, map_DE = _map(trials.domains, changes, add)
    weights_NE = trials.weights() @ map_DE
    is_kept_N = weights_NE.sum(axis=1) > NOTHING
    notes = []
    for change in changes:
        is_near_N, note = _fit_of(trials, change, tolerance)
        is_kept_N &= is_near_N
        notes.append(note)
    if not is_kept_N.any():
        raise TrialsError(
            f"no trial is left of {len(trials)}: {'; '.join(notes)}; allow more: tolerance"
        )
    if add:
        notes.append(f"add {listed(add)}: no trial so far has any, so its effect is unknown")
    return replace(
        trials,
        table=_with_weights(trials, is_kept_N, new_domains, weights_NE[is_kept_N]),
        domains=new_domains,
        notes=(*trials.notes, *notes),
        contents={},
    )


def _with_weights(
    trials: Trials, is_kept_N: BoolArray, domains: tuple[str, ...], weights_KE: Array
) -> pl.DataFrame:
    """Return the table of the kept trials, with their weights on new domains rescaled to 1."""
    shares_KE = weights_KE / weights_KE.sum(axis=1, keepdims=True)
    mixtures = [Mixture.from_array(domains, shares_E) for shares_E in shares_KE]
    fingerprints = [mixture.fingerprint for mixture in mixtures]
    weights = {WEIGHT + name: [mixture[name] for mixture in mixtures] for name in domains}
    columns = pl.DataFrame({"mixture": fingerprints, **weights})
    table = trials.table.filter(pl.Series(is_kept_N)).with_columns(columns)
    return table.select(list(schema(domains, trials.targets)))


def carried_to(
    trials: Trials,
    corpus: Mapping[str, DomainContent],
    became: Mapping[str, Parts | str | None],
    where: str,
) -> tuple[Trials, list[str]]:
    """Return trials mapped to a later corpus, and the domains that they do not cover.

    Args:
        trials: Trials of an earlier corpus.
        corpus: Content of each domain of the later corpus.
        became: Changes by old name: a new name, parts, or None for a removed domain. A renamed
            domain is found by the hash of its content.
        where: Name of the trials in messages.

    Returns:
        The trials, with a summary as their last note; and the domains that are new or have
        other content.

    Raises:
        TrialsError: A domain is not in the later corpus, and `became` does not mention it.
    """
    became = {**became, **_renamed(trials, corpus, became, where)}
    merged = {new for new in became.values() if isinstance(new, str)}
    split = {name: new for name, new in became.items() if new and not isinstance(new, str)}
    unchanged = [name for name in trials.domains if name not in became and name not in merged]
    covered = [*unchanged, *merged]
    for parts in split.values():
        covered += parts
    for name in covered:
        if name not in corpus:
            near = did_you_mean(name, corpus)
            raise TrialsError(f"{where}: domain {name!r} is not in this corpus{near}")
    added = [name for name in corpus if name not in covered]
    merge = {}
    for new in sorted(merged):
        merge[new] = [name for name in trials.domains if became.get(name, name) == new]
    rows = reindexed(
        trials,
        split=split,
        merge=merge,
        remove=[name for name, new in became.items() if not new],
        add=added,
        inventory={name: float(content.tokens) for name, content in corpus.items()},
    )
    grown, changed = _other_content(trials, corpus, unchanged)
    texts = [f"{len(unchanged) - len(grown) - len(changed)} of {len(corpus)} domains hold"]
    if grown:
        texts.append(f"grown: {listed(grown)}")
    if changed:
        texts.append(f"changed: {listed(changed)}")
    texts += rows.notes[len(trials.notes) :]
    summary = f"{where}: {len(rows)} of {len(trials)} trials are carried over: {'; '.join(texts)}"
    domains = tuple(corpus)
    table = rows.table.select(list(schema(domains, rows.targets)))
    carried = replace(rows, table=table, domains=domains, notes=(summary,), contents=corpus)
    return carried, [*added, *changed]


def _renamed(
    trials: Trials,
    corpus: Mapping[str, DomainContent],
    became: Mapping[str, Parts | str | None],
    where: str,
) -> dict[str, str]:
    """Return the new names of domains that are not mentioned, by the hash of their content."""
    names = {}
    for name in trials.domains:
        if name in became or name in corpus:
            continue
        sha256 = trials.contents[name].sha256 if name in trials.contents else ""
        same = [new for new, content in corpus.items() if sha256 and content.sha256 == sha256]
        if not same:
            raise TrialsError(
                f"{where}: trials of another corpus: domain {name!r} is not in this one; say"
                f" what became of it, design.earlier: {{{where}: {{{name}: NEW}}}}; null: it is"
                " gone"
            )
        names[name] = same[0]
    return names


def _other_content(
    trials: Trials, corpus: Mapping[str, DomainContent], names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the domains whose content has grown, and those with other content."""
    grown = []
    changed = []
    for name in names:
        if name not in trials.contents:
            continue
        earlier = trials.contents[name]
        later = corpus[name]
        if not earlier.sha256 or not later.sha256 or earlier.sha256 == later.sha256:
            continue
        if later.tokens > earlier.tokens:
            grown.append(name)
        else:
            changed.append(name)
    return grown, changed


@dataclass(frozen=True)
class _DomainChange:
    """One change: the old domains, the new domains, and the assumption.

    `inner` are the assumed shares within the old domains (0 for removed ones): trials farther from
    them than the tolerance are left out.
    """

    old: tuple[str, ...]
    new: Shares
    text: str
    inner: Shares | None = None


def _splits(split: Mapping[str, Parts], sizes: Mapping[str, float]) -> list[_DomainChange]:
    changes = []
    for name, parts in split.items():
        shares = _shares(name, parts, sizes)
        text = f"split {name!r}: assumed to have been drawn as {_shares_text(shares)}"
        changes.append(_DomainChange((name,), shares, text))
    return changes


def _merges(merge: Mapping[str, Sequence[str]]) -> list[_DomainChange]:
    changes = []
    for name, old in merge.items():
        text = f"merge {listed(old)} into {name!r}"
        if len(old) == 1:
            text = f"rename {old[0]!r} to {name!r}"
        changes.append(_DomainChange(tuple(old), {name: 1.0}, text))
    return changes


def _freezes(freeze: Mapping[str, Parts], sizes: Mapping[str, float]) -> list[_DomainChange]:
    changes = []
    for name, parts in freeze.items():
        inner = _shares(name, parts, sizes)
        text = f"freeze {listed(list(inner))} into {name!r} at {_shares_text(inner)}"
        changes.append(_DomainChange(tuple(inner), {name: 1.0}, text, inner))
    return changes


def _removals(remove: Sequence[str]) -> list[_DomainChange]:
    changes = []
    for name in remove:
        text = f"remove {name!r}: its weight goes to the others"
        changes.append(_DomainChange((name,), {}, text, {}))
    return changes


def _fit_of(trials: Trials, change: _DomainChange, tolerance: float) -> tuple[BoolArray, str]:
    """Return which trials meet the assumption of a change, and a note."""
    everything_N = np.ones(len(trials), dtype=bool)
    if change.inner is None and len(change.old) == 1:
        return everything_N, change.text
    old_columns = [trials.domains.index(name) for name in change.old]
    old_ND = trials.weights()[:, old_columns]
    sums_N1 = old_ND.sum(axis=1, keepdims=True)
    if change.inner is None:
        mean_D = old_ND.sum(axis=0) / max(float(old_ND.sum()), 1e-300)
        shares = dict(zip(change.old, mean_D.tolist(), strict=True))
        distance = float(total_variation(old_ND, sums_N1 * mean_D).mean())
        return everything_N, (
            f"{change.text}: trials drew them in their own proportions, {distance:.3g} from the"
            f" mean {_shares_text(shares)} on average, which counts as noise"
        )
    distances_N = sums_N1[:, 0]
    if change.inner:
        inner_D = np.array([change.inner[name] for name in change.old])
        distances_N = total_variation(old_ND, sums_N1 * inner_D)
    is_near_N = distances_N <= tolerance
    left_out = int((~is_near_N).sum())
    farthest = distances_N[is_near_N].max(initial=0.0)
    return is_near_N, (
        f"{change.text}; {left_out} of {len(trials)} trials were more than {tolerance:g} off it and"
        f" are left out, the others at most {farthest:.3g}"
    )


def _shares(name: str, parts: Parts, inventory: Mapping[str, float]) -> Shares:
    """Return shares that add up to 1, from the inventory if only names are given."""
    if isinstance(parts, Mapping):
        total = sum(parts.values())
        if not parts or min(parts.values()) < 0 or abs(total - 1) > SHARES_SUM:
            text = _shares_text(parts)
            raise TrialsError(f"{name!r}: shares {text} must be >= 0 and add up to 1")
        return {part: share / total for part, share in parts.items()}
    missing = [part for part in parts if part not in inventory]
    if missing:
        raise TrialsError(
            f"{name!r}: no shares are given, and the inventory lacks {listed(missing)}; give"
            " shares, or inventory="
        )
    sizes = {part: float(inventory[part]) for part in parts}
    total = sum(sizes.values()) or 1.0
    return {part: tokens / total for part, tokens in sizes.items()}


def _check(trials: Trials, changes: Sequence[_DomainChange], add: Sequence[str]) -> None:
    """Check that domains are known and in one change each, and that new names are unused."""
    old: list[str] = []
    new: list[str] = []
    for change in changes:
        old += change.old
        new += change.new
    for name in old:
        if name not in trials.domains:
            raise TrialsError(f"no domain {name!r} to change{did_you_mean(name, trials.domains)}")
        if old.count(name) > 1:
            raise TrialsError(f"domain {name!r} is in two changes; do them one after the other")
    unchanged = [name for name in trials.domains if name not in old]
    names = [*unchanged, *new, *add]
    for name in names:
        if names.count(name) > 1:
            raise TrialsError(f"domain {name!r} would appear twice; give the new one another name")
    if not unchanged and not new:
        raise TrialsError("no domain is left; keep one")


def _map(
    domains: Sequence[str], changes: Sequence[_DomainChange], add: Iterable[str]
) -> tuple[tuple[str, ...], Array]:
    """Return the new domains, and the matrix from old to new weights, shape (D, E)."""
    shares_of: dict[str, Shares] = {name: {name: 1.0} for name in domains}
    for change in changes:
        shares_of |= dict.fromkeys(change.old, change.new)
    names: dict[str, None] = {}
    for shares in shares_of.values():
        names |= dict.fromkeys(shares)
    names |= dict.fromkeys(add)
    columns = {name: column for column, name in enumerate(names)}
    map_DE = np.zeros((len(domains), len(names)))
    for row, shares in enumerate(shares_of.values()):
        for name, share in shares.items():
            map_DE[row, columns[name]] = share
    return tuple(names), map_DE


def _shares_text(shares: Shares) -> str:
    return ", ".join(f"{name} {share:.3g}" for name, share in shares.items())
