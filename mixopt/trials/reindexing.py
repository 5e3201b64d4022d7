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
from typing import Self

import numpy as np
import polars as pl

from mixopt.corpus import DomainContent
from mixopt.errors import TrialsError, did_you_mean
from mixopt.mixture import Mixture, total_variation
from mixopt.system import Array, BoolArray
from mixopt.trials.columns import WEIGHT, TrialRows, listed, schema

Shares = Mapping[str, float]
Parts = Shares | Sequence[str]
NOTHING = 1e-9  # minimum total share of the remaining domains in a trial


class ReindexedRows(TrialRows):
    """Rows of trials that can be mapped to other domains."""

    def reindex(
        self,
        *,
        split: Mapping[str, Parts] | None = None,
        merge: Mapping[str, Sequence[str]] | None = None,
        freeze: Mapping[str, Parts] | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        inventory: Mapping[str, float] | None = None,
        tolerance: float = 0.02,
    ) -> Self:
        """Return the trials on other domains, with assumptions in the notes.

        Args:
            split: Split domains: the drawn share of each part, or the parts' names, for the shares
                of `inventory`.
            merge: New domains with the old ones that they merge; a single old one is renamed.
            freeze: New domains with fixed inner shares, or those of `inventory`. Trials with other
                shares are left out.
            add: New domains.
            remove: Removed domains. Trials that used them are left out, the others rescaled.
            inventory: Tokens of domains and parts by name.
            tolerance: Maximum total variation of a trial from an assumption, 0 to 1.

        Raises:
            TrialsError: A domain is unknown or changed twice, or no trial is left.
        """
        counts, changes = inventory or {}, list[_DomainChange]()
        for name, parts in (split or {}).items():
            shares = _shares(name, parts, counts)
            text = f"split {name!r}: assumed to have been drawn as {_shares_text(shares)}"
            changes.append(_DomainChange((name,), shares, text))
        for name, old in (merge or {}).items():
            text = f"merge {listed(old)} into {name!r}"
            if len(old) == 1:
                text = f"rename {old[0]!r} to {name!r}"
            changes.append(_DomainChange(tuple(old), {name: 1.0}, text))
        for name, parts in (freeze or {}).items():
            inner = _shares(name, parts, counts)
            text = f"freeze {listed(list(inner))} into {name!r} at {_shares_text(inner)}"
            changes.append(_DomainChange(tuple(inner), {name: 1.0}, text, inner))
        for name in remove:
            text = f"remove {name!r}: its weight goes to the others"
            changes.append(_DomainChange((name,), {}, text, {}))
        _check(self, changes, add)
        new_domains, map_DE = _map(self.domains, changes, add)
        weights_NE = self.weights() @ map_DE
        is_kept_N, notes = weights_NE.sum(axis=1) > NOTHING, list[str]()
        for change in changes:
            is_near_N, note = _fit_of(self, change, tolerance)
            is_kept_N &= is_near_N
            notes.append(note)
        if not is_kept_N.any():
            raise TrialsError(
                f"no trial is left of {len(self)}: {'; '.join(notes)}; allow more: tolerance"
            )
        if add:
            notes.append(f"add {listed(add)}: no trial so far has any, so its effect is unknown")
        shares_NE = weights_NE[is_kept_N] / weights_NE[is_kept_N].sum(axis=1, keepdims=True)
        mixtures = [Mixture.from_array(new_domains, row_E) for row_E in shares_NE]
        table = self.table.filter(pl.Series(is_kept_N)).with_columns(
            pl.Series("mixture", [mixture.fingerprint for mixture in mixtures]),
            *(
                pl.Series(WEIGHT + name, [mixture[name] for mixture in mixtures])
                for name in new_domains
            ),
        )
        return replace(
            self,
            table=table.select(list(schema(new_domains, self.targets))),
            domains=new_domains,
            notes=(*self.notes, *notes),
            contents={},
        )

    def joined(self, other: TrialRows) -> Self:
        """Return these trials and others on the same domains, with the common targets.

        Raises:
            TrialsError: Other domains, no common target, or a trial's name in both.
        """
        for name in (*self.domains, *other.domains):
            if name not in self.domains or name not in other.domains:
                raise TrialsError(f"domain {name!r} is in one table alone; reindex the other first")
        targets = [name for name in self.targets if name in other.targets]
        if not targets:
            raise TrialsError("the tables have no evaluation domain in common")
        unshared = [name for name in (*self.targets, *other.targets) if name not in targets]
        notes = [f"left out {listed(unshared)}: losses of only one table"] if unshared else []
        columns = list(schema(self.domains, targets))
        table = pl.concat([self.table.select(columns), other.table.select(columns)])
        return replace(
            self,
            table=table,
            targets=tuple(targets),
            notes=(*self.notes, *other.notes, *notes),
            items={name: self.items[name] for name in targets if name in self.items},
            contents={},
        )

    def carried_to(
        self,
        corpus: Mapping[str, DomainContent],
        became: Mapping[str, Parts | str | None],
        where: str,
    ) -> tuple[Self, list[str]]:
        """Return the trials mapped to a later corpus, and the domains that they do not cover.

        Args:
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
        old, became = self.contents, dict(became)
        for name in (name for name in self.domains if name not in became and name not in corpus):
            sha256 = old[name].sha256 if name in old else ""
            same = [new for new, content in corpus.items() if sha256 and content.sha256 == sha256]
            if not same:
                raise TrialsError(
                    f"{where}: trials of another corpus: domain {name!r} is not in this one; say"
                    f" what became of it, design.earlier: {{{where}: {{{name}: NEW}}}}; null: it is"
                    " gone"
                )
            became[name] = same[0]
        merged = {new for new in became.values() if isinstance(new, str)}
        split = {name: new for name, new in became.items() if new and not isinstance(new, str)}
        unchanged = [name for name in self.domains if name not in became and name not in merged]
        covered = [*unchanged, *merged, *(part for parts in split.values() for part in parts)]
        for name in covered:
            if name not in corpus:
                raise TrialsError(
                    f"{where}: domain {name!r} is not in this corpus{did_you_mean(name, corpus)}"
                )
        added = [name for name in corpus if name not in covered]
        rows = self.reindex(
            split=split,
            merge={
                new: [name for name in self.domains if became.get(name, name) == new]
                for new in sorted(merged)
            },
            remove=[name for name, new in became.items() if not new],
            add=added,
            inventory={name: float(content.tokens) for name, content in corpus.items()},
        )
        grown, changed = list[str](), list[str]()
        for name in (name for name in unchanged if name in old):
            earlier, later = old[name], corpus[name]
            if earlier.sha256 and later.sha256 and earlier.sha256 != later.sha256:
                (grown if later.tokens > earlier.tokens else changed).append(name)
        text = f"{len(unchanged) - len(grown) - len(changed)} of {len(corpus)} domains hold"
        text += f"; grown: {listed(grown)}" if grown else ""
        text += f"; changed: {listed(changed)}" if changed else ""
        text = "; ".join([text, *rows.notes[len(self.notes) :]])
        line = f"{where}: {len(rows)} of {len(self)} trials are carried over: {text}"
        domains = tuple(corpus)
        table = rows.table.select(list(schema(domains, rows.targets)))
        rows = replace(rows, table=table, domains=domains, notes=(line,), contents=corpus)
        return rows, [*added, *changed]


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


def _fit_of(trials: TrialRows, change: _DomainChange, tolerance: float) -> tuple[BoolArray, str]:
    """Return which trials meet the assumption of a change, and a note."""
    old_ND = trials.weights()[:, [trials.domains.index(name) for name in change.old]]
    sums_N1 = old_ND.sum(axis=1, keepdims=True)
    near_N = np.ones(len(trials), dtype=bool)
    if change.inner is None and len(change.old) == 1:
        return near_N, change.text
    if change.inner is None:
        mean_D = old_ND.sum(axis=0) / max(float(old_ND.sum()), 1e-300)
        shares = dict(zip(change.old, mean_D.tolist(), strict=True))
        away = float(total_variation(old_ND, sums_N1 * mean_D).mean())
        return near_N, (
            f"{change.text}: trials drew them in their own proportions, {away:.3g} from the mean"
            f" {_shares_text(shares)} on average, which counts as noise"
        )
    away_N = sums_N1[:, 0]
    if change.inner:
        inner_D = np.array([change.inner[name] for name in change.old])
        away_N = total_variation(old_ND, sums_N1 * inner_D)
    near_N = away_N <= tolerance
    return near_N, (
        f"{change.text}; {int((~near_N).sum())} of {len(trials)} trials were more than"
        f" {tolerance:g} off it and are left out, the others at most"
        f" {away_N[near_N].max(initial=0.0):.3g}"
    )


def _shares(name: str, parts: Parts, inventory: Mapping[str, float]) -> Shares:
    """Return shares that add up to 1, from the inventory if only names are given."""
    if not isinstance(parts, Mapping):
        missing = [part for part in parts if part not in inventory]
        if missing:
            raise TrialsError(
                f"{name!r}: no shares are given, and the inventory lacks {listed(missing)}; give"
                " shares, or inventory="
            )
        sizes = {part: float(inventory[part]) for part in parts}
        total = sum(sizes.values()) or 1.0
        return {part: tokens / total for part, tokens in sizes.items()}
    total = sum(parts.values())
    if not parts or min(parts.values()) < 0 or abs(total - 1) > 1e-6:
        raise TrialsError(f"{name!r}: shares {_shares_text(parts)} must be >= 0 and add up to 1")
    return {part: share / total for part, share in parts.items()}


def _check(trials: TrialRows, changes: Sequence[_DomainChange], add: Sequence[str]) -> None:
    """Check that domains are known and in one change each, and that new names are unused."""
    old = [name for change in changes for name in change.old]
    for name in old:
        if name not in trials.domains:
            raise TrialsError(f"no domain {name!r} to change{did_you_mean(name, trials.domains)}")
        if old.count(name) > 1:
            raise TrialsError(f"domain {name!r} is in two changes; do them one after the other")
    unchanged = [name for name in trials.domains if name not in old]
    names = [*unchanged, *(name for change in changes for name in change.new), *add]
    for name in names:
        if names.count(name) > 1:
            raise TrialsError(f"domain {name!r} would appear twice; give the new one another name")
    if not unchanged and not any(change.new for change in changes):
        raise TrialsError("no domain is left; keep one")


def _map(
    domains: Sequence[str], changes: Sequence[_DomainChange], add: Iterable[str]
) -> tuple[tuple[str, ...], Array]:
    """Return the new domains, and the matrix from old to new weights, shape (D, E)."""
    change_of = {name: change for change in changes for name in change.old}
    becomes = [change_of[n].new if n in change_of else {n: 1.0} for n in domains]
    names = tuple(dict.fromkeys([*(name for new in becomes for name in new), *add]))
    map_DE = np.zeros((len(domains), len(names)))
    for row, new in enumerate(becomes):
        for name, share in new.items():
            map_DE[row, names.index(name)] = share
    return names, map_DE


def _shares_text(shares: Shares) -> str:
    return ", ".join(f"{name} {share:.3g}" for name, share in shares.items())
