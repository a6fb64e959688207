"""A synthetic patient, for the demo and the tests: made in memory, written as TIFF, NIfTI or DICOM."""

from brainseg.phantom.files import write_phantom_dicom, write_phantom_nifti, write_phantom_tiff
from brainseg.phantom.scan import Lesion, Phantom, make_phantom

__all__ = ["Lesion", "Phantom", "make_phantom", "write_phantom_dicom", "write_phantom_nifti", "write_phantom_tiff"]
