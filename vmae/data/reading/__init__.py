"""From videos to batches of clips: decoding, frame sampling, the store of decoded frames."""

from vmae.data.reading.device_store import DeviceStore
from vmae.data.reading.failures import Failures
from vmae.data.reading.loader import (
    Batch,
    ClipDataset,
    StepBatches,
    open_set,
    open_source,
    train_loader,
)
from vmae.data.reading.reader import (
    VideoError,
    VideoReader,
    open_video,
    read_frames,
    resize_frames,
)
from vmae.data.reading.sampling import Sampling, crop_square
from vmae.data.reading.sources import Source, Subset, VideoFiles
from vmae.data.reading.store import FrameStore, StoreError, build_store
from vmae.data.reading.testing import ordered_batches
from vmae.data.reading.workers import WorkerError
