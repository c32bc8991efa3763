"""Public sets and official lists, each created in its published layout; frame folders."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vmae.data import SetError, Video, VideoError, VideoSet, load_set, read_frames, require_labels


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(folder: Path, **files: str) -> Path:
    """Write lists; the argument `train_csv` becomes the file train.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def rows(videos: VideoSet, split: str, top: Path) -> list[tuple[str, int]]:
    return [(v.path.relative_to(top).as_posix(), v.label) for v in videos.split(split)]


# ---- VideoMAE's lists ----------------------------------------------------------------------------


def test_v1_lists_with_every_kind_of_path_and_encoding(tmp_path):
    elsewhere = tmp_path / "else" / "e.mp4"
    text = f'a.mp4 0\r\nsub\\b.mp4  1\r\nmy clips/c d.mp4\t1\r\n"f 2.mp4" 0\r\n{elsewhere} air drumming'
    folder = write(
        tmp_path / "set", val_csv="v.mp4 0\nw.mp4 1\n", classes_txt="run\nair drumming\n"
    )
    (folder / "train.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    videos = load_set(folder)
    assert videos.train[-1] == Video(elsewhere, 1)
    names = [("a.mp4", 0), ("sub/b.mp4", 1), ("my clips/c d.mp4", 1), ("f 2.mp4", 0)]
    assert [(v.path.relative_to(folder).as_posix(), v.label) for v in videos.train[:4]] == names
    (folder / "train.csv").write_text(text, encoding="utf-16")
    assert load_set(folder).train == videos.train, "PowerShell writes UTF-16"


def test_classes_without_a_list_of_names_are_named_by_numbers(tmp_path):
    folder = write(tmp_path, train_csv="a.mp4 0\nb.mp4 2\nc.mp4 1\n", test_csv="d.mp4 2\n")
    assert load_set(folder).classes == ("0", "1", "2")
    write(tmp_path, train_csv="a.mp4 0\nb.mp4 9999999\n")
    with pytest.raises(SetError, match="labels go up to 9999999, but only 3 different"):
        load_set(folder)
    write(tmp_path, train_csv="a.mp4 0\nb.mp4 run\n")
    with pytest.raises(
        SetError, match=r"train.csv line 2: .*unknown class 'run'; add a classes.txt"
    ):
        load_set(folder)


def test_v2_lists_with_a_root_and_frame_folders(tmp_path):
    folder = write(
        tmp_path / "lists",
        train_csv="k400/a.mp4 0\nssv2/78687 38 1\nssv2/2 nine 40 0\n",
        val_csv="ssv2/5 12 1\n",
    )
    videos = load_set(folder, root=tmp_path / "disk")
    disk = tmp_path / "disk"
    assert videos.train == (
        Video(disk / "k400/a.mp4", 0),
        Video(disk / "ssv2/78687", 1, first=1, count=38),
        Video(disk / "ssv2/2 nine", 0, first=1, count=40),
    )
    assert videos.test == (Video(disk / "ssv2/5", 1, first=1, count=12),)


def test_a_list_file_is_for_pretraining_and_has_no_labels(tmp_path):
    text = "k/a.mp4 0 -1\nava/x 300 64\nv1.mp4 17\nmy plain.mp4\nclip.mpg 0 -1\n"
    path = write(tmp_path, hybrid_csv=text) / "hybrid.csv"
    videos = load_set(path, root="/disk")
    assert videos.train == (
        Video(Path("/disk/k/a.mp4"), -1),
        Video(Path("/disk/ava/x"), -1, first=300, count=64),
        Video(Path("/disk/v1.mp4"), -1),
        Video(Path("/disk/my plain.mp4"), -1),
        Video(Path("/disk/clip.mpg"), -1),
    )
    assert (videos.classes, videos.test) == ((), ())
    with pytest.raises(
        SetError, match="5 videos have no label .* can be used only for pre-training"
    ):
        require_labels(videos)
    write(tmp_path, hybrid_csv="a.mp4 0 -1\nx 1 0\ny\n")
    with pytest.raises(SetError, match=r"(?s)2 lines.*hybrid.csv line 2.*hybrid.csv line 3"):
        load_set(path)


def test_unlabelled_rows_and_other_invalid_lines_are_all_reported(tmp_path):
    train = "a.mp4 0 -1\nb.mp4 -1\nx 0 1\nc.mp4 1\n" + "bad.mp4 99\n" * 60
    folder = write(tmp_path, classes_txt="run\njump", train_csv=train, test_csv="\nt.mp4 -1\n")
    with pytest.raises(SetError) as error:
        load_set(folder)
    assert len(error.value.problems) == 64
    for words in ("train.csv line 1", "train.csv line 2", "train.csv line 3", "and 14 more"):
        assert words in str(error.value)
    assert "test.csv line 2" in error.value.problems[-1]
    assert "only in a pre-training list" in error.value.problems[-1]


def test_a_comma_before_the_label_is_no_part_of_the_path(tmp_path):
    rows = 'a.mp4,0\na.mp4, 0\n"my clip.mp4", 1\nb.mp4; 1\nfolder, 1\n'
    folder = write(tmp_path, train_csv=rows, test_csv="c.mp4 0\n")
    with pytest.raises(SetError) as error:
        load_set(folder)
    assert len(error.value.problems) == 5
    assert all("expected `path label`, separated by a space" in p for p in error.value.problems)


def test_names_that_are_numbers_are_not_mixed_with_positions(tmp_path):
    """With names 1, 2, 3 and labels 0, 1, 2, the first two classes would be one."""
    rows = "a.mp4 0\nb.mp4 1\nc.mp4 2\n"
    folder = write(tmp_path, classes_txt="1\n2\n3\n", train_csv=rows, test_csv="c.mp4 1\n")
    with pytest.raises(SetError, match="line 1: .* label 0 is not a name in classes.txt, whose"):
        load_set(folder)
    write(tmp_path, train_csv=rows.replace(" 0", " 3"))
    assert [video.label for video in load_set(folder).train] == [2, 0, 1]


def test_a_video_with_two_labels_is_a_warning(tmp_path):
    rows = "a.mp4 0\nb.mp4 1\na.mp4 1\nb.mp4 1\n"
    folder = write(tmp_path, train_csv=rows, test_csv="c.mp4 0\n")
    with pytest.warns(UserWarning, match=r"1 video has several labels: .*a\.mp4'\. Keep one row"):
        load_set(folder)


def test_two_classes_of_one_name_are_an_error(tmp_path):
    """Otherwise splits.csv, which has names, would make them one."""
    folder = write(
        tmp_path,
        classes_txt="run\njump\nrun\n",
        train_csv="a.mp4 0\nb.mp4 2\n",
        test_csv="c.mp4 1\n",
    )
    with pytest.raises(SetError, match=r"classes.txt line 3: 'run' is also in line 1; give each"):
        load_set(folder)


@pytest.mark.skipif("__import__('os').name == 'nt'")
def test_a_windows_drive_and_another_encoding_are_reported(tmp_path):
    folder = write(tmp_path, train_csv="C:\\videos\\a.mp4 0\nb.mp4 1\n", test_csv="c.mp4 0")
    with pytest.raises(SetError, match="line 1: .*Windows path with a drive letter"):
        load_set(folder)
    (folder / "train.csv").write_bytes("b.mp4 1\nmüde.mp4 0\n".encode("latin-1"))
    with pytest.raises(SetError, match="train.csv line 2: the text is not valid UTF-8"):
        load_set(folder)
    (folder / "classes.txt").write_bytes("gehen\nmüde\n".encode("latin-1"))
    with pytest.raises(SetError, match="classes.txt line 2: the text is not valid UTF-8"):
        load_set(folder)


def test_a_test_only_class_is_an_error_and_a_video_in_both_splits_a_warning(tmp_path):
    folder = write(
        tmp_path, classes_txt="a\nb\nc", train_csv="1.mp4 0\n2.mp4 1\n", test_csv="3.mp4 2"
    )
    with pytest.raises(SetError, match="classes 'c' appear only in the test list"):
        load_set(folder)
    write(tmp_path, test_csv="2.mp4 1\n4.mp4 0\n")
    with pytest.warns(UserWarning, match=r"train and test share 1 video, .*2\.mp4"):
        load_set(folder)
    write(tmp_path, classes_txt="a", train_csv="1.mp4 0", test_csv="2.mp4 0")
    with pytest.raises(SetError, match="at least 2 classes, but the dataset has 1 "):
        require_labels(load_set(folder))
    write(tmp_path, train_csv="\n")
    with pytest.raises(SetError, match="train.csv: the list file is empty"):
        load_set(folder)
    (tmp_path / "test.csv").unlink()
    with pytest.raises(SetError, match="for pre-training only, pass the path of the training list"):
        load_set(folder)


# ---- public sets ---------------------------------------------------------------------------------


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_bytes(b"1 ApplyEyeMakeup\r\n2 YoYo\r\n")
    for n in (1, 2, 3):
        eye, yo = f"ApplyEyeMakeup/v_ApplyEyeMakeup_g{n:02}_c01.avi", f"YoYo/v_YoYo_g{n:02}_c01.avi"
        train = eye.replace("_g0", "_g1"), yo.replace("_g0", "_g1")
        (lists / f"trainlist{n:02}.txt").write_bytes(f"{train[0]} 1\r\n{train[1]} 2\r\n".encode())
        (lists / f"testlist{n:02}.txt").write_bytes(f"{eye}\r\n{yo}\r\n".encode())
    touch(tmp_path, "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g11_c01.avi")
    return tmp_path


def test_ucf101(ucf):
    videos = load_set(ucf)
    assert videos.classes == ("ApplyEyeMakeup", "YoYo")
    top = ucf / "UCF-101"
    assert rows(videos, "train", top) == [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g11_c01.avi", 0),
        ("YoYo/v_YoYo_g11_c01.avi", 1),
    ]
    assert rows(load_set(ucf, split=3), "test", top)[1] == ("YoYo/v_YoYo_g03_c01.avi", 1)
    (top / "ApplyEyeMakeup/v_ApplyEyeMakeup_g11_c01.avi").rename(
        top / "ApplyEyeMakeup/v_ApplyEyeMakeup_g11_c01.mp4"
    )
    assert load_set(ucf).train[0].path.suffix == ".mp4", "normalised videos are found"
    with pytest.raises(SetError, match="split is 4"):
        load_set(ucf, split=4)


def test_ucf101_invalid_lines_and_missing_videos(ucf, tmp_path):
    lists = ucf / "ucfTrainTestlist"
    (lists / "trainlist01.txt").write_text("YoYo/a.avi 1\nSwim/b.avi 3\nc.avi 1\nYoYo/d.avi 2\n")
    with pytest.raises(SetError) as error:
        load_set(ucf)
    assert [p.split(": ")[0] for p in error.value.problems] == [
        f"trainlist01.txt line {n}" for n in (1, 2, 3)
    ]
    assert "classInd.txt assigns 'YoYo' the number 2" in error.value.problems[0]
    (ucf / "UCF-101").rename(ucf / "hidden")
    with pytest.raises(SetError, match="no class folder such as 'ApplyEyeMakeup'.*folder as root="):
        load_set(ucf, split=2)
    assert load_set(ucf, split=2, root=ucf / "hidden").train[0].path.is_relative_to(ucf / "hidden")


def test_hmdb51(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    for name in ("brush_hair", "cartwheel"):
        for n in (1, 2, 3):
            text = "".join(f"#{i} {name}.avi {(i + n) % 3} \n" for i in range(6))
            lists.mkdir(exist_ok=True)
            (lists / f"{name}_test_split{n}.txt").write_text(text)
        touch(tmp_path, f"hmdb51_org/{name}/#0 {name}.avi")
    videos = load_set(tmp_path)
    assert videos.classes == ("brush_hair", "cartwheel")
    top = tmp_path / "hmdb51_org"
    assert rows(videos, "train", top)[:2] == [
        ("brush_hair/#0 brush_hair.avi", 0),
        ("brush_hair/#3 brush_hair.avi", 0),
    ]
    assert rows(videos, "test", top)[-1] == ("cartwheel/#4 cartwheel.avi", 1)
    assert rows(load_set(tmp_path, 2), "test", top)[0] == ("brush_hair/#0 brush_hair.avi", 0)
    (lists / "cartwheel_test_split1.txt").write_text("x.avi 3\ny.avi\nz.avi 1\n")
    with pytest.raises(SetError, match=r"(?s)2 lines.*cartwheel_test_split1.txt line 2: 'y.avi'"):
        load_set(tmp_path)


@pytest.mark.parametrize("old", [False, True], ids=["labels/", "old names"])
def test_something_something(tmp_path, old):
    lists = tmp_path if old else tmp_path / "labels"
    lists.mkdir(exist_ok=True)
    prefix = "something-something-v2-" if old else ""

    def dump(name: str, data: object) -> None:
        (lists / f"{prefix}{name}.json").write_text(json.dumps(data))

    names = {"Pushing something": "1", "Holding something next to something": "0"}
    dump("labels", names)
    push = {"id": "12", "label": "pushing cup", "template": "Pushing [something]"}
    hold = {"id": "7", "label": "h", "template": "Holding [something] next to [something]"}
    dump("train", [push, hold])
    dump("validation", [{**hold, "id": "30"}])
    touch(tmp_path / "20bn-something-something-v2", "12.webm", "30.mp4")
    videos = load_set(tmp_path)
    assert videos.classes == ("Holding something next to something", "Pushing something")
    top = tmp_path / "20bn-something-something-v2"
    assert rows(videos, "train", top) == [("12.webm", 1), ("7.webm", 0)]
    assert rows(videos, "test", top) == [("30.mp4", 0)], "the suffix is the file's, not the list's"
    if lists != tmp_path:  # the folder above the lists, given as root
        (tmp_path / "7.webm").touch()
        found = load_set(lists, root=tmp_path)
        assert tmp_path / "7.webm" in {video.path for video in found.train}
    with pytest.raises(SetError, match="only one split"):
        load_set(tmp_path, split=1)
    dump("train", [push, {"id": "5"}, {**hold, "template": "Eating [something]"}])
    with pytest.raises(SetError) as error:
        load_set(tmp_path)
    assert "train.json entry 2" in error.value.problems[0]
    assert "entry 3 (id 7): " in error.value.problems[1]
    assert "labels.json has no 'Eating something'" in error.value.problems[1]
    (lists / f"{prefix}train.json").write_text("[\n{,\n")
    with pytest.raises(SetError, match=r"train.json line 2: invalid JSON"):
        load_set(tmp_path)


@pytest.mark.parametrize("place", ["", "annotations"])
def test_kinetics(tmp_path, place):
    lists = tmp_path / place
    head = "label,youtube_id,time_start,time_end,split\n"
    files = {
        "train": 'abseiling,-abc,10,20,train\n"play, toss",xyz_1,0,10,train\n',
        "val": "abseiling,def,140,150,val\n",
    }
    lists.mkdir(exist_ok=True)
    for name, text in files.items():
        (lists / f"{name}.csv").write_text(head + text)
    touch(tmp_path, "train/abseiling/-abc_000010_000020.mp4", "val/def_000140_000150.mkv")
    videos = load_set(tmp_path)
    assert videos.classes == ("abseiling", "play, toss")
    assert rows(videos, "train", tmp_path) == [
        ("train/abseiling/-abc_000010_000020.mp4", 0),
        ("play, toss/xyz_1_000000_000010.mp4", 1),
    ]
    assert rows(videos, "test", tmp_path) == [("val/def_000140_000150.mkv", 0)]
    (lists / "train.csv").write_text(
        head + "a,b,c,20,train\nabseiling,b,1\nabseiling,ok,1,2,train\n"
    )
    with pytest.raises(SetError, match=r"(?s)2 lines.*train.csv line 2.*train.csv line 3"):
        load_set(tmp_path)
    (lists / "train.csv").write_text(head + files["train"])
    (lists / "val.csv").write_text(head + "swim,def,140,150,val\n")
    with pytest.raises(SetError, match="'swim' need training videos"):
        load_set(tmp_path)
    (lists / "val.csv").unlink()
    with pytest.raises(
        SetError, match="a Kinetics training list, but there is no test list: add val.csv"
    ):
        load_set(tmp_path)


def test_split_and_root_apply_only_to_some_sets(tmp_path):
    touch(tmp_path, *(f"{c}/{i}.mp4" for c in ("Kho Kho", "Kabaddi") for i in range(5)))
    assert load_set(tmp_path).classes == ("Kabaddi", "Kho Kho"), "as BD Sports-10"
    with pytest.raises(SetError, match="split=1 applies only to UCF101"):
        load_set(tmp_path, split=1)
    with pytest.raises(SetError, match="applies only to list files"):
        load_set(tmp_path, root="/disk")


# ---- frame folders -------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images of grey level 10, 20, ...; their names have no leading zeros."""
    folder = tmp_path / "78687"
    folder.mkdir()
    for i in range(1, 13):
        Image.new("RGB", (6, 4), (10 * i,) * 3).save(folder / f"img_{i}.png")
    (folder / "notes.txt").touch()
    return folder


def test_frames_are_ordered_by_their_numbers(images):
    frames = read_frames(images)
    assert frames.shape == (12, 4, 6, 3)
    assert frames.dtype == np.uint8
    assert (frames[:, 0, 0, 0] // 10).tolist() == list(range(1, 13))
    chosen = read_frames(images, lambda n: np.array([n - 1, 0]))
    assert (chosen[:, 0, 0, 0] // 10).tolist() == [12, 1]
    part = read_frames(Video(images, 0, first=4, count=5), lambda n: np.arange(n)[::2])
    assert (part[:, 0, 0, 0] // 10).tolist() == [4, 6, 8]


def test_ssv2_jpegs_are_read(tmp_path):
    for i in (1, 2):
        Image.new("L", (8, 8), 100 * i).save(tmp_path / f"img_{i:05}.jpg")
    assert read_frames(Video(tmp_path, 0, count=2))[:, 0, 0].tolist() == [[100] * 3, [200] * 3]


def test_unreadable_frame_folders_are_reported_with_the_frame(images, tmp_path):
    def fails(video: Path | Video, words: str) -> None:
        with pytest.raises(VideoError, match=f"{re.escape(str(tmp_path))}.*{words}"):
            read_frames(video)

    fails(
        Video(images, 0, count=13),
        "image 13 is missing: the list expects 13 images starting at number 1",
    )
    fails(Video(tmp_path / "none", 0, count=3), "the folder does not exist")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "the folder contains no supported images")
    data = (images / "img_3.png").read_bytes()
    for bad in (b"", b"no image", data[: len(data) // 2]):
        (images / "img_3.png").write_bytes(bad)
        fails(images, "img_3.png could not be read")
    assert len(read_frames(images, lambda n: np.array([0, 5]))) == 2, (
        "only the chosen images are read"
    )
    Image.new("RGB", (4, 4)).save(images / "img_3.png")
    fails(images, "img_3.png is 4x4 pixels, but img_1.png is 6x4: all images .* same size")


def test_folders_of_images_in_class_folders_are_videos(tmp_path):
    touch(tmp_path, *(f"{c}/clip{i}/img_00001.jpg" for c in "ab" for i in range(5)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        videos = load_set(tmp_path)
    assert rows(videos, "test", tmp_path) == [("a/clip4", 0), ("b/clip4", 1)]
