"""Pictures of grey discs with their masks, made as they are needed.

    generator = Shapes(nx=128, ny=128, cnt=10, sigma=20)
    pictures, masks = generator(2)           # pictures 0 and 1: [2, 128, 128, 1] and [2, 128, 128, 2], channels last
    images, masks = channels_first(pictures, masks)    # tensors, as PyTorch takes them: [2, 1, 128, 128] and so on

Picture i of a seed is always the same, whatever was made before it. After the generator of the segmentation tutorial,
section 1.1, and with its distribution: discs of random place, radius and grey on a dark ground, later ones on top,
noise over all.
"""

import numpy as np
import torch
from torch import Tensor


class Shapes:
    """A generator of pictures [B, H, W, C], float32 in [0, 1], and one-hot masks [B, H, W, classes], bool.

    `nx` rows and `ny` columns; `cnt` discs; `sigma` is the noise's deviation, in grey levels of 255. Class 0 is the
    ground, 1 the discs, and with `squares` 2 is `cnt // 2` squares on top of them. The original's radii, 5 to 50, and
    border, 92, are for pictures of 572 pixels: at 128 the border would leave no place, and such discs would cover all.
    Here both are smaller, so that discs cover about a quarter of the picture.
    """

    def __init__(
        self,
        nx: int = 128,
        ny: int = 128,
        cnt: int = 10,
        sigma: float = 20,
        r_min: int = 5,
        r_max: int = 20,
        border: int = 20,
        squares: bool = False,
        rgb: bool = False,
        seed: int = 0,
    ) -> None:
        if not (0 <= 2 * border < min(nx, ny) and 0 < r_min < r_max and cnt >= 0 and sigma >= 0):
            raise ValueError("a border must leave a place in the middle, radii be positive and r_min less than r_max")
        self.nx, self.ny, self.cnt, self.sigma, self.r_min, self.r_max = nx, ny, cnt, sigma, r_min, r_max
        self.border, self.squares, self.rgb, self.seed = border, squares, rgb, seed

    def __call__(self, count: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pictures `first` to `first + count - 1`, and their masks."""
        made = [self.picture(index) for index in range(first, first + count)]
        return tuple(np.stack(arrays) for arrays in zip(*made, strict=True))

    def clean(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture `index` before the noise, grey levels [H, W] from 1 to 254, and its mask [H, W, classes]."""
        random = np.random.default_rng((self.seed, index))
        rows, columns = np.ogrid[: self.nx, : self.ny]
        grey, covered = np.ones((self.nx, self.ny)), np.zeros((3, self.nx, self.ny), dtype=bool)
        for _ in range(self.cnt):
            row, column = (random.integers(self.border, side - self.border) for side in (self.nx, self.ny))
            radius, level = random.integers(self.r_min, self.r_max), random.integers(1, 255)
            disc = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
            grey[disc], covered[1][disc] = level, True
        for _ in range(self.cnt // 2 if self.squares else 0):
            row, column = random.integers(self.nx), random.integers(self.ny)
            side, level = random.integers(self.r_min, self.r_max), random.integers(1, 255)
            square = np.s_[row : row + side, column : column + side]
            grey[square], covered[2][square], covered[1][square] = level, True, False
        covered[0] = ~covered.any(axis=0)
        return grey, np.moveaxis(covered[: 3 if self.squares else 2], 0, -1)

    def picture(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture `index` [H, W, C] in [0, 1], and its mask [H, W, classes]."""
        grey, mask = self.clean(index)
        noise = np.random.default_rng((self.seed, index, 1)).normal(scale=self.sigma, size=grey.shape)
        picture = grey + noise
        picture -= picture.min()
        picture /= picture.max() or 1
        if self.rgb:  # from blue over green to red
            import matplotlib  # takes a second, which the grey ones need not pay

            return matplotlib.colormaps["jet"](picture)[..., :3].astype(np.float32), mask
        return picture[..., None].astype(np.float32), mask


def channels_first(pictures: np.ndarray, masks: np.ndarray) -> tuple[Tensor, Tensor]:
    """[B, H, W, C] and [B, H, W, classes] as float tensors [B, C, H, W] and [B, classes, H, W]."""
    return tuple(torch.from_numpy(array).float().permute(0, 3, 1, 2).contiguous() for array in (pictures, masks))
