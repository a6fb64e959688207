"""A plain head with a mark, and a case of it."""

import numpy as np

from brainseg.case import Case, spacing_of

LPS = np.diag([-0.9, -0.9, 4.0, 1.0])


def head(shape=(40, 48, 12)):
    """A bright ellipsoid in LPS with a brighter mark at the patient's right, in front, high up."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    image = 100.0 * (x**2 + y**2 + 0.7 * z**2 < 0.8)
    mask = np.zeros(shape, np.uint8)
    mask[8:14, 10:18, 7:9] = 1
    return (image + 80 * mask).astype(np.float32), mask


def case_of(image, affine, *, known=True, name="phantom"):
    return Case(name, np.stack([image] * 3), affine, spacing_of(affine) if known else None, "nifti")
