"""What VTAB's datasets are fetched from: addresses, file names, sizes and checksums, as TFDS 4.9.10 has them registered.

Exactly the addresses that the unmodified builders ask for (svhn's unused `extra` among them); a test holds the table
against the builders. The names under which TFDS looks for them: protocol.md, section 7.1.
"""

import base64
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlparse


@dataclass(frozen=True)
class Archive:
    """A file that a builder downloads. `sha256` and `size` (bytes) are those that TFDS has registered."""

    url: str
    name: str  # the file's own name, under which a person would save it
    size: int
    sha256: str

    @property
    def cached_name(self) -> str:
        """The name under which TFDS keeps it in <downloads>/<builder>/."""
        return cached_name(self.url, self.sha256)


# fmt: off
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "caltech101": (
        Archive("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1",
                "caltech-101.zip", 137_414_764, "331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91"),
    ),
    "cifar100": (
        Archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                "cifar-100-binary.tar.gz", 168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),
    ),
    "dtd": (
        Archive("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
                "dtd-r1.0.1.tar.gz", 625_239_812, "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205"),
    ),
    "oxford-flowers102": (
        Archive("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
                "102flowers.tgz", 344_862_509, "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"),
        Archive("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
                "imagelabels.mat", 502, "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d"),
        Archive("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/setid.mat",
                "setid.mat", 14_989, "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd"),
    ),
    "oxford-iiit-pet": (
        Archive("https://thor.robots.ox.ac.uk/~vgg/data/pets/annotations.tar.gz",
                "annotations.tar.gz", 19_173_078, "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91"),
        Archive("https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
                "images.tar.gz", 791_918_971, "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d"),
    ),
    "sun397": (
        Archive("https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
                "SUN397.tar.gz", 39_077_296_924, "f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec"),
        Archive("https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",
                "Partitions.zip", 18_293_705, "e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9"),
    ),
    "svhn": (
        Archive("http://ufldl.stanford.edu/housenumbers/extra_32x32.mat",
                "extra_32x32.mat", 1_329_278_602, "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3"),
        Archive("http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
                "test_32x32.mat", 64_275_384, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
        Archive("http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
                "train_32x32.mat", 182_040_794, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
    ),
    "patch-camelyon": (
        Archive("https://zenodo.org/record/2546921/files/camelyonpatch_level_2_split_test_x.h5.gz",
                "camelyonpatch_level_2_split_test_x.h5.gz", 800_875_929, "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245"),
        Archive("https://zenodo.org/record/2546921/files/camelyonpatch_level_2_split_test_y.h5.gz",
                "camelyonpatch_level_2_split_test_y.h5.gz", 3_040, "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef"),
        Archive("https://zenodo.org/record/2546921/files/camelyonpatch_level_2_split_train_x.h5.gz",
                "camelyonpatch_level_2_split_train_x.h5.gz", 6_421_353_462, "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c"),
        Archive("https://zenodo.org/record/2546921/files/camelyonpatch_level_2_split_train_y.h5.gz",
                "camelyonpatch_level_2_split_train_y.h5.gz", 21_378, "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a"),
        Archive("https://zenodo.org/record/2546921/files/camelyonpatch_level_2_split_valid_x.h5.gz",
                "camelyonpatch_level_2_split_valid_x.h5.gz", 805_965_320, "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2"),
        Archive("https://zenodo.org/record/2546921/files/camelyonpatch_level_2_split_valid_y.h5.gz",
                "camelyonpatch_level_2_split_valid_y.h5.gz", 3_038, "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c"),
    ),
    "eurosat": (
        Archive("http://madm.dfki.de/files/sentinel/EuroSAT.zip",
                "EuroSAT.zip", 94_280_567, "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd"),
    ),
    "resisc45": (
    ),
    "diabetic-retinopathy": (
        Archive("https://storage.googleapis.com/kaggle-forum-message-attachments/90528/2877/retinopathy_solution.csv",
                "retinopathy_solution.csv", 1_181_257, "a6af3d66804e81887da89b9261bcfb7da4f5bacedb070f1b5db83fa879ab60c9"),
    ),
    "clevr": (
        Archive("https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip",
                "CLEVR_v1.0.zip", 19_021_600_724, "5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1"),
    ),
    "dmlab": (
        Archive("https://storage.googleapis.com/dmlab-vtab/dmlab.tar.gz",
                "dmlab.tar.gz", 3_017_022_789, "638b18fa69a5d61bbc310cd0b87ac603a39f41de0fdb07b6e77de274a24480a4"),
    ),
    "kitti": (
        Archive("https://s3.eu-central-1.amazonaws.com/avg-kitti/data_object_image_2.zip",
                "data_object_image_2.zip", 12_569_945_557, "351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617"),
        Archive("https://s3.eu-central-1.amazonaws.com/avg-kitti/data_object_label_2.zip",
                "data_object_label_2.zip", 5_601_213, "4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880"),
        Archive("https://s3.eu-central-1.amazonaws.com/avg-kitti/devkit_object.zip",
                "devkit_object.zip", 63_794, "ce0b76b69c0c5f89690a0d65b7302bbbdb962a0c7e8aba6efc7050d1b04b4cf1"),
    ),
    "dsprites": (
        Archive("https://github.com/deepmind/dsprites-dataset/blob/master/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5?raw=true",
                "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5", 28_024_106, "729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb"),
    ),
    "smallnorb": (
        Archive("https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-5x01235x9x18x6x2x96x96-testing-cat.mat.gz",
                "smallnorb-5x01235x9x18x6x2x96x96-testing-cat.mat.gz", 347, "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff"),
        Archive("https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz",
                "smallnorb-5x01235x9x18x6x2x96x96-testing-dat.mat.gz", 130_799_817, "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474"),
        Archive("https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz",
                "smallnorb-5x01235x9x18x6x2x96x96-testing-info.mat.gz", 10_428, "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2"),
        Archive("https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-5x46789x9x18x6x2x96x96-training-cat.mat.gz",
                "smallnorb-5x46789x9x18x6x2x96x96-training-cat.mat.gz", 348, "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa"),
        Archive("https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz",
                "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat.gz", 131_896_188, "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873"),
        Archive("https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz",
                "smallnorb-5x46789x9x18x6x2x96x96-training-info.mat.gz", 71_052, "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32"),
    ),
    "imagenet-10pct": (
        Archive("https://raw.githubusercontent.com/google-research/simclr/master/imagenet_subsets/10percent.txt",
                "10percent.txt", 2_603_168, "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091"),
    ),
}
# fmt: on


@dataclass(frozen=True)
class ByHand:
    """A file that only a person can fetch: it needs an account, or lies where no program gets at it."""

    name: str
    size: int  # bytes
    exact: bool  # False: "about"
    source: str


_KAGGLE = "https://www.kaggle.com/c/diabetic-retinopathy-detection/data (needs an account that accepted the rules)"
_IMAGENET = "https://image-net.org/download-images (needs an account)"
BY_HAND: dict[str, tuple[ByHand, ...]] = {
    "resisc45": (
        ByHand("NWPU-RESISC45.rar", 400_000_000, False, "https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs (OneDrive)"),
    ),
    "diabetic-retinopathy": (ByHand("train, test, sample and trainLabels.csv", 88_000_000_000, False, _KAGGLE),),
    "imagenet": (
        ByHand("ILSVRC2012_img_train.tar", 147_897_477_120, True, _IMAGENET),
        ByHand("ILSVRC2012_img_val.tar", 6_744_924_160, True, _IMAGENET),
    ),
}


@dataclass(frozen=True)
class Size:
    """Bytes on the disk; `known` where TFDS' catalogue says them for this version or its predecessor, else estimated."""

    bytes: int
    known: bool = False


# TFDS 4.9.10 brings no dataset_info with sizes. Known ones: its catalogue. The others: counts times the size of one PNG
# or JPEG of that kind, or the archive where the records hold the same files.
RECORDS: dict[str, Size] = {
    "caltech101": Size(140_000_000),
    "cifar100": Size(138_443_489, known=True),
    "dtd": Size(632_000_000),
    "oxford-flowers102": Size(350_000_000),
    "oxford-iiit-pet": Size(812_321_341, known=True),  # of 3.2.0
    "sun397": Size(5_500_000_000),  # at most 120,000 pixels each, JPEG quality 95
    "svhn": Size(1_600_000_000),  # 630,420 PNGs with `extra`
    "patch-camelyon": Size(7_580_617_277, known=True),
    "eurosat": Size(96_000_000),
    "resisc45": Size(427_787_550, known=True),
    "diabetic-retinopathy": Size(3_919_157_658, known=True),
    "clevr": Size(19_000_000_000),
    "dmlab": Size(3_360_811_909, known=True),
    "kitti": Size(6_000_000_000),  # the labelled half of the archive
    "dsprites": Size(500_000_000),  # 737,280 PNGs and 11 numbers each
    "smallnorb": Size(500_000_000),  # 97,200 grey PNGs
    "imagenet": Size(156_000_000_000),  # 167.3 GB with the test split, which is not needed
}

# Bytes that TFDS unpacks to <downloads>/extracted before it writes the records; the others are read as they are.
# Estimated from the archives; PatchCamelyon and smallNORB are raw pixels once unpacked.
EXTRACTED: dict[str, int] = {
    "caltech101": 280_000_000,
    "cifar100": 185_000_000,
    "dtd": 640_000_000,
    "oxford-flowers102": 350_000_000,
    "oxford-iiit-pet": 830_000_000,
    "sun397": 40_000_000,  # the lists alone
    "patch-camelyon": 9_060_000_000,
    "eurosat": 100_000_000,
    "clevr": 19_500_000_000,
    "dmlab": 3_050_000_000,
    "smallnorb": 900_000_000,
}

# Archives in archives: TFDS keeps what it unpacked of them beside the others, under their own name.
INNER_EXTRACTED: dict[str, tuple[str, ...]] = {"caltech101": ("TAR_GZ.101_ObjectCategories.tar.gz",)}

SCHEMES = ("http", "https", "file")  # what download.py can fetch from

_ENDINGS = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tbz2", ".tbz", ".tb2", ".zip", ".gz", ".bz2")
_NAME_LENGTH = 46


def is_address(text: str) -> bool:
    """Whether `text` is an http, https or file address, or the start of one, that can be taken apart."""
    with suppress(ValueError):  # of a bracket that is not closed, and of a port that is no number
        parts = urlparse(text)
        return parts.scheme in SCHEMES and parts.port != 0
    return False


def cached_name(url: str, sha256: str) -> str:
    """The file name that TFDS computes from an address and the registered checksum (its resource.get_dl_fname)."""
    parts = urlparse(url)
    host = parts.netloc
    for prefix in ("www.", "storage.googleapis.com", "drive.google.com", "github.com"):
        host = host.removeprefix(prefix)
    for suffix in (".github.io", ".s3-website.eu-central-1.amazonaws.com", ".amazonaws.com"):
        host = host.removesuffix(suffix)
    name = f"{host}{parts.path}{parts.params}{parts.query}"
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), PurePosixPath(name).suffix)
    name = name[: len(name) - len(ending)]
    name = re.sub(r"[^a-zA-Z0-9.\-_]+", "_", name)
    for word in ("_data_", "_dataset_", "_static_", "_of_", "-of-"):
        name = name.replace(word, "_")
    name = re.sub(r"(?<![0-9])0+(?=[0-9])", "", name.strip("_"))
    room = _NAME_LENGTH - len(ending)
    longest = max(len(part) for part in re.split(r"[.\-_]", name))
    while longest > 4 and len(name) > room:
        longest -= 1
        name = re.sub(r"[^.\-_]{4,}", lambda found, keep=longest: found.group(0)[:keep], name)  # type: ignore[misc]
    checksum = base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode()[:-1]
    return f"{name[:room]}{checksum}{ending}"
