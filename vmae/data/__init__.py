"""Video data: sets, reading, augmentation, the sets that the course makes, checks of your own videos."""

from vmae.data.augment import (
    mix,
    multi_scale_crop,
    rand_augment,
    random_erase,
    random_flip,
    random_resized_crop,
    view_of,
)
from vmae.data.checking import normalize_set, scan_set
from vmae.data.config import DataConfig
from vmae.data.reading import (
    Batch,
    ClipDataset,
    Sampling,
    Source,
    StepBatches,
    Subset,
    VideoError,
    VideoFiles,
    build_store,
    crop_square,
    open_set,
    open_source,
    open_video,
    ordered_batches,
    read_frames,
    resize_frames,
    train_loader,
)
from vmae.data.sets import (
    SIZES,
    MotionSpec,
    SetError,
    Video,
    VideoSet,
    few_labels,
    load_set,
    require_labels,
    set_name,
    spec_named,
    with_sizes,
)
from vmae.data.writing import write_video
