"""Bad input is one line with the field, the value and what to do, and exit code 2."""

import json
import os
import subprocess
import sys

import pytest
from command_line import mixopt

LONG = "x" * 300
SCHEDULE = "export {0}/mixture.yaml --to schedule --tokens 1e9 --out s"
# The words of a command, and what its message must have; {0} is a folder with the files below.
COMMANDS = [
    ("status nowhere", ["nowhere", "has no config.yaml", "mixopt run CONFIG --out nowhere"]),
    ("statsu nowhere", ["no such command 'statsu'"]),
    ("status", ["missing argument 'RUN|FOLDER'", "see mixopt status --help"]),
    ("run nowhere.yaml", ["nowhere.yaml: no such file"]),
    ("run {0}", ["is not a run directory, it has no config.yaml; give an experiment's YAML"]),
    ("status {0}/fitted", ["is a fit of tables, not a run", "/fitted/proposals"]),
    ("run {0}/tiny.yaml --out {0}/q?mode=memory", ["cannot have '?'", "use another --out"]),
    ("run {0}/tiny.yaml --out {0}", ["is not empty and not a run directory", "another --out"]),
    ("run {0}/tiny.yaml --out {0}/tiny.yaml", ["is a file, not a run directory", "another --out"]),
    ("run {0}/tiny.yaml --out {0}/tiny.yaml/x", ["/tiny.yaml/x", "cannot be written"]),
    (f"run {{0}}/tiny.yaml --out {LONG}", [LONG, "File name too long"]),
    ("run {0}/tiny.yaml --out /proc/none", ["/proc/none", "cannot be written"]),
    ("init {0} --out {0}/pipe", ["/pipe already exists"]),
    ("export {0}/mixture.yaml --to megatron --out {0}/pipe", ["it is a device or a pipe"]),
    ("run {0}/tiny.yaml --from swep", ["no such step: 'swep'", "did you mean 'sweep'?"]),
    ("run {0}/tiny.yaml --executor slrum", ["sweep.executor", "did you mean 'slurm'?"]),
    ("run {0}/tiny.yaml --set corpus.domains.code.path=/none", ["code", "/none"]),
    ("run {0}/own.yaml", ["proxy.run: no such program: 'no_trainer'"]),
    ("run {0}/own.yaml --set proxy.folder=none", ["proxy.folder: ", "/none: no such folder"]),
    ("run {0}/tiny.yaml --set corpus.tokenizer=bep:4096", ["did you mean bpe:4096?"]),
    ("run {0}/tiny.yaml --set corpus.tokenizer=bpe:4", ["'bpe:4'", "at least 257 ids"]),
    ("run {0}/tiny.yaml --set corpus.domains.code.column=txt", ["no column 'txt'", "text"]),
    ("run {0}/tiny.yaml --set design.earlier=none", ["design.earlier: none: not found"]),
    ("init nowhere --out {0}/new.yaml", ["init: nowhere: no such file or folder"]),
    ("init {0}/mail", ["init: 1 domain (mail) found in", "/mail; a mixture needs two domains"]),
    ("init {0}/mail/../mail/mail.csv {0}/mail/mail.csv", ["is in", "mail.csv, which is given too"]),
    ("init {0}/mail/mail.csv {0}/mail", ["/mail, which is given too; give one of them"]),
    ("predict {0} --weights a=1e308,b=1e308", ["weight 1e+308 is too large"]),
    (
        "predict {0} --weights a=.5,b=.6",
        ["--weights: weights add up to 1.1, not 1: divide each by 1.1\n"],
    ),
    ("predict {0} --weights a=.5,a=.5", ["'a' is given twice"]),
    ("predict {0} --weights a", ["--weights a: expected DOMAIN=SHARE"]),
    ("predict {0} --weights a=x,b=.5", ["--weights a=x: expected DOMAIN=SHARE"]),
    ("export {0}/large.yaml --to nemo", ["domain 'a': weight 1e+308 is too large"]),
    ("fit {0}/large.csv {0}/losses.csv", ["--out DIR"]),
    ("fit {0}/large.csv {0}/losses.csv --out f", ["large.csv", "1e+308"]),
    ("stop nowhere", ["nowhere", "has no config.yaml"]),
    ("verify nowhere", ["nowhere"]),
    ("sync nowhere", ["nowhere"]),
    ("experts nowhere", ["nowhere"]),
    ("report nowhere", ["nowhere", "has no config.yaml"]),
    ("verify {0}", ["contains neither a run nor a fit"]),
    ("check {0}/mail", ["is not a run directory, it has no config.yaml"]),
    ("check nowhere.yaml", ["nowhere.yaml: no such file"]),
    ("check {0}/tiny.yaml --write {0}/tiny.yaml", ["--write", "is the configuration itself"]),
    ("run {0}/tiny.yaml --from fit --until design", ["--from fit comes after --until design"]),
    ("run {0}/tiny.yaml --dry-run", ["'local' submits no script"]),
    ("status {0}", ["has no config.yaml; give one of the runs in it: recorded"]),
    ("status {0} --lines 3", ["--lines needs --logs TRIAL"]),
    ("status {0} --logs t0001 --lines -1", ["--lines", "greater than or equal to 0"]),
    ("status {0} --readiness", ["contains no fit"]),
    ("predict {0}/mixture.yaml --weights a=1", ["a file has no fit"]),
    ("predict {0}/mixture.yaml", ["the length of the run is missing; give --tokens"]),
    ("predict {0}/mixture.yaml --tokens 1T", ["sizes of the domains are not known"]),
    ("predict {0}/mixture.yaml --tokens 1T --batch 8", ["--batch 8: expected sequences"]),
    ("predict {0}/mixture.yaml --tokens much", ["--tokens: 'much' is not a number of tokens"]),
    ("propose nowhere", ["nowhere is not a directory"]),
    ("propose {0} --free a=x --free b=y", ["--free: the rest is held at one mixture"]),
    ("propose {0} --points 1 --pareto a", ["--points", "greater than or equal to 2"]),
    ("fit {0} --out f", ["give tables, W.csv and L.csv"]),
    ("fit {0}/a.csv {0}/b.csv {0}/c.csv --out f", ["give two tables"]),
    ("fit {0}/tiny.yaml --out f", ["an experiment is fitted by mixopt run CONFIG --until"]),
    ("propose {0} --pareto a --target b", ["--target and --objective give one proposal"]),
    ("propose {0} --target a --objective {0}/hinge.yaml", ["both define the objective; give one"]),
    ("fit {0} --test {0}/large.csv --out f", ["--test takes a fit as it is"]),
    ("fit {0}/large.csv --out f --direction x", ["--direction x", "LOSS=higher"]),
    ("fit {0}/large.csv --out f --direction x=up", ["--direction x=up: expected LOSS=higher or"]),
    ("fit {0}/few.csv {0}/good.csv --out {0}/recorded", ["recorded: is a run directory; use"]),
    ("fit {0}/few.csv {0}/percent.csv --out f", ["'qa' is 54 in", "divide by 100"]),
    ("fit {0}/few.csv {0}/counts.csv --out f", ["'qa' is 12 in", "divide counts by 20"]),
    ("fit {0}/few.csv {0}/above.csv --out f", ["'qa' is 54 in", "of 20 questions"]),
    ("fit {0}/few.csv {0}/over.csv --out f", ["'qa' is 254 in", "questions in items/qa"]),
    ("fit {0}/none.csv {0}/good.csv --out f", ["none.csv: cannot be read: No such file or dir"]),
    ("fit {0}/few.csv {0}/good.csv --out f --objective {0}/hinge.yaml", ["noise of 'x' is un"]),
    ("fit {0}/few.csv {0}/other.csv --out f", ["items/aq: no metric 'aq'; known: qa, x"]),
    ("fit {0}/few.csv {0}/half.csv --out f", ["items/qa: is 20.5 to 20.5; need one whole number"]),
    ("fit {0}/few.csv {0}/flat.csv --out f --target qa", ["'qa' is 0.5 in all 9 trials"]),
    ("fit {0}/large.csv {0}/losses.csv --out f --at layers=3", ["--at layers=3: expected"]),
    ("fit {0}/large.csv --backtest --at tokens=9", ["--backtest compares runs within", "--at"]),
    ("fit {0}/few.csv {0}/losses.csv --backtest", ["9 finished runs of 9", "needs 11", "add runs"]),
    ("fit {0} --test {0}/few.csv {0}/losses.csv --backtest", ["--test takes a fit as it is"]),
    ("import {0}/large.csv {0}/losses.csv --out t --unit bits", ["'--unit': 'bits' is not one of"]),
    ("import {0}/large.csv {0}/losses.csv --out t --key step", ["--key", "step"]),
    ("import nowhere.json --out L.csv", ["nowhere.json"]),
    ("import {0}/a/r.json {0}/b/r.json --out o", ["the run 'a' has no task/y/acc, which others"]),
    ("import {0}/a/r.json {0}/a/s.json --out o", ["the run 'r' has no task/y/acc, which others"]),
    ("import {0}/a/r.json {0}/a/r.json --out o", ["two files are of the run 'r'; give one file"]),
    ("import {0}/text.jsonl --out o", ["neither a results file of lm-eval nor a metrics.json"]),
    ("import {0}/d/results_1.json --out o", ["samples_arc_1.jsonl: cannot be read: JSONDecodeErr"]),
    ("import {0}/c.json --out o", ["neither a results file of lm-eval nor a metrics.json"]),
    ("import t.parquet --out o --key k", ["t.parquet: one table of trials is read as it is"]),
    ("import {0}/large.csv --out t --dtype uint16", ["tokens need --tokenizer NAME"]),
    ("import {0}/large.csv --out t --tokenizer gpt2 --format bin", ["format 'bin'"]),
    ("export", ["give MIXTURE --to TOOL"]),
    ("export {0}/mixture.yaml --to nemoo", ["unknown tool 'nemoo'; did you mean 'nemo'?"]),
    ("export {0}/mixture.yaml --to swift", ["swift: needs the length of the run; give --tokens"]),
    ("export {0}/mixture.yaml --to axolotl --tokens 9 --sample-tokens 3", ["give them in --inv"]),
    ("export {0}/mixture.yaml --to schedule", ["--to schedule needs --out"]),
    ("export {0}/mixture.yaml --to nemo --batch 8x8", ["--batch is for --to schedule"]),
    ("export {0}/plan.yaml --to nemo --tokens 9", ["--tokens is for mixtures; a schedule has its"]),
    ("export {0}/mixture.yaml --to nemo --paths {0}/list.yaml", ["list.yaml: expected a path, or"]),
    ("export {0}/mixture.yaml --to nemo --paths {0}/aa.yaml", ["unknown domain 'aa'; did you"]),
    ("export {0}/mixture.yaml --to nemo --inventory {0}/a.yaml", ["a.yaml: domain 'b' is missing"]),
    (f"{SCHEDULE} --batch 1024", ["--batch 1024: expected sequences of a batch x"]),
    (f"{SCHEDULE} --batch 0x8", ["--batch 0x8: expected sequences of a batch x"]),
    ("export {0} --to transformers-model --out m", ["has no model"]),
    ("pretrain {0} --score {0} --device gpu", ["'--device': 'gpu' is not one of"]),
]


# Tables of mixtures and of losses, the options of fit, and what the message must have.
MIXED = "index,a,b\n" + "".join(f"{n},{n / 20},{1 - n / 20}\n" for n in range(20))
LOSSES = "index,x\n" + "".join(f"{n},{n % 7}\n" for n in range(20))
TABLES = [
    (MIXED.replace("3,0.15,", "3,0.5,"), LOSSES, ["row 3: weights add up to 1.35"]),
    (MIXED, LOSSES.replace(",6", ","), ["row 6: x: is empty", "--ignore incomplete"]),
    (MIXED, LOSSES.replace("\n19,5", ""), ["'19' only in W.csv", "--ignore incomplete"]),
    (MIXED, LOSSES.replace("\n19,5", "\n20,5\n19,5"), ["'20' only in L.csv"]),
    (MIXED, LOSSES.replace("\n0,0", "") + "20,1\n", ["off by one?", "--key"]),
    (MIXED, LOSSES.replace(",", ";"), ["separated by commas, got 'index;x'"]),
    (LOSSES, MIXED, ["L.csv: rows add up to 1", "give the table of mixtures first"]),
    (MIXED, "index,x\n" + "".join(f"{n},2\n" for n in range(20)), ["in all 20"]),
]


# YAML below the base (or what takes the place of a part of it), and what the message must have.
BASE = """\
corpus:
  domains:
    web: {path: web.jsonl}
    code: {path: code.jsonl}
evaluation:
  exam: {path: exam.jsonl}
objective: {target: exam}
"""
COMMAND = "proxy: {name: command, run: train, result: m.json"
YAML = [
    ("design: {trails: 3}", "a.yaml:8: design.trails: unknown field; did you mean 'trials'"),
    ("desing: {}", "a.yaml:8: desing: unknown field; did you mean 'design'?"),
    ("design:\n  trials: many", "a.yaml:9: design.trials: should be a valid integer, got 'many'"),
    ("design:\n  trials: -1", "a.yaml:9: design.trials: should be greater than 0, got -1"),
    ("design: {anchors: [best]}", "design.anchors.0: should be 'natural' or 'uniform', got 'best'"),
    ("design: {method: grid}", "design.method: should be 'axial', 'dirichlet' or"),
    ("design: {method: anneals}", "method: anneals and the field anneals must be given together"),
    ("design: {rounds: [4, 2], trials: 5}", "rounds add up to 6, but trials is 5"),
    ("design: {rounds: [0]}", "design.rounds.0: should be greater than 0"),
    ("design: [1", "a.yaml:9: not valid YAML"),
    ("design: 3", "design: "),
    ("design: {method: anneals, anneals: {sources: []}}", "design.anneals.sources"),
    ("design: {method: anneals, anneals: {sources: [wbe]}}", "did you mean 'web'"),
    ("design: {method: anneals, anneals: {sources: [web, code]}}", "every domain is a source"),
    (
        "design: {method: anneals, anneals: {sources: [web], base: {cde: 1}}}",
        "base: unknown domain",
    ),
    ("design: {method: anneals, anneals: {sources: [web]}, replicates: 2}", "replicates: microan"),
    ("design: {method: anneals, anneals: {sources: [web]}, rounds: [3]}", "2 mixtures, not 3"),
    ("design: {stages: [within, between]}", "design.stages: needs domains that nest"),
    ("design: {stages: [within, all], rounds: [9]}", "2 stages, but 1 rounds"),
    ("design: {stages: [inside]}", "design.stages.0: should be 'within', 'between' or 'all'"),
    ("design: {stages: [all]}", "stages: the first must be within or between; all needs"),
    ("design: {stages: [within], method: axial}", "method: axial varies all domains"),
    ("design: {earlier: v1, phases: [{until: 0.8}, {}]}", "earlier: cannot be combined"),
    ("design: {earlier: {v1: {web: [code, 3]}}}", "design.earlier.v1.web"),
    ("design: {phases: [{}, {}]}", "phase 1: set its until, above 0 and at most 1"),
    ("design: {phases: {main: 0.8}}", "phases: a single phase is a training without phases"),
    ("design: {phases: [{until: 0.5}, {until: 0.9}]}", "the last phase ends at 0.9 of the"),
    ("design: {phases: [{until: 0.8}, {until: 0.5}, {}]}", "until, above 0.8"),
    ("design: {phases: [{until: 0.8, name: a}, {name: a}]}", "names must differ"),
    ("design: {phases: [{until: 0.8}, {}], method: axial}", "phases: cannot be combined with"),
    ("design: {phases: [0.8, {}]}", "phase 1: expected {until: 0.8}"),
    ("design: {phases: {main: 0.8, end: 0.1}}", "phases: their shares add up to 0.9, not to 1"),
    ("design: {phases: {a/b: 0.8, end: 0.2}}", "phases: 'a/b': a name has no '/'"),
    ("design: {phases: {main: 2, end: 0.2}}", "phases.main: should be less than 1"),
    ("design: {phases: {main: 0.8, end: 0.2}}\nproxy: {name: ngram}", "ngram ignores the order"),
    ("design: {phases: {main: 0.8, end: 0.2}}\nsweep: {stop: {}}", "stop: a stopped trial lacks"),
    (
        "design: {method: anneals, anneals: {sources: [web]}}\nsweep: {stop: {}}",
        "sweep.stop: anneals all train to the end",
    ),
    ("sweep: {stop: {at: 1}}", "sweep.stop.at: should be less than 1, got 1"),
    ("sweep: {stop: {kept: 0.5}}", "sweep.stop.kept: unknown field; did you mean 'keep'"),
    ("tasks: {sets: {t: {pth: t.jsonl}}}", "pth: unknown field; did you mean 'path'"),
    ("tasks: {sets: {a/c: t.jsonl}}", "task 'a/c': a name has no '/'"),
    ("tasks: {sets: {t: {path: t.jsonl, family: a/c}}}", "family 'a/c': a name has no '/'"),
    ("constraints: {floors: {exma: 0.5}}", "constraints.floors.exma: unknown evaluation domain"),
    ("fit: {folds: 1}", "a.yaml:8: fit.folds: should be greater than or equal to 2, got 1"),
    ("fit: {regressors: [linaer]}", "a.yaml:8: fit.regressors.0: unknown regressor 'linaer'"),
    ("validate: {seeds: 1}", "a.yaml:8: validate.seeds: should be greater than or equal to 3"),
    ("validate: {seeds: 4, max_seeds: 3}", "max_seeds 3 is below seeds 4"),
    ("validate: {baselines: [natral]}", "unknown baseline 'natral'; did you mean 'natural'"),
    ("validate: {baselines: [natural, natural]}", "baselines: 'natural' is given twice"),
    ("validate: {baselines: [control]}", "'control' exists only with design.method"),
    ("validate: {baselines: [3]}", "3 is neither a name nor a mapping of one entry"),
    ("validate: {baselines: [{natural: {web: 1.0, code: 0}}]}", "'natural' is already a baseline"),
    ("validate: {baselines: [{ours: {wbe: 1.0}}]}", "unknown domain 'wbe'; did you mean 'web'"),
    ("validate: {baselines: [{ours: {web: 2.0, code: 0}}]}", "weights add up to 2, not 1: divide"),
    ("validate: {baselines: [{best_trial: 0}]}", "should be a number from 1 to 9"),
    ("validate: {baselines: [best_trial, {best_trial: 2}]}", "'best_trial' is given twice"),
    ("validate: {baselines: [{ours: none.yaml}]}", "none.yaml: not found"),
    (
        "validate: {baselines: [{ours: {web: 0.5, code: 0.6}}]}",
        "weights add up to 1.1, not 1: divide",
    ),
    ("validate: {baselines: [{ours: {web: 1.0}}]}", "ours: domain 'code' has no weight; add one"),
    ("validate: {baselines: [{proposal_2: {web: 1.0}}]}", "names of proposals begin with"),
    ("constraints:\n  bounds: {web: [0.1, 2]}", "a.yaml:9: constraints.bounds.web.1: "),
    ("constraints: {bounds: {web: 1.5}}", "constraints.bounds.web.0: should be less than or"),
    ("constraints: {bounds: {'x*': 0.1}}", "a.yaml:8: constraints.bounds.x*: 'x*' matches no"),
    ("constraints: {bounds: {'w*': 0.1, '*b': 0.2}}", "'web' is matched by 'w*'"),
    (
        "constraints: {drop: [web]}",
        "constraints.drop: unknown field; known: bounds, convex, floors, groups,",
    ),
    ("constraints: {bounds: {wbe: 0}}", "constraints.bounds.wbe: unknown domain 'wbe'; did you"),
    ("propose: {target_tokens: 50X}", "propose.target_tokens: should be a valid integer"),
    ("propose: {target_tokens: 1.5}", "propose.target_tokens: should be a valid integer"),
    ("constraints: {max_epochs: 2}", "constraints.max_epochs: needs propose.target_tokens"),
    ("constraints: {max_epochs: 0}", "constraints.max_epochs.*: should be greater than 0"),
    ("constraints: {groups: {a: {domains: [], bounds: [0, 1]}}}", "constraints.groups.a.domains"),
    ("constraints: {groups: {a: {domains: [web]}}}", "constraints.groups.a.bounds: is missing"),
    ("constraints: {proportions: {a: [web]}}", "name two domains or more"),
    ("constraints: {proportions: {a: {web: 0, code: 0}}}", "the ratios are all 0"),
    ("constraints: {radius: {kl: 1, tv: 0.5}}", "give exactly one of kl, tv"),
    ("constraints:\n  guardrails: natral", "a.yaml:9: constraints.guardrails: unknown reference"),
    ("constraints: {guardrails: {}}", "give a margin for all evaluation domains, targets, or"),
    ("constraints: {guardrails: {targets: {'exma*': 0.1}}}", "matches no evaluation domain"),
    ("constraints: {guardrails: {reference: {exma: 1.0}, margin: 0.1}}", "reference.exma: unknown"),
    ("constraints: {guardrails: base}", "constraints.guardrails.reference: base is the checkpoint"),
    ("proxy: {simulate_epochs: maybe}", "proxy.simulate_epochs: should be a valid boolean"),
    ("proxy: {simulate_epochs: true}", "proxy.simulate_epochs: needs propose.target_tokens"),
    ("proxy: {simulate_epochs: true, tokens: 9}\npropose: {target_tokens: 5}", "is longer than"),
    ("proxy: {name: continued}", "proxy.from: is missing: name: continued needs"),
    ("proxy: {name: decoder, from: runs/base}", "trials of proxy 'decoder' start from random"),
    ("proxy: {name: continued, from: a.yaml}", "proxy.from: is a configuration: train it with"),
    ("proxy: {name: ngram, run: train}", "proxy.run: applies only to your own trainer: set name:"),
    ("proxy: {name: command, run: train}", "proxy.result: is missing: name: command needs 'run'"),
    (f"{COMMAND}, losses: {{exma: x}}}}", "unknown evaluation domain 'exma'; did you mean 'exam'"),
    (f"{COMMAND}, timeout: soon}}", "proxy.timeout: should be seconds, or a duration such as"),
    ("sweep: {patience: 99999d}", "sweep.patience: should be less than or equal to 2678400"),
    ("sweep: {patience: .inf}", "sweep.patience: should be less than or equal to 2678400"),
    ("sweep: {patience: true}", "duration such as 90s, 10m or 2h"),
    ("sweep: {gpus: .nan}", "sweep.gpus: "),
    ("seed: 99999999999999999999", "a.yaml:8: seed: should be less than"),
    ("name: ../up", "name: String should match pattern"),
    ("tracking: {uri: [a]}", "tracking.uri: should be a valid string"),
    ("tasks: {sets: {a: t.jsonl}, metric: f1}", "tasks.metric: unknown field; known: items"),
    ("objective: {target: web}", "a.yaml:8: objective: given twice"),
    ("? [a]\n: 1", "a key must be plain text"),
    ("design: !!python/object:os.system {}", "could not determine a constructor"),
]
EXAM, CODE, ALONE = "{target: exam}", "{path: code.jsonl}", "\ndesign: {replicates: 0}"
CHANGED = [
    (EXAM, "{target: exma}", "a.yaml:7: objective.target: unknown evaluation domain"),
    (EXAM, "{}", "give exactly one of target, mean, worst, families, hinge; got none"),
    (EXAM, "{target: exam, worst: [web]}", "exactly one"),
    (EXAM, "{target: '*'}", "'*' matches 3 evaluation domains"),
    (EXAM, "{mean: {'exma*': 1}}", "'exma*' matches no evaluation domain; did you mean 'exam'?"),
    (EXAM, "{hinge: '*'}", "objective.hinge: '*' matches 3 evaluation domains"),
    (EXAM, "{hinge: exam}" + ALONE, "a.yaml:7: objective.hinge: the noise of 'web'"),
    (EXAM, "{families: {a: {mean: {exam: 1, web: 1}}}, items: {exam: 20}}", "two units"),
    (EXAM, "{families: {a: {mean: {'*': 1}}, b: {mean: {'w*': 1}}}}", "'web' is in 'a' and in 'b'"),
    (EXAM, "{target: exam, direction: {'e*': higher, '*m': lower}}", "is matched by 'e*' (higher)"),
    (EXAM, "{target: exam, unit: bits}", "objective.unit: should be"),
    (EXAM, "{target: exam, scale: spread}", "scale: spread applies to a mean of losses"),
    (EXAM, "{target: exam, noise: leave_out}" + ALONE, "a.yaml:7: objective.noise: noise is"),
    (CODE, "{path: a, b: {path: b}}", "'code' is a domain (it has 'path') and a"),
    ("code: {path: code.jsonl}", "web/a: {path: b}", "'web' is a domain and the branch of 'web/a'"),
    (CODE, "{path: a.jsonl, by: [topic]}", "code.by: a.jsonl: no .parquet"),
    ("code: {path", "spools: {path", "the corpus uses a file of this name"),
    ("code: {path", "a: {b: {path: c}}\n    a/b: {path", "domain 'a/b' is given twice"),
    ("exam: {path", "web: {path", "evaluation.web: is already the name of a training domain"),
    ("exam: {path", "exam: {tokens: 5, path", "evaluation.exam: no trial trains on"),
    ("web: {path", "../web: {path", "cannot be the name of a folder"),
    ("web: {path", ".web: {path", "does not begin with '.'"),
    (CODE, "{}", "a.yaml:4: corpus.domains.code: give either"),
    (CODE, "{pth: a}", "code.pth: unknown field; did you mean 'path'"),
    (CODE, "{path: []}", "path: is an empty list"),
    (CODE, "{path: [a], data_files: b}", "data_files is redundant"),
    (CODE, "{path: a, environment: b}", "give either 'environment' or 'path'"),
    (CODE, "{path: a, tokens: 5, bytes: 5}", "give tokens or bytes of the whole"),
    (CODE, "{path: a, tokens: 5}", "corpus.domains.web: its size is missing"),
    (CODE, "{path: a, dtype: uint16}", "dtype: applies to tokens, but"),
    (CODE, "{path: a, document_end: 0}", "document_end: applies to tokens"),
    (CODE, "{path: a, format: megatro}", "code.format: should be 'megatron'"),
    (CODE, "{path: a, format: megatron, max_bytes: 5}", "max_bytes: applies to"),
    (CODE, "{path: a, format: megatron, bytes: 5}", "bytes: is a size of text"),
    (CODE, "{format: megatron}", "path: is missing"),
    (CODE, "{path: a, format: megatron, document_end: 0}", "its index contains"),
    (CODE, "{path: a, format: npy, dtype: uint16}", "a .npy states its type"),
    (CODE, "{path: a, format: raw}", "does not state the token type"),
    (CODE, "{path: 's3://u:secret@b/a'}", "has a secret"),
    (CODE, "{path: 's3://'}", "names no bucket or host"),
    (CODE, "{mixed: {domains: {}}}", "code.mixed.domains: "),
    (CODE, "{mixed: {domains: {c: {path: c}}}}\n  prepared: p", "prepared: a mixed domain"),
    (CODE, "{path: a, format: megatron}\n  tokenizer: bpe:300", "the run would train bpe:300"),
    (CODE, "{mixed: {domains: {web: {path: a}}}}", "is already the name of"),
    (CODE, "{mixed: {domains: {a: {path: a}}, mixture: {a: 0.6}}}", "mixture: weights add up to"),
    (CODE, "{path: a, mixed: {domains: {b: {path: b}}}}", "a mixed domain takes its"),
    ("corpus:\n", "corpus:\n  inventory: none.yaml\n", "none.yaml: not found"),
    ("objective", "# objective", "objective: is missing; for example objective: {target:"),
    (BASE, "- a\n", "expected sections such as 'corpus:' and 'objective:'"),
    (BASE, "", "expected sections such as 'corpus:' and 'objective:'"),
    (BASE, "[" * 5000, "nested too deeply"),
]
OWN = """\
corpus: {domains: {web: {tokens: 1e12}, code: {tokens: 2e11}}}
evaluation: {exam: {}}
proxy: {name: command, run: train, result: m.json}
objective: {target: exam, unit: nats_per_token}
"""
CHANGED_OWN = [
    ("command, run: train, result: m.json", "ngram", "only your own trainer (proxy.name:"),
    ("{tokens: 1e12}", "{bytes: 1e12}", "domains.web: its text is not here, so its size"),
    ("{tokens: 1e12}", "{tokens: 9, mixed: {domains: {a: {tokens: 5}}}}", "the text of its parts"),
    (", unit: nats_per_token", "", "set objective.unit: nats_per_token"),
]
SETTINGS = [
    ("design.trails=7", "--set design.trails=7: design.trails: unknown field"),
    ("design.trials", "expected field=value, such as design.trials=32"),
    ("=3", "expected field=value"),
    ("design..trials=3", "expected field=value"),
    ("seed.a=3", "seed: should be a valid integer"),
    ("corpus.domains.web.path.x=3", "'path' is a value, not a section"),
    ("proxy.options=[1", "not valid YAML"),
]


PRETRAINING = """\
corpus: runs/web
model: {name: llama}
training: {steps: 100, batch: 8, sequence_length: 32, lr: 3e-4}
"""
PRETRAINING_SETTINGS = [
    ("training.stpes=3", "training.stpes: unknown field; did you mean 'steps'?"),
    ("training.batch=0", "training.batch: should be greater than 0, got 0"),
    ("training.micro_batch=3", "training: micro_batch 3 does not divide batch 8"),
    ("training.tokens=50 GB", "training.tokens: should be a valid integer"),
    ("training.tokens=1000", "steps 100 of 256 tokens are not tokens 1,000; give one of them"),
    ("training.lr=high", "training.lr: should be a valid number, got 'high'"),
    ("training.min_lr=1", "training: min_lr 1 is above lr 0.0003"),
    ("training.schedule=cosin", "training.schedule: should be 'cosine', 'constant', 'linear'"),
    ("training.lr_decay_shape=sqrt", "'sqrt' differs from schedule: cosine; use schedule: linear"),
    ("training.betas=[0.9]", "training.betas.1: is missing"),
    ("training.betas=[0.9, 1]", "training.betas.1: should be less than 1, got 1"),
    ("training.compile=2", "training.compile: should be a valid boolean"),
    ("parallel=fdsp", "parallel: should be 'ddp' or 'fsdp', got 'fdsp'"),
    ("mixture={}", "mixture: give exactly one of anchor, file, weights; got none"),
    ("mixture={weights: {a: 2}}", "mixture.weights.a: should be less than or equal to 1, got 2"),
    ("schedule=3", "schedule: content: expected fields, got 3"),
    ("schedule=nowhere.yaml", "schedule: nowhere.yaml: not found"),
    ("schedule={stages: []}", "schedule: content: stages: expected a list of stages"),
    ("checkpoint.keep_every=3", "keep_every 3 is not a multiple of every 500"),
    ("experts.adapters=x", "experts.adapters: should be a valid list, got 'x'"),
    ("model={}", "model: give name, or from"),
    ("model={name: llama, optimizer: true}", "model: optimizer True has no effect without from"),
    ("model={name: llama, options: 3}", "model.options: should be a valid dictionary, got 3"),
    ("corpus=s3://a:b@c/d", "corpus: s3://***@c/d: has a secret"),
    ("corpus=nowhere.yaml", "nowhere.yaml: no such file"),
    ("name=a b", "name: "),
]


# Tables of arms: a name, the column of questions, the metric of a row, how many questions.
ARMS = [
    ("percent", "items/qa", lambda n: 54 - n + 0.5 * (n > 0), 1000),
    ("counts", "items/qa", lambda n: 12 - n, 20),
    ("above", "items/qa", lambda n: 54 - n, 20),
    ("over", "items/qa", lambda n: 254 - n, 20),
    ("other", "items/aq", lambda n: n / 10, 20),
    ("half", "items/qa", lambda n: n / 10, 20.5),
    ("flat", "items/qa", lambda n: 0.5, 20),
    ("good", "items/qa", lambda n: n / 10, 20),
]


@pytest.fixture(scope="module")
def folder(experiment, tmp_path_factory):
    path = tmp_path_factory.mktemp("input")
    (path / "tiny.yaml").write_text(experiment, encoding="utf-8")
    (path / "own.yaml").write_text(OWN.replace("run: train", "run: no_trainer"))
    (path / "large.yaml").write_text("weights: {a: 1.0e+308, b: 1.0e+308}\n")
    (path / "mixture.yaml").write_text("weights: {a: 0.5, b: 0.5}\n")
    (path / "hinge.yaml").write_text("hinge: qa\nunit: nats_per_token\n")
    lists = {
        "list": "[1]",
        "aa": "{aa: x}",
        "a": "{a: 3}",
        "plan": "stages: []",
        "recorded/config": "",
    }
    for name, text in lists.items():
        (path / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (path / f"{name}.yaml").write_text(text)
    for name, task in (("a/r", "x"), ("b/r", "y"), ("a/s", "y"), ("fitted/fit", "x")):
        (path / name).parent.mkdir(exist_ok=True)
        (path / f"{name}.json").write_text(json.dumps({"results": {task: {"acc,none": 1}}}))
    (path / "text.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (path / "c.json").write_text('{"results": 3}')
    (path / "d").mkdir()
    arc = {"results": {"arc": {"acc,none": 1}}, "n-samples": {"arc": {"effective": 2}}}
    (path / "d/results_1.json").write_text(json.dumps(arc))
    (path / "d/samples_arc_1.jsonl").write_text('{"doc_id": 0, "acc": 1.0}\n{"doc_id": 1, "a')
    (path / "mail").mkdir()
    rows = "".join(f"{n},some words of message {n}\n" for n in range(9))
    (path / "mail/mail.csv").write_text("id,message\n" + rows)
    os.mkfifo(path / "pipe")
    (path / "large.csv").write_text("index,a,b\n" + "".join(f"{n},1e308,1e308\n" for n in range(9)))
    shares = "".join(f"{n},{n / 10},{1 - n / 10}\n" for n in range(9))
    (path / "few.csv").write_text("index,a,b\n" + shares)
    for name, column, value, items in ARMS:
        rows = "".join(f"{n},{value(n)},{n}.5,{items}\n" for n in range(9))
        (path / f"{name}.csv").write_text(f"index,qa,x,{column}\n" + rows)
    (path / "losses.csv").write_text("index,x\n" + "".join(f"{n},{n}\n" for n in range(9)))
    return path


@pytest.mark.parametrize(("words", "expected"), COMMANDS, ids=lambda one: str(one)[:60])
def test_bad_input_is_one_line_and_exit_code_2(folder, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    before = sorted(folder.rglob("*"))
    ended = mixopt(*words.format(folder).split())
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith("mixopt: ")
    assert ended.error.count("\n") == 1
    for item in expected:
        assert item in ended.error
    assert sorted(folder.rglob("*")) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mixtures", "losses", "expected"), TABLES, ids=range(len(TABLES)))
def test_a_table_that_cannot_be_replayed_is_one_line(
    tmp_path, monkeypatch, mixtures, losses, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "W.csv").write_text(mixtures)
    (tmp_path / "L.csv").write_text(losses)
    ended = mixopt("fit", "W.csv", "L.csv", "--backtest")
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.count("\n") == 1
    assert all(part in ended.error for part in expected), ended.error


TEXTS = [
    *((f"{BASE}{addition}\n", (), expected) for addition, expected in YAML),
    *((BASE.replace(before, after, 1), (), expected) for before, after, expected in CHANGED),
    *((OWN.replace(before, after, 1), (), expected) for before, after, expected in CHANGED_OWN),
    *((BASE, ("--set", setting), expected) for setting, expected in SETTINGS),
]


@pytest.mark.parametrize(("text", "options", "expected"), TEXTS, ids=[t[2][:60] for t in TEXTS])
def test_an_invalid_field_is_named_before_any_work_starts(tmp_path, text, options, expected):
    (tmp_path / "a.yaml").write_text(text)
    args = ("run", tmp_path / "a.yaml", "--out", tmp_path / "run", *options, "--until", "prepare")
    ended = mixopt(*args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.count("\n") == 1
    assert expected in ended.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("setting", "expected"), PRETRAINING_SETTINGS)
def test_what_a_pretraining_cannot_be_is_named(tmp_path, monkeypatch, setting, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(PRETRAINING)
    ended = mixopt("pretrain", "run.yaml", "--out", "run", "--set", setting)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.count("\n") == 1
    assert expected in ended.error


def test_a_path_or_a_terminal_that_is_not_utf_8_is_one_line(folder):
    command = [sys.executable, "-m", "mixopt", "run", folder / "tiny.yaml", "--out"]
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for out, environment in ((b"a\xff", {}), ("ä".encode(), ascii_only)):
        ended = subprocess.run(
            [*map(os.fsencode, command), os.fsencode(folder) + b"/" + out],
            capture_output=True,
            check=False,
            env=os.environ | environment,
        )
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.count(b"\n") == 1
