"""The published frame sampling schemes, and testing with several views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vmae.base_config import ConfigError
from vmae.data import (
    ClipDataset,
    DataConfig,
    Sampling,
    Video,
    VideoError,
    VideoFiles,
    crop_square,
    open_source,
    write_video,
)
from vmae.train import mean_of_views


def many(sampling: Sampling, length: int, draws: int = 400) -> np.ndarray:
    return np.stack([sampling.train(length, np.random.default_rng(i)) for i in range(draws)])


def test_dense_training_clips_have_exact_strides_from_every_start():
    index = many(Sampling(16, 4), 80)
    assert (np.diff(index) == 4).all()
    assert set(index[:, 0]) == set(range(80 - 16 * 4 + 1)), "the official code reserves 16·4 frames"
    assert many(Sampling(4, 3), 10)[:, -1].max() == 9


def test_dense_short_videos_are_reported_or_repeat_their_last_frame():
    with pytest.raises(
        VideoError,
        match='9 frames, but a clip of 4 frames with stride 3 covers 10.* short to "repeat"',
    ):
        Sampling(4, 3).test(9)
    repeat = Sampling(4, 3, short="repeat")
    assert repeat.train(9, np.random.default_rng(0)).tolist() == [0, 3, 6, 6]
    assert repeat.test(2, clips=2).tolist() == [[0, 0, 0, 0]] * 2


def published_dense(length: int, frames: int, stride: int, start: int) -> list[int]:
    """V1's and V2's pre-training loop: an index moves on only while the next is below the last frame."""
    indices, index = [], start
    for _ in range(frames):
        indices.append(index)
        if index + stride < length - 1:
            index += stride
    return indices


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_repeated_frames_are_those_of_the_published_loop(stride):
    for length in range(1, 90):
        index = Sampling(16, stride, short="repeat").train(length, np.random.default_rng(length))
        assert index.tolist() == published_dense(length, 16, stride, index[0])
        assert index[0] <= max(length - 16 * stride, 0)
    ends = {(61, 4): [52, 56, 56], (25, 2): [22, 22, 22], (40, 4): [36, 36, 36]}
    for (length, step), last in ends.items():
        clip = Sampling(16, step, short="repeat").train(length, np.random.default_rng(0))
        assert clip[-3:].tolist() == last
    assert Sampling(16, 4).train(61, np.random.default_rng(0))[-1] == 60, "nothing to repeat"


def test_kinetics_training_strides_are_4_4_4_5():
    """Transformers' own test clip, taken with the official code, has the indices 164 168 172 176 181 ..."""
    index = many(Sampling(16, 4, "kinetics"), 300)
    assert set(np.diff(index).ravel()) <= {3, 4, 5}
    spans = index[:, -1] - index[:, 0]
    assert set(spans) == {63}
    one = Sampling(16, 4, "kinetics")._points(164, 228)
    assert one[:5].tolist() == [164, 168, 172, 176, 181]
    short = Sampling(16, 4, "kinetics", short="repeat").train(40, np.random.default_rng(0))
    expected = np.clip(np.linspace(0, 40, 10), 0, 39).astype(int).tolist()
    assert short.tolist() == expected + [39] * 6


def test_kinetics_test_clips_spread_over_every_fourth_frame():
    clips = Sampling(16, 4, "kinetics").test(300, clips=5)
    assert clips.shape == (5, 16)
    assert (np.diff(clips) == 4).all()
    starts = [int(k * (75 - 16) / 4) * 4 for k in range(5)]
    assert clips[:, 0].tolist() == starts
    short = Sampling(16, 4, "kinetics", short="repeat").test(20, clips=2)
    assert short[0].tolist() == [0, 4, 8, 12, 16] + [16] * 11


def test_tsn_takes_one_frame_from_each_segment():
    index = many(Sampling(16, scheme="tsn"), 100)
    assert ((index // 6) == np.arange(16)).all(), "segments of 100 // 16 frames"
    assert len(set(index[:, 3])) == 6
    views = Sampling(16, scheme="tsn").test(64, clips=2)
    both = np.sort(views.ravel())
    assert both.tolist() == sorted([*(np.arange(16) * 4), *(np.arange(16) * 4 + 2)]), (
        "starts and midpoints"
    )
    assert views[0].tolist() == both[::2].tolist()
    few = Sampling(16, scheme="tsn", short="repeat")
    # V2's code; V1's takes frame 0 throughout
    assert few.train(5, np.random.default_rng(0)).tolist() == [0] * 11 + [0, 1, 2, 3, 4]
    assert few.test(5).max() == 4


@pytest.mark.parametrize("scheme", ["dense", "kinetics", "tsn"])
@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 63, 64, 65, 300])
def test_indices_are_always_inside_the_video(scheme, length):
    sampling = Sampling(16, 4, scheme, short="repeat")
    for index in (many(sampling, length, 20), sampling.test(length, 3), sampling.test(length)):
        assert index.shape[-1] == 16
        assert index.min() >= 0
        assert index.max() < length
        assert (np.diff(index) >= 0).all()


def test_crops_run_along_the_long_side():
    wide = np.arange(10)[None, None, :, None] * np.ones((1, 4, 1, 3))
    assert [crop_square(wide, crop=k, crops=3)[0, 0, 0, 0] for k in range(3)] == [0, 3, 6]
    assert crop_square(wide)[0, 0, 0, 0] == 3
    tall = wide.transpose(0, 2, 1, 3)
    assert [crop_square(tall, crop=k, crops=3)[0, 0, 0, 0] for k in range(3)] == [0, 3, 6]
    starts = {crop_square(wide, np.random.default_rng(i))[0, 0, 0, 0] for i in range(200)}
    assert starts == set(range(7))


def test_views_average_their_probabilities():
    logits = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0)) * 3
    expected = logits.softmax(-1).mean(1)
    torch.testing.assert_close(mean_of_views(logits).exp(), expected)


def test_an_invalid_sampling_is_refused():
    with pytest.raises(ConfigError, match="sampling is 'random'"):
        DataConfig(sampling="random")
    with pytest.raises(ConfigError, match="short is 'pad'"):
        DataConfig(short="pad")
    with pytest.raises(ConfigError, match="clips is 0"):
        Sampling(4).test(10, clips=0)


# ---- by seconds ----------------------------------------------------------------------------------

RATES = [15, 24, 25, 30, 50, 60]


@pytest.fixture(scope="module")
def rates(tmp_path_factory) -> list[Video]:
    """The same four seconds at different frame rates: the light grows by 50 levels per second."""
    folder = tmp_path_factory.mktemp("rates")
    for fps in RATES:
        light = 20 + 50 * np.arange(4 * fps) / fps
        frames = np.broadcast_to(light[:, None, None, None], (4 * fps, 32, 32, 3))
        write_video(folder / f"{fps}.mp4", frames.astype(np.uint8), fps=fps)
    return [Video(folder / f"{fps}.mp4", 0) for fps in RATES]


def test_a_clip_in_seconds_shows_the_same_at_every_frame_rate(rates):
    """With one stride, the clip at 15 frames per second shows four times as much as at 60."""
    data = DataConfig(clip_seconds=2.0)
    clips = ClipDataset(VideoFiles(rates, 16), Sampling.of(data, 8), seed=0)
    light = [clips.views(i)[..., 0].mean((0, 2, 3)) for i in range(len(rates))]
    for fps, levels in zip(RATES, light, strict=True):
        wanted = 20 + 50 * (1.125 + 0.25 * np.arange(8))  # centred: a stride before the end is left
        assert np.abs(levels - wanted).max() < 2 * 50 / fps + 2, (fps, levels)  # two frames
    strided = ClipDataset(VideoFiles(rates, 16), Sampling(8, 4), seed=0)
    slow, fast = (np.ptp(strided.views(i)[..., 0].mean((0, 2, 3))) for i in (0, 5))
    assert slow > 3.5 * fast


def test_clips_in_seconds_stay_inside_the_video_and_are_drawn_from_all_of_it(rates):
    for video in rates:
        sampling = Sampling(8, seconds=2.0).of_video(video)
        fps = int(video.path.stem)
        index = many(sampling, 4 * fps)
        assert index.min() == 0
        assert 4 * fps - 1 - sampling.stride <= index.max() <= 4 * fps - 1
        assert (np.ptp(index, axis=1) == int(7 * sampling.stride)).all()
        views = sampling.test(4 * fps, clips=3)
        assert (views[0, 0], views[-1, -1]) == (0, 4 * fps - 1)


def test_a_video_shorter_than_its_seconds_is_left_out_or_repeats_its_last_frame(rates, tmp_path):
    config = DataConfig(clip_seconds=6.0, cache_dir=str(tmp_path), num_workers=0)
    for cache in (True, False):
        source = open_source(config.replace(cache=cache, max_unreadable=1.0), rates[:1], 16, 8)
        clips = ClipDataset(source, Sampling.of(config, 8), seed=0)
        if cache:
            assert len(clips) == 0, "it has 60 frames, and seven strides of 11.25 cover 79"
        else:
            with pytest.raises(VideoError, match=r"60 frames, .* stride 11.2 covers 79"):
                clips.views(0)
    repeat = Sampling.of(config.replace(short="repeat"), 8).of_video(rates[0])
    assert repeat.test(60).tolist() == [[0, 11, 22, 33, 45, 56, 56, 56]]


def test_clip_seconds_excludes_a_stride_and_needs_a_frame_rate(tmp_path):
    for changes in ({"stride": 2}, {"sampling": "tsn"}):
        with pytest.raises(ConfigError, match="clip_seconds is 2.0, but stride is"):
            DataConfig(clip_seconds=2.0, **changes)
    with pytest.raises(ConfigError, match="clip_seconds is 0.0; it must be greater than 0"):
        DataConfig(clip_seconds=0.0)
    with pytest.raises(VideoError, match="a folder of images has no frame rate"):
        Sampling(8, seconds=2.0).of_video(Video(tmp_path, 0))
