"""Folders and lists as people bring them: every split is read, no clip leaks, no class is invented."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from test_formats import touch, write
from test_passed_over import film

from vmae.cli.main import main
from vmae.data import SetError, VideoSet, load_set, normalize_set, require_labels, scan_set


def names(videos: VideoSet, split: str) -> list[str]:
    return [video.path.name for video in videos.split(split)]


@pytest.fixture
def strict():
    """Warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- clips of one recording ----------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "UCF-101"])
def test_ucf101_without_its_lists_is_split_by_group(tmp_path, strict, inner):
    for label in ("YoYo", "Biking"):
        clips = [f"v_{label}_g{g:02d}_c{c:02d}.avi" for g in range(1, 11) for c in range(1, 4)]
        touch(tmp_path / inner / label, *clips)
    videos = load_set(tmp_path)
    assert videos.classes == ("Biking", "YoYo")
    groups = [{name.split("_c")[0] for name in names(videos, s)} for s in ("train", "test")]
    assert groups[1] == {f"v_{c}_{g}" for c in ("YoYo", "Biking") for g in ("g05", "g10")}
    assert not groups[0] & groups[1]
    assert (len(videos.train), len(videos.test)) == (48, 12)


def test_few_groups_leave_the_last_for_testing(tmp_path, strict):
    for label in ("A", "B"):
        touch(tmp_path / label, *(f"v_{label}_g{g}_c{c}.avi" for g in "12" for c in "123456"))
    assert {name.split("_c")[0] for name in names(load_set(tmp_path), "test")} == {
        "v_A_g2",
        "v_B_g2",
    }


def test_clips_of_one_recording_in_train_and_test_are_a_warning(tmp_path):
    for match in range(4):
        touch(tmp_path / "goal", *(f"match{match}_clip{i:02d}.mp4" for i in range(5)))
        touch(tmp_path / "foul", *(f"match {match} - {i:02d}.mp4" for i in range(5)))
    with pytest.warns(UserWarning, match="8 of 8 test videos are cut from the same recordings"):
        load_set(tmp_path)
    for split, groups, clips in (("train", (1, 2), (1, 2)), ("test", (2, 3), (3, 4))):
        rows = "".join(f"v_a_g0{g}_c0{c}.avi {g % 2}\n" for g in groups for c in clips)
        write(tmp_path / "lists", **{f"{split}_csv": rows})
    with pytest.warns(UserWarning, match="2 of 4 test videos are cut from the same.*v_a_g02_c03"):
        load_set(tmp_path / "lists")


def test_lists_of_two_versions_of_kinetics_share_recordings(tmp_path):
    """The published lists do not; a test list of another version may cut the same recording elsewhere."""
    head = "label,youtube_id,time_start,time_end\n"
    rows = [
        f"{label},{label}-{i}_x,{10 * i},{10 * i + 10}" for label in ("a", "b") for i in range(3)
    ]
    train, test = rows[:2] + rows[3:5], [rows[2], rows[5]]
    touch(tmp_path / "videos", "a-0_x_000000_000010.mp4")
    lists = {"train_csv": head + "\n".join(train), "val_csv": head + "\n".join(test)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_set(write(tmp_path, **lists))
    write(tmp_path, val_csv=head + "\n".join([*test, "a,a-1_x,95,105"]))
    words = "1 of 3 test videos are cut from the same recordings .*'a-1_x_000095_000105.mp4'"
    with pytest.warns(UserWarning, match=words):
        load_set(tmp_path)


def test_ordinary_names_are_no_recordings(tmp_path, strict):
    for label, name in enumerate(("a", "b")):
        touch(tmp_path / name, *(f"{name}{label}_{i:03d}.mp4" for i in range(6)))
        touch(tmp_path / name, *(f"VID_20240517_12345{i}.mp4" for i in range(6)))
    load_set(tmp_path)


# ---- labels --------------------------------------------------------------------------------------


def test_labels_that_start_at_1_are_a_warning(tmp_path):
    folder = write(tmp_path, train_csv="a.mp4 1\nb.mp4 2\n", test_csv="c.mp4 2\n")
    with pytest.warns(UserWarning, match="1 of 3 classes have no videos: '0'. Labels start at 0"):
        assert load_set(folder).classes == ("0", "1", "2")
    write(tmp_path, classes_txt="run\njump\n")
    with pytest.raises(SetError, match="label 2 is not between 0 and 1.* labels start at 0"):
        load_set(folder)
    write(tmp_path, classes_txt="run\njump\nhop\nwalk\n", train_csv="a.mp4 0\nb.mp4 2\n")
    with pytest.warns(UserWarning, match="2 of 4 classes have no videos: 'jump', 'walk'$"):
        load_set(folder)


def test_a_flat_folder_is_for_pretraining(tmp_path, capsys):
    for number in range(3):
        film(tmp_path / "set" / f"{number}.mp4", number)
    (tmp_path / "set" / "notes.txt").touch()
    with pytest.warns(UserWarning, match=r"not part of the set: 1 .*'notes.txt'"):
        videos = load_set(tmp_path / "set")
    assert [video.label for video in videos.train] == [-1, -1, -1]
    assert (videos.classes, videos.test) == ((), ())
    with pytest.raises(
        SetError, match="3 videos have no label .* can be used only for pre-training"
    ):
        require_labels(videos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SetError, match="For pre-training, .* a list file with a row `video 0 -1`"):
        load_set(tmp_path / "empty")


# ---- the folder one level too high ---------------------------------------------------------------

CLASSES = ("conveyor-up", "pan-left", "spin-right")


def test_classes_taken_for_recordings_are_a_warning(tmp_path):
    for name in CLASSES:
        touch(tmp_path / "clips" / name, *(f"{i}.mp4" for i in range(4)))
    touch(tmp_path / "new", *(f"{i}.mp4" for i in range(5)))
    with pytest.warns(UserWarning) as found:
        videos = load_set(tmp_path)
    assert videos.classes == ("clips", "new"), "a layout that is allowed"
    assert [str(one.message) for one in found] == [
        f"{tmp_path}: 'clips' holds videos only in sub-folders ('conveyor-up', 'pan-left', "
        "'spin-right'): they count as recordings of one class; if they are the classes, pass "
        f"{tmp_path / 'clips'}"
    ]
    for number in range(2):
        touch(tmp_path / "more" / str(number), "a.mp4", "deeper/b.mp4")
    with pytest.warns(UserWarning, match=r"pass \S+/clips\. The same holds for 'more'$"):
        load_set(tmp_path)


@pytest.mark.filterwarnings("ignore:.*holds videos only in sub-folders")
def test_recordings_shown_by_sub_folders_are_split_as_a_whole(tmp_path):
    for name in ("a", "b"):
        for person in range(6):
            touch(tmp_path / "six" / name / f"person{person}", "one.mp4", "two.mp4", "three.mp4")
        touch(tmp_path / "two" / name, "monday/1.mp4", "tuesday/1.mp4")
        touch(tmp_path / "one" / name / "videos", *(f"{i}.mp4" for i in range(5)))
    tested = {
        folder: sorted(
            video.path.relative_to(tmp_path / folder).as_posix()
            for video in load_set(tmp_path / folder).test
        )
        for folder in ("six", "two", "one")
    }
    fifth = [f"{name}/person4/{clip}.mp4" for name in "ab" for clip in ("one", "three", "two")]
    assert tested == {
        "six": fifth,
        "two": ["a/tuesday/1.mp4", "b/tuesday/1.mp4"],
        "one": ["a/videos/4.mp4", "b/videos/4.mp4"],  # the clips of a single folder
    }


def test_other_sub_folders_are_no_warning(tmp_path, strict):
    """One level lower, recordings of one clip, splits, lists, folders of images, videos beside them."""
    for name in ("a", "b"):
        touch(
            tmp_path / "single" / name, *(f"{i}/clip.mp4" for i in range(5)), "5/1.mp4", "5/2.mp4"
        )
        touch(tmp_path / "beside" / name, *(f"{i // 2}/{i}.mp4" for i in range(6)), "clip.mp4")
        touch(tmp_path / "images" / name, *(f"{i // 2}/img_{i}.jpg" for i in range(10)))
        for split in ("train", "test"):
            touch(tmp_path / "splits" / split / name, *(f"{i // 2}/{i}.mp4" for i in range(6)))
        touch(tmp_path / "lists" / name, *(f"{i // 2}/{i}.mp4" for i in range(6)))
    write(tmp_path / "lists", train_csv="a/0/0.mp4 0\nb/0/0.mp4 1\n", test_csv="a/1/2.mp4 0\n")
    for name in ("single", "beside", "images", "splits", "lists"):
        load_set(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*holds videos only in sub-folders")
def test_scan_finds_classes_taken_for_recordings(tmp_path, capsys):
    for number, name in enumerate(CLASSES):
        for clip in range(2):
            film(tmp_path / "root" / "clips" / name / f"{clip}.mp4", 2 * number + clip)
    finding = f"{tmp_path / 'root' / 'clips'}: 'conveyor-up', 'pan-left', 'spin-right'"
    for few_classes in (True, False):
        assert main(["scan", str(tmp_path / "root"), "--num-workers", "1"]) == 0
        text = capsys.readouterr().out
        assert (
            "sub-folders: 1 (they hold all videos of a class and count as its recordings: " in text
        )
        assert finding in text and "pass this folder instead" in text
        assert ("a classifier needs at least 2 classes" in text) == few_classes
        assert (f"{tmp_path / 'root'}: only 'clips'" in text) == few_classes
        film(tmp_path / "root" / "new" / "0.mp4", 9)
    assert main(["scan", str(tmp_path / "root" / "clips"), "--num-workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "sub-folders" not in text and "2 classes" not in text


# ---- splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("train,val", [("train", "val"), ("Train", "validation")])
def test_all_three_splits_are_read(tmp_path, strict, train, val):
    for split, count in ((train, 3), (val, 2), ("test", 1)):
        for label in "ab":
            touch(tmp_path / split / label, *(f"{split}{i}.mp4" for i in range(count)))
    videos = load_set(tmp_path)
    assert {name: len(part) for name, part in videos.splits.items()} == {
        "train": 6, "val": 4, "test": 2
    }  # fmt: skip
    write(tmp_path / "lists", train_csv="a.mp4 0\nb.mp4 1\n", val_csv="c.mp4 0", test_csv="d.mp4 1")
    videos = load_set(tmp_path / "lists")
    assert (names(videos, "val"), names(videos, "test")) == (["c.mp4"], ["d.mp4"])


def test_without_a_test_split_the_validation_videos_are_the_test(tmp_path, strict):
    for split in ("train", "val"):
        touch(tmp_path / split, f"a/{split}1.mp4", f"b/{split}2.mp4")
    videos = load_set(tmp_path)
    assert (names(videos, "val"), names(videos, "test")) == ([], ["val1.mp4", "val2.mp4"])


def test_a_test_folder_beside_class_folders_is_no_class(tmp_path):
    for name in ("run", "jump", "test"):
        touch(tmp_path / name, *(f"{i}.mp4" for i in range(5)))
    words = "contains test beside other folders of videos, 'jump', 'run': if these are classes"
    with pytest.raises(SetError, match=words):
        load_set(tmp_path)
    (tmp_path / "test").rename(tmp_path / "train")
    with pytest.raises(SetError, match="contains train beside other folders of videos"):
        load_set(tmp_path)


def test_a_test_split_alone_and_two_of_one_are_errors(tmp_path):
    touch(tmp_path / "test", "a/1.mp4", "b/2.mp4")
    with pytest.raises(SetError, match="contains a test folder, but no train folder"):
        load_set(tmp_path)
    touch(tmp_path / "train", "a/3.mp4", "b/4.mp4")
    touch(tmp_path / "training", "a/5.mp4")
    with pytest.raises(SetError, match="contains train and training: keep one of them"):
        load_set(tmp_path)


# ---- normalize takes what scan takes -------------------------------------------------------------


def test_normalize_keeps_three_splits(tmp_path):
    for number, (split, label) in enumerate((s, c) for s in ("train", "val", "test") for c in "ab"):
        film(tmp_path / "set" / split / label / f"{number}.mp4", number)
    done = normalize_set(tmp_path / "set", tmp_path / "new", workers=1)
    assert {name: len(part) for name, part in load_set(done.folder).splits.items()} == {
        "train": 2, "val": 2, "test": 2
    }  # fmt: skip


@pytest.mark.parametrize("what", ["folder", "list"])
def test_normalize_takes_a_set_without_labels(tmp_path, what, capsys):
    for number in range(3):
        film(tmp_path / "set" / f"{number}.mp4", number)
    source = tmp_path / "set"
    if what == "list":
        rows = "".join(f"{number}.mp4 0 -1\n" for number in range(3))
        source = write(source, all_csv=rows) / "all.csv"
    assert main(["scan", str(source), "--num-workers", "1"]) == 0
    capsys.readouterr()
    assert main(["normalize", str(source), str(tmp_path / "new"), "--num-workers", "1"]) == 0
    new = tmp_path / "new" / "train.csv"
    assert f"{new}: 3 videos written; left out: 0" in capsys.readouterr().out
    videos = load_set(new)
    assert [video.label for video in videos.train] == [-1] * 3
    assert not any(report.problems for report in scan_set(videos, workers=1))


def ucf101(folder: Path) -> Path:
    """Three groups of two classes, in three splits: each leaves another group for testing."""
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("Biking", "YoYo") for g in (1, 2, 3)]
    for number, name in enumerate(names):
        film(folder / "UCF-101" / name.replace(".avi", ".mp4"), number)
    lists = folder / "ucfTrainTestlist"
    write(lists, classInd_txt="1 Biking\n2 YoYo\n")
    for split in (1, 2, 3):
        for kind in ("train", "test"):
            rows = [n for n in names if (f"_g0{split}_" in n) == (kind == "test")]
            write(lists, **{f"{kind}list0{split}_txt": "\n".join(rows)})
    return folder


def test_normalize_keeps_every_split_of_ucf101(tmp_path):
    done = normalize_set(ucf101(tmp_path / "ucf"), tmp_path / "new", workers=1)
    assert done.written == 6
    for split in (None, 1, 2, 3):
        old, new = (load_set(path, split=split) for path in (tmp_path / "ucf", done.folder))
        assert new.classes == old.classes
        for part in ("train", "test"):
            assert names(new, part) == names(old, part)
    with pytest.raises(SetError, match="split 4 needs train4.csv"):
        load_set(done.folder, split=4)
