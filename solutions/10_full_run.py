# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 · The full run
#
# This notebook pre-trains a VideoMAE V2 on real mp4 files and measures what the pre-training was worth.
# The same cells run on two CPU cores and on a GPU. Read it as a lab report:
#
# 1. **Plan**: what the run will take, before it starts.
# 2. **Data** (資料): videos whose label is in the motion, and in no single frame.
# 3. **Pre-training** (預訓練): hide most of each clip, predict the hidden pixels. No labels are used.
# 4. **Fine-tuning** (微調): a classifier from the pre-trained encoder, with few labels, beside the same
#    classifier from scratch. Each has searched its learning rate.
# 5. **Report**: accuracy with floors, baselines and intervals, the cost, and the weights on disk.
# 6. **Projects**: three experiments of your own, with what a good report of each contains.
#
# The first code cell holds everything that you may want to change.
# If you stop the run, start it again: it resumes from its last checkpoint.

# %% tags=["parameters"]
recipe = (
    "cpu"  # "cpu", "evening", "gpu", or the path of a YAML file like those in vmae/train/recipes
)
data = "motion"  # "motion" (rendered), "film" (Big Buck Bunny), or the path of your own set
train_videos = None  # how many to render; None: as the recipe's set says
test_videos = None
pretrain_steps = None  # None: as in the recipe
epochs = None  # passes over the training videos, in place of pretrain_steps
finetune_steps = None
labels_per_class = None
max_unreadable = None  # share of unreadable videos at which the run stops
draws = 3  # fine-tune with so many different draws of the labels
rates = (0.25, 1.0, 4.0)  # multiples of the recipe's learning rate that fine-tuning searches
seed = 0
resume = True  # go on with the run in `out`, if there is one
out = None  # the folder of the run; None: runs/RECIPE-DATA-seedSEED

# %% [markdown]
# ## Set-up
#
# Paths are relative to the checkout, wherever Jupyter was started.

# %%
import json
import os
from pathlib import Path

import torch

import vmae
from vmae import mae, train, vit, weights
from vmae.config import MaskConfig, ModelConfig
from vmae.course.experiments import paired
from vmae.course.lessons import making, viz
from vmae.data import (
    SIZES,
    Sampling,
    Subset,
    few_labels,
    load_set,
    ordered_batches,
    spec_named,
    with_sizes,
)
from vmae.masking import make_mask
from vmae.predict import predict

os.chdir(vmae.ROOT)
device = train.accelerator_for("auto").device
print(f"vmae {vmae.__version__}, torch {torch.__version__}")
print(f"running on {train.device_name(device)}")

# %% [markdown]
# ## The recipe
#
# A recipe is a YAML file: the model, the masks, the data, the optimizer.
# The parameters above replace its values.

# %%
plan = train.Recipe.load(recipe)
data_path = {"motion": plan.pretrain.data.path, "film": "data/film"}.get(data, data)
named = spec_named(Path(data_path).name)  # level and size of the recipe's motion set
spec = with_sizes(named or SIZES["small"], train=train_videos, test=test_videos)
if data == "motion" and spec != named:
    data_path += f"-{spec.train}-{spec.test}"
plan = plan.changed(
    {"data.path": data_path, "data.max_unreadable": max_unreadable, "seed": seed},
    pretrain={"optim.steps": pretrain_steps, "optim.epochs": epochs},
    finetune={"optim.steps": finetune_steps, "labels_per_class": labels_per_class},
)
model, run_name = plan.pretrain.model, f"{Path(recipe).stem}-{Path(data_path).name}-seed{seed}"
run = Path(out or f"runs/{run_name}")
print(
    f"clips of {model.num_frames} frames, {model.img_size}x{model.img_size} pixels, tubelets {model.tubelet}"
)
print(f"tokens {model.grid.shape} = {model.grid.num_tokens}, each of {model.grid.token_dim} values")
print(
    f"encoder {model.depth} blocks of {model.embed_dim}, "
    f"decoder {model.decoder_depth} blocks of {model.decoder_embed_dim}"
)

# %% [markdown]
# ## Data
#
# The motion set is rendered now, once. In the recipe `cpu` a photo or a frame of a film drifts in one of eight directions; the
# direction is the label. It may start anywhere, so a single frame looks the same for all eight classes. In the recipe `gpu`, 18
# motions of camera and object have to be told apart. [data/README.md](../data/README.md) shows every level.
#
# The videos are real H.264 files. The reader decodes them with decord,
# resizes them, and keeps the frames in a *store* (a memory-mapped file), so each is decoded once.

# %%
if data == "motion":
    making.render_set(data_path, spec, workers=os.cpu_count() or 1, progress=viz.track)
elif data == "film":
    making.render_film(
        data_path, making.FILM, making.FilmSpec(), workers=os.cpu_count() or 1, progress=viz.track
    )
videos = load_set(data_path)
chance = 100 / len(videos.classes)
print(f"{len(videos.train):,} videos to train on, {len(videos.test):,} to test on")
print(f"{len(videos.classes)} classes: {', '.join(videos.classes)}")

# %% [markdown]
# ## Plan
#
# What will this take, and what will it wait for? `vmae plan` computes it from the model, the set and the
# speed of the device (lesson 09); here it is for the device of this run. What it really took is in the report.

# %%
here = train.this_device()
if here is None:
    print(f"no data sheet of {train.device_name(device)} is at hand, so nothing can be planned")
else:
    viz.table(train.plan_table(plan, here), caption=f"Expected on {here.name}.")

# %%
sources = train.open_sources(plan.finetune, progress=viz.track)
print(f"read: {len(sources.train.videos):,} and {len(sources.test.videos):,} videos")

# %% [markdown]
# One test video of each class (of the first four). Look along a row to see the motion.

# %%
sampling = Sampling.of(plan.pretrain.data, model.num_frames)
sample = next(ordered_batches(sources.test, sampling, batch=64))
sample.clips = sample.clips.cpu()  # the frames may be kept on a GPU
first = {int(label): i for i, label in reversed(list(enumerate(sample.labels)))}
shown = {sources.classes[label]: sample.clips[i] for label, i in sorted(first.items())[:4]}
viz.film_strips(
    shown,
    alt=f"Film strips of test videos, one row per class: {', '.join(shown)}. "
    "Frames run from left to right; the picture moves from frame to frame.",
    grid=model.tubelet[1],
)
viz.player(shown, alt=f"The same videos playing: {', '.join(shown)}.")

# %% [markdown]
# ## Masks
#
# VideoMAE hides whole *tubes* (管道式遮罩): the same positions in every frame of the clip.
# V2 adds a second mask, for the decoder. Together they are *dual masking* (雙重遮罩):
#
# - the **encoder** sees the visible tokens only: 160 of 1568 at the published 90 %;
# - the **decoder** is asked at half of all positions, a pattern called *running cell*: 784 queries;
# - 80 of these lie on visible tokens. They carry no loss, so 704 **targets** remain.
#
# Popular accounts say that V2 drops half of the visible tokens instead. The published code does not.
# The cell runs both, on the published sizes.

# %%
# NBVAL_CHECK_OUTPUT
published = {
    "MAE, one image": (ModelConfig.mae("B"), MaskConfig("random", 0.75)),
    "VideoMAE V1": (ModelConfig.videomae("B"), MaskConfig("tube", 0.9)),
    "VideoMAE V2": (ModelConfig.videomae("B"), MaskConfig("tube", 0.9, None, "running-cell", 0.5)),
    "popular account, 32 frames": (
        ModelConfig.videomae("B", num_frames=32),
        MaskConfig("random", 0.9, None, "drop-visible", 0.5),
    ),
}
for name, (size, scheme) in published.items():
    mask = make_mask(scheme, size.grid, batch=2, generator=torch.Generator().manual_seed(0))
    V, Q, M = (index.shape[1] for index in (mask.visible, mask.queries, mask.targets))
    print(f"{name:27} {size.grid.num_tokens} tokens: {V} visible, {Q} queries, {M} targets")

# %% [markdown]
# The masks of this run, on two clips, one picture a step in time, one square a token.
# Orange: the encoder sees it. Blue: a target. Dark: hidden, and the decoder is not asked for it.

# %%
mask = make_mask(
    plan.pretrain.mask, model.grid, batch=2, generator=torch.Generator().manual_seed(seed)
)
t, h, w = model.grid.shape
colours = torch.full((2, t * h * w, 3), 0.25)
rows = torch.arange(2)[:, None]
colours[rows, mask.target_tokens] = torch.tensor([0.0, 0.447, 0.698])
colours[rows, mask.visible] = torch.tensor([0.902, 0.624, 0.0])
maps = colours.view(2, t, h, w, 3).permute(0, 4, 1, 2, 3)  # (clip, colour, t, h, w)
viz.film_strips(
    {"clip 1": maps[0], "clip 2": maps[1]},
    alt="Masks of two clips, one square a token, one picture a step in time. The visible tokens keep "
    "their places over time; the targets around them change from step to step.",
    grid=1,
)
V, Q, M = (index.shape[1] for index in (mask.visible, mask.queries, mask.targets))
print(f"{V} visible, {Q} queries, {M} targets")

# %% [markdown]
# ## Pre-training
#
# Each step: embed the visible tokens, run the encoder on them, add mask tokens at the queries,
# run the decoder, compare its pixels with the targets. The loss is their mean squared error.
#
# In the recipe `cpu` the targets are *normalised*, as published: each tubelet has mean 0 and variance 1. So a model that knows nothing but the mean of each tubelet has a
# loss of about 1, and everything below is structure that it has predicted.

# %%
trained = train.pretrain(
    plan.pretrain,
    run / "pretrain",
    resume=resume,
    source=sources.train,
    progress=viz.LiveCurve(alt="Pre-training loss over steps, falling, on a logarithmic axis."),
)
print(f"{trained.records[-1].step} steps, last loss {trained.records[-1].loss:.4f}")
print(
    f"{trained.cost['minutes']:.1f} minutes, {trained.cost['clips_per_second']:,.0f} clips per second"
)

# %% [markdown]
# ## Reconstructions
#
# Videos that the model has never seen, with all hidden tokens asked for.
# *Predicted* shows the hidden tokens only; *pasted* puts them beside what was visible. With normalised targets, the brightness and the contrast
# of each tubelet are put back from the original: only the structure inside a tubelet is the model's work.

# %% tags=["picture-reconstruction"]
autoencoder = trained.model
ask_all = plan.pretrain.mask.replace(decoder_mask_type="all")
clips = torch.stack(list(shown.values()))
mask = make_mask(ask_all, model.grid, len(clips), torch.Generator().manual_seed(seed + 1))
seen = autoencoder.reconstruct(clips, mask)
for i, name in enumerate(list(shown)[:2]):
    strips = {
        "original": clips[i],
        "masked": seen.masked[i],
        "predicted": seen.predicted[i],
        "pasted": seen.pasted[i],
    }
    viz.film_strips(
        strips,
        alt=f"A test video of class {name} in four rows: original, masked (hidden tokens grey), "
        "predicted by the model, and both pasted together.",
    )
viz.player(
    strips, alt=f"The same playing: a video of class {name}, original, masked, predicted, pasted."
)

# %% [markdown]
# How good are they? The mean squared error on the targets themselves, which do not flatter, beside the best answer that is the
# same for every pixel of a clip.

# %%
test = next(ordered_batches(sources.test, sampling, batch=64)).clips.cpu()
mask = make_mask(ask_all, model.grid, len(test), torch.Generator().manual_seed(seed + 2))
targets = mae.pixel_targets(test, mask, model)  # (B, M, P)
with torch.inference_mode():
    predicted = autoencoder(test, mask)
errors = {
    "the model": (predicted - targets).square().mean(),
    "the mean": (targets.mean((1, 2), keepdim=True) - targets).square().mean(),
}
viz.table(
    [{"answer": name, "mean squared error": f"{value:.4f}"} for name, value in errors.items()]
)

# %% [markdown]
# ## Fine-tuning with few labels
#
# The classifier is the encoder, the mean of its tokens, a norm and one linear layer. It is trained
# twice with the same budget: from the pre-trained encoder, and from scratch. Layer decay protects
# what lower layers have learned, so the classifier from scratch does without it.
#
# A comparison is fair only if each start gets the learning rate that suits it. Both search the same
# multiples of the recipe's, with a draw of labels of their own, and are judged by training videos
# that nothing else uses: the *validation* videos (驗證). The test videos play no part.

# %%
count = len(sources.train.videos)
held_out = min(500, count // 4)
known = Subset(sources.train, range(held_out, count))
validation = train.Sources(sources.classes, known, Subset(sources.train, range(held_out)))
testing = train.Sources(sources.classes, known, sources.test)
few = plan.finetune
starts = {
    "pre-trained": (few, autoencoder.encoder),
    "from scratch": (few.replace(optim=few.optim.replace(layer_decay=1.0)), None),
}


def at_rate(config, factor, draw):
    """The configuration with `factor` times its learning rate, and a draw of the labels."""
    return config.replace(optim=config.optim.replace(lr=factor * config.optim.lr), seed=seed + draw)


searched = {name: {} for name in starts}
for name, (config, encoder) in starts.items():
    for factor in rates:
        tried = train.finetune(at_rate(config, factor, draws), validation, encoder)
        searched[name][factor] = tried.test.accuracy
best = {name: max(found, key=found.get) for name, found in searched.items()}
viz.table(
    [
        {"start": name}
        | {f"{factor * few.optim.lr:g}": f"{found[factor]:.1f} %" for factor in rates}
        | {"chosen": f"{best[name] * few.optim.lr:g}"}
        for name, found in searched.items()
    ],
    caption=f"Accuracy on {held_out} validation videos, by learning rate.",
)

# %% [markdown]
# Few labels are few, so which videos carry them matters. The cell draws them several times; both
# starts get the same ones, and the differences are taken draw by draw.

# %%
results = {name: [] for name in starts}
for draw in range(draws):
    for name, (config, encoder) in starts.items():
        chosen = at_rate(config, best[name], draw)
        results[name].append(train.finetune(chosen, testing, encoder))
accuracy = {name: [result.test.accuracy for result in runs] for name, runs in results.items()}
for name, values in accuracy.items():
    print(f"{name:12}", "  ".join(f"{value:5.1f} %" for value in values))
gain = paired(accuracy["pre-trained"], accuracy["from scratch"])
print(f"pre-training gains {gain} with {few.labels_per_class} labels per class")

# %%
viz.curves(
    {name: runs[0].records for name, runs in results.items()},
    alt="Fine-tuning loss over steps, one line for the pre-trained classifier and one from scratch.",
)

# %% [markdown]
# ## Is it really motion?
#
# Two classifiers that are denied the motion, with *all* training labels, in training and in test:
#
# - **single frame**: the middle frame, repeated;
# - **shuffled frames**: the frames of the clip in random order.
#
# Both start from the pre-trained encoder, so they are as strong as they can be.
# The single frame should stay at chance. Shuffled frames still show *along which line* things move,
# but not which way. On the motion set that allows 50 % in all, and 50 % between opposite directions.

# %%
everything = at_rate(few, best["pre-trained"], 0).replace(labels_per_class=None)
views = {"single frame, all labels": "single-frame", "shuffled frames, all labels": "shuffled"}
baselines = {
    name: train.finetune(everything.replace(view=view), testing, autoencoder.encoder)
    for name, view in views.items()
}
for name, result in baselines.items():
    print(f"{name:28} {result.test.accuracy:5.1f} %   (chance {chance:.1f} %)")
if data == "motion":  # each class has an opposite: its frames in reverse
    opposites = torch.tensor(spec.opposites)
    for name, result in {"video, few labels": results["pre-trained"][0], **baselines}.items():
        logits, labels = result.test.logits, result.test.labels[:, None]
        right = logits.gather(1, labels) > logits.gather(1, opposites[labels])
        print(f"{name:28} {100 * right.double().mean():5.1f} %   against the opposite direction")

# %% [markdown]
# ## Linear probe
#
# A *linear probe* (線性探測) leaves the encoder frozen and fits one linear classifier on its features.
# It says what the encoder knows before any fine-tuning. Random weights are the floor: how much a linear layer finds in features that were
# never trained.

# %%
torch.manual_seed(seed)
encoders = {"pre-trained": autoencoder.encoder, "random weights": vit.VisionTransformer(model)}
probe = {}
for name, encoder in encoders.items():
    learned, asked = (
        train.pooled_features(encoder, s, sampling, device=device) for s in (known, sources.test)
    )
    probe[f"{name}, all labels"] = [train.linear_probe(learned, asked)]
    probe[f"{name}, few labels"] = []
    for draw in range(draws):
        chosen = few_labels(known.videos, few.labels_per_class, sources.classes, seed + draw)
        probe[f"{name}, few labels"].append(train.linear_probe([x[chosen] for x in learned], asked))
autoencoder.cpu()
for name, values in probe.items():
    print(f"{name:28}", "  ".join(f"{value:5.1f} %" for value in values))

# %% [markdown]
# ## Report

# %% tags=["picture-results"]
rows = {
    f"{name}, {few.labels_per_class} labels per class": values for name, values in accuracy.items()
}
rows |= {name: [result.test.accuracy] for name, result in baselines.items()}
rows |= {f"linear probe: {name}": values for name, values in probe.items()}
viz.bars(
    rows,
    alt="Test accuracy in percent: "
    + "; ".join(f"{name} {sum(values) / len(values):.1f}" for name, values in rows.items())
    + f"; chance {chance:.1f}.",
    chance=chance,
)

# %% [markdown]
# Which classes are confused? Rows are the truth, columns the prediction, for the first draw.

# %%
tested = results["pre-trained"][0]
if len(sources.classes) <= 40:
    viz.confusion(
        tested.test.confusion(),
        sources.classes,
        alt=f"Confusion matrix of the pre-trained classifier over {len(sources.classes)} classes; "
        f"{tested.test.accuracy:.1f} percent of the test videos lie on its diagonal.",
    )

# %% tags=["timing"]
stages = {
    "pre-training": trained.cost,
    "fine-tuning, one run": results["pre-trained"][0].cost,
    "from scratch, one run": results["from scratch"][0].cost,
}
viz.table(
    [
        {
            "stage": name,
            "device": paid["device"],
            "minutes": paid["minutes"],
            "clips per second": f"{paid['clips_per_second']:,.0f}",
            "peak memory, GB": paid["peak_memory_gb"],
        }
        for name, paid in stages.items()
    ],
    caption="What it cost. Memory on a CPU is that of the whole process.",
)

# %% [markdown]
# ## More seeds, more labels
#
# One pre-training may be lucky. `python tests/bench/evidence.py cpu` pre-trains with other seeds too, and fine-tunes
# with 10, 40 and all labels per class. That takes longer than this notebook, so its results are kept
# in `data/evidence/` and drawn here, with the commit that they were made from.

# %%
kept = Path("data/evidence") / f"{Path(recipe).stem}.json"
evidence = json.loads(kept.read_text()) if data == "motion" and kept.exists() else {}
by_labels = {}
for key, row in evidence.items():
    by_labels.setdefault(key.split(", ", 1)[1], []).append(row["accuracy"])
order = ("10 labels", "40 labels", "all labels")
rows = {k: by_labels[k] for start in order for k in sorted(by_labels) if k.startswith(start)}
if rows:
    commits = {str(row["made"]["commit"])[:7] for row in evidence.values()}
    print(f"{kept.as_posix()}, from commit {', '.join(sorted(commits))}")
    for labels in (f"{start} a class" for start in order):
        pairs = zip(rows[f"{labels}, pre-trained"], rows[f"{labels}, scratch"], strict=False)
        ahead = [f"{with_it - without:+.1f}" for with_it, without in pairs]
        print(f"{labels}: pre-trained ahead by {', '.join(ahead)} points, a seed each")
    viz.bars(
        rows,
        alt="Test accuracy in percent, one dot a seed: "
        + "; ".join(f"{name} {sum(values) / len(values):.1f}" for name, values in rows.items())
        + f"; chance {chance:.1f}.",
        chance=chance,
    )
else:
    print(f"no results of other seeds are kept for this recipe ({kept.as_posix()})")

# %% [markdown]
# ## The weights
#
# Everything is in the folder of the run. Weights are safetensors files: loading them runs no code.
# A classifier that was tuned otherwise, in an earlier run of this notebook, keeps its folder.
# The same weights also go out with the official names, and as a folder that Hugging Face's
# `transformers` opens.

# %%
folder = train.free_folder(run / "classifier", few)
train.save_classifier(tested.model, sources.classes, few, folder)
weights.save(tested.model, run / "official" / f"{folder.name}.pth", to="official")
weights.save(autoencoder, run / "huggingface", to="hf")
for path in sorted(run.glob("*/*")):
    if path.is_file():
        print(f"{path.relative_to(run).as_posix():36} {path.stat().st_size / 1e3:8,.0f} kB")

# %% [markdown]
# Three lines use them on a video file.

# %%
classifier = vmae.load(folder)
for video in videos.test[:4]:
    (name, share), *_ = predict(classifier, video.path)
    print(
        f"{video.path.name}: {name} ({100 * share:.0f} %), labelled {classifier.class_names[video.label]}"
    )

# %%
again = train.evaluate(classifier, sources.test, sampling, device=device)
assert abs(again.accuracy - tested.test.accuracy) < 0.5
print(f"loaded from disk: {again.accuracy:.1f} % of {len(again.labels):,} test videos")

# %% [markdown]
# ## What was published, what was run here
#
# | published | where | here (cpu recipe) | why smaller |
# |---|---|---|---|
# | clips of 16x224x224, tubelets of 2x16x16, 1568 tokens | V1, scripts and code | 8x16x16, tubelets of 2x4x4, 64 tokens | two CPU cores |
# | ViT-B: 12 blocks of 768 | V1, code | 4 blocks of 64 | the same |
# | decoder: 4 blocks of half the encoder's width | V1, scripts and code | 2 blocks of 48 | the same |
# | tube masking, 90 % | V1, section 3.3 and table 1b | tube, 75 % | 16 positions: at 90 % two would stay |
# | dual masking, running cell, 50 % | V2, code | the same | |
# | targets normalised for each tubelet | V1, code | the same | |
# | 800 epochs, batch 1024 to 2048 | V1, table 9; scripts | see the recipe | minutes instead of days |
# | fine-tuning with layer decay, mixup, cutmix, RandAugment | V1, scripts | label smoothing only | no augmentation may turn a direction |
#
# ## Projects
#
# Three experiments, each of which ends in a page like this one. Choose one, write down what you expect *before* you run it, and report what came
# out, also if it is nothing.
#
# **1. Test a claim.** Take a sentence of a paper, such as "dual masking costs no accuracy" or "90 % is better than 75 %", and test it: two
# settings that differ in one field, at least three seeds, everything else alike. Two parameters of this notebook are enough
# (`recipe`, the path of your own YAML file, and `seed`); `paired` from this lesson gives the interval.
#
# **2. A mask of your own.** Ten lines, plugged in by name, then pre-train with `mask_type: block`:
#
# ```python
# from vmae.masking import register_mask
#
# def block(grid, ratio, batch, generator, device):
#     """One visible square per clip, the same at every time step."""
#     t, h, w = grid.shape
#     side = max(1, round(((1 - ratio) * h * w) ** 0.5))
#     row = torch.randint(h - side + 1, (batch, 1, 1, 1), generator=generator, device=device)
#     column = torch.randint(w - side + 1, (batch, 1, 1, 1), generator=generator, device=device)
#     step, y, x = (torch.arange(n, device=device) for n in (t, side, side))
#     index = step[:, None, None] * h * w + (row + y[:, None]) * w + (column + x)  # (B, t, side, side)
#     return index.flatten(1)
#
# register_mask("block", block)
# ```
#
# What must a model do to fill in the rest, and does that teach what the label asks? Put a copier beside it (lesson 05).
#
# **3. Your own videos.** A folder with one sub-folder per class is enough: `vmae scan` says what is wrong with it, the recipe `own` starts from published weights (README,
# lesson 07), and `vmae report` writes the page. Or set `data` above to that folder, to see how far a model gets that has seen nothing else.
#
# | a good report | its mark |
# |---|---|
# | states the question, and what would count as an answer, before the run | 2 |
# | changes one thing; model, budget and data are alike; each arm has searched its learning rate | 2 |
# | has a floor (random weights) and a baseline (from scratch, a copier, a single frame), and shows that both are trained to their plateau | 2 |
# | gives every number with its spread over at least three seeds, paired where they share one; says "inconclusive" where the interval includes 0 | 2 |
# | shows failures as well as successes, and can be run again with one command | 2 |
#
# ## Other runs
#
# - On a GPU: set `recipe = "gpu"`; `vmae plan gpu --device h100` says what it takes.
# - On film: set `data = "film"`. The labels are forward and backward; do not expect much from 16 pixels.
# - From a terminal: `vmae pretrain cpu --out runs/mine`, then `vmae finetune cpu --out runs/mine/classifier --encoder runs/mine/model.safetensors`.
