"""Which images a run reads, and what happens to them on their way to the model. Every default lives here, once."""

from dataclasses import dataclass

from vit_attn.spec.setting import setting

EMBEDDED = "embedded"  # data_dir: the data sets inside the package


@dataclass(frozen=True)
class SetSpec:
    """One split of a data set. In an evaluator, what is None is as config.data has it."""

    name: str | None = None
    version: str | None = None
    data_dir: str | None = None
    split: str | None = None  # None: config.eval.split
    image_key: str | None = None
    label_key: str | None = None
    max_labels: int | None = setting(None, at_least=1)


@dataclass(frozen=True)
class DataSpec:
    """The training images: a data set prepared by TFDS, or a folder of image files, and their augmentation."""

    name: str = "fashion_mnist_12k"  # of TFDS; or a path with a slash in front: a folder SPLIT/CLASS/NAME.jpg
    version: str | None = None  # None: the newest one that is prepared
    data_dir: str | None = setting(EMBEDDED, free=True)  # local or gs://; None: $TFDS_DATA_DIR or ~/tensorflow_datasets
    train_split: str = "train"
    image_key: str = "image"
    label_key: str = "label"
    max_labels: int = setting(1, at_least=1)  # of one image
    seed: int = setting(0, at_least=0, below=2**32)  # order and augmentation; the same for every member of a pack

    crop: str = setting("resize", choices=("resize", "inception"))  # on the host: the whole image to the square, or a random
    # window of at least crop_min_area of the image and of a ratio between 3/4 and 4/3
    crop_min_area: float = setting(0.05, above=0, at_most=1)
    # On the device, in this order; all off where 0.
    crop_padding: int = setting(0, at_least=0)  # pixels of reflection around the image before a random crop
    flip: bool = False  # left-right, with probability 1/2
    randaug_layers: int = setting(0, at_least=0)  # RandAugment (arXiv:1909.13719): operations an image, out of 16
    randaug_magnitude: float = setting(10.0, at_least=0)
    color_jitter: float = setting(0.0, at_least=0)  # brightness, contrast and saturation in 1 - x ... 1 + x
    mixup: float = setting(0.0, at_least=0)  # p of Beta(p, p), one lambda a step (arXiv:1710.09412)
    cutmix: float = setting(0.0, at_least=0)  # a of Beta(a, a) (arXiv:1905.04899); with mixup, one of the two a step
    random_erasing: float = setting(0.0, at_least=0, at_most=1)  # probability (arXiv:1708.04896)

    workers: int = setting(0, free=True, at_least=-1)  # processes that decode; 0: threads of this process; -1: one a CPU core
    threads: int = setting(2, free=True, at_least=1)  # that decode, where there are no processes for it
    prefetch_batches: int = setting(
        4, free=True, at_least=1
    )  # read ahead, but not more than prefetch_bytes (though always one)
    prefetch_bytes: int = setting(2**32, free=True, at_least=1)  # of training; evaluation takes as much again while it lasts
    stream_window: int = setting(8192, at_least=1)  # examples among which a set without random access is shuffled
    on_bad_image: str = setting("fail", free=True, choices=("fail", "skip"))  # skip: the next good image takes its place
    max_bad_share: float = setting(0.001, free=True, at_least=0, at_most=1)  # of the images read, above which skip fails too
    timeout_seconds: float = setting(300.0, free=True, above=0)  # how long reading is tried again, or waited for

    def split(self, split: str) -> SetSpec:
        """A split of this data set."""
        return SetSpec(self.name, self.version, self.data_dir, split, self.image_key, self.label_key, self.max_labels)
