"""What is under a path: which patients, which series, which of them is the FLAIR, and why.

walk.py      the folders and files under a path
tiff.py      numbered TIFF slices and their masks
slices.py    pictures in images/ and masks/, each standing alone
matlab.py    the figshare set's own MATLAB files, one a slice, grouped by patient
volumes.py   NIfTI, MHA and NRRD, told apart by file name
headers.py   DICOM headers, read once and without pixels
choice.py    which DICOM series is the FLAIR, by its words and by its physics
segmentation.py   which DICOM SEG of a study is the ground truth
dicom.py     DICOM files to studies
search.py    find_patients: all of the above
"""

from brainseg.study.patient import Patient, Series
from brainseg.study.search import find_patients

__all__ = ["Patient", "Series", "find_patients"]
